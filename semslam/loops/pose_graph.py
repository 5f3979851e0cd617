"""A pose graph: poses that agree best with the motions measured between them, and with where they were measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from semslam import poses

WORLD = -1  # as the first end of an edge: its motion is a pose in the world, a prior of the second end


@dataclass(frozen=True, eq=False)
class Edge:
    """A measured motion between two nodes, or the measured pose of one."""

    i: int  # or WORLD
    j: int
    T_i_j: np.ndarray  # (4, 4)
    information: np.ndarray  # (6, 6) inverse covariance of the twist of T_i_j, in j's frame
    closure: bool = False  # between distant keyframes: may be wrong, so it is weighted robustly


class _Graph:
    """Edges as arrays."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.i, self.j = np.array([(e.i, e.j) for e in edges], np.int64).reshape(-1, 2).T
        self.back = poses.inverse(np.array([e.T_i_j for e in edges], np.float64).reshape(-1, 4, 4))
        self.information = np.array([e.information for e in edges], np.float64).reshape(-1, 6, 6)
        self.closure = np.array([e.closure for e in edges], bool)

    def between(self, T: np.ndarray) -> np.ndarray:
        """T_i_j (E, 4, 4) as poses (N + 1, 4, 4) have it, of which the last, which WORLD indexes, is the world."""
        return poses.inverse(T[self.i]) @ T[self.j]

    def residuals(self, between: np.ndarray) -> np.ndarray:
        """Twists (E, 6) from the measured motions to those."""
        return poses.log(self.back @ between)

    def squares(self, residuals: np.ndarray) -> np.ndarray:
        """(E,) squared residuals, in standard deviations."""
        return np.einsum("ea,eab,eb->e", residuals, self.information, residuals)

    def cost(self, squares: np.ndarray, robust: float) -> float:
        """The sum that is minimised: squares, those of closures under Cauchy's function."""
        closures = squares[self.closure]
        return float(squares[~self.closure].sum() + (robust**2 * np.log1p(closures / robust**2)).sum())


def optimized_poses(
    T_world: np.ndarray,
    edges: Sequence[Edge],
    *,
    fixed: Collection[int] = (0,),
    robust: float = 5.0,
    iterations: int = 20,
) -> np.ndarray:
    """Poses (N, 4, 4) that agree best with the edges; the `fixed` ones stay where they are.

    Gauss-Newton on the twists log(T_i_j^-1 T_i^-1 T_j), weighted by their information, with exact Jacobians and steps
    that are halved where they would raise the cost; closures are weighted by Cauchy's function of `robust` standard
    deviations besides, so that a wrong one loses its influence (Agarwal et al., ICRA 2013). That constant starts large
    and comes down: a drift of many standard deviations must not make its own closure look wrong.
    """
    n, graph = len(T_world), _Graph(edges)
    free = np.setdiff1d(np.arange(n), np.array(list(fixed), np.int64))
    T = np.concatenate([T_world, np.eye(4)[None]])
    if not len(free) or not edges:
        return T[:n]
    system = _System(graph, free, n)
    between = graph.between(T)
    r = graph.residuals(between)
    squares = graph.squares(r)
    for iteration in range(iterations):
        constant = max(robust, 1000.0 / 4**iteration)
        step = system.step(between, r, squares, constant)
        allowed = graph.cost(squares, constant) * (1 + 1e-9) + 1e-12
        for _ in range(10):
            tried = T.copy()
            tried[free] = T[free] @ poses.exp(step)
            between = graph.between(tried)
            r = graph.residuals(between)
            squares = graph.squares(r)
            if graph.cost(squares, constant) <= allowed:
                break
            step = step / 2
        else:
            break  # no step that lowers the cost is left
        T = tried
        if np.abs(step).max() < 1e-8 and constant == robust:
            break
    T[free] = poses.orthonormalized(T[free])
    return T[:n]


class _System:
    """The normal equations of the free nodes."""

    def __init__(self, graph: _Graph, free: np.ndarray, n: int) -> None:
        self.graph, self.size = graph, 6 * len(free)
        place = np.full(n + 1, -1)
        place[free] = np.arange(len(free))
        i, j = place[graph.i], place[graph.j]
        self.ends = i, j
        rows, columns = np.stack([i, i, j, j]), np.stack([i, j, i, j])  # the blocks that an edge fills
        self.filled = (rows >= 0) & (columns >= 0)
        rows, columns = rows[self.filled], columns[self.filled]
        self.rows = (6 * rows[:, None, None] + np.arange(6)[:, None] + np.zeros(6, np.int64)).ravel()
        self.columns = (6 * columns[:, None, None] + np.arange(6) + np.zeros((6, 1), np.int64)).ravel()

    def step(self, between: np.ndarray, r: np.ndarray, squares: np.ndarray, constant: float) -> np.ndarray:
        """Gauss-Newton twists (free, 6) x of T exp(x)."""
        graph = self.graph
        W = graph.information.copy()
        W[graph.closure] /= (1 + squares[graph.closure] / constant**2)[:, None, None]
        # T_i exp(x_i), T_j exp(x_j) turn T_i_j into T_i_j exp(x_j - Ad(T_j_i) x_i), to first order.
        J_j = poses.inverse_right_jacobian(r)
        J_i = -J_j @ poses.adjoint(poses.inverse(between))
        JW_i, JW_j = (np.swapaxes(J, 1, 2) @ W for J in (J_i, J_j))
        blocks = np.stack([JW_i @ J_i, JW_i @ J_j, JW_j @ J_i, JW_j @ J_j])[self.filled]
        hessian = sparse.csc_matrix((blocks.ravel(), (self.rows, self.columns)), (self.size, self.size))
        gradient = np.zeros((self.size // 6, 6))
        for end, JW in zip(self.ends, (JW_i, JW_j)):
            np.add.at(gradient, end[end >= 0], (JW @ r[..., None])[end >= 0, :, 0])
        damped = (hessian + 1e-9 * sparse.identity(self.size)).tocsc()
        # symmetric: an ordering for A + A^T, and pivots on the diagonal, fill in half of what a general one does
        factors = splu(damped, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        return -factors.solve(gradient.ravel()).reshape(-1, 6)


def squared_errors(T_world: np.ndarray, edges: Sequence[Edge]) -> np.ndarray:
    """(E,) how far the poses (N, 4, 4) contradict each edge, in squared standard deviations."""
    graph = _Graph(edges)
    return graph.squares(graph.residuals(graph.between(np.concatenate([T_world, np.eye(4)[None]]))))


def cost(T_world: np.ndarray, edges: Sequence[Edge], robust: float) -> float:
    """What `optimized_poses` minimises, at the poses (N, 4, 4)."""
    return _Graph(edges).cost(squared_errors(T_world, edges), robust)


def disagreement(T_world: np.ndarray, edges: Sequence[Edge]) -> tuple[float, float]:
    """Metres and radians by which poses (N, 4, 4) contradict the edge that they contradict most."""
    if not edges:
        return 0.0, 0.0
    graph = _Graph(edges)
    r = graph.residuals(graph.between(np.concatenate([T_world, np.eye(4)[None]])))
    return float(np.linalg.norm(r[:, :3], axis=1).max()), float(np.linalg.norm(r[:, 3:], axis=1).max())
