"""A pose network against posed images: how far off its poses are, and its labels where it has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semslam.frame import evenly_spread
from semslam.labels import label_set
from semslam.metrics.localisation import PoseErrors, pose_errors
from semslam.metrics.segmentation import ConfusionMatrix

if TYPE_CHECKING:
    from networks.pose.predictor import PosePredictor
    from sequences.images.posed_images import PosedImages

EXAMPLES = 3  # images that are shown with their labels


@dataclass(frozen=True, eq=False)
class PoseScore:
    """What a pose network did on a set of images."""

    figures: dict[str, Any]
    errors: PoseErrors | None  # None of a network that predicts no pose
    predicted: np.ndarray  # (N, 4, 4)
    truth: np.ndarray  # (N, 4, 4)


def score_poses(
    predictor: PosePredictor, images: PosedImages, report: Callable[[str], None] | None = None
) -> PoseScore:
    """Score `predictor` on every image, and its labels on those that have labels.

    Figures: `images, median_m, mean_m, median_deg, mean_deg, within_5cm_5deg`, and of labels `labelled_images,
    pixel_accuracy, miou` and, where the set has a class "background" (DeepLoc), `miou_without_background`, as in the
    report. One confusion matrix over the set, void ignored, classes absent from truth and prediction skipped.

    Args:
        report: called with each image's name when it has been scored.
    """
    if predictor.needs_labels and images.read_labels is None:
        raise ValueError(f"{images.source}: has no labels, which this network reads; name a folder of them")
    predicted, matrix = [], None
    labelled = 0
    predicts_labels = "segmentation" in predictor.network.tasks
    known = predictor.metadata.get("class_set")
    if (predicts_labels or predictor.needs_labels) and images.label_set is not None and images.label_set != known:
        raise ValueError(f"{images.source}: labels are {images.label_set}, the network's {known}")
    for image in images:
        found = predictor.predict(image.color, image.labels if predictor.needs_labels else None)
        if found.T_world_camera is not None:
            predicted.append(found.T_world_camera)
        if found.labels is not None and image.labels is not None:
            matrix = matrix or ConfusionMatrix(int(predictor.metadata["num_classes"]))
            matrix.add(found.labels, image.labels)
            labelled += 1
        if report is not None:
            report(image.name)
    figures: dict[str, Any] = {"images": len(images)}
    errors = None
    T = np.array(predicted, np.float64).reshape(-1, 4, 4)
    if predicted:
        errors = pose_errors(T, images.T_world_camera)
        figures |= errors.figures()
    if matrix is not None:
        scores = matrix.scores()
        figures |= {
            "labelled_images": labelled,
            "pixel_accuracy": scores.pixel_accuracy,
            "miou": scores.miou,
        }
        if label_set(predictor.metadata["class_set"]).classes[0] == "background":
            inner = scores.iou[1:]
            figures["miou_without_background"] = float(np.nanmean(inner)) if np.isfinite(inner).any() else None
    return PoseScore(figures, errors, T, images.T_world_camera)


def labelled_examples(
    predictor: PosePredictor, images: PosedImages
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Input, result and target of a few images spread over a set, of those with labels where there are any."""
    places = np.arange(len(images))
    if images.labelled is not None and images.labelled.any():
        places = places[images.labelled]
    rows = []
    for place in evenly_spread(places.tolist(), EXAMPLES):
        image = images[place]
        found = predictor.predict(image.color, image.labels if predictor.needs_labels else None)
        if found.labels is not None:
            rows.append((image.color, found.labels, image.labels))
    return rows


# ------------------------------------------------------------------------------------------------------- tables

_KEYS = ("median_m", "mean_m", "median_deg", "mean_deg")
# Published on DeepLoc's test images: the report on multi-task pose regression (2019); VLocNet++'s paper (RA-L 2018),
# which gives medians alone.
_DEEPLOC: list[tuple[str, tuple[float | None, ...]]] = [
    ("PoseNet, report", (3.64, 4.44, 3.13, 4.27)),
    ("MapNet, report", (3.42, 3.91, 3.23, 4.48)),
    ("Dual-Input, report", (3.26, 3.54, 2.82, 4.32)),
    ("Multi-task, report", (1.07, 1.31, 2.96, 4.32)),
    ("PoseNet, VLocNet++ paper", (2.42, None, 3.66, None)),
    ("VLocNet", (0.68, None, 3.43, None)),
    ("VLocNet++", (0.37, None, 1.93, None)),
]
# Medians of MapNet on the test sequences of 7-Scenes (CVPR 2018), by scene.
_MAPNET_SEVEN_SCENES = {
    "chess": (0.08, 3.25),
    "fire": (0.27, 11.69),
    "heads": (0.18, 13.25),
    "office": (0.17, 5.15),
    "pumpkin": (0.22, 4.02),
    "redkitchen": (0.23, 4.93),
    "stairs": (0.30, 12.08),
}


def table(figures: dict[str, Any], name: str, data: str) -> str:
    """The report's table, its rows on DeepLoc above our row on `data`: comparable only if that is DeepLoc's test."""
    rows: list[tuple[str, tuple[float | None, ...]]] = [*_DEEPLOC]
    if data in _MAPNET_SEVEN_SCENES:
        metres, degrees = _MAPNET_SEVEN_SCENES[data]
        rows.append((f"MapNet, whole 7-Scenes {data}", (metres, None, degrees, None)))
    rows.append((f"{name} on {data} ({figures['images']} images)", tuple(figures.get(key) for key in _KEYS)))
    width = max(len(label) for label, _ in rows)
    heading = ("median m", "mean m", "median deg", "mean deg")
    lines = ["Poses, published on DeepLoc's test images; ours on what was scored"]
    lines.append("  ".join([" " * width, *(word.rjust(10) for word in heading)]))
    for label, values in rows:
        cells = ["-" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3f}" for value in values]
        lines.append("  ".join([label.ljust(width), *(cell.rjust(10) for cell in cells)]))
    if "miou" in figures:
        inner = figures.get("miou_without_background")
        lines.append(
            f"labels on {figures['labelled_images']} images: accuracy {figures['pixel_accuracy']:.3f} (report 0.96),"
            f" mIoU {figures['miou']:.3f}" + (f", without background {inner:.3f}" if inner is not None else "")
        )
    return "\n".join(lines)
