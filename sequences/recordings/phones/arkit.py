"""What Apple's ARKit has in common in all exports: its axes, its confidence, depth of the lidar beside the video."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.images.resizing import resized_ids

LEAST_CONFIDENCE = 1  # of 0, 1, 2: low readings are guesses at edges and far away
# ARKit's camera looks along -z with y up; ours along +z with y down.
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def camera_to_world(T_world_arkit: np.ndarray) -> np.ndarray | None:
    """T_world_camera (4, 4) of a pose in ARKit's axes; the world stays ARKit's, y up. None where it is not rigid."""
    if not poses.is_rigid(T_world_arkit, tolerance=1e-2):
        return None
    return poses.orthonormalized(T_world_arkit) @ _FLIP


def of_quaternion(quaternion_xyzw: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(4, 4) of a rotation and a position in metres; all NaN where the quaternion is none."""
    if not np.all(np.isfinite(quaternion_xyzw)) or not 0.5 < float(np.linalg.norm(quaternion_xyzw)) < 2:
        return np.full((4, 4), np.nan)
    return poses.from_rotation_translation(Rotation.from_quat(quaternion_xyzw).as_matrix(), position)


def trusted(depth: np.ndarray, confidence: np.ndarray | None, least: int = LEAST_CONFIDENCE) -> np.ndarray:
    """Depth (H, W) float32 m without the readings of less confidence.

    confidence: (h, w), of the same view, in whatever steps counts up; the nearest pixel's counts.
    """
    if confidence is None:
        return depth
    if confidence.shape != depth.shape:
        confidence = resized_ids(confidence, depth.shape[::-1])
    return np.where(confidence >= least, depth, np.float32(0))
