"""An encoder as a row of modules that sentence-transformers ships, so that no code travels with an exported model.

Most poolings are one module. Three things need several, each an identity that the export checks:

* a layer average: `WeightedLayerPooling` with weight 1 on the first and the last layer
* TextCNN: kernels of one odd size with zeros where ours do not reach, between two `WordWeights` that silence the tokens
  around the sentence. A silenced window is 0, and max(0, max_t w_t) is max_t ReLU(w_t)
* a sum of two towers: the vector of the first waits as `cls_token_embeddings` until that of the second stands beside
  it; then [I I] adds them

Shapes: d width, c channels, s kernel sizes, k dimensions kept.
"""

from collections.abc import Callable

import torch
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    Dense,
    Module,
    Pooling,
    Transformer,
    WeightedLayerPooling,
    WordWeights,
)
from sentence_transformers.sentence_transformer.modules.pooling import PoolingMode
from torch import Tensor, nn

from cse_bench.encoders.affine_map import AffineMap, MappedEncoder
from cse_bench.encoders.encoder import Encoder, SentenceEncoder
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.text_cnn import TextCNN
from cse_bench.errors import EncoderError

POOLINGS: dict[str, PoolingMode] = {"cls": "cls", "mean": "mean", "last_token": "lasttoken", "first_last_mean": "mean"}
_WAITING = "cls_token_embeddings"  # what `Pooling` takes as the vector of the first token, if it is there

Body = Callable[[Encoder], Transformer]


def stock_modules(encoder: SentenceEncoder, body: Body) -> list[Module]:
    """The modules that compute what an encoder computes from its tokens.

    Args:
        encoder: any encoder that a run keeps.
        body: makes the module of an encoder's body and tokenizer.

    Raises:
        EncoderError: no stock modules compute it.
    """
    if isinstance(encoder, MappedEncoder):
        return [*stock_modules(encoder.encoder, body), *_map_modules(encoder.affine_map)]
    if isinstance(encoder, SummedEncoders):
        return _sum_modules(encoder, body)
    assert isinstance(encoder, Encoder)
    return [body(encoder), *reading_modules(encoder)]


def has_layers_behind(encoder: SentenceEncoder) -> bool:
    """Whether modules with weights follow the body; these are in float32, and so the body has to be."""
    return not isinstance(encoder, Encoder) or encoder.readout is not None or encoder.pooling == "first_last_mean"


def reading_modules(encoder: Encoder) -> list[Module]:
    """From the states of a body's tokens to the sentence vector; see `stock_modules`."""
    if encoder.readout is None:
        layers = [_layer_average(encoder)] if encoder.pooling == "first_last_mean" else []
        return [*layers, Pooling(encoder.width, POOLINGS[encoder.pooling])]
    if isinstance(encoder.readout, TextCNN):
        return _text_cnn_modules(encoder, encoder.readout)
    raise EncoderError(
        f"the readout '{encoder.readout.name}' has no counterpart among the modules of sentence-transformers, so the "
        "encoder cannot leave cse_bench without its code"
    )


def _layer_average(encoder: Encoder) -> Module:
    layers = int(encoder.config.num_hidden_layers)
    weights = torch.zeros(layers)
    weights[0] += 1
    weights[-1] += 1  # of a single layer, which is both: 2
    return WeightedLayerPooling(encoder.width, layers, layer_start=1, layer_weights=nn.Parameter(weights))


