"""Matroska files (.mkv) block by block: tracks, attachments and where each frame's bytes lie. RFC 9559 and RFC 8794."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sequences.files import read_part

SEGMENT, INFO, TRACKS, TRACK, CLUSTER, ATTACHMENTS = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0x1F43B675, 0x1941A469
TIMESTAMP_SCALE, TRACK_NUMBER, TRACK_NAME, CODEC_ID, CODEC_PRIVATE = 0x2AD7B1, 0xD7, 0x536E, 0x86, 0x63A2
VIDEO, WIDTH, HEIGHT = 0xE0, 0xB0, 0xBA
TIMESTAMP, SIMPLE_BLOCK, BLOCK_GROUP, BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
ATTACHED_FILE, FILE_NAME, FILE_DATA = 0x61A7, 0x466E, 0x465C
EBML = 0x1A45DFA3
LARGEST_ELEMENT = 1 << 26  # bytes of what is read at once; frames are not


@dataclass
class Track:
    """One track and its frames."""

    name: str
    codec: str
    private: bytes
    width: int
    height: int
    ticks: list[int] = field(default_factory=list)  # of each frame, in the file's unit
    places: list[tuple[int, int]] = field(default_factory=list)  # (first byte, bytes) of each frame


@dataclass
class Matroska:
    """What a file holds, its frames only as places."""

    path: Path
    tracks: dict[int, Track]
    attachments: dict[str, bytes]
    scale: float  # seconds a tick
    whole: bool  # False: the file ends inside an element, or one is damaged

    def track(self, name: str) -> Track | None:
        return next((track for track in self.tracks.values() if track.name == name), None)

    def timestamps(self, track: Track) -> np.ndarray:
        """(N,) float64 seconds of a track's frames."""
        return np.array(track.ticks, np.float64) * self.scale

    def frame(self, track: Track, index: int) -> bytes:
        start, size = track.places[index]
        return read_part(self.path, start, size, f"{self.path}: {track.name}, frame {index}")


def read_matroska(path: Path, frames: bool = True) -> Matroska:
    """Index a file; `frames` False stops at the first cluster. ValueError where it is no Matroska file.

    Clusters and groups of blocks are read through, not nested, so that sizes that nobody filled in do no harm; a file
    that is cut short gives what lies before the cut.
    """
    found = Matroska(path, {}, {}, 1e-3, True)
    size = path.stat().st_size
    cluster_ticks = 0
    with path.open("rb") as file:
        at, first = 0, True
        while at < size:
            file.seek(at)
            header = _header(file)
            if header is None:
                found.whole = False
                break
            kind, length, content = header
            if first and kind != EBML:
                raise ValueError(f"{path}: is no Matroska file")
            first = False
            if kind == CLUSTER and not frames:
                break
            if kind in (SEGMENT, CLUSTER, BLOCK_GROUP):
                at = content
                found.whole &= length is None or content + length <= size
                continue
            if length is None or content + length > size:
                found.whole = False
                break
            file.seek(content)
            if kind in (SIMPLE_BLOCK, BLOCK):
                _block(file, found, content, length, cluster_ticks)
            elif kind in (INFO, TRACKS, ATTACHMENTS, TIMESTAMP) and length <= LARGEST_ELEMENT:
                data = file.read(length)
                if kind == TIMESTAMP:
                    cluster_ticks = int.from_bytes(data, "big")
                else:
                    _read_head(found, kind, data)
            at = content + length
    return found


def _read_head(found: Matroska, kind: int, data: bytes) -> None:
    for inner, content in _children(data):
        values = dict(_children(content)) if kind != INFO else {}
        if inner == TIMESTAMP_SCALE:
            found.scale = int.from_bytes(content, "big") * 1e-9
        elif inner == TRACK:
            video = dict(_children(values.get(VIDEO, b"")))
            found.tracks[int.from_bytes(values.get(TRACK_NUMBER, b""), "big")] = Track(
                values.get(TRACK_NAME, b"").decode("utf-8", "replace").rstrip("\0"),
                values.get(CODEC_ID, b"").decode("ascii", "replace").rstrip("\0"),
                values.get(CODEC_PRIVATE, b""),
                int.from_bytes(video.get(WIDTH, b""), "big"),
                int.from_bytes(video.get(HEIGHT, b""), "big"),
            )
        elif inner == ATTACHED_FILE:
            name = values.get(FILE_NAME, b"").decode("utf-8", "replace").rstrip("\0")
            found.attachments[name] = values.get(FILE_DATA, b"")


def _block(file: BinaryIO, found: Matroska, content: int, length: int, cluster_ticks: int) -> None:
    """Note the place of a block's frame; blocks that lace several frames together carry no video here."""
    head = file.read(min(length, 12))
    number = _number(head, 0, keep_marker=False)
    if number is None:
        return
    track, at = number
    if track not in found.tracks or len(head) < at + 3:
        return
    ticks, flags = struct.unpack_from(">hB", head, at)
    if flags & 0x06:
        return
    found.tracks[track].ticks.append(cluster_ticks + ticks)
    found.tracks[track].places.append((content + at + 3, length - at - 3))


def _header(file: BinaryIO) -> tuple[int, int | None, int] | None:
    """(id, bytes or None = unknown, where the content starts) of the element at the file's position."""
    start = file.tell()
    data = file.read(12)
    identity = _number(data, 0, keep_marker=True)
    if identity is None:
        return None
    length = _number(data, identity[1], keep_marker=False)
    if length is None:
        return None
    unknown = length[0] == (1 << (7 * (length[1] - identity[1]))) - 1
    return identity[0], None if unknown else length[0], start + length[1]


def _number(data: bytes, at: int, keep_marker: bool) -> tuple[int, int] | None:
    """A number of variable length and where it ends; its leading zeros tell how many bytes it has."""
    if at >= len(data) or data[at] == 0:
        return None
    length = 9 - data[at].bit_length()
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ((1 << (7 * length)) - 1)), at + length


def _children(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        identity = _number(data, at, keep_marker=True)
        length = None if identity is None else _number(data, identity[1], keep_marker=False)
        if identity is None or length is None or length[1] + length[0] > len(data):
            break
        found.append((identity[0], data[length[1] : length[1] + length[0]]))
        at = length[1] + length[0]
    return found
