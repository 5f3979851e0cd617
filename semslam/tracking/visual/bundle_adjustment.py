"""Bundle adjustment: camera poses and landmarks that agree best with where images show the landmarks.

A landmark lies on the ray of a pixel of its host image, at a depth whose logarithm is the one unknown: points far away
or seen under little parallax are as well behaved as any (Civera et al., "Inverse Depth Parametrization for Monocular
SLAM", T-RO 2008). Minimised over poses, depths and, where wanted, the focal length is

    sum rho(|f pi(R_j a + t_j exp(-l)) - z|^2 / pixel_std^2) + sum weight (l - prior)^2, a = R_h^T (ray - t_h exp(-l)),

and, where poses P are known beforehand, sum |log(T P^-1) / (std, std_turn)|^2 (`PosePriors`);
rho Huber's, l the logarithm of a depth, h the host and j the observing image, by Levenberg and Marquardt. Each landmark
is eliminated on its own (Schur complement), which leaves a dense system of six numbers a camera.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from semslam import cholesky, poses
from semslam.compiled import SERIAL

# Columns of an observation's derivatives: twists of its camera and of the host, logarithms of depth and focal length
OBSERVER, HOST, DEPTH, FOCAL, UNKNOWNS = 0, 6, 12, 13, 14


class Scene(NamedTuple):
    """Cameras, landmarks and what was seen. Poses take world coordinates to the camera; pixels are centred: u - cx."""

    T_camera_world: np.ndarray  # (N, 4, 4) float64
    fixed: np.ndarray  # (N,) bool: poses that stay
    host: np.ndarray  # (L,) int64 camera that each landmark was first seen by
    pixel: np.ndarray  # (L, 2) float64 where, pixels from the principal point
    log_depth: np.ndarray  # (L,) float64 logarithm of its depth along the host's z in metres
    prior: np.ndarray  # (L,) float64 what the network says of that
    prior_weight: np.ndarray  # (L,) float64 1 / variance of the prior, 0 = none
    landmark: np.ndarray  # (M,) int64 of each observation, grouped: those of one landmark follow each other
    camera: np.ndarray  # (M,) int64 not the host
    seen: np.ndarray  # (M, 2) float64 pixels from the principal point
    focal: float  # pixels
    focal_prior: float = 0.0  # pixels: what is known of it ...
    focal_std: float = 0.0  # ... and the standard deviation of its logarithm; 0 = it stays


class PosePriors(NamedTuple):
    """What is known of the poses of a scene's N cameras beforehand."""

    T_camera_world: np.ndarray  # (N, 4, 4) float64; anything where it is not known
    known: np.ndarray  # (N,) bool
    std: float  # metres, along each axis
    std_turn: float  # radians, likewise


class Adjusted(NamedTuple):
    """What came out."""

    T_camera_world: np.ndarray  # (N, 4, 4)
    log_depth: np.ndarray  # (L,)
    focal: float
    focal_std: float  # of its logarithm, all others free to follow; 0 where it stayed
    residuals: np.ndarray  # (M,) pixels, infinite behind a camera
    information: np.ndarray  # (L,) of each logarithm of depth, the poses held


class Equations(NamedTuple):
    """Normal equations in S unknowns, six per free camera and the log of the focal length; the landmarks' apart."""

    H: np.ndarray  # (S, S)
    g: np.ndarray  # (S,) half of the gradient
    H_ll: np.ndarray  # (L,) of the landmarks, which do not meet one another
    g_l: np.ndarray  # (L,)
    coupling: np.ndarray  # (M + L, 7) of a landmark with an observer's twist or, after those, its host's and the focal
    residuals: np.ndarray  # (M,) pixels


class Layout(NamedTuple):
    """Where things stand."""

    starts: np.ndarray  # (L + 1,) the first observation of each landmark
    slot: np.ndarray  # (N,) of each camera among the unknowns, -1 for fixed ones


