"""DeepLoc as a sequence: colour, labels of ten classes and poses, no depth. The camera must be given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semslam.camera import Camera
from sequences.images.deeploc import LAYOUT, fits, open_deeploc
from sequences.recordings.cameras.given_camera import given_camera
from sequences.recordings.decoded import DecodedSequence, Images, Rig

__all__ = ["LAYOUT", "fits", "open_deeploc_sequence"]

FPS = 30.0


def open_deeploc_sequence(
    path: str | Path, *, camera: Camera | None = None, fov: float | None = None, split: str | None = None
) -> DecodedSequence:
    """Open a split ("train", the default, or "test"), or its folder. Ids of images stand for times, 30 a second."""
    images = open_deeploc(path, split)
    height, width = images.read_color(int(images.numbers[0])).shape[:2]
    return DecodedSequence(
        name=Path(path).resolve().name,
        rig=Rig(given_camera(Path(path), width, height, camera, fov)),
        timestamps=np.arange(len(images)) / FPS,
        read=lambda index: Images(images.read_color(int(images.numbers[index]))),
        read_labels=lambda index: images.read_labels and images.read_labels(int(images.numbers[index])),
        poses=tuple(images.T_world_camera),
        label_set=images.label_set,
        labelled=None if images.labelled is None else tuple(np.flatnonzero(images.labelled).tolist()),
    )
