"""Images with the poses they were taken from: what pose networks learn from and are scored on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semslam.images import labels as label_images
from semslam.labels import label_set


@dataclass(frozen=True, eq=False)
class PosedImage:
    """One image, where it was taken, and what else is known of it."""

    name: str
    color: np.ndarray  # (H, W, 3) uint8 RGB
    T_world_camera: np.ndarray  # (4, 4) float64
    labels: np.ndarray | None = None  # (H, W) ids in memory, 255 = unlabelled
    depth: np.ndarray | None = None  # (h, w) float32 metres, 0 = none


@dataclass(frozen=True, eq=False)
class PosedImages:
    """Posed images in the order in which they were taken: `len`, indexing and iteration give PosedImage."""

    source: str  # named in messages
    names: tuple[str, ...]
    T_world_camera: np.ndarray  # (N, 4, 4) float64
    recordings: np.ndarray  # (N,) int64: which images were taken in one go; tuples of images never mix two
    numbers: np.ndarray  # (N,) int64: the image's place in what was opened, before any were left out
    read_color: Callable[[int], np.ndarray]  # takes a number, as the other two
    read_labels: Callable[[int], np.ndarray | None] | None = None
    read_depth: Callable[[int], np.ndarray | None] | None = None
    labelled: np.ndarray | None = None  # (N,) bool: which have labels
    label_set: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> PosedImage:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.source} has images 0..{len(self) - 1}, asked for {index}")
        number = int(self.numbers[index])
        color = self.read_color(number)
        labels = None if self.read_labels is None else self.read_labels(number)
        depth = None if self.read_depth is None else self.read_depth(number)
        return PosedImage(self.names[index], color, self.T_world_camera[index], labels, depth)

    def __iter__(self) -> Iterator[PosedImage]:
        return (self[i] for i in range(len(self)))

    def selected(self, keep: np.ndarray) -> PosedImages:
        """The images that a mask or an increasing index array keeps; ValueError if there is none."""
        chosen = np.arange(len(self))[keep]
        if not len(chosen):
            raise ValueError(f"{self.source}: none of its {len(self)} images is left; widen the choice of frames")
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            T_world_camera=self.T_world_camera[chosen],
            recordings=self.recordings[chosen],
            numbers=self.numbers[chosen],
            labelled=None if self.labelled is None else self.labelled[chosen],
        )

    def with_labels(self, folder: str | Path, classes: str = "nyu40") -> PosedImages:
        """The same images with the labels NAME.png of another folder, such as a network's; each must have one."""
        files = images_named(folder)
        if lacking := [name for name in self.names if Path(name).stem not in files]:
            raise ValueError(f"{folder}: no label image for {lacking[0]} and {len(lacking) - 1} more of {len(self)}")
        stems = [Path(name).stem for name in self.names]
        if len(set(stems)) < len(stems):
            raise ValueError(
                f"{folder}: {self.source} has several images of one name, such as {max(stems, key=stems.count)}; label "
                f"one recording at a time"
            )
        of_number = {int(n): files[Path(name).stem] for n, name in zip(self.numbers, self.names)}
        return replace(
            self,
            read_labels=lambda number: label_images.read_labels(of_number[number], classes),
            labelled=np.ones(len(self), bool),
            label_set=classes,
        )

    def colors(self) -> np.ndarray:
        """(C, 3) uint8 RGB of the classes of its labels."""
        if self.label_set is None:
            raise ValueError(f"{self.source} has no labels; name a folder of them")
        return label_set(self.label_set).colors


def images_named(folder: str | Path) -> dict[str, Path]:
    """The PNG files of a folder by name without suffix; FileNotFoundError if there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected label images NAME.png in it")
    return {file.stem: file for file in sorted(folder.glob("*.png"))}
