"""What pose networks are made of: their common interface, the pose's head, the decoder of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.pose.encoding import PoseStatistics


class PoseModel(nn.Module):
    """What the trainer, the predictor and the scoring know of every network here."""

    reads_labels = False  # whether `outputs` needs labels beside the image
    tasks: tuple[str, ...] = ("pose",)  # the keys of `outputs`

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Everything the network predicts of normalised images (B, 3, H, W) and labels (B, H, W), 255 = none."""
        raise NotImplementedError

    def forward(self, image: Tensor, labels: Tensor | None = None) -> Tensor:
        """The poses (B, 6)."""
        return self.outputs(image, labels)["pose"]

    def tuple_outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """`outputs` of tuples of images (B, T, 3, H, W), each (B, T, ...); a network of several images overrides it."""
        shape = image.shape[:2]
        found = self.outputs(image.flatten(0, 1), None if labels is None else labels.flatten(0, 1))
        return {name: value.unflatten(0, shape) for name, value in found.items()}

    def set_statistics(self, statistics: PoseStatistics) -> None:
        """Take note, before training, of how translations are normalised; for a network that needs metres."""

    def set_colors(self, colors: Tensor) -> None:
        """Take note, before training, of the labels' RGB 0..255 (C, 3); for a network that sees them in colour."""

    def extra_terms(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses that only this network has, by name; the trainer adds them to its own."""
        return {}

    def load_imagenet(self, path: str | Path) -> None:
        """Start the encoder, or every one of them, from ImageNet weights."""
        raise NotImplementedError


class Embedding(nn.Module):
    """The mean of the last features, a linear layer, ReLU and dropout: (B, C, h, w) -> (B, feature)."""

    def __init__(self, inputs: int, feature: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.dropout = kaiming(nn.Linear(inputs, feature)), nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        # a Dropout module is off in evaluation; the reference's functional one never is
        return self.dropout(F.relu(self.linear(features.mean((2, 3)))))


class PoseRegressor(nn.Module):
    """Translation and log-quaternion of an embedding: (B, feature) -> (B, 6).

    The weights start at a tenth of the reference's: with those, first guesses lie several turns away.
    """

    def __init__(self, feature: int) -> None:
        super().__init__()
        self.translation, self.rotation = kaiming(nn.Linear(feature, 3)), kaiming(nn.Linear(feature, 3))
        with torch.no_grad():
            self.translation.weight.mul_(0.1)  # type: ignore[operator,union-attr]
            self.rotation.weight.mul_(0.1)  # type: ignore[operator,union-attr]

    def forward(self, embedding: Tensor) -> Tensor:
        return torch.cat([self.translation(embedding), self.rotation(embedding)], 1)


class SkipDecoder(nn.Module):
    """Scores at the image's size from the five levels of an encoder, whose features are added on the way up.

    The report's decoder, made for any image size: each step doubles the size by a transposed convolution, and the row
    or column by which that may be larger than the level below is cut off.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for i in range(len(channels) - 1, 0, -1):
            if strides[i] == strides[i - 1]:
                steps.append(nn.Conv2d(channels[i], channels[i - 1], 7, padding=3, bias=False))
            else:
                steps.append(nn.ConvTranspose2d(channels[i], channels[i - 1], 4, stride=2, padding=1))
        self.steps = nn.ModuleList([kaiming(step) for step in steps])
        kernel = {2: 4, 4: 6}[strides[0]]
        self.last = kaiming(nn.ConvTranspose2d(channels[0], num_classes, kernel, strides[0], padding=1, bias=False))

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Scores (B, C, *size)."""
        x = levels[-1]
        for step, skip in zip(self.steps, reversed(levels[:-1]), strict=True):
            x = F.relu(step(x)[..., : skip.shape[-2], : skip.shape[-1]] + skip)
        return self.last(x)[..., : size[0], : size[1]]


def kaiming(layer: nn.Module) -> nn.Module:
    """The layer with normal random weights that keep the variance through a ReLU, and no shift."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    nn.init.kaiming_normal_(weight)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
    return layer
