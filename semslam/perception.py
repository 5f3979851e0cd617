"""Frame -> Observation: sizes, depth and its confidence, class probabilities, from sensor, truth or network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Protocol

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.compiled import plain
from semslam.config import Count, Natural, Range, check_choices, check_ranges
from semslam.frame import UNLABELLED, Frame, Observation, RecordedImage, at_places
from semslam.images.resizing import resized_depth, resized_ids
from semslam.labels import LABEL_SETS, remapping
from semslam.stage import Stage

Perceive = Callable[[Frame], Observation]
NETWORK_LABELS_EVERY = 10  # frames, unless said otherwise: neighbouring frames would say the same again


class Prediction(Protocol):
    """What a network says of one image."""

    @property
    def depth(self) -> np.ndarray: ...  # (H, W) float32 metres

    @property
    def depth_confidence(self) -> np.ndarray: ...  # (H, W) float32 in 0..1

    @property
    def class_probabilities(self) -> np.ndarray: ...  # (H, W, C) float32


class Network(Protocol):
    """What is asked of a network; `networks.inference.predictor.Predictor` is one."""

    @property
    def engine(self) -> str: ...  # what runs it

    @property
    def same_for_any_threads(self) -> bool: ...  # whether it returns the same bits for any number of threads

    def __call__(
        self, image: np.ndarray, size: tuple[int, int], focal: float, mirror_too: bool = False
    ) -> Prediction: ...

    def class_probabilities(self, image: np.ndarray, size: tuple[int, int], mirrored: bool = False) -> np.ndarray: ...


class NetworkInFront(Network):
    """A network that stands in front of another one, and asks it what it does not say itself."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def engine(self) -> str:
        return self.network.engine

    @property
    def same_for_any_threads(self) -> bool:
        return self.network.same_for_any_threads

    def __call__(self, image: np.ndarray, size: tuple[int, int], focal: float, mirror_too: bool = False) -> Prediction:
        return self.network(image, size, focal, mirror_too)

    def class_probabilities(self, image: np.ndarray, size: tuple[int, int], mirrored: bool = False) -> np.ndarray:
        return self.network.class_probabilities(image, size, mirrored)


class CarriedPrediction:
    """What a network says of an image as it was recorded, at the pixels of one that was resampled from it."""

    def __init__(self, of_recorded: Prediction, places: np.ndarray) -> None:
        """places: (H, W, 2) where those pixels are in what is said of the recorded image."""
        self._of_recorded, self._places = of_recorded, places

    @cached_property
    def depth(self) -> np.ndarray:
        """Along the optical axis, and so the same on each ray, whatever the lens."""
        return at_places(self._of_recorded.depth, self._places)

    @cached_property
    def depth_confidence(self) -> np.ndarray:
        return at_places(self._of_recorded.depth_confidence, self._places)

    @cached_property
    def class_probabilities(self) -> np.ndarray:
        return at_places(self._of_recorded.class_probabilities, self._places)


def predicted(
    network: Network,
    color: np.ndarray,
    size: tuple[int, int],
    focal: float,
    recorded: RecordedImage | None,
    mirror_too: bool = False,
) -> Prediction:
    """What a network says of an image, at a size (width, height): of the one that it was resampled from, where there is
    one, as resampled images are blurred and show less, and both change the scale of a network's depth.

    color: (H, W, 3) uint8 RGB. focal: length in pixels of `color`.
    """
    if recorded is None:
        return network(color, size, focal, mirror_too=mirror_too)
    height, width = recorded.color.shape[:2]
    told = size[0], max(1, round(size[0] * height / width))
    focal *= recorded.zoom * width / color.shape[1]
    return CarriedPrediction(
        network(recorded.color, told, focal, mirror_too=mirror_too), recorded.places_at(size, told)
    )


