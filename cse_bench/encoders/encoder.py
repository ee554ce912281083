"""The encoder: body, tokenizer, pooling and prompt as one thing, so that none of them is lost or swapped on the way."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from cse_bench.config.schema import Backbone
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.adapters import add_lora
from cse_bench.encoders.architecture import first_position, is_decoder, max_positions
from cse_bench.encoders.encoding import encode_sentences
from cse_bench.encoders.gradient_checkpointing import keep_layer_inputs_only
from cse_bench.encoders.packed import PACKABLE, packed_states
from cse_bench.encoders.pooling import POOLING
from cse_bench.encoders.readout import Readout
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.encoders.weights import load_body
from cse_bench.errors import EncoderError
from cse_bench.training.bars import progress_bar
from cse_bench.training.precision import autocast, device_type, resolve_precision


class SentenceEncoder(nn.Module):
    """What turns token rows into sentence vectors at inference: calling it gives (n, d).

    Attributes:
        tokenizer: sentences to token ids, prompt included.
        pooling: how a vector is read, for people.
        provenance: where the weights come from, for the result.
    """

    tokenizer: SentenceTokenizer
    pooling: str
    provenance: dict[str, Any]

    @property
    def width(self) -> int:
        """Length d of a sentence vector."""
        raise NotImplementedError

    @staticmethod
    def load(
        model: str | Path,
        *,
        pooling: str | None = None,
        prompt: str | None = None,
        dtype: str | None = None,
        attention: str = "sdpa",
        trust_remote_code: bool = False,
        accelerator: str = "auto",
    ) -> "SentenceEncoder":
        """Any encoder by one name: a run, a local directory or a Hub id, read the way it was made to be read.

        Args:
            model: see `cse_bench.encoders.loading.open_encoder`, also for the options.
            pooling: only for models that do not state theirs.
            prompt: likewise.
            dtype: of the weights; None: as saved by a run, else float32.
            attention: kernel.
            trust_remote_code: run code that comes with the model.
            accelerator: `auto` (a GPU where there is one), `cpu` or `gpu`.

        Raises:
            EncoderError: nothing there, or asked for in a way it was not trained.
        """
        from cse_bench.encoders.loading import open_encoder

        encoder = open_encoder(
            str(model),
            pooling=pooling,
            prompt=prompt,
            dtype=dtype,
            attention=attention,
            trust_remote_code=trust_remote_code,
        )
        return encoder.to(device_type(accelerator))

    def encode(
        self,
        sentences: Sequence[str],
        *,
        batch_tokens: int = 8192,
        max_length: int | None = None,
        precision: str = "32-true",
        normalize: bool = False,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Sentence vectors in float32, (n, d), in the order given. See `encode_sentences`.

        Args:
            sentences: n sentences.
            batch_tokens: padded tokens per forward.
            max_length: tokens at which a sentence is cut; None: the model's limit.
            precision: of the forward: `32-true`, `bf16-mixed`, `16-mixed`, or `auto`.
            normalize: scale every vector to length 1.
            show_progress: a bar on standard error.
        """
        device = next(self.parameters()).device.type
        resolved = resolve_precision(precision, accelerator="gpu" if device == "cuda" else device)
        hidden_s = 0.0 if show_progress else float("inf")
        with (
            autocast(resolved, device),
            progress_bar("encoding", unit=" sentences", total=len(sentences), delay_s=hidden_s) as bar,
        ):
            vectors = encode_sentences(
                self,
                self,
                self.tokenizer,
                sentences,
                batch_tokens=batch_tokens,
                max_length=max_length,
                on_progress=lambda done: bar.update(done - bar.n) and None,
            )
        return functional.normalize(torch.from_numpy(vectors), dim=1).numpy() if normalize else vectors


