"""The bytes of image files, and what OpenCV makes of them; CorruptFrame where a file is no whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semslam.files.failures import is_passing_in_reading
from semslam.files.reading import contents
from semslam.images import jpeg
from semslam.images.integrity import CorruptFrame, check_header, no_image

LARGEST_FILE = 1 << 29  # bytes
LOOKED_AT = 20  # images of a recording by which it is found out how its files count


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
        raise no_image(where)
    return image
