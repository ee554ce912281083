"""Every method that is shipped and trains, with what each needs to be built in miniature."""

import torch
import yaml

from cse_bench.config.bind import locate
from cse_bench.config.location import conf_directory
from cse_bench.methods.base import ContrastiveMethod

# What a method cannot work without, on the random backbones, without other runs.
NEEDS: dict[str, tuple[str, ...]] = {
    "cse_sfp": ("backbone=tiny_llama",),
    "debcse": ("method@method.teacher=untrained",),
    "jtcse": ("method.towers=null",),
    "jtcse_distil": ("method@method.teacher=untrained",),
    "sarcse": ("method.channels=16",),  # in proportion to the width
    "whitenedcse": ("method.num_groups=16",),
}
# With these a step of two processes is that of one: what is otherwise taken over each process's own rows.
ONE_STEP = {"whitenedcse": ("method.statistics=global",)}


def with_towers_apart(method: ContrastiveMethod) -> ContrastiveMethod:
    """Two towers of equal weights would hide an exchange between them that does not happen."""
    second = getattr(method, "second_encoder", None)
    if second is not None:
        draw = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in second.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
    return method


METHODS = sorted(
    path.stem
    for path in (conf_directory() / "method").glob("*.yaml")
    if locate(yaml.safe_load(path.read_text())["_target_"]).trains
)


def overrides_of(method: str) -> tuple[str, ...]:
    """The overrides that choose a method in miniature."""
    return (f"method={method}", *NEEDS.get(method, ()))
