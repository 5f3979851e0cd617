"""Bundle adjustment on scenes whose truth is known, and its derivatives against difference quotients."""

from __future__ import annotations

import numpy as np
import pytest

from semslam import cholesky, poses
from semslam.tracking.visual import bundle_adjustment as ba
from semslam.tracking.visual.resection import Sighting, Tolerance, pose_equations


def scene(count: int = 6, landmarks: int = 120, seed: int = 0, noise: float = 0.0) -> tuple[ba.Scene, np.ndarray]:
    """Cameras on an arc before points, each of them hosted by a camera; and the true logarithms of their depths."""
    rng = np.random.default_rng(seed)
    T = np.stack(
        [poses.exp(np.array([0.15 * i, 0.02 * i * i, 0.05 * i, 0.01 * i, -0.04 * i, 0.02])) for i in range(count)]
    )
    focal, pixels, hosts, logs, rows = 300.0, [], [], [], []
    while len(hosts) < landmarks:
        h = int(rng.integers(count))
        pixel, z = rng.uniform(-140, 140, 2), float(rng.uniform(1, 4))
        point = poses.inverse(T[h]) @ np.array([*pixel / focal * z, z, 1])
        seen = []
        for j in range(count):
            x = T[j] @ point
            if j != h and x[2] > 0.3:
                seen.append((len(hosts), j, *(focal * x[:2] / x[2] + rng.normal(0, noise, 2))))
        if len(seen) > 1:
            rows += seen
            pixels.append(pixel)
            hosts.append(h)
            logs.append(np.log(z))
    table = np.array(rows)
    fixed = np.zeros(count, bool)
    fixed[:2] = True  # two poses hold the world's frame and its scale
    truth = np.array(logs)
    return ba.Scene(
        T, fixed, np.array(hosts), np.array(pixels), truth.copy(), truth.copy(), np.zeros(landmarks),
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:].copy(), focal,
    ), truth  # fmt: skip


def disturbed(exact: ba.Scene, seed: int = 1) -> ba.Scene:
    rng = np.random.default_rng(seed)
    T = exact.T_camera_world.copy()
    for n in np.flatnonzero(~exact.fixed):
        T[n] = poses.exp(rng.normal(0, 0.03, 6)) @ T[n]
    return exact._replace(T_camera_world=T, log_depth=exact.log_depth + rng.normal(0, 0.3, len(exact.log_depth)))


def test_exact_observations_lead_back_to_the_truth() -> None:
    exact, truth = scene()
    found = ba.adjust(disturbed(exact), iterations=30)
    assert np.abs(found.T_camera_world - exact.T_camera_world).max() < 1e-6
    assert np.abs(found.log_depth - truth).max() < 1e-5


def test_the_focal_length_is_found_where_it_is_asked_for() -> None:
    exact, _ = scene(landmarks=300)
    wrong = disturbed(exact)._replace(focal=360.0, fixed=np.arange(6) < 1, focal_prior=360.0, focal_std=0.3)
    wrong = wrong._replace(prior=exact.log_depth, prior_weight=np.full(300, 100.0))
    found = ba.adjust(wrong, iterations=60)
    assert found.focal == pytest.approx(300, abs=0.5)
    assert abs(np.log(found.focal / 300)) < found.focal_std < 0.02
    assert ba.adjust(wrong._replace(focal_std=0.0), iterations=60).focal == 360.0


def test_a_camera_that_stands_still_leaves_the_focal_length_as_it_was_guessed() -> None:
    exact, _ = scene(landmarks=100)
    T = np.broadcast_to(exact.T_camera_world[0], exact.T_camera_world.shape).copy()
    still = exact._replace(T_camera_world=T, seen=exact.pixel[exact.landmark], fixed=np.arange(6) < 1)
    still = still._replace(prior_weight=np.full(100, 10.0), focal=360.0, focal_prior=360.0, focal_std=0.3)
    assert ba.adjust(still, iterations=20).focal_std == pytest.approx(0.3, rel=0.05)


def test_a_tenth_of_wrong_observations_does_not_carry_the_cameras_away() -> None:
    exact, truth = scene(noise=0.3)
    seen = exact.seen.copy()
    rng = np.random.default_rng(5)
    wrong = rng.random(len(seen)) < 0.1
    seen[wrong] += rng.uniform(-60, 60, (int(wrong.sum()), 2))
    found = ba.adjust(disturbed(exact)._replace(seen=seen), iterations=50)
    apart = poses.inverse(found.T_camera_world) @ exact.T_camera_world
    assert np.linalg.norm(apart[:, :3, 3], axis=1).max() < 0.01


