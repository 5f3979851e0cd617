"""A recording whose camera or lens was not known, zoomed while it filmed, or read its rows one after another, with the
camera that was found; or whose images have bars along their edges, without these."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from semslam.camera import Camera
from semslam.files.failures import raise_passing
from semslam.frame import UNLABELLED, Frame, RecordedImage, evenly_spread
from semslam.images.bars import Window, shows_something, window_between_bars
from sequences.resampling import resampled, resampled_depth
from sequences.sequence import DerivedSequence, Sequence

logger = logging.getLogger(__name__)
LEAST_FLOW = 0.1  # pixels: images in which nothing was read that far from where it was stay as they are
CELL = 16  # pixels, from one to the next for which that is computed
LOOKED_AT = 8  # frames, for bars along the edges of all


class RecalibratedSequence(DerivedSequence):
    """Another sequence's frames, taken by another camera of the same size."""

    def __init__(self, whole: Sequence, camera: Camera) -> None:
        super().__init__(whole)
        self.camera = camera

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, camera=self.camera)


class RedrawnSequence(DerivedSequence):
    """Another sequence's frames, each of whose images is made from the one before."""

    @abstractmethod
    def _color(self, image: np.ndarray, index: int) -> np.ndarray:
        """(H, W, 3) uint8: an image of frame `index`, as this sequence has it."""

    @abstractmethod
    def _depth(self, image: np.ndarray, index: int) -> np.ndarray:
        """(H, W) float32 metres: its depth image."""

    @abstractmethod
    def _labels(self, image: np.ndarray, index: int) -> np.ndarray:
        """(H, W) uint8: its label image."""

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(
            frame,
            color=self._color(frame.color, index),
            depth=None if frame.depth is None else self._depth(frame.depth, index),
            labels=None if frame.labels is None else self._labels(frame.labels, index),
            camera=self.camera,
        )

    def color_of(self, index: int) -> np.ndarray:
        return self._color(super().color_of(index), index)

    def depth_of(self, index: int) -> np.ndarray | None:
        depth = super().depth_of(index)
        return None if depth is None else self._depth(depth, index)

    def labels_of(self, index: int) -> np.ndarray | None:
        labels = super().labels_of(index)
        return None if labels is None else self._labels(labels, index)


class CroppedSequence(RedrawnSequence):
    """Another sequence's frames without what lies outside of a window of its images."""

    def __init__(self, whole: Sequence, window: Window) -> None:
        super().__init__(whole)
        self.window, c = window, whole.camera
        width, height = window.right - window.left, window.bottom - window.top
        inside = replace(c, width=width, height=height, cx=c.cx - window.left, cy=c.cy - window.top)
        self.camera = inside if c.focal_known else Camera.unknown(width, height)

    def _color(self, image: np.ndarray, index: int) -> np.ndarray:
        return self.window.of(image)

    _depth = _labels = _color

    def shown_at(self, index: int, pixels: np.ndarray) -> np.ndarray:
        return super().shown_at(index, pixels) - (self.window.left, self.window.top)


def without_bars(sequence: Sequence) -> Sequence:
    """The sequence without the bars that a video was fitted into another shape with; itself where it has none.

    A network would take them for a part of the room, and a tracker for something that moves with the camera.
    """
    images: list[np.ndarray] = []
    whole = Window(0, 0, sequence.camera.width, sequence.camera.height)
    for i in evenly_spread(range(len(sequence)), LOOKED_AT):
        try:
            images.append(sequence.color_of(i))
        except (ValueError, OSError) as problem:
            raise_passing(problem)
            continue
        if shows_something(images[-1]) and window_between_bars(images[-1:]) == whole:
            return sequence
    window = window_between_bars(images) or whole
    if window == whole:
        return sequence
    logger.warning(
        "%s: bars along the edges of the images are cut off: %dx%d of %dx%d pixels are left",
        sequence.name, window.right - window.left, window.bottom - window.top, whole.right, whole.bottom,
    )  # fmt: skip
    return CroppedSequence(sequence, window)


