"""Frame -> Observation: sizes, depth and its confidence, class probabilities, from sensor, truth or network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.frame import UNLABELLED, Frame, Observation
from semslam.labels import LABEL_SETS, remapping

Perceive = Callable[[Frame], Observation]


class Prediction(Protocol):
    """What a network says of one image."""

    depth: np.ndarray  # (H, W) float32 metres
    confidence: np.ndarray | None  # (H, W) float32 in 0..1, how far the depth is to be trusted
    class_probabilities: np.ndarray  # (H, W, C) float32


@dataclass(frozen=True)
class PerceptionConfig:
    """What the map is made from."""

    depth: str = "sensor"  # sensor | predicted
    labels: str = "predicted"  # predicted | truth | none
    classes: str = "nyu13"  # nyu13 | nyu40
    label_every: int | None = None  # frames; None = 10 for a network's labels, 1 for true ones
    width: int | None = None  # pixels that frames are resized to, keeping their shape; None = as recorded
    border: int = 0  # pixels at the image's border that are ignored (NYUv2's images have a white frame: 16)


class Perception:
    """Turns frames into observations as a configuration says.

    predict: RGB (H, W, 3) uint8 -> Prediction with the classes of `config.classes`; needed where the configuration
    says "predicted" anywhere.
    """

    def __init__(
        self,
        config: PerceptionConfig,
        camera: Camera,
        label_set: str | None = None,
        predict: Callable[[np.ndarray], Prediction] | None = None,
    ) -> None:
        for name, choices in (("depth", ("sensor", "predicted")), ("labels", ("predicted", "truth", "none"))):
            if getattr(config, name) not in choices:
                raise ValueError(f"--{name} is {getattr(config, name)!r}, expected one of {', '.join(choices)}")
        if config.classes not in LABEL_SETS:
            raise ValueError(f"--classes is {config.classes!r}, expected one of {', '.join(LABEL_SETS)}")
        if config.labels == "truth" and label_set is None:
            raise ValueError("--labels truth: this sequence has no labels; use --labels predicted or none")
        if predict is None and "predicted" in (config.depth, config.labels):
            raise ValueError("predicted depth or labels need a network")
        self.config = config
        self.predict = predict
        self.num_classes = 0 if config.labels == "none" else len(LABEL_SETS[config.classes])
        self.camera = camera
        if config.width is not None and config.width != camera.width:
            self.camera = camera.resized(config.width, round(camera.height * config.width / camera.width))
        self._label_every = config.label_every or (10 if config.labels == "predicted" else 1)
        self._classes_of = None
        if config.labels == "truth" and label_set is not None:
            table = remapping(label_set, config.classes)
            self._classes_of = np.full(256, UNLABELLED, np.uint8)
            self._classes_of[: len(table)] = table

    def __call__(self, frame: Frame) -> Observation:
        """The observation of a frame; ValueError where the frame lacks what the configuration needs."""
        config = self.config
        wants_labels = config.labels != "none" and frame.index % self._label_every == 0
        prediction = None
        if self.predict is not None and (
            config.depth == "predicted" or (config.labels == "predicted" and wants_labels)
        ):
            prediction = self.predict(frame.color)
        if config.depth == "predicted":
            assert prediction is not None
            depth, confidence = prediction.depth, prediction.confidence
        else:
            if frame.depth is None:
                raise ValueError(f"frame {frame.index} has no depth image; use --depth predicted")
            depth, confidence = frame.depth, None
        probabilities = None
        if wants_labels:
            if config.labels == "truth":
                probabilities = self._one_hot(frame)
            elif prediction is not None:
                probabilities = prediction.class_probabilities
        size = (self.camera.width, self.camera.height)
        if config.border:
            inside = np.zeros(depth.shape, bool)
            inside[config.border : -config.border, config.border : -config.border] = True
            depth = np.where(inside, depth, np.float32(0))
        return Observation(
            frame=frame,
            camera=self.camera,
            color=_resized(frame.color, size, cv2.INTER_AREA),
            depth=_resized(depth, size, cv2.INTER_NEAREST),
            confidence=None if confidence is None else _resized(confidence, size, cv2.INTER_NEAREST),
            class_probabilities=None if probabilities is None else _resized(probabilities, size, cv2.INTER_NEAREST),
        )

    def _one_hot(self, frame: Frame) -> np.ndarray | None:
        """(H, W, C) float32, 1 for the true class of each labelled pixel; None where the frame has no labels."""
        if frame.labels is None or self._classes_of is None:
            return None
        labels = self._classes_of[frame.labels]
        known = np.flatnonzero(labels != UNLABELLED)
        probabilities = np.zeros((labels.size, self.num_classes), np.float32)
        probabilities.ravel()[known * self.num_classes + labels.ravel()[known]] = 1
        return probabilities.reshape(*labels.shape, self.num_classes)


def _resized(image: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    if (image.shape[1], image.shape[0]) == size:
        return image
    resized = cv2.resize(image, size, interpolation=interpolation)
    return resized.reshape(*resized.shape[:2], *image.shape[2:])
