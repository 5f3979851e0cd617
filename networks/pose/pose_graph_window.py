"""Poses that agree best with a network's absolute predictions and an odometry's motions, over a window of frames.

The idea is that of MapNet+PGO (Brahmbhatt et al., "Geometry-Aware Learning of Maps for Camera Localization", CVPR
2018, section 3.4): a network's poses do not drift but jump, an odometry's motions are exact but drift. Minimised is

    sum_i |log(P_i^-1 T_i)|^2 / absolute variances  +  sum_ij |log(V_ij^-1 T_i^-1 T_j)|^2 / relative variances

over the poses T_i, with the predictions P_i and the motions V_ij, by Gauss-Newton on SE(3). Residuals are twists
(translation, rotation), so that both parts are metres and radians in the frame of the camera, and the Jacobians are
exact: where the steps end, the gradient of the sum is zero.

Everything works on many transforms at once, (..., 4, 4), because windows are small and there is one for every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Covariances:
    """How far predictions and motions are to be trusted: standard deviations, the same along every axis."""

    absolute_m: float = 0.2  # of the network, metres
    absolute_deg: float = 5.0
    relative_m: float = 0.01  # of the odometry, metres from one frame of the window to the next
    relative_deg: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < np.inf:
                raise ValueError(f"covariances.{name} is {value}; expected a positive number")

    @property
    def absolute(self) -> np.ndarray:
        """(6,) standard deviations of a prediction's twist: three in metres, three in radians."""
        return np.repeat([self.absolute_m, np.radians(self.absolute_deg)], 3)

    @property
    def relative(self) -> np.ndarray:
        """(6,) standard deviations of a motion's twist."""
        return np.repeat([self.relative_m, np.radians(self.relative_deg)], 3)


