"""SwappedWords, made up for the tests: the positive of a sentence has two neighbouring tokens swapped."""

from typing import Annotated, ClassVar, Unpack

import torch
from pydantic import Field
from torch import Tensor

from cse_bench.data.rows import TokenRows, stacked
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.method import Shared


class SwappedWords(ContrastiveMethod):
    """InfoNCE between sentences and their swapped versions, on the pooled vectors.

    Args:
        temperature: of the softmax.
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "own reading"
    citation: ClassVar[str] = "nobody, never"

    def __init__(self, *, temperature: Annotated[float, Field(gt=0)], **shared: Unpack[Shared]) -> None:
        super().__init__(**shared)
        self.temperature = temperature

    def views(self, batch: TokenRows) -> TokenRows:
        """The sentences, and the sentences with their second and third token swapped."""
        swapped = batch.repeat(1)
        swapped.ids[:, [1, 2]] = swapped.ids[:, [2, 1]]
        return stacked([batch, swapped])

    def represent(self, rows: TokenRows) -> Representations:
        """The pooled vectors."""
        return {"z": self.encoder(rows)}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """InfoNCE, and how close the two versions are."""
        z = representations["z"]
        return {
            "loss": info_nce(z[0], z[1], temperature=self.temperature),
            "cosine_same": torch.cosine_similarity(z[0], z[1]).mean(),
        }
