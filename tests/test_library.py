"""cse_bench from Python: what it exports, finished runs, and every method under a Lightning Trainer of one's own."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, Unpack

import lightning
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.version import getbase

import cse_bench
from cse_bench import Encoder, build_training, compose_config, load_run
from cse_bench.encoders.artifact import load_encoder, save_encoder
from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, DataError
from cse_bench.methods.method import Shared
from cse_bench.methods.simcse import SimCSE
from cse_bench.run import run
from tests.methods.every import METHODS, NEEDS, overrides_of
from tests.tiny import composed, config_in, made_up_sentences, overrides_in, task_overrides
from tests.training.trained import train_in

EXAMPLES = Path(__file__).parent.parent / "examples"
# What Lightning says to everyone: about data loaders without workers, and teachers that stay in eval mode.
OWN_TRAINER = (
    "ignore:.*does not have many workers",
    "ignore:.*in eval mode",
    "ignore:.*isinstance.treespec, LeafSpec.*deprecated",
    "ignore:.*smaller than the logging interval",
)


def own_trainer(steps: int, folder: Path, **options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(max_steps=steps, accelerator="cpu", default_root_dir=folder, **quiet, **options)


def test_import_is_cheap_and_names_are_there() -> None:
    heavy = "{'torch', 'transformers', 'lightning', 'hydra', 'numpy'}"
    code = f"import sys, cse_bench; assert not {heavy} & set(sys.modules); print(cse_bench.__version__)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert all(getattr(cse_bench, name) is not None for name in cse_bench.__all__)
    assert set(cse_bench.__all__) <= set(dir(cse_bench))
    with pytest.raises(AttributeError, match="no attribute 'Encodr'"):
        cse_bench.Encodr  # type: ignore[attr-defined]
    assert (Path(cse_bench.__file__).parent / "py.typed").is_file()


def test_composing_inside_a_hydra_program(tmp_path: Path) -> None:
    """There is one Hydra in a process, and a program of the user's own, or a notebook, may have it."""
    (tmp_path / "theirs.yaml").write_text("answer: 42")
    with initialize_config_dir(str(tmp_path), version_base="1.2", job_name="theirs"):
        assert compose_config("seed=7", "backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none").seed == 7
        assert compose("theirs").answer == 42
        with pytest.raises(ConfigError, match="unknown"):
            compose_config("seeed=7")
        assert compose("theirs").answer == 42
        assert str(getbase()) == "1.2"
        assert JobRuntime.instance().get("name") == "theirs"
    assert not GlobalHydra.instance().is_initialized()
    assert compose_config("seed=7", "backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none").seed == 7
    assert not GlobalHydra.instance().is_initialized()


def test_what_is_no_sentence_is_refused(tmp_path: Path) -> None:
    encoder = build_encoder(composed("backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none").backbone)
    with pytest.raises(TypeError, match="encode takes strings; sentence 1 is None"):
        encoder.encode(["Tea.", None])  # type: ignore[list-item]


@pytest.mark.filterwarnings(*OWN_TRAINER)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_under_a_plain_trainer(method: str, tmp_path: Path) -> None:
    needed = [one for one in overrides_of(method) if not one.startswith("backbone=")]
    backbone = next((one for one in NEEDS.get(method, ()) if one.startswith("backbone=")), "backbone=tiny_bert")
    config = compose_config(
        backbone, *needed, "data.global_batch_size=16", f"paths.cache={tmp_path}", "optimizer.lr=1e-3"
    )
    module, data = build_training(config, made_up_sentences(50))
    before = {name: parameter.clone() for name, parameter in module.encoder.named_parameters()}
    own_trainer(4, tmp_path).fit(module, data)
    changed = [
        name for name, parameter in module.encoder.named_parameters() if not torch.equal(parameter, before[name])
    ]
    assert changed
    vectors = module.sentence_encoder.encode(["Tea.", "The old river sings."], normalize=True)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.filterwarnings(*OWN_TRAINER)
def test_a_plain_trainer_ends_where_the_command_line_does(tmp_path: Path) -> None:
    overrides = overrides_in(tmp_path, "method=esimcse", "trainer.max_steps=8")
    _, directory = train_in(tmp_path, *overrides[6:])
    module, data = build_training(compose_config(*overrides))
    own_trainer(8, tmp_path, gradient_clip_val=1.0).fit(module, data)
    kept = load_encoder(directory.model).state_dict()
    found = module.encoder.state_dict()
    assert kept.keys() == found.keys()
    assert all(torch.equal(kept[name], found[name]) for name in kept)


@pytest.mark.filterwarnings(*OWN_TRAINER)
def test_a_class_of_ones_own(tmp_path: Path) -> None:
    class Doubled(SimCSE):
        def objective(self, representations: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"loss": 2 * super().objective(representations)["loss"]}

    config = compose_config("backbone=tiny_bert", "data.global_batch_size=8", f"paths.cache={tmp_path}")
    module, data = build_training(config, made_up_sentences(20), method=Doubled)
    assert isinstance(module, Doubled)
    own_trainer(1, tmp_path).fit(module, data)


class Counted(SimCSE):
    """With an argument of its own, and without those of its base."""

    def __init__(self, *, dropped: int, **shared: Unpack[Shared]) -> None:
        super().__init__(temperature=0.05, head="none", views="dropout", **shared)
        self.dropped = dropped


def test_a_class_with_other_arguments_than_the_config(tmp_path: Path) -> None:
    common = ("backbone=tiny_bert", "data.global_batch_size=8", f"paths.cache={tmp_path}")
    with pytest.raises(ConfigError, match=r"method.dropped: this key is required (.*\n)+.*method.head: unknown key"):
        build_training(compose_config(*common), made_up_sentences(20), method=Counted)
    own = (f"method._target_={__name__}.Counted", "~method.head", "~method.views", "~method.temperature")
    module, _ = build_training(compose_config(*common, *own, "+method.dropped=3"), made_up_sentences(20))
    assert type(module).__name__ == "Counted"
    assert module.dropped == 3


