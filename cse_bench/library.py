"""cse_bench from Python: finished runs, and methods for a Lightning Trainer of one's own. See docs/library.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cse_bench.config.schema import RunConfig
from cse_bench.errors import ConfigError

if TYPE_CHECKING:
    from cse_bench.data.module import SentenceData
    from cse_bench.encoders.encoder import SentenceEncoder
    from cse_bench.methods.base import ContrastiveMethod


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: where it is.
        results: the content of its `results.json`.
    """

    directory: Path
    results: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers by their path, e.g. `sts/test/avg`."""
        metrics: dict[str, float] = self.results["metrics"]
        return metrics

    @cached_property
    def config(self) -> RunConfig:
        """What it was run with."""
        return RunConfig.model_validate(self.results["config"])

    @cached_property
    def encoder(self) -> "SentenceEncoder":
        """The encoder that was evaluated, in eval mode, on the CPU; loaded when it is first asked for.

        Raises:
            EncoderError: it was deleted.
        """
        from cse_bench.encoders.encoder import build_encoder
        from cse_bench.encoders.loading import open_encoder

        if self.results["method"]["is_backbone"]:  # not kept again: it is the backbone as it is
            import torch

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.seed)  # random weights are those that were evaluated
                return build_encoder(self.config.backbone).eval()
        return open_encoder(str(self.directory))


def load_run(directory: str | Path) -> Run:
    """A finished run by its directory.

    Raises:
        ConfigError: no run there, or it is not finished.
    """
    from cse_bench.results.run_directory import read_results

    path = Path(directory).expanduser()
    results = read_results(path)
    if not results:
        below = sorted(str(found.parent) for found in path.glob("*/results.json"))
        found = f"; runs below it: {', '.join(below[:5])}{', ...' if below[5:] else ''}" if below else ""
        raise ConfigError(f"'{path}' is not the directory of a run: no results.json that can be read{found}")
    if results.get("status") != "complete":
        raise ConfigError(f"the run '{path}' is not finished ({results.get('status')}); its command goes on with it")
    return Run(path, results)


def compose_config(*overrides: str, config_dir: str | Path | None = None) -> RunConfig:
    """The complete, checked config of a run: what `python -m cse_bench OVERRIDES` would run, published recipes and all.

    Args:
        overrides: as on the command line, e.g. `"method=simcse", "backbone=bert_tiny", "method.temperature=0.1"`.
        config_dir: a folder of configs of one's own beside ours, as `--config-dir` on the command line.

    Raises:
        ConfigError: with every problem found.
    """
    from hydra import compose
    from hydra.errors import HydraException

    from cse_bench.config.composition import hydra_of
    from cse_bench.config.location import conf_directory
    from cse_bench.config.messages import refuse
    from cse_bench.config.overrides import check_overrides, searched
    from cse_bench.config.validate import validate_run

    own = [] if config_dir is None else [Path(config_dir).expanduser().absolute()]
    arguments = [*(f"--config-dir={folder}" for folder in own), *overrides]
    refuse(check_overrides(arguments, conf=conf_directory(), config_name="config"))
    with hydra_of(conf_directory()):
        try:
            config = compose("config", overrides=[*overrides, *searched(own)])
        except HydraException as error:
            raise ConfigError(f"the config cannot be composed: {str(error).splitlines()[0]}") from error
    return validate_run(config)


def build_training(
    config: RunConfig, sentences: Sequence[str] | None = None, *, method: "type[ContrastiveMethod] | None" = None
) -> "tuple[ContrastiveMethod, SentenceData]":
    """A method and its data, ready for `lightning.Trainer(...).fit(method, data)`.

    Everything is seeded: on one device, with the trainer's settings of the config, the parameters come out as those
    of the command line, bit for bit. Batches are those of the config: a trainer that accumulates gradients is refused,
    and on several devices one that replaces the sampler (`use_distributed_sampler=False` does not).

    Args:
        config: see `compose_config`.
        sentences: to train on; None: the corpus of the config.
        method: a class of one's own instead of the config's, with the same arguments. A class with others is named by
            the config instead, in a YAML file (`config_dir` of `compose_config`) or by `method._target_=module.Class`.

    Returns:
        The method, in train mode and prepared (pairs mined, teachers loaded), and the data.

    Raises:
        ConfigError: the method does not train, has other arguments than the config, or needs runs that would not be of
            these sentences.
        CSEBenchError: the data or the weights are not what the config needs.
    """
    import torch

    from cse_bench.config.bind import argument_problems, build, locate
    from cse_bench.config.messages import refuse
    from cse_bench.config.validate import SUPPLIED
    from cse_bench.data.corpora import Corpus
    from cse_bench.data.sentence_list import SentenceList
    from cse_bench.run import run_prerequisites, saved_encoders
    from cse_bench.training.train import method_and_data

    kind = method or locate(config.method.target)
    refuse(argument_problems(kind, config.method.arguments(), at="method", supplied=SUPPLIED["method"]))
    if not kind.trains:
        raise ConfigError(f"method: {kind.__name__} does not train; its encoder is that of a run (load_run)")
    before = kind.prerequisites(config)
    if before and sentences is not None:
        raise ConfigError(
            f"method: {kind.__name__} needs runs that are done before ({', '.join(before)}), on the same sentences; "
            "write these to a file and give data=text_file data.path=FILE, or give the path of a finished encoder"
        )
    prerequisites = saved_encoders(run_prerequisites(config)) if before else {}
    corpus: Corpus = build(config.data.corpus) if sentences is None else SentenceList(sentences)
    module, data, _ = method_and_data(config, corpus, prerequisites=prerequisites, kind=method)
    torch.manual_seed(config.seed * 1000)  # of the dropout masks, as in a run of one device
    return module, data
