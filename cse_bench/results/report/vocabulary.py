"""Metric paths in words: title, unit, decimals, direction, and the glossary term that explains them."""

import math
from dataclasses import dataclass

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
MINUS = "\N{MINUS SIGN}"
NOTHING = ""  # an empty cell; the number does not exist

_TASKS = {
    "sts12": "STS12",
    "sts13": "STS13",
    "sts14": "STS14",
    "sts15": "STS15",
    "sts16": "STS16",
    "stsb": "STS-B",
    "sickr": "SICK-R",
    "avg": "average",
    "mr": "MR",
    "cr": "CR",
    "subj": "SUBJ",
    "mpqa": "MPQA",
    "sst2": "SST2",
    "trec": "TREC",
    "mrpc": "MRPC",
    "accuracy": "accuracy",
    "spearman": "Spearman",
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is written.

    Attributes:
        path: as in `results.json`.
        title: in words.
        term: the glossary term that explains it.
        decimals: places that are shown.
        scale: what a value is divided by before it is shown.
        points: whether a difference is counted in points (of 100).
    """

    path: str
    title: str
    term: str
    decimals: int = 2
    scale: float = 1.0
    points: bool = False

    @property
    def smallest(self) -> float:
        """What the last shown place counts."""
        return float(10.0**-self.decimals)

    def shown(self, value: float | None, *, sign: bool = False) -> str:
        """A value as text; empty where there is none."""
        if value is None:
            return NOTHING
        if not math.isfinite(value):
            return "NaN"
        text = f"{value / self.scale:{'+' if sign else ''},.{self.decimals}f}"
        return text.replace("-", MINUS)


def task_title(path: str) -> str:
    """Name of a task from the last part of its path."""
    last = path.rpartition("/")[2]
    if path.startswith("wiki_sections"):
        return "Wikipedia sections"
    if path.startswith("lee/"):
        return "Lee documents"
    return _TASKS.get(last, last)


# Prefix of a family of scores -> (title, glossary term). Scores are shown as points of 100.
FAMILIES: dict[str, tuple[str, str]] = {
    "sts/test": ("STS, all pairs", "sts"),
    "sts/test_clean": ("STS, leak-free pairs", "leak_free"),
    "sts/test_mean": ("STS, mean over sub-sets", "sts_mean"),
    "sts/test_wmean": ("STS, weighted mean over sub-sets", "sts_wmean"),
    "transfer/test": ("Transfer tasks (accuracy)", "transfer"),
    "sample": ("Tests of the quickstart", "sample"),
}

_NAMED = (
    Metric(path="sts/test/avg", title="STS average of the seven tasks", term="sts", points=True),
    Metric(path="sts/test_clean/avg", title="leak-free average", term="leak_free", points=True),
    Metric(path="sts/dev/stsb", title="STS-B dev", term="dev", points=True),
    Metric(path="transfer/test/avg", title="transfer average (accuracy)", term="transfer", points=True),
    Metric(path="wiki_sections/test/accuracy", title="Wikipedia sections, test (accuracy)", term="sample", points=True),
    Metric(path="wiki_sections/dev/accuracy", title="Wikipedia sections, dev (accuracy)", term="dev", points=True),
    Metric(path="lee/spearman", title="Lee documents", term="sample", points=True),
    Metric(path="geometry/alignment", title="alignment", term="alignment", decimals=4),
    Metric(path="geometry/uniformity", title="uniformity", term="uniformity", decimals=3),
    Metric(path="geometry/dispersion", title="dispersion", term="dispersion", decimals=3),
    Metric(path="geometry/align_uniform_ratio", title="align/uniform ratio", term="ratios", decimals=4),
    Metric(path="geometry/align_dispersion_ratio", title="align/dispersion ratio", term="ratios", decimals=4),
    Metric(path="geometry/mean_cosine", title="mean cosine", term="mean_cosine", decimals=3),
    Metric(path="geometry/effective_rank", title="effective rank", term="effective_rank", decimals=1),
    Metric(path="geometry/largest_variance_share", title="largest variance share", term="variance_share", decimals=4),
    Metric(path="cost/train_time_s", title="training (s)", term="train_time", decimals=0),
    Metric(path="cost/preparation_time_s", title="preparation (s)", term="preparation_time", decimals=0),
    Metric(path="cost/prerequisites_time_s", title="prerequisites (s)", term="prerequisites_time", decimals=0),
    Metric(path="cost/total_time_s", title="total (s)", term="total_time", decimals=0),
    Metric(path="cost/train_sentences_per_s", title="sentences/s", term="sentences_per_s", decimals=0),
    Metric(path="cost/eval_time_s", title="evaluation (s)", term="eval_time", decimals=0),
    Metric(path="cost/peak_memory_bytes", title="peak memory (MiB)", term="peak_memory", decimals=0, scale=2**20),
    Metric(path="cost/inference_parameters", title="parameters (millions)", term="inference_parameters", scale=1e6),
    Metric(path="cost/inference_flops", title="inference (MFLOP)", term="inference_flops", decimals=1, scale=1e6),
)
_BY_PATH = {metric.path: metric for metric in _NAMED}
GEOMETRY = tuple(metric for metric in _NAMED if metric.path.startswith("geometry/"))
COST = tuple(metric for metric in _NAMED if metric.path.startswith("cost/"))


def family(path: str) -> str | None:
    """The prefix of `FAMILIES` that a test score belongs to; None for everything else."""
    if path in ("wiki_sections/test/accuracy", "lee/spearman"):
        return "sample"
    prefix = path.rpartition("/")[0]
    return prefix if prefix in FAMILIES else None


def metric(path: str) -> Metric:
    """How a metric is written; one that is not known here goes by its path."""
    if path in _BY_PATH:
        return _BY_PATH[path]
    prefix = family(path)
    if prefix:
        title, term = FAMILIES[prefix]
        return Metric(path=path, title=f"{task_title(path)} ({title})", term=term, points=True)
    return Metric(path=path, title=path, term="other_metric", decimals=4)


def is_main(path: str) -> bool:
    """Whether a metric sums up a whole evaluation, so that a reader wants it beside the one that ranks."""
    return family(path) == "sample" or (family(path) is not None and path.endswith("/avg"))
