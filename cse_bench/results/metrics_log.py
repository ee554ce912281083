"""The metrics log of a run: `metrics.csv` with one row per value, only ever appended to.

Long form (step, metric, value) needs no fixed set of columns, survives a kill at any byte, and goes on after a resume.
"""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from cse_bench.results.metrics_file import read_metrics
from cse_bench.results.run_directory import cannot_write, replacing

_HEADER = ("step", "metric", "value")


class MetricsLog(Logger):
    """Lightning logger that appends to `metrics.csv`.

    Args:
        path: the file.
        resume_step: keep only the rows up to this step of an earlier part of the run; 0 starts anew.
    """

    def __init__(self, path: Path, *, resume_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self._prepare(resume_step)

    @rank_zero_only
    def _prepare(self, resume_step: int) -> None:
        rows = [row for row in read_metrics(self.path) if row[0] <= resume_step] if resume_step else []
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            writer.writerows(rows)

    @property
    def name(self) -> str:
        """Lightning asks for it."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks for it."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends one row per metric.

        Raises:
            ConfigError: the file cannot be written.
        """
        rows = [(step, name, repr(float(value))) for name, value in metrics.items() if name != "epoch"]
        try:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerows(rows)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved config is in `config.yaml`; nothing to do here."""
