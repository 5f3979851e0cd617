"""A run folder belongs to one process at a time."""

from __future__ import annotations

import atexit
import logging
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
_held: dict[Path, int] = {}  # lock files of this process -> their descriptors


def lock(folder: Path) -> None:
    """Take the folder for this process until it ends, or until `unlock`.

    ValueError names the process that has it. A process that was killed holds nothing; that it left its file is told.
    """
    path = folder.resolve() / ".lock"
    if fcntl is None or path in _held:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        ours = any(os.path.sameopenfile(descriptor, held) for held in _held.values())  # the folder was renamed
        os.close(descriptor)
        if ours:
            return
        raise ValueError(f"{folder}: process {owner} is working here; wait for it, or name another folder") from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return
    if not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino:  # given back, and removed, meanwhile
        os.close(descriptor)
        lock(folder)
        return
    if owner := os.read(descriptor, 32).decode(errors="replace").strip():
        logger.warning("%s: process %s ended without finishing; what it saved last is there", folder, owner)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    _held[path] = descriptor


def unlock(folder: Path) -> None:
    """Give the folder back, if this process has it."""
    path = folder.resolve() / ".lock"
    if (descriptor := _held.pop(path, None)) is not None:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@atexit.register
def _unlock_all() -> None:
    for path in list(_held):
        unlock(path.parent)


def _leave_to_parent() -> None:
    """In a process that was forked off: the folders are its parent's, to hold and to give back."""
    while _held:
        os.close(_held.popitem()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
