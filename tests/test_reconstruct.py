"""The main job from the command line: what it writes, that it goes on after a break, and what it says of bad input."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import ROOM, TRUTH, refused, semslam
from variants import one_fast

from semslam import cli
from semslam.geometry.export import read_map_ply
from semslam.images import decoding
from semslam.labels import LABEL_SETS
from semslam.poses import exp
from semslam.runs.config import settings_of
from semslam.runs.finished.held_out import judged_by_held_out
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.trajectory.files import read_tum
from sequences import open_sequence
from sequences.recordings.folder import write_folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """The room as a plain folder."""
    return write_folder(open_sequence(ROOM), tmp_path_factory.mktemp("recorded") / "room")


@pytest.fixture
def copied(recorded, tmp_path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(recorded, tmp_path / "room"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "room"
    assert semslam("reconstruct", ROOM, "--out", out, *TRUTH) == 0
    return RunFolder.open(out)


@pytest.mark.slow
@pytest.mark.parametrize("error", [PermissionError("its folder"), OSError(errno.EROFS, os.strerror(errno.EROFS))])
def test_a_run_that_cannot_be_written_to_is_evaluated(finished, capsys, monkeypatch, error):
    def read_only(*_: object) -> None:
        raise error

    monkeypatch.setattr(RunFolder, "save_metrics", read_only)
    assert semslam("evaluate", finished.path) == 0
    shown = capsys.readouterr()
    assert "completeness" in shown.out and "the figures are not kept in the run" in shown.err


def test_a_run_leaves_every_file_that_it_promises(finished):
    for name in ("config", "trajectory", "map", "state", "mesh", "metrics", "preview"):
        assert getattr(finished, name).stat().st_size > 0, name
    assert not list(finished.path.glob(".*"))  # and nothing half written


def test_metrics_have_their_stable_names(finished):
    metrics = json.loads(finished.metrics.read_text())
    assert metrics["frames"] == metrics["frames_fused"] == 12
    assert metrics["frames_lost"] == 0
    assert metrics["surfels"] == metrics["surfels_in_map"] == len(read_map_ply(finished.map))
    assert metrics["bytes_per_surfel"] < 100.1
    assert metrics["seconds"] > 0 and metrics["frames_per_second"] > 0
    assert set(metrics["stages_ms"]["fuse"]) == {"median", "p95"}
    assert metrics["versions"]["semslam"]


def test_the_trajectory_has_every_frame(finished):
    trajectory = read_tum(finished.trajectory)
    truth = open_sequence(ROOM).trajectory
    assert np.allclose(trajectory.timestamps, truth.timestamps)
    assert np.allclose(trajectory.T_world_camera, truth.T_world_camera, atol=1e-6)


def test_the_ply_and_the_lossless_form_say_the_same(finished):
    cloud, labels = finished.load_cloud()
    ply = read_map_ply(finished.map)
    assert labels is LABEL_SETS["nyu13"]
    assert np.array_equal(cloud.positions, ply.positions)
    assert np.array_equal(cloud.labels(), ply.labels())
    assert np.array_equal(cloud.colors, ply.colors)


def test_the_preview_is_a_picture_of_something(finished):
    picture = cv2.imread(str(finished.preview))
    assert picture.std() > 20


def test_two_runs_make_the_same_map_bytes(finished, tmp_path):
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "again", *TRUTH, "--no-mesh") == 0
    assert RunFolder.open(tmp_path / "again").map.read_bytes() == finished.map.read_bytes()


def interrupted_run(out: Path, frames: int) -> None:
    run = prepare(settings_of(None, {"sequence": ROOM, "slam.perception.labels": "truth"}), out)
    for _ in zip(range(frames), run):
        pass
    run.save()


def test_an_interrupted_run_goes_on_to_the_same_map(finished, tmp_path):
    out = tmp_path / "broken"
    interrupted_run(out, 5)
    assert len(read_tum(out / "trajectory.txt")) == 5  # what there is, is valid
    assert semslam("reconstruct", ROOM, "--out", out, *TRUTH, "--resume", "--no-mesh") == 0
    assert RunFolder.open(out).map.read_bytes() == finished.map.read_bytes()
    assert json.loads((out / "metrics.json").read_text())["frames_fused"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("poses", ["dataset", "tracked"])
def test_a_run_that_compiles_makes_the_map_of_one_that_finds_everything_compiled(tmp_path, poses):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    maps = []
    for name in ("first", "second"):
        options = ["--poses", poses, *TRUTH, "--no-mesh", "--out", str(tmp_path / name)]
        command = [sys.executable, "-m", "semslam.cli", "reconstruct", ROOM, *options]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        maps.append((tmp_path / name / "map.ply").read_bytes())
    assert maps[0] == maps[1]


@pytest.mark.parametrize("pressed", one_fast(signal.SIGINT, signal.SIGTERM))
def test_ctrl_c_ends_with_130_and_a_run_to_resume(finished, tmp_path, monkeypatch, pressed):
    from semslam.slam import Slam

    step = Slam.step

    def step_then_press_ctrl_c(self, frame):
        if frame.index == 3:
            signal.raise_signal(pressed)
        return step(self, frame)

    out = tmp_path / "pressed"
    with monkeypatch.context() as patched:
        patched.setattr(Slam, "step", step_then_press_ctrl_c)
        assert semslam("reconstruct", ROOM, "--out", out, *TRUTH) == 130
    assert semslam("evaluate", out) == 0
    assert semslam("reconstruct", ROOM, "--out", out, *TRUTH, "--resume", "--no-mesh") == 0
    assert RunFolder.open(out).map.read_bytes() == finished.map.read_bytes()


def test_resuming_with_other_settings_is_refused(tmp_path, capsys):
    interrupted_run(tmp_path / "a", 3)
    line = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, "--classes", "nyu40", "--resume")
    assert "other settings" in line and "config.yaml" in line


@pytest.mark.slow
def test_a_run_is_not_overwritten_without_being_asked(tmp_path, capsys):
    out = tmp_path / "a"
    interrupted_run(out, 3)
    line = refused(capsys, "reconstruct", ROOM, "--out", out, *TRUTH)
    assert "holds an unfinished run" in line and "--resume" in line and "--overwrite" in line
    assert semslam("reconstruct", ROOM, "--out", out, *TRUTH, "--no-mesh", "--overwrite") == 0
    assert semslam("reconstruct", ROOM, "--out", out, *TRUTH, "--no-mesh") == 0  # the same again
    line = refused(capsys, "reconstruct", ROOM, "--out", out, "--labels", "none")
    assert "holds a run with other settings" in line


@pytest.mark.parametrize("name", ["map.ply", "metrics.json", "trajectory_1.txt"])
def test_files_of_no_run_are_not_replaced(finished, tmp_path, capsys, name):
    (tmp_path / name).write_text("precious")
    for command in (
        ["reconstruct", ROOM, *TRUTH],
        ["reconstruct", ROOM, *TRUTH, "--resume"],
        ["refine", finished.path],
    ):
        assert f"a file {name} that is not of a run" in refused(capsys, *command, "--out", tmp_path)
        assert [path.read_text() for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["precious"]


def test_options_that_cannot_be_are_refused(tmp_path, capsys):
    for words in (["--depth-scale", "0"], ["--depth-scale", "-5"], ["--corrections", "all"], ["--label-every", "0"]):
        assert words[0] in refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, *words)


def test_held_out_frames_judge_the_map(tmp_path, capsys):
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, "--no-mesh", "--hold-out", "4") == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["frames_held_out"] == 3 and metrics["frames_fused"] == 9 and metrics["held_out_unposed"] == 0
    assert metrics["held_out_depth_median_m"] < 0.005
    assert metrics["held_out_coverage"] > 0.95
    said = f"3 frames held out: the map's depth is {100 * metrics['held_out_depth_median_m']:.2f} cm off theirs"
    assert said in capsys.readouterr().out


def test_held_out_frames_are_seen_from_the_poses_that_the_run_uses(tmp_path):
    """These may be corrected, or a file's: in another world than the recorded ones."""
    settings = {"sequence": ROOM, "slam.perception.labels": "none", "hold_out": 4, "poses": "dataset"}
    run = prepare(settings_of(None, settings), tmp_path / "a")
    moved = exp([0.3, 0.1, 0.0, 0.0, 0.2, 0.0])
    run.slam.track.T_world_camera = [moved @ T for T in run.slam.track.T_world_camera]
    for _ in run:
        pass
    figures = judged_by_held_out(run)
    assert figures["held_out_depth_median_m"] < 0.005 and figures["held_out_coverage"] > 0.95


