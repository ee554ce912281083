"""`python -m cse_bench.dashboard entity=... project=...`: makes a Weights & Biases workspace from code."""

import json
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import DashboardConfig
from cse_bench.errors import ConfigError


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="dashboard")
def compose_and_build(config: DictConfig) -> None:
    """Composes, checks, builds, saves or prints."""
    from cse_bench.config.validate import validate_dashboard

    with past_hydra():
        dashboard(validate_dashboard(config))


def dashboard(config: DashboardConfig) -> None:
    """Builds the workspace; saves it and prints its URL, or prints its specification.

    Raises:
        ConfigError: a value cannot be (see `problems`), wandb-workspaces is not installed, wandb does not take the
            workspace, or `output` cannot be written.
    """
    from cse_bench.config.messages import refuse
    from cse_bench.results.tables import print_lines
    from cse_bench.results.wandb_workspace import build_workspace, problems, save_workspace, specification

    refuse(problems(config))
    described = json.dumps(specification(build_workspace(config)), indent=2)
    if config.output:
        print_lines([f"specification: {_write(config.output, described)}"])
    if not config.dry_run:
        print_lines([f"workspace: {save_workspace(config)}"])
    elif not config.output:
        print(described)


def _write(output: str, described: str) -> Path:
    path = Path(output)
    try:
        path = path.expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{described}\n", encoding="utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user that is not known
        raise ConfigError(f"output: cannot write {path} ({error}); choose a file in a writable folder") from error
    return path


def main() -> None:
    """The command line."""
    command_line(compose_and_build, config_name="dashboard")


if __name__ == "__main__":
    main()
