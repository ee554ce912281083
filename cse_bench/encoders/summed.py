"""Several encoders whose sentence vectors are added."""

from collections.abc import Sequence

from torch import Tensor, nn

from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import Encoder, SentenceEncoder


class SummedEncoders(SentenceEncoder):
    """The sum of the vectors of several encoders that share a tokenizer; not normalised before.

    The cosine of a sum is that of the mean. A sentence costs as many forwards as there are towers.

    Args:
        towers: encoders of one width.
    """

    def __init__(self, towers: Sequence[Encoder]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.tokenizer = towers[0].tokenizer
        self.pooling = f"sum of {len(towers)} x {towers[0].pooling}"
        self.provenance = {"sum_of": [tower.provenance for tower in towers]}

    @property
    def width(self) -> int:
        """Length d of a sentence vector."""
        tower = self.towers[0]
        assert isinstance(tower, Encoder)
        return tower.width

    def forward(self, rows: TokenRows) -> Tensor:
        """(n, d)."""
        first, *others = self.towers
        total: Tensor = first(rows)
        for tower in others:
            total = total + tower(rows)
        return total