def window_of(sequence: Sequence) -> Window | None:
    """The part of the recorded images that a sequence shows; None where that is all of them."""
    while isinstance(sequence, DerivedSequence):
        if isinstance(sequence, CroppedSequence):
            return sequence.window
        sequence = sequence.whole
    return None


class ResampledSequence(RedrawnSequence):
    """Another sequence's frames, as another camera would have taken each of them from the same place."""

    @abstractmethod
    def _places(self, index: int) -> tuple[np.ndarray, float]:
        """(H, W, 2) float32 pixels u, v of the image before that its pixels show, and that image's focal length over
        this one's."""

    def _changed(self, frame: Frame, index: int) -> Frame:
        recorded = self._recorded(frame.recorded or frame.color, index)
        return replace(super()._changed(frame, index), recorded=recorded)

    def recorded_image(self, index: int) -> RecordedImage:
        return self._recorded(super().recorded_image(index) or self.whole.color_of(index), index)

    def _recorded(self, image: np.ndarray | RecordedImage, index: int) -> RecordedImage:
        """Of frame `index`, from its image in the other sequence, or from what that was resampled from itself."""
        places, zoom = self._places(index)
        return image.resampled(zoom, places) if isinstance(image, RecordedImage) else RecordedImage(image, zoom, places)


class UnzoomedSequence(ResampledSequence):
    """Another sequence's frames, each enlarged to the focal length of the one that is zoomed in most.

    What the others show beyond its field of view is cut off, so that no image has an empty border.
    """

    def __init__(self, whole: Sequence, zoom: np.ndarray) -> None:
        """zoom: (N,) focal length of each frame over that of the whole sequence's camera."""
        super().__init__(whole)
        self.zoom, self.camera = zoom, zoomed(whole.camera, float(zoom.max()))

    def _taken_by(self, index: int) -> Camera:
        return zoomed(self.whole.camera, float(self.zoom[index]))

    def _color(self, image: np.ndarray, index: int) -> np.ndarray:
        return resampled(image, self._taken_by(index), self.camera)

    def _depth(self, image: np.ndarray, index: int) -> np.ndarray:
        return resampled_depth(image, self._taken_by(index), self.camera)

    def _labels(self, image: np.ndarray, index: int) -> np.ndarray:
        return resampled(image, self._taken_by(index), self.camera, nearest=True)

    def shown_at(self, index: int, pixels: np.ndarray) -> np.ndarray:
        source, target = self._taken_by(index), self.camera
        seen = super().shown_at(index, pixels) - (source.cx, source.cy)
        return seen * (target.fx / source.fx, target.fy / source.fy) + (target.cx, target.cy)

    def _places(self, index: int) -> tuple[np.ndarray, float]:
        source, target = self._taken_by(index), self.camera
        zoom = source.fx / target.fx
        u = (np.arange(target.width) - target.cx) * zoom + source.cx
        v = (np.arange(target.height) - target.cy) * zoom + source.cy
        return np.stack(np.meshgrid(u, v), axis=2).astype(np.float32), zoom


def zoomed(camera: Camera, factor: float) -> Camera:
    """A camera whose focal length is so many times as long."""
    return replace(camera, fx=factor * camera.fx, fy=factor * camera.fy)


class StraightenedSequence(ResampledSequence):
    """Another sequence's frames without the distortion of a lens that it does not know of.

    They are enlarged by as much as leaves no empty border.
    """

    def __init__(self, whole: Sequence, lens: Camera) -> None:
        """lens: the camera that took the frames, with its distortion."""
        super().__init__(whole)
        self.lens, self.camera = lens, straightened(lens)

    def _color(self, image: np.ndarray, index: int) -> np.ndarray:
        return undistorted_to(image, self.lens, self.camera)

    def _depth(self, image: np.ndarray, index: int) -> np.ndarray:
        return undistorted_to(image, self.lens, self.camera, nearest=True)

    def _labels(self, image: np.ndarray, index: int) -> np.ndarray:
        return undistorted_to(image, self.lens, self.camera, nearest=True)

    def shown_at(self, index: int, pixels: np.ndarray) -> np.ndarray:
        import cv2

        seen = np.asarray(super().shown_at(index, pixels), np.float64)[:, None]
        return cv2.undistortPoints(seen, self.lens.K, np.asarray(self.lens.distortion), P=self.camera.K)[:, 0]

    def _places(self, index: int) -> tuple[np.ndarray, float]:
        return np.stack(_places(self.lens, self.camera), axis=2), self.lens.fx / self.camera.fx


