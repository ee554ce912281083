"""Files that travel inside installed Python packages: model weights, text, human grades.

The small defaults of this benchmark need no network beyond the package index, because some distributions happen to
contain real data. Such a file is found through the metadata of the installation and never by importing the package,
which may be broken, slow or ask for dependencies nobody needs here. Version and sha256 are pinned by the caller:
another file is another experiment.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from cse_bench.errors import DataError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """One pinned file inside a distribution; a description only, nothing is read until `locate` is called.

    Attributes:
        package: Name of the distribution on the package index, e.g. `gensim`.
        version: The one version whose file is wanted.
        path: Path inside the installation with forward slashes, e.g. `gensim/test/test_data/lee.cor`.
        sha256: Checksum of the content, 64 hexadecimal digits.
        pip_options: What `pip install` needs besides the requirement, e.g. `--no-deps`; only used in messages.
    """

    package: str
    version: str
    path: str
    sha256: str
    pip_options: str = ""

    @property
    def source(self) -> str:
        """Name of this file in a result: `gensim==4.4.0:gensim/test/test_data/lee.cor`."""
        return f"{self.package}=={self.version}:{self.path}"

    def locate(self) -> Path:
        """The verified file on this machine.

        Raises:
            DataError: As `package_file` does.
        """
        return package_file(
            self.package, version=self.version, path=self.path, sha256=self.sha256, pip_options=self.pip_options
        )


def package_file(package: str, *, version: str, path: str, sha256: str, pip_options: str = "") -> Path:
    """Find one file of an installed distribution and verify it, without importing the package.

    Args:
        package: Name of the distribution on the package index.
        version: The version that must be installed.
        path: Path of the file inside the installation, with forward slashes.
        sha256: Checksum the file must have.
        pip_options: Extra options of the `pip install` command that the error messages propose.

    Returns:
        Absolute path of the file.

    Raises:
        DataError: The package is missing or has another version, or the file is missing or has another checksum.
    """
    requirement = f"{package}=={version}"
    installed = _installed(package, version=version, pip_options=pip_options)
    file = Path(str(installed.locate_file(path))).resolve()
    if not file.is_file():
        raise DataError(
            f"{requirement} is installed, but its file {path} is not there (looked for {file}). "
            f"Reinstall it: {_pip(requirement, pip_options, force=True)}"
        )
    found = file_sha256(file)
    if found != sha256.lower():
        raise DataError(
            f"{file} of {requirement} has sha256 {found}, expected {sha256.lower()}: it was changed, is damaged, or "
            f"comes from another build of the package. Reinstall it: {_pip(requirement, pip_options, force=True)}"
        )
    return file


def package_folder(
    package: str, *, version: str, folder: str, sha256: Mapping[str, str], pip_options: str = ""
) -> Path:
    """Find a folder of an installed distribution, e.g. one with model weights, and verify the files that matter in it.

    Args:
        package: Name of the distribution on the package index.
        version: The version that must be installed.
        folder: Path of the folder inside the installation, with forward slashes.
        sha256: Checksum by file name relative to `folder`; at least one. Files that are not named are not checked.
        pip_options: Extra options of the `pip install` command that the error messages propose.

    Returns:
        Absolute path of the folder.

    Raises:
        ValueError: `sha256` names no file, so that nothing would be verified.
        DataError: As `package_file` does, for the first file that is wrong.
    """
    if not sha256:
        raise ValueError(f"package_folder({package!r}) was given no checksum; name at least one file of {folder}")
    for name, digest in sha256.items():
        path = str(PurePosixPath(folder) / name)
        package_file(package, version=version, path=path, sha256=digest, pip_options=pip_options)
    installed = _installed(package, version=version, pip_options=pip_options)
    return Path(str(installed.locate_file(folder))).resolve()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content as 64 hexadecimal digits; read in blocks, as weights may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _installed(package: str, *, version: str, pip_options: str) -> Distribution:
    requirement = f"{package}=={version}"
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        raise DataError(
            f"the package {package} is not installed; {requirement} is needed. "
            f"Install it: {_pip(requirement, pip_options)}"
        ) from None
    if installed.version != version:
        raise DataError(
            f"{package} {installed.version} is installed, but only {requirement} is known to hold the right files. "
            f"Install that version: {_pip(requirement, pip_options)}"
        )
    return installed


def _pip(requirement: str, options: str, *, force: bool = False) -> str:
    words = ["pip install", "--force-reinstall" if force else "", options, requirement]
    return " ".join(word for word in words if word)
