"""Composing configs outside of a command line, also in a program that is itself one of Hydra's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase


@contextmanager
def hydra_of(conf: Path) -> Iterator[None]:
    """Hydra with the configs of a folder, for `hydra.compose`; afterwards as it was.

    There is one Hydra in a process: whoever calls from a `@hydra.main` of their own keeps theirs.
    """
    theirs, bases, job = GlobalHydra.instance().hydra, VersionBase.instance(), JobRuntime.instance()
    base = bases.version_base
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), job_name=job.get("name"), version_base="1.3"):
            yield
    finally:
        bases.version_base = base
        GlobalHydra.instance().clear()
        if theirs is not None:
            GlobalHydra.instance().initialize(theirs)
