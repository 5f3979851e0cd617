"""What cameras and their tools record: videos, logs, folders of photographs."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from written_recordings import assert_like_the_room, encoded, millimetres, put, room_frames, write_video

from semslam import poses
from semslam.camera import Camera
from semslam.trajectory import Trajectory
from semslam.trajectory.files import write_tum
from sequences import CorruptFrame, open_sequence
from sequences.clock import seconds, ticks_a_second
from sequences.recordings.cameras.klg import write_klg
from sequences.recordings.cameras.video_file import VideoFile, mp4_times
from sequences.recordings.decoded import Rig
from sequences.resampling import resampled, resampled_depth, z_of_ray
from sequences.room.room import RoomSequence


@pytest.fixture(scope="module")
def frames():
    return room_frames()


def write_camera(path: Path, camera: Camera) -> None:
    put(path, yaml.safe_dump({key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}))


# Clocks


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6, 1e9])
def test_the_unit_of_a_clock_is_told_from_its_times(unit):
    for start in (0.0, 12.5, 1.6e9):
        for rate in (1, 5, 30, 120):
            times = start + np.arange(20) / rate
            ticks = np.round(times * unit) if unit > 1 else times
            assert ticks_a_second(ticks) == unit, (start, rate)
            np.testing.assert_allclose(seconds(ticks), times, atol=1e-3 + 0.5 / unit)


# One camera for all images


def test_a_camera_of_the_same_size_changes_nothing(frames):
    camera = frames[0].camera
    assert resampled(frames[0].color, camera, camera) is frames[0].color
    assert Rig(camera, camera).camera == camera


def test_colour_beside_coarser_depth_keeps_640_pixels():
    color, depth = Camera(1920, 1440, 1500, 1500, 960, 720), Camera(256, 192, 200, 200, 128, 96)
    assert Rig(color, depth).camera == color.resized(640, 480)
    assert Rig(color, Camera(640, 480, 500, 500, 320, 240)).camera == color.resized(640, 480)
    scannet = Camera(1296, 968, 1170, 1170, 648, 484)
    assert (Rig(scannet, Camera(640, 480, 577, 577, 320, 240)).camera.height) == 480, "one aspect, within 2 %"
    tall = Rig(Camera(720, 960, 700, 700, 360, 480), Camera(192, 256, 190, 190, 96, 128)).camera
    assert (tall.width, tall.height) == (480, 640)


def test_colour_of_a_folder_keeps_640_pixels_beside_coarser_depth(tmp_path, caplog):
    """As of a phone: colour of 1920x1440, its lens distorting, and labels of that size, beside depth of 256x192."""
    camera = Camera(1920, 1440, 1500, 1500, 959.5, 719.5, distortion=(0.05, 0, 0, 0))
    image = np.tile(np.arange(1920) * 255 // 1919, (1440, 1)).astype(np.uint8)[..., None].repeat(3, axis=2)
    put(tmp_path / "color" / "0.png", encoded(".png", image))
    put(tmp_path / "depth" / "0.png", encoded(".png", np.full((192, 256), 2000, np.uint16)))
    put(tmp_path / "label40" / "0.png", encoded(".png", np.full((1440, 1920), 7, np.uint8)))
    said = {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    put(tmp_path / "camera.yaml", yaml.safe_dump(said | {"distortion": list(camera.distortion)}))
    sequence = open_sequence(tmp_path)
    frame = sequence[0]
    assert frame.color.shape == (480, 640, 3) and frame.depth.shape == frame.labels.shape == (480, 640)
    assert frame.camera.fx == pytest.approx(500) and "become frames of 640x480" in caplog.text
    assert frame.color[240, 320, 0] == pytest.approx(image[720, 960, 0], abs=2) and frame.labels[240, 320] == 6
    shown = sequence.shown_at(0, np.array([[1500.0, 300.0]]))[0]
    assert frame.color[240, round(shown[0]), 0] == pytest.approx(image[720, 1500, 0], abs=3)


def test_what_becomes_of_the_sizes_is_told():
    color, depth = Camera(1920, 1440, 1500, 1500, 960, 720), Camera(256, 192, 200, 200, 128, 96)
    (note,) = Rig(color, depth).notes("scan")
    assert note == "scan: colour of 1920x1440 and depth of 256x192 become frames of 640x480; depth is resized"
    assert Rig(color).notes("scan") == Rig(color, color).notes("scan") == []


def test_depth_between_samples_of_a_plane_is_on_the_plane_and_edges_stay_edges():
    fine = Camera(96, 72, 90, 90, 47.5, 35.5)
    coarse = fine.resized(32, 24)
    u, v = np.meshgrid(np.arange(96), np.arange(72))
    plane = (1 / (0.5 + 0.0005 * u + 0.001 * v)).astype(np.float32)
    plane_coarse = plane[1::3, 1::3]
    inner = (slice(3, -3), slice(3, -3))
    assert np.abs(resampled_depth(plane_coarse, coarse, fine) - plane)[inner].max() < 1e-5
    step = plane_coarse.copy()
    step[:, 16:] += 3
    values = resampled_depth(step, coarse, fine)
    assert ((values < 2.5) | (values > 4.5)).all(), "nothing hangs between the near and the far side"
    step[:, 16:] = 0
    assert (resampled_depth(step, coarse, fine)[:, 48:] == 0).all()


def test_distance_along_the_ray_becomes_depth(frames):
    camera, depth = frames[0].camera, frames[0].depth
    ray = np.linalg.norm(camera.backproject(depth), axis=2)
    np.testing.assert_allclose(z_of_ray(ray, camera), depth, atol=1e-5)


# Videos


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, list(RoomSequence(frames=120, width=96, height=72)), fps=25)
    return path


def test_video_frames_are_the_same_in_any_order(video):
    sequence = open_sequence(video, fov=60.0)
    in_order = [frame.color for frame in sequence]
    assert len(in_order) == 120 and not sequence.has_depth
    np.testing.assert_allclose(sequence.timestamps, np.arange(120) / 25, atol=1e-4)
    for i in (119, 3, 4, 100, 0, 60, 59):
        assert np.array_equal(sequence[i].color, in_order[i]), i
    assert np.abs(in_order[30].astype(int) - RoomSequence(frames=120, width=96, height=72)[30].color).mean() < 10


def test_looking_back_and_ahead_does_not_send_a_videos_decoder_there_each_time(video, monkeypatch):
    """What a map from colour alone reads: the present frame, and some before and after it."""
    opened, open_once = [], VideoFile._opened
    monkeypatch.setattr(VideoFile, "_opened", lambda self: opened.append(1) or open_once(self))
    file = VideoFile(video)
    for index in range(20, 100):
        for other in (index, index + 15, index - 10):
            file.frame(other)
    assert len(opened) <= 4


def test_a_videos_camera_is_written_given_or_guessed(video, tmp_path, caplog):
    path = Path(tmp_path / "clip.mp4")
    put(path, video.read_bytes())
    guessed = open_sequence(path).camera
    assert not guessed.focal_known and guessed.fov == pytest.approx(60)
    assert "clip.mp4: nothing says what camera took it (camera.yaml, EXIF or --fov)" in caplog.text
    with pytest.raises(ValueError, match="--fov is 300, expected"):
        open_sequence(path, fov=300.0)
    assert (
        open_sequence(path, fov=90.0).camera.fx == pytest.approx(48)
        and open_sequence(path, fov=90.0).camera.focal_known
    )
    write_camera(tmp_path / "other.yaml", Camera(192, 144, 200, 200, 95.5, 71.5))
    with pytest.raises(ValueError, match="--camera and --fov both say"):
        open_sequence(path, fov=90.0, camera=tmp_path / "other.yaml")
    (tmp_path / "readout.yaml").write_text("readout: 0.02\n")
    assert open_sequence(path, fov=90.0, camera=tmp_path / "readout.yaml").camera.fx == pytest.approx(48)
    write_camera(tmp_path / "clip.yaml", Camera(192, 144, 200, 200, 95.5, 71.5))
    assert open_sequence(path).camera.fx == 100, "the camera of the same lens at twice the size"
    write_camera(tmp_path / "clip.yaml", Camera(192, 192, 200, 200, 95.5, 95.5))
    with pytest.raises(ValueError, match="images are 96x72, but its camera is 192x192, of another aspect"):
        open_sequence(path)


def test_a_folder_with_one_video_and_its_camera_is_that_video(video, tmp_path):
    put(tmp_path / "scan" / "clip.mp4", video.read_bytes())
    write_camera(tmp_path / "scan" / "camera.yaml", Camera(96, 72, 90, 90, 47.5, 35.5))
    sequence = open_sequence(tmp_path / "scan")
    assert len(sequence) == 120 and sequence.camera.fx == 90


def test_poses_beside_a_video_are_interpolated(video, tmp_path):
    put(tmp_path / "clip.mp4", video.read_bytes())
    T = np.stack([poses.from_rotation_translation(np.eye(3), np.array([0.1 * i, 0, 0])) for i in range(50)])
    write_tum(tmp_path / "clip.txt", Trajectory(np.arange(50) / 10, T))
    sequence = open_sequence(tmp_path / "clip.mp4", fov=60.0)
    np.testing.assert_allclose(sequence[1].T_world_camera[:3, 3], [0.04, 0, 0], atol=1e-6)


def test_a_video_that_is_cut_or_none_is_one_line(video, tmp_path):
    put(tmp_path / "a.mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    put(tmp_path / "b.mp4", video.read_bytes()[:-2000])
    put(tmp_path / "c.avi", b"")
    for name in ("a.mp4", "b.mp4", "c.avi"):
        with pytest.raises(ValueError, match=rf"{name}: OpenCV cannot open this video") as problem:
            open_sequence(tmp_path / name, fov=60.0)
        assert "\n" not in str(problem.value)


def test_a_video_that_claims_more_frames_than_it_has_ends_where_it_ends(video, tmp_path):
    """The count in the header is set to 4000 million: neither memory nor patience is spent on it."""
    data = bytearray(video.read_bytes())
    at = data.find(b"stts")
    data[at + 12 : at + 16] = (4_000_000_000).to_bytes(4, "big")
    put(tmp_path / "a.mp4", bytes(data))
    assert mp4_times(tmp_path / "a.mp4") is None
    try:
        sequence = open_sequence(tmp_path / "a.mp4", fov=60.0)
    except ValueError as problem:
        assert "cannot open this video" in str(problem)
        return
    assert len(sequence) < 10_000 and sequence[5].color.shape == (72, 96, 3)
    with pytest.raises(CorruptFrame, match="cannot be decoded"):
        sequence[len(sequence) - 1] if len(sequence) > 120 else sequence.rig.color_image(sequence.read(121).color)


def test_uneven_times_of_a_phones_video_are_read_from_its_boxes(tmp_path):
    """Three frames of 1/30 s, one of 1/10 s, shown in another order than they are stored, by a clock of 600 Hz."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    stts = box(b"stts", struct.pack(">IIIIII", 0, 2, 3, 20, 1, 60))
    ctts = box(b"ctts", struct.pack(">IIIiIiIi", 0, 3, 1, 0, 1, 20, 2, -20))
    header = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 600, 120, 0))
    media = box(
        b"mdia", header + box(b"hdlr", bytes(8) + b"vide" + bytes(12)) + box(b"minf", box(b"stbl", stts + ctts))
    )
    put(tmp_path / "a.mp4", box(b"ftyp", b"mp42") + box(b"mdat", bytes(100)) + box(b"moov", box(b"trak", media)))
    # Stored at 0, 20, 40, 60 ticks; shown at 0, 40, 20, 40 -> in order 0, 20, 40, 40.
    np.testing.assert_allclose(mp4_times(tmp_path / "a.mp4") * 600, [0, 20, 40, 40])


