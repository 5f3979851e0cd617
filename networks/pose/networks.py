"""Networks that tell a camera's pose from one image, alone, from its labels, or together with its labels and depth.

PoseNet and MapNet are one network (Brahmbhatt et al., CVPR 2018): MapNet is what training on tuples of images makes
of it. The others are those of a report on multi-task pose regression on DeepLoc (2019): labels as an input
(`dual_input` and its variants) and as a second output (`multitask`).

Every network has `outputs(image, labels) -> {"pose": (B, 6), "segmentation": (B, C, H, W), "depth": (B, 1, h, w)}`,
with what it can tell; `forward` returns the pose alone. A pose is (B, 6), see `networks.pose.encoding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint.encoders import MEAN, STD
from networks.joint.network import JointNetwork
from networks.pose.encoders import Encoder, open_encoder, take_fourth_channel
from networks.pose.encoding import PoseStatistics

NO_LABEL = 255


class PoseModel(nn.Module):
    """What the trainer, the predictor and the scoring know of every network here."""

    reads_labels = False  # whether `outputs` needs labels beside the image
    tells: tuple[str, ...] = ("pose",)  # the keys of `outputs`

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Everything the network tells of normalised images (B, 3, H, W) and labels (B, H, W), 255 = none."""
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
        """Take note, before training, of how translations are reduced; for a network that needs metres."""

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


class PoseNetwork(PoseModel):
    """PoseNet, and MapNet when trained on tuples: one encoder, one embedding, a pose.

    Args:
        encoder: a key of `pose_encoders.ENCODERS`.
        feature: size of the embedding.
        dropout: share of the embedding that is left out in training.
    """

    def __init__(self, encoder: str = "resnet34", feature: int = 2048, dropout: float = 0.5) -> None:
        super().__init__()
        self.encoder = open_encoder(encoder)
        self.embedding = Embedding(self.encoder.level_channels[-1], feature, dropout)
        self.regressor = PoseRegressor(feature)

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"pose": self.regressor(self.embedding(self.encoder.levels(image)[-1]))}

    def load_imagenet(self, path: str | Path) -> None:
        self.encoder.load_imagenet(path)


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


class SegmentationNetwork(PoseModel):
    """Encoder and decoder alone, the other half of the report's comparison."""

    tells = ("segmentation",)

    def __init__(self, encoder: str = "resnet34", num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = open_encoder(encoder)
        self.decoder = SkipDecoder(self.encoder.level_channels, self.encoder.level_strides, num_classes)

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"segmentation": self.decoder(self.encoder.levels(image), (image.shape[-2], image.shape[-1]))}

    def forward(self, image: Tensor, labels: Tensor | None = None) -> Tensor:
        """The scores (B, C, H, W)."""
        return self.outputs(image)["segmentation"]

    def load_imagenet(self, path: str | Path) -> None:
        self.encoder.load_imagenet(path)


