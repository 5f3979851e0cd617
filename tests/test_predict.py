"""Predictions of single images as files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from semslam.cli import app
from semslam.labels import LABEL_SETS
from semslam.single_image.predict import (
    focal_length,
    image_files,
    images_of,
    names_for,
    predict_files,
    write_prediction,
)


def test_names_are_as_long_as_it_takes_to_tell_images_apart():
    def names(*paths: str) -> list[str]:
        return names_for([Path(path) for path in paths])

    assert names("/a/one.jpg", "/b/two.png") == ["one", "two"]
    assert names("/x/kitchen/0001.jpg", "/x/office/0001.jpg", "/x/office/2.jpg") == [
        "kitchen_0001",
        "office_0001",
        "2",
    ]
    assert names("/a/s/c/1.png", "/b/s/c/1.png") == ["a_s_c_1", "b_s_c_1"]
    assert names("/a/1.png", "/a/1.jpg") == ["1_png", "1_jpg"]
    assert names("/a/1.png", "/a/1.png") == ["1", "1"]
    assert names("/a/1.png", "/x/a/1.png") == ["a_1", "x_a_1"]
    assert names("/k/1.jpg", "/o/1.jpg", "/k_1.jpg", "/k_1_2.jpg") == ["k_1", "o_1", "k_1_3", "k_1_2"]
    many = names(*(f"/data/{d}/color/{n}.{s}" for d in "abc" for n in (1, 2) for s in ("png", "jpg")))
    assert len(set(many)) == 12


def predictor(color: np.ndarray, size: tuple[int, int], focal: float | None) -> SimpleNamespace:
    """A network that takes an image's red for centimetres, and its left for wall and its right for floor."""
    red = cv2.resize(color[..., 0], size, interpolation=cv2.INTER_AREA)
    probabilities = np.zeros((*red.shape, 40), np.float32)
    probabilities[:, : size[0] // 2, 0] = probabilities[:, size[0] // 2 :, 1] = 1
    return SimpleNamespace(depth=red / np.float32(10), class_probabilities=probabilities, normals=None)


predictor.label_set = "nyu40"


def test_images_of_one_name_from_two_folders_do_not_overwrite_each_other(tmp_path):
    for folder, grey in (("a", 100), ("b", 200)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "1.png"), np.full((24, 32, 3), grey, np.uint8))
    images = [tmp_path / folder / "1.png" for folder in "ab"]
    written = [predicted.files for predicted in predict_files(images, tmp_path / "out", predictor)]
    assert [len(paths) for paths in written] == [3, 3]
    depths = [cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED)[0, 0] for paths in written]
    assert depths == [10000, 20000]


def test_an_image_that_cannot_be_read_ends_nothing(tmp_path):
    """Grey and transparent images are read; half an image, a depth image and a missing one are named."""
    grey, alpha = np.full((24, 32), 100, np.uint8), np.full((24, 32, 4), 100, np.uint8)
    depth = np.ones((4, 4), np.uint16)
    for name, image in (("grey", grey), ("alpha", alpha), ("half", alpha), ("depth", depth), ("last", grey)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:60])
    images = [tmp_path / f"{name}.png" for name in ("grey", "alpha", "half", "depth", "none", "last")]
    found = list(predict_files(images, tmp_path / "out", predictor))
    assert [predicted.image for predicted in found] == images
    assert [len(predicted.files) for predicted in found] == [3, 3, 0, 0, 0, 3]
    for predicted, problem in zip(found[2:5], ("truncated", "as depth images are", "is missing"), strict=True):
        assert predicted.problem is not None and problem in predicted.problem


