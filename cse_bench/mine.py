"""`python -m cse_bench.mine [overrides of a run]`: mines the pairs of a run, and shows whether its thresholds fit."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig

if TYPE_CHECKING:
    from cse_bench.mining.pairs import Pairs
    from cse_bench.mining.propensity import Propensity


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def compose_and_mine(config: DictConfig) -> None:
    """Composes, checks, mines, prints."""
    from cse_bench.config.validate import validate_run

    with past_hydra():
        pairs, propensity = mine(validate_run(config))
        _print(pairs, propensity)


def mine(config: RunConfig) -> "tuple[Pairs, Propensity]":
    """The pairs a run would train on, mined or found; runs that come before (a teacher's) are done first.

    Args:
        config: checked config of the run.

    Raises:
        CSEBenchError: the method mines nothing; or the data, the weights or the machine are not what the config needs.
    """
    from lightning import seed_everything

    from cse_bench.config.bind import build, locate
    from cse_bench.encoders.encoder import build_encoder
    from cse_bench.errors import ConfigError
    from cse_bench.methods.preparation import Preparation
    from cse_bench.mining.method import MinesPairs
    from cse_bench.run import run_prerequisites, saved_encoders
    from cse_bench.training.train import open_store, quiet_lightning

    kind = locate(config.method.target)
    if not issubclass(kind, MinesPairs):
        raise ConfigError(f"method: {kind.__name__} mines no pairs; there is nothing to show")
    quiet_lightning()
    prerequisites = saved_encoders(run_prerequisites(config))
    seed_everything(config.seed, workers=True, verbose=False)
    encoder = build_encoder(config.backbone)
    corpus = build(config.data.corpus)
    store = open_store(config, corpus, encoder.tokenizer)
    method = build(config.method, encoder=encoder, optimizer=config.optimizer, seed=config.seed)
    preparation = Preparation(
        config=config,
        corpus=corpus,
        store=store,
        prerequisites=prerequisites,
        cache=Path(config.paths.cache).expanduser(),
    )
    pairs = method.mine(preparation)
    if pairs is None:
        raise ConfigError("method: with these settings no pairs are used; there is nothing to mine")
    return pairs, method.propensity


def _print(pairs: "Pairs", propensity: "Propensity") -> None:
    from cse_bench.mining.calibration import summary
    from cse_bench.mining.report import calibration_table, diagnosis_table
    from cse_bench.results.tables import print_lines, print_table

    metrics, facts = summary(pairs, propensity)
    print_table(calibration_table(facts["calibration"]))
    print_table(diagnosis_table(metrics))
    remarks = [f"note: {remark}" for remark in facts["remarks"]]
    print_lines([*remarks, f"mined in {pairs.manifest['time_s']:.0f} s, search {facts['search']}: {pairs.directory}"])


def main() -> None:
    """The command line: that of a run, with a help of its own."""
    sys.argv = [sys.argv[0], "hydra/help=mine", *sys.argv[1:]]
    command_line(compose_and_mine, config_name="config")


if __name__ == "__main__":
    main()
