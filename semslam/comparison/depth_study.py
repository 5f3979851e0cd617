"""Depth in single frames against the sensor's: how wrong it is, where, and how much of it one scale per frame explains.

Three kinds of depth are held against the truth in the same frames: the network's, the network's after the best scale
and shift of each frame (no correction of that kind can do better: the network's own limit), and maps rendered back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.depth.alignment import ScaleShift
from semslam.frame import UNLABELLED, evenly_spread
from semslam.labels import LABEL_SETS, remap_labels, remap_probabilities
from semslam.metrics.depth import FIGURES, PROTOCOLS, DepthErrors, DepthScores
from semslam.metrics.surface import Reference
from semslam.perception import Network
from semslam.rendering.splatting import render
from sequences import Sequence as Recording

FRAMES = 40  # of a sequence that are measured, evenly spread
DISTANCES = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, np.inf)  # metres; edges of the bins
EDGE_STEP, EDGE_WIDTH = 0.05, 8  # relative jump of true depth; pixels at 640 columns on either side
NETWORK, SCALED, SHIFTED = "network", "network, best scale", "network, best scale and shift"


@dataclass(frozen=True, eq=False)
class StudiedFrame:
    """One frame, with the true depth and the classes that errors are sorted by."""

    index: int
    color: np.ndarray  # (H, W, 3) uint8 RGB
    camera: Camera
    truth: np.ndarray  # (H, W) float32 metres, 0 = none
    labels: np.ndarray  # (H, W) uint8 of NYU-13, 255 = unlabelled
    T_world_camera: np.ndarray | None  # the data set's


@dataclass
class DepthSource:
    """The errors of one kind of depth: over all pixels, frame by frame, by distance, by class and near edges."""

    protocols: dict[str, DepthErrors] = field(default_factory=lambda: {k: DepthErrors(p) for k, p in PROTOCOLS.items()})
    frames: dict[int, DepthScores] = field(default_factory=dict)
    distances: list[DepthErrors] = field(default_factory=lambda: [DepthErrors() for _ in DISTANCES[1:]])
    classes: list[DepthErrors] = field(default_factory=lambda: [DepthErrors() for _ in LABEL_SETS["nyu13"].classes])
    near_edges: DepthErrors = field(default_factory=DepthErrors)
    elsewhere: DepthErrors = field(default_factory=DepthErrors)
    to_surface: list[np.ndarray] = field(default_factory=list)  # metres to the reference surface, a sample of pixels
    shown: int = 0  # pixels with true depth where this source has depth too
    measured: int = 0  # pixels with true depth

    def add(self, frame: StudiedFrame, depth: np.ndarray, reference: Reference | None = None) -> None:
        """Count a frame's depth (H, W) metres; where it is 0 or not finite nothing is said, and `shown` tells."""
        there = np.isfinite(depth) & (depth > 0)
        truth = np.where(there, frame.truth, np.float32(0))
        depth = np.where(there, depth, np.float32(1))
        self.measured += int((frame.truth > 0).sum())
        self.shown += int((truth > 0).sum())
        for errors in self.protocols.values():
            errors.add(depth, truth)
        alone = DepthErrors()
        alone.add(depth, truth)
        self.frames[frame.index] = alone.pooled()
        edges = near_edges(frame.truth)
        _add_where(self.near_edges, edges, depth, truth)
        _add_where(self.elsewhere, ~edges, depth, truth)
        for errors, low, high in zip(self.distances, DISTANCES[:-1], DISTANCES[1:]):
            _add_where(errors, (truth >= low) & (truth < high), depth, truth)
        for label, errors in enumerate(self.classes):
            _add_where(errors, frame.labels == label, depth, truth)
        if reference is not None and frame.T_world_camera is not None:
            T, valid = frame.T_world_camera, truth > 0
            points = frame.camera.backproject(np.where(valid, depth, 0).astype(np.float32))[valid][::29]
            self.to_surface.append(reference.distance(poses.transform(T, points).astype(np.float32)))

    def figures(self) -> dict[str, Any]:
        """Every figure of `semslam score`, by its name there, with the share of pixels that have depth at all."""
        found: dict[str, Any] = {"frames": len(self.frames), "shown": self.shown / max(self.measured, 1)}
        for suffix, errors in self.protocols.items():
            for pooling, scores in (("", errors.pooled()), ("_mean_of_images", errors.mean_of_images())):
                found |= {f"{name}{suffix}{pooling}": getattr(scores, name) for name in FIGURES}
        for name, errors in (("near_edges", self.near_edges), ("elsewhere", self.elsewhere)):
            found |= {f"{figure}_{name}": getattr(errors.pooled(), figure) for figure in ("rmse", "abs_rel")}
        if self.to_surface:
            pooled = np.concatenate(self.to_surface)
            found |= {"surface_m": float(pooled.mean()), "surface_median_m": float(np.median(pooled))}
        return found


def _add_where(errors: DepthErrors, chosen: np.ndarray, depth: np.ndarray, truth: np.ndarray) -> None:
    if chosen.any():  # as one row of pixels: the whole-frame protocol does not care
        errors.add(depth[chosen][None], truth[chosen][None])


