"""Whether the bytes of an image file are a whole image of a sane size, told from its header and its segments."""

from __future__ import annotations

import io
import struct
import zlib

from semslam.images import jpeg

MOST_PIXELS = 64_000_000  # of an image: what decoding allocates stays below half a gigabyte
PNG = b"\x89PNG\r\n\x1a\n"
OF_PHONES = (b"ftyphei", b"ftypmif1", b"ftypmsf1", b"ftypavi")  # HEIC and AVIF, after four bytes


class CorruptFrame(ValueError):
    """A frame that cannot be used; the message names the file and the problem."""

    def __init__(self, message: str, broken_file: bool = False) -> None:
        super().__init__(message)
        self.broken_file = broken_file  # missing or damaged: chance, rather than a wrong kind of file


def no_image(where: object) -> CorruptFrame:
    """What is raised of bytes that nothing reads as an image."""
    return CorruptFrame(f"{where}: the file is no image or is damaged; copy it again", broken_file=True)


def check_header(data: bytes, where: object) -> None:
    """CorruptFrame unless these are the bytes of a whole image of at most `MOST_PIXELS`; nothing is decoded.

    Decoders differ in what they make of half a file; some return a grey half without a word. And they allocate what
    a header claims: a PNG of some kilobytes may unfold to gigabytes.
    """
    if not data:
        raise CorruptFrame(f"{where}: the file is empty; copy it again", broken_file=True)
    if data.startswith(b"version https://git-lfs"):
        raise CorruptFrame(f"{where}: is a pointer of Git LFS; fetch the files (git lfs pull)", broken_file=True)
    if data.startswith(OF_PHONES, 4):
        raise CorruptFrame(f"{where}: is a HEIC or AVIF image, which is not read; convert it to JPEG or PNG")
    if data[:8] == PNG:
        size = _size_of_png(data)
    elif data[:2] == b"\xff\xd8":
        size = _size_of_jpeg(data)
    else:
        size = _size_by_pillow(data)
        if size is None:
            raise no_image(where)
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
    for kind, start, _ in jpeg.segments(data):
        if kind == 0xD9:
            return size
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, start + 3)
            size = width, height
    return None


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