# Photographs


def test_a_folder_of_photographs_takes_its_camera_from_exif(frames, tmp_path):
    from PIL import Image

    for i, frame in enumerate(frames):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 24  # millimetres on 36
        Image.fromarray(frame.color).save(tmp_path / f"IMG_{i * 5}.jpg", exif=exif, quality=97)
    sequence = open_sequence(tmp_path)
    assert sequence.camera.fx == pytest.approx(96 * 24 / 36) and len(sequence) == 4
    assert_like_the_room(sequence, frames, depth=0, poses=False)


def test_photographs_stand_as_the_camera_was_held(frames, tmp_path):
    from PIL import Image

    for i, frame in enumerate(frames[:2]):
        exif = Image.Exif()
        exif[0x0112] = 6  # the picture is upright when turned by a quarter clockwise
        exif.get_ifd(0x8769)[0xA405] = 24
        Image.fromarray(frame.color).save(tmp_path / f"{i}.jpg", exif=exif, quality=97)
    sequence = open_sequence(tmp_path)
    assert (sequence.camera.width, sequence.camera.height) == (72, 96)
    assert sequence.camera.fx == pytest.approx(96 * 24 / 36), "of the longer side"
    turned = np.rot90(frames[0].color, -1)
    assert np.abs(sequence[0].color.astype(int) - turned).mean() < 4


