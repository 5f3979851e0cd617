"""A run finds its recording again, and takes no other for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, semslam

from semslam.runs.color_only.kept import save_kept
from semslam.runs.color_only.poses import VisualPoses
from semslam.runs.config import settings_of
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.runs.recording import fingerprint
from semslam.runs.storage.lock import unlock
from sequences import open_sequence
from sequences.files import files_of_many_frames
from sequences.recordings.cameras.klg import write_klg
from sequences.recordings.folder import write_folder

ROOM = "room:frames=6,width=96,height=72"
OPTIONS = ["--labels", "none", "--no-mesh"]


@pytest.fixture
def recorded(tmp_path) -> Path:
    """The room as a folder in a project, beside a run of it."""
    project = tmp_path / "project"
    folder = write_folder(open_sequence(ROOM), project / "data" / "room")
    assert semslam("reconstruct", folder, "--out", project / "runs" / "room", *OPTIONS) == 0
    return project


def test_paths_hold_wherever_they_are_read(recorded, monkeypatch, tmp_path):
    monkeypatch.chdir(recorded / "data")
    out = recorded / "runs" / "typed"
    assert semslam("reconstruct", "room", "--out", out, *OPTIONS, "--set", "kind=folder") == 0
    assert RunFolder.open(out).load_config().sequence == str(recorded / "data" / "room")
    monkeypatch.chdir(tmp_path)
    assert len(RunFolder.open(out).open_sequence()) == 6
    assert semslam("reconstruct", recorded / "data" / "room", "--out", out, *OPTIONS, "--set", "kind=folder") == 0


def test_a_project_that_moves_as_a_whole_needs_no_help(recorded, tmp_path):
    moved = recorded.rename(tmp_path / "moved")
    assert RunFolder.open(moved / "runs" / "room").open_sequence().name == "room"
    assert semslam("evaluate", moved / "runs" / "room") == 0


@pytest.mark.slow
def test_a_recording_that_moved_alone_is_named(recorded, tmp_path, capsys):
    run = recorded / "runs" / "room"
    elsewhere = (recorded / "data" / "room").rename(tmp_path / "elsewhere")
    line = refused(capsys, "evaluate", run)
    assert "no longer there" in line and "--sequence" in line and str(recorded / "data" / "room") in line
    assert semslam("evaluate", run, "--sequence", elsewhere) == 0


def test_a_recording_beside_the_run_is_found(recorded):
    shutil.move(recorded / "data" / "room", recorded / "runs" / "room2")
    run = (recorded / "runs" / "room").rename(recorded / "runs" / "map")
    (recorded / "runs" / "room2").rename(recorded / "runs" / "room")
    assert len(RunFolder.open(run).open_sequence()) == 6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("frames=5,width=96,height=72", "the number of frames differs (5, was 6)"),
        ("frames=6,width=112,height=84", "the camera differs"),
        ("frames=6,width=96,height=72,seed=3,noise=kinect", "the first frame differs"),
    ],
)
def test_another_recording_in_its_place_is_recognised(recorded, capsys, spoil, said):
    place = recorded / "data" / "room"
    shutil.rmtree(place)
    write_folder(open_sequence(f"room:{spoil}"), place)
    line = refused(capsys, "evaluate", recorded / "runs" / "room")
    assert "is not the recording that" in line and said in line and str(place) in line


def test_other_images_under_the_same_names_are_recognised(recorded, capsys):
    first = sorted((recorded / "data" / "room" / "color").iterdir())
    other = first[3].read_bytes()
    first[0].write_bytes(other)
    assert "the first frame differs" in refused(capsys, "evaluate", recorded / "runs" / "room")


def test_another_file_of_the_same_frames_is_recognised(tmp_path):
    """Of a recording in one file no image has a size of its own; the middle of it was replaced."""
    (tmp_path / "here").mkdir()
    write_klg(open_sequence("room:frames=8,width=96,height=72"), tmp_path / "here" / "room.klg")
    before = fingerprint(open_sequence(tmp_path / "here" / "room.klg"))
    klg = (tmp_path / "here").rename(tmp_path / "there") / "room.klg"
    assert fingerprint(open_sequence(klg)) == before
    data = bytearray(klg.read_bytes())
    middle = len(data) // 2
    data[middle - 3000 : middle + 3000] = bytes(6000)
    klg.write_bytes(data)
    after = fingerprint(open_sequence(klg))
    assert {name for name in before if after[name] != before[name]} == {"packed"}


def test_a_film_beside_its_images_makes_no_other_recording(tmp_path):
    folder = write_folder(open_sequence("room:frames=2,width=96,height=72"), tmp_path / "room")
    before = fingerprint(open_sequence(folder))
    (folder / "film.mp4").write_bytes(b"of the map")
    assert fingerprint(open_sequence(folder)) == before and before["packed"] == []


@pytest.mark.parametrize("name", ["clip.mpg", "clip.MOV", "robot.mcap"])
def test_a_file_of_many_frames_is_looked_into(tmp_path, name):
    (tmp_path / name).write_bytes(b"frames")
    assert files_of_many_frames(tmp_path / name) == files_of_many_frames(tmp_path) == (tmp_path / name,)


def test_a_run_goes_on_with_its_recording_in_another_place_and_not_with_another_one(recorded, tmp_path, capsys):
    whole = (recorded / "runs" / "room" / "map.ply").read_bytes()
    elsewhere = (recorded / "data" / "room").rename(tmp_path / "elsewhere")
    run = recorded / "runs" / "room"
    shutil.rmtree(run)
    from semslam.runs.config import settings_of
    from semslam.runs.reconstruct import prepare

    begun = prepare(settings_of(None, {"sequence": str(elsewhere), "slam.perception.labels": "none"}), run)
    for _ in zip(range(3), begun):
        pass
    begun.save()
    other = write_folder(open_sequence("room:frames=6,width=96,height=72"), tmp_path / "other")
    os.remove(sorted((other / "depth").iterdir())[2])
    color = sorted((other / "color").iterdir())
    color[-1].write_bytes(color[1].read_bytes())
    line = refused(capsys, "reconstruct", other, "--out", run, *OPTIONS, "--resume")
    assert "made with other settings (sequence: " in line
    again = elsewhere.rename(tmp_path / "again")
    assert semslam("reconstruct", again, "--out", run, *OPTIONS, "--resume") == 0
    assert (run / "map.ply").read_bytes() == whole


def test_a_run_of_the_built_in_room_needs_no_path(tmp_path):
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "a", *OPTIONS) == 0
    moved = (tmp_path / "a").rename(tmp_path / "b")
    sequence = RunFolder.open(moved).open_sequence()
    np.testing.assert_array_equal(sequence[0].color, open_sequence(ROOM)[0].color)


def test_a_run_knows_nothing_of_one_by_colour_alone_that_was_given_up_in_its_folder(tmp_path):
    T = np.tile(np.eye(4), (6, 1, 1))
    found = VisualPoses(
        T, np.ones(6, bool), 1.0, 0.1, 2, 1.0, 1.0, focal=90.0, focal_std=0.05, strange=0.0, residual=0.8
    )
    (tmp_path / "run").mkdir()
    save_kept(tmp_path / "run" / "visual.npz", found, "")
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "run", *OPTIONS) == 0
    assert "tracking" not in RunFolder.open(tmp_path / "run").load_metrics()


def doubled_unit(folder: Path) -> None:
    file = folder / "camera.yaml"
    file.write_text(file.read_text().replace("depth_scale: 1000", "depth_scale: 2000"))


def moved_poses(folder: Path) -> None:
    file = folder / "groundtruth.txt"
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    file.write_text("".join(" ".join([time, str(float(x) + 1), *rest]) + "\n" for time, x, *rest in lines))


def other_images(folder: Path) -> None:
    shutil.rmtree(folder)
    write_folder(open_sequence("room:frames=6,width=96,height=72,seed=3,noise=kinect"), folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (doubled_unit, "the depth of the first or of the last frame differs"),
        (moved_poses, "the pose of frame 0 is not what it was"),
        (other_images, "the first frame differs"),
    ],
)
def test_a_run_does_not_go_on_with_a_recording_that_was_changed_in_its_place(tmp_path, capsys, change, said):
    folder, out = write_folder(open_sequence(ROOM), tmp_path / "room"), tmp_path / "run"
    options = {"sequence": str(folder), "poses": "dataset", "slam.perception.labels": "none"}
    begun = prepare(settings_of(None, options), out)
    for _ in zip(range(3), begun):
        pass
    begun.save()
    unlock(out)
    before = (out / "map.npz").read_bytes()
    command = ["reconstruct", folder, "--poses", "dataset", *OPTIONS, "--out", out]
    change(folder)
    line = refused(capsys, *command, "--resume")
    assert said in line and "--overwrite" in line
    assert (out / "map.npz").read_bytes() == before
    assert semslam(*command, "--overwrite") == 0


def test_depth_of_another_unit_does_not_judge_a_run(recorded, capsys):
    doubled_unit(recorded / "data" / "room")
    assert "of another --depth-scale?" in refused(capsys, "evaluate", recorded / "runs" / "room")


def test_a_run_goes_on_when_a_broken_image_was_copied_again(tmp_path):
    folder, out = write_folder(open_sequence(ROOM), tmp_path / "room"), tmp_path / "run"
    image = sorted((folder / "color").iterdir())[-1]
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    begun = prepare(settings_of(None, {"sequence": str(folder), "slam.perception.labels": "none"}), out)
    for _ in zip(range(3), begun):
        pass
    begun.save()
    unlock(out)
    image.write_bytes(whole)
    assert semslam("reconstruct", folder, *OPTIONS, "--out", out, "--resume") == 0
    assert RunFolder.open(out).load_metrics()["frames_fused"] == 6
