"""Posed images as pose networks learn from them: small, in memory, and in tuples of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from networks.augmentation import recolored
from networks.joint.network import normalised
from networks.losses import IGNORE
from networks.pose.encoding import PoseStatistics, encoded
from networks.pose.predictor import shrunk
from semslam.config import Count, Natural, check_ranges
from semslam.images.resizing import resized_depth, resized_ids

if TYPE_CHECKING:
    from sequences.images.posed_images import PosedImages


@dataclass(frozen=True)
class PoseSource:
    """A set of posed images, or a choice of their frames."""

    path: str  # a data set, a recording with poses, or a list of poses; see sequences.posed
    kind: str | None = None  # its layout; null = detected
    split: str | None = None  # train | test, of data sets that have them
    poses: str | None = None  # trajectory file in place of the recording's own poses, a tracked one for example
    labels: str | None = None  # folder of other label images, such as those of a teacher
    first: Natural = 0  # index of the first frame
    last: Count | None = None  # index after that of the last frame; null = the end
    hold_out: Natural = 0  # frames: every n-th of the chosen ones is left out; 0 = none
    held_out: bool = False  # take only those that hold_out leaves out
    labelled_only: bool = False  # leave out images without labels
    in_memory: bool = True  # decode images once and keep them at the network's size, or read them each time

    def __post_init__(self) -> None:
        check_ranges(self, "")
        if self.last is not None and self.last <= self.first:
            raise ValueError(f"{self.path}: frames {self.first} to {self.last}; last must be above first")
        if self.hold_out == 1 or (self.held_out and not self.hold_out):
            raise ValueError(f"{self.path}: hold_out is {self.hold_out}; expected 0, or 2 and more to hold out frames")


def open_source(source: PoseSource) -> PosedImages:
    """The posed images that a source names."""
    from sequences.posed import open_posed

    images = open_posed(source.path, source.kind, source.split, source.poses)
    places = images.numbers
    keep = (places >= source.first) & (places < (np.inf if source.last is None else source.last))
    if source.hold_out:
        out = (places - source.first) % source.hold_out == source.hold_out - 1
        keep &= out if source.held_out else ~out
    images = images.selected(keep)
    if source.labels is not None:
        images = images.with_labels(source.labels)
    if source.labelled_only:
        if images.labelled is None:
            raise ValueError(f"{source.path}: there are no labels; name a folder of them, or leave labelled_only out")
        images = images.selected(images.labelled)
    return images


class PoseSamples:
    """The images of a source at one size, with poses as networks learn them.

    Args:
        size: height and width that the network sees.
        labels, depth: whether these are wanted, where there.
    """

    def __init__(
        self,
        images: PosedImages,
        size: tuple[int, int],
        labels: bool = False,
        depth: bool = False,
        in_memory: bool = True,
    ) -> None:
        self.images, self.size = images, size
        self.labels = labels and images.read_labels is not None
        self.depth = depth and images.read_depth is not None
        self._kept: list[tuple[np.ndarray, ...]] | None = None
        if in_memory:
            with ThreadPoolExecutor(2) as pool:
                self._kept = list(pool.map(self._read, range(len(images))))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        """Colour (h, w, 3) uint8, labels (h, w) uint8 with 255 = none, depth (h, w) float32 with 0 = none."""
        return self._kept[index] if self._kept is not None else self._read(index)

    def _read(self, index: int) -> tuple[np.ndarray, ...]:
        images, (height, width) = self.images, self.size
        number = int(images.numbers[index])
        labels = images.read_labels(number) if self.labels and images.read_labels else None
        depth = images.read_depth(number) if self.depth and images.read_depth else None
        none = np.full(self.size, IGNORE, np.uint8)
        return (
            shrunk(images.read_color(number), self.size),
            none if labels is None else resized_ids(labels, (width, height)),
            np.zeros(self.size, np.float32) if depth is None else resized_depth(depth, (width, height)),
        )


def tuple_places(recordings: np.ndarray, index: int, length: int, skip: int) -> np.ndarray:
    """Places (length,) of the tuple around an image: neighbours `skip` apart in its recording, clamped at its ends.

    Clamped places repeat, as in the reference; unlike there no tuple reaches into another recording.
    """
    same = np.flatnonzero(recordings == recordings[index])
    own = int(np.searchsorted(same, index))
    offsets = skip * (np.arange(length) - length // 2)
    return same[np.clip(own + offsets, 0, len(same) - 1)]


def batch_of(
    tuples: Sequence[tuple[PoseSamples, np.ndarray, bool]],
    statistics: PoseStatistics,
    generators: Sequence[np.random.Generator] | None = None,
    color: float = 0.0,
) -> dict[str, Any]:
    """Tensors of tuples (samples, places (T,), whether their poses are the map's).

    image (B, T, 3, h, w) normalised, pose (B, T, 6) float32, placed (B,), labels (B, T, h, w) int64 and depth
    (B, T, h, w) metres. With a `color` above 0 tuples are recoloured, each by its own of the `generators`, its images
    alike, so that they differ by the camera alone.
    """
    pixels, labels, depth, pose = [], [], [], []
    for number, (samples, places, _) in enumerate(tuples):
        views = [samples[int(place)] for place in places]
        seen = [view[0] for view in views]
        if color > 0 and generators is not None:
            gains = generators[number].uniform(-1, 1, 6) * color
            seen = [recolored(image, gains) for image in seen]
        pixels.append(np.stack(seen))
        labels.append(np.stack([view[1] for view in views]))
        depth.append(np.stack([view[2] for view in views]))
        pose.append(encoded(samples.images.T_world_camera[places], statistics))
    shape = (len(tuples), len(tuples[0][1]))
    image = normalised(torch.from_numpy(np.concatenate(pixels)))
    return {
        "image": image.unflatten(0, shape),
        "pose": torch.from_numpy(np.stack(pose)).float(),
        "placed": torch.tensor([placed for _, _, placed in tuples]),
        "labels": torch.from_numpy(np.stack(labels)).long(),
        "depth": torch.from_numpy(np.stack(depth)),
    }
