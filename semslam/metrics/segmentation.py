"""How well classes are told apart: intersection over union, accuracies, and whether probabilities can be believed.

Every figure comes from one confusion matrix over the whole set of images, unlabelled truth left out. Two conventions
for absent classes are in use, and both are given. Of the IoU, a class that occurs neither in the truth nor in the
prediction is skipped (`miou`), or counts as a perfect 1 (`miou_absent_as_one`), as light-weight-refinenet does. Of the
class accuracy, one that the truth lacks is skipped (`class_accuracy`), or counts 0 in the average over all classes
(`class_accuracy_absent_as_zero`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEMANTICFUSION_SIZE = 224  # pixels per side; SceneNet's and SemanticFusion's 13-class protocol scores at this size
BINS = 15  # of confidence, for the calibration error


@dataclass(frozen=True, eq=False)
class SegmentationScores:
    """Fractions 0 to 1; NaN where there is nothing to score."""

    protocol: str
    miou: float  # mean over the classes that occur in truth or prediction
    miou_absent_as_one: float  # mean over all classes, one that occurs in neither counting 1
    pixel_accuracy: float
    class_accuracy: float  # mean over the classes that occur in the truth
    class_accuracy_absent_as_zero: float  # mean over all classes, one that the truth lacks counting 0
    iou: np.ndarray  # (C,), NaN where the class occurs in neither
    accuracy: np.ndarray  # (C,) recall, NaN where the class does not occur in the truth
    pixels: int  # labelled pixels scored


class ConfusionMatrix:
    """How often each true class was called what, over a whole set of images.

    A pixel whose truth is labelled and whose prediction is not (255: a hole of a rendered map) counts as missed.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)  # [truth, prediction]; last column: none

    def add(self, prediction: np.ndarray, truth: np.ndarray, ignore_band: int = 0) -> None:
        """Count one pair of label images (H, W) of ids from 0.

        Truth outside 0..C-1 is ignored, and so is truth within `ignore_band` pixels of another label or of void.
        """
        if not (np.issubdtype(prediction.dtype, np.integer) and np.issubdtype(truth.dtype, np.integer)):
            raise ValueError(f"the prediction is {prediction.dtype}, the truth {truth.dtype}; expected ids of classes")
        if prediction.shape != truth.shape:
            raise ValueError(f"the prediction is {prediction.shape}, the truth {truth.shape}; resize one of them first")
        valid = (truth >= 0) & (truth < self.num_classes)
        if ignore_band:
            valid &= ~boundary_band(truth, ignore_band)
        columns = self.num_classes + 1
        called = prediction[valid].astype(np.int64)
        called[(called < 0) | (called > self.num_classes)] = self.num_classes
        flat = truth[valid].astype(np.int64) * columns + called
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)

    def scores(self) -> SegmentationScores:
        """The figures of everything counted so far."""
        counts = self.counts.astype(np.float64)
        hits = np.diagonal(counts)
        in_truth = counts.sum(axis=1)
        union = in_truth + counts[:, : self.num_classes].sum(axis=0) - hits
        with np.errstate(invalid="ignore"):
            iou, recall = hits / union, hits / in_truth
            pixel_accuracy = hits.sum() / in_truth.sum()
        seen = union > 0
        return SegmentationScores(
            protocol="one confusion matrix over the set, void ignored",
            miou=float(iou[seen].mean()) if seen.any() else float("nan"),
            miou_absent_as_one=float(np.where(seen, iou, 1.0).mean()),
            pixel_accuracy=float(pixel_accuracy),
            class_accuracy=float(recall[in_truth > 0].mean()) if seen.any() else float("nan"),
            class_accuracy_absent_as_zero=float(np.where(in_truth > 0, recall, 0.0).mean()),
            iou=iou,
            accuracy=recall,
            pixels=int(in_truth.sum()),
        )


