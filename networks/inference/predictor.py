"""A trained joint network as one object: an image in; depth, class probabilities and normals of its size out."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
from torch import Tensor

from networks.inference import device_postprocessing, postprocessing
from networks.inference.engines import CudaEngine, open_engine
from networks.joint import checkpoints, cost
from networks.joint.network import JointNetwork

Output = np.ndarray | Tensor  # (h, w, channels) float32 of the network, on this processor or on a device


class _Look(NamedTuple):
    """What a network puts out of one image."""

    depth: Output  # the second one
    number: int  # of the outputs
    outputs: Callable[[], tuple[Output, ...]]  # scores, depth and, from some networks, normals

    def meaned(self, of_mirror: tuple[Any, ...]) -> _Look:
        """The mean with what it puts out of the mirror image, as seen in the image; of depth, that of its logarithm."""

        @cache
        def outputs() -> tuple[Output, ...]:
            across = np.array([-1, 1, 1], np.float32)  # normals point the other way across the mirror
            (scores, _, *normals), (scores_of_mirror, _, *normals_of_mirror) = self.outputs(), of_mirror
            means: Any = (
                n + m * (across if isinstance(m, np.ndarray) else m.new_tensor(across))
                for n, m in zip(normals, normals_of_mirror)
            )
            return (scores + scores_of_mirror) / 2, depth, *means

        depth: Any = self.depth
        depth = abs(depth * of_mirror[1]) ** 0.5
        return _Look(depth, self.number, outputs)


class Prediction:
    """What a network believes of one image.

    Classes and normals are made from its small outputs when they are asked for: who wants depth alone need not wait for
    them, and who keeps a prediction for later keeps little.
    """

    def __init__(
        self,
        depth: np.ndarray,
        depth_confidence: np.ndarray,
        class_probabilities: Callable[[], np.ndarray],
        normals: Callable[[], np.ndarray] | None = None,
    ) -> None:
        self.depth = depth  # (H, W) float32 metres
        self.depth_confidence = depth_confidence  # (H, W) float32 in 0..1
        self._class_probabilities, self._normals = class_probabilities, normals

    @cached_property
    def class_probabilities(self) -> np.ndarray:
        """(H, W, C) float32, summing to 1."""
        return self._class_probabilities()

    @cached_property
    def normals(self) -> np.ndarray | None:
        """(H, W, 3) float32 unit, camera frame; None if the network has no such task."""
        return None if self._normals is None else self._normals()


class Predictor:
    """A joint network with the engine that runs it and everything around it undone.

    Attributes:
        label_set: name of the classes, "nyu40" for example.
        num_classes: of the probabilities.
        engine: name of what runs the network.
        same_for_any_threads: whether the engine returns the same bits for any number of threads.
        network: the module, as loaded.
        remembered: images whose depth is kept, some 40 KB each, for those who ask for that of the same ones again.
    """

    def __init__(
        self,
        network: JointNetwork,
        metadata: Mapping[str, Any] | None = None,
        label_set: str | None = None,
        engine: str | None = None,
        threads: int | None = None,
        calibration: Iterable[np.ndarray] | None = None,
    ) -> None:
        """
        Args:
            network: any JointNetwork; it is copied where it must be changed.
            metadata: of its weights file, see `checkpoints.load`; `input_size` (height, width) is the image size that
                it was trained for, `focal` the focal length in pixels at that size, `temperature` that of its scores.
            label_set: which classes to return, if the network has several sets; the first by default.
            engine: one of `engines.available_engines()`; the best by default.
            threads: for engines that have a setting of their own.
            calibration: images like those to come; the int8 engines need them the first time.
        """
        metadata = metadata or {}
        self.network = network
        self.label_set, self._outputs = checkpoints.label_outputs(network.num_classes, metadata, label_set)
        self._sets = checkpoints.label_sets(network.num_classes, metadata) or {self.label_set: self._outputs}
        self.num_classes = self._outputs[1] - self._outputs[0]
        self._merge: np.ndarray | None = None
        self._input_size = metadata.get("input_size")
        self._focal = metadata.get("focal")
        self._temperature = float(metadata.get("temperature", 1.0))
        self._one_at_a_time = threading.RLock()
        self._depths: dict[bytes, tuple[Output, int]] = {}  # of images lately seen: see `_Look`
        self.remembered = 0
        images = None if calibration is None else (self._seen(image) for image in calibration)
        self._run = open_engine(network, engine, threads, images)
        self.engine = self._run.name
        # PyTorch divides its sums by the number of threads, which changes the last bits; the others do not
        self.same_for_any_threads = not self.engine.startswith("torch")

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        label_set: str | None = None,
        engine: str | None = None,
        threads: int | None = None,
        calibration: Iterable[np.ndarray] | None = None,
    ) -> Predictor:
        """The predictor of a weights file, ours or the authors'; the bundled one by default."""
        network, metadata = checkpoints.load(weights)
        checkpoints.label_outputs(network.num_classes, metadata, label_set, weights or checkpoints.bundled())
        return cls(network, metadata, label_set, engine, threads, calibration)

    @property
    def label_sets(self) -> tuple[str, ...]:
        """The names of the label sets that the network has outputs for, unless classes were merged."""
        return (self.label_set,) if self._merge is not None else tuple(self._sets)

    def restricted(self, label_set: str) -> Predictor:
        """The same predictor for another of its label sets; the engine is shared."""
        other = copy.copy(self)
        other._outputs = self._sets[label_set]
        other.label_set, other.num_classes = label_set, other._outputs[1] - other._outputs[0]
        return other

    def merged(self, table: np.ndarray, label_set: str) -> Predictor:
        """The same predictor for fewer classes, which costs less; the engine is shared.

        Args:
            table: (C,) the new id of every present class; probabilities of merged classes are summed.
            label_set: the name of the new set.
        """
        if len(table) != self.num_classes:
            raise ValueError(f"the table maps {len(table)} classes, the network predicts {self.num_classes}")
        other = copy.copy(self)
        matrix = postprocessing.merging(np.asarray(table))
        other._merge = matrix if self._merge is None else self._merge @ matrix
        other.num_classes, other.label_set = matrix.shape[1], label_set
        return other

    def __call__(
        self,
        image: np.ndarray,
        size: tuple[int, int] | None = None,
        focal: float | None = None,
        mirror_too: bool = False,
    ) -> Prediction:
        """Depth, its confidence, class probabilities and, if the network has them, normals of one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            size: (width, height) of what is returned; the image's by default. Smaller costs less.
            focal: the camera's focal length in pixels of `image`. Seen through a longer lens the same things look
                nearer to the network by that ratio, which is undone if the weights say what they were trained with.
            mirror_too: look at the mirror image, too, and return the mean of both: errors are a few per cent smaller,
                at twice the time.
        """
        check_image(image)
        height, width = image.shape[:2]
        if focal is not None and self._focal is not None:
            focal *= self.input_shape(height, width)[1] / width
        looked = self._look_at(image)
        if mirror_too:
            with self._one_at_a_time:
                of_mirror = tuple(_mirrored(output) for output in self._computed(image[:, ::-1]))
            looked = looked.meaned(of_mirror)
        size = size or (width, height)
        images: Any = _postprocessing(looked.depth)
        return Prediction(
            self.depth_of(looked.depth, size, focal),
            images.depth_confidence(looked.depth, size, postprocessing.usual_focal(width, height)),
            lambda: self.probabilities_of(looked.outputs()[0], size),
            (lambda: self.normals_of(looked.outputs()[2], size)) if looked.number > 2 else None,
        )

    def _look_at(self, image: np.ndarray) -> _Look:
        """The network's outputs of an image; of one that it has seen lately, all but depth only if they are needed."""

        @cache
        def outputs() -> tuple[Output, ...]:
            with self._one_at_a_time:  # an engine's own arrays are valid until it runs again
                return tuple(o.copy() if isinstance(o, np.ndarray) else o for o in self._computed(image))

        if not self.remembered:
            return _Look(outputs()[1], len(outputs()), outputs)
        image = image.copy()  # the caller's may be written to before more than its depth is asked for
        key = blake2b(image.tobytes(), digest_size=16).digest() + str(image.shape).encode()
        with self._one_at_a_time:
            if (known := self._depths.get(key)) is None:
                known = self._depths[key] = outputs()[1], len(outputs())
                while len(self._depths) > self.remembered:
                    del self._depths[next(iter(self._depths))]
        return _Look(*known, outputs)

    def depth_of(self, output: Output, size: tuple[int, int], focal: float | None = None) -> np.ndarray:
        """Depth (H, W) in metres at `size` (width, height) of the network's second output.

        focal: in pixels of what the network saw."""
        images: Any = _postprocessing(output)
        depth = images.depth(output, size)
        if focal is not None and self._focal is not None:
            depth *= focal / self._focal
        return depth

    def normals_of(self, output: Output, size: tuple[int, int]) -> np.ndarray:
        """Unit normals (H, W, 3) at `size` (width, height) of the network's third output."""
        images: Any = _postprocessing(output)
        return images.normals(output, size)

    def class_probabilities(
        self, image: np.ndarray, size: tuple[int, int] | None = None, mirrored: bool = False
    ) -> np.ndarray:
        """Class probabilities alone, (H, W, C) float32, for a map whose depth comes from a sensor.

        mirrored: look at the mirror image; what is returned is of the image all the same.
        """
        check_image(image)
        size = size or (image.shape[1], image.shape[0])
        with self._one_at_a_time:
            if mirrored:
                return self.probabilities_of(_mirrored(self._computed(image[:, ::-1])[0]), size)
            return self.probabilities_of(self._computed(image)[0], size)

    def outputs(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """The network's own outputs of an image, each (h, w, channels) float32, valid until the next call."""
        check_image(image)
        return self._run(self._seen(image))

    def _computed(self, image: np.ndarray) -> tuple[Output, ...]:
        """The network's outputs where the engine leaves them: on the device, or as `outputs` returns them."""
        seen = self._seen(image)
        return self._run.tensors(seen) if isinstance(self._run, CudaEngine) else self._run(seen)

    def _seen(self, image: np.ndarray) -> np.ndarray:
        """The image as the network gets it."""
        shape = self.input_shape(*image.shape[:2])
        if shape != image.shape[:2]:
            how = cv2.INTER_AREA if shape[0] < image.shape[0] else cv2.INTER_LINEAR
            image = cv2.resize(image, (shape[1], shape[0]), interpolation=how)
        return np.ascontiguousarray(image)

    @property
    def parameters(self) -> int:
        """How many trained numbers the network has."""
        return cost.parameters(self.network)

    def gmac(self, width: int, height: int) -> float:
        """10^9 multiply-accumulates that an input of this size costs."""
        return cost.gmac(self.network, width, height)

    def input_shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which the network sees an image: its shape kept, the area of the training images."""
        return input_shape(self._input_size, height, width)

    def probabilities_of(self, scores: Output, size: tuple[int, int]) -> np.ndarray:
        """Class probabilities (H, W, C) at `size` (width, height) of the network's first output."""
        first, last = self._outputs
        if (first, last) != (0, scores.shape[-1]):
            scores = scores[..., first:last]
            scores = np.ascontiguousarray(scores) if isinstance(scores, np.ndarray) else scores
        images: Any = _postprocessing(scores)
        return images.class_probabilities(scores, size, self._merge, self._temperature)


def input_shape(trained: Sequence[int] | None, height: int, width: int) -> tuple[int, int]:
    """(height, width) at which a network sees an image of that size: its shape kept, the area as in training.

    trained: height and width of the training images, the `input_size` of the weights; None leaves the image as it is.
    """
    if not trained:
        return height, width
    scale = math.sqrt(trained[0] * trained[1] / (height * width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _mirrored(output: Output) -> Output:
    return np.ascontiguousarray(output[:, ::-1]) if isinstance(output, np.ndarray) else output.flip(1)


def _postprocessing(output: Output) -> ModuleType:
    """The module that makes images of an output where it lies."""
    return postprocessing if isinstance(output, np.ndarray) else device_postprocessing


def check_image(image: np.ndarray) -> None:
    """One clear line unless `image` is (H, W, 3) uint8."""
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        remedy = "repeat its one channel three times: np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)"
        raise ValueError(f"the image is grey, {image.shape}; expected (H, W, 3) RGB; {remedy}")
    if image.ndim == 3 and image.shape[2] == 4:
        raise ValueError(
            f"the image has an alpha channel, {image.shape}; expected (H, W, 3) RGB; drop it: image[..., :3]"
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"the image has shape {image.shape}; expected (H, W, 3) RGB")
    if image.dtype != np.uint8:
        remedy = "divide by 256 first" if image.dtype == np.uint16 else "bring it to 0..255 first"
        raise ValueError(f"the image is {image.dtype}; expected uint8; {remedy}")
