"""A video file as frames by number, decoded one after the other where they are asked for in order."""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from semslam.images import CorruptFrame

SKIPPED_BY_DECODING = 90  # frames ahead that decoding reaches sooner than seeking
CURSORS = 3  # decoders: a map from colour alone reads the present frame, and those before and after it
ENDED = 1 << 62  # the number of no frame
LEAST_BYTES = 8  # of a frame in a file: a count that leaves less to each is a forgery
LARGEST_MOOV = 1 << 28  # bytes
MP4, MATROSKA = (".mp4", ".m4v", ".mov"), (".mkv", ".webm")  # each frame has a time of its own
WIDEST_PIXEL = 3.0  # widths over heights that a video's pixels have, or the other way round; more is a wrong number
CUT_SHORT = 0.1, 0.5  # of the length that a file announces, and seconds: it lacks more where it was cut short
SLACK = 1e-3  # seconds that times in other units may differ by


@dataclass(eq=False)
class _Cursor:
    """A decoder, and the number of the frame that it gives next."""

    capture: Any  # cv2.VideoCapture
    next: int = 0


class VideoFile:
    """Frames of a video, (H, W, 3) uint8 RGB. Any order is right; a few increasing ones at once are fast.

    Safe for threads.
    """

    def __init__(self, path: Path, upright: bool = True) -> None:
        """upright: frames as players show them, turned as the file's rotation says, and with pixels as wide as high;
        else as they are stored."""
        self.path, self.upright = path, upright
        self._lock = threading.Lock()
        self._cursors = [_Cursor(self._opened())]  # the last one was used last
        self.announced = 0.0  # seconds: what a file that was cut short says of its length
        times = mp4_times(path) if path.suffix.lower() in MP4 else None
        if times is None:
            times = self._decoded_times() if path.suffix.lower() in MP4 + MATROSKA else self._regular_times()
        self.timestamps = times  # (N,) float64 seconds
        self.shown: tuple[int, int] | None = None  # width, height of frames whose stored pixels are not square
        first = self.frame(0)
        height, width = int(first.shape[0]), int(first.shape[1])
        self.stored = width, height  # after turning
        if upright and (aspect := self._pixel_aspect()) != 1:
            self.shown = round(width * aspect), height
        self.width, self.height = self.shown or self.stored

    def frame(self, index: int) -> np.ndarray:
        """Frame `index`; CorruptFrame where it cannot be decoded."""
        import cv2

        with self._lock:
            cursor = self._cursor_for(index)
            while cursor.next < index:
                if not cursor.capture.grab():
                    cursor.next = ENDED
                    raise self._ends(index)
                cursor.next += 1
            ok, image = cursor.capture.read()
            cursor.next = index + 1 if ok else ENDED
        if not ok or image is None:
            raise self._ends(index)
        if self.shown is not None:
            image = cv2.resize(image, self.shown, interpolation=cv2.INTER_CUBIC)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _pixel_aspect(self) -> float:
        """How many times as wide as high the stored pixels are, by the file; 1 where it says nothing, or nonsense."""
        import cv2

        capture = self._cursors[-1].capture
        across, down = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        aspect = across / down if across > 0 and down > 0 else 1.0
        if capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90:
            aspect = 1 / aspect
        return aspect if 1 / WIDEST_PIXEL < aspect < WIDEST_PIXEL else 1.0

    def _cursor_for(self, index: int) -> _Cursor:
        """The decoder that is nearest before a frame, or else one that is sent there."""
        near = [c for c in self._cursors if c.next <= index <= c.next + SKIPPED_BY_DECODING]
        if near:
            cursor = max(near, key=lambda c: c.next)
            self._cursors.remove(cursor)
        else:
            if len(self._cursors) == CURSORS:
                del self._cursors[0]
            cursor = self._sought(index)
        self._cursors.append(cursor)
        return cursor

    def _sought(self, index: int) -> _Cursor:
        """A decoder at a frame; not every container seeks where it is told to, so what it says is checked."""
        import cv2

        cursor = _Cursor(self._opened())
        if index > SKIPPED_BY_DECODING and cursor.capture.set(cv2.CAP_PROP_POS_FRAMES, index):
            if round(cursor.capture.get(cv2.CAP_PROP_POS_FRAMES)) == index:
                cursor.next = index
            else:
                cursor = _Cursor(self._opened())
        return cursor

    def _opened(self):
        import cv2

        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")  # what is wrong is told in our own line
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not capture.isOpened():
            raise ValueError(
                f"{self.path}: OpenCV cannot open this video; it is damaged, cut short or of no known codec"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, int(self.upright))
        return capture

    def _regular_times(self) -> np.ndarray:
        import cv2

        capture = self._cursors[0].capture
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0.1 <= fps <= 1000 else 30.0
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        most = self.path.stat().st_size // LEAST_BYTES
        if not 1 <= count <= most:
            count = self._counted(most)
        return np.arange(int(count)) / fps

    def _decoded_times(self) -> np.ndarray:
        """When each frame is shown, by decoding all: no table in the file says it, and the rate may vary."""
        import cv2

        capture, times = self._opened(), list[float]()
        while len(times) < self.path.stat().st_size // LEAST_BYTES and capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        seconds = np.array(times)
        fps = capture.get(cv2.CAP_PROP_FPS)
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT) / fps if fps > 0 else 0.0
        share, least = CUT_SHORT
        if len(times) and announced - seconds[-1] > share * announced + least:
            self.announced = announced
        return seconds - seconds[0] if len(times) and (np.diff(seconds) > 0).all() else self._regular_times()

    def _counted(self, most: int) -> int:
        """The frames of a file that does not say their number, or lies about it."""
        count = 0
        cursor = self._cursors[0]
        while count < most and cursor.capture.grab():
            count += 1
        cursor.next = ENDED
        return count

    def _ends(self, index: int) -> CorruptFrame:
        return CorruptFrame(f"{self.path}: frame {index} cannot be decoded; the video is damaged or cut short", True)


