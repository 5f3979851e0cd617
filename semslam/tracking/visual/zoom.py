"""The focal length of each keyframe of a sparse map, where the camera may have zoomed while it filmed.

A growing image looks like an approach, except that an approach moves what is near more than what is far. A bundle
adjustment with one more unknown for each keyframe tells the two apart; it minimises the cost of `bundle_adjustment`,
a focal length f exp(z) in place of f, plus sum ((z_k+1 - z_k) / WALK_STD)^2 + sum (z_k / ZOOM_STD)^2. It is solved
once, when all frames are done, in NumPy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from semslam import poses
from semslam.robust import MAD_TO_STD
from semslam.tracking.visual.bundle_adjustment import Scene
from semslam.tracking.visual.normal_equations import Equations, Linearised, cross, equations_of, minimised
from semslam.tracking.visual.sparse_map import SparseMap

UNKNOWNS = 7  # of a camera: its twist, the logarithm of its zoom
DEPTH = 14  # column of a derivative by the logarithm of the landmark's depth, behind observer's and host's unknowns
WALK_STD = 0.01  # of the change of z from one keyframe to the next
ZOOM_STD = 0.3  # of z
TOGETHER = 200  # keyframes that are adjusted together
FEWEST = 5  # keyframes that tell, and over which the median is taken
LEAST = 0.03  # change of z that is a zoom, besides ...
ROUGH = 4.0  # ... so many times the usual change from one keyframe to the next
EXPLAINED = 0.15  # by which it lowers the mean cost of an observation, at least; sound recordings that wobble: 0.12


class Zoomed(NamedTuple):
    """A state of the unknowns."""

    T_camera_world: np.ndarray  # (N, 4, 4)
    log_depth: np.ndarray  # (L,)
    z: np.ndarray  # (N,) logarithm of each camera's focal length over the scene's

    def moved(self, step: np.ndarray, landmarks: np.ndarray) -> Zoomed:
        """After steps of the cameras (7 N,) and of the logarithms of depth (L,)."""
        cameras = step.reshape(-1, UNKNOWNS)
        T = np.stack([poses.exp(camera[:6]) @ T for camera, T in zip(cameras, self.T_camera_world)])
        logs = np.clip(self.log_depth + np.clip(landmarks, -1, 1), -3, 6)
        return Zoomed(T, logs, self.z + np.clip(cameras[:, 6], -0.2, 0.2))


class FoundZoom(NamedTuple):
    """What a sparse map of K keyframes says of its camera's zoom."""

    z: np.ndarray  # (K,) logarithm of each keyframe's focal length over that of the widest; medians
    rough: float  # usual change of that logarithm from one keyframe to the next
    explained: float  # by how much zoom lowers the mean cost of an observation

    @property
    def evident(self) -> bool:
        """Whether the camera zoomed beyond doubt.

        Images that a rolling shutter or a lens distorts seem to zoom, too, a little to and fro: a zoom has to be more
        than that, and to explain where landmarks are seen.
        """
        return bool(self.z.max() > LEAST + ROUGH * self.rough and self.explained > EXPLAINED)

    def is_undone_in(self, again: FoundZoom) -> bool:
        """Whether images in which it was undone show less of it, and leave clearly less to be explained by zoom."""
        return again.z.max() < self.z.max() and again.explained < self.explained - EXPLAINED / 2


