"""The state of a run in progress, saved again and again: all of it at first, then what has changed since.

Two files, `base.npz` and `changes.npz`, each replaced by one rename. The changes name the base that they belong to:
those of an older base count for nothing. When they have grown to half of the state, a new base is written.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL
from semslam.engine.chunks import CHUNK
from semslam.engine.surfels import SURFEL_ARRAYS, StatePart, SurfelMap
from semslam.runs.storage.arrays import load_arrays, parts_of, save_arrays

BLOCK_BYTES = 1 << 20
CHUNKS_A_BLOCK = 16
LARGEST_CHANGES = 0.5  # share of the state beyond which a new base is written


@nb.njit(**PARALLEL)
def digests(words, block, found):
    """A 64-bit digest of every `block` consecutive words (N,) uint64; multiply and shift as in splitmix64."""
    for b in nb.prange(found.size):
        h = np.uint64(0x9E3779B97F4A7C15)
        for i in range(b * block, min((b + 1) * block, words.size)):
            h = (h ^ words[i]) * np.uint64(0xBF58476D1CE4E5B9)
            h ^= h >> np.uint64(29)
        found[b] = h


@dataclass(frozen=True, eq=False)
class _Part:
    """An array of the state: how it lies in memory, by which changes are found, and which rows of it are saved."""

    stored: np.ndarray  # (N, ...)
    rows: int  # of `stored` that make a block, a multiple of 8
    counts: np.ndarray | None = None  # (M,) surfels a chunk, where the other rows of a chunk hold nothing

    @property
    def count(self) -> int:
        """Blocks, at least one."""
        return max(-(-len(self.stored) // self.rows), 1)

    @property
    def block_bytes(self) -> int:
        return self.stored[:1].nbytes * self.rows

    def digests(self) -> np.ndarray:
        """(B,) uint64, one a block."""
        found = np.empty(self.count, np.uint64)
        _digest(np.ascontiguousarray(self.stored), self.block_bytes, found)
        if self.counts is not None:  # surfels may be gone, and their rows as they were
            counts = np.empty(self.count, np.uint64)
            _digest(self.counts, CHUNKS_A_BLOCK * self.counts.itemsize, counts)
            found ^= counts
        return found

    def block(self, name: str, k: int) -> StatePart:
        """The rows of a block that are saved; they are copied when they are written."""
        rows = self.stored[k * self.rows : (k + 1) * self.rows]
        if self.counts is None:
            return StatePart(name, rows.dtype, rows.shape, iter([rows]))
        counts = self.counts[k * CHUNKS_A_BLOCK : (k + 1) * CHUNKS_A_BLOCK]
        held = (rows[(np.arange(CHUNK)[None, :] < counts[:, None]).ravel()] for _ in [k])
        return StatePart(name, rows.dtype, (int(counts.sum()), *rows.shape[1:]), held)


def _digest(array: np.ndarray, block_bytes: int, found: np.ndarray) -> None:
    data = array.reshape(-1).view(np.uint8)
    if data.size % 8:
        data = np.concatenate([data, np.zeros(-data.size % 8, np.uint8)])
    digests(data.view(np.uint64), block_bytes // 8, found)


class Checkpoint:
    """The saved state of a run in progress, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._base = ""  # the id of the base that this process has written
        self._digests: dict[str, np.ndarray] = {}  # of the base's blocks

    @property
    def exists(self) -> bool:
        return self.base.is_file()

    @property
    def base(self) -> Path:
        return self.folder / "base.npz"

    @property
    def changes(self) -> Path:
        return self.folder / "changes.npz"

    def save(self, surfels: SurfelMap, arrays: dict[str, np.ndarray]) -> None:
        """Save the map and everything else. What this raises leaves the state that was saved before."""
        self.folder.mkdir(exist_ok=True)
        arrays = arrays | {p.name: next(p.blocks) for p in surfels.state_parts() if p.name not in SURFEL_ARRAYS}
        parts, scalars = _parts(surfels, arrays), {name: a for name, a in arrays.items() if a.ndim == 0}
        found = {name: part.digests() for name, part in parts.items()}
        changed = {name: self._changed(name, found[name]) for name in parts}
        size = sum(part.stored.nbytes for part in parts.values())
        if self._base and sum(parts[n].block_bytes * len(ks) for n, ks in changed.items()) < LARGEST_CHANGES * size:
            save_arrays(self.changes, _members(scalars | {"base": np.array(self._base)}, parts, changed))
            return
        base, everything = uuid.uuid4().hex, {name: range(part.count) for name, part in parts.items()}
        save_arrays(self.base, _members(scalars | {"base": np.array(base)}, parts, everything))
        self._base, self._digests = base, found
        self.changes.unlink(missing_ok=True)

    def load(self) -> dict[str, np.ndarray]:
        """The arrays that `save` was given, those of the map among them; ValueError where a file is damaged."""
        base, newest = self._newest()
        members = base | newest
        state = {name: array for name, array in newest.items() if "@" not in name and name != "base"}
        for name, count in newest.items():
            if name.endswith("@#"):
                blocks = [members[f"{name[:-1]}{k}"] for k in range(int(count))]
                state[name.removesuffix("@#")] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return state

    def load_scalars(self, *names: str) -> dict[str, np.ndarray]:
        """Single values of the state."""
        base, newest = self._newest([*names, "base"])
        return {name: array for name, array in (base | newest).items() if name != "base"}

    def remove(self) -> None:
        """Remove the state: the run is saved elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._base, self._digests = "", {}

    def _newest(self, names: Sequence[str] | None = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The arrays of the base, and those of the changes to it, or of the base again where there are none."""
        base = load_arrays(self.base, names)
        if self.changes.is_file():
            changes = load_arrays(self.changes, names)
            if str(changes["base"]) == str(base["base"]):
                return base, changes
        return base, base

    def _changed(self, name: str, found: np.ndarray) -> Sequence[int]:
        old = self._digests.get(name, np.empty(0, np.uint64))
        return [k for k in range(len(found)) if k >= len(old) or found[k] != old[k]]


def _parts(surfels: SurfelMap, arrays: Mapping[str, np.ndarray]) -> dict[str, _Part]:
    used, counts = surfels.n_chunks * CHUNK, surfels.counts[: surfels.n_chunks]
    parts = {name: _Part(getattr(surfels, name)[:used], CHUNKS_A_BLOCK * CHUNK, counts) for name in SURFEL_ARRAYS}
    for name, array in arrays.items():
        if array.ndim:
            parts[name] = _Part(array, 8 * max(BLOCK_BYTES // max(8 * array[:1].nbytes, 1), 1))
    return parts


def _members(
    scalars: Mapping[str, np.ndarray], parts: Mapping[str, _Part], blocks: Mapping[str, Sequence[int]]
) -> Iterator[StatePart]:
    """What a file holds: NAME of a scalar, NAME@K for block K of an array, NAME@# for how many blocks it has."""

    yield from parts_of(scalars)
    yield from parts_of({f"{name}@#": np.array(part.count) for name, part in parts.items()})
    for name, part in parts.items():
        yield from (part.block(f"{name}@{k}", k) for k in blocks[name])
