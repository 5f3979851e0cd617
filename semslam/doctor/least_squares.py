"""Least squares of points that two frames show, whitened by the errors of both (Gauss-Helmert), with standard errors.

Unknowns of a whole recording are solved for together with each pair's motion, which is eliminated, or by given motions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student_t

from semslam import poses
from semslam.camera import depth_std

PIXEL_STD = 0.6  # pixels, of a feature
ROBUST = 3.0  # standard deviations, of Cauchy's weight
ITERATIONS, SETTLED = 60, 2e-4
DETERMINED = 1e10  # condition of the normal equations, at most
ONE_STD = 0.8413  # share of a normal distribution below one standard deviation


class Settled(NamedTuple):
    """Unknowns (K,) of a whole recording, and each of N pairs' part of their normal equations."""

    values: np.ndarray
    H: np.ndarray  # (N, K, K)
    g: np.ndarray  # (N, K)
    misfit: float  # squared, in standard deviations of the points; the median


# number of a pair, its motion T_last_first, the unknowns -> H, g and misfit, see `normal_equations`
Equations = Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def settled(
    equations: Equations, motions: Sequence[np.ndarray], farthest: Sequence[float], given: bool = False
) -> Settled | None:
    """The unknowns by Gauss and Newton, from 0 on; None where they do not settle, or are not determined.

    farthest: (K,) largest sizes of the unknowns, beyond which points determine none. given: whether the motions, (4, 4)
    each, stay; else each is solved for, too, and its twist stands before the unknowns in the equations.
    """
    x, motions = np.zeros(len(farthest)), list(motions)
    for _ in range(ITERATIONS):
        normal = [equations(i, T, x) for i, T in enumerate(motions)]
        parts = [(H, g) for H, g, _ in normal]
        reduced, back = (parts, ()) if given else zip(*(eliminated(H, g) for H, g in parts))
        H, g = np.stack([H for H, _ in reduced]), np.stack([g for _, g in reduced])
        if not np.linalg.cond(H.sum(axis=0)) < DETERMINED:
            return None
        step = np.clip(np.linalg.solve(H.sum(axis=0), g.sum(axis=0)), -0.2, 0.2)
        x = x + step
        if np.any(np.abs(x) > farthest):
            return None
        motions = [poses.exp(own - by @ step) @ T for (own, by), T in zip(back, motions)] if back else motions
        if np.abs(step).max() < SETTLED:
            return Settled(x, H, g, float(np.median(np.concatenate([misfit for _, _, misfit in normal]))))
    return None


def normal_equations(
    J: np.ndarray, residual: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H (K, K) and g (K,) with H @ step = g, and the squared misfit (N,) of the points in standard deviations.

    J (N, 3, K): derivatives of the residual (N, 3), in metres; spread (N, 3, 3): the covariance of that.
    """
    weighted = np.linalg.solve(spread, np.concatenate([J, residual[..., None]], axis=-1))
    misfit = np.einsum("ni,ni->n", residual, weighted[..., -1])
    weight = 1 / (1 + misfit / ROBUST**2)  # Cauchy
    H = np.einsum("n,nij,nik->jk", weight, J, weighted[..., :-1])
    return H, -np.einsum("n,nij,ni->j", weight, J, weighted[..., -1]), misfit


def covariance(points: np.ndarray, focal: float, errors: tuple[float, float, float]) -> np.ndarray:
    """(N, 3, 3) of points (N, 3), by the standard deviation of pixels and what `SENSORS` says of depth."""
    pixel_std, base, quadratic = errors
    z = points[:, 2]
    along = points / z[:, None] * depth_std(z, base, quadratic)[:, None]
    across = np.zeros((len(points), 3, 3))
    across[:, 0, 0] = across[:, 1, 1] = (z * pixel_std / focal) ** 2
    return across + along[:, :, None] * along[:, None, :]


def eliminated(H: np.ndarray, g: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The Schur complement of a motion's twist, and its step: (6,), less (6, 1) times the step of what is left."""
    own = np.linalg.solve(H[:6, :6], np.column_stack([g[:6], H[:6, 6:]]))
    return (H[6:, 6:] - H[6:, :6] @ own[:, 1:], g[6:] - H[6:, :6] @ own[:, 0]), (own[:, 0], own[:, 1:])


def error_left_out(H: np.ndarray, g: np.ndarray, stretches: int) -> np.ndarray:
    """The standard error by leaving out stretches in turn (the jackknife of blocks: Kuensch, Ann. Stat. 1989).

    H (N, K, K), g (N, K): each pair's part of the normal equations at the solution, in the order of their frames. Few
    stretches tell their spread badly: Student's distribution widens it.
    """
    stretches = min(stretches, len(H))
    left_out = np.array_split(np.arange(len(H)), stretches)
    total_H, total_g = H.sum(axis=0), g.sum(axis=0)
    steps = np.array([np.linalg.solve(total_H - H[out].sum(axis=0), total_g - g[out].sum(axis=0)) for out in left_out])
    spread = np.sqrt((stretches - 1) / stretches * ((steps - steps.mean(axis=0)) ** 2).sum(axis=0))
    return spread * student_t.ppf(ONE_STD, stretches - 1)
