"""The table of published scores (`published.yaml`): its schema, and reading it."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cse_bench.errors import ConfigError

TABLE = Path(__file__).with_name("published.yaml")


class Published(BaseModel):
    """One entry of the table; what the fields mean is said at the top of `published.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    backbone: str
    kind: Literal["paper", "reproduction", "ours"]
    source: str = Field(min_length=1)
    metrics: dict[str, float] = Field(min_length=1)
    seeds: int | None = Field(ge=1)
    certain: bool
    variant: str | None = None
    sd: dict[str, float] = {}
    seed_list: tuple[int, ...] = ()
    deterministic: bool = False
    when: dict[str, Any] = {}
    conditions: dict[str, Any] = {}
    details: dict[str, Any] = {}
    differs: tuple[str, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Published":
        if self.sd and (self.seeds or 1) < 2:
            raise ValueError("a standard deviation needs seeds of 2 or more")
        if not self.sd.keys() <= self.metrics.keys() or any(sd <= 0 for sd in self.sd.values()):
            raise ValueError("sd holds a positive number for metrics of the entry, and nothing else")
        if self.seed_list and len(self.seed_list) != self.seeds:
            raise ValueError("seed_list names as many seeds as seeds says")
        if not self.certain and not self.note:
            raise ValueError("an uncertain entry says why in its note")
        return self


@cache
def published(path: Path = TABLE) -> tuple[Published, ...]:
    """The entries of the table, each with the conditions of its settings.

    Raises:
        ConfigError: the file is not what it should be.
    """
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    entries = []
    for number, raw in enumerate(content["entries"]):
        conditions: dict[str, Any] = {}
        try:
            for name in raw.pop("settings", []):
                conditions |= dict(_leaves(content["settings"][name]))
            conditions |= dict(_leaves(raw.pop("conditions", {})))
            entries.append(Published(**raw, conditions=conditions))
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"{path.name}: entry {number} ({raw.get('source', 'no source')}): {error}") from error
    return tuple(entries)


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of all below; `{any: [...]}` is a value."""
    for key, item in value.items():
        below = f"{path}.{key}" if path else str(key)
        if isinstance(item, Mapping) and "any" not in item:
            yield from _leaves(item, below)
        else:
            yield below, item
