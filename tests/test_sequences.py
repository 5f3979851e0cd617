"""Readers: what lies in files comes out in our units, and what is wrong is said in one line."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from semslam.labels import LABEL_SETS
from sequences import READERS, CorruptFrame, open_sequence
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence


@pytest.fixture(scope="module")
def room() -> RoomSequence:
    return RoomSequence(frames=6, width=80, height=60)


@pytest.fixture(scope="module")
def original(room, tmp_path_factory) -> Path:
    return write_folder(room, tmp_path_factory.mktemp("written") / "room")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A plain folder of six frames, for tests to spoil."""
    return Path(shutil.copytree(original, tmp_path / "seq"))


def frames_read(path: Path) -> tuple[list[int], list[str]]:
    """As a caller does that counts and skips: (indices read, messages of the others)."""
    sequence, read, problems = open_sequence(path), [], []
    for i in range(len(sequence)):
        try:
            read.append(sequence[i].index)
        except CorruptFrame as problem:
            problems.append(str(problem))
    return read, problems


# The plain folder, when all is well


def test_a_written_sequence_reads_back_as_it_was(room, original):
    sequence = open_sequence(original)
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


def test_a_frame_is_the_same_in_whatever_order_it_is_read(original):
    sequence = open_sequence(original)
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
    frame = sequence.unlabelled(3)
    assert frame.labels is None
    np.testing.assert_array_equal(frame.depth, sequence.depth_of(3))


def test_frames_are_in_the_order_of_their_numbers(folder):
    for sub in ("color", "depth", "label40"):
        for i in range(6):
            (folder / sub / f"{i:06d}.png").rename(folder / sub / f"{i * 3}.png")
    sequence = open_sequence(folder)
    assert [path.name for path in sequence.color_paths] == ["0.png", "3.png", "6.png", "9.png", "12.png", "15.png"]


def test_a_nan_line_is_a_frame_without_a_pose(folder):
    path = folder / "groundtruth.txt"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].split()[0] + " nan" * 7
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


# The plain folder, spoilt


@pytest.mark.parametrize("sub", ["color", "depth"])
def test_a_missing_file_is_one_corrupt_frame_that_names_it(folder, sub):
    (folder / sub / "000002.png").unlink()
    read, problems = frames_read(folder)
    assert read == [0, 1, 3, 4, 5] and len(problems) == 1
    assert f"{sub}/000002.png: the file is missing" in problems[0]


@pytest.mark.parametrize("sub", ["color", "depth", "label40"])
@pytest.mark.parametrize("bytes_left", [0, 20, 0.5])
def test_a_truncated_file_is_one_corrupt_frame_that_names_it(folder, sub, bytes_left):
    path = folder / sub / "000000.png"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * bytes_left) if bytes_left < 1 else bytes_left])
    read, problems = frames_read(folder)
    assert read == [1, 2, 3, 4, 5] and len(problems) == 1
    assert f"{sub}/000000.png: the file is" in problems[0] and "\n" not in problems[0]


