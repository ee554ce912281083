"""Readouts: trained layers between token states and the sentence vector that stay at inference.

A readout is saved with its encoder, by name and arguments; only the classes listed in `READOUTS` are ever built from a
file.
"""

from typing import Any, ClassVar

from torch import Tensor, nn


class Readout(nn.Module):
    """Reads a sentence vector off token states: (b, l, d) and the attention mask (b, l) -> (b, d)."""

    name: ClassVar[str]

    def arguments(self) -> dict[str, Any]:
        """What the constructor needs to build this again."""
        raise NotImplementedError

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Sentence vectors; independent of the padding and its side."""
        raise NotImplementedError


READOUTS: dict[str, type[Readout]] = {}
"""Filled by the modules that define them, which `cse_bench.encoders.artifact` imports."""


def build_readout(name: str, arguments: dict[str, Any]) -> Readout:
    """The readout that a saved encoder names.

    Raises:
        KeyError: there is no such readout.
    """
    return READOUTS[name](**arguments)
