"""Two towers run layer by layer side by side, so that the attention of one can weigh the values of the other.

Cross-attention between towers without parameters of its own (Zong et al. 2025, arXiv 2505.02366). Their modified
modelling code is not public; the dual stream is our reading of it. At a crossed layer, in every head and with
b the other tower than a,

    o_a = softmax(Q_a(x_a) K_a(x_a)^T / sqrt(d_head) + mask) V_b(x_b)

and the rest of the layer (output projection, dropout, residual with x_a, norms, feed-forward) is tower a's own.

Shapes: n rows, l tokens, d width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from cse_bench.errors import EncoderError

CROSSABLE = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})
"""Model types whose layers keep their value projection where it is looked for here."""

Pair = tuple[Tensor, Tensor]


class Streams(NamedTuple):
    """Last token states of both towers, each (n, l, d).

    Attributes:
        plain: each tower by itself; inline, the crossed stream.
        crossed: the same towers with values exchanged; the plain stream itself when no layer is crossed.
    """

    plain: Pair
    crossed: Pair


def crossed_layers(layers: int, *, every: int) -> frozenset[int]:
    """Which layers, from 0, exchange values: every so many, the last one included.

    Raises:
        EncoderError: `every` does not divide `layers`.
    """
    if layers % every:
        possible = ", ".join(str(n) for n in range(1, layers + 1) if layers % n == 0)
        raise EncoderError(f"the last of {layers} layers would not be crossed; give one of {possible}")
    return frozenset(range(every - 1, layers, every))


def twin_states(
    first: PreTrainedModel, second: PreTrainedModel, ids: Tensor, mask: Tensor, *, crossed: frozenset[int], inline: bool
) -> Streams:
    """Both towers over the same tokens.

    The plain stream is each tower as it stands. The crossed one leaves it at the first crossed layer: before that both
    are the same, dropout masks included, and are computed once.

    The exchange is a forward hook on the value projection, there while its layer runs. So a layer must not be run
    again later, as Transformers' own gradient checkpointing would: the hook is gone by then. Recomputing all of this
    function is fine.

    Args:
        first: a BERT or RoBERTa body.
        second: another of the same architecture.
        ids: token ids, (n, l), padded on the right.
        mask: 1 for real tokens, (n, l).
        crossed: layers that exchange values, from 0.
        inline: there is one stream, and it is the crossed one.

    Raises:
        EncoderError: a body without the value projections of BERT's layers.
    """
    bodies: tuple[Any, Any] = (first, second)
    projections = list(zip(value_projections(first), value_projections(second), strict=True))
    plain: Pair = (first.embeddings(input_ids=ids), second.embeddings(input_ids=ids))  # type: ignore[operator]
    masks = [create_bidirectional_mask(body.config, x, mask) for body, x in zip(bodies, plain, strict=True)]
    split: Pair | None = None
    for index, values in enumerate(projections):
        layers = (bodies[0].encoder.layer[index], bodies[1].encoder.layer[index])
        if inline:
            plain = (_exchanged if index in crossed else _apart)(layers, values, plain, masks)
            continue
        if split is None and index in crossed:
            split = plain
        if split is not None:
            split = (_exchanged if index in crossed else _apart)(layers, values, split, masks)
        plain = _apart(layers, values, plain, masks)
    return Streams(plain, plain if split is None else split)


def value_projections(body: PreTrainedModel) -> list[nn.Module]:
    """The value projection of every layer.

    Raises:
        EncoderError: this architecture has none of its own, or elsewhere.
    """
    try:
        found: list[nn.Module] = [layer.attention.self.value for layer in body.encoder.layer]  # type: ignore
    except AttributeError as error:
        raise EncoderError(
            f"values cannot be exchanged between layers of '{body.config.model_type}', whose value projections are not "
            f"those of BERT; use one of {', '.join(sorted(CROSSABLE))}"
        ) from error
    return found


def _apart(layers: tuple[Any, Any], values: Any, states: Pair, masks: list[Any]) -> Pair:
    return _states(layers[0](states[0], masks[0])), _states(layers[1](states[1], masks[1]))


def _exchanged(layers: tuple[Any, Any], values: tuple[nn.Module, nn.Module], states: Pair, masks: list[Any]) -> Pair:
    # Both are projected before either layer runs.
    first, second = values[0](states[0]), values[1](states[1])
    with _giving(values[0], second), _giving(values[1], first):
        return _apart(layers, values, states, masks)


@contextmanager
def _giving(projection: nn.Module, output: Tensor) -> Iterator[None]:
    """The projection gives this instead of its own output."""
    handle = projection.register_forward_hook(lambda module, arguments, own: output)
    try:
        yield
    finally:
        handle.remove()


def _states(output: Any) -> Tensor:
    """Layers of earlier Transformers versions return a tuple."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
