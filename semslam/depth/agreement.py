"""Depth of a keyframe and of those around it that show the same, brought together where they agree.

What parallax gets wrong, at jumps of depth, on repeated texture and glossy surfaces, is seldom wrong in the same way
from another place (as in the consistency filters of MVSNet and COLMAP). Where keyframes disagree, depth is doubted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import PARALLEL, Pinhole, Pose, pixel_of
from semslam.depth.completion import CompletedDepth

f32 = np.float32
GATE = 0.2  # of the logarithm of depth: what is farther off is hidden, or another surface
SHARE = 0.5  # of another keyframe's information that counts: it saw the same images in part
# Power of a keyframe's share of all information by which its variance falls: 1 if all erred independently, 0 if they
# erred alike. With this one, errors in three real recordings are 0.9 to 1.0 of what is said.
INDEPENDENCE = 0.3


class Keyframe(NamedTuple):
    """The depth of a keyframe by itself."""

    T_world_camera: np.ndarray  # (4, 4) float64
    depth: np.ndarray  # (H, W) float32 metres along z
    log_std: np.ndarray  # (H, W) float32, standard deviation of its logarithm


def agreed(found: Keyframe, camera: Camera, others: Sequence[Keyframe]) -> CompletedDepth:
    """The weighted mean of what a keyframe and others say of its depth.

    Its variance is that of the keyframe itself, less the more others agree, and what they scatter around the mean.

    camera: of all of them.
    """
    sums = _Sums(*np.zeros((3, *camera.shape), f32))
    for other in others:
        T_other_camera = Pose.of(poses.inverse(other.T_world_camera) @ found.T_world_camera)
        _add(found.depth, other.depth, other.log_std, Pinhole.of(camera), T_other_camera, f32(GATE), f32(SHARE), sums)
    own = 1 / found.log_std**2
    total = own + sums.weight
    mean = sums.first / total
    scatter = np.maximum(sums.second / total - mean**2, f32(0))
    variance = found.log_std**2 * (own / total) ** f32(INDEPENDENCE) + scatter
    return CompletedDepth(found.depth * np.exp(mean), np.sqrt(variance))


class _Sums(NamedTuple):
    """Over the other keyframes, of logarithms of their depth over that of a keyframe's pixels: (H, W) float32 each."""

    weight: np.ndarray
    first: np.ndarray  # of weight times logarithm
    second: np.ndarray  # of weight times its square


@nb.njit(**PARALLEL)
def _add(depth, its_depth, its_log_std, camera, T_other_camera, gate, share, sums):
    """Add to sums what another keyframe, whose depth is `its_depth`, says of the depth of a keyframe's pixels.

    share: of its information that counts. It says nothing of what is off by more than `gate`, nor of what it does not
    see.
    """
    R, t = T_other_camera.R, T_other_camera.t
    weights, first, second = sums.weight, sums.first, sums.second
    for v in nb.prange(camera.height):
        y = (f32(v) - camera.cy) / camera.fy
        for u in range(camera.width):
            x, z = (f32(u) - camera.cx) / camera.fx, depth[v, u]
            ahead = (R[2, 0] * x + R[2, 1] * y + R[2, 2]) * z + t[2]
            if ahead <= f32(0.05):
                continue
            right = (R[0, 0] * x + R[0, 1] * y + R[0, 2]) * z + t[0]
            down = (R[1, 0] * x + R[1, 1] * y + R[1, 2]) * z + t[1]
            i, j = pixel_of(camera, right, down, ahead)
            if i < 0:
                continue
            ratio = np.log(its_depth[j, i] / ahead)
            if abs(ratio) < gate:
                weight = share / (its_log_std[j, i] * its_log_std[j, i])
                weights[v, u] += weight
                first[v, u] += weight * ratio
                second[v, u] += weight * ratio * ratio
