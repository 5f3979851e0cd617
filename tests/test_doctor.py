"""The doctor finds each planted fault, names its remedy, and is silent about recordings that are sound."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation
from spoilt_recordings import change_poses
from variants import one_fast

from semslam.camera import Camera
from semslam.doctor.colors import black_images
from semslam.doctor.depth.readings import implausible_depth
from semslam.doctor.doctor import diagnose, examine
from semslam.doctor.finding import Finding
from semslam.doctor.order.copies import copies
from semslam.doctor.order.gaps import gaps
from semslam.doctor.poses.convention import as_convention
from semslam.frame import Frame
from semslam.poses import inverse
from sequences import Sequence, open_sequence
from sequences.recordings.folder import write_folder
from sequences.room.kinect_noise import kinect_noise
from sequences.room.room import RoomSequence


def change_camera(folder: Path, **values: float) -> None:
    recorded = yaml.safe_load((folder / "camera.yaml").read_text())
    (folder / "camera.yaml").write_text(yaml.safe_dump(recorded | values))


def write_times(folder: Path, times: np.ndarray) -> None:
    rows = np.loadtxt(folder / "groundtruth.txt")
    rows[:, 0] = times
    np.savetxt(folder / "groundtruth.txt", rows, fmt="%.9f")


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_sound_recording_has_no_findings(forty_in_a_folder):
    assert examine(forty_in_a_folder) == []


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
def test_depth_a_thousand_times_off_is_found(long_folder, depth_scale, advice):
    change_camera(long_folder, depth_scale=depth_scale)
    finding = only(examine(long_folder))
    assert finding.level == "error" and "median depth" in finding.what and advice in finding.remedy
    assert implausible_depth(open_sequence(long_folder)).what.startswith("the median depth is")


def test_plausible_depth_is_no_reason_to_stop(forty_in_a_folder):
    assert implausible_depth(open_sequence(forty_in_a_folder)) is None


def test_depth_five_times_off_is_found_by_the_poses(long_folder):
    change_camera(long_folder, depth_scale=5000.0)
    finding = only(examine(long_folder))
    assert finding.level == "error" and "depth is 5 times" in finding.what and "5 times smaller" in finding.remedy


def test_intrinsics_of_another_image_size_are_found(long_folder):
    recorded = open_sequence(long_folder).camera
    change_camera(long_folder, **{key: 2 * getattr(recorded, key) for key in ("fx", "fy", "cx", "cy")})
    finding = examine(long_folder)[0]
    assert finding.level == "error" and "principal point (159.0, 119.0)" in finding.what
    assert "another image size" in finding.remedy


def test_a_focal_length_of_another_camera_is_found(long_folder):
    recorded = open_sequence(long_folder).camera
    change_camera(long_folder, fx=recorded.fx * 1.4, fy=recorded.fy * 1.4)
    finding = only(examine(long_folder))
    assert finding.level == "error" and "focal length about 0.7 times" in finding.what


def test_an_absurd_focal_length_is_found_without_poses(long_folder):
    (long_folder / "groundtruth.txt").unlink()
    change_camera(long_folder, fx=3.0, fy=3.0)
    assert "degrees wide" in only(examine(long_folder)).what


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    one_fast(
        (inverse, "T_camera_world", "invert each pose"),
        (lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0]), "OpenGL", "diag"),
        (lambda T: np.block([[T[:3, :3], 1000 * T[:3, 3:]], [T[3:]]]), "0.001 times as long", "metres"),
        (lambda T: np.diag([1, -1, 1, 1]) @ T @ np.diag([1, -1, 1, 1]), "left-handed", "diag(1, -1, 1, 1)"),
    ),
    ids=["inverted", "opengl", "millimetres", "left-handed"],
)
def test_poses_in_another_convention_are_found(long_folder, change, what, remedy):
    change_poses(long_folder, change)
    finding = only(examine(long_folder))
    assert finding.level == "error" and what in finding.what and remedy in finding.remedy


@pytest.mark.slow
def test_quaternions_with_w_first_are_found(long_folder):
    rows = np.loadtxt(long_folder / "groundtruth.txt")
    np.savetxt(long_folder / "groundtruth.txt", rows[:, [0, 1, 2, 3, 7, 4, 5, 6]], fmt="%.9f")
    assert "qw first" in only(examine(long_folder)).what


@pytest.mark.slow
def test_poses_of_another_recording_are_called_unfitting(long_folder):
    rng = np.random.default_rng(0)

    def elsewhere(T: np.ndarray) -> np.ndarray:
        moved = T.copy()
        moved[:3, :3] = Rotation.random(rng=rng).as_matrix()
        return moved

    change_poses(long_folder, elsewhere)
    finding = only(examine(long_folder))
    assert finding.level == "warning" and "--poses tracked" in finding.remedy


def with_timestamps(folder: Path, timestamps: np.ndarray) -> list[Finding]:
    return diagnose(replace(open_sequence(folder), timestamps=timestamps))


def test_timestamps_that_go_backwards_or_stand_still_are_found(long_folder):
    times = np.arange(40) / 30
    times[[10, 11]] = times[[11, 10]]
    finding = only(with_timestamps(long_folder, times))
    assert finding.level == "error" and "backwards 1 times, first at frame 11" in finding.what
    times = np.arange(40) / 30
    times[20] = times[19]
    assert (
        "1 frames have the timestamp of the frame before, first frame 20"
        in only(with_timestamps(long_folder, times)).what
    )


def test_timestamps_in_milliseconds_are_found(long_folder):
    finding = only(with_timestamps(long_folder, np.arange(40) * 33.3))
    assert finding.level == "error" and "milliseconds" in finding.what and "in seconds" in finding.remedy


@pytest.mark.parametrize("unit", [1e3, 1e6, 1e9])
def test_times_of_a_camera_in_other_units_are_read_in_them(long_folder, unit, caplog):
    write_times(long_folder, np.arange(40) / 30 * unit)
    np.testing.assert_allclose(open_sequence(long_folder).timestamps, np.arange(40) / 30, atol=1e-6)
    assert "its times count" in caplog.text and "seconds, and are read so" in caplog.text


@pytest.mark.parametrize("step", [5, 30, 600])
def test_a_time_lapse_is_not_taken_for_milliseconds(long_folder, step):
    write_times(long_folder, np.arange(40) * step)
    np.testing.assert_allclose(open_sequence(long_folder).timestamps, np.arange(40) * step)


def test_whole_milliseconds_are_told_by_their_uneven_steps(long_folder):
    write_times(long_folder, np.rint(np.arange(40) / 30 * 1e3))
    np.testing.assert_allclose(open_sequence(long_folder).timestamps, np.arange(40) / 30, atol=1e-3)


def test_photographs_half_a_minute_apart_keep_their_times(long_folder):
    times = np.cumsum(np.random.default_rng(0).uniform(10, 50, 40))
    write_times(long_folder, times)
    np.testing.assert_allclose(open_sequence(long_folder).timestamps, times, atol=1e-6)


def test_words_of_a_convention_that_are_none_are_named():
    with pytest.raises(ValueError, match="unknown 'upside-down', expected as-recorded, or some of qw-first, milli"):
        as_convention([np.eye(4)], "inverted,upside-down")
    with pytest.raises(ValueError, match="two units"):
        as_convention([np.eye(4)], "millimetres,centimetres")


def test_a_gap_in_time_is_found(long_folder):
    times = np.arange(40) / 30 + 2.0 * (np.arange(40) > 24)
    finding = only(with_timestamps(long_folder, times))
    assert finding.level == "warning" and "2.03 s, after frame 24" in finding.what


def test_a_gap_in_the_numbers_of_images_is_found(long_folder):
    """Times that are counted from the frames do not show it."""
    for kind in ("color", "depth"):
        for path in sorted((long_folder / kind).iterdir())[12:30]:
            path.unlink()
    (long_folder / "groundtruth.txt").unlink()
    shutil.rmtree(long_folder / "label40", ignore_errors=True)
    finding = only(examine(long_folder))
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
    odd_last = steady[:-1] + [steady[-1] + 1500]
    assert gaps(Panning(odd_last, black=20)) == gaps(Panning([1500, *steady], black=20)) == []
    jump = [column + 1500 * (i >= 25 * longer + 1) for i, column in enumerate(steady)]
    finding = only(gaps(Panning(jump, black=20)))
    assert finding.level == "warning" and f"after frame {25 * longer} " in finding.what


APPENDED, SLOWED = [*range(20), *range(20)], [i // 2 for i in range(40)]


@pytest.mark.parametrize(("order", "levels"), [(APPENDED, ["warning"]), (SLOWED, ["hint"]), (range(20), [])])
def test_images_that_are_recorded_again_are_told(tmp_path, order, levels):
    room = RoomSequence(frames=20, width=96, height=72)
    write_folder(room, tmp_path)
    for name in ("color", "depth"):
        files = sorted((tmp_path / name).iterdir())
        images = [file.read_bytes() for file in files]
        for place, i in enumerate(order):
            (files[0].parent / f"{place:06d}{files[0].suffix}").write_bytes(images[i])
    (tmp_path / "groundtruth.txt").unlink()
    shutil.rmtree(tmp_path / "label40", ignore_errors=True)
    assert [finding.level for finding in copies(open_sequence(tmp_path))] == levels


def test_frames_that_are_all_far_apart_are_no_gaps():
    finding = only(gaps(Panning([250 * i for i in range(11)], black=-1)))
    assert "10 of 10 neighbouring frames show little in common" in finding.what


def test_irregular_timestamps_are_hinted_at(long_folder):
    times = np.cumsum(np.tile([1, 1, 3], 14)[:40]) / 30
    assert only(with_timestamps(long_folder, times)).level == "hint"


def test_repeated_timestamps_in_a_file_are_the_finding_that_it_cannot_be_opened(long_folder):
    rows = np.loadtxt(long_folder / "groundtruth.txt")
    rows[7, 0] = rows[6, 0]
    np.savetxt(long_folder / "groundtruth.txt", rows, fmt="%.9f")
    finding = only(examine(long_folder))
    assert finding.level == "error" and re.search(r"groundtruth\.txt:8: timestamp .* does not increase", finding.what)


def test_label_ids_outside_the_set_are_found(long_folder):
    for path in sorted((long_folder / "label40").iterdir())[5:]:
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        ids[:5] = 255
        cv2.imwrite(str(path), ids)
    finding = only(examine(long_folder))
    assert finding.level == "error" and "35 of 40 frames" in finding.what
    assert "label id 255 is outside nyu40" in finding.what


def test_labels_that_are_all_void_are_found(long_folder):
    for path in (long_folder / "label40").iterdir():
        cv2.imwrite(str(path), np.zeros((120, 160), np.uint8))
    assert "void everywhere" in only(examine(long_folder)).what


def test_swapped_red_and_blue_are_hinted_at(long_folder):
    for path in (long_folder / "color").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path))[..., ::-1])
    finding = only(examine(long_folder))
    assert finding.level == "hint" and "BGR" in finding.what


def test_missing_and_damaged_files_are_found(long_folder):
    (long_folder / "depth" / "000003.png").unlink()
    path = long_folder / "color" / "000005.png"
    path.write_bytes(path.read_bytes()[:100])
    missing, damaged = examine(long_folder)
    assert missing.level == damaged.level == "error"
    assert "1 files are missing or empty" in missing.what and "depth/000003.png" in missing.what
    assert "1 of 40 frames cannot be used" in damaged.what and "truncated" in damaged.what


def test_a_mark_for_missing_depth_is_found(long_folder):
    for path in (long_folder / "depth").iterdir():
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depth[:20, :40] = 60000
        cv2.imwrite(str(path), depth)
    assert any(
        "60.000 m, the largest" in finding.what and "write 0" in finding.remedy for finding in examine(long_folder)
    )


def test_the_usual_mark_for_missing_depth_is_read_as_none(long_folder):
    marked = long_folder / "depth" / "000000.png"
    depth = cv2.imread(str(marked), cv2.IMREAD_UNCHANGED)
    depth[:20, :40] = 65535
    cv2.imwrite(str(marked), depth)
    read = open_sequence(long_folder)[0].depth
    assert (read[:20, :40] == 0).all() and (read[20:] == depth[20:] * np.float32(1e-3)).all()
    depth[30:40, :40] = np.linspace(50000, 65534, 40).astype(np.uint16)  # a scene that reaches as far as 16 bits do
    cv2.imwrite(str(marked), depth)
    read = open_sequence(long_folder)[0].depth
    assert read[0, 0] == 0 and read[35, 39] == pytest.approx(65.534)
    assert not [finding for finding in examine(long_folder) if "mark" in finding.what]


def test_empty_depth_is_found(long_folder):
    for path in (long_folder / "depth").iterdir():
        cv2.imwrite(str(path), np.zeros((120, 160), np.uint16))
    assert "only 0.0% of the depth pixels" in only(examine(long_folder)).what


def test_black_images_are_found(long_folder):
    assert not black_images(open_sequence(long_folder))
    for path in (long_folder / "color").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path)) // 64)
    assert any("nearly black" in finding.what for finding in examine(long_folder))
    assert "nearly black" in only(black_images(open_sequence(long_folder))).what


def test_a_folder_that_cannot_be_opened_is_a_finding(long_folder):
    (long_folder / "camera.yaml").unlink()
    assert "camera.yaml: missing" in only(examine(long_folder)).what


def test_nothing_there_is_not_a_diagnosis(tmp_path):
    with pytest.raises(FileNotFoundError):
        examine(tmp_path / "nowhere")


def test_noise_of_a_bare_wall_is_no_gap_and_no_motion():
    class Wall(Panning):
        def __getitem__(self, index: int) -> Frame:
            grey = 120 + np.random.default_rng(index).normal(0, 6, (240, 320, 1)) + np.zeros(3)
            return Frame(index, float(self.timestamps[index]), grey.astype(np.uint8), self.camera)

    assert gaps(Wall([0] * 40, black=-1)) == []
