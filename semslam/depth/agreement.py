"""Depth of a keyframe and of those before it that show the same, brought together where they agree.

What parallax gets wrong, at jumps of depth, on repeated texture and glossy surfaces, is seldom wrong in the same way
from another place (as in the consistency filters of MVSNet and COLMAP). Where keyframes disagree, depth is doubted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.depth.completion import CompletedDepth

f32 = np.float32
GATE = 0.2  # of the logarithm of depth: what is farther off is hidden, or another surface
SHARE = 0.5  # of another keyframe's information that counts: it saw the same images in part


class Keyframe(NamedTuple):
    """The depth of a keyframe by itself."""

    T_world_camera: np.ndarray  # (4, 4) float64
    depth: np.ndarray  # (H, W) float32 metres along z
    log_std: np.ndarray  # (H, W) float32, standard deviation of its logarithm


def agreed(found: Keyframe, camera: Camera, others: Sequence[Keyframe]) -> CompletedDepth:
    """The weighted mean of what a keyframe and others say of its depth.

    Its variance is that of the keyframe itself, which the others share in part, and what they scatter around the mean.

    camera: of all of them.
    """
    points = camera.backproject(found.depth).reshape(-1, 3)
    weight = 1 / found.log_std**2
    total, first, second = weight.copy(), np.zeros_like(weight), np.zeros_like(weight)
    for other in others:
        ratio, log_std = _seen_by(other, camera, points, poses.inverse(other.T_world_camera) @ found.T_world_camera)
        ratio, log_std = ratio.reshape(weight.shape), log_std.reshape(weight.shape)
        its = np.where(np.abs(ratio) < GATE, f32(SHARE) / log_std**2, f32(0))
        total += its
        first += its * ratio
        second += its * ratio**2
    mean = first / total
    scatter = np.maximum(second / total - mean**2, f32(0))
    return CompletedDepth(found.depth * np.exp(mean), np.sqrt(found.log_std**2 + scatter))


def _seen_by(
    other: Keyframe, camera: Camera, points: np.ndarray, T_other_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) logarithms of a keyframe's depth over that of points (N, 3) in front of another camera, GATE where it does
    not see them, and their standard deviations."""
    seen = poses.transform(T_other_camera, points).astype(f32)
    ahead = seen[:, 2] > 0.05
    z = np.where(ahead, seen[:, 2], f32(1))
    u = np.rint(seen[:, 0] / z * f32(camera.fx) + f32(camera.cx)).astype(np.int32)
    v = np.rint(seen[:, 1] / z * f32(camera.fy) + f32(camera.cy)).astype(np.int32)
    inside = ahead & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    ratio = np.where(inside, np.log(other.depth[v, u] / z), f32(GATE))
    return ratio, other.log_std[v, u]
