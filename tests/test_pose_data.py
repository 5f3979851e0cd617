"""Posed images from the data sets of relocalisation, in small imitations of their layouts; tuples of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from networks.pose.samples import PoseSource, open_source, tuple_places
from semslam import poses
from semslam.trajectory import Trajectory
from semslam.trajectory.files import write_tum
from sequences.posed import open_posed


def write_image(path: Path, value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((24, 32, 3), value, np.uint8)
    image[:, :16] //= 2
    assert cv2.imwrite(str(path), image)


def some_poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = rng.normal(size=(count, 3))
    return T


def quaternion_wxyz(rotation: np.ndarray) -> str:
    return " ".join(f"{number:.10f}" for number in np.roll(Rotation.from_matrix(rotation).as_quat(), 1))


def position(T: np.ndarray) -> str:
    return " ".join(f"{number:.10f}" for number in T[:3, 3])


# ------------------------------------------------------------------------------------------------------ DeepLoc


@pytest.fixture
def deeploc(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Six images with ids 8 to 13, every second with labels, poses in an order and with columns of their own."""
    T = some_poses(6)
    folder = tmp_path / "DeepLoc" / "train"
    lines = []
    for i, number in enumerate(range(8, 14)):
        write_image(folder / "LeftImages" / f"Image_{number}.png", 10 * number)
        if number % 2 == 0:
            (folder / "labels").mkdir(exist_ok=True)
            cv2.imwrite(str(folder / "labels" / f"Image_{number}.png"), np.full((24, 32), number - 8, np.uint8))
        q = quaternion_wxyz(T[i, :3, :3]).split()
        lines.append(f"{q[3]} {q[0]} {position(T[i])} Image_{number:05d} {q[1]} {q[2]} 7")
    heading = "DeepLoc poses\nqz qw x y z img_name qx qy speed\n"
    (folder / "poses.txt").write_text(heading + "\n".join(reversed(lines)) + "\n")
    return tmp_path / "DeepLoc", T


def test_deeploc_joins_by_number_and_reads_columns_by_name(deeploc) -> None:
    root, T = deeploc
    images = open_posed(root)
    assert [image.color[0, 31, 0] for image in images] == [80, 90, 100, 110, 120, 130]
    np.testing.assert_allclose(images.T_world_camera, T, atol=1e-8)


def test_deeploc_poses_without_names_keep_their_first_line(deeploc) -> None:
    root, T = deeploc
    lines = [f"Image_{8 + i}.png {position(T[i])} {quaternion_wxyz(T[i, :3, :3])}" for i in range(6)]
    (root / "train" / "poses.txt").write_text("\n".join(lines) + "\n")
    np.testing.assert_allclose(open_posed(root).T_world_camera, T, atol=1e-8)


def test_deeploc_has_labels_for_every_second_image_and_they_can_be_chosen(deeploc) -> None:
    images = open_posed(deeploc[0], split="train")
    assert [image.labels is not None for image in images] == [True, False] * 3
    labelled = open_source(PoseSource(str(deeploc[0]), labelled_only=True))
    assert [int(image.labels[0, 0]) for image in labelled] == [0, 2, 4]
    assert labelled.colors().shape == (10, 3)