def adjust(
    scene: Scene,
    iterations: int = 10,
    huber: float = 2.0,
    pixel_std: float = 1.0,
    priors: PosePriors | None = None,
) -> Adjusted:
    """The scene after at most so many steps.

    huber: pixel_std's from which an observation counts linearly. pixel_std: pixels, of where a landmark is seen.
    priors: what is known of the poses; without it some camera has to be fixed, or the world is free to move.
    """
    slot = np.where(scene.fixed, -1, np.cumsum(~scene.fixed) - 1)
    size = 6 * int((~scene.fixed).sum()) + 1
    layout = Layout(np.searchsorted(scene.landmark, np.arange(len(scene.host) + 1)), slot)
    cost, equations = linearised(scene, layout, size, huber, pixel_std, priors)
    damping = 1e-4
    for _ in range(iterations):
        H, g = equations.H.copy(), equations.g.copy()
        damped = equations.H_ll * (1 + damping) + 1e-9
        _eliminate(scene, layout, damped, equations, H, g)
        H[np.diag_indices(size)] += damping * np.diag(equations.H) + 1e-9
        if scene.focal_std == 0:
            H[-1, :] = H[:, -1] = 0
            H[-1, -1], g[-1] = 1, 0
        step = cholesky.solved(H, -g)
        if step is None:
            damping *= 10
            continue
        T = scene.T_camera_world.copy()
        for n in np.flatnonzero(slot >= 0):
            T[n] = poses.exp(step[6 * slot[n] : 6 * slot[n] + 6]) @ T[n]
        back = np.clip(_substitute(scene, layout, damped, equations, step), -1, 1)
        logs = np.clip(scene.log_depth + back, -3, 6)
        moved = scene._replace(T_camera_world=T, log_depth=logs, focal=scene.focal * float(np.exp(step[-1])))
        new_cost, new_equations = linearised(moved, layout, size, huber, pixel_std, priors)
        if new_cost < cost:
            little = cost - new_cost < 1e-4 * cost
            scene, cost, equations = moved, new_cost, new_equations
            damping = max(damping / 5, 1e-8)
            if little:
                break
        else:
            damping *= 10
            if damping > 1e6:
                break
    spread = _focal_std(scene, layout, equations) if scene.focal_std > 0 else 0.0
    return Adjusted(scene.T_camera_world, scene.log_depth, scene.focal, spread, equations.residuals, equations.H_ll)


def _focal_std(scene: Scene, layout: Layout, equations: Equations) -> float:
    """The standard deviation of the focal length's logarithm: the last diagonal entry of the inverse information."""
    H, g = equations.H.copy(), equations.g.copy()
    _eliminate(scene, layout, equations.H_ll + 1e-9, equations, H, g)
    H[np.diag_indices(len(H))] += 1e-9
    last = np.zeros(len(H))
    last[-1] = 1
    found = cholesky.solved(H, last)
    return scene.focal_std if found is None else float(np.sqrt(found[-1]))


def linearised(
    scene: Scene, layout: Layout, size: int, huber: float, pixel_std: float, priors: PosePriors | None = None
) -> tuple[float, Equations]:
    """The cost of a scene, and its normal equations in `size` unknowns."""
    M, L = len(scene.landmark), len(scene.host)
    equations = Equations(
        np.zeros((size, size)), np.zeros(size), np.zeros(L), np.zeros(L), np.zeros((M + L, 7)), np.empty(M)
    )
    cost = _linearise(scene, layout, huber, 1 / pixel_std, equations)
    if scene.focal_std > 0:
        difference, weight = np.log(scene.focal / scene.focal_prior), 1 / scene.focal_std**2
        cost += weight * difference**2
        equations.g[-1] += weight * difference
        equations.H[-1, -1] += weight
    return cost if priors is None else cost + _pull(scene, layout, priors, equations), equations


def _pull(scene: Scene, layout: Layout, priors: PosePriors, equations: Equations) -> float:
    """The cost of the poses' distances to what is known of them; adds to `equations`.

    The derivative of log(exp(x) T P^-1) by x is taken as 1, which it is for small distances.
    """
    weight, cost = 1 / np.repeat([priors.std, priors.std_turn], 3) ** 2, 0.0
    for n in np.flatnonzero(priors.known & (layout.slot >= 0)):
        apart = poses.log(scene.T_camera_world[n] @ poses.inverse(priors.T_camera_world[n]))
        rows = slice(6 * layout.slot[n], 6 * layout.slot[n] + 6)
        cost += float(weight @ apart**2)
        equations.g[rows] += weight * apart
        equations.H[rows, rows] += np.diag(weight)
    return cost


