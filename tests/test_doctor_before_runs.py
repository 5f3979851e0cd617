"""What the doctor finds when a run begins: poses are read as they are meant; what would make no map ends the run."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from spoilt_recordings import change_poses
from variants import one_fast

from semslam.config import updated
from semslam.doctor.depth.readings import doubtful_readings, implausible_depth
from semslam.doctor.depth.unit import doubtful_depth_unit
from semslam.doctor.doctor import diagnose
from semslam.frame import Frame
from semslam.perception import PerceptionConfig
from semslam.poses import inverse
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.given import verdict
from semslam.runs.reconstruct import prepare
from semslam.slam import SlamConfig
from sequences import Sequence, open_sequence
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence


@pytest.mark.slow
@pytest.mark.parametrize("convention", one_fast("millimetres", "inverted", "qw-first"))
def test_a_run_reads_poses_as_the_images_tell_that_they_are_meant(
    long_folder, forty_in_a_folder, convention, tmp_path, caplog
):
    written = {
        "millimetres": lambda T: np.block([[T[:3, :3], 1e3 * T[:3, 3:]], [T[3:]]]),
        "inverted": inverse,
        "qw-first": with_qw_first,
    }
    change_poses(long_folder, written[convention])
    settings = RunConfig(sequence=str(long_folder), poses="dataset")
    prepared = prepare(updated(settings, {"slam.perception.labels": "none"}, ""), tmp_path / "run")
    np.testing.assert_allclose(prepared.sequence.poses, open_sequence(forty_in_a_folder).poses, atol=1e-5)
    assert prepared.config.pose_convention == convention and prepared.progress.poses_contradicted is None
    assert caplog.text.count("fit its poses only if") == 1 and "as-recorded" in caplog.text
    # what reads the run later asks the images no more
    np.testing.assert_array_equal(prepared.config.open_sequence().poses, prepared.sequence.poses)
    tracked = replace(prepared.config, poses="tracked", pose_convention=None)
    assert prepare(tracked, tmp_path / "tracked").config.pose_convention == convention  # they are the reference
    insisted = prepare(replace(prepared.config, pose_convention="as-recorded"), tmp_path / "insisted").sequence
    recorded = open_sequence(long_folder).poses
    np.testing.assert_allclose(inverse(insisted.poses[0]) @ insisted.poses[9], inverse(recorded[0]) @ recorded[9])


@pytest.mark.slow
def test_frames_whose_pose_the_images_contradict_are_told_and_not_fused(long_folder, tmp_path, caplog):
    moved = iter([np.zeros((4, 4))] * 20 + [np.outer([1, 0, 0, 0], [0, 0, 0, 1])])  # frame 20, by 1 m
    change_poses(long_folder, lambda T: T + next(moved, np.zeros((4, 4))))
    run = prepare(
        updated(RunConfig(sequence=str(long_folder)), {"slam.perception.labels": "none"}, ""), tmp_path / "run"
    )
    assert "the poses of frame 20 do not fit the images" in caplog.text
    assert run.sequence.poses[20] is None and run.sequence[20].T_world_camera is None  # for whatever looks at them
    assert [i for i, step in enumerate(run) if step is None or not step.fused] == [20]
    assert run.progress.lost == [20]
    run.save()
    assert RunFolder.open(tmp_path / "run").open_sequence().poses[20] is None
    caplog.clear()
    again = prepare(run.config, tmp_path / "again")  # its own settings say how poses are meant, and not which are right
    assert again.progress.poses_rejected == [20] and "frame 20 do not fit" in caplog.text
    insisted = prepare(replace(run.config, reject_poses=False), tmp_path / "insisted")
    assert insisted.progress.poses_rejected == [] and insisted.sequence.poses[20] is not None


@pytest.mark.slow
def test_poses_that_are_repeated_are_interpolated_unless_the_settings_insist_on_them(
    long_folder, forty_in_a_folder, tmp_path, caplog
):
    recorded = open_sequence(forty_in_a_folder).poses
    turns = iter(range(len(recorded)))
    change_poses(long_folder, lambda _: recorded[next(turns) // 3 * 3])
    settings = updated(RunConfig(sequence=str(long_folder)), {"slam.perception.labels": "none"}, "")
    run = prepare(settings, tmp_path / "run")
    np.testing.assert_allclose(run.sequence.poses[:39], recorded[:39], atol=5e-3)
    assert caplog.text.count("repeated over about 3 images") == 1 and "--set reject_poses=false" in caplog.text
    assert "repeated over about 3 images" in run.metrics()["assumptions"][-1]
    assert run.progress.poses_contradicted is None and run.progress.poses_rejected == []
    insisted = prepare(replace(settings, reject_poses=False), tmp_path / "insisted").sequence
    np.testing.assert_array_equal(insisted.poses[4], insisted.poses[3])
    repeated = [finding for finding in diagnose(open_sequence(long_folder)) if "repeated" in finding.what]
    assert [finding.level for finding in repeated] == ["hint"]


def test_what_was_judged_of_poses_is_not_judged_again_on_resume(long_folder, tmp_path, monkeypatch):
    moved = iter([np.zeros((4, 4))] * 20 + [np.outer([1, 0, 0, 0], [0, 0, 0, 1])])  # frame 20, by 1 m
    change_poses(long_folder, lambda T: inverse(T + next(moved, np.zeros((4, 4)))))
    settings = updated(RunConfig(sequence=str(long_folder)), {"slam.perception.labels": "none"}, "")
    run = prepare(settings, tmp_path / "run")
    assert next(iter(run)).fused
    run.progress.poses_contradicted = "something"
    run.save()
    for name in ("judged", "single", "intrinsics"):
        monkeypatch.setattr(verdict, name, None)
    resumed = prepare(settings, tmp_path / "run", resume=True)
    assert resumed.progress.poses_rejected == [20] and resumed.progress.poses_contradicted == "something"
    assert resumed.sequence.poses[20] is None
    np.testing.assert_array_equal(resumed.sequence.poses[21], run.sequence.poses[21])


def test_a_run_says_that_depth_is_turned_against_the_colour_also_if_it_was_stopped(long_folder, tmp_path, caplog):
    for path in (long_folder / "depth").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:, ::-1])
    settings = {"slam.perception.labels": "none", "pose_convention": "as-recorded"}
    config = updated(RunConfig(sequence=str(long_folder)), settings, "")
    stopped = prepare(config, tmp_path / "run")
    deque(islice(stopped, 25), maxlen=0)
    stopped.save()
    assert stopped.metrics()["depth_contradicted"] is None
    run = prepare(config, tmp_path / "run", resume=True)
    deque(run, maxlen=0)
    assert caplog.text.count("when it is mirrored left to right; turn the images") == 1
    assert "mirrored" in run.metrics()["depth_contradicted"]


def test_poses_in_two_worlds_make_no_map_unless_it_is_insisted_on(long_folder, tmp_path):
    offset = iter([np.zeros((4, 4))] * 25 + [np.outer([1, 0, 0, 0], [0, 0, 0, 1])] * 15)  # the last frames, by 1 m
    change_poses(long_folder, lambda T: T + next(offset))
    settings = updated(RunConfig(sequence=str(long_folder)), {"slam.perception.labels": "none"}, "")
    with pytest.raises(ValueError, match=r"the poses jump after frame 24, .* map one part \(--start, --frames\)"):
        prepare(settings, tmp_path / "run")
    assert len(prepare(replace(settings, reject_poses=False), tmp_path / "run")) == 40


def with_qw_first(T: np.ndarray) -> np.ndarray:
    """What a reader makes of a line whose quaternion has qw first."""
    moved = T.copy()
    moved[:3, :3] = Rotation.from_quat(Rotation.from_matrix(T[:3, :3]).as_quat()[[3, 0, 1, 2]]).as_matrix()
    return moved


def test_depth_that_contradicts_the_poses_makes_no_map_unless_it_is_insisted_on(long_folder, tmp_path):
    settings = RunConfig(sequence=str(long_folder), poses="dataset", depth_scale=5000.0)
    settings = updated(settings, {"slam.perception.labels": "none"}, "")
    with pytest.raises(ValueError, match=r"depth is 5 times what was read; make --depth-scale .* 5 times smaller"):
        prepare(settings, tmp_path / "run")
    assert len(prepare(replace(settings, reject_poses=False), tmp_path / "run")) == 40


def test_depth_in_another_unit_is_doubted_without_poses_and_by_a_network(forty_in_a_folder):
    right, small = open_sequence(forty_in_a_folder), open_sequence(forty_in_a_folder, depth_scale=5000)

    def network(image: np.ndarray, size: tuple[int, int], focal: float) -> SimpleNamespace:
        return SimpleNamespace(depth=np.full(size[::-1], 2.0, np.float32))

    right.poses = small.poses = None
    assert doubtful_depth_unit(right, network) == doubtful_depth_unit(right, None) == ""
    said = doubtful_depth_unit(small, network)
    assert "a network expects 2 m" in said and "5 times smaller" in said


def test_runs_and_doctor_doubt_the_unit_of_a_halls_depth_alike_and_a_network_dispels_it(forty_in_a_folder):
    def network(image: np.ndarray, size: tuple[int, int], focal: float) -> SimpleNamespace:
        return SimpleNamespace(depth=np.full(size[::-1], 9.0, np.float32))

    for scale, change in ((220, "5 times larger"), (110, "10 times larger")):  # the median is of 2 m
        hall = open_sequence(forty_in_a_folder, depth_scale=scale)
        hall.poses = None
        (finding,) = doubtful_readings([hall.try_read(i).depth for i in range(0, 40, 8)])
        said = doubtful_depth_unit(hall, None)
        assert finding.level == "hint" and finding.remedy in said and change in said and "in a hall" in said
    assert doubtful_depth_unit(open_sequence(forty_in_a_folder, depth_scale=220), network) == ""


def test_depth_that_shows_no_surfaces_ends_a_run(forty_in_a_folder):
    recording = open_sequence(forty_in_a_folder)
    for change, said in (
        (lambda depth: np.random.default_rng(0).uniform(0.1, 60, depth.shape), "are they images of another kind"),
        (lambda depth: np.full_like(depth, 65.535), "every depth reading is 65.535 m: a mark"),
    ):
        changed = [replace(frame, depth=change(frame.depth)) for frame in map(recording.try_read, range(6))]
        found = implausible_depth(Listed(recording, changed))
        assert found is not None and said in f"{found.what}; {found.remedy}"
    assert implausible_depth(recording) is None


def test_depth_of_the_other_byte_order_ends_a_run():
    room = RoomSequence(frames=6, width=320, height=240)
    swapped = [replace(f, depth=np.rint(1e3 * f.depth).astype(np.uint16).byteswap() * np.float32(1e-3)) for f in room]
    found = implausible_depth(Listed(room, swapped))
    assert found is not None and "bytes of each are swapped; write them" in f"{found.what}; {found.remedy}"
    assert implausible_depth(room) is None


class Listed(Sequence):
    """Some frames of a recording, changed."""

    def __init__(self, recording: Sequence, frames: list[Frame]) -> None:
        self.name, self.camera, self.label_set, self.has_depth = recording.name, recording.camera, None, True
        self.timestamps, self.poses, self._frames = recording.timestamps[: len(frames)], None, frames

    def __getitem__(self, index: int) -> Frame:
        return self._frames[self._checked(index)]


def test_a_run_is_warned_of_a_camera_that_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(open_sequence("room:frames=3,width=64,height=48"), tmp_path / "a")
    text = (tmp_path / "a" / "camera.yaml").read_text()
    (tmp_path / "a" / "camera.yaml").write_text(re.sub(r"(?m)^cx: .*", "cx: 80.0", text))
    prepare(RunConfig(sequence=str(tmp_path / "a"), slam=SlamConfig(PerceptionConfig(labels="none"))), tmp_path / "run")
    assert "the principal point (80.0, " in caplog.text
