"""Short names for groups of runs: the method, and where several have the same one, the settings that set them apart."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Where things are kept says nothing about a run, and the seed is what the runs of one group differ by.
_NOT_SHOWN = ("seed", "paths.", "logger.", "overwrite", "study", "data.path", "method._target_")
_SETTINGS_SHOWN = 3


def varying_settings(results: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """`key=value` for what a run's config says that another one's does not.

    Args:
        results: content of the run's `results.json`.
        others: of the runs to tell it from; may hold the run itself.
    """
    configs = [dict(_leaves(other.get("config", {}))) for other in others]
    return [
        f"{key}={value}"
        for key, value in _leaves(results.get("config", {}))
        if not key.startswith(_NOT_SHOWN) and any(config.get(key) != value for config in configs)
    ]


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