def test_deeploc_without_a_column_or_an_image_says_which(deeploc) -> None:
    root, _ = deeploc
    poses_file = root / "train" / "poses.txt"
    text = poses_file.read_text()
    poses_file.write_text(text.replace("qy", "heading", 1))
    with pytest.raises(ValueError, match=r"poses\.txt: no column qy; its columns are qz, qw"):
        open_posed(root)
    poses_file.write_text(text)
    (root / "train" / "LeftImages" / "Image_9.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"poses\.txt:7: no image .*Image_9\.png \(1 of 6 are absent\)"):
        open_posed(root)
    with pytest.raises(FileNotFoundError, match="LeftImages"):
        open_posed(root, split="test")


# -------------------------------------------------------------------------------------------- Cambridge and lists


def test_cambridge_quaternions_turn_the_world_into_the_camera(tmp_path: Path) -> None:
    T = some_poses(4, seed=1)
    lines = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
    for i, pose in enumerate(T):
        name = f"seq{1 + i // 2}/frame{i:05d}.png"
        write_image(tmp_path / name)
        lines.append(f"{name} {position(pose)} {quaternion_wxyz(pose[:3, :3].T)}")
    (tmp_path / "dataset_train.txt").write_text("\n".join(lines) + "\n")
    images = open_posed(tmp_path)
    np.testing.assert_allclose(images.T_world_camera, T, atol=1e-8)
    assert images.recordings.tolist() == [0, 0, 1, 1]
    with pytest.raises(FileNotFoundError, match=r"dataset_test\.txt: no such list"):
        open_posed(tmp_path, split="test")


def test_a_list_is_read_by_its_names_or_in_the_usual_order(tmp_path: Path) -> None:
    T = some_poses(3, seed=2)
    for i in range(3):
        write_image(tmp_path / f"{1000 + i}.png")
    plain = [f"{1000 + i}.png {position(P)} {quaternion_wxyz(P[:3, :3])}" for i, P in enumerate(T)]
    (tmp_path / "a.txt").write_text("\n".join(plain) + "\n")
    robotcar = ["timestamp,ins_status,northing,easting,down,roll,pitch,yaw"]
    for i, P in enumerate(T):
        angles = Rotation.from_matrix(P[:3, :3]).as_euler("xyz")
        robotcar.append(",".join([f"{1000 + i}", "GOOD", *position(P).split(), *(f"{a:.10f}" for a in angles)]))
    (tmp_path / "b.csv").write_text("\n".join(robotcar) + "\n")
    for name in ("a.txt", "b.csv"):
        np.testing.assert_allclose(open_posed(tmp_path / name).T_world_camera, T, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1000.png 1 2 3 0.5 0.5 0.5", r"list\.txt:2: 7 columns, expected at least 8"),
        ("1000.png 1 2 3 0.9 0.9 0 0", r"list\.txt:2: quaternion of length 1\.27.*in order\?"),
        ("1000.png 1 2 north 1 0 0 0", r"list\.txt:2: .*are not numbers"),
        ("1000.png 1 2 nan 1 0 0 0", r"list\.txt:2: holds NaN"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(tmp_path: Path, line: str, message: str) -> None:
    write_image(tmp_path / "1000.png")
    (tmp_path / "list.txt").write_text(f"1000.png 0 0 0 1 0 0 0\n{line}\n")
    with pytest.raises(ValueError, match=message):
        open_posed(tmp_path / "list.txt")


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such data"):
        open_posed(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------- recordings as data


def test_a_tracked_recording_gives_the_poses_of_the_trajectory(tmp_path: Path) -> None:
    """What MapNet++ learns from: our own tracking of a recording that has no poses."""
    for i in range(5):
        write_image(tmp_path / "color" / f"{i}.png", 50 + i)
    (tmp_path / "camera.yaml").write_text("{width: 32, height: 24, fx: 30, fy: 30, cx: 15.5, cy: 11.5, fps: 10}")
    with pytest.raises(ValueError, match=r"none of its 5 frames has a pose.*semslam reconstruct --poses tracked"):
        open_posed(tmp_path)
    T = some_poses(3, seed=3)
    write_tum(tmp_path / "trajectory.txt", Trajectory(np.array([0.1, 0.2, 0.4]), T))
    images = open_posed(tmp_path, poses=tmp_path / "trajectory.txt")
    assert images.numbers.tolist() == [1, 2, 4]
    assert [image.color[0, 31, 0] for image in images] == [51, 52, 54]
    np.testing.assert_allclose(images.T_world_camera, T, atol=1e-6)


def test_a_trajectory_without_times_gives_its_poses_by_line_or_number(tmp_path: Path) -> None:
    for i in range(5):
        write_image(tmp_path / "color" / f"{i}.png", 50 + i)
    (tmp_path / "camera.yaml").write_text("{width: 32, height: 24, fx: 30, fy: 30, cx: 15.5, cy: 11.5, fps: 10}")
    T = some_poses(5, seed=3)
    (tmp_path / "kitti.txt").write_text("\n".join(" ".join(map(repr, P[:3].ravel().tolist())) for P in T))
    np.testing.assert_allclose(open_posed(tmp_path, poses=tmp_path / "kitti.txt").T_world_camera, T, atol=1e-9)
    lines = [f"{i} {i} {i + 1}\n" + "\n".join(" ".join(map(str, row)) for row in T[i]) for i in (1, 4)]
    (tmp_path / "some.log").write_text("\n".join(lines))
    images = open_posed(tmp_path, poses=tmp_path / "some.log")
    assert images.numbers.tolist() == [1, 4]
    np.testing.assert_allclose(images.T_world_camera, T[[1, 4]], atol=1e-9)


def test_frames_are_chosen_and_held_out_by_number(tmp_path: Path) -> None:
    T = some_poses(10, seed=4)
    for i in range(10):
        write_image(tmp_path / f"{i}.png")
    rows = [f"{i}.png {position(P)} {quaternion_wxyz(P[:3, :3])}" for i, P in enumerate(T)]
    (tmp_path / "list.txt").write_text("\n".join(rows) + "\n")
    path = str(tmp_path / "list.txt")
    kept = open_source(PoseSource(path, first=1, last=9, hold_out=3)).numbers
    held = open_source(PoseSource(path, first=1, last=9, hold_out=3, held_out=True)).numbers
    assert kept.tolist() == [1, 2, 4, 5, 7, 8]
    assert held.tolist() == [3, 6]
    with pytest.raises(ValueError, match="none of its 10 images is left"):
        open_source(PoseSource(path, first=20))
    with pytest.raises(ValueError, match="there are no labels"):
        open_source(PoseSource(path, labelled_only=True))
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match=r"labels: no label image for 0\.png and 9 more of 10"):
        open_source(PoseSource(path, labels=str(tmp_path / "labels")))


def test_the_scenes_here_open_with_their_poses(shared_data: Path) -> None:
    images = open_posed(shared_data / "redkitchen")
    assert len(images) == 200 and images.label_set == "nyu40"
    assert images.labelled is not None and images.labelled.sum() == 50
    assert all(poses.is_rigid(T) for T in images.T_world_camera)


# --------------------------------------------------------------------------------------------------------- tuples


def test_a_tuple_is_centred_and_clamped_inside_its_recording() -> None:
    recordings = np.array([0] * 30 + [1] * 30)
    assert tuple_places(recordings, 15, 3, 10).tolist() == [5, 15, 25]
    assert tuple_places(recordings, 0, 3, 10).tolist() == [0, 0, 10]
    assert tuple_places(recordings, 29, 3, 10).tolist() == [19, 29, 29]
    assert tuple_places(recordings, 30, 3, 10).tolist() == [30, 30, 40]
    assert tuple_places(recordings, 35, 1, 10).tolist() == [35]


def test_no_tuple_mixes_recordings_even_where_these_are_interleaved() -> None:
    recordings = np.array([0, 1] * 20)
    for index in range(40):
        assert len(set(recordings[tuple_places(recordings, index, 5, 3)])) == 1
