"""Residual networks as encoders, with the names of torchvision's state dicts so that ImageNet weights load.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; the stride of a bottleneck is on its 3x3
convolution, as in torchvision. There is no classifier: an encoder ends with layer4.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a short cut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Squeeze by 1x1, filter by 3x3, expand four times by 1x1, beside a short cut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


LAYERS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """conv1, bn1, layer1 .. layer4 of a ResNet of 34, 50, 101 or 152 layers.

    Attributes:
        channels: of the four layers' outputs, (64, 128, 256, 512) or four times as many.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth not in LAYERS:
            raise ValueError(f"there is no ResNet-{depth} here; there are {', '.join(map(str, LAYERS))}")
        block, counts = LAYERS[depth]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.channels = tuple(64 * 2**i * block.expansion for i in range(4))
        inputs = 64
        for number, (count, outputs) in enumerate(zip(counts, self.channels, strict=True), start=1):
            blocks: list[nn.Module] = []
            for i in range(count):
                stride = 2 if number > 1 and i == 0 else 1
                downsample = None
                if stride != 1 or inputs != outputs:
                    downsample = nn.Sequential(
                        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                    )
                blocks.append(block(inputs, outputs // block.expansion, stride, downsample))
                inputs = outputs
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def taps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of layer1 .. layer4, at 1/4, 1/8, 1/16, 1/32 of a normalised image (B, 3, H, W)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        l1 = self.layer1(x)
        l2 = self.layer2(l1)
        l3 = self.layer3(l2)
        return l1, l2, l3, self.layer4(l3)

    def forward(self, image: Tensor) -> Tensor:
        """The last layer's features (B, C, H / 32, W / 32)."""
        return self.taps(image)[-1]
