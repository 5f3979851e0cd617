"""Two finished runs joined where their maps meet, and refused where they do not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, semslam
from stub_networks import KnowingNetwork

from semslam import poses
from semslam.engine.chunks import MARKED
from semslam.labels import remap_labels
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.finished.merge import _joined, merge
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.runs.relabel import relabel
from semslam.trajectory import Trajectory
from semslam.trajectory.files import read_tum, write_tum
from sequences import open_sequence
from sequences.selected import selected

ROOM = "room:frames=400,width=160,height=120"
SHIFT = poses.exp(np.array([4.0, -2.0, 1.0, 0.2, 0.5, -0.3]))


def made(out: Path, start: int, frames: int, *more: object) -> Path:
    given = ["--start", start, "--frames", frames, "--labels", "truth", "--no-mesh"]
    assert semslam("reconstruct", ROOM, *given, *more, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("merged") / "first", 0, 30)


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> Path:
    """A map of other frames, that begins in a world of its own: its poses are a file's."""
    folder = tmp_path_factory.mktemp("merged")
    room = open_sequence(ROOM)
    T = SHIFT @ np.stack([room.poses[i] for i in range(100)])
    write_tum(folder / "poses.txt", Trajectory(room.timestamps[:100], T))
    return made(folder / "second", 15, 40, "--poses", folder / "poses.txt")


@pytest.mark.slow
def test_the_memory_that_joining_takes_is_told_where_less_was_allowed(second: Path, tmp_path: Path, caplog) -> None:
    small = made(tmp_path / "small", 0, 30, "--memory", "1MB")
    assert semslam("merge", small, second, "--out", tmp_path / "both") == 0
    assert f"{small}: joining " in caplog.text and "the run was made with 1MB" in caplog.text


def test_maps_that_meet_become_one(first: Path, second: Path, tmp_path: Path, capsys) -> None:
    assert semslam("merge", first, second, "--out", tmp_path / "both") == 0
    goes_on = ["--frames", 30, "--labels", "truth", "--no-mesh", "--resume", "--out", tmp_path / "both"]
    assert "`semslam merge` with --overwrite" in refused(capsys, "reconstruct", ROOM, *goes_on)
    a, b, both = (RunFolder.open(path).load_cloud()[0] for path in (first, second, tmp_path / "both"))
    assert len(a) < len(both) < len(a) + len(b)
    assert (both.first_seen < 0).sum() == len(both) - len(a) and both.first_seen.min() >= -40
    moved = read_tum(tmp_path / "both" / "other_trajectory_1.txt").T_world_camera
    truth = open_sequence(ROOM).poses
    off = poses.inverse(np.stack(truth[15:55])) @ moved
    assert np.linalg.norm(off[:, :3, 3], axis=1).max() < 0.01
    assert np.degrees(max(poses.rotation_angle(T) for T in off)) < 0.3
    labelled = both.labels()[both.first_seen < 0] < 255
    assert labelled.mean() > 0.9  # classes come along
    metrics = RunFolder.open(tmp_path / "both").load_metrics()
    assert metrics["merged_views"] >= 2 and metrics["surfels"] == metrics["surfels_in_map"] == len(both)
    found_by = FinishedMap(tmp_path / "both").places.indices
    assert min(found_by) < 0 <= max(found_by)  # cameras are found by the places of either map


