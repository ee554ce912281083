"""Short names for groups of runs: the method, and where several have the same one, the settings that set them apart."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cse_bench.config.identity import deciding

# The seed is what the runs of one group differ by; the class of a method is told by its name.
_NOT_SHOWN = ("seed", "method._target_")
_SETTINGS_SHOWN = 3
_ABSENT = object()


def varying_settings(results: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """`key=value` for what decides a run's numbers and is otherwise in another one.

    Args:
        results: content of the run's `results.json`.
        others: of the runs to tell it from; may hold the run itself.
    """
    own, configs = _settings(results), [_settings(other) for other in others]
    keys = dict.fromkeys([*own, *(key for config in configs for key in config)])
    varying = [key for key in keys if any(config.get(key, _ABSENT) != own.get(key, _ABSENT) for config in configs)]
    return [f"{key}={_written(own[key])}" if key in own else f"{key}=absent" for key in varying]


def _written(value: Any) -> str:
    """A value as it is given on the command line, in as far as it is a word there."""
    return "null" if value is None else str(value)


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    content = deciding(results.get("config", {}), trains=bool(results.get("steps")))
    return {key: value for key, value in _leaves(content) if key not in _NOT_SHOWN}


def labels(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """One name for each group, all different.

    Args:
        groups: `results.json` of one run of each, of different groups.
    """
    methods = [str(results["method"]["name"]) for results in groups]
    names = []
    for results, method in zip(groups, methods, strict=True):
        same = [other for other, name in zip(groups, methods, strict=True) if name == method]
        settings = [_last_part(setting) for setting in varying_settings(results, same)[:_SETTINGS_SHOWN]]
        names.append(f"{method} ({', '.join(settings)})" if settings else method)
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name} {str(results['group'])[:8]}"
        for results, name in zip(groups, names, strict=True)
    ]


def _last_part(setting: str) -> str:
    key, _, value = setting.partition("=")
    return f"{key.rpartition('.')[2]}={value}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
