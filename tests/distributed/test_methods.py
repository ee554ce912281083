"""Two processes with b sentences each train exactly as one process with 2b: same loss, same gradient everywhere.

For every method, over two steps, so that the state which a method keeps (a queue, say) counts. That the comparison
notices a gather that is wrong is shown in test_faulty_gather.py.
"""

from pathlib import Path

import pytest

from tests.distributed.pool import Ranks
from tests.distributed.steps import Setting, assert_same, steps_of_one_process, steps_of_rank
from tests.methods.every import METHODS

WHOLE = ("cse_sfp", "jtcse_distil")  # rows that are mostly prompt, or too few: no pieces worth having
SETTINGS = {
    "plain": Setting(),
    "uneven, in pieces, accumulated": Setting(sizes=(25, 23), split=True, accumulate=True),
    "very uneven, cached": Setting(sizes=(44, 4), split=True, cache_rows=8),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one(ranks: Ranks, mined: Path, method: str, setting: str) -> None:
    given = SETTINGS[setting]
    found = ranks.run(steps_of_rank, method, mined, given)
    assert_same(found, steps_of_one_process(method, mined))
    in_pieces = given.cache_rows is not None or (given.split and method not in WHOLE)
    assert (max(one.forwards for one in found) > 2) == in_pieces
