"""Whether a frame or an observation that somebody made holds what the loop takes it to hold: shapes, kinds of numbers,
units."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np

from semslam import poses
from semslam.camera import Camera, same_aspect
from semslam.frame import Frame, Observation, Tracking
from semslam.trajectory import NOT_RIGID

GLANCE = 32  # rows and columns of an image that are looked at, evenly spread
FARTHEST = 200.0  # metres: where three quarters of an image lie beyond, they were counted in another unit
LEAST_SIDE = 4  # pixels of a depth image: time-of-flight sensors have 8x8 readings
NOT_ONE = 0.02  # by which probabilities may miss the sum of one: 8 bits round, resizing mixes
LAST_INDEX = 2**31 - 1  # of a frame: surfels keep it in 32 bits
METRES = "(H, W) float32 metres along z, 0 = none"
POSE = "(4, 4) float, world from camera in metres, its last row 0 0 0 1"
PROBABILITIES = "(H, W, C) float, each pixel's 0 or more and with the sum 1, or all 0 where it has no label"


def check_frame(frame: Frame) -> None:
    """ValueError, one line with the remedy, where an array of a frame cannot be what `Frame` says it is.

    It looks at shapes and kinds of numbers, at the pose, and at few readings: it costs a small part of a millisecond.
    """
    if not isinstance(frame, Frame):
        raise TypeError(f"a frame is {_kind(frame)}, expected a semslam.frame.Frame")
    if not (isinstance(frame.index, Integral) and 0 <= frame.index <= LAST_INDEX):
        raise ValueError(f"a frame's index is {frame.index!r}, expected a whole number from 0 on")
    if not (isinstance(frame.timestamp, Real) and math.isfinite(frame.timestamp)):
        raise ValueError(f"frame {frame.number}: its timestamp is {frame.timestamp!r}, expected seconds")
    if not isinstance(frame.camera, Camera):
        raise TypeError(f"frame {frame.number}: its camera is {_kind(frame.camera)}, expected a semslam.camera.Camera")
    _check_color(frame)
    if frame.depth is not None:
        _check_depth(frame, frame.depth)
    if frame.labels is not None:
        if not (_is_array(frame.labels, 2) and frame.labels.dtype == np.uint8):
            raise _wrong(frame, "labels are", frame.labels, "(H, W) uint8 class ids, 255 = unlabelled")
        _check_aspect(frame, "labels are", frame.labels)
    if frame.T_world_camera is not None:
        check_pose(frame, "T_world_camera", frame.T_world_camera, f"{POSE}, None where it is not known")


def check_observation(observation: Observation, camera: Camera) -> None:
    """The same of an observation, whoever perceived it; camera: that of the map, whose size all its images have."""
    if not isinstance(observation, Observation):
        raise TypeError(f"what was perceived is {_kind(observation)}, expected a semslam.frame.Observation")
    frame = observation.frame
    if not (
        _is_array(observation.color, 3) and observation.color.dtype == np.uint8 and observation.color.shape[2] == 3
    ):
        raise _wrong(frame, "the observation's colour is", observation.color, "(H, W, 3) uint8 RGB")
    if not (_is_array(observation.depth, 2) and observation.depth.dtype.kind == "f"):
        raise _wrong(frame, "the observation's depth is", observation.depth, METRES)
    confidence, probabilities = observation.confidence, observation.class_probabilities
    if confidence is not None and not (_is_array(confidence, 2) and confidence.dtype.kind == "f"):
        raise _wrong(frame, "the observation's confidence is", confidence, "(H, W) float, 0 or more")
    if probabilities is not None and not (_is_array(probabilities, 3) and probabilities.dtype.kind == "f"):
        raise _wrong(frame, "class probabilities are", probabilities, PROBABILITIES)
    for image in (observation.color, observation.depth, confidence, probabilities):
        if image is not None and image.shape[:2] != camera.shape:
            raise ValueError(
                f"frame {frame.number} has an image of {_size(image)}, the map's camera is "
                f"{camera.width}x{camera.height}; all images of a map need one size"
            )
    _check_readings(frame, "the observation's depth", observation.depth)
    if confidence is not None and not (seen := _glance(confidence)).min() >= 0:  # false for NaN, too
        raise ValueError(
            f"frame {frame.number}: the confidence of its depth is {seen.min():g} at places, expected 0 or more"
        )
    if probabilities is not None:
        _check_probabilities(frame, _glance(probabilities))


def check_tracking(frame: Frame, tracking: Tracking) -> None:
    """TypeError where what tracks says something else of a frame; its pose is checked where it is used."""
    if not isinstance(tracking, Tracking):
        raise TypeError(
            f"frame {frame.number}: what tracks it gave {_kind(tracking)}, expected a semslam.frame.Tracking"
        )


def check_pose(frame: Frame, what: str, T: np.ndarray, expected: str = POSE) -> None:
    """ValueError where a pose of the frame, which `what` names, is none."""
    if not (_is_array(T, 2) and T.shape == (4, 4) and T.dtype.kind == "f"):
        raise _wrong(frame, f"{what} is", T, expected)
    if poses.is_rigid(T, NOT_RIGID):
        return
    if not np.isfinite(T).all():
        problem = "holds NaN or infinity"
    elif poses.is_rigid(T.T, NOT_RIGID):
        problem = "is transposed (its translation is in the last row)"
    elif poses.is_rigid(T @ np.diag([1.0, -1.0, 1.0, 1.0]), NOT_RIGID):
        problem = "mirrors (its determinant is negative)"
    else:
        problem = "is not rigid (its rotation is scaled or sheared, or its last row another)"
    raise ValueError(f"frame {frame.number}: {what} {problem}; expected a rotation and a translation: {expected}")


def _check_color(frame: Frame) -> None:
    color = frame.color
    if not (_is_array(color, 3) and color.shape[2] == 3 and color.dtype == np.uint8):
        raise _wrong(
            frame, "colour is", color,
            "(H, W, 3) uint8 RGB from 0 to 255; repeat a grey channel three times, leave alpha out, multiply 0..1 by "
            "255 before astype(np.uint8)",
        )  # fmt: skip
    if color.shape[:2] != frame.camera.shape:
        camera = f"{frame.camera.width}x{frame.camera.height}"
        raise ValueError(
            f"frame {frame.number}: colour is {_size(color)} and its camera {camera}; give the camera of that size "
            f"(Camera.resized), or resize the image"
        )


def _check_depth(frame: Frame, depth: np.ndarray) -> None:
    if not (_is_array(depth, 2) and depth.dtype == np.float32):
        whole = isinstance(depth, np.ndarray) and depth.dtype.kind in "iu"
        remedy = "divide millimetres by np.float32(1000)" if whole else "astype(np.float32), and no third axis"
        raise _wrong(frame, "depth is", depth, f"{METRES}; {remedy}")
    if min(depth.shape) < LEAST_SIDE:
        raise ValueError(f"frame {frame.number}: depth is {_size(depth)}, expected an image: {METRES}")
    _check_aspect(frame, "depth is", depth)
    _check_readings(frame, "depth", depth)


def _check_aspect(frame: Frame, what: str, image: np.ndarray) -> None:
    if not (image.size and same_aspect(image.shape, frame.color.shape)):
        raise ValueError(
            f"frame {frame.number}: {what} {_size(image)} beside colour of {_size(frame.color)}, of another aspect; "
            f"give them as colour's camera sees them, in any size"
        )


def _check_readings(frame: Frame, what: str, depth: np.ndarray) -> None:
    """Looks at some of them, which is enough to tell another unit, and another sign of none."""
    seen = _glance(depth)
    if not 0 <= seen.min() <= seen.max() < np.inf:  # false for NaN, too
        found = "negative" if (seen < 0).any() else "infinite or NaN"
        raise ValueError(
            f"frame {frame.number}: {what} has {found} readings, expected {METRES}; set those that are none to 0"
        )
    if seen.max() > FARTHEST and (near := float(np.percentile(seen[seen > 0], 25))) > FARTHEST:
        raise ValueError(
            f"frame {frame.number}: three quarters of its depth lie beyond {near:.0f} metres; expected {METRES}; "
            f"divide millimetres by 1000"
        )


def _check_probabilities(frame: Frame, seen: np.ndarray) -> None:
    sums, least = seen.sum(axis=2), seen.min(initial=0)
    wrong = ~((np.abs(sums - 1) <= NOT_ONE) | (np.abs(sums) <= NOT_ONE))  # true for NaN, too
    if wrong.any() or least < 0:
        found = f"have the sum {sums[wrong][0]:g} at a pixel" if wrong.any() else f"are {least:g} at a pixel"
        raise ValueError(
            f"frame {frame.number}: class probabilities {found}, expected {PROBABILITIES}; scores of a network become "
            f"probabilities by a softmax"
        )


def _glance(image: np.ndarray) -> np.ndarray:
    """Some pixels of an image (H, W, ...)."""
    rows, columns = image.shape[:2]
    return image[:: max(1, rows // GLANCE), :: max(1, columns // GLANCE)]


def _is_array(image: object, axes: int) -> bool:
    """Whether it is a plain array: masked ones would be used without their mask, and matrices multiply otherwise."""
    return isinstance(image, np.ndarray) and image.ndim == axes and not isinstance(image, np.ma.MaskedArray | np.matrix)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _kind(found: object) -> str:
    if not isinstance(found, np.ndarray):
        return type(found).__name__
    name = "" if _is_array(found, found.ndim) else f"{type(found).__name__} "
    return f"{name}{found.shape} {found.dtype}"


def _wrong(frame: Frame, what: str, found: object, expected: str) -> ValueError:
    """The error of an array of another shape or kind of numbers."""
    return ValueError(f"frame {frame.number}: {what} {_kind(found)}, expected {expected}")
