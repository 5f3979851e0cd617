"""A wall seen straight on by a noisy camera that moves along it: what is on the wall decides which motions show."""

from __future__ import annotations

import cv2
import numpy as np

from semslam.camera import SENSORS, Camera, depth_std
from semslam.frame import Frame

CAMERA = Camera(160, 120, 131.0, 131.0, 79.5, 59.5)
AWAY = 2.0  # metres


def along_a_wall(wall: np.ndarray, metres: float, count: int, grey_noise: float, sensor: str) -> list[Frame]:
    """Frames of a camera that goes so far to the right in each, before a wall (H, W) whose grey 0..255 is as the first
    frame shows it. grey_noise: its standard deviation, grey levels. sensor: whose noise depth has, one of `SENSORS`."""
    rng, frames = np.random.default_rng(0), []
    sigma = depth_std(np.float64(AWAY), *SENSORS[sensor])
    for k in range(count):
        T = np.eye(4)
        T[0, 3] = k * metres
        shift = np.array([[1, 0, -T[0, 3] * CAMERA.fx / AWAY], [0, 1, 0]])
        grey = cv2.warpAffine(wall, shift, (CAMERA.width, CAMERA.height), borderMode=cv2.BORDER_REPLICATE)
        grey = np.clip(grey + rng.normal(0, grey_noise, CAMERA.shape) + 0.5, 0, 255).astype(np.uint8)
        depth = np.round(AWAY + rng.normal(0, sigma, CAMERA.shape), 3).astype(np.float32)
        frames.append(Frame(k, k / 30, np.repeat(grey[..., None], 3, 2), CAMERA, depth, T_world_camera=T))
    return frames


def bare() -> np.ndarray:
    """Without anything on it: only its distance and its tilt show."""
    return np.full(CAMERA.shape, 128, np.float32)


def striped() -> np.ndarray:
    """With vertical stripes, 12 pixels wide, their edges as soft as a lens makes them: motion along them is hidden."""
    return bare() + 80 * np.clip(3 * np.sin(np.arange(CAMERA.width, dtype=np.float32) * np.pi / 12), -1, 1)


def with_a_picture() -> np.ndarray:
    """With one picture, a fifth of the view: it shows all motions."""
    wall, rng = bare(), np.random.default_rng(1)
    wall[30:90, 50:120] = cv2.resize(rng.uniform(30, 220, (7, 8)).astype(np.float32), (70, 60))
    return wall
