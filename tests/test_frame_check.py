"""Frames of one's own: what is not as `Frame` says is refused in one line, before it reaches the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from semslam.camera import Camera
from semslam.frame import Frame
from semslam.images.frame_check import check_frame
from semslam.perception import PerceptionConfig
from semslam.poses import from_rotation_translation
from semslam.slam import Slam, SlamConfig
from sequences import open_sequence

CAMERA = Camera(64, 48, 60, 60, 31.5, 23.5)
FRAME = Frame(7, 0.0, np.zeros((48, 64, 3), np.uint8), CAMERA, np.full((48, 64), 2, np.float32), None, np.eye(4))
SCALED = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("field", "array", "says"),
    [
        ("color", np.zeros((48, 64, 3), np.float32), "multiply 0..1 by 255"),
        ("color", np.zeros((48, 64), np.uint8), "repeat a grey channel"),
        ("color", np.zeros((48, 64, 4), np.uint8), "leave alpha out"),
        ("color", np.zeros((24, 32, 3), np.uint8), "colour is 32x24 and its camera 64x48"),
        ("color", None, "colour is NoneType"),
        ("depth", np.full((48, 64), 2000, np.uint16), "divide millimetres"),
        ("depth", np.full((48, 64), 2000, np.float32), "divide millimetres"),
        ("depth", np.full((48, 64), 2.0), "astype"),
        ("depth", np.full((48, 64, 1), 2, np.float32), "no third axis"),
        ("depth", np.full((48, 32), 2, np.float32), "another aspect"),
        ("depth", np.full((48, 64), -2, np.float32), "negative"),
        ("depth", np.full((48, 64), np.inf, np.float32), "infinite or NaN"),
        ("depth", np.full((48, 64), np.nan, np.float32), "infinite or NaN"),
        ("depth", np.full((1, 1), 2, np.float32), "expected an image"),
        ("depth", np.ma.masked_equal(FRAME.depth, 2), "MaskedArray"),
        ("labels", np.zeros((48, 64), np.int64), "uint8 class ids"),
        ("labels", np.zeros((48, 32), np.uint8), "another aspect"),
        ("labels", torch.zeros(48, 64, dtype=torch.uint8), "labels are Tensor"),
        ("T_world_camera", SCALED, "not rigid"),
        ("T_world_camera", np.eye(4)[:3], r"\(3, 4\)"),
        ("T_world_camera", np.diag([-1.0, 1, 1, 1]), "mirrors"),
        ("T_world_camera", np.full((4, 4), np.nan), "NaN"),
        ("T_world_camera", np.zeros((4, 4)), "not rigid"),
        ("T_world_camera", from_rotation_translation(np.eye(3), np.ones(3)).T, "transposed"),
        ("timestamp", np.nan, "timestamp is nan"),
        ("timestamp", "0.5", "timestamp is '0.5'"),
    ],
)
def test_a_wrong_array_is_refused_in_one_line_with_the_remedy(field, array, says):
    with pytest.raises(ValueError, match=says) as error:
        check_frame(replace(FRAME, **{field: array}))
    assert str(error.value).startswith("frame 7: ") and "\n" not in str(error.value)


def test_frames_as_they_are_recorded_pass():
    rounded = np.eye(4)
    rounded[0, 1] = 1e-3
    street = FRAME.depth.copy()
    street[:24] = 655.35  # the sky of a rendered one
    tall = replace(FRAME, depth=np.zeros((16, 21), np.float32))  # a telephone's depth: smaller, rounded to pixels
    for frame in (FRAME, replace(FRAME, depth=None, T_world_camera=rounded), replace(FRAME, depth=street), tall):
        check_frame(frame)


def test_a_refused_frame_leaves_the_system_as_it_was():
    slam = Slam(CAMERA, SlamConfig(PerceptionConfig(labels="none")))
    with pytest.raises(ValueError, match="frame 7"):
        slam.step(replace(FRAME, T_world_camera=SCALED))
    assert slam.stepped == 0 and len(slam.surfels) == 0


def test_views_and_arrays_that_cannot_be_written_to_are_mapped_as_their_copies() -> None:
    """`cv2.imread(file)[:, :, ::-1]` is the usual way to RGB, and `np.asarray` of a Pillow image is read-only."""
    room = open_sequence("room:frames=1,width=64,height=48")
    clouds = []
    for same in (np.array, lambda image: image[::-1, ::-1].copy()[::-1, ::-1], lambda image: image):
        slam, frame = Slam(room.camera, SlamConfig(PerceptionConfig(labels="none"))), room[0]
        color, depth = same(frame.color), same(frame.depth)
        color.flags.writeable = depth.flags.writeable = same is np.array
        slam.step(replace(frame, color=color, depth=depth))
        clouds.append(slam.cloud())
    for cloud in clouds[1:]:
        np.testing.assert_array_equal(cloud.positions, clouds[0].positions)
        np.testing.assert_array_equal(cloud.colors, clouds[0].colors)


@pytest.mark.parametrize("name", [3, None])
def test_what_is_no_name_of_a_recording_is_told_in_one_line(name):
    with pytest.raises(TypeError, match="named by a text or a path"):
        open_sequence(name)
