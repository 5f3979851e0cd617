"""Numeric arrays of a MATLAB 5 file (.mat before v7.3), each read within its bounds.

SciPy's reader trusts the sizes in a file: damaged ones end in exceptions of many kinds, and some end the process. The
form is that of "MAT-File Format", The MathWorks: a header of 128 bytes, then elements of (type, bytes) with padding.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from semslam.files.reading import contents

LARGEST = 64 << 20  # bytes of a file or of what it unpacks to
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15


def read_mat5(path: str | Path) -> dict[str, np.ndarray]:
    """The two-dimensional numeric arrays of a file by name; others are left out. ValueError where it is damaged."""
    data = contents(path, LARGEST)
    if len(data) < 128 or data[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise ValueError(f"{path}: is no MATLAB 5 file; expected the splits.mat of the data set")
    order = "<" if data[126:128] == b"IM" else ">"
    arrays: dict[str, np.ndarray] = {}
    try:
        for kind, payload in _elements(data[128:], order):
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(payload, LARGEST)
                for inner, matrix in _elements(unpacked, order):
                    _add(arrays, inner, matrix, order)
            else:
                _add(arrays, kind, payload, order)
    except (ValueError, struct.error, zlib.error) as problem:
        raise ValueError(f"{path}: damaged ({problem}); copy it again") from None
    return arrays


def _elements(data: bytes, order: str) -> list[tuple[int, bytes]]:
    """(type, payload) of the elements of a run of bytes; ValueError where one reaches beyond it."""
    found, at = [], 0
    while at + 8 <= len(data):
        kind, count = struct.unpack_from(f"{order}II", data, at)
        start, end = at + 8, at + 8 + count
        if kind >> 16:  # the small form: two bytes of length, two of type, and the payload in the other four
            kind, count = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 4 + count
            if count > 4:
                raise ValueError(f"an element of {count} bytes in a place for 4")
            at += 8
        else:
            at = end if kind == _COMPRESSED else start + -(-count // 8) * 8
        if end > len(data):
            raise ValueError("an element is longer than the file")
        found.append((kind, data[start:end]))
    return found


def _add(arrays: dict[str, np.ndarray], kind: int, payload: bytes, order: str) -> None:
    if kind != _MATRIX:
        return
    parts = _elements(payload, order)
    if len(parts) < 4:
        return
    _, (_, size), (_, name), (type_, numbers) = parts[:4]
    if len(size) != 8 or type_ not in _TYPES:
        return
    shape = struct.unpack(f"{order}ii", size)
    values = np.frombuffer(numbers, np.dtype(order + _TYPES[type_]))
    if min(shape) < 0 or shape[0] * shape[1] != len(values):
        raise ValueError(f"{len(values)} numbers for an array of {shape[0]}x{shape[1]}")
    arrays[name.decode("latin-1")] = values.reshape(shape, order="F")
