"""Networks that read labels beside the image: the Dual-Input of the report on multi-task pose regression, and variants.

The labels are those of another network, or the truth.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from networks.joint.encoders import MEAN, STD
from networks.pose.encoders import Encoder, open_encoder, take_fourth_channel
from networks.pose.parts import Embedding, PoseModel, PoseRegressor

NO_LABEL = 255


class LabelColors(nn.Module):
    """Labels (B, H, W) as a normalised colour image (B, 3, H, W); what has no label is the mean colour, zero."""

    table: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("table", torch.zeros(NO_LABEL + 1, 3))
        # well apart without a table: steps of the golden ratio around three circles of different pace
        steps = torch.arange(num_classes)[:, None] * torch.tensor([0.618034, 0.754878, 0.569840])
        self.set_colors((255 * (steps + 0.5) % 255).round())

    def set_colors(self, colors: Tensor) -> None:
        """Take the RGB 0..255 (C, 3) of a label set; they are saved with the weights."""
        if colors.shape != (self.num_classes, 3):
            raise ValueError(f"label colours are {tuple(colors.shape)}, expected ({self.num_classes}, 3)")
        normalised = (colors.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        self.table[: self.num_classes] = normalised.to(self.table.device)

    def forward(self, labels: Tensor) -> Tensor:
        return self.table[labels.long()].permute(0, 3, 1, 2)


def needed(labels: Tensor | None, network: PoseModel) -> Tensor:
    """The labels; ValueError where there are none."""
    if labels is None:
        raise ValueError(f"{type(network).__name__} reads labels beside the image; give them, or use another network")
    return labels


class LabelReadingNetwork(PoseModel):
    """What the networks below are built of: encoders, an embedding of each one's last features, one pose.

    Args:
        encoder: a key of `networks.pose.encoders.ENCODERS`.
        feature: size of an embedding.
        dropout: share of an embedding that is left out in training.
        num_classes: of the labels.
    """

    reads_labels = True
    inputs: tuple[str, ...] = ("",)  # encoders by the prefix of their names: "" and "label_"
    embeddings = 1  # of `feature` numbers each, from which the pose is regressed

    encoder: Encoder
    embedding: Embedding
    label_encoder: Encoder
    label_embedding: Embedding

    def __init__(
        self, encoder: str = "resnet34", feature: int = 2048, dropout: float = 0.5, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.colors = LabelColors(num_classes)
        for prefix in self.inputs:
            part = open_encoder(encoder)
            setattr(self, f"{prefix}encoder", part)
            setattr(self, f"{prefix}embedding", Embedding(part.level_channels[-1], feature, dropout))
        self.regressor = PoseRegressor(self.embeddings * feature)

    def seen(self, image: Tensor) -> Tensor:
        """The embedding (B, feature) of images (B, C, H, W)."""
        return self.embedding(self.encoder.levels(image)[-1])

    def named(self, labels: Tensor | None) -> Tensor:
        """The embedding (B, feature) of labels (B, H, W), as their own encoder sees their colours."""
        colored = self.colors(needed(labels, self))
        return self.label_embedding(self.label_encoder.levels(colored)[-1])

    def set_colors(self, colors: Tensor) -> None:
        self.colors.set_colors(colors)

    def load_imagenet(self, path: str | Path) -> None:
        for prefix in self.inputs:
            getattr(self, f"{prefix}encoder").load_imagenet(path)


class DualInputNetwork(LabelReadingNetwork):
    """The report's Dual-Input: image and coloured labels, each through an encoder of its own, one pose."""

    inputs = ("", "label_")
    embeddings = 2

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"pose": self.regressor(torch.cat([self.seen(image), self.named(labels)], 1))}


class LabelInputNetwork(LabelReadingNetwork):
    """The variant that sees coloured labels and no image."""

    inputs = ("label_",)

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"pose": self.regressor(self.named(labels))}


class SharedInputNetwork(LabelReadingNetwork):
    """The variant whose one encoder, with one embedding, reads the image and then the coloured labels."""

    embeddings = 2

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        seen, named = self.seen(torch.cat([image, self.colors(needed(labels, self))])).chunk(2)
        return {"pose": self.regressor(torch.cat([seen, named], 1))}


class FourthChannelNetwork(LabelReadingNetwork):
    """The variant whose encoder reads the label ids as a fourth channel, from -1 to 1; without a label 0.

    It has a table of colours, as the others have, and does not read it.
    """

    def __init__(
        self, encoder: str = "resnet34", feature: int = 2048, dropout: float = 0.5, num_classes: int = 10
    ) -> None:
        super().__init__(encoder, feature, dropout, num_classes)
        take_fourth_channel(self.encoder)

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        labels = needed(labels, self)
        ids = labels.float() * (2 / max(1, self.num_classes - 1)) - 1
        plane = torch.where(labels == NO_LABEL, torch.zeros_like(ids), ids)[:, None].to(image.dtype)
        return {"pose": self.regressor(self.seen(torch.cat([image, plane], 1)))}

    def load_imagenet(self, path: str | Path) -> None:
        encoder = type(self.encoder)()
        encoder.load_imagenet(path)
        take_fourth_channel(encoder)
        self.encoder.load_state_dict(encoder.state_dict())
