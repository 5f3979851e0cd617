"""Only regular files are read, of a bounded size, and as the text they are."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-zip"}
LARGEST_TEXT = 64 << 20  # bytes; half a million poses


def regular_size(path: str | Path) -> int:
    """The bytes of a regular file; FileNotFoundError where there is nothing, ValueError where it is no file.

    Pipes and devices must not be opened: reading one could wait, or go on, for ever.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except ValueError as error:  # a null byte in it
        raise ValueError(f"{str(path)!r}: cannot be a file's name ({error})") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe or a device"
        raise ValueError(f"{path}: is a {kind}, expected a file")
    return found.st_size


def contents(path: str | Path, largest: int = 1 << 30) -> bytes:
    """The content of a regular file of at most `largest` bytes.

    Raises FileNotFoundError where there is nothing, other OSErrors where it cannot be read, ValueError for what is no
    file or too large for one; each names the path.
    """
    size = regular_size(path)
    if size > largest:
        raise ValueError(f"{path}: has {size / 1e6:.1f} MB, expected at most {largest / 1e6:.1f} MB")
    return Path(path).read_bytes()


def text_of(path: str | Path, expected: str = "text", largest: int = LARGEST_TEXT) -> str:
    """The text of a UTF-8 file, or of a UTF-16 file as Windows writes them, without its byte order mark.

    Raises as `contents`; ValueError where it is no text.
    """
    try:
        return _decoded(contents(path, largest), path)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not a text file, expected {expected}") from None


def names_of(path: str | Path) -> str:
    """The text of a file that lists file names, which may be in any encoding: decoded as Python decodes these.

    Raises as `contents`; ValueError where it is no text: packed, or UTF-16 that is cut.
    """
    try:
        return _decoded(contents(path, LARGEST_TEXT), path, "surrogateescape")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not a text file, expected a list of names") from None


def _decoded(data: bytes, path: str | Path, errors: str = "strict") -> str:
    for start, kind in PACKED.items():
        if data.startswith(start):
            raise ValueError(f"{path}: is compressed ({kind}), expected text; unpack it first")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig", errors)
