"""Depth of files in metres, and of metres in the units of 16 bits."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semslam.frame import evenly_spread
from semslam.images.decoding import LOOKED_AT, decode, decode_bytes, image_bytes
from semslam.images.integrity import CorruptFrame
from semslam.threads import computed_once

logger = logging.getLogger(__name__)

FARTHEST_METRES = 200.0  # median of floats that may be metres: outdoors it is a tenth of it, of millimetres the tenfold
WHOLE = (".npy", ".tif", ".tiff")  # formats whose whole numbers may have a sign, or 32 bits
MARK = 65535  # what 16 bits hold at most: a mark for missing depth, or a reading beyond their range
DEPTH_SCALES = (1000, 256, 100)  # units per metre of depth that is written: the coarser ones for farther scenes


def read_uint16(path: Path) -> np.ndarray:
    """(H, W) uint16 of a depth image file, as stored."""
    import cv2

    image = decode(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise _no_depth(path, image)
    return image


def read_depth(path: Path, depth_scale: float = 1000.0) -> np.ndarray:
    """(H, W) float32 metres of a depth file, 0 = none; see `depth_of_bytes`."""
    return depth_of_bytes(image_bytes(path), path, depth_scale)


def depth_of_bytes(data: bytes, path: Path | str, depth_scale: float = 1000.0) -> np.ndarray:
    """(H, W) float32 metres of what a depth file holds; `path` tells its format and is named in messages.

    PNG, TIFF and .npy of whole numbers count `depth_scale` units per metre; TIFF, EXR and .npy of floats hold metres.
    Readings that are NaN, infinite or negative become 0 = none; so does the largest whole number of their type (65535
    in 16 bits). Bytes (uint8) are too coarse to be depth.
    """
    raw = _stored_depth(data, path)
    return _metres(raw, 1.0 if raw.dtype.kind == "f" else depth_scale)


@dataclass(frozen=True)
class DepthReader:
    """`read_depth` for the files of one recording, whose floats may be no metres after all.

    Whether they are is found out when the first is read; if not, they count `depth_scale` units per metre.
    """

    paths: tuple[Path, ...]  # of the recording
    depth_scale: float = 1000.0
    read: Callable[[Path], bytes] | None = None  # what a file holds, where it is in no folder

    def __call__(self, path: Path) -> np.ndarray:
        return self.of_bytes((self.read or image_bytes)(path), path)

    def of_bytes(self, data: bytes, path: Path | str) -> np.ndarray:
        """The same of a depth file's bytes; `path` tells its format and is named in messages."""
        raw = _stored_depth(data, path)
        return _metres(raw, self._float_scale if raw.dtype.kind == "f" else self.depth_scale)

    @computed_once
    def _float_scale(self) -> float:
        medians = []
        for path in evenly_spread(self.paths, LOOKED_AT):
            try:
                depth = depth_of_bytes((self.read or image_bytes)(path), path)
            except CorruptFrame:  # said when it is read
                continue
            medians += [float(np.median(depth[depth > 0]))] if (depth > 0).any() else []
        typical = float(np.median(medians)) if medians else 0.0
        if typical <= FARTHEST_METRES:
            return 1.0
        logger.warning(
            "%s: depth in floats, usually metres, has a median of %.0f here, and is read as %g units per metre",
            self.paths[0].parent, typical, self.depth_scale,
        )  # fmt: skip
        return self.depth_scale


def _stored_depth(data: bytes, path: Path | str) -> np.ndarray:
    """(H, W) of what a depth file holds, in its own units: 16 or 32 bits, whole or floats."""
    import cv2

    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        raw = _npy_of_bytes(data, path)
    elif suffix == ".exr":
        raw = _exr_of_bytes(data, path)
    else:
        raw = decode_bytes(data, path, cv2.IMREAD_UNCHANGED)
    floats = suffix != ".png" and np.issubdtype(raw.dtype, np.floating)
    whole = suffix in WHOLE and np.issubdtype(raw.dtype, np.integer) and raw.dtype.itemsize > 1
    if raw.ndim != 2 or not (floats or whole or raw.dtype == np.uint16):
        raise _no_depth(path, raw)
    return raw


