"""Progress bars for what takes longer than a moment: tokenising, training, encoding."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(what: str, *, unit: str, total: int | None = None, done: int = 0, delay_s: float = 0.0) -> "tqdm[Any]":
    """A bar on standard error; into a log file, where every refresh is a line, it is refreshed rarely.

    Args:
        what: stands before the bar.
        unit: of the count.
        total: None: not known.
        done: count to start at.
        delay_s: nothing is shown for what takes less than this.
    """
    return tqdm(
        desc=what,
        unit=unit,
        total=total,
        initial=done,
        delay=delay_s,
        leave=delay_s == 0,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
        unit_scale=total is None,
    )
