"""Data sets: what their files hold comes out in our units, axes and classes; damage is told in a line."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from written_recordings import assert_like_the_room, encoded, halved, half_camera, millimetres, put, room_frames

from semslam import poses
from semslam.camera import Camera
from semslam.frame import UNLABELLED
from sequences import CorruptFrame, open_sequence


@pytest.fixture(scope="module")
def frames():
    return room_frames()


def matrix_line(T: np.ndarray) -> str:
    return " ".join(f"{x:.9f}" for x in T.ravel()) + "\n"


def matrix_text(T: np.ndarray) -> str:
    return "".join(" ".join(f"{x:.9f}" for x in row) + "\n" for row in T)


def intrinsic_4x4(camera: Camera) -> np.ndarray:
    K = np.eye(4)
    K[:3, :3] = camera.K
    return K


# KITTI odometry


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
    put(path / "calib.txt", "".join(f"{n}: {matrix_line(P)}" for n, P in zip(("P0", "P1", "P2", "P3", "Tr"), (eye, eye, P2, P3, Tr))))
    put(path / "times.txt", "".join(f"{0.1037 * i:e}\n" for i in range(len(frames))))
    T_2_0 = poses.from_rotation_translation(np.eye(3), np.array([-0.06, 0, 0]))
    put(tmp_path / "poses" / "04.txt", "".join(matrix_line((f.T_world_camera @ T_2_0)[:3]) for f in frames))
    return path


def test_kitti_poses_are_those_of_the_camera_that_is_read(kitti, frames):
    sequence = open_sequence(kitti)
    assert_like_the_room(sequence, frames, depth=0)
    assert sequence[2].timestamp == pytest.approx(0.2074) and not sequence.has_depth


def test_kitti_lidar_becomes_sparse_depth(kitti, frames):
    camera = frames[0].camera
    for i, frame in enumerate(frames):
        rows, columns = np.nonzero(frame.depth > 0)
        rows, columns = rows[::7], columns[::7]
        points_2 = camera.backproject(frame.depth)[rows, columns]
        points_0 = points_2 + [0.06, 0, 0]
        lidar = np.column_stack([points_0[:, 2], -points_0[:, 0], -points_0[:, 1], np.zeros(len(points_0))])
        put(kitti / "velodyne" / f"{i:06d}.bin", lidar.astype("<f4").tobytes())
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
    depth = open_sequence(tmp_path)[0].depth[20:-20, 150:-20]
    assert (depth > 0).mean() > 0.9 and np.abs(depth[depth > 0] - 6).max() < 0.2


def test_kitti_says_what_its_calibration_lacks(kitti):
    text = (kitti / "calib.txt").read_text()
    put(kitti / "calib.txt", "\n".join(line for line in text.splitlines() if not line.startswith("P2")))
    with pytest.raises(ValueError, match=r"calib\.txt: lacks P2"):
        open_sequence(kitti)
    put(kitti / "calib.txt", "nothing\n")
    with pytest.raises(ValueError, match="no line of 12 numbers"):
        open_sequence(kitti)


# ScanNet


def write_sens(path: Path, frames, claimed: int | None = None, T_depth_color=None, kinds=(2, 1)) -> None:
    """As ScanNet's recorder does: colour twice as fine as depth, times in microseconds, the second pose lost."""
    camera, small = frames[0].camera, half_camera(frames[0].camera)
    extrinsic = np.eye(4) if T_depth_color is None else T_depth_color
    head = struct.pack("<IQ", 4, 6) + b"sensor"
    for matrix in (intrinsic_4x4(camera), np.eye(4), intrinsic_4x4(small), extrinsic):
        head += matrix.astype("<f4").tobytes()
    head += struct.pack("<iiIIII", *kinds, camera.width, camera.height, small.width, small.height)
    head += struct.pack("<fQ", 1000.0, len(frames) if claimed is None else claimed)
    for i, frame in enumerate(frames):
        T = np.full((4, 4), -np.inf) if i == 1 else frame.T_world_camera
        color = encoded(".jpg", frame.color) if kinds[0] == 2 else frame.color.tobytes()
        depth = millimetres(halved(frame.depth)).tobytes()
        depth = zlib.compress(depth) if kinds[1] == 1 else depth
        head += T.astype("<f4").tobytes() + struct.pack("<QQQQ", i * 33_333, i * 33_333, len(color), len(depth))
        head += color + depth
    put(path, head)


