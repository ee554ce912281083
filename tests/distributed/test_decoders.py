"""The path of `llama2_7b`, `mistral_7b` and `opt_6_7b` end to end, on two-layer models of the same classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, LlamaModel, MistralModel, OPTModel

from cse_bench.config.schema import Backbone
from cse_bench.encoders.artifact import load_encoder, read_description, save_encoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.loading import open_encoder
from cse_bench.encoders.merge import merged
from tests.distributed.command import finish, results_of, start
from tests.tiny import composed

DECODERS = {"tiny_llama": LlamaModel, "tiny_mistral": MistralModel, "tiny_opt": OPTModel}
SENTENCES = ["a river", "the old bird sings over the stone", "who"]
MERGING = 1e-5  # float32: (W + BA) x against W x + B (A x), vectors of length about 6


@pytest.mark.parametrize(("tiny", "large"), [("llama", "llama2_7b"), ("mistral", "mistral_7b"), ("opt", "opt_6_7b")])
def test_the_small_ones_are_of_the_architecture_of_the_large_ones(tiny: str, large: str) -> None:
    small, whole = (
        composed(f"backbone={name}", "evaluation=none", "dry_run=true", "backbone.dropout=0.1").backbone
        for name in (f"tiny_{tiny}", large)
    )
    assert small.architecture is not None
    assert whole.architecture is not None
    assert small.architecture["model_type"] == whole.architecture["model_type"]
    for field in ("family", "pooling", "padding_side", "attention"):
        assert getattr(small, field) == getattr(whole, field)


@pytest.mark.slow
def test_trained_on_two_processes_saved_merged_and_read_again(tmp_path: Path) -> None:
    """One command: a sweep over the three, each on two ranks with adapters as the published recipes have them."""
    choice = f"backbone={','.join(DECODERS)}"
    finish(start(tmp_path, "-m", "method=cse_sfp", choice, "adapter=lora", "trainer.max_steps=6", "optimizer.lr=1e-2"))
    directories = [path.parent for path in (tmp_path / "outputs").glob("*/results.json")]
    results = {results_of(directory)["config"]["backbone"]["name"]: directory for directory in directories}
    assert results.keys() == DECODERS.keys()
    for name, directory in results.items():
        assert results_of(directory)["status"] == "complete"
        adapted = load_encoder(directory / "model")
        assert isinstance(adapted, Encoder)
        vectors = adapted.encode(SENTENCES)
        with adapted.body.disable_adapter():  # type: ignore[operator]
            assert np.abs(adapted.encode(SENTENCES) - vectors).max() > 1e-3  # it was trained

        plain = merged(adapted)
        assert type(plain.body) is DECODERS[name]
        np.testing.assert_array_equal(adapted.encode(SENTENCES), vectors)  # the one that was merged is as it was
        np.testing.assert_allclose(plain.encode(SENTENCES), vectors, atol=MERGING)

        entry = Backbone(**read_description(directory / "model")["backbone"]).model_copy(update={"adapter": None})
        save_encoder(plain, tmp_path / name, backbone=entry, training={}, training_only={})
        np.testing.assert_array_equal(load_encoder(tmp_path / name).encode(SENTENCES), plain.encode(SENTENCES))
        np.testing.assert_array_equal(open_encoder(str(tmp_path / name)).encode(SENTENCES), plain.encode(SENTENCES))
        # And by those who know nothing of this project.
        body = AutoModel.from_pretrained(tmp_path / name).eval()
        assert type(body) is DECODERS[name]
        ids = torch.tensor(adapted.tokenizer(SENTENCES[1:2], max_length=None))
        state = body(input_ids=ids).last_hidden_state[0, -1].detach().numpy()
        np.testing.assert_allclose(state, plain.encode(SENTENCES[1:2])[0], atol=MERGING)