def test_half_a_jpeg_is_corrupt_and_not_half_grey(folder):
    color = cv2.imread(str(folder / "color" / "000001.png"))
    (folder / "color" / "000001.png").unlink()
    data = cv2.imencode(".jpg", color)[1].tobytes()
    (folder / "color" / "000001.jpg").write_bytes(data[: len(data) // 2])
    read, problems = frames_read(folder)
    assert 1 not in read and "truncated" in problems[0]


def test_what_a_camera_appends_to_a_jpeg_is_no_damage(folder):
    color = cv2.imread(str(folder / "color" / "000001.png"))
    (folder / "color" / "000001.png").unlink()
    data = cv2.imencode(".jpg", color)[1].tobytes()
    (folder / "color" / "000001.jpg").write_bytes(data + bytes(len(data) // 2))
    read, problems = frames_read(folder)
    assert 1 in read and not problems


def test_a_damaged_image_is_one_corrupt_frame(folder):
    path = folder / "depth" / "000001.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    read, problems = frames_read(folder)
    assert 1 not in read and "damaged" in problems[0]


def test_one_frame_of_another_size_is_corrupt(folder):
    cv2.imwrite(str(folder / "depth" / "000003.png"), np.ones((30, 40), np.uint16))
    read, problems = frames_read(folder)
    assert 3 not in read and "depth is 40x30, the camera's is 80x60" in problems[0]


def test_a_camera_of_another_size_is_refused_at_once(folder):
    text = (folder / "camera.yaml").read_text().replace("width: 80", "width: 160")
    (folder / "camera.yaml").write_text(text)
    with pytest.raises(ValueError, match="image is 80x60, the camera's is 160x60"):
        open_sequence(folder)


def test_depth_of_another_aspect_is_refused_at_once(folder):
    for path in (folder / "depth").iterdir():
        cv2.imwrite(str(path), np.ones((30, 60), np.uint16))
    with pytest.raises(ValueError, match=r"000000\.png: depth is 60x30.*write depth_camera and T_color_depth"):
        open_sequence(folder)


@pytest.mark.parametrize("distortion", [None, [0.05, -0.02, 0.0, 0.0, 0.0]])
def test_depth_of_the_same_view_in_another_size_is_resized(folder, distortion):
    if distortion:
        values = yaml.safe_load((folder / "camera.yaml").read_text())
        (folder / "camera.yaml").write_text(yaml.safe_dump(values | {"distortion": distortion}))
    whole = [frame.depth for frame in open_sequence(folder)]
    for path in (folder / "depth").iterdir():
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.repeat(np.repeat(depth, 2, axis=0), 2, axis=1))
    for frame, depth in zip(open_sequence(folder), whole):
        both = (frame.depth > 0) & (depth > 0)
        assert frame.depth.shape == depth.shape and both.mean() > 0.9 * (depth > 0).mean()
        assert np.median(np.abs(frame.depth - depth)[both]) < 0.005


def test_depth_along_the_ray_is_said_in_the_camera_file(folder):
    whole, camera = [frame.depth for frame in open_sequence(folder)], open_sequence(folder).camera
    for i, path in enumerate(sorted((folder / "depth").iterdir())):
        path.unlink()
        np.save(path.with_suffix(".npy"), np.linalg.norm(camera.backproject(whole[i]), axis=2))
    values = yaml.safe_load((folder / "camera.yaml").read_text())
    (folder / "camera.yaml").write_text(yaml.safe_dump(values | {"depth_along_ray": True}))
    for frame, depth in zip(open_sequence(folder), whole):
        np.testing.assert_allclose(frame.depth, depth, atol=1e-5)
    (folder / "camera.yaml").write_text(yaml.safe_dump(values | {"depth_along_ray": "maybe"}))
    with pytest.raises(ValueError, match=r"camera\.yaml: depth_along_ray is 'maybe', expected true or false"):
        open_sequence(folder)


def test_depth_in_float_files_holds_metres(folder):
    whole = [frame.depth for frame in open_sequence(folder)]
    for i, path in enumerate(sorted((folder / "depth").iterdir())):
        path.unlink()
        metres = np.where(whole[i] > 0, whole[i], np.float32(np.nan))
        np.save(path.with_suffix(".npy"), metres) if i % 2 else cv2.imwrite(str(path.with_suffix(".tiff")), metres)
    for frame, depth in zip(open_sequence(folder), whole):
        assert np.array_equal(frame.depth, depth)


def test_depth_of_another_type_is_refused_at_once(folder):
    for path in (folder / "depth").iterdir():
        cv2.imwrite(str(path), np.ones((60, 80), np.uint8))
    with pytest.raises(ValueError, match="depth is uint8 with 1 channel, expected uint16"):
        open_sequence(folder)
    for path in (folder / "depth").iterdir():
        cv2.imwrite(str(path), np.ones((60, 80, 3), np.uint16))
    with pytest.raises(ValueError, match="depth is uint16 with 3 channels"):
        open_sequence(folder)


def test_an_image_that_is_no_image_is_corrupt(folder):
    (folder / "color" / "000000.png").write_text("not an image")
    assert "is no image or is damaged" in frames_read(folder)[1][0]


def test_a_label_id_outside_the_set_is_corrupt_and_named(folder):
    labels = np.full((60, 80), 77, np.uint8)
    cv2.imwrite(str(folder / "label40" / "000002.png"), labels)
    read, problems = frames_read(folder)
    assert 2 not in read and "label id 77 is outside nyu40" in problems[0]


def test_labels_that_are_all_outside_the_set_are_refused_at_once(folder):
    for path in (folder / "label40").iterdir():
        cv2.imwrite(str(path), np.full((60, 80), 200, np.uint8))
    with pytest.raises(ValueError, match=r"label40/000000\.png: label id 200"):
        open_sequence(folder)


def test_a_pose_count_that_disagrees_is_refused(folder):
    path = folder / "groundtruth.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(ValueError, match=r"groundtruth\.txt: 4 pose lines, but 6 frames"):
        open_sequence(folder)


def test_poses_that_are_mostly_nan_are_refused_with_file_and_line(folder):
    path = folder / "groundtruth.txt"
    lines = [line.split()[0] + " nan" * 7 if i > 0 else line for i, line in enumerate(path.read_text().splitlines())]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"groundtruth\.txt:2: NaN in this and 4 more of 6 pose lines"):
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


def test_asking_beyond_the_end_is_an_index_error(original):
    for index in (6, -1):
        with pytest.raises(IndexError, match=r"frames 0\.\.5"):
            open_sequence(original)[index]


def test_every_reader_says_what_it_reads():
    assert all(reader.layout and callable(reader.open) and callable(reader.fits) for reader in READERS.values())


def test_labels_of_the_room_are_nyu40(room):
    assert room[0].labels[room[0].labels != 255].max() < len(LABEL_SETS["nyu40"])


# Other people's layouts, made from the room so that the truth is known


def as_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def depth_units(frame, scale: float) -> np.ndarray:
    return np.rint(frame.depth * scale).astype(np.uint16)


@pytest.fixture(scope="module")
def big_room() -> list:
    """Four frames of the size that the data sets' cameras have."""
    return list(RoomSequence(frames=4))


def test_tum_frames_are_pairs_with_interpolated_poses(big_room, tmp_path):
    path = tmp_path / "rgbd_dataset_freiburg3_room"
    times, depth_lag = [100.0, 100.033, 100.066, 100.1], [0.004, -0.003, 0.03, 0.001]
    for frame, t, lag in zip(big_room, times, depth_lag):
        as_png(path / "rgb" / f"{t:.6f}.png", frame.color)
        as_png(path / "depth" / f"{t + lag:.6f}.png", depth_units(frame, 5000))
    (path / "rgb.txt").write_text("# color\n" + "".join(f"{t:.6f} rgb/{t:.6f}.png\n" for t in times))
    lagged = [t + lag for t, lag in zip(times, depth_lag)]
    (path / "depth.txt").write_text("".join(f"{t:.6f} depth/{t:.6f}.png\n" for t in sorted(lagged)))
    poses = "".join(f"{100 + 0.01 * i:.4f} {0.1 * i:.3f} 0 0 0 0 0 1\n" for i in range(9))
    (path / "groundtruth.txt").write_text("# truth\n#\n#\n" + poses)
    sequence = open_sequence(path)
    assert [frame.timestamp for frame in sequence] == [100.0, 100.033, 100.1], "a pair 0.03 s apart is no pair"
    assert sequence.camera.fx == 535.4 and not sequence.has_labels
    np.testing.assert_allclose(sequence[1].T_world_camera[:3, 3], [0.33, 0, 0], atol=1e-6)
    assert sequence[2].T_world_camera is None, "after the end of the motion capture there is no pose"
    assert np.abs(sequence[0].depth - big_room[0].depth).max() < 2e-4
    assert np.array_equal(sequence[0].color, big_room[0].color)


def test_tum_cameras_follow_the_name_and_are_undistorted(big_room, tmp_path, caplog):
    for name, focal in (("rgbd_dataset_freiburg1_desk", 517.306408), ("fr2_xyz", 520.90862), ("kinect", 525.0)):
        path = tmp_path / name
        as_png(path / "rgb" / "0.png", big_room[0].color)
        as_png(path / "depth" / "0.png", depth_units(big_room[0], 5000))
        (path / "rgb.txt").write_text("0.0 rgb/0.png\n")
        (path / "depth.txt").write_text("0.0 depth/0.png\n")
        caplog.clear()
        sequence = open_sequence(path)
        assert sequence.camera.fx == focal and sequence.camera.distortion is None and not sequence.has_poses
        assert ("ROS" in caplog.text) == (name == "kinect")
        assert np.array_equal(sequence[0].color, big_room[0].color) == (name == "kinect")


def test_tum_lists_that_never_meet_are_refused(big_room, tmp_path):
    as_png(tmp_path / "rgb" / "0.png", big_room[0].color)
    (tmp_path / "rgb.txt").write_text("0.0 rgb/0.png\n")
    (tmp_path / "depth.txt").write_text("5.0 depth/0.png\n")
    with pytest.raises(ValueError, match=r"within 0\.02 s; the clocks start at 0\.000 and 5\.000"):
        open_sequence(tmp_path)
    (tmp_path / "depth.txt").write_text("five depth/0.png\n")
    with pytest.raises(ValueError, match=r"depth\.txt:1"):
        open_sequence(tmp_path)


@pytest.fixture(scope="module")
def icl(big_room, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("icl") / "living_room_traj0_frei_png"
    for i, frame in enumerate(big_room):
        as_png(path / "rgb" / f"{i}.png", frame.color)
        as_png(path / "depth" / f"{i}.png", depth_units(frame, 5000))
    (path / "associations.txt").write_text("".join(f"{i} depth/{i}.png {i} rgb/{i}.png\n" for i in range(4)))
    return path


def test_icl_poses_are_ours_again_after_the_mirroring(big_room, icl, tmp_path):
    from scipy.spatial.transform import Rotation

    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    theirs = [mirror @ frame.T_world_camera @ mirror for frame in big_room]
    sim = Path(shutil.copytree(icl, tmp_path / "sim"))
    (sim / "livingRoom0n.gt.sim").write_text(
        "\n".join("".join(" ".join(f"{x:.9f}" for x in row) + "\n" for row in T[:3]) for T in theirs)
    )
    for i, frame in enumerate(open_sequence(sim)):
        np.testing.assert_allclose(frame.T_world_camera, big_room[i].T_world_camera, atol=1e-6)
        assert np.abs(frame.depth - big_room[i].depth).max() < 2e-4
    freiburg = Path(shutil.copytree(icl, tmp_path / "freiburg"))
    (freiburg / "livingRoom0.gt.freiburg").write_text(
        "".join(
            f"{i} " + " ".join(f"{x:.9f}" for x in (*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat())) + "\n"
            for i, T in enumerate(theirs)
            if i > 0
        )
    )
    sequence = open_sequence(freiburg)
    assert sequence[0].T_world_camera is None
    for i in (1, 2, 3):
        np.testing.assert_allclose(sequence[i].T_world_camera, big_room[i].T_world_camera, atol=1e-6)
    assert sequence.camera.fy == 480.0 and not open_sequence(icl).has_poses


def test_a_list_of_png_pairs_is_read_from_its_own_folder(big_room, tmp_path):
    lines = []
    for i, frame in enumerate(big_room):
        as_png(tmp_path / "data" / f"{i}depth.png", depth_units(frame, 1000))
        as_png(tmp_path / "data" / f"{i}rgb.png", frame.color)
        lines.append(f"{i * 33} data/{i}depth.png data/{i}rgb.png d{i}.pgm r{i}.ppm\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    sequence = open_sequence(tmp_path / "list.txt")
    assert len(sequence) == 4 and sequence.camera.fx == 528.0 and sequence[3].timestamp == pytest.approx(0.099)
    assert np.abs(sequence[1].depth - big_room[1].depth).max() < 6e-4 and not sequence.has_poses


def test_open3d_folder_has_the_poses_of_its_log(shared_data):
    sequence = open_sequence(shared_data / "samples" / "open3d")
    assert len(sequence) == 5 and sequence.camera.cx == 319.5
    first = (shared_data / "samples" / "open3d" / "trajectory.log").read_text().splitlines()[1:4]
    np.testing.assert_allclose(
        sequence[0].T_world_camera[:3], [list(map(float, row.split())) for row in first], atol=1e-4
    )
    assert 1 < np.median(sequence[0].depth) < 3


def test_open3d_intrinsics_are_read_column_by_column(big_room, tmp_path):
    for i, frame in enumerate(big_room):
        as_png(tmp_path / "image" / f"{i}.png", frame.color)
        as_png(tmp_path / "depth" / f"{i}.png", depth_units(frame, 1000))
    (tmp_path / "camera_intrinsic.json").write_text(
        '{"width": 640, "height": 480, "intrinsic_matrix": [500, 0, 0, 0, 501, 0, 320, 240, 1]}'
    )
    (tmp_path / "x.log").write_text("0 0 1\n1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n")
    sequence = open_sequence(tmp_path)
    camera = sequence.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 501, 320, 240)
    assert sequence[0].T_world_camera[:3, 3].tolist() == [2, 3, 4] and sequence[1].T_world_camera is None
    (tmp_path / "depth" / "3.png").unlink()
    with pytest.raises(ValueError, match="4 files in image/ and 3 in depth/"):
        open_sequence(tmp_path)


def test_seven_scenes_opens_a_sequence_and_a_scene(shared_data):
    scene = shared_data / "samples" / "7scenes_stairs"
    one, all_of_it = open_sequence(scene / "seq-01"), open_sequence(scene)
    assert len(one) == 3 and len(all_of_it) == 6 and one.camera.fx == 525.0
    published = np.loadtxt(scene / "seq-01" / "frame-000001.pose.txt")
    np.testing.assert_allclose(one[1].T_world_camera, published, atol=1e-3)
    assert (np.diff(all_of_it.timestamps) > 0).all()
    train, test = (open_sequence(scene, split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 6 and len(train) > 0
    with pytest.raises(ValueError, match="split is 'train' or 'test'"):
        open_sequence(scene, split="val")


def test_seven_scenes_depth_is_registered_and_65535_is_none(shared_data, tmp_path):
    from sequences.recordings.seven_scenes import DEPTH_CAMERA, T_COLOR_DEPTH

    path = Path(shutil.copytree(shared_data / "samples" / "7scenes_stairs" / "seq-01", tmp_path / "seq-01"))
    path.chmod(0o755)
    (path / "frame-000000.depth.png").chmod(0o644)
    raw = cv2.imread(str(path / "frame-000000.depth.png"), cv2.IMREAD_UNCHANGED)
    raw[100:110, 200:300] = 65535
    as_png(path / "frame-000000.depth.png", raw)
    as_recorded = open_sequence(path, registered=True)[0].depth
    assert as_recorded.max() < 20
    assert np.array_equal(as_recorded == 0, (raw == 65535) | (raw == 0))
    camera, registered = open_sequence(path).camera, open_sequence(path)[0].depth
    # The obvious loop, on some pixels: each reading is at its place unless something nearer covers it.
    for v, u in np.random.default_rng(0).integers(0, (480, 640), (300, 2)):
        if as_recorded[v, u] == 0:
            continue
        z = float(as_recorded[v, u])
        point = [(u - DEPTH_CAMERA.cx) / DEPTH_CAMERA.fx * z, (v - DEPTH_CAMERA.cy) / DEPTH_CAMERA.fy * z, z, 1]
        moved = T_COLOR_DEPTH @ point
        place = camera.project(moved[:3])
        if np.abs(place - np.rint(place)).max() > 0.49:
            continue  # too near to the border between two pixels to say which
        column, row = np.rint(place).astype(int)
        if 0 <= column < 640 and 0 <= row < 480:
            assert 0 < registered[row, column] <= moved[2] + 1e-4


def test_nyu_raw_depth_lands_under_its_colour(shared_data, tmp_path):
    samples = shared_data / "samples" / "open3d" / "other_formats"
    shutil.copy(samples / "NYU_color.ppm", tmp_path / "r-1294886362.665769-3143255701.ppm")
    shutil.copy(samples / "NYU_depth.pgm", tmp_path / "d-1294886362.663555-3143255701.pgm")
    sequence = open_sequence(tmp_path)
    frame = sequence[0]
    assert frame.timestamp == pytest.approx(1294886362.663555, abs=1e-5)
    assert frame.camera.cx == pytest.approx(324.58245) and frame.camera.distortion is None
    assert 1 < frame.depth[frame.depth > 0].min() < 2 and 6 < frame.depth.max() < 7
    crop = np.zeros((480, 640), bool)
    crop[44:471, 40:601] = True  # the toolbox' own mask of where the projection is valid
    assert (frame.depth[crop] > 0).mean() > 0.9 > 0.15 > (frame.depth[~crop] > 0).mean()
    # A step in depth is a step in colour more often than chance has it, and most often without a shift.
    grey = cv2.GaussianBlur(cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    steep = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    far = cv2.erode((frame.depth > 0).astype(np.uint8), np.ones((5, 5)))
    edges = (cv2.morphologyEx(frame.depth, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0.3) & (far > 0)
    agreement = {shift: steep[np.roll(edges, shift, axis=1)].mean() for shift in (-24, 0, 24)}
    assert agreement[0] > 1.1 * max(agreement[-24], agreement[24])


def _as_the_toolbox_projects_depth(raw: np.ndarray) -> np.ndarray:
    """project_depth_map.m, step by step in NumPy, pixels counted as MATLAB does."""
    fx_d, fy_d, cx_d, cy_d = 582.62448167737955, 582.69103270988637, 313.04475870804731, 238.44389626620386
    k1, k2, p1, p2, k3 = -0.099897236553084481, 0.39065324602765344, 1.9290592870229277e-3, -1.9422022475975055e-3, -0.51031725053400578  # fmt: skip  # noqa: E501
    fx_rgb, fy_rgb, cx_rgb, cy_rgb = 518.85790117450188, 519.46961112127485, 325.58244941119034, 253.73616633400465

    def undistort(image: np.ndarray) -> np.ndarray:
        v, u = np.mgrid[:480, :640].astype(float)
        x, y = (u - cx_d) / fx_d, (v - cy_d) / fy_d
        r2 = x**2 + y**2
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        px = fx_d * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)) + cx_d
        py = fy_d * (y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y) + cy_d
        left, top = np.floor(px).astype(int), np.floor(py).astype(int)
        good = (left >= 0) & (left <= 638) & (top >= 0) & (top <= 478)
        left, top, a, b = left[good], top[good], (px - left)[good], (py - top)[good]
        result = np.full((480, 640), 255.0)
        upper = (1 - a) * image[top, left] + a * image[top, left + 1]
        result[good] = (1 - b) * upper + b * ((1 - a) * image[top + 1, left] + a * image[top + 1, left + 1])
        return result

    noise = undistort(255.0 * (raw == raw.max())) > 0
    disparity = undistort(raw.astype(float))
    disparity[disparity < 600] = 2047
    disparity[noise] = 2047
    z = np.clip(351.3 / (1092.5 - disparity), 0, 10)
    v, u = np.mgrid[1:481, 1:641].astype(float)
    points = np.stack([(u - cx_d) / fx_d * z, (v - cy_d) / fy_d * z, z], -1).reshape(-1, 3)
    R = -np.array([9.9997798940829263e-01, 5.0518419386157446e-03, 4.3011152014118693e-03,
                   -5.0359919480810989e-03, 9.9998051861143999e-01, -3.6879781309514218e-03,
                   -4.3196624923060242e-03, 3.6662365748484798e-03, 9.9998394948385538e-01])  # fmt: skip
    R = np.linalg.inv(R.reshape(3, 3, order="F").T)
    moved = points @ R.T + [2.5031875059141302e-2, -2.9342312935846411e-4, 6.6238747008330102e-4]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.floor(moved[:, 0] * fx_rgb / moved[:, 2] + cx_rgb + 0.5)
        y = np.floor(moved[:, 1] * fy_rgb / moved[:, 2] + cy_rgb + 0.5)
    inside = (x > 0) & (x < 640) & (y > 0) & (y < 480) & (z.ravel() > 0)
    order = np.argsort(-z.ravel()[inside], kind="stable")
    projected = np.zeros((480, 640))
    projected[y[inside][order].astype(int) - 1, x[inside][order].astype(int) - 1] = z.ravel()[inside][order]
    return projected


def test_nyu_raw_depth_is_the_toolboxs_to_a_millimetre(shared_data, tmp_path):
    from sequences.recordings.nyu_raw import read_projected_depth

    path = tmp_path / "d-1294886362.663555-3143255701.pgm"
    shutil.copy(shared_data / "samples" / "open3d" / "other_formats" / "NYU_depth.pgm", path)
    raw = np.frombuffer(path.read_bytes()[-640 * 480 * 2 :], "<u2").reshape(480, 640)
    expected, found = _as_the_toolbox_projects_depth(raw), read_projected_depth(path)
    assert ((found > 0) == (expected > 0)).mean() > 0.9999
    both = (found > 0) & (expected > 0)
    assert both.mean() > 0.5
    assert (np.abs(found - expected)[both] < 1e-3).mean() > 0.9999  # some land on the border between two pixels


def test_raw_disparities_follow_the_toolbox_formula():
    from sequences.recordings.nyu_raw import depth_of_raw

    raw = np.array([[0, 599, 600, 1000, 1080, 1092, 1093, 2047]], np.uint16)
    expected = [[0, 0, 351.3 / 492.5, 351.3 / 92.5, 10, 10, 0, 0]]
    np.testing.assert_allclose(depth_of_raw(raw), expected, rtol=1e-5)


def test_nyu_synchronisation_is_that_of_the_obvious_loop():
    from sequences.recordings.nyu_raw import synchronised

    rng = np.random.default_rng(2)
    depth_times, color_times = np.sort(rng.random(60)) * 2, np.sort(rng.random(50)) * 2
    at, expected = 0, []
    for time in depth_times:
        best = at
        for candidate in range(at, len(color_times)):
            if abs(color_times[candidate] - time) > abs(color_times[best] - time):
                break
            best = candidate
        at = best
        expected.append(at)
    chosen = synchronised(depth_times, color_times)
    assert chosen.tolist() == expected and (np.diff(chosen) >= 0).all()


def test_sun_rgbd_depth_is_rotated_back(shared_data, tmp_path):
    samples = shared_data / "samples" / "open3d" / "other_formats"
    for name, target in (("SUN_color.jpg", "image/a.jpg"), ("SUN_depth.png", "depth_bfx/a.png")):
        (tmp_path / target).parent.mkdir()
        shutil.copy(samples / name, tmp_path / target)
    (tmp_path / "intrinsics.txt").write_text("529.5 0 365 0 529.5 265 0 0 1")
    frame = open_sequence(tmp_path)[0]
    stored = cv2.imread(str(samples / "SUN_depth.png"), cv2.IMREAD_UNCHANGED)
    small = (stored > 0) & (stored % 8 == 0)
    np.testing.assert_allclose(frame.depth[small], np.minimum(stored[small] / 8000, 8), atol=1e-4)
    assert 0.5 < np.median(frame.depth) < 8 and frame.camera.fx == 529.5


def test_tum_depth_is_5000_a_metre(shared_data, tmp_path):
    samples = shared_data / "samples" / "open3d" / "other_formats"
    path = tmp_path / "freiburg3"
    path.mkdir()
    for name in ("TUM_color.png", "TUM_depth.png"):
        shutil.copy(samples / name, path / name)
    (path / "rgb.txt").write_text("1.00 TUM_color.png\n")
    (path / "depth.txt").write_text("1.01 TUM_depth.png\n")
    depth = open_sequence(path)[0].depth
    assert 0.5 < np.median(depth[depth > 0]) < 4


def test_splatting_keeps_the_nearest_of_many_as_the_obvious_loop_does():
    from sequences.recordings.registration_kernels import splat_nearest

    rng = np.random.default_rng(1)
    columns, rows = (rng.uniform(-2, 9, 400).astype(np.float32) for _ in range(2))
    z, values = (rng.uniform(1, 2, 400).astype(np.float32) for _ in range(2))
    expected = np.zeros((6, 8), np.float32)
    for i in np.argsort(-z):
        u, v = int(np.floor(columns[i] + 0.5)), int(np.floor(rows[i] + 0.5))
        if 0 <= u < 8 and 0 <= v < 6:
            expected[v, u] = values[i]
    assert np.array_equal(splat_nearest(columns, rows, z, values, 6, 8), expected)


def test_depth_registered_to_the_same_camera_is_the_same(room):
    from sequences.recordings.registration import registered_depth

    depth = room[0].depth
    np.testing.assert_allclose(registered_depth(depth, room.camera, room.camera, np.eye(4)), depth, rtol=1e-6)
