"""Unsupervised SimCSE.

Gao, Yao and Chen: "SimCSE: Simple Contrastive Learning of Sentence Embeddings", EMNLP 2021, arXiv 2104.08821.
Official code: github.com/princeton-nlp/SimCSE.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Unpack

from pydantic import Field
from torch import Tensor, nn

from cse_bench.config.messages import Problem
from cse_bench.config.schema import RunConfig
from cse_bench.data.rows import TokenRows
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.dropout_views import dropout_problem
from cse_bench.methods.head import TrainingHead
from cse_bench.methods.method import Shared


class SimCSE(ContrastiveMethod):
    r"""Every sentence is encoded twice: two dropout masks make the positive pair, the batch the negatives.

    .. math::
        z = \tanh(W c + b) \qquad
        \ell_i = -\log \frac{e^{\cos(z_i^1, z_i^2) / \tau}}{\sum_{j=1}^{b} e^{\cos(z_i^1, z_j^2) / \tau}}

    where c is the pooled vector (the first token's state, before any pretrained pooler). The loss is the mean over
    anchors (equation 4 of the paper). Anchors are the first views, candidates the second ones; it is not symmetrised.

    The head W, b is drawn anew, not copied from a pretrained pooler, and is used in training only: the embedding is c
    itself (paper, table 6, "train only"; STS-B dev 82.5 against 81.7 with the head kept).

    Args:
        temperature: :math:`\tau`, 0.05 in the paper.
        head: `train_only`, or `none` (80.9 in table 6).
        views: `dropout`, or `identical`: the "fixed mask" ablation of table 3, one forward used as both views (43.6).
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "official code"
    citation: ClassVar[str] = "Gao, Yao and Chen, EMNLP 2021, arXiv 2104.08821"

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)],
        head: Literal["train_only", "none"],
        views: Literal["dropout", "identical"],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.temperature = temperature
        self.head = TrainingHead(self.encoder) if head == "train_only" else nn.Identity()
        self.view_source = views

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """Dropout views need dropout."""
        if config.method.arguments().get("views") == "dropout":
            yield from dropout_problem(config)

    def views(self, batch: TokenRows) -> TokenRows:
        """Two copies of every sentence (one for the fixed-mask ablation)."""
        return batch.repeat(2 if self.view_source == "dropout" else 1)

    def represent(self, rows: TokenRows) -> Representations:
        """The training vectors: z = head(pooled vector)."""
        return {"z": self.head(self.encoder(rows))}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """Mean InfoNCE loss of the first views against the second ones."""
        z = representations["z"]
        return {"loss": info_nce(z[0], z[-1], temperature=self.temperature)}
