"""What a result was obtained with: code revision, library versions, hardware."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cse_bench import __version__

_PACKAGES = ("torch", "transformers", "tokenizers", "lightning", "hydra-core", "numpy", "scipy", "peft", "wandb")


def environment() -> dict[str, Any]:
    """Versions, hardware and the git revision of cse_bench itself."""
    return {"git": git_revision(), "versions": versions(), "hardware": hardware()}


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