def test_the_command_goes_on_and_its_exit_code_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("semslam.runs.networks.predictor", lambda *_: predictor)
    cv2.imwrite(str(tmp_path / "good.png"), np.full((24, 32, 3), 100, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"bad")
    arguments = ["predict", str(tmp_path / "bad.png"), str(tmp_path / "good.png"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and "1 of 2 images could not be read" in result.output
    assert (tmp_path / "out" / "good_depth.png").is_file()
    assert CliRunner().invoke(app, [arguments[0], *arguments[2:]]).exit_code == 0


def test_a_photo_is_predicted_upright_and_a_large_one_in_its_own_size(tmp_path):
    photo = np.zeros((1500, 2000, 3), np.uint8)
    photo[..., 0] = 150
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(photo).save(tmp_path / "photo.png", exif=exif)
    (predicted,) = predict_files([tmp_path / "photo.png"], tmp_path / "out", predictor)
    depth, labels = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in predicted.files[:2])
    assert depth.shape == labels.shape == (2000, 1500)
    assert (depth == 15000).all() and (labels[:, :740] == 1).all() and (labels[:, 760:] == 2).all()


def test_depth_beyond_what_millimetres_hold_is_written_in_a_larger_unit_that_is_named(tmp_path):
    depth = np.full((4, 4), 80.0, np.float32)
    paths = write_prediction(tmp_path, "far", depth, np.zeros((4, 4), np.uint8), LABEL_SETS["kitti6"])
    stored = cv2.imread(str(tmp_path / "far_depth.png"), cv2.IMREAD_UNCHANGED)
    scale = yaml.safe_load((tmp_path / "far_depth.yaml").read_text())["depth_scale"]
    assert scale == 256 and (stored == 80 * 256).all() and tmp_path / "far_depth.yaml" in paths
    write_prediction(tmp_path, "near", depth / 2, np.zeros((4, 4), np.uint8), LABEL_SETS["kitti6"])
    assert not (tmp_path / "near_depth.yaml").exists()
    write_prediction(tmp_path, "far", depth / 2, np.zeros((4, 4), np.uint8), LABEL_SETS["kitti6"])
    assert not (tmp_path / "far_depth.yaml").exists(), "the unit of the depth that was there before"
    write_prediction(tmp_path, "beyond", 20 * depth, np.zeros((4, 4), np.uint8), LABEL_SETS["kitti6"])
    assert not cv2.imread(str(tmp_path / "beyond_depth.png"), cv2.IMREAD_UNCHANGED).any(), "none, not the farthest"


def test_depth_is_scaled_by_the_lens_that_a_recording_of_the_images_would_have(tmp_path):
    """That of --fov, else of camera.yaml, for images that were turned upright too, else of EXIF, else of nothing."""
    exif, folder = Image.Exif(), tmp_path / "recording"
    exif.get_ifd(0x8769)[0xA405] = 27
    image = Image.fromarray(np.zeros((60, 80, 3), np.uint8))
    (folder / "color").mkdir(parents=True)
    for place in (tmp_path, folder / "color"):
        image.save(place / "told.jpg", exif=exif)
    image.save(tmp_path / "untold.jpg")
    assert focal_length(tmp_path / "told.jpg", 60, 80) == (pytest.approx(60), "EXIF")
    assert focal_length(tmp_path / "untold.jpg", 60, 80)[0] is None
    assert focal_length(tmp_path / "told.jpg", 60, 80, 90.0) == (pytest.approx(40), "--fov")
    (folder / "camera.yaml").write_text("width: 160\nheight: 120\nfx: 150\nfy: 150\ncx: 79.5\ncy: 59.5\n")
    for height, width in ((60, 80), (80, 60)):
        assert focal_length(folder / "color" / "told.jpg", height, width) == (pytest.approx(75), "camera.yaml")
    given: list[float | None] = []

    def listening(color, size, focal):
        given.append(focal)
        return predictor(color, size, focal)

    listening.label_set = "nyu40"
    (found,) = predict_files([tmp_path / "told.jpg"], tmp_path / "out", listening)
    assert given == [pytest.approx(60)] and found.lens == "EXIF"


def test_a_folder_stands_for_its_images_as_people_count_and_a_recording_for_its_colours(tmp_path):
    for name in ("10.png", "9.jpg", "2.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    again = [path.name for path in image_files([tmp_path, tmp_path / "2.png"])]
    assert again == ["2.png", "9.jpg", "10.png", "2.png"]
    with pytest.raises(FileNotFoundError, match=r"x.png: no such image or folder"):
        image_files([tmp_path, tmp_path / "x.png"])
    (tmp_path / "color").mkdir()
    with pytest.raises(ValueError, match=r"color: no JPEG or PNG images are in this folder"):
        image_files([tmp_path])
    (tmp_path / "color" / "0.png").touch()
    assert image_files([tmp_path]) == [tmp_path / "color" / "0.png"]


def test_images_are_taken_evenly_from_a_folder(tmp_path):
    for i in range(7):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((4, 5, 3), 10 * i, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    assert [int(image[0, 0, 0]) for image in images_of(tmp_path, 3)] == [0, 30, 60]
    assert len(images_of(tmp_path, 20)) == 7
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 JPEG or PNG images"):
        images_of(tmp_path / "empty", 3)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        images_of(tmp_path / "none", 3)
