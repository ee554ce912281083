"""What a result was obtained with: code and its revision, library versions, hardware."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cse_bench import __version__

_PACKAGES = ("torch", "transformers", "tokenizers", "lightning", "hydra-core", "numpy", "scipy", "peft", "wandb")


def environment() -> dict[str, Any]:
    """Code and git revision of cse_bench itself, versions and hardware."""
    return {"code": code_sha256(), "git": git_revision(), "versions": versions(), "hardware": hardware()}


def differences(then: Mapping[str, Any]) -> list[str]:
    """What a result was obtained with that is otherwise here and now, one phrase each; hardware is left out.

    Args:
        then: the `environment` of a result.
    """
    found = []
    if then.get("code") != code_sha256():
        found.append(f"cse_bench code ({_revision(then.get('git'))} then, {_revision(git_revision())} now)")
    before, now = then.get("versions", {}), versions()
    for package in dict.fromkeys([*before, *now]):
        if package != "cse_bench" and before.get(package) != now.get(package):
            found.append(f"{package} ({before.get(package, 'none')} then, {now.get(package, 'none')} now)")
    return found


@cache
def code_sha256() -> str:
    """SHA-256 of all Python files of this package.

    Unlike a commit it is the same for a checkout and a wheel, and does not change with documentation.
    """
    digest, package = hashlib.sha256(), Path(__file__).resolve().parent.parent
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _revision(git: Mapping[str, Any] | None) -> str:
    if not git:
        return "no commit known"
    return f"commit {git['commit'][:9]}" + (" with changes" if git["dirty"] else "")


@cache
def versions() -> dict[str, str]:
    """Installed versions of what decides numbers."""
    found = {"python": platform.python_version(), "cse_bench": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores and GPUs of this machine."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


@cache
def git_revision() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None when cse_bench was not run from a checkout."""
    folder = Path(__file__).resolve().parent.parent
    try:
        top = _git(folder, "rev-parse", "--show-toplevel")
        # An installed copy inside somebody else's repository is not our checkout.
        if not (Path(top) / "cse_bench" / "__init__.py").samefile(folder / "__init__.py"):
            return None
        return {"commit": _git(folder, "rev-parse", "HEAD"), "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
