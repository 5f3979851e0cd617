"""Label images as class ids: how their files count, and which class their colours mean."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semslam.frame import UNLABELLED, evenly_spread
from semslam.images import decode_bytes, image_bytes
from semslam.images.integrity import PNG, CorruptFrame, check_header
from semslam.labels import LabelSet, label_set, voc_palette
from semslam.threads import computed_once

logger = logging.getLogger(__name__)

MOST_LABEL_COLORS = 256  # of a colour-coded label image
FEWEST_IN_COLOR = 0.2  # share of the pixels that are not black whose colours must be a label set's
MOST_GREY_IDS = 64  # of a label image whose three channels are alike: its ids, but for void
LABELS_LOOKED_AT = 40  # label images by which it is found out how a data set counts


def read_labels(path: Path, classes: str | LabelSet = "nyu40") -> np.ndarray:
    """(H, W) ids in memory, 255 = unlabelled, of a label image.

    The image holds the file ids of the label set in one channel, or the colours of one of its palettes; then colours
    outside the palette are unlabelled (in KITTI's images, five classes that its six leave out). In an image with a
    palette of its own the numbers count where that is a grey ramp or PASCAL VOC's, else the colours.

    Raises:
        CorruptFrame: the file cannot be read, or holds something else.
    """
    known, image = label_set(classes), label_image(path)
    try:
        if image.ndim == 3 and image.dtype == np.uint8:
            return _labels_of_colors(image, known, path)
        return known.from_file_ids(image, path)
    except ValueError as problem:
        raise CorruptFrame(str(problem)) from None


def label_image(path: Path) -> np.ndarray:
    """A label image as its file holds it: ids (H, W), or colours (H, W, 3) RGB."""
    import cv2

    data = image_bytes(path)
    if data[:8] == PNG and data[25:26] == b"\x03":  # has a palette, of which OpenCV would return the colours
        return _ids_or_colors(data, path)
    image = decode_bytes(data, path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and image.dtype == np.uint8:
        image = image[:, :, 2::-1]
        if (image == image[:, :, :1]).all() and _are_ids(image[:, :, 0]):  # repeated in three channels
            return image[:, :, 0]
    return image


def _are_ids(grey: np.ndarray) -> bool:
    """Whether the values of a grey image are as small as ids are; 255 is void."""
    return bool(np.max(grey, where=grey != UNLABELLED, initial=0) <= MOST_GREY_IDS)


def _ids_or_colors(data: bytes, path: Path) -> np.ndarray:
    """The numbers (H, W) of a PNG with a palette where it only makes ids visible, else its colours (H, W, 3)."""
    from PIL import Image

    check_header(data, path)
    try:
        with Image.open(io.BytesIO(data)) as file:
            numbers = np.asarray(file)
            stored = np.asarray(file.getpalette("RGB"), np.uint8).reshape(-1, 3)
    except (OSError, SyntaxError, ValueError) as problem:  # what Pillow raises for damaged files
        raise CorruptFrame(f"{path}: the file is damaged ({problem}); copy it again", broken_file=True) from None
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(stored)] = stored
    return numbers if _shows_ids(palette, np.unique(numbers)) else palette[numbers]


def _shows_ids(palette: np.ndarray, used: np.ndarray) -> bool:
    """Whether a palette is a ramp of grey, or PASCAL VOC's, whose colours follow from the id."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    voc = np.concatenate([np.zeros((1, 3), np.uint8), voc_palette(255)])
    return any(np.array_equal(palette[used], usual[used]) for usual in (ramp, voc))


def _labels_of_colors(image: np.ndarray, known: LabelSet, path: Path) -> np.ndarray:
    """(H, W) ids in memory of a label image (H, W, 3) in the colours of a label set."""
    rgb = image.astype(np.int32)
    codes = (rgb[:, :, 0] << 16) | (rgb[:, :, 1] << 8) | rgb[:, :, 2]
    colors, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(colors) > MOST_LABEL_COLORS:
        raise ValueError(f"{path}: has {len(colors)} colours, as photos and JPEG files have; expected a label image")
    best = np.full(len(colors), known.unlabelled, known.dtype)
    for palette in known.palettes.values() if known.palettes else (known.colors,):
        red, green, blue = palette.astype(np.int32).T
        ids = {code: number for number, code in enumerate(((red << 16) | (green << 8) | blue).tolist())}
        found = np.array([ids.get(code, known.unlabelled) for code in colors.tolist()], known.dtype)
        if counts[found != known.unlabelled].sum() > counts[best != known.unlabelled].sum():
            best = found
    labelled, black = counts[best != known.unlabelled].sum(), counts[colors == 0].sum()
    if not labelled or labelled < FEWEST_IN_COLOR * (counts.sum() - black):
        raise ValueError(
            f"{path}: {'no pixel has' if not labelled else f'only {labelled / counts.sum():.0%} of the pixels have'} "
            f"a colour of {known.name}; expected its colours, or ids in one channel"
        )
    return best[places].reshape(codes.shape)


def numbering(paths: Sequence[Path], classes: str, first_id: int | None = None) -> LabelSet:
    """The label set as these files count it: `first_file_id` is 0 where they call void 255 and no class 40.

    Void as 0 before classes 1..40, and void as 255 after classes 0..39, are both in use for NYU's classes. Where the
    files show neither, they are taken for the usual one.

    Args:
        paths: label images of one data set, some of which are looked at.
        first_id: 0 or 1 where it is known.

    Raises:
        CorruptFrame: they hold nothing but 0 and 1, or nothing but void and one class: masks, not classes.
    """
    known = label_set(classes)
    ids: set[int] = set()
    for path in evenly_spread(paths, LABELS_LOOKED_AT):
        try:
            image = label_image(path)
        except CorruptFrame:  # said when it is read
            continue
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            return known  # colours; or refused when read
        ids |= set(np.flatnonzero(np.bincount(image.ravel())).tolist())
    kinds = ids - {known.unlabelled}
    void = known.unlabelled if known.first_file_id == 0 else 0
    if ids - {void} and len(known) > 2 and max(kinds, default=0) <= 1:
        raise CorruptFrame(
            f"{paths[0].parent}: the label images hold nothing but {', '.join(map(str, sorted(ids)))}, as masks do; "
            f"expected the classes of {known.name}; give labels, or move these images away"
        )
    if first_id is None:
        counts_from_0 = known.unlabelled in ids and max(kinds, default=0) < len(known)
        first_id = 0 if counts_from_0 else known.first_file_id
        if first_id != known.first_file_id:
            logger.warning(
                "%s: the label images hold %d and nothing above %d: %d is taken for void, and 0 for the first class",
                paths[0].parent, known.unlabelled, max(kinds, default=0), known.unlabelled,
            )  # fmt: skip
    return known if first_id == known.first_file_id else replace(known, first_file_id=first_id)


@dataclass(frozen=True)
class LabelReader:
    """`read_labels` for the label images of one data set: how they count is found out when the first one is read."""

    paths: tuple[Path, ...]
    classes: str

    def __call__(self, path: Path) -> np.ndarray:
        return read_labels(path, self._counted)

    @computed_once
    def _counted(self) -> LabelSet:
        return numbering(self.paths, self.classes)
