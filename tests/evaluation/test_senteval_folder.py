"""Finding the STS files: layouts, the Hub's archive (built here), and what is said when there is nothing."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from cse_bench.errors import DataError
from cse_bench.evaluation.senteval_folder import HUB_FILE, HUB_REPOSITORY, SentEvalFolder, unpack
from cse_bench.evaluation.sts_files import STS
from cse_bench.evaluation.sts_tables import SHA256

DEV_FILE = "STSBenchmark/sts-dev.csv"


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def senteval_path(file: str) -> str:
    return file if file.startswith("SICK/") else f"STS/{file}"


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    """Builds an archive of all STS files, each holding its own name, and of things that must stay inside it."""

    def build(*, prefix: str = "./", without: str = "") -> Path:
        path = tmp_path / HUB_FILE
        with tarfile.open(path, "w") as tar:
            for file in SHA256:
                if file != without:
                    add(tar, prefix + senteval_path(file), file.encode())
            add(tar, prefix + "MR/rt-polarity.pos", b"not wanted")
            add(tar, "../../outside.txt", b"not wanted")
            link = tarfile.TarInfo(prefix + "old/SICK/SICK_test_annotated.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        return path

    return build


@pytest.mark.parametrize("parent", ["sts", "STS", ""])
def test_known_layouts_are_found(tmp_path: Path, parent: str) -> None:
    path = tmp_path / parent / DEV_FILE
    path.parent.mkdir(parents=True)
    path.write_text("x")
    assert SentEvalFolder(STS, data=str(tmp_path), cache="unused").find(DEV_FILE).samefile(path)


def test_missing_file_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SICK/SICK_test_annotated.txt is missing .*CSE_BENCH_DATA.*go online"):
        SentEvalFolder(STS, data=str(tmp_path), cache="unused").find("SICK/SICK_test_annotated.txt")


def test_given_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"paths.data is '.*nowhere', which is not a folder.*CSE_BENCH_DATA"):
        SentEvalFolder(STS, data=str(tmp_path / "nowhere"), cache=str(tmp_path)).find(DEV_FILE)


@pytest.mark.parametrize("prefix", ["", "./", "SentEval/data/downstream/"])
def test_archive_is_unpacked_to_known_names_only(tmp_path: Path, archive: Callable[..., Path], prefix: str) -> None:
    target = tmp_path / "cache" / "senteval"
    unpack(archive(prefix=prefix), target, STS)
    found = {str(path.relative_to(target / "sts")): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {file: file for file in SHA256}
    assert list(target.parent.iterdir()) == [target]
    assert not list(tmp_path.parent.glob("outside.txt"))


def test_incomplete_archive_leaves_nothing_behind(tmp_path: Path, archive: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=f"lacks 1 STS files, the first is {DEV_FILE}"):
        unpack(archive(without=DEV_FILE), tmp_path / "cache" / "senteval", STS)
    assert list((tmp_path / "cache").iterdir()) == []


def test_damaged_archive_leaves_nothing_behind(tmp_path: Path, archive: Callable[..., Path]) -> None:
    path = archive()
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(DataError, match="senteval.tar cannot be unpacked .*delete it"):
        unpack(path, tmp_path / "cache" / "senteval", STS)
    assert list((tmp_path / "cache").iterdir()) == []


def test_slower_process_keeps_the_folder_of_the_faster(tmp_path: Path, archive: Callable[..., Path]) -> None:
    target = tmp_path / "cache" / "senteval"
    target.mkdir(parents=True)
    (target / "first").write_text("x")
    unpack(archive(), target, STS)
    assert [path.name for path in target.iterdir()] == ["first"]


def test_without_data_the_hub_is_asked_once(
    tmp_path: Path, archive: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []

    def download(**request: str) -> str:
        asked.append(request)
        return str(archive())

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for _ in range(2):
        folder = SentEvalFolder(STS, data=None, cache=str(tmp_path / "cache"))
        assert folder.find(DEV_FILE).read_text() == DEV_FILE
    assert asked == [{"repo_id": HUB_REPOSITORY, "filename": "senteval.tar", "repo_type": "dataset"}]


def test_without_data_and_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**request: str) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("outgoing traffic has been disabled.\nMore lines.")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    message = r"cannot be fetched from the Hub \(outgoing traffic has been disabled.\); set paths.data"
    with pytest.raises(DataError, match=message):
        SentEvalFolder(STS, data=None, cache=str(tmp_path / "cache")).find(DEV_FILE)
    assert not (tmp_path / "cache").exists()
