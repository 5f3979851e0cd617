"""The map as named arrays, from which it goes on bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam.engine.chunks import CHUNK, BlockTable
from semslam.engine.paging import in_order
from semslam.engine.surfels import PART, SURFEL_ARRAYS, MapConfig, SurfelMap
from semslam.stage import Layout, check_state

STATE: Layout = {  # the arrays of a saved map
    "position": (np.float32, ("surfels", 4)),
    "normal": (np.float32, ("surfels", 4)),
    "color": (np.uint16, ("surfels", 4)),
    "seen": (np.int32, ("surfels", 2)),
    "evidence": (np.uint16, ("surfels", "row")),
    "classes": (np.int64, ()),
    "counts": (np.int32, ("chunks",)),
    "origins": (np.float32, ("chunks", 3)),
    "block_keys": (np.int64, ("blocks",)),
    "open_chunks": (np.int32, ("blocks",)),
    "rejected": (np.int64, ()),
}


class StatePart(NamedTuple):
    """An array of a state, given block by block, so that saving needs no second copy of a large map."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Iterator[np.ndarray]  # consecutive rows


def state_of(surfels: SurfelMap) -> dict[str, np.ndarray]:
    """Everything needed to continue from here bit by bit: for `restored`, or numpy.savez."""
    return {
        part.name: np.concatenate([np.empty((0, *part.shape[1:]), part.dtype), *part.blocks])
        if part.shape
        else next(part.blocks)
        for part in state_parts(surfels)
    }


def state_parts(surfels: SurfelMap) -> Iterator[StatePart]:
    """`state_of`, block by block; the map must not change before the last block is taken."""
    for name in SURFEL_ARRAYS:
        array = getattr(surfels, name)
        yield StatePart(name, array.dtype, (len(surfels), array.shape[1]), _rows(surfels, array))
    block_keys, open_chunks = surfels.blocks.sorted()
    for name, array in (
        ("counts", surfels.counts[: surfels.n_chunks].copy()),
        ("origins", surfels.origins[: surfels.n_chunks].copy()),
        ("block_keys", block_keys),
        ("open_chunks", open_chunks),
        ("rejected", np.array(surfels.rejected)),
        ("classes", np.array(surfels.num_classes)),
        ("block", np.array(surfels.block)),
        ("world_origin", surfels.world_origin),
    ):
        yield StatePart(name, array.dtype, array.shape, iter([array]))


def _rows(surfels: SurfelMap, array: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array that hold surfels, PART chunks at a time."""
    paging = surfels.paging
    with in_order(paging):
        for first in range(0, surfels.n_chunks, PART):
            counts = surfels.counts[first : min(first + PART, surfels.n_chunks)]
            within = np.flatnonzero(np.arange(CHUNK)[None, :] < counts[:, None])
            yield array[first * CHUNK : (first + len(counts)) * CHUNK][within]
            if paging is not None:
                paging.give_back(np.arange(first, first + len(counts)))


def restored(state: Mapping[str, Any], config: MapConfig | None = None, folder: Path | None = None) -> SurfelMap:
    """The map whose `state_of` this is; ValueError where its arrays are missing or do not fit together.

    The arrays of surfels may be `StoredRows`. folder: see `SurfelMap.page_to`.
    """
    check_state(state, STATE)
    counts, open_chunks = state["counts"], state["open_chunks"]
    if np.any((counts < 0) | (counts > CHUNK)) or counts.sum() != len(state["position"]):
        raise ValueError(f"the saved map counts {counts.sum()} surfels and holds {len(state['position'])}")
    if np.any((open_chunks < -1) | (open_chunks >= len(counts))):
        raise ValueError(f"the saved map names chunks that it does not have; it has {len(counts)}")
    surfels = SurfelMap(int(state["classes"]), config)
    surfels.block = float(state["block"])
    if state["evidence"].shape[1] != surfels.evidence.shape[1]:
        raise ValueError(
            f"the saved map has {state['classes']} classes and {state['evidence'].shape[1]} numbers a surfel for "
            f"them, expected {surfels.evidence.shape[1]}"
        )
    n_chunks = len(counts)
    if folder is not None:
        surfels.page_to(folder)
    surfels.reserve(n_chunks)
    surfels.n_chunks = n_chunks
    surfels.counts[:n_chunks] = counts
    surfels.origins[:n_chunks] = state["origins"]
    surfels.blocks = BlockTable(state["block_keys"], open_chunks)
    done = 0
    for part in surfels.parts():
        for name in SURFEL_ARRAYS:
            getattr(surfels, name)[part] = state[name][done : done + len(part)]
        done += len(part)
    surfels.rejected = int(state["rejected"])
    surfels.full = surfels.rejected > 0
    surfels.world_origin = state["world_origin"]
    return surfels
