"""`python -m cse_bench.export` inside the test process: real runs out, and what it says to wrong input."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer

from cse_bench.encoders.loading import open_encoder
from cse_bench.encoders.rounding_noise import rounding_noise
from cse_bench.errors import EncoderError
from cse_bench.export import main
from cse_bench.run import run
from tests.cli.command import Answer, run_command
from tests.methods.every import METHODS, overrides_of
from tests.tiny import config_in, made_up_sentences, task_overrides

SENTENCES = [*made_up_sentences(6, seed=3), "Why not?", " "]


def export(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Answer:
    return run_command(monkeypatch, *arguments, command=main)


def run_in(folder: Path, *overrides: str) -> Path:
    done = run(config_in(folder, "trainer.max_steps=2", "evaluation.baseline=false", *overrides))
    return Path(done["directory"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of SimCSE, evaluated."""
    folder = tmp_path_factory.mktemp("export")
    return [run_in(folder, *task_overrides(), f"seed={seed}") for seed in (0, 1)]


def assert_same_vectors(exported: Path, directory: Path, *, tolerance: float = 1e-5) -> None:
    expected = open_encoder(str(directory)).encode(SENTENCES)
    atol = tolerance * max(1.0, np.abs(expected).max())
    found = SentenceTransformer(str(exported), device="cpu").encode(SENTENCES, show_progress_bar=False)
    np.testing.assert_allclose(found, expected, atol=atol, rtol=0)
    # Ours reads the export, too: evaluate, encode and mteb take it like any other model.
    again = open_encoder(str(exported)).encode(SENTENCES)
    np.testing.assert_allclose(again, expected, atol=atol, rtol=0)


def test_a_run_with_its_card(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = export(monkeypatch, f"run={runs[0]}", f"to={tmp_path}/mine")
    assert done.code == 0, done.err
    assert "(Transformer, Pooling)" in done.out
    assert_same_vectors(tmp_path / "mine", runs[0])
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}
    _, header, card = (tmp_path / "mine" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "unknown"
    assert yaml.safe_load(header)["library_name"] == "sentence-transformers"
    for words in (
        "# simcse on tiny_bert",
        "status: official code",
        "arXiv 2104.08821",
        "100 sentences without labels",
        "2 steps of 16 sentences, seed 0",
        'SentenceTransformer("mine")',
        "random weights: a test, not a model",
    ):
        assert words in card, words
    facts = json.loads((tmp_path / "mine" / "cse_bench_export.json").read_text())
    assert facts["largest_difference"] < 1e-5
    assert str(tmp_path) not in json.dumps(facts) + card  # nothing of this machine


def test_the_spread_over_the_seeds_beside_it(tmp_path: Path) -> None:
    from cse_bench.results.model_card import _scores, sister_runs
    from tests.results.report.study import write_run

    for seed in range(3):
        write_run(tmp_path, "simcse", seed, quality=0.3 + 0.1 * seed)
    write_run(tmp_path, "esimcse", 0, quality=0.8)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "results.json").write_text('{"status": "interrupted"}')
    run_directory = next(
        path.parent
        for path in tmp_path.rglob("results.json")
        if json.loads(path.read_text()).get("method", {}).get("name") == "simcse"
    )
    sisters = sister_runs(run_directory)
    assert {one["method"]["name"] for one in sisters} == {"simcse"}
    assert sorted(one["seed"] for one in sisters) == [0, 1, 2]
    scores = _scores(sisters[0], sisters)
    assert "| mean ± standard deviation, 3 seeds |" in scores
    assert "compare methods by mean and standard deviation over seeds" in scores


