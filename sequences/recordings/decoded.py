"""Recordings whose frames are more than image files of one camera: streams, archives, two cameras, zooming lenses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam.camera import Camera, same_aspect
from semslam.frame import UNLABELLED, Frame
from semslam.images import CorruptFrame
from sequences.recordings.registration import registered_depth
from sequences.resampling import resampled, resampled_depth
from sequences.sequence import ImageSequence, Sequence

WORKING_SIZE = 640  # pixels of the longer side that colour keeps beside coarser depth
REGISTERED_SCALE = 0.9  # of the depth's pixels to an angle


class Images(NamedTuple):
    """The images of one moment as the recording holds them."""

    color: np.ndarray  # (H, W, 3) uint8 RGB, or (H, W) grey
    depth: np.ndarray | None = None  # (h, w) float32 metres along z, 0 = none
    camera: Camera | None = None  # of this frame's colour, where it differs from frame to frame


@dataclass(frozen=True, eq=False)
class Rig:
    """The cameras of a recording, and the one camera to which their images are brought.

    Without depth, or with depth of colour's size, that is the colour camera. Beside coarser depth colour is reduced: to
    the depth's own size where the two have one field of view and 640 pixels suffice for it, else to 640 pixels.
    Depth of another camera is registered, to colour of a tenth less resolution, so that rounding leaves no holes.
    """

    color: Camera
    depth: Camera | None = None  # None: there is no depth
    T_color_depth: np.ndarray | None = None  # (4, 4), metres; None: one optical centre

    @cached_property
    def camera(self) -> Camera:
        """The camera of the sequence's frames, without distortion."""
        color, depth = self.color.undistorted(), self.depth
        if depth is None or (depth.width, depth.height) == (color.width, color.height):
            return color
        longest = max(depth.width, depth.height, WORKING_SIZE)
        scale = longest / max(color.width, color.height)
        if self.T_color_depth is not None:
            scale = REGISTERED_SCALE * depth.fx / color.fx
        if scale >= 1:
            return color
        if max(depth.width, depth.height) == longest and same_aspect(depth.shape, color.shape):
            return color.resized(depth.width, depth.height)
        return color.resized(round(color.width * scale), round(color.height * scale))

    def notes(self, name: str) -> list[str]:
        """What is done to the images of a recording of that name, for people."""
        color, depth, used = self.color, self.depth, self.camera
        if depth is None or used.shape == color.shape == depth.shape:
            return []
        sizes = f"colour of {color.width}x{color.height} and depth of {depth.width}x{depth.height}"
        how = "depth is resized" if self.T_color_depth is None else "depth is registered"
        return [f"{name}: {sizes} become frames of {used.width}x{used.height}; {how}"]

    def color_image(self, image: np.ndarray, camera: Camera | None = None) -> np.ndarray:
        """(H, W, 3) uint8 in the frames' camera; `camera` where this image's is not the rig's."""
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        return resampled(image, self.color if camera is None else camera, self.camera)

    def label_image(self, labels: np.ndarray) -> np.ndarray:
        """(H, W) ids in the frames' camera, of an image of colour's size or another of its field of view."""
        source = self.color.resized(labels.shape[1], labels.shape[0])
        shift = labels.dtype.type(UNLABELLED)  # wraps around there and back, so that the outside is unlabelled
        return resampled(labels - shift, source, self.camera, nearest=True) + shift

    def depth_image(self, depth: np.ndarray, camera: Camera | None = None) -> np.ndarray:
        """(H, W) float32 m in the frames' camera; `camera` where the frame's colour camera is not the rig's."""
        assert self.depth is not None
        if self.T_color_depth is not None:
            undistorted = self.depth.undistort(depth, nearest=True)
            return registered_depth(undistorted, self.depth.undistorted(), self.camera, self.T_color_depth)
        source = self.depth if camera is None else camera.resized(self.depth.width, self.depth.height)
        return resampled_depth(depth, source, self.camera)


