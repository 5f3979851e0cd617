"""A Gauss-Newton step from the sums of both error terms and the motion that is expected, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from semslam.compiled import SERIAL
from semslam.tracking.registration.terms import COUNT, TRIANGLE, WRR, R, W


class Balance(NamedTuple):
    """How much the two terms and the motion that is expected count."""

    share: float  # of a measurement that one point is worth
    color_weight: float  # of the grey term against its statistical weight
    prior_translation: float  # metres: standard deviation of the motion expected
    prior_rotation: float  # radians
    degenerate: float  # mean squared share of the normals along a direction that geometry does not hold


@njit(**SERIAL)
def symmetric(sums):
    """The matrix J^T W J (6, 6) of a term's sums."""
    matrix = np.empty((6, 6))
    m = 0
    for a in range(6):
        for b in range(a, 6):
            matrix[a, b] = matrix[b, a] = sums[m]
            m += 1
    return matrix


@njit(**SERIAL)
def spread_of(sums):
    """Weighted standard deviation of a term's residuals, in units of the noise assumed."""
    return np.sqrt(sums[WRR] / max(sums[W], 1e-9))


@njit(**SERIAL)
def held_by_shape(hessian, degenerate):
    """(6, 6) what takes the geometric normal equations to those without directions that surfaces do not hold.

    Rotations are counted as motion at the typical distance of the points, so that all six eigenvalues are mean
    squared shares of the normals along a direction: 1 for motion straight at a wall, 0 along it.
    """
    total = hessian[0, 0] + hessian[1, 1] + hessian[2, 2]  # the sum of weights, since normals are units
    if total <= 0:
        return np.zeros((6, 6))
    reach = np.sqrt(max((hessian[3, 3] + hessian[4, 4] + hessian[5, 5]) / total, 1e-6))
    scale = np.ones(6)
    scale[3:] = 1 / reach
    values, vectors = np.linalg.eigh(hessian * (scale.reshape(6, 1) * scale) / total)
    keep = np.minimum(np.maximum(values / degenerate - 1, 0), 1)
    return (vectors * keep) @ vectors.T * (scale / scale.reshape(6, 1))


@njit(**SERIAL)
def turn_of(sums):
    """A Gauss-Newton step of one term in rotation alone, (3,)."""
    hessian = symmetric(sums)[3:, 3:]
    damped = hessian + 1e-3 * np.trace(hessian) * np.eye(3)
    return -np.linalg.solve(damped, sums[TRIANGLE + 3 : TRIANGLE + 6])


@njit(**SERIAL)
def step_of(sums, widths, balance, held_part, from_prior):
    """One Gauss-Newton step of both terms and the prior: the twist (6,) from the left, and its information (6, 6).

    sums: (2, SUMS) float64 of geometry and colour. widths: (3,) float64, the scales of geometry and grey and the grey
    offset that the sums were made with; replaced by those of the next iteration, which are never so narrow that a
    better pose could not be found any more. held_part: (6, 6), see `held_by_structure`. from_prior: (6,) twist from the
    pose expected to the present one.
    """
    geometry, color = sums[0], sums[1]
    spread = min(max(spread_of(geometry), 0.2), 6.0)
    grey_spread = max(spread_of(color), 3.0 / widths[1])
    widths[0] = 1.2 * spread
    widths[1] = min(max(1.1 * grey_spread * widths[1], 3.0), 30.0)
    widths[2] = color[R] / max(color[COUNT], 1.0)

    triangle = slice(TRIANGLE, TRIANGLE + 6)
    hessian, gradient = symmetric(geometry), geometry[triangle]
    held = held_by_shape(hessian, balance.degenerate)
    hessian, gradient = held @ hessian, held @ gradient
    color_share = balance.color_weight / grey_spread**2
    hessian = balance.share * (hessian / spread**2 + color_share * symmetric(color))
    gradient = balance.share * (gradient / spread**2 + color_share * color[triangle])
    hessian, gradient = held_part.T @ hessian @ held_part, held_part.T @ gradient
    for k in range(6):
        std = balance.prior_translation if k < 3 else balance.prior_rotation
        hessian[k, k] += 1 / std**2
        gradient[k] += from_prior[k] / std**2
    return -np.linalg.solve(hessian, gradient), hessian
