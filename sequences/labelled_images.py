"""Folders of labelled images, for training and scoring networks.

Layout: `color/NAME.(jpg|png)`, `label40/NAME.png` (0 = void, 1-based), `depth/NAME.png` (uint16, millimetres unless
`depth_scale` says otherwise; may be smaller than the colour), split files `train.txt`, `val.txt`, ... one NAME a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image with what is known of it."""

    name: str
    color: np.ndarray  # (H, W, 3) uint8 RGB
    labels: np.ndarray | None = None  # (H, W) uint8 0-based class ids, 255 = unlabelled
    depth: np.ndarray | None = None  # (h, w) float32 metres, 0 = none; may be smaller than the colour
    normals: np.ndarray | None = None  # (h, w, 3) float32 unit, camera frame; zero = none


def read_color(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise _unreadable(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_depth(path: Path, units_per_metre: float = 1000.0) -> np.ndarray:
    """(H, W) float32 metres of a uint16 image; 0 = none."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise _unreadable(path)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise ValueError(f"{path}: depth is {image.dtype} with shape {image.shape}, expected one channel of uint16")
    return image.astype(np.float32) / np.float32(units_per_metre)


def read_labels(path: Path, num_classes: int) -> np.ndarray:
    """(H, W) uint8 class ids 0-based, 255 = unlabelled, of an image of 1-based ids with 0 = void."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise _unreadable(path)
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f"{path}: labels are {image.dtype} with shape {image.shape}, expected one channel of uint8")
    if (highest := int(image.max())) > num_classes:
        raise ValueError(
            f"{path}: label {highest} is out of range, expected 0 (void) and 1..{num_classes}; "
            f"map it to the {num_classes}-class set first"
        )
    return image - np.uint8(1)  # 0 wraps to 255


def _unreadable(path: Path) -> Exception:
    if not path.is_file():
        return FileNotFoundError(f"{path}: no such file")
    return ValueError(f"{path}: not an image that OpenCV can read; it may be truncated")


class LabelledFolder:
    """A split of a folder of labelled images; images are read when asked for.

    Args:
        root: the folder.
        split: name of the split file without `.txt`; None takes every image of `color/`.
        num_classes: labels above it are an error.
        depth_scale: units of the depth files per metre.
    """

    def __init__(
        self, root: str | Path, split: str | None = None, num_classes: int = 40, depth_scale: float = 1000.0
    ) -> None:
        self.root = Path(root)
        self.num_classes = num_classes
        self.depth_scale = depth_scale
        if not (self.root / "color").is_dir():
            raise FileNotFoundError(f"{self.root}: no folder color/ in it; expected color/, label40/, depth/")
        self._color = {p.stem: p for p in sorted((self.root / "color").iterdir()) if p.suffix in (".jpg", ".png")}
        self.names = list(self._color) if split is None else self._read_split(split)
        self.has_labels, self.has_depth = (self.root / "label40").is_dir(), (self.root / "depth").is_dir()
        for folder, present in (("label40", self.has_labels), ("depth", self.has_depth)):
            if not present:
                continue
            found = {p.stem for p in (self.root / folder).glob("*.png")}
            if missing := [name for name in self.names if name not in found]:
                raise FileNotFoundError(
                    f"{self.root / folder}: {len(missing)} of {len(self.names)} images have no file here, "
                    f"the first is {missing[0]}.png; add them or leave their names out of the split"
                )

    def _read_split(self, split: str) -> list[str]:
        path = self.root / f"{split}.txt"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in self.root.glob("*.txt"))) or "none"
            raise FileNotFoundError(f"{path}: no such split; the folder's splits are: {known}")
        names = path.read_text().split()
        if missing := [name for name in names if name not in self._color]:
            raise FileNotFoundError(
                f"{path}: {len(missing)} of {len(names)} names have no image in {self.root / 'color'}, "
                f"the first is {missing[0]}"
            )
        return names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> LabelledImage:
        name = self.names[index]
        labels = read_labels(self.root / "label40" / f"{name}.png", self.num_classes) if self.has_labels else None
        depth = read_depth(self.root / "depth" / f"{name}.png", self.depth_scale) if self.has_depth else None
        return LabelledImage(name, read_color(self._color[name]), labels, depth)

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[i] for i in range(len(self)))
