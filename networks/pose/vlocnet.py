"""VLocNet and VLocNet++: the pose of an image from the pose before it, the motion between them, and its classes.

Valada, Radwan and Burgard, "Deep Auxiliary Learning for Visual Localization and Odometry", ICRA 2018 (VLocNet), and
Radwan, Valada and Burgard, "VLocNet++: Deep Multitask Learning for Semantic Visual Localization and Odometry", RA-L
2018. No code of theirs is public; this is the smallest form that has each of their ideas:

- a pose stream into which the pose of the image before is fed back;
- a Siamese odometry stream that sees both images and predicts the motion between them;
- a geometric consistency loss: the motion between two predicted poses is the true one;
- VLocNet++: a semantic stream, whose features of the image before are warped by the predicted motion into the image
  and fused with its own, and fused again into the pose stream, by learned weights of the channels.

What is simpler than theirs:

- The streams share the whole encoder (ResNet-34 or MobileNet-v2, with its ReLU), not its first stages of a ResNet-50
  with ELU; they part after it.
- Warping takes the scene for a plane at `DEPTH` metres that faces the camera, and a lens as a Kinect's: there
  is no depth stream. `warped` itself takes any depth.
- One scale of semantic features (1/16) is warped, and fusion weighs channels, not every element.
- Fed back is the network's own prediction, in training too, without gradient. The first image of a tuple, and a single
  image, have none; so `outputs`, which the predictor and the scores call, judges images one by one. Over a sequence use
  `tuple_outputs`.
- Rotations are log-quaternions, as in the other networks here, not quaternions.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.distributed import summed, world
from networks.pose.encoders import open_encoder
from networks.pose.encoding import PoseStatistics, exp_quaternion, relative_motion, rotated
from networks.pose.parts import Embedding, PoseModel, PoseRegressor, SkipDecoder, kaiming
from semslam.camera import KINECT_FOCAL

DEPTH = 2.5  # metres: of the plane that stands for the scene; the middle of a room
SEMANTIC = 64  # channels of the features that are warped
PREVIOUS = 64  # numbers that a fed-back pose becomes


def consistency(pose: Tensor, motion: Tensor) -> Tensor:
    """How far the motions between predicted poses are from the given ones: (2,), of translations and of rotations.

    VLocNet's geometric consistency loss, with the mean of absolute differences.

    Args:
        pose: (B, T, 6) predicted poses, translations in metres.
        motion: (B, T - 1, 6) each camera in the frame of the one before.
    """
    return motion_error(relative_motion(pose[:, :-1], pose[:, 1:]), motion)


def motion_error(predicted: Tensor, motion: Tensor) -> Tensor:
    """Mean absolute differences of motions (B, T - 1, 6): (2,), of translations and of rotations."""
    errors = (predicted - motion).abs().sum((0, 1)) / (
        summed(predicted.new_tensor(len(predicted))) * predicted.shape[1]
    )
    return torch.stack([errors[:3].mean(), errors[3:].mean()])


def warped(features: Tensor, motion: Tensor, depth: Tensor | float = DEPTH, focal: float = KINECT_FOCAL) -> Tensor:
    """The features (B, C, h, w) of an image, as the camera sees them after a motion; 0 where they were out of view.

    Args:
        motion: (B, 6) the camera after it, in the frame of the camera before: metres, log-quaternion.
        depth: metres, (B, h, w) of the image after it, or of a plane that faces the camera there.
        focal: of the camera, in widths of the image.
    """
    many, _, height, width = features.shape
    motion = motion.float()  # an angle in bfloat16 has three digits
    pixels = focal * width  # square pixels: the same along both axes
    u = (torch.arange(width, device=features.device) + 0.5 - width / 2) / pixels
    v = (torch.arange(height, device=features.device) + 0.5 - height / 2) / pixels
    rays = torch.stack([u.expand(height, width), v[:, None].expand(height, width), torch.ones(height, width).to(u)], -1)
    z = depth[..., None].float() if isinstance(depth, Tensor) else depth
    points = (rays * z).expand(many, height, width, 3)
    q = exp_quaternion(motion[:, 3:])[:, None, None].expand(many, height, width, 4)
    before = rotated(q, points) + motion[:, None, None, :3]
    ahead = before[..., 2:].clamp(min=1e-3)
    places = before[..., :2] / ahead * pixels * before.new_tensor([2 / width, 2 / height])
    places = torch.where(before[..., 2:] > 1e-3, places, torch.full_like(places, 2.0))
    return F.grid_sample(features, places.to(features.dtype), align_corners=False)


class WeightedFusion(nn.Module):
    """Two feature images as one: each channel times a learned weight, then a 1x1 convolution and ReLU."""

    def __init__(self, first: int, second: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(first + second, 1, 1))
        self.mix = kaiming(nn.Conv2d(first + second, outputs, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return F.relu(self.mix(self.weight * torch.cat([first, second], 1)))


class VLocNet(PoseModel):
    """Pose and odometry streams with the consistency loss.

    Args:
        encoder: a key of `networks.pose.encoders.ENCODERS`.
        feature: size of each stream's embedding.
        dropout: share of an embedding that is left out in training.
    """

    scale: Tensor  # (3,) metres of a unit of translation; saved with the weights

    def __init__(self, encoder: str = "resnet34", feature: int = 2048, dropout: float = 0.5) -> None:
        super().__init__()
        self.encoder = open_encoder(encoder)
        channels = self.encoder.level_channels[-1]
        self.embedding = Embedding(channels, feature, dropout)
        self.previous = nn.Linear(6, PREVIOUS)
        self.regressor = PoseRegressor(feature + PREVIOUS)
        self.odometry_embedding = Embedding(2 * channels, feature, dropout)
        self.odometry = nn.Linear(feature, 6)
        nn.init.zeros_(self.odometry.weight)  # no motion: nothing is warped by a random one
        nn.init.zeros_(self.odometry.bias)
        # of exp(-a) L + a; the starts are MapNet's
        self.balance = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor([0.0, -3.0])) for name in ("odometry", "consistency")}
        )
        self.register_buffer("scale", torch.ones(3))

    def set_statistics(self, statistics: PoseStatistics) -> None:
        """Take note of how translations are normalised, so that motions are in metres."""
        self.scale.copy_(torch.tensor(statistics.std))

    def outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        found = self.tuple_outputs(image[:, None], labels)
        return {name: found[name][:, 0] for name in self.tasks}

    def tuple_outputs(self, image: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Predictions of images (B, T, 3, H, W) in their order, each using the one before.

        "pose" (B, T, 6), "motion" (B, T - 1, 6) in metres, and of VLocNet++ "segmentation" (B, T, C, H, W).
        """
        shape = (image.shape[0], image.shape[1])
        levels = [level.unflatten(0, shape) for level in self.encoder.levels(image.flatten(0, 1))]
        found: dict[str, list[Tensor]] = {"pose": [], "motion": [], "segmentation": []}
        before: Tensor | None = None  # semantic features of the image before
        for t in range(shape[1]):
            own = [level[:, t] for level in levels]
            motion = None
            if t > 0:
                pair = torch.cat([levels[-1][:, t - 1], own[-1]], 1)
                motion = self.odometry(self.odometry_embedding(pair))
                found["motion"].append(motion)
            seen, before, scores = self._understood(own, before, motion, (image.shape[-2], image.shape[-1]))
            if scores is not None:
                found["segmentation"].append(scores)
            embedding = self.embedding(seen)
            fed_back = embedding.new_zeros(shape[0], PREVIOUS)
            if t > 0:
                fed_back = F.relu(self.previous(found["pose"][-1].detach().to(embedding.dtype)))
            found["pose"].append(self.regressor(torch.cat([embedding, fed_back], 1)))
        return {name: torch.stack(values, 1) for name, values in found.items() if values}

    def _understood(
        self, levels: list[Tensor], before: Tensor | None, motion: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Features for the pose, semantic features for the next image, and class scores."""
        return levels[-1], None, None

    def extra_terms(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of the odometry stream and of consistency, weighed by what is learned with them."""
        if "motion" not in outputs:
            return {}
        truth, predicted = self._in_metres(batch["pose"]), self._in_metres(outputs["pose"].float())
        motion = relative_motion(truth[:, :-1], truth[:, 1:])
        losses = {
            "odometry": motion_error(outputs["motion"].float(), motion),
            "consistency": consistency(predicted, motion),
        }
        return {
            name: (torch.exp(-self.balance[name]) * L + self.balance[name] / world()).sum()
            for name, L in losses.items()
        }

    def _in_metres(self, pose: Tensor) -> Tensor:
        """Poses (..., 6) with translations in metres, from the mean of the training's positions."""
        return torch.cat([pose[..., :3] * self.scale, pose[..., 3:]], -1)

    def load_imagenet(self, path: str | Path) -> None:
        self.encoder.load_imagenet(path)


class VLocNetPlusPlus(VLocNet):
    """VLocNet with a semantic stream whose features are warped along, and fused into the pose stream.

    Args:
        num_classes: of the labels.
    """

    tasks = ("pose", "segmentation")

    def __init__(
        self, encoder: str = "resnet34", feature: int = 2048, dropout: float = 0.5, num_classes: int = 10
    ) -> None:
        super().__init__(encoder, feature, dropout)
        channels = self.encoder.level_channels
        self.num_classes = num_classes
        self.semantic = kaiming(nn.Conv2d(channels[-2], SEMANTIC, 1))
        self.along = WeightedFusion(SEMANTIC, SEMANTIC, SEMANTIC)
        self.back = kaiming(nn.Conv2d(SEMANTIC, channels[-2], 1))
        self.into_pose = WeightedFusion(channels[-1], SEMANTIC, channels[-1])
        self.decoder = SkipDecoder(channels, self.encoder.level_strides, num_classes)

    def _understood(
        self, levels: list[Tensor], before: Tensor | None, motion: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        own = F.relu(self.semantic(levels[-2]))
        # without an image before, its own features stand in: fusion sees what no motion would show
        fused = self.along(own, own if before is None or motion is None else warped(before, motion))
        scores = self.decoder([*levels[:-2], levels[-2] + self.back(fused), levels[-1]], size)
        coarse = F.adaptive_avg_pool2d(fused, (levels[-1].shape[-2], levels[-1].shape[-1]))
        return self.into_pose(levels[-1], coarse), own, scores
