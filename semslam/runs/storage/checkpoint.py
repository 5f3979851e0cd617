"""The state of a run in progress, saved again and again: only what has changed is written.

The bytes of large arrays are cut into pages. The file `pages` holds them in any order, `table.npz` says which pages
make which array, and holds all that is small. A page that the table names is never overwritten: changed pages go to
free places, and then a new table takes the place of the old one by one rename. So the last state is whole whenever
the process is killed or the disk is full, the map is never copied, and a save costs what has changed since the last.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL
from semslam.engine.chunks import CHUNK
from semslam.engine.paging import StoredRows, in_order
from semslam.engine.saved_surfels import state_parts
from semslam.engine.surfels import PART, SURFEL_ARRAYS, SurfelMap
from semslam.files.writing import full_disk_explained
from semslam.runs.storage.arrays import Damaged, load_arrays, parts_of, save_arrays

CHECKPOINT = 30.0  # seconds after which the state is saved again
CHECKPOINT_SHARE = 0.02  # of the time of a run that saving its state takes at most
PAGE = 1 << 16  # bytes
AT_ONCE = 256 * PAGE  # bytes that are read before a map of files gives them back

logger = logging.getLogger(__name__)


@nb.njit(**PARALLEL)
def digests(words, page, found):
    """A 64-bit digest of every `page` consecutive words (N,) uint64; multiply and shift as in splitmix64."""
    for b in nb.prange(found.size):
        h = np.uint64(0x9E3779B97F4A7C15)
        for i in range(b * page, min((b + 1) * page, words.size)):
            h = (h ^ words[i]) * np.uint64(0xBF58476D1CE4E5B9)
            h ^= h >> np.uint64(29)
        found[b] = h


def _digests(data: np.ndarray, give_back: Callable[[], None] = lambda: None) -> np.ndarray:
    """(B,) uint64, one a page of bytes (N,). give_back: called whenever AT_ONCE were read."""
    found = np.zeros(-(-data.size // PAGE), np.uint64)  # a last page of less than a word has its bytes alone
    whole = data.size // 8 * 8
    for first in range(0, whole, AT_ONCE):
        part = data[first : min(first + AT_ONCE, whole)]
        digests(part.view(np.uint64), PAGE // 8, found[first // PAGE :][: -(-part.size // PAGE)])
        give_back()
    if whole < data.size:
        found[-1] ^= np.uint64(int.from_bytes(data[whole:].tobytes(), "little") + 1)
    return found


@dataclass(frozen=True, eq=False)
class _Paged:
    """Where the pages of an array are, in units of pages, and what they hold."""

    places: np.ndarray  # (B,) int64
    digests: np.ndarray  # (B,) uint64


PARTS = ("places", "digests", "rows", "like")  # what the table holds of an array in pages
NOTHING = _Paged(np.empty(0, np.int64), np.empty(0, np.uint64))


class _Pages:
    """The arrays whose bytes are in the pages of an open file."""

    def __init__(self, file: BinaryIO, path: Path, members: dict[str, np.ndarray]) -> None:
        """members: of the table."""
        self.file, self.path, self.members = file, path, members
        self.paged = _paged(members)

    def all_rows(self, name: str) -> np.ndarray:
        return self.rows(name, 0, int(self.members[f"{name}@rows"]))

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows of an array whose bytes begin with a page; ValueError where they are not those that were saved."""
        where, like = self.paged[name], self.members[f"{name}@like"]
        width = like.itemsize * int(np.prod(like.shape[1:], dtype=np.int64))
        data = np.empty((last - first) * width, np.uint8)
        pages = slice(first * width // PAGE, -(-last * width // PAGE))
        read = 0
        for k, place in enumerate(where.places[pages]):
            self.file.seek(int(place) * PAGE)
            read += self.file.readinto(data[k * PAGE : (k + 1) * PAGE].data)  # type: ignore[attr-defined]
        if read < data.size or not np.array_equal(_digests(data), where.digests[pages]):
            raise Damaged(self.path, name)
        return data.view(like.dtype).reshape(-1, *like.shape[1:])


class Checkpoint:
    """The saved state of a run in progress, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._saved: dict[str, _Paged] | None = None  # by the name of an array; None = not read yet

    @property
    def table(self) -> Path:
        return self.folder / "table.npz"

    @property
    def pages(self) -> Path:
        return self.folder / "pages"

    @property
    def exists(self) -> bool:
        return self.table.is_file()

    def save(self, surfels: SurfelMap, arrays: dict[str, np.ndarray]) -> None:
        """Save the map and everything else. What this raises leaves the state that was saved before."""
        self.folder.mkdir(exist_ok=True)
        arrays = arrays | {p.name: next(p.blocks) for p in state_parts(surfels) if p.name not in SURFEL_ARRAYS}
        rows = surfels.n_chunks * CHUNK
        arrays |= {name: getattr(surfels, name)[:rows] for name in SURFEL_ARRAYS}  # gaps within chunks included
        small = {name: array for name, array in arrays.items() if array.ndim == 0 or array.nbytes <= PAGE}
        large = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name not in small}
        if not (self.table.is_file() and self.pages.is_file()):
            self._saved = {}
        elif self._saved is None:
            self._saved = _paged(self._members())
        paging = surfels.paging
        give_back = paging.give_all_back if paging is not None else lambda: None
        with in_order(paging):
            paged = self._write(large, self._saved, give_back)
        for name, where in paged.items():
            small[f"{name}@places"], small[f"{name}@digests"] = where.places, where.digests
            small[f"{name}@rows"] = np.array(len(large[name]))
            small[f"{name}@like"] = large[name][:0]
        save_arrays(self.table, parts_of(small))
        self._saved = paged

    def load(self, stored: bool = False) -> dict[str, Any]:
        """The arrays that `save` was given, those of the map among them; ValueError where a file is damaged.

        stored: those of the surfels as `StoredRows`.
        """
        return self._whole(lambda: self._load(stored))

    def load_arrays(self, *names: str) -> dict[str, np.ndarray]:
        """Those of the arrays that `save` was given, other than the surfels', that are named and there."""
        return self._whole(lambda: self._named(names))

    def _whole(self, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is read of one state, also where another process saves the next meanwhile."""
        while True:
            before = os.stat(self.table).st_mtime_ns if self.table.is_file() else 0
            try:
                return read()
            except Damaged as error:
                if not self.table.is_file() or os.stat(self.table).st_mtime_ns == before:
                    # and not because another process has saved again
                    remedy = (
                        f"remove the folder {self.folder}: --resume goes on from map.npz beside it, or begins again"
                    )
                    raise Damaged(error.path, error.reason, remedy) from None

    def remove(self) -> None:
        """Remove the state: the run is saved elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._saved = None

    def _members(self, *names: str) -> dict[str, np.ndarray]:
        return load_arrays(self.table, names or None)

    def _named(self, names: Collection[str]) -> dict[str, np.ndarray]:
        members = self._members(*names, *(f"{name}@{part}" for name in names for part in PARTS))
        with self._pages_of(members) as pages:
            paged = {name: pages.all_rows(name) for name in pages.paged}
        return paged | {name: members[name] for name in names if name in members}

    @contextmanager
    def _pages_of(self, members: dict[str, np.ndarray]) -> Iterator[_Pages]:
        with open(self.pages if self.pages.is_file() else os.devnull, "rb") as file:
            yield _Pages(file, self.pages, members)

    def _load(self, stored: bool) -> dict[str, Any]:
        members = self._members()
        state: dict[str, Any] = {name: array for name, array in members.items() if "@" not in name}
        with self._pages_of(members) as pages:
            in_parts = SURFEL_ARRAYS if stored else ()
            for name in pages.paged:
                if name not in in_parts:
                    state[name] = pages.all_rows(name)
            counts = state["counts"]
            rows = int(members["position@rows"]) if "position" in pages.paged else len(members["position"])
            per_chunk = rows // max(len(counts), 1)
            within = np.arange(per_chunk)[None, :] < counts[:, None]
            for name in SURFEL_ARRAYS:
                if name in state:
                    state[name] = state[name][within.ravel()] if len(counts) else state[name]
                else:
                    parts = (
                        pages.rows(name, first * per_chunk, min(first + PART, len(counts)) * per_chunk)[
                            within[first : first + PART].ravel()
                        ]
                        for first in range(0, len(counts), PART)
                    )
                    state[name] = StoredRows.of_blocks(self.folder, parts, members[f"{name}@like"])
        return state

    def _write(
        self, arrays: dict[str, np.ndarray], saved: dict[str, _Paged], give_back: Callable[[], None]
    ) -> dict[str, _Paged]:
        """Write the pages of arrays that differ from those saved, to free places."""
        paged, changed = {}, {}
        for name, array in arrays.items():
            found = _digests(array.reshape(-1).view(np.uint8), give_back)
            places, old = np.full(len(found), -1), saved.get(name, NOTHING)
            n = min(len(found), len(old.digests))
            same = found[:n] == old.digests[:n]
            places[:n][same] = old.places[:n][same]
            paged[name], changed[name] = _Paged(places, found), np.flatnonzero(places < 0)
        descriptor = os.open(self.pages, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        size = os.fstat(descriptor).st_size
        try:
            free = _free(saved, -(-size // PAGE))
            for name, ks in changed.items():
                data = arrays[name].reshape(-1).view(np.uint8)
                for done, k in enumerate(ks):
                    paged[name].places[k] = place = next(free)
                    _write_at(descriptor, data[k * PAGE : (k + 1) * PAGE].data, place * PAGE)
                    if done % (AT_ONCE // PAGE) == 0:
                        give_back()
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise full_disk_explained(error, self.pages, PAGE * sum(map(len, changed.values()))) from None
        else:
            os.fsync(descriptor)  # the table must not be there before the pages that it names
        finally:
            os.close(descriptor)
            give_back()
        return paged


def _paged(members: dict[str, np.ndarray]) -> dict[str, _Paged]:
    names = [name.removesuffix("@places") for name in members if name.endswith("@places")]
    return {name: _Paged(members[f"{name}@places"], members[f"{name}@digests"]) for name in names}


def _free(saved: dict[str, _Paged], size: int) -> Iterator[int]:
    """The places that no saved page takes: first those within a file of `size` pages, then those behind it."""
    taken = np.concatenate([np.empty(0, np.int64), *(where.places for where in saved.values())])
    return chain(np.setdiff1d(np.arange(size), taken).tolist(), count(size))


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    os.lseek(descriptor, offset, os.SEEK_SET)
    while data:
        data = data[os.write(descriptor, data) :]


def stretched(pause: float, cost: float) -> float:
    """The seconds until the next checkpoint, after one that took `cost` seconds; told where they grow by a half."""
    longer = max(CHECKPOINT, cost / CHECKPOINT_SHARE)
    if longer < 1.5 * pause:
        return max(pause, longer)
    logger.warning(
        "saving the state took %.1f s: it is saved every %.0f s, and a crash may lose as many (--checkpoint sets it)",
        *(cost, longer),
    )
    return longer
