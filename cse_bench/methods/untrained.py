"""The backbone as it is: the row that every method has to beat."""

from typing import ClassVar

from torch import Tensor

from cse_bench.config.schema import Optimizer
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import Encoder
from cse_bench.methods.base import ContrastiveMethod, Representations


class Untrained(ContrastiveMethod):
    """No training, the same evaluation.

    Args:
        encoder: the backbone.
        optimizer: not used; every method takes it.
        split_rows_by_length: not used; every method takes it.
    """

    status: ClassVar[str] = "baseline"
    citation: ClassVar[str] = "none: the pretrained backbone"
    trains: ClassVar[bool] = False

    def __init__(self, *, encoder: Encoder, optimizer: Optimizer, split_rows_by_length: bool = True) -> None:
        super().__init__(encoder=encoder, optimizer=optimizer, split_rows_by_length=split_rows_by_length)

    def views(self, batch: TokenRows) -> TokenRows:
        """The sentences themselves."""
        return batch

    def represent(self, rows: TokenRows) -> Representations:
        """The pooled vectors."""
        return {"z": self.encoder(rows)}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """There is none; asking for it is a bug."""
        raise AssertionError("method=untrained has no objective and is never trained")
