"""A pose graph: keyframe poses that agree best with the motions measured between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from semslam import poses


@dataclass(frozen=True, eq=False)
class Edge:
    """A measured motion between two keyframes."""

    i: int
    j: int
    T_i_j: np.ndarray  # (4, 4)
    information: np.ndarray  # (6, 6) inverse covariance of the twist of T_i_j, in j's frame
    closure: bool = False  # between distant keyframes: may be wrong, so it is weighted robustly


def optimized_poses(
    T_world: np.ndarray, edges: Sequence[Edge], iterations: int = 20, robust: float = 5.0
) -> np.ndarray:
    """Keyframe poses (N, 4, 4) that agree best with the edges; the first keyframe stays where it is.

    Gauss-Newton on the twists log(T_i_j^-1 T_i^-1 T_j), weighted by their information; closures by Cauchy's weight
    with the given constant besides, so that a wrong one loses its say (Agarwal et al., ICRA 2013). The constant starts
    large and comes down: a drift of many standard deviations must not make its own closure look wrong.
    """
    T = T_world.copy()
    n = len(T)
    if n < 2 or not edges:
        return T
    i, j = np.array([(e.i, e.j) for e in edges]).T
    back = poses.inverse(np.stack([e.T_i_j for e in edges]))
    information = np.stack([e.information for e in edges])
    closure = np.array([e.closure for e in edges])
    ends = np.stack([i, i, j, j]), np.stack([i, j, i, j])  # the blocks of the normal equations that an edge fills
    rows = (6 * ends[0][..., None, None] + np.arange(6)[:, None] + np.zeros(6, int)).ravel()
    columns = (6 * ends[1][..., None, None] + np.arange(6) + np.zeros((6, 1), int)).ravel()
    for iteration in range(iterations):
        constant = max(robust, 1000.0 / 4**iteration)
        between = poses.inverse(T[i]) @ T[j]
        r = poses.log(back @ between)
        W = information.copy()
        cost = np.einsum("ea,eab,eb->e", r, information, r)
        W[closure] /= (1 + cost[closure] / constant**2)[:, None, None]
        # T_i exp(x_i), T_j exp(x_j) changes r by x_j - Ad(T_j^-1 T_i) x_i, up to second order in r.
        J_i = -poses.adjoint(poses.inverse(between))
        JW = np.swapaxes(J_i, 1, 2) @ W
        hessian = sparse.csc_matrix(
            (np.stack([JW @ J_i, JW, W @ J_i, W]).ravel(), (rows, columns)), (6 * n, 6 * n)
        )  # J_j is the identity
        gradient = np.zeros((n, 6))
        np.add.at(gradient, i, (JW @ r[..., None])[..., 0])
        np.add.at(gradient, j, (W @ r[..., None])[..., 0])
        step = np.zeros(6 * n)
        free = hessian[6:, 6:] + 1e-9 * sparse.identity(6 * n - 6)
        step[6:] = -spsolve(free.tocsc(), gradient.ravel()[6:])
        for k in range(1, n):
            T[k] = T[k] @ poses.exp(step[6 * k : 6 * k + 6])
        if np.abs(step).max() < 1e-6 and constant == robust:
            break
    return np.stack([poses.orthonormalized(pose) for pose in T])


def disagreement(T_world: np.ndarray, edges: Sequence[Edge]) -> tuple[float, float]:
    """Metres and radians by which poses (N, 4, 4) contradict the edge that they contradict most."""
    if not edges:
        return 0.0, 0.0
    between = np.stack([poses.inverse(T_world[e.i]) @ T_world[e.j] for e in edges])
    r = poses.log(poses.inverse(np.stack([e.T_i_j for e in edges])) @ between)
    return float(np.linalg.norm(r[:, :3], axis=1).max()), float(np.linalg.norm(r[:, 3:], axis=1).max())
