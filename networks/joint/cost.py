"""What a network costs: its parameters and its multiplications for an image of a given size."""

from __future__ import annotations

import copy

import torch
from torch import nn


def parameters(network: nn.Module) -> int:
    """Trained numbers; running statistics do not count."""
    return sum(p.numel() for p in network.parameters())


def gmac(network: nn.Module, width: int = 640, height: int = 480) -> float:
    """Multiply-accumulates of the convolutions and linear layers for one image, in units of 10^9.

    Additions, activations, pools, norms (folded away at run time) and resizing do not count.
    """
    total = 0

    def count(part: nn.Module, _: tuple, output: torch.Tensor) -> None:
        nonlocal total
        weight = part.weight
        assert isinstance(weight, torch.Tensor)
        positions = output.numel() // output.shape[1] if isinstance(part, nn.Conv2d) else output.shape[:-1].numel()
        total += weight.numel() * positions

    # on the meta device shapes are worked out and nothing is computed
    shapes = copy.deepcopy(network).to("meta").eval()
    hooks = [part.register_forward_hook(count) for part in shapes.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        shapes(torch.empty(1, 3, height, width, device="meta"))
    for hook in hooks:
        hook.remove()
    return total / 1e9
