"""Trajectory errors: laws, cases known by hand, and agreement with evo."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from semslam import images, poses
from semslam.camera import Camera
from semslam.judging.plots import plot_errors, plot_trajectory
from semslam.judging.run import losses_of
from semslam.metrics import trajectory as evaluation
from semslam.runs.progress import Progress
from semslam.trajectory import Trajectory


def wandering(n: int = 60, seed: int = 0, step: float = 0.1) -> Trajectory:
    rng = np.random.default_rng(seed)
    T, so_far = np.eye(4), []
    for _ in range(n):
        so_far.append(T)
        T = T @ poses.exp(rng.normal(scale=step, size=6))
    return Trajectory(np.arange(n) / 30, np.stack(so_far))


def noisy(trajectory: Trajectory, scale: float = 0.02, seed: int = 1) -> Trajectory:
    rng = np.random.default_rng(seed)
    return Trajectory(
        trajectory.timestamps,
        np.stack([T @ poses.exp(rng.normal(scale=scale, size=6)) for T in trajectory.T_world_camera]),
    )


def straight(n: int, speed: float = 1.0) -> Trajectory:
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, 0, 3] = np.arange(n) * speed
    return Trajectory(np.arange(n, dtype=float), T)


def test_ate_is_unchanged_by_any_rigid_motion():
    truth = wandering()
    estimate = noisy(truth)
    before = evaluation.absolute_error(estimate, truth)
    moved = Trajectory(truth.timestamps, poses.exp([1, 2, 3, 0.5, -1, 2]) @ estimate.T_world_camera)
    assert before.rmse > 1e-3
    assert evaluation.absolute_error(moved, truth).rmse == pytest.approx(before.rmse, abs=1e-12)
    assert evaluation.relative_error(moved, truth).rmse_m == pytest.approx(
        evaluation.relative_error(estimate, truth).rmse_m, abs=1e-12
    )


def test_sim3_forgives_a_wrong_scale_and_se3_does_not():
    truth = wandering()
    T = truth.T_world_camera.copy()
    T[:, :3, 3] *= 1.3
    scaled = Trajectory(truth.timestamps, T)
    sim = evaluation.absolute_error(scaled, truth, with_scale=True)
    assert sim.rmse < 1e-12 and sim.alignment.scale == pytest.approx(1 / 1.3) and sim.protocol == "Sim(3)"
    assert evaluation.absolute_error(scaled, truth).rmse > 1e-2


@pytest.mark.parametrize(
    ("shrink", "said"),
    [(0.0, "estimate stands still"), (1e-4, "estimate stands still"), (1e-2, "scale 100"), (1e3, "scale 0.001")],
)
def test_a_collapsed_trajectory_is_not_aligned_by_a_similarity(shrink, said):
    truth = wandering()
    T = truth.T_world_camera.copy()
    T[:, :3, 3] *= shrink
    collapsed = Trajectory(truth.timestamps, T)
    with pytest.raises(ValueError, match=said):
        evaluation.absolute_error(collapsed, truth, with_scale=True)
    errors = evaluation.trajectory_errors(collapsed, truth)
    assert errors.similar is None and said in errors.degenerate
    assert errors.absolute.rmse > 0.1


def test_two_poses_and_a_camera_that_stands_still_say_nothing_of_scale():
    truth = wandering()
    two = truth.selected(np.arange(2))
    with pytest.raises(ValueError, match="three poses or more, 2 are matched"):
        evaluation.absolute_error(two, two, with_scale=True)
    still = Trajectory(truth.timestamps, np.tile(np.eye(4), (len(truth), 1, 1)))
    with pytest.raises(ValueError, match="reference stands still"):
        evaluation.absolute_error(noisy(truth), still, with_scale=True)


def test_umeyama_beats_every_motion_nearby():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    best = evaluation.umeyama(a, b)
    assert np.linalg.det(best.rotation) == pytest.approx(1)
    least = np.sum((best(a) - b) ** 2)
    for _ in range(200):
        T = poses.exp(rng.normal(scale=0.1, size=6))
        assert np.sum((best(a) @ T[:3, :3].T + T[:3, 3] - b) ** 2) >= least


def test_a_square_with_one_corner_off_has_the_error_known_by_hand():
    # Points (0,0) (1,0) (1,1) (0,1); moving two opposite corners outwards by d along the diagonal is
    # symmetric, so the best motion is the identity and each of them is d away.
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, 3] = corners
    truth = Trajectory(np.arange(4.0), T)
    moved = T.copy()
    d = 0.1
    moved[2, :2, 3] += d / np.sqrt(2)
    moved[0, :2, 3] -= d / np.sqrt(2)
    error = evaluation.absolute_error(Trajectory(np.arange(4.0), moved), truth)
    np.testing.assert_allclose(error.errors, [d, 0, d, 0], atol=1e-12)
    assert error.rmse == pytest.approx(d / np.sqrt(2))
    assert error.mean == pytest.approx(d / 2) and error.maximum == pytest.approx(d)


def test_a_straight_way_that_is_too_fast_drifts_by_the_excess():
    truth, estimate = straight(10), straight(10, speed=1.1)
    assert evaluation.drift_per_metre(estimate, truth) == pytest.approx(0.1)
    rpe = evaluation.relative_error(estimate, truth)
    assert (rpe.pairs, rpe.step) == (9, "1 frame")
    assert rpe.rmse_m == pytest.approx(0.1) and rpe.rmse_rad == pytest.approx(0, abs=1e-7)
    over_three = evaluation.relative_error(estimate, truth, frames=3)
    assert over_three.rmse_m == pytest.approx(0.3) and over_three.pairs == 7
    per_second = evaluation.relative_error(estimate, truth, seconds=1.0)
    assert per_second.pairs == 9 and per_second.median_m == pytest.approx(0.1)
    assert evaluation.drift_per_metre(straight(5, 0), straight(5, 0)) is None


def test_spells_of_loss_are_counted_with_their_times():
    t = np.arange(10) * 0.1 + 5
    ok = np.array([1, 1, 0, 0, 0, 1, 1, 0, 1, 0], bool)
    losses = evaluation.losses(t, ok)
    assert losses.lost_at == pytest.approx((0.2, 0.7, 0.9))
    assert losses.recovered_after == pytest.approx((0.3, 0.1))
    assert losses.coverage == 0.5


@pytest.mark.parametrize("lost", [range(40), [*range(40), 50], [0, 50, 99]])
def test_frames_that_are_lost_before_the_first_pose_count_as_lost(lost):
    """100 frames at 10 Hz, of which a run's trajectory begins with the first one that it has found."""
    recording, first = SimpleNamespace(timestamps=5 + np.arange(100) / 10), min({*range(100)} - {*lost})
    of = list(range(first, 100))
    times, still = (5 + np.array(of) / 10).tolist(), [np.eye(4)] * len(of)
    run = Progress(100, of, timestamps=times, poses=still, lost=list(lost), submaps=[0] * len(of))
    told = losses_of(run, recording)
    assert told.frames == 100 and told.tracked == 100 - len(lost)
    assert told.lost_at == pytest.approx([i / 10 for i in lost if i - 1 not in lost])
    assert told.recovered_after[0] == pytest.approx(first / 10)


