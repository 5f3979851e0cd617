"""The doctor finds each planted fault, names its remedy, and is silent about recordings that are sound."""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation
from variants import one_fast

from semslam.camera import Camera
from semslam.config import updated
from semslam.doctor.depth.unit import doubtful_depth_unit
from semslam.doctor.doctor import Finding, black_images, diagnose, examine, implausible_depth
from semslam.doctor.gaps import gaps
from semslam.doctor.poses.convention import as_convention
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
from sequences.room.kinect_noise import kinect_noise
from sequences.room.room import RoomSequence


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    room = RoomSequence(frames=40, width=160, height=120)
    return write_folder(room, tmp_path_factory.mktemp("doctor") / "room")


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """Forty sound frames, to plant a fault in."""
    return Path(shutil.copytree(sound, tmp_path / "room"))


def change_camera(folder: Path, **values: float) -> None:
    recorded = yaml.safe_load((folder / "camera.yaml").read_text())
    (folder / "camera.yaml").write_text(yaml.safe_dump(recorded | values))


def change_poses(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    rows = np.loadtxt(folder / "groundtruth.txt")
    for row in rows:
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_quat(row[4:]).as_matrix(), row[1:4]
        T = change(T)
        row[1:] = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
    np.savetxt(folder / "groundtruth.txt", rows, fmt="%.9f")


def write_times(folder: Path, times: np.ndarray) -> None:
    rows = np.loadtxt(folder / "groundtruth.txt")
    rows[:, 0] = times
    np.savetxt(folder / "groundtruth.txt", rows, fmt="%.9f")


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_sound_recording_has_no_findings(sound):
    assert examine(sound) == []


@pytest.mark.slow
def test_a_sound_recording_with_kinect_noise_has_no_findings():
    assert diagnose(RoomSequence(frames=30, width=160, height=120, noise=kinect_noise)) == []


@pytest.mark.parametrize(
    "name",
    ["samples/open3d", *(pytest.param(name, marks=pytest.mark.slow) for name in ("redkitchen", "icl_livingroom1"))],
)
def test_sound_public_recordings_have_no_findings(shared_data, name):
    assert examine(shared_data / name) == []


@pytest.mark.parametrize(("depth_scale", "advice"), one_fast((1.0, "1000 times larger"), (1e6, "1000 times smaller")))
def test_depth_a_thousand_times_off_is_found(folder, depth_scale, advice):
    change_camera(folder, depth_scale=depth_scale)
    finding = only(examine(folder))
    assert finding.level == "error" and "median depth" in finding.what and advice in finding.remedy
    assert implausible_depth(open_sequence(folder)).what.startswith("the median depth is")


def test_plausible_depth_is_no_reason_to_stop(sound):
    assert implausible_depth(open_sequence(sound)) is None


def test_depth_five_times_off_is_found_by_the_poses(folder):
    change_camera(folder, depth_scale=5000.0)
    finding = only(examine(folder))
    assert finding.level == "error" and "depth is 5 times" in finding.what and "5 times smaller" in finding.remedy


def test_intrinsics_of_another_image_size_are_found(folder):
    recorded = open_sequence(folder).camera
    change_camera(folder, **{key: 2 * getattr(recorded, key) for key in ("fx", "fy", "cx", "cy")})
    finding = examine(folder)[0]
    assert finding.level == "error" and "principal point (159.0, 119.0)" in finding.what
    assert "another image size" in finding.remedy


def test_a_focal_length_of_another_camera_is_found(folder):
    recorded = open_sequence(folder).camera
    change_camera(folder, fx=recorded.fx * 1.4, fy=recorded.fy * 1.4)
    finding = only(examine(folder))
    assert finding.level == "error" and "focal length about 0.7 times" in finding.what


def test_an_absurd_focal_length_is_found_without_poses(folder):
    (folder / "groundtruth.txt").unlink()
    change_camera(folder, fx=3.0, fy=3.0)
    assert "degrees wide" in only(examine(folder)).what


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    one_fast(
        (inverse, "T_camera_world", "invert each pose"),
        (lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0]), "OpenGL", "diag"),
        (lambda T: np.block([[T[:3, :3], 1000 * T[:3, 3:]], [T[3:]]]), "0.001 times as long", "metres"),
    ),
    ids=["inverted", "opengl", "millimetres"],
)
def test_poses_in_another_convention_are_found(folder, change, what, remedy):
    change_poses(folder, change)
    finding = only(examine(folder))
    assert finding.level == "error" and what in finding.what and remedy in finding.remedy


