"""What a Kinect of the first generation makes of an exact depth image."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from semslam.camera import SENSORS, depth_std
from semslam.frame import Frame
from semslam.labels import LABEL_SETS

BASELINE_FOCAL = 351.3  # m px: depth = BASELINE_FOCAL / (1092.5 - raw), the NYU toolbox' formula for raw disparities
RAW_AT_INFINITY = 1092.5
NEAREST, FARTHEST = 0.5, 8.0  # metres
RAGGED = 0.5  # pixels: standard deviation of where an edge is
_TILE = 1024  # side of the pre-drawn noise fields: drawing fresh numbers would cost more than the rendering


def kinect_noise(frame: Frame, incidence: np.ndarray, rng: np.random.Generator) -> Frame:
    """The frame with noisy, quantised depth with holes, and slightly noisy colour.

    Axial deviation 1.2 mm + 1.9 mm/m^2 (z - 0.4 m)^2, edges displaced by about half a pixel (Nguyen, Izadi and
    Lovell, 3DIMPVT 2012, eq. 4, 5), quantised to whole raw disparities (Khoshelham and Elberink, Sensors 2012),
    no reading where the projector's light does not reach or glances off, and patches missing on glass.
    """
    assert frame.depth is not None and frame.labels is not None
    shape = frame.depth.shape
    gauss = _gauss_tile()
    z = _displaced(frame.depth, _cut(gauss, shape, rng), _cut(gauss, shape, rng))
    z = z + depth_std(z, *SENSORS["kinect"]) * _cut(gauss, shape, rng)
    with np.errstate(divide="ignore"):
        raw = np.rint(RAW_AT_INFINITY - BASELINE_FOCAL / z)
    z = (BASELINE_FOCAL / (RAW_AT_INFINITY - raw)).astype(np.float32)
    holes = (frame.depth <= 0) | ~(z > NEAREST) | (z > FARTHEST) | in_shadow(frame.depth, frame.camera.fx)
    glass = np.isin(frame.labels, [LABEL_SETS["nyu40"].id_of(name) for name in ("window", "television")])
    # Towards grazing incidence the light is lost; glass loses it in patches at any angle.
    lost = np.where(glass, 0.0, 2.6) + 4 * np.minimum(incidence, 0.5) - 1.2
    holes |= _cut(_patch_tile(), shape, rng) > lost
    depth = np.where(holes, np.float32(0), z)
    color = frame.color + 2.0 * np.stack([_cut(gauss, shape, rng) for _ in range(3)], axis=-1)
    return replace(frame, depth=depth, color=np.clip(color + 0.5, 0, 255).astype(np.uint8))


def in_shadow(depth: np.ndarray, focal: float, baseline: float = 0.075) -> np.ndarray:
    """Where the projector, `baseline` metres beside the camera, is blocked by something nearer.

    A point at column u is lit from column u + focal * baseline / z; going to the right those columns must grow.
    """
    lit_from = np.arange(depth.shape[1], dtype=np.float32) + focal * baseline / np.maximum(depth, 0.1)
    return lit_from < np.maximum.accumulate(lit_from, axis=1) - 1.0


def _displaced(depth: np.ndarray, du: np.ndarray, dv: np.ndarray) -> np.ndarray:
    """The depth of the pixel that lies a normal deviate of RAGGED pixels away: edges become ragged."""
    height, width = depth.shape
    v = np.clip(np.rint(np.arange(height, dtype=np.float32)[:, None] + RAGGED * dv), 0, height - 1).astype(np.int32)
    u = np.clip(np.rint(np.arange(width, dtype=np.float32)[None, :] + RAGGED * du), 0, width - 1).astype(np.int32)
    return depth[v, u]


def _cut(tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random rectangle of a field that repeats."""
    top, left = rng.integers(0, _TILE, 2)
    rows = (top + np.arange(shape[0])) % _TILE
    columns = (left + np.arange(shape[1])) % _TILE
    return tile[rows[:, None], columns[None, :]]


@cache
def _gauss_tile() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((_TILE, _TILE), dtype=np.float32)


@cache
def _patch_tile() -> np.ndarray:
    """Smooth noise of deviation 1 with patches of about 12 pixels."""
    frequency = np.fft.fftfreq(_TILE) * _TILE
    window = np.exp(-0.5 * (frequency[:, None] ** 2 + frequency[None, :] ** 2) / 30.0**2)
    window[0, 0] = 0
    field = np.fft.ifft2(np.fft.fft2(np.random.default_rng(6).standard_normal((_TILE, _TILE))) * window).real
    return (field / field.std()).astype(np.float32)