def zoom_of(world: SparseMap) -> FoundZoom | None:
    """None where too few landmarks tell.

    Of many keyframes a part is adjusted at a time, and brought to the level of those before.
    """
    count = len(world.keyframes)
    if count < FEWEST:
        return None
    z, gain, seen = np.full(count, np.nan), 0.0, 0
    for first in range(0, max(1, count - TOGETHER // 2), TOGETHER // 2):
        mine = np.zeros(count, bool)
        mine[first : first + TOGETHER] = True
        scene, frames, _, _ = world.scene(mine, with_focal=False)
        scene, frames = seen_within(scene, mine[frames]), frames[mine[frames]]
        if len(scene.landmark) < 20:
            return None
        scene = scene._replace(fixed=np.arange(len(frames)) == 0)
        zoomed, cost = adjusted(scene, world.pixel_std)
        gain += adjusted(scene, world.pixel_std, zooming=False)[1] - cost
        seen += len(scene.landmark)
        part = np.full(count, np.nan)
        part[frames] = zoomed.z
        known = np.isfinite(z) & np.isfinite(part)
        level = float(np.median((part - z)[known])) if known.any() else 0.0
        z = np.where(np.isfinite(z), z, part - level)
    smooth = smoothed(z)
    rough = MAD_TO_STD * float(np.median(np.abs(np.diff(z))))
    return FoundZoom(smooth - smooth.min(), rough, gain / seen)


def smoothed(z: np.ndarray) -> np.ndarray:
    """Medians over neighbours of what each keyframe (N,) says."""
    return median_filter(z, FEWEST, mode="nearest")


def seen_within(scene: Scene, mine: np.ndarray) -> Scene:
    """What some of the cameras (bool) show of their own landmarks.

    Where a place is seen again and again, its landmarks would tie in all the others, each with its unknowns.
    """
    kept = mine[scene.host]
    rows = kept[scene.landmark] & mine[scene.camera]
    camera, landmark = np.cumsum(mine) - 1, np.cumsum(kept) - 1
    return scene._replace(
        T_camera_world=scene.T_camera_world[mine], fixed=scene.fixed[mine], host=camera[scene.host[kept]],
        pixel=scene.pixel[kept], log_depth=scene.log_depth[kept], prior=scene.prior[kept],
        prior_weight=scene.prior_weight[kept], landmark=landmark[scene.landmark[rows]],
        camera=camera[scene.camera[rows]], seen=scene.seen[rows],
    )  # fmt: skip


def adjusted(scene: Scene, pixel_std: float, zooming: bool = True) -> tuple[Zoomed, float]:
    """The poses, depths and, if zooming, focal lengths that agree best, by Levenberg and Marquardt, and their cost.

    pixel_std: see `adjust`.
    """
    free = np.repeat(~scene.fixed, UNKNOWNS)
    free[6::UNKNOWNS] = zooming
    start = Zoomed(scene.T_camera_world, scene.log_depth, np.zeros(len(scene.fixed)))
    return minimised(start, lambda state: linearised(scene, state, pixel_std), free)


def linearised(scene: Scene, state: Zoomed, pixel_std: float) -> tuple[float, Equations]:
    """The cost of a state, and its normal equations."""
    N = len(state.z)
    cost, equations = equations_of(_errors(scene, state, pixel_std), scene.landmark, UNKNOWNS * N, len(scene.host))
    change = state.log_depth - scene.prior
    equations.H_ll[:] += scene.prior_weight
    equations.g_l[:] += scene.prior_weight * change
    between = np.diff(np.eye(N), axis=0) / WALK_STD
    smoothness = between.T @ between + np.eye(N) / ZOOM_STD**2
    equations.H[6::UNKNOWNS, 6::UNKNOWNS] += smoothness
    equations.g[6::UNKNOWNS] += smoothness @ state.z
    return cost + float((scene.prior_weight * change**2).sum() + state.z @ smoothness @ state.z), equations


def _errors(scene: Scene, state: Zoomed, pixel_std: float) -> Linearised:
    j, h = scene.camera, scene.host[scene.landmark]
    focal = scene.focal * np.exp(state.z)
    R_j, R_h = state.T_camera_world[j, :3, :3], state.T_camera_world[h, :3, :3]
    R = R_j @ R_h.transpose(0, 2, 1)  # R_j_h
    t = state.T_camera_world[j, :3, 3] - np.einsum("mik,mk->mi", R, state.T_camera_world[h, :3, 3])
    inverse_depth = np.exp(-state.log_depth[scene.landmark])[:, None]
    ray = np.column_stack([scene.pixel[scene.landmark] / focal[h][:, None], np.ones(len(j))])
    y = np.einsum("mik,mk->mi", R, ray) + t * inverse_depth  # the landmark in the observer, over its depth in the host
    ahead = y[:, 2] > 1e-3
    z = np.where(ahead, y[:, 2], 1.0)[:, None]
    p, f = y[:, :2] / z, focal[j][:, None]
    by = np.zeros((len(j), 3, 15))  # derivatives of y
    by[:, :, 0:3] = np.eye(3) * inverse_depth[:, :, None]
    by[:, :, 3:6] = -cross(y)
    by[:, :, 7:10] = -inverse_depth[:, :, None] * R
    by[:, :, 10:13] = R @ cross(ray)
    by[:, :, 13] = -np.einsum("mik,mk->mi", R[:, :, :2], ray[:, :2])
    by[:, :, DEPTH] = -inverse_depth * t
    J = (f / z)[:, :, None] * (by[:, :2] - p[:, :, None] * by[:, 2:])
    J[:, :, 6] += f * p
    cameras = UNKNOWNS * np.column_stack([j, h])[:, :, None] + np.arange(UNKNOWNS)
    errors = (f * p - scene.seen) / pixel_std
    return Linearised(
        errors, cameras.reshape(len(j), -1), J[:, :, :DEPTH] / pixel_std, J[:, :, DEPTH] / pixel_std, ahead
    )
