"""What other depth cameras than the Kinect would record of the room: active stereo, and time of flight."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from semslam.camera import SENSORS, depth_std
from semslam.frame import Frame
from sequences.room.kinect_noise import in_shadow

PATCH = 6.0  # pixels: neighbours within a matching window err together
BASELINE = 0.05  # metres between the two infrared cameras
HOLES = 0.5  # share of the image without depth, about: where stereo finds no match


def realsense_noise(frame: Frame, incidence: np.ndarray, rng: np.random.Generator) -> Frame:
    """Active stereo: errors that grow with z^2 and are smooth over a matching window, blurred edges, and half of the
    image missing: dark and plain surfaces, shadows left of edges, blobs that come and go."""
    assert frame.depth is not None
    z = cv2.medianBlur(frame.depth, 5)  # a window sees the nearer surface beyond its edge
    noisy = z + depth_std(z, *SENSORS["realsense"]) * _smooth(rng, z.shape, PATCH)
    depth = np.where(z > 0.28, noisy, 0)
    depth[in_shadow(z, frame.camera.fx, BASELINE)] = 0
    grey = cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    texture = cv2.blur(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), (9, 9))
    # what lacks texture, is dark or seen edge-on fails first; which blobs just fail changes with every frame
    worth = texture + 0.05 * grey + 8 * incidence + 3.0 * _smooth(rng, z.shape, 12.0)
    depth[worth < np.quantile(worth, HOLES)] = 0
    return replace(frame, depth=_millimetres(depth))


def tof_noise(frame: Frame, incidence: np.ndarray, rng: np.random.Generator) -> Frame:
    """Time of flight: low noise that grows where little light returns, corners that bulge by light that bounced twice,
    pixels between two depths at edges, nothing from dark surfaces."""
    assert frame.depth is not None
    z = frame.depth
    grey = cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    returned = np.maximum(incidence, 0.05) * np.maximum(grey, 8) / 128
    sigma = depth_std(z, *SENSORS["tof"]) / np.sqrt(np.clip(returned, 0.1, 2))
    noisy = cv2.blur(z, (3, 3)) + sigma * rng.standard_normal(z.shape, np.float32)
    bounced = 0.004 * _smooth(np.random.default_rng(0), z.shape, 60.0)  # of the scene, so the same in every frame
    depth = np.where(returned > 0.04, noisy + bounced, 0)
    return replace(frame, depth=_millimetres(np.where(z > 0.25, depth, 0)))


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], pixels: float) -> np.ndarray:
    """Noise (H, W) float32 of deviation 1, smooth over about so many pixels."""
    height, width = (max(int(side / pixels), 2) + 1 for side in shape)
    coarse = rng.standard_normal((height, width), np.float32)
    fine = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return fine / max(float(fine.std()), 1e-6)


def _millimetres(depth: np.ndarray) -> np.ndarray:
    """Depth as such cameras count it."""
    return (np.rint(np.clip(depth, 0, 10) * 1000) / 1000).astype(np.float32)
