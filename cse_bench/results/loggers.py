"""The loggers of a config, beside the metrics log that every run has."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from cse_bench.config.bind import build, locate
from cse_bench.config.identity import group_identity
from cse_bench.config.schema import RunConfig
from cse_bench.results.run_directory import RunDirectory, method_name


def extra_loggers(config: RunConfig, directory: RunDirectory) -> list[Logger]:
    """One for each entry of `logger`, told where the run belongs.

    Args:
        config: checked config.
        directory: of the run.
    """
    if not config.logger:
        return []
    method = method_name(config)
    kind = locate(config.method.target)
    fingerprint = build(config.data.corpus).fingerprint() if kind.reads_corpus(config) else None
    repetitions = group_identity(config, corpus_fingerprint=fingerprint)[:10]
    # What a dashboard groups and labels by: runs with the same `repetitions` differ by their seed alone, while a study
    # may hold one method with several settings.
    about = {
        "method": method,
        "status": kind.status,
        "backbone": config.backbone.name,
        "study": config.study,
        "repetitions": f"{method}-{config.backbone.name}-{repetitions}",
    }
    shared: dict[str, Any] = {
        "directory": directory.path,
        "name": directory.name,
        "group": config.study or about["repetitions"],
        "method": method,
        "config": config.model_dump(mode="json", by_alias=True) | {"run": about},
    }
    return [build(component, **shared) for component in config.logger.values()]


def close_loggers(loggers: Iterable[Logger], *, failed: bool = False) -> None:
    """Ends what the loggers hold open; the next run of a sweep opens its own.

    Args:
        loggers: of `extra_loggers`.
        failed: the run did not get to its end.
    """
    for logger in loggers:
        if callable(close := getattr(logger, "close", None)):
            close(failed=failed)
