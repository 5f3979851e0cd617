"""The files of a recording, in a folder or in a zip archive that is read without being unpacked."""

from __future__ import annotations

import lzma
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from semslam import images
from semslam.files.failures import raise_passing
from semslam.images import CorruptFrame, unreadable
from semslam.threads import computed_once

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
PACKED = (*VIDEOS, ".bag", ".mcap", ".db3", ".klg", ".r3d", ".zip", ".sens")
SAMPLES, SAMPLE = 16, 4096  # blocks of a file that are looked at, and the bytes of each
NOT_UNPACKED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # what damage in an archive ends in
LARGEST_MEMBER = 1 << 28  # bytes of one unpacked file; an image that claims more is a forgery

# what numbers and names raise that are not there, or of another kind, where a file is not written as it should be
MALFORMED = (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError, AttributeError)


def reason(problem: BaseException) -> str:
    """What an exception says, in a line of bearable length: some quote a whole file."""
    return " ".join(f"{problem!r}".split())[:160]


class Files:
    """Files by their paths inside a recording, with forward slashes."""

    path: Path

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every file, in the order of its numbers: frame2 before frame10."""
        return tuple(sorted(self._listed(), key=lambda name: images.natural_key(Path(name.replace("/", "_")))))

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._set

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.names)

    def read(self, name: str) -> bytes:
        """The content of a file; CorruptFrame where it is missing or damaged."""
        raise NotImplementedError

    def _listed(self) -> Iterable[str]:
        raise NotImplementedError

    def root_of(self, marker: str) -> str | None:
        """What stands before `marker`, a file's path or a folder's with '/' at its end, in the first path with it.

        Archives often hold one folder that holds the recording: 'scan/', or '' where there is none.
        """
        for name in self.names:
            at = f"/{name}".find(f"/{marker}")
            if at >= 0 and (marker.endswith("/") or at + len(marker) == len(name)):
                return name[:at]
        return None

    def where(self, name: str) -> str:
        """How messages name a file."""
        return f"{self.path}/{name}"

    def under(self, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
        """Files directly in a folder ('' = the top) by their names without suffix, in order; ValueError for two of one
        name."""
        here = PurePosixPath(folder)
        found: dict[str, str] = {}
        for file in map(PurePosixPath, self.names):
            if file.parent != here or file.suffix.lower() not in suffixes or file.name.startswith("."):
                continue
            if (other := found.setdefault(file.stem, str(file))) != str(file):
                raise ValueError(f"{self.where(other)} and {file.name} are one frame; remove one")
        return found

    def image(self, name: str) -> np.ndarray:
        """An image file as RGB (H, W, 3) uint8, in the orientation of its pixels.

        16-bit colour is reduced alike in all of a folder's.
        """
        kind = _kind(name)
        if (reader := self._color_readers.get(kind)) is None:
            reader = images.ColorReader(self._alike(kind), read=self._read_path)
            reader = self._color_readers.setdefault(kind, reader)  # another thread's, if that was faster
        return reader.of_bytes(self.read(name), self.where(name))

    @computed_once
    def _color_readers(self) -> dict[tuple[str, str], images.ColorReader]:
        return {}

    def _alike(self, kind: tuple[str, str]) -> tuple[Path, ...]:
        """The files of one folder and suffix."""
        return tuple(self.path / name for name in self.names if _kind(name) == kind)

    def _read_path(self, path: Path) -> bytes:
        return self.read(path.relative_to(self.path).as_posix())

    def units(self, name: str) -> np.ndarray:
        """(H, W) of an image of one channel, as stored: depth in units of its own, confidence, ids."""
        import cv2

        image = images.decode_bytes(self.read(name), self.where(name), cv2.IMREAD_UNCHANGED)
        if image.ndim != 2:
            raise CorruptFrame(f"{self.where(name)}: has {image.shape[2]} channels, expected one")
        return image

    def depth(self, name: str, depth_scale: float = 1000.0) -> np.ndarray:
        """(H, W) float32 metres of a depth file, 0 = none: see `images.depth_of_bytes`.

        Whether floats are metres is told by all of a folder's.
        """
        kind = _kind(name)
        if (reader := self._depth_readers.get((kind, depth_scale))) is None:
            reader = images.DepthReader(self._alike(kind), depth_scale, self._read_path)
            reader = self._depth_readers.setdefault((kind, depth_scale), reader)
        return reader.of_bytes(self.read(name), self.where(name))

    @computed_once
    def _depth_readers(self) -> dict[tuple[tuple[str, str], float], images.DepthReader]:
        return {}


def _kind(name: str) -> tuple[str, str]:
    """The folder and the suffix of a file."""
    path = PurePosixPath(name)
    return str(path.parent), path.suffix


@dataclass(frozen=True, eq=False)
class Folder(Files):
    """Files in a folder."""

    path: Path

    def _listed(self) -> Iterable[str]:
        return (file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file())

    def read(self, name: str) -> bytes:
        return images.image_bytes(self.path / name)


@dataclass(frozen=True, eq=False)
class Archive(Files):
    """Files in a zip archive. Nothing is unpacked to disk, so that no path in it can lead outside."""

    path: Path
    _zip: zipfile.ZipFile = field(init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
            raise ValueError(f"{self.path}: is no zip archive, or is cut short; copy it again") from None
        object.__setattr__(self, "_zip", archive)

    def _listed(self) -> Iterable[str]:
        return (info.filename for info in self._zip.infolist() if not info.is_dir())

    def read(self, name: str) -> bytes:
        where = self.where(name)
        try:
            info = self._zip.getinfo(name)
        except KeyError:
            raise CorruptFrame(f"{where}: the file is missing", broken_file=True) from None
        if info.file_size > LARGEST_MEMBER:
            raise CorruptFrame(f"{where}: claims {info.file_size} bytes, more than any image", broken_file=True)
        try:
            with self._lock:
                return self._zip.read(info)
        except (*NOT_UNPACKED, RuntimeError, EOFError, OSError, NotImplementedError, ValueError) as problem:
            raise_passing(problem)
            raise CorruptFrame(f"{where}: cannot be unpacked ({reason(problem)})", broken_file=True) from None


def open_files(path: Path) -> Files:
    """The files of a folder or of a zip archive; ValueError where a file is no archive."""
    return Archive(path) if path.is_file() else Folder(path)


def is_zip(path: Path, *endings: str) -> bool:
    """Whether a file is a zip archive that holds a file whose path ends so, for each of `endings`."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return all(any(name.endswith(ending) for name in names) for ending in endings)


