"""Threads whose work may wait, so that the frame that is tracked does not."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

BEHIND = 5  # steps of niceness: a third of the processor time of a thread that never waits


def background(name: str, threads: int = 1) -> ThreadPoolExecutor:
    """Threads that leave the processor to those that track and fuse; so do threads that they begin, as a network's.

    A frame is tracked in many short loops over all threads, each of which waits for the last one. Beside decoding and
    a network of equal priority a loop of 1 ms took 6. Only Linux gives each thread a priority of its own.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_stand_back)


def _stand_back() -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # which a system may forbid
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + BEHIND)
