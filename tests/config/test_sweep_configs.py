"""Configs of a sweep's jobs: composed once per choice of groups, and equal to Hydra's own."""

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from cse_bench.config.location import conf_directory
from cse_bench.config.sweep_configs import SweepConfigs

Hydra = tuple[ConfigLoader, DictConfig]


@pytest.fixture(scope="module")
def hydra() -> Iterator[Hydra]:
    """Hydra's loader and the master config of a sweep."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader(), compose("config", return_hydra_config=True)


def content(config: DictConfig) -> Any:
    return OmegaConf.to_container(config)  # references as such: they must be the same, too


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3"],
        ["seed=3", "optimizer.lr=1e-4", "trainer.max_steps=7"],
        ["method=esimcse", "method.temperature=0.1"],
        ["method.temperature=0.1", "method=esimcse"],  # a value before the choice of its group
        ["backbone=roberta_base", "optimizer.lr=2e-5"],  # a recipe comes with the pair
        ["adapter=lora", "backbone=tiny_llama", "method=cse_sfp"],
        ["data=text_file", "data.path=a b.txt", "seed=1"],
        ["study=null", "study=x"],
        ["study='a=b,c'"],
        ["precision=32"],
        ["optimizer.betas=[0.5,0.6]"],
        ["optimizer={lr:1e-3,eps:1e-6}", "optimizer.lr=1e-2"],
        ["backbone.dropout=0.2"],
        ["+evaluation.dev.more={_target_:tests.tiny.PairScore,split:dev}", "evaluation.selection_metric=null"],
        ["~evaluation.test.sts", "seed=1"],
        ["++trainer.enable_progress_bar=false"],
        ["experiment=quickstart", "trainer.max_steps=3"],
        ["paths.data=elsewhere", "seed=${trainer.max_steps}"],
        [],
    ],
)
def test_configs_equal_those_of_hydra(hydra: Hydra, overrides: list[str]) -> None:
    loader, master = hydra
    expected = loader.load_sweep_config(master, overrides)
    OmegaConf.set_struct(expected, False)
    del expected["hydra"]
    configs = SweepConfigs(loader, master)
    for _ in range(2):  # the second one from memory
        assert content(configs(overrides)) == content(expected)


def test_values_do_not_stay(hydra: Hydra) -> None:
    configs = SweepConfigs(*hydra)
    assert [configs([f"seed={seed}"]).seed for seed in (5, 6)] == [5, 6]
    assert configs(["optimizer.lr=1"]).seed == 42


def test_each_choice_of_groups_is_composed_once(hydra: Hydra) -> None:
    configs = SweepConfigs(*hydra)
    for method in ("simcse", "esimcse"):
        for seed in range(5):
            configs([f"method={method}", "trainer.max_steps=3", f"seed={seed}"])
    assert list(configs._composed) == [("method=simcse",), ("method=esimcse",)]


@pytest.mark.parametrize("overrides", [["sede=1"], ["seed.x=1"], ["method=no_such"], ["+seed=1"]])
def test_what_hydra_refuses_is_refused(hydra: Hydra, overrides: list[str]) -> None:
    loader, master = hydra
    with pytest.raises(Exception) as theirs:
        loader.load_sweep_config(master, overrides)
    with pytest.raises(type(theirs.value)):
        SweepConfigs(loader, master)(overrides)
