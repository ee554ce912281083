"""`make bench`: runs every benchmark and prints its table."""

from benchmarks import length_split, token_store


def main() -> None:
    """All benchmarks, the quick one first."""
    length_split.main()
    token_store.main()


if __name__ == "__main__":
    main()
