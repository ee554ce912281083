"""Readers of the transfer files: parsing, each damage told, the Hub's archive, exact counts of the real files."""

import io
import tarfile
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from cse_bench.errors import DataError
from cse_bench.evaluation.transfer_files import (
    BINARY,
    FILES,
    MRPC,
    SST2,
    TRANSFER,
    TREC,
    TransferFiles,
    parse_mrpc,
    parse_sentences,
    parse_sst2,
    parse_trec,
)
from tests.evaluation.transfer_folder import contents, write

SUBJECTIVE = "SUBJ/subj.subjective"


def files(folder: Path) -> TransferFiles:
    return TransferFiles(data=str(folder), cache="unused")


def read_all(reader: TransferFiles) -> dict[str, int]:
    """Reads everything; number of examples by task or split."""
    parts = {task: reader.binary(task) for task in BINARY}
    for task, splits in {"sst2": SST2, "trec": TREC, "mrpc": MRPC}.items():
        parts |= {f"{task}/{split}": reader.split(task, split) for split in splits}
    return {name: len(part.labels) for name, part in parts.items()}


def test_sentences_keep_blank_lines_and_are_rejoined() -> None:
    examples = parse_sentences("a  good film . \n \nbad\x85one\n", label=1)
    assert examples.columns == (["a good film .", "", "bad one"],)
    assert examples.labels.tolist() == [1, 1, 1]


def test_sst2_has_the_class_behind_a_tab() -> None:
    examples = parse_sst2("witty and fresh \t1\ndull\t0\n", file="train")
    assert (examples.columns, examples.labels.tolist()) == ((["witty and fresh", "dull"],), [1, 0])
    with pytest.raises(DataError, match="train, line 2: found 1 tab-separated fields, expected 2"):
        parse_sst2("a\t1\nb 0\n", file="train")
    with pytest.raises(DataError, match="train, line 1: found class '2', expected 0, 1"):
        parse_sst2("a\t2\n", file="train")
    with pytest.raises(DataError, match="train, line 1: found an empty sentence"):
        parse_sst2(" \t1\n", file="train")


def test_trec_has_the_coarse_class_as_label() -> None:
    examples = parse_trec("NUM:dist How far is it : near ?\nABBR:exp What is it ?\n", file="trec")
    assert (examples.columns, examples.labels.tolist()) == ((["How far is it : near ?", "What is it ?"],), [5, 0])
    with pytest.raises(DataError, match="trec, line 1: found class 'Num', expected ABBR, DESC, ENTY, HUM, LOC, NUM"):
        parse_trec("Num:dist How far ?\n", file="trec")


def test_mrpc_skips_the_header_and_takes_quotes_literally() -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    examples = parse_mrpc(header + '1\t7\t8\t" He said .\tHe " said\n0\t7\t9\ta\tb\n', file="mrpc")
    assert examples.columns == (['" He said .', "a"], ['He " said', "b"])
    assert examples.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="mrpc, line 3: found 4 tab-separated fields, expected 5"):
        parse_mrpc(header + "1\t7\t8\ta\tb\n1\t7\t8\ta\n", file="mrpc")


@pytest.mark.parametrize("parent", ["transfer", ""])
def test_whole_folder_is_read_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    write(tmp_path, contents(per_class=3), monkeypatch)
    reader = files(tmp_path if parent else tmp_path / "transfer")
    assert reader.sources() == {}
    counts = read_all(reader)
    assert (counts["mr"], counts["sst2/dev"], counts["trec/test"], counts["mrpc/train"]) == (6, 6, 18, 6)
    assert reader.binary("mr").labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert reader.sources() == {file: facts.sha256 for file, facts in FILES.items()}


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    path = write(tmp_path, contents(per_class=2), monkeypatch) / "transfer" / file
    content = bytearray(path.read_bytes())
    at = content.rindex(b"e")  # within a sentence of the last lines
    content[at] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=f"{file}: found .*, expected .*: restore SentEval's tokenised file"):
        read_all(files(tmp_path))


def test_a_missing_line_is_told_by_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, contents(per_class=4), monkeypatch)
    path = tmp_path / "transfer" / SUBJECTIVE
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    message = rf"{SUBJECTIVE}: found 3 examples \(3 of class 0\), expected 4 examples \(4 of class 0\)"
    with pytest.raises(DataError, match=message):
        files(tmp_path).binary("subj")


