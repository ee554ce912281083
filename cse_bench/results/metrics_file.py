"""Reading the metrics log of a run, without what is needed to write it."""

import csv
from pathlib import Path


def read_metrics(path: Path) -> list[tuple[int, str, float]]:
    """(step, metric, value) of every complete row; a row that a kill cut off is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        lines = file.readlines()
    # A row is complete when its line has ended: the first digits of a number are a number too.
    rows = csv.reader(line for line in lines if line.endswith("\n"))
    return [(int(row[0]), row[1], float(row[2])) for row in rows if len(row) == 3 and row[0].isdigit()]
