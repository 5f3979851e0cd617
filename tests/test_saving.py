"""Nothing that was recorded is lost: kills, full disks, runs that replace others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOM, refused, semslam
from variants import one_fast

from semslam.runs import folder as folders
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.runs.reconstruct import prepare
from semslam.runs.storage.arrays import load_arrays, parts_of, save_arrays
from semslam.slam import Slam
from semslam.trajectory.files import read_tum

SETTINGS = {"sequence": ROOM, "slam.perception.labels": "truth", "slam.perception.label_every": 2}
OPTIONS = ["--labels", "truth", "--label-every", "2", "--no-mesh"]


def begun(out: Path, frames: int, checkpoint: float = 0.0, **changes):
    """A run that has done some frames, and saved nothing but its checkpoints: as if it had been killed."""
    arguments = {key: changes.pop(key) for key in ("resume", "overwrite") if key in changes}
    run = prepare(settings_of(None, SETTINGS | changes), out, checkpoint=checkpoint, **arguments)
    for _ in zip(range(frames), run):
        pass
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    run = begun(tmp_path_factory.mktemp("whole") / "run", 100)
    finish(run, mesh=False)
    return run.folder


# files


def test_a_run_that_cannot_be_prepared_gives_its_folder_back(tmp_path):
    settings = settings_of(None, {"sequence": ROOM, "slam.perception.labels": "none", "poses": str(tmp_path / "none")})
    with pytest.raises((ValueError, OSError)):
        prepare(settings, tmp_path / "run")
    assert not (tmp_path / "run" / ".lock").exists()


# kills


@pytest.mark.slow
@pytest.mark.parametrize("frames", one_fast(7, 1))
def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_map(whole, tmp_path, frames):
    out = tmp_path / "killed"
    begun(out, frames, checkpoint=1e-9)
    assert not (out / "map.npz").exists()
    assert int(RunFolder.open(out).load_state()["run_next_index"]) == frames
    resumed = begun(out, 100, resume=True)
    assert resumed.progress.seconds > 0
    finish(resumed, mesh=False)
    assert (out / "map.ply").read_bytes() == whole.map.read_bytes()
    assert not (out / "checkpoint").exists()
    first, second = whole.load_state(), RunFolder.open(out).load_state()
    assert first.keys() == second.keys()
    for name in first:
        if "seconds" not in name and "run_ms" not in name:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    first, second = (folder.load_associations(folder.load_state()).state() for folder in (whole, RunFolder.open(out)))
    for name in ("kinds", "frames", "ends", "data"):
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_what_a_killed_run_left_is_a_run_to_look_at(tmp_path, capsys):
    begun(tmp_path / "killed", 8, checkpoint=1e-9)
    assert semslam("evaluate", tmp_path / "killed") == 0
    assert "an unfinished run; its map is of 8 of 12 frames" in capsys.readouterr().err
    line = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "killed", *OPTIONS)
    assert "holds an unfinished run, which --resume goes on with" in line


@pytest.mark.slow
def test_a_process_killed_at_any_time_loses_no_more_than_a_checkpoint(whole, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "semslam.cli", "reconstruct", ROOM, "--out", str(out), *OPTIONS, "--resume"]
    process = subprocess.Popen([*command, "--checkpoint", "0.001"], stderr=subprocess.DEVNULL)
    while not (out / "checkpoint" / "table.npz").exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "ended without finishing" in done.stderr
    assert (out / "map.ply").read_bytes() == whole.map.read_bytes()


@pytest.mark.slow
def test_a_second_ctrl_c_while_saving_does_not_lose_the_run(whole, tmp_path, monkeypatch):
    step, save = Slam.step, RunFolder.save_state

    def step_and_press(self, frame):
        if frame.index == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, frame)

    def save_and_press(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        save(self, *arguments)
        signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "pressed"
    with monkeypatch.context() as patched:
        patched.setattr(Slam, "step", step_and_press)
        patched.setattr(RunFolder, "save_state", save_and_press)
        assert semslam("reconstruct", ROOM, "--out", out, *OPTIONS) == 130
    assert semslam("reconstruct", ROOM, "--out", out, *OPTIONS, "--resume") == 0
    assert RunFolder.open(out).map.read_bytes() == whole.map.read_bytes()


def test_a_ctrl_c_while_all_frames_are_saved_is_not_forgotten(whole, tmp_path, monkeypatch, capsys):
    save = RunFolder.save_state

    def press_and_save(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        save(self, *arguments)

    out = tmp_path / "pressed"
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_state", press_and_save)
        assert semslam("reconstruct", ROOM, "--out", out, *OPTIONS) == 130
    assert "all frames are fused and saved" in capsys.readouterr().out
    assert not RunFolder(out).map.exists()
    assert semslam("reconstruct", ROOM, "--out", out, *OPTIONS, "--resume") == 0
    assert RunFolder.open(out).map.read_bytes() == whole.map.read_bytes()


# one step from one valid state to the next


def test_settings_change_together_with_the_map(tmp_path, monkeypatch):
    out = tmp_path / "a"
    begun(out, 3).save()
    other = begun(out, 2, overwrite=True, **{"slam.perception.classes": "nyu40"})
    other.folder = RunFolder(out)  # in the same place, and killed right after the map's rename

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folders.configs, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        other.save()
    folder = RunFolder.open(out)
    assert "nyu13" in folder.config.read_text()  # which is for people
    assert folder.load_config().slam.perception.classes == "nyu40"
    assert folder.load_state()["classes"] == 40 == len(folder.load_cloud()[1])


@pytest.mark.slow
def test_the_old_run_stays_whole_until_the_new_one_is(whole, tmp_path):
    out = tmp_path / "a"
    finish(begun(out, 100), mesh=False)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}
    other = {"slam.perception.classes": "nyu40"}
    new = begun(out, 4, overwrite=True, **other)
    new.save()
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != ".lock"} == before
    with pytest.raises(ValueError, match="an unfinished run that will replace another, which --resume goes on with"):
        begun(out, 1, **other)
    resumed = begun(out, 100, resume=True, **other)
    assert resumed.progress.next_index == 12 and len(resumed.folder.load_progress().indices) == 4
    finish(resumed, mesh=False)
    folder = RunFolder.open(out)
    assert len(folder.load_cloud()[1]) == 40 and folder.load_metrics()["frames"] == 12
    assert not list(out.glob(".*"))


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """After so many files were moved or removed, the next such step is not done, and the block is over."""
    left = iter(range(steps))

    def dying(step: Callable) -> Callable:
        def done(self: Path, *arguments, **options):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return step(self, *arguments, **options)

        return done

    with pytest.MonkeyPatch.context() as patched, suppress(KeyboardInterrupt):
        for name in ("unlink", "rename", "replace", "rmdir"):
            patched.setattr(Path, name, dying(getattr(Path, name)))
        yield


def test_a_replacement_that_is_killed_at_any_step_is_finished_when_the_run_is_opened(whole, tmp_path):
    old = tmp_path / "old"
    finish(begun(old, 100, **{"slam.perception.labels": "none"}), mesh=False)
    for name in ("mesh.ply", "trajectory_fused.txt"):
        (old / name).write_text("of the old run")
    expected = {path.name: path.read_bytes() for path in whole.path.iterdir()}
    broken_off = 0
    for killed in range(30):
        out = tmp_path / f"{killed}"
        shutil.copytree(old, out)
        shutil.copytree(whole.path, out / ".ready")
        with killed_after(killed):
            RunFolder.open(out)
        broken_off += any(out.glob(".[mr]*"))
        RunFolder.open(out)
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"} == expected, killed
    assert len(expected) < broken_off < 30


# commands that would replace


@pytest.mark.slow
def test_refine_and_relabel_replace_a_run_only_when_asked(whole, tmp_path, capsys):
    out = tmp_path / "refined"
    assert semslam("refine", whole.path, "--out", out) == 0
    first = (out / "map.ply").read_bytes()
    assert "holds a run; name another --out, or add --overwrite" in refused(capsys, "refine", whole.path, "--out", out)
    assert semslam("refine", whole.path, "--out", out, "--overwrite", "--iterations", 1) == 0
    assert (out / "map.ply").read_bytes() != first and not list(out.glob(".*"))
    assert "holds a run" in refused(capsys, "relabel", whole.path, "--out", out)


# a full disk


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_with_a_line_and_the_run_goes_on_later(whole, tmp_path, capsys, monkeypatch):
    out = tmp_path / "a"
    written = [0]
    write = folders.save_arrays

    def filling(path, parts, **options):
        written[0] += 1
        if written[0] == 3:
            monkeypatch.setattr("zipfile.ZipFile.open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
        write(path, parts, **options)

    with monkeypatch.context():
        monkeypatch.setattr("semslam.runs.storage.checkpoint.save_arrays", filling)
        line = refused(capsys, "reconstruct", ROOM, "--out", out, *OPTIONS, "--checkpoint", "0.000001", code=75)
        monkeypatch.undo()
    assert "No space left on device" in line and "MB are needed" in line and "MB are free" in line and str(out) in line
    assert int(RunFolder.open(out).load_state()["run_next_index"]) == 2
    assert not list(out.rglob("*.part*"))
    elsewhere = tmp_path / "elsewhere"
    out.rename(elsewhere)
    assert semslam("reconstruct", ROOM, "--out", elsewhere, *OPTIONS, "--resume") == 0
    assert (elsewhere / "map.ply").read_bytes() == whole.map.read_bytes()


# a read-only installation


@pytest.mark.parametrize("temporary", [True, False])
def test_where_no_cache_can_be_written_the_code_still_runs_and_it_is_said_once(tmp_path, temporary):
    code = (
        "import tempfile, numba as nb, numpy as np, numba.core.caching as caching\n"
        "ensure = caching._CacheLocator.ensure_cache_path\n"
        "def read_only(self):\n"
        f"    if not self.get_cache_path().startswith({str(tmp_path)!r}) or not {temporary}:\n"
        "        raise OSError('read-only')\n"
        "    ensure(self)\n"
        "caching._CacheLocator.ensure_cache_path = read_only\n"
        "from semslam.engine.chunks import find_block\n"
        "assert find_block(np.full(8, -1, np.int64), np.int64(5)) >= 0\n"
        "import semslam.engine.index_map, semslam.tracking.registration.terms\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment["TMPDIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert ("is kept in" if temporary else "compiled anew") in done.stderr


@pytest.mark.parametrize(("checkpoint", "pause"), [(None, 200), (50.0, 50)])
def test_checkpoints_are_rarer_where_they_cost_more_than_their_share_unless_set(
    tmp_path, monkeypatch, caplog, checkpoint, pause
):
    now, saved = [0.0], []

    def passes(seconds):
        now[0] += seconds

    def save(self):
        saved.append(now[0])
        passes(4)

    run = begun(tmp_path / "run", 0, checkpoint=checkpoint)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(type(run), "save_checkpoint", save)
    monkeypatch.setattr(type(run), "_advance", lambda *_: passes(10))
    monkeypatch.setattr(type(run), "_frames", lambda _: ((0, None) for _ in range(80)))
    list(run)
    assert saved[0] == (checkpoint or 30)
    assert len(saved) > 3 and all(pause + 4 <= gap < pause + 14 for gap in np.diff(saved))
    assert caplog.text.count("it is saved every 200 s, and a crash may lose as many") == (checkpoint is None)


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_time_between_checkpoints_that_cannot_be_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match=f"checkpoint is {seconds}, expected seconds, or 0"):
        begun(tmp_path / "run", 0, checkpoint=seconds)


@pytest.mark.parametrize("change", ["missing", "stage says no"])
def test_a_run_whose_stages_kept_something_else_says_what_to_do_and_is_not_called_damaged(
    tmp_path, monkeypatch, change
):
    out = tmp_path / "run"
    run = begun(out, 3, poses="tracked")
    state = run._state()
    if change == "missing":
        monkeypatch.setattr(type(run), "_state", lambda _: {k: v for k, v in state.items() if k != "tracker_calm"})
        expected = r"cannot go on: what it saved of tracker is not what this version .*calm.*--overwrite"
    else:
        expected = r"cannot go on: other features"

        def no(self, state):
            raise ValueError("other features")

        monkeypatch.setattr(type(run.slam.track), "restore", no)
    run.save()
    with pytest.raises(ValueError, match=expected) as caught:
        begun(out, 3, poses="tracked", resume=True)
    assert "damaged" not in str(caught.value)


def test_a_run_with_settings_that_this_version_does_not_know_is_not_called_damaged(tmp_path):
    run = begun(tmp_path / "run", 1)
    run.save()
    arrays = load_arrays(run.folder.state)
    settings = np.array(f"gone: 1\n{arrays['run_config']}")
    save_arrays(run.folder.state, parts_of(arrays | {"run_config": settings}))
    with pytest.raises(ValueError, match=r"run: unknown setting 'gone'.*another version.*make it again") as caught:
        RunFolder.open(tmp_path / "run").load_config()
    assert "damaged" not in str(caught.value)


def test_poses_of_poor_tracking_are_told_apart(tmp_path):
    run, still = RunFolder(tmp_path), [np.eye(4)] * 4
    progress = Progress(4, [0, 1, 2, 3], timestamps=[0.0, 0.1, 0.2, 0.3], poses=still, submaps=[0] * 4, poor=[2])
    progress.lost.append(1)
    run.save_trajectories(progress, np.zeros(3))
    assert read_tum(run.trajectory).timestamps.tolist() == [0.0, 0.2, 0.3]
    assert read_tum(run.fused_trajectory).timestamps.tolist() == [0.0, 0.3]
    progress.poor.clear()
    assert run.save_trajectories(progress, np.zeros(3)) == [run.trajectory] and not run.fused_trajectory.exists()
