"""Least squares over cameras, landmarks and what else a module asks of a sparse map, in NumPy: solved once, at the end.

`bundle_adjustment` is faster, and knows nothing but poses, depths and one focal length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self, TypeVar

import numpy as np
from scipy import sparse

from semslam import cholesky

HUBER = 2.0  # standard deviations from which an observation counts linearly
BEHIND = 1e4  # cost of a landmark behind its observer
STEPS, LITTLE = 15, 1e-4  # at most; relative decrease of the cost that ends the iteration


class Linearised(NamedTuple):
    """Errors of M observations, and how they change."""

    errors: np.ndarray  # (M, 2) standard deviations
    unknowns: np.ndarray  # (M, P) int numbers of the unknowns that each depends on, besides its landmark's depth
    by_unknown: np.ndarray  # (M, 2, P)
    by_log_depth: np.ndarray  # (M, 2)
    ahead: np.ndarray  # (M,) bool: the landmark is ahead of the observer


class Equations(NamedTuple):
    """Normal equations in S unknowns, and those of L landmarks, which do not meet one another."""

    H: np.ndarray  # (S, S)
    g: np.ndarray  # (S,) half of the gradient
    H_ll: np.ndarray  # (L,)
    g_l: np.ndarray  # (L,)
    coupling: sparse.csr_matrix  # (L, S)

    def reduced(self, H_ll: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """H and g less what the landmarks, each free to follow, explain (Schur complement)."""
        explained = self.coupling.T @ sparse.diags(1 / H_ll)
        return self.H - (explained @ self.coupling).toarray(), self.g - explained @ self.g_l

    def step(self, free: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Steps of the unknowns (S,) and landmarks (L,); None where there is none. free: (S,) bool, may change."""
        damped = self.H_ll * (1 + damping) + 1e-9
        H, g = self.reduced(damped)
        H[np.diag_indices(len(H))] += damping * np.diag(self.H) + 1e-9
        found = cholesky.solved(H[np.ix_(free, free)], -g[free])
        if found is None:
            return None
        step = np.zeros(len(free))
        step[free] = found
        return step, -(self.g_l + self.coupling @ step) / damped


class State(Protocol):
    """Values of the unknowns and of the landmarks' depths."""

    def moved(self, step: np.ndarray, landmarks: np.ndarray) -> Self:
        """After steps (S,) and (L,)."""


AnyState = TypeVar("AnyState", bound=State)


def equations_of(found: Linearised, landmark: np.ndarray, unknowns: int, landmarks: int) -> tuple[float, Equations]:
    """The cost of observations under Huber's loss, and their normal equations. landmark: (M,) of each observation."""
    size = np.linalg.norm(found.errors, axis=1)
    rho = np.where(size <= HUBER, size**2, HUBER * (2 * size - HUBER))
    weight = np.where(found.ahead, np.minimum(1, HUBER / np.maximum(size, 1e-12)), 0.0)
    root, count = np.sqrt(weight)[:, None], len(size)
    errors, by_log_depth = root * found.errors, root * found.by_log_depth
    width = found.unknowns.shape[1]
    columns, starts = np.repeat(found.unknowns, 2, axis=0).ravel(), width * np.arange(2 * count + 1)
    J = sparse.csr_matrix(((root[:, :, None] * found.by_unknown).ravel(), columns, starts), shape=(2 * count, unknowns))
    of_landmark = np.repeat(landmark, 2), np.arange(2 * count)
    D = sparse.csr_matrix((by_log_depth.ravel(), of_landmark), shape=(landmarks, 2 * count))
    equations = Equations(
        (J.T @ J).toarray(),
        J.T @ errors.ravel(),
        np.bincount(landmark, (by_log_depth**2).sum(axis=1), minlength=landmarks),
        np.bincount(landmark, (by_log_depth * errors).sum(axis=1), minlength=landmarks),
        (D @ J).tocsr(),
    )
    return float(np.where(found.ahead, rho, BEHIND).sum()), equations


def minimised(
    state: AnyState, linearised: Callable[[AnyState], tuple[float, Equations]], free: np.ndarray
) -> tuple[AnyState, float]:
    """The state of least cost that Levenberg and Marquardt find from this one, and its cost.

    linearised: cost and normal equations of a state. free: (S,) bool, which unknowns may change.
    """
    cost, equations = linearised(state)
    damping = 1e-4
    for _ in range(STEPS):
        if (step := equations.step(free, damping)) is not None:
            moved = state.moved(*step)
            new_cost, new_equations = linearised(moved)
            if new_cost < cost:
                little = cost - new_cost < LITTLE * cost
                state, cost, equations, damping = moved, new_cost, new_equations, max(damping / 5, 1e-8)
                if little:
                    break
                continue
        damping *= 10
    return state, cost


def cross(x: np.ndarray) -> np.ndarray:
    """(N, 3, 3): matrices of the cross products of vectors (N, 3) with others."""
    zero = np.zeros(len(x))
    entries = [zero, -x[:, 2], x[:, 1], x[:, 2], zero, -x[:, 0], -x[:, 1], x[:, 0], zero]
    return np.stack(entries, axis=1).reshape(-1, 3, 3)
