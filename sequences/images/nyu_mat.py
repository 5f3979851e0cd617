"""The official NYUv2 file, `nyu_depth_v2_labeled.mat`, read image by image: no Matlab, and not 2.8 GB in memory.

The file is HDF5 with Matlab's axes reversed: an image (H, W, 3) is stored as (3, W, H).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semslam.labels import label_set, remap_labels
from sequences.images.labelled_images import LabelledImage

_SHAPES = {"images": (3,), "labels": (), "depths": (), "rawDepths": ()}


class NyuMat:
    """The images of the official file with their labels and depth: `len`, indexing and iteration.

    Args:
        path: nyu_depth_v2_labeled.mat.
        split: "train" or "test" of the official splits (needs `splits`), or None for all 1449.
        splits: the official splits.mat.
        classes: label set to map the 894 classes to.
        raw_depth: the depth as measured, with holes, in place of the in-painted one.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        splits: str | Path | None = None,
        classes: str = "nyu40",
        raw_depth: bool = False,
    ) -> None:
        self.path, self.classes = Path(path), label_set(classes).name
        self._depths = "rawDepths" if raw_depth else "depths"
        self._file: Any = None
        images = self._array("images")
        count = images.shape[0]
        for name, channels in _SHAPES.items():
            if name in ("depths", "rawDepths") and name != self._depths:
                continue
            array = self._array(name)
            if array.shape != (count, *channels, *images.shape[2:]):
                raise ValueError(
                    f"{self.path}: {name} is {array.shape}, expected {(count, *channels, *images.shape[2:])}"
                )
        if images.dtype != np.uint8:
            raise ValueError(f"{self.path}: images are {images.dtype}, expected uint8")
        self.ids = list(range(1, count + 1)) if split is None else _official_ids(split, splits, count)  # 1-based

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> LabelledImage:
        number = self.ids[index]
        row = number - 1
        color = np.ascontiguousarray(self._array("images")[row].transpose(2, 1, 0))
        ids = label_set("nyu894").from_file_ids(np.ascontiguousarray(self._array("labels")[row].T), self.path)
        depth = np.ascontiguousarray(self._array(self._depths)[row].T).astype(np.float32)
        return LabelledImage(f"{number:06d}", color, remap_labels(ids, "nyu894", self.classes), depth)

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}  # an open file cannot go to another process

    def _array(self, name: str) -> Any:
        import h5py

        if self._file is None:
            if not self.path.is_file():
                raise FileNotFoundError(f"{self.path}: no such file; it is the NYUv2 home page's labeled data set")
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise ValueError(f"{self.path}: not an HDF5 file, or cut short ({error}); download it again") from error
        if name not in self._file:
            raise ValueError(f"{self.path}: no array {name} in it; expected nyu_depth_v2_labeled.mat")
        return self._file[name]


def _official_ids(split: str, splits: str | Path | None, count: int) -> Sequence[int]:
    from scipy.io import loadmat

    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; the official ones are train and test")
    if splits is None:
        raise ValueError("the official splits need splits.mat, which lies beside the data set; pass its path")
    if not Path(splits).is_file():
        raise FileNotFoundError(f"{splits}: no such file; expected the official splits.mat")
    content = loadmat(str(splits))
    if f"{split}Ndxs" not in content:
        raise ValueError(f"{splits}: no {split}Ndxs in it; expected the official splits.mat")
    ids = [int(i) for i in content[f"{split}Ndxs"].ravel()]
    if not ids or max(ids) > count or min(ids) < 1:
        raise ValueError(f"{splits}: {split} ids reach {max(ids, default=0)}, the data set has {count} images")
    return ids
