"""KITTI: odometry sequences and raw drives."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from written_recordings import assert_like_the_room, encoded, put, room_frames

from semslam import poses
from sequences import CorruptFrame, open_sequence
from sequences.recordings.datasets.kitti_raw import _times


@pytest.fixture(scope="module")
def frames():
    return room_frames()


def matrix_line(T: np.ndarray) -> str:
    return " ".join(f"{x:.9f}" for x in T.ravel()) + "\n"


def test_kitti_odometry_as_published(shared_data):
    sequence = open_sequence(shared_data / "samples" / "kitti_odometry06")
    assert len(sequence) == 20 and sequence.camera.fx == 707.0912 and not sequence.has_depth
    frame = sequence[7]
    assert frame.color.shape == (370, 1226, 3) and (frame.color[..., 0] == frame.color[..., 2]).all()
    assert frame.timestamp == pytest.approx(0.7)
    assert 15 < sequence.trajectory.length < 30, "20 frames at 10 Hz of a car in a street"


@pytest.fixture
def kitti(frames, tmp_path) -> Path:
    """Colour of camera 2, which sits 6 cm beside camera 0, with times and poses in their places."""
    path, camera = tmp_path / "sequences" / "04", frames[0].camera
    for i, frame in enumerate(frames):
        put(path / "image_2" / f"{i:06d}.png", encoded(".png", frame.color))
    P2 = np.hstack([camera.K, camera.K @ [[-0.06], [0], [0]]])
    P3 = np.hstack([camera.K, camera.K @ [[-0.60], [0], [0]]])
    eye = np.hstack([camera.K, np.zeros((3, 1))])
    Tr = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0.0]])  # lidar: x forward, y left, z up
    put(
        path / "calib.txt",
        "".join(f"{n}: {matrix_line(P)}" for n, P in zip(("P0", "P1", "P2", "P3", "Tr"), (eye, eye, P2, P3, Tr))),
    )
    put(path / "times.txt", "".join(f"{0.1037 * i:e}\n" for i in range(len(frames))))
    T_2_0 = poses.from_rotation_translation(np.eye(3), np.array([-0.06, 0, 0]))
    put(tmp_path / "poses" / "04.txt", "".join(matrix_line((f.T_world_camera @ T_2_0)[:3]) for f in frames))
    return path


def test_kitti_poses_are_those_of_the_camera_that_is_read(kitti, frames):
    sequence = open_sequence(kitti)
    assert_like_the_room(sequence, frames, depth=0)
    assert sequence[2].timestamp == pytest.approx(0.2074) and not sequence.has_depth
    put(kitti / "times.txt", "0 nan 0.2 0.3\n")
    with pytest.raises(ValueError, match=r"times\.txt: expected one time in seconds per line"):
        open_sequence(kitti)


def test_kitti_lidar_becomes_sparse_depth(kitti, frames):
    camera = frames[0].camera
    for i, frame in enumerate(frames):
        rows, columns = np.nonzero(frame.depth > 0)
        rows, columns = rows[::7], columns[::7]
        points_2 = camera.backproject(frame.depth)[rows, columns]
        points_0 = points_2 + [0.06, 0, 0]
        lidar = np.column_stack([points_0[:, 2], -points_0[:, 0], -points_0[:, 1], np.zeros(len(points_0))])
        put(kitti / "velodyne" / f"{i:06d}.bin", lidar.astype("<f4").tobytes())
    assert open_sequence(kitti).sensor == "survey-lidar"
    for read, true in zip(open_sequence(kitti), frames):
        there = read.depth > 0
        assert 0.1 < there.mean() < 0.2
        assert np.abs(read.depth - true.depth)[there].max() < 1e-3
    put(kitti / "velodyne" / "000001.bin", b"short")
    with pytest.raises(CorruptFrame, match=r"000001\.bin: 5 bytes are no whole number of points"):
        open_sequence(kitti)[1]


def test_kitti_stereo_measures_a_wall(tmp_path):
    """A textured wall 6 m away, seen by two eyes 54 cm apart: every pixel in the middle has its depth."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (60, 200), dtype=np.uint8), np.ones((2, 2), np.uint8))
    K, disparity = np.array([[200.0, 0, 150], [0, 200, 60], [0, 0, 1]]), 18  # 200 * 0.54 / 6
    put(tmp_path / "image_0" / "000000.png", encoded(".png", texture[:, 40:340]))
    put(tmp_path / "image_1" / "000000.png", encoded(".png", texture[:, 40 + disparity : 340 + disparity]))
    P1 = np.hstack([K, K @ [[-0.54], [0], [0]]])
    put(tmp_path / "calib.txt", f"P0: {matrix_line(np.hstack([K, np.zeros((3, 1))]))}P1: {matrix_line(P1)}")
    sequence = open_sequence(tmp_path)
    assert sequence.sensor == "stereo"
    depth = sequence[0].depth[20:-20, 150:-20]
    assert (depth > 0).mean() > 0.9 and np.abs(depth[depth > 0] - 6).max() < 0.2


