"""Rigid transforms as (4, 4) float64 matrices, one at a time or many at once, (..., 4, 4).

`T_a_b` takes b-coordinates to a. Twists are (6,): translation part first, then the rotation vector in
radians, so that exp(twist) = [exp(w) V(w)t; 0 1] (Barfoot, State Estimation for Robotics, eq. 7.86).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

LONGEST = 0.17  # seconds from a pose to the next, at most, that a velocity is told from

LAST_ROW = 1e-5  # by which the last row of a rigid transform may miss 0 0 0 1


def from_rotation_translation(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(4, 4) transform from a (3, 3) rotation and a (3,) translation in metres."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def stacked(T: Iterable[np.ndarray | None]) -> np.ndarray:
    """(N, 4, 4) float64 of N poses, not finite where there is none."""
    return np.array([np.full((4, 4), np.nan) if one is None else one for one in T], np.float64).reshape(-1, 4, 4)


def inverse(T: np.ndarray) -> np.ndarray:
    """The inverse of a rigid transform (..., 4, 4), without solving for it."""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    result = np.zeros_like(T)
    result[..., :3, :3] = R_t
    result[..., :3, 3] = -(R_t @ T[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1
    return result


def transform(T_a_b: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """Points (..., 3) in b taken to a by one transform (4, 4), of the type that NumPy's promotion gives."""
    return points_b @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def moved_by(T_world_a: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The poses (..., 4, 4) where the world's coordinates grow by an offset (3,), metres."""
    result = np.array(T_world_a, np.float64)
    result[..., :3, 3] += offset
    return result


def skew(w: np.ndarray) -> np.ndarray:
    """The matrices (..., 3, 3) with skew(w) @ x = cross(w, x), of (..., 3)."""
    result = np.zeros((*w.shape[:-1], 3, 3))
    result[..., 2, 1], result[..., 0, 2], result[..., 1, 0] = w[..., 0], w[..., 1], w[..., 2]
    return result - np.swapaxes(result, -1, -2)


def adjoint(T: np.ndarray) -> np.ndarray:
    """The matrices (..., 6, 6) with T exp(x) T^-1 = exp(adjoint(T) x), of (..., 4, 4)."""
    R = T[..., :3, :3]
    result = np.zeros((*T.shape[:-2], 6, 6))
    result[..., :3, :3] = result[..., 3:, 3:] = R
    result[..., :3, 3:] = skew(T[..., :3, 3]) @ R
    return result


def exp(twist: np.ndarray) -> np.ndarray:
    """The transforms (..., 4, 4) of twists (..., 6) = (translation part in metres, rotation vector in radians).

    One twist is computed in plain numbers: NumPy's calls on three of them cost five times as much, and tracking makes
    dozens a frame.
    """
    many = np.ndim(twist) > 1
    x, y, z, u, v, w = np.moveaxis(np.asarray(twist, np.float64), -1, 0) if many else map(float, twist)
    square: Any = u * u + v * v + w * w
    a, b, c = _factors_of_many(square) if many else _factors(square)
    # R = I + a W + b W^2 (Rodrigues), V = I + b W + c W^2, W x = w x x, W^2 x = w (w . x) - |w|^2 x
    p, q, r = v * z - w * y, w * x - u * z, u * y - v * x
    along, rest = c * (u * x + v * y + w * z), 1 - c * square
    rows = [
        [1 - b * (v * v + w * w), b * u * v - a * w, b * u * w + a * v, rest * x + b * p + along * u],
        [b * u * v + a * w, 1 - b * (u * u + w * w), b * v * w - a * u, rest * y + b * q + along * v],
        [b * u * w - a * v, b * v * w + a * u, 1 - b * (u * u + v * v), rest * z + b * r + along * w],
    ]
    if not many:
        return np.array([*rows, [0.0, 0.0, 0.0, 1.0]])
    T = np.zeros((*np.shape(twist)[:-1], 4, 4))
    T[..., :3, :] = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
    T[..., 3, 3] = 1
    return T


def velocity(T_world_camera: Sequence[np.ndarray | None], timestamps: np.ndarray, index: int) -> np.ndarray | None:
    """(6,) twist a second of a camera at one of its poses, in its own frame, between the poses before and after it that
    are at most `LONGEST` away; None where there are none.

    T_world_camera: (4, 4) each, None where it is not known. timestamps: (N,) seconds.
    """
    posed = [j for j in (index - 1, index, index + 1) if 0 <= j < len(timestamps) and T_world_camera[j] is not None]
    near = [j for j in posed if abs(timestamps[j] - timestamps[index]) <= LONGEST]
    if len(near) < 2 or not (elapsed := float(timestamps[near[-1]] - timestamps[near[0]])) > 0:
        return None
    first, last = (T_world_camera[j] for j in (near[0], near[-1]))
    assert first is not None and last is not None
    return log(inverse(first) @ last) / elapsed


def log(T: np.ndarray) -> np.ndarray:
    """The twists (..., 6) of transforms (..., 4, 4); the inverse of `exp` for angles below pi."""
    if T.ndim > 2:
        return _logs(T)
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
    c = (1 - 0.5 * angle / math.tan(0.5 * angle)) / square if angle > 1e-3 else 1 / 12
    along, rest = c * (u * x + v * y + w * z), 1 - c * square
    p, q, r = v * z - w * y, w * x - u * z, u * y - v * x
    translation = (rest * x - 0.5 * p + along * u, rest * y - 0.5 * q + along * v, rest * z - 0.5 * r + along * w)
    return np.array([*translation, u, v, w])


def _factors(square: float) -> tuple[float, float, float]:
    """sin(a) / a, (1 - cos(a)) / a^2 and (a - sin(a)) / a^3, of a^2."""
    angle = math.sqrt(square)
    if angle > 1e-5:
        return math.sin(angle) / angle, (1 - math.cos(angle)) / square, (angle - math.sin(angle)) / (angle * square)
    return 1 - square / 6, 0.5, 1 / 6  # their series, of which the rest is below rounding


def _factors_of_many(square: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_factors` of an array."""
    angle = np.sqrt(np.maximum(square, 1e-20))
    small = angle <= 1e-5
    return (
        np.where(small, 1 - square / 6, np.sin(angle) / angle),
        np.where(small, 0.5, (1 - np.cos(angle)) / angle**2),
        np.where(small, 1 / 6, (angle - np.sin(angle)) / angle**3),
    )


def _logs(T: np.ndarray) -> np.ndarray:
    """`log` of many transforms, (..., 4, 4)."""
    w = Rotation.from_matrix(T[..., :3, :3].reshape(-1, 3, 3)).as_rotvec().reshape(*T.shape[:-2], 3)
    angle = np.maximum(np.linalg.norm(w, axis=-1), 1e-6)
    W = skew(w)
    c = np.where(angle > 1e-3, (1 - 0.5 * angle / np.tan(0.5 * angle)) / angle**2, 1 / 12)  # as in `log`
    inverse_V = np.eye(3) - 0.5 * W + c[..., None, None] * (W @ W)
    return np.concatenate([(inverse_V @ T[..., :3, 3:])[..., 0], w], axis=-1)


def inverse_right_jacobian(twist: np.ndarray) -> np.ndarray:
    """The matrices (..., 6, 6) J with log(exp(twist) exp(x)) = twist + J x + O(x^2), of (..., 6).

    1 + A/2 + p A^2 + q A^4 of A = ad(twist), whose fifth power is a sum of its third and first (Bullo and Murray,
    "Proportional derivative control on the Euclidean group", 1995).
    """
    A = np.zeros((*twist.shape[:-1], 6, 6))
    A[..., :3, :3] = A[..., 3:, 3:] = skew(twist[..., 3:])
    A[..., :3, 3:] = skew(twist[..., :3])
    angle = np.linalg.norm(twist[..., 3:], axis=-1)[..., None, None]
    small = angle < 0.1  # the closed forms divide differences of near equals by angle^4
    x = np.where(small, 1.0, angle)
    slope = 4 * x * (np.cos(x) - 1)
    p = np.where(small, 1 / 12, 2 / x**2 + (x + 3 * np.sin(x)) / slope)
    q = np.where(small, -1 / 720, 1 / x**4 + (x + np.sin(x)) / (slope * x**2))
    A2 = A @ A
    return np.eye(6) + A / 2 + p * A2 + q * A2 @ A2


def interpolate(T_0: np.ndarray, T_1: np.ndarray, fraction: float) -> np.ndarray:
    """The transform a fraction of the way from T_0 to T_1 along the screw between them."""
    return T_0 @ exp(fraction * log(inverse(T_0) @ T_1))


def rotation_angle(T: np.ndarray) -> float:
    """The angle of the rotation of T, in radians, 0 to pi."""
    return float(np.linalg.norm(log(T)[3:]))


def are_apart(T_world_a: np.ndarray, T_world_b: np.ndarray, metres: float, degrees: float) -> bool:
    """Whether two camera poses (4, 4) are farther apart than this, in the one or in the other."""
    way = inverse(T_world_a) @ T_world_b
    return bool(np.linalg.norm(way[:3, 3]) > metres or np.degrees(rotation_angle(way)) > degrees)


def orthonormalized(T: np.ndarray) -> np.ndarray:
    """T (..., 4, 4) with rotations replaced by the nearest true ones: text files round to a few digits."""
    u, _, vt = np.linalg.svd(T[..., :3, :3])
    u[..., 2] *= np.linalg.det(u @ vt)[..., None]
    result = np.zeros_like(T)
    result[..., :3, :3], result[..., :3, 3], result[..., 3, 3] = u @ vt, T[..., :3, 3], 1
    return result


def is_rigid(T: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Whether T is finite, ends in 0 0 0 1 and has a proper rotation up to the tolerance."""
    return T.shape == (4, 4) and bool(are_rigid(T, tolerance))


def are_rigid(T: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """(...) bool: which of (..., 4, 4) `is_rigid` holds for."""
    R = T[..., :3, :3]
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity compare as False
        orthonormal = (np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)) <= tolerance).all(axis=(-2, -1))
        ends = (np.abs(T[..., 3, :] - [0, 0, 0, 1]) <= LAST_ROW).all(axis=-1)
        proper = np.linalg.det(R) > 0
    return orthonormal & ends & proper & np.isfinite(T[..., :3, 3]).all(axis=-1)
