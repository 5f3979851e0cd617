"""The map's store: surfels as a structure of arrays, kept in chunks that each lie in one cube of space."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from semslam.cloud import SurfelCloud
from semslam.config import Count, Positive, bytes_of, check_ranges
from semslam.engine.chunks import CHUNK, MARKED, BlockTable, Surfels, Table, compact_chunks
from semslam.engine.labels.evidence import row_width
from semslam.engine.paging import Paging, StoredRows, in_order

logger = logging.getLogger(__name__)
SURFEL_ARRAYS = ("position", "normal", "color", "seen", "evidence")
LEAST_MEMORY = 100_000  # bytes: two chunks without classes
PART = 32  # chunks that are looked at together where the whole map is
BLOCK = 0.25  # metres
MARGIN = 0.1  # metres that surfels may lie outside of the cubes of space that they are kept by
BLOCK_AT = 10.0  # metres: where depth reaches farther the cubes grow with it, as surfels do; else most were empty


@dataclass(frozen=True)
class MapConfig:
    """How the map is stored."""

    max_surfels: Count = 5_000_000  # surfels: at this bound nothing is lost, nothing new is added, and it is said once
    # metres: side of the cubes that surfels are kept by; null = 0.25, or more for far depth
    block: Positive | None = None
    memory: str | None = None  # such as 500MB: most memory that surfels take, the others in files; null = all of it

    def __post_init__(self) -> None:
        check_ranges(self, "slam.map")
        if (memory := self.memory_bytes) is not None and memory < LEAST_MEMORY:
            raise ValueError(f"`slam.map.memory` is {self.memory}, expected at least {LEAST_MEMORY / 1e3:.0f}KB")

    def reaching(self, far: float) -> MapConfig:
        """The settings with cubes that fit depth up to so many metres, unless they were set."""
        return replace(self, block=BLOCK * max(1.0, far / BLOCK_AT)) if self.block is None else self

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes; ValueError for what is no amount of memory."""
        return None if self.memory is None else bytes_of("slam.map.memory", self.memory)


class Journal(Protocol):
    """What is informed when surfels leave their slots; `associations.Associations` is one."""

    def compacts(self, surfels: SurfelMap, chunks: np.ndarray) -> None: ...

    def moved(self, old: np.ndarray, new: np.ndarray) -> None: ...