def at_half_size(frames):
    return [replace(f, color=f.color[::2, ::2], depth=halved(f.depth), camera=half_camera(f.camera)) for f in frames]


@pytest.mark.parametrize("kinds", [(2, 1), (0, 0)])
def test_a_sens_file_is_read_without_being_unpacked(frames, tmp_path, kinds):
    write_sens(tmp_path / "scene0000_00.sens", frames, kinds=kinds)
    sequence = open_sequence(tmp_path / "scene0000_00.sens")
    assert len(open_sequence(tmp_path)) == len(sequence) == 4, "the scan's folder will do as well"
    assert sequence.camera.width == 96, "640 pixels of colour are kept beside depth of any size"
    assert sequence[1].T_world_camera is None, "a pose of -inf is none"
    assert sequence[3].timestamp == pytest.approx(0.1, abs=1e-4)
    for i, true in enumerate(frames):
        frame = sequence[i]
        assert np.abs(frame.color.astype(int) - true.color).mean() < 4
        there = (frame.depth > 0) & (true.depth > 0)
        assert there.mean() > 0.95 and np.median(np.abs(frame.depth - true.depth)[there]) < 0.01


def test_a_sens_file_that_claims_too_much_gives_what_it_holds(frames, tmp_path, caplog):
    write_sens(tmp_path / "a.sens", frames, claimed=10**12)
    assert len(open_sequence(tmp_path / "a.sens")) == 4 and "claims 1000000000000 frames, holds 4" in caplog.text
    data = (tmp_path / "a.sens").read_bytes()
    put(tmp_path / "b.sens", data[:-100])
    assert len(open_sequence(tmp_path / "b.sens")) == 3
    put(tmp_path / "c.sens", data[:200])
    with pytest.raises(ValueError, match=r"c\.sens: the header is cut short"):
        open_sequence(tmp_path / "c.sens")
    put(tmp_path / "d.sens", struct.pack("<IQ", 3, 10**15) + bytes(500))
    with pytest.raises(ValueError, match="version 3, expected 4"):
        open_sequence(tmp_path / "d.sens")


def test_a_damaged_depth_image_of_a_sens_file_is_one_corrupt_frame(frames, tmp_path):
    write_sens(tmp_path / "a.sens", frames)
    data = bytearray((tmp_path / "a.sens").read_bytes())
    data[-40:] = bytes(40)
    put(tmp_path / "a.sens", bytes(data))
    sequence = open_sequence(tmp_path / "a.sens")
    assert sequence[2].depth is not None
    with pytest.raises(CorruptFrame, match=r"a\.sens: frame 3, depth"):
        sequence[3]


@pytest.fixture
def scannet(frames, tmp_path) -> Path:
    path = tmp_path / "scene0000_00"
    for i, frame in enumerate(frames):
        put(path / "color" / f"{i * 9}.jpg", encoded(".jpg", frame.color))
        put(path / "depth" / f"{i * 9}.png", encoded(".png", millimetres(frame.depth)))
        put(path / "pose" / f"{i * 9}.txt", matrix_text(frame.T_world_camera if i != 2 else np.full((4, 4), -np.inf)))
    put(path / "intrinsic" / "intrinsic_color.txt", matrix_text(intrinsic_4x4(frames[0].camera)))
    return path


