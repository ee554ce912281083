"""The identity of a run: everything that decides its numbers, and nothing else."""

import pytest

from cse_bench.config.identity import group_identity, identity
from tests.config.compose import validated

BASE = ("backbone=tiny_bert", "data=text_file", "data.path=a.txt", "evaluation=sts", "precision=32-true")


def id_of(*overrides: str, corpus: str | None = "c0ffee") -> str:
    return identity(validated(*BASE, *overrides), corpus_fingerprint=corpus)


@pytest.mark.parametrize(
    "override",
    [
        "paths.output_dir=elsewhere",
        "paths.cache=elsewhere",
        "paths.data=elsewhere",
        "logger=wandb",
        "study=name",
        "checkpoint_every_steps=7",
        "data.num_workers=1",
        "data.path=b.txt",  # the same text elsewhere; what it says is in the corpus fingerprint
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=3",
        "evaluation.baseline=false",
        "evaluation.batch_tokens=64",
        "overwrite=true",
    ],
)
def test_what_decides_no_number(override: str) -> None:
    assert id_of(override) == id_of()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "precision=bf16-mixed",
        "method.temperature=0.1",
        "method.head=none",
        "optimizer.lr=1e-4",
        "optimizer.betas=[0.9,0.99]",
        "data.global_batch_size=32",
        "data.max_length=16",
        "data.corpus.empty_lines=skip",
        "trainer.max_steps=10",
        "trainer=ddp_cpu_2",
        "backbone.pooling=mean",
        "backbone.dropout=0.2",
        "backbone.architecture.hidden_size=64",
        "evaluation.eval_every_steps=10",
        "evaluation.precision=64-true",
        "evaluation.dev.geometry.split=test",
    ],
)
def test_what_decides_numbers(override: str) -> None:
    assert id_of(override) != id_of()


def test_the_text_decides_numbers() -> None:
    assert id_of(corpus="other") != id_of()


def test_spellings_of_a_precision_are_one_run() -> None:
    assert id_of("precision=fp32") == id_of("precision=32") == id_of()


def test_a_group_is_its_runs_without_the_seed() -> None:
    first, second = (validated(*BASE, f"seed={seed}") for seed in (0, 1))
    other = validated(*BASE, "method.temperature=0.1")
    assert group_identity(first, corpus_fingerprint="c") == group_identity(second, corpus_fingerprint="c")
    assert group_identity(first, corpus_fingerprint="c") != group_identity(other, corpus_fingerprint="c")


def test_an_untrained_encoder_does_not_depend_on_training() -> None:
    package = "backbone=bert_tiny"
    plain = id_of("method=untrained", package, corpus=None)
    for override in (
        "seed=7",
        "optimizer.lr=1",
        "trainer.max_steps=3",
        "data.max_length=16",
        "evaluation.eval_every_steps=7",
        "backbone.dropout=0.3",
        "adapter=lora",
    ):
        assert id_of("method=untrained", package, override, corpus=None) == plain
    assert id_of("method=untrained", package, "backbone.pooling=mean", corpus=None) != plain


def test_random_weights_depend_on_the_seed() -> None:
    assert id_of("method=untrained", "seed=7", corpus=None) != id_of("method=untrained", corpus=None)
