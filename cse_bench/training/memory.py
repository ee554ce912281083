"""Memory of one training step, measured on a model without weights: every tensor has a shape and no content.

The step really runs, forward and backward, on PyTorch's fake tensors. So the numbers follow from the operations of the
model and of the method, whatever they are, and not from a formula about transformers.

Fake tensors sit on the CPU here, since a PyTorch without CUDA cannot make others. For a run on a GPU the few operations
that keep something else there are exchanged (`GpuKernels`).
"""

import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from cse_bench.data.rows import TokenRows
from cse_bench.methods.base import ContrastiveMethod, Representations, at_least_float32
from cse_bench.methods.method import Method
from cse_bench.training.gpu_kernels import GpuKernels, same_kernels
from cse_bench.training.precision import autocast

_PLANNED_PIECES = 3  # of gradient caching: what each further one adds to the peak is its result


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device; the sum of the parts is the peak.

    Attributes:
        parameters: weights and buffers, those the device keeps.
        gradients: of the trainable weights, in their dtype.
        optimizer: the two moments of AdamW, in the dtype of the trainable weights.
        buckets: the copy of the gradients that DDP sends.
        gathered: FSDP: what is whole on every device at a time.
        activations: what the forward keeps for the backward.
        temporaries: everything else that is alive when the peak is reached.
    """

    parameters: int
    gradients: int = 0
    optimizer: int = 0
    buckets: int = 0
    gathered: int = 0
    activations: int
    temporaries: int

    @property
    def total(self) -> int:
        """The peak."""
        kept = self.parameters + self.gradients + self.optimizer + self.buckets + self.gathered
        return kept + self.activations + self.temporaries


def with_fake_tensors(method: Method, mode: FakeTensorMode) -> None:
    """Turns a method that was built on the meta device into one of fake tensors, in place; what is shared stays shared.

    Building under the mode itself would not do: PEFT moves its layers to another dtype, which fake parameters refuse.
    """
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            with mode:
                empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                made[id(tensor)] = (
                    nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
                )
        return made[id(tensor)]

    for module in method.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            own = module._parameters if name in module._parameters else module._buffers
            own[name] = fake(tensor)  # type: ignore[assignment]


def training_memory(
    method: ContrastiveMethod,
    rows: TokenRows,
    *,
    precision: str,
    gpu: bool,
    strategy: str = "auto",
    world_size: int = 1,
) -> Memory:
    """Runs one step of a fake method and gives the peak of its memory from the second step on, with optimiser state.

    Args:
        method: built under a `FakeTensorMode`, which must be active.
        rows: the views of one device's share of a batch, as fake tensors.
        precision: Lightning's name, not `auto`.
        gpu: what runs the step later: a GPU (True) or the CPU.
        strategy: Lightning's name; `ddp` and `fsdp` change what a device holds.
        world_size: number of devices.
    """
    trainable = [parameter for parameter in method.parameters() if parameter.requires_grad]
    parameters, gradients = _parameter_bytes(method), _distinct_bytes(trainable)
    # Lightning clears the gradients between forward and backward: the old ones lie beside the forward's peak.
    for parameter in trainable:
        parameter.grad = torch.empty_like(parameter)
    tensors = [*method.parameters(), *method.buffers(), *(parameter.grad for parameter in trainable), *_tensors(rows)]
    own = {_storage_id(tensor) for tensor in tensors if tensor is not None}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage_id(tensor) not in own:
            saved[_storage_id(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would hold its own graph, in a circle

    with ExitStack() as stack:
        if gpu:
            stack.enter_context(GpuKernels())
        live = stack.enter_context(LiveBytes(tensors))
        del tensors  # the old gradients must be gone when they are cleared
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = _loss(method, rows, precision=precision, world_size=world_size)
        for parameter in trainable:
            parameter.grad = None
        loss.backward()
    activations = sum(saved.values())
    inputs = _distinct_bytes(_tensors(rows))
    temporaries = max(0, live.peak - parameters - gradients - activations - inputs)
    shards = world_size if strategy == "fsdp" else 1
    return Memory(
        parameters=parameters // shards,
        gradients=gradients // shards,
        optimizer=2 * gradients // shards,
        buckets=gradients if strategy == "ddp" and world_size > 1 else 0,
        gathered=_gathered_bytes(method) if strategy == "fsdp" else 0,
        activations=activations,
        temporaries=temporaries + inputs,
    )


def inference_memory(method: Method, rows: TokenRows, *, precision: str, gpu: bool) -> Memory:
    """The peak of one forward of a fake method's `embed`, nothing kept for a backward.

    Args:
        method: built under a `FakeTensorMode`, which must be active.
        rows: one batch of the evaluation, as fake tensors.
        precision: Lightning's name, not `auto`.
        gpu: what runs it later: a GPU (True) or the CPU.
    """
    method.eval()
    with ExitStack() as stack:
        if gpu:
            stack.enter_context(GpuKernels())
        live = stack.enter_context(LiveBytes([*method.parameters(), *method.buffers()]))
        with torch.no_grad(), autocast(precision, "cpu"):
            method.embed(rows)
    parameters = _parameter_bytes(method)
    return Memory(parameters=parameters, activations=0, temporaries=live.peak - parameters)


def _loss(method: ContrastiveMethod, rows: TokenRows, *, precision: str, world_size: int) -> Tensor:
    """A training step as `ContrastiveMethod.loss_of` makes it, with stand-ins for the rows of the other devices."""
    with autocast(precision, "cpu"):
        local = {
            name: tensor.unflatten(0, (rows.num_views, -1)) for name, tensor in _represent_all(method, rows).items()
        }
        others = world_size - 1
        joined = (
            {name: torch.cat([tensor, *[tensor.detach()] * others], dim=1) for name, tensor in local.items()}
            if others
            else local
        )
        with torch.autocast("cpu", enabled=False):
            return method.objective({name: at_least_float32(tensor) for name, tensor in joined.items()})["loss"]


def _represent_all(method: ContrastiveMethod, rows: TokenRows) -> Representations:
    """As `ContrastiveMethod.in_pieces`, which reads lengths and counts tokens, and those have no content here.

    The rows are equally long, so that the split by length makes no pieces of its own. With gradient caching a few
    pieces are run, and the others stood in for, which add nothing but their result: a plan is made in seconds.
    """
    if method.gradient_cache_rows is None:
        return method.represent(rows)
    size = method.gradient_cache_rows
    parts: list[Representations] = []
    for start in range(0, len(rows), size):
        if len(parts) < _PLANNED_PIECES:
            parts.append(_recomputed(method, _piece(rows, start, start + size)))
        else:
            rest = min(size, len(rows) - start)
            parts.append({name: torch.empty_like(tensor[:rest]).detach() for name, tensor in parts[0].items()})
    order = torch.arange(len(rows))
    return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}


def _piece(rows: TokenRows, start: int, end: int) -> TokenRows:
    with unset_fake_temporarily():  # which row is which has content in a plan too
        sentence, view = rows.sentence[start:end], rows.view[start:end]
    return replace(rows, ids=rows.ids[start:end].clone(), lengths=rows.lengths[start:end], sentence=sentence, view=view)


def _recomputed(method: ContrastiveMethod, rows: TokenRows) -> Representations:
    parts: Representations = checkpoint(
        lambda ids: method.represent(replace(rows, ids=ids)), rows.ids, use_reentrant=False, context_fn=same_kernels
    )
    return parts


def _gathered_bytes(method: ContrastiveMethod) -> int:
    """What FSDP holds whole when every layer is a unit: all outside the layers, one layer at work, and the next one."""
    layers = [layer for stack in method.modules() if isinstance(stack, nn.ModuleList) for layer in stack]
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    outside = _distinct_bytes(parameter for parameter in method.parameters() if id(parameter) not in inside)
    return outside + 2 * max((_distinct_bytes(layer.parameters()) for layer in layers), default=0)


def _parameter_bytes(module: nn.Module) -> int:
    return _distinct_bytes([*module.parameters(), *module.buffers()])


def _distinct_bytes(tensors: Iterable[Tensor]) -> int:
    return sum({_storage_id(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(rows: TokenRows) -> list[Tensor]:
    return [rows.ids, rows.lengths, rows.sentence, rows.view]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors alive while it is active, fake or real, each storage once.

    Args:
        tensors: what is alive already.
    """

    def __init__(self, tensors: Iterable[Tensor | None] = ()) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}
        for tensor in tensors:
            if tensor is not None:
                self._note(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and notes what it made."""
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return output

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def forget(_: Any) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)