def test_quaternions_with_w_first_are_found(folder):
    rows = np.loadtxt(folder / "groundtruth.txt")
    np.savetxt(folder / "groundtruth.txt", rows[:, [0, 1, 2, 3, 7, 4, 5, 6]], fmt="%.9f")
    assert "qw first" in only(examine(folder)).what


def test_poses_of_another_recording_are_called_unfitting(folder):
    rng = np.random.default_rng(0)

    def elsewhere(T: np.ndarray) -> np.ndarray:
        moved = T.copy()
        moved[:3, :3] = Rotation.random(rng=rng).as_matrix()
        return moved

    change_poses(folder, elsewhere)
    finding = only(examine(folder))
    assert finding.level == "warning" and "--poses tracked" in finding.remedy


def with_timestamps(folder: Path, timestamps: np.ndarray) -> list[Finding]:
    return diagnose(replace(open_sequence(folder), timestamps=timestamps))


def test_timestamps_that_go_backwards_or_stand_still_are_found(folder):
    times = np.arange(40) / 30
    times[[10, 11]] = times[[11, 10]]
    finding = only(with_timestamps(folder, times))
    assert finding.level == "error" and "backwards 1 times, first at frame 11" in finding.what
    times = np.arange(40) / 30
    times[20] = times[19]
    assert (
        "1 frames have the timestamp of the frame before, first frame 20" in only(with_timestamps(folder, times)).what
    )


def test_timestamps_in_milliseconds_are_found(folder):
    finding = only(with_timestamps(folder, np.arange(40) * 33.3))
    assert finding.level == "error" and "milliseconds" in finding.what and "in seconds" in finding.remedy


@pytest.mark.parametrize("unit", [1e3, 1e6, 1e9])
def test_times_of_a_camera_in_other_units_are_read_in_them(folder, unit, caplog):
    write_times(folder, np.arange(40) / 30 * unit)
    np.testing.assert_allclose(open_sequence(folder).timestamps, np.arange(40) / 30, atol=1e-6)
    assert "its times count" in caplog.text and "seconds, and are read so" in caplog.text


@pytest.mark.parametrize("step", [5, 30, 600])
def test_a_time_lapse_is_not_taken_for_milliseconds(folder, step):
    write_times(folder, np.arange(40) * step)
    np.testing.assert_allclose(open_sequence(folder).timestamps, np.arange(40) * step)


def test_whole_milliseconds_are_told_by_their_uneven_steps(folder):
    write_times(folder, np.rint(np.arange(40) / 30 * 1e3))
    np.testing.assert_allclose(open_sequence(folder).timestamps, np.arange(40) / 30, atol=1e-3)


def test_photographs_half_a_minute_apart_keep_their_times(folder):
    times = np.cumsum(np.random.default_rng(0).uniform(10, 50, 40))
    write_times(folder, times)
    np.testing.assert_allclose(open_sequence(folder).timestamps, times, atol=1e-6)


@pytest.mark.parametrize("convention", one_fast("millimetres", "inverted", "qw-first"))
def test_a_run_reads_poses_as_the_images_tell_that_they_are_meant(folder, sound, convention, tmp_path, caplog):
    written = {
        "millimetres": lambda T: np.block([[T[:3, :3], 1e3 * T[:3, 3:]], [T[3:]]]),
        "inverted": inverse,
        "qw-first": with_qw_first,
    }
    change_poses(folder, written[convention])
    settings = RunConfig(sequence=str(folder), poses="dataset")
    prepared = prepare(updated(settings, {"slam.perception.labels": "none"}, ""), tmp_path / "run")
    np.testing.assert_allclose(prepared.sequence.poses, open_sequence(sound).poses, atol=1e-5)
    assert prepared.config.pose_convention == convention and prepared.progress.poses_contradicted is None
    assert caplog.text.count("fit its poses only if") == 1 and "as-recorded" in caplog.text
    # what reads the run later asks the images no more
    np.testing.assert_array_equal(prepared.config.open_sequence().poses, prepared.sequence.poses)
    tracked = replace(prepared.config, poses="tracked", pose_convention=None)
    assert prepare(tracked, tmp_path / "tracked").config.pose_convention == convention  # they are the reference
    insisted = prepare(replace(prepared.config, pose_convention="as-recorded"), tmp_path / "insisted").sequence
    recorded = open_sequence(folder).poses
    np.testing.assert_allclose(inverse(insisted.poses[0]) @ insisted.poses[9], inverse(recorded[0]) @ recorded[9])


