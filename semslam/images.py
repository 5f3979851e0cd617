"""Image files as arrays in our units; one clear line where a file cannot be read as one."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from semslam.atomic import contents, is_passing_in_reading, replacing
from semslam.camera import Camera
from semslam.frame import evenly_spread
from semslam.labels import LabelSet, label_set, voc_palette

MOST_PIXELS = 64_000_000  # of an image: what decoding allocates stays below half a gigabyte
LARGEST_FILE = 1 << 29  # bytes
COLOR_SUFFIXES = (".jpg", ".jpeg", ".png")  # in small letters, of colour images
DEPTH_SCALES = (1000, 256, 100)  # units per metre of depth that is written: the coarser ones for farther scenes
MOST_LABEL_COLORS = 256  # of a colour-coded label image
FEWEST_IN_COLOR = 0.2  # share of the pixels that are not black whose colours must be a label set's
MOST_GREY_IDS = 64  # of a label image whose three channels are alike: its ids
LABELS_LOOKED_AT = 40  # label images by which it is found out how a data set counts
_PNG = b"\x89PNG\r\n\x1a\n"
_ZEROS = bytes(1024)
_MANY_ZEROS = re.compile(rb"\x00{1024,}")
SURELY_FLAT = 0.5  # of the pixels of flat blocks: those at edges may differ from their neighbours
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # D0 to D7 restart it


class CorruptFrame(ValueError):
    """A frame that cannot be used; the message names the file and the problem."""

    def __init__(self, message: str, broken_file: bool = False) -> None:
        super().__init__(message)
        self.broken_file = broken_file  # missing or damaged: chance, rather than a wrong kind of file


def read_color(path: Path, upright: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file; grey is repeated, alpha dropped, 16-bit colour reduced to 8.

    Args:
        upright: turn the image as its EXIF orientation says, as viewers do. A recording's images stay as their pixels
            lie, where its camera's intrinsics hold.

    Raises:
        CorruptFrame: the file is missing, cut short, damaged, too large, no image, or a depth image.
    """
    return color_of_bytes(image_bytes(path), path, upright)


