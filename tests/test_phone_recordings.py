"""Exports of phones: the lidar's depth under the video's pixels, ARKit's axes turned into ours."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from written_recordings import assert_like_the_room, encoded, millimetres, put, room_frames, write_video

from semslam import poses
from semslam.camera import Camera
from sequences import CorruptFrame, open_sequence
from sequences.recordings.phones import arkit
from sequences.recordings.phones.lzfse import decompress

FLIP = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope="module")
def frames():
    return room_frames()


def arkit_pose(frame) -> list[float]:
    T = frame.T_world_camera @ FLIP
    return [*Rotation.from_matrix(T[:3, :3]).as_quat(), *T[:3, 3]]


def small_depth(frame) -> np.ndarray:
    """As the lidar's: a third of the size, the middle of each block of nine pixels."""
    return np.ascontiguousarray(frame.depth[1::3, 1::3])


# Record3D


def record3d_files(frames, per_frame: bool = False) -> dict[str, bytes]:
    camera = frames[0].camera
    metadata = {
        "w": camera.width, "h": camera.height, "dw": 32, "dh": 24, "fps": 60,
        "K": camera.K.T.ravel().tolist(), "poses": [arkit_pose(f) for f in frames],
        "frameTimestamps": [0.5 + 0.1 * i for i in range(len(frames))],
    }  # fmt: skip
    if per_frame:
        metadata["perFrameIntrinsicCoeffs"] = [[camera.fx, camera.fy, camera.cx, camera.cy] for _ in frames]
    files = {"metadata": json.dumps(metadata).encode()}
    for i, frame in enumerate(frames):
        depth = small_depth(frame)
        confidence = np.full(depth.shape, 2, np.uint8)
        confidence[:4] = 0
        files[f"rgbd/{i}.jpg"] = encoded(".jpg", frame.color)
        files[f"rgbd/{i}.depth"] = stored(depth.astype("<f4").tobytes())
        files[f"rgbd/{i}.conf"] = stored(confidence.tobytes())
    return files


def stored(data: bytes) -> bytes:
    """LZFSE's form of bytes that do not compress."""
    return b"bvx-" + len(data).to_bytes(4, "little") + data + b"bvx$"