def boundary_band(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels (H, W) bool whose square of `width` pixels to each side holds more than one label, void being one."""
    import cv2

    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # cv2 pads erosion and dilation so that what lies outside the image never wins
    return cv2.dilate(labels, square) != cv2.erode(labels, square)


def semanticfusion_size(labels: np.ndarray) -> np.ndarray:
    """A label image (H, W) at 224x224 by nearest neighbour, aspect ratio given up: where SemanticFusion scores.

    Truth and prediction both go through it; its figures are `pixel_accuracy` and `class_accuracy` over 13 classes
    with void skipped [SceneNetv1.0: getAccuracyNYU.m].
    """
    height, width = labels.shape
    rows = ((np.arange(SEMANTICFUSION_SIZE) + 0.5) * height / SEMANTICFUSION_SIZE).astype(np.int64)
    columns = ((np.arange(SEMANTICFUSION_SIZE) + 0.5) * width / SEMANTICFUSION_SIZE).astype(np.int64)
    return labels[rows[:, None], columns]


@dataclass(frozen=True, eq=False)
class CalibrationScores:
    """Whether a pixel called with confidence 0.8 is right 8 times in 10."""

    protocol: str
    ece: float  # expected calibration error: mean |accuracy - confidence| of the bins, weighted by their pixels
    negative_log_likelihood: float  # of the true class, nats a pixel
    edges: np.ndarray  # (B + 1,) confidence
    confidence: np.ndarray  # (B,) mean of the bin, NaN where it is empty
    accuracy: np.ndarray  # (B,) of the bin: the reliability curve
    pixels: np.ndarray  # (B,)


class Calibration:
    """Counts of confidence against correctness over a set; equal bins of the largest probability (Guo et al. 2017)."""

    def __init__(self) -> None:
        self.edges = np.linspace(0.0, 1.0, BINS + 1)
        self.pixels = np.zeros(BINS, np.int64)
        self.confidence_sum = np.zeros(BINS)
        self.hits = np.zeros(BINS, np.int64)
        self.log_likelihood_sum = 0.0

    def bins(self, confidence: np.ndarray) -> np.ndarray:
        """The bin (N,) of each confidence (N,); bins are open below and closed above, as in the definition."""
        return np.clip(np.searchsorted(self.edges, confidence, side="left") - 1, 0, BINS - 1)

    def add(self, probabilities: np.ndarray, truth: np.ndarray, ignore_band: int = 0) -> None:
        """Count class probabilities (H, W, C) against ids (H, W); void and pixels without probabilities are skipped."""
        classes = probabilities.shape[-1]
        if probabilities.shape[:-1] != truth.shape:
            raise ValueError(f"the probabilities are {probabilities.shape}, the truth is {truth.shape}")
        confidence = probabilities.max(axis=-1)
        valid = (truth < classes) & (confidence > 0)
        if ignore_band:
            valid &= ~boundary_band(truth, ignore_band)
        probabilities, truth, confidence = probabilities[valid], truth[valid].astype(np.int64), confidence[valid]
        bin_ids = self.bins(confidence)
        hits = probabilities.argmax(axis=-1) == truth
        self.pixels += np.bincount(bin_ids, minlength=BINS)
        self.hits += np.bincount(bin_ids[hits], minlength=BINS)
        self.confidence_sum += np.bincount(bin_ids, weights=confidence, minlength=BINS)
        of_truth = np.take_along_axis(probabilities, truth[:, None], axis=-1)
        self.log_likelihood_sum += float(np.log(np.maximum(of_truth, 1e-12), dtype=np.float64).sum())

    def __iadd__(self, other: Calibration) -> Calibration:
        self.pixels += other.pixels
        self.hits += other.hits
        self.confidence_sum += other.confidence_sum
        self.log_likelihood_sum += other.log_likelihood_sum
        return self

    def scores(self) -> CalibrationScores:
        """The figures of everything counted so far."""
        total = int(self.pixels.sum())
        with np.errstate(invalid="ignore"):
            confidence, accuracy = self.confidence_sum / self.pixels, self.hits / self.pixels
        gaps = np.abs(self.hits - self.confidence_sum).sum()
        return CalibrationScores(
            protocol=f"{BINS} equal bins of the largest probability, pooled over labelled pixels",
            ece=float(gaps / total) if total else float("nan"),
            negative_log_likelihood=-self.log_likelihood_sum / total if total else float("nan"),
            edges=self.edges,
            confidence=confidence,
            accuracy=accuracy,
            pixels=self.pixels.copy(),
        )
