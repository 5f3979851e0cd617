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


def adjoint(T: np.ndarray) -> np.ndarray:
    """The (6, 6) matrix with T exp(x) T^-1 = exp(adjoint(T) x), twists (translation, rotation)."""
    R, t = T[:3, :3], T[:3, 3]
    result = np.zeros((6, 6))
    result[:3, :3] = result[3:, 3:] = R
    result[:3, 3:] = poses.skew(t) @ R
    return result


def optimized_poses(
    T_world: np.ndarray, edges: Sequence[Edge], iterations: int = 20, robust: float = 5.0
) -> np.ndarray:
    """Keyframe poses (N, 4, 4) that agree best with the edges; the first keyframe stays where it is.

    Gauss-Newton on the twists log(T_i_j^-1 T_i^-1 T_j), weighted by their information; closures by Cauchy's weight
    with the given constant besides, so that a wrong one loses its say (Agarwal et al., ICRA 2013).
    """
    T = T_world.copy()
    n = len(T)
    if n < 2 or not edges:
        return T
    for _ in range(iterations):
        rows, columns, values = [], [], []
        gradient = np.zeros((n, 6))
        for edge in edges:
            between = poses.inverse(T[edge.i]) @ T[edge.j]
            r = poses.log(poses.inverse(edge.T_i_j) @ between)
            weight = 1.0 / (1.0 + float(r @ edge.information @ r) / robust**2) if edge.closure else 1.0
            # T_i exp(x_i), T_j exp(x_j) changes r by x_j - Ad(T_j^-1 T_i) x_i, up to second order in r.
            J = {edge.i: -adjoint(poses.inverse(between)), edge.j: np.eye(6)}
            W = weight * edge.information
            for a in (edge.i, edge.j):
                gradient[a] += J[a].T @ W @ r
                for b in (edge.i, edge.j):
                    rows.append(np.repeat(np.arange(6) + 6 * a, 6))
                    columns.append(np.tile(np.arange(6) + 6 * b, 6))
                    values.append((J[a].T @ W @ J[b]).ravel())
        shape = (6 * n, 6 * n)
        hessian = sparse.csc_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
        step = np.zeros(6 * n)
        free = hessian[6:, 6:] + 1e-9 * sparse.identity(6 * n - 6)
        step[6:] = -spsolve(free.tocsc(), gradient.ravel()[6:])
        for k in range(1, n):
            T[k] = poses.orthonormalized(T[k] @ poses.exp(step[6 * k : 6 * k + 6]))
        if np.abs(step).max() < 1e-8:
            break
    return T
