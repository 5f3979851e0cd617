"""Label sets: which classes there are, their colours, their ids in files, and the maps from one set to another.

In memory ids count from 0 and unlabelled is the largest value of the dtype (255 for uint8). Files of the NYU
family count from 1 and hold 0 for void, so that "subtract one, unsigned" turns the one into the other; those that
count from 0 and hold 255 for void are told apart by `semslam.images.labels.numbering`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

VOID_COLOR = (0, 0, 0)


@dataclass(frozen=True, eq=False)
class LabelSet:
    """The classes that a map, a network or a data set tells apart."""

    name: str
    classes: tuple[str, ...]  # the name of each id
    colors: np.ndarray  # (C, 3) uint8 RGB
    first_file_id: int = 1  # what files call id 0: 1 leaves 0 for void, with 0 files use the dtype's largest value
    palettes: Mapping[str, np.ndarray] = field(default_factory=dict)  # the colour schemes to choose from, by name

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def dtype(self) -> np.dtype:
        """uint8 where the ids and the unlabelled value fit into it, else uint16."""
        return np.dtype(np.uint8 if len(self) <= 255 else np.uint16)

    @property
    def unlabelled(self) -> int:
        """The id, in memory, of a pixel without a class: 255, or 65535 for a set of more than 255 classes."""
        return int(np.iinfo(self.dtype).max)

    def id_of(self, class_name: str) -> int:
        """The id of a class, in memory."""
        try:
            return self.classes.index(class_name)
        except ValueError:
            raise ValueError(f"{self.name} has no class {class_name!r}; it has {', '.join(self.classes)}") from None

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """RGB (..., 3) uint8 of ids (...); black where unlabelled or outside the set."""
        lut = np.zeros((self.unlabelled + 1, 3), np.uint8)
        lut[:] = VOID_COLOR
        lut[: len(self)] = self.colors
        return lut[labels]

    def from_file_ids(self, ids: np.ndarray, path: str | Path) -> np.ndarray:
        """Ids in memory of a label image (H, W) as a file holds it; `path` is named when they are not of this set."""
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"{path}: labels are {ids.dtype} of shape {ids.shape}, expected one channel of whole-number ids; "
                f"a colour-coded label image must be turned into ids first"
            )
        labels = ids.astype(np.int64) - self.first_file_id
        void = ids == (0 if self.first_file_id == 1 else self.unlabelled)
        outside = ~void & ((labels < 0) | (labels >= len(self)))
        if outside.any():
            last = len(self) - 1 + self.first_file_id
            void_name = 0 if self.first_file_id == 1 else self.unlabelled
            raise ValueError(
                f"{path}: label id {int(ids[outside][0])} is outside {self.name}, whose files hold "
                f"{self.first_file_id}..{last} and {void_name} for void"
            )
        labels[void] = self.unlabelled
        return labels.astype(self.dtype)

    def to_file_ids(self, labels: np.ndarray) -> np.ndarray:
        """A label image (H, W) as files hold it; the inverse of `from_file_ids`."""
        self.check(labels)
        return (labels.astype(self.dtype) + np.array(self.first_file_id, self.dtype)).astype(self.dtype)

    def check(self, labels: np.ndarray) -> None:
        """ValueError unless all labels (...) are ids of this set, as they are in memory."""
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels are {labels.dtype}, expected whole numbers: ids of {self.name}")
        outside = (labels < 0) | ((labels >= len(self)) & (labels != self.unlabelled))
        if outside.any():
            raise ValueError(f"label {int(labels[outside][0])} is outside {self.name}, which has {len(self)} classes")


def voc_palette(count: int) -> np.ndarray:
    """The colours (count, 3) of ids 1..count of PASCAL VOC's scheme.

    The bits of the id are dealt to red, green and blue in turn, each taking its bits from the top down.
    """
    ids = np.arange(1, count + 1)
    colors = np.zeros((count, 3), np.uint8)
    for position in range(8):
        for channel in range(3):
            bit = (ids >> (3 * position + channel)) & 1
            colors[:, channel] |= (bit << (7 - position)).astype(np.uint8)
    return colors


def _data(name: str) -> dict:
    return json.loads(files("semslam").joinpath("data", name).read_text(encoding="utf-8"))


def _load() -> dict[str, LabelSet]:
    sets, nyu = _data("label_sets.json"), _data("nyu_tables.json")
    palettes = {
        name: {scheme: np.array(colors, np.uint8) for scheme, colors in entry["palettes"].items()}
        for name, entry in sets.items()
    }
    palettes["nyu40"] = {"voc": voc_palette(40), **palettes["nyu40"]}
    classes = {name: tuple(entry["classes"]) for name, entry in sets.items()}
    classes["nyu894"], palettes["nyu894"] = tuple(nyu["nyu894_classes"]), {"voc": voc_palette(894)}
    return {
        name: LabelSet(
            name,
            classes[name],
            next(iter(palettes[name].values())),
            first_file_id=1 if name.startswith("nyu") else 0,
            palettes=palettes[name],
        )
        for name in ("nyu894", "nyu40", "nyu13", "kitti6", "deeploc10")
    }


LABEL_SETS: dict[str, LabelSet] = _load()


def label_set(name: str | LabelSet) -> LabelSet:
    """The label set of that name."""
    if isinstance(name, LabelSet):
        return name
    if name not in LABEL_SETS:
        raise ValueError(f"there is no label set {name!r}; there are {', '.join(LABEL_SETS)}")
    return LABEL_SETS[name]


@cache
def remapping(source: str, target: str) -> np.ndarray:
    """The target's id of every source id, (C_source,); read-only.

    894 -> 40 is NYU's own table, 40 -> 13 the one of SceneNet and SemanticFusion; 894 -> 13 chains them.
    """
    source_set, target_set = label_set(source), label_set(target)
    source, target = source_set.name, target_set.name
    if source == target:
        table = np.arange(len(source_set), dtype=source_set.dtype)
    elif (source, target) == ("nyu894", "nyu13"):
        table = remapping("nyu40", "nyu13")[remapping("nyu894", "nyu40")]
    else:
        known = {k: v for k, v in _data("nyu_tables.json").items() if "_to_" in k}
        if f"{source}_to_{target}" not in known:
            raise ValueError(f"no table maps {source} to {target}; there are nyu894 -> nyu40 -> nyu13")
        file_ids = np.array(known[f"{source}_to_{target}"])
        table = (file_ids[1:] - 1).astype(target_set.dtype)
    table = table.copy()
    table.setflags(write=False)
    return table


def remap_labels(labels: np.ndarray, source: str, target: str) -> np.ndarray:
    """The same label image in the target's ids; unlabelled stays unlabelled."""
    label_set(source).check(labels)
    lut = np.full(label_set(source).unlabelled + 1, label_set(target).unlabelled, label_set(target).dtype)
    table = remapping(source, target)
    lut[: len(table)] = table
    return lut[labels]


