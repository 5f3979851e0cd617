"""A recording whose camera or lens was not known, or zoomed while it filmed, with the camera that was found."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from semslam.camera import Camera
from semslam.frame import Frame, RecordedImage
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

    def read_without_labels(self, index: int) -> Frame:
        return replace(super().read_without_labels(index), camera=self.camera)


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

    def read_without_labels(self, index: int) -> Frame:
        return self._enlarged(super().read_without_labels(index))

    def color_of(self, index: int) -> np.ndarray:
        return resampled(self.whole.color_of(index), self._taken_by(index), self.camera)

    def recorded_image(self, index: int) -> RecordedImage:
        return self._recorded(index, self.whole.recorded_image(index) or self.whole.color_of(index))

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
        recorded = self._recorded(frame.index, frame.recorded or frame.color)
        return replace(frame, color=color, depth=depth, labels=labels, camera=self.camera, recorded=recorded)

    def _recorded(self, index: int, image: np.ndarray | RecordedImage) -> RecordedImage:
        """That of frame `index`, from its image in the other sequence, or what that was resampled from."""
        source, target = self._taken_by(index), self.camera
        u = (np.arange(target.width) - target.cx) * (source.fx / target.fx) + source.cx
        v = (np.arange(target.height) - target.cy) * (source.fy / target.fy) + source.cy
        places = np.stack(np.meshgrid(u, v), axis=2).astype(np.float32)
        return _resampled_from(image, source.fx / target.fx, places)


def zoomed(camera: Camera, factor: float) -> Camera:
    """A camera whose focal length is so many times as long."""
    return replace(camera, fx=factor * camera.fx, fy=factor * camera.fy)


class StraightenedSequence(SelectedSequence):
    """Another sequence's frames without the distortion of a lens that it does not know of.

    They are enlarged by as much as leaves no empty border.
    """

    def __init__(self, whole: Sequence, lens: Camera) -> None:
        """lens: the camera that took the frames, with its distortion."""
        super().__init__(whole, np.arange(len(whole)))
        self.lens, self.world_origin = lens, whole.world_origin
        self.camera = straightened(lens)

    def __getitem__(self, index: int) -> Frame:
        return self._straight(super().__getitem__(index))

    def read_without_labels(self, index: int) -> Frame:
        return self._straight(super().read_without_labels(index))

    def color_of(self, index: int) -> np.ndarray:
        return undistorted_to(self.whole.color_of(index), self.lens, self.camera)

    def recorded_image(self, index: int) -> RecordedImage:
        return self._recorded(self.whole.recorded_image(index) or self.whole.color_of(index))

    def depth_of(self, index: int) -> np.ndarray | None:
        depth = self.whole.depth_of(index)
        return None if depth is None else undistorted_to(depth, self.lens, self.camera, nearest=True)

    def labels_of(self, index: int) -> np.ndarray | None:
        labels = self.whole.labels_of(index)
        return None if labels is None else undistorted_to(labels, self.lens, self.camera, nearest=True)

    def _straight(self, frame: Frame) -> Frame:
        def image(array: np.ndarray | None, nearest: bool = True) -> np.ndarray | None:
            return None if array is None else undistorted_to(array, self.lens, self.camera, nearest)

        color = image(frame.color, nearest=False)
        assert color is not None
        return replace(
            frame, color=color, depth=image(frame.depth), labels=image(frame.labels), camera=self.camera,
            recorded=self._recorded(frame.recorded or frame.color),
        )  # fmt: skip

    def _recorded(self, image: np.ndarray | RecordedImage) -> RecordedImage:
        """That of a frame, from its image in the other sequence, or what that was resampled from."""
        places = np.stack(_places(self.lens, self.camera), axis=2)
        return _resampled_from(image, self.lens.fx / self.camera.fx, places)


def _resampled_from(image: np.ndarray | RecordedImage, zoom: float, places: np.ndarray) -> RecordedImage:
    """What an image was recorded as that was made of another one, see `RecordedImage`."""
    if isinstance(image, RecordedImage):
        return image.resampled(zoom, places)
    return RecordedImage(image, zoom, places)


def numbers_of(lens: Camera) -> np.ndarray:
    """fx fy cx cy, pixels, k1 k2 of a lens, to be kept; for `with_lens`."""
    assert lens.distortion is not None
    return np.array([lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion[:2]])


def with_lens(camera: Camera, numbers: np.ndarray) -> Camera:
    """A recording's camera with the lens that has these `numbers_of`."""
    fx, fy, cx, cy, k1, k2 = map(float, numbers)
    return replace(camera, fx=fx, fy=fy, cx=cx, cy=cy, distortion=(k1, k2, 0.0, 0.0), fisheye=False, focal_known=True)


def straightened(lens: Camera) -> Camera:
    """The camera of a lens's images once they are undistorted, with the shortest focal length that leaves no border
    empty. Its principal point, which has to lie in the image, stays."""
    c, rays = lens, lens.undistorted_rays()
    edges = (
        (-c.cx, c.fx * rays[:, 0, 0]),
        (c.width - 1 - c.cx, c.fx * rays[:, -1, 0]),
        (-c.cy, c.fy * rays[0, :, 1]),
        (c.height - 1 - c.cy, c.fy * rays[-1, :, 1]),
    )  # where each edge is, and where its pixels are in the undistorted image; from the principal point
    return zoomed(lens.undistorted(), max(float((edge / straight).max()) for edge, straight in edges))


def undistorted_to(image: np.ndarray, lens: Camera, target: Camera, nearest: bool = False) -> np.ndarray:
    """An image (H, W, ...) of a lens as `target`, without distortion, sees it from the same place; 0 outside."""
    import cv2

    # cubic: linear interpolation blurs, and to blurred images a network's depth is nearer
    return cv2.remap(image, *_places(lens, target), cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC)


@lru_cache(maxsize=4)
def _places(lens: Camera, target: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Where the target's pixels are in the lens's image: (H, W) u and v, float32."""
    import cv2

    size = target.width, target.height
    u, v = cv2.initUndistortRectifyMap(lens.K, np.asarray(lens.distortion), np.eye(3), target.K, size, cv2.CV_32FC1)
    return u, v
