"""The insides of planes, which a map without a depth camera has only the edges of, after all frames are posed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.depth.layers import less_sure_layers
from semslam.depth.planes import even_patches, looks_like, planes_of
from semslam.frame import Frame, Observation
from semslam.images.resizing import resized_depth, resized_ids
from semslam.perception import Perception
from semslam.runs.finished.fill import AddedSurfels, fused_apart, measured_depth
from semslam.runs.run import Run

f32 = np.float32
LONGEST = 384  # pixels: longer side of the images that are searched, at most
STEP, TURN_DEG = 0.1, 12.0  # of the scene's depth, and degrees, between the frames that are searched
LEAST_FOUND = 0.01  # of the image, on planes: with less a frame is not worth a call of the network
WEIGHT = 0.5  # of a surfel, for each frame that has a plane there
AGREED = 3  # frames that have a plane where a surfel is; those of fewer go ...
MOST = 0.5  # ... and those of a smaller share of the frames that look there and to which the map shows nothing
FACING = 0.2  # cosine between a surfel's normal and the way to a camera that looks at it, at least


def complete_planes(run: Run) -> AddedSurfels:
    """Surfels inside planes whose edges the map of a finished run without a depth camera has; see `depth.planes`.

    They are fused in a map of their own, and kept where several frames agree, and most of those that look there, and
    the map has no surface close before or behind them.
    """
    config, posed = run.config.slam, run.progress.fused_poses()
    perceive = Perception(config.perception, run.sequence.camera, run.sequence.label_set, run.slam.network)

    def shown(camera: Camera, T: np.ndarray) -> np.ndarray:
        depth = measured_depth(run, camera, T)
        return np.where(np.isfinite(depth), depth, f32(0))

    completion = PlaneCompletion(perceive, run.slam.fusion.weights, shown, posed)
    cloud = fused_apart(run, config, perceive, completion, completion.has_moved)
    frames = np.rint(cloud.confidence / WEIGHT)
    near, far = run.slam.fusion.config.range
    looked = completion.looked_at(cloud.positions, cloud.normals, near, far)
    cloud = cloud.selected((frames >= AGREED) & (frames >= MOST * looked))
    cloud = cloud.selected(~_doubles(run, cloud))
    return AddedSurfels(cloud, {"surfels_of_planes": len(cloud), "planes_frames": completion.completed})


def _doubles(run: Run, cloud: SurfelCloud) -> np.ndarray:
    """(N,) bool: which surfels lie straight before or behind a surface of a run's map that faces the same way."""
    if len(cloud) == 0:
        return np.zeros(0, bool)
    surfels = run.slam.surfels
    living = [part[surfels.are_living(part)] for part in surfels.parts()]
    position = np.concatenate([surfels.position[part, :3] for part in living] + [cloud.positions])
    normal = np.concatenate([surfels.normal[part, :3] for part in living] + [cloud.normals])
    first = len(position) - len(cloud)
    sure = np.ones(len(position), f32)
    sure[first:] = 0
    return less_sure_layers(position, normal, sure, first)[first:]


class PlaneCompletion:
    """Perceives in frames the planes that a map has only the edges of; for the `perceive` of a `Slam`.

    That Slam's map holds what is completed, and nothing else: what the other map shows only says, with confidence 0,
    what is empty space.
    """

    def __init__(
        self,
        perception: Perception,
        weights: np.ndarray,
        shown: Callable[[Camera, np.ndarray], np.ndarray],
        T_world_camera: Mapping[int, np.ndarray],
    ) -> None:
        """perception: of depth by a network. weights: (H, W), with which fusion multiplies the confidence. shown:
        camera and T_world_camera (4, 4) -> depth (H, W) of the map, metres, 0 where it shows nothing. T_world_camera:
        (4, 4) of frames, by their indices."""
        self.perception, self.weights, self.shown, self.T_world_camera = perception, weights, shown, T_world_camera
        camera = perception.camera
        shrink = max(1, -(-max(camera.shape) // LONGEST))
        self.camera = camera.resized(camera.width // shrink, camera.height // shrink)
        self.completed = 0  # frames in which planes were found
        self._last: np.ndarray | None = None  # T_world_camera of the last one that was searched
        self._empty: list[tuple[np.ndarray, np.ndarray]] = []  # of all of them, and where the map shows nothing: bits
        self._scene = 2.0  # metres: median depth of it

    def has_moved(self, index: int) -> bool:
        """Whether the camera has moved enough since the last frame that was searched."""
        return self._last is None or poses.are_apart(
            self._last, self.T_world_camera[index], STEP * self._scene, TURN_DEG
        )

    def looked_at(self, positions: np.ndarray, normals: np.ndarray, near: float, far: float) -> np.ndarray:
        """(N,) int: from how many of the frames that were searched the map does not hide each surfel.

        positions, normals: (N, 3) of the surfels, world, metres. near, far: metres, of depth that is fused.
        """
        camera, count = self.camera, np.zeros(len(positions), int)
        for T_world_camera, bits in self._empty:
            empty = np.unpackbits(bits, count=camera.width * camera.height).reshape(camera.shape) > 0
            points = poses.transform(poses.inverse(T_world_camera), positions)
            away = T_world_camera[:3, 3] - positions
            faces = np.einsum("nk,nk->n", normals, away) > FACING * np.linalg.norm(away, axis=1)
            ahead = np.flatnonzero(faces & (points[:, 2] > near) & (points[:, 2] < far))
            u, v = np.rint(camera.project(points[ahead])).astype(int).T
            inside = (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
            ahead, u, v = ahead[inside], u[inside], v[inside]
            count[ahead[empty[v, u]]] += 1
        return count

    def __call__(self, frame: Frame) -> Observation:
        """The depth of the planes in a frame, with a confidence that fusion makes `WEIGHT`, and that of the map, with
        none."""
        whole, T = self.perception.camera, self.T_world_camera[frame.index]
        self._last = T
        color = self.perception.resized_color(frame)
        known = self.shown(self.camera, T)
        self._empty.append((T, np.packbits(known <= 0)))
        if (known > 0).any():
            self._scene = float(np.median(known[known > 0]))
        size = self.camera.width, self.camera.height
        patches = even_patches(cv2.resize(color, size, interpolation=cv2.INTER_AREA))
        planes = planes_of(known, patches, frame.index)
        if sum(int(plane.found.sum()) for plane in planes) < LEAST_FOUND * known.size:
            return Observation(frame, whole, color, np.zeros(whole.shape, f32))
        seen = self.perception.observe(frame, True, mirror_too=False)  # enough to tell a plane's shape
        predicted = resized_depth(seen.depth, size)
        depth = resized_ids(known, (whole.width, whole.height))
        filled = np.zeros_like(depth)
        u, v = np.meshgrid(*(((np.arange(n) + 0.5) * m / n - 0.5) for n, m in zip(depth.shape[::-1], size)))
        for plane in planes:
            if looks_like(plane, known, predicted):
                found = resized_ids(plane.found.astype(np.uint8), depth.shape[::-1]) > 0
                found &= (depth <= 0) & (seen.depth > 0)  # not at the border that perception leaves out
                filled[found] = plane.depth_at(u[found], v[found])
        there = np.isfinite(filled) & (filled > 0)
        self.completed += bool(there.any())
        confidence = np.where(there, f32(WEIGHT) / self.weights, f32(0)).astype(f32)
        return replace(seen, depth=np.where(there, filled, depth), confidence=confidence)
