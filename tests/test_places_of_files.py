"""Where files may be written and what a recording is recognised by: nothing of anybody else's is written over."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from command_line import refused, semslam

from semslam.files.writing import replacing
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.recording import found_again, remembered
from sequences import READERS, open_sequence
from sequences.recalibrated import RecalibratedSequence
from sequences.recordings.folder import write_folder

OPTIONS = ("--labels", "truth", "--no-mesh")


@pytest.fixture
def recording(tmp_path) -> Path:
    return write_folder(open_sequence("room:frames=6,width=64,height=48"), tmp_path / "recording")


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
def test_nothing_is_written_among_the_files_of_a_recording_or_of_a_run(recording, tmp_path, capsys):
    before, out = files_of(recording), tmp_path / "run"
    for place in (recording, recording / "color", tmp_path / "recording" / ".." / "recording"):
        line = refused(capsys, "reconstruct", recording, "--out", place, *OPTIONS)
        assert "is a folder of the recording" in line and "another --out" in line
    assert semslam("reconstruct", recording, "--out", out, *OPTIONS) == 0
    for command in ("refine", "relabel", "export"):
        assert "is a folder of the recording" in refused(capsys, command, out, "--out", recording)
    of_run = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "holds a run; name another folder" in refused(capsys, "export", out, "--out", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == of_run
    assert files_of(recording) == before
    inside = recording / "my run"  # a folder of its own is apart
    assert semslam("reconstruct", recording, "--out", inside, *OPTIONS) == 0
    assert semslam("reconstruct", recording, "--out", inside, "--overwrite", *OPTIONS) == 0


def test_names_that_are_empty_are_no_folders(recording, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files_of(tmp_path)
    for arguments in (
        ("reconstruct", recording, "--out", ""),
        ("reconstruct", "", "--out", "run"),
        ("reconstruct", recording, "--out", "run", "--poses", ""),
        ("export", "run", "--out", ""),
    ):
        assert semslam(*arguments) == 2
        assert "is empty" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the recording's name is empty"):
        open_sequence("")
    assert files_of(tmp_path) == before


def test_a_device_or_a_folder_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "pipe or a device"), ("folder", "folder")):
        with (
            pytest.raises(ValueError, match=rf"{name}: is a {kind}; give the name of a file"),
            replacing(tmp_path / name) as temporary,
        ):
            temporary.write_text("x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_link_that_leads_nowhere_is_named(recording, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    assert "loop: cannot write here" in refused(capsys, "reconstruct", recording, "--out", tmp_path / "loop")
    assert "loop: no such sequence" in refused(capsys, "reconstruct", tmp_path / "loop", "--out", tmp_path / "run")


def test_a_moved_recording_is_told_from_one_with_another_image_in_its_middle(recording, tmp_path, capsys):
    assert semslam("reconstruct", recording, "--out", tmp_path / "run", *OPTIONS) == 0
    moved = recording.rename(tmp_path / "moved")
    assert RunFolder.open(tmp_path / "run").open_sequence(str(moved)).name == "moved"
    image = moved / "color" / "000003.png"
    kept = image.read_bytes()
    cv2.imwrite(str(image), cv2.GaussianBlur(cv2.imread(str(image)), (9, 9), 0))
    line = refused(capsys, "evaluate", tmp_path / "run", "--sequence", moved)
    assert "is not the recording that" in line and "size of image files" in line
    image.write_bytes(kept)
    (moved / "depth" / "000004.png").unlink()
    with pytest.raises(ValueError, match="is not the recording that"):
        RunFolder.open(tmp_path / "run").open_sequence(str(moved))


def test_a_recording_whose_camera_the_run_has_found_is_recognised_and_has_that_camera(recording, tmp_path):
    """A plain video says nothing of its camera: what tracking found is the run's, not the recording's."""
    photos = (recording / "color").rename(tmp_path / "photos")
    unknown = open_sequence(photos)
    found = RecalibratedSequence(unknown, unknown.camera.with_focal(70.0))
    settings = RunConfig(sequence=str(photos))
    kept = remembered(found, settings, tmp_path / "run")
    assert not unknown.camera.focal_known
    assert found_again(settings, kept, tmp_path / "run").camera == found.camera
    with pytest.raises(ValueError, match="the camera differs"):
        found_again(replace(settings, fov=50.0), kept, tmp_path / "run")


def test_more_frames_between_those_held_out_than_there_are_is_refused(recording, tmp_path, capsys):
    line = refused(capsys, "reconstruct", recording, "--out", tmp_path / "run", "--hold-out", "7")
    assert "--hold-out is 7, but there are 6 frames: none would be left out" in line


@pytest.mark.parametrize("kind", sorted(set(READERS) - {"room", "folder", "open3d"}))
def test_a_kind_that_a_folder_is_not_of_says_what_that_kind_holds(recording, kind):
    for options in ({}, {"fov": 60.0}):
        if options:  # a field of view counts where no camera is written
            (recording / "camera.yaml").unlink()
        with pytest.raises((ValueError, OSError), match="recording") as caught:
            open_sequence(recording, kind, **options)
        assert type(caught.value) not in (OSError, FileNotFoundError, IsADirectoryError)
