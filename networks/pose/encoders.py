"""The encoders of the pose networks, each seen as five levels of features, and their ImageNet weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint.encoders import MobileNetV2
from networks.joint.imagenet import start_mobilenet, start_resnet
from networks.joint.resnet import ResNet


class ResNet34Levels(ResNet):
    """ResNet-34: after the first pool, and layer1 .. layer4."""

    level_channels = (64, 64, 128, 256, 512)
    level_strides = (4, 4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__(34)

    def levels(self, image: Tensor) -> tuple[Tensor, ...]:
        """Five feature images of a normalised image (B, C, H, W), finest first."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        found = [x]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            found.append(x)
        return tuple(found)

    @property
    def first(self) -> nn.Conv2d:
        """The convolution that reads the image."""
        return self.conv1

    def load_imagenet(self, path: str | Path) -> None:
        """Start from torchvision's resnet34 state dict."""
        start_resnet(self, path)


class MobileNetV2Levels(MobileNetV2):
    """The joint network's encoder: layer2, layer3, layer4, layer6 and layer8."""

    level_channels = (16, 24, 32, 96, 320)
    level_strides = (2, 4, 8, 16, 32)

    def levels(self, image: Tensor) -> tuple[Tensor, ...]:
        """Five feature images of a normalised image (B, C, H, W), finest first."""
        x = self.layer1(image)
        found = []
        for number in range(2, 9):
            x = getattr(self, f"layer{number}")(x)
            if number in (2, 3, 4, 6, 8):
                found.append(x)
        return tuple(found)

    @property
    def first(self) -> nn.Conv2d:
        """The convolution that reads the image."""
        convolution = self.layer1[0]
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def load_imagenet(self, path: str | Path) -> None:
        """Start from a folded .npz or from torchvision's mobilenet_v2 state dict."""
        start_mobilenet(self, path)


Encoder = ResNet34Levels | MobileNetV2Levels
ENCODERS: dict[str, Callable[[], Encoder]] = {"resnet34": ResNet34Levels, "mobilenet_v2": MobileNetV2Levels}


def open_encoder(name: str) -> Encoder:
    """A new encoder of that name, with random weights."""
    if name not in ENCODERS:
        raise ValueError(f"there is no encoder {name!r}; there are {', '.join(ENCODERS)}")
    return ENCODERS[name]()


@torch.no_grad()
def take_fourth_channel(encoder: Encoder) -> None:
    """Let the first convolution read a fourth channel, whose weights are the mean of those of R, G and B."""
    first = encoder.first
    weight = torch.cat([first.weight, first.weight.mean(1, keepdim=True)], 1)
    first.in_channels = 4
    first.weight = nn.Parameter(weight)
