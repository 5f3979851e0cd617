"""The decoder of Light-Weight RefineNet: everything is a 1x1 convolution or a pool.

Nekrasov et al., "Light-Weight RefineNet for Real-Time Semantic Segmentation", BMVC 2018; for several tasks,
"Real-Time Joint Semantic Segmentation and Depth Estimation Using Asymmetric Annotations", ICRA 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint.encoders import LAYERS, Layer, MobileNetV2

WIDTH = 256  # channels of every decoder level
STAGES = 4  # of a chain of residual pools


class ChannelScale(nn.Conv2d):
    """A 1x1 convolution of each channel alone: one factor a channel. Training multiplies, which is much faster."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # autocast leaves products alone: of the features' type, else all that follows would be float32
        return x * self.weight.view(1, -1, 1, 1).to(x.dtype) if self.training else super().forward(x)


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


def upsampled(x: Tensor, like: Tensor, align_corners: bool = False) -> Tensor:
    """`x` resized bilinearly to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


class MobileDecoder(MobileNetV2):
    """MobileNet-v2 and the decoder on it, without heads. Names are those of the authors' checkpoints, which are flat.

    Args:
        layers: of the encoder.
        grouped: whether the finest chain of pools has a factor a channel in place of convolutions.
        align_corners: how features are upsampled.
    """

    conv3: nn.Conv2d  # one for each level of the encoder, deepest last
    conv4: nn.Conv2d
    conv5: nn.Conv2d
    conv6: nn.Conv2d
    conv7: nn.Conv2d
    conv8: nn.Conv2d
    crp4: nn.Sequential  # the decoder's levels, coarsest first
    crp3: nn.Sequential
    crp2: nn.Sequential
    conv_adapt4: nn.Conv2d
    conv_adapt3: nn.Conv2d
    conv_adapt2: nn.Conv2d

    def __init__(self, layers: Sequence[Layer] = LAYERS, *, grouped: bool, align_corners: bool) -> None:
        super().__init__(layers)
        self.align_corners = align_corners
        for number, layer in enumerate(layers[1:], start=3):
            setattr(self, f"conv{number}", conv1x1(layer.channels, WIDTH))
        for level in (4, 3, 2):
            setattr(self, f"crp{level}", nn.Sequential(ChainedResidualPooling(WIDTH)))
            setattr(self, f"conv_adapt{level}", conv1x1(WIDTH, WIDTH))
        self.crp1 = nn.Sequential(ChainedResidualPooling(WIDTH, grouped))

    def refined(self, taps: Sequence[Tensor], stride: int = 4) -> Tensor:
        """Features (B, 256, h, w) at 1 / stride of the image (4 or 8), of the encoder's `taps`."""
        l3, l4, l5, l6, l7, l8 = taps
        x = self.crp4(F.relu6(self.conv8(l8) + self.conv7(l7)))
        x = upsampled(self.conv_adapt4(x), l6, self.align_corners)
        x = self.crp3(F.relu6(self.conv6(l6) + self.conv5(l5) + x))
        x = upsampled(self.conv_adapt3(x), l4, self.align_corners)
        x = self.conv_adapt2(self.crp2(F.relu6(self.conv4(l4) + x)))
        if stride == 8:
            return F.relu6(x)
        return self.crp1(F.relu6(self.conv3(l3) + upsampled(x, l3, self.align_corners)))
