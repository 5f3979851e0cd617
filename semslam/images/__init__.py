"""Image files as arrays in our units; one clear line where a file cannot be read as one."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from semslam.atomic import contents, is_passing_in_reading, replacing
from semslam.camera import Camera
from semslam.frame import evenly_spread
from semslam.images import jpeg
from semslam.images.integrity import CorruptFrame, check_header

logger = logging.getLogger(__name__)
LARGEST_FILE = 1 << 29  # bytes
COLOR_SUFFIXES = (".jpg", ".jpeg", ".png")  # in small letters, of colour images
TWELVE_BITS = 1 << 12  # 16-bit colour that stays below holds 12 bits, as machine vision stores them
LOOKED_AT = 20  # images of a recording by which it is found out how its files count
FARTHEST_METRES = 200.0  # median of floats that may be metres: outdoors it is a tenth of it, of millimetres the tenfold
MARK = 65535  # what 16 bits hold at most: a mark for missing depth, or a reading beyond their range
DEPTH_SCALES = (1000, 256, 100)  # units per metre of depth that is written: the coarser ones for farther scenes


def read_color(path: Path, upright: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file; grey is repeated, alpha dropped, 16-bit colour reduced to 8.

    Of an image alone; those of a recording must be reduced alike, see `ColorReader`.

    Args:
        upright: turn the image as its EXIF orientation says, as viewers do. A recording's images stay as their pixels
            lie, where its camera's intrinsics hold.

    Raises:
        CorruptFrame: the file is missing, cut short, damaged, too large, no image, or a depth image.
    """
    return color_of_bytes(image_bytes(path), path, upright)


def color_of_bytes(data: bytes, path: object, upright: bool = False) -> np.ndarray:
    """The same of an image file's bytes; `path` is named where they hold no image."""
    image = _stored_color(data, path, upright)
    return _rgb(image, path, twelve_bits=image.max(initial=0) < TWELVE_BITS)


@dataclass(frozen=True)
class ColorReader:
    """`read_color` for the images of one recording, whose 16-bit colour is reduced to 8 bits alike in all of them.

    Whether it holds 12 bits is found out when the first such image is read: a dark image alone would look as if.
    """

    paths: tuple[Path, ...]  # of the recording
    upright: bool = False
    read: Callable[[Path], bytes] | None = None  # what a file holds, where it is in no folder

    def __call__(self, path: Path) -> np.ndarray:
        return self.of_bytes((self.read or image_bytes)(path), path)

    def of_bytes(self, data: bytes, path: object) -> np.ndarray:
        """The same of an image file's bytes; `path` is named where they hold no image."""
        image = _stored_color(data, path, self.upright)
        return _rgb(image, path, twelve_bits=image.dtype == np.uint16 and self._twelve_bits)

    @cached_property
    def _twelve_bits(self) -> bool:
        brightest = 0
        for path in evenly_spread(self.paths, LOOKED_AT):
            try:
                image = _stored_color((self.read or image_bytes)(path), path, self.upright)
                brightest = max(brightest, int(image.max(initial=0)))
            except CorruptFrame:  # said when it is read
                continue
        twelve_bits = brightest < TWELVE_BITS
        logger.warning(
            "%s: colour of 16 bits is read as %d bits: the brightest of its images reach %d",
            self.paths[0].parent, 12 if twelve_bits else 16, brightest,
        )  # fmt: skip
        return twelve_bits


def _stored_color(data: bytes, path: object, upright: bool) -> np.ndarray:
    """(H, W) or (H, W, 3) BGR of an image file's bytes, in the numbers that it stores."""
    import cv2

    turning = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    return decode_bytes(data, path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | turning)


