"""Data sets: what their files hold comes out in our units, axes and classes; damage is told in a line."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from written_recordings import assert_like_the_room, encoded, half_camera, halved, millimetres, put, room_frames

from semslam import poses
from semslam.camera import Camera
from semslam.frame import UNLABELLED
from sequences import CorruptFrame, Sequence, open_sequence


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


def assert_only_labels_are_broken(sequence: Sequence, index: int) -> None:
    """Whoever does without labels does not meet an image of them that is broken."""
    assert sequence.read_without_labels(index).color.shape == sequence.color_of(index).shape
    for read in (sequence.__getitem__, sequence.labels_of):
        with pytest.raises(CorruptFrame):
            read(index)


def test_scannet_ids_become_nyu40_by_its_table(scannet, frames):
    ids = np.zeros((72, 96), np.uint16)
    ids[:, :40], ids[:, 40:70] = 1163, 2
    put(scannet / "label-filt" / "9.png", encoded(".png", ids))
    assert not open_sequence(scannet).has_labels, "without the table the ids mean nothing"
    put(
        scannet.parent / "scannetv2-labels.combined.tsv",
        "id\traw_category\tx\ty\tnyu40id\n2\tdoor\t\t\t8\n1163\tx\t\t\t40\n7\ty\t\t\t\n",
    )
    sequence = open_sequence(scannet)
    labels = sequence[1].labels
    assert sequence.label_set == "nyu40" and sequence[0].labels is None
    assert (labels[:, :40] == 39).all() and (labels[:, 40:70] == 7).all() and (labels[:, 70:] == UNLABELLED).all()
    put(scannet / "label-filt" / "9.png", "no image")
    assert_only_labels_are_broken(sequence, 1)


def test_labels_of_a_sens_file_come_from_the_archive_beside_it(frames, tmp_path):
    write_sens(tmp_path / "scene0000_00.sens", frames)
    put(tmp_path / "scannetv2-labels.combined.tsv", "id\tnyu40id\n5\t3\n")
    with zipfile.ZipFile(tmp_path / "scene0000_00_2d-label-filt.zip", "w") as archive:
        archive.writestr("label-filt/3.png", encoded(".png", np.full((72, 96), 5, np.uint16)))
    sequence = open_sequence(tmp_path / "scene0000_00.sens")
    assert (sequence[3].labels == 2).all() and sequence[0].labels is None
    with zipfile.ZipFile(tmp_path / "scene0000_00_2d-label-filt.zip", "w") as archive:
        archive.writestr("label-filt/3.png", b"no image")
    assert_only_labels_are_broken(open_sequence(tmp_path / "scene0000_00.sens"), 3)


# Replica


def test_replica_of_nice_slam(frames, tmp_path):
    path = tmp_path / "room0"
    for i, frame in enumerate(frames):
        put(path / "results" / f"frame{i:06d}.jpg", encoded(".jpg", frame.color))
        put(path / "results" / f"depth{i:06d}.png", encoded(".png", millimetres(frame.depth, 6553.5)))
    put(path / "traj.txt", "".join(matrix_line(f.T_world_camera) for f in frames))
    camera = frames[0].camera
    values = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy")}
    values |= {"w": camera.width, "h": camera.height, "scale": 6553.5}
    put(tmp_path / "cam_params.json", json.dumps({"camera": values}))
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
        put(
            path / "semantic_class_nyu13_remap" / f"semantic_class_{i + 8}.png",
            encoded(".png", np.full((72, 96), 5, np.uint8)),
        )
    other = [np.eye(4)] * 8
    put(path / "traj_w_c.txt", "".join(matrix_line(T) for T in [*other, *(f.T_world_camera for f in frames)]))
    sequence = open_sequence(path)
    assert_like_the_room(sequence, frames, color=0.1)
    assert (sequence.camera.fx, sequence.camera.cx) == (48, 47.5), "90 degrees wide"
    assert sequence.label_set == "nyu13" and (sequence[0].labels == 4).all()


@pytest.mark.parametrize(
    "text", ['{"camera": {"w": 1e400, "h": 4}}', "[" * 20_000, "\x00\x01" * 2_000, '{"camera": []}']
)
def test_camera_parameters_that_make_no_sense_are_one_short_line(frames, tmp_path, text):
    put(tmp_path / "room0" / "results" / "frame000000.jpg", encoded(".jpg", frames[0].color))
    put(tmp_path / "room0" / "results" / "depth000000.png", encoded(".png", millimetres(frames[0].depth)))
    put(tmp_path / "room0" / "traj.txt", matrix_line(np.eye(4)))
    put(tmp_path / "room0" / "cam_params.json", text)
    with pytest.raises(ValueError, match=r"cam_params\.json: expected camera: w, h") as told:
        open_sequence(tmp_path / "room0")
    assert len(str(told.value)) < 500


# EuRoC


def test_euroc_poses_are_taken_from_the_body_to_the_camera(frames, tmp_path):
    from scipy.spatial.transform import Rotation

    camera, mav = frames[0].camera, tmp_path / "MH_01" / "mav0"
    T_body_camera = poses.from_rotation_translation(
        Rotation.from_euler("xyz", [90, 5, 0], degrees=True).as_matrix(), np.array([0.05, -0.02, 0.01])
    )
    names, truth = ["#timestamp [ns],filename"], ["#timestamp"]
    for i, frame in enumerate(frames):
        tick = 1403636579763555584 + i * 50_000_000
        names.append(f"{tick},{tick}.png")
        put(mav / "cam0" / "data" / f"{tick}.png", encoded(".png", frame.color[..., 1]))
        T = frame.T_world_camera @ poses.inverse(T_body_camera)
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        truth.append(f"{tick}," + ",".join(f"{v:.10f}" for v in (*T[:3, 3], w, x, y, z, 0, 0, 0)))
    put(mav / "cam0" / "data.csv", "\n".join(names))
    put(mav / "state_groundtruth_estimate0" / "data.csv", "\n".join(truth))
    data = ", ".join(f"{v:.10f}" for v in T_body_camera.ravel())
    sensor = (
        f"T_BS:\n  cols: 4\n  rows: 4\n  data: [{data}]\nresolution: [96, 72]\ndistortion_model: radial-tangential\n"
    )
    sensor += (
        f"intrinsics: [{camera.fx}, {camera.fy}, {camera.cx}, {camera.cy}]\ndistortion_coefficients: [0, 0, 0, 0]\n"
    )
    put(mav / "cam0" / "sensor.yaml", sensor)
    sequence = open_sequence(tmp_path / "MH_01")
    assert sequence.camera == camera
    for read, true in zip(sequence, frames):
        np.testing.assert_allclose(read.T_world_camera, true.T_world_camera, atol=1e-6)
        assert (read.color == true.color[..., 1:2]).all()
    np.testing.assert_allclose(np.diff(sequence.timestamps), 0.05, atol=1e-6)
    wide = sensor.replace("[0, 0, 0, 0]", "[0.3, -0.02, 0.001, 0.0]")
    put(mav / "cam0" / "sensor.yaml", wide.replace("radial-tangential", "equidistant"))
    fisheye = replace(camera, distortion=(0.3, -0.02, 0.001, 0.0), fisheye=True)
    shown = open_sequence(tmp_path / "MH_01")[0].color
    np.testing.assert_array_equal(shown, fisheye.undistort(np.repeat(frames[0].color[..., 1:2], 3, axis=2)))
    put(mav / "cam0" / "sensor.yaml", wide.replace("radial-tangential", "omni"))
    with pytest.raises(ValueError, match=r"sensor\.yaml: .*distortion model 'omni' is not read"):
        open_sequence(tmp_path / "MH_01")


# SceneNet RGB-D


def field(number: int, value: bytes | int) -> bytes:
    def varint(n: int) -> bytes:
        return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def vector(v: np.ndarray) -> bytes:
    return b"".join(struct.pack("<Bf", i << 3 | 5, x) for i, x in zip((1, 2, 3), v))


def test_scenenet_depth_is_along_the_ray_and_poses_are_of_mid_shutter(frames, tmp_path):
    camera = Camera(96, 72, 48 / np.tan(np.radians(30)), 36 / np.tan(np.radians(22.5)), 47.5, 35.5)
    views = b""
    at, to = np.array([1.0, 1.5, 2.0]), np.array([4.0, 1.0, 2.5])
    for i, frame in enumerate(frames):
        ray = np.linalg.norm(camera.backproject(frame.depth), axis=2)
        put(tmp_path / "0" / "223" / "photo" / f"{i * 25}.jpg", encoded(".jpg", frame.color))
        put(tmp_path / "0" / "223" / "depth" / f"{i * 25}.png", encoded(".png", millimetres(ray)))
        shift = np.array([0.1 * i, 0, 0])
        shutters = [
            field(1, vector(at + shift + d)) + field(2, vector(to + shift + d)) + b"\x19" + struct.pack("<d", 0.5)
            for d in ([0.02, 0, 0], [-0.02, 0, 0])
        ]
        views += field(3, field(1, i * 25) + field(2, shutters[0]) + field(3, shutters[1]))
    other = field(1, field(4, b"0/1") + field(3, field(1, 0)))
    put(tmp_path / "scenenet_rgbd_val.pb", other + field(1, views + field(4, b"0/223")))
    sequence = open_sequence(tmp_path / "0" / "223")
    assert sequence.camera == camera
    assert_like_the_room(sequence, frames, poses=False)
    np.testing.assert_allclose(sequence.timestamps, [0, 1, 2, 3])
    T = sequence[2].T_world_camera
    np.testing.assert_allclose(T[:3, 3], at + [0.2, 0, 0], atol=1e-6)
    ahead = (to - at) / np.linalg.norm(to - at)
    np.testing.assert_allclose(T[:3, 2], ahead, atol=1e-6)
    assert poses.is_rigid(T) and T[1, 0] == pytest.approx(0, abs=1e-9) and T[1, 1] < 0, "level, and y points down"
    put(tmp_path / "scenenet_rgbd_val.pb", b"\xff" * 40)
    with pytest.raises(ValueError, match=r"\.pb: is no protobuf file"):
        open_sequence(tmp_path / "0" / "223")


# NYUv2 raw, DeepLoc, ETH3D


def test_nyu_raw_scenes_are_read_out_of_their_archive(tmp_path):
    """The same frames as from the unpacked folder."""
    big = room_frames(2, 640, 480)
    with zipfile.ZipFile(tmp_path / "part1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for scene in ("bedroom_0001", "office_0002"):
            for i, frame in enumerate(big):
                z = np.where(frame.depth > 0, frame.depth, np.inf)
                raw = np.where(np.isfinite(z), np.rint(1092.5 - 351.3 / z), 2047).astype(">u2").byteswap()
                time = f"129488636{i}.665769-{i}"
                for name, image in ((f"r-{time}.ppm", frame.color), (f"d-{time}.pgm", raw.view(np.uint16))):
                    data = encoded(Path(name).suffix, image if image.ndim == 3 else image.astype(np.uint16))
                    archive.writestr(f"{scene}/{name}", data)
                    put(tmp_path / "unpacked" / scene / name, data)
    with pytest.raises(ValueError, match=r"holds the scenes bedroom_0001, office_0002; give one, as .*/SCENE"):
        open_sequence(tmp_path / "part1.zip")
    zipped = open_sequence(tmp_path / "part1.zip" / "office_0002")
    unpacked = open_sequence(tmp_path / "unpacked" / "office_0002")
    assert len(zipped) == len(unpacked) == 2 and zipped.camera == unpacked.camera
    for a, b in zip(zipped, unpacked):
        assert np.array_equal(a.depth, b.depth) and np.array_equal(a.color, b.color) and a.timestamp == b.timestamp


def test_deeploc_is_a_sequence_with_labels(frames, tmp_path):
    lines = ["DeepLoc", "img_name x y z qw qx qy qz"]
    for i, frame in enumerate(frames):
        put(tmp_path / "train" / "LeftImages" / f"Image_{i}.png", encoded(".png", frame.color))
        lines.append(f"Image_{i} {i} 0 0 1 0 0 0")
    put(tmp_path / "train" / "labels" / "Image_2.png", encoded(".png", np.full((72, 96), 3, np.uint8)))
    put(tmp_path / "train" / "poses.txt", "\n".join(lines) + "\n")
    assert not open_sequence(tmp_path).camera.focal_known
    sequence = open_sequence(tmp_path, fov=70.0)
    assert sequence.label_set == "deeploc10" and sequence.labelled_indices == [2] and (sequence[2].labels == 3).all()
    assert sequence[3].T_world_camera[0, 3] == 3 and not sequence.has_depth
    put(tmp_path / "train" / "labels" / "Image_2.png", "no image")
    assert_only_labels_are_broken(sequence, 2)


def test_eth3d_has_a_calibration_of_its_own(frames, tmp_path):
    camera = frames[0].camera
    for i, frame in enumerate(frames):
        put(tmp_path / "rgb" / f"#{i}.png", encoded(".png", frame.color))
        put(tmp_path / "depth" / f"#{i}.png", encoded(".png", millimetres(frame.depth, 5000)))
    for kind in ("rgb", "depth"):
        put(tmp_path / f"{kind}.txt", " # list\n" + "".join(f"{i / 30:.6f} {kind}/#{i}.png # a\n" for i in range(4)))
    with pytest.raises(ValueError, match=r"is no recording of kind eth3d; expected as tum, with calibration\.txt"):
        open_sequence(tmp_path, "eth3d")
    put(tmp_path / "calibration.txt", f"{camera.fx} {camera.fy} {camera.cx} {camera.cy}")
    assert open_sequence(tmp_path).camera == camera
    assert_like_the_room(open_sequence(tmp_path), frames, color=0.01, poses=False)


def test_tums_layout_with_colour_alone(frames, tmp_path):
    path = tmp_path / "rgbd_dataset_freiburg3_room"
    for i, frame in enumerate(frames):
        put(path / "rgb" / f"{i}.png", encoded(".png", frame.color))
    put(path / "rgb.txt", "# colour\n" + "".join(f"{10 + i / 30:.6f} rgb/{i}.png\n" for i in range(4)))
    put(path / "groundtruth.txt", "".join(f"{9.9 + i / 100:.4f} {i / 100:.3f} 0 0 0 0 0 1\n" for i in range(50)))
    sequence = open_sequence(path)
    assert not sequence.has_depth and sequence.camera.fx == pytest.approx(535.4 * 96 / 640)
    assert_like_the_room(sequence, frames, depth=0, poses=False)
    np.testing.assert_allclose(sequence[3].T_world_camera[:3, 3], [0.2, 0, 0], atol=1e-4)


def test_open3ds_recorder_writes_no_trajectory(frames, tmp_path):
    for i, frame in enumerate(frames):
        put(tmp_path / "color" / f"{i:05d}.jpg", encoded(".jpg", frame.color))
        put(tmp_path / "depth" / f"{i:05d}.png", encoded(".png", millimetres(frame.depth)))
    camera = frames[0].camera
    values = {"width": camera.width, "height": camera.height, "intrinsic_matrix": camera.K.T.ravel().tolist()}
    put(tmp_path / "intrinsic.json", json.dumps(values | {"color_format": "MJPG", "serial_number_": "000"}))
    sequence = open_sequence(tmp_path)
    assert sequence.camera == camera and not sequence.has_poses
    assert_like_the_room(sequence, frames, poses=False)


def test_a_runs_folder_is_no_folder_of_photographs(frames, tmp_path):
    for name in ("preview.png", "trajectory.png"):
        put(tmp_path / name, encoded(".png", frames[0].color))
    for name in ("map.ply", "metrics.json", "config.yaml"):
        put(tmp_path / name, "x")
    with pytest.raises(ValueError, match="fits no known kind"):
        open_sequence(tmp_path)


def test_a_camera_given_for_half_the_size_is_the_camera(scannet, frames):
    camera = frames[0].camera
    sequence = open_sequence(scannet, camera=camera.resized(48, 36))
    assert sequence.camera.shape == (36, 48)
    whole = open_sequence(scannet)[1]
    assert np.abs(sequence[1].color.astype(int).mean(axis=(0, 1)) - whole.color.mean(axis=(0, 1))).max() < 2
    assert np.median(np.abs(sequence[1].depth - whole.depth[::2, ::2])) < 0.02
    with pytest.raises(ValueError, match="image of frame 0 is 96x72, its camera's is 60x60"):
        open_sequence(scannet, camera=replace(camera, width=60, height=60))
