"""The decoder of Light-Weight RefineNet in its multi-task form: everything is a 1x1 convolution or a pool.

Nekrasov et al., "Real-Time Joint Semantic Segmentation and Depth Estimation Using Asymmetric Annotations", ICRA 2019.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 256  # channels of every decoder level
STAGES = 4  # of a chain of residual pools


class ChannelScale(nn.Conv2d):
    """A 1x1 convolution of each channel alone: one factor a channel. Training multiplies, which is much faster."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(1, -1, 1, 1) if self.training else super().forward(x)


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


class ChainedResidualPooling(nn.Module):
    """Sum of the input and of `STAGES` ever wider contexts: each 5x5 maximum and 1x1 convolution feeds the next."""

    def __init__(self, channels: int, grouped: bool = False) -> None:
        super().__init__()
        for stage in range(1, STAGES + 1):
            self.add_module(
                f"{stage}_outvar_dimred", ChannelScale(channels) if grouped else conv1x1(channels, channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        top = x
        for stage in range(1, STAGES + 1):
            top = getattr(self, f"{stage}_outvar_dimred")(F.max_pool2d(top, 5, stride=1, padding=2))
            x = x + top
        return x


def upsampled(x: Tensor, like: Tensor) -> Tensor:
    """`x` resized bilinearly to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