@nb.njit(**SERIAL)
def _linearise(scene, layout, huber, inverse_std, equations):
    """The cost; adds to `equations`. The focal length's part of coupling stands in the host's row, summed."""
    focal, slot, residuals = scene.focal, layout.slot, equations.residuals
    cost = 0.0
    R, t, y = np.empty((3, 3)), np.empty(3), np.empty(3)
    D, J = np.zeros((3, UNKNOWNS)), np.empty((2, UNKNOWNS))
    for l in range(scene.host.size):
        h = scene.host[l]
        difference = scene.log_depth[l] - scene.prior[l]
        cost += scene.prior_weight[l] * difference * difference
        equations.H_ll[l] += scene.prior_weight[l]
        equations.g_l[l] += scene.prior_weight[l] * difference
        inverse_depth = np.exp(-scene.log_depth[l])
        ray = np.array([scene.pixel[l, 0] / focal, scene.pixel[l, 1] / focal, 1.0])
        for m in range(layout.starts[l], layout.starts[l + 1]):
            j = scene.camera[m]
            _between(scene.T_camera_world[j], scene.T_camera_world[h], R, t)
            for k in range(3):
                y[k] = R[k, 0] * ray[0] + R[k, 1] * ray[1] + R[k, 2] * ray[2] + t[k] * inverse_depth
            if y[2] < 1e-3:
                residuals[m] = np.inf
                cost += 1e4
                continue
            r0, r1 = focal * y[0] / y[2] - scene.seen[m, 0], focal * y[1] / y[2] - scene.seen[m, 1]
            residuals[m] = np.sqrt(r0 * r0 + r1 * r1)
            scaled, weight = residuals[m] * inverse_std, inverse_std * inverse_std
            if scaled <= huber:
                cost += scaled * scaled
            else:
                cost += huber * (2 * scaled - huber)
                weight *= huber / scaled
            _differentiate(R, t, ray, inverse_depth, y, focal, D, J)
            _add(equations, J, (r0, r1), weight, (m, l), (slot[j], slot[h]))
    return cost


@nb.njit(**SERIAL)
def _between(T_camera_world, T_host_world, R, t):
    """Writes the rotation (3, 3) and translation (3,) that take the host's coordinates to the camera's."""
    for k in range(3):
        t[k] = T_camera_world[k, 3]
        for i in range(3):
            R[k, i] = 0.0
            for n in range(3):
                R[k, i] += T_camera_world[k, n] * T_host_world[i, n]
            t[k] -= R[k, i] * T_host_world[i, 3]


@nb.njit(**SERIAL)
def _differentiate(R, t, ray, inverse_depth, y, focal, D, J):
    """Writes the derivatives J (2, UNKNOWNS) of the pixel where a landmark is seen, at y = R ray + t / depth, and those
    of y, D (3, UNKNOWNS), zero before where they are always.

    Twists move cameras on the left: exp(x) T_camera_world.
    """
    for k in range(3):
        D[k, k] = inverse_depth
    D[0, 4], D[0, 5] = y[2], -y[1]
    D[1, 3], D[1, 5] = -y[2], y[0]
    D[2, 3], D[2, 4] = y[1], -y[0]
    for k in range(3):
        for i in range(3):
            D[k, HOST + i] = -inverse_depth * R[k, i]
        # R [ray]x
        D[k, HOST + 3] = -(R[k, 1] * -ray[2] + R[k, 2] * ray[1])
        D[k, HOST + 4] = -(R[k, 0] * ray[2] + R[k, 2] * -ray[0])
        D[k, HOST + 5] = -(R[k, 0] * -ray[1] + R[k, 1] * ray[0])
        D[k, DEPTH] = -inverse_depth * t[k]
        D[k, FOCAL] = -(R[k, 0] * ray[0] + R[k, 1] * ray[1])  # by way of the ray
    for row in range(2):
        p = y[row] / y[2]
        for i in range(UNKNOWNS):
            J[row, i] = focal * (D[row, i] - p * D[2, i]) / y[2]
        J[row, FOCAL] += focal * p


