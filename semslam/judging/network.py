"""A network against labelled images: every figure of the paper's tables, each under a named protocol.

Class scores are brought to the size of the labels bilinearly, before soft-max, and depth likewise to the size of the
true depth. The truth is never resized, except where SemanticFusion's protocol asks for it. (A map gets probabilities
that were resized after soft-max, which costs a tenth and, on NYUv2, 0.1 points of mIoU.)
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from semslam.camera import Camera, same_aspect
from semslam.doctor.depth.range import without_cut_off
from semslam.frame import UNLABELLED, evenly_spread
from semslam.labels import label_set, remap_arg_max, remap_labels, remap_probabilities
from semslam.metrics.depth import FIGURES, KITTI_PROTOCOLS, PROTOCOLS, DepthErrors
from semslam.metrics.normals import NormalErrors
from semslam.metrics.segmentation import Calibration, ConfusionMatrix, semanticfusion_size

logger = logging.getLogger(__name__)

RECORDING_FRAMES = 40  # of a recording, by which the scale of predicted depth is judged
LARGEST_RATIO = 3.7  # of true to predicted depth, or the inverse: a unit of 256 in place of 1000 makes 3.9

if TYPE_CHECKING:
    from networks.inference.predictor import Predictor
    from sequences.images.labelled_images import LabelledImage
    from sequences.sequence import Sequence


def score(
    predictor: Predictor,
    images: Iterable[LabelledImage],
    classes: str = "nyu40",
    camera: Camera | None = None,
    passes: int = 100,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """A flat dict of figures of `predictor` over `images`.

    The names without a suffix are: `images, miou_40, pixel_accuracy_40, class_accuracy_40` (and the same of 13 classes,
    whose probabilities are summed), `rmse, rmse_log, abs_rel, sqr_rel, log10, silog, delta1, delta2, delta3`,
    `normal_mean_deg, normal_median_deg, normal_rmse_deg, normal_11_25, normal_22_5, normal_30`, `parameters`, `gmac`
    (at the images' size), `latency_ms` and `latency_ms_std` (of the network's pass; `latency_ms_total` with everything
    around it) and `engine`. Default protocols: one confusion matrix over the set, absent classes skipped, void
    ignored; depth pooled over valid pixels, whole frame, no cap.

    Suffixes: `_absent_as_one` and `_absent_as_zero` (what absent classes count), `_arg_max` (the likeliest of 40
    classes is mapped to 13), `_semanticfusion` (at 224x224, nearest), `_eigen_crop`, `_cap10` and so on (see
    `semslam.metrics.depth`), `_mean_of_images`; `iou_40_wall` and so on for each class; `ece_40` is the calibration
    error.

    `depth_ratio` is the median of the images' medians of true / predicted depth, 1 where the scale is right, and
    `depth_within_10` the share of pixels whose depth is within a tenth of the truth.

    Args:
        images: with labels or depth or both; see `sequences.images.labelled_images`.
        classes: the label set of their labels, one of which the predictor's set is, or to which it can be merged.
        camera: of the images. Its focal length scales predicted depth if the weights name theirs, and predicted
            normals are scored against those of the true depth.
        passes: over one image, for the latency.
        report: called with each image's name when it has been scored.

    Raises:
        ValueError: the labels agree with the network only when shifted by one, as those of files that count from
            another number do; or the depth's scale is one that another unit of the depth files would explain.
    """
    scores = _Scores(predictor, classes, camera)
    first = None
    for image in images:
        first = image.color if first is None else first
        scores.add(image)
        if report is not None:
            report(image.name)
    if first is None:
        raise ValueError("there are no images to score; is the split empty?")
    scores.check()
    return {
        "images": scores.images,
        **scores.figures(),
        "parameters": predictor.parameters,
        "gmac": round(predictor.gmac(first.shape[1], first.shape[0]), 3),
        **_latency(predictor, first, passes),
        "engine": predictor.engine,
    }


def score_scale(predictor: Predictor, sequence: Sequence) -> dict[str, Any]:
    """How well the scale of predicted depth fits a recording's sensor: `images, depth_ratio, depth_within_10`.

    Depth that stands for all that lies farther does not count.
    At most `RECORDING_FRAMES` of its frames are used, evenly spread.
    """
    if not sequence.has_depth:
        raise ValueError(f"{sequence.name}: has no depth to compare with")
    sequence, _ = without_cut_off(sequence)
    scale, used = _DepthScale(), 0
    for index in evenly_spread(range(len(sequence)), RECORDING_FRAMES):
        frame = sequence.try_read(index)
        if frame is not None and frame.depth is not None:
            size = (frame.depth.shape[1], frame.depth.shape[0])
            scale.add(predictor(frame.color, size, frame.camera.fx).depth, frame.depth)
            used += 1
    if not scale.figures():
        raise ValueError(f"{sequence.name}: none of its {used} frames looked at has a valid depth")
    return {"images": used, **scale.figures()}


class _Scores:
    """What a predictor says of images, against their labels, depth and normals."""

    def __init__(self, predictor: Predictor, classes: str, camera: Camera | None) -> None:
        self.predictor, self.camera = predictor, camera
        self.images = 0
        self.labels, self.scale = _LabelScores(predictor.label_set, classes), _DepthScale()
        protocols = KITTI_PROTOCOLS if predictor.label_set == "kitti6" else PROTOCOLS
        self.depths = {suffix: DepthErrors(protocol) for suffix, protocol in protocols.items()}
        self.normals = NormalErrors()
        self._without_normals = 0  # images

    def add(self, image: LabelledImage) -> None:
        """Score an image by what it has: labels, depth or both."""
        outputs = self.predictor.outputs(image.color)
        if image.labels is not None:
            self._add_labels(outputs[0], image.labels)
        if image.depth is not None:
            self._add_depth(outputs, image, image.depth)
        self.images += 1

    def _add_labels(self, scores: np.ndarray, labels: np.ndarray) -> None:
        import cv2

        size = (labels.shape[1], labels.shape[0])
        scores = cv2.resize(scores, size, interpolation=cv2.INTER_LINEAR)
        self.labels.add(self.predictor.probabilities_of(scores, size), labels)

    def _add_depth(self, outputs: tuple[np.ndarray, ...], image: LabelledImage, depth: np.ndarray) -> None:
        height, width = image.color.shape[:2]
        camera, focal = self.camera, None
        if camera is not None:
            focal = camera.fx * self.predictor.input_shape(height, width)[1] / camera.width
        size = (depth.shape[1], depth.shape[0])
        predicted = self.predictor.depth_of(outputs[1], size, focal)
        for errors in self.depths.values():
            errors.add(predicted, depth)
        self.scale.add(predicted, depth)
        if len(outputs) > 2 and (true := _true_normals(image, camera)) is not None:
            self.normals.add(self.predictor.normals_of(outputs[2], size), true)
        elif len(outputs) > 2:
            self._without_normals += 1

    def check(self) -> None:
        """ValueError where the labels count from another number, or depth counts another unit; what is left out is
        told."""
        self.labels.check()
        self.scale.check()
        if self._without_normals:
            why = "no camera is known"
            if self.camera is not None:
                size = f"{self.camera.width}x{self.camera.height}"
                why = f"their depth images are of another aspect than the camera ({size})"
            logger.warning("normals of %d of %d images are not scored: %s", self._without_normals, self.images, why)

    def figures(self) -> dict[str, Any]:
        return {
            **self.labels.figures(),
            **_depth_figures(self.depths),
            **self.scale.figures(),
            **_normal_figures(self.normals),
        }


class _LabelScores:
    """Confusion matrices and calibration of the predictor's classes and, of NYU-40, of the 13 that they merge into."""

    def __init__(self, predicted: str, truth: str) -> None:
        self.predicted, self.truth = predicted, truth
        if truth != predicted and (truth, predicted) not in (("nyu40", "nyu13"), ("nyu13", "nyu40")):
            raise ValueError(f"the labels are {truth}, the network predicts {predicted}; these cannot be compared")
        self.matrices: dict[str, ConfusionMatrix] = {}
        self.calibrations: dict[str, Calibration] = {}
        self._agreeing = dict.fromkeys((-1, 0, 1), 0)  # pixels, by what is added to the true ids
        self._labelled = 0

    def add(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        self._compare_shifted(probabilities, truth)
        if self.truth == self.predicted:
            self._count(self.predicted, probabilities, truth)
        if "nyu40" in (self.truth, self.predicted):
            truth_13 = truth if self.truth == "nyu13" else remap_labels(truth, "nyu40", "nyu13")
            merged = probabilities
            if self.predicted == "nyu40":
                merged = remap_probabilities(probabilities, "nyu40", "nyu13")
                self._matrix("nyu13", "_arg_max").add(remap_arg_max(probabilities, "nyu40", "nyu13"), truth_13)
            self._count("nyu13", merged, truth_13)

    def _compare_shifted(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        labelled = truth < len(label_set(self.truth))
        self._labelled += int(labelled.sum())
        called = probabilities.argmax(axis=-1)[labelled].astype(np.uint8)
        for shift in self._agreeing:
            moved = truth[labelled].astype(np.int64) + shift
            moved = np.where((moved >= 0) & (moved < len(label_set(self.truth))), moved, UNLABELLED).astype(np.uint8)
            if self.truth == "nyu40" and self.predicted == "nyu13":
                moved = remap_labels(moved, "nyu40", "nyu13")
            expected = called
            if self.truth == "nyu13" and self.predicted == "nyu40":
                expected = remap_labels(called, "nyu40", "nyu13")
            self._agreeing[shift] += int((moved == expected).sum())

    def check(self) -> None:
        """ValueError where the labels fit only when they are shifted; a warning where they hardly fit at all."""
        if not self._labelled:
            return
        shares = {shift: count / self._labelled for shift, count in self._agreeing.items()}
        best = max(shares, key=shares.__getitem__)
        if best and shares[best] > 0.25 and shares[best] > 2 * shares[0]:
            first = label_set(self.truth).first_file_id - best
            raise ValueError(
                f"the network agrees with {shares[0]:.0%} of the labels as they are read and with {shares[best]:.0%} "
                f"when {'one is added' if best > 0 else 'one is taken off'}: the label files do not count as "
                f"{self.truth}'s; "
                + (f"set first_id to {first} (--first-id {first})" if first in (0, 1) else "renumber them")
            )
        if max(shares.values()) < 0.15:
            logger.warning("the network agrees with %.0f %% of the labels: are they %s?", 100 * shares[0], self.truth)

    def _count(self, name: str, probabilities: np.ndarray, truth: np.ndarray) -> None:
        called = probabilities.argmax(axis=-1).astype(np.uint8)
        self._matrix(name).add(called, truth)
        self.calibrations.setdefault(name, Calibration()).add(probabilities, truth)
        if name == "nyu13":
            self._matrix(name, "_semanticfusion").add(semanticfusion_size(called), semanticfusion_size(truth))

    def _matrix(self, name: str, suffix: str = "") -> ConfusionMatrix:
        return self.matrices.setdefault(name + suffix, ConfusionMatrix(len(label_set(name))))

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, matrix in self.matrices.items():
            name, _, variant = key.partition("_")
            count, suffix = len(label_set(name)), f"_{variant}" if variant else ""
            scores = matrix.scores()
            found[f"miou_{count}{suffix}"] = _plain(scores.miou)
            found[f"pixel_accuracy_{count}{suffix}"] = _plain(scores.pixel_accuracy)
            found[f"class_accuracy_{count}{suffix}"] = _plain(scores.class_accuracy)
            found[f"class_accuracy_{count}{suffix}_absent_as_zero"] = _plain(scores.class_accuracy_absent_as_zero)
            if not suffix:
                found[f"miou_{count}_absent_as_one"] = _plain(scores.miou_absent_as_one)
                found[f"ece_{count}"] = _plain(self.calibrations[name].scores().ece)
        for name in self.calibrations:
            kinds = label_set(name)
            for kind, iou in zip(kinds.classes, self.matrices[name].scores().iou, strict=True):
                found[f"iou_{len(kinds)}_{kind.replace(' ', '_')}"] = _plain(iou)
        return found


class _DepthScale:
    """The ratio of true to predicted depth."""

    def __init__(self) -> None:
        self._ratios: list[float] = []
        self._near = self._pixels = 0

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        valid = np.isfinite(truth) & (truth > 0)
        if valid.any():
            ratio = truth[valid] / np.maximum(predicted[valid], 1e-3)
            self._ratios.append(float(np.median(ratio)))
            self._near += int((np.abs(1 / ratio - 1) <= 0.1).sum())
            self._pixels += ratio.size

    def check(self) -> None:
        """ValueError where the ratio is one that a wrong unit of the depth files makes and no room does."""
        if not self._ratios:
            return
        ratio = float(np.median(self._ratios))
        if not 1 / LARGEST_RATIO < ratio < LARGEST_RATIO:
            raise ValueError(
                f"the true depth is {ratio:.3g} times what the network sees: the depth files seem to count another "
                f"unit; give a depth scale of about {ratio:.2g} times this one"
            )

    def figures(self) -> dict[str, Any]:
        if not self._ratios:
            return {}
        return {"depth_ratio": float(np.median(self._ratios)), "depth_within_10": self._near / self._pixels}


def _true_normals(image: LabelledImage, camera: Camera | None) -> np.ndarray | None:
    """Normals of the true depth; None where they cannot be known."""
    if camera is None or image.depth is None:
        return None
    from sequences.images.labelled_images import normals_of_depth

    return normals_of_depth(image.depth, camera) if same_aspect(camera.shape, image.depth.shape) else None


def _depth_figures(depths: dict[str, DepthErrors]) -> dict[str, Any]:
    if not depths[""].pooled().pixels:
        return {}
    found: dict[str, Any] = {}
    for suffix, errors in depths.items():
        for pooling, scores in (("", errors.pooled()), ("_mean_of_images", errors.mean_of_images())):
            found |= {f"{name}{suffix}{pooling}": _plain(getattr(scores, name)) for name in FIGURES}
    return found


def _normal_figures(errors: NormalErrors) -> dict[str, Any]:
    scores = errors.scores()
    if not scores.pixels:
        return {}
    return {
        "normal_mean_deg": scores.mean_deg,
        "normal_median_deg": scores.median_deg,
        "normal_rmse_deg": scores.rmse_deg,
        "normal_11_25": scores.within_11_25,
        "normal_22_5": scores.within_22_5,
        "normal_30": scores.within_30,
    }


def _latency(predictor: Predictor, image: np.ndarray, passes: int) -> dict[str, float]:
    """Milliseconds of one image, over `passes` of them after three that warm up."""

    def timed(call: Callable[[], Any]) -> np.ndarray:
        times = []
        for _ in range(3 + passes):
            start = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - start))
        return np.array(times[3:])

    network, total = timed(lambda: predictor.outputs(image)), timed(lambda: predictor(image))
    return {
        "latency_ms": round(float(network.mean()), 2),
        "latency_ms_std": round(float(network.std()), 2),
        "latency_ms_total": round(float(total.mean()), 2),
    }


def _plain(value: float) -> float | None:
    """A number that JSON has; None where there was nothing to score."""
    return float(value) if math.isfinite(value) else None
