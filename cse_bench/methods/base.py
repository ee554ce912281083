"""What all trained methods share: views -> represent -> objective, one training step, one way to embed.

Shapes: b sentences, v views, n = v * b rows, l tokens, d width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import get_scheduler

from cse_bench.config.schema import Optimizer, RunConfig
from cse_bench.data.length_split import length_pieces, pieces_in_order
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import Encoder
from cse_bench.errors import DataError, TrainingError
from cse_bench.methods.contract import check_parts, check_represented, check_views
from cse_bench.methods.method import Method
from cse_bench.methods.preparation import Preparation
from cse_bench.training.cost import TokenCount
from cse_bench.training.finite import check_gradients, check_loss, is_looked_at
from cse_bench.training.gather import gather, objects_of_ranks

Representations = dict[str, Tensor]
"""Per-row tensors by name, each (v, b, ...): what `represent` gives, joined over pieces and ranks."""

# One more forward and backward is worth about this many tokens (measured on two CPU cores, BERT-tiny and DistilBERT);
# of packed rows, whose padding costs in the attention only, this many times as many.
_PIECE_OVERHEAD_TOKENS = 1024
_PACKED_OVERHEAD = 4
# Enough rows that even a dropout of 0.001 hits some of their numbers.
_PROBED_SENTENCES = 64


class ContrastiveMethod(Method, ABC):
    """A method answers four questions; everything else of a training run is here or outside.

    1. `views`: which token rows does the encoder see?
    2. `represent`: what is needed from the network, row by row?
    3. `objective`: what is the loss of all rows together? Pure, in float32.
    4. `embed`: what is the sentence vector at inference?

    Because `represent` is row-wise and `objective` sees all rows, the rows can be forwarded in length-sorted pieces,
    recomputed piece by piece in the backward (gradient caching) and joined over ranks without any method knowing.

    A method that keeps state says so in three further places: `prerequisites` (runs that must be finished before),
    `prepare` (once, with the tokenised corpus at hand) and `finish_step` (after every loss). State in buffers,
    parameters or `get_extra_state` is in the checkpoint by itself.

    Args:
        encoder: the shared encoder.
        optimizer: AdamW and its schedule.
        seed: of what the method draws beside weights and dropout masks, see `generator`.
        split_rows_by_length: forward length-sorted pieces instead of one block.
        gradient_cache_rows: forward at most so many rows at a time and compute them again in the backward, so that the
            memory of a step does not grow with the batch (Gao et al. 2021, "Scaling deep contrastive learning batch
            size under memory limited setup", arXiv 2101.06983); None: keep everything for the backward.
    """

    trains: ClassVar[bool] = True
    not_kept: ClassVar[tuple[str, ...]] = ()
    """Submodules that are neither needed at inference nor worth keeping (a momentum copy, a teacher)."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        optimizer: Optimizer,
        seed: int = 0,
        split_rows_by_length: bool = True,
        gradient_cache_rows: int | None = None,
    ) -> None:
        super().__init__(encoder=encoder, seed=seed)
        self.optimizer_config = optimizer
        self.split_rows_by_length = split_rows_by_length
        self.gradient_cache_rows = gradient_cache_rows
        self.tokens = TokenCount()
        self._views_checked = False
        self._sentences: list[int] = []  # of the step in progress, to name them in an error
        self._gradient_norm: Tensor | None = None  # of the step in progress, once it was looked at

    @classmethod
    def check_corpus(cls, config: RunConfig, *, name: str, sentences: int) -> None:
        """There is a whole batch."""
        if sentences < config.data.global_batch_size:
            raise DataError(
                f"the corpus '{name}' has {sentences} sentences, fewer than one batch of "
                f"{config.data.global_batch_size}; set data.global_batch_size to at most {sentences}, or give more "
                "sentences"
            )

    @abstractmethod
    def views(self, batch: TokenRows) -> TokenRows:
        """The token rows of a step: b sentences -> v * b rows, view-major."""

    @abstractmethod
    def represent(self, rows: TokenRows) -> Representations:
        """Per-row tensors, (n, ...); row i may depend on token row i only."""

    @abstractmethod
    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """The scalar `loss` and named parts of it, from float32 tensors of shape (v, b, ...)."""

    def prepare(self, preparation: Preparation) -> dict[str, float]:
        """What is done once before training, on every rank; on a resumed run too, before the state is restored.

        Returns:
            Metrics for the result: what the preparation cost, and what it found.
        """
        return {}

    def finish_step(self, batch: TokenRows) -> None:
        """What follows the loss of a step: state that the next step will see. Called without gradients."""

    def parameter_groups(self) -> Sequence[dict[str, Any]]:
        """AdamW's parameter groups; a group may have a learning rate of its own (`lr`)."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def training_only_state(self) -> dict[str, Tensor]:
        """The tensors that training used and inference does not, by name."""
        encoder, saved = self.sentence_encoder, self.state_dict().keys()
        inference = {id(tensor) for tensor in (*encoder.parameters(), *encoder.buffers())}
        own = dict(self.named_parameters(remove_duplicate=False)) | dict(self.named_buffers(remove_duplicate=False))
        return {
            name: tensor
            for name, tensor in own.items()
            if id(tensor) not in inference and name in saved and not name.startswith(self.not_kept)
        }

    def generator(self, *key: int) -> torch.Generator:
        """Random numbers that are a function of the seed and a key alone: the same on every rank and after a resume.

        Args:
            key: what they are for, e.g. the step and the view.
        """
        state = np.random.SeedSequence([self.seed, *key]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))

    def negatives_per_anchor(self, global_batch_size: int) -> int:
        """How many candidates an anchor is pushed away from; as it stands: the other sentences of the batch.

        A method with a queue, or with negatives of its own, says so here.

        Args:
            global_batch_size: sentences of a step over all devices.
        """
        return global_batch_size - 1

    def represent_all(self, rows: TokenRows) -> Representations:
        """`represent` on all rows, in length-sorted pieces if asked; the result is in the order of the rows."""
        return self.in_pieces(rows, self.represent)

    def packs(self, rows: TokenRows) -> bool:
        """Whether `represent` runs these rows without their padding, see `cse_bench.encoders.packed`.

        To be overridden where it calls a body itself instead of the encoder.
        """
        return self.encoder.packs(rows)

    def in_pieces(self, rows: TokenRows, function: Callable[[TokenRows], Representations]) -> Representations:
        """A row-wise function of token rows in pieces, as the settings ask for; the result is in the order of the rows.

        Every forward of training goes through here: what it costs is counted.
        """
        most = self.gradient_cache_rows
        if self.split_rows_by_length:
            overhead = _PIECE_OVERHEAD_TOKENS * (_PACKED_OVERHEAD if self.packs(rows) else 1)
            pieces = length_pieces(rows.lengths, overhead_tokens=overhead, max_rows=most)
        else:
            pieces = pieces_in_order(len(rows), rows.ids.shape[1], max_rows=most or len(rows))
        if len(pieces) == 1 and pieces[0].length == rows.ids.shape[1]:
            return self._counted(rows, function)
        parts = [self._counted(rows.take(piece.rows, length=piece.length), function) for piece in pieces]
        order = torch.cat([piece.rows for piece in pieces]).argsort().to(rows.ids.device)
        return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}

    def _counted(self, rows: TokenRows, function: Callable[[TokenRows], Representations]) -> Representations:
        real = int(rows.lengths.sum())
        self.tokens.real += real
        self.tokens.padded += real if self.packs(rows) else rows.ids.numel()
        if self.gradient_cache_rows is None or not torch.is_grad_enabled():
            found = function(rows)
            check_represented(self, found, rows=len(rows))
            return found
        # Nothing but the result is kept; the backward computes the piece again, with the same dropout masks. The
        # objective in between sees all rows, so this is gradient caching: same loss, same gradients.
        # Through a tensor, from whose device it is known which generators have to be put back.
        recomputed: Representations = checkpoint(
            lambda ids: function(replace(rows, ids=ids)), rows.ids, use_reentrant=False
        )
        check_represented(self, recomputed, rows=len(rows))
        return recomputed

    def loss_of(self, batch: TokenRows) -> dict[str, Tensor]:
        """One step's loss and its parts: views -> represent -> gather -> objective."""
        return self._objective_of(self._joined_representations(batch))

    def _joined_representations(self, batch: TokenRows) -> Representations:
        self.tokens.sentences += len(batch)
        rows = self.views(batch)
        check_views(self, rows, sentences=len(batch))
        self._check_views_differ(rows)
        views = rows.num_views
        local = {name: tensor.unflatten(0, (views, -1)) for name, tensor in self.represent_all(rows).items()}
        # In float32 before the gather: its backward sums over ranks, and a sum in bfloat16 would round.
        return {name: gather(at_least_float32(tensor), dim=1) for name, tensor in local.items()}

    def _objective_of(self, joined: Representations) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, enabled=False):
            return self.objective(joined)

    def training_step(self, batch: TokenRows, batch_idx: int) -> dict[str, Tensor]:
        """Lightning's step: the loss and its named parts, which `LossLog` writes down."""
        self._sentences = batch.sentence.tolist()
        joined = self._joined_representations(batch)
        parts = self._objective_of(joined)
        check_parts(self, parts)
        if is_looked_at(self.trainer, device=self.device):
            check_loss(parts, joined, batch=batch, tokenizer=self.encoder.tokenizer, step=self.trainer.global_step + 1)
        with torch.no_grad():
            self.finish_step(batch)
        return {name: value if name == "loss" else value.detach() for name, value in parts.items()}

    def _check_views_differ(self, rows: TokenRows) -> None:
        """Identical views would train nothing and say nothing: the loss falls as everything else is pushed apart.

        Some sentences go through `represent` as view 0 and again as view 1, in blocks of one shape, so that without
        any randomness the results are equal to the last bit.
        """
        if self._views_checked or not self.training or rows.num_views < 2:
            return
        self._views_checked = True
        sentences = len(rows) // rows.num_views
        probed = min(sentences, _PROBED_SENTENCES, self.gradient_cache_rows or _PROBED_SENTENCES)
        index, length = torch.arange(probed), int(rows.lengths.max())
        # Afterwards the generators are as before: the masks of a step do not depend on whether it is a run's first.
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            first, second = (self.represent(rows.take(index + view * sentences, length=length)) for view in (0, 1))
            for found in (first, second):
                check_represented(self, found, rows=probed)
        if all(torch.equal(tensor, second[name]) for name, tensor in first.items()):
            if self.global_step == 0 and self.encoder.adapter_dropout > 0:
                self._views_checked = False  # low-rank updates start at zero, dropped out or not: looked at again
                return
            raise TrainingError(
                "the two views of every sentence are identical: nothing in the network is random. Set backbone.dropout "
                "(0.1 is usual) or an adapter with dropout"
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's call between backward and clipping: looks at the gradients when it is due.

        In 16-mixed on a GPU an overflow is ordinary: the scaler sees it, leaves the step out and scales less.

        Raises:
            TrainingError: a gradient that is not finite.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not scaled and is_looked_at(self.trainer, device=self.device):
            step = self.trainer.global_step + 1
            self._gradient_norm = check_gradients(self, sentences=self._sentences, step=step)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as asked. Lightning refuses to with a fused optimiser under bfloat16, where nothing is scaled."""
        norm, self._gradient_norm = self._gradient_norm, None
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        elif norm is None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            torch.nn.utils.clip_grads_with_norm_(self.parameters(), gradient_clip_val, norm)

    def frozen_state(self) -> set[str]:
        """Names of tensors that building and preparing the method bring back as they were: the body of an adapter."""
        trained = {name for name, parameter in self.encoder.named_parameters() if parameter.requires_grad}
        every = dict(self.encoder.named_parameters())
        if not trained or len(trained) == len(every):
            return set()
        # Of the state, not of the parameters: four-bit weights come with tensors of their own.
        return {f"encoder.{name}" for name in self.encoder.state_dict() if name not in trained}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The counts of every rank, which go on after a resume; no weights that never change."""
        checkpoint["tokens"] = objects_of_ranks(asdict(self.tokens))
        for name in self.frozen_state():
            del checkpoint["state_dict"][name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.tokens = TokenCount(**checkpoint["tokens"][self.trainer.global_rank])
        frozen = self.frozen_state()
        missing = self.state_dict().keys() - checkpoint["state_dict"].keys() - frozen
        unknown = checkpoint["state_dict"].keys() - self.state_dict().keys()
        if missing or unknown:
            raise TrainingError(
                f"the checkpoint is of another model: {', '.join(sorted(missing | unknown)[:5])}; delete the run's "
                "directory and start again"
            )
        self.strict_loading = not frozen

    def configure_optimizers(self) -> Any:
        """AdamW over everything trainable, and the schedule over all steps of the run."""
        settings = self.optimizer_config
        optimizer = torch.optim.AdamW(
            list(self.parameter_groups()),
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            # The fused step undoes the scaling of fp16 gradients by itself, after the clipping: then the plain one.
            fused=self.trainer.precision != "16-mixed",
        )
        schedule = get_scheduler(
            settings.schedule,
            optimizer,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=int(self.trainer.estimated_stepping_batches),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 unless it has more precision (or is not floating point) already."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