def test_frames_whose_pose_the_images_contradict_are_told_and_not_fused(folder, tmp_path, caplog):
    moved = iter([np.zeros((4, 4))] * 20 + [np.outer([1, 0, 0, 0], [0, 0, 0, 1])])  # frame 20, by 1 m
    change_poses(folder, lambda T: T + next(moved, np.zeros((4, 4))))
    run = prepare(updated(RunConfig(sequence=str(folder)), {"slam.perception.labels": "none"}, ""), tmp_path / "run")
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
def test_poses_that_are_repeated_are_interpolated_unless_the_settings_insist_on_them(folder, sound, tmp_path, caplog):
    recorded = open_sequence(sound).poses
    turns = iter(range(len(recorded)))
    change_poses(folder, lambda _: recorded[next(turns) // 3 * 3])
    settings = updated(RunConfig(sequence=str(folder)), {"slam.perception.labels": "none"}, "")
    run = prepare(settings, tmp_path / "run")
    np.testing.assert_allclose(run.sequence.poses[:39], recorded[:39], atol=5e-3)
    assert caplog.text.count("repeated over about 3 images") == 1 and "--set reject_poses=false" in caplog.text
    assert "repeated over about 3 images" in run.metrics()["assumptions"][-1]
    assert run.progress.poses_contradicted is None and run.progress.poses_rejected == []
    insisted = prepare(replace(settings, reject_poses=False), tmp_path / "insisted").sequence
    np.testing.assert_array_equal(insisted.poses[4], insisted.poses[3])
    repeated = [finding for finding in diagnose(open_sequence(folder)) if "repeated" in finding.what]
    assert [finding.level for finding in repeated] == ["hint"]


def test_what_was_judged_of_poses_is_not_judged_again_on_resume(folder, tmp_path, monkeypatch):
    moved = iter([np.zeros((4, 4))] * 20 + [np.outer([1, 0, 0, 0], [0, 0, 0, 1])])  # frame 20, by 1 m
    change_poses(folder, lambda T: inverse(T + next(moved, np.zeros((4, 4)))))
    settings = updated(RunConfig(sequence=str(folder)), {"slam.perception.labels": "none"}, "")
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


def test_a_run_says_that_depth_is_turned_against_the_colour_also_if_it_was_stopped(folder, tmp_path, caplog):
    for path in (folder / "depth").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:, ::-1])
    settings = {"slam.perception.labels": "none", "pose_convention": "as-recorded"}
    config = updated(RunConfig(sequence=str(folder)), settings, "")
    stopped = prepare(config, tmp_path / "run")
    deque(islice(stopped, 25), maxlen=0)
    stopped.save()
    assert stopped.metrics()["depth_contradicted"] is None
    run = prepare(config, tmp_path / "run", resume=True)
    deque(run, maxlen=0)
    assert caplog.text.count("when it is mirrored left to right; turn the images") == 1
    assert "mirrored" in run.metrics()["depth_contradicted"]


def test_poses_in_two_worlds_make_no_map_unless_it_is_insisted_on(folder, tmp_path):
    offset = iter([np.zeros((4, 4))] * 25 + [np.outer([1, 0, 0, 0], [0, 0, 0, 1])] * 15)  # the last frames, by 1 m
    change_poses(folder, lambda T: T + next(offset))
    settings = updated(RunConfig(sequence=str(folder)), {"slam.perception.labels": "none"}, "")
    with pytest.raises(ValueError, match=r"the poses jump after frame 24, .* map one part \(--start, --frames\)"):
        prepare(settings, tmp_path / "run")
    assert len(prepare(replace(settings, reject_poses=False), tmp_path / "run")) == 40


def with_qw_first(T: np.ndarray) -> np.ndarray:
    """What a reader makes of a line whose quaternion has qw first."""
    moved = T.copy()
    moved[:3, :3] = Rotation.from_quat(Rotation.from_matrix(T[:3, :3]).as_quat()[[3, 0, 1, 2]]).as_matrix()
    return moved


