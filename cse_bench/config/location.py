"""Where the config files are: `conf/` of the checkout, or the copy inside an installed wheel."""

from pathlib import Path


def conf_directory() -> Path:
    """The folder with `config.yaml`.

    Raises:
        FileNotFoundError: the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/config.yaml in {package} or beside it: reinstall cse_bench")
