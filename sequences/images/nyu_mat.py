"""The official NYUv2 file, `nyu_depth_v2_labeled.mat`, read image by image: no Matlab, and not 2.8 GB in memory.

The file is HDF5 with Matlab's axes reversed: an image (H, W, 3) is stored as (3, W, H).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from semslam.labels import label_set, remap_labels
from sequences.images.labelled_images import LabelledImage
from sequences.images.mat5 import read_mat5

LARGEST_IMAGE = 1 << 26  # pixels


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
        with self._damage_told():
            count = self._checked_count()
        self.ids = list(range(1, count + 1)) if split is None else _official_ids(split, splits, count)  # 1-based

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> LabelledImage:
        number = self.ids[index]
        row = number - 1
        with self._damage_told():
            color = np.ascontiguousarray(self._array("images")[row].transpose(2, 1, 0))
            labels = np.ascontiguousarray(self._array("labels")[row].T)
            depth = np.ascontiguousarray(self._array(self._depths)[row].T).astype(np.float32)
        ids = label_set("nyu894").from_file_ids(labels, self.path)
        return LabelledImage(f"{number:06d}", color, remap_labels(ids, "nyu894", self.classes), depth)

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}  # an open file cannot go to another process

    def _checked_count(self) -> int:
        """How many images there are; ValueError where an array is not as large as it should be, or of another kind."""
        images = self._array("images")
        count, size = images.shape[0], images.shape[2:]
        if images.ndim != 4 or images.size > count * 3 * LARGEST_IMAGE:
            raise ValueError(f"{self.path}: images are {images.shape}, expected (N, 3, width, height)")
        for name, kinds in (("images", "u"), ("labels", "u"), (self._depths, "f")):
            array = self._array(name)
            shape = (count, 3, *size) if name == "images" else (count, *size)
            if array.shape != shape:
                raise ValueError(f"{self.path}: {name} is {array.shape}, expected {shape}")
            if array.dtype.kind not in kinds or (name == "images" and array.dtype != np.uint8):
                expected = {"images": "uint8", "labels": "unsigned integers"}.get(name, "float32")
                raise ValueError(f"{self.path}: {name} are {array.dtype}, expected {expected}")
        return int(count)

    def _array(self, name: str) -> Any:
        import h5py

        if self._file is None:
            if not self.path.is_file():
                raise FileNotFoundError(f"{self.path}: no such file; it is the NYUv2 home page's labeled data set")
            self._file = h5py.File(self.path, "r")
        if not isinstance(self._file.get(name), h5py.Dataset):
            raise ValueError(f"{self.path}: no array {name} in it; expected nyu_depth_v2_labeled.mat")
        return self._file[name]

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        """HDF5's library ends in errors of a dozen kinds where a file is damaged: one line for all of them."""
        try:
            yield
        except Exception as problem:
            if str(problem).startswith(str(self.path)):
                raise
            what = " ".join(str(problem).split())
            raise ValueError(
                f"{self.path}: not an HDF5 file, or cut short or damaged ({what}); download it again"
            ) from problem


def _official_ids(split: str, splits: str | Path | None, count: int) -> Sequence[int]:
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; the official ones are train and test")
    if splits is None:
        raise ValueError("the official splits need splits.mat, which lies beside the data set; pass its path")
    if not Path(splits).is_file():
        raise FileNotFoundError(f"{splits}: no such file; expected the official splits.mat")
    content = read_mat5(splits)
    if f"{split}Ndxs" not in content:
        raise ValueError(f"{splits}: no {split}Ndxs in it; expected the official splits.mat")
    numbers = content[f"{split}Ndxs"].ravel()
    if numbers.dtype.kind not in "iu" and not np.array_equal(numbers, np.rint(numbers)):
        raise ValueError(f"{splits}: {split}Ndxs holds {numbers.dtype}, expected image numbers")
    ids = [int(i) for i in numbers]
    if not ids or max(ids) > count or min(ids) < 1:
        raise ValueError(f"{splits}: {split} ids reach {max(ids, default=0)}, the data set has {count} images")
    return ids
