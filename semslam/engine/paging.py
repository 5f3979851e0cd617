"""Maps larger than memory: the surfels lie in files, and the system keeps in memory what is looked at.

The arrays are memory mappings, so that no loop knows of it and every bit is the same. What the system maps in stays
until somebody else needs the memory; here it is given back as soon as it is more than a budget, the chunks that were
longest out of view first.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from semslam.files.writing import full_disk_explained

AFTERWARDS = 0.75  # of the budget: what is still in memory after chunks were given back
ROWS = 1 << 15  # that are read at once
KEPT_FRAMES = 1  # whose chunks are never given back: the next frame sees most of them again


class _File(NamedTuple):
    descriptor: int
    mapping: mmap.mmap
    chunk_bytes: int


class StoredRows:
    """Rows (N, ...) of an array in a file, read when they are asked for: `rows[first:last]`."""

    def __init__(self, file: BinaryIO, start: int, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """start: byte of the file where the first row is."""
        self._file, self._start = file, start
        self.dtype, self.shape = np.dtype(dtype), shape
        self._row_bytes = self.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """A copy of consecutive rows; OSError where the file has become shorter."""
        first, last, _ = rows.indices(len(self))
        found = np.empty((max(last - first, 0), *self.shape[1:]), self.dtype)
        self._file.seek(self._start + first * self._row_bytes)
        if self._file.readinto(found.reshape(-1).view(np.uint8).data) < found.nbytes:  # type: ignore[attr-defined]
            raise OSError(f"{self._file.name}: has become shorter while it was read")
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, in order, a copy of some at a time."""
        for first in range(0, len(self), ROWS):
            yield self[first : first + ROWS]

    @staticmethod
    def of_blocks(folder: Path, blocks: Iterable[np.ndarray], like: np.ndarray) -> StoredRows:
        """The rows of blocks, kept in a nameless file of a folder; OSError where its disk is full.

        like: an array of their type and width.
        """
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        count = written = 0
        try:
            for block in blocks:
                written += block.nbytes
                file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
                count += len(block)
            file.flush()
        except OSError as error:
            raise full_disk_explained(error, folder / "surfels", written) from None
        return StoredRows(file, 0, like.dtype, (count, *like.shape[1:]))  # type: ignore[arg-type]


class Paging:
    """The arrays of a map in files of a folder, and which of their chunks are in memory.

    The files have no name any more when they are in use: nothing is left of them, however the process ends.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        """budget: bytes of surfels that stay in memory between two frames, besides what the last frame saw."""
        self.folder, self.budget = folder, budget
        self._files: dict[str, _File] = {}
        self._seen = np.empty(0, np.int64)  # for each chunk the frame that saw it last, of those counted here
        self._in_memory = np.empty(0, bool)
        self._frame = 0

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk, over all arrays."""
        return sum(file.chunk_bytes for file in self._files.values())

    def has(self, name: str) -> bool:
        """Whether `array` was asked for this one before."""
        return name in self._files

    def array(self, name: str, chunks: int, like: np.ndarray) -> np.ndarray:
        """The array of a name with room for so many chunks, which holds what it held before.

        like: (chunk, ...) what a chunk holds. OSError where the disk is full: the room is taken now, since writing to a
        mapping that the disk has no room for would end the process.
        """
        size = max(chunks * like.nbytes, 1)
        if name in self._files:
            descriptor = self._files[name].descriptor
        else:
            descriptor, path = tempfile.mkstemp(prefix=".pages-", dir=self.folder)
            os.unlink(path)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.ftruncate(descriptor, size)
        except OSError as error:
            if name not in self._files:
                os.close(descriptor)
            explained = OSError(
                f"{self.folder}: {error.strerror}: the surfels need {size / 1e6:.0f} MB for {name}; make room, or "
                f"lower --max-surfels"
            )
            explained.errno = error.errno
            raise explained from None
        mapping = mmap.mmap(descriptor, size)
        _advise(mapping, "MADV_RANDOM")  # or with each page some systems read and map megabytes beside it
        self._files[name] = _File(descriptor, mapping, like.nbytes)
        if len(self._seen) < chunks:
            self._seen = np.concatenate([self._seen, np.full(chunks - len(self._seen), -1, np.int64)])
            self._in_memory = np.concatenate([self._in_memory, np.zeros(chunks - len(self._in_memory), bool)])
        return np.frombuffer(mapping, like.dtype, chunks * like.size).reshape(chunks * len(like), *like.shape[1:])

    def see(self, chunks: np.ndarray) -> None:
        """Chunks (N,) that a frame looks at: they are in memory now, or will be."""
        self._seen[chunks] = self._frame
        self._in_memory[chunks] = True

    def next_frame(self) -> None:
        """Give back what is in memory beyond the budget, the chunks that were longest not seen first."""
        self._frame += 1
        there = np.flatnonzero(self._in_memory)
        if len(there) * self.chunk_bytes <= self.budget:
            return
        room = int(AFTERWARDS * self.budget) // self.chunk_bytes
        latest = there[np.argsort(-self._seen[there], kind="stable")]
        kept = self._seen >= self._frame - KEPT_FRAMES
        kept[latest[:room]] = True
        # with a page the system maps those beside it: what is not kept is given back whether it was seen or not
        self.give_back(np.flatnonzero(~kept))

    def give_all_back(self) -> None:
        """Give all of it back: what was read from end to end, for a file, is not what the next frame sees."""
        self.give_back(np.arange(len(self._in_memory)))

    def give_back(self, chunks: np.ndarray) -> None:
        """Take chunks (N,), increasing, out of memory; they come back when they are looked at."""
        self._in_memory[chunks] = False
        starts = np.flatnonzero(np.diff(chunks, prepend=-2) != 1)
        ends = np.append(starts[1:], len(chunks))[: len(starts)] - 1
        for _, mapping, size in self._files.values():
            for first, last in zip(chunks[starts], chunks[ends]):
                begin = -(-int(first) * size // mmap.PAGESIZE) * mmap.PAGESIZE
                end = min((int(last) + 1) * size, len(mapping)) // mmap.PAGESIZE * mmap.PAGESIZE
                if begin < end:
                    _advise(mapping, "MADV_DONTNEED", begin, end - begin)  # of a file: nothing is lost

    def advise_all(self, advice: str) -> None:
        """Advise the system on all of it: the name of one of `mmap`'s constants."""
        for file in self._files.values():
            _advise(file.mapping, advice)

    def __del__(self) -> None:
        for file in self._files.values():  # mappings end with the last array that shows them
            os.close(file.descriptor)


def _advise(mapping: mmap.mmap, advice: str, *where: int) -> None:
    """Advise the system on a mapping, or on bytes from `where[0]`, `where[1]` of them, if it takes advice."""
    if hasattr(mmap, advice):
        with suppress(OSError):  # some file systems take none
            mapping.madvise(getattr(mmap, advice), *where)


@contextmanager
def in_order(paging: Paging | None) -> Iterator[None]:
    """While all of a map's files, if it has any, are read from end to end: the system reads ahead."""
    if paging is None:
        yield
        return
    paging.advise_all("MADV_NORMAL")
    try:
        yield
    finally:
        paging.advise_all("MADV_RANDOM")
