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
from semslam.cloud import most_probable
from semslam.compiled import PARALLEL, SERIAL, Pinhole, Pose, f32, pixel_of
from semslam.frame import UNLABELLED
from semslam.metrics.segmentation import Calibration, ConfusionMatrix, boundary_band
from semslam.rendering.splatting import Rendering

BAND = 3 / 640  # of the width, at the truth's boundaries: derived and hand-made labels are no better than that


def without_band(truth: np.ndarray) -> np.ndarray:
    """True ids (H, W) uint8, unlabelled at boundaries, as far from them as labels are not to be believed."""
    width = max(1, round(BAND * truth.shape[1]))
    return np.where(boundary_band(truth, width), np.uint8(UNLABELLED), truth)


@dataclass(frozen=True, eq=False)
class SurfelClasses:
    """What a map says of some of its surfels."""

    probabilities: np.ndarray  # (N, C) float32, all zero where a surfel was never labelled
    called: np.ndarray = field(init=False)  # (N,) uint8 the likeliest class, 255 where there is none
    bins: np.ndarray = field(init=False)  # (N,) int64 of the largest probability, see `Calibration`

    def __post_init__(self) -> None:
        object.__setattr__(self, "called", most_probable(self.probabilities))
        object.__setattr__(self, "bins", Calibration().bins(self.probabilities.max(axis=1, initial=0)))


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

    def add(
        self, truth: np.ndarray, index: np.ndarray, surfels: SurfelClasses, alone: np.ndarray | None = None
    ) -> None:
        """Count one frame: true ids (H, W), the surfel (H, W) that the map shows in each pixel, -1 for none, and the
        probabilities (H, W, C) of the network alone."""
        truth = without_band(truth)
        self.frames += 1
        counts, calibration = np.zeros_like(self.map.counts), Calibration()
        calibration.log_likelihood_sum = _count(
            (truth, index), surfels.called, surfels.bins, surfels.probabilities,
            counts, calibration.pixels, calibration.hits, calibration.confidence_sum,
        )  # fmt: skip
        self.map_calibration += calibration
        self.map.counts += counts
        counts[:, -1] = 0  # what is not covered is not missed
        self.map_covered.counts += counts
        if alone is not None:
            labels, none = most_probable(alone), np.uint8(UNLABELLED)
            called = np.full(index.shape, none)
            called[index >= 0] = surfels.called[index[index >= 0]]
            self.single.add(labels, truth)
            self.single_covered.add(labels, np.where(called == none, none, truth))
            self.single_calibration.add(alone, truth)

    @property
    def protocol(self) -> str:
        """How the figures in 2-D came about."""
        return (
            f"one confusion matrix over {self.frames} labelled frames, void and a band at boundaries of "
            f"{640 * BAND:g} pixels of 640 in width ignored, holes of the map count as missed"
        )


class SurfelVotes:
    """The true class of any surfel of a map by the majority of the frames that see it.

    A frame sees a surfel that projects into it and lies within 2 cm and 2 % of the depth of the nearest surface of the
    map there.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._frames: list[tuple[Pose, Pinhole, np.ndarray, np.ndarray]] = []

    def add(self, rendering: Rendering, truth: np.ndarray) -> None:
        """Count a frame: the map rendered from its pose, surfaces seen from behind too, and its true ids (H, W)."""
        truth = without_band(truth)
        T_camera_world = Pose.of(poses.inverse(np.asarray(rendering.T_world_camera, np.float64)))
        self._frames.append((T_camera_world, Pinhole.of(rendering.camera), rendering.depth, truth))

    def labels(self, positions: np.ndarray) -> np.ndarray:
        """(N,) uint8 of surfels at world positions (N, 3), 255 where no frame says anything."""
        positions = np.ascontiguousarray(positions, np.float32)
        votes = np.zeros((len(positions), self._num_classes), np.uint16)
        for frame in self._frames:
            _vote(positions, *frame, votes)
        labels = votes.argmax(axis=1).astype(np.uint8)
        labels[votes.max(axis=1, initial=0) == 0] = UNLABELLED
        return labels


@nb.njit(**SERIAL)
def _count(images, called, bins, probabilities, counts, pixels, hits, confidence_sum):
    """Count the pixels of a frame as `ConfusionMatrix` and `Calibration` do; the sum of the logarithms of the truth's
    probabilities. images: true ids and surfels, (H, W) each."""
    truth, index = images
    classes = probabilities.shape[1]
    log_likelihood = 0.0
    for v in range(truth.shape[0]):
        for u in range(truth.shape[1]):
            t, i = truth[v, u], index[v, u]
            if t >= classes:
                continue
            if i < 0 or called[i] >= classes:
                counts[t, classes] += 1
                continue
            counts[t, called[i]] += 1
            pixels[bins[i]] += 1
            hits[bins[i]] += called[i] == t
            confidence_sum[bins[i]] += probabilities[i, called[i]]
            log_likelihood += np.log(np.float64(max(probabilities[i, t], f32(1e-12))))
    return log_likelihood


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
