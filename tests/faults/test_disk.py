"""Disks that are full or cannot be written, for real: a mounted tmpfs, and directories that the kernel guards.

The run ends with a message, what it had is kept, and the same command goes on when there is room again.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cse_bench.errors import ConfigError, CSEBenchError, DataError
from cse_bench.results.run_directory import read_results
from cse_bench.run import run
from cse_bench.training.checkpoint_file import newest_whole, step_of
from tests.faults.trouble import HAPPENS, troubled
from tests.tiny import composed
from tests.training.trained import At, train_in


def fill(disk: Path, *, spare_pages: int = 0) -> Path:
    """Writes until nothing goes in any more; then makes room for a few pages of 4096 bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096) == 4096:
                pass
        except OSError:
            pass
        file.truncate(file.tell() // 4096 * 4096 - 4096 * spare_pages)
    return filler


def the_only_run(folder: Path) -> Path:
    (directory,) = (folder / "outputs").iterdir()
    return directory


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("moment", "at_step", "spare_pages"),
    [
        pytest.param(("dev", 2), 0, 20, marks=SLOW),  # the first scoring in training, at step 3
        (("dev", 4), 8, 1),  # at step 9
        pytest.param(("dev", 4), 8, 20, marks=SLOW),
        (("test", 1), 12, 0),  # the last evaluation, after training
    ],
)
def test_a_full_disk_ends_the_run_and_loses_nothing(
    small_disk: Path, moment: Any, at_step: int, spare_pages: int, ends_the_same: Callable[..., None]
) -> None:
    HAPPENS[moment] = lambda: fill(small_disk, spare_pages=spare_pages)
    with pytest.raises(CSEBenchError, match=r"cannot (be written|write) .*(No space left|os error 28)"):
        run(composed(*troubled(small_disk)))
    directory = the_only_run(small_disk)
    whole = newest_whole(directory / "checkpoints" / "last.ckpt")
    assert (step_of(whole) if whole else 0) == at_step
    (small_disk / "filler").unlink()
    left = {path.name for path in directory.rglob("*")}
    assert not left & {".model.new", "last.tmp", ".results.json", ".metrics.csv"}
    ends_the_same(small_disk)


def test_a_disk_that_fills_before_a_checkpoint_keeps_the_one_before(small_disk: Path, tmp_path: Path) -> None:
    overrides = ("trainer.max_steps=6", "checkpoint_every_steps=2")
    with pytest.raises(CSEBenchError, match=r"cannot write .*last\.ckpt .*No space left.*run the same command"):
        train_in(small_disk, *overrides, loggers=(At(4, lambda: fill(small_disk, spare_pages=30)),))
    checkpoint = small_disk / "run" / "checkpoints" / "last.ckpt"
    assert [path.name for path in checkpoint.parent.iterdir()] == ["last.ckpt"]
    assert step_of(checkpoint) == 2


def test_a_full_disk_while_tokenising_leaves_no_half_store(
    small_disk: Path, tmp_path: Path, ends_the_same: Callable[..., None]
) -> None:
    cache = small_disk / "cache"
    HAPPENS["corpus", 2] = lambda: fill(small_disk)
    with pytest.raises(DataError, match=r"token store cannot be written .*No space left.*paths\.cache"):
        run(composed(*troubled(tmp_path, f"paths.cache={cache}")))
    assert list(cache.glob("tokens/*/store.json")) == []
    (small_disk / "filler").unlink()
    ends_the_same(tmp_path)


@contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """Nothing can be made in it or removed from it, not even by root."""
    done = subprocess.run(["chattr", "+i", str(directory)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a directory that root cannot write needs chattr: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(directory)], check=True)


def test_an_output_folder_that_cannot_be_written_is_named_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    with frozen(tmp_path / "outputs"), pytest.raises(ConfigError, match=r"paths\.output_dir: cannot write .*outputs/"):
        run(composed(*troubled(tmp_path)))
    assert not (tmp_path / "cache").exists()


def test_a_run_directory_that_can_no_longer_be_written_ends_the_run(
    tmp_path: Path, ends_the_same: Callable[..., None]
) -> None:
    with ExitStack() as stack:
        HAPPENS["dev", 4] = lambda: stack.enter_context(frozen(the_only_run(tmp_path)))
        with pytest.raises(CSEBenchError, match=r"(cannot be written to|cannot write) .*Operation not permitted"):
            run(composed(*troubled(tmp_path)))
        assert read_results(the_only_run(tmp_path))["status"] == "running"  # the reason could not be written either
    ends_the_same(tmp_path)
