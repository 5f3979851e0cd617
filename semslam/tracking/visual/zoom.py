"""The focal length of each keyframe of a sparse map, where the camera may have zoomed while it filmed.

A growing image looks like an approach, except that an approach moves what is near more than what is far. A bundle
adjustment with one more unknown for each keyframe tells the two apart; it minimises the cost of `bundle_adjustment`,
a focal length f exp(z) in place of f, plus sum ((z_k+1 - z_k) / WALK_STD)^2 + sum (z_k / ZOOM_STD)^2. It is solved
once, when all frames are done, in NumPy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.ndimage import median_filter

from semslam import cholesky, poses
from semslam.robust import MAD_TO_STD
from semslam.tracking.visual.bundle_adjustment import Scene
from semslam.tracking.visual.sparse_map import SparseMap

UNKNOWNS = 7  # of a camera: its twist, the logarithm of its zoom
OWN = np.arange(14)  # columns of a derivative by the unknowns of the observer and of the host ...
DEPTH = 14  # ... and by the logarithm of the landmark's depth
WALK_STD = 0.01  # of the change of z from one keyframe to the next
ZOOM_STD = 0.3  # of z
HUBER = 2.0  # pixel_std's from which an observation counts linearly
BEHIND = 1e4  # cost of a landmark behind its observer
STEPS, LITTLE = 15, 1e-4  # at most; relative decrease of the cost that ends the iteration
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

    def moved(self, cameras: np.ndarray, landmarks: np.ndarray) -> Zoomed:
        """After steps of the cameras (N, 7) and of the logarithms of depth (L,)."""
        T = np.stack([poses.exp(step[:6]) @ T for step, T in zip(cameras, self.T_camera_world)])
        logs = np.clip(self.log_depth + np.clip(landmarks, -1, 1), -3, 6)
        return Zoomed(T, logs, self.z + np.clip(cameras[:, 6], -0.2, 0.2))


class Equations(NamedTuple):
    """Normal equations in seven unknowns a camera, and the landmarks'."""

    H: np.ndarray  # (7 N, 7 N)
    g: np.ndarray  # (7 N,) half of the gradient
    H_ll: np.ndarray  # (L,)
    g_l: np.ndarray  # (L,)
    coupling: sparse.csr_matrix  # (L, 7 N)

    def step(self, free: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Steps of the cameras (N, 7) and landmarks (L,), by the Schur complement of the landmarks; None where there is
        none. free: (7 N,) bool, which unknowns may change."""
        damped = self.H_ll * (1 + damping) + 1e-9
        explained = self.coupling.T @ sparse.diags(1 / damped)
        H = self.H - (explained @ self.coupling).toarray()
        H[np.diag_indices(len(H))] += damping * np.diag(self.H) + 1e-9
        g = self.g - explained @ self.g_l
        found = cholesky.solved(H[np.ix_(free, free)], -g[free])
        if found is None:
            return None
        step = np.zeros(len(free))
        step[free] = found
        return step.reshape(-1, UNKNOWNS), -(self.g_l + self.coupling @ step) / damped


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
        scene, frames, _, rows = world.scene(mine, with_focal=False)
        if len(rows) < 20:
            return None
        scene = scene._replace(fixed=np.arange(len(frames)) == 0)
        zoomed, cost = adjusted(scene, world.pixel_std)
        gain += adjusted(scene, world.pixel_std, zooming=False)[1] - cost
        seen += len(rows)
        part = np.full(count, np.nan)
        part[frames] = zoomed.z
        known = np.isfinite(z) & np.isfinite(part)
        level = float(np.median((part - z)[known])) if known.any() else 0.0
        z = np.where(np.isfinite(z), z, part - level)
    smooth = median_filter(z, FEWEST, mode="nearest")
    rough = MAD_TO_STD * float(np.median(np.abs(np.diff(z))))
    return FoundZoom(smooth - smooth.min(), rough, gain / seen)


def adjusted(scene: Scene, pixel_std: float, zooming: bool = True) -> tuple[Zoomed, float]:
    """The poses, depths and, if zooming, focal lengths that agree best, by Levenberg and Marquardt, and their cost.

    pixel_std: see `adjust`.
    """
    free = np.repeat(~scene.fixed, UNKNOWNS)
    free[6::UNKNOWNS] = zooming
    state = Zoomed(scene.T_camera_world, scene.log_depth, np.zeros(len(scene.fixed)))
    cost, equations = linearised(scene, state, pixel_std)
    damping = 1e-4
    for _ in range(STEPS):
        if (step := equations.step(free, damping)) is not None:
            moved = state.moved(*step)
            new_cost, new_equations = linearised(scene, moved, pixel_std)
            if new_cost < cost:
                little = cost - new_cost < LITTLE * cost
                state, cost, equations, damping = moved, new_cost, new_equations, max(damping / 5, 1e-8)
                if little:
                    break
                continue
        damping *= 10
    return state, cost


def linearised(scene: Scene, state: Zoomed, pixel_std: float) -> tuple[float, Equations]:
    """The cost of a state, and its normal equations."""
    r, J, ahead = _residuals(scene, state, pixel_std)
    size = np.linalg.norm(r, axis=1)
    rho = np.where(size <= HUBER, size**2, HUBER * (2 * size - HUBER))
    weight = np.where(ahead, np.minimum(1, HUBER / np.maximum(size, 1e-12)), 0.0)
    change = state.log_depth - scene.prior
    cost = float(np.where(ahead, rho, BEHIND).sum() + (scene.prior_weight * change**2).sum())
    cost += float((np.diff(state.z) ** 2).sum() / WALK_STD**2 + (state.z**2).sum() / ZOOM_STD**2)
    A = np.einsum("m,mki,mkj->mij", weight, J, J)
    b = np.einsum("m,mki,mk->mi", weight, J, r)
    N, L, l = len(state.z), len(scene.host), scene.landmark
    owners = UNKNOWNS * np.column_stack([scene.camera, scene.host[l]])
    columns = (owners[:, :, None] + np.arange(UNKNOWNS)).reshape(-1, len(OWN))
    pairs = np.repeat(columns, len(OWN), axis=1).ravel(), np.tile(columns, len(OWN)).ravel()
    H = sparse.coo_matrix((A[:, OWN][:, :, OWN].ravel(), pairs), shape=(UNKNOWNS * N,) * 2).toarray()
    g = np.bincount(columns.ravel(), b[:, OWN].ravel(), minlength=UNKNOWNS * N)
    places = np.repeat(l, len(OWN)), columns.ravel()
    coupling = sparse.coo_matrix((A[:, OWN, DEPTH].ravel(), places), shape=(L, UNKNOWNS * N)).tocsr()
    between = np.diff(np.eye(N), axis=0) / WALK_STD
    smoothness = between.T @ between + np.eye(N) / ZOOM_STD**2
    H[6::UNKNOWNS, 6::UNKNOWNS] += smoothness
    g[6::UNKNOWNS] += smoothness @ state.z
    H_ll = np.bincount(l, A[:, DEPTH, DEPTH], minlength=L) + scene.prior_weight
    g_l = np.bincount(l, b[:, DEPTH], minlength=L) + scene.prior_weight * change
    return cost, Equations(H, g, H_ll, g_l, coupling)


def _residuals(scene: Scene, state: Zoomed, pixel_std: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors (M, 2) of the observations in standard deviations, their derivatives (M, 2, 15) by the unknowns of
    observer and host and by the logarithm of depth, and whether (M,) the landmark is ahead of the observer."""
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
    by[:, :, 3:6] = -_cross(y)
    by[:, :, 7:10] = -inverse_depth[:, :, None] * R
    by[:, :, 10:13] = R @ _cross(ray)
    by[:, :, 13] = -np.einsum("mik,mk->mi", R[:, :, :2], ray[:, :2])
    by[:, :, DEPTH] = -inverse_depth * t
    J = (f / z)[:, :, None] * (by[:, :2] - p[:, :, None] * by[:, 2:])
    J[:, :, 6] += f * p
    return (f * p - scene.seen) / pixel_std, J / pixel_std, ahead


def _cross(x: np.ndarray) -> np.ndarray:
    """(N, 3, 3): matrices of the cross products of vectors (N, 3) with others."""
    zero = np.zeros(len(x))
    entries = [zero, -x[:, 2], x[:, 1], x[:, 2], zero, -x[:, 0], -x[:, 1], x[:, 0], zero]
    return np.stack(entries, axis=1).reshape(-1, 3, 3)
