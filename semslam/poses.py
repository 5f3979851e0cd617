"""Rigid transforms as (4, 4) float64 matrices.

`T_a_b` takes b-coordinates to a. Twists are (6,): translation part first, then the rotation vector in
radians, so that exp(twist) = [exp(w) V(w)t; 0 1] (Barfoot, State Estimation for Robotics, eq. 7.86).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation


def from_rotation_translation(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(4, 4) transform from a (3, 3) rotation and a (3,) translation in metres."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def inverse(T: np.ndarray) -> np.ndarray:
    """The inverse of a rigid transform (..., 4, 4), without solving for it."""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    result = np.zeros_like(T)
    result[..., :3, :3] = R_t
    result[..., :3, 3] = -(R_t @ T[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1
    return result


def skew(w: np.ndarray) -> np.ndarray:
    """The (3, 3) matrix with skew(w) @ x = cross(w, x)."""
    return np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]], dtype=np.float64)


def _left_jacobian(w: np.ndarray) -> np.ndarray:
    """V(w): how the translation part of a twist bends with its rotation."""
    angle = math.sqrt(float(w @ w))
    W = skew(w)
    if angle < 1e-5:  # Taylor: the closed form divides by angle cubed
        return np.eye(3) + W / 2 + W @ W / 6
    return np.eye(3) + (1 - math.cos(angle)) / angle**2 * W + (angle - math.sin(angle)) / angle**3 * (W @ W)


def exp(twist: np.ndarray) -> np.ndarray:
    """The transform (4, 4) of a twist (6,) = (translation part in metres, rotation vector in radians)."""
    twist = np.asarray(twist, dtype=np.float64)
    angle = math.sqrt(float(twist[3:] @ twist[3:]))
    V = _left_jacobian(twist[3:])
    # Rodrigues' formula; near 0 its terms by their series, of which the rest is below rounding
    a = math.sin(angle) / angle if angle > 1e-5 else 1 - angle**2 / 6
    b = (1 - math.cos(angle)) / angle**2 if angle > 1e-5 else 0.5
    W = skew(twist[3:])
    return from_rotation_translation(np.eye(3) + a * W + b * (W @ W), V @ twist[:3])


def log(T: np.ndarray) -> np.ndarray:
    """The twist (6,) of a transform (4, 4); the inverse of `exp` for angles below pi."""
    R = T[:3, :3]
    sine_axis = 0.5 * np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    sine, cosine = math.sqrt(float(sine_axis @ sine_axis)), 0.5 * (R[0, 0] + R[1, 1] + R[2, 2] - 1)
    if cosine > 0:  # below a right angle this is exact, and ten times as fast as what holds everywhere
        w = sine_axis * (math.atan2(sine, cosine) / sine if sine > 1e-9 else 1.0)
    else:
        w = Rotation.from_matrix(R).as_rotvec()
    return np.concatenate([np.linalg.solve(_left_jacobian(w), T[:3, 3]), w])


def interpolate(T_0: np.ndarray, T_1: np.ndarray, fraction: float) -> np.ndarray:
    """The transform a fraction of the way from T_0 to T_1 along the screw between them."""
    return T_0 @ exp(fraction * log(inverse(T_0) @ T_1))


def rotation_angle(T: np.ndarray) -> float:
    """The angle of the rotation of T, in radians, 0 to pi."""
    return float(np.linalg.norm(log(T)[3:]))


def orthonormalized(T: np.ndarray) -> np.ndarray:
    """T with its rotation replaced by the nearest true rotation: text files round to a few digits."""
    u, _, vt = np.linalg.svd(T[:3, :3])
    return from_rotation_translation(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt, T[:3, 3])


def is_rigid(T: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Whether T is finite, ends in 0 0 0 1 and has a proper rotation up to the tolerance."""
    return bool(
        T.shape == (4, 4)
        and np.all(np.isfinite(T))
        and np.allclose(T[3], [0, 0, 0, 1])
        and np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=tolerance)
        and np.linalg.det(T[:3, :3]) > 0
    )
