"""Readouts: trained layers between token states and the sentence vector that stay at inference.

A readout is saved with its encoder, by name and arguments; `cse_bench.encoders.artifact` lists the classes that a file
can name.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class Readout(nn.Module, ABC):
    """Reads a sentence vector off token states: (b, l, d) and the attention mask (b, l) -> (b, d)."""

    name: ClassVar[str]

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What the constructor needs to build this again."""

    @abstractmethod
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Sentence vectors; independent of the padding and its side."""
