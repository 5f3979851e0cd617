"""Sets of labelled images: folders, lists, the official NYUv2 file, KITTI; and what is wrong with them in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import savemat

from networks.training.data import Source, open_images
from semslam.camera import Camera
from semslam.images.labels import read_labels
from sequences.images.labelled_images import (
    NYU_CAMERA,
    normals_of_depth,
    open_labelled_folder,
    open_labelled_list,
)
from sequences.images.nyu_mat import NyuMat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("color", "label40", "depth"):
        (tmp_path / kind).mkdir()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / "color" / f"{name}.png"), rng.integers(0, 255, (12, 16, 3)).astype(np.uint8))
        cv2.imwrite(str(tmp_path / "label40" / f"{name}.png"), np.arange(192).reshape(12, 16).astype(np.uint8) % 41)
        cv2.imwrite(str(tmp_path / "depth" / f"{name}.png"), np.full((6, 8), 1500, np.uint16))
    (tmp_path / "train.txt").write_text("c\na\n")
    return tmp_path


def test_a_split_gives_its_images_in_its_order_and_our_units(folder: Path) -> None:
    images = open_labelled_folder(folder, "train")
    assert [image.name for image in images] == ["c", "a"]
    image = images[0]
    assert image.color.shape == (12, 16, 3)
    assert image.labels[0, 0] == 255  # void
    assert image.labels[0, 1:4].tolist() == [0, 1, 2]  # files count from 1
    assert image.depth.shape == (6, 8)  # smaller than the colour, as it is
    assert np.allclose(image.depth, 1.5)
    assert len(open_labelled_folder(folder)) == 3


def test_another_folder_of_labels_replaces_the_folders_own(folder: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(teacher / f"{name}.png"), np.full((12, 16), 7, np.uint8))
    assert (open_labelled_folder(folder, labels=teacher)[0].labels == 6).all()
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of labels"):
        open_labelled_folder(folder, labels=folder / "nowhere")


def test_missing_pairs_and_splits_are_named(folder: Path) -> None:
    (folder / "label40" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"label40: 1 of 2 names .* a labels file here, the first is a"):
        open_labelled_folder(folder, "train")
    with pytest.raises(FileNotFoundError, match=r"test\.txt: no such split; the folder's splits are: train"):
        open_labelled_folder(folder, "test")
    (folder / "val.txt").write_text("a\nz\n")
    with pytest.raises(FileNotFoundError, match="1 of 2 names of the split have not an image here, the first is z"):
        open_labelled_folder(folder, "val")
    (folder / "none.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"none\.txt: the split is empty"):
        open_labelled_folder(folder, "none")
    with pytest.raises(FileNotFoundError, match="no folder color/ in it; move the images there"):
        open_labelled_folder(folder / "depth")
    (folder / "groundtruth.txt").write_text("0.0 1 2 3 0 0 0 1\n")
    (folder / "long.txt").write_text(1000 * "x")
    (folder / "folder.txt").mkdir()
    with pytest.raises(FileNotFoundError, match=r"the folder's splits are: train, val$"):  # poses are no split
        open_labelled_folder(folder, "test")


def test_labels_out_of_range_or_of_another_size_are_named(folder: Path) -> None:
    cv2.imwrite(str(folder / "label40" / "a.png"), np.full((12, 16), 41, np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: label id 41 is outside nyu40"):
        open_labelled_folder(folder)[0]
    cv2.imwrite(str(folder / "label40" / "a.png"), np.full((6, 8), 4, np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: labels are 8x6, the image 16x12; resize the labels"):
        open_labelled_folder(folder)[0]


def test_depth_that_is_no_depth_is_named(folder: Path) -> None:
    cv2.imwrite(str(folder / "depth" / "b.png"), np.zeros((6, 8), np.uint8))
    with pytest.raises(ValueError, match=r"b\.png: depth is uint8"):
        open_labelled_folder(folder)[1]
    (folder / "depth" / "b.png").write_bytes((folder / "depth" / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"b\.png: the file is truncated"):
        open_labelled_folder(folder)[1]


def test_a_list_names_images_labels_and_depth_or_a_dash(folder: Path) -> None:
    (folder / "list.txt").write_text(
        "# image labels depth\ncolor/a.png label40/a.png depth/a.png\ncolor/b.png - depth/b.png\n\ncolor/c.png\n"
    )
    a, b, c = open_labelled_list(folder / "list.txt", depth_scale=500)
    assert a.labels is not None
    assert np.allclose(a.depth, 3.0)
    assert (b.labels, c.labels, c.depth) == (None, None, None)
    assert b.depth is not None
    (folder / "list.txt").write_text("color/a.png label40/z.png\n")
    with pytest.raises(FileNotFoundError, match=r"list\.txt:1: .*z\.png does not exist"):
        open_labelled_list(folder / "list.txt")
    (folder / "list.txt").write_text("color/a.png b c d\n")
    with pytest.raises(ValueError, match=r"list\.txt:1: 4 columns"):
        open_labelled_list(folder / "list.txt")
    (folder / "list.txt").write_text("")
    with pytest.raises(ValueError, match="the list is empty"):
        open_labelled_list(folder / "list.txt")


# ------------------------------------------------------------------------------------------- KITTI


def test_kitti_labels_are_read_from_their_colours(shared_data: Path) -> None:
    labels = read_labels(shared_data / "samples" / "kitti" / "drsleep" / "segm_gt_000099.png", "kitti6")
    assert labels.shape == (370, 1226)
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 5, 255}
    assert (labels[300:, 500:700] == 2).mean() > 0.5  # the road lies before the car


def test_kitti_depth_is_a_256th_of_a_metre(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "samples" / "kitti" / "metric3d_demo"
    (tmp_path / "list.txt").write_text(f"{root}/rgb/0000000005.png - {root}/depth/0000000005.png\n")
    image = open_labelled_list(tmp_path / "list.txt", "kitti6", depth_scale=256)[0]
    assert image.color.shape == (375, 1242, 3)
    assert 4 < image.depth[image.depth > 0].min() < 8
    assert image.depth.max() < 90


def test_an_image_without_any_colour_of_the_set_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((4, 4, 3), 77, np.uint8))
    with pytest.raises(ValueError, match=r"photo\.png: no pixel has a colour of kitti6"):
        read_labels(tmp_path / "photo.png", "kitti6")


# ------------------------------------------------------------------------------------------- the official file


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    """Five images 8x6 in the official file's form: HDF5 with Matlab's axes reversed."""
    rng = np.random.default_rng(0)
    file = tmp_path / "nyu_depth_v2_labeled.mat"
    with h5py.File(file, "w") as h5:
        h5["images"] = rng.integers(0, 255, (5, 3, 8, 6), dtype=np.uint8)
        labels = rng.integers(0, 895, (5, 8, 6), dtype=np.uint16)
        labels[0, 3, 2], labels[0, 0, 0] = 21, 0  # wall; unlabelled
        h5["labels"] = labels
        h5["depths"] = rng.uniform(1, 5, (5, 8, 6)).astype(np.float32)
        h5["rawDepths"] = np.zeros((5, 8, 6), np.float32)
    savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[2], [5]]), "testNdxs": np.array([[1], [3], [4]])})
    return file


def test_the_official_file_is_transposed_and_not_turned(mat: Path) -> None:
    """Turning it by 90 degrees, as some do, would mirror the images."""
    image = NyuMat(mat)[0]
    with h5py.File(mat) as h5:
        stored, depth = h5["images"][0], h5["depths"][0]
    assert image.color.shape == (6, 8, 3)
    for channel, x, y in np.ndindex(3, 8, 6):
        assert image.color[y, x, channel] == stored[channel, x, y]
        assert image.depth[y, x] == depth[x, y]


def test_its_894_classes_become_the_40(mat: Path) -> None:
    image = NyuMat(mat)[0]
    assert image.labels[2, 3] == 0  # id 21 of the 894 is wall
    assert image.labels[0, 0] == 255
    assert image.labels[image.labels != 255].max() < 40
    assert NyuMat(mat, classes="nyu13")[0].labels[2, 3] == 11


def test_other_labels_take_the_place_of_the_files_own(mat: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    for number in range(1, 6):
        cv2.imwrite(str(tmp_path / "teacher" / f"{number:06d}.png"), np.full((6, 8), 10 + number, np.uint8))
    images = open_images(Source(str(mat), None, labels=str(tmp_path / "teacher")))
    assert [int(image.labels[0, 0]) for image in images] == [10, 11, 12, 13, 14]
    assert np.array_equal(images[1].depth, NyuMat(mat)[1].depth)


def test_its_official_splits_count_from_one(mat: Path) -> None:
    train = NyuMat(mat, "train", mat.parent / "splits.mat")
    assert [image.name for image in train] == ["000002", "000005"]
    assert np.array_equal(train[1].color, NyuMat(mat)[4].color)
    assert (NyuMat(mat, raw_depth=True)[0].depth == 0).all()


def test_it_is_read_image_by_image_and_can_be_sent_to_another_process(mat: Path) -> None:
    images = NyuMat(mat)
    first = images[0].color
    again = pickle.loads(pickle.dumps(images))
    assert np.array_equal(again[0].color, first)


def test_what_is_wrong_with_the_official_file_is_named(mat: Path) -> None:
    with pytest.raises(ValueError, match=r"need splits\.mat"):
        NyuMat(mat, "train")
    with pytest.raises(ValueError, match="official ones are train and test"):
        NyuMat(mat, "val", mat.parent / "splits.mat")
    with h5py.File(mat, "a") as h5:
        del h5["labels"]
    with pytest.raises(ValueError, match="no array labels in it"):
        NyuMat(mat)
    mat.write_bytes(mat.read_bytes()[:600])
    with pytest.raises(ValueError, match="not an HDF5 file, or cut short"):
        NyuMat(mat)
    with pytest.raises(FileNotFoundError, match="no such file"):
        NyuMat(mat.parent / "none.mat")


# ------------------------------------------------------------------------------------------- normals


def test_normals_of_a_plane_are_the_planes() -> None:
    camera = Camera(64, 48, 120.0, 120.0, 31.5, 23.5)
    normal = np.array([0.3, -0.5, -0.8])
    normal /= np.linalg.norm(normal)
    rays = camera.backproject(np.ones((48, 64)))
    depth = (-2.0 / (rays @ normal)).astype(np.float32)
    found = normals_of_depth(depth, camera)
    valid = np.abs(found).sum(-1) > 0
    assert valid[5:-5, 5:-5].all()
    angle = np.degrees(np.arccos(np.clip(found[valid] @ normal, -1, 1)))
    assert np.median(angle) < 0.5
    inner = np.degrees(np.arccos(np.clip(found[11:-11, 11:-11] @ normal, -1, 1)))
    assert inner.max() < 1


def test_there_is_no_normal_across_an_edge_or_beside_a_hole() -> None:
    camera = Camera(40, 30, 40.0, 40.0, 19.5, 14.5)
    depth = np.full((30, 40), 2.0, np.float32)
    depth[:, 20:] = 3.0
    depth[10, 10] = 0
    found = np.abs(normals_of_depth(depth, camera)).sum(-1) > 0
    assert not found[:, 19:21].any()
    assert not found[10, 9:12].any()
    assert found[20, 5:15].all()


def test_normals_of_a_real_room_face_the_camera_and_are_mostly_there(shared_data: Path) -> None:
    image = open_labelled_folder(shared_data / "nyuv2", "val")[0]
    normals = normals_of_depth(image.depth, NYU_CAMERA)
    length = np.linalg.norm(normals, axis=-1)
    valid = length > 0
    assert valid.mean() > 0.6
    assert np.allclose(length[valid], 1, atol=1e-4)
    rays = NYU_CAMERA.resized(320, 240).backproject(np.ones((240, 320), np.float32))
    assert ((normals * rays).sum(-1)[valid] < 1e-6).all()


def test_the_shared_training_images_are_complete_and_otherprop_never_occurs(shared_data: Path) -> None:
    assert len(open_labelled_folder(shared_data / "nyuv2", "train")) == 795
    validation = open_labelled_folder(shared_data / "nyuv2", "val")
    assert len(validation) == 60
    train = open_labelled_folder(shared_data / "nyuv2", "train")
    for image in (validation[0], train[7], train[400]):
        assert image.color.shape == (480, 640, 3)
        assert image.depth.shape == (240, 320)
    for image in (train[7], train[400]):
        assert image.labels[image.labels != 255].max() < 39


def test_the_camera_of_the_labelled_images_is_that_of_the_raw_ones():
    """MATLAB counts pixels from 1: the toolbox' 325.58 is 324.58 here, for labelled and raw images alike."""
    from sequences.nyu_calibration import COLOR_CAMERA

    assert COLOR_CAMERA.undistorted() == NYU_CAMERA
    assert (NYU_CAMERA.cx, NYU_CAMERA.cy) == pytest.approx((324.58244941, 252.73616633))
