"""How far poses predicted from single images are from the true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """How far each predicted pose is from the true one."""

    metres: np.ndarray  # (N,) between the positions
    degrees: np.ndarray  # (N,) the angle between the orientations

    def figures(self) -> dict[str, float]:
        """Medians (what 7-Scenes is reported in) and means (RobotCar), and the share within 5 cm and 5 degrees."""
        near = (self.metres <= 0.05) & (self.degrees <= 5)
        return {
            "median_m": float(np.median(self.metres)),
            "mean_m": float(np.mean(self.metres)),
            "median_deg": float(np.median(self.degrees)),
            "mean_deg": float(np.mean(self.degrees)),
            "within_5cm_5deg": float(near.mean()),
        }


def pose_errors(predicted: np.ndarray, truth: np.ndarray) -> PoseErrors:
    """Errors of poses (N, 4, 4); the angle is 2 acos |<q, q'>| of the quaternions, computed without loss near 0."""
    if predicted.shape != truth.shape or truth.shape[1:] != (4, 4):
        raise ValueError(f"poses are {predicted.shape}, the true ones {truth.shape}; expected (N, 4, 4) of both")
    turn = np.swapaxes(truth[:, :3, :3], -1, -2) @ predicted[:, :3, :3]
    degrees = np.degrees(Rotation.from_matrix(turn).magnitude())
    return PoseErrors(np.linalg.norm(predicted[:, :3, 3] - truth[:, :3, 3], axis=1), degrees)