class Encoder(SentenceEncoder):
    """A pretrained body with the pooling that reads a sentence vector off its token states.

    Args:
        body: a Transformers model without head, or one with an adapter.
        tokenizer: sentences to token ids, prompt included.
        pooling: `cls`, `mean`, `first_last_mean` or `last_token`.
        padding_side: `right` or `left`; decides no embedding.
        family: `encoder` (bidirectional) or `decoder` (causal).
        provenance: where the weights come from, for the result.
        readout: trained layers that read the vector instead of the pooling, see `cse_bench.encoders.readout`.
        compiled: `torch.compile` the body for training, in this mode; None: not.
        packed: leave out padding and tokens that nothing reads (`cse_bench.encoders.packed`): True, False, or `auto`:
            on a CPU, if the body is of a type that can be run so. The vectors are the same up to rounding.

    Raises:
        EncoderError: a pooling, padding side or packing that this body cannot have.
    """

    def __init__(
        self,
        body: nn.Module,
        tokenizer: SentenceTokenizer,
        *,
        pooling: str,
        padding_side: str,
        family: str,
        provenance: dict[str, Any] | None = None,
        readout: Readout | None = None,
        packed: Literal["auto"] | bool = "auto",
        compiled: str | None = None,
    ) -> None:
        super().__init__()
        if pooling == "cls" and family == "decoder":
            raise EncoderError(
                "pooling=cls reads the first token, which in a causal model has seen nothing; use last_token or mean"
            )
        self.body = body
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.padding_side = padding_side
        self.family = family
        self.provenance = provenance or {}
        self.readout = readout
        self.packed = packed
        self.compiled = compiled
        if packed is True and (reason := self._not_packable()):
            raise EncoderError(f"backbone.packed=true: {reason}; set backbone.packed=auto")
        accepted = inspect.signature(self.plain_body.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_cache = "use_cache" in accepted

    @property
    def plain_body(self) -> PreTrainedModel:
        """The Transformers model itself; with an adapter, the one that carries its layers."""
        body: Any = self.body
        return body.get_base_model() if hasattr(body, "get_base_model") else body

    @property
    def config(self) -> PretrainedConfig:
        """The body's Transformers config."""
        return self.plain_body.config

    @property
    def width(self) -> int:
        """Length d of a sentence vector."""
        return int(self.config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.body.parameters()).dtype

    @property
    def adapter_dropout(self) -> float:
        """The dropout of the adapter; 0 without one."""
        configs: dict[str, Any] = getattr(self.body, "peft_config", {})
        return max((float(config.lora_dropout) for config in configs.values()), default=0.0)

    def packs(self, rows: TokenRows) -> bool:
        """Whether these rows are run without their padding."""
        wanted = rows.ids.device.type == "cpu" if self.packed == "auto" else self.packed
        return wanted and self._not_packable() is None

    def _not_packable(self) -> str | None:
        config = self.config
        if config.model_type not in PACKABLE or self.family == "decoder":
            return f"'{config.model_type}' is not run so, only encoders of {', '.join(sorted(PACKABLE))}"
        if not type(self.plain_body).__module__.startswith("transformers.models."):
            return "the model comes with code of its own, which alone knows its forward"
        if self.compiled is not None:
            return "backbone.compile compiles Transformers' own forward"
        if config._attn_implementation != "sdpa":
            return f"its attention is PyTorch's own, not backbone.attention={config._attn_implementation}"
        return None

    def states(
        self, rows: TokenRows, *, with_first: bool = False, only_first_token: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Token states of the last layer, those of the first when asked, and the mask of both: (n, l, d) and (n, l).

        Args:
            rows: n sentences.
            with_first: also return the output of layer 1 (`hidden_states[1]`).
            only_first_token: only the first token of each row is read; the rest of the last layer may be missing.
        """
        if self.packs(rows):
            last, first = packed_states(
                self.plain_body, rows, first_token_only=only_first_token, with_first_layer=with_first
            )
            return last, first, rows.mask()[:, : last.shape[1]]
        ids, mask = rows.padded(pad_token_id=self.tokenizer.pad_token_id, side=self.padding_side)
        arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self._takes_positions and self.padding_side == "left":
            # GPT-2 and BERT count positions from the left edge, padding included, unless they are told otherwise.
            arguments["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0) + first_position(self.config)
        if self._takes_cache:
            arguments["use_cache"] = False
        output = self._run_body(**arguments, output_hidden_states=with_first)
        return output.last_hidden_state, output.hidden_states[1] if with_first else None, mask

    def _run_body(self, **arguments: Any) -> Any:
        if self.compiled is None:
            return self.body(**arguments)
        # Not when it is built: a copy (a momentum encoder, a second tower) does not take the compiled code along.
        if self.training and self.body._compiled_call_impl is None:
            self.body.compile(mode=self.compiled)
        # The lengths of an evaluation are all different, each of which would be compiled.
        with torch.compiler.set_stance("default" if self.training else "force_eager"):
            return self.body(**arguments)

    def forward(self, rows: TokenRows) -> Tensor:
        """Pooled vectors of token rows: (n, d)."""
        return self.pooled(
            *self.states(
                rows,
                with_first=self.pooling == "first_last_mean",
                only_first_token=self.pooling == "cls" and self.readout is None,
            )
        )

    def pooled(self, last: Tensor, first: Tensor | None, mask: Tensor) -> Tensor:
        """Sentence vectors from token states, (b, l, d) -> (b, d)."""
        if self.readout is not None:
            return self.readout(last, mask)
        return POOLING[self.pooling](last, first, mask)


def build_encoder(backbone: Backbone) -> Encoder:
    """The encoder of a registry entry, weights loaded.

    Raises:
        EncoderError: the weights cannot be loaded, or do not fit the entry.
        DataError: they come from a package that is missing or not the one named.
    """
    body, tokenizer, provenance = load_body(backbone)
    family = "decoder" if is_decoder(body.config) else "encoder"
    if backbone.family not in (None, family):
        raise EncoderError(
            f"backbone={backbone.name} says family={backbone.family}, but its model ('{body.config.model_type}') is "
            f"{'causal' if family == 'decoder' else 'bidirectional'}; set backbone.family={family}"
        )
    if backbone.gradient_checkpointing:
        keep_layer_inputs_only(body)
    return Encoder(
        add_lora(body, backbone.adapter) if backbone.adapter else body,
        SentenceTokenizer(
            tokenizer,
            prompt=backbone.prompt,
            max_positions=max_positions(body.config),
            clean_text=backbone.clean_text,
        ),
        pooling=backbone.pooling,
        padding_side=backbone.padding_side,
        family=family,
        provenance=provenance,
        # Transformers' own forward is what recomputes layers.
        packed=False if backbone.gradient_checkpointing else backbone.packed,
        compiled=backbone.compile,
    )
