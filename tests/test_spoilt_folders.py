"""The plain folder, spoilt: what is wrong is one corrupt frame, or said in one line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from semslam.camera import Camera
from sequences import CorruptFrame, open_sequence
from sequences.recordings.camera_file import write_camera_file
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence


def frames_read(path: Path) -> tuple[list[int], list[str]]:
    """As a caller does that counts and skips: (indices read, messages of the others)."""
    sequence, read, problems = open_sequence(path), [], []
    for i in range(len(sequence)):
        try:
            read.append(sequence[i].index)
        except CorruptFrame as problem:
            problems.append(str(problem))
    return read, problems


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


def test_images_that_were_turned_are_told_with_the_camera_that_fits_them(folder):
    for path in (*folder.glob("color/*"), *folder.glob("depth/*")):
        cv2.imwrite(str(path), cv2.rotate(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.ROTATE_90_CLOCKWISE))
    values = yaml.safe_load((folder / "camera.yaml").read_text())
    with pytest.raises(ValueError, match="image is 60x80, the camera's is 80x60; it seems turned by 90") as found:
        open_sequence(folder)
    clockwise = f"clockwise cx: {59 - values['cy']:g}, cy: {values['cx']:g}"
    assert "width: 60, height: 80" in str(found.value) and clockwise in str(found.value)


def test_label_images_of_another_size_are_told_to_be_resized(folder):
    for path in (folder / "label40").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (64, 64), interpolation=0))
    with pytest.raises(ValueError, match="label image is 64x64, the camera's is 80x60; resize label images to that"):
        open_sequence(folder)


@pytest.mark.parametrize(("width", "height"), [(1, 48), (48, 1), (64, 15)])
def test_images_too_small_to_show_anything_are_refused(tmp_path, width, height):
    write_folder(RoomSequence(2, 64, 48), tmp_path)
    write_camera_file(tmp_path / "camera.yaml", Camera(width, height, 50.0, 50.0, width / 2, height / 2), 1000.0)
    for path in tmp_path.glob("*/*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), image[:height, :width])
    with pytest.raises(ValueError, match=f"{width}x{height}, expected at least 16 pixels each way"):
        open_sequence(tmp_path)


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
