"""Poses as six numbers that a network can learn: translation, and the logarithm of a unit quaternion.

Brahmbhatt et al., "Geometry-Aware Learning of Maps for Camera Localization", CVPR 2018, section 3.1. The logarithm of
a quaternion is half of the rotation vector. Quaternions are (w, x, y, z) here, and of the two that stand for one
rotation always the one with w >= 0 is taken: then log is continuous wherever rotations stay below 180 degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PoseStatistics:
    """How translations are normalised before they are learned: (x - mean) / std, for each axis, metres.

    Rotations are not scaled. Mean 0 and deviation 1 leave metres.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not np.all(np.isfinite([*self.mean, *self.std])):
            raise ValueError(
                f"pose statistics are mean {self.mean}, std {self.std}; expected three finite numbers each"
            )
        if min(self.std) <= 0:
            raise ValueError(f"pose statistics have a deviation of {min(self.std)}; it must be above 0")

    @classmethod
    def of(cls, T_world_camera: np.ndarray) -> PoseStatistics:
        """Mean and deviation of the positions of poses (N, 4, 4); an axis along which nothing moves keeps its scale."""
        positions = np.asarray(T_world_camera, np.float64)[:, :3, 3]
        mean, std = positions.mean(0), positions.std(0)
        std = np.where(std < 1e-3, 1.0, std)
        return cls(tuple(map(float, mean)), tuple(map(float, std)))


def hemisphere(quaternion_wxyz: Tensor) -> Tensor:
    """Of q and -q (..., 4) the one whose first number that is not 0 is positive."""
    q = quaternion_wxyz
    leading = torch.gather(q, -1, (q != 0).int().argmax(-1, keepdim=True))
    return torch.where(leading < 0, -q, q)


def log_quaternion(quaternion_wxyz: Tensor) -> Tensor:
    """The logarithm (..., 3) of unit quaternions (..., 4): half the rotation vector; differentiable at the identity."""
    w, v = quaternion_wxyz[..., :1], quaternion_wxyz[..., 1:]
    squared = (v * v).sum(-1, keepdim=True)
    small = squared < 1e-14
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    # unlike arccos, atan2 keeps its precision near w = 1, and needs no clamp
    factor = torch.where(small, 1 / w.where(w.abs() > 0.5, torch.ones_like(w)), torch.atan2(length, w) / length)
    return factor * v


def exp_quaternion(logarithm: Tensor) -> Tensor:
    """The unit quaternion (..., 4) of a logarithm (..., 3): (cos |v|, sin |v| v / |v|)."""
    squared = (logarithm * logarithm).sum(-1, keepdim=True)
    small = squared < 1e-14
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    factor = torch.where(small, 1 - squared / 6, torch.sin(length) / length)
    return torch.cat([torch.where(small, 1 - squared / 2, torch.cos(length)), factor * logarithm], -1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The quaternion product a b (..., 4): the rotation b, then a."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([w, aw * bv + bw * av + torch.linalg.cross(av, bv, dim=-1)], -1)


def conjugate(q: Tensor) -> Tensor:
    """The inverse rotation of unit quaternions (..., 4)."""
    return q * q.new_tensor([1.0, -1.0, -1.0, -1.0])


def rotated(q: Tensor, point: Tensor) -> Tensor:
    """Points (..., 3) rotated by unit quaternions (..., 4)."""
    w, v = q[..., :1], q[..., 1:]
    t = 2 * torch.linalg.cross(v, point, dim=-1)
    return point + w * t + torch.linalg.cross(v, t, dim=-1)


def relative_motion(first: Tensor, second: Tensor) -> Tensor:
    """The second camera in the frame of the first (..., 6), of two poses (..., 6) whose translations are in metres."""
    q_first, q_second = exp_quaternion(first[..., 3:]), exp_quaternion(second[..., 3:])
    back = conjugate(q_first)
    translation = rotated(back, second[..., :3] - first[..., :3])
    return torch.cat([translation, log_quaternion(hemisphere(product(back, q_second)))], -1)


# ----------------------------------------------------------------------------------------------- NumPy, (4, 4)


def encoded(T_world_camera: np.ndarray, statistics: PoseStatistics | None = None) -> np.ndarray:
    """Poses (..., 4, 4) as (..., 6) float64: normalised translation, log-quaternion."""
    from scipy.spatial.transform import Rotation

    statistics = statistics or PoseStatistics()
    T = np.asarray(T_world_camera, np.float64)
    flat = T.reshape(-1, 4, 4)
    q_wxyz = np.roll(Rotation.from_matrix(flat[:, :3, :3]).as_quat(), 1, axis=-1)
    rotation = log_quaternion(hemisphere(torch.from_numpy(np.ascontiguousarray(q_wxyz)))).numpy()
    translation = (flat[:, :3, 3] - statistics.mean) / statistics.std
    return np.concatenate([translation, rotation], -1).reshape(*T.shape[:-2], 6)


def decoded(pose: np.ndarray | Sequence[float], statistics: PoseStatistics | None = None) -> np.ndarray:
    """Poses (..., 6) as (..., 4, 4) float64: the inverse of `encoded`."""
    from scipy.spatial.transform import Rotation

    statistics = statistics or PoseStatistics()
    pose = np.asarray(pose, np.float64)
    flat = pose.reshape(-1, 6)
    T = np.tile(np.eye(4), (len(flat), 1, 1))
    T[:, :3, :3] = Rotation.from_rotvec(2 * flat[:, 3:]).as_matrix()
    T[:, :3, 3] = flat[:, :3] * statistics.std + statistics.mean
    return T.reshape(*pose.shape[:-1], 4, 4)
