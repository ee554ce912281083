"""TextCNN: convolutions of several widths over the token states, read as one sentence vector.

Shapes: b sentences, l tokens (padded), d width, c channels, s kernel sizes. `mask` is the attention mask, 1 for real
tokens, special ones included.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cse_bench.encoders.readout import Readout


class TextCNN(Readout):
    r"""Convolutions over the content tokens, the maximum of each over time, and one more convolution over kernel sizes.

    .. math::
        z_k = \max_t\, \mathrm{ReLU}(\mathrm{Conv}_k(X))_t \in R^c \qquad
        h = \mathrm{Conv}_s([z_{k_1} \dots z_{k_s}]) \in R^d

    X are the states of the tokens between the special ones. It is followed by zeros, so that every content token
    starts exactly one window of each size, and windows that start elsewhere do not count: h depends neither on the
    padding nor on its side. Without content (an empty sentence) z is zero.

    The weights are in float32, whatever the body's dtype; states are taken to theirs. Under autocast the convolutions
    compute in its precision.

    Args:
        width: d, of the states and of the vector.
        channels: c, of each kernel size.
        kernel_sizes: in tokens.
        add_first: add the state of the first token to h.

    Source:
        Kim 2014 (arXiv 1408.5882); as a sentence vector: Liu et al. 2024 (arXiv 2402.15153).
    """

    name: ClassVar[str] = "text_cnn"

    def __init__(self, *, width: int, channels: int, kernel_sizes: Sequence[int], add_first: bool = False) -> None:
        super().__init__()
        self.width = width
        self.channels = channels
        self.kernel_sizes = tuple(kernel_sizes)
        self.add_first = add_first
        self.scales = nn.ModuleList(nn.Conv1d(width, channels, size) for size in self.kernel_sizes)
        self.aggregate = nn.Conv1d(channels, width, len(self.kernel_sizes))
        for layer in (*self.scales, self.aggregate):
            assert isinstance(layer, nn.Conv1d)
            _draw_kaiming(layer)

    def arguments(self) -> dict[str, Any]:
        """What the constructor needs to build this again."""
        return {
            "width": self.width,
            "channels": self.channels,
            "kernel_sizes": list(self.kernel_sizes),
            "add_first": self.add_first,
        }

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Sentence vectors: h, with the first token's state added where it was asked for."""
        latent = self.latent(states, mask)
        return latent + first_states(states, mask) if self.add_first else latent

    def latent(self, states: Tensor, mask: Tensor) -> Tensor:
        """h, (b, l, d) -> (b, d)."""
        scales: Tensor = self.aggregate(self.features(states, mask))
        return scales.squeeze(2)

    def features(self, states: Tensor, mask: Tensor) -> Tensor:
        """The maxima z of every kernel size, (b, l, d) -> (b, c, s)."""
        content = content_mask(mask)
        # Filled, not multiplied by zero: a kernel may leave NaN where a padding token attends to nothing.
        filled = states.to(self.aggregate.weight.dtype).masked_fill(~content[..., None], 0).mT
        padded = functional.pad(filled, (0, max(self.kernel_sizes) - 1))
        maxima = []
        for scale in self.scales:
            windows = scale(padded)[..., : mask.shape[1]].masked_fill(~content[:, None], -math.inf)
            # ReLU after the maximum is ReLU before it, and makes -inf, of a row without content, zero.
            maxima.append(windows.amax(dim=2).relu())
        return torch.stack(maxima, dim=2)


class TextCNNDecoder(nn.Module):
    """Token states from one vector, the layers of `TextCNN` mirrored; position i is the i-th content token.

    It sees nothing but the vector: with a look at the tokens or their states the reconstruction would be trivial.

    Args:
        width: d, of vector and states.
        channels: c, of each kernel size.
        kernel_sizes: s of them.
        length: how many states it writes.
    """

    def __init__(self, *, width: int, channels: int, kernel_sizes: Sequence[int], length: int) -> None:
        super().__init__()
        self.split = nn.ConvTranspose1d(width, channels, len(kernel_sizes))
        self.spread = nn.ModuleList(nn.ConvTranspose1d(channels, channels, length - size + 1) for size in kernel_sizes)
        self.write = nn.ModuleList(nn.ConvTranspose1d(channels, width, size) for size in kernel_sizes)
        for layer in (self.split, *self.spread, *self.write):
            assert isinstance(layer, nn.ConvTranspose1d)
            _draw_kaiming(layer)

    def forward(self, latent: Tensor) -> Tensor:
        """(n, d) -> (n, length, d)."""
        scales = self.split(latent[..., None]).unbind(dim=2)
        written = [
            write(spread(scale[..., None]).relu())
            for scale, spread, write in zip(scales, self.spread, self.write, strict=True)
        ]
        return torch.stack(written).mean(dim=0).mT


def content_mask(mask: Tensor) -> Tensor:
    """True for real tokens between the first and the last real one of a row (the special ones), (b, l)."""
    after_first = mask.cumsum(dim=1) > 1
    before_last = mask.flip(dims=(1,)).cumsum(dim=1).flip(dims=(1,)) > 1
    return mask.bool() & after_first & before_last


def first_states(states: Tensor, mask: Tensor) -> Tensor:
    """The state of the first real token, (b, l, d) -> (b, d)."""
    return states[torch.arange(states.shape[0], device=states.device), mask.argmax(dim=1)]


def _draw_kaiming(layer: nn.Conv1d | nn.ConvTranspose1d) -> None:
    """Weights normal(0, 2 / fan-in), biases zero (He et al. 2015, arXiv 1502.01852, equation 10).

    As PyTorch counts it: of a transposed convolution its outputs, which are more than its inputs here, so that a
    reconstruction starts small.
    """
    nn.init.kaiming_normal_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
