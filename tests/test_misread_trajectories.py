"""Trajectories of other systems whose rotations or times mean something else are told as what they are."""

from __future__ import annotations

import re

import numpy as np
import pytest
from command_line import semslam
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.judging.misread import delay, misread_convention
from semslam.trajectory import Trajectory
from semslam.trajectory.files import write_tum


def filmed(count: int = 90, seed: int = 0) -> Trajectory:
    """A camera carried about while it turns, 30 poses a second."""
    rng = np.random.default_rng(seed)
    times = np.arange(count) / 30
    waves = [np.sin(2 * np.pi * np.outer(times, rng.uniform(0.2, 0.8, 6)) + rng.uniform(0, 6, 6)) for _ in range(2)]
    twists = sum(waves) * np.array([0.4, 0.3, 0.4, 0.3, 0.5, 0.2])
    return Trajectory(times, poses.exp([0, 0, 0, 0.3, 1.0, -0.2]) @ np.stack([poses.exp(twist) for twist in twists]))


def roughly(truth: Trajectory, seed: int = 1) -> Trajectory:
    """As another system finds it: in a world of its own, with noise and drift."""
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(len(truth), 6)) * 0.003 + np.linspace(0, 0.02, len(truth))[:, None]
    moved = poses.exp([1, 2, 3, 0.5, 1.5, -0.7]) @ truth.T_world_camera
    return Trajectory(truth.timestamps, moved @ np.stack([poses.exp(error) for error in errors]))


def with_rotations(read: Trajectory, rotations: Rotation) -> Trajectory:
    T = read.T_world_camera.copy()
    T[:, :3, :3] = rotations.as_matrix()
    return Trajectory(read.timestamps, T)


@pytest.mark.parametrize("seed", range(4))
def test_conventions_of_rotations_are_told(seed: int) -> None:
    truth = filmed(seed=seed)
    sound = roughly(truth)
    turned = Rotation.from_matrix(sound.T_world_camera[:, :3, :3])
    w_first = with_rotations(sound, Rotation.from_quat(np.roll(turned.as_quat(), 1, axis=1)))
    opengl = with_rotations(sound, turned * Rotation.from_euler("x", 180, degrees=True))
    transposed = with_rotations(sound, turned.inv())
    inverted = Trajectory(truth.timestamps, poses.inverse(sound.T_world_camera))
    assert misread_convention(sound, truth) is None
    assert "w first" in str(misread_convention(w_first, truth))
    assert re.search(r"turned by 1(79|80) degrees about \(-?1.00,", str(misread_convention(opengl, truth)))
    assert "the rotations of the trajectory are world to camera" in str(misread_convention(transposed, truth))
    assert "the poses of the trajectory are world to camera" in str(misread_convention(inverted, truth))


@pytest.mark.parametrize("late", [0.5, -0.13, 0.02])
def test_times_that_are_late_are_told_to_a_hundredth_of_a_second(late: float) -> None:
    truth = filmed()
    sound = roughly(truth)
    shifted = Trajectory(sound.timestamps + late, sound.T_world_camera)
    told = str(delay(shifted, truth))
    assert ("late" if late > 0 else "early") in told
    assert float(told.split(" s ")[0].split()[-1]) == pytest.approx(abs(late), abs=0.01)


def test_errors_that_are_no_delay_and_paths_that_tell_nothing_are_not_explained() -> None:
    truth = filmed()
    assert delay(roughly(truth), truth) is None
    rng = np.random.default_rng(3)
    T = truth.T_world_camera.copy()
    T[:, :3, 3] += np.cumsum(rng.normal(scale=0.02, size=(len(T), 3)), axis=0)
    assert delay(Trajectory(truth.timestamps, T), truth) is None
    straight = np.tile(poses.exp([0, 0, 0, 0.2, 0.1, 0]), (60, 1, 1))
    straight[:, 2, 3] = np.linspace(0, 5, 60)
    ahead = Trajectory(np.arange(60) / 30, straight)
    assert misread_convention(ahead, ahead) is None and delay(ahead, ahead) is None


def test_evaluating_a_file_with_w_first_says_so(tmp_path, caplog) -> None:
    truth = filmed()
    write_tum(tmp_path / "truth.txt", truth)
    lines = np.loadtxt(tmp_path / "truth.txt")
    np.savetxt(tmp_path / "other.txt", lines[:, [0, 1, 2, 3, 7, 4, 5, 6]], fmt="%.6f")
    assert semslam("evaluate", "--trajectory", tmp_path / "other.txt", "--reference", tmp_path / "truth.txt") == 0
    assert "other.txt: the quaternions of the trajectory have w first" in caplog.text
