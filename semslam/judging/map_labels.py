"""How well a map's labels fit the truth: rendered back into the frames, against the network alone, and in 3-D.

In 2-D the map is rendered from each frame's pose and scored like a network: one confusion matrix over the frames, void
and a band at the truth's boundaries ignored. A pixel where the map has a hole counts as missed; the variants named
"covered" score the network and the map on the pixels that the map covers alone. In 3-D each surfel's true class is
the majority vote of the frames that see it, and surfels are counted one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import SurfelCloud, most_probable
from semslam.frame import UNLABELLED
from semslam.metrics.segmentation import Calibration, ConfusionMatrix, boundary_band
from semslam.rendering.splatting import Rendering, render

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


def surfel_truth(
    cloud: SurfelCloud,
    frames: Sequence[tuple[Camera, np.ndarray, Sequence[np.ndarray]]],
    num_classes: Sequence[int],
) -> list[np.ndarray]:
    """(N,) uint8 true class of each surfel by the majority of frames that see it, 255 where none says anything.

    One array for each label set, of `num_classes`. frames: (camera, T_world_camera, true ids (H, W) in each set). A
    frame sees a surfel that projects into it and lies within 2 cm and 2 % of the depth of the nearest
    surface of the map there.
    """
    votes = [np.zeros((len(cloud), count), np.uint16) for count in num_classes]
    for camera, T_world_camera, truths in frames:
        nearest = render(cloud, camera, T_world_camera, cull_back=False).depth
        T = poses.inverse(np.asarray(T_world_camera, np.float64)).astype(np.float32)
        local = poses.transform(T, cloud.positions)
        ahead = np.flatnonzero(local[:, 2] > 0.05)
        pixels = np.floor(camera.project(local[ahead]) + 0.5)
        inside = np.all((pixels >= 0) & (pixels < (camera.width, camera.height)), axis=1)
        chosen, (u, v) = ahead[inside], pixels[inside].astype(np.int32).T
        z = local[chosen, 2]
        seen = z - nearest[v, u] < 0.02 + 0.02 * z
        chosen, u, v = chosen[seen], u[seen], v[seen]
        for of_set, truth in zip(votes, truths, strict=True):
            truth = np.where(boundary_band(truth, BAND), np.uint8(UNLABELLED), truth)
            votes_for = truth[v, u]
            valid = votes_for < of_set.shape[1]
            of_set[chosen[valid], votes_for[valid]] += 1
    found = [of_set.argmax(axis=1).astype(np.uint8) for of_set in votes]
    for labels, of_set in zip(found, votes, strict=True):
        labels[of_set.max(axis=1, initial=0) == 0] = UNLABELLED
    return found


def pooled_and_mean(matrices: Mapping[str, ConfusionMatrix]) -> tuple[float, float]:
    """mIoU over several scenes: of all counts pooled into one matrix, and the mean of the scenes' own."""
    if not matrices:
        return float("nan"), float("nan")
    first = next(iter(matrices.values()))
    pooled = ConfusionMatrix(first.num_classes)
    for matrix in matrices.values():
        pooled.counts += matrix.counts
    return pooled.scores().miou, float(np.mean([matrix.scores().miou for matrix in matrices.values()]))
