"""What is done to a sentence vector after it was read: a fixed affine map, kept with the encoder.

Shapes: n sentences, d width of the vectors as they were read, k width of the mapped ones.
"""

import torch
from torch import Tensor, nn

from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.errors import EncoderError


class AffineMap(nn.Module):
    r"""Takes a mean off a vector and multiplies it by a matrix: :math:`z = (x - m)\, W`, (n, d) -> (n, k).

    In float64, whatever computed x, and under autocast too: a whitening matrix divides by the smallest deviations. The
    result has the vector's dtype, float32 at least.

    Args:
        name: what the map does, for people.
        width: d.
        dimensions: k, at most d.
        mean: m, (d,); None: nothing is taken off.
        matrix: W, (d, k); None: the first k coordinates are kept as they are.

    Raises:
        EncoderError: the sizes do not fit each other.
    """

    def __init__(
        self, *, name: str, width: int, dimensions: int, mean: Tensor | None = None, matrix: Tensor | None = None
    ) -> None:
        super().__init__()
        if not 1 <= dimensions <= width:
            raise EncoderError(f"{dimensions} dimensions cannot be kept of vectors of {width} numbers")
        for tensor, shape in ((mean, (width,)), (matrix, (width, dimensions))):
            if tensor is not None and tensor.shape != shape:
                raise EncoderError(f"a map '{name}' needs a tensor of shape {shape}, got {tuple(tensor.shape)}")
        self.name = name
        self.width = width
        self.dimensions = dimensions
        # Parameters, so that they count as such at inference; nothing trains them.
        self.mean = None if mean is None else nn.Parameter(mean.double(), requires_grad=False)
        self.matrix = None if matrix is None else nn.Parameter(matrix.double(), requires_grad=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, d) -> (n, k)."""
        mapped = vectors.double()
        if self.mean is not None:
            mapped = mapped - self.mean
        mapped = mapped[:, : self.dimensions] if self.matrix is None else mapped @ self.matrix
        return mapped.to(torch.promote_types(vectors.dtype, torch.float32))


class MappedEncoder(SentenceEncoder):
    """An encoder whose vectors go through a map.

    Args:
        encoder: any encoder of single or summed vectors.
        affine_map: of the encoder's width.

    Raises:
        EncoderError: the map takes vectors of another width.
    """

    def __init__(self, encoder: SentenceEncoder, affine_map: AffineMap) -> None:
        super().__init__()
        if affine_map.width != encoder.width:
            raise EncoderError(f"a map of {affine_map.width} numbers cannot take vectors of {encoder.width}")
        self.encoder = encoder
        self.affine_map = affine_map
        self.tokenizer = encoder.tokenizer
        self.pooling = f"{encoder.pooling} + {affine_map.name}"
        self.provenance = encoder.provenance

    @property
    def width(self) -> int:
        """Length k of a sentence vector."""
        return self.affine_map.dimensions

    def forward(self, rows: TokenRows) -> Tensor:
        """(n, k)."""
        mapped: Tensor = self.affine_map(self.encoder(rows))
        return mapped