def test_kitti_says_what_its_calibration_lacks(kitti):
    text = (kitti / "calib.txt").read_text()
    put(kitti / "calib.txt", "\n".join(line for line in text.splitlines() if not line.startswith("P2")))
    with pytest.raises(ValueError, match=r"calib\.txt: lacks P2"):
        open_sequence(kitti)
    put(kitti / "calib.txt", "nothing\n")
    with pytest.raises(ValueError, match="no line of 12 numbers"):
        open_sequence(kitti)


def test_kitti_raw_poses_follow_from_oxts(frames, tmp_path):
    """A drive due east at 50 degrees north, 10 m per frame: the camera, which looks ahead, moves along its z."""
    date = tmp_path / "2011_09_26"
    drive, camera = date / "2011_09_26_drive_0001_sync", frames[0].camera
    P2 = np.hstack([camera.K, np.zeros((3, 1))])
    put(
        date / "calib_cam_to_cam.txt",
        f"R_rect_00: {' '.join(map(str, np.eye(3).ravel()))}\nP_rect_02: {matrix_line(P2)}",
    )
    lidar_to_camera = "R: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n"
    put(date / "calib_velo_to_cam.txt", lidar_to_camera)
    put(date / "calib_imu_to_velo.txt", "R: 1 0 0 0 1 0 0 0 1\nT: -0.8 0.3 -0.8\n")
    step = np.degrees(10 / (6378137.0 * np.cos(np.radians(50))))
    stamps = []
    for i, frame in enumerate(frames):
        put(drive / "image_02" / "data" / f"{i:010d}.png", encoded(".png", frame.color))
        put(drive / "oxts" / "data" / f"{i:010d}.txt", f"50.0 {8 + i * step:.12f} 110.0 0 0 0 " + "0 " * 24)
        stamps.append(f"2011-09-26 13:02:2{i}.{103_000_000 + i}")
    put(drive / "image_02" / "timestamps.txt", "\n".join(stamps) + "\n")
    sequence = open_sequence(drive)
    assert_like_the_room(sequence, frames, depth=0, poses=False)
    np.testing.assert_allclose(np.diff(sequence.timestamps), 1.0, atol=1e-5)
    moved = poses.inverse(sequence[0].T_world_camera) @ sequence[3].T_world_camera
    np.testing.assert_allclose(moved, poses.from_rotation_translation(np.eye(3), np.array([0, 0, 30.0])), atol=1e-3)
    oxts = drive / "oxts" / "data" / "0000000002.txt"
    for words in ("91.0 8 110", "nan 8 110", "50 inf 110"):
        put(oxts, f"{words} 0 0 0 " + "0 " * 24)
        with pytest.raises(ValueError, match=r"0000000002\.txt: expected latitude longitude"):
            open_sequence(drive)
    oxts.unlink()
    (date / "calib_imu_to_velo.txt").unlink()
    with pytest.raises(ValueError, match=r"calib_imu_to_velo\.txt is neither in it nor in the folder above"):
        open_sequence(drive)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Los_Angeles"])
def test_kitti_raw_times_are_the_same_everywhere(tmp_path, monkeypatch, zone):
    put(tmp_path / "timestamps.txt", "2011-09-26 13:02:25.594360375\n2011-09-26 13:02:25.697956120\n")
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        times = _times(tmp_path / "timestamps.txt", ["0000000000", "0000000001"])
    time.tzset()
    np.testing.assert_allclose(times, [1317042145.594360, 1317042145.697956], atol=1e-6)
