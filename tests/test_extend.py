"""Mapping that goes on in the map of a finished run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import refused, semslam
from stub_networks import KnowingNetwork
from variants import one_fast

from semslam import poses
from semslam.frame import Step
from semslam.looking.viewed import viewed_run
from semslam.runs.config import settings_of
from semslam.runs.export import export_run
from semslam.runs.finished.extend import check_new, why_none_was_found
from semslam.runs.finished.finish import finish
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.runs.reconstruct import prepare
from semslam.runs.relabel import relabel
from semslam.trajectory import Correction
from semslam.trajectory.files import read_tum
from sequences import open_sequence

ROOM = "room:frames=60,width=160,height=120"
LABELS = ["--labels", "none", "--no-mesh"]


@pytest.fixture(scope="module", params=one_fast("tracked", "dataset"))
def begun(request, tmp_path_factory) -> Path:
    """A run of the first 24 frames."""
    out = tmp_path_factory.mktemp("begun") / "run"
    assert semslam("reconstruct", ROOM, "--frames", 24, "--poses", request.param, *LABELS, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def network() -> KnowingNetwork:
    return KnowingNetwork(open_sequence(ROOM))


def extended(begun: Path, out: Path, stop: int | None = None) -> Progress:
    options = {"sequence": ROOM, "start": 12, "frames": 36, "slam.perception.labels": "none", "extend": str(begun)}
    run = prepare(settings_of(None, options), out, resume=out.exists())
    for _, _ in zip(range(99 if stop is None else stop), run):
        pass
    run.save()
    if not len(run):
        finish(run, mesh=False)
    return run.progress


@pytest.mark.slow
def test_new_frames_go_into_the_map_that_exists(
    begun: Path, network: KnowingNetwork, tmp_path: Path, monkeypatch
) -> None:
    """In its world, from the first frame on, without a second layer; a broken run goes on to the same map."""
    truth, whole = open_sequence(ROOM), tmp_path / "whole"
    progress = extended(begun, whole)
    assert progress.lost == [] and progress.parts == [0] and len(progress.posed()) == 36
    for index, T in progress.posed().items():
        assert np.linalg.norm((poses.inverse(truth[12 + index].T_world_camera) @ T)[:3, 3]) < 0.01
    before, after = (RunFolder.open(path).load_cloud()[0] for path in (begun, whole))
    assert len(after) < 1.2 * len(before)
    kept = RunFolder.open(whole).load_metrics()["surfels_of_earlier_frames"]
    assert kept == (after.first_seen < 0).sum() > 0.5 * len(before)
    assert after.first_seen.min() == -24 and (after.first_seen >= 0).sum() > 500

    monkeypatch.setattr("semslam.runs.networks.predictor", lambda *_: network)
    labelled = relabel(whole, tmp_path / "labelled")  # by the frames of both recordings
    assert labelled.load_metrics()["frames_labelled"] == 3 + 4
    names = labelled.load_cloud()[0].labels()
    seen_twice = after.confidence > 3
    for part in (after.first_seen < 0, after.first_seen >= 0):
        assert (names[part & seen_twice] < 255).mean() > 0.9

    for made in (whole, labelled.path):
        earlier = read_tum(made / "other_trajectory_1.txt")
        np.testing.assert_allclose(earlier.T_world_camera, read_tum(begun / "trajectory.txt").T_world_camera, atol=1e-6)
        assert [len(path) for path in viewed_run(made).paths] == [36, 24]
    exported = dict(islice(((path.name, path) for _, path in export_run(whole, tmp_path / "files")), 2))
    for name in ("trajectory.txt", "other_trajectory_1.txt"):
        assert exported[name].read_bytes() == (whole / name).read_bytes()
    assert min(FinishedMap(whole).places.indices) < 0 <= max(FinishedMap(whole).places.indices)
    options = {"sequence": ROOM, "slam.perception.labels": "none", "extend": str(whole), "slam.map.max_surfels": 10**5}
    again = prepare(settings_of(None, options), tmp_path / "again")  # frames of three runs, each named once
    assert again.progress.before == 24 + 36 and again.slam.surfels.cloud().first_seen.min() == -60
    named = np.concatenate([run.indices for run in again.progress.others])
    assert named.tolist() == list(range(-60, 0)) and [run.shift for run in again.progress.others] == [-60, -36]
    assert again.slam.surfels.config.max_surfels == 10**5

    assert extended(begun, tmp_path / "broken", stop=20).next_index == 20
    extended(begun, tmp_path / "broken")
    for name in ("map.ply", "trajectory.txt", "other_trajectory_1.txt"):
        assert (tmp_path / "broken" / name).read_bytes() == (whole / name).read_bytes()


def still(frames: int, **more: object) -> Progress:
    """A run whose camera did not move."""
    indices, T = list(range(frames)), list(np.tile(np.eye(4), (frames, 1, 1)))
    return Progress(frames, indices, timestamps=[0.1 * i for i in indices], poses=T, submaps=[0] * frames, **more)


def test_the_paths_of_other_runs_are_kept_and_move_with_the_map() -> None:
    first = still(2, poor=[1])
    second = still(2, before=2, others=first.as_others("a", -2, np.eye(4)))
    shift = poses.exp(np.array([4.0, -2.0, 1.0, 0.2, 0.5, -0.3]))
    third = still(2, before=4, others=second.as_others("b", -2, shift))
    kept = Progress.from_state(third.state())
    assert [run.folder for run in kept.others] == ["a", "b"]
    assert [run.identity for run in kept.others] == [first.identity, second.identity]
    assert [run.indices.tolist() for run in kept.others] == [[-4, -3], [-2, -1]]
    for run in kept.others:
        assert list(run.posed()) == [0, 1] and np.array_equal(run.T_world_camera, [shift, shift])
    moved = poses.exp(np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]))
    tracking = SimpleNamespace(T_world_camera=np.eye(4), state="good", noise=None, ok=True, submap=0)
    frame, closed = SimpleNamespace(index=2, timestamp=0.2), Correction(np.array([-4]), moved[None])
    seen = SimpleNamespace(hidden=None)
    kept.record(Step(frame, seen, tracking, False, {}, closed))
    for path in kept.paths():
        assert np.allclose(path[:, 2, 3] - (1 if len(path) == 3 else shift[2, 3] + 1), 0)


def test_a_map_that_has_not_met_the_one_that_it_extends_shows_its_own_path_alone(tmp_path: Path) -> None:
    others = still(2).as_others("a", -2, np.eye(4))
    apart, folder = still(5, before=2, others=others), RunFolder(tmp_path)
    assert len(folder.save_trajectories(apart, np.zeros(3))) == 2 and len(apart.paths()) == 2
    apart.submaps = [1] * 5
    assert folder.save_trajectories(apart, np.zeros(3)) == [folder.trajectory]
    assert len(apart.paths()) == 1 and not folder.other_trajectory(1).exists()


@pytest.mark.slow
def test_labels_go_on_with_the_views_that_the_map_names(tmp_path: Path, capsys) -> None:
    out, truth = tmp_path / "run", ["--labels", "truth", "--no-mesh"]
    assert semslam("reconstruct", ROOM, "--frames", 12, *truth, "--out", out) == 0
    more = ["--start", 6, "--frames", 12, *truth, "--extend", out]
    assert semslam("reconstruct", ROOM, *more, "--out", tmp_path / "more") == 0
    before, after = (RunFolder.open(path).load_state() for path in (out, tmp_path / "more"))
    count = int(before["labels_count"])
    assert count >= 1 and after["labels_count"] > count
    np.testing.assert_array_equal(after["labels_views"][:count], before["labels_views"][:count])
    line = refused(capsys, "reconstruct", ROOM, *more, "--set", "slam.labels.method=mean", "--out", tmp_path / "mean")
    assert "`slam.labels.method` bayes" in line and "do not add up" in line


@pytest.mark.parametrize("begun", ["dataset"], indirect=True)
def test_what_cannot_be_extended_is_one_line(begun: Path, tmp_path: Path, capsys) -> None:
    more = ["--extend", begun, "--out", tmp_path / "out"]
    assert "classes" in refused(capsys, "reconstruct", ROOM, "--start", 12, "--labels", "truth", *more)
    assert "--poses tracked" in refused(capsys, "reconstruct", ROOM, "--poses", "dataset", *LABELS, *more)
    assert "not a run" in refused(capsys, "reconstruct", ROOM, *LABELS, "--extend", tmp_path, "--out", tmp_path / "b")


@pytest.mark.parametrize("begun", ["dataset"], indirect=True)
def test_frames_that_the_map_was_made_of_are_refused_or_told(begun: Path, tmp_path: Path, caplog) -> None:
    """Seen once, they would count as two views. That their poses are not used is told as well."""

    def begin(**part: int | str) -> object:
        options = {"sequence": ROOM, "slam.perception.labels": "none", "extend": str(begun), **part}
        return prepare(settings_of(None, options), tmp_path / str(len(list(tmp_path.iterdir()))))

    for same in ({"frames": 24}, {"start": 4, "frames": 8, "every": 2}):
        with pytest.raises(ValueError, match="already, and would count twice"):
            begin(**same)
    assert semslam("convert", ROOM, tmp_path / "copy", "--frames", 24) == 0  # the same images, in files of other names
    with pytest.raises(ValueError, match="already, and would count twice"):
        begin(sequence=str(tmp_path / "copy"))
    begin(start=12, frames=36)
    assert "12 of the 36 frames are in the map" in caplog.text and "its poses are not used" in caplog.text
    caplog.clear()
    begin(start=24)
    assert "count twice" not in caplog.text


def test_frames_that_were_held_out_of_a_map_may_extend_it(tmp_path: Path, caplog) -> None:
    held = ["--frames", 12, "--hold-out", 4, "--poses", "dataset", *LABELS, "--out", tmp_path / "held"]
    assert semslam("reconstruct", ROOM, *held) == 0
    config = settings_of(None, {"sequence": ROOM, "extend": str(tmp_path / "held"), "start": 3, "every": 4})
    check_new(config, config.open_sequence())
    assert "count twice" not in caplog.text
    with_fused = replace(config, start=2, every=1, frames=3)
    check_new(with_fused, with_fused.open_sequence())
    assert "2 of the 3 frames are in the map" in caplog.text


@pytest.mark.parametrize("begun", ["dataset"], indirect=True)
def test_a_recording_of_another_place_is_refused(begun: Path, tmp_path: Path, capsys) -> None:
    elsewhere = ["--start", 300, "--frames", 4]
    more = ["--extend", begun, "--out", tmp_path / "out"]
    assert "none of its frames was found" in refused(
        capsys, "reconstruct", "room:frames=400,width=160,height=120", *elsewhere, *LABELS, *more
    )


@pytest.mark.parametrize("begun", ["dataset"], indirect=True)
def test_frames_of_another_focal_length_that_are_not_found_are_not_blamed_on_the_place(begun: Path) -> None:
    camera = open_sequence(ROOM).camera
    assert why_none_was_found(str(begun), camera) == "do both show the same place?"
    told = why_none_was_found(str(begun), camera.with_focal(1.5 * camera.fx))
    assert "degrees across" in told and "--camera" in told


def test_an_extended_run_goes_on_without_the_run_that_it_extends(begun: Path, tmp_path: Path) -> None:
    """All of that map is in it from the first frame on."""
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(begun, base)
    assert extended(base, out, stop=4).next_index == 4
    base.rename(tmp_path / "elsewhere")
    assert extended(base, out, stop=4).next_index == 8


def test_an_unfinished_map_and_its_added_surfels_are_told(begun: Path, tmp_path: Path, caplog) -> None:
    base = RunFolder(Path(shutil.copytree(begun, tmp_path / "base")))
    base.save_filled(base.load_cloud()[0].selected(np.arange(7)), base.load_progress().identity)
    base.metrics.unlink()
    extended(base.path, tmp_path / "out", stop=1)
    assert any("metrics.json is missing" in line for line in caplog.messages)
    assert any("7 surfels that --fill added to its map are not in the extended one" in line for line in caplog.messages)