def test_lost_frames_do_not_enter_the_errors():
    truth = wandering()
    estimate = noisy(truth)
    T = estimate.T_world_camera.copy()
    T[10:20, :3, 3] += 5
    ok = np.ones(len(truth), bool)
    ok[10:20] = False
    errors = evaluation.trajectory_errors(Trajectory(truth.timestamps, T), truth, tracked=ok)
    assert errors.similar is not None and errors.similar.rmse <= errors.absolute.rmse
    assert errors.absolute.maximum < 0.2 and errors.absolute.matched == 50
    assert errors.losses.coverage == pytest.approx(50 / 60)
    assert errors.per_second is not None and errors.drift_per_metre is not None


def test_trajectories_of_different_clocks_are_refused_with_a_hint():
    truth = wandering()
    with pytest.raises(ValueError, match="same start"):
        evaluation.absolute_error(Trajectory(truth.timestamps + 1e6, truth.T_world_camera), truth)


def test_a_plane_warped_by_the_true_motion_is_consistent_and_by_a_wrong_one_is_not():
    camera = Camera(80, 60, 70, 70, 39.5, 29.5)
    # The plane z = 2 of the world, seen from two poses.
    T = np.stack([np.eye(4), poses.exp([0.05, 0.02, 0.1, 0.05, -0.1, 0.02])])
    rays = camera.backproject(np.ones(camera.shape))
    depths = []
    for pose in T:
        along = rays @ pose[2, :3]
        depths.append(((2 - pose[2, 3]) / along).astype(np.float32))
    assert evaluation.self_consistency(depths, camera, T, 1) < 2e-3
    wrong = T.copy()
    wrong[1, 2, 3] += 0.03
    assert evaluation.self_consistency(depths, camera, wrong, 1) == pytest.approx(0.03, abs=3e-3)
    assert np.isnan(evaluation.self_consistency(depths, camera, T, 5))


