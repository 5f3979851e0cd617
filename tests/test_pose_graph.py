"""Pose-graph optimisation over windows of predicted poses, against SciPy and against what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from semslam import poses
from semslam.loops.long_graphs import WHOLE, bounded_poses, control_edges
from semslam.loops.pose_graph import WORLD, Edge, optimized_poses, squared_errors
from semslam.loops.pose_windows import Covariances, windowed_poses


def path(count: int, seed: int = 0) -> np.ndarray:
    """(N, 4, 4) a camera that wanders and turns."""
    rng = np.random.default_rng(seed)
    twists = rng.normal(0, [0.1, 0.1, 0.1, 0.15, 0.15, 0.15], (count, 6)) + [0.1, 0, 0, 0, 0.1, 0]
    T = [poses.exp(rng.normal(0, 1, 6))]
    for twist in twists[1:]:
        T.append(T[-1] @ poses.exp(twist))
    return np.stack(T)


def motions(T: np.ndarray) -> np.ndarray:
    return poses.inverse(T[:-1]) @ T[1:]


def noisy(T: np.ndarray, metres: float, degrees: float, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sigmas = np.repeat([metres, np.radians(degrees)], 3)
    return np.stack([each @ poses.exp(rng.normal(0, sigmas)) for each in T])


def residuals(T: np.ndarray, predicted: np.ndarray, pairs: list, measured: np.ndarray, c: Covariances) -> np.ndarray:
    """Whitened residuals, by the loop."""
    parts = [poses.log(poses.inverse(P) @ each) / c.absolute for P, each in zip(predicted, T)]
    for (i, j), V in zip(pairs, measured):
        parts.append(poses.log(poses.inverse(V) @ poses.inverse(T[i]) @ T[j]) / c.relative)
    return np.concatenate(parts)


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a) - b).max())


def solve(predicted: np.ndarray, pairs: list, measured: np.ndarray, c: Covariances) -> np.ndarray:
    """The poses of a graph with a prior for every node and the given motions."""
    edges = [Edge(WORLD, k, T, np.diag(c.absolute**-2.0)) for k, T in enumerate(predicted)]
    edges += [Edge(i, j, V, np.diag(c.relative**-2.0)) for (i, j), V in zip(pairs, measured)]
    return optimized_poses(predicted, edges, fixed=(), iterations=50)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_scipys(seed: int) -> None:
    """With errors of decimetres and tens of degrees, where approximate Jacobians would end elsewhere."""
    count, rng = 6, np.random.default_rng(seed)
    truth = path(count, seed)
    predicted = noisy(truth, 0.3, 20, seed + 10)
    pairs = [(i, i + 1) for i in range(count - 1)] + [(0, 3), (2, 5)]
    measured = noisy(np.stack([poses.inverse(truth[i]) @ truth[j] for i, j in pairs]), 0.1, 10, seed + 20)
    c = Covariances(*rng.uniform([0.1, 3, 0.02, 1], [0.5, 20, 0.2, 10]))

    found = solve(predicted, pairs, measured, c)
    scipy = least_squares(
        lambda x: residuals(predicted @ poses.exp(x.reshape(-1, 6)), predicted, pairs, measured, c),
        np.zeros(6 * count),
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    best = predicted @ poses.exp(scipy.x.reshape(-1, 6))
    ours = 0.5 * (residuals(found, predicted, pairs, measured, c) ** 2).sum()
    assert ours == pytest.approx(scipy.cost, rel=1e-8)
    assert largest(found, best) < 1e-5


def test_the_gradient_vanishes_where_it_ends() -> None:
    truth = path(5, 3)
    predicted, measured = noisy(truth, 0.2, 15), noisy(motions(truth), 0.05, 5)
    pairs = [(i, i + 1) for i in range(4)]
    found, h = solve(predicted, pairs, measured, Covariances()), 1e-6

    def half_square(x: np.ndarray) -> float:
        r = residuals(found @ poses.exp(x.reshape(-1, 6)), predicted, pairs, measured, Covariances())
        return 0.5 * float(r @ r)

    gradient = [(half_square(h * e) - half_square(-h * e)) / (2 * h) for e in np.eye(30)]
    start = residuals(predicted, predicted, pairs, measured, Covariances())
    assert np.abs(gradient).max() < 1e-4 * start @ start


def test_predictions_that_agree_with_the_motions_stay() -> None:
    T = path(12)
    for size in (2, 5, None):
        assert largest(windowed_poses(T, motions(T), size), T) < 1e-9


def test_one_pose_that_jumps_is_pulled_back_by_exact_motions() -> None:
    T = path(15)
    predicted = T.copy()
    predicted[7] = T[7] @ poses.exp(np.array([0.7, 0, 0, 0, 0, 0.3]))
    found = windowed_poses(predicted, motions(T), 15, Covariances(relative_m=1e-4, relative_deg=0.01))
    # the motions are rigid, so that the window moves as one by a fifteenth of the jump
    error = poses.inverse(T[7]) @ found[7]
    assert 0.9 * 0.7 / 15 < np.linalg.norm(error[:3, 3]) < 0.11
    assert poses.rotation_angle(error) < 0.03


def test_useless_motions_leave_predictions_and_trusted_ones_average_them() -> None:
    T = path(9)
    predicted = noisy(T, 0.2, 5)
    loose = windowed_poses(predicted, motions(T), None, Covariances(relative_m=1e4, relative_deg=1e6))
    assert largest(loose, predicted) < 1e-6
    tight = windowed_poses(predicted, motions(T), None, Covariances(relative_m=1e-5, relative_deg=1e-3))
    assert largest(motions(tight), motions(T)) < 1e-6
    before = np.linalg.norm(predicted[:, :3, 3] - T[:, :3, 3], axis=1)
    after = np.linalg.norm(tight[:, :3, 3] - T[:, :3, 3], axis=1)
    assert np.sqrt((after**2).mean()) < 0.7 * np.sqrt((before**2).mean())


def test_a_moved_world_moves_the_solution() -> None:
    T, G = path(8), poses.exp(np.array([3.0, -2, 1, 0.4, 1.2, -0.3]))
    predicted, measured = noisy(T, 0.1, 5), noisy(motions(T), 0.02, 1)
    assert largest(G @ windowed_poses(predicted, measured), windowed_poses(G @ predicted, measured)) < 1e-8


def test_sliding_over_a_trajectory_is_solving_each_window_by_itself() -> None:
    T = path(11)
    predicted, measured = noisy(T, 0.1, 5), noisy(motions(T), 0.02, 1)
    found = windowed_poses(predicted, measured, 5)
    for frame in range(11):
        first = min(max(frame - 2, 0), 6)
        alone = solve(
            predicted[first : first + 5], [(0, 1), (1, 2), (2, 3), (3, 4)], measured[first : first + 4], Covariances()
        )
        assert largest(found[frame], alone[frame - first]) < 1e-8


def test_skipping_frames_composes_their_motions() -> None:
    T = path(10)
    predicted, measured = noisy(T, 0.1, 5), noisy(motions(T), 0.02, 1)
    found = windowed_poses(predicted, measured, 3, skip=3)
    pairs = [measured[1] @ measured[2] @ measured[3], measured[4] @ measured[5] @ measured[6]]
    alone = solve(predicted[[1, 4, 7]], [(0, 1), (1, 2)], np.stack(pairs), Covariances())
    assert largest(found[4], alone[1]) < 1e-8


def test_short_trajectories_and_wrong_shapes() -> None:
    T = path(3)
    assert windowed_poses(T[:0], T[:0]).shape == (0, 4, 4)
    assert largest(windowed_poses(T[:1], T[:0]), T[:1]) == 0
    assert windowed_poses(T, motions(T), 7, skip=5).shape == (3, 4, 4)
    with pytest.raises(ValueError, match="3 poses need motions"):
        windowed_poses(T, T)
    with pytest.raises(ValueError, match="relative_m"):
        Covariances(relative_m=0)
    with pytest.raises(ValueError, match="window is 1"):
        windowed_poses(T, motions(T), 1)


def test_a_chain_that_grows_is_solved_in_parts_as_well_as_all_at_once() -> None:
    """Four rounds of a circle with drift, each node closed with those a round and two rounds before."""
    rng, a_round, count = np.random.default_rng(0), 100, 400
    truth = np.stack([poses.exp([0, 0, 0, 0, 2 * np.pi * k / a_round, 0]) for k in range(count)])
    truth = truth @ poses.exp([0, 0, -2.0, 0, 0, 0])
    way, closed = np.diag([1e-3**-2.0] * 3 + [1e-3**-2.0] * 3), np.diag([5e-3**-2.0] * 6)
    drift = np.array([0, 0, 1e-3, 0, 5e-4, 0])

    def measured(i: int, j: int, error: np.ndarray, information: np.ndarray, closure: bool = False) -> Edge:
        return Edge(i, j, poses.inverse(truth[i]) @ truth[j] @ poses.exp(error), information, closure)

    T, edges, drifted = truth[:1], [], truth[0]
    for k in range(1, count):
        edges.append(measured(k - 1, k, drift + rng.normal(0, 5e-4, 6), way))
        drifted = drifted @ edges[-1].T_i_j
        T = np.concatenate([T, (T[-1] @ edges[-1].T_i_j)[None]])
        newest = [
            measured(i, k, rng.normal(0, 3e-3, 6), closed, True) for i in (k - a_round, k - 2 * a_round) if i >= 0
        ]
        edges += newest
        if newest and k % 5 == 0:
            T = bounded_poses(T, edges, newest, 15.0)

    def error(T: np.ndarray) -> float:
        return float(np.sqrt((np.linalg.norm(T[:, :3, 3] - truth[:, :3, 3], axis=1) ** 2).mean()))

    whole = error(optimized_poses(T, edges, robust=15.0))
    assert error(T) < 1.5 * whole + 0.002
    assert np.linalg.norm(drifted[:3, 3] - truth[-1, :3, 3]) > 10 * whole


def test_a_window_keeps_its_ties_after_sub_maps_met_at_a_keyframe_long_past() -> None:
    """What was found at that meeting stands after the edges of younger keyframes."""
    T = path(WHOLE + 50)
    edges = [Edge(k - 1, k, motion, np.eye(6)) for k, motion in enumerate(motions(T), start=1)]
    met = Edge(3, 20, poses.inverse(T[3]) @ T[20], np.eye(6), closure=True)
    strayed = T.copy()
    strayed[-20:] = noisy(T[-20:], 0.005, 0.2)
    assert largest(bounded_poses(strayed, [*edges, met], [met], 15.0), T) < 1e-6


def test_edges_between_control_poses_are_met_by_the_poses_that_meet_all_edges() -> None:
    T = path(40)
    pairs = [(k - 1, k, False) for k in range(1, 40)] + [(0, 37, True), (3, 22, True), (4, 23, True), (20, 21, True)]
    edges = [Edge(i, j, poses.inverse(T[i]) @ T[j], np.eye(6), closure) for i, j, closure in pairs]
    controls = np.array([0, 10, 19, 30, 39])
    found = control_edges(T, sorted(edges, key=lambda edge: edge.j), controls)
    assert squared_errors(T[controls], found).max() < 1e-12
    assert [(edge.i, edge.j) for edge in found if edge.closure] == [(0, 2), (0, 4)]
    assert all(np.trace(edge.information) < 6 / 8 for edge in found if not edge.closure)