@pytest.mark.slow
def test_a_joined_map_gets_other_labels_from_both_recordings(
    first: Path, second: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    network = KnowingNetwork(selected(open_sequence(ROOM), 0, 55), "nyu40")
    monkeypatch.setattr("semslam.runs.networks.predictor", lambda *_: network)
    away = shutil.copytree(second, tmp_path / "away")
    both = merge(first, away, tmp_path / "both")
    labelled = relabel(both.path, tmp_path / "labelled", classes="nyu40")
    truth, _ = both.load_cloud()
    found, names = labelled.load_cloud()
    assert np.array_equal(found.positions, truth.positions) and len(names) == 40
    of_second = found.first_seen < 0
    for part in (of_second, ~of_second):
        told = part & (truth.labels() < 255) & (found.labels() < 255)
        assert told.sum() > 0.8 * part.sum()  # the last frames, which see more, are not labelled
        assert (remap_labels(found.labels(), "nyu40", "nyu13")[told] == truth.labels()[told]).mean() > 0.97
    assert labelled.load_metrics()["frames_labelled"] == 3 + 4
    again = relabel(labelled.path, tmp_path / "again", classes="nyu40")
    assert again.map.read_bytes() == labelled.map.read_bytes()
    shutil.rmtree(away)
    shutil.copytree(first, away)  # another run in its place
    assert "is not the run that it was" in refused(capsys, "relabel", both.path, "--out", tmp_path / "no")
    shutil.rmtree(away)
    capsys.readouterr()
    assert "put that run back" in refused(capsys, "relabel", both.path, "--out", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_run_is_recognised_by_its_frames_times_and_poses() -> None:
    run = Progress(next_index=1, indices=[0], timestamps=[0.5], poses=[np.eye(4)], submaps=[0])
    assert Progress.from_state(run.state()).identity == run.identity
    for other in (replace(run, timestamps=[0.6]), replace(run, poses=[SHIFT]), replace(run, indices=[1])):
        assert other.identity != run.identity
    assert [other.identity for other in run.as_others("a", -1, SHIFT)] == [run.identity]


@pytest.mark.slow
def test_where_no_mesh_can_be_made_the_run_that_is_there_stays(
    first: Path, second: Path, tmp_path: Path, monkeypatch
) -> None:
    def full(*_, **__) -> None:
        raise OSError("no space left on device")

    shutil.copytree(first, tmp_path / "both")
    monkeypatch.setattr("semslam.runs.finished.merge.mesh_of_map", full)
    for run in (first, second):
        (run / "mesh.ply").write_bytes(b"any")
    with pytest.raises(OSError, match="no space left"):
        merge(first, second, tmp_path / "both", overwrite=True)
    for run in (first, second):
        (run / "mesh.ply").unlink()
    for name in ("map.ply", "map.npz", "metrics.json", "preview.png"):
        assert (tmp_path / "both" / name).read_bytes() == (first / name).read_bytes()


def test_surfels_that_wait_for_their_removal_hide_none_of_the_other_map(first: Path) -> None:
    a, again = FinishedMap(first), FinishedMap(first)
    slots = a.surfels.slots()
    middle = np.median(a.surfels.position[slots, 0])
    a.surfels.color[slots[a.surfels.position[slots, 0] > middle], 3] = MARKED
    joined, doubled = _joined(a, again, np.eye(4), 1000)
    assert joined.living() == len(joined) and doubled > 0.4 * again.surfels.living()
    beyond = [(cloud.positions[:, 0] > middle + 0.2).sum() for cloud in (joined.cloud(), again.surfels.cloud())]
    assert beyond[0] == beyond[1] > 1000


@pytest.mark.slow
def test_evidence_in_other_units_is_not_added_up(first: Path, tmp_path: Path, capsys) -> None:
    other = made(tmp_path / "other", 0, 3, "--set", "slam.labels.method=mean")
    line = refused(capsys, "merge", first, other, "--out", tmp_path / "both")
    assert "`slam.labels.method` bayes" in line and "do not add up" in line and not (tmp_path / "both").exists()


@pytest.mark.slow
def test_a_joined_map_is_a_run_like_others(first: Path, second: Path, tmp_path: Path, monkeypatch) -> None:
    """Cameras are found in either half of it, mapping goes on in it, and it is evaluated, exported and joined again."""
    both = tmp_path / "both"
    assert semslam("merge", first, second, "--out", both) == 0
    assert semslam("localise", both, ROOM, "--start", 50, "--frames", 1, "--no-depth") == 0
    assert semslam("evaluate", both) == 0
    assert semslam("export", both, "--out", tmp_path / "files") == 0
    more = ["--labels", "truth", "--extend", both, "--out", tmp_path / "on"]
    assert semslam("reconstruct", ROOM, "--start", 46, "--frames", 10, *more) == 0
    assert RunFolder.open(tmp_path / "on").load_metrics()["frames_lost"] == 0
    again = merge(tmp_path / "on", second, tmp_path / "again")
    network = KnowingNetwork(selected(open_sequence(ROOM), 0, 56))
    monkeypatch.setattr("semslam.runs.networks.predictor", lambda *_: network)
    labelled = relabel(again.path, tmp_path / "labelled")
    assert labelled.load_metrics()["frames_labelled"] == 3 + 4 + 1 + 4  # first, second, what went on, second
    truth, found = (run.load_cloud()[0].labels() for run in (again, labelled))
    told = (truth < 255) & (found < 255)
    assert told.mean() > 0.8 and (truth == found)[told].mean() > 0.97


def test_views_that_meet_are_found_however_few_they_are_among_the_others(first, second, tmp_path, monkeypatch) -> None:
    """Those of the second map that look most like the first are tried first, and then all."""
    a, b = FinishedMap(first).places, FinishedMap(second).places
    order = np.argsort(-a.likeness(b), kind="stable")
    in_both = np.array([index < 15 for index in b.indices])  # frames 15 to 29 of the room
    assert in_both[order[: in_both.sum()]].mean() > 0.6 and not in_both[-1]
    for place in ("likeliest", "all"):
        monkeypatch.setattr("semslam.runs.finished.merge.VIEWS", 3 if place == "likeliest" else 0)
        folder = merge(first, second, tmp_path / place)
        assert folder.load_metrics()["merged_views"] >= 3


def test_maps_that_do_not_meet_are_refused_and_nothing_is_written(first: Path, tmp_path: Path, capsys) -> None:
    elsewhere = made(tmp_path / "elsewhere", 300, 6)
    capsys.readouterr()
    told = refused(capsys, "merge", first, elsewhere, "--out", tmp_path / "both")
    assert "does not meet" in told and "record longer" in told
    (tmp_path / "link").symlink_to(first)
    assert "is the same run" in refused(capsys, "merge", first, tmp_path / "link", "--out", tmp_path / "both")
    assert not (tmp_path / "both").exists()
    unlabelled = tmp_path / "unlabelled"
    assert semslam("reconstruct", ROOM, "--frames", 4, "--labels", "none", "--no-mesh", "--out", unlabelled) == 0
    capsys.readouterr()
    told = refused(capsys, "merge", first, unlabelled, "--out", tmp_path / "both")
    assert f"{unlabelled} has no labels" in told and "13 classes" in told
    for one, other in ((first, unlabelled), (unlabelled, first)):
        assert "not written over" in refused(capsys, "merge", one, other, "--out", first, "--overwrite")


def test_a_map_that_is_in_the_other_already_is_refused_or_told(
    first: Path, second: Path, tmp_path: Path, capsys, caplog
):
    copy = Path(shutil.copytree(first, tmp_path / "copy"))
    assert "are in the map of" in refused(capsys, "merge", first, copy, "--out", tmp_path / "a")
    joined = merge(first, second, tmp_path / "joined")
    for number, (a, b, told) in enumerate(((joined.path, second, "1 of its 1"), (first, joined.path, "1 of its 2"))):
        caplog.clear()
        merge(a, b, tmp_path / f"twice_{number}")
        assert any(f"the frames of {told} runs are in the map of" in line for line in caplog.messages)
