"""The leak-free set: its rules on small inputs, its table on the real files."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cse_bench.errors import DataError
from cse_bench.evaluation.sts_files import Pairs, STSFiles
from cse_bench.evaluation.sts_overlap import OVERLAP, Copy, PairKey, assert_counts, classify, pair_key
from cse_bench.evaluation.sts_tables import TEST_PAIRS

KEPT, IN_DEV, REPEATED, ELSEWHERE = Copy.KEPT, Copy.IN_DEV, Copy.REPEATED, Copy.ELSEWHERE


def keys(letters: str) -> list[PairKey]:
    return [(letter, letter) for letter in letters]


def keys_of(pairs: Pairs) -> list[PairKey]:
    return [pair_key(left, right) for left, right in zip(pairs.left, pairs.right, strict=True)]


def test_pairs_are_compared_by_letters_and_digits_in_either_order() -> None:
    assert pair_key("a man 's hat .", "No. 7 hats") == pair_key("no 7 Hats", "A mans hat")
    assert pair_key("a man", "a hat") != pair_key("a man", "a cat")
    assert pair_key("about 7", "a hat") != pair_key("about 8", "a hat")


def test_smaller_task_keeps_a_shared_pair() -> None:
    decided = classify({"large": keys("xabcd"), "small": keys("bca")}, held_out=keys("c"))
    assert decided == {
        "large": [KEPT, ELSEWHERE, ELSEWHERE, IN_DEV, KEPT],
        "small": [KEPT, IN_DEV, KEPT],
    }
    assert list(decided) == ["large", "small"]


def test_first_row_of_a_task_keeps_a_repeated_pair() -> None:
    decided = classify({"small": keys("aba"), "large": keys("aacc")}, held_out=[])
    assert decided == {"small": [KEPT, KEPT, REPEATED], "large": [ELSEWHERE, ELSEWHERE, KEPT, REPEATED]}


@given(st.lists(st.text("abcdef", max_size=12), min_size=1, max_size=4), st.text("abcdef", max_size=3))
def test_every_distinct_pair_outside_dev_is_kept_exactly_once(tasks: list[str], dev: str) -> None:
    decided = classify({str(i): keys(letters) for i, letters in enumerate(tasks)}, held_out=keys(dev))
    kept = [
        letter
        for i, letters in enumerate(tasks)
        for letter, copy in zip(letters, decided[str(i)], strict=True)
        if copy is KEPT
    ]
    assert sorted(kept) == sorted(set("".join(tasks)) - set(dev))


def test_another_set_than_the_table_is_refused() -> None:
    copies = [copy for copy, number in OVERLAP["sts16"].items() for _ in range(number)]
    assert_counts({"sts16": copies})
    with pytest.raises(DataError, match="sts16: found 1162 kept, .* expected 1163 kept"):
        assert_counts({"sts16": copies[1:]})


def test_table_adds_up() -> None:
    assert {task: sum(counts.values()) for task, counts in OVERLAP.items()} == TEST_PAIRS
    shares = {task: counts[KEPT] / TEST_PAIRS[task] for task, counts in OVERLAP.items()}
    assert min(shares.values()) > 0.73


def test_real_overlap(shared_data: Path) -> None:
    """The table, found again by counting pairs in plain loops over the tasks."""
    files = STSFiles(data=str(shared_data), cache="unused")
    dev = set(keys_of(files.benchmark("dev")))
    tasks = {task: [key for pairs in files.test(task) for key in keys_of(pairs)] for task in TEST_PAIRS}
    decided = classify(tasks, held_out=list(dev))
    assert_counts(decided)
    by_size = sorted(tasks, key=lambda task: TEST_PAIRS[task])
    assert by_size == ["sts16", "stsb", "sts13", "sts15", "sts12", "sts14", "sickr"]
    smaller: set[PairKey] = set()
    for task in by_size:
        rows = tasks[task]
        outside = [key for key in rows if key not in dev]
        new = set(outside) - smaller
        assert OVERLAP[task][IN_DEV] == len(rows) - len(outside)
        assert OVERLAP[task][KEPT] == len(new)
        assert OVERLAP[task][REPEATED] == sum(Counter(outside)[key] - 1 for key in new)
        assert OVERLAP[task][ELSEWHERE] == sum(key in smaller for key in outside)
        smaller |= new
    assert all(
        key not in dev for task in tasks for key, copy in zip(tasks[task], decided[task], strict=True) if copy is KEPT
    )
    stsb_again = set().union(*(tasks[f"sts{year}"] for year in range(12, 17)))
    assert sum(key in stsb_again for key in tasks["stsb"]) == 1007
