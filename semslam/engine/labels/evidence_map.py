"""The label evidence of a map's surfels without the map: what other labels are fused into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from semslam.engine.chunks import CHUNK
from semslam.engine.labels.evidence import row_width
from semslam.engine.paging import Paging, in_order
from semslam.engine.surfels import PART, SurfelMap


class EvidenceMap:
    """Rows of evidence, zero at first, for the slots of a map; in files where memory is bounded.

    Attributes:
        surfels: what `LabelFusion.fuse` takes, with evidence and counts only
    """

    def __init__(self, num_classes: int, memory: int | None = None, folder: Path | None = None) -> None:
        """memory: most bytes of evidence that stay in memory, None = all; the others are in files of the folder."""
        self.surfels = SurfelMap(num_classes)
        self._memory, self._folder = memory, folder
        self._paging = self._new_paging()

    def _new_paging(self) -> Paging | None:
        return None if self._memory is None or self._folder is None else Paging(self._folder, self._memory)

    def reserve(self, n_chunks: int) -> None:
        """Let there be so many chunks, or more."""
        known = len(self.surfels.counts)
        if n_chunks > known:
            n_chunks = max(n_chunks, known + known // 2)
            self.surfels.evidence = self._rows(n_chunks, self.surfels.evidence)
            self.surfels.counts = np.full(n_chunks, CHUNK, np.int32)

    def _rows(self, n_chunks: int, old: np.ndarray) -> np.ndarray:
        """(n_chunks * CHUNK, W) uint16: the old rows, then zeros."""
        width = row_width(self.surfels.num_classes)
        if self._paging is not None:  # files begin with zeros, and keep what they have
            return self._paging.array("evidence", n_chunks, np.zeros((CHUNK, width), np.uint16))
        rows = np.zeros((n_chunks * CHUNK, width), np.uint16)
        rows[: len(old)] = old
        return rows

    def looked_at(self, chunks: np.ndarray) -> None:
        """Keep chunks in memory rather than others, as far as it is bounded."""
        if self._paging is not None:
            self._paging.see(chunks)
            self._paging.next_frame()

    def move(self, old: np.ndarray, new: np.ndarray) -> None:
        """Move the rows of the slots `old` (N,) to `new`; all other rows become zero."""
        rows, before = self.surfels.evidence, self._paging
        self._paging = self._new_paging()
        moved = self._rows(len(self.surfels.counts), rows[:0])
        step = max(len(old), 1) if before is None else PART * CHUNK
        for first in range(0, len(old), step):
            moved[new[first : first + step]] = rows[old[first : first + step]]
            for paging in (before, self._paging):
                if paging is not None:
                    paging.give_all_back()
        self.surfels.evidence = moved

    def rows(self, counts: np.ndarray) -> Iterator[np.ndarray]:
        """The rows of the surfels of a map whose chunks hold so many (K,), block by block, in the order of slots."""
        self.reserve(len(counts))
        with in_order(self._paging):
            for first in range(0, len(counts), PART):
                within = np.arange(CHUNK)[None, :] < counts[first : first + PART, None]
                yield self.surfels.evidence[first * CHUNK :][np.flatnonzero(within)]
                if self._paging is not None:
                    self._paging.give_all_back()
