"""The training head that the SimCSE family puts after the pooling."""

import torch
from torch import Tensor, nn

from cse_bench.encoders.encoder import Encoder


class TrainingHead(nn.Sequential):
    """Linear(d, d) and Tanh, drawn as Transformers draws BERT's layers: weights normal(0, 0.02), bias zero.

    The official SimCSE code re-draws the head with the model's own initialiser and never copies the pretrained pooler
    (Gao et al. 2021, footnote 9). In float32 or better whatever the body's dtype: half-precision updates of a fresh
    layer round to nothing.
    """

    def __init__(self, encoder: Encoder) -> None:
        dtype = torch.float64 if encoder.dtype == torch.float64 else torch.float32
        linear = nn.Linear(encoder.width, encoder.width, dtype=dtype)
        nn.init.normal_(linear.weight, std=getattr(encoder.config, "initializer_range", 0.02))
        nn.init.zeros_(linear.bias)
        super().__init__(linear, nn.Tanh())

    def forward(self, input: Tensor) -> Tensor:
        """(n, d) -> (n, d)."""
        linear = self[0]
        assert isinstance(linear, nn.Linear)
        return super().forward(input.to(linear.weight.dtype))
