"""What the parts of a method give each other, looked at in every step: a slip is told by the name of the part."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cse_bench.data.rows import TokenRows
from cse_bench.errors import TrainingError


def check_views(method: object, rows: Any, *, sentences: int) -> None:
    """`views` gives v rows for each sentence.

    Raises:
        TrainingError: something else, or another number of rows.
    """
    if not isinstance(rows, TokenRows):
        raise TrainingError(f"{_name(method)}.views gives {_kind(rows)}; it has to give TokenRows (see `stacked`)")
    if len(rows) != rows.num_views * sentences:
        raise TrainingError(
            f"{_name(method)}.views gives {len(rows)} rows of {rows.num_views} views for {sentences} sentences; it has "
            f"to give {rows.num_views} x {sentences}, all first views before all second ones"
        )


def check_represented(method: object, tensors: Any, *, rows: int) -> None:
    """A row-wise function gives tensors by name, each with one entry for each row.

    Raises:
        TrainingError: something else, or a tensor of another length.
    """
    if not isinstance(tensors, Mapping) or not tensors:
        raise TrainingError(
            f"{_name(method)}.represent gives {_kind(tensors)}; it has to give tensors by name: {{'z': z}}"
        )
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) != rows:
            raise TrainingError(
                f"{_name(method)}.represent gives as '{name}' {_kind(tensor)} for {rows} rows; it has to give ({rows}, "
                "...): row i of the result belongs to token row i"
            )


def check_parts(method: object, parts: Any) -> None:
    """`objective` gives a scalar `loss` and named parts of it.

    Raises:
        TrainingError: something else, or a loss that nothing can be learnt from.
    """
    if not isinstance(parts, Mapping) or "loss" not in parts:
        given = f"parts without 'loss': {', '.join(map(str, parts))}" if isinstance(parts, Mapping) else _kind(parts)
        raise TrainingError(f"{_name(method)}.objective gives {given}; it has to give {{'loss': scalar, ...}}")
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.numel() != 1:
            raise TrainingError(f"{_name(method)}.objective gives as '{name}' {_kind(part)}; it has to be one number")
    if torch.is_grad_enabled() and not parts["loss"].requires_grad:
        raise TrainingError(
            f"{_name(method)}.objective gives a loss that no trained parameter has a part in: something between the "
            "encoder and the loss is detached"
        )


def _name(method: object) -> str:
    return type(method).__name__


def _kind(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
