"""Runs whose files were damaged: what was made of the state is not needed, or told in one line with what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOM, TRUTH, refused, semslam

from semslam.looking.viewed import viewed_run
from semslam.runs.config import settings_of
from semslam.runs.export import export_run
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
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
    with (run / "words.npy").open("wb") as file:
        np.save(file, np.array(["a", "b"]))
    for damaged in (b"junk", (run / "words.npy").read_bytes(), (run / "map.npz").read_bytes()):
        (run / "errors.npy").write_bytes(damaged)
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
    caplog.clear()
    for index in range(4, 40):
        unreadable.skip(index % 4, ValueError(f"{index}.png: a size"), 40)
    assert len(caplog.records) == 3 and caplog.messages[-1].endswith("; further ones are only counted")
    assert len(unreadable.frames) == 40


def filled(run: Path, count: int = 50) -> RunFolder:
    """The run with copies of some of its surfels as those that fill holes, counted in its figures."""
    folder = RunFolder.open(run)
    cloud = folder.load_cloud()[0].selected(np.arange(count))
    folder.save_filled(cloud, folder.load_progress().identity)
    folder.save_metrics(folder.load_metrics() | {"surfels_filled": count})
    return folder


def test_surfels_that_fill_holes_are_those_of_the_run_and_whole(run, tmp_path, capsys):
    folder = filled(run)
    with np.load(folder.filled) as file:
        arrays = dict(file)
    surfels = len(folder.load_map().cloud())
    assert len(folder.load_cloud()[0]) == surfels + 50
    wrong = {
        "expected float32 (50,)": {"radii": arrays["radii"][1:]},
        "some positions are not finite": {"positions": np.full((50, 3), np.nan, np.float32)},
        "the saved array class_probabilities": {"class_probabilities": arrays["class_probabilities"][:, :5]},
        "is of another run": {"identity": arrays["identity"] + 1},
        "lacks the array colors": {"colors": None},
    }
    for said, change in wrong.items():
        changed = {name: array for name, array in (arrays | change).items() if array is not None}
        np.savez(folder.filled, **changed)
        line = refused(capsys, "export", run, "--out", tmp_path / "x")
        assert f"{folder.filled}: damaged (" in line and said in line
    folder.filled.unlink()
    assert "filled.npz: is missing, with 50 surfels of the map" in refused(
        capsys, "export", run, "--out", tmp_path / "x"
    )


def test_the_files_of_a_run_are_not_written_over(run, tmp_path, capsys):
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for name in ("metrics.json", "map.npz", "trajectory.txt", "mesh.ply"):
        assert f"{run / name}: is a file of the run" in refused(capsys, "evaluate", run, "--json", run / name)
    (tmp_path / "link").symlink_to(run)
    assert "is a file of the run" in refused(capsys, "evaluate", run, "--json", tmp_path / "link" / "metrics.json")
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    line = refused(capsys, "reconstruct", ROOM, "--extend", run, "--labels", "none", "--out", run, "--overwrite")
    assert "a run is not written over the one that it extends" in line
    assert semslam("evaluate", run, "--json", run / "evaluation.json") == 0
    path, reference = tmp_path / "path.txt", tmp_path / "reference.txt"
    for copy in (path, reference):
        shutil.copy(run / "trajectory.txt", copy)
    for words in (["--json", path, "--trajectory", path], ["--trajectory", path, "--json", path]):
        assert "is named twice" in refused(capsys, "evaluate", *words, "--reference", reference)
    assert path.read_bytes() == reference.read_bytes()


def test_exports_replace_those_of_an_earlier_one_and_no_other_files(run, tmp_path, capsys):
    out = tmp_path / "out"
    for name in ("mesh.obj", "objects.csv", "classes/05_chair.ply", "other_trajectory_9.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("precious")
        assert f"holds {name}, and no export.json" in refused(capsys, "export", run, "--out", out)
        assert (out / name).read_text() == "precious"
        (out / name).unlink()
    (out / "notes.md").write_text("mine")
    assert semslam("export", run, "--out", out) == 0
    (out / "other_trajectory_9.txt").write_text("of an earlier export")
    assert semslam("export", run, "--out", out) == 0
    assert (out / "notes.md").is_file() and (out / "mesh.obj").is_file()
    assert not (out / "other_trajectory_9.txt").exists()


def test_a_damaged_checkpoint_is_named_once_with_what_to_do(tmp_path, capsys):
    begun = prepare(settings_of(None, {"sequence": ROOM, "slam.perception.labels": "truth"}), tmp_path / "a")
    for _ in zip(range(3), begun):
        pass
    begun.save()
    begun.save_checkpoint()
    run = RunFolder(tmp_path / "a")
    run.checkpoint.table.write_bytes(run.checkpoint.table.read_bytes()[:1000])
    line = refused(capsys, "view", run.path, "--png", tmp_path / "a.png")
    assert line.count("damaged (") == 1 and f"{run.checkpoint.table}: damaged" in line and "--resume goes on" in line
    run.checkpoint.remove()
    assert semslam("reconstruct", ROOM, "--out", run.path, *TRUTH, "--no-mesh", "--resume") == 0


def test_a_run_that_was_killed_in_its_first_save_begins_again(tmp_path):
    """What the map refers to is written before it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "associations.npz").write_bytes(b"of the killed run")
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, "--no-mesh", "--resume") == 0


@pytest.mark.parametrize("name", ["map.ply", "preview.png", "config.yaml", "map.npz", "visual.npz"])
@pytest.mark.parametrize("way", ["--resume", "--overwrite"])
def test_a_folder_with_the_name_of_a_file_is_told_before_any_work(tmp_path, capsys, name, way):
    (tmp_path / "a" / name).mkdir(parents=True)
    line = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "a", *TRUTH, way)
    assert f"{tmp_path / 'a' / name}: is a folder" in line and "move it" in line
    assert [path.name for path in (tmp_path / "a").iterdir()] == [name]
