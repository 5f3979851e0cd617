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


def exp(twist: np.ndarray) -> np.ndarray:
    """The transform (4, 4) of a twist (6,) = (translation part in metres, rotation vector in radians).

    In plain numbers: NumPy's calls on three of them cost five times as much, and tracking makes dozens a frame.
    """
    x, y, z, u, v, w = map(float, twist)
    square = u * u + v * v + w * w
    angle = math.sqrt(square)
    if angle > 1e-5:
        a, b, c = math.sin(angle) / angle, (1 - math.cos(angle)) / square, (angle - math.sin(angle)) / (angle * square)
    else:  # their series, of which the rest is below rounding
        a, b, c = 1 - square / 6, 0.5, 1 / 6
    # R = I + a W + b W^2 (Rodrigues), V = I + b W + c W^2, W x = w x x, W^2 x = w (w . x) - |w|^2 x
    p, q, r = v * z - w * y, w * x - u * z, u * y - v * x
    along, rest = c * (u * x + v * y + w * z), 1 - c * square
    return np.array(
        [
            [1 - b * (v * v + w * w), b * u * v - a * w, b * u * w + a * v, rest * x + b * p + along * u],
            [b * u * v + a * w, 1 - b * (u * u + w * w), b * v * w - a * u, rest * y + b * q + along * v],
            [b * u * w - a * v, b * v * w + a * u, 1 - b * (u * u + v * v), rest * z + b * r + along * w],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def log(T: np.ndarray) -> np.ndarray:
    """The twist (6,) of a transform (4, 4); the inverse of `exp` for angles below pi."""
    (r00, r01, r02, x), (r10, r11, r12, y), (r20, r21, r22, z), _ = T.tolist()
    u, v, w = 0.5 * (r21 - r12), 0.5 * (r02 - r20), 0.5 * (r10 - r01)
    sine, cosine = math.sqrt(u * u + v * v + w * w), 0.5 * (r00 + r11 + r22 - 1)
    if cosine > 0:  # below a right angle this is exact, and ten times as fast as what holds everywhere
        stretch = math.atan2(sine, cosine) / sine if sine > 1e-9 else 1.0
        u, v, w = u * stretch, v * stretch, w * stretch
    else:
        u, v, w = Rotation.from_matrix(T[:3, :3]).as_rotvec().tolist()
    square = u * u + v * v + w * w
    angle = math.sqrt(square)
    # V^-1 = I - W / 2 + c W^2 (Barfoot, eq. 7.37)
    c = (1 - 0.5 * angle / math.tan(0.5 * angle)) / square if angle > 1e-3 else 1 / 12
    along, rest = c * (u * x + v * y + w * z), 1 - c * square
    p, q, r = v * z - w * y, w * x - u * z, u * y - v * x
    translation = (rest * x - 0.5 * p + along * u, rest * y - 0.5 * q + along * v, rest * z - 0.5 * r + along * w)
    return np.array([*translation, u, v, w])


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