def test_a_corrupt_frame_is_skipped_and_counted(copied, tmp_path, caplog):
    (copied / "depth" / sorted(os.listdir(copied / "depth"))[4]).write_bytes(b"not a picture")
    assert semslam("reconstruct", copied, "--out", tmp_path / "a", *TRUTH, "--no-mesh") == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["frames_corrupt"] == 1 and metrics["frames_fused"] == 11
    assert "frame 4 is skipped" in caplog.text


def test_a_frame_has_the_recordings_own_number_where_only_a_part_is_mapped(copied, tmp_path, caplog):
    (copied / "depth" / sorted(os.listdir(copied / "depth"))[8]).write_bytes(b"not a picture")
    part = ["--start", 2, "--every", 2, "--set", "max_corrupt=0.5"]
    assert semslam("reconstruct", copied, "--out", tmp_path / "a", *TRUTH, *part, "--no-mesh") == 0
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["corrupt"] == [8]
    assert "frame 8 is skipped" in caplog.text


def test_where_no_frame_may_be_unreadable_the_first_stops_the_run(copied, tmp_path, capsys):
    (copied / "depth" / sorted(os.listdir(copied / "depth"))[4]).write_bytes(b"not a picture")
    assert semslam("reconstruct", copied, "--out", tmp_path / "a", *TRUTH, "--set", "max_corrupt=0") == 2
    assert "1 of 12 frames are unreadable, more than the 0 % allowed" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_failure_of_the_machine_stops_the_run_and_no_frame_is_left_out(copied, tmp_path, monkeypatch, capsys):
    read, count = decoding.contents, itertools.count()

    def failing(path, most):
        if next(count) == 15:
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return read(path, most)

    monkeypatch.setattr(decoding, "contents", failing)
    assert semslam("reconstruct", copied, "--out", tmp_path / "a", *TRUTH, "--no-mesh") == 75
    assert "Too many open files" in capsys.readouterr().err
    assert semslam("reconstruct", copied, "--out", tmp_path / "a", *TRUTH, "--no-mesh", "--resume") == 0
    assert semslam("reconstruct", copied, "--out", tmp_path / "b", *TRUTH, "--no-mesh") == 0
    assert (tmp_path / "a" / "map.ply").read_bytes() == (tmp_path / "b" / "map.ply").read_bytes()


