"""SARCSE: a TextCNN reads the sentence vector, and a decoder has to rebuild the token states from it.

Liu, Shang, Feng, Zheng and Ma: "Self-Adaptive Reconstruction with Contrastive Learning for Unsupervised Sentence
Embeddings", arXiv 2402.15153. There is no public code, and the paper leaves formulas open: what is our reading is
marked as such.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from cse_bench.config.messages import Problem
from cse_bench.config.schema import RunConfig
from cse_bench.data.rows import TokenRows
from cse_bench.data.token_frequency import token_counts
from cse_bench.encoders.architecture import architecture_config, is_decoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.text_cnn import TextCNN, TextCNNDecoder, content_mask, first_states
from cse_bench.errors import EncoderError
from cse_bench.losses.info_nce import info_nce
from cse_bench.losses.reconstruction import (
    TargetNorm,
    Weighting,
    reconstruction_target,
    token_errors,
    token_weights,
    variance_explained,
    weighted_mean,
)
from cse_bench.methods.base import ContrastiveMethod, Representations, at_least_float32
from cse_bench.methods.dropout_views import dropout_problem
from cse_bench.methods.method import Shared
from cse_bench.methods.preparation import Preparation

_SPECIAL_TOKENS = 2  # one before the sentence, one after it


class SARCSE(ContrastiveMethod):
    r"""SimCSE on the latent vector of an autoencoder of token states, which rebuilds rare tokens before frequent ones.

    .. math::
        h = \mathrm{TextCNN}(X) \qquad \hat X = \mathrm{decoder}(h) \qquad
        L = \mathrm{InfoNCE}(h^1, h^2) + \lambda\, \tfrac12 [L_{rec}(X^1) + L_{rec}(X^2)]

    where X are the states of the tokens between the special ones, under two dropout masks, and :math:`L_{rec}` is the
    mean squared error per token, weighted by a decreasing function of the token's frequency in the training corpus
    (see `cse_bench.losses.reconstruction`). The TextCNN stays at inference, the decoder does not.

    Established by the paper: contrast plus reconstruction of token states without the special ones, kernel sizes 3, 4
    and 5, a convolution that integrates them into the sentence vector, transposed convolutions back, less weight for
    frequent tokens. Our reading: the form of the weights, the normalised and detached target, the decoder layer by
    layer, and every number not said to be published.

    Args:
        embedding_source: what is contrasted and what is the sentence vector: `latent`, h; `cls`, the first token's
            state (h is then trained only to be decodable); `latent+cls`, their sum.
        channels: of every kernel size.
        kernel_sizes: of the TextCNN, in tokens.
        max_length: the longest row in tokens, special ones included; the decoder writes two states less.
        reconstruction_weight: :math:`\lambda`; 0: contrast only, and nothing that only reconstruction needs.
        token_weight: `sif`, `neglog`, `power` or `none`.
        sif_a: of `sif`.
        power_alpha: of `power`.
        target_norm: `layernorm` (per token, over features) or `none`.
        detach_target: the target is a constant. Otherwise the network can lower the loss by equal token states.
        ae_lr_multiplier: learning rate of TextCNN and decoder over that of the pretrained weights.
        views: `dropout`, or `identical`: one forward used as both views.
        temperature: of InfoNCE.
        shared: see `ContrastiveMethod`.

    Raises:
        EncoderError: the tokenizer does not put one special token before and one after a sentence.
    """

    status: ClassVar[str] = "own reading"
    citation: ClassVar[str] = "Liu, Shang, Feng, Zheng and Ma, 2024, arXiv 2402.15153"

    omega: Tensor
    """Weight of every token id, (vocabulary,); ones until the corpus was counted."""

    def __init__(
        self,
        *,
        embedding_source: Literal["latent", "cls", "latent+cls"],
        channels: Annotated[int, Field(ge=1)],
        kernel_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)],
        max_length: Annotated[int, Field(ge=3)],
        reconstruction_weight: Annotated[float, Field(ge=0)],
        token_weight: Weighting,
        sif_a: Annotated[float, Field(gt=0)],
        power_alpha: Annotated[float, Field(gt=0)],
        target_norm: TargetNorm,
        detach_target: bool,
        ae_lr_multiplier: Annotated[float, Field(gt=0)],
        views: Literal["dropout", "identical"],
        temperature: Annotated[float, Field(gt=0)],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        _check_special_tokens(self.encoder)
        self.embedding_source = embedding_source
        self.reconstruction_weight = reconstruction_weight
        self.token_weight: Weighting = token_weight
        self.sif_a = sif_a
        self.power_alpha = power_alpha
        self.target_norm: TargetNorm = target_norm
        self.detach_target = detach_target
        self.ae_lr_multiplier = ae_lr_multiplier
        self.view_source = views
        self.temperature = temperature
        width, dtype = self.encoder.width, torch.float64 if self.encoder.dtype == torch.float64 else torch.float32
        self.training_text_cnn: TextCNN | None = None
        if embedding_source != "cls" or reconstruction_weight > 0:
            text_cnn = TextCNN(
                width=width,
                channels=channels,
                kernel_sizes=kernel_sizes,
                add_first=embedding_source == "latent+cls",
            ).to(dtype)
            if embedding_source == "cls":
                self.training_text_cnn = text_cnn
            else:
                self.encoder.readout = text_cnn
                self.encoder.pooling = "text_cnn" if embedding_source == "latent" else "text_cnn+cls"
        self.decoder: TextCNNDecoder | None = None
        if reconstruction_weight > 0:
            self.decoder = TextCNNDecoder(
                width=width, channels=channels, kernel_sizes=kernel_sizes, length=max_length - _SPECIAL_TOKENS
            ).to(dtype)
        # Counted anew at every start, so not part of the state.
        self.register_buffer("omega", torch.ones(int(self.encoder.config.vocab_size)), persistent=False)

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """Bidirectional models without a prompt, dropout views with dropout, and rows that the kernels fit."""
        arguments, backbone = config.method.arguments(), config.backbone
        if arguments["views"] == "dropout":
            yield from dropout_problem(config)
        if _is_causal(config):
            yield Problem(
                "backbone",
                f"{backbone.name} is causal, and this method is defined for bidirectional models: it leaves out the "
                "special tokens around a sentence; use an encoder, e.g. backbone=roberta_base",
            )
        if backbone.prompt is not None:
            yield Problem("backbone.prompt", "the tokens of a prompt would be reconstructed too; set it to null")
        if arguments["embedding_source"] != "latent" and backbone.pooling != "cls":
            yield Problem(
                "backbone.pooling",
                f"{backbone.pooling}, but method.embedding_source={arguments['embedding_source']} reads the first "
                "token; set backbone.pooling=cls",
            )
        if arguments["max_length"] != config.data.max_length:
            yield Problem(
                "method.max_length",
                f"{arguments['max_length']} differs from data.max_length={config.data.max_length}; set that one, which "
                "this one follows",
            )
        if (longest := max(arguments["kernel_sizes"]) + _SPECIAL_TOKENS) > config.data.max_length:
            yield Problem(
                "data.max_length",
                f"{config.data.max_length} tokens with the special ones do not fill a kernel of method.kernel_sizes="
                f"{arguments['kernel_sizes']}; raise it to {longest} or more",
            )

    @property
    def text_cnn(self) -> TextCNN | None:
        """The autoencoder's encoder, kept at inference or not; None where neither vector nor loss needs it."""
        readout = self.encoder.readout
        return readout if isinstance(readout, TextCNN) else self.training_text_cnn

    def prepare(self, preparation: Preparation) -> dict[str, float]:
        """Counts the tokens of the corpus and sets the weights."""
        if self.decoder is None:
            return {}
        tokenizer = self.encoder.tokenizer.tokenizer
        # The unknown token stands for words of a sentence; all others stand around it.
        special = [token for token in tokenizer.all_special_ids if token != tokenizer.unk_token_id]
        start = time.perf_counter()
        counts = torch.from_numpy(token_counts(preparation.store, vocab_size=len(self.omega), special_ids=special))
        weights = token_weights(counts, weighting=self.token_weight, sif_a=self.sif_a, power_alpha=self.power_alpha)
        self.omega.copy_(weights)
        total = int(counts.sum())
        self.notes["token_weights"] = {
            "tokens": total,
            "distinct": int((counts > 0).sum()),
            "mean_over_tokens": float((counts * weights).sum() / max(total, 1)),
        }
        return {"cost/preparation_time_s": time.perf_counter() - start}

    def parameter_groups(self) -> Sequence[dict[str, Any]]:
        """The freshly drawn layers learn faster than the pretrained ones."""
        parts: list[nn.Module] = [part for part in (self.text_cnn, self.decoder) if part is not None]
        fresh = [parameter for part in parts for parameter in part.parameters()]
        own = {id(parameter) for parameter in fresh}
        body = [parameter for parameter in self.parameters() if parameter.requires_grad and id(parameter) not in own]
        groups: list[dict[str, Any]] = [{"params": body}]
        if fresh:
            groups.append({"params": fresh, "lr": self.optimizer_config.lr * self.ae_lr_multiplier})
        return groups

    def views(self, batch: TokenRows) -> TokenRows:
        """Two copies of every sentence (one for identical views)."""
        return batch.repeat(2 if self.view_source == "dropout" else 1)

    def represent(self, rows: TokenRows) -> Representations:
        """The sentence vector z and, of every row, sums over its tokens that the reconstruction loss is made of."""
        encoder = self.encoder
        states, _, mask = encoder.states(rows, only_first_token=self.text_cnn is None)
        if self.text_cnn is None:
            return {"z": first_states(states, mask)}
        latent = self.text_cnn.latent(states, mask)
        # Without content, h is a bias that starts at zero, where the gradient of a cosine is without bounds.
        z = latent.where(content_mask(mask).any(dim=1, keepdim=True), latent.detach())
        if self.embedding_source != "latent":
            z = first_states(states, mask)
        if self.embedding_source == "latent+cls":
            z = latent + z  # never zero
        if self.decoder is None:
            return {"z": z}
        if encoder.padding_side == "left" and not encoder.packs(rows):
            states = _padded_right(states, mask)
        return {"z": z, **self._reconstruction_sums(self.decoder(latent), states, rows)}

    def _reconstruction_sums(self, written: Tensor, states: Tensor, rows: TokenRows) -> Representations:
        """Sums over the content tokens of each row, (n, ...), from states that are padded on the right, (n, l, d)."""
        content = rows.mask()[:, _SPECIAL_TOKENS:].bool()  # position i + 1 is content where i + 2 still exists
        inner = slice(1, 1 + content.shape[1])
        # In float32: weights down to 0.02 times small errors, summed up, are lost in half precision.
        with torch.autocast(states.device.type, enabled=False):
            source = at_least_float32(states[:, inner]).masked_fill(~content[..., None], 0)
            target = reconstruction_target(source.detach() if self.detach_target else source, norm=self.target_norm)
            weight = self.omega[rows.ids[:, inner]] * content
            errors = token_errors(at_least_float32(written[:, : content.shape[1]]), target)
            constant = target.detach()
            return {
                "error_sum": (weight * errors).sum(dim=1),
                "weight_sum": weight.sum(dim=1),
                "square_sum": (weight * constant.square().mean(dim=2)).sum(dim=1),
                "target_sum": (weight[..., None] * constant).sum(dim=1),
            }

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """InfoNCE of the sentence vectors plus the mean reconstruction loss of the views."""
        z = representations["z"]
        contrastive = info_nce(z[0], z[-1], temperature=self.temperature)
        if self.decoder is None:
            return {"loss": contrastive}
        error, weight = representations["error_sum"], representations["weight_sum"]
        reconstruction = weighted_mean(error, weight).mean()
        return {
            "loss": contrastive + self.reconstruction_weight * reconstruction,
            "contrastive": contrastive,
            "reconstruction": reconstruction,
            "variance_explained": variance_explained(
                error.detach(), weight, representations["square_sum"], representations["target_sum"]
            ),
        }


def _check_special_tokens(encoder: Encoder) -> None:
    added = encoder.tokenizer.tokenizer.num_special_tokens_to_add(pair=False)
    if added != _SPECIAL_TOKENS:
        raise EncoderError(
            f"the tokenizer puts {added} special tokens around a sentence; content is what lies between two, one "
            "before and one after it, as BERT and RoBERTa have them"
        )


def _is_causal(config: RunConfig) -> bool:
    backbone = config.backbone
    if backbone.family is not None:
        return backbone.family == "decoder"
    known = backbone.source == "local" or backbone.architecture is not None
    return known and is_decoder(architecture_config(backbone))


def _padded_right(states: Tensor, mask: Tensor) -> Tensor:
    """States of rows that are padded on the left, rotated so that the padding is on the right: (n, l, d)."""
    width = mask.shape[1]
    padding = width - mask.sum(dim=1, keepdim=True)
    source = (torch.arange(width, device=mask.device) + padding) % width
    return states.gather(1, source[..., None].expand_as(states))
