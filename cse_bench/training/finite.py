"""Numbers that are none stop a run before they become every parameter: losses, gradients, parameters.

Shapes: b sentences of a step over all ranks, v views.
"""

import math
from collections.abc import Iterable, Mapping

import lightning
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from cse_bench.data.rows import TokenRows
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.errors import TrainingError
from cse_bench.training.gather import objects_of_ranks
from cse_bench.training.loss_log import is_logged

_NAMED = 3  # sentences and tensors that a message names; the others are counted
_SHOWN_CHARACTERS = 60
_ADVICE = (
    "Lower optimizer.lr, add optimizer.warmup_steps, or train in more precision (precision=32-true); the same command "
    "goes on from the last checkpoint and comes to the same step"
)


def is_looked_at(trainer: lightning.Trainer, *, device: torch.device) -> bool:
    """Whether the values of the step in progress are looked at.

    Always on the CPU; elsewhere, where looking makes the device wait, at the steps whose loss is read anyway. What
    was overlooked is found there, since a parameter that is no number makes every later loss one; and no checkpoint
    is written meanwhile, see `check_parameters`.
    """
    return device.type == "cpu" or is_logged(trainer, trainer.global_step + 1)


def check_loss(
    parts: Mapping[str, Tensor],
    joined: Mapping[str, Tensor],
    *,
    batch: TokenRows,
    tokenizer: SentenceTokenizer,
    step: int,
) -> None:
    """Stops before a loss that is not finite makes every parameter so. All ranks call it, with the same values.

    Args:
        parts: of the loss, by name.
        joined: what it was computed from, by name, each (v, b, ...).
        batch: this rank's sentences.
        tokenizer: turns them back into text.
        step: for the message, counted from 1.

    Raises:
        TrainingError: names the step, the parts, and the tensors and sentences they come from.
    """
    values = {name: float(value.detach()) for name, value in parts.items()}
    losses = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if not losses:
        return
    bad = {name: _not_finite_rows(tensor) for name, tensor in joined.items()}
    causes = [
        f"'{name}' is not finite in {int(rows.sum())} of {rows.numel()} rows"
        for name, rows in bad.items()
        if rows.any()
    ]
    sentences = [one for rank in objects_of_ranks(_beginnings(batch, tokenizer)) for one in rank]
    is_hit = torch.stack([rows.any(dim=0).cpu() for rows in bad.values()]).any(dim=0)
    where = f" ({_some([sentences[i] for i in is_hit.nonzero().flatten()])})" if causes else ""
    why = " and ".join(causes) or "every row that went into it is finite, so look at the method's objective first"
    raise TrainingError(f"step {step}: {', '.join(losses)}; {why}{where}. {_ADVICE}")


def check_gradients(module: nn.Module, *, sentences: Iterable[int], step: int) -> Tensor:
    """Stops before a gradient that is not finite reaches the optimiser. One norm over all gradients tells.

    Args:
        module: what is trained.
        sentences: numbers of the step's sentences, for the message.
        step: for the message, counted from 1.

    Returns:
        The norm, with which they can be clipped.

    Raises:
        TrainingError: it is not finite; names the parameters.
    """
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    total = get_total_norm(gradients.values())
    norm = float(_of_all_shards(total))
    if math.isfinite(norm):
        return total
    bad = [f"'{name}'" for name, gradient in gradients.items() if not _of_all_shards(torch.isfinite(gradient).all())]
    what = f"the gradient of {_some(bad)} is not finite" if bad else f"the norm of all gradients is {norm}"
    numbers = _some([str(number) for number in sentences])
    raise TrainingError(f"step {step}: {what} while the loss is finite; sentences {numbers}. {_ADVICE}")


def check_parameters(module: nn.Module, *, step: int) -> None:
    """Asked before the state of a run is written: an earlier, good checkpoint is not given up for a broken one.

    Raises:
        TrainingError: a parameter that is trained is not finite; names it.
    """
    trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    if math.isfinite(_of_all_shards(get_total_norm(trained.values()))):
        return
    # Large but finite parameters can have a norm that is not.
    if bad := [
        f"'{name}'" for name, parameter in trained.items() if not _of_all_shards(torch.isfinite(parameter).all())
    ]:
        raise TrainingError(
            f"step {step}: the parameter {_some(bad)} is not finite, and the state is not written: the checkpoint "
            f"before stays. {_ADVICE}"
        )


def _of_all_shards(value: Tensor) -> Tensor:
    """A number taken from a tensor that is split over ranks (FSDP), the same on all of them."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _not_finite_rows(tensor: Tensor) -> Tensor:
    """(v, b): whether a row holds a value that is not finite."""
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape[:2], dtype=torch.bool)
    return ~torch.isfinite(tensor.detach()).reshape(*tensor.shape[:2], -1).all(dim=2)


def _beginnings(batch: TokenRows, tokenizer: SentenceTokenizer) -> list[str]:
    """Number in the corpus and first words of each sentence, in the order of the batch."""
    before = (tokenizer.prompt or "").partition("{sentence}")[0].strip()
    rows = zip(batch.ids.cpu().tolist(), batch.lengths.tolist(), strict=True)
    texts = [str(tokenizer.tokenizer.decode(ids[:length], skip_special_tokens=True)).strip() for ids, length in rows]
    return [
        f"sentence {number}: '{text.removeprefix(before).strip()[:_SHOWN_CHARACTERS]}'"
        for number, text in zip(batch.sentence.tolist(), texts, strict=True)
    ]


def _some(names: list[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
