"""The finished map as plain arrays: what export, viewers and evaluation read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from semslam import poses
from semslam.frame import UNLABELLED

AT_ONCE = 1 << 16  # surfels


def most_probable(probabilities: np.ndarray) -> np.ndarray:
    """(...) uint8 class ids of probabilities (..., C), 255 where all are zero."""
    labels = probabilities.argmax(axis=-1).astype(np.uint8)
    labels[probabilities.max(axis=-1, initial=0) <= 0] = UNLABELLED
    return labels


@dataclass(frozen=True, eq=False)
class SurfelCloud:
    """N surfels of a map, in the world frame less its origin. A copy: changing the map later does not change it."""

    positions: np.ndarray  # (N, 3) float32 metres
    normals: np.ndarray  # (N, 3) float32 unit
    radii: np.ndarray  # (N,) float32 metres
    confidence: np.ndarray  # (N,) float32, the sum of the weights of what was merged
    colors: np.ndarray  # (N, 3) uint8 RGB
    first_seen: np.ndarray  # (N,) int32 frame index
    last_seen: np.ndarray  # (N,) int32 frame index
    class_probabilities: np.ndarray | None = None  # (N, C) float32; rows sum to 1, or to 0 where never labelled
    world_origin: np.ndarray = field(default_factory=lambda: np.zeros(3))  # (3,) float64 metres, of the positions

    def __len__(self) -> int:
        return len(self.positions)

    def labels(self) -> np.ndarray:
        """(N,) uint8 most probable class ids, 255 where a surfel was never labelled."""
        if self.class_probabilities is None:
            return np.full(len(self), UNLABELLED, np.uint8)
        return most_probable(self.class_probabilities)

    def label_confidence(self) -> np.ndarray:
        """(N,) float32 probability of the most probable class, 0 where never labelled."""
        if self.class_probabilities is None:
            return np.zeros(len(self), np.float32)
        return self.class_probabilities.max(axis=1, initial=0)

    def entropy(self) -> np.ndarray:
        """(N,) float32 entropy of the class probabilities in nats; log C where never labelled."""
        if self.class_probabilities is None:
            return np.zeros(len(self), np.float32)
        entropy = np.empty(len(self), np.float32)
        for first in range(0, len(self), AT_ONCE):  # a large map needs no second array of its probabilities' size
            p = self.class_probabilities[first : first + AT_ONCE]
            part = -np.sum(p * np.log(np.maximum(p, 1e-12)), axis=1)
            part[p.max(axis=1, initial=0) <= 0] = np.log(p.shape[1])
            entropy[first : first + AT_ONCE] = part
        return entropy

    def selected(self, keep: np.ndarray) -> SurfelCloud:
        """The surfels that a mask or index array keeps."""
        return SurfelCloud(
            self.positions[keep],
            self.normals[keep],
            self.radii[keep],
            self.confidence[keep],
            self.colors[keep],
            self.first_seen[keep],
            self.last_seen[keep],
            None if self.class_probabilities is None else self.class_probabilities[keep],
            self.world_origin,
        )

    def moved(self, T_new_world: np.ndarray) -> SurfelCloud:
        """The same surfels in another world frame."""
        T = poses.orthonormalized(np.asarray(T_new_world, np.float64))
        positions = poses.transform(T, self.positions).astype(self.positions.dtype)
        return replace(self, positions=positions, normals=(self.normals @ T[:3, :3].T).astype(self.normals.dtype))


@dataclass(frozen=True, eq=False)
class CloudInParts:
    """A map that may be too large for one `SurfelCloud`: parts of it, made anew each time they are asked for."""

    count: int  # surfels
    parts: Callable[[], Iterator[SurfelCloud]]  # at least one
    whole: SurfelCloud | None = None  # where it is there as one
    plain: Callable[[], Iterator[SurfelCloud]] | None = None  # the parts without classes, which take longer to read
    probabilities: Callable[[np.ndarray], np.ndarray] | None = None  # of surfels (M,) -> (M, C), without reading others

    @staticmethod
    def of(cloud: SurfelCloud) -> CloudInParts:
        """A map that is there as a whole."""
        p = cloud.class_probabilities
        return CloudInParts(len(cloud), lambda: iter([cloud]), cloud, None, None if p is None else p.__getitem__)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[SurfelCloud]:
        return self.parts()

    @property
    def geometry(self) -> CloudInParts:
        """The same, of which no classes are read."""
        return self if self.plain is None else CloudInParts(self.count, self.plain, self.whole)

    def positions(self, surfels: slice = slice(None)) -> Iterator[np.ndarray]:
        """The positions (N, 3) of consecutive surfels, in blocks of some 2^16, or in one where all are in memory."""
        if self.whole is not None:
            yield self.whole.positions[surfels]
            return
        first, last, _ = surfels.indices(self.count)
        done, block = 0, [np.zeros((0, 3), np.float32)]
        for part in self.geometry:
            block.append(part.positions[max(first - done, 0) : max(last - done, 0)])
            done += len(part)
            if sum(map(len, block)) >= AT_ONCE:
                yield np.concatenate(block)
                block = block[:1]
        yield np.concatenate(block)

    def where(self, kept: Callable[[SurfelCloud], np.ndarray], count: int) -> CloudInParts:
        """The surfels that a mask (N,) of each part keeps; count: how many these are."""
        whole = None if self.whole is None else self.whole.selected(kept(self.whole))
        return CloudInParts(count, lambda: (part.selected(kept(part)) for part in self), whole)

    def sample(self, most: int) -> SurfelCloud:
        """A random sample of about `most` surfels, the same every time, enlarged to the total area of the map.

        All surfels, unchanged, where there are no more than that or where all are in memory.
        """
        if self.whole is not None:
            return self.whole
        chosen, done, found = self.sampled(most), 0, []
        for part in self:
            found.append(part.selected(chosen[done : done + len(part)]))
            done += len(part)
        sample = joined(found)
        if len(sample) == self.count:
            return sample
        return replace(sample, radii=sample.radii * np.float32(np.sqrt(self.count / max(len(sample), 1))))

    def sampled(self, most: int) -> np.ndarray:
        """(N,) bool: which surfels `sample` takes of a map that is not there as a whole."""
        return np.random.default_rng(0).random(self.count) < most / max(self.count, 1)


def joined(parts: Sequence[SurfelCloud]) -> SurfelCloud:
    """The parts of one map, of which there is at least one, as one cloud; without classes where a part has none."""
    if len(parts) == 1:
        return parts[0]
    values = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("positions", "normals", "radii", "confidence", "colors", "first_seen", "last_seen")
    }
    probabilities = [part.class_probabilities for part in parts if part.class_probabilities is not None]
    together = np.concatenate(probabilities) if len(probabilities) == len(parts) else None
    return SurfelCloud(**values, class_probabilities=together, world_origin=parts[0].world_origin)