def remap_probabilities(probabilities: np.ndarray, source: str, target: str) -> np.ndarray:
    """Probabilities (..., C_source) as (..., C_target): those of merged classes are summed."""
    table = remapping(source, target)
    _check_classes(probabilities, source)
    merge = np.zeros((len(table), len(label_set(target))), probabilities.dtype)
    merge[np.arange(len(table)), table] = 1
    return (probabilities.reshape(-1, len(table)) @ merge).reshape(*probabilities.shape[:-1], merge.shape[1])


def remap_arg_max(probabilities: np.ndarray, source: str, target: str) -> np.ndarray:
    """The target's id (...) of the likeliest source class, as SemanticFusion evaluates its 13 classes.

    Unlike the arg max of `remap_probabilities`, a class that many source classes merge into has no
    advantage. All zero is unlabelled.
    """
    _check_classes(probabilities, source)
    labels = probabilities.argmax(axis=-1).astype(label_set(source).dtype)
    labels[probabilities.max(axis=-1) <= 0] = label_set(source).unlabelled
    return remap_labels(labels, source, target)


def _check_classes(probabilities: np.ndarray, name: str) -> None:
    if probabilities.shape[-1] != len(label_set(name)):
        raise ValueError(f"{name} has {len(label_set(name))} classes, the probabilities have {probabilities.shape[-1]}")