def write_zip(path: Path, files: dict[str, bytes], top: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return path


def assert_lidar_frames(sequence, frames) -> None:
    """Depth is that of the room where the confidence is, none where it is not."""
    for read, true in zip(sequence, frames):
        assert read.color.shape == true.color.shape
        assert np.abs(read.color.astype(int) - true.color).mean() < 4
        assert (read.depth[:10] == 0).all(), "low confidence"
        there = read.depth[12:] > 0
        assert there.mean() > 0.95
        assert np.median(np.abs(read.depth - true.depth)[12:][there]) < 0.01
        np.testing.assert_allclose(read.T_world_camera, true.T_world_camera, atol=1e-6)


@pytest.mark.parametrize("top", ["", "scan/"])
def test_record3d_archives_are_read_as_they_are(frames, tmp_path, top):
    sequence = open_sequence(write_zip(tmp_path / "a.r3d", record3d_files(frames), top))
    assert sequence.camera == frames[0].camera and len(sequence) == 4 and sequence.sensor == "lidar"
    np.testing.assert_allclose(np.diff(sequence.timestamps), 0.1)
    assert_lidar_frames(sequence, frames)


def test_record3d_unpacked_and_exported(frames, tmp_path):
    files = record3d_files(frames)
    for name, data in files.items():
        put(tmp_path / "unpacked" / name, data)
    assert_lidar_frames(open_sequence(tmp_path / "unpacked"), frames)
    put(tmp_path / "exported" / "metadata.json", files["metadata"])
    for i, frame in enumerate(frames):
        put(tmp_path / "exported" / "rgb" / f"{i}.jpg", files[f"rgbd/{i}.jpg"])
        (tmp_path / "exported" / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / "exported" / "depth" / f"{i}.npy", small_depth(frame))
    sequence = open_sequence(tmp_path / "exported")
    assert np.median(np.abs(sequence[1].depth - frames[1].depth)) < 0.01


def test_frames_of_another_focal_length_are_brought_to_the_first(frames, tmp_path):
    """The same view with a lens 5 % longer, told frame by frame: what is read is what the first lens saw."""
    camera = frames[0].camera
    files = record3d_files(frames, per_frame=True)
    longer = Camera(camera.width, camera.height, camera.fx * 1.05, camera.fy * 1.05, camera.cx + 1, camera.cy)
    affine = np.array([[1 / 1.05, 0, camera.cx - longer.cx / 1.05], [0, 1 / 1.05, camera.cy - longer.cy / 1.05]])
    size = (camera.width, camera.height)
    zoomed = cv2.warpAffine(frames[2].color, affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    zoomed_depth = cv2.warpAffine(frames[2].depth, affine, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    files["rgbd/2.jpg"] = encoded(".jpg", zoomed)
    files["rgbd/2.depth"] = stored(np.ascontiguousarray(zoomed_depth[1::3, 1::3]).astype("<f4").tobytes())
    metadata = json.loads(files["metadata"])
    metadata["perFrameIntrinsicCoeffs"][2] = [longer.fx, longer.fy, longer.cx, longer.cy]
    files["metadata"] = json.dumps(metadata).encode()
    frame = open_sequence(write_zip(tmp_path / "a.r3d", files))[2]
    inside = (slice(14, -6), slice(6, -6))
    as_read, as_stored = (np.abs(image.astype(int) - frames[2].color)[inside].mean() for image in (frame.color, zoomed))
    assert as_read < as_stored / 2, "what remains is the blur of two interpolations"
    assert np.median(np.abs(frame.depth - frames[2].depth)[inside]) < 0.01


def test_record3d_damage_is_told(frames, tmp_path):
    files = record3d_files(frames)
    files["rgbd/1.depth"] = files["rgbd/1.depth"][:100]
    sequence = open_sequence(write_zip(tmp_path / "a.r3d", files))
    with pytest.raises(CorruptFrame, match=r"rgbd/1\.depth: cannot be unpacked"):
        sequence[1]
    assert sequence[2].depth is not None
    put(tmp_path / "b.r3d", (tmp_path / "a.r3d").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"b\.r3d: is no zip archive, or is cut short"):
        open_sequence(tmp_path / "b.r3d")
    with pytest.raises(ValueError, match="lacks K"):
        open_sequence(write_zip(tmp_path / "c.r3d", files | {"metadata": b"{}"}))


def test_archives_never_reach_outside(frames, tmp_path):
    files = record3d_files(frames) | {"../../outside.txt": b"x", "/etc/outside": b"x"}
    (tmp_path / "in").mkdir()
    sequence = open_sequence(write_zip(tmp_path / "in" / "a.r3d", files))
    assert len(list(sequence)) == 4
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.r3d", "in"]


# LZFSE, by inputs packed with Apple's reference implementation


def test_lzfse_blocks_that_apples_tool_wrote():
    packed = np.load(Path(__file__).parent / "lzfse_blocks.npz")
    for kind in ("lzvn", "lzfse", "lzfse_noise", "stored"):
        assert decompress(packed[f"{kind}_packed"].tobytes(), packed[kind].size) == packed[kind].tobytes(), kind


def test_damaged_lzfse_is_an_error_and_never_more():
    packed = np.load(Path(__file__).parent / "lzfse_blocks.npz")
    rng = np.random.default_rng(0)
    for kind in ("lzvn", "lzfse"):
        for _ in range(200):
            data = packed[f"{kind}_packed"].copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            try:
                assert (
                    len(decompress(data[: rng.integers(1, len(data) + 1)].tobytes(), packed[kind].size))
                    == packed[kind].size
                )
            except ValueError as problem:
                assert "\n" not in str(problem)


# Stray Scanner


@pytest.fixture
def stray(frames, tmp_path) -> Path:
    path = tmp_path / "71de12f9"
    write_video(path / "rgb.mp4", frames)
    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for i, frame in enumerate(frames):
        put(path / "depth" / f"{i:06d}.png", encoded(".png", millimetres(small_depth(frame))))
        confidence = np.full((24, 32), 1, np.uint8)
        confidence[:4] = 0
        put(path / "confidence" / f"{i:06d}.png", encoded(".png", confidence))
        T = frame.T_world_camera
        numbers = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
        lines.append(f"{77.5 + i / 60:.6f}, {i:06d}, " + ", ".join(f"{x:.9f}" for x in numbers))
    put(path / "odometry.csv", "\n".join(lines) + "\n")
    put(path / "camera_matrix.csv", "\n".join(", ".join(f"{x:.9f}" for x in row) for row in frames[0].camera.K) + "\n")
    return path


def test_stray_scanner_is_video_with_depth_and_odometry(stray, frames):
    sequence = open_sequence(stray)
    assert sequence.sensor == "lidar"
    assert_lidar_frames_of_video(sequence, frames)
    np.testing.assert_allclose(np.diff(sequence.timestamps), 1 / 60, atol=1e-5)
    (stray / "depth" / "000002.png").unlink()
    sequence = open_sequence(stray)
    assert sequence[3].depth is not None
    with pytest.raises(CorruptFrame, match=r"depth/000002\.png: the file is missing"):
        sequence[2]


def assert_lidar_frames_of_video(sequence, frames) -> None:
    for read, true in zip(sequence, frames):
        assert np.abs(read.color.astype(int) - true.color).mean() < 10
        assert (read.depth[:10] == 0).all()
        there = read.depth[12:] > 0
        assert there.mean() > 0.95 and np.median(np.abs(read.depth - true.depth)[12:][there]) < 0.01
        np.testing.assert_allclose(read.T_world_camera, true.T_world_camera, atol=1e-6)


def test_odometry_of_strays_first_versions_has_no_heading_and_no_times(stray, frames):
    lines = (stray / "odometry.csv").read_text().splitlines()[1:]
    put(stray / "odometry.csv", "".join(", ".join(line.split(", ")[2:]) + "\n" for line in lines))
    for path in (stray / "depth").iterdir():
        np.save(path.with_suffix(".npy"), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        path.unlink()
    assert_lidar_frames_of_video(open_sequence(stray), frames)


def test_odometry_beyond_the_end_of_the_film_takes_its_poses_along(stray, frames):
    """A line of a frame that was not filmed, before the others: each keeps its own pose and time."""
    heading, *lines = (stray / "odometry.csv").read_text().splitlines()
    put(stray / "odometry.csv", "\n".join([heading, f"77.4, 000900, {'9, ' * 3}0, 0, 0, 1", *lines]) + "\n")
    sequence = open_sequence(stray)
    assert len(sequence) == len(frames) and sequence.timestamps[0] == pytest.approx(77.5)
    assert_lidar_frames_of_video(sequence, frames)
    put(stray / "odometry.csv", "\n".join([heading, f"77.4, 000900, {'9, ' * 3}0, 0, 0, 1"]) + "\n")
    with pytest.raises(ValueError, match=r"odometry\.csv: has no line of the 4 frames of rgb\.mp4"):
        open_sequence(stray)


def test_confidence_of_another_size_counts_where_it_lies():
    confidence = np.array([[0, 2], [1, 0]], np.uint8)
    kept = arkit.trusted(np.ones((6, 8), np.float32), confidence)
    assert np.array_equal(kept, np.kron(confidence > 0, np.ones((3, 4))))


def test_a_stray_line_that_is_cut_is_named(stray):
    put(stray / "odometry.csv", (stray / "odometry.csv").read_text()[:-30])
    with pytest.raises(ValueError, match=r"odometry\.csv:5: expected timestamp, frame"):
        open_sequence(stray)


# Polycam


def polycam_files(frames, kind: str = "corrected_") -> dict[str, bytes]:
    files = {}
    for i, frame in enumerate(frames):
        name, T, camera = 88_000_000 + 500_000 * i, frame.T_world_camera @ FLIP, frame.camera
        values = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
        values |= {f"t_{r}{c}": T[r, c] for r in range(3) for c in range(4)}
        confidence = np.full((24, 32), 255, np.uint8)
        confidence[:4] = 0
        files[f"keyframes/{kind}images/{name}.jpg"] = encoded(".jpg", frame.color)
        files[f"keyframes/{kind}cameras/{name}.json"] = json.dumps(values).encode()
        files[f"keyframes/depth/{name}.png"] = encoded(".png", millimetres(small_depth(frame)))
        files[f"keyframes/confidence/{name}.png"] = encoded(".png", confidence)
    return files


@pytest.mark.parametrize("kind", ["", "corrected_"])
def test_polycam_folders_and_archives(frames, tmp_path, kind):
    files = polycam_files(frames, kind)
    for name, data in files.items():
        put(tmp_path / "folder" / name, data)
    archive = write_zip(tmp_path / "export.zip", files, "my scan/")
    for path in (tmp_path / "folder", archive):
        sequence = open_sequence(path)
        np.testing.assert_allclose(np.diff(sequence.timestamps), 0.5)
        assert sequence.sensor == "lidar"
        assert_lidar_frames(sequence, frames)


# ARKitScenes


def test_arkitscenes_pairs_by_time_and_inverts_the_trajectory(frames, tmp_path):
    path, camera = tmp_path / "47333462", frames[0].camera
    lines = []
    for i, frame in enumerate(frames):
        t = 100.0 + 0.1 * i
        put(path / "lowres_wide" / f"47333462_{t:.3f}.png", encoded(".png", frame.color))
        put(path / "lowres_depth" / f"47333462_{t + 0.001:.3f}.png", encoded(".png", millimetres(frame.depth)))
        put(path / "lowres_wide_intrinsics" / f"47333462_{t:.3f}.pincam",
            f"{camera.width} {camera.height} {camera.fx} {camera.fy} {camera.cx} {camera.cy}")  # fmt: skip
        T = poses.inverse(frame.T_world_camera)
        numbers = [*Rotation.from_matrix(T[:3, :3]).as_rotvec(), *T[:3, 3]]
        lines.append(f"{t:.6f} " + " ".join(f"{x:.9f}" for x in numbers))
    put(path / "lowres_wide.traj", "\n".join(lines))
    assert_like_the_room(open_sequence(path), frames, color=0.1)
    assert open_sequence(path).sensor == "lidar"
    pincam = path / "lowres_wide_intrinsics" / "47333462_100.000.pincam"
    pincam.unlink()
    os.mkfifo(pincam)  # reading a pipe that nobody writes to would wait for ever
    assert open_sequence(path).try_read(0) is None
    pincam.unlink()
    pincam.write_text("one two")
    sequence = open_sequence(path)
    assert sequence[1].depth is not None
    with pytest.raises(CorruptFrame, match=r"\.pincam: expected width height"):
        sequence[0]
