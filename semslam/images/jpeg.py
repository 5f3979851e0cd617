"""Whether the Huffman codes of a JPEG are whole: decoders draw noise from damaged ones without a word.

Every scan must hold as many blocks as the image has, in valid codes, and end where they end [ITU T.81: B, F.2, G.2].
What damage leaves behind hardly ever does. No pixel is computed.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from semslam.images.jpeg_kernels import MARGIN, SHORT, WORDS, Stream
from semslam.images.jpeg_tables import STANDARD

HUFFMAN = (0xC0, 0xC1, 0xC2)  # frames that are looked at: sequential, extended, progressive
PROGRESSIVE = 0xC2
MOST_REMEMBERED = 100_000  # files, a hundred bytes each
_found: dict[int, bool] = {}  # whether a file is damaged, by the hash of its bytes
# Before these, FF may be repeated; to search for that, too, takes forty times as long.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # D0 to D7 restart it
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


class Component(NamedTuple):
    """One of the colour channels."""

    h: int  # sampling factors
    v: int
    coded: np.ndarray  # (rows, columns) uint64: the coefficients of each block that are not 0 so far, a bit each


@dataclass
class _Frame:
    """What the headers say of the image, up to a scan."""

    kind: int
    size: tuple[int, int]  # pixels, height and width
    components: dict[int, Component]
    tables: dict[int, bytes] = field(default_factory=dict)  # of codes, as they are written, by class and number
    interval: int = 0  # units between two restarts; 0 = none
    seen: set[int] = field(default_factory=set)  # components of which there was a scan

    @property
    def sampling(self) -> tuple[int, int]:
        """Blocks of a unit, vertically and horizontally."""
        return max(c.v for c in self.components.values()), max(c.h for c in self.components.values())

    @property
    def units(self) -> tuple[int, int]:
        """Rows and columns of the units of an interleaved scan."""
        return math.ceil(self.size[0] / (8 * self.sampling[0])), math.ceil(self.size[1] / (8 * self.sampling[1]))

    def blocks(self, part: Component) -> tuple[int, int]:
        """Rows and columns of the blocks of a component in a scan of its own."""
        pixels = zip(self.size, (part.v, part.h), self.sampling)
        rows, columns = (math.ceil(math.ceil(side * own / most) / 8) for side, own, most in pixels)
        return rows, columns


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The kind of each segment, where its content starts, and where the next one's marker is; up to the end of the
    image. The content of a scan goes on beyond the markers in it that restart it."""
    place = 2
    while (marker := _MARKER.search(data, place)) is not None:
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


def is_damaged(data: bytes) -> bool:
    """Whether the codes of a JPEG, whose segments are there, are not those of its image; False for kinds without.

    A recording's images are read more than once: what was found is remembered.
    """
    key = hash(data)
    if (found := _found.get(key)) is None:  # other threads store and forget, too
        if len(_found) >= MOST_REMEMBERED:
            _found.clear()
        found = _found[key] = _judged(data)
    return found


def _judged(data: bytes) -> bool:
    try:
        return _is_damaged(data)
    except (struct.error, IndexError, KeyError, ValueError, ZeroDivisionError):  # headers that do not fit together
        return True


def _is_damaged(data: bytes) -> bool:
    frame: _Frame | None = None
    tables = STANDARD
    interval = 0
    for kind, start, end in segments(data):
        content = data[start + 2 : start + int.from_bytes(data[start : start + 2], "big")]
        if kind == 0xC4:
            tables = tables | _tables(content)
        elif kind == 0xDD:
            interval = int.from_bytes(content[:2], "big")
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC8, 0xCC):
            if kind not in HUFFMAN or frame is not None or content[1:3] == b"\0\0":  # lossless, arithmetic, ...
                return False
            frame = _frame(kind, content)
        elif kind == 0xDA:
            if frame is None:
                return True
            frame.tables, frame.interval = tables, interval
            if not _scan_is_whole(frame, content, data[start + 2 + len(content) : end]):
                return True
    return frame is None or len(frame.seen) < len(frame.components)


