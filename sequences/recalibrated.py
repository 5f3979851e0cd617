"""A recording whose camera was not known, or zoomed while it filmed, with the camera that was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semslam.camera import Camera
from semslam.frame import Frame
from sequences.resampling import resampled, resampled_depth
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


class UnzoomedSequence(SelectedSequence):
    """Another sequence's frames, each enlarged to the focal length of the one that is zoomed in most.

    What the others show beyond its field of view is cut off, so that no image has an empty border.
    """

    def __init__(self, whole: Sequence, zoom: np.ndarray) -> None:
        """zoom: (N,) focal length of each frame over that of the whole sequence's camera."""
        super().__init__(whole, np.arange(len(whole)))
        self.zoom, self.world_origin = zoom, whole.world_origin
        self.camera = zoomed(whole.camera, float(zoom.max()))

    def __getitem__(self, index: int) -> Frame:
        return self._enlarged(super().__getitem__(index))

    def unlabelled(self, index: int) -> Frame:
        return self._enlarged(super().unlabelled(index))

    def color_of(self, index: int) -> np.ndarray:
        return resampled(self.whole.color_of(index), self._taken_by(index), self.camera)

    def depth_of(self, index: int) -> np.ndarray | None:
        depth = self.whole.depth_of(index)
        return None if depth is None else resampled_depth(depth, self._taken_by(index), self.camera)

    def labels_of(self, index: int) -> np.ndarray | None:
        labels = self.whole.labels_of(index)
        return None if labels is None else resampled(labels, self._taken_by(index), self.camera, nearest=True)

    def _taken_by(self, index: int) -> Camera:
        return zoomed(self.whole.camera, float(self.zoom[index]))

    def _enlarged(self, frame: Frame) -> Frame:
        source = self._taken_by(frame.index)
        depth = None if frame.depth is None else resampled_depth(frame.depth, source, self.camera)
        labels = None if frame.labels is None else resampled(frame.labels, source, self.camera, nearest=True)
        color = resampled(frame.color, source, self.camera)
        return replace(frame, color=color, depth=depth, labels=labels, camera=self.camera)


def zoomed(camera: Camera, factor: float) -> Camera:
    """A camera whose focal length is so many times as long."""
    return replace(camera, fx=factor * camera.fx, fy=factor * camera.fy)