def test_grey_images_are_colour_images_without_colour(frames, tmp_path):
    for i, frame in enumerate(frames):
        put(tmp_path / f"{i}.png", encoded(".png", frame.color[..., 1]))
    color = open_sequence(tmp_path, fov=60.0)[2].color
    assert color.shape == (72, 96, 3) and (color == frames[2].color[..., 1:2]).all()


# ElasticFusion's logs


def test_a_log_that_is_written_reads_back(tmp_path):
    room = RoomSequence(frames=4, width=96, height=72)
    written = write_klg(room, tmp_path / "out" / "room.klg")
    sequence = open_sequence(written)
    assert sequence.camera == room.camera
    assert_like_the_room(sequence, list(room))
    np.testing.assert_allclose(sequence.timestamps, room.timestamps, atol=1e-6)


def klg(path: Path, frames, raw: bool, claimed: int | None = None) -> None:
    data = struct.pack("<i", len(frames) if claimed is None else claimed)
    for i, frame in enumerate(frames):
        depth, color = (
            millimetres(frame.depth).tobytes(),
            frame.color.tobytes() if raw else encoded(".jpg", frame.color),
        )
        data += struct.pack("<qii", i * 33_333, len(depth), len(color)) + depth + color
    put(path, data)


def test_raw_logs_need_a_camera_of_their_size(frames, tmp_path):
    klg(tmp_path / "a.klg", frames, raw=True)
    assert_like_the_room(open_sequence(tmp_path / "a.klg", camera=frames[0].camera), frames, color=0.01, poses=False)
    with pytest.raises(ValueError, match="20736 bytes a frame, which is no 640x480 image"):
        open_sequence(tmp_path / "a.klg")


