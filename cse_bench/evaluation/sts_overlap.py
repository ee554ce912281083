"""Which test pairs make the leak-free STS score, and why the others do not.

The seven test sets overlap with STS-B dev, on which checkpoints are selected, and with each other, because STS-B is
drawn from the annual tasks: 1149 of the 18850 test rows are in STS-B dev (all of the answers-forums sub-set of STS15
among them), and 1007 of the 1379 rows of STS-B test are scored again in STS12-16. The classic average thus scores
pairs that chose the checkpoint, and counts others twice.

Definition of the leak-free set:

1. Two pairs are the same when both sentences agree in their letters and digits, case ignored, in either order.
2. A pair that occurs in STS-B dev is left out of every task.
3. Every other pair counts once. Of several copies the one in the task with the fewest pairs is kept (in the order
   STS16, STS-B, STS13, STS15, STS12, STS14, SICK-R), within a task the first in file order, with its own grade.

Rule 3 keeps a shared pair where it weighs most, and every task keeps more than 73 % of its rows. In the order of the
years, STS-B would shrink to 371 rows (27 %). Rule 3 also removes repetitions within a task (211 rows of STS12, where
several translation systems gave the same sentence). Pairs that share only one sentence with STS-B dev stay.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from cse_bench.errors import DataError

PairKey = tuple[str, str]

_OTHERS = re.compile(r"[\W_]+")  # what is neither a letter nor a digit


class Copy(Enum):
    """What becomes of one row of a test task."""

    KEPT = "kept"
    IN_DEV = "also in STS-B dev"
    REPEATED = "repeats an earlier row of its task"
    ELSEWHERE = "kept in a smaller task"


# Rows per task, counted on SentEval's files. Asserted at run time: the leak-free score of two versions is comparable
# only on equal sets.
OVERLAP: dict[str, dict[Copy, int]] = {
    "sts12": {Copy.KEPT: 2355, Copy.IN_DEV: 259, Copy.REPEATED: 211, Copy.ELSEWHERE: 283},
    "sts13": {Copy.KEPT: 1346, Copy.IN_DEV: 81, Copy.REPEATED: 1, Copy.ELSEWHERE: 72},
    "sts14": {Copy.KEPT: 3163, Copy.IN_DEV: 193, Copy.REPEATED: 47, Copy.ELSEWHERE: 347},
    "sts15": {Copy.KEPT: 2207, Copy.IN_DEV: 580, Copy.REPEATED: 11, Copy.ELSEWHERE: 202},
    "sts16": {Copy.KEPT: 1163, Copy.IN_DEV: 22, Copy.REPEATED: 1, Copy.ELSEWHERE: 0},
    "stsb": {Copy.KEPT: 1089, Copy.IN_DEV: 4, Copy.REPEATED: 1, Copy.ELSEWHERE: 285},
    "sickr": {Copy.KEPT: 4860, Copy.IN_DEV: 10, Copy.REPEATED: 20, Copy.ELSEWHERE: 37},
}


def pair_key(left: str, right: str) -> PairKey:
    """What identifies a pair: letters and digits of both sentences, lower-cased, the smaller sentence first.

    The same pair is cased in SICK and lower-cased in STS, tokenised differently, and turned round in some copies.
    """
    one, two = _letters_and_digits(left), _letters_and_digits(right)
    return (one, two) if one <= two else (two, one)


def classify(tasks: Mapping[str, Sequence[PairKey]], held_out: Sequence[PairKey]) -> dict[str, list[Copy]]:
    """What becomes of each row of each task, by the definition above.

    Args:
        tasks: Keys of the rows in file order, by task.
        held_out: Keys of the pairs to leave out everywhere.

    Returns:
        One `Copy` per row, by task, in the order of `tasks`.
    """
    leaked = set(held_out)
    kept: set[PairKey] = set()
    decided: dict[str, list[Copy]] = {}
    for task in sorted(tasks, key=lambda name: len(tasks[name])):
        own: set[PairKey] = set()
        decided[task] = []
        for key in tasks[task]:
            if key in leaked:
                copy = Copy.IN_DEV
            elif key in own:
                copy = Copy.REPEATED
            elif key in kept:
                copy = Copy.ELSEWHERE
            else:
                copy = Copy.KEPT
                own.add(key)
            decided[task].append(copy)
        kept |= own
    return {task: decided[task] for task in tasks}


def assert_counts(decided: Mapping[str, Sequence[Copy]]) -> None:
    """Compares with `OVERLAP`.

    Raises:
        DataError: The leak-free set is not the one of the table.
    """
    for task, copies in decided.items():
        counts = Counter(copies)
        found = {copy: counts[copy] for copy in Copy}
        if found != OVERLAP[task]:
            raise DataError(
                f"leak-free set of {task}: found {_words(found)}, expected {_words(OVERLAP[task])}; "
                "the texts or the matching changed, so raise the task's version together with the table"
            )


def _letters_and_digits(sentence: str) -> str:
    return _OTHERS.sub("", sentence.lower())


def _words(counts: Mapping[Copy, int]) -> str:
    return ", ".join(f"{number} {copy.value}" for copy, number in counts.items())