def mp4_times(path: Path) -> np.ndarray | None:
    """When each frame of an MP4 or MOV is shown, (N,) float64 seconds from the first; None where it does not say, or
    shows a part of its frames only.

    Phones record at a varying rate: the boxes stts and ctts (ISO/IEC 14496-12) hold each frame's own time.
    """
    with path.open("rb") as file:
        moov = _box(file, b"moov", path.stat().st_size)
    if moov is None:
        return None
    for track in _boxes(moov, b"trak"):
        media = next(iter(_boxes(track, b"mdia")), b"")
        handler, header = next(iter(_boxes(media, b"hdlr")), b""), next(iter(_boxes(media, b"mdhd")), b"")
        if handler[8:12] != b"vide" or len(header) < 24:
            continue
        scale = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0]
        table = b"".join(_boxes(b"".join(_boxes(media, b"minf")), b"stbl"))
        durations = _runs(next(iter(_boxes(table, b"stts")), b""), path)
        offsets = _runs(next(iter(_boxes(table, b"ctts")), b""), path, signed=True)
        if durations is None or len(durations) == 0 or scale == 0:
            return None
        times = np.concatenate([[0], np.cumsum(durations[:-1])])
        if offsets is not None and len(offsets) == len(times):
            times = np.sort(times + offsets)  # frames come out in the order of showing
        seconds = times / scale
        return None if _is_cut(track, moov, seconds, scale) else seconds - seconds[0]
    return None


def _is_cut(track: bytes, moov: bytes, seconds: np.ndarray, scale: int) -> bool:
    """Whether a track's edit list leaves out frames, as of a video that was trimmed: it shows from a time of the media
    on, for so long. seconds: (N,) when the frames would be shown. scale: units of the media's times in a second."""
    edits = next(iter(_boxes(next(iter(_boxes(track, b"edts")), b""), b"elst")), b"")
    header = next(iter(_boxes(moov, b"mvhd")), b"")
    if len(edits) < 8 or len(header) < 24:
        return False
    movie_scale = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0]
    entry = struct.Struct(">Qqi" if edits[0] == 1 else ">Iii")
    entries = list(entry.iter_unpack(edits[8 : 8 + (len(edits) - 8) // entry.size * entry.size]))
    shown = [(length, start / scale) for length, start, _ in entries if start >= 0]  # else a pause
    if len(shown) != 1 or movie_scale == 0:
        return len(shown) > 1
    length, start = shown[0]
    end = start + length / movie_scale if length else np.inf
    return bool(start > seconds[0] + SLACK or end < seconds[-1])


def _box(file: BinaryIO, kind: bytes, size: int) -> bytes | None:
    """The content of a file's top box of a kind."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, name = struct.unpack(">I4s", header[:8])
        start = 8
        if length == 1 and len(header) == 16:
            length, start = struct.unpack(">Q", header[8:])[0], 16
        length = size - at if length == 0 else length
        if length < start or at + length > size:
            return None
        if name == kind:
            file.seek(at + start)
            return file.read(length - start) if length < LARGEST_MOOV else None
        at += length
    return None


def _boxes(data: bytes, kind: bytes) -> list[bytes]:
    """The contents of the boxes of a kind that lie directly in another's content."""
    found, at = [], 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if length < 8 or at + length > len(data):
            break
        if name == kind:
            found.append(data[at + 8 : at + length])
        at += length
    return found


def _runs(box: bytes, path: Path, signed: bool = False) -> np.ndarray | None:
    """The values of a table of (count, value) runs, one per frame; None where it is missing or impossible."""
    if len(box) < 8:
        return None
    count = struct.unpack_from(">I", box, 4)[0]
    if len(box) < 8 + 8 * count:
        return None
    runs = np.frombuffer(box, ">i4" if signed else ">u4", 2 * count, 8).reshape(-1, 2).astype(np.int64)
    if (runs[:, 0] < 0).any() or runs[:, 0].sum() > path.stat().st_size // LEAST_BYTES:
        return None
    return np.repeat(runs[:, 1], runs[:, 0])
