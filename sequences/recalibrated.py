"""A recording whose camera was not known, with the camera that was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semslam.camera import Camera
from semslam.frame import Frame
from sequences.selected import SelectedSequence
from sequences.sequence import Sequence


class RecalibratedSequence(SelectedSequence):
    """Another sequence's frames, taken by another camera of the same size."""

    def __init__(self, whole: Sequence, camera: Camera) -> None:
        super().__init__(whole, np.arange(len(whole)))
        self.camera, self.world_origin = camera, whole.world_origin

    def __getitem__(self, index: int) -> Frame:
        return replace(super().__getitem__(index), camera=self.camera)

    def unlabelled(self, index: int) -> Frame:
        return replace(super().unlabelled(index), camera=self.camera)