def color_of_bytes(data: bytes, path: object, upright: bool = False) -> np.ndarray:
    """The same of an image file's bytes; `path` is named where they hold no image."""
    import cv2

    turning = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    image = decode_bytes(data, path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | turning)
    if image.dtype == np.uint16 and image.ndim == 3:
        image = (image >> 8).astype(np.uint8)
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
    Readings that are NaN, infinite or negative become 0 = none. Bytes (uint8) are too coarse to be depth.
    """
    import cv2

    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        raw = _npy_of_bytes(data, path)
    elif suffix == ".exr":
        raw = _exr_of_bytes(data, path)
    else:
        raw = decode_bytes(data, path, cv2.IMREAD_UNCHANGED)
    if raw.dtype == np.uint16 and raw.ndim == 2:
        return raw * np.float32(1 / depth_scale)
    floats = suffix != ".png" and np.issubdtype(raw.dtype, np.floating)
    whole = suffix == ".npy" and np.issubdtype(raw.dtype, np.integer) and raw.dtype.itemsize > 1
    if raw.ndim != 2 or not (floats or whole):
        raise _no_depth(path, raw)
    metres = raw.astype(np.float32) * np.float32(1 / depth_scale if whole else 1)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


def fitting_scale(depth: np.ndarray, depth_scale: float = DEPTH_SCALES[0]) -> float:
    """Units per metre in which 16 bits hold all of `depth` (metres): `depth_scale`, or the next of DEPTH_SCALES below.

    Depth beyond 655 m fits none; the smallest scale is returned for it.
    """
    coarser = [scale for scale in DEPTH_SCALES if scale < depth_scale]
    fits = (s for s in (depth_scale, *coarser) if np.rint(depth.max(initial=0.0) * s) < 65536)
    return next(fits, min(depth_scale, DEPTH_SCALES[-1]))


def depth_units(depth: np.ndarray, depth_scale: float = 1000.0) -> np.ndarray:
    """(H, W) uint16 of depth (H, W) in metres, `depth_scale` units per metre; what does not fit becomes 0 = none."""
    units = np.rint(depth * depth_scale)
    return np.where(units < 65536, units, 0).astype(np.uint16)


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


def read_labels(path: Path, classes: str | LabelSet = "nyu40") -> np.ndarray:
    """(H, W) ids in memory, 255 = unlabelled, of a label image.

    The image holds the file ids of the label set in one channel, or the colours of one of its palettes; then colours
    outside the palette are unlabelled (in KITTI's images, five classes that its six leave out). In an image with a
    palette of its own the numbers count where that is a grey ramp or PASCAL VOC's, else the colours.

    Raises:
        CorruptFrame: the file cannot be read, or holds something else.
    """
    known, image = label_set(classes), label_image(path)
    try:
        if image.ndim == 3 and image.dtype == np.uint8:
            return _labels_of_colors(image, known, path)
        return known.from_file_ids(image, path)
    except ValueError as problem:
        raise CorruptFrame(str(problem)) from None


def label_image(path: Path) -> np.ndarray:
    """A label image as its file holds it: ids (H, W), or colours (H, W, 3) RGB."""
    import cv2

    data = image_bytes(path)
    if data[:8] == _PNG and data[25:26] == b"\x03":  # has a palette, of which OpenCV would return the colours
        return _ids_or_colors(data, path)
    image = decode_bytes(data, path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and image.dtype == np.uint8:
        image = image[:, :, 2::-1]
        if (image == image[:, :, :1]).all() and image.max() <= MOST_GREY_IDS:  # ids, repeated in three channels
            return image[:, :, 0]
    return image


def _ids_or_colors(data: bytes, path: Path) -> np.ndarray:
    """The numbers (H, W) of a PNG with a palette where it only makes ids visible, else its colours (H, W, 3)."""
    from PIL import Image

    check_header(data, path)
    try:
        with Image.open(io.BytesIO(data)) as file:
            numbers = np.asarray(file)
            stored = np.asarray(file.getpalette("RGB"), np.uint8).reshape(-1, 3)
    except (OSError, SyntaxError, ValueError) as problem:  # what Pillow raises for damaged files
        raise CorruptFrame(f"{path}: the file is damaged ({problem}); copy it again", broken_file=True) from None
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(stored)] = stored
    return numbers if _shows_ids(palette, np.unique(numbers)) else palette[numbers]


def _shows_ids(palette: np.ndarray, used: np.ndarray) -> bool:
    """Whether a palette is a ramp of grey, or PASCAL VOC's, whose colours follow from the id."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    voc = np.concatenate([np.zeros((1, 3), np.uint8), voc_palette(255)])
    return any(np.array_equal(palette[used], usual[used]) for usual in (ramp, voc))


def _labels_of_colors(image: np.ndarray, known: LabelSet, path: Path) -> np.ndarray:
    """(H, W) ids in memory of a label image (H, W, 3) in the colours of a label set."""
    rgb = image.astype(np.int32)
    codes = (rgb[:, :, 0] << 16) | (rgb[:, :, 1] << 8) | rgb[:, :, 2]
    colors, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(colors) > MOST_LABEL_COLORS:
        raise ValueError(f"{path}: has {len(colors)} colours, as photos and JPEG files have; expected a label image")
    best = np.full(len(colors), known.unlabelled, known.dtype)
    for palette in known.palettes.values() if known.palettes else (known.colors,):
        red, green, blue = palette.astype(np.int32).T
        ids = {code: number for number, code in enumerate(((red << 16) | (green << 8) | blue).tolist())}
        found = np.array([ids.get(code, known.unlabelled) for code in colors.tolist()], known.dtype)
        if counts[found != known.unlabelled].sum() > counts[best != known.unlabelled].sum():
            best = found
    labelled, black = counts[best != known.unlabelled].sum(), counts[colors == 0].sum()
    if not labelled or labelled < FEWEST_IN_COLOR * (counts.sum() - black):
        raise ValueError(
            f"{path}: {'no pixel has' if not labelled else f'only {labelled / counts.sum():.0%} of the pixels have'} "
            f"a colour of {known.name}; expected its colours, or ids in one channel"
        )
    return best[places].reshape(codes.shape)


def numbering(paths: Sequence[Path], classes: str, first_id: int | None = None) -> LabelSet:
    """The label set as these files count it: `first_file_id` is 0 where they call void 255 and no class 40.

    Void as 0 before classes 1..40, and void as 255 after classes 0..39, are both in use for NYU's classes. Where the
    files show neither, they are taken for the usual one.

    Args:
        paths: label images of one data set, some of which are looked at.
        first_id: 0 or 1 where it is known.

    Raises:
        CorruptFrame: they hold nothing but 0 and 1, or nothing but void and one class: masks, not classes.
    """
    known = label_set(classes)
    ids: set[int] = set()
    for path in evenly_spread(paths, LABELS_LOOKED_AT):
        try:
            image = label_image(path)
        except CorruptFrame:  # said when it is read
            continue
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            return known  # colours; or refused when read
        ids |= set(np.flatnonzero(np.bincount(image.ravel())).tolist())
    kinds = ids - {known.unlabelled}
    void = known.unlabelled if known.first_file_id == 0 else 0
    if ids - {void} and len(known) > 2 and max(kinds, default=0) <= 1:
        raise CorruptFrame(
            f"{paths[0].parent}: the label images hold nothing but {', '.join(map(str, sorted(ids)))}, as masks do; "
            f"expected the classes of {known.name}; give labels, or move these images away"
        )
    if first_id is None:
        counts_from_0 = known.unlabelled in ids and max(kinds, default=0) < len(known)
        first_id = 0 if counts_from_0 else known.first_file_id
    return known if first_id == known.first_file_id else replace(known, first_file_id=first_id)


@dataclass(frozen=True)
class LabelReader:
    """`read_labels` for the label images of one data set: how they count is found out when the first one is read."""

    paths: tuple[Path, ...]
    classes: str

    def __call__(self, path: Path) -> np.ndarray:
        return read_labels(path, self._counted)

    @cached_property
    def _counted(self) -> LabelSet:
        return numbering(self.paths, self.classes)


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
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        image = None
    if image is None or (_ZEROS in data and _is_zero_filled(data, image)):
        raise CorruptFrame(f"{where}: the file is no image or is damaged; copy it again", broken_file=True)
    return image


def _is_zero_filled(data: bytes, image: np.ndarray) -> bool:
    """Whether a page of a JPEG was never written: decoders draw noise from it without a word.

    Many zeros in a row are sound where they code blocks of one colour, that of the block before, and the image has as
    many of these. Told of Huffman-coded images in one sequential scan [ITU T.81: B.2, F.1.2]; in some scans of a
    progressive one, most of any image is zeros.
    """
    if data[:2] != b"\xff\xd8":
        return False
    codes: dict[int, tuple[int, int]] = {}  # of each Huffman table: the value that nothing but zeros code, their number
    blocks: dict[int, int] = {}  # of each component in a unit of the scan
    units = 0  # of the whole image
    for kind, start, end in _jpeg_segments(data):
        if kind == 0xC4:
            codes |= _codes_of_zeros(data[start + 2 : start + int.from_bytes(data[start : start + 2], "big")])
        elif kind in (0xC0, 0xC1):
            height, width, count = struct.unpack_from(">HHB", data, start + 3)
            parts = data[start + 8 : start + 8 + 3 * count]
            sampling = [(1, 1)] if count == 1 else [(hv >> 4, hv & 15) for hv in parts[1::3]]
            blocks = {number: h * v for number, (h, v) in zip(parts[::3], sampling)}
            wide, high = (8 * max(several) for several in zip(*sampling))  # pixels of a unit
            units = math.ceil(width / wide) * math.ceil(height / high)
        elif kind == 0xDA and 0 < len(blocks) == data[start + 2]:
            zeros = sum(len(found[0]) for found in _MANY_ZEROS.finditer(data, start, end))
            used = data[start + 3 : start + 3 + 2 * len(blocks)]
            texture = 1, 1
            pairs = [
                (n, codes.get(t >> 4, texture), codes.get(16 | t & 15, texture)) for n, t in zip(used[::2], used[1::2])
            ]
            bits = sum(blocks[n] * (dc[1] + ac[1]) for n, dc, ac in pairs)
            if not zeros or any(dc[0] or ac[0] for _, dc, ac in pairs):  # a difference to the block before, or texture
                return zeros > 0
            same = (image[1:, 1:] == image[:-1, 1:]) & (image[1:, 1:] == image[1:, :-1])
            flat = same if image.ndim == 2 else same.all(axis=2)
            return float(flat.mean()) < SURELY_FLAT * 8 * zeros / bits / units
    return False


def _codes_of_zeros(tables: bytes) -> dict[int, tuple[int, int]]:
    """Of each Huffman table of a segment, by its class and number: the value whose code is nothing but zeros, the first
    and shortest one, and how many bits it has."""
    found = {}
    while len(tables) > 17:
        counts = tables[1:17]
        found[tables[0]] = tables[17], next((n for n, count in enumerate(counts, start=1) if count), 16)
        tables = tables[17 + sum(counts) :]
    return found


def check_header(data: bytes, where: object) -> None:
    """CorruptFrame unless these are the bytes of a whole image of at most `MOST_PIXELS`; nothing is decoded.

    Decoders differ in what they make of half a file; some return a grey half without a word. And they allocate what
    a header claims: a PNG of some kilobytes may unfold to gigabytes.
    """
    if not data:
        raise CorruptFrame(f"{where}: the file is empty; copy it again", broken_file=True)
    if data.startswith(b"version https://git-lfs"):
        raise CorruptFrame(f"{where}: is a pointer of Git LFS; fetch the files (git lfs pull)", broken_file=True)
    if data[:8] == _PNG:
        size = _size_of_png(data)
    elif data[:2] == b"\xff\xd8":
        size = _size_of_jpeg(data)
    else:
        size = _size_by_pillow(data)
        if size is None:
            raise CorruptFrame(f"{where}: the file is no image or is damaged; copy it again", broken_file=True)
    if size is None:
        raise CorruptFrame(f"{where}: the file is truncated ({len(data)} bytes); copy it again", broken_file=True)
    width, height = size
    if not 0 < width * height <= MOST_PIXELS:
        raise CorruptFrame(
            f"{where}: claims {width}x{height} pixels; expected at most {MOST_PIXELS // 10**6} million: make it smaller"
        )


def _size_of_png(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG; None where a chunk that is needed is cut short or damaged [PNG: 5, 11]."""
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        # the case of the first letter says whether a decoder can do without the chunk
        if end > len(data) or (kind[:1].isupper() and zlib.crc32(data[place + 4 : end - 4]) != _number(data, end - 4)):
            return None
        if kind == b"IEND":
            return _number(data, 16), _number(data, 20)
        place = end
    return None


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG; None where its end is missing [ITU T.81: B.1].

    Its segments are followed, because thumbnails have sizes and ends of their own, and cameras append things.
    """
    size = None
    for kind, start, _ in _jpeg_segments(data):
        if kind == 0xD9:
            return size
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, start + 3)
            size = width, height
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The kind of each segment, where its content starts, and where the next one's marker is; up to the end of the
    image. The content of a scan goes on beyond the markers in it that restart it."""
    place = 2
    while (marker := _JPEG_MARKER.search(data, place)) is not None:
        place, kind = marker.end(), data[marker.end() - 1]
        if kind == 0xD9:
            yield kind, place, place
            return
        if kind == 0x01 or 0xD0 <= kind <= 0xD8:  # these have no content
            continue
        if place + 7 > len(data):
            return
        start = place
        place += struct.unpack_from(">H", data, place)[0]
        if kind == 0xDA:
            following = _END_OF_SCAN.search(data, place)
            place = len(data) if following is None else following.start()
        yield kind, start, place


def _number(data: bytes, place: int) -> int:
    return int(struct.unpack_from(">I", data, place)[0])


def _size_by_pillow(data: bytes) -> tuple[int, int] | None:
    """(width, height) of an image of another kind (TIFF, WebP, PNM, ...); None where the kind is unknown."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:  # reads the header alone
            return image.size
    except Image.DecompressionBombError:
        return MOST_PIXELS, MOST_PIXELS
    except Exception:  # whatever a damaged header makes it raise
        return None


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
