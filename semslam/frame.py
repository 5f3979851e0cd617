"""The values that travel through the system: what was recorded, what was perceived, where the camera was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.trajectory import Correction

T = TypeVar("T")

LISTED = 5  # numbers that a message names
UNLABELLED = 255  # the id of a pixel without a class, in memory; files count it as 0


@dataclass(frozen=True, eq=False)
class RecordedImage:
    """An image as it was recorded, and how another one, of the same optical centre and axis, was made from it."""

    color: np.ndarray  # (h, w, 3) uint8 RGB
    zoom: float  # its focal length over that of the other one, each in widths of its image
    places: np.ndarray  # (H, W, 2) float32 pixels u, v of it that the pixels of the other one show

    def resampled(self, zoom: float, places: np.ndarray) -> RecordedImage:
        """The same for an image that was made from that other one, which had the zoom over it and shows its places."""
        return RecordedImage(self.color, zoom * self.zoom, at_places(self.places, places))

    def places_at(self, size: tuple[int, int], told: tuple[int, int]) -> np.ndarray:
        """(H, W, 2) float32: the places when both images are resized, the other one to `size`, this one to `told`,
        (width, height) each."""
        places = self.places
        if places.shape[1::-1] != size:
            places = cv2.resize(places, size, interpolation=cv2.INTER_AREA)
        ratio = np.divide(told, self.color.shape[1::-1]).astype(np.float32)
        return (places + np.float32(0.5)) * ratio - np.float32(0.5)


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of a sequence, as recorded."""

    index: int
    timestamp: float  # seconds
    color: np.ndarray  # (H, W, 3) uint8 RGB
    camera: Camera
    depth: np.ndarray | None = None  # (H, W) float32 metres along z, 0 = none
    labels: np.ndarray | None = None  # (H, W) uint8 class ids, 255 = unlabelled
    T_world_camera: np.ndarray | None = None  # (4, 4) float64
    depth_delay: float = 0.0  # seconds from the colour image, whose time `timestamp` is, to the depth image
    recorded_index: int | None = None  # in the whole recording, where `index` counts only a part of it
    recorded: RecordedImage | None = None  # that `color` was resampled from, where a lens or a zoom was undone

    @property
    def number(self) -> int:
        """The frame's number in the whole recording: what messages name it by."""
        return self.index if self.recorded_index is None else self.recorded_index


@dataclass(frozen=True, eq=False)
class Observation:
    """What the system believes of a frame, ready for tracking and fusion: all images have the camera's size."""

    frame: Frame
    camera: Camera
    color: np.ndarray  # (H, W, 3) uint8 RGB
    depth: np.ndarray  # (H, W) float32 metres along z, 0 = none
    confidence: np.ndarray | None = None  # (H, W) float32 in 0..1, weight of each depth; None = all 1
    class_probabilities: np.ndarray | None = None  # (H, W, C) float32; all zero = unlabelled pixel
    normals: np.ndarray | None = None  # (H, W, 3) float32 unit, camera frame, towards the camera
    hidden: np.ndarray | None = None  # (H, W) bool: pixels that show nothing of the world; None = there are none

    @staticmethod
    def of(frame: Frame) -> Observation:
        """A frame with depth of colour's size, as it is: the simplest perception."""
        depth = np.zeros(frame.camera.shape, np.float32) if frame.depth is None else frame.depth
        return Observation(frame, frame.camera, frame.color, depth)

    @property
    def measures(self) -> bool:
        """Whether any depth counts; what has none must not reach the map, where seeing empty space is a measurement."""
        return bool(self.depth.any()) and (self.confidence is None or bool(self.confidence.any()))


@dataclass(frozen=True, eq=False)
class View:
    """What the map looks like from a pose: the model side of tracking.

    Grey is dense, for image pyramids; of geometry one point a block of pixels is enough, and much less to look up.
    """

    camera: Camera
    T_world_camera: np.ndarray  # (4, 4) float64
    grey: np.ndarray  # (H, W) float32 luminance 0..255, NO_GREY where the map is empty
    stride: int  # pixels along a block's side
    pixels: np.ndarray  # (N, 2) int32 u, v: the first pixel of each block that shows a surfel, in row order
    points: np.ndarray  # (N, 7) float32: there, position (metres, camera frame), unit normal, the surfel's confidence


NO_GREY = -1.0


@dataclass(frozen=True, eq=False)
class Tracking:
    """The pose found for a frame. Lost tracking is data: ok is False and the pose is the best guess."""

    T_world_camera: np.ndarray  # (4, 4) float64
    ok: bool
    inliers: int = 0  # points of the map that took part in the last iteration
    residual: float = 0.0  # RMS point-to-plane distance of the inliers, metres
    covariance: np.ndarray | None = None  # (6, 6) of the twist (translation, rotation), camera frame
    reason: str = ""  # why ok or sound is False, for people
    evidence: float = 0.0  # share of the map in view that fits plus correlation with it: up to 2
    noise: tuple[float, float] | None = None  # of the sensor, as measured so far: base (metres), quadratic (1 / metre)
    sound: bool = True  # False: the pose holds, but the image is no picture of the scene and must not enter the map
    submap: int = 0  # number of the part of the map that the pose is in; parts that have not met have a world each

    @property
    def std(self) -> float:
        """Metres, and radians: the standard deviation of the pose along its least certain direction; 0 where it has
        none."""
        return 0.0 if self.covariance is None else float(np.linalg.eigvalsh(self.covariance)[-1] ** 0.5)

    @property
    def state(self) -> Literal["good", "poor", "lost"]:
        """Good: fused. Poor: the pose holds, but the frame must not enter the map. Lost: no pose."""
        return "lost" if not self.ok else "good" if self.sound else "poor"


@dataclass(frozen=True, eq=False)
class Step:
    """One turn of the loop."""

    frame: Frame
    observation: Observation  # as it was perceived, before fusion smooths its depth
    tracking: Tracking
    fused: bool = False  # whether the map changed
    stages_ms: dict[str, float] = field(default_factory=dict)  # how long each stage took, milliseconds
    correction: Correction | None = None  # where a loop was closed: how all poses up to this frame's have moved


def evenly_spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items in their order, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))]


def first_few(numbers: Sequence[int]) -> str:
    """Numbers in words: all of a few, the first of many."""
    return ", ".join(map(str, numbers[:LISTED])) + ", ..." * (len(numbers) > LISTED)


def at_places(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(H, W, ...) what an image (h, w, ...) has at places (H, W, 2), interpolated; its end goes on beyond it."""
    u, v = (np.ascontiguousarray(places[..., axis]) for axis in (0, 1))
    channels = [image] if image.ndim == 2 else [np.ascontiguousarray(image[..., c]) for c in range(image.shape[2])]
    found = [cv2.remap(one, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for one in channels]
    return found[0] if image.ndim == 2 else np.stack(found, axis=2)
