"""`python -m cse_bench.report runs=...`: what finished runs say, with its uncertainty, as one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.messages import nearest
from cse_bench.config.schema import ReportConfig
from cse_bench.errors import ConfigError
from cse_bench.results.collect import Block, Collection, collect

if TYPE_CHECKING:
    from cse_bench.results.statistics.analysis import Analysis

# The first of these that a block has is its headline; all that it has are analysed.
_HEADLINES = ("sts/test/avg", "transfer/test/avg", "transfer_fast/test/avg", "wiki_sections/test/accuracy")
_SCORES = (
    "sts/test_clean/",
    "sts/test/",
    "transfer/test/",
    "transfer_fast/test/",
    "sts/dev/",
    "wiki_sections/",
    "lee/",
    "geometry/",
)
_COUNTS = ("geometry/num_positives", "geometry/num_sentences")


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="report")
def compose_and_report(config: DictConfig) -> None:
    """Composes, checks, reads, writes, prints."""
    from cse_bench.config.validate import validate_report

    with past_hydra():
        report(validate_report(config))


def report(config: ReportConfig) -> Path:
    """Writes the report of some runs and prints its headline tables.

    Returns:
        The page.

    Raises:
        ConfigError: no run there, nothing finished, a metric or a group that is not there, or an output folder that
            cannot be written.
    """
    from cse_bench.results.published import expectations
    from cse_bench.results.report.terminal import print_report
    from cse_bench.results.report.write import write_report, writing_to

    collection = collect([config.runs] if isinstance(config.runs, str) else config.runs)
    if not collection.blocks:
        reasons = "\n".join(f"  {directory}: {reason}" for directory, reason in collection.left_out)
        raise ConfigError(f"runs: none of the {len(collection.left_out)} runs found is finished\n{reasons}")
    asked = _asked(collection.blocks, config)
    output = Path(config.output).expanduser()
    with writing_to(output):  # told before the time is spent
        analyses = analyse_blocks(collection.blocks, asked, config)
    published = [expectations(block) for block in collection.blocks]
    files = write_report(collection, analyses, published, output=output, title=config.title or _title(collection))
    print_report(collection, analyses, files[0])
    target = config.wandb
    if target.project is not None:
        from cse_bench.results.tables import print_lines
        from cse_bench.results.wandb_report import log_report

        where = log_report(
            output,
            files,
            project=target.project,
            entity=target.entity,
            group=target.group or _study(collection),
            offline=target.offline,
        )
        print_lines([f"wandb: {where}"])
    return files[0]


def _asked(blocks: Sequence[Block], config: ReportConfig) -> list[tuple[str | None, list[str]]]:
    """For each block the group to compare with, and its metrics, the headline first.

    Raises:
        ConfigError: no block has the metric or the group that was asked for.
    """
    metrics = [scores_of(block, headline=config.metric) for block in blocks]
    if config.metric and not any(config.metric in own for own in metrics):
        known = sorted({metric for own in metrics for metric in own})
        raise ConfigError(
            f"metric: no run has '{config.metric}'{nearest(config.metric, known)} (they have: {', '.join(known)})"
        )
    return list(zip(_references(blocks, config.against), metrics, strict=True))


def analyse_blocks(
    blocks: Sequence[Block], asked: Sequence[tuple[str | None, Sequence[str]]], config: ReportConfig
) -> "list[list[Analysis]]":
    """The analyses of each block, one per metric that is asked of it."""
    from cse_bench.results.statistics.analyse import analyse
    from cse_bench.results.statistics.pair_scores import PairScores
    from cse_bench.training.bars import progress_bar

    analyses = []
    with progress_bar("analysing", unit=" metrics", total=sum(len(metrics) for _, metrics in asked)) as bar:
        for block, (against, metrics) in zip(blocks, asked, strict=True):
            # One per block: its metrics share the resampled test pairs.
            pairs = PairScores(block, resamples=config.resamples, permutations=config.resamples - 1, seed=config.seed)
            of_block = []
            for metric in metrics:
                of_block.append(
                    analyse(
                        block,
                        metric=metric,
                        against=against,
                        resamples=config.resamples,
                        seed=config.seed,
                        pairs=pairs,
                    )
                )
                bar.update(1)
            analyses.append(of_block)
    return analyses


def _references(blocks: Sequence[Block], against: str | None) -> list[str | None]:
    """The group to compare with in each block; blocks without the one asked for take their default."""
    if against is None:
        return [None] * len(blocks)
    known = [{name for group in block.groups for name in (group.label, group.method)} for block in blocks]
    if not any(against in names for names in known):
        everywhere = sorted(set().union(*known))
        raise ConfigError(
            f"against: no group '{against}'{nearest(against, everywhere)} (there are: {', '.join(everywhere)})"
        )
    return [against if against in names else None for names in known]


def scores_of(block: Block, *, headline: str | None = None) -> list[str]:
    """The scores that some run of a block has, the headline first.

    Args:
        block: comparable groups.
        headline: any metric; None, or one that the block does not have: see `_HEADLINES`.
    """
    there = {metric for group in block.groups for run in group.runs for metric in run.metrics}
    scores = [metric for prefix in _SCORES for metric in sorted(there) if metric.startswith(prefix)]
    first = [metric for metric in (headline, *_HEADLINES) if metric in there]
    return [metric for metric in dict.fromkeys([*first[:1], *scores]) if metric not in _COUNTS]


def _title(collection: Collection) -> str:
    backbones = dict.fromkeys(block.facts["backbone"] for block in collection.blocks)
    return f"Sentence embedding methods on {', '.join(backbones)}"


def _study(collection: Collection) -> str | None:
    """The name that all runs were given (`study=`), if they have the same one."""
    studies = {run.results.get("study") for block in collection.blocks for group in block.groups for run in group.runs}
    return studies.pop() if len(studies) == 1 else None


def main() -> None:
    """The command line."""
    command_line(compose_and_report, config_name="report")


if __name__ == "__main__":
    main()
