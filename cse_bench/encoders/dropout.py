"""Dropout with masks that are drawn faster on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cse_bench.training.gpu_kernels import runs_on_cpu

_STEPS = 1 << 16


def dropout(states: Tensor, module: nn.Dropout) -> Tensor:
    """What the module does. On a CPU a mask takes 16 random bits a number, where PyTorch's takes a floating-point draw.

    So the probability is rounded to a multiple of 2^-16 (0.1 becomes 0.100006), and the numbers kept are divided by
    one less what it then is: the expectation is exact up to the rounding of the dtype.
    """
    if not module.training or module.p == 0:
        return states
    if not runs_on_cpu(states):
        return functional.dropout(states, module.p)
    dropped = min(round(module.p * _STEPS), _STEPS - 1)
    count = states.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    kept = draws.view(states.shape) >= dropped - _STEPS // 2
    return states * kept.to(states.dtype).mul_(_STEPS / (_STEPS - dropped))
