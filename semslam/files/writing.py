"""Files and folders are written whole or not at all, into folders that can be trusted."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from semslam.files.failures import is_passing


@contextmanager
def replacing(path: str | Path, needed: int = 0) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffix, that takes its place when the block ends well.

    A reader, a second run or Ctrl-C in the middle never meets half a file. The parent folder must exist.
    needed: bytes, where they are known, for the message of a full disk. Raises FileNotFoundError where the folder does
    not exist, ValueError where the path is a folder, a pipe or a device, OSError where the disk is full or read-only.
    """
    path = Path(path)
    check_writable(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        raise full_disk_explained(error, path, max(needed, written)) from None
    finally:
        temporary.unlink(missing_ok=True)


def private_folder(name: str) -> Path:
    """The temporary folder NAME-USER, made where it is not there yet, for files that are trusted when read back.

    PermissionError where it is somebody else's, is a link, or others may write into it: whoever came first could have
    made it, and put there what a later run would load. Windows has such a folder for each user.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir()) / f"{name}-{'user' if user is None else user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if user is not None and not (stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022):
        raise PermissionError(f"{folder}: is not a folder that only you may write into; remove it, or rename it")
    return folder


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write figures as JSON, whole or not at all; NaN, which JSON has not, becomes null."""
    text = json.dumps(_jsonable(values), indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _jsonable(value: Any) -> Any:
    import numpy as np

    if isinstance(value, dict):
        return {str(key): _jsonable(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.generic):
        return _jsonable(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder whose content is that of `path`, which is not there or empty, when the block ends well.

    Else nothing is left of it, unless the process is killed.
    """
    there = path.is_dir()
    temporary = path / f".{os.getpid()}.part" if there else path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if not there:
            os.replace(temporary, path)
            return
        for inner in temporary.iterdir():
            os.replace(inner, path / inner.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a folder that processes have left which were killed."""
    for file in folder.iterdir():
        found = re.fullmatch(r"\..+\.(\d+)\.part(\.\w+)?", file.name)
        if found and file.is_file() and not _is_running(int(found[1])):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether a process of this machine is there; where the system cannot say without harm, none is."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def flush_to_disk(path: Path) -> None:
    """Wait until what was written to a file, or which names a folder holds, would outlast a loss of power."""
    is_folder = path.is_dir()
    with suppress(OSError) if is_folder else nullcontext():  # some file systems cannot flush a folder, or open it
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path: Path) -> None:
    """Raise what `replacing` would raise for this path, as far as it can be known before there is anything to write."""
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        kind = "folder" if path.is_dir() else "pipe or a device"
        raise ValueError(f"{path}: is a {kind}; give the name of a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path}: its folder {path.parent} cannot be written to; name another place")


def check_suffix(path: str | Path, what: str, known: Collection[str]) -> str:
    """The suffix of a path, in small letters; ValueError where it is none of those `what` is written with."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        found = suffix or "a name without a suffix"
        raise ValueError(f"{path}: {what} are written as {', '.join(known)}, not as {found}")
    return suffix


def check_makeable(folder: Path) -> None:
    """ValueError or PermissionError where there cannot be a folder of this name to write to."""
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), Path("/"))
    named = "it" if there == folder else there
    if not there.is_dir():
        kind = "file" if there.is_file() else "pipe, a device or a broken link"
        raise ValueError(f"{folder}: cannot write here: {named} is a {kind}, not a folder; name another place")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{folder}: cannot write here: {named} may not be written to; name another place")
    try:
        with tempfile.TemporaryFile(dir=there):  # /proc and read-only file systems say that they can be written to
            pass
    except OSError as error:
        if is_passing(error):
            raise
        raise PermissionError(f"{folder}: cannot write here: {error.strerror}; name another place") from None


def full_disk_explained(error: OSError, path: Path, needed: int) -> OSError:
    """The error itself or, where it says that the disk of `path` is full, one that says how much is needed (bytes)."""
    if error.errno == errno.EFBIG:
        explained = OSError(
            f"{path}: is larger than a file may be here, {_megabytes(needed)} at least (ulimit -f, or the file system)"
        )
        explained.errno = error.errno
        return explained
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    free = shutil.disk_usage(path.parent).free
    explained = OSError(
        f"{path}: No space left on device: {_megabytes(needed)} are needed, "
        f"{_megabytes(free)} are "
        f"free; make room, or go on in a copy elsewhere: what was there before is whole"
    )
    explained.errno = error.errno
    return explained


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e6:.2g} MB"
