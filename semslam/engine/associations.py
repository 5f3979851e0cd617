"""Which surfel lay in which pixel of the frames that get labels: enough to fuse other labels into the same surfels.

Labels do not change where surfels are, so they can be fused again without tracking, merging or even looking at depth.
What is kept is a list of events in the order in which they happened: surfels seen in a labelled frame, surfels
removed (the others of their chunk close the gap), all surfels moved to other slots. Slots and pixels are stored as
differences to the one before, deflated: measured on the red kitchen about 1.1 bytes for each surfel seen in a labelled
frame.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numba as nb
import numpy as np

from semslam.compiled import SERIAL
from semslam.engine.chunks import CHUNK, MARKED
from semslam.engine.fusion import Fusion
from semslam.engine.surfels import SurfelMap
from semslam.stage import Layout, check_state

SEEN, REMOVED, MOVED = 0, 1, 2
STATE: Layout = {  # the arrays of a saved record
    "every": (np.int64, ()),
    "kinds": (np.uint8, ("events",)),
    "frames": (np.int32, ("events",)),
    "ends": (np.int64, ("parts",)),
    "data": (np.uint8, ("bytes",)),
}
Packed = tuple[bytes, bytes]
Fuse = Callable[[SurfelMap, np.ndarray, np.ndarray, int], None]  # map, chunks, pixels a slot, frame


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
def close_gaps(dead, scores):
    """What `compact_chunks` does, to scores alone; slots that become free get zeros, as new surfels start with."""
    k = 0
    while k < dead.size:
        end = np.int64(dead[k])
        last = (end // CHUNK + 1) * CHUNK
        for i in range(end, last):
            if k < dead.size and dead[k] == i:
                k += 1
                continue
            scores[end] = scores[i]
            end += 1
        scores[end:last] = np.float32(0)


def pack(values: np.ndarray) -> bytes:
    """int32 values as differences to the one before, deflated."""
    return zlib.compress(np.diff(values, prepend=np.int32(0)).tobytes(), 1)


def unpack(packed: bytes) -> np.ndarray:
    """The int32 values of `pack`, none of which is negative; ValueError where they are damaged."""
    try:
        values = np.cumsum(np.frombuffer(zlib.decompress(packed), np.int32), dtype=np.int32)
    except zlib.error as error:
        raise ValueError(f"the saved associations are damaged ({error})") from None
    if values.min(initial=0) < 0:
        raise ValueError("the saved associations are damaged: they name slots or pixels below 0")
    return values


@dataclass(frozen=True, eq=False)
class Event:
    """One thing that happened; `arrays` are packed by another thread meanwhile."""

    kind: int  # SEEN: slots and their pixels; REMOVED: slots; MOVED: old slots and new ones
    frame: int  # index of the frame for SEEN
    arrays: Future[Packed] | Packed

    def packed(self) -> Packed:
        return self.arrays.result() if isinstance(self.arrays, Future) else self.arrays


class Associations:
    """The record of a run. `SurfelMap` tells it what is removed and moved, `Slam.step` what is seen."""

    def __init__(self, every: int = 10) -> None:
        """every: frames from one that can be labelled afterwards to the next."""
        self.every = every
        self.events: list[Event] = []
        self._packer = ThreadPoolExecutor(1)

    @property
    def frames(self) -> list[int]:
        """Indices of the frames that can be labelled."""
        return [event.frame for event in self.events if event.kind == SEEN]

    @property
    def bytes_per_frame(self) -> float:
        """Bytes kept for each frame that can be labelled; 0 where there is none."""
        return sum(len(part) for event in self.events for part in event.packed()) / max(len(self.frames), 1)

    def seen(self, frame: int, surfels: SurfelMap, fusion: Fusion) -> None:
        """Keep what the last `fuse` merged where; `frame` is the index of one of those that get labels."""
        slots, places = (np.empty(len(fusion.visible) * CHUNK, np.int32) for _ in range(2))
        n = list_seen(fusion.visible, surfels.counts, fusion.pixels, slots, places)
        self._keep(SEEN, frame, slots[:n], places[:n])

    def compacts(self, surfels: SurfelMap, chunks: np.ndarray) -> None:
        """Keep which surfels of these chunks are about to be removed."""
        dead = np.empty(len(chunks) * CHUNK, np.int32)
        n = list_dead(chunks, surfels.counts, surfels.normal, surfels.color, dead)
        self._keep(REMOVED, -1, np.sort(dead[:n]), np.zeros(0, np.int32))

    def moved(self, old: np.ndarray, new: np.ndarray) -> None:
        """Keep that the surfels of slots `old` (N,) now have the slots `new`."""
        self._keep(MOVED, -1, old.astype(np.int32), new.astype(np.int32))

    def _keep(self, kind: int, frame: int, first: np.ndarray, second: np.ndarray) -> None:
        packed = self._packer.submit(lambda: (pack(first), pack(second)))
        self.events.append(Event(kind, frame, packed))

    def fuse_again(self, num_classes: int, fuse: Fuse, slots: np.ndarray) -> np.ndarray:
        """Scores (N, num_classes) of the surfels now in `slots` (N,), each labelled frame fused again by `fuse`.

        `fuse` gets a map that has scores and counts only, the chunks and pixels that `LabelFusion.fuse` expects, and
        the index of the frame. As the same evidence is added in the same order, the scores equal those of a run with
        these labels bit by bit.
        """
        surfels = SurfelMap(num_classes)
        pixels = np.zeros(0, np.int32)
        for event in self.events:
            first, second = map(unpack, event.packed())
            known = [len(pixels) - 1, int(first.max(initial=0))]
            n_chunks = max(known + [int(second.max(initial=0))] * (event.kind == MOVED)) // CHUNK + 1
            if n_chunks * CHUNK > len(pixels):
                added = n_chunks * CHUNK - len(pixels)
                surfels.scores = np.concatenate([surfels.scores, np.zeros((added, num_classes), np.float32)])
                surfels.counts = np.full(n_chunks, CHUNK, np.int32)
                pixels = np.full(n_chunks * CHUNK, -1, np.int32)
            if event.kind == REMOVED:
                close_gaps(first, surfels.scores)
            elif event.kind == MOVED:
                moved = np.zeros_like(surfels.scores)
                moved[second] = surfels.scores[first]
                surfels.scores = moved
            else:
                pixels[first] = second
                fuse(surfels, np.unique(first // CHUNK).astype(np.int32), pixels, event.frame)
                pixels[first] = -1
        known_slots = slots < len(pixels)
        scores = np.zeros((len(slots), num_classes), np.float32)
        scores[known_slots] = surfels.scores[slots[known_slots]]
        return scores

    def state(self) -> dict[str, np.ndarray]:
        """Everything, for numpy.savez."""
        packed = [part for event in self.events for part in event.packed()]
        return {
            "every": np.array(self.every),
            "kinds": np.array([event.kind for event in self.events], np.uint8),
            "frames": np.array([event.frame for event in self.events], np.int32),
            "ends": np.cumsum([len(part) for part in packed], dtype=np.int64),
            "data": np.frombuffer(b"".join(packed), np.uint8),
        }

    @staticmethod
    def from_state(state: dict[str, np.ndarray], events: int | None = None) -> Associations:
        """Take up a `state`, or its first `events`: a run may have gone on after the map beside it was saved.

        ValueError where its arrays are missing or do not fit together.
        """
        check_state(state, STATE)
        places = np.concatenate([[0], state["ends"], [len(state["data"])]])
        if len(state["ends"]) != 2 * len(state["kinds"]) or np.any(np.diff(places) < 0) or state["every"] < 1:
            raise ValueError("the saved associations do not fit together")
        associations = Associations(int(state["every"]))
        data, ends = state["data"].tobytes(), [0, *state["ends"].tolist()]
        parts = [data[a:b] for a, b in pairwise(ends)]
        for k, (kind, frame) in enumerate(zip(state["kinds"].tolist(), state["frames"].tolist())):
            associations.events.append(Event(kind, frame, (parts[2 * k], parts[2 * k + 1])))
        if events is not None:
            del associations.events[events:]
        for event in associations.events:
            first, second = map(unpack, event.packed())
            if event.kind != REMOVED and len(first) != len(second):
                raise ValueError("the saved associations are damaged: an event lacks slots or pixels")
        return associations
