"""The encoder of the joint network: MobileNet-v2, or EfficientNet-Lite2, which is built of the same blocks.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018; Tan and Le, "EfficientNet:
Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, without its squeeze-and-excitation. The names of
the modules are those of the multi-task RefineNet checkpoints, so that these load strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(NamedTuple):
    """Some inverted residual blocks of the same width."""

    expansion: int
    channels: int
    blocks: int
    stride: int  # of the first block
    kernel: int = 3  # of the depthwise convolution, pixels


# layer2 .. layer8
LAYERS = (
    Layer(1, 16, 1, 1), Layer(6, 24, 2, 2), Layer(6, 32, 3, 2), Layer(6, 64, 4, 2), Layer(6, 96, 3, 1),
    Layer(6, 160, 3, 2), Layer(6, 320, 1, 1),
)  # fmt: skip
LITE2_LAYERS = (
    Layer(1, 16, 1, 1), Layer(6, 24, 3, 2), Layer(6, 48, 3, 2, 5), Layer(6, 88, 4, 2), Layer(6, 120, 4, 1, 5),
    Layer(6, 208, 5, 2, 5), Layer(6, 352, 1, 1),
)  # fmt: skip
ENCODERS = {"mobilenet_v2": LAYERS, "efficientnet_lite2": LITE2_LAYERS}
MEAN = (0.485, 0.456, 0.406)  # of RGB / 255, over ImageNet
STD = (0.229, 0.224, 0.225)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, where `clip`, ReLU6.

    While training with the norm frozen (this module in train mode, its norm in eval mode) the norm is folded into the
    convolution's weights at each step: the same function and the same gradients, for a pass over the weights in place
    of one over the activations.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, clip: bool = True
    ) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        norm = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1)
        super().__init__(convolution, norm, *([nn.ReLU6(inplace=True)] if clip else []))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self[0], self[1]
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
        if not self.training or norm.training:
            return super().forward(x)
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        weight = conv.weight * scale[:, None, None, None]
        x = F.conv2d(x, weight, shift, conv.stride, conv.kernel_size[0] // 2, groups=conv.groups)
        return F.relu6(x, inplace=True) if len(self) == 3 else x


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel, project by 1x1 without activation; added to the input if it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.output = nn.Sequential(
            ConvNorm(inputs, wide, 1),
            ConvNorm(wide, wide, kernel, stride, groups=wide),
            ConvNorm(wide, outputs, 1, clip=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.output(x) if self.residual else self.output(x)


class MobileNetV2(nn.Module):
    """The encoder: layer1 .. layer8; MobileNet-v2 has 1,812,800 parameters.

    Stride-2 layers pad by half their kernel on every side, as the released checkpoints were trained.

    Args:
        layers: of layer2 .. layer8, those of another encoder of such blocks too.
    """

    layer2: nn.Sequential  # and so on to layer8: blocks

    def __init__(self, layers: Sequence[Layer] = LAYERS) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.layer1 = ConvNorm(3, 32, 3, stride=2)
        inputs = 32
        for number, (expansion, channels, blocks, stride, kernel) in enumerate(layers, start=2):
            first = InvertedResidual(inputs, channels, expansion, stride, kernel)
            rest = [InvertedResidual(channels, channels, expansion, 1, kernel) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(first, *rest))
            inputs = channels

    def taps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of layer3 .. layer8, at 1/4, 1/8, 1/16, 1/16, 1/32, 1/32 of a normalised image (B, 3, H, W)."""
        x = self.layer2(self.layer1(image))
        found = []
        for number in range(3, 9):
            x = getattr(self, f"layer{number}")(x)
            found.append(x)
        return tuple(found)


def freeze_norms(module: nn.Module) -> nn.Module:
    """Keep the running statistics of every batch norm: call it after `module.train()`; returns the module."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    return module
