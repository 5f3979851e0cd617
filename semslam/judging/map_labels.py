"""How well a map's labels fit the truth: rendered back into the frames, against the network alone, and in 3-D.

In 2-D the map is rendered from each frame's pose and scored like a network: one confusion matrix over the frames, void
and a band at the truth's boundaries ignored. A pixel where the map has a hole counts as missed; the variants named
"covered" score the network and the map on the pixels that the map covers alone. In 3-D each surfel's true class is
the majority vote of the frames that see it, and surfels are counted one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numba as nb
import numpy as np

from semslam import poses
from semslam.cloud import SurfelCloud, most_probable
from semslam.compiled import PARALLEL, Pinhole, Pose, f32, pixel_of
from semslam.frame import UNLABELLED
from semslam.metrics.segmentation import Calibration, ConfusionMatrix, boundary_band
from semslam.rendering.splatting import Rendering

BAND = 3  # pixels at the truth's boundaries: derived and hand-made labels are no better than that


def rendered_probabilities(cloud: SurfelCloud, rendering: Rendering) -> np.ndarray:
    """(H, W, C) float32 class probabilities of the map seen in a rendering; all zero where it shows nothing."""
    if cloud.class_probabilities is None:
        raise ValueError("the map has no class probabilities")
    image = np.zeros((*rendering.index.shape, cloud.class_probabilities.shape[1]), np.float32)
    seen = rendering.index >= 0
    image[seen] = cloud.class_probabilities[rendering.index[seen]]
    return image


@dataclass
class MapLabelScores:
    """Confusions and calibrations of one label set, gathered frame by frame."""

    num_classes: int
    single: ConfusionMatrix = field(init=False)  # the network on single frames
    map: ConfusionMatrix = field(init=False)  # the map rendered back into them
    single_covered: ConfusionMatrix = field(init=False)  # both, where the map shows a labelled surfel
    map_covered: ConfusionMatrix = field(init=False)
    surfels: ConfusionMatrix = field(init=False)
    single_calibration: Calibration = field(default_factory=Calibration)
    map_calibration: Calibration = field(default_factory=Calibration)
    frames: int = 0

    def __post_init__(self) -> None:
        for name in ("single", "map", "single_covered", "map_covered", "surfels"):
            setattr(self, name, ConfusionMatrix(self.num_classes))

    def add(self, truth: np.ndarray, on_map: np.ndarray, alone: np.ndarray | None = None) -> None:
        """Count one frame: true ids (H, W), probabilities (H, W, C) of the map and of the network alone."""
        truth = np.where(boundary_band(truth, BAND), np.uint8(UNLABELLED), truth)
        self.frames += 1
        called = most_probable(on_map)
        covered = np.where(called == UNLABELLED, np.uint8(UNLABELLED), truth)
        self.map.add(called, truth)
        self.map_covered.add(called, covered)
        self.map_calibration.add(on_map, truth)
        if alone is not None:
            labels = most_probable(alone)
            self.single.add(labels, truth)
            self.single_covered.add(labels, covered)
            self.single_calibration.add(alone, truth)

    @property
    def protocol(self) -> str:
        """How the figures in 2-D came about."""
        return (
            f"one confusion matrix over {self.frames} labelled frames, void and a band of {BAND} pixels at "
            f"boundaries ignored, holes of the map count as missed"
        )


class SurfelVotes:
    """The true class of each surfel of a map by the majority of the frames that see it.

    A frame sees a surfel that projects into it and lies within 2 cm and 2 % of the depth of the nearest surface of the
    map there.
    """

    def __init__(self, cloud: SurfelCloud, num_classes: int) -> None:
        self._positions = np.ascontiguousarray(cloud.positions, np.float32)
        self._votes = np.zeros((len(cloud), num_classes), np.uint16)

    def add(self, rendering: Rendering, truth: np.ndarray) -> None:
        """Count a frame: the map rendered from its pose, surfaces seen from behind too, and its true ids (H, W)."""
        truth = np.where(boundary_band(truth, BAND), np.uint8(UNLABELLED), truth)
        T_camera_world = Pose.of(poses.inverse(np.asarray(rendering.T_world_camera, np.float64)))
        _vote(self._positions, T_camera_world, Pinhole.of(rendering.camera), rendering.depth, truth, self._votes)

    def labels(self) -> np.ndarray:
        """(N,) uint8, 255 where no frame says anything."""
        labels = self._votes.argmax(axis=1).astype(np.uint8)
        labels[self._votes.max(axis=1, initial=0) == 0] = UNLABELLED
        return labels


@nb.njit(**PARALLEL)
def _vote(positions, T_camera_world, camera, nearest, truth, votes):
    R, t = T_camera_world
    for i in nb.prange(len(positions)):
        px, py, pz = positions[i, 0], positions[i, 1], positions[i, 2]
        x = R[0, 0] * px + R[0, 1] * py + R[0, 2] * pz + t[0]
        y = R[1, 0] * px + R[1, 1] * py + R[1, 2] * pz + t[1]
        z = R[2, 0] * px + R[2, 1] * py + R[2, 2] * pz + t[2]
        if z <= f32(0.05):
            continue
        u, v = pixel_of(camera, x, y, z)
        if u >= 0 and z - nearest[v, u] < f32(0.02) + f32(0.02) * z and truth[v, u] < votes.shape[1]:
            votes[i, truth[v, u]] += 1


def pooled_and_mean(matrices: Mapping[str, ConfusionMatrix]) -> tuple[float, float]:
    """mIoU over several scenes: of all counts pooled into one matrix, and the mean of the scenes' own."""
    if not matrices:
        return float("nan"), float("nan")
    first = next(iter(matrices.values()))
    pooled = ConfusionMatrix(first.num_classes)
    for matrix in matrices.values():
        pooled.counts += matrix.counts
    return pooled.scores().miou, float(np.mean([matrix.scores().miou for matrix in matrices.values()]))
