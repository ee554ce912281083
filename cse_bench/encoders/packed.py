"""A body run over real tokens only: no padding, and in the last layer no token that nothing reads.

Transformers pads the sentences of a batch to its longest and computes every token of every layer. All parts of a layer
but its attention work token by token, so here the tokens of all sentences lie one after the other, (t, d), and are put
into rows for the attention alone. And where only a sentence's first token is read, the last layer needs the keys and
values of all tokens, but the queries, and whatever follows the attention, of the first tokens only: of two layers this
leaves 14/24 of the matrix products, of six 62/72.

The vectors are those of Transformers' own forward up to rounding, and the same modules are called (so that low-rank
adapters work); dropout masks are drawn by `cse_bench.encoders.dropout`.

Shapes: n sentences, l tokens of the longest, t tokens of all, d width, h heads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from cse_bench.data.rows import TokenRows
from cse_bench.encoders.architecture import first_position
from cse_bench.encoders.dropout import dropout
from cse_bench.training.gpu_kernels import runs_on_cpu

# Kernels are prepared per shape (oneDNN compiles and caches those of bfloat16): where there are many tokens, their
# number is made a multiple of this by empty ones, which nothing reads.
_TOKEN_STEP = 64
_MANY_TOKENS = 8 * _TOKEN_STEP


@dataclass(frozen=True)
class Packing:
    """Where the tokens of each sentence lie among the tokens of all.

    Attributes:
        shape: of the rows, n and l.
        firsts: the first token of each sentence, (n,).
        mask: which places of the rows hold a token, (n, l); None: all do.
        places: the place of every token in the rows, flattened, (t,); None: its own.
        empty: tokens behind all others that belong to no sentence.
    """

    shape: tuple[int, int]
    firsts: Tensor
    mask: Tensor | None
    places: Tensor | None
    empty: int = 0

    @classmethod
    def of(cls, rows: TokenRows) -> "Packing":
        """Planned on the CPU, where the lengths are."""
        device, (sentences, width) = rows.ids.device, rows.ids.shape
        if rows.is_full:
            return cls((sentences, width), torch.arange(sentences, device=device) * width, None, None)
        mask = torch.arange(width) < rows.lengths.unsqueeze(1)
        firsts = rows.lengths.cumsum(0) - rows.lengths
        places = mask.flatten().nonzero().flatten()
        empty = -len(places) % _TOKEN_STEP if len(places) >= _MANY_TOKENS else 0
        firsts, mask, places = (tensor.to(device, non_blocking=True) for tensor in (firsts, mask, places))
        return cls((sentences, width), firsts, mask, places, empty)

    def pack(self, rows: Tensor) -> Tensor:
        """(n, l, ...) -> (t, ...)."""
        flat = rows.flatten(0, 1)
        return flat if self.places is None else _Taken.apply(flat, self.places, self.empty)

    def unpack(self, tokens: Tensor) -> Tensor:
        """(t, ...) -> (n, l, ...), zero where there is no token."""
        if self.places is not None:
            tokens = _Placed.apply(tokens, self.places, self.shape[0] * self.shape[1])
        return tokens.unflatten(0, self.shape)


class _Taken(torch.autograd.Function):
    """Indexing where no place is taken twice: the backward copies, PyTorch's own would add row by row."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, places: Tensor, empty: int) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size, ctx.empty = len(flat), empty
        return _taken(flat, places, empty)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return _placed(gradients[0], places, ctx.size), None, None