def first_readable(read: Callable[[Any], np.ndarray], names: Iterable[Any]) -> np.ndarray:
    """What `read` gives for the first name that it can read, of the first 20: one damaged file decides nothing."""
    problem: CorruptFrame | None = None
    for name in islice(names, 20):
        try:
            return read(name)
        except CorruptFrame as found:
            problem = problem or found
            if not found.broken_file:  # of a wrong kind, and so are the others
                break
    assert problem is not None, "there are names"
    raise ValueError(str(problem))


def digest_of_samples(path: Path) -> int:
    """A checksum of a file's size and of blocks spread over it, to tell it from another without reading it whole."""
    size = path.stat().st_size
    found = zlib.crc32(str(size).encode())
    with path.open("rb") as file:
        for k in range(SAMPLES):
            file.seek(k * max(size - SAMPLE, 0) // (SAMPLES - 1))
            found = zlib.crc32(file.read(SAMPLE), found)
    return found


def files_of_many_frames(path: Path) -> tuple[Path, ...]:
    """The files that hold the images of many frames each: the recording itself, what it is packed in, or those in it.

    Nothing for a folder of images.
    """
    if path.is_dir():
        return tuple(sorted(file for file in path.iterdir() if file.suffix.lower() in PACKED and file.is_file()))
    outer = next((place for place in (path, *path.parents) if place.is_file()), None)  # PART.zip/SCENE
    return (outer,) if outer is not None and outer.suffix.lower() in PACKED else ()


def read_part(path: Path, start: int, size: int, where: str) -> bytes:
    """`size` bytes of a file from `start` on; CorruptFrame where they are not there, or more than any image has."""
    if size > LARGEST_MEMBER:
        raise CorruptFrame(f"{where}: claims {size} bytes, more than any image", broken_file=True)
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as problem:
        raise unreadable(problem, where) from None
    if len(data) < size:
        raise CorruptFrame(f"{where}: is cut short", broken_file=True)
    return data


def unpacked(data: bytes, expected: int, where: str) -> bytes:
    """What zlib packed, at most one byte more than expected, so that no bomb fills the memory."""
    try:
        return zlib.decompressobj().decompress(data, expected + 1)
    except zlib.error:
        raise CorruptFrame(f"{where}: is not packed as zlib does, or is damaged", broken_file=True) from None


def check_unpacked(path: Path) -> None:
    """ValueError where a file is not there and its compressed form is: it would be taken for missing."""
    packed = path.with_name(f"{path.name}.gz")
    if packed.is_file() and not os.path.lexists(path):
        raise ValueError(f"{packed}: is compressed; unpack it (gunzip), or remove it")