@dataclass(eq=False)
class DecodedSequence(Sequence):
    """A recording that is decoded frame by frame; how is an argument."""

    name: str
    rig: Rig
    timestamps: np.ndarray
    read: Callable[[int], Images]  # the images of frame i; raises CorruptFrame, for one of a wrong size too
    read_labels: Callable[[int], np.ndarray | None] | None = None  # (H, W) uint8 ids of frame i, 255 = unlabelled
    poses: tuple[np.ndarray | None, ...] | None = None
    label_set: str | None = None
    labelled: tuple[int, ...] | None = None  # the frames with labels; None = all, where there is a label set
    assumptions: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None  # of the frames' images; None = their numbers
    decoders: int = 1
    depth_delays: np.ndarray | None = None
    sensor: str | None = None

    def __post_init__(self) -> None:
        if len(self.timestamps) == 0:
            raise ValueError(f"{self.name}: the sequence has no frames")
        object.__setattr__(self, "assumptions", (*self.assumptions, *self.rig.notes(self.name)))
        try:
            self[0]
        except CorruptFrame as problem:
            if not problem.broken_file:  # wrong in kind, and so are all others
                raise ValueError(str(problem)) from None

    @property
    def camera(self) -> Camera:  # type: ignore[override]
        return self.rig.camera

    @property
    def has_depth(self) -> bool:  # type: ignore[override]
        return self.rig.depth is not None

    @property
    def labelled_indices(self) -> list[int]:
        return super().labelled_indices if self.labelled is None else list(self.labelled)

    def recorded_camera(self, index: int) -> Camera:
        images = self.read(self._checked(index))
        height, width = images.color.shape[:2]
        return (images.camera or self.rig.color).resized(width, height)

    def name_of(self, index: int) -> str:
        return super().name_of(index) if self.names is None else self.names[index]

    def __getitem__(self, index: int) -> Frame:
        return replace(self.read_without_labels(index), labels=self.labels_of(index))

    def labels_of(self, index: int) -> np.ndarray | None:
        labels = None if self.read_labels is None else self.read_labels(self._checked(index))
        return None if labels is None else self.rig.label_image(labels)

    @cached_property
    def _recent(self) -> Callable[[int], Frame]:  # type: ignore[override]
        return lru_cache(maxsize=4)(self.read_without_labels)

    def read_without_labels(self, index: int) -> Frame:
        i = self._checked(index)
        images = self.read(i)
        camera = self.rig.color if images.camera is None else images.camera
        height, width = images.color.shape[:2]
        if same_aspect((height, width), camera.shape):  # the camera may be given for another size of the same view
            camera = camera if camera.shape == (height, width) else camera.resized(width, height)
        self._check_size("image", images.color, camera.shape, i)
        depth = None
        if images.depth is not None and self.rig.depth is not None:
            self._check_size("depth", images.depth, self.rig.depth.shape, i)
            depth = self.rig.depth_image(images.depth, images.camera)
        return Frame(
            index=i,
            timestamp=float(self.timestamps[i]),
            color=self.rig.color_image(images.color, camera),
            camera=self.camera,
            depth=depth,
            T_world_camera=None if self.poses is None else self.poses[i],
            depth_delay=0.0 if self.depth_delays is None else float(self.depth_delays[i]),
        )

    def _check_size(self, what: str, image: np.ndarray, expected: tuple[int, int], index: int) -> None:
        if image.shape[:2] != expected:
            raise CorruptFrame(
                f"{self.name}: {what} of frame {index} is {image.shape[1]}x{image.shape[0]}, its camera's is "
                f"{expected[1]}x{expected[0]}; give the camera of these images with --camera"
            )


def at_working_size(sequence: ImageSequence) -> ImageSequence:
    """A recording of image files whose colour, beside coarser depth, is reduced as a `Rig`'s, which is told."""
    shape, recorded = sequence.depth_shape, sequence.camera
    if not same_aspect(shape, recorded.shape):
        return sequence
    rig = Rig(recorded, recorded.resized(shape[1], shape[0]))
    if rig.camera.shape == recorded.shape:
        return sequence
    return replace(
        sequence,
        camera=rig.camera,
        lens=sequence.lens or recorded,
        read_color=partial(_reduced, sequence.read_color, rig.color_image, recorded.shape),
        read_labels=partial(_reduced, sequence.read_labels, rig.label_image, recorded.shape),
        assumptions=(*sequence.assumptions, *rig.notes(sequence.name)),
    )


def _reduced(
    read: Callable[[Path], np.ndarray],
    reduce: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, int],
    path: Path,
) -> np.ndarray:
    """An image as it is read, reduced if it is of the recorded shape; others are told by the sequence."""
    image = read(path)
    return reduce(image) if image.shape[:2] == shape else image
