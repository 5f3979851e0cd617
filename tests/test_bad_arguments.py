"""What is called from Python with something wrong: one line that says what was found and what was expected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semslam.camera import Camera
from semslam.frame import Frame, Observation, Tracking
from semslam.labels import LABEL_SETS, remap_arg_max, remap_labels
from semslam.loops.loop_closure import LoopCloser
from semslam.metrics.depth import DepthErrors
from semslam.metrics.localisation import pose_errors
from semslam.metrics.segmentation import ConfusionMatrix
from semslam.metrics.surface import mesh_reference, points_reference, surface_scores
from semslam.perception import PerceptionConfig
from semslam.slam import Slam, SlamConfig
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Trajectory
from sequences import open_sequence

CAMERA = Camera(64, 48, 60, 60, 31.5, 23.5)
DEPTH = np.full((48, 64), 2, np.float32)
FRAME = Frame(7, 0.0, np.zeros((48, 64, 3), np.uint8), CAMERA, DEPTH, np.zeros((48, 64), np.uint8), np.eye(4))
UNSURE = np.full((48, 64, 4), 0.25, np.float32)
SEEN = Observation(FRAME, CAMERA, FRAME.color, DEPTH, np.ones((48, 64), np.float32), UNSURE)
NO_LABELS = SlamConfig(PerceptionConfig(labels="none"))
LABELLED = SlamConfig(PerceptionConfig(labels="truth"))
POSES, TIMES = np.tile(np.eye(4), (3, 1, 1)), np.arange(3.0)
POINTS = np.random.default_rng(0).random((20, 3))


def perceived(**changes):
    """A step of a system whose perception is somebody's own."""
    return Slam(CAMERA, NO_LABELS, perceive=lambda frame: replace(SEEN, **changes), num_classes=4).step(FRAME)


def tracked(pose):
    """A step of a system whose tracking is somebody's own."""
    return Slam(CAMERA, NO_LABELS, track=lambda observation, predict: Tracking(pose, True)).step(FRAME)


def of_camera(**changes):
    return Slam(CAMERA, NO_LABELS).step(replace(FRAME, camera=replace(CAMERA, **changes)))


def labelled(number):
    labels = np.full((48, 64), number, np.uint8)
    return Slam(CAMERA, LABELLED, label_set="nyu13").step(replace(FRAME, labels=labels))