@nb.njit(**SERIAL)
def _add(equations, J, r, weight, rows, slots):
    """Add what one observation says. r: its error (2,), pixels. rows: m and l of it and its landmark. slots: of its
    camera and of the host."""
    (m, l), M = rows, equations.residuals.size
    H, g, coupling = equations.H, equations.g, equations.coupling
    F = H.shape[0] - 1
    equations.H_ll[l] += weight * _product(J, DEPTH, DEPTH)
    equations.g_l[l] += weight * (J[0, DEPTH] * r[0] + J[1, DEPTH] * r[1])
    H[F, F] += weight * _product(J, FOCAL, FOCAL)
    g[F] += weight * (J[0, FOCAL] * r[0] + J[1, FOCAL] * r[1])
    coupling[M + l, 6] += weight * _product(J, DEPTH, FOCAL)
    for a, at, row in ((slots[0], OBSERVER, m), (slots[1], HOST, M + l)):
        if a < 0:
            continue
        for i in range(6):
            coupling[row, i] += weight * _product(J, DEPTH, at + i)
            g[6 * a + i] += weight * (J[0, at + i] * r[0] + J[1, at + i] * r[1])
            mixed = weight * _product(J, at + i, FOCAL)
            H[6 * a + i, F] += mixed
            H[F, 6 * a + i] += mixed
            for k in range(6):
                H[6 * a + i, 6 * a + k] += weight * _product(J, at + i, at + k)
    if slots[0] >= 0 and slots[1] >= 0:
        for i in range(6):
            for k in range(6):
                mixed = weight * _product(J, OBSERVER + i, HOST + k)
                H[6 * slots[0] + i, 6 * slots[1] + k] += mixed
                H[6 * slots[1] + k, 6 * slots[0] + i] += mixed


@nb.njit(inline="always")
def _product(J, i, k):
    """Of two columns of J (2, UNKNOWNS)."""
    return J[0, i] * J[0, k] + J[1, i] * J[1, k]


@nb.njit(**SERIAL)
def _eliminate(scene, layout, H_ll, equations, H, g):
    """The Schur complement: take from H and g what the landmarks, each free to follow, explain."""
    host, camera, starts, slot = scene.host, scene.camera, layout.starts, layout.slot
    g_l, coupling = equations.g_l, equations.coupling
    M, F = camera.size, H.shape[0] - 1
    for l in range(host.size):
        first, last = starts[l], starts[l + 1]
        if first == last:
            continue
        scale = 1.0 / H_ll[l]
        for m in range(first, last + 1):
            row = M + l if m == last else m
            a = slot[host[l]] if m == last else slot[camera[m]]
            if a < 0:
                continue
            for i in range(6):
                x = coupling[row, i] * scale
                g[6 * a + i] -= x * g_l[l]
                H[6 * a + i, F] -= x * coupling[M + l, 6]
                H[F, 6 * a + i] -= x * coupling[M + l, 6]
                for n in range(first, last + 1):
                    other = M + l if n == last else n
                    b = slot[host[l]] if n == last else slot[camera[n]]
                    if b >= 0:
                        for k in range(6):
                            H[6 * a + i, 6 * b + k] -= x * coupling[other, k]
        g[F] -= coupling[M + l, 6] * scale * g_l[l]
        H[F, F] -= coupling[M + l, 6] * scale * coupling[M + l, 6]


@nb.njit(**SERIAL)
def _substitute(scene, layout, H_ll, equations, step):
    """The steps (L,) of the landmarks that go with a step of the cameras."""
    host, camera, starts, slot = scene.host, scene.camera, layout.starts, layout.slot
    g_l, coupling = equations.g_l, equations.coupling
    M = camera.size
    result = np.zeros(host.size)
    for l in range(host.size):
        if starts[l] == starts[l + 1]:
            continue
        total = g_l[l] + coupling[M + l, 6] * step[step.size - 1]
        for m in range(starts[l], starts[l + 1] + 1):
            row = M + l if m == starts[l + 1] else m
            a = slot[host[l]] if m == starts[l + 1] else slot[camera[m]]
            if a >= 0:
                for i in range(6):
                    total += coupling[row, i] * step[6 * a + i]
        result[l] = -total / H_ll[l]
    return result
