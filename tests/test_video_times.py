"""When the frames of a video are shown, where neither a steady rate nor a table of the file says it, and how wide."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from semslam.camera import Camera
from sequences import open_sequence
from sequences.recordings.cameras.video_file import VideoFile, mp4_times

FRAMES, RATE = 30, 25


def filmed(path: Path, codec: str) -> bytearray:
    """The bytes of a video whose frame i is grey level 8 i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), RATE, (64, 48))
    for i in range(FRAMES):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()
    return bytearray(path.read_bytes())


def test_what_a_trimmed_video_leaves_out_is_no_frame_of_it(tmp_path):
    path = tmp_path / "a.mp4"
    data = filmed(path, "mp4v")
    assert len(mp4_times(path)) == len(VideoFile(path).timestamps) == FRAMES
    scale = struct.unpack_from(">I", data, data.find(b"mdhd") + 16)[0]
    struct.pack_into(">I", data, data.find(b"elst") + 16, 10 * scale // RATE)  # shown from frame 10 on
    path.write_bytes(data)
    video = VideoFile(path)
    np.testing.assert_allclose(video.timestamps, np.arange(FRAMES - 10) / RATE, atol=1e-3)
    assert [video.frame(i).mean() for i in (0, 19)] == pytest.approx([80, 232], abs=3)


def test_matroska_frames_are_counted_and_shown_when_each_says(tmp_path):
    """A file that says twice as long as it is, and of whose frames one is shown half a frame later."""
    path = tmp_path / "a.mkv"
    data = filmed(path, "MJPG")
    at = data.find(b"\x44\x89\x88") + 3  # its duration
    struct.pack_into(">d", data, at, 2 * struct.unpack_from(">d", data, at)[0])
    block = data.find(b"\x81" + struct.pack(">h", 10 * 1000 // RATE) + b"\x80")  # track 1, the tenth frame's time, key
    assert block > 0
    struct.pack_into(">h", data, block + 1, 10 * 1000 // RATE + 20)
    path.write_bytes(data)
    times = np.arange(FRAMES) / RATE
    times[10] += 0.02
    np.testing.assert_allclose(VideoFile(path).timestamps, times, atol=1e-3)


def test_a_matroska_file_that_was_cut_short_is_told(tmp_path):
    data = filmed(tmp_path / "whole.mkv", "MJPG")
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 3])
    whole, cut = (open_sequence(tmp_path / name, fov=60) for name in ("whole.mkv", "cut.mkv"))
    assert not any("announces" in note for note in whole.assumptions)
    (note,) = (note for note in cut.assumptions if "announces" in note)
    assert f"its {len(cut)} images end after" in note and 0 < len(cut) < FRAMES / 2


def with_pixel_aspect(data: bytearray, across: int, down: int) -> bytes:
    """The bytes of an MP4 with a box `pasp` at the end of its sample description."""
    names = b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4v" + bytes(6)
    boxes = [data.find(name) - 4 for name in names]
    sizes = [struct.unpack_from(">I", data, at)[0] for at in boxes]
    for at, size in zip(boxes, sizes):
        struct.pack_into(">I", data, at, size + 16)
    end = boxes[-1] + sizes[-1]
    return bytes(data[:end] + struct.pack(">I4sII", 16, b"pasp", across, down) + data[end:])


def test_frames_whose_stored_pixels_are_not_square_are_shown_as_players_do(tmp_path, caplog):
    path = tmp_path / "a.mp4"
    path.write_bytes(with_pixel_aspect(filmed(path, "mp4v"), 4, 3))
    assert VideoFile(path, upright=False).frame(0).shape == (48, 64, 3)
    sequence = open_sequence(path, fov=60)
    assert sequence.color_of(20).shape == (48, 85, 3) and sequence.color_of(20).mean() == pytest.approx(160, abs=3)
    assert (sequence.camera.width, sequence.camera.fx) == (85, pytest.approx(sequence.camera.fy))
    assert "1.33 times as wide as high: its frames of 64x48 are shown as 85x48" in caplog.text
    stored = open_sequence(path, camera=Camera(64, 48, 60, 80, 31.5, 23.5)).camera  # of the pixels as they are stored
    assert (stored.width, stored.fx, stored.fy) == (85, pytest.approx(60 * 85 / 64), 80)
    with pytest.raises(ValueError, match="camera is 64x64, of another aspect"):
        open_sequence(path, camera=Camera(64, 64, 60, 60, 31.5, 31.5))
    path.write_bytes(with_pixel_aspect(filmed(path, "mp4v"), 90, 1))
    assert VideoFile(path).width == 64
