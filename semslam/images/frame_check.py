"""Whether a frame that somebody made holds what the loop takes it to hold: shapes, kinds of numbers, units."""

from __future__ import annotations

import numpy as np

from semslam import poses
from semslam.frame import Frame

SAME_ASPECT = 0.02  # of colour's and depth's: 1296x968 beside 640x480 is one field of view
GLANCE = 32  # rows and columns of a depth image that are looked at, evenly spread
FARTHEST = 200.0  # metres: where three quarters of an image lie beyond, they were counted in another unit
NOT_RIGID = 0.01  # by which a rotation may miss orthonormality: text files round to a few digits


def check_frame(frame: Frame) -> None:
    """ValueError, one line with the remedy, where an array of a frame cannot be what `Frame` says it is.

    It looks at shapes and kinds of numbers, at the pose, and at few readings: it costs a small part of 0.1 ms.
    """
    _check_color(frame)
    if frame.depth is not None:
        _check_depth(frame, frame.depth)
    if frame.labels is not None and not (_is_array(frame.labels, 2) and frame.labels.dtype == np.uint8):
        raise _wrong(frame, "labels are", frame.labels, "(H, W) uint8 class ids, 255 = unlabelled")
    if frame.T_world_camera is not None:
        _check_pose(frame, frame.T_world_camera)


def _check_color(frame: Frame) -> None:
    color = frame.color
    if not (_is_array(color, 3) and color.shape[2] == 3 and color.dtype == np.uint8):
        raise _wrong(
            frame, "colour is", color,
            "(H, W, 3) uint8 RGB from 0 to 255; repeat a grey channel three times, leave alpha out, multiply 0..1 by "
            "255 before astype(np.uint8)",
        )  # fmt: skip
    if color.shape[:2] != frame.camera.shape:
        size, camera = f"{color.shape[1]}x{color.shape[0]}", f"{frame.camera.width}x{frame.camera.height}"
        raise ValueError(
            f"frame {frame.number}: colour is {size} and its camera {camera}; give the camera of that size "
            f"(Camera.resized), or resize the image"
        )


def _check_depth(frame: Frame, depth: np.ndarray) -> None:
    expected = "(H, W) float32 metres along z, 0 = none"
    if not (_is_array(depth, 2) and depth.size and depth.dtype == np.float32):
        whole = isinstance(depth, np.ndarray) and depth.dtype.kind in "iu"
        raise _wrong(
            frame, "depth is", depth,
            f"{expected}; divide millimetres by np.float32(1000)" if whole else f"{expected}; astype(np.float32), and "
            f"no third axis",
        )  # fmt: skip
    (height, width), (rows, columns) = frame.color.shape[:2], depth.shape
    if abs(width * rows - height * columns) > max(SAME_ASPECT * height * columns, width, height):
        raise ValueError(
            f"frame {frame.number}: depth is {columns}x{rows} beside colour of {width}x{height}, of another aspect; "
            f"give depth as colour's camera sees it, in any size"
        )
    seen = depth[:: max(1, rows // GLANCE), :: max(1, columns // GLANCE)]
    if not 0 <= seen.min() <= seen.max() < np.inf:  # false for NaN, too
        found = "negative" if (seen < 0).any() else "infinite or NaN"
        raise ValueError(
            f"frame {frame.number}: depth has {found} readings, expected {expected}; set those that are none to 0"
        )
    if seen.max() > FARTHEST:
        readings = seen[seen > 0]
        if (near := float(np.percentile(readings, 25))) > FARTHEST:
            raise ValueError(
                f"frame {frame.number}: three quarters of its depth lie beyond {near:.0f} metres; expected {expected}; "
                f"divide millimetres by 1000"
            )


def _check_pose(frame: Frame, T: np.ndarray) -> None:
    expected = "(4, 4) float, world from camera in metres, its last row 0 0 0 1, None where it is not known"
    if not (_is_array(T, 2) and T.shape == (4, 4) and T.dtype.kind == "f"):
        raise _wrong(frame, "T_world_camera is", T, expected)
    if poses.is_rigid(T, NOT_RIGID):
        return
    if not np.isfinite(T).all():
        what = "holds NaN or infinity"
    elif poses.is_rigid(T @ np.diag([1.0, -1.0, 1.0, 1.0]), NOT_RIGID):
        what = "mirrors (its determinant is negative)"
    else:
        what = "is not rigid (its rotation is scaled or sheared, or its last row another)"
    raise ValueError(f"frame {frame.number}: T_world_camera {what}; expected a rotation and a translation: {expected}")


def _is_array(image: object, axes: int) -> bool:
    return isinstance(image, np.ndarray) and image.ndim == axes


def _wrong(frame: Frame, what: str, found: object, expected: str) -> ValueError:
    """The error of an array of another shape or kind of numbers."""
    kind = f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
    return ValueError(f"frame {frame.number}: {what} {kind}, expected {expected}")
