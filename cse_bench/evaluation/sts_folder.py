"""Where the STS files are: a given folder, else SimCSE's archive on the Hub, else an error that says what to do."""

import os
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from cse_bench.errors import DataError
from cse_bench.evaluation.sts_tables import SHA256

HUB_REPOSITORY = "princeton-nlp/datasets-for-simcse"
HUB_FILE = "senteval.tar"

# Our layout, SentEval's own (where SICK lies beside STS), and the folder of the tasks itself.
PARENTS = ("sts", "STS", "")

HOW_TO_GET = (
    "set paths.data (environment variable CSE_BENCH_DATA) to a folder that holds sts/STS12-en-test to "
    "sts/STS16-en-test, sts/STSBenchmark and sts/SICK in SentEval's form (or to SentEval's data/downstream), "
    f"or go online with paths.data=null to fetch {HUB_FILE} of the Hub dataset {HUB_REPOSITORY}"
)


def sts_root(*, data: str | None, cache: str) -> Path:
    """Folder below which the task folders lie.

    Args:
        data: Folder given by the user, or None.
        cache: Folder to unpack the Hub's archive into when `data` is None; reused when it already holds the files.

    Raises:
        DataError: `data` does not exist, or the archive can neither be found in the Hub cache nor be downloaded.
    """
    if data is None:
        return _from_hub(Path(cache).expanduser() / "senteval")
    root = Path(data).expanduser()
    if not root.is_dir():
        raise DataError(f"paths.data is {data!r}, which is not a folder; {HOW_TO_GET}")
    return root


def find_file(root: Path, file: str) -> Path:
    """Path of an STS file, e.g. `STSBenchmark/sts-dev.csv`, in any of the known layouts of `root`.

    Raises:
        DataError: No layout has it.
    """
    for parent in PARENTS:
        path = root / parent / file
        if path.is_file():
            return path
    tried = ", ".join(str(root / parent / file) for parent in PARENTS)
    raise DataError(f"STS file {file} is missing (tried {tried}); {HOW_TO_GET}")


def unpack(archive: Path, target: Path) -> None:
    """Unpacks the STS and SICK files of a SentEval archive to `target/sts/...`, wherever the archive keeps them.

    Only plain files with a known folder and name are taken, each to the path given here, so no member decides where it
    lands. The target appears at once or not at all: an interrupted process leaves no half-filled folder, and of several
    processes one wins.

    Raises:
        DataError: The archive is damaged or lacks a file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        # A new folder inside the temporary one, which has mode 0700: other users may share the cache.
        unpacked = Path(staging) / target.name
        unpacked.mkdir()
        found = set()
        try:
            with tarfile.open(archive) as members:
                for member in members:
                    file = "/".join(PurePosixPath(member.name).parts[-2:])
                    if member.isreg() and file in SHA256:
                        members.extract(member.replace(name=f"sts/{file}", deep=False), unpacked, filter="data")
                        found.add(file)
        except (tarfile.TarError, EOFError) as error:
            message = f"{archive} cannot be unpacked ({error}); delete it to fetch it again, or {HOW_TO_GET}"
            raise DataError(message) from error
        missing = sorted(SHA256.keys() - found)
        if missing:
            raise DataError(f"{archive} lacks {len(missing)} STS files, the first is {missing[0]}; {HOW_TO_GET}")
        try:
            os.replace(unpacked, target)
        except OSError:
            # Another process was faster; the files' checksums are asserted when they are read.
            if not target.is_dir():
                raise


def _from_hub(target: Path) -> Path:
    if target.is_dir():
        return target
    # Slow to import, and needed only where no folder is given.
    from huggingface_hub import hf_hub_download

    try:
        archive = hf_hub_download(repo_id=HUB_REPOSITORY, filename=HUB_FILE, repo_type="dataset")
    # All failures of the client derive from OSError: no network, offline mode, an HTTP status, no such file.
    except OSError as error:
        reason = str(error).strip().split("\n")[0]
        message = f"the STS files are missing and cannot be fetched from the Hub ({reason}); {HOW_TO_GET}"
        raise DataError(message) from error
    unpack(Path(archive), target)
    return target
