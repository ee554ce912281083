"""The backbone as it is: the row that every method has to beat."""

from typing import ClassVar, Unpack

from torch import Tensor

from cse_bench.data.rows import TokenRows
from cse_bench.methods.base import ContrastiveMethod, Representations, Shared


class Untrained(ContrastiveMethod):
    """No training, the same evaluation."""

    status: ClassVar[str] = "baseline"
    citation: ClassVar[str] = "none: the pretrained backbone"
    trains: ClassVar[bool] = False
    is_backbone: ClassVar[bool] = True

    def __init__(self, **shared: Unpack[Shared]) -> None:
        super().__init__(**shared)

    def views(self, batch: TokenRows) -> TokenRows:
        """The sentences themselves."""
        return batch

    def represent(self, rows: TokenRows) -> Representations:
        """The pooled vectors."""
        return {"z": self.encoder(rows)}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """There is none; asking for it is a bug."""
        raise AssertionError("method=untrained has no objective and is never trained")