class SurfelMap:
    """Surfels in the world frame, with spare capacity; fusion changes them in place.

    Chunk k, of `CHUNK` slots, lies in rows k * CHUNK .. (k + 1) * CHUNK - 1 of each of the arrays below, of which its
    first counts[k] hold surfels, all of one cube of space. A cube has as many chunks as it needs, anywhere in the
    arrays. Compiled loops get the whole arrays and the ids of the chunks that concern them.

    Attributes, each with one row a slot (only the slots of `slots()` hold surfels):
        position: (S, 4) float32, x y z and radius, metres
        normal: (S, 4) float32, unit normal and confidence
        color: (S, 4) uint16, RGB in 8.8 fixed point, so that long averages do not stick; the fourth is spare
        seen: (S, 2) int32, frames of the first and the last merge
        evidence: (S, row_width(C)) uint16, what was said for each class (see evidence)
    """

    def __init__(self, num_classes: int = 0, config: MapConfig | None = None) -> None:
        self.config = config or MapConfig()
        self.block = self.config.block or BLOCK  # metres: side of the cubes
        self.num_classes = num_classes
        self.position = np.empty((0, 4), np.float32)
        self.normal = np.empty((0, 4), np.float32)
        self.color = np.empty((0, 4), np.uint16)
        self.seen = np.empty((0, 2), np.int32)
        self.evidence = np.empty((0, row_width(num_classes)), np.uint16)
        self.counts = np.empty(0, np.int32)  # surfels per chunk
        self.origins = np.empty((0, 3), np.float32)  # lower corner of a chunk's cube, metres
        self.n_chunks = 0
        self.blocks = BlockTable()
        self.full = False  # whether the capacity has ever been reached
        self.rejected = 0  # surfels that found no room
        self.world_origin = np.zeros(3)  # float64 metres: where the map's coordinates are 0, for files of the world
        self.journal: Journal | None = None
        self.paging: Paging | None = None

    def page_to(self, folder: Path) -> None:
        """From now on keep the surfels in files of a folder, and no more of them in memory than the settings say."""
        if (budget := self.config.memory_bytes) is not None:
            self.paging = Paging(folder, budget)
            self.reserve(len(self.counts))

    def __len__(self) -> int:
        return int(self.counts[: self.n_chunks].sum())

    def are_living(self, slots: np.ndarray | None = None) -> np.ndarray:
        """(N,) bool: which of some slots, by default of `slots()`, do not wait for their removal."""
        slots = self.slots() if slots is None else slots
        return (self.normal[slots, 3] >= 0) & (self.color[slots, 3] != MARKED)

    def living(self) -> int:
        """How many surfels do not wait for their removal."""
        return sum(int(np.count_nonzero(self.are_living(part))) for part in self.parts())

    @property
    def bytes_per_surfel(self) -> float:
        """Bytes that one slot occupies, its share of the chunk's table included."""
        arrays = (self.position, self.normal, self.color, self.seen, self.evidence)
        return sum(a.itemsize * a.shape[1] for a in arrays) + (4 + 12) / CHUNK

    def slots(self) -> np.ndarray:
        """(N,) int64 slots that hold surfels, in order."""
        within = np.arange(CHUNK)[None, :] < self.counts[: self.n_chunks, None]
        return np.flatnonzero(within)

    def parts(self, chunks: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The slots of chunks, by default `slots()`, in consecutive parts: all of them in one or, where they lie in
        files, so many as fit in memory.

        There is at least one, if an empty one.
        A part may be changed until the next is asked for, which takes it out of memory.
        """
        chunks = np.arange(self.n_chunks) if chunks is None else chunks
        step = max(len(chunks), 1) if self.paging is None else PART
        with in_order(self.paging):
            for first in range(0, max(len(chunks), 1), step):
                some = chunks[first : first + step]
                rows, within = np.nonzero(np.arange(CHUNK)[None, :] < self.counts[some, None])
                yield some[rows].astype(np.int64) * CHUNK + within
                if self.paging is not None:
                    self.paging.give_back(some)

    def count_earlier(self) -> int:
        """How many surfels are of frames before the first, of a map that is extended."""
        return sum(int(np.count_nonzero(self.are_living(part) & (self.seen[part, 0] < 0))) for part in self.parts())

    def arrays(self) -> Surfels:
        """For compiled loops; valid until the map grows."""
        return Surfels(self.counts, self.position, self.normal, self.color, self.seen, self.evidence)

    @property
    def margin(self) -> float:
        """Metres that surfels may lie outside of their cubes: fusion moves them as far as their depth may be wrong,
        which grows with the square of the distance where the cubes grow with the distance."""
        return MARGIN * max(1.0, self.block / BLOCK) ** 2

    def chunks(self) -> Table:
        """The chunks in use; valid until there are more."""
        return Table(self.counts[: self.n_chunks], self.origins[: self.n_chunks], np.float32(self.block))

    def _all_chunks(self) -> Table:
        return Table(self.counts, self.origins, np.float32(self.block))

    def insert(self, points: np.ndarray, any_chunks: bool = False) -> np.ndarray:
        """Slots (M,) for the first M of (N, 3) float32 world points; M < N when the map's capacity is reached.

        The caller writes the surfels' values. any_chunks: for surfels that the map held before, which must not be
        lost because they now lie farther apart.
        """
        room = self.config.max_surfels - len(self)
        n = min(len(points), max(room, 0))
        # sparse surfels, far away, leave chunks almost empty: memory is bounded as well as their number
        most_chunks = sys.maxsize if any_chunks else max(4096, 4 * self.config.max_surfels // CHUNK)
        out = np.empty(n, np.int64)
        done = 0
        while done < n:
            if self.n_chunks == len(self.counts):
                if self.n_chunks >= most_chunks:
                    break
                self.reserve(min(2 * self.n_chunks, most_chunks))
            done, self.n_chunks = self.blocks.allocate(points[:n], done, self._all_chunks(), self.n_chunks, out)
        if done < len(points):
            self.rejected += len(points) - done
            if not self.full:
                self.full = True
                reached = f"{len(self)} surfels, max_surfels"
                if done < n:
                    reached = f"{self.n_chunks} chunks of {CHUNK}, as many as max_surfels allows; {len(self)} surfels"
                    reached += f" lie in {self.blocks.count} cubes of {self.block:g} m, most of them almost empty"
                logger.warning(
                    "the map is full: %s; what is there goes on being refined, new surfaces are not added; "
                    "raise --max-surfels%s to map more",
                    reached, " or slam.map.block" if done < n else "",
                )  # fmt: skip
        return out[:done]

    def compact(self, chunks: np.ndarray) -> None:
        """Remove the dead of the given chunks. The others close the gaps within their chunk."""
        if self.journal is not None:
            self.journal.compacts(self, chunks)
        compact_chunks(chunks, self.arrays())
        self.blocks.reopen(chunks, self._all_chunks())

    def compact_all(self) -> None:
        """`compact` every chunk."""
        step = PART if self.paging is not None else max(self.n_chunks, 1)
        for first in range(0, self.n_chunks, step):
            chunks = np.arange(first, min(first + step, self.n_chunks), dtype=np.int32)
            self.compact(chunks)
            if self.paging is not None:
                self.paging.give_back(chunks)

    def median_confidence(self) -> float:
        """Of the living, of which there is one at least."""
        confidence = np.concatenate([self.normal[part, 3] for part in self.parts()])
        return float(np.median(confidence[confidence >= 0]))

    def remove_unsure(self, least: float) -> None:
        """Remove the surfels with less confidence."""
        self.remove_where(lambda part: self.normal[part, 3] < least)

    def remove_where(self, which: Callable[[np.ndarray], np.ndarray]) -> int:
        """Remove surfels, after which others may have moved to their slots; returns how many.

        which: of the slots of a part of the map (N,), those that are to go, (N,) bool; called part by part.
        """
        removed = 0
        for part in self.parts():
            gone = part[which(part)]
            self.color[gone, 3] = MARKED
            removed += len(gone)
        self.compact_all()
        return removed

    def sort_again(self) -> None:
        """Sort the surfels into the cubes of space that they now lie in, after they were moved."""
        old = np.concatenate([np.empty(0, np.int32), *(part.astype(np.int32) for part in self.parts())])
        kept: dict[str, Any] = {}
        for name in SURFEL_ARRAYS:
            array = getattr(self, name)
            if self.paging is None:
                kept[name] = array[old]
            else:
                kept[name] = StoredRows.of_blocks(self.paging.folder, (array[part] for part in self.parts()), array)
        new = self._replace(kept)
        if self.journal is not None:
            self.journal.moved(old, new)

    @staticmethod
    def from_arrays(
        position: np.ndarray,
        normal: np.ndarray,
        color: np.ndarray,
        seen: np.ndarray,
        num_classes: int = 0,
        config: MapConfig | None = None,
        evidence: np.ndarray | None = None,
    ) -> SurfelMap:
        """A map of the given surfels, sorted into chunks afresh; see the class for the arrays; by default no labels."""
        surfels = SurfelMap(num_classes, config)
        if evidence is None:
            evidence = np.zeros((len(position), row_width(num_classes)), np.uint16)
        surfels._replace({"position": position, "normal": normal, "color": color, "seen": seen, "evidence": evidence})
        return surfels

    def cloud(self, class_probabilities: np.ndarray | None = None, min_confidence: float = 0.0) -> SurfelCloud:
        """A copy of the living as plain arrays; class probabilities (N, C) come from `LabelFusion.probabilities`."""
        return self.cloud_of(self.slots(), class_probabilities, min_confidence)

    def cloud_of(
        self, slots: np.ndarray, class_probabilities: np.ndarray | None = None, min_confidence: float = 0.0
    ) -> SurfelCloud:
        """`cloud` of some slots, such as those of `parts`; class probabilities (N, C): one row a slot."""
        keep = self.are_living(slots) & (self.normal[slots, 3] >= min_confidence)
        slots = slots[keep]
        return SurfelCloud(
            positions=self.position[slots, :3],
            normals=self.normal[slots, :3],
            radii=self.position[slots, 3],
            confidence=self.normal[slots, 3],
            colors=(self.color[slots, :3] + np.uint16(128) >> 8).astype(np.uint8),
            first_seen=self.seen[slots, 0],
            last_seen=self.seen[slots, 1],
            class_probabilities=None if class_probabilities is None else class_probabilities[keep],
            world_origin=self.world_origin,
        )

    def _replace(self, state: Mapping[str, Any]) -> np.ndarray:
        """Fill the map afresh, from arrays or `StoredRows`; the new slot (N,) int32 of each surfel."""
        self.n_chunks = 0
        self.blocks = BlockTable()
        count = len(state["position"])
        step = PART * CHUNK if self.paging is not None else max(count, 1)
        found = np.empty(count, np.int32)
        for first in range(0, count, step):
            rows = slice(first, first + step)
            values = {name: state[name][rows] for name in SURFEL_ARRAYS}
            slots = self.insert(np.ascontiguousarray(values["position"][:, :3]), any_chunks=True)
            if len(slots) < len(values["position"]):
                raise ValueError(f"{count} surfels do not fit a map of {self.config.max_surfels}; raise --max-surfels")
            found[rows] = slots
            for name, array in values.items():
                getattr(self, name)[slots] = array
            if self.paging is not None:
                self.paging.give_all_back()
        return found

    def reserve(self, wanted: int) -> None:
        """Make room for so many chunks, no fewer than are in use."""
        size = max(wanted, 256)
        for name in SURFEL_ARRAYS:
            old = getattr(self, name)
            if self.paging is None:
                new = np.empty((size * CHUNK, old.shape[1]), old.dtype)
                grown = False
            else:
                grown = self.paging.has(name)
                new = self.paging.array(name, size, np.empty((CHUNK, old.shape[1]), old.dtype))
            if not grown:
                new[: self.n_chunks * CHUNK] = old[: self.n_chunks * CHUNK]
            setattr(self, name, new)
        for name in ("counts", "origins"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[: self.n_chunks] = old[: self.n_chunks]
            setattr(self, name, new)
