"""Parts of recordings, and recordings written in other layouts: what comes back is what went in."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner
from written_recordings import assert_like_the_room

from semslam.camera import Camera
from semslam.cli import app
from semslam.frame import Frame
from sequences import open_sequence
from sequences.conversion import WRITERS, convert
from sequences.room.room import RoomSequence
from sequences.selected import selected
from sequences.sequence import DerivedSequence, Sequence


@pytest.fixture(scope="module")
def room() -> RoomSequence:
    return RoomSequence(frames=12, width=96, height=72)


def test_a_part_of_a_sequence_is_its_frames_from_start_on(room):
    part = selected(room, start=2, frames=3, every=4)
    assert len(part) == 3 and part.mesh() is not None
    for i, number in enumerate((2, 6, 10)):
        assert part[i].index == i and part[i].timestamp == room[number].timestamp == part.timestamps[i]
        assert np.array_equal(part[i].color, room[number].color) and np.array_equal(
            part.depth_of(i), room[number].depth
        )
        assert np.array_equal(part.poses[i], room.poses[number])
    assert [frame.index for frame in part] == [0, 1, 2] and part.labelled_indices == [0, 1, 2]
    with pytest.raises(IndexError):
        part[3]


def test_a_part_of_a_part_is_a_part(room):
    twice = selected(selected(room, start=1, every=2), start=1, every=2)
    assert list(twice.timestamps) == list(selected(room, start=3, every=4).timestamps)
    assert selected(room) is room


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"start": 12}, r"`start` is 12, but room has frames 0\.\.11"),
        ({"start": -1}, "`start` is -1"),
        ({"every": 0}, "`every` is 0"),
        ({"frames": 0}, "`frames` is 0"),
    ],
)
def test_a_choice_that_leaves_no_frame_names_the_setting(room, choice, message):
    with pytest.raises(ValueError, match=message):
        selected(room, **choice)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_what_is_written_reads_back(room, tmp_path, kind):
    path = tmp_path / ("room.klg" if kind == "klg" else "room")
    told = []
    assert convert(room, path, kind, lambda: told.append(1)) == (12, 0) and len(told) == 12
    again = open_sequence(path)
    np.testing.assert_allclose(
        [again.camera.fx, again.camera.cx, again.camera.cy], [room.camera.fx, room.camera.cx, room.camera.cy]
    )
    assert_like_the_room(again, list(room))
    if kind != "open3d":
        np.testing.assert_allclose(again.timestamps, room.timestamps, atol=1e-6)


def test_frames_that_cannot_be_read_are_left_out_and_counted(room, tmp_path):
    convert(room, tmp_path / "a")
    (tmp_path / "a" / "depth" / "000003.png").write_bytes(b"no image")
    for kind in WRITERS:
        path = tmp_path / f"{kind}.klg"
        assert convert(open_sequence(tmp_path / "a"), path, kind) == (11, 1)
        again = open_sequence(path)
        assert len(again) == 11
        np.testing.assert_allclose(again[3].T_world_camera, room[4].T_world_camera, atol=1e-6)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_recording_without_a_readable_frame_becomes_nothing(room, tmp_path, kind):
    convert(selected(room, frames=3), tmp_path / "a")
    broken = open_sequence(tmp_path / "a")
    for file in (tmp_path / "a" / "depth").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(ValueError, match="a: none of its 3 frames can be read"):
        convert(broken, tmp_path / "b.klg", kind)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


class Changed(DerivedSequence):
    """The room with other depth, times, poses or labels."""

    def __init__(self, room: RoomSequence, factor: float = 1.0, **other) -> None:
        super().__init__(room)
        self.factor = factor
        vars(self).update(other)

    def _changed(self, frame: Frame, index: int) -> Frame:
        T_world_camera = None if self.poses is None else self.poses[index]
        frame = replace(frame, timestamp=self.timestamps[index], T_world_camera=T_world_camera)
        return replace(frame, depth=np.minimum(frame.depth * self.factor, 200).astype(np.float32))


class WithoutAnyDepth(DerivedSequence):
    """A recording as a plain camera of an unknown lens films it."""

    def __init__(self, whole: Sequence) -> None:
        super().__init__(whole)
        self.has_depth, self.camera = False, replace(whole.camera, focal_known=False)

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, depth=None, camera=self.camera)


@pytest.mark.parametrize(("kind", "farthest"), [("tum", 13.1), ("open3d", 65.5), ("klg", 65.5)])
def test_depth_that_a_layout_cannot_hold_is_told_and_refused_where_it_is_most(room, tmp_path, kind, farthest, caplog):
    depth = np.concatenate([frame.depth[frame.depth > 0] for frame in room])
    some, most = (farthest / np.quantile(depth, 1 - share) for share in (0.1, 0.9))
    convert(Changed(room, some), tmp_path / "a.klg", kind)
    assert f"room: 10% of its depth is beyond {farthest} m" in caplog.text
    with pytest.raises(ValueError, match=rf"room: 90% of its depth is beyond {farthest} m.*--to folder"):
        convert(Changed(room, most), tmp_path / "b.klg", kind)
    assert not (tmp_path / "b.klg").exists()


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_camera_of_numpys_numbers_is_written(room, tmp_path, kind):
    """Those of bags are; YAML knows none."""
    camera = replace(room.camera, fx=np.float64(room.camera.fx), fy=np.float64(room.camera.fy))
    part = Changed(selected(room, frames=2), camera=camera)
    convert(part, tmp_path / "a.klg", kind)
    assert open_sequence(tmp_path / "a.klg").camera.fx == pytest.approx(room.camera.fx)


def test_a_lens_that_nobody_knows_is_not_known_after_conversion(room, tmp_path, caplog):
    filmed = WithoutAnyDepth(selected(room, frames=2))
    convert(filmed, tmp_path / "a")
    again = open_sequence(tmp_path / "a").camera
    assert not again.focal_known and again == Camera.unknown(room.camera.width, room.camera.height)
    assert "guessed intrinsics" not in caplog.text
    for kind in ("tum", "open3d", "klg"):
        caplog.clear()
        convert(filmed, tmp_path / f"{kind}.klg", kind)
        assert "guessed intrinsics are written as if they were known" in caplog.text


def test_two_frames_of_one_time_do_not_overwrite_each_other(room, tmp_path):
    times = room.timestamps.copy()
    times[5] = times[4] + 1e-7
    twice = Changed(room, timestamps=times)
    for kind in ("folder", "tum", "klg"):
        with pytest.raises(ValueError, match=r"room: frames 4 and 5 are at 0\.13.* must increase by a microsecond"):
            convert(twice, tmp_path / "a.klg", kind)
        with pytest.raises(ValueError, match="frames 4 and 5 are at"):  # as the recording counts them, not its part
            convert(selected(twice, start=3), tmp_path / "a.klg", kind)
    assert not list(tmp_path.iterdir())
    twice.poses = None
    for kind in ("folder", "open3d"):
        convert(twice, tmp_path / kind, kind)
        assert len(open_sequence(tmp_path / kind)) == len(room)


def test_times_outlast_a_plain_folder_without_poses_and_foreign_labels_are_left_out(room, tmp_path):
    times = 1.3e9 + np.cumsum(np.linspace(0.02, 0.5, len(room)))
    convert(Changed(room, poses=None, timestamps=times, label_set="coco21"), tmp_path / "a")
    again = open_sequence(tmp_path / "a")
    np.testing.assert_allclose(again.timestamps, times, atol=1e-6)
    assert not again.has_labels and again.poses is None
    for frame, recorded in zip(again, room):
        assert np.array_equal(frame.color, recorded.color)
        np.testing.assert_allclose(frame.depth, recorded.depth, atol=6e-4)


def test_a_converted_folder_names_the_sensor(room, tmp_path):
    part = selected(room, frames=2)
    part.sensor = "tof"
    convert(part, tmp_path / "a")
    assert open_sequence(tmp_path / "a").sensor == "tof"


def test_a_folder_is_written_whole_or_not_at_all(room, tmp_path):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(room, tmp_path / "new", tell=interrupted)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    convert(room, tmp_path / "empty")
    convert(room, tmp_path / "inner" / "new")
    for path in (tmp_path / "empty", tmp_path / "inner" / "new"):
        assert len(open_sequence(path)) == len(room) and not list(path.parent.glob(".*"))
        assert not list(path.glob(".*"))


def test_nothing_is_overwritten(room, tmp_path):
    convert(selected(room, frames=2), tmp_path / "a")
    with pytest.raises(ValueError, match="a: is there already"):
        convert(room, tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is there already"):
        convert(room, tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe is a pipe, .* not a folder"):
        convert(room, tmp_path / "pipe" / "below")
    with pytest.raises(ValueError, match="kind 'mp4'; written are folder, tum, open3d, klg"):
        convert(room, tmp_path / "b", "mp4")


def test_a_run_of_a_part_says_so_and_is_of_that_part(tmp_path):
    words = ["reconstruct", "room:frames=8,width=64,height=48", "--start", "1", "--frames", "3", "--every", "2"]
    told = CliRunner().invoke(app, [*words, "--labels", "none", "--no-mesh", "--out", str(tmp_path / "run")])
    assert told.exit_code == 0, told.output
    whole = open_sequence("room:frames=8,width=64,height=48")
    times = [float(line.split()[0]) for line in (tmp_path / "run" / "trajectory.txt").read_text().splitlines()]
    np.testing.assert_allclose(times, whole.timestamps[[1, 3, 5]], atol=1e-6)
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (settings["start"], settings["frames"], settings["every"]) == (1, 3, 2)


def test_the_command_converts_a_part(room, tmp_path):
    convert(room, tmp_path / "a")
    words = ["convert", str(tmp_path / "a"), str(tmp_path / "b.klg"), "--start", "4", "--every", "3"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0 and f"3 frames written to {tmp_path / 'b.klg'}" in told.output
    np.testing.assert_allclose(open_sequence(tmp_path / "b.klg").timestamps, room.timestamps[[4, 7, 10]], atol=1e-6)


def test_options_of_a_recording_are_those_of_every_command_that_opens_one(room, tmp_path):
    """A pose file of every second frame, without times."""
    convert(room, tmp_path / "a")
    moved = "".join(f"1 0 0 {i} 0 1 0 0 0 0 1 0\n" for i in range((len(room) + 1) // 2))
    (tmp_path / "a" / "groundtruth.txt").unlink()
    (tmp_path / "a" / "poses.txt").write_text(moved)
    words = ["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--pose-indices", "::2", "--registered"]
    told = CliRunner().invoke(app, [*words, "--pose-convention", "as-recorded"])
    assert told.exit_code == 0, told.output
    assert open_sequence(tmp_path / "b")[2].T_world_camera[0, 3] == 1
    shared = {"--kind", "--camera", "--depth-scale", "--registered", "--fov", "--start", "--frames", "--every"}
    for command, more in (("doctor", True), ("convert", True), ("localise", False), ("reconstruct", True)):
        options = {name for parameter in get_command(app).commands[command].params for name in parameter.opts}
        assert shared | ({"--pose-rate", "--pose-indices"} if more else set()) <= options, command


def test_files_that_would_lie_beside_a_klg_are_not_overwritten(room, tmp_path):
    (tmp_path / "b.yaml").write_text("settings of mine")
    with pytest.raises(ValueError, match=r"b\.yaml: is there already"):
        convert(room, tmp_path / "b.klg", "klg")
    assert (tmp_path / "b.yaml").read_text() == "settings of mine" and not (tmp_path / "b.klg").exists()


def test_a_klg_file_needs_its_suffix(room, tmp_path):
    with pytest.raises(
        ValueError, match=r"room: a recording of kind 'klg' is one file; give it a name that ends in \.klg"
    ):
        convert(room, tmp_path / "room", "klg")
    assert not list(tmp_path.iterdir())