@dataclass(frozen=True)
class PerceptionConfig:
    """What the map is made from."""

    depth: Literal["sensor", "predicted"] = "sensor"  # where depth comes from
    labels: Literal["predicted", "truth", "none"] = "predicted"  # where class labels come from
    classes: str = "nyu13"  # the label set of the map: nyu13 | nyu40 | another one of semslam.labels
    label_every: Count | None = None  # frames: between labelled ones; null = 10 for a network's labels, 1 for true ones
    # pixels: frames are resized to this width, keeping their shape; null = as recorded
    width: Annotated[int, Range(16, 10_000)] | None = None
    synchronise: bool = True  # a sensor's depth is moved to its colour image's moment, row by row
    # seconds: from a depth image's first row to its last; null = 0.03 where it is a Kinect's, else 0
    readout: Annotated[float, Range(0, 0.2)] | None = None
    border: Natural = 0  # pixels: border of the resized image that is ignored (16 for NYUv2 at 640 wide)

    def __post_init__(self) -> None:
        check_choices(self, "slam.perception")
        check_ranges(self, "slam.perception")
        if self.classes not in LABEL_SETS:
            known = ", ".join(LABEL_SETS)
            raise ValueError(f"`slam.perception.classes` is {self.classes!r}, expected one of {known}")
        if len(LABEL_SETS[self.classes]) > UNLABELLED:
            fine = ", ".join(name for name, label_set in LABEL_SETS.items() if len(label_set) <= UNLABELLED)
            raise ValueError(
                f"`slam.perception.classes` is {self.classes}, whose {len(LABEL_SETS[self.classes])} classes are more "
                f"than the {UNLABELLED} that a map has room for; take {fine}"
            )

    @property
    def labels_every(self) -> int:
        """Frames from one whose labels are fused to the next."""
        return self.network_labels_every if self.labels == "predicted" else self.label_every or 1

    @property
    def network_labels_every(self) -> int:
        """The same for a network's labels, whatever is fused now; with predicted depth each keyframe has them."""
        return 1 if self.depth == "predicted" else self.label_every or NETWORK_LABELS_EVERY

    def is_mirrored(self, index: int) -> bool:
        """Whether the network labels the mirror image of a frame, as it does for half of the labelled frames.

        It errs as often on mirror images, but in other places, so that different views share fewer errors. The choice
        depends on the frame's index alone, so that a frame always has the same labels, and follows the Thue-Morse
        sequence (0110 1001 ...), which stays balanced where every second frame is held out.
        """
        return (index // self.network_labels_every).bit_count() % 2 == 1


class Perception(Stage):
    """Turns frames into observations as a configuration says.

    network: of the classes of `config.classes`; needed where the configuration says "predicted" anywhere.
    """

    def __init__(
        self,
        config: PerceptionConfig,
        camera: Camera,
        label_set: str | None = None,
        network: Network | None = None,
    ) -> None:
        if config.labels == "truth" and label_set is None:
            raise ValueError("`slam.perception.labels` is truth: this sequence has no labels; use predicted or none")
        if network is None and "predicted" in (config.depth, config.labels):
            raise ValueError("predicted depth or labels need a network")
        if camera.distortion is not None:
            raise ValueError(
                "the frames' camera has a distortion; undistort the images, and give `camera.undistorted()`"
            )
        self.config = config
        self.network = network
        self.needed: Callable[[Observation], bool] | None = None  # see `sparing`; None = every frame is
        self.perceived = 0  # frames; which are labelled goes by it, as frames may be left out
        self.num_classes = 0 if config.labels == "none" else len(LABEL_SETS[config.classes])
        self.camera = camera.of_width(config.width or camera.width)
        if 2 * config.border >= min(self.camera.shape):
            raise ValueError(
                f"`slam.perception.border` is {config.border} pixels, which leaves nothing of images of "
                f"{self.camera.width}x{self.camera.height}"
            )
        self._classes_of, self._label_set, self._known = None, label_set, 0
        if config.labels == "truth" and label_set is not None:
            table = remapping(label_set, config.classes)
            self._classes_of = np.full(256, UNLABELLED, np.uint8)
            self._classes_of[: len(table)] = table
            self._known = len(table)

    def __call__(self, frame: Frame) -> Observation:
        """The observation of the next frame; ValueError where it lacks what the configuration needs."""
        if self.needed is None:
            return self.observe(frame, self._labels_are_due())
        no_depth = np.zeros(self.camera.shape, np.float32)
        blind = Observation(frame, self.camera, self.resized_color(frame), no_depth)
        # a network that is asked for depth tells the classes at the same price
        return self.observe(frame, True) if self.needed(blind) else blind

    def observe(self, frame: Frame, wants_labels: bool, mirror_too: bool = True) -> Observation:
        """The observation of any frame, with or without labels; ValueError as above.

        mirror_too: predict depth from the image and its mirror image, which errs a little less at twice the time.
        """
        config = self.config
        size = (self.camera.width, self.camera.height)
        if not frame.camera.is_like(self.camera):
            raise ValueError(
                f"frame {frame.number} is of another camera ({frame.camera.in_words}) than the map "
                f"({self.camera.in_words}); the frames of a map have one camera, so resample those of others"
            )
        wants_labels = wants_labels and config.labels != "none"
        confidence = probabilities = None
        if config.depth == "predicted":
            assert self.network is not None
            focal = frame.camera.fx
            prediction = predicted(self.network, frame.color, size, focal, frame.recorded, mirror_too)
            depth, confidence = prediction.depth, prediction.depth_confidence
            if config.labels == "predicted" and wants_labels:
                probabilities = prediction.class_probabilities
        elif frame.depth is None:
            raise ValueError(f"frame {frame.number} has no depth image; set `slam.perception.depth` to predicted")
        else:
            depth = resized_depth(plain(frame.depth), size)
            if config.labels == "predicted" and wants_labels:
                assert self.network is not None
                probabilities = self.network.class_probabilities(frame.color, size, config.is_mirrored(frame.index))
        if config.labels == "truth" and wants_labels:
            probabilities = self._one_hot(frame)
        if config.border:
            inside = np.zeros(depth.shape, bool)
            inside[config.border : -config.border, config.border : -config.border] = True
            depth = np.where(inside, depth, np.float32(0))
        return Observation(
            frame=frame,
            camera=self.camera,
            color=self.resized_color(frame),
            depth=depth,
            confidence=confidence,
            class_probabilities=probabilities,
        )

    def sparing(self, needed: Callable[[Observation], bool]) -> Perception:
        """The same perception, with depth and labels for those frames alone that are needed.

        needed: asked with an observation that has no depth yet, and that stays so where it is not needed.
        """
        sparing = copy.copy(self)
        sparing.needed = needed
        return sparing

    def _labels_are_due(self) -> bool:
        """Whether the next frame is one whose labels are fused; it is counted."""
        self.perceived += 1
        return self.config.labels != "none" and (self.perceived - 1) % self.config.labels_every == 0

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        return {"perceived": np.array(self.perceived)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.perceived = int(state["perceived"])

    def resized_color(self, frame: Frame) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a frame at the map's size."""
        color, size = plain(frame.color), (self.camera.width, self.camera.height)
        same = color.shape[1::-1] == size
        return color if same else cv2.resize(color, size, interpolation=cv2.INTER_AREA)

    def _one_hot(self, frame: Frame) -> np.ndarray | None:
        """(H, W, C) float32, 1 for the true class of each labelled pixel; None where the frame has no labels."""
        if frame.labels is None or self._classes_of is None:
            return None
        if (largest := int((frame.labels + np.uint8(1)).max())) > self._known:  # unlabelled, 255, becomes 0
            raise ValueError(
                f"frame {frame.number}: labels hold the id {largest - 1}, expected 0..{self._known - 1} of "
                f"{self._label_set}, or 255 = unlabelled"
            )
        labels = resized_ids(self._classes_of[frame.labels], (self.camera.width, self.camera.height))
        known = np.flatnonzero(labels != UNLABELLED)
        probabilities = np.zeros((labels.size, self.num_classes), np.float32)
        probabilities.ravel()[known * self.num_classes + labels.ravel()[known]] = 1
        return probabilities.reshape(*labels.shape, self.num_classes)