def test_the_gradient_is_the_difference_quotient_of_the_cost() -> None:
    start = disturbed(scene(count=4, landmarks=20)[0])
    start = start._replace(prior_weight=np.full(20, 2.0), prior=start.log_depth + 0.2)
    start = start._replace(focal_prior=280.0, focal_std=0.01)
    slot = np.where(start.fixed, -1, np.cumsum(~start.fixed) - 1)
    size = 6 * int((~start.fixed).sum()) + 1
    layout = ba.Layout(np.searchsorted(start.landmark, np.arange(21)), slot)

    def linearised(T: np.ndarray, logs: np.ndarray, focal: float) -> tuple[float, np.ndarray, np.ndarray]:
        moved = start._replace(T_camera_world=T, log_depth=logs, focal=focal)
        cost, equations = ba.linearised(moved, layout, size, 1e9, 1.0)
        return cost, equations.g, equations.g_l

    T, logs, focal = start.T_camera_world, start.log_depth, start.focal
    _, g, g_l = linearised(T, logs, focal)
    h = 1e-6
    for i in range(size - 1):
        moved = []
        for sign in (1, -1):
            twist = np.zeros(6)
            twist[i % 6] = sign * h
            other = T.copy()
            n = int(np.flatnonzero(slot == i // 6)[0])
            other[n] = poses.exp(twist) @ T[n]
            moved.append(linearised(other, logs, focal)[0])
        assert 2 * g[i] == pytest.approx((moved[0] - moved[1]) / (2 * h), rel=1e-4, abs=1e-2)
    up, down = (linearised(T, logs, focal * np.exp(s * h))[0] for s in (1, -1))
    assert 2 * g[-1] == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-2)
    for l in range(0, 20, 5):
        step = h * (np.arange(20) == l)
        quotient = (linearised(T, logs + step, focal)[0] - linearised(T, logs - step, focal)[0]) / (2 * h)
        assert 2 * g_l[l] == pytest.approx(quotient, rel=1e-4, abs=1e-2)


def test_poses_that_are_known_beforehand_hold_the_world_and_its_metre() -> None:
    """No pose is fixed; the observations say all but the frame and the scale, the priors say those."""
    exact, truth = scene()
    priors = ba.PosePriors(exact.T_camera_world, np.ones(6, bool), 0.02, 0.02)
    free = disturbed(exact._replace(fixed=np.zeros(6, bool)))
    found = ba.adjust(free, iterations=60, priors=priors)
    assert np.abs(found.T_camera_world - exact.T_camera_world).max() < 1e-4
    assert np.abs(found.log_depth - truth).max() < 1e-4


def test_the_pull_of_a_prior_is_the_derivative_of_its_cost() -> None:
    exact, _ = scene()
    T = np.stack([poses.exp(np.full(6, 0.01) * (n + 1) / 6) @ P for n, P in enumerate(exact.T_camera_world)])
    moved = exact._replace(T_camera_world=T)
    priors = ba.PosePriors(exact.T_camera_world, np.arange(6) != 3, 0.02, 0.01)
    layout = ba.Layout(np.searchsorted(exact.landmark, np.arange(len(exact.host) + 1)), np.arange(6) - 2)

    def of(priors, scene):
        return ba.linearised(scene, layout, 25, 2.0, 1.0, priors)

    pull = of(priors, moved)[1].g - of(None, moved)[1].g
    for n, k in ((2, 0), (3, 1), (4, 2), (5, 4)):
        costs = []
        for step in (-1e-5, 1e-5):
            twist = np.zeros(6)
            twist[k] = step
            there = T.copy()
            there[n] = poses.exp(twist) @ there[n]
            there = moved._replace(T_camera_world=there)
            costs.append(of(priors, there)[0] - of(None, there)[0])
        assert 2 * pull[6 * (n - 2) + k] == pytest.approx((costs[1] - costs[0]) / 2e-5, rel=0.03, abs=1e-6)


def test_the_equations_of_a_pose_are_the_sum_over_landmarks_of_what_each_says():
    rng = np.random.default_rng(3)
    K = np.array([[300.0, 0, 160], [0, 310.0, 120], [0, 0, 1]])
    T = poses.exp(rng.normal(0, 0.1, 6))
    points, along = rng.uniform([-1, -1, 2], [1, 1, 4], (30, 3)), rng.normal(0, 1, (30, 3))
    points[0] = [0, 0, -3]  # behind the camera

    def shown(pose: np.ndarray, point: np.ndarray) -> np.ndarray:
        x = K @ poses.transform(pose, point)
        return x[:2] / x[2]

    variance = rng.uniform(0, 0.1, 30)
    pixels = np.array([shown(T, p) for p in points]) + rng.normal(0, 3, (30, 2))
    pixels[1] += 500  # no more than a mistake
    tolerance = Tolerance(0.8, 2.0)
    distances = np.empty(30)
    H, b = pose_equations(Sighting(points, along, variance, pixels), T, K, tolerance, distances)
    expected_H, expected_b = np.zeros((6, 6)), np.zeros(6)
    small = 1e-5
    for n in range(1, 30):
        step = np.eye(6) * small
        J = np.column_stack(
            [(shown(poses.exp(s) @ T, points[n]) - shown(poses.exp(-s) @ T, points[n])) / (2 * small) for s in step]
        )
        d = (shown(T, points[n] + small * along[n]) - shown(T, points[n] - small * along[n])) / (2 * small)
        W = np.linalg.inv(0.8**2 * np.eye(2) + variance[n] * np.outer(d, d))
        r = shown(T, points[n]) - pixels[n]
        distance = np.sqrt(r @ W @ r)
        assert distances[n] == pytest.approx(distance, rel=1e-6)
        weight = min(1.0, 2.0 / distance) if distance <= 16 else 0.0
        expected_H += weight * J.T @ W @ J
        expected_b += weight * J.T @ W @ r
    assert np.isinf(distances[0]) and distances[1] > 16
    np.testing.assert_allclose(H, expected_H, rtol=1e-5)
    np.testing.assert_allclose(b, expected_b, rtol=1e-5)


@pytest.mark.parametrize("size", (1, 31, 32, 33, 97))
def test_a_positive_definite_system_is_solved(size: int):
    rng = np.random.default_rng(size)
    half = rng.normal(size=(size, size))
    A, b = half @ half.T + np.eye(size), rng.normal(size=size)
    x = cholesky.solved(np.triu(A), b)  # the upper triangle alone counts
    np.testing.assert_allclose(A @ x, b, atol=1e-9)


@pytest.mark.parametrize("entry", (-1.0, np.nan))
def test_a_system_that_is_not_positive_definite_has_no_solution(entry: float):
    A = np.eye(40)
    A[35, 35] = entry
    assert cholesky.solved(A, np.ones(40)) is None