# The two whose encoders take the most modules; what the others are made of is in test_export_round_trip.
@pytest.mark.parametrize(
    "method", [name if name in ("jtcse", "sarcse") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_every_method(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run_in(tmp_path, *overrides_of(method), *(["method.pooler=fresh"] if method == "jtcse" else []))
    done = export(monkeypatch, f"run={directory}", f"to={tmp_path}/out")
    assert done.code == 0, done.err
    assert_same_vectors(tmp_path / "out", directory)
    if method in ("jtcse", "sarcse"):  # their modules are more than a body and a pooling
        with pytest.raises(EncoderError, match=r"cannot be used with dtype=bfloat16, leave it out"):
            open_encoder(str(tmp_path / "out"), dtype="bfloat16")
    else:
        whole, half = (open_encoder(str(tmp_path / "out"), dtype=one).encode(SENTENCES) for one in (None, "bfloat16"))
        assert 0 < np.abs(half - whole).max() < 0.05 * np.abs(whole).max()


def test_a_whitened_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run_in(
        tmp_path,
        "method=postprocessed",
        "method.kind=pca",
        "method.dimensions=4",
        "method.sentences=null",
        *task_overrides(),
    )
    done = export(monkeypatch, f"run={directory}", f"to={tmp_path}/out")
    assert done.code == 0, done.err
    # Whitening multiplies the rounding of the vectors, by more where they hardly vary, as those of a random model do.
    noise = rounding_noise(open_encoder(str(directory)), SENTENCES)
    assert noise < 1e-3
    assert_same_vectors(tmp_path / "out", directory, tolerance=max(1e-5, 2 * noise))


def test_an_adapter_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run_in(tmp_path, "method=cse_sfp", "backbone=tiny_llama", "adapter=lora", "optimizer.lr=0.1")
    refused = export(monkeypatch, f"run={directory}", f"to={tmp_path}/out", "adapter=keep")
    assert refused.code == 2
    assert "source=random; use adapter=merge" in refused.err
    done = export(monkeypatch, f"run={directory}", f"to={tmp_path}/out")
    assert done.code == 0, done.err
    assert_same_vectors(tmp_path / "out", directory)
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_four_bit_bodies_leave_whole_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run_in(tmp_path, "method=cse_sfp", "backbone=tiny_llama", "adapter=lora", "optimizer.lr=0.1")
    file = directory / "model" / "sentence_encoder.json"
    description = json.loads(file.read_text())  # as a run with adapter=qlora writes it, which needs a GPU
    four_bits = {"type": "qlora", "quant_type": "nf4", "double_quant": True, "compute_dtype": "float32"}
    description["backbone"]["adapter"] |= four_bits
    file.write_text(json.dumps(description))
    done = export(monkeypatch, f"run={directory}", f"to={tmp_path}/out")
    assert done.code == 0, done.err
    assert "on a body in four bits" in done.out
    assert "on a body in four bits" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_there_is_kept(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in ("false", "true"):
        done = export(monkeypatch, f"run={runs[0]}", f"to={out}", f"overwrite={overwrite}")
        assert done.code == 2
        assert "holds something that is not an export, and is not replaced" in done.err
    (out / "thesis.tex").unlink()
    assert export(monkeypatch, f"run={runs[0]}", f"to={out}").code == 0  # empty
    done = export(monkeypatch, f"run={runs[1]}", f"to={out}")
    assert done.code == 2
    assert "holds an earlier export; give another one, or overwrite=true" in done.err
    assert_same_vectors(out, runs[0])
    assert export(monkeypatch, f"run={runs[1]}", f"to={out}", "overwrite=true").code == 0
    assert_same_vectors(out, runs[1])
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_what_fails_leaves_nothing(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(runs[0], broken)
    weights = broken / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = export(monkeypatch, f"run={broken}", f"to={tmp_path}/out")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"broken"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run={runs}/nothing", "to=x"], "there is no such directory"),
        (["run={runs}", "to=x"], "it has no results.json; give the directory that python -m cse_bench printed"),
        (["run={run}/model", "to=x"], "that is a part of a run; give run={run}"),
        (["run={unfinished}", "to=x"], "is interrupted; finish it first"),
        (["run={failed}", "to=x"], "is failed (no disk); finish it first"),
        (["run={untrained}", "to=x"], "kept no encoder: untrained is the backbone tiny_bert as it is"),
        (["run={gone}", "to=x"], "is gone"),
        (["run={damaged}", "to=x"], "its results.json is damaged"),
        (["run={run}", "to=x", "adapter=keep"], "adapter=keep: this run trained all weights"),
        (["run={run}", "to=x", "adapter_weights=split"], "adapter_weights"),
        (["run={run}", "to=x", "adapter=foo"], "adapter_weights: must be 'merge' or 'keep', got 'foo'"),
        (["run={run}", "to={run}/results.json"], "is a file; give another directory"),
        (["run={run}", "to={run}/results.json/x"], "to: cannot write"),
        (["run={run}", "to=x", "push_to_hub=a/b/c"], "push_to_hub: Repo id"),
        (["run={run}", "to=x", "push_to_hub=me/mine"], "nobody is logged in to the Hub; run `hf auth login`"),
        (["run={run}", "to=x", "push_to_hub=me/mine", "token=secret"], "unknown key"),
        (["run={run}"], "to: this key is required"),
    ],
)
def test_what_is_wrong_is_one_message(
    arguments: list[str], message: str, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    places = {"runs": str(runs[0].parent.parent / "cache"), "run": str(runs[0])}
    results = json.loads((runs[0] / "results.json").read_text())
    method = {"name": "untrained", "is_backbone": True}
    for name, changed in {
        "unfinished": {"status": "interrupted"},
        "failed": {"status": "failed", "error": "no disk"},
        "gone": {},
        "untrained": {"method": method},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results | changed))
        places[name] = str(tmp_path / name)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results.json").write_text("{")
    places["damaged"] = str(tmp_path / "damaged")
    done = export(monkeypatch, *(argument.format(**places) for argument in arguments))
    assert done.code == 2
    assert message.format(**places) in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "x").exists()


class Hub:
    """A Hub of one repository, with the calls of `HfApi` that a push makes."""

    def __init__(self, *files: str) -> None:
        self.files = {".gitattributes", *files}

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        assert (repository, private, exist_ok) == ("me/mine", True, True)

    def list_repo_files(self, repository: str) -> list[str]:
        return sorted(self.files)

    def upload_folder(self, *, folder_path: Path, repo_id: str, commit_message: str, delete_patterns: str) -> None:
        kept = {name for name in self.files if name == ".gitattributes" or not fnmatch(name, delete_patterns)}
        uploaded = {path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file()}
        self.files = kept | uploaded


@pytest.mark.parametrize(
    ("files", "takes"),
    [
        ((), True),
        (("README.md",), True),
        (("cse_bench_export.json", "adapter_config.json", "1_Pooling/old.json"), True),
        (("notes.txt",), False),
    ],
)
def test_a_push_leaves_the_export_and_nothing_else(
    files: tuple[str, ...], takes: bool, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(*files)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    done = export(monkeypatch, f"run={runs[0]}", f"to={tmp_path}/out", "push_to_hub=me/mine")
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert "modules.json" in written
    if takes:
        assert done.code == 0, done.err
        assert hub.files == {".gitattributes"} | written
    else:
        assert done.code == 2
        assert "'me/mine' did not take it: it holds something that is not an export" in done.err
        assert hub.files == {".gitattributes", "notes.txt"}


def test_a_hub_that_is_down_loses_nothing(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    done = export(monkeypatch, f"run={runs[0]}", f"to={tmp_path}/out", "push_to_hub=me/mine")
    assert done.code == 2
    assert "the export is whole in" in done.err
    assert "hf_made_up" not in done.err + done.out
    assert_same_vectors(tmp_path / "out", runs[0])