def _frame(kind: int, content: bytes) -> _Frame:
    _, height, width, count = struct.unpack_from(">BHHB", content)
    parts = content[6 : 6 + 3 * count]
    sampling = {number: (hv >> 4, hv & 15) if count > 1 else (1, 1) for number, hv in zip(parts[::3], parts[1::3])}
    h, v = (max(of) for of in zip(*sampling.values()))
    rows, columns = math.ceil(height / (8 * v)), math.ceil(width / (8 * h))
    components = {
        number: Component(own_h, own_v, np.zeros((rows * own_v, columns * own_h), np.uint64))
        for number, (own_h, own_v) in sampling.items()
    }
    return _Frame(kind, (height, width), components)


def _tables(content: bytes) -> dict[int, bytes]:
    found = {}
    while len(content) > 16:
        length = 17 + sum(content[1:17])
        found[content[0]] = content[1:length]
        content = content[length:]
    return found


@lru_cache(maxsize=16)  # most recordings have the same few
def _stacked(*tables: bytes) -> np.ndarray:
    """(C, ...) uint16 of C tables: see `_table`."""
    return np.stack([_table(table) for table in tables])


def _table(content: bytes) -> np.ndarray:
    """(65536 + 512,) uint16: bits << 8 | value of the code that 16 bits begin with, 0 where there is none [T.81: C.2];
    then the same of the codes of at most 9 bits, found by these 9: a table that processors keep at hand.

    content: the number of codes of each length, and their values.
    """
    content = content or bytes(16)
    bits = np.repeat(np.arange(1, 17), list(content[:16]))
    codes = (bits << 8 | np.frombuffer(content[16:], np.uint8)).astype(np.uint16)
    table = np.repeat(codes, 1 << (16 - bits))
    if len(table) > WORDS:
        raise ValueError("more codes than bits can tell apart")
    table = np.pad(table, (0, WORDS - len(table)))
    short = table[:: 1 << (16 - SHORT)]
    return np.concatenate([table, np.where(short >> 8 <= SHORT, short, np.uint16(0))])


def _scan_is_whole(frame: _Frame, header: bytes, data: bytes) -> bool:
    """Whether the codes of a scan are all there, and no more; what it codes is noted in the frame."""
    from semslam.images import jpeg_kernels as kernels

    count = header[0]
    selected = header[2 : 2 + 2 * count : 2]
    first, last, bits = header[1 + 2 * count : 4 + 2 * count]
    progressive, refined = frame.kind == PROGRESSIVE, bits >> 4 > 0
    parts = [frame.components[number] for number in header[1 : 1 + 2 * count : 2]]
    frame.seen.update(header[1 : 1 + 2 * count : 2])
    if progressive and first > 0:
        rows, columns = frame.blocks(parts[0])
        (table,) = _stacked(frame.tables[16 | selected[0] & 15])
        stream = _stream(data, frame.interval, rows * columns)
        return stream is not None and kernels.ac_scan(
            stream, table, parts[0].coded[:rows, :columns], first, min(last, 63), refined
        )
    units = math.prod(frame.blocks(parts[0]) if count == 1 else frame.units)
    order = [0] if count == 1 else [i for i, part in enumerate(parts) for _ in range(part.h * part.v)]
    dc = _stacked(*(b"" if progressive and refined else frame.tables[s >> 4] for s in selected))
    ac = _stacked(*(b"" if progressive else frame.tables[16 | s & 15] for s in selected))
    stream = _stream(data, frame.interval, units)
    return stream is not None and kernels.scan(stream, np.array(order), dc, ac, not progressive, refined)


def _stream(data: bytes, interval: int, units: int) -> Stream | None:
    """The bits of a scan of so many units; None where its restarts are not where they should be."""
    parts = _RESTART.split(data) if interval else [data]
    if interval and len(parts) != math.ceil(units / interval):
        return None
    parts = [part.rstrip(b"\xff").replace(b"\xff\x00", b"\xff") for part in parts]
    ends = np.cumsum([len(part) for part in parts])
    joined = np.frombuffer(b"".join(parts) + bytes(MARGIN), np.uint8)
    return Stream(joined, ends, min(interval, units) or units, units)
