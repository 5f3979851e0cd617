"""Whether the bytes of an image file are a whole image of a sane size, told from its header and its segments."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np

MOST_PIXELS = 64_000_000  # of an image: what decoding allocates stays below half a gigabyte
PNG = b"\x89PNG\r\n\x1a\n"
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


def check_header(data: bytes, where: object) -> None:
    """CorruptFrame unless these are the bytes of a whole image of at most `MOST_PIXELS`; nothing is decoded.

    Decoders differ in what they make of half a file; some return a grey half without a word. And they allocate what
    a header claims: a PNG of some kilobytes may unfold to gigabytes.
    """
    if not data:
        raise CorruptFrame(f"{where}: the file is empty; copy it again", broken_file=True)
    if data.startswith(b"version https://git-lfs"):
        raise CorruptFrame(f"{where}: is a pointer of Git LFS; fetch the files (git lfs pull)", broken_file=True)
    if data[:8] == PNG:
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


def is_zero_filled(data: bytes, image: np.ndarray) -> bool:
    """Whether a page of a JPEG was never written: decoders draw noise from it without a word.

    Many zeros in a row are sound where they code blocks of one colour, that of the block before, and the image has as
    many of these. Told of Huffman-coded images in one sequential scan [ITU T.81: B.2, F.1.2]; in some scans of a
    progressive one, most of any image is zeros.
    """
    if data[:2] != b"\xff\xd8" or _ZEROS not in data:
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