class MultiTaskNetwork(PoseModel):
    """One encoder; pose and segmentation out."""

    tells = ("pose", "segmentation")

    def __init__(
        self, encoder: str = "resnet34", feature: int = 2048, dropout: float = 0.5, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = open_encoder(encoder)
        channels = self.encoder.level_channels
        self.embedding = Embedding(channels[-1], feature, dropout)
        self.regressor = PoseRegressor(feature)
        self.decoder = SkipDecoder(channels, self.encoder.level_strides, num_classes)

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        levels = self.encoder.levels(image)
        return {
            "pose": self.regressor(self.embedding(levels[-1])),
            "segmentation": self.decoder(levels, (image.shape[-2], image.shape[-1])),
        }

    def load_imagenet(self, path: str | Path) -> None:
        self.encoder.load_imagenet(path)


class JointPoseNetwork(PoseModel):
    """Pose, segmentation and depth on the trunk of the joint network: what the two papers suggest together.

    `trunk` is a whole `JointNetwork`, so its trained weights load as they are.
    """

    tells = ("pose", "segmentation", "depth")

    def __init__(
        self, encoder: str = "mobilenet_v2", feature: int = 2048, dropout: float = 0.5, num_classes: int = 40
    ) -> None:
        super().__init__()
        if encoder != "mobilenet_v2":
            raise ValueError(f"the joint trunk's encoder is mobilenet_v2, not {encoder!r}")
        self.num_classes = num_classes
        self.trunk = JointNetwork(num_classes)
        self.embedding = Embedding(320, feature, dropout)
        self.regressor = PoseRegressor(feature)

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        taps = self.trunk.taps(image)
        scores, depth = self.trunk.decoded(taps)
        size = (image.shape[-2], image.shape[-1])
        scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        return {"pose": self.regressor(self.embedding(taps[-1])), "segmentation": scores, "depth": depth}

    def load_imagenet(self, path: str | Path) -> None:
        from networks.joint.encoders import imagenet_from_folded, imagenet_from_torchvision, load_encoder

        read = imagenet_from_folded if str(path).endswith(".npz") else imagenet_from_torchvision
        load_encoder(self.trunk, read(path))


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
        reduced = (colors.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        self.table[: self.num_classes] = reduced.to(self.table.device)

    def forward(self, labels: Tensor) -> Tensor:
        return self.table[labels.long()].permute(0, 3, 1, 2)


class DualInputNetwork(PoseModel):
    """The report's Dual-Input: image and coloured labels, each through an encoder of its own, one pose."""

    reads_labels = True

    def __init__(
        self, encoder: str = "resnet34", feature: int = 2048, dropout: float = 0.5, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.colors = LabelColors(num_classes)
        self._build(encoder, feature, dropout)

    def _build(self, encoder: str, feature: int, dropout: float) -> None:
        self.encoder, self.label_encoder = open_encoder(encoder), open_encoder(encoder)
        channels = self.encoder.level_channels[-1]
        self.embedding = Embedding(channels, feature, dropout)
        self.label_embedding = Embedding(channels, feature, dropout)
        self.regressor = PoseRegressor(2 * feature)

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        if labels is None:
            raise ValueError(f"{type(self).__name__} reads labels beside the image; give them, or use another network")
        return {"pose": self.regressor(self._embedded(image, labels))}

    def _embedded(self, image: Tensor, labels: Tensor) -> Tensor:
        seen = self.embedding(self.encoder.levels(image)[-1])
        named = self.label_embedding(self.label_encoder.levels(self.colors(labels))[-1])
        return torch.cat([seen, named], 1)

    def _encoders(self) -> list[Encoder]:
        return [self.encoder, self.label_encoder]

    def load_imagenet(self, path: str | Path) -> None:
        for encoder in self._encoders():
            encoder.load_imagenet(path)


class LabelInputNetwork(DualInputNetwork):
    """The variant that sees coloured labels and no image."""

    def _build(self, encoder: str, feature: int, dropout: float) -> None:
        self.label_encoder = open_encoder(encoder)
        self.label_embedding = Embedding(self.label_encoder.level_channels[-1], feature, dropout)
        self.regressor = PoseRegressor(feature)

    def _embedded(self, image: Tensor, labels: Tensor) -> Tensor:
        return self.label_embedding(self.label_encoder.levels(self.colors(labels))[-1])

    def _encoders(self) -> list[Encoder]:
        return [self.label_encoder]


class SharedInputNetwork(DualInputNetwork):
    """The variant whose one encoder, with one embedding, reads the image and then the coloured labels."""

    def _build(self, encoder: str, feature: int, dropout: float) -> None:
        self.encoder = open_encoder(encoder)
        self.embedding = Embedding(self.encoder.level_channels[-1], feature, dropout)
        self.regressor = PoseRegressor(2 * feature)

    def _embedded(self, image: Tensor, labels: Tensor) -> Tensor:
        both = torch.cat([image, self.colors(labels)])
        return torch.cat(self.embedding(self.encoder.levels(both)[-1]).chunk(2), 1)

    def _encoders(self) -> list[Encoder]:
        return [self.encoder]


class FourthChannelNetwork(DualInputNetwork):
    """The variant whose encoder reads the label ids as a fourth channel, from -1 to 1; without a label 0."""

    def _build(self, encoder: str, feature: int, dropout: float) -> None:
        self.encoder = open_encoder(encoder)
        take_fourth_channel(self.encoder)
        self.embedding = Embedding(self.encoder.level_channels[-1], feature, dropout)
        self.regressor = PoseRegressor(feature)

    def _embedded(self, image: Tensor, labels: Tensor) -> Tensor:
        ids = labels.float() * (2 / max(1, self.num_classes - 1)) - 1
        plane = torch.where(labels == NO_LABEL, torch.zeros_like(ids), ids)[:, None].to(image.dtype)
        return self.embedding(self.encoder.levels(torch.cat([image, plane], 1))[-1])

    def load_imagenet(self, path: str | Path) -> None:
        encoder = type(self.encoder)()
        encoder.load_imagenet(path)
        take_fourth_channel(encoder)
        self.encoder.load_state_dict(encoder.state_dict())


# A further network is a class and a line here; the keys stand in configurations and in the metadata of weights.
NETWORKS: dict[str, type[PoseModel]] = {
    "pose": PoseNetwork,
    "segmentation": SegmentationNetwork,
    "multitask": MultiTaskNetwork,
    "joint": JointPoseNetwork,
    "dual_input": DualInputNetwork,
    "label_input": LabelInputNetwork,
    "shared_input": SharedInputNetwork,
    "fourth_channel": FourthChannelNetwork,
}


def open_network(name: str, settings: dict[str, object]) -> PoseModel:
    """A network by its key in NETWORKS; of `settings` (encoder, feature, dropout, num_classes) it takes its own."""
    import inspect

    if name not in NETWORKS:
        raise ValueError(f"there is no pose network {name!r}; there are {', '.join(NETWORKS)}")
    known = inspect.signature(NETWORKS[name]).parameters
    return NETWORKS[name](**{key: value for key, value in settings.items() if key in known})


def kaiming(layer: nn.Module) -> nn.Module:
    """The layer with normal random weights that keep the variance through a ReLU, and no shift."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    nn.init.kaiming_normal_(weight)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
    return layer
