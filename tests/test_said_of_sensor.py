"""What a person or a camera.yaml says of the sensor counts before what the layout usually holds."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import yaml
from written_recordings import as_associations, as_icl, as_open3d, as_png_list, as_seven_scenes, as_tum

from semslam.camera import Camera
from sequences import open_sequence, options_of
from sequences.pairing import in_order
from sequences.recordings.camera_file import read_camera_file
from sequences.recordings.registration import registered_depth
from sequences.room.room import RoomSequence


@pytest.fixture(scope="module")
def room(six_frames) -> RoomSequence:
    return six_frames


LAYOUTS = {
    "tum": as_tum,
    "associations": as_associations,
    "icl-nuim": as_icl,
    "7scenes": as_seven_scenes,
    "open3d": as_open3d,
    "png-list": as_png_list,
}


def camera_values(camera: Camera) -> dict:
    return {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_layout_is_no_sensor_when_the_sensor_is_named(room, tmp_path, kind):
    path = LAYOUTS[kind](room, tmp_path / "of a camera of our own", 2000.0)
    said = tmp_path / "said.yaml"
    said.write_text(yaml.safe_dump(camera_values(room.camera)))
    by_option = open_sequence(path, kind, camera=said, depth_scale=2000.0, registered=True)
    said.write_text(yaml.safe_dump(camera_values(room.camera) | {"depth_scale": 2000.0, "registered": True}))
    shutil.copy(said, (path if path.is_dir() else path.parent) / "camera.yaml")
    by_file = open_sequence(path, kind)
    for sequence in (by_option, by_file):
        assert sequence.camera == room.camera
        for i in (0, 5):
            assert np.abs(sequence[i].depth - room[i].depth).max() < 6e-4
        assert not any("taken" in line and "30" not in line for line in sequence.assumptions), sequence.assumptions
    assert open_sequence(path, kind, depth_scale=1000.0)[0].depth.max() == pytest.approx(
        2 * room[0].depth.max(), rel=1e-3
    ), "what is said on the command line comes before the file"


@pytest.mark.parametrize("kind", LAYOUTS)
def test_unregistered_depth_is_registered_by_the_depth_camera_that_is_named(room, tmp_path, kind):
    path = LAYOUTS[kind](room, tmp_path / "of a camera of our own", 5000.0)
    T = np.eye(4)
    T[0, 3] = 0.05
    values = camera_values(room.camera) | {"depth_scale": 5000.0}
    values |= {"depth_camera": camera_values(room.camera), "T_color_depth": T.tolist()}
    (path if path.is_dir() else path.parent).joinpath("camera.yaml").write_text(yaml.safe_dump(values))
    moved = open_sequence(path, kind)[0].depth
    expected = registered_depth(open_sequence(path, kind, registered=True)[0].depth, room.camera, room.camera, T)
    np.testing.assert_allclose(moved, expected)
    assert (moved != room[0].depth).any()


def test_unregistered_depth_of_an_unknown_camera_says_what_to_write(folder):
    with pytest.raises(ValueError, match=r"--unregistered needs the depth camera; write depth_camera"):
        open_sequence(folder, registered=False)


def test_what_was_taken_for_granted_is_said_once(room, tmp_path, caplog):
    path = LAYOUTS["tum"](RoomSequence(frames=2), tmp_path / "somewhere", 5000.0)
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(path)
    assert any("ROS' default camera" in line for line in sequence.assumptions)
    assert any("5000 per metre" in line for line in sequence.assumptions)
    assert caplog.text.count("ROS' default") == 1


def test_frame_numbers_without_a_sign_of_icl_need_a_camera(room, tmp_path):
    path = as_icl(room, tmp_path, 5000.0).rename(tmp_path / "office chair")
    with pytest.raises(ValueError, match=r"associations.txt counts frames, and nothing tells their camera"):
        open_sequence(path)


def test_every_reader_of_image_files_takes_a_camera_and_says_whether_it_registers():
    for kind in LAYOUTS:
        assert {"camera", "depth_scale", "registered", "depth_camera"} <= options_of(kind), kind


def test_a_camera_file_of_another_recording_brings_its_depth_scale(folder, tmp_path):
    values = yaml.safe_load((folder / "camera.yaml").read_text())
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values | {"depth_scale": 500.0}))
    ours, theirs = open_sequence(folder), open_sequence(folder, camera=tmp_path / "other.yaml")
    np.testing.assert_allclose(theirs[0].depth, 2 * ours[0].depth, rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6, 7, 9, 13, 15])
def test_distortions_that_no_model_has_are_refused(folder, count):
    values = yaml.safe_load((folder / "camera.yaml").read_text())
    (folder / "camera.yaml").write_text(yaml.safe_dump(values | {"distortion": [0.01] * count}))
    with pytest.raises(ValueError, match=rf"camera\.yaml: camera has {count} distortion coefficients"):
        open_sequence(folder)


@pytest.mark.parametrize("count", [4, 5, 8, 12, 14])
def test_distortions_of_every_model_are_removed(folder, count):
    values = yaml.safe_load((folder / "camera.yaml").read_text())
    (folder / "camera.yaml").write_text(yaml.safe_dump(values | {"distortion": [0.01] * count}))
    assert open_sequence(folder)[0].color.shape == (60, 80, 3)


@pytest.mark.parametrize(
    "values",
    [
        {"depth_camera": 3},
        {"depth_camera": {}},
        {"depth_camera": {"width": 80}},
        {"T_color_depth": [[1, 0], [0, "x"]]},
        {"T_color_depth": [[1, 0, 0, "a"], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"T_color_depth": [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"T_color_depth": [[1], [2, 3]]},
    ],
)
def test_a_depth_camera_that_is_none_is_named(folder, values):
    recorded = yaml.safe_load((folder / "camera.yaml").read_text())
    recorded["depth_camera"] = {key: recorded[key] for key in ("width", "height", "fx", "fy", "cx", "cy")}
    (folder / "camera.yaml").write_text(yaml.safe_dump(recorded | values))
    with pytest.raises(ValueError, match=r"camera\.yaml: (depth_camera needs width|lacks height)"):
        open_sequence(folder)


def test_numbers_in_hexadecimal_are_counted_so():
    numbers = [f"{7 * i:04x}" for i in range(40)]
    assert in_order(numbers[::-1]) == numbers
    assert in_order(["f10", "f9", "f2"]) == ["f2", "f9", "f10"]  # a letter and a number


def test_intrinsics_in_shares_of_the_image_are_one_line(tmp_path):
    file = tmp_path / "camera.yaml"
    file.write_text("width: 640\nheight: 480\nfx: 0.82\nfy: 1.09\ncx: 0.5\ncy: 0.5\n")
    with pytest.raises(ValueError, match="expected pixels: multiply fx and cx by 640, fy and cy by 480"):
        read_camera_file(file)
