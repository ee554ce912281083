"""`make bench`: runs every benchmark and prints its table."""

from benchmarks import collect_runs, length_split, token_store


def main() -> None:
    """The benchmarks that need nothing else, the quick ones first."""
    collect_runs.main()
    length_split.main()
    token_store.main()


if __name__ == "__main__":
    main()
