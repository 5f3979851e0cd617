"""How far a reconstructed surface is from the true one.

Protocol: both surfaces are brought to one point a 2 cm voxel, so that neither counts where it happens to be dense.
Accuracy is the mean distance of the reconstruction's points to the reference, completeness that of the reference's
points to the reconstruction; precision and recall are the fractions of them within a threshold, the F-score their
harmonic mean (Knapitsch et al., Tanks and Temples, 2017; Sun et al., NeuralRecon, 2021). A sample of one side is
held against the whole of the other, so that the voxels do not blur the distances.

Visible-region rule, where the camera's views are known: a reference point counts if a view shows it between the near
and the far limit; a reconstructed point counts if it projects, in at least one view, to a pixel where the reference
lies between these limits, whether the point is before, on or behind it. What no view could have measured is judged
on neither side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import PARALLEL, Pinhole, pixel_of, transformed
from semslam.metrics.nearest import Surface
from semslam.metrics.voxels import VOXEL, Blocks, in_blocks, one_a_voxel, voxel_means

THRESHOLDS = (0.02, 0.05, 0.10)  # metres
ROOM = (0.3, 5.0)  # metres; the nearest and the farthest depth that counts, what sensors of rooms measure
_FINE = 0.005  # metres; how densely points stand for a surface that is not a mesh


@dataclass(frozen=True)
class SurfaceScores:
    """Metres, and fractions 0 to 1; accuracies are NaN where there is nothing to measure."""

    protocol: str
    accuracy_m: float  # mean distance of the reconstruction to the reference
    accuracy_median_m: float
    completeness_m: float  # mean distance of the reference to the reconstruction
    completeness_median_m: float
    thresholds_m: tuple[float, ...]
    precision: tuple[float, ...]  # a threshold
    recall: tuple[float, ...]
    fscore: tuple[float, ...]
    points: int  # of the reconstruction that were judged

    def at(self, threshold_m: float) -> tuple[float, float, float]:
        """(precision, recall, F-score) at one of the thresholds."""
        k = self.thresholds_m.index(threshold_m)
        return self.precision[k], self.recall[k], self.fscore[k]


@dataclass(frozen=True, eq=False)
class ReferenceView:
    """The reference as a camera sees it."""

    camera: Camera
    T_world_camera: np.ndarray  # (4, 4) float64
    depth: np.ndarray  # (H, W) float32 metres, 0 = none or outside the limits


@dataclass(frozen=True, eq=False)
class Reference:
    """The surface that a reconstruction is held against."""

    name: str
    points: np.ndarray  # (M, 3) float32 world, what should be found, about one a 2 cm voxel
    distance: Callable[[np.ndarray], np.ndarray]  # (N, 3) world points -> (N,) metres to the surface
    views: tuple[ReferenceView, ...] = ()  # none: everything counts

    def judges(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: whether a view says anything about the place of each point (N, 3)."""
        if not self.views:
            return np.ones(len(points), bool)
        judged = np.zeros(len(points), bool)
        for view in self.views:
            T_camera_world = poses.inverse(np.asarray(view.T_world_camera, np.float64))
            _mark_judged(points, T_camera_world, Pinhole.of(view.camera), view.depth, judged)
        return judged

    @property
    def protocol(self) -> str:
        """What was compared, in words."""
        rule = f"visible region of {len(self.views)} views" if self.views else "whole surfaces, no visible-region rule"
        return f"against {self.name}; {100 * VOXEL:g} cm voxels; {rule}"


@nb.njit(**PARALLEL)
def _mark_judged(points, T_camera_world, camera, depth, judged):
    """Mark the world points (N, 3) at whose pixel a view shows the reference."""
    for i in nb.prange(len(points)):
        if judged[i]:
            continue
        x, y, z = transformed(T_camera_world, points[i, 0], points[i, 1], points[i, 2])
        if z <= 1e-3:
            continue
        u, v = pixel_of(camera, x, y, z)
        judged[i] = u >= 0 and depth[v, u] > 0


def points_reference(points: np.ndarray, name: str = "points") -> Reference:
    """A reference that is a cloud of points (N, 3), a map's surfels for example."""
    if len(points) == 0:
        raise ValueError(f"{name}: the reference has no points")
    return Reference(name, voxel_means(points), Surface(points).distance)


def mesh_reference(
    vertices: np.ndarray,
    triangles: np.ndarray,
    name: str = "mesh",
    camera: Camera | None = None,
    T_world_camera: Iterable[np.ndarray] = (),
    limits: tuple[float, float] = ROOM,
) -> Reference:
    """A reference that is a mesh: vertices (N, 3), triangles (M, 3), distances exact.

    camera, T_world_camera: the views that decide what counts, at depths between the limits; none: all of it.
    """
    if len(triangles) == 0:
        raise ValueError(f"{name}: the reference mesh has no triangles")
    if triangles.dtype.kind not in "iu" or not 0 <= triangles.min() <= triangles.max() < len(vertices):
        raise ValueError(f"{name}: triangles are no whole numbers from 0 to {len(vertices) - 1}, of its vertices")
    surface, (near, far), views = Surface(vertices, triangles), limits, []
    if camera is not None:
        for T in T_world_camera:
            depth = surface.depth(camera, T)
            views.append(ReferenceView(camera, T, np.where((depth > near) & (depth < far), depth, np.float32(0))))
    points = _seen_points(views) if views else voxel_means(sampled(vertices, triangles))
    return Reference(name, points, surface.distance, tuple(views))