def test_a_class_that_names_what_it_is_given(tmp_path: Path) -> None:
    class Plain(SimCSE):
        def __init__(self, *, encoder: Encoder, temperature: float, head: str, views: str, **rest: Any) -> None:
            super().__init__(encoder=encoder, temperature=temperature, head="none", views="dropout", **rest)

    config = compose_config("backbone=tiny_bert", "data.global_batch_size=8", f"paths.cache={tmp_path}")
    assert isinstance(build_training(config, made_up_sentences(20), method=Plain)[0], Plain)


def test_configs_of_ones_own(tmp_path: Path) -> None:
    """As with --config-dir on the command line."""
    folder = Path(__file__).parent / "methods" / "eighth"
    config = compose_config("method=swapped_words", "method.temperature=0.2", "backbone=tiny_bert", config_dir=folder)
    assert config.method.target.endswith("SwappedWords")
    assert config.method.arguments() == {"temperature": 0.2}
    with pytest.raises(ConfigError, match="no option 'swapped_words'"):
        compose_config("method=swapped_words")
    with pytest.raises(ConfigError, match=f"--config-dir: there is no directory {tmp_path}/no"):
        compose_config("method=swapped_words", config_dir=tmp_path / "no")


@pytest.mark.filterwarnings(*OWN_TRAINER, "ignore:.*torchrun")
def test_trainers_that_would_change_the_batches(tmp_path: Path) -> None:
    config = compose_config("backbone=tiny_bert", "data.global_batch_size=8", f"paths.cache={tmp_path}")
    module, data = build_training(config, made_up_sentences(20))
    with pytest.raises(ConfigError, match="accumulate_grad_batches=2: every batch is a step here"):
        own_trainer(2, tmp_path, accumulate_grad_batches=2).fit(module, data)
    data.trainer = own_trainer(2, tmp_path, devices=2, strategy="ddp_spawn")  # not started: it would start processes
    with pytest.raises(ConfigError, match="give lightning.Trainer use_distributed_sampler=False"):
        data.setup("fit")
    data.trainer = own_trainer(2, tmp_path, devices=2, strategy="ddp_spawn", use_distributed_sampler=False)
    data.setup("fit")


def test_what_cannot_be_built(tmp_path: Path) -> None:
    sentences = made_up_sentences(20)
    shared = ("backbone=tiny_bert", f"paths.cache={tmp_path}")
    with pytest.raises(ConfigError, match=r"method.temprature: unknown key; did you mean 'method.temperature'"):
        compose_config(*shared, "method.temprature=1")
    with pytest.raises(ConfigError, match=r"Untrained does not train; its encoder is that of a run"):
        build_training(compose_config(*shared, "method=untrained", "evaluation=sample"), sentences)
    with pytest.raises(ConfigError, match=r"DebCSE needs runs that are done before \(teacher\)"):
        build_training(compose_config(*shared, "method=debcse"), sentences)
    with pytest.raises(DataError, match=r"has 20 sentences, fewer than one batch of 64"):
        build_training(compose_config(*shared), sentences)
    for wrong, message in (([], "the list is empty"), (["a", " "], r"sentences\[1\] is empty"), ("abc", "a list of")):
        with pytest.raises(DataError, match=message):
            build_training(compose_config(*shared), wrong)


def test_a_finished_run(tmp_path: Path) -> None:
    results = run(config_in(tmp_path, "trainer.max_steps=2", "backbone.pooling=mean"))
    done = load_run(results["directory"])
    assert done.config.method.target.endswith("SimCSE")
    assert done.metrics["cost/train_time_s"] > 0
    assert done.encoder.pooling == "mean"
    sentences = made_up_sentences(9)
    vectors = done.encoder.encode(sentences)
    assert vectors.shape == (9, 32)
    again = Encoder.load(results["directory"], accelerator="cpu")
    assert np.array_equal(again.encode(sentences), vectors)
    unit = again.encode(sentences, normalize=True)
    assert np.allclose(unit, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)
    half = again.encode(sentences, precision="bf16-mixed")
    assert 0 < np.abs(half - vectors).max() < 0.1
    with pytest.raises(ConfigError, match=rf"no results.json that can be read; runs below it: .*{done.directory.name}"):
        load_run(tmp_path / "outputs")
    (done.directory / "results.json").write_text('{"status": "interrupted", "metrics": {}}')
    with pytest.raises(ConfigError, match=r"is not finished \(interrupted\)"):
        load_run(done.directory)


def test_the_run_of_an_untrained_backbone(tmp_path: Path) -> None:
    results = run(config_in(tmp_path, "method=untrained", "backbone.pooling=mean", *task_overrides()))
    encoder = load_run(results["directory"]).encoder
    assert encoder.pooling == "mean"
    assert np.array_equal(encoder.encode(["Tea."]), load_run(results["directory"]).encoder.encode(["Tea."]))


def test_progress_is_shown_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = composed("backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none").backbone
    from cse_bench.encoders.encoder import build_encoder

    save_encoder(build_encoder(backbone), tmp_path / "m", backbone=backbone, training={}, training_only={})
    encoder = Encoder.load(tmp_path / "m", accelerator="cpu")
    encoder.encode(made_up_sentences(5))
    assert capsys.readouterr().err == ""
    encoder.encode(made_up_sentences(5), show_progress=True)
    assert "5/5" in capsys.readouterr().err


@pytest.mark.filterwarnings(*OWN_TRAINER)
@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_run(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CSE_BENCH_CACHE", str(tmp_path / "cache"))
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