class _Placed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        ctx.empty = len(tokens) - len(places)
        return _placed(tokens, places, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return _taken(gradients[0], places, ctx.empty), None, None


def _taken(flat: Tensor, places: Tensor, empty: int) -> Tensor:
    taken = flat.index_select(0, places)
    return taken if not empty else functional.pad(taken, (0, 0) * (flat.ndim - 1) + (0, empty))


def _placed(tokens: Tensor, places: Tensor, size: int) -> Tensor:
    rows = tokens.new_zeros((size, *tokens.shape[1:]))
    return rows.index_copy_(0, places, tokens[: len(places)])


def packed_states(
    body: PreTrainedModel, rows: TokenRows, *, first_token_only: bool, with_first_layer: bool
) -> tuple[Tensor, Tensor | None]:
    """Token states of the last layer, and of the first when asked.

    Args:
        body: of a type in `PACKABLE`.
        rows: n sentences.
        first_token_only: give the last layer's first tokens, (n, 1, d), instead of all, (n, l, d).
        with_first_layer: also give the output of layer 1, (n, l, d).
    """
    packing = Packing.of(rows)
    layers, run = _LAYERS[body.config.model_type](body)
    tokens = _embedded(body.embeddings, packing.pack(rows.ids), _positions(body, rows, packing))
    first = None
    for number, layer in enumerate(layers, start=1):
        read = packing.firsts if first_token_only and number == len(layers) else None
        tokens = run(layer, tokens, packing, read)
        if with_first_layer and number == 1:
            first = packing.unpack(tokens)
    return tokens.unsqueeze(1) if first_token_only else packing.unpack(tokens), first


def _positions(body: PreTrainedModel, rows: TokenRows, packing: Packing) -> Tensor:
    width = rows.ids.shape[1]
    start = first_position(body.config)
    return packing.pack(torch.arange(start, start + width, device=rows.ids.device).repeat(len(rows), 1))


def _embedded(embeddings: Any, ids: Tensor, positions: Tensor) -> Tensor:
    states = embeddings.word_embeddings(ids) + embeddings.position_embeddings(positions)
    if hasattr(embeddings, "token_type_embeddings"):
        states = states + embeddings.token_type_embeddings(ids.new_zeros(1))  # every token is of type 0
    return dropout(embeddings.LayerNorm(states), embeddings.dropout)


def _bert_layers(body: Any) -> tuple[nn.ModuleList, Callable[..., Tensor]]:
    return body.encoder.layer, _bert_layer


def _bert_layer(layer: Any, tokens: Tensor, packing: Packing, read: Tensor | None) -> Tensor:
    own, output = layer.attention.self, layer.attention.output
    asking = tokens if read is None else tokens[read]
    found = _attention(own, (own.query, own.key, own.value), own.num_attention_heads, asking, tokens, packing)
    states = output.LayerNorm(dropout(output.dense(found), output.dropout) + asking)
    fed = layer.output.dense(layer.intermediate(states))
    normed: Tensor = layer.output.LayerNorm(dropout(fed, layer.output.dropout) + states)
    return normed


def _distilbert_layers(body: Any) -> tuple[nn.ModuleList, Callable[..., Tensor]]:
    return body.transformer.layer, _distilbert_layer


def _distilbert_layer(layer: Any, tokens: Tensor, packing: Packing, read: Tensor | None) -> Tensor:
    own, ffn = layer.attention, layer.ffn
    asking = tokens if read is None else tokens[read]
    found = _attention(own, (own.q_lin, own.k_lin, own.v_lin), own.n_heads, asking, tokens, packing)
    states = layer.sa_layer_norm(own.out_lin(found) + asking)
    fed = ffn.lin2(ffn.activation(ffn.lin1(states)))
    normed: Tensor = layer.output_layer_norm(dropout(fed, ffn.dropout) + states)
    return normed


def _attention(
    module: Any, projections: tuple[Any, Any, Any], heads: int, asking: Tensor, tokens: Tensor, packing: Packing
) -> Tensor:
    """softmax(Q K^T / sqrt(d / h) + mask) V within every sentence: (t, d), or (n, d) where one token a row asks."""
    one_each = asking is not tokens
    tokens = _once_cast(tokens)
    query, key, value = projections
    q = query(_once_cast(asking) if one_each else tokens)
    q = q.unsqueeze(1) if one_each else packing.unpack(q)
    q, k, v = (
        part.unflatten(2, (heads, -1)).transpose(1, 2)
        for part in (q, packing.unpack(key(tokens)), packing.unpack(value(tokens)))
    )
    mask = None if packing.mask is None else packing.mask[:, None, None, :]
    probability = module.dropout.p if module.dropout.training else 0.0
    # On a CPU PyTorch's fused kernel draws dropout masks slowly, and takes half as long again in 16 bits.
    if runs_on_cpu(q) and (probability > 0 or q.dtype in (torch.bfloat16, torch.float16)):
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        found = dropout(scores.softmax(dim=3), module.dropout) @ v
    else:
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=probability)
    found = found.transpose(1, 2).flatten(2)
    return found.squeeze(1) if one_each else packing.pack(found)


def _once_cast(tokens: Tensor) -> Tensor:
    """Under autocast in its dtype: each of the three projections would cast by itself."""
    kind = tokens.device.type
    return tokens.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tokens


_LAYERS: dict[str, Callable[[Any], tuple[nn.ModuleList, Callable[..., Tensor]]]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), _bert_layers),
    "distilbert": _distilbert_layers,
}
PACKABLE = frozenset(_LAYERS)
"""Model types whose layers are known here."""