def depth_errors(prediction, truth):
    return DepthErrors().add(prediction, truth)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: perceived(class_probabilities=4 * UNSURE), "sum 4 at a pixel.*softmax"),
        (lambda: perceived(class_probabilities=np.nan * UNSURE), "sum nan at a pixel"),
        (lambda: perceived(class_probabilities=UNSURE + np.float32([1, -1, 0, 0])), "-0.75 at a pixel"),
        (lambda: perceived(class_probabilities=FRAME.labels), r"\(48, 64\) uint8, expected \(H, W, C\)"),
        (lambda: perceived(depth=(1000 * DEPTH).astype(np.uint16)), "depth is .* uint16"),
        (lambda: perceived(depth=1000 * DEPTH), "divide millimetres"),
        (lambda: perceived(depth=-DEPTH), "negative"),
        (lambda: perceived(color=FRAME.color / 255), "colour is .* float64"),
        (lambda: perceived(confidence=-SEEN.confidence), "-1 at places"),
        (lambda: perceived(confidence=np.full((48, 64), 255, np.uint8)), "uint8, expected"),
        (lambda: tracked(np.diag([2.0, 2, 2, 1])), "the pose is not rigid"),
        (lambda: tracked(np.eye(4)[:3]), r"the pose is \(3, 4\)"),
        (lambda: of_camera(fx=80.0), "another camera .*fx 80.*than the map"),
        (lambda: of_camera(cx=20.0), "another camera"),
        (lambda: labelled(13), r"id 13, expected 0\.\.12 of nyu13"),
        (lambda: Slam(replace(CAMERA, distortion=(0.1, 0, 0, 0)), NO_LABELS), "undistort"),
        (lambda: Slam(CAMERA, NO_LABELS, track=Tracker(), loops=LoopCloser(Tracker())), "another tracker"),
        (lambda: Camera(640, 480, 0.8, 1.1, 0.5, 0.5), "expected pixels of its 640x480"),
        (lambda: Camera(640.5, 480, 500, 500, 320, 240), "640.5x480; expected whole"),
        (lambda: Camera(640, 480, None, 500, 320, 240), "fx None"),
        (lambda: Trajectory(TIMES, 2 * POSES), "pose 0 of the trajectory is not rigid"),
        (lambda: Trajectory(TIMES[:, None], POSES), r"times \(3, 1\)"),
        (lambda: depth_errors(DEPTH, (1000 * DEPTH).astype(np.uint16)), "the truth is .* uint16"),
        (lambda: ConfusionMatrix(4).add(UNSURE, UNSURE), "float32; expected ids"),
        (lambda: surface_scores(POINTS.T, points_reference(POINTS)), r"points are \(3, 20\)"),
        (lambda: points_reference(np.nan * POINTS), "20 of 20 points are NaN"),
        (lambda: mesh_reference(POINTS, np.array([[0, 1, 20]])), "from 0 to 19"),
        (lambda: pose_errors(POSES, POSES[:2]), r"poses are \(3, 4, 4\), the true ones \(2, 4, 4\)"),
        (lambda: remap_labels(np.full((2, 2), 40, np.uint8), "nyu40", "nyu13"), "label 40 is outside nyu40"),
        (lambda: remap_arg_max(UNSURE, "nyu40", "nyu13"), "nyu40 has 40 classes, the probabilities have 4"),
        (lambda: LABEL_SETS["nyu13"].to_file_ids(np.full((2, 2), 1.5)), "float64, expected whole numbers"),
        (lambda: open_sequence("room", depth_scale="1000"), "depth-scale is 1000, expected a positive number"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_was_expected(call, says):
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Slam(CAMERA.K, NO_LABELS), r"camera is ndarray, expected semslam\.camera\.Camera"),
        (lambda: Slam(CAMERA, PerceptionConfig(labels="none")), "config is PerceptionConfig"),
        (lambda: Slam(CAMERA, NO_LABELS).step(FRAME.color), "a frame is .*expected a semslam.frame.Frame"),
        (lambda: Slam(CAMERA, NO_LABELS, perceive=lambda frame: frame).step(FRAME), "perceived is Frame"),
        (lambda: Slam(CAMERA, NO_LABELS, track=lambda *_: np.eye(4)).step(FRAME), "gave .*expected a semslam.frame.Tr"),
        (lambda: open_sequence("room", camera=(500, 500, 320, 240)), "`camera` is tuple"),
        (lambda: open_sequence("room:frames=3")[:2], "slice"),
    ],
)
def test_a_thing_of_another_type_is_one_line_that_names_the_type(call, says):
    with pytest.raises(TypeError, match=says):
        call()


def test_arrays_of_every_kind_that_hold_the_same_are_mapped_alike():
    clouds = []
    for same in (np.array, np.asfortranarray, lambda image: np.repeat(image, 2, axis=1)[:, ::2]):
        seen = replace(
            SEEN,
            **{name: same(getattr(SEEN, name)) for name in ("color", "depth", "confidence", "class_probabilities")},
        )
        slam = Slam(CAMERA, NO_LABELS, perceive=lambda frame, seen=seen: seen, num_classes=4)
        slam.step(FRAME)
        clouds.append(slam.cloud())
    for cloud in clouds[1:]:
        np.testing.assert_array_equal(cloud.positions, clouds[0].positions)
        np.testing.assert_array_equal(cloud.class_probabilities, clouds[0].class_probabilities)


def test_a_label_that_is_none_counts_as_missed_whatever_number_says_so():
    for none in (255, -1):
        matrix = ConfusionMatrix(4)
        matrix.add(np.array([[0, none, 2]]), np.array([[0, 1, none]]))
        assert matrix.counts[1, 4] == 1 and matrix.counts.sum() == 2


def test_lists_are_trajectories_and_distortions():
    assert len(Trajectory(TIMES.tolist(), POSES.tolist())) == 3
    assert hash(Camera(64, 48, 60, 60, 31.5, 23.5, [0.1, 0, 0, 0])) == hash(replace(CAMERA, distortion=(0.1, 0, 0, 0)))


def test_frames_that_a_source_cannot_give_end_the_run_with_its_own_error():
    def source():
        yield FRAME
        raise OSError("the disk is gone")

    slam = Slam(CAMERA, NO_LABELS)
    with pytest.raises(OSError, match="the disk is gone"):
        list(slam.run(source()))
    assert slam.stepped == 1
