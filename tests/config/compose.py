"""Composing configs in tests, as the command line does."""

from omegaconf import DictConfig

from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.config.validate import validate_run


def composed(*overrides: str) -> DictConfig:
    """The config of a command line."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def validated(*overrides: str) -> RunConfig:
    """The checked config of a command line."""
    return validate_run(composed(*overrides))
