"""What a surfel's colour may stand for: the same choices in the window, the pictures and the web page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semslam.cloud import SurfelCloud
from semslam.frame import UNLABELLED
from semslam.labels import LabelSet

INK = "#222222"  # of words and frames in pictures
UNLABELLED_COLOR = (150, 152, 156)  # recedes; black, void's usual colour, would be the loudest of all
Coloring = Callable[[SurfelCloud, LabelSet], np.ndarray]


def graded(values: np.ndarray, low: float, high: float, colormap: str = "viridis") -> np.ndarray:
    """(N, 3) uint8 colours of values (N,) from low to high on one of matplotlib's colour maps; NaN is grey."""
    from matplotlib import colormaps

    fraction = (np.asarray(values, np.float64) - low) / max(high - low, 1e-12)
    table = (colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)
    colors = table[np.clip(np.nan_to_num(fraction) * 255 + 0.5, 0, 255).astype(np.int64)]
    colors[np.isnan(fraction)] = UNLABELLED_COLOR
    return colors


def recorded(cloud: SurfelCloud, label_set: LabelSet) -> np.ndarray:
    """The colour the camera saw."""
    return cloud.colors


def label(cloud: SurfelCloud, label_set: LabelSet) -> np.ndarray:
    """The colour of the most probable class, grey where there is none."""
    labels = cloud.labels()
    colors = label_set.colorize(labels)
    colors[labels == UNLABELLED] = UNLABELLED_COLOR
    return colors


def confidence(cloud: SurfelCloud, label_set: LabelSet) -> np.ndarray:
    """Dark blue for surfels seen once, yellow for the most often merged tenth; logarithmic."""
    weights = np.log1p(np.maximum(cloud.confidence, 0))
    return graded(weights, 0, float(np.percentile(weights, 90)) if len(cloud) else 1)


def entropy(cloud: SurfelCloud, label_set: LabelSet) -> np.ndarray:
    """Black where the class is certain, yellow where all classes are equally likely."""
    return graded(cloud.entropy(), 0, np.log(max(len(label_set), 2)), "inferno")


def normal(cloud: SurfelCloud, label_set: LabelSet) -> np.ndarray:
    """Red, green and blue stand for the world's x, y and z of the normal."""
    return np.clip((cloud.normals + 1) * 127.5, 0, 255).astype(np.uint8)


def _frames(frames: np.ndarray) -> np.ndarray:
    return graded(frames.astype(np.float64), float(frames.min(initial=0)), float(frames.max(initial=1)), "plasma")


def first_seen(cloud: SurfelCloud, label_set: LabelSet) -> np.ndarray:
    """From the surfels that appeared first, purple, to the newest, yellow."""
    return _frames(cloud.first_seen)


def last_seen(cloud: SurfelCloud, label_set: LabelSet) -> np.ndarray:
    """From the surfels not seen for longest, purple, to those seen last, yellow."""
    return _frames(cloud.last_seen)


COLORINGS: dict[str, Coloring] = {
    "color": recorded,
    "label": label,
    "confidence": confidence,
    "entropy": entropy,
    "normal": normal,
    "first_seen": first_seen,
    "last_seen": last_seen,
}
