"""The surfels of a paged map, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from semslam.cloud import CloudInParts, SurfelCloud
from semslam.engine.labels.label_fusion import LabelFusion
from semslam.engine.surfels import SurfelMap
from semslam.runs.progress import Progress


def clouds_of(
    surfels: SurfelMap, labels: LabelFusion, progress: Progress, submap: int, more: list[SurfelCloud]
) -> CloudInParts:
    """The surfels of a sub-map of a paged map, which changes no more, and then some others, part by part."""
    read = _Reading(surfels, labels, progress, submap, more)
    has_classes = surfels.num_classes > 0
    count = sum(map(len, read.plain()))
    return CloudInParts(
        count, read.with_classes if has_classes else read.plain, None, read.plain,
        read.probabilities if has_classes else None,
    )  # fmt: skip


class _Reading:
    def __init__(
        self, surfels: SurfelMap, labels: LabelFusion, progress: Progress, submap: int, more: list[SurfelCloud]
    ) -> None:
        self._surfels, self._labels, self._progress, self._submap = surfels, labels, progress, submap
        self._more = more

    def plain(self) -> Iterator[SurfelCloud]:
        for part in self._surfels.parts():
            yield self._progress.part_of(self._surfels.cloud_of(part), self._submap)
        yield from self._more

    def with_classes(self) -> Iterator[SurfelCloud]:
        for part in self._surfels.parts():
            yield self._progress.part_of(self._surfels.cloud_of(part, self._probabilities_at(part)), self._submap)
        yield from self._more

    @cached_property
    def _probabilities_at(self) -> Callable[[np.ndarray], np.ndarray]:
        return self._labels.reader(self._surfels)  # which reads the whole map

    @cached_property
    def _slots(self) -> np.ndarray:
        """(N,) int32: where each surfel of the sub-map is."""
        found = [np.empty(0, np.int32)]
        for part in self._surfels.parts():
            kept = self._progress.are_part_of(self._surfels.seen[part, 0], self._submap)
            found.append(part[kept & self._surfels.are_living(part)].astype(np.int32))
        return np.concatenate(found)

    def probabilities(self, indices: np.ndarray) -> np.ndarray:
        """(M, C) float32 of some surfels (M,), by their number in all parts."""
        found = np.zeros((len(indices), self._surfels.num_classes), np.float32)
        first = len(self._slots)
        of_map = indices < first
        found[of_map] = self._probabilities_at(self._slots[indices[of_map]])
        for cloud in self._more:
            theirs = (indices >= first) & (indices < first + len(cloud))
            if cloud.class_probabilities is not None:
                found[theirs] = cloud.class_probabilities[indices[theirs] - first]
            first += len(cloud)
        if self._surfels.paging is not None:
            self._surfels.paging.give_all_back()
        return found
