"""Weights of one encoder into another one of the same kind."""

from cse_bench.encoders.affine_map import MappedEncoder
from cse_bench.encoders.encoder import Encoder, SentenceEncoder
from cse_bench.errors import EncoderError


def take_weights(target: Encoder, source: SentenceEncoder, *, origin: str) -> None:
    """Overwrites the weights of an encoder in place; the source's provenance becomes its own.

    Args:
        target: the encoder that changes. Its dropout, kernel and dtype stay.
        source: another encoder with the same architecture, tokenizer, prompt and pooling.
        origin: what the source is, for the message.

    Raises:
        EncoderError: the two are not of one kind.
    """
    if differences := _differences(target, source):
        raise EncoderError(
            f"the weights of {origin} do not fit this run's encoder: other {', '.join(differences)}. Give an encoder "
            "of the same backbone, prompt and pooling, without layers of its own behind the tokens' states"
        )
    assert isinstance(source, Encoder)
    target.body.load_state_dict(source.body.state_dict())
    target.provenance = source.provenance


def _differences(target: Encoder, source: SentenceEncoder) -> list[str]:
    if isinstance(source, MappedEncoder):
        return [f"vectors ({source.pooling})"]
    if not isinstance(source, Encoder):
        return [f"number of towers ({source.pooling})"]
    shapes = [{name: t.shape for name, t in one.body.state_dict().items()} for one in (target, source)]
    settings = {
        "weights": shapes[0] == shapes[1],
        # The weights look the same whatever the number of heads.
        "number of attention heads": _heads(target) == _heads(source),
        "vocabulary": _vocabulary(target) == _vocabulary(source),
        "prompt": (target.tokenizer.prompt, target.tokenizer.clean_text)
        == (source.tokenizer.prompt, source.tokenizer.clean_text),
        "pooling": target.pooling == source.pooling,
        "readout": source.readout is None,
    }
    return [name for name, is_same in settings.items() if not is_same]


def _heads(encoder: Encoder) -> int | None:
    return getattr(encoder.config, "num_attention_heads", None)


def _vocabulary(encoder: Encoder) -> dict[str, int]:
    return encoder.tokenizer.tokenizer.get_vocab()