def _rgb(image: np.ndarray, path: object, twelve_bits: bool) -> np.ndarray:
    """(H, W, 3) uint8 RGB of what `_stored_color` returns; CorruptFrame where that is depth."""
    import cv2

    if image.dtype == np.uint16 and image.ndim == 3:
        image = np.minimum(image >> (4 if twelve_bits else 8), 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise CorruptFrame(f"{path}: is {image.dtype} with one channel, as depth images are; expected 8-bit colour")
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


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
    Readings that are NaN, infinite or negative become 0 = none; so does 65535 in 16 bits. Bytes (uint8) are too
    coarse to be depth.
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

    @cached_property
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
    whole = suffix == ".npy" and np.issubdtype(raw.dtype, np.integer) and raw.dtype.itemsize > 1
    if raw.ndim != 2 or not (floats or whole or raw.dtype == np.uint16):
        raise _no_depth(path, raw)
    return raw


def _metres(raw: np.ndarray, scale: float) -> np.ndarray:
    """(H, W) float32 metres, 0 = none, of what `_stored_depth` returns, in `scale` units per metre."""
    if raw.dtype == np.uint16:
        return depth_of_units(raw, scale)
    metres = raw.astype(np.float32) * np.float32(1 / scale)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


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
    return CorruptFrame(
        f"{path}: depth is {raw.dtype} with {channels} channel{'s' * (channels > 1)}, expected uint16 with one; "
        f"convert it (millimetres as uint16 PNG, depth_scale 1000)"
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


def image_bytes(path: Path) -> bytes:
    """The bytes of an image file; CorruptFrame where it is missing, no regular file, or too large to be one."""
    try:
        return contents(path, LARGEST_FILE)
    except FileNotFoundError:
        raise CorruptFrame(f"{path}: the file is missing", broken_file=True) from None
    except OSError as problem:
        raise unreadable(problem, path) from None
    except ValueError as problem:
        raise CorruptFrame(str(problem)) from None


def unreadable(problem: OSError, where: object) -> OSError | CorruptFrame:
    """What to raise where a file cannot be read: CorruptFrame, or the problem itself if it is not the file's.

    Too many open files, say, would make corrupt frames of whole ones.
    """
    if is_passing_in_reading(problem):
        return problem
    return CorruptFrame(f"{where}: cannot be read ({problem.strerror})", broken_file=True)


def decode(path: Path, flags: int) -> np.ndarray:
    """The image as OpenCV decodes it with `flags`; CorruptFrame where there is no whole image of a sane size."""
    return decode_bytes(image_bytes(path), path, flags)


def decode_bytes(data: bytes, where: object, flags: int) -> np.ndarray:
    """The same of an image file's bytes; `where` they come from is named where they hold no image."""
    import cv2

    check_header(data, where)
    damaged = data[:2] == b"\xff\xd8" and jpeg.is_damaged(data)
    try:
        image = None if damaged else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        raise CorruptFrame(f"{where}: the file is no image or is damaged; copy it again", broken_file=True)
    return image


def natural_key(path: Path) -> list[tuple[int, float | str]]:
    """Sorts names as people do: frame2 before frame10, and 9.5 before 10.25 where the name is a time."""

    def key(part: str) -> tuple[int, float | str]:
        if not re.fullmatch(_NUMBER, part):
            return 1, part
        return 0, float(part) if "." in part else int(part)  # integers may have more digits than a float keeps

    return [key(part) for part in re.split(_NUMBER, path.name) if part]


# A decimal number that is the whole name, or has the digits of a time since 1970; else digits alone: part1.10 counts.
_NUMBER = re.compile(r"(^[0-9]+\.[0-9]+(?=$|\.[A-Za-z])|(?<![0-9.])[0-9]{9,}\.[0-9]+(?![0-9.]*[0-9])|[0-9]+)")


def undistorting(
    read: Callable[[Path], np.ndarray], camera: Camera, nearest: bool = False, outside: int = 0
) -> Callable[[Path], np.ndarray]:
    """`read`, with the camera's distortion removed from what it returns.

    `nearest` for depth and labels; `outside` is what pixels without a source get.
    """
    return read if camera.distortion is None else partial(_read_undistorted, read, camera, nearest, outside)


def _read_undistorted(
    read: Callable[[Path], np.ndarray], camera: Camera, nearest: bool, outside: int, path: Path
) -> np.ndarray:
    image = read(path)
    if image.shape[:2] != camera.shape:  # told by the sequence, which resizes depth of the same view
        camera = camera.resized(image.shape[1], image.shape[0])
    shift = image.dtype.type(outside)  # unsigned integers wrap around, there and back
    return camera.undistort(image - shift, nearest) + shift


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8, or one channel (H, W) uint8 or uint16, as a PNG that appears whole or not at all."""
    import cv2

    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())  # unlike imwrite, this says what is wrong with a full disk
