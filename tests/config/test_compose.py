"""Every config that is shipped composes, fits its schema, is commented, and hides no default."""

import inspect
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from cse_bench.config.bind import locate
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import Evaluation, RunConfig
from cse_bench.config.validate import SUPPLIED
from tests.config.compose import composed, validated

CONF = conf_directory()
# What an option cannot be composed without.
NEEDS = {
    "data=text_file": ["data.path=sentences.txt"],
    "backbone=hub": ["backbone.hub_id=organisation/name"],
    "method=cse_sfp": ["backbone=tiny_llama"],  # needs a decoder
    "adapter=qlora": ["backbone=llama2_7b"],  # and weights to quantise
    "trainer=fsdp_4gpu": ["data.split_rows_by_length=false"],  # see cse_bench/config/strategy.py
    "backbone=local": ["backbone=tiny_bert"],  # its directory is read; see test_wrong_invocations
}


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


CHOICES = [
    f"{group}={option}"
    for group in ("method", "backbone", "adapter", "data", "trainer", "evaluation", "logger", "experiment", "debug")
    for option in options(group)
]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_fits_its_schema(choice: str) -> None:
    # A plan asks for no devices, and a backbone without dropout of its own is given some.
    dropout = ["backbone.dropout=0.1"] if choice.startswith("backbone=") else []
    config = validated(choice, *dropout, *NEEDS.get(choice, []), "dry_run=true")
    assert isinstance(config, RunConfig)


@pytest.mark.parametrize(
    "recipe", sorted((CONF / "recipe").rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_recipe_is_pulled_in(recipe: Path) -> None:
    backbone = "tiny_bert" if recipe.stem == "any" else recipe.stem  # that one is pulled in with every backbone
    config = composed(f"method={recipe.parent.name}", f"backbone={backbone}")
    for key, value in _leaves(yaml.safe_load(recipe.read_text())):
        assert OmegaConf.select(config, key) == value


def _leaves(content: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    leaves: list[tuple[str, object]] = []
    for key, value in content.items():
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves


def test_the_command_line_beats_the_recipe() -> None:
    assert composed("backbone=roberta_base").optimizer.lr == 1e-5
    assert composed("backbone=roberta_base", "optimizer.lr=3e-4").optimizer.lr == 3e-4


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if not choice.startswith(("experiment", "debug"))])
def test_no_default_is_hidden_in_code(choice: str) -> None:
    """Every argument of every component stands in the YAML, except what the framework supplies and Lightning's own."""
    config = OmegaConf.to_container(composed(choice, *NEEDS.get(choice, [])), resolve=True)
    assert isinstance(config, dict)
    evaluation = config["evaluation"]
    components = {"method": config["method"], "data.corpus": config["data"]["corpus"]}
    components |= {f"logger.{name}": component for name, component in config["logger"].items()}
    components |= {
        f"evaluation.{name}": component for split in ("dev", "test") for name, component in evaluation[split].items()
    }
    for path, component in components.items():
        signature = inspect.signature(locate(component["_target_"])).parameters.values()
        parameters = {parameter.name for parameter in signature if parameter.kind is not parameter.VAR_KEYWORD}
        supplied = SUPPLIED.get(path, SUPPLIED.get(path.partition(".")[0], frozenset()))
        assert parameters - supplied == set(component) - {"_target_"}, path


def test_the_schema_is_shown_whole() -> None:
    config = composed()
    assert set(RunConfig.model_fields) == set(config)
    assert set(Evaluation.model_fields) == set(config.evaluation)
    for group in ("backbone", "optimizer", "paths"):
        assert set(RunConfig.model_fields[group].annotation.model_fields) == set(config[group])  # type: ignore[union-attr]


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_opens_with_a_comment(file: Path) -> None:
    if "hydra" in file.relative_to(CONF).parts:
        pytest.skip("help texts")
    assert file.read_text().startswith("#")


@pytest.mark.parametrize("group", ["method", "data", "trainer", "evaluation"])
def test_every_key_is_commented_where_it_first_stands(group: str) -> None:
    text = "\n".join((CONF / group / f"{option}.yaml").read_text() for option in options(group))
    keys = {key for option in options(group) for key in yaml.safe_load((CONF / group / f"{option}.yaml").read_text())}
    obvious = {
        "_target_",
        "corpus",
        "dev",
        "test",
        "accelerator",
        "num_nodes",
        "strategy",
        "enable_progress_bar",
        "path",
    }
    for key in keys - obvious:
        assert any(line.startswith(f"{key}:") and "#" in line for line in text.splitlines()), key