class UnrolledSequence(ResampledSequence):
    """Another sequence's frames as if all rows of a colour image had been read at one moment, that of its middle.

    What is nearer or farther than the scene usually is moves a little less right than the rest.
    """

    def __init__(self, whole: Sequence, readout: np.ndarray, twists: np.ndarray, depth: float) -> None:
        """readout: (2,) seconds, see `Camera.elapsed`. twists: (N, 6) a second of the camera at each frame, in its own
        frame. depth: of the scene, metres."""
        super().__init__(whole)
        self.shutter, self.twists, self.depth = readout, twists, depth

    def _color(self, image: np.ndarray, index: int) -> np.ndarray:
        import cv2

        if (places := self._moved(index)) is None:
            return image
        # cubic, and the border's own pixels beyond it: see `undistorted_to`
        return cv2.remap(image, places[..., 0], places[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def _depth(self, image: np.ndarray, index: int) -> np.ndarray:
        return image  # another camera's: `readout` tells of its rows

    def _labels(self, image: np.ndarray, index: int) -> np.ndarray:
        import cv2

        if (places := self._moved(index)) is None:
            return image
        return cv2.remap(image, places[..., 0], places[..., 1], cv2.INTER_NEAREST, borderValue=UNLABELLED)

    def shown_at(self, index: int, pixels: np.ndarray) -> np.ndarray:
        seen = super().shown_at(index, pixels)
        elapsed = self.camera.elapsed(seen, self.shutter)
        return seen - self.camera.flow(seen, self.depth, self.twists[index]) * elapsed[..., None]

    def _places(self, index: int) -> tuple[np.ndarray, float]:
        places = self._moved(index)
        return (self._pixels if places is None else places), 1.0

    @cached_property
    def _moved(self) -> Callable[[int], np.ndarray | None]:
        """Of a frame, (H, W, 2) float32: where the image before shows what each pixel shows; None where that is the
        pixel itself, nearly. The last few are kept: parts of a frame are asked for one after the other."""
        return lru_cache(maxsize=2)(self._places_of)

    def _places_of(self, index: int) -> np.ndarray | None:
        import cv2

        camera, sides = self.camera, (self.camera.width, self.camera.height)
        cells = [-(-side // CELL) for side in sides]
        steps = np.divide(sides, cells)
        # the middles of cells, and of those around the image, so that its border lies between two
        middles = [(np.arange(-1, count + 1) + 0.5) * step - 0.5 for count, step in zip(cells, steps)]
        pixels = np.stack(np.meshgrid(*middles), axis=2)
        flow, late = camera.flow(pixels, self.depth, self.twists[index]), np.zeros_like(pixels)
        for _ in range(2):  # the moment is that of the row where it was read
            late = flow * camera.elapsed(pixels + late, self.shutter)[..., None]
        if np.abs(late).max() < LEAST_FLOW:
            return None
        to_cells = np.column_stack([np.diag(1 / steps), 0.5 / steps + 0.5])
        linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return self._pixels + cv2.warpAffine(late.astype(np.float32), to_cells, sides, flags=linear)

    @cached_property
    def _pixels(self) -> np.ndarray:
        """(H, W, 2) float32 u, v of the pixels themselves."""
        u, v = np.arange(self.camera.width), np.arange(self.camera.height)
        return np.stack(np.meshgrid(u, v), axis=2).astype(np.float32)


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
