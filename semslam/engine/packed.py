"""Arrays packed into a temporary file, so that memory does not grow with what is remembered of each frame."""

from __future__ import annotations

import io
import tempfile
import zlib
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from semslam.threads import background

Packed = tuple[bytes, bytes]


def pack(values: np.ndarray) -> bytes:
    """int32 values as differences to the one before, deflated."""
    return zlib.compress(np.diff(values, prepend=np.int32(0)).tobytes(), 1)


def unpack(packed: bytes) -> np.ndarray:
    """The int32 values of `pack`, none of which is negative; ValueError where they are damaged."""
    try:
        values = np.cumsum(np.frombuffer(zlib.decompress(packed), np.int32), dtype=np.int32)
    except zlib.error as error:
        raise ValueError(f"packed arrays are damaged ({error})") from None
    if values.min(initial=0) < 0:
        raise ValueError("packed arrays are damaged: they hold numbers below 0")
    return values


class PackedFile:
    """Pairs of packed arrays in a temporary file, in the order in which they came; another thread packs and writes."""

    def __init__(
        self,
        data: np.ndarray | None = None,
        ends: np.ndarray | None = None,
        folder: Path | None = None,
        or_memory: bool = False,
    ) -> None:
        """data: (N,) uint8, what such a file holds. ends: (2M,) where each array of its M pairs ends, ascending.
        folder: where the file is; by default where the system has temporary ones, which may be memory.
        or_memory: whether pairs that cannot be written stay in memory; else none is kept from then on."""
        self._ends: list[int] = [0]
        self._packer = background("packer")
        self._last: Future[None] | None = None
        self._failed: OSError | None = None  # why nothing more can be written
        self._unwritten: list[Packed] | None = [] if or_memory else None  # pairs that came since then
        self._file: io.FileIO | None = None  # not buffered: a write that fails loses no earlier pair
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed, and gone, with this
        except OSError as error:
            if not or_memory:
                raise
            self._failed = error
        if data is not None and ends is not None and self._file is not None:
            data.tofile(self._file)
            self._ends += ends.tolist()
        self._count = len(self._ends) // 2  # pairs, also those that are still to be written

    def add(self, first: np.ndarray, second: np.ndarray) -> int:
        """Append a pair of int32 arrays, which are not changed from now on; returns its number. OSError where an
        earlier one could not be kept."""
        if self._failed is not None and self._unwritten is None:
            raise self._failed
        self._last = self._packer.submit(self._write, first, second)
        self._count += 1
        return self._count - 1

    def _write(self, first: np.ndarray, second: np.ndarray) -> None:
        both = pack(first), pack(second)
        if self._failed is None and self._file is not None:
            rest = memoryview(both[0] + both[1])
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
                self._ends += [self._ends[-1] + len(both[0]), self._ends[-1] + len(both[0]) + len(both[1])]
                return
            except OSError as error:
                self._failed = error
        if self._unwritten is not None:
            self._unwritten.append(both)

    def __getitem__(self, k: int) -> Packed:
        """Pair k."""
        if self._last is not None:
            self._last.result()
        written = len(self._ends) // 2
        if self._unwritten and k >= written:
            return self._unwritten[k - written]
        ends = self.ends if self._unwritten is None else self._ends
        start, middle, end = ends[2 * k : 2 * k + 3]
        both = self._mapped(ends[-1])[start:end].tobytes()
        return both[: middle - start], both[middle - start :]

    @property
    def ends(self) -> list[int]:
        """0, and where each array ends, once all are written; OSError where one could not be."""
        if self._last is not None:
            self._last.result()
        if self._failed is not None:
            raise self._failed
        return self._ends

    @property
    def data(self) -> np.ndarray:
        """(N,) uint8: all arrays, in the file."""
        return self._mapped(self.ends[-1])

    def _mapped(self, size: int) -> np.ndarray:
        """(size,) uint8: the beginning of the file."""
        assert self._file is not None
        return np.memmap(self._file, np.uint8, "r", shape=(size,)) if size else np.zeros(0, np.uint8)
