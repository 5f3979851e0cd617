"""DeepLoc: outdoor images with poses, every second one with labels of ten classes.

    {train,test}/LeftImages/Image_<id>.*   labels/Image_<id>.png   poses.txt

poses.txt has a line of text, a line that names its columns (img_name, x, y, z, qw, qx, qy, qz, in any order), and a
line per image. Ids are not padded with zeros, so everything is joined by their number. Radwan, Valada and Burgard,
"VLocNet++", RA-L 2018.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from semslam.files.reading import text_of
from semslam.images import labels as label_images
from sequences.images.pose_list import PoseLine, images_of, read_pose_lines
from sequences.images.posed_images import PosedImages

LAYOUT = "train/ and test/ with LeftImages/Image_<id>.png, labels/Image_<id>.png, poses.txt"
CLASSES = "deeploc10"
_ID = re.compile(r"Image_0*(\d+)")


def fits(path: Path) -> bool:
    return (path / "LeftImages").is_dir() or any((path / s / "LeftImages").is_dir() for s in ("train", "test"))


def open_deeploc(path: str | Path, split: str | None = None) -> PosedImages:
    """Open a split ("train", the default, or "test"), or its folder; images in the order of their ids.

    Images without labels have none; `selected(images.labelled)` leaves them out, as the report does.
    """
    path = Path(path)
    folder = path if split is None and (path / "LeftImages").is_dir() else path / (split or "train")
    if not (folder / "LeftImages").is_dir():
        raise FileNotFoundError(f"{folder}: no folder LeftImages in it; expected {LAYOUT}")
    color = _by_id(folder / "LeftImages")
    labels = _by_id(folder / "labels") if (folder / "labels").is_dir() else {}
    poses = folder / "poses.txt"
    rows: dict[int, PoseLine] = {}
    for row in read_pose_lines(poses, skip=_heading(poses)):
        match = _ID.search(row.image)
        if match is None:
            raise ValueError(f"{poses}:{row.line}: image {row.image!r} has no id; expected Image_<id>")
        if int(match[1]) in rows:
            raise ValueError(f"{poses}:{row.line}: image {row.image} occurs twice; remove one of the lines")
        rows[int(match[1])] = row
    ids = sorted(rows)
    files = [color.get(i, folder / "LeftImages" / f"Image_{i}.png") for i in ids]
    found = images_of(poses, [rows[i] for i in ids], files)
    if not labels:
        return found
    return replace(
        found,
        read_labels=lambda number: (
            label_images.read_labels(labels[ids[number]], CLASSES) if ids[number] in labels else None
        ),
        labelled=np.array([i in labels for i in ids]),
        label_set=CLASSES,
    )


def _heading(poses: Path) -> int:
    """How many lines stand above the names of the columns."""
    if not poses.is_file():
        raise FileNotFoundError(f"{poses}: missing; expected {LAYOUT}")
    first = text_of(poses, LAYOUT).partition("\n")[0]
    return 0 if "qw" in first.lower().split() or _ID.search(first) else 1  # without names the first line is an image


def _by_id(folder: Path) -> dict[int, Path]:
    matches = ((_ID.match(file.name), file) for file in sorted(folder.iterdir()))
    return {int(match[1]): file for match, file in matches if match}