def test_plots_are_written(tmp_path):
    truth = wandering()
    ok = np.ones(len(truth), bool)
    ok[3:6] = False
    plot_trajectory(tmp_path / "trajectory.png", noisy(truth), truth, ok, with_scale=False)
    plot_errors(tmp_path / "errors.png", noisy(truth), truth, ok, with_scale=True)
    for name in ("trajectory.png", "errors.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_straight_path_is_drawn_across_a_whole_picture(tmp_path):
    T = np.tile(np.eye(4), (30, 1, 1))
    T[:, 0, 3] = np.linspace(0, 20, 30)
    straight = Trajectory(np.arange(30.0), T)
    plot_trajectory(tmp_path / "straight.png", noisy(straight), straight, np.ones(30, bool), with_scale=False)
    frame = (images.read_color(tmp_path / "straight.png").max(axis=2) < 128).mean(axis=0)
    assert (frame > 0.6).sum() >= 2, "the sides of the axes are long lines, as high as most of the picture"


@pytest.mark.parametrize("with_scale", [False, True])
def test_errors_agree_with_evo(with_scale):
    evo_metrics = pytest.importorskip("evo.core.metrics", reason="evo is not installed (optional)")
    from evo.core.trajectory import PoseTrajectory3D

    truth = wandering(seed=4)
    estimate = noisy(truth, seed=5)
    evo_truth = PoseTrajectory3D(poses_se3=list(truth.T_world_camera), timestamps=truth.timestamps)
    evo_estimate = PoseTrajectory3D(poses_se3=list(estimate.T_world_camera), timestamps=estimate.timestamps)

    for relation, name in (("translation_part", "rmse_m"), ("rotation_angle_rad", "rmse_rad")):
        rpe = evo_metrics.RPE(getattr(evo_metrics.PoseRelation, relation), delta=1, delta_unit=evo_metrics.Unit.frames)
        rpe.process_data((evo_truth, evo_estimate))
        ours = getattr(evaluation.relative_error(estimate, truth), name)
        assert ours == pytest.approx(rpe.get_statistic(evo_metrics.StatisticsType.rmse), abs=1e-9)

    evo_estimate.align(evo_truth, correct_scale=with_scale)
    ape = evo_metrics.APE(evo_metrics.PoseRelation.translation_part)
    ape.process_data((evo_truth, evo_estimate))
    ours = evaluation.absolute_error(estimate, truth, with_scale=with_scale)
    for name in ("rmse", "mean", "median"):
        theirs = ape.get_statistic(getattr(evo_metrics.StatisticsType, name))
        assert getattr(ours, name) == pytest.approx(theirs, abs=1e-9)
    assert ours.maximum == pytest.approx(ape.get_statistic(evo_metrics.StatisticsType.max), abs=1e-9)
