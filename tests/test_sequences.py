"""Readers: what lies in files comes out in our units, and what is wrong is said in one line."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from semslam.labels import LABEL_SETS
from sequences import READERS, CorruptFrame, open_sequence
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence


@pytest.fixture(scope="module")
def room(six_frames) -> RoomSequence:
    return six_frames


# The plain folder, when all is well


def test_a_written_sequence_reads_back_as_it_was(room, six_in_a_folder):
    sequence = open_sequence(six_in_a_folder)
    assert len(sequence) == len(room) and sequence.camera == room.camera
    assert (sequence.has_depth, sequence.has_labels, sequence.has_poses) == (True, True, True)
    assert sequence.label_set == "nyu40" and sequence.name == "room"
    for ours, theirs in zip(room, sequence):
        assert np.array_equal(ours.color, theirs.color) and np.array_equal(ours.labels, theirs.labels)
        assert np.abs(ours.depth - theirs.depth).max() <= 0.00051
        np.testing.assert_allclose(ours.T_world_camera, theirs.T_world_camera, atol=1e-6)
        assert ours.timestamp == pytest.approx(theirs.timestamp, abs=1e-6)
        assert theirs.depth.dtype == np.float32 and theirs.color.dtype == theirs.labels.dtype == np.uint8


@pytest.mark.parametrize(("farthest", "scale"), [(65.5, 1000), (65.6, 256), (200.0, 256), (300.0, 100)])
def test_depth_of_far_scenes_reads_back_in_the_units_that_hold_all_of_it(tmp_path, farthest, scale):
    class Farther(RoomSequence):
        """The last frame is farther away than the first ones, which are written by then."""

        def __getitem__(self, index):
            frame = super().__getitem__(index)
            return replace(frame, depth=frame.depth * (farthest / frame.depth.max() if index == 2 else 1.0))

    far = Farther(frames=3, width=32, height=24)
    path = write_folder(far, tmp_path / "far")
    assert yaml.safe_load((path / "camera.yaml").read_text())["depth_scale"] == scale
    for ours, theirs in zip(far, open_sequence(path), strict=True):
        assert np.array_equal(ours.depth > 0, theirs.depth > 0)
        # the first frames may have been rounded twice
        assert np.abs(ours.depth - theirs.depth).max() <= 0.501 / scale + (0.0005 if scale < 1000 else 0) + 1e-5


def test_a_frame_is_the_same_in_whatever_order_it_is_read(six_in_a_folder):
    sequence = open_sequence(six_in_a_folder)
    late = sequence[4]
    in_order = list(sequence)[4]
    assert np.array_equal(late.color, in_order.color) and late.index == in_order.index == 4


def test_depth_labels_and_poses_are_optional(folder):
    for part in ("depth", "label40"):
        shutil.rmtree(folder / part)
    (folder / "groundtruth.txt").unlink()
    sequence = open_sequence(folder)
    frame = sequence[2]
    assert frame.depth is None and frame.labels is None and frame.T_world_camera is None
    assert not (sequence.has_depth or sequence.has_labels or sequence.has_poses)
    assert sequence.trajectory is None and frame.timestamp == pytest.approx(2 / 30)


def test_frames_without_a_label_file_are_unlabelled_frames(folder):
    (folder / "label40" / "000003.png").unlink()
    sequence = open_sequence(folder)
    assert sequence[3].labels is None and sequence[4].labels is not None


def test_a_damaged_label_image_is_in_nobodys_way_who_needs_no_labels(folder):
    (folder / "label40" / "000003.png").write_bytes(b"no image")
    sequence = open_sequence(folder)
    with pytest.raises(CorruptFrame, match=r"000003\.png"):
        sequence[3]
    frame = sequence.read_without_labels(3)
    assert frame.labels is None
    np.testing.assert_array_equal(frame.depth, sequence.depth_of(3))


def test_frames_are_in_the_order_of_their_numbers(folder):
    for sub in ("color", "depth", "label40"):
        for i in range(6):
            (folder / sub / f"{i:06d}.png").rename(folder / sub / f"{i * 3}.png")
    sequence = open_sequence(folder)
    assert [path.name for path in sequence.color_paths] == ["0.png", "3.png", "6.png", "9.png", "12.png", "15.png"]


@pytest.mark.parametrize("lost", [" nan" * 7, " 0.1 0.2 0.3 0 0 0 0", " 0" * 7])
def test_a_line_of_nan_or_without_a_rotation_is_a_frame_without_a_pose(folder, lost):
    path = folder / "groundtruth.txt"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].split()[0] + lost
    path.write_text("\n".join(lines) + "\n")
    sequence = open_sequence(folder)
    assert sequence[2].T_world_camera is None and sequence[3].T_world_camera is not None
    assert len(sequence.trajectory) == 5 and sequence[2].timestamp == pytest.approx(2 / 30, abs=1e-6)


def test_frames_without_a_pose_are_written_and_read_back(folder, tmp_path):
    sequence = open_sequence(folder)
    gaps = replace(sequence, poses=tuple(None if i in (0, 3) else T for i, T in enumerate(sequence.poses)))
    again = open_sequence(write_folder(gaps, tmp_path / "again"))
    assert [T is None for T in again.poses] == [True, False, False, True, False, False]
    np.testing.assert_allclose(again.poses[4], sequence.poses[4], atol=1e-8)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("fx", "abc", "fx is 'abc', expected a number"),
        ("width", "abc", "width is 'abc', expected a number"),
        ("distortion", 0.1, "distortion is 0.1; expected a list of numbers"),
        ("distortion", [0.1, "abc", 0, 0], "distortion is 'abc', expected a number"),
        ("T_color_depth", np.eye(4).tolist(), "has T_color_depth, but no depth_camera"),
        ("width", 10**400, "expected a number"),
    ],
)
def test_a_wrong_value_in_camera_yaml_is_told_with_its_key(folder, key, value, expected):
    values = yaml.safe_load((folder / "camera.yaml").read_text())
    (folder / "camera.yaml").write_text(yaml.safe_dump(values | {key: value}))
    with pytest.raises(ValueError) as problem:
        open_sequence(folder)
    assert expected in str(problem.value) and "camera.yaml" in str(problem.value)


def test_distortion_in_camera_yaml_is_removed_from_every_image(folder):
    values = yaml.safe_load((folder / "camera.yaml").read_text())
    (folder / "camera.yaml").write_text(yaml.safe_dump(values | {"distortion": [0.3, -0.5, 0.0, 0.0, 0.0]}))
    sequence, frame = open_sequence(folder), open_sequence(folder)[0]
    assert sequence.camera.distortion is None
    plain = open_sequence(folder, camera=sequence.camera)[0]
    assert not np.array_equal(frame.color, plain.color) and not np.array_equal(frame.labels, plain.labels)
    assert set(np.unique(frame.labels)) <= set(np.unique(plain.labels)) | {255}
    assert np.array_equal(frame.labels == 255, frame.depth == 0), "outside the recorded image there is neither"


def test_settings_given_replace_those_of_the_folder(folder):
    sequence = open_sequence(folder, depth_scale=5000.0)
    np.testing.assert_allclose(sequence[0].depth * 5, open_sequence(folder)[0].depth, rtol=1e-6)
    camera = replace(sequence.camera, fx=100.0)
    assert open_sequence(folder, camera=camera)[0].camera.fx == 100.0


def test_real_recordings_read_as_their_readme_says(shared_data):
    kitchen = open_sequence(shared_data / "redkitchen")
    assert len(kitchen) == 200 and kitchen.camera.fx == 525.96
    assert [i for i in range(9) if kitchen[i].labels is not None] == [0, 4, 8]
    assert 0.5 < np.median(kitchen[0].depth[kitchen[0].depth > 0]) < 4
    living = open_sequence(shared_data / "icl_livingroom1")
    assert len(living) == 211 and living[210].labels is not None and len(living.trajectory) == 211


# The plain folder, where it contradicts itself


def test_a_pose_count_that_disagrees_is_refused(folder):
    """Unless every pose is at the time of a frame, which leaves no doubt of whose it is."""
    path = folder / "groundtruth.txt"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"1{line}\n" for line in lines[:-2]))  # on another clock
    with pytest.raises(ValueError, match=r"groundtruth\.txt: 4 pose lines, but 6 frames"):
        open_sequence(folder)
    every = open_sequence_with(path, lines)
    rare = open_sequence_with(path, [lines[0], lines[3]])
    for i in (0, 3):
        np.testing.assert_allclose(rare.poses[i], every.poses[i], atol=1e-6)
    assert rare.poses[5] is None


def open_sequence_with(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return open_sequence(path.parent)


@pytest.mark.parametrize("lost", [" nan" * 7, " 0" * 7])
def test_poses_that_are_mostly_missing_are_refused_with_file_and_line(folder, lost):
    path = folder / "groundtruth.txt"
    lines = [line.split()[0] + lost if i > 0 else line for i, line in enumerate(path.read_text().splitlines())]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"groundtruth\.txt:2: no pose \(.*\) in this and 4 more of 6 lines"):
        open_sequence(folder)


def test_a_pose_line_with_words_or_columns_missing_is_named(folder):
    path = folder / "groundtruth.txt"
    good = path.read_text().splitlines()
    path.write_text("\n".join([*good[:3], "0.1 0 0 zero 0 0 0 1", *good[4:]]))
    with pytest.raises(ValueError, match=r"groundtruth\.txt:4"):
        open_sequence(folder)
    path.write_text("\n".join([*good[:3], "0.1 0 0 0 1", *good[4:]]))
    with pytest.raises(ValueError, match=r"groundtruth\.txt:4: 5 columns"):
        open_sequence(folder)


def test_an_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"empty; a plain sequence holds color/"):
        open_sequence(tmp_path)


def test_a_folder_without_colour_images_says_so(folder):
    shutil.rmtree(folder / "color")
    with pytest.raises(ValueError, match="color/ holds no images"):
        open_sequence(folder)


def test_an_option_that_a_kind_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="kind nyu-raw fixes its own depth_scale"):
        open_sequence(tmp_path, "nyu-raw", depth_scale=1000.0)
    with pytest.raises(ValueError, match="the room has no depth_scale"):
        open_sequence("room", depth_scale=1000.0)


def test_nothing_at_a_path_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such sequence"):
        open_sequence(tmp_path / "nowhere")


def test_a_folder_of_other_things_names_the_known_kinds(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="fits no known kind"):
        open_sequence(tmp_path)
    with pytest.raises(ValueError, match="unknown kind of sequence 'hologram'; known are room"):
        open_sequence(tmp_path, kind="hologram")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace("fx:", "f:"), "lacks fx"),
        (lambda text: text + "color_scale: 3\n", "unknown color_scale; known are width"),
        (lambda text: re.sub("fy: .*", "fy: -480", text), "focal lengths must be positive"),
        (lambda text: re.sub("fx: .*", "fx: wide", text), "wide"),
        (lambda text: re.sub("depth_scale: .*", "depth_scale: 0", text), "depth_scale 0.0"),
        (lambda text: "a: [b", "is not YAML"),
    ],
)
def test_a_camera_file_that_is_wrong_says_what_is(folder, spoil, message):
    path = folder / "camera.yaml"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ValueError, match=rf"camera\.yaml: .*{message}"):
        open_sequence(folder)


def test_a_folder_without_a_camera_file_says_what_to_write(folder):
    (folder / "camera.yaml").unlink()
    with pytest.raises(ValueError, match=r"camera\.yaml: missing; write width"):
        open_sequence(folder)


def test_one_frame_in_two_formats_is_refused(folder):
    shutil.copy(folder / "color" / "000001.png", folder / "color" / "000001.jpg")
    with pytest.raises(ValueError, match="are one frame"):
        open_sequence(folder)


def test_asking_beyond_the_end_is_an_index_error(six_in_a_folder):
    for index in (6, -1):
        with pytest.raises(IndexError, match=r"frames 0\.\.5"):
            open_sequence(six_in_a_folder)[index]


def test_every_reader_says_what_it_reads():
    assert all(reader.layout and callable(reader.open) and callable(reader.fits) for reader in READERS.values())


def test_labels_of_the_room_are_nyu40(room):
    assert room[0].labels[room[0].labels != 255].max() < len(LABEL_SETS["nyu40"])


def test_a_key_that_camera_yaml_has_twice_is_named(tmp_path):
    write_folder(RoomSequence(frames=2, width=32, height=24), tmp_path)
    with (tmp_path / "camera.yaml").open("a") as file:
        file.write("fx: 100.0\n")
    with pytest.raises(ValueError, match=r"is not YAML \(fx is there twice; leave one of them out\)"):
        open_sequence(tmp_path)
