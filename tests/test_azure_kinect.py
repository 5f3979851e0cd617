"""Azure Kinect's Matroska files, written here as its recorder writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from written_recordings import encoded, put

from semslam import poses
from semslam.camera import Camera
from sequences import open_sequence


def element(identity: int, content: bytes) -> bytes:
    size = len(content)
    head = identity.to_bytes((identity.bit_length() + 7) // 8, "big")
    return head + (size | 1 << 56).to_bytes(8, "big") + content


def number(identity: int, value: int) -> bytes:
    return element(identity, value.to_bytes(4, "big"))


def kinect_cameras(T: np.ndarray) -> tuple[Camera, Camera, bytes]:
    """Colour 1280x720, depth 320x288 in the middle of its sensor, both of distorting lenses, and the file of them."""
    color = {"cx": 0.5, "cy": 0.5, "fx": 0.47, "fy": 0.627, "k": (0.02, -0.01, 0, 0, 0, 0)}
    depth = {"cx": 0.51, "cy": 0.49, "fx": 0.492, "fy": 0.492, "k": (0.01, 0, 0, 0, 0, 0)}

    def entry(values, place, T_camera_rig):
        numbers = [values["cx"], values["cy"], values["fx"], values["fy"], *values["k"], 0, 0, 1e-4, 2e-4]
        return {
            "Intrinsics": {"ModelParameters": numbers, "ModelType": "CALIBRATION_LensDistortionModelBrownConrady"},
            "Location": f"CALIBRATION_CameraLocation{place}",
            "Rt": {"Rotation": T_camera_rig[:3, :3].ravel().tolist(), "Translation": T_camera_rig[:3, 3].tolist()},
        }

    cameras = [entry(depth, "D0", np.eye(4)), entry(color, "PV0", T)]
    data = json.dumps({"CalibrationInformation": {"Cameras": cameras}}).encode() + b"\0"
    lens = (0.02, -0.01, 2e-4, 1e-4, 0, 0, 0, 0), (0.01, 0, 2e-4, 1e-4, 0, 0, 0, 0)
    color_camera = Camera(1280, 720, 0.47 * 1280, 0.627 * 960, 0.5 * 1280 - 0.5, 0.5 * 960 - 120 - 0.5, lens[0])
    depth_camera = Camera(320, 288, 0.492 * 512, 0.492 * 512, 0.51 * 512 - 96.5, 0.49 * 512 - 90.5, lens[1])
    return color_camera, depth_camera, data


def kinect_file(clusters: bytes, calibration: bytes | None) -> bytes:
    """A Matroska file of a colour track of 1280x720 and a depth track of 320x288."""

    def track(n: int, name: bytes, codec: bytes, width: int, height: int) -> bytes:
        header = struct.pack("<IIIHH4sIIIII", 40, width, height, 1, 16, codec, 0, 0, 0, 0, 0)
        video = element(0xE0, number(0xB0, width) + number(0xBA, height))
        inner = (
            number(0xD7, n)
            + element(0x536E, name)
            + element(0x86, b"V_MS/VFW/FOURCC")
            + element(0x63A2, header)
            + video
        )
        return element(0xAE, inner)

    tracks = track(1, b"COLOR", b"MJPG", 1280, 720) + track(2, b"DEPTH", b"b16g", 320, 288)
    body = element(0x1549A966, number(0x2AD7B1, 1_000_000)) + element(0x1654AE6B, tracks)
    if calibration is not None:
        named = element(0x466E, b"calibration.json") + element(0x465C, calibration)
        body += element(0x1941A469, element(0x61A7, named))
    return element(0x1A45DFA3, element(0x4282, b"matroska")) + element(0x18538067, body + clusters)


def kinect_block(n: int, ticks: int, data: bytes) -> bytes:
    return element(0xA3, bytes([0x80 | n]) + struct.pack(">hB", ticks, 0) + data)


def write_kinect(path: Path, T: np.ndarray, calibrated: bool = True) -> tuple[Camera, Camera]:
    """A wall 2 m in front of the depth camera, a colour gradient; two clusters, the second of unknown size."""
    color, depth, calibration = kinect_cameras(T)
    image = np.zeros((720, 1280, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, 1280)
    depth_mm = np.full((288, 320), 2000, ">u2")
    depth_mm[0] = 65535  # no reading
    jpeg, wall = encoded(".jpg", image), depth_mm.tobytes()
    block = kinect_block
    blocks = [number(0xE7, 0) + block(1, 0, jpeg) + block(2, 3, wall) + block(1, 33, jpeg) + block(2, 36, wall)]
    blocks += [
        number(0xE7, 66)
        + block(1, 0, jpeg)
        + element(0xA0, element(0xA1, bytes([0x82]) + struct.pack(">hB", 3, 0) + wall))
    ]
    clusters = element(0x1F43B675, blocks[0]) + (0x1F43B675).to_bytes(4, "big") + b"\x01" + b"\xff" * 7 + blocks[1]
    put(path, kinect_file(clusters, calibration if calibrated else None))
    return color, depth


def test_azure_kinect_depth_is_brought_to_colour(tmp_path):
    from scipy.spatial.transform import Rotation

    T = poses.from_rotation_translation(
        Rotation.from_euler("x", 6, degrees=True).as_matrix(), np.array([-0.032, 0, 0.004])
    )
    color, depth = write_kinect(tmp_path / "a.mkv", T)
    sequence = open_sequence(tmp_path / "a.mkv")
    assert sequence.sensor == "tof"
    np.testing.assert_allclose(sequence.timestamps, [0, 0.033, 0.066], atol=1e-9)
    assert sequence[1].depth_delay == pytest.approx(0.003, abs=1e-9)
    np.testing.assert_allclose(sequence.rig.color.distortion, color.distortion)
    assert (sequence.rig.depth.cx, sequence.rig.depth.fx) == pytest.approx((depth.cx, depth.fx))
    assert sequence.camera.fx == pytest.approx(0.9 * depth.fx, rel=0.01), "coarser than depth, so that it has no holes"
    frame = sequence[2]
    assert sequence.read(2).depth.max() == 2
    assert frame.color.shape[:2] == frame.depth.shape == sequence.camera.shape
    middle = (slice(60, 200), slice(200, 340))
    assert (frame.depth[middle] > 0).mean() > 0.98
    # The wall z = 2 of the depth camera, seen by the colour camera's rays.
    rays = sequence.camera.backproject(np.ones(sequence.camera.shape, np.float32))
    normal, offset = T[:3, 2], 2 + T[:3, 2] @ T[:3, 3]
    expected = offset / (rays @ normal)
    there = frame.depth[middle] > 0
    assert np.abs(frame.depth - expected)[middle][there].max() < 0.01


def test_azure_kinect_without_calibration_or_cut_short(tmp_path):
    write_kinect(tmp_path / "a.mkv", np.eye(4), calibrated=False)
    with pytest.raises(ValueError, match=r"calibration\.json: is not attached"):
        open_sequence(tmp_path / "a.mkv")
    write_kinect(tmp_path / "b.mkv", np.eye(4))
    put(tmp_path / "c.mkv", (tmp_path / "b.mkv").read_bytes()[:-1000])
    cut = open_sequence(tmp_path / "c.mkv")
    assert len(cut) == 2, "what lies before the cut"
    assert "is cut short or damaged; 2 frames" in cut.assumptions[0]
    assert not any("cut short" in line for line in open_sequence(tmp_path / "b.mkv").assumptions)
