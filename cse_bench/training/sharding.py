"""Weights in shards over the devices (`trainer.strategy=fsdp`): for models that one device cannot hold.

PyTorch's FSDP2 (`fully_shard`): every layer of the body is a unit whose weights are split over the ranks, gathered
when it works, and split again; gradients and optimiser state exist in shards only. A step is that of DDP: gradients are
averaged over ranks.

Every forward of a sharded body is an operation of all ranks together. So all of them must forward equally often: no
split by length, whose pieces follow each rank's own sentences, and evaluation on every rank.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from cse_bench.errors import TrainingError
from cse_bench.methods.head import TrainingHead

if TYPE_CHECKING:
    from cse_bench.methods.base import ContrastiveMethod


class ShardedStrategy(DDPStrategy):
    """Lightning's DDP with FSDP2 in the place of DDP's copies; checkpoints hold whole tensors, as those of DDP do.

    Lightning's own `ModelParallelStrategy` gathers frozen weights too for every checkpoint, and restores into a model
    that is sharded already; here a checkpoint is restored before, as on one device.
    """

    def model_to_device(self) -> None:
        """Not as a whole, which may not fit: unit by unit, in shards."""

    def configure_ddp(self) -> None:
        """Shards the method. The optimiser is made afterwards, of the shards."""
        method: Any = self.lightning_module
        shard(method, init_device_mesh(self.root_device.type, (self.world_size,)))
        method.to(self.root_device)  # what is in no shard: buffers of the method

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors; frozen ones, which no checkpoint holds, as they are."""
        method: Any = self.lightning_module
        frozen = method.frozen_state()
        state = method.state_dict()
        return {name: tensor if name in frozen else whole(tensor) for name, tensor in state.items()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole tensors, on every rank."""
        state: dict[str, Any] = getattr(optimizer, "_optimizer", optimizer).state_dict()
        moments = {
            index: {name: whole(value) for name, value in of_parameter.items()}
            for index, of_parameter in state["state"].items()
        }
        return state | {"state": moments}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Splits the tensors of a checkpoint as the parameters they belong to."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            numbers = [number for group in state["param_groups"] for number in group["params"]]
            moments = {
                number: {name: _split_as(value, parameter) for name, value in state["state"][number].items()}
                for number, parameter in zip(numbers, parameters, strict=True)
                if number in state["state"]
            }
            optimizer.load_state_dict(state | {"state": moments})


def shard(method: "ContrastiveMethod", mesh: DeviceMesh) -> None:
    """Splits the weights of a method over the ranks, in place.

    Units are the layers of the body, one unit each; the body without them; the training head.

    Args:
        method: one that `unshardable` finds nothing in.
        mesh: the ranks.

    Raises:
        TrainingError: it finds something.
    """
    if name := unshardable(method):
        raise TrainingError(f"the weights '{name}' cannot be split over ranks; set trainer.strategy=ddp")
    body = method.encoder.body
    method.encoder.packed = False  # it calls parts of layers, past the calls at which units are gathered
    for layer in layers(body):
        fully_shard(layer, mesh=mesh)
    fully_shard(body, mesh=mesh)
    for module in method.children():
        if isinstance(module, TrainingHead):
            fully_shard(module, mesh=mesh)


def layers(body: nn.Module) -> list[nn.Module]:
    """The layers of a body: what its outermost lists hold."""
    if isinstance(body, nn.ModuleList):
        return list(body)
    return [layer for module in body.children() for layer in layers(module)]


def unshardable(method: "ContrastiveMethod") -> str | None:
    """Which part of a method's weights could not be split, or None.

    A second encoder, a momentum copy or a readout is reached past the calls at which units are gathered.
    """
    inside = {id(parameter) for parameter in method.encoder.body.parameters()}
    heads = [module for module in method.children() if isinstance(module, TrainingHead)]
    inside |= {id(parameter) for head in heads for parameter in head.parameters()}
    return next((name for name, parameter in method.named_parameters() if id(parameter) not in inside), None)


def whole(value: Any) -> Any:
    """A sharded tensor whole and on the CPU, for which all ranks must ask together; anything else as it is."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _split_as(value: Any, parameter: Tensor) -> Any:
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def is_sharded(module: nn.Module) -> bool:
    """Whether some of a module's weights are split over the ranks."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


@contextmanager
def whole_weights(module: nn.Module, *, frozen: bool) -> Iterator[None]:
    """Inside, rank 0 has whole parameters on its CPU, e.g. to save them. All ranks enter together, and none computes.

    Args:
        module: sharded; with another one nothing happens.
        frozen: also the parameters that are not trained.
    """
    shards: list[tuple[nn.Module, str, nn.Parameter]] = []
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
    try:
        for part in module.modules():
            for name, parameter in list(part._parameters.items()):
                if isinstance(parameter, DTensor) and (frozen or parameter.requires_grad):
                    full = whole(parameter.detach())
                    if dist.get_rank() == 0:
                        part._parameters[name] = nn.Parameter(full, parameter.requires_grad)
                        shards.append((part, name, parameter))
        yield
    finally:
        for part, name, parameter in shards:
            part._parameters[name] = parameter
