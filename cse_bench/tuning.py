"""Searching hyper-parameters: a thin layer between Optuna's ask and tell and the jobs of a sweep.

A trial is a set of runs that differ by the seed, its value the mean of their selection metric on dev data. Runs are
found again by their identity, so a search that was stopped loses at most what its last runs had not saved.
"""

import hashlib
import json
import math
import os
import socket
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from cse_bench.config.identity import corpus_fingerprint, group_identity
from cse_bench.config.schema import RunConfig
from cse_bench.config.sweep_configs import SweepConfigs
from cse_bench.config.validate import validate_run
from cse_bench.errors import ConfigError
from cse_bench.results.tables import print_lines

Launch = Callable[[list[list[str]], int], Sequence[JobReturn]]
_PROCESS = "process"  # of a trial: host and process id, to tell a trial that runs from one that was killed
_DEFINITION = "definition"  # of a study: a hash of space, seeds and everything fixed


class Settings(Protocol):
    """What `conf/hydra/sweeper/tune.yaml` says; see `hydra_plugins.cse_bench_sweeper.tune.Tune`."""

    config: DictConfig
    trials: int
    seeds: Sequence[int] | None
    parallel_trials: int
    sampler_seed: int | None
    study: str | None
    storage: str


def search(settings: Settings, arguments: Sequence[str], *, loader: ConfigLoader, launch: Launch) -> dict[str, Any]:
    """Asks, runs and tells until the study has its trials.

    Args:
        settings: of the search.
        arguments: overrides; those with several values are the space, the others stay fixed.
        loader: Hydra's.
        launch: runs jobs; takes the overrides of each and the number of the first.

    Returns:
        The best trial's `params` and `value`.

    Raises:
        ConfigError: a space, a seed or a study that does not fit, or so many trials failed that some are missing.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    overrides = {one.get_key_element(): one for one in parsed}.items()  # of a key given twice the last counts
    space = {key: distribution(one) for key, one in overrides if one.is_sweep_override()}
    fixed = [str(one.input_line) for _, one in overrides if not one.is_sweep_override()]
    _check(settings, space)
    config = validate_run(SweepConfigs(loader, settings.config)(fixed), here=False)
    if config.dry_run:
        raise ConfigError(
            "dry_run=true: there is no score to search by without running; leave out hydra/sweeper=tune and give one "
            "value for each key to see the plan of a run"
        )
    metric = config.evaluation.selection_metric
    if metric is None:
        raise ConfigError("evaluation.selection_metric is null, so there is no score to search by; name a dev metric")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _open(settings, config, space)
    launched = failed = 0
    # As many failures as there shall be trials are enough: then something else is wrong than values.
    while (left := settings.trials - _finished(study)) > 0 and failed < settings.trials:
        trials = [_ask(study, space) for _ in range(min(left, settings.parallel_trials))]
        seeds = [[f"seed={seed}"] for seed in settings.seeds] if settings.seeds else [[]]
        jobs = [[*fixed, *_values(trial.params), *seed] for trial in trials for seed in seeds]
        try:
            returns = launch(jobs, launched)
        except BaseException:
            for trial in trials:  # asked again by the next launch, which finds or goes on with the runs
                _give_back(study, trial.number, trial.params)
            raise
        launched += len(jobs)
        for number, trial in enumerate(trials):
            own = returns[number * len(seeds) : (number + 1) * len(seeds)]
            failure = _tell(study, trial, own, of=settings.trials, metric=metric)
            failed += failure is not None
    if not (finished := _finished(study)):
        raise ConfigError(f"no trial of {study.study_name} gave a score; the last failure: {failure}")
    best = study.best_trial
    print_lines(
        [
            f"best of {finished} trials of {study.study_name}: {best.value:.4f} ({metric}, dev data) with "
            + " ".join(_values(best.params)),
            "the score that was searched for is too good a guess of what it promises: run the values with other seeds",
        ]
    )
    if finished < settings.trials:
        raise ConfigError(
            f"{study.study_name} was given up after {failed} failed trials: {finished} of {settings.trials} have "
            f"finished. The last failure: {failure}. Leave what fails out of the space, or run the same command again "
            "for the trials that are missing"
        )
    return {"params": dict(best.params), "value": best.value}


def distribution(override: Override) -> BaseDistribution:
    """What Optuna draws from, in Hydra's words for sweeps.

    `interval(a,b)`: real numbers, `int(interval(a,b))`: whole ones; `tag(log,...)` around either: logarithmic;
    `range(a,b,step)`: whole numbers, `b` excluded; `choice(x,y)` or `x,y`, ranges of fractions and globs: categories.

    Raises:
        ConfigError: an interval that holds nothing, or a logarithm of zero.
    """
    given, key = override.value(), override.get_key_element()
    try:
        if isinstance(given, IntervalSweep):
            assert given.start is not None
            assert given.end is not None
            log = "log" in given.tags
            if isinstance(given.start, int) and isinstance(given.end, int):
                return IntDistribution(given.start, given.end, log=log)
            return FloatDistribution(float(given.start), float(given.end), log=log)
        if isinstance(given, RangeSweep) and isinstance(found := given.range(), range) and found.step > 0:
            return IntDistribution(found[0], found[-1], step=found.step)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{key}: {override.input_line} is no space to search ({error})") from error


def _check(settings: Settings, space: dict[str, BaseDistribution]) -> None:
    if not space:
        raise ConfigError(
            "hydra/sweeper=tune: nothing to search; give a key several values, e.g. "
            "'optimizer.lr=tag(log,interval(1e-5,1e-3))' or method.temperature=0.03,0.05"
        )
    if "seed" in space:
        raise ConfigError("seed: the luckiest seed is no finding; give hydra.sweeper.seeds=[0,1,2], whose mean counts")
    for key, least in (("trials", 1), ("parallel_trials", 1)):
        if getattr(settings, key) < least:
            raise ConfigError(f"hydra.sweeper.{key}: must be at least {least}, got {getattr(settings, key)}")


def _open(settings: Settings, config: RunConfig, space: dict[str, BaseDistribution]) -> optuna.Study:
    """The study, new or of earlier launches.

    Raises:
        ConfigError: a study of this name is there, and another one.
    """
    content = {
        "fixed": group_identity(config, corpus_fingerprint=corpus_fingerprint(config)),
        "space": {key: repr(value) for key, value in sorted(space.items())},
        "seeds": list(settings.seeds) if settings.seeds else config.seed,
    }
    definition = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    study = optuna.create_study(
        study_name=settings.study or f"tune-{definition[:10]}",
        storage=_storage(settings.storage),
        direction="maximize",
        load_if_exists=True,
    )
    seed = None if settings.sampler_seed is None else settings.sampler_seed + len(study.trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of Optuna 4
        # Trials that are still running count as bad ones, so that parallel trials do not ask for the same again.
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    if study.user_attrs.setdefault(_DEFINITION, definition) != definition:
        raise ConfigError(
            f"hydra.sweeper.study: {study.study_name} was begun with another space, other seeds or other fixed "
            "settings or data; give another name, or leave it null"
        )
    study.set_user_attr(_DEFINITION, definition)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if _was_killed(trial):
            _give_back(study, trial.number, trial.params)
    return study


def _storage(given: str) -> optuna.storages.BaseStorage | str:
    """A URL as it is; a file as Optuna's journal, which several processes may write."""
    if "://" in given:
        return given
    path = Path(given).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def _ask(study: optuna.Study, space: dict[str, BaseDistribution]) -> Trial:
    trial = study.ask(space)
    trial.set_user_attr(_PROCESS, [socket.gethostname(), os.getpid()])
    return trial


