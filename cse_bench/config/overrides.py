"""A first look at the command line: unknown keys and options are named, with the nearest valid one.

Hydra stops at the first bad override and does not guess. This reads the same arguments with Hydra's own parser,
compares them with what the config holds, and reports all problems together.
"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cse_bench.config.composition import hydra_of
from cse_bench.config.messages import Problem, nearest

# Keys that are known elsewhere and mean something that is done otherwise here.
_OTHERWISE = {
    "trainer.accumulate_grad_batches": "not here: a sentence would have the negatives of its own part of the batch "
    "only; data.global_batch_size with data.gradient_cache_rows gives the whole batch in as little memory"
}


# Launchers and sweepers that are packages of their own, and the extra of ours that installs them.
_PLUGINS = {
    "joblib": ("hydra_joblib_launcher", "sweep"),
    "submitit_local": ("hydra_submitit_launcher", "sweep"),
    "submitit_slurm": ("hydra_submitit_launcher", "sweep"),
    "ray": ("hydra_ray_launcher", "ray"),
    "ray_aws": ("hydra_ray_launcher", "ray"),
    "tune": ("optuna", "tune"),
}


def _plugin_problem(override: Override) -> Iterator[Problem]:
    """A launcher or sweeper that is known and not installed."""
    key, value = override.key_or_group, str(override.value())
    if key not in ("hydra/launcher", "hydra/sweeper") or value not in _PLUGINS:
        return
    package, extra = _PLUGINS[value]
    if find_spec(package) is None and not _has_plugin(package):
        yield Problem(key, f"'{value}' is not installed; pip install 'cse_bench[{extra}]'")


def _has_plugin(package: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{package}") is not None
    except ModuleNotFoundError:
        return False


def _overrides(arguments: Sequence[str]) -> list[str]:
    """The override arguments, without flags and their values."""
    with_value = {
        "--config-dir",
        "-cd",
        "--config-name",
        "-cn",
        "--config-path",
        "-cp",
        "--cfg",
        "-c",
        "--package",
        "-p",
    }
    with_value |= {"--info", "-i", "--experimental-rerun"}
    found: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument.startswith("-"):
            skip = argument in with_value
        else:
            found.append(argument)
    return found


def _own_folders(arguments: Sequence[str]) -> list[Path]:
    """The config folders that the user gives beside ours (`--config-dir DIR`)."""
    found = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(Path(value or following).expanduser().absolute())
    return found


def _groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Group name -> its options, from the folders of configs."""
    groups: dict[str, set[str]] = {}
    for conf in folders:
        for file in conf.rglob("*.yaml"):
            groups.setdefault(str(file.parent.relative_to(conf)), set()).add(file.stem)
    return {group: sorted(options) for group, options in groups.items() if group != "."}


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all keys below a config node; references are not followed."""
    if isinstance(config, DictConfig):
        for key in map(str, config):
            yield f"{prefix}{key}"
            if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
                yield from _keys(config._get_node(key), f"{prefix}{key}.")


def _choices(override: Override) -> list[Any]:
    """The values an override takes; a sweep takes several (a glob is left to Hydra)."""
    if override.is_sweep_override():
        if override.is_choice_sweep():
            return [str(value) for value in override.sweep_iterator()]
        return []
    return [override.value()]


def check_overrides(arguments: Sequence[str], *, conf: Path, config_name: str) -> list[Problem]:
    """All that is wrong with the override arguments, as far as the files under `conf` tell.

    Args:
        arguments: the command line without the program's name.
        conf: the config folder.
        config_name: the primary config.
    """
    problems: list[Problem] = []
    own = _own_folders(arguments)
    problems += [Problem("--config-dir", f"there is no directory {path}") for path in own if not path.is_dir()]
    groups = _groups([conf, *own])
    group_choices: list[str] = []
    plain: list[Override] = []
    for text in _overrides(arguments):
        if "=" not in text and not text.startswith("~"):
            problems.append(Problem(text, f"not an override; write {text}=VALUE (flags start with --)"))
            continue
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            problems.append(
                Problem(
                    text, f"cannot be parsed: {str(error).splitlines()[0]}; quote special characters: 'key=\"value\"'"
                )
            )
            continue
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            problems += _plugin_problem(override)
            continue
        if key in groups:
            options = groups[key]
            for choice in _choices(override):
                if choice is not None and str(choice) not in options:
                    hint = nearest(str(choice), options)
                    problems.append(Problem(key, f"no option '{choice}'{hint} (options: {', '.join(options)})"))
                elif not override.is_sweep_override():
                    group_choices.append(text)
        else:
            plain.append(override)
    if plain:
        known = list(_keys(_compose(conf, config_name, group_choices, own=own)))
        for override in plain:
            key = override.key_or_group
            # `+key` adds to an open group; what the group accepts is its schema's business, later.
            added = override.is_add() and key.rpartition(".")[0] in known
            if key in _OTHERWISE:
                problems.append(Problem(key, _OTHERWISE[key]))
            elif key not in known and not added:
                problems.append(Problem(key, f"unknown key{nearest_key(key, [*known, *groups])}"))
    return problems


def nearest_key(key: str, known: Sequence[str]) -> str:
    """What may have been meant: the closest key of the same group, else that group's keys, else the closest of all."""
    group, _, last = key.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == group]
    if hint := nearest(last, [name.rpartition(".")[2] for name in siblings]):
        return hint.replace("'", f"'{group}.", 1) if group else hint
    if group and siblings:
        return f"; known keys here: {', '.join(sorted(siblings))}"
    if same_name := [name for name in known if name.rpartition(".")[2] == last]:
        return f"; did you mean '{same_name[0]}'?"
    hint = nearest(key, known)
    return hint or (f"; known keys here: {', '.join(sorted(siblings))}" if siblings else "")


def searched(own: Sequence[Path]) -> list[str]:
    """The override by which Hydra looks into config folders of the user's own, too; none where there are none."""
    return ["hydra.searchpath=[" + ",".join(f"'file://{path}'" for path in own) + "]"] if own else []


def _compose(conf: Path, config_name: str, group_choices: list[str], *, own: Sequence[Path]) -> DictConfig:
    """The config with the valid group choices, or the default one when they do not compose together."""
    group_choices = [*group_choices, *searched(own)]
    with hydra_of(conf):
        try:
            return compose(config_name, overrides=group_choices)
        except HydraException:
            return compose(config_name)
