"""Networks that predict a camera's pose from one image, alone, from its labels, or together with its labels and depth.

PoseNet and MapNet are one network (Brahmbhatt et al., CVPR 2018): MapNet is what training on tuples of images makes
of it. The others are those of a report on multi-task pose regression on DeepLoc (2019): labels as an input
(`networks.pose.label_inputs`) and as a second output (`multitask`).

Every network has `outputs(image, labels) -> {"pose": (B, 6), "segmentation": (B, C, H, W), "depth": (B, 1, h, w)}`,
with what it predicts; `forward` returns the pose alone. A pose is (B, 6), see `networks.pose.encoding`.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from networks.joint.imagenet import start_mobilenet
from networks.joint.network import JointNetwork
from networks.pose.encoders import open_encoder
from networks.pose.label_inputs import DualInputNetwork, FourthChannelNetwork, LabelInputNetwork, SharedInputNetwork
from networks.pose.parts import Embedding, PoseModel, PoseRegressor, SkipDecoder
from networks.pose.vlocnet import VLocNet, VLocNetPlusPlus


class PoseNetwork(PoseModel):
    """PoseNet, and MapNet when trained on tuples: one encoder, one embedding, a pose.

    Args:
        encoder: a key of `networks.pose.encoders.ENCODERS`.
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


class SegmentationNetwork(PoseModel):
    """Encoder and decoder alone, the other half of the report's comparison."""

    tasks = ("segmentation",)

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

    tasks = ("pose", "segmentation")

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

    tasks = ("pose", "segmentation", "depth")

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
        start_mobilenet(self.trunk, path)


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
    "vlocnet": VLocNet,
    "vlocnet++": VLocNetPlusPlus,
}


def open_network(name: str, settings: dict[str, object]) -> PoseModel:
    """A network by its key in NETWORKS; of `settings` (encoder, feature, dropout, num_classes) it takes its own."""
    if name not in NETWORKS:
        raise ValueError(f"there is no pose network {name!r}; there are {', '.join(NETWORKS)}")
    known = inspect.signature(NETWORKS[name]).parameters
    return NETWORKS[name](**{key: value for key, value in settings.items() if key in known})