def test_too_many_corrupt_frames_stop_the_run(copied, tmp_path, capsys):
    for name in sorted(os.listdir(copied / "depth"))[3:8]:
        (copied / "depth" / name).write_bytes(b"not a picture")
    again = ["reconstruct", copied, "--out", tmp_path / "a", *TRUTH, "--no-mesh"]
    assert semslam(*again) == 2
    assert "2 of 12 frames are unreadable, more than the 10 % allowed" in capsys.readouterr().err.splitlines()[-1]
    for _ in range(2):  # nor does it go on past them
        assert semslam(*again, "--resume") == 2
        assert "2 of 12 frames are unreadable" in capsys.readouterr().err.splitlines()[-1]
    assert semslam(*again, "--resume", "--set", "max_corrupt=0.5") == 0
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["frames_corrupt"] == 5


def test_a_depth_scale_a_thousand_times_off_is_said_before_the_work(copied, tmp_path, capsys):
    camera = copied / "camera.yaml"
    camera.write_text(camera.read_text().replace("depth_scale: 1000", "depth_scale: 1"))
    line = refused(capsys, "reconstruct", copied, "--out", tmp_path / "a", *TRUTH)
    assert "depth" in line and "scale" in line


@pytest.mark.slow
def test_camera_and_depth_scale_may_be_given(copied, finished, tmp_path):
    camera = (copied / "camera.yaml").rename(tmp_path / "other.yaml")
    (copied / "camera.yaml").write_text(camera.read_text().replace("fx: ", "fx: 9").replace("1000", "5000"))
    out = tmp_path / "out"
    given = ["--camera", camera, "--depth-scale", 1000]
    assert semslam("reconstruct", copied, "--out", out, *TRUTH, "--no-mesh", *given) == 0
    assert len(read_map_ply(out / "map.ply")) == pytest.approx(len(read_map_ply(finished.map)), rel=0.02)
    assert semslam("evaluate", out) == 0  # it opens the recording as the run did


