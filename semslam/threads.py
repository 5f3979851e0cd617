"""Threads whose work may wait, so that the frame that is tracked does not, and values that several threads ask for."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property
from typing import Any

import numpy as np

NICENESS = 10  # steps: a tenth of the processor time of a thread that never waits
PARALLEL = 1024  # pixels: side of an image that OpenCV certainly divides among its threads


class computed_once(cached_property):
    """A `cached_property` that one thread computes while the others wait; from Python 3.12 on that has no lock."""

    def __init__(self, compute: Any) -> None:
        super().__init__(compute)
        self._lock = threading.RLock()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        with self._lock:
            return super().__get__(instance, owner)


def background(name: str, threads: int = 1) -> ThreadPoolExecutor:
    """Threads of low priority, which leave the processor to those that track and fuse.

    A frame is tracked in many short loops over all threads, each of which waits for the last one. Beside decoding and
    a network of equal priority a loop of 1 ms took 6. Only Linux gives each thread a priority of its own. A thread has
    the priority of the one that begins it, so the teams that OpenMP gives to these threads are of low priority, too;
    the threads that OpenCV shares, and those that a network's engine begins when it is loaded, are not.
    """
    _begin_opencv()
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_low_priority)


def _low_priority() -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # which a system may forbid
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


@cache
def _begin_opencv() -> None:
    """Let OpenCV begin its threads now: there is one set of them a process, and tracking uses it. Begun by a thread of
    low priority they would be of low priority for good."""
    import cv2

    cv2.cvtColor(np.zeros((PARALLEL, PARALLEL, 3), np.uint8), cv2.COLOR_RGB2GRAY)