def _text_cnn_modules(encoder: Encoder, readout: TextCNN) -> list[Module]:
    """h, and the first token's state where it is added; see `TextCNN`."""
    channels, sizes = readout.channels, readout.kernel_sizes
    reach = max(sizes)
    # Centred on the token that a window of ours starts with; what lies before it has weight zero.
    convolution = CNN(encoder.width, channels * len(sizes), [2 * reach - 1])
    target = convolution.convs[0]
    assert isinstance(target, nn.Conv1d)
    assert target.bias is not None
    with torch.no_grad():
        target.weight.zero_()
        for index, (scale, size) in enumerate(zip(readout.scales, sizes, strict=True)):
            assert isinstance(scale, nn.Conv1d)
            assert scale.bias is not None
            rows = slice(index * channels, (index + 1) * channels)
            target.weight[rows, :, reach - 1 : reach - 1 + size] = scale.weight.float()
            target.bias[rows] = scale.bias.float()
    # (d, c, s) -> (d, s * c), in the order of the convolution's channels
    aggregate = readout.aggregate.weight.detach().float().transpose(1, 2).flatten(1)
    assert readout.aggregate.bias is not None
    bias = readout.aggregate.bias.detach().float()
    first: list[Module] = []
    modes: tuple[PoolingMode, ...] = ("max",)
    if readout.add_first:
        first = [Pooling(encoder.width, "cls"), _identity(encoder.width, to=_WAITING)]
        modes, aggregate = ("cls", "max"), torch.cat([torch.eye(encoder.width), aggregate], dim=1)
    return [
        *first,
        _content_only(encoder),
        convolution,
        _content_only(encoder),
        Pooling(channels * len(sizes), modes),
        _linear(aggregate, bias),
    ]


def _content_only(encoder: Encoder) -> Module:
    """Multiplies the states of the tokens around a sentence by zero: of the special ones, but the unknown."""
    tokenizer = encoder.tokenizer.tokenizer
    silent = {str(index): 0.0 for index in tokenizer.all_special_ids if index != tokenizer.unk_token_id}
    # Ids instead of the tokens' texts: the module would also take "<S>" for "<s>".
    return WordWeights([str(index) for index in range(int(encoder.config.vocab_size))], silent, unknown_word_weight=1.0)


def _first_token_only(encoder: Encoder) -> Module:
    """Makes the mean over tokens the state of the first one. It has to be the same token in every row."""
    tokenizer = encoder.tokenizer.tokenizer
    first = {row[0] for row in encoder.tokenizer(["Tea", "A man."], max_length=None)}
    if len(first) > 1 or not first <= set(tokenizer.all_special_ids):
        raise EncoderError("towers that read the first token need a tokenizer that begins every row with the same one")
    kept = {str(index): 1.0 for index in first}
    return WordWeights([str(index) for index in range(int(encoder.config.vocab_size))], kept, unknown_word_weight=0.0)


def _sum_modules(encoder: SummedEncoders, body: Body) -> list[Module]:
    towers = [tower for tower in encoder.towers if isinstance(tower, Encoder)]
    if len(towers) != 2 or any(tower.readout is not None for tower in towers):
        raise EncoderError(
            f"only sums of two encoders without a readout can be written as stock modules, not '{encoder.pooling}'"
        )
    first, second = towers
    reading = reading_modules(second)[:-1]
    if second.pooling == "cls":
        reading = [_first_token_only(second)]
    mode = "mean" if second.pooling == "cls" else POOLINGS[second.pooling]
    width = first.width
    return [
        *stock_modules(first, body),
        _identity(width, to=_WAITING),
        body(second),
        *reading,
        Pooling(width, ("cls", mode)),
        _linear(torch.cat([torch.eye(width), torch.eye(width)], dim=1), None),
    ]


def _map_modules(affine_map: AffineMap) -> list[Module]:
    """The map x -> (x - m) W. The mean first: x W - m W would cancel digits where W divides by small deviations."""
    modules: list[Module] = []
    eye = torch.eye(affine_map.width)
    if affine_map.mean is not None:
        modules.append(_linear(eye, -affine_map.mean.detach().float()))
    if affine_map.matrix is not None:
        modules.append(_linear(affine_map.matrix.detach().float().mT.contiguous(), None))
    elif affine_map.dimensions < affine_map.width:
        modules.append(_linear(eye[: affine_map.dimensions], None))
    return modules


def _identity(width: int, *, to: str) -> Module:
    return _linear(torch.eye(width), None, to=to)


def _linear(weight: Tensor, bias: Tensor | None, *, to: str | None = None) -> Module:
    """A layer W x + b of sentence vectors; W is (out, in)."""
    return Dense(
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        activation_function=nn.Identity(),
        init_weight=weight.clone(),
        init_bias=None if bias is None else bias.clone(),
        module_output_name=to,
    )
