from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig

from cse_bench.encoders.architecture import (
    architecture_config,
    dropout_probabilities,
    first_position,
    is_decoder,
    max_positions,
    set_dropout,
    without_pooler,
)
from cse_bench.encoders.weights import random_body
from cse_bench.errors import EncoderError

ENTRIES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml"))
DESCRIBED = [name for name in ENTRIES if name not in ("hub", "local")]

# Parameters of the published models (model cards and papers), less what a body leaves out: BERT's and RoBERTa's pooler
# of d * d + d, and the output matrix of vocabulary * d where it is not tied to the input embedding.
PARAMETERS = {
    "bert_base": 109_482_240 - (768 * 768 + 768),
    "bert_large": 335_141_888 - (1024 * 1024 + 1024),
    "bert_tiny": 4_385_920 - (128 * 128 + 128),
    "roberta_base": 124_645_632 - (768 * 768 + 768),
    "roberta_large": 355_359_744 - (1024 * 1024 + 1024),
    "modernbert_base": 149_014_272,
    "gpt2": 124_439_808,
    "opt_6_7b": 6_658_473_984,
    "llama2_7b": 6_738_415_616 - 32_000 * 4096,
    "llama3_8b": 8_030_261_248 - 128_256 * 4096,
    "mistral_7b": 7_241_732_096 - 32_000 * 4096,
    "qwen3_0_6b": 596_049_920,
    "smollm2_135m": 134_515_008,
}


def on_meta(backbone):
    with torch.device("meta"):
        return random_body(architecture_config(backbone), attention="sdpa", dtype=torch.float32)


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_entry_builds_a_config_of_its_family(entry, name):
    backbone = entry(name)
    config = architecture_config(backbone)
    assert config.model_type == backbone.architecture["model_type"]
    assert is_decoder(config) == (backbone.family == "decoder")
    assert max_positions(config) >= 512
    for key, value in backbone.architecture.items():
        assert getattr(config, key) == value


def test_every_entry_of_known_size_is_listed_here():
    assert set(DESCRIBED) == {*PARAMETERS, "tiny_bert", "tiny_llama", "tiny_mistral", "tiny_opt"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_architecture_has_the_size_of_the_published_model(entry, name):
    assert sum(p.numel() for p in on_meta(entry(name)).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["hub", "local"])
def test_an_entry_without_architecture_says_so(entry, name):
    changes = {"source": "hub", "hub_id": "someone/model", "path": None}
    with pytest.raises(EncoderError, match="describes no architecture"):
        architecture_config(entry(name, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "birt"}, "not one Transformers can build"),
        ({"model_type": None}, "names no model_type"),
        ({"hiden_size": 64}, r"architecture.hiden_size: 'bert' has no such key; did you mean 'hidden_size'"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_a_wrong_architecture_is_refused(entry, change, message):
    backbone = entry("tiny_bert")
    sizes = {key: value for key, value in (backbone.architecture | change).items() if value is not None}
    with pytest.raises(EncoderError, match=message):
        architecture_config(backbone.model_copy(update={"architecture": sizes}))


def test_a_local_directory_describes_itself(entry, tmp_path):
    BertConfig(hidden_size=24, num_attention_heads=2).save_pretrained(tmp_path)
    backbone = entry("local", path=str(tmp_path), architecture={"model_type": "gpt2"})
    assert architecture_config(backbone).hidden_size == 24
    with pytest.raises(EncoderError, match="no model config at"):
        architecture_config(entry("local", path=str(tmp_path / "elsewhere")))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert_base", {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}),
        ("roberta_base", {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}),
        ("modernbert_base", {"attention_dropout": 0.0, "embedding_dropout": 0.0, "mlp_dropout": 0.0}),
        ("gpt2", {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}),
        ("opt_6_7b", {"dropout": 0.1, "attention_dropout": 0.0}),
        ("llama2_7b", {"attention_dropout": 0.0}),
        ("mistral_7b", {"attention_dropout": 0.0}),
        ("qwen3_0_6b", {"attention_dropout": 0.0}),
    ],
)
def test_dropout_probabilities(entry, name, expected):
    config = architecture_config(entry(name))
    assert dropout_probabilities(config) == expected
    set_dropout(config, None)
    assert dropout_probabilities(config) == expected
    set_dropout(config, 0.25)
    assert dropout_probabilities(config) == dict.fromkeys(expected, 0.25)


@pytest.mark.parametrize(
    "name", ["tiny_bert", "tiny_roberta", "tiny_modernbert", "tiny_gpt2", "tiny_opt", "tiny_llama"]
)
def test_set_dropout_reaches_every_layer(tiny_entry, name):
    """The probabilities that modules hold after building are the one asked for, and some module holds it."""
    config = architecture_config(tiny_entry(name))
    config.pad_token_id = 0
    set_dropout(config, 0.37)
    body = random_body(config, attention="sdpa", dtype=torch.float32)
    found = [module.p for module in body.modules() if isinstance(module, torch.nn.Dropout)]
    for module in body.modules():
        names = ("attention_dropout", "dropout", "attn_dropout", "dropout_prob", "out_drop")
        found += [value for key in names if isinstance(value := getattr(module, key, None), float)]
    assert found
    assert set(found) <= {0.37}, found


@pytest.mark.parametrize(
    ("name", "longest"),
    [("bert_base", 512), ("roberta_base", 512), ("gpt2", 1024), ("opt_6_7b", 2048), ("llama2_7b", 4096)],
)
def test_max_positions(entry, name, longest):
    assert max_positions(architecture_config(entry(name))) == longest


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_roberta", "tiny_gpt2", "tiny_opt"])
def test_max_positions_is_the_longest_row_that_runs(tiny_entry, tiny, name):
    """One token less than the position table allows would waste one, one token more is an IndexError."""
    encoder = tiny(name)
    longest = max_positions(encoder.config)
    ids = torch.full((1, longest), 7)
    encoder.body(input_ids=ids, attention_mask=torch.ones_like(ids))
    ids = torch.full((1, longest + 1), 7)
    with pytest.raises((IndexError, RuntimeError)):
        encoder.body(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_first_position_is_the_one_the_model_itself_uses(tiny):
    body = tiny("tiny_roberta").body
    assert first_position(body.config) == body.config.pad_token_id + 1
    ids = torch.tensor([[7, 8, 9]])
    explicit = first_position(body.config) + torch.arange(3)[None]
    with torch.no_grad():
        own, ours = (body(input_ids=ids, **given).last_hidden_state for given in ({}, {"position_ids": explicit}))
        from_zero = body(input_ids=ids, position_ids=torch.arange(3)[None]).last_hidden_state
    assert torch.equal(own, ours)
    assert (own - from_zero).abs().max() > 0.01


@pytest.mark.parametrize("name", ["bert_base", "roberta_base", "gpt2", "llama2_7b", "modernbert_base"])
def test_no_pretrained_pooler_is_built(entry, name):
    names = [name for name, _ in on_meta(entry(name)).named_parameters()]
    assert not [name for name in names if "pooler" in name]


def test_without_pooler_of_a_model_with_its_own_code():
    class OwnConfig(BertConfig):
        model_type = "own"

    assert without_pooler(OwnConfig()) == {}
    assert without_pooler(BertConfig()) == {"add_pooling_layer": False}
    with torch.device("meta"):  # the canary: with the argument left out there is a pooler
        assert AutoModel.from_config(BertConfig()).pooler is not None


def test_is_decoder_follows_the_flag_too():
    assert not is_decoder(BertConfig())
    assert is_decoder(BertConfig(is_decoder=True))
