"""What moves the weights: groups of parameters with their own optimiser and rhythm, schedules, averaged weights."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class Group:
    """Parameters that step together.

    A group steps once `every` examples that concern it have been seen since it last did, with the mean of their
    gradients: 1 steps at each batch that concerns it (plain training, BlitzNet), 10 or 30 accumulate (UberNet).
    """

    name: str
    parameters: list[nn.Parameter]
    rate: float
    every: int = 1
    weight_decay: float = 0.0
    seen: int = field(default=0, init=False)  # examples since the last step
    batches: int = field(default=0, init=False)  # batches that added gradient since then


def adamw(group: Group) -> torch.optim.Optimizer:
    decayed = [p for p in group.parameters if p.dim() > 1]  # neither biases nor norms
    others = [p for p in group.parameters if p.dim() <= 1]
    parts = [{"params": decayed, "weight_decay": group.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = all(p.is_cuda for p in group.parameters)  # a launch for all parameters
    return torch.optim.AdamW([part for part in parts if part["params"]], lr=group.rate, fused=fused or None)


def adam(group: Group) -> torch.optim.Optimizer:
    """Adam whose weight decay is an L2 penalty, part of the gradient, of every parameter: PoseNet's and MapNet's."""
    return torch.optim.Adam(group.parameters, lr=group.rate, weight_decay=group.weight_decay)


def sgd(group: Group) -> torch.optim.Optimizer:
    return torch.optim.SGD(group.parameters, lr=group.rate, momentum=0.9, weight_decay=group.weight_decay)


OPTIMISERS: dict[str, Callable[[Group], torch.optim.Optimizer]] = {"adamw": adamw, "adam": adam, "sgd": sgd}


def poly(progress: float) -> float:
    """Factor of the rate at `progress` 0..1 of a training: (1 - progress)^0.9."""
    return max(0.0, 1.0 - progress) ** 0.9


def step_by_thirds(progress: float) -> float:
    """Factor of the rate: a tenth after each third."""
    return 0.1 ** min(2, int(progress * 3))


def constant(progress: float) -> float:
    return 1.0


def flat_then_steep(progress: float) -> float:
    """Factor of the rate: 1 for the first 60 % of a training, then down to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress - 0.6) / 0.4)))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "poly": poly,
    "step": step_by_thirds,
    "flat": flat_then_steep,
    "constant": constant,
}


def warmed_up(factor: float, step: int, steps: int) -> float:
    """`factor` rising linearly over the first `steps` steps."""
    return factor * min(1.0, (step + 1) / steps) if steps else factor


class AveragedWeights:
    """Exponential moving average of a module's parameters and statistics; counts are copied.

    The decay grows with the number of updates, so that the random start is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state: dict[str, Tensor] = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        moving: tuple[list[Tensor], list[Tensor]] = [], []
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                moving[0].append(self.state[key])
                moving[1].append(value)
            else:
                self.state[key].copy_(value)
        torch._foreach_lerp_(*moving, 1 - decay)  # on a GPU one launch in place of hundreds


def clip(parameters: Iterable[nn.Parameter], norm: float) -> None:
    """Scale the gradients so that their joint norm is at most `norm`."""
    nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], norm)


def keep_freed_memory() -> None:
    """Tell glibc not to hand large blocks back to the kernel between steps.

    A training step frees and asks again for hundreds of megabytes; where page faults are slow (virtual machines)
    this took seven eighths of a step.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)
        libc.mallopt(m_top_pad, 1 << 29)
    except (OSError, AttributeError):  # another C library: nothing lost but speed
        return
