"""Something happens while a real run reads its corpus, trains, or scores; and what a run is that it happens to.

A run is configured by the names of these classes, as any run is. What happens is entered in `HAPPENS` by the test.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Unpack

import torch
from pydantic import Field
from torch import Tensor

from cse_bench.data.corpora import TextFile
from cse_bench.data.rows import TokenRows
from cse_bench.evaluation.task import Encode, Yielded
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.method import Shared
from tests.tiny import PairScore, overrides_in

HAPPENS: dict[tuple[str, int], Callable[[], Any]] = {}
"""What happens, once each: `("corpus", n)` in the middle of its n-th reading; `("dev" or "test", n)`, n-th scoring."""
_COUNTS: dict[str, int] = {}


def nothing_happens() -> None:
    """For the next run."""
    HAPPENS.clear()
    _COUNTS.clear()


def _happens(what: str) -> None:
    _COUNTS[what] = _COUNTS.get(what, 0) + 1
    if action := HAPPENS.pop((what, _COUNTS[what]), None):
        action()


class TroubledFile(TextFile):
    """A text file in the middle of whose reading something may happen."""

    def lines(self) -> Iterator[str]:
        for number, line in enumerate(super().lines()):
            yield line
            if number == 50:
                _happens("corpus")


class TroubledScore(PairScore):
    """A score before which something may happen."""

    def evaluate(self, encode: Encode) -> Iterator[Yielded]:
        _happens(self.split)
        yield from super().evaluate(encode)


class Troubled(ContrastiveMethod):
    """SimCSE without a head, whose numbers go bad at a step, until they are `mended`.

    Args:
        bad_step: counted from 1; 0: never.
        bad_what: the vectors of one sentence, or the gradient of a loss that is finite.
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "own reading"
    citation: ClassVar[str] = "nobody, never"
    mended: ClassVar[bool] = False

    def __init__(self, *, bad_step: Annotated[int, Field(ge=0)], bad_what: str, **shared: Unpack[Shared]) -> None:
        super().__init__(**shared)
        self.bad_step = bad_step
        self.bad_what = bad_what

    def _is_bad(self, what: str) -> bool:
        return not self.mended and what == self.bad_what and self.trainer.global_step + 1 == self.bad_step

    def views(self, batch: TokenRows) -> TokenRows:
        return batch.repeat(2)

    def represent(self, rows: TokenRows) -> Representations:
        z = self.encoder(rows)
        if self._is_bad("vectors"):
            z = torch.where((rows.sentence == rows.sentence[0])[:, None], torch.nan, z)
        return {"z": z}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        z = representations["z"]
        loss = info_nce(z[0], z[1], temperature=0.05)
        if self._is_bad("gradient"):
            loss = loss + (z - z.detach()).square().sum().sqrt()  # 0, and its slope is infinite
        return {"loss": loss}


def troubled(folder: Path, *overrides: str) -> list[str]:
    """The overrides of a run of 12 steps that all of the above can happen to."""
    score = "{_target_:tests.faults.trouble.TroubledScore,split:%s}"
    return overrides_in(
        folder,
        "data.corpus._target_=tests.faults.trouble.TroubledFile",
        "trainer.max_steps=12",
        "checkpoint_every_steps=4",
        f"+evaluation.dev.pairs={score % 'dev'}",
        f"+evaluation.test.pairs={score % 'test'}",
        "evaluation.selection_metric=pairs/dev/score",
        "evaluation.eval_every_steps=3",
        "evaluation.baseline=false",
        *overrides,
    )