def _tell(study: optuna.Study, trial: Trial, returns: Sequence[JobReturn], *, of: int, metric: str) -> str | None:
    """Tells the mean score, or that a run failed; the reason of a failure."""
    failures = [str(job._return_value) for job in returns if job.status is not JobStatus.COMPLETED]
    scores = [] if failures else [float(job.return_value) for job in returns]
    if not all(math.isfinite(score) for score in scores):
        failures = [f"{metric} is not finite"]
    if failures:
        study.tell(trial, state=TrialState.FAIL)
        print_lines([f"trial {trial.number} failed: {failures[0]}"])
        return failures[0]
    study.tell(trial, statistics.fmean(scores))
    spread = f", standard deviation {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    done = f"trial {trial.number} ({_finished(study)} of {of}): {statistics.fmean(scores):.4f}{spread}"
    print_lines([f"{done} with {' '.join(_values(trial.params))}"])
    return None


def _values(params: dict[str, Any]) -> list[str]:
    """As overrides; categories are in Hydra's notation already."""
    return [f"{key}={value}" for key, value in params.items()]


def _finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))


def _give_back(study: optuna.Study, number: int, params: dict[str, Any]) -> None:
    """Ends a trial without a score and has its values asked for first next time."""
    study.tell(number, state=TrialState.FAIL)
    study.enqueue_trial(params)


def _was_killed(trial: FrozenTrial) -> bool:
    """Whether the process of an unfinished trial was on this machine and is gone; elsewhere nothing is known."""
    host, process = trial.user_attrs.get(_PROCESS, (None, 0))
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
