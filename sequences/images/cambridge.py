"""Cambridge Landmarks: dataset_train.txt and dataset_test.txt, three lines of heading, then `image X Y Z W P Q R`.

X Y Z is the camera's position; the quaternion W P Q R turns the WORLD into the camera, as VisualSFM writes it.
Kendall, Grimes and Cipolla, "PoseNet", ICCV 2015.
"""

from __future__ import annotations

from pathlib import Path

from sequences.images.pose_list import DEFAULT, images_of, read_pose_lines
from sequences.images.posed_images import PosedImages

LAYOUT = "dataset_train.txt, dataset_test.txt and the images that they name"
HEADING = 3  # lines


def fits(path: Path) -> bool:
    return (path / "dataset_train.txt").is_file() or (path / "dataset_test.txt").is_file()


def open_cambridge(path: str | Path, split: str | None = None) -> PosedImages:
    """Open a scene; `split` is "train" or "test", by default train. A folder seq1, seq2, ... is a recording."""
    path, split = Path(path), split or "train"
    if split not in ("train", "test"):
        raise ValueError(f"{path}: no split {split!r}; Cambridge Landmarks has train and test")
    listing = path / f"dataset_{split}.txt"
    rows = read_pose_lines(listing, skip=HEADING, columns=DEFAULT, world_to_camera=True)
    return images_of(listing, rows, [path / row.image for row in rows])