def optimised(
    poses: np.ndarray,
    relative: np.ndarray,
    window: int | None = 7,
    covariances: Covariances | None = None,
    *,
    skip: int = 1,
    all_pairs: bool = False,
) -> np.ndarray:
    """A trajectory of predictions, each pose replaced by the optimum of the window around it.

    At the ends of the trajectory the window lies inside it, and the pose is not its middle one.

    Args:
        poses: (N, 4, 4) predicted T_world_camera of consecutive frames.
        relative: (N - 1, 4, 4) motions T_i_j from frame i to j = i + 1, of an odometry.
        window: frames in a window; None = one window over all of them.
        skip: frames from one of the window to the next; the motions in between are composed.
        all_pairs: constrain every two frames of the window, not only neighbours. No new measurement comes of it: the
            motions only count more.

    Returns: (N, 4, 4).
    """
    poses, relative = np.asarray(poses, np.float64), np.asarray(relative, np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ValueError(f"the poses have shape {poses.shape}, expected (N, 4, 4)")
    if relative.shape != (max(len(poses) - 1, 0), 4, 4):
        raise ValueError(f"{len(poses)} poses need motions (N - 1, 4, 4) between them, found {relative.shape}")
    if (window is not None and window < 2) or skip < 1:
        raise ValueError(f"window is {window} and skip {skip}; expected at least 2 and 1")
    covariances = covariances or Covariances()
    result = poses.copy()
    for first in range(min(skip, len(poses))):  # each skip-th frame from here on is a trajectory of its own
        frames = np.arange(first, len(poses), skip)
        if len(frames) < 2:
            continue
        motions = np.stack([composed(relative[i : i + skip]) for i in frames[:-1]])
        result[frames] = _around_each(poses[frames], motions, window, covariances, all_pairs)
    return result


def composed(motions: np.ndarray) -> np.ndarray:
    """(4, 4) the motion that (K, 4, 4) motions make one after the other."""
    T = np.eye(4)
    for motion in motions:
        T = T @ motion
    return T


def _around_each(
    poses: np.ndarray, relative: np.ndarray, window: int | None, covariances: Covariances, all_pairs: bool
) -> np.ndarray:
    """`optimised` of neighbouring frames: all windows at once."""
    count = len(poses)
    window = count if window is None else min(window, count)
    pairs = [(i, j) for i in range(window) for j in range(i + 1, window) if all_pairs or j == i + 1]
    starts = np.clip(np.arange(count) - window // 2, 0, count - window)
    distinct, which = np.unique(starts, return_inverse=True)
    motions = np.stack(
        [np.stack([composed(relative[s + i : s + j]) for s in distinct]) for i, j in pairs], axis=1
    )  # (windows, pairs, 4, 4)
    solved = solve(poses[distinct[:, None] + np.arange(window)], pairs, motions, covariances)
    return solved[which, np.arange(count) - starts]


def solve(
    predicted: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    motions: np.ndarray,
    covariances: Covariances | None = None,
    iterations: int = 30,
) -> np.ndarray:
    """The poses of one window, or of many of the same size, that minimise the sum of the module's head.

    Args:
        predicted: (..., W, 4, 4) the network's poses, which is where the search starts.
        pairs: M pairs (i, j) of frames of the window.
        motions: (..., M, 4, 4) T_i_j of these pairs.
        iterations: at most; ends when no pose moves by more than a tenth of a nanometre.

    Returns: (..., W, 4, 4).
    """
    covariances = covariances or Covariances()
    shape = predicted.shape
    predicted = predicted.reshape(-1, *shape[-3:]).astype(np.float64)
    motions = np.asarray(motions, np.float64).reshape(len(predicted), len(pairs), 4, 4)
    i, j = np.array(pairs, np.int64).reshape(-1, 2).T
    inverse_predicted, inverse_motions = inverse(predicted), inverse(motions)
    sigmas = covariances.absolute, covariances.relative

    def residuals(T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Absolute (B, W, 6) and relative (B, M, 6), and T_i_j as the poses have it."""
        between = inverse(T[:, i]) @ T[:, j]
        return log(inverse_predicted @ T), log(inverse_motions @ between), between

    def cost(absolute: np.ndarray, relative: np.ndarray) -> np.ndarray:
        return ((absolute / sigmas[0]) ** 2).sum((1, 2)) + ((relative / sigmas[1]) ** 2).sum((1, 2))

    T = predicted.copy()
    absolute, relative, between = residuals(T)
    now = cost(absolute, relative)
    for _ in range(iterations):
        step = _step(absolute, relative, between, i, j, sigmas)
        # half the step where the whole one goes too far: rotations are not linear
        fraction = np.ones(len(T))
        for _ in range(12):
            tried = T @ exp(fraction[:, None, None] * step)
            parts = residuals(tried)
            worse = cost(*parts[:2]) > now * (1 + 1e-12)
            if not worse.any():
                break
            fraction[worse] /= 2
        accepted = ~worse
        T[accepted] = tried[accepted]
        absolute, relative, between = residuals(T)
        now = cost(absolute, relative)
        if np.abs(fraction[:, None, None] * step)[accepted].max(initial=0.0) < 1e-10:
            break
    return T.reshape(shape)


def _step(
    absolute: np.ndarray,
    relative: np.ndarray,
    between: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    sigmas: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """(B, W, 6) Gauss-Newton twists x of T_i exp(x_i), all windows at once."""
    many, frames = absolute.shape[:2]
    hessian = np.zeros((many, frames, 6, frames, 6))
    gradient = np.zeros((many, frames, 6))
    J = inverse_right_jacobian(absolute) / sigmas[0][:, None]  # rows of the whitened residual
    r = absolute / sigmas[0]
    every = np.arange(frames)
    hessian[:, every, :, every, :] += np.moveaxis(_transposed(J) @ J, 1, 0)
    gradient += (_transposed(J) @ r[..., None])[..., 0]
    # T_i exp(x_i), T_j exp(x_j) turn T_i_j into T_i_j exp(x_j - Ad(T_j_i) x_i), to first order
    J_j = inverse_right_jacobian(relative) / sigmas[1][:, None]
    J_i = -J_j @ adjoint(inverse(between))
    r = relative / sigmas[1]
    for m in range(len(i)):
        for a, J_a in ((i[m], J_i[:, m]), (j[m], J_j[:, m])):
            gradient[:, a] += (_transposed(J_a) @ r[:, m, :, None])[..., 0]
            for b, J_b in ((i[m], J_i[:, m]), (j[m], J_j[:, m])):
                hessian[:, a, :, b, :] += _transposed(J_a) @ J_b
    size = 6 * frames
    step = np.linalg.solve(hessian.reshape(many, size, size), -gradient.reshape(many, size, 1))
    return step.reshape(many, frames, 6)


# --------------------------------------------------------------------------- SE(3), many at once; twists (t, rotation)


def inverse(T: np.ndarray) -> np.ndarray:
    """The inverses of rigid transforms (..., 4, 4)."""
    R_t = _transposed(T[..., :3, :3])
    result = np.zeros_like(T)
    result[..., :3, :3] = R_t
    result[..., :3, 3] = -(R_t @ T[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1
    return result


def exp(twist: np.ndarray) -> np.ndarray:
    """Transforms (..., 4, 4) of twists (..., 6); Barfoot, State Estimation for Robotics, eq. 7.86."""
    W = skew(twist[..., 3:])
    a, b, c = _series(np.linalg.norm(twist[..., 3:], axis=-1)[..., None, None])
    result = np.zeros((*twist.shape[:-1], 4, 4))
    result[..., :3, :3] = np.eye(3) + a * W + b * W @ W
    result[..., :3, 3] = ((np.eye(3) + b * W + c * W @ W) @ twist[..., :3, None])[..., 0]
    result[..., 3, 3] = 1
    return result


def log(T: np.ndarray) -> np.ndarray:
    """Twists (..., 6) of transforms (..., 4, 4), angles up to pi."""
    from scipy.spatial.transform import Rotation

    w = Rotation.from_matrix(T[..., :3, :3].reshape(-1, 3, 3)).as_rotvec().reshape(*T.shape[:-2], 3)
    W = skew(w)
    _, b, c = _series(np.linalg.norm(w, axis=-1)[..., None, None])
    t = np.linalg.solve(np.eye(3) + b * W + c * W @ W, T[..., :3, 3:])[..., 0]
    return np.concatenate([t, w], axis=-1)


def adjoint(T: np.ndarray) -> np.ndarray:
    """(..., 6, 6) with T exp(x) T^-1 = exp(adjoint(T) x)."""
    R = T[..., :3, :3]
    result = np.zeros((*T.shape[:-2], 6, 6))
    result[..., :3, :3] = result[..., 3:, 3:] = R
    result[..., :3, 3:] = skew(T[..., :3, 3]) @ R
    return result


def inverse_right_jacobian(twist: np.ndarray) -> np.ndarray:
    """(..., 6, 6) J with log(exp(twist) exp(x)) = twist + J x + O(x^2).

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


def skew(v: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices with skew(v) @ x = cross(v, x)."""
    result = np.zeros((*v.shape[:-1], 3, 3))
    result[..., 2, 1], result[..., 0, 2], result[..., 1, 0] = v[..., 0], v[..., 1], v[..., 2]
    return result - _transposed(result)


def _series(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sin(a) / a, (1 - cos(a)) / a^2, (a - sin(a)) / a^3."""
    small = angle < 1e-3
    x, square = np.where(small, 1.0, angle), angle**2
    return (
        np.where(small, 1 - square / 6, np.sin(x) / x),
        np.where(small, 0.5 - square / 24, 2 * np.sin(x / 2) ** 2 / x**2),
        np.where(small, 1 / 6 - square / 120, (x - np.sin(x)) / x**3),
    )


def _transposed(matrix: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrix, -1, -2)