def test_swapped_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, contents(per_class=4), monkeypatch)
    one, two = (tmp_path / "transfer" / file for file in BINARY["subj"])
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    with pytest.raises(DataError, match="subj.objective: found sha256 .*, expected .*damaged"):
        files(tmp_path).binary("subj")


def test_a_changed_class_is_told_by_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, contents(per_class=2), monkeypatch)
    path = tmp_path / "transfer" / SST2["test"]
    path.write_text(path.read_text().replace("\t0", "\t1", 1))
    with pytest.raises(DataError, match=r"found 4 examples \(1 of class 0, 3 of class 1\), expected 4 examples \(2 of"):
        files(tmp_path).split("sst2", "test")


def test_other_encodings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = contents(per_class=2)
    texts[TREC["train"]] = texts[TREC["train"]].replace("the", "th\xf0")
    texts[SST2["dev"]] = "caf\xe9 " + texts[SST2["dev"]]
    write(tmp_path, texts, monkeypatch)
    assert "th\xf0" in " ".join(files(tmp_path).split("trec", "train").columns[0])
    assert files(tmp_path).split("sst2", "dev").columns[0][0].startswith("caf\xe9 ")
    (tmp_path / "transfer" / TREC["train"]).write_bytes(texts[TREC["train"]].encode("utf-8"))
    with pytest.raises(DataError, match="train_5500.label: found sha256 .*another encoding"):
        files(tmp_path).split("trec", "train")
    (tmp_path / "transfer" / SST2["dev"]).write_bytes(texts[SST2["dev"]].encode("latin-1"))
    with pytest.raises(DataError, match="sentiment-dev is not utf-8 at byte 3: restore"):
        files(tmp_path).split("sst2", "dev")


def test_missing_file_and_folder_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"transfer file MR/rt-polarity.pos is missing .*CSE_BENCH_DATA.*transfer/MR"):
        files(tmp_path).binary("mr")
    with pytest.raises(DataError, match=r"paths.data is '.*nowhere', which is not a folder.*transfer/MR"):
        files(tmp_path / "nowhere").binary("mr")


def test_without_data_the_archive_of_the_hub_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "made", contents(per_class=2), monkeypatch)
    archive = tmp_path / "senteval.tar"
    with tarfile.open(archive, "w") as tar:
        for file in FILES:
            tar.add(folder / "transfer" / file, f"SentEval/data/downstream/{file}")
        other = tarfile.TarInfo("SentEval/data/downstream/SST/fine/sentiment-train")
        tar.addfile(other, io.BytesIO())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda **request: str(archive))
    reader = TransferFiles(data=None, cache=str(tmp_path / "cache"))
    assert read_all(reader)["mr"] == 4
    unpacked = tmp_path / "cache" / TRANSFER.cache
    found = {str(path.relative_to(unpacked / "transfer")) for path in unpacked.rglob("*") if path.is_file()}
    assert found == set(FILES)


def test_without_data_and_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**request: str) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("outgoing traffic has been disabled.")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(DataError, match=r"the transfer files are missing .*disabled.\); set paths.data .*transfer/MR"):
        TransferFiles(data=None, cache=str(tmp_path)).binary("mr")


def test_real_files_are_whole(shared_data: Path) -> None:
    if not (shared_data / "transfer").is_dir():
        pytest.skip("real transfer data not found: set CSE_BENCH_DATA to a folder that holds transfer/")
    reader = files(shared_data)
    assert read_all(reader) == {
        "mr": 10662,
        "cr": 3775,
        "subj": 10000,
        "mpqa": 10606,
        "sst2/train": 67349,
        "sst2/dev": 872,
        "sst2/test": 1821,
        "trec/train": 5452,
        "trec/test": 500,
        "mrpc/train": 4076,
        "mrpc/test": 1725,
    }
    assert len(reader.sources()) == len(FILES) == 15
    assert sum(not sentence for task in BINARY for sentence in reader.binary(task).columns[0]) == 7
    assert np.isclose(reader.binary("cr").labels.mean(), 2407 / 3775)
    assert [column[0].split()[0] for column in reader.split("mrpc", "test").columns] == ["PCCW", "Current"]
