"""A trained pose network as one object: an image in; the camera's pose out, with labels and depth where it has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from networks.joint import checkpoints
from networks.joint.network import normalised
from networks.pose.encoding import PoseStatistics, decoded
from networks.pose.geomapnet import converted, is_geomapnet
from networks.pose.networks import NETWORKS, PoseModel, open_network
from semslam.images.resizing import resized_ids


@dataclass(frozen=True, eq=False)
class PosePrediction:
    """What a pose network predicts of one image."""

    T_world_camera: np.ndarray | None  # (4, 4) float64; None of a network that has no pose
    labels: np.ndarray | None = None  # (H, W) uint8 class ids
    depth: np.ndarray | None = None  # (H, W) float32 metres


class PosePredictor:
    """A pose network with what its weights were saved with.

    Attributes:
        network: the module, in eval mode.
        statistics: that normalise its translations.
        metadata: of the weights file: `network`, `encoder`, `feature`, `num_classes`, `mean`, `std`, `input_size`
            (height, width), `class_set`, `recipe`, `figures`.
        needs_labels: whether an image must come with labels.
    """

    def __init__(self, network: PoseModel, metadata: Mapping[str, Any]) -> None:
        self.network = network.eval()
        self.metadata = dict(metadata)
        self.statistics = PoseStatistics(tuple(metadata["mean"]), tuple(metadata["std"]))
        self.input_size = (int(metadata["input_size"][0]), int(metadata["input_size"][1]))
        self.needs_labels = network.reads_labels

    @classmethod
    def load(cls, path: str | Path) -> PosePredictor:
        """The network of a weights file that `semslam train` or geomapnet's code wrote."""
        path = Path(path)
        weights = checkpoints.read(path)
        tensors, metadata = weights.tensors, weights.metadata
        if is_geomapnet(tensors):
            tensors, metadata = converted(tensors, path)
        lacking = [key for key in ("network", "encoder", "mean", "std", "input_size") if key not in metadata]
        if lacking:
            raise ValueError(f"{path}: not the weights of a pose network: its description lacks {', '.join(lacking)}")
        if metadata["network"] not in NETWORKS:
            raise ValueError(f"{path}: holds a {metadata['network']!r} network; known are {', '.join(NETWORKS)}")
        for name, most in (("feature", 65536), ("num_classes", 1000)):
            if name in metadata and not (isinstance(metadata[name], int) and 0 < metadata[name] <= most):
                raise ValueError(f"{path}: its {name} is {metadata[name]}; expected a whole number up to {most}")
        network = open_network(metadata["network"], metadata)
        checkpoints.fill(network, tensors, path)
        return cls(network, metadata)

    def __call__(self, image: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The pose T_world_camera (4, 4) float64 of an image (H, W, 3) uint8 RGB."""
        pose = self.predict(image, labels).T_world_camera
        if pose is None:
            raise ValueError(f"a {self.metadata['network']!r} network predicts no pose; choose the weights of another")
        return pose

    def predict(self, image: np.ndarray, labels: np.ndarray | None = None) -> PosePrediction:
        """Everything the network predicts of an image (H, W, 3) uint8 RGB, in the image's size.

        Args:
            labels: (h, w) uint8, 255 = none; for the networks that read them.
        """
        found = self.outputs(image, labels)
        size = (image.shape[0], image.shape[1])
        pose = labels_out = depth = None
        if "pose" in found:
            pose = decoded(found["pose"][0].double().numpy(), self.statistics)
        if "segmentation" in found:
            labels_out = _resized(found["segmentation"], size).argmax(0).to(torch.uint8).numpy()
        if "depth" in found:
            depth = _resized(found["depth"], size)[0].abs().numpy()
        return PosePrediction(pose, labels_out, depth)

    @torch.no_grad()
    def outputs(self, image: np.ndarray, labels: np.ndarray | None = None) -> dict[str, Tensor]:
        """The network's raw outputs of one image, see `networks.pose.networks`."""
        if self.needs_labels and labels is None:
            raise ValueError(
                f"a {self.metadata['network']!r} network reads labels beside the image; give them, or use other weights"
            )
        named = None
        if self.needs_labels and labels is not None:
            height, width = self.input_size
            labels = resized_ids(labels, (width, height))
            named = torch.from_numpy(labels)[None]
        return self.network.outputs(self.input(image), named)

    def input(self, image: np.ndarray) -> Tensor:
        """The network's input (1, 3, h, w) of an image (H, W, 3) uint8 RGB."""
        return normalised(torch.from_numpy(shrunk(image, self.input_size))[None])


def holds_pose_network(path: str | Path) -> bool:
    """Whether a weights file is a pose network's: one of ours by its description, geomapnet's by its tensors."""
    if Path(path).suffix == ".safetensors":
        return "network" in checkpoints.read_metadata(path)
    return is_geomapnet(checkpoints.read_tensors(path))


def shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W, 3) as (height, width, 3): pixels averaged where it becomes smaller, also in training."""
    height, width = size
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    smaller = width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def save(path: str | Path, network: PoseModel, metadata: Mapping[str, Any]) -> None:
    """Write weights in full precision with what `PosePredictor.load` needs, statistics included."""
    checkpoints.save(path, network, dict(metadata), half=False)


def _resized(output: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(output.float(), size=size, mode="bilinear", align_corners=False)[0]
