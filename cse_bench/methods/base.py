"""What all methods share: views -> represent -> objective, one training step, one way to embed.

Shapes: b sentences, v views, n = v * b rows, l tokens, d width.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor
from transformers import get_scheduler

from cse_bench.config.messages import Problem
from cse_bench.config.schema import Optimizer, RunConfig
from cse_bench.data.length_split import length_pieces
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import Encoder
from cse_bench.errors import TrainingError
from cse_bench.training.cost import TokenCount
from cse_bench.training.gather import gather

Representations = dict[str, Tensor]
"""Per-row tensors by name, each (v, b, ...): what `represent` gives, joined over pieces and ranks."""

# One more forward and backward is worth about this many tokens (measured on two CPU cores, BERT-tiny and DistilBERT).
_PIECE_OVERHEAD_TOKENS = 1024


class ContrastiveMethod(lightning.LightningModule, ABC):
    """A method answers four questions; everything else of a training run is here or outside.

    1. `views`: which token rows does the encoder see?
    2. `represent`: what is needed from the network, row by row?
    3. `objective`: what is the loss of all rows together? Pure, in float32.
    4. `embed`: what is the sentence vector at inference?

    Because `represent` is row-wise and `objective` sees all rows, the rows can be forwarded in length-sorted pieces and joined over
    ranks without any method knowing.

    Args:
        encoder: the shared encoder.
        optimizer: AdamW and its schedule.
        split_rows_by_length: forward length-sorted pieces instead of one padded block.
    """

    status: ClassVar[str]
    """Where the definition comes from: `official code`, `paper` or `own reading`."""
    citation: ClassVar[str]
    """Authors, venue, year and arXiv id."""
    trains: ClassVar[bool] = True
    """Whether there is anything to train."""

    def __init__(self, *, encoder: Encoder, optimizer: Optimizer, split_rows_by_length: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.optimizer_config = optimizer
        self.split_rows_by_length = split_rows_by_length
        self.tokens = TokenCount()
        self._views_checked = False

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """What about this combination of method, backbone and data cannot work; asked before any weights are loaded."""
        yield from ()

    @abstractmethod
    def views(self, batch: TokenRows) -> TokenRows:
        """The token rows of a step: b sentences -> v * b rows, view-major."""

    @abstractmethod
    def represent(self, rows: TokenRows) -> Representations:
        """Per-row tensors, (n, ...); row i may depend on token row i only."""

    @abstractmethod
    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """The scalar `loss` and named parts of it, from float32 tensors of shape (v, b, ...)."""

    def embed(self, rows: TokenRows) -> Tensor:
        """Sentence vectors at inference, (n, d)."""
        return self.encoder(rows)

    def represent_all(self, rows: TokenRows) -> Representations:
        """`represent` on all rows, in length-sorted pieces if asked; the result is in the order of the rows."""
        if not self.split_rows_by_length:
            return self._represent_counted(rows)
        pieces = length_pieces(rows.lengths, overhead_tokens=_PIECE_OVERHEAD_TOKENS)
        parts = [self._represent_counted(rows.take(piece.rows, length=piece.length)) for piece in pieces]
        order = torch.cat([piece.rows for piece in pieces]).argsort().to(rows.ids.device)
        return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}

    def _represent_counted(self, rows: TokenRows) -> Representations:
        self.tokens.real += int(rows.lengths.sum())
        self.tokens.padded += rows.ids.numel()
        return self.represent(rows)

    def loss_of(self, batch: TokenRows) -> dict[str, Tensor]:
        """One step's loss and its parts: views -> represent -> gather -> objective."""
        rows = self.views(batch)
        views = rows.num_views
        local = {name: tensor.unflatten(0, (views, -1)) for name, tensor in self.represent_all(rows).items()}
        self._check_views_differ(local)
        joined = {name: gather(tensor, dim=1) for name, tensor in local.items()}
        with torch.autocast(self.device.type, enabled=False):
            return self.objective({name: at_least_float32(tensor) for name, tensor in joined.items()})

    def training_step(self, batch: TokenRows, batch_idx: int) -> Tensor:
        """Lightning's step: the loss, with its parts logged."""
        parts = self.loss_of(batch)
        for name, value in parts.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss", batch_size=len(batch))
        return parts["loss"]

    def _check_views_differ(self, local: Representations) -> None:
        """Two identical views would train nothing and say nothing: the loss is lowest when everything else is pushed apart."""
        if self._views_checked or not self.training:
            return
        self._views_checked = True
        tensors = [tensor for tensor in local.values() if tensor.is_floating_point() and tensor.shape[0] > 1]
        if tensors and all(torch.equal(tensor[0], tensor[1]) for tensor in tensors):
            raise TrainingError(
                "the two views of every sentence are identical: nothing in the network is random. Set backbone.dropout (0.1 is usual) or "
                "an adapter with dropout"
            )

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips the global norm. Lightning refuses to with a fused optimiser under bfloat16, where nothing is scaled."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Token counts go on after a resume."""
        checkpoint["tokens"] = {"real": self.tokens.real, "padded": self.tokens.padded}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.tokens = TokenCount(**checkpoint["tokens"])

    def configure_optimizers(self) -> Any:
        """AdamW over everything trainable, and the schedule over all steps of the run."""
        settings = self.optimizer_config
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters,
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