def test_depth_that_contradicts_the_poses_makes_no_map_unless_it_is_insisted_on(folder, tmp_path):
    settings = RunConfig(sequence=str(folder), poses="dataset", depth_scale=5000.0)
    settings = updated(settings, {"slam.perception.labels": "none"}, "")
    with pytest.raises(ValueError, match=r"depth is 5 times what was read; make --depth-scale .* 5 times smaller"):
        prepare(settings, tmp_path / "run")
    assert len(prepare(replace(settings, reject_poses=False), tmp_path / "run")) == 40


def test_depth_in_another_unit_is_doubted_without_poses_and_by_a_network(sound):
    right, small = open_sequence(sound), open_sequence(sound, depth_scale=5000)

    def network(image: np.ndarray, size: tuple[int, int], focal: float) -> SimpleNamespace:
        return SimpleNamespace(depth=np.full(size[::-1], 2.0, np.float32))

    right.poses = small.poses = None
    assert doubtful_depth_unit(right, network) == doubtful_depth_unit(right, None) == ""
    said = doubtful_depth_unit(small, network)
    assert "a network expects 2 m" in said and "5 times smaller" in said


def test_depth_that_shows_no_surfaces_ends_a_run(sound):
    recording = open_sequence(sound)
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


def test_words_of_a_convention_that_are_none_are_named():
    with pytest.raises(ValueError, match="unknown 'upside-down', expected as-recorded, or some of qw-first, milli"):
        as_convention([np.eye(4)], "inverted,upside-down")
    with pytest.raises(ValueError, match="two units"):
        as_convention([np.eye(4)], "millimetres,centimetres")


def test_a_gap_in_time_is_found(folder):
    times = np.arange(40) / 30 + 2.0 * (np.arange(40) > 24)
    finding = only(with_timestamps(folder, times))
    assert finding.level == "warning" and "2.03 s, after frame 24" in finding.what


def test_a_gap_in_the_numbers_of_images_is_found(folder):
    """Times that are counted from the frames do not show it."""
    for kind in ("color", "depth"):
        for path in sorted((folder / kind).iterdir())[12:30]:
            path.unlink()
    (folder / "groundtruth.txt").unlink()
    shutil.rmtree(folder / "label40", ignore_errors=True)
    finding = only(examine(folder))
    assert finding.level == "warning" and "the longest, 18 frames, after 000011" in finding.what


class Panning(Sequence):
    """A camera that passes a long wall, with frames left out, one of them black."""

    has_depth, label_set, poses, name = False, None, None, "panning"
    camera = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)

    def __init__(self, columns: list[int], black: int) -> None:
        wall = np.random.default_rng(0).uniform(0, 255, (30, 400, 3)).astype(np.uint8)
        self._wall = cv2.resize(wall, (3200, 240), interpolation=cv2.INTER_CUBIC)
        self._columns, self._black = columns, black
        self.timestamps = np.arange(len(columns)) / 30

    def __getitem__(self, index: int) -> Frame:
        column = self._columns[self._checked(index)]
        color = self._wall[:, column : column + 320].copy() * (index != self._black)
        return Frame(index, float(self.timestamps[index]), color, self.camera)


@pytest.mark.parametrize("longer", [1, 8])  # so long that at first only every n-th frame is looked at
def test_a_gap_that_only_the_images_show_is_found_and_a_black_frame_is_none(longer):
    steady = [4 * i // longer for i in range(40 * longer)]
    assert gaps(Panning(steady, black=20)) == []
    jump = [column + 1500 * (i >= 25 * longer + 1) for i, column in enumerate(steady)]
    finding = only(gaps(Panning(jump, black=20)))
    assert finding.level == "warning" and f"after frame {25 * longer} " in finding.what


def test_frames_that_are_all_far_apart_are_no_gaps():
    finding = only(gaps(Panning([250 * i for i in range(11)], black=-1)))
    assert "10 of 10 neighbouring frames show little in common" in finding.what


def test_irregular_timestamps_are_hinted_at(folder):
    times = np.cumsum(np.tile([1, 1, 3], 14)[:40]) / 30
    assert only(with_timestamps(folder, times)).level == "hint"


def test_repeated_timestamps_in_a_file_are_the_finding_that_it_cannot_be_opened(folder):
    rows = np.loadtxt(folder / "groundtruth.txt")
    rows[7, 0] = rows[6, 0]
    np.savetxt(folder / "groundtruth.txt", rows, fmt="%.9f")
    finding = only(examine(folder))
    assert finding.level == "error" and re.search(r"groundtruth\.txt:8: timestamp .* does not increase", finding.what)


def test_label_ids_outside_the_set_are_found(folder):
    for path in sorted((folder / "label40").iterdir())[5:]:
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        ids[:5] = 255
        cv2.imwrite(str(path), ids)
    finding = only(examine(folder))
    assert finding.level == "error" and "35 of 40 frames" in finding.what
    assert "label id 255 is outside nyu40" in finding.what


def test_labels_that_are_all_void_are_found(folder):
    for path in (folder / "label40").iterdir():
        cv2.imwrite(str(path), np.zeros((120, 160), np.uint8))
    assert "void everywhere" in only(examine(folder)).what


def test_swapped_red_and_blue_are_hinted_at(folder):
    for path in (folder / "color").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path))[..., ::-1])
    finding = only(examine(folder))
    assert finding.level == "hint" and "BGR" in finding.what