def test_exported_scannet_frames_are_paired_by_number(scannet, frames):
    sequence = open_sequence(scannet)
    assert [round(t * 30) for t in sequence.timestamps] == [0, 9, 18, 27], "not in the order of their letters"
    assert sequence[2].T_world_camera is None
    assert_like_the_room(sequence, frames, poses=False)
    np.testing.assert_allclose(sequence[3].T_world_camera, frames[3].T_world_camera, atol=1e-6)


def test_scannet_ids_become_nyu40_by_its_table(scannet, frames):
    ids = np.zeros((72, 96), np.uint16)
    ids[:, :40], ids[:, 40:70] = 1163, 2
    put(scannet / "label-filt" / "9.png", encoded(".png", ids))
    assert not open_sequence(scannet).has_labels, "without the table the ids mean nothing"
    put(scannet.parent / "scannetv2-labels.combined.tsv", "id\traw_category\tx\ty\tnyu40id\n2\tdoor\t\t\t8\n1163\tx\t\t\t40\n7\ty\t\t\t\n")
    sequence = open_sequence(scannet)
    labels = sequence[1].labels
    assert sequence.label_set == "nyu40" and sequence[0].labels is None
    assert (labels[:, :40] == 39).all() and (labels[:, 40:70] == 7).all() and (labels[:, 70:] == UNLABELLED).all()


def test_labels_of_a_sens_file_come_from_the_archive_beside_it(frames, tmp_path):
    write_sens(tmp_path / "scene0000_00.sens", frames)
    put(tmp_path / "scannetv2-labels.combined.tsv", "id\tnyu40id\n5\t3\n")
    with zipfile.ZipFile(tmp_path / "scene0000_00_2d-label-filt.zip", "w") as archive:
        archive.writestr("label-filt/3.png", encoded(".png", np.full((72, 96), 5, np.uint16)))
    sequence = open_sequence(tmp_path / "scene0000_00.sens")
    assert (sequence[3].labels == 2).all() and sequence[0].labels is None


# Replica


def test_replica_of_nice_slam(frames, tmp_path):
    path = tmp_path / "room0"
    for i, frame in enumerate(frames):
        put(path / "results" / f"frame{i:06d}.jpg", encoded(".jpg", frame.color))
        put(path / "results" / f"depth{i:06d}.png", encoded(".png", millimetres(frame.depth, 6553.5)))
    put(path / "traj.txt", "".join(matrix_line(f.T_world_camera) for f in frames))
    camera = frames[0].camera
    put(tmp_path / "cam_params.json", '{"camera": {"w": %d, "h": %d, "fx": %r, "fy": %r, "cx": %r, "cy": %r, "scale": 6553.5}}'
        % (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy))  # fmt: skip
    sequence = open_sequence(path)
    assert sequence.camera == camera
    assert_like_the_room(sequence, frames)
    put(path / "traj.txt", "".join(matrix_line(f.T_world_camera) for f in frames[:3]))
    with pytest.raises(ValueError, match=r"traj\.txt: 3 poses, but there is an image of number 3"):
        open_sequence(path)


def test_replica_of_semantic_nerf(frames, tmp_path):
    path = tmp_path / "Sequence_1"
    for i, frame in enumerate(frames):
        put(path / "rgb" / f"rgb_{i + 8}.png", encoded(".png", frame.color))
        put(path / "depth" / f"depth_{i + 8}.png", encoded(".png", millimetres(frame.depth)))
        put(path / "semantic_class_nyu13_remap" / f"semantic_class_{i + 8}.png", encoded(".png", np.full((72, 96), 5, np.uint8)))
    other = [np.eye(4)] * 8
    put(path / "traj_w_c.txt", "".join(matrix_line(T) for T in [*other, *(f.T_world_camera for f in frames)]))
    sequence = open_sequence(path)
    assert_like_the_room(sequence, frames, color=0.1)
    assert (sequence.camera.fx, sequence.camera.cx) == (48, 47.5), "90 degrees wide"
    assert sequence.label_set == "nyu13" and (sequence[0].labels == 4).all()
