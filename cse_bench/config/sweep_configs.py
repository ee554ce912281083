"""The configs of a sweep's jobs, in a fraction of the time that composing each of them takes.

Hydra composes the config of every job from its files, tens of milliseconds each. Most jobs of a sweep differ in plain
values, though, which Hydra itself sets last, on the composed config. So each choice of groups is composed once here,
and values are set on a copy of it, in Hydra's way.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import DictConfig, OmegaConf, open_dict


class SweepConfigs:
    """Overrides of a job -> its config, without the part that is Hydra's own.

    Args:
        loader: Hydra's.
        master: the composed config of the sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job; equals Hydra's own."""
        parsed = [_parsed(text) for text in overrides]
        values = [override for override in parsed if self._sets_a_value(override)]
        rest = tuple(text for text, override in zip(overrides, parsed, strict=True) if override not in values)
        base = self._base(rest)
        if not all(_is_leaf(base, override) for override in values):
            return self._base(tuple(overrides))
        config = copy.deepcopy(base)
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        return config

    def _sets_a_value(self, override: Override) -> bool:
        """Whether the override is `key=value` with a plain value, not a choice of group, an addition or a deletion."""
        plain = not (
            override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override()
        )
        simple = override.value_type is ValueType.ELEMENT and not isinstance(override.value(), dict | list)
        group = override.package is not None or override.is_hydra_override() or self._is_group(override.key_or_group)
        return plain and simple and not group

    def _is_group(self, key: str) -> bool:
        """Whether the key chooses the option of a group, in one of our folders or of the user's."""
        if key not in self._groups:
            name, own = self._master.hydra.job.config_name, OmegaConf.to_container(self._master.hydra.overrides.hydra)
            assert isinstance(own, list)
            folders = [text for text in own if "searchpath" in text]  # of the user
            self._groups[key] = bool(self._loader.get_group_options(key, config_name=name, overrides=folders))
        return self._groups[key]

    def _base(self, overrides: tuple[str, ...]) -> DictConfig:
        if overrides not in self._composed:
            config = self._loader.load_sweep_config(self._master, list(overrides))
            with open_dict(config):
                del config["hydra"]
            self._composed[overrides] = config
        return self._composed[overrides]


@lru_cache(maxsize=4096)  # the jobs of a sweep share most of their overrides
def _parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _is_leaf(config: DictConfig, override: Override) -> bool:
    """Whether the override replaces one plain value that is there. Of all else Hydra decides what it means."""
    group, _, key = override.key_or_group.rpartition(".")
    node = OmegaConf.select(config, group) if group else config
    if not isinstance(node, DictConfig) or key not in node.keys():  # noqa: SIM118  # `in` follows references
        return False
    return not OmegaConf.is_config(node._get_node(key))
