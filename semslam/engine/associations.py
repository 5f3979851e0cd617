"""Which surfel lay in which pixel of the frames that get labels: enough to fuse other labels into the same surfels.

Labels do not change where surfels are, so they can be fused again without tracking, merging or even looking at depth.
What is kept is a list of events in the order in which they happened: surfels seen in a labelled frame, surfels
removed (the others of their chunk close the gap), all surfels moved to other slots. Slots and pixels are stored as
differences to the one before, deflated: measured on the red kitchen about 1.1 bytes for each surfel seen in a labelled
frame. They lie in a temporary file, so that memory does not grow with the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np

from semslam.compiled import SERIAL
from semslam.engine.chunks import CHUNK, MARKED
from semslam.engine.fusion import Fusion
from semslam.engine.labels.evidence_map import EvidenceMap
from semslam.engine.packed import PackedFile, unpack
from semslam.engine.surfels import SurfelMap
from semslam.stage import Layout, check_state

SEEN, REMOVED, MOVED = 0, 1, 2
UNKNOWN = np.full((4, 4), np.nan)  # a pose
STATE: Layout = {  # the arrays of a saved record
    "every": (np.int64, ()),
    "kinds": (np.uint8, ("events",)),
    "frames": (np.int32, ("events",)),
    "poses": (np.float64, ("events", 4, 4)),
    "ends": (np.int64, ("parts",)),
    "data": (np.uint8, ("bytes",)),
}
Fuse = Callable[[SurfelMap, np.ndarray, np.ndarray, "Event"], None]  # map, chunks, pixels a slot, what was seen


@nb.njit(**SERIAL)
def list_seen(chunks, counts, pixels, slots, places):
    """The slots of `chunks` that have a pixel, and their pixels; returns how many."""
    n = 0
    for c in range(chunks.size):
        first = np.int64(chunks[c]) * CHUNK
        for i in range(first, first + counts[chunks[c]]):
            if pixels[i] >= 0:
                slots[n] = i
                places[n] = pixels[i]
                n += 1
    return n


@nb.njit(**SERIAL)
def list_dead(chunks, counts, normal, color, slots):
    """The slots of `chunks` that `compact_chunks` is about to remove; returns how many."""
    n = 0
    for c in range(chunks.size):
        first = np.int64(chunks[c]) * CHUNK
        for i in range(first, first + counts[chunks[c]]):
            if normal[i, 3] < np.float32(0) or color[i, 3] == MARKED:
                slots[n] = i
                n += 1
    return n


@nb.njit(**SERIAL)
def close_gaps(dead, evidence):
    """What `compact_chunks` does, to evidence alone; slots that become free get zeros, as new surfels start with."""
    k = 0
    while k < dead.size:
        end = np.int64(dead[k])
        last = (end // CHUNK + 1) * CHUNK
        for i in range(end, last):
            if k < dead.size and dead[k] == i:
                k += 1
                continue
            evidence[end] = evidence[i]
            end += 1
        evidence[end:last] = np.uint16(0)


@dataclass(frozen=True, eq=False)
class Event:
    """One thing that happened."""

    kind: int  # SEEN: slots and their pixels; REMOVED: slots; MOVED: old slots and new ones
    frame: int  # index of the frame for SEEN
    T_world_camera: np.ndarray | None = None  # (4, 4) for SEEN, as the frame was fused


class Associations:
    """The record of a run. `SurfelMap` tells it what is removed and moved, `Slam.step` what is seen."""

    def __init__(self, every: int = 10, folder: Path | None = None) -> None:
        """every: frames from one that can be labelled afterwards to the next. folder: of `PackedFile`."""
        self.every = every
        self.events: list[Event] = []
        self.packed = PackedFile(folder=folder)  # the two arrays of each event

    @property
    def frames(self) -> list[int]:
        """Indices of the frames that can be labelled."""
        return [event.frame for event in self.events if event.kind == SEEN]

    @property
    def bytes_per_frame(self) -> float:
        """Bytes kept for each frame that can be labelled; 0 where there is none."""
        return self.packed.ends[-1] / max(len(self.frames), 1)

    def seen(self, frame: int, T_world_camera: np.ndarray, surfels: SurfelMap, fusion: Fusion) -> None:
        """Keep what the last `fuse`, at a pose, merged where; `frame` is the index of one of those that get labels."""
        slots, places = (np.empty(len(fusion.visible) * CHUNK, np.int32) for _ in range(2))
        n = list_seen(fusion.visible, surfels.counts, fusion.pixels, slots, places)
        self._keep(SEEN, frame, slots[:n], places[:n], np.array(T_world_camera))

    def compacts(self, surfels: SurfelMap, chunks: np.ndarray) -> None:
        """Keep which surfels of these chunks are about to be removed."""
        dead = np.empty(len(chunks) * CHUNK, np.int32)
        n = list_dead(chunks, surfels.counts, surfels.normal, surfels.color, dead)
        self._keep(REMOVED, -1, np.sort(dead[:n]), np.zeros(0, np.int32))

    def moved(self, old: np.ndarray, new: np.ndarray) -> None:
        """Keep that the surfels of slots `old` (N,) now have the slots `new`."""
        self._keep(MOVED, -1, old.astype(np.int32), new.astype(np.int32))

    def _keep(
        self, kind: int, frame: int, first: np.ndarray, second: np.ndarray, T_world_camera: np.ndarray | None = None
    ) -> None:
        self.packed.add(first, second)
        self.events.append(Event(kind, frame, T_world_camera))

    def fuse_again(self, labelled: EvidenceMap, fuse: Fuse, image: int) -> None:
        """Fuse each labelled frame again, by `fuse`, into evidence that is zero.

        `fuse` gets a map that has evidence and counts only, the chunks and pixels that `LabelFusion.fuse` expects, and
        the event. As the same evidence is added in the same order, the rows of the surfels that the map now has equal
        those of a run with these labels bit by bit.

        image: pixels of the images; ValueError where a saved event names one outside.
        """
        pixels = np.zeros(0, np.int32)
        for k, event in enumerate(self.events):
            first, second = map(unpack, self.packed[k])
            slots = [first, second] if event.kind == MOVED else [first]
            labelled.reserve(max((int(some.max()) // CHUNK + 1 for some in slots if len(some)), default=0))
            chunks = np.unique(first // CHUNK).astype(np.int32)
            if event.kind == MOVED:
                labelled.move(first, second)
                continue
            if event.kind == REMOVED:
                close_gaps(first, labelled.surfels.evidence)
            else:
                if second.max(initial=0) >= image:
                    raise ValueError("the saved associations are damaged: they name pixels outside of the image")
                if len(pixels) < len(labelled.surfels.evidence):
                    pixels = np.full(len(labelled.surfels.evidence), -1, np.int32)
                pixels[first] = second
                fuse(labelled.surfels, chunks, pixels, event)
                pixels[first] = -1
            labelled.looked_at(chunks)

    def are_of(self, indices: np.ndarray, counts: np.ndarray) -> bool:
        """Whether this may be the record of a map whose chunks hold `counts` (C,) surfels, made of frames (N,).

        What was seen last and not removed since has to be there still.
        """
        if not np.isin(self.frames, indices).all():
            return False
        last = max((k for k, event in enumerate(self.events) if event.kind != REMOVED), default=-1)
        if last < 0 or self.events[last].kind == MOVED:
            return True
        slots = unpack(self.packed[last][0])
        for k in range(last + 1, len(self.events)):
            dead = unpack(self.packed[k][0])
            slots = slots[~np.isin(slots, dead)]
            slots = slots - (np.searchsorted(dead, slots) - np.searchsorted(dead, slots // CHUNK * CHUNK))
        chunks = slots // CHUNK
        return bool(np.all(chunks < len(counts)) and np.all(slots % CHUNK < counts[chunks]))

    def state(self) -> dict[str, np.ndarray]:
        """Everything, for numpy.savez."""
        return {
            "every": np.array(self.every),
            "kinds": np.array([event.kind for event in self.events], np.uint8),
            "frames": np.array([event.frame for event in self.events], np.int32),
            "poses": np.array([UNKNOWN if e.T_world_camera is None else e.T_world_camera for e in self.events]).reshape(
                -1, 4, 4
            ),
            "ends": np.array(self.packed.ends[1:], np.int64),
            "data": self.packed.data,
        }

    @staticmethod
    def from_state(state: dict[str, np.ndarray], events: int | None = None, folder: Path | None = None) -> Associations:
        """Take up a `state`, or its first `events`: a run may have gone on after the map beside it was saved.

        folder: of `PackedFile`.

        ValueError where its arrays are missing or do not fit together.
        """
        check_state(state, STATE)
        places = np.concatenate([[0], state["ends"], [len(state["data"])]])
        if len(state["ends"]) != 2 * len(state["kinds"]) or np.any(np.diff(places) < 0) or state["every"] < 1:
            raise ValueError("the saved associations do not fit together")
        associations = Associations(int(state["every"]))
        kept = slice(0, events)
        for kind, frame, T in zip(state["kinds"][kept].tolist(), state["frames"][kept].tolist(), state["poses"][kept]):
            associations.events.append(Event(kind, frame, T if np.isfinite(T).all() else None))
        ends = state["ends"][: 2 * len(associations.events)]
        associations.packed = PackedFile(state["data"][: ends[-1] if len(ends) else 0], ends, folder)
        for k, event in enumerate(associations.events):
            first, second = map(unpack, associations.packed[k])
            if event.kind != REMOVED and len(first) != len(second):
                raise ValueError("the saved associations are damaged: an event lacks slots or pixels")
        return associations