def test_a_missing_sequence_is_one_line(tmp_path, capsys):
    assert "no such sequence" in refused(capsys, "reconstruct", tmp_path / "nowhere", "--out", tmp_path / "a")


def test_an_empty_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused(capsys, "reconstruct", tmp_path / "empty", "--out", tmp_path / "a")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["room:frames=abc"], "frames is 'abc', expected a whole number"),
        ([""], "SEQUENCE is empty"),
        (["{}/color"], "has no depth images; it is a part of a recording: give {} instead"),
        (["{}", "--live"], "leave it out to map the recording {}"),
        (["{}", "--set", "slam.perception=3"], "slam.perception` is 3, expected settings by name: depth, labels"),
        (["{}", "--depth", "predicted", "--poses", "tracked", "--frames", "1"], "is one frame"),
    ],
)
def test_a_wrong_recording_or_setting_is_one_line(recorded, tmp_path, capsys, words, expected):
    words = [word.format(recorded) for word in words]
    assert expected.format(recorded) in refused(capsys, "reconstruct", *words, "--out", tmp_path / "a")


def test_a_small_capacity_is_said_and_kept(tmp_path, caplog):
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, "--max-surfels", 10_000, "--no-mesh") == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert 9_000 < metrics["surfels"] <= 10_000  # removed ones make room only for what is seen again
    assert metrics["surfels_turned_away"] > 0
    assert "the map is full: 10000 surfels" in caplog.text


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert "cannot write here" in refused(capsys, "reconstruct", ROOM, "--out", blocked / "run", *TRUTH)


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, capsys, monkeypatch):
    """Its exit code is not that of wrong use: another attempt may succeed."""

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile.open", no_space)
    arguments = ["reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, "--no-mesh"]
    assert "No space left on device" in refused(capsys, *arguments, code=cli.MACHINE_FAILED)
    assert not (tmp_path / "a" / "map.npz").exists()


def test_a_command_that_fails_leaves_no_empty_folder(tmp_path, capsys):
    """Neither its own nor those around it; a folder that was there stays."""
    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "new" / "er" / "est", tmp_path / "mine"):
        refused(capsys, "reconstruct", ROOM, "--out", out, *TRUTH, "--poses", "nowhere.txt")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_resuming_and_overwriting_at_once_is_refused_and_nothing_to_resume_is_told(tmp_path, capsys, caplog):
    arguments = ["reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, "--no-mesh", "--frames", 2]
    assert "choose one" in refused(capsys, *arguments, "--resume", "--overwrite")
    assert semslam(*arguments, "--resume") == 0 and "no run to go on with" in caplog.text
    caplog.clear()
    assert semslam(*arguments, "--resume") == 0 and "no run to go on with" not in caplog.text


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--depth", "guessed", "--depth is 'guessed', expected one of sensor, predicted"),
        ("--labels", "some", "--labels is 'some', expected one of predicted, truth, none"),
        ("--classes", "nyu14", "--classes is 'nyu14', expected one of"),
        ("--poses", "nowhere.txt", "expected dataset, tracked, sfm, refined, predicted, predicted-refined or a file"),
        ("--hold-out", "1", "expected 2 or more"),
    ],
)
def test_a_wrong_choice_names_the_right_ones(tmp_path, capsys, option, value, expected):
    arguments = ["reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, option, value]
    assert expected in refused(capsys, *arguments)


def test_an_unknown_setting_names_the_known_ones(tmp_path, capsys):
    (tmp_path / "settings.yaml").write_text("sequence: room\nslam: {fusion: {smothing: 1}}\n")
    line = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "a", "--config", tmp_path / "settings.yaml")
    assert "unknown setting 'smothing'" in line and "smoothing" in line