def _metres(raw: np.ndarray, scale: float) -> np.ndarray:
    """(H, W) float32 metres, 0 = none, of what `_stored_depth` returns, in `scale` units per metre."""
    if raw.dtype == np.uint16:
        return depth_of_units(raw, scale)
    metres = raw.astype(np.float32) * np.float32(1 / scale)
    read = np.isfinite(metres) & (metres > 0)
    if raw.dtype.kind in "iu":
        read &= raw != np.iinfo(raw.dtype).max
    return np.where(read, metres, np.float32(0))


def depth_of_units(units: np.ndarray, depth_scale: float) -> np.ndarray:
    """(H, W) float32 metres, 0 = none, of depth (H, W) uint16 that counts `depth_scale` units per metre.

    MARK is no reading: 7-Scenes and others mark missing depth so, and what is farther than 16 bits count ends there.
    """
    if units.max(initial=0) == MARK:
        units = np.where(units == MARK, np.uint16(0), units)
    return units * np.float32(1 / depth_scale)


def fitting_scale(depth: np.ndarray, depth_scale: float = DEPTH_SCALES[0]) -> float:
    """Units per metre in which 16 bits hold all of `depth` (metres): `depth_scale`, or the next of DEPTH_SCALES below.

    Depth beyond 655 m fits none; the smallest scale is returned for it.
    """
    coarser = [scale for scale in DEPTH_SCALES if scale < depth_scale]
    fits = (s for s in (depth_scale, *coarser) if np.rint(depth.max(initial=0.0) * s) < MARK)
    return next(fits, min(depth_scale, DEPTH_SCALES[-1]))


def depth_units(depth: np.ndarray, depth_scale: float = 1000.0) -> np.ndarray:
    """(H, W) uint16 of depth (H, W) in metres, `depth_scale` units per metre; what does not fit becomes 0 = none."""
    units = np.rint(depth * depth_scale)
    return np.where(units < MARK, units, 0).astype(np.uint16)


def _no_depth(path: Path | str, raw: np.ndarray) -> CorruptFrame:
    channels = 1 if raw.ndim == 2 else raw.shape[2]
    remedy = "convert it (millimetres as uint16 PNG, depth_scale 1000)"
    if raw.dtype == np.uint8:  # steps of centimetres, or colours that stand for distances: no conversion undoes them
        remedy = "a picture of depth holds no distances: export them (millimetres as uint16 PNG, depth_scale 1000)"
    plural = "s" * (channels > 1)
    return CorruptFrame(
        f"{path}: depth is {raw.dtype} with {channels} channel{plural}, expected uint16 with one; {remedy}"
    )


def _npy_of_bytes(data: bytes, path: Path | str) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError):
        raise CorruptFrame(f"{path}: is no array of numbers (.npy) or is cut short", broken_file=True) from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "iuf":
        raise CorruptFrame(f"{path}: holds no array of numbers (H, W)")
    return array


def _exr_of_bytes(data: bytes, path: Path | str) -> np.ndarray:
    """(H, W) float32 of an EXR image's first channel, by OpenCV where it was built with EXR, else by OpenEXR."""
    import os
    import tempfile

    import cv2

    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        try:
            import OpenEXR
        except ImportError:
            raise ValueError(
                f"{path}: this OpenCV reads no EXR; `pip install OpenEXR`, or export depth as PNG or .npy"
            ) from None
        with tempfile.NamedTemporaryFile(suffix=".exr") as file:
            file.write(data)
            file.flush()
            try:
                channels = OpenEXR.File(file.name).channels()
            except Exception:  # the library raises its own, undocumented ones
                raise CorruptFrame(f"{path}: is no EXR image or is damaged", broken_file=True) from None
        image = next(iter(channels.values())).pixels
    return np.asarray(image if image.ndim == 2 else image[:, :, 0], np.float32)