def test_a_log_that_claims_too_much_gives_what_it_holds(frames, tmp_path, caplog):
    klg(tmp_path / "a.klg", frames, raw=False, claimed=2_000_000_000)
    sequence = open_sequence(tmp_path / "a.klg")
    assert len(sequence) == 4 and "claims 2000000000 frames, holds 4" in caplog.text
    assert sequence.camera == Camera(640, 480, 528.0, 528.0, 320.0, 240.0).resized(96, 72)
    put(tmp_path / "b.klg", (tmp_path / "a.klg").read_bytes()[:-10])
    assert len(open_sequence(tmp_path / "b.klg")) == 3
    for name, content in (
        ("c.klg", b""),
        ("d.klg", struct.pack("<iqii", 1, 0, 2**31 - 1, 5)),
        ("e.klg", struct.pack("<i", -4)),
    ):
        put(tmp_path / name, content)
        with pytest.raises(ValueError, match=rf"{name}: "):
            open_sequence(tmp_path / name)


# Depth and labels


def test_depth_files_of_other_types(tmp_path):
    from sequences.files import Folder

    depth = np.array([[0, 1.5, 2.25]], np.float32)
    np.save(tmp_path / "metres.npy", depth.astype(np.float64))
    np.save(tmp_path / "units.npy", (depth * 1000).astype(np.uint16))
    cv2.imwrite(str(tmp_path / "float.tiff"), np.where(depth > 0, depth, np.float32(np.nan)))
    cv2.imwrite(str(tmp_path / "units.tiff"), (depth * 1000).astype(np.uint16))
    cv2.imwrite(str(tmp_path / "units.png"), (depth * 1000).astype(np.uint16))
    cv2.imwrite(str(tmp_path / "signed.tiff"), np.where(depth > 0, depth * 1000, -1).astype(np.int32))
    np.save(tmp_path / "wide.npy", np.where(depth > 0, depth * 1000, 2**32 - 1).astype(np.uint32))
    files = Folder(tmp_path)
    for name in files.names:
        np.testing.assert_allclose(files.depth(name), depth, atol=1e-6, err_msg=name)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    cv2.imwrite(str(tmp_path / "bytes.png"), np.zeros((4, 4), np.uint8))
    for name, message in (("objects.npy", "is no array of numbers"), ("bytes.png", "depth is uint8")):
        with pytest.raises(CorruptFrame, match=message):
            files.depth(name)


def test_labels_follow_colour_into_the_frames_camera(frames):
    big = replace(frames[0].camera.resized(960, 720))
    labels = np.full((720, 960), 255, np.uint8)
    labels[:, :480] = 7
    read = Rig(big, frames[0].camera).label_image(labels)
    assert read.shape == (480, 640) and (read[:, :320] == 7).all() and (read[:, 320:] == 255).all()


def test_exr_depth_is_metres(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR", reason="EXR files are read by OpenEXR, which is not installed")
    from sequences.files import Folder

    depth = np.linspace(0.5, 3, 24 * 32, dtype=np.float32).reshape(24, 32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"R": depth}).write(str(tmp_path / "a.exr"))
    assert np.array_equal(Folder(tmp_path).depth("a.exr"), depth)
    put(tmp_path / "b.exr", (tmp_path / "a.exr").read_bytes()[:200])
    with pytest.raises(CorruptFrame, match=r"b\.exr: is no EXR image"):
        Folder(tmp_path).depth("b.exr")