@pytest.mark.slow
def test_settings_of_a_file_hold_unless_an_option_says_otherwise(tmp_path):
    (tmp_path / "settings.yaml").write_text("slam: {perception: {labels: truth, classes: nyu40}}\nhold_out: 4\n")
    common = ["--config", tmp_path / "settings.yaml", "--no-mesh"]
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "a", *common) == 0
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "b", *common, "--classes", "nyu13") == 0
    a, b = RunFolder.open(tmp_path / "a"), RunFolder.open(tmp_path / "b")
    assert len(a.load_cloud()[1]) == 40 and len(b.load_cloud()[1]) == 13
    assert a.load_metrics()["frames_held_out"] == 3


def test_poses_of_another_clock_are_refused(finished, tmp_path, capsys):
    lines = finished.trajectory.read_text().splitlines()
    late = [f"{1e9 + k} {line.split(' ', 1)[1]}" for k, line in enumerate(lines) if not line.startswith("#")]
    (tmp_path / "late.txt").write_text("\n".join(late) + "\n")
    line = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, "--poses", tmp_path / "late.txt")
    assert "late.txt" in line and "clock" in line


def test_another_run_in_the_same_folder_is_not_resumed_as_this_one(finished, tmp_path, capsys):
    shutil.copytree(finished.path, tmp_path / "a")
    other = {"sequence": ROOM, "slam.perception.labels": "truth", "slam.perception.classes": "nyu40"}
    prepare(settings_of(None, other), tmp_path / "a", overwrite=True)  # started, and killed before it saved
    arguments = ["--out", tmp_path / "a", *TRUTH, "--classes", "nyu40", "--resume"]
    assert "other settings" in refused(capsys, "reconstruct", ROOM, *arguments)


def test_a_pose_file_gives_the_poses(finished, tmp_path):
    out = tmp_path / "a"
    assert semslam("reconstruct", ROOM, "--out", out, *TRUTH, "--no-mesh", "--poses", finished.trajectory) == 0
    assert len(RunFolder.open(out).load_cloud()[0]) == pytest.approx(len(finished.load_cloud()[0]), rel=0.02)


def test_a_damaged_state_is_one_line(finished, tmp_path, capsys):
    shutil.copytree(finished.path, tmp_path / "a")
    state = tmp_path / "a" / "map.npz"
    state.write_bytes(state.read_bytes()[:1000])
    assert "map.npz: damaged" in refused(capsys, "view", tmp_path / "a", "--png", tmp_path / "a.png")


def test_view_writes_a_picture_without_a_display(finished, tmp_path):
    assert semslam("view", finished.path, "--png", tmp_path / "a.png", "--hide", "wall", "--hide", "ceiling") == 0
    assert cv2.imread(str(tmp_path / "a.png")).std() > 10


def test_doctor_finds_nothing_in_a_sound_recording(recorded, capsys):
    assert semslam("doctor", recorded) == 0
    assert "nothing wrong" in capsys.readouterr().out