def near_edges(truth: np.ndarray) -> np.ndarray:
    """(H, W) bool: within EDGE_WIDTH pixels (at 640 columns) of a jump of the true depth by more than EDGE_STEP.

    Pixels without depth are no edge by themselves: beside them it is not known.
    """
    far = np.where(truth > 0, truth, np.float32(0))
    near = np.where(truth > 0, truth, np.float32(1e6))
    square = np.ones((3, 3), np.uint8)
    jump = (cv2.dilate(far, square) > (1 + EDGE_STEP) * cv2.erode(near, square)) & (truth > 0)
    width = max(1, round(EDGE_WIDTH * truth.shape[1] / 640))
    grown = cv2.dilate(jump.astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    return grown.astype(bool)


def best_scale(depth: np.ndarray, truth: np.ndarray) -> ScaleShift:
    """The median ratio of true to predicted depth of one frame (H, W)."""
    valid = (truth > 0) & (depth > 0)
    return ScaleShift(float(np.median(truth[valid] / depth[valid]))) if valid.any() else ScaleShift()


def best_scale_shift(depth: np.ndarray, truth: np.ndarray) -> ScaleShift:
    """The scale and shift of one frame (H, W) with the least mean |error| / truth (reweighted least squares)."""
    valid = (truth > 0) & (depth > 0)
    if valid.sum() < 3:
        return ScaleShift()
    p, g = depth[valid].astype(np.float64), truth[valid].astype(np.float64)
    x, y = p / g, 1 / g  # scale * x + shift * y should be 1
    found = (float(np.median(g / p)), 0.0)
    for _ in range(15):
        weight = 1 / np.maximum(np.abs(found[0] * x + found[1] * y - 1), 1e-3)
        wx, wy = weight * x, weight * y
        xx, xy, yy, x1, y1 = (float(np.sum(v)) for v in (wx * x, wx * y, wy * y, wx, wy))
        determinant = xx * yy - xy * xy
        if determinant <= 1e-9 * xx * yy:  # one distance alone: its scale says all
            break
        found = ((yy * x1 - xy * y1) / determinant, (xx * y1 - xy * x1) / determinant)
    return ScaleShift(*found)


class DepthStudy:
    """The network's depth in some frames of a sequence, and what else is held against the same frames."""

    def __init__(self, sequence: Recording, network: Network, reference: Reference | None = None) -> None:
        """network: of NYU-13 or NYU-40. reference: of the surface in the world of the data set's poses, if known."""
        self.sequence = sequence
        self.sources: dict[str, DepthSource] = {name: DepthSource() for name in (NETWORK, SCALED, SHIFTED)}
        self.scales: dict[int, float] = {}  # by frame, true over predicted depth
        self.by_true_classes = sequence.has_labels
        self.indices = studied_indices(sequence, FRAMES)
        for index in self.indices:
            found = self.frame(index, network)
            if found is None:
                continue
            frame, depth = found
            self.sources[NETWORK].add(frame, depth, reference)
            scale = best_scale(depth, frame.truth)
            self.scales[index] = scale.scale
            self.sources[SCALED].add(frame, scale(depth).astype(np.float32), reference)
            shifted = best_scale_shift(depth, frame.truth)(depth).astype(np.float32)
            self.sources[SHIFTED].add(frame, shifted, reference)

    def frame(self, index: int, network: Network) -> tuple[StudiedFrame, np.ndarray] | None:
        """A frame with its truth, and the network's depth (H, W) metres of it, at the size of the true depth.

        None where the frame cannot be read or has no true depth.
        """
        frame = self.sequence.try_read(index, labels=self.by_true_classes)
        if frame is None or frame.depth is None:
            return None
        size = (frame.depth.shape[1], frame.depth.shape[0])
        prediction = network(frame.color, size, frame.camera.fx)
        if self.sequence.label_set is not None and frame.labels is not None:
            labels = remap_labels(frame.labels, self.sequence.label_set, "nyu13")
        else:
            called = prediction.class_probabilities
            called = remap_probabilities(called, "nyu40", "nyu13") if called.shape[-1] == 40 else called
            labels = called.argmax(axis=-1).astype(np.uint8)
        studied = StudiedFrame(index, frame.color, frame.camera, frame.depth, labels, frame.T_world_camera)
        return studied, np.array(prediction.depth)

    def add_map(
        self, name: str, cloud: SurfelCloud, pose_of: dict[int, np.ndarray], limits: tuple[float, float]
    ) -> None:
        """Hold a map rendered back against the same frames, where the true depth is in the map's range.

        pose_of: T_world_camera of each frame in the map's world.
        """
        source = self.sources.setdefault(name, DepthSource())
        for index in self.indices:
            frame = self.sequence.try_read(index, labels=self.by_true_classes) if index in pose_of else None
            if frame is None or frame.depth is None:
                continue
            in_range = (frame.depth > limits[0]) & (frame.depth < limits[1])
            truth = np.where(in_range, frame.depth, np.float32(0))
            labels = np.full(truth.shape, UNLABELLED, np.uint8)
            if self.sequence.label_set is not None and frame.labels is not None:
                labels = remap_labels(frame.labels, self.sequence.label_set, "nyu13")
            studied = StudiedFrame(index, frame.color, frame.camera, truth, labels, None)
            source.add(studied, rendered_depth(cloud, frame.camera, pose_of[index]))

    def median_and_worst(self) -> tuple[int, int]:
        """The frames whose RMSE of the network's depth is the median one and the largest."""
        frames = self.sources[NETWORK].frames
        order = sorted((i for i in frames if np.isfinite(frames[i].rmse)), key=lambda i: frames[i].rmse)
        if not order:
            raise ValueError(f"{self.sequence.name}: no frame has true depth to compare with")
        return order[(len(order) - 1) // 2], order[-1]


def rendered_depth(cloud: SurfelCloud, camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
    """(H, W) float32 metres of a map seen from a pose, 0 where it shows nothing."""
    depth = render(cloud, camera, T_world_camera, cull_back=False).depth
    return np.where(np.isfinite(depth), depth, np.float32(0))


def studied_indices(sequence: Recording, count: int) -> list[int]:
    """Frames that are measured: evenly spread, labelled ones only where some are labelled."""
    return evenly_spread(sequence.labelled_indices or list(range(len(sequence))), count)