def test_missing_and_damaged_files_are_found(folder):
    (folder / "depth" / "000003.png").unlink()
    path = folder / "color" / "000005.png"
    path.write_bytes(path.read_bytes()[:100])
    missing, damaged = examine(folder)
    assert missing.level == damaged.level == "error"
    assert "1 files are missing or empty" in missing.what and "depth/000003.png" in missing.what
    assert "1 of 40 frames cannot be used" in damaged.what and "truncated" in damaged.what


def test_a_mark_for_missing_depth_is_found(folder):
    for path in (folder / "depth").iterdir():
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depth[:20, :40] = 60000
        cv2.imwrite(str(path), depth)
    assert any("60.000 m, the largest" in finding.what and "write 0" in finding.remedy for finding in examine(folder))


def test_the_usual_mark_for_missing_depth_is_read_as_none(folder):
    marked = folder / "depth" / "000000.png"
    depth = cv2.imread(str(marked), cv2.IMREAD_UNCHANGED)
    depth[:20, :40] = 65535
    cv2.imwrite(str(marked), depth)
    read = open_sequence(folder)[0].depth
    assert (read[:20, :40] == 0).all() and (read[20:] == depth[20:] * np.float32(1e-3)).all()
    depth[30:40, :40] = np.linspace(50000, 65534, 40).astype(np.uint16)  # a scene that reaches as far as 16 bits do
    cv2.imwrite(str(marked), depth)
    read = open_sequence(folder)[0].depth
    assert read[0, 0] == 0 and read[35, 39] == pytest.approx(65.534)
    assert not [finding for finding in examine(folder) if "mark" in finding.what]


def test_empty_depth_is_found(folder):
    for path in (folder / "depth").iterdir():
        cv2.imwrite(str(path), np.zeros((120, 160), np.uint16))
    assert "only 0.0% of the depth pixels" in only(examine(folder)).what


def test_black_images_are_found(folder):
    assert not black_images(open_sequence(folder))
    for path in (folder / "color").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path)) // 64)
    assert any("nearly black" in finding.what for finding in examine(folder))
    assert "nearly black" in only(black_images(open_sequence(folder))).what


def test_a_folder_that_cannot_be_opened_is_a_finding(folder):
    (folder / "camera.yaml").unlink()
    assert "camera.yaml: missing" in only(examine(folder)).what


def test_nothing_there_is_not_a_diagnosis(tmp_path):
    with pytest.raises(FileNotFoundError):
        examine(tmp_path / "nowhere")


def test_a_run_is_warned_of_a_camera_that_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(open_sequence("room:frames=3,width=64,height=48"), tmp_path / "a")
    text = (tmp_path / "a" / "camera.yaml").read_text()
    (tmp_path / "a" / "camera.yaml").write_text(re.sub(r"(?m)^cx: .*", "cx: 80.0", text))
    prepare(RunConfig(sequence=str(tmp_path / "a"), slam=SlamConfig(PerceptionConfig(labels="none"))), tmp_path / "run")
    assert "the principal point (80.0, " in caplog.text


def test_noise_of_a_bare_wall_is_no_gap_and_no_motion():
    class Wall(Panning):
        def __getitem__(self, index: int) -> Frame:
            grey = 120 + np.random.default_rng(index).normal(0, 6, (240, 320, 1)) + np.zeros(3)
            return Frame(index, float(self.timestamps[index]), grey.astype(np.uint8), self.camera)

    assert gaps(Wall([0] * 40, black=-1)) == []
