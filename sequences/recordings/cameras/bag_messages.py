"""Bags of ROS opened, and the messages of a topic by number."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from semslam.images import CorruptFrame

LIBRARIES = {"rosbags", "apsw", "lz4", "backports", "compression", "zstd", "struct", "_struct"}  # that read bags
STEPS_READ_ON = 200  # messages that reading on reaches sooner than a new start


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A bag's reader; ValueError where `rosbags` is missing or cannot read it."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise ValueError(f"{path}: bags are read by rosbags; pip install rosbags") from None
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    except Exception as problem:  # of rosbags and of what it reads with, of many kinds
        reason = " ".join(str(problem).split())[:200]
        raise ValueError(
            f"{path}: cannot be read as a bag, or is cut short ({reason}); the index of a ROS 1 bag is at "
            "its end: copy it again, or `rosbag reindex` it with ROS"
        ) from None
    try:
        yield reader
    except Exception as problem:
        if not _is_of_libraries(problem):
            raise
        raise ValueError(f"{path}: a message cannot be read; the bag is damaged ({problem})") from None
    finally:
        reader.close()


def _is_of_libraries(problem: Exception) -> bool:
    """Whether an exception is of a kind that the bags' libraries have, or was raised in one of them."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return any(name.split(".")[0] in LIBRARIES for name in (type(problem).__module__, raised_in))


class Topic:
    """The messages of one topic by number; increasing order is fast. Safe for threads."""

    def __init__(self, path: Path, name: str, entries: list[tuple[int, float]]) -> None:
        """entries: when each message was recorded (ns), and its header's stamp (s)."""
        self.path, self.name = path, name
        self._lock = threading.Lock()
        self._context = opened(path)
        self._bag = self._context.__enter__()
        # at the end of the process before the modules go that closing needs
        weakref.finalize(self, self._context.__exit__, None, None, None)
        self._connections = [c for c in self._bag.connections if c.topic == name]
        if not entries:
            raise ValueError(f"{path}: {name} holds no messages")
        self._recorded = np.array([t for t, _ in entries], np.int64)  # nanoseconds
        stamps = np.array([stamp for _, stamp in entries])
        # Stamps of the sensor are better than times of arrival, unless they were never set.
        self.of_sensor = bool(stamps[0] > 0 and np.all(np.diff(stamps) > 0))
        self.timestamps = stamps if self.of_sensor else _increasing(self._recorded * 1e-9)
        self._stream: Iterator = iter(())
        self._next = len(entries)

    def message(self, index: int) -> Any:
        """The deserialised message of that number; CorruptFrame where it cannot be read."""
        with self._lock:
            if not self._next <= index < self._next + STEPS_READ_ON:
                first = int(np.searchsorted(self._recorded, self._recorded[index]))
                self._stream, self._next = self._messages(int(self._recorded[index])), first
            try:
                while True:
                    connection, _, data = next(self._stream)
                    self._next += 1
                    if self._next > index:
                        return self._bag.deserialize(data, connection.msgtype)
            except Exception as problem:  # as above
                self._next = len(self._recorded)
                reason = " ".join(str(problem).split())[:120] or type(problem).__name__
                raise CorruptFrame(f"{self.path}: {self.name}, message {index}: {reason}", broken_file=True) from None

    def _messages(self, start: int) -> Iterator:
        return self._bag.messages(connections=self._connections, start=start)


def _increasing(times: np.ndarray) -> np.ndarray:
    """Times of arrival, those that came at once moved apart by a microsecond."""
    return np.maximum.accumulate(times - 1e-6 * np.arange(len(times))) + 1e-6 * np.arange(len(times))