def depth_reference(
    frames: Iterable[tuple[Camera, np.ndarray, np.ndarray]],
    name: str = "back-projected depth",
    limits: tuple[float, float] = ROOM,
) -> Reference:
    """A reference made of noise-free depth: (camera, depth (H, W) metres, T_world_camera) of each frame.
    What lies between the limits counts.

    Its points are kept one a 5 mm voxel, which bounds what the distances can resolve to 2 to 3 mm.
    """
    near, far = limits
    views = [
        ReferenceView(camera, T, np.where((depth > near) & (depth < far), depth, 0).astype(np.float32))
        for camera, depth, T in frames
    ]
    points = _seen_points(views, _FINE)
    if len(points) == 0:
        raise ValueError(f"{name}: no frame has a pose and depth between {near} and {far} m")
    return Reference(name, voxel_means(points), Surface(points).distance, tuple(views))


def sampled(vertices: np.ndarray, triangles: np.ndarray, spacing: float = _FINE) -> np.ndarray:
    """(N, 3) points spread evenly over a mesh, about `spacing` metres apart; the same every time."""
    corners = np.asarray(vertices, np.float64)[np.asarray(triangles, np.int64)]
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    ends = np.cumsum(areas)
    if len(ends) == 0 or ends[-1] <= 0:
        return np.zeros((0, 3), np.float32)
    count = int(min(max(ends[-1] / spacing**2, 1), 2e7))
    rng = np.random.default_rng(0)
    chosen = np.searchsorted(ends, (np.arange(count) + rng.random(count)) * (ends[-1] / count))
    corners = corners[np.minimum(chosen, len(ends) - 1)]
    a, b = rng.random((2, count, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    return (corners[:, 0] + a * (corners[:, 1] - corners[:, 0]) + b * (corners[:, 2] - corners[:, 0])).astype(
        np.float32
    )


def surface_scores(points: np.ndarray | Blocks, reference: Reference) -> SurfaceScores:
    """The figures of a reconstruction's points (N, 3) in the reference's world frame.

    An empty reconstruction has precision, recall and F-score 0.
    """
    samples = voxel_means(points)
    judged = reference.judges(samples)
    to_reference = reference.distance(samples[judged]).astype(np.float64)
    to_points = np.full(len(reference.points), np.inf)
    # one for all blocks, on which distances do not depend so
    middle = np.median(reference.points, axis=0).astype(np.float64)
    for block in in_blocks(points)():
        np.minimum(to_points, Surface(block, middle=middle).distance(reference.points), out=to_points)
    precision = [_share(to_reference < t) for t in THRESHOLDS]
    recall = [_share(to_points < t) for t in THRESHOLDS]
    return SurfaceScores(
        protocol=reference.protocol,
        accuracy_m=_finite(np.mean, to_reference),
        accuracy_median_m=_finite(np.median, to_reference),
        completeness_m=_finite(np.mean, to_points),
        completeness_median_m=_finite(np.median, to_points),
        thresholds_m=THRESHOLDS,
        precision=tuple(precision),
        recall=tuple(recall),
        fscore=tuple(2 * p * r / (p + r) if p + r > 0 else 0.0 for p, r in zip(precision, recall)),
        points=int(judged.sum()),
    )


def surface_errors(points: np.ndarray | Blocks, reference: Reference) -> np.ndarray:
    """(N,) float32 metres from each point (N, 3) to the reference, NaN where the reference says nothing."""
    found = [np.empty(0, np.float32)]
    for block in in_blocks(points)():
        errors, judged = np.full(len(block), np.nan, np.float32), reference.judges(block)
        errors[judged] = reference.distance(block[judged])
        found.append(errors)
    return np.concatenate(found)


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def _finite(figure: Callable[[np.ndarray], Any], distances: np.ndarray) -> float:
    value = float(figure(distances)) if len(distances) else float("nan")
    return value if np.isfinite(value) else float("nan")


def _seen_points(views: Iterable[ReferenceView], voxel: float = VOXEL) -> np.ndarray:
    """(N, 3) world points of the views' depth, one a voxel. Gathered in batches, so that memory stays bounded."""
    gathered, fresh = np.zeros((0, 3), np.float32), []
    for view in views:
        local = view.camera.backproject(view.depth)[view.depth > 0].astype(np.float64)
        fresh.append(poses.transform(view.T_world_camera, local).astype(np.float32))
        if sum(map(len, fresh)) > 2_000_000:
            gathered, fresh = one_a_voxel(np.concatenate([gathered, *fresh]), min(voxel, _FINE)), []
    return voxel_means(one_a_voxel(np.concatenate([gathered, *fresh]), min(voxel, _FINE)), voxel)
