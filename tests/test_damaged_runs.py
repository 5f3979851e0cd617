"""Runs whose files were damaged: what was made of the state is not needed, or told in one line with what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOM, TRUTH, refused, semslam

from semslam.looking.viewed import viewed_run
from semslam.runs.export import export_run
from semslam.runs.folder import RunFolder
from semslam.runs.unreadable import Unreadable
from semslam.trajectory.files import read_tum
from sequences import open_sequence


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "room"
    assert semslam("reconstruct", ROOM, "--out", out, *TRUTH) == 0
    return out


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A finished run to damage."""
    return Path(shutil.copytree(whole, tmp_path / "room"))


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "broken": lambda path: path.write_text("slam: [1, {"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "pipe": replaced_by_a_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_were_made_of_the_state_are_not_needed(whole, run, damage):
    for name in ("trajectory.txt", "config.yaml", "map.ply", "preview.png"):
        DAMAGES[damage](run / name)
    shown, expected = viewed_run(run), viewed_run(whole)
    assert np.array_equal(shown.cloud.positions, expected.cloud.positions)
    assert np.array_equal(shown.trajectory, expected.trajectory)


def test_the_poses_of_a_run_are_those_of_its_file(whole):
    folder = RunFolder.open(whole)
    np.testing.assert_allclose(
        folder.load_trajectory().T_world_camera, read_tum(folder.trajectory).T_world_camera, atol=1e-8
    )


@pytest.mark.parametrize(("name", "damage"), [("mesh.ply", "cut"), ("metrics.json", "pipe")])
def test_what_is_read_and_damaged_is_one_line_that_says_what_to_do(run, tmp_path, capsys, name, damage):
    DAMAGES[damage](run / name)
    line = refused(capsys, "refine", run, "--out", tmp_path / "refined")
    assert f"{run / name}: damaged (" in line and "remove it" in line and "--resume" in line
    assert not (tmp_path / "refined").exists()
    (run / name).unlink()
    assert semslam("refine", run, "--out", tmp_path / "refined") == 0


@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_damaged_state_is_one_line_wherever_a_run_is_read(run, tmp_path, capsys, damage):
    DAMAGES[damage](run / "map.npz")
    others = {"view": ["--png", tmp_path / "a.png"], "export": ["--out", tmp_path / "b"], "evaluate": [], "refine": []}
    for command, options in others.items():
        line = refused(capsys, command, run, *options)
        assert "map.npz: " in line and "damaged" in line, line


def test_errors_of_surfels_that_are_damaged_are_one_line(run):
    (run / "errors.npy").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"errors\.npy: damaged; .semslam evaluate"):
        viewed_run(run)


@pytest.mark.slow
def test_a_map_without_classes_is_exported_in_its_colours(tmp_path):
    """No grey pictures of classes that there are none of."""
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "run", "--labels", "none", "--poses", "dataset") == 0
    written = {path.name for _, path in export_run(tmp_path / "run", tmp_path / "out")}
    assert {"mesh.glb", "floor_plan.png"} <= written and not {"mesh_labels.glb", "objects.csv"} & written
    import cv2

    plan = cv2.imread(str(tmp_path / "out" / "floor_plan.png"))
    assert (plan.max(axis=2).astype(int) - plan.min(axis=2) > 40).mean() > 0.05  # neither grey nor white


def test_the_map_of_an_earlier_moment_does_not_pass_as_that_of_the_whole_run(run, tmp_path, capsys):
    earlier = tmp_path / "earlier"
    assert semslam("reconstruct", ROOM, "--frames", 5, "--out", earlier, *TRUTH, "--no-mesh") == 0
    shutil.copy(earlier / "map.npz", run / "map.npz")
    capsys.readouterr()
    assert "map.npz is of 5 frames and metrics.json of 12" in refused(capsys, "export", run, "--out", tmp_path / "x")


def test_the_map_of_another_run_with_as_many_frames_is_told(run, tmp_path, capsys):
    other = tmp_path / "other"
    part = [ROOM.replace("=12,", "=30,"), "--start", 9, "--frames", 12]
    assert semslam("reconstruct", *part, "--out", other, *TRUTH, "--no-mesh") == 0
    shutil.copy(other / "map.npz", run / "map.npz")
    capsys.readouterr()
    for command in (["export", run, "--out", tmp_path / "x"], ["evaluate", run]):
        assert "are of other frames, times or poses: files of two runs" in refused(capsys, *command)


def test_a_run_without_its_figures_says_how_much_of_it_is_done(run):
    (run / "metrics.json").unlink()
    assert RunFolder.open(run).unfinished.startswith("all 12 frames are done, but metrics.json is missing")


def test_frames_that_are_skipped_for_one_reason_say_it_once(caplog):
    unreadable = Unreadable(open_sequence("room:frames=4"), 1.0)
    for index, why in enumerate(("a size", "a size", "another size", "a size")):
        unreadable.skip(index, ValueError(f"{index}.png: {why}"), 4)
    assert [record.message.partition(" skipped")[2] for record in caplog.records] == [
        ": 0.png: a size",
        " for the same reason as frame 0",
        ": 2.png: another size",
        ": 3.png: a size",
    ]
