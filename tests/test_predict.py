"""Predictions of single images as files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from semslam.single_image.predict import images_of, names_for, predict_files


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
    many = names(*(f"/data/{d}/color/{n}.{s}" for d in "abc" for n in (1, 2) for s in ("png", "jpg")))
    assert len(set(many)) == 12


def test_images_of_one_name_from_two_folders_do_not_overwrite_each_other(tmp_path):
    def predictor(color: np.ndarray) -> SimpleNamespace:
        size = color.shape[:2]
        depth = np.full(size, color[0, 0, 0] / 100, np.float32)
        probabilities = np.zeros((*size, 13), np.float32)
        return SimpleNamespace(depth=depth, class_probabilities=probabilities, normals=None)

    predictor.label_set = "nyu13"
    for folder, grey in (("a", 100), ("b", 200)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "1.png"), np.full((24, 32, 3), grey, np.uint8))
    images = [tmp_path / folder / "1.png" for folder in "ab"]
    written = list(predict_files(images, tmp_path / "out", predictor))
    assert [len(paths) for paths in written] == [3, 3]
    depths = [cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED)[0, 0] for paths in written]
    assert depths == [1000, 2000]


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
