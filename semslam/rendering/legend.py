"""Classes in words and colours: what a legend lists, and its picture."""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np

from semslam.cloud import SurfelCloud
from semslam.frame import UNLABELLED
from semslam.labels import LabelSet
from semslam.rendering.coloring import INK, UNLABELLED_COLOR


def classes_present(cloud: SurfelCloud, label_set: LabelSet) -> list[tuple[int, float]]:
    """(class id, share of the map's surface in 0..1), largest first; id 255 is what was never labelled.

    The share is by the area of the disks: surfels seen from near are small and many.
    """
    return _classes_by_area(_areas(cloud), label_set)


def _areas(cloud: SurfelCloud) -> np.ndarray:
    """(256,) the surface of each class id, as the sum of the squared radii of its disks."""
    return np.bincount(cloud.labels(), weights=cloud.radii.astype(np.float64) ** 2, minlength=UNLABELLED + 1)


def _classes_by_area(area: np.ndarray, label_set: LabelSet) -> list[tuple[int, float]]:
    share = area / max(float(area.sum()), 1e-12)
    order = [i for i in np.argsort(-share, kind="stable") if share[i] > 0]
    return [(int(i), float(share[i])) for i in order if i < len(label_set) or i == UNLABELLED]


def class_name(label_set: LabelSet, class_id: int) -> str:
    """The name of a class as a legend prints it."""
    return "unlabelled" if class_id == UNLABELLED else label_set.classes[class_id]


def class_color(label_set: LabelSet, class_id: int) -> tuple[int, int, int]:
    """The RGB colour of a class in pictures."""
    if class_id == UNLABELLED:
        return UNLABELLED_COLOR
    red, green, blue = (int(c) for c in label_set.colors[class_id])
    return red, green, blue


def legend_entries(cloud: SurfelCloud, label_set: LabelSet) -> list[tuple[str, tuple[int, int, int]]]:
    """(text, RGB colour) of every class present, with its share of the surface."""
    return legend_entries_in_parts([cloud], label_set)


def legend_entries_in_parts(
    clouds: Iterable[SurfelCloud], label_set: LabelSet
) -> list[tuple[str, tuple[int, int, int]]]:
    """The same of a map in parts."""
    areas = sum((_areas(part) for part in clouds), np.zeros(1))
    return [
        (class_name(label_set, i) + (f"  {100 * share:.1f} %" if share >= 0.0005 else ""), class_color(label_set, i))
        for i, share in _classes_by_area(areas, label_set)
    ]


def legend_image(
    cloud: SurfelCloud, label_set: LabelSet, *, hidden: Container[int] = (), chosen: int | None = None
) -> np.ndarray:
    """(H, W, 3) uint8: the classes present, one per line; the chosen one framed, the hidden ones pale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    present = classes_present(cloud, label_set)
    width, line, margin = 2.6, 0.3, 0.15
    height = 2 * margin + line * max(len(present), 1)
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for k, (i, share) in enumerate(present):
        y = margin + (k + 0.5) * line
        color = "#{:02x}{:02x}{:02x}".format(*class_color(label_set, i))
        pale = 0.25 if i in hidden else 1.0
        if i == chosen:
            axes.add_patch(Rectangle((0.06, y - 0.14), width - 0.12, 0.28, facecolor="none", edgecolor=INK))
        axes.add_patch(Rectangle((0.15, y - 0.08), 0.16, 0.16, facecolor=color, edgecolor=INK, lw=0.4, alpha=pale))
        axes.text(0.42, y, class_name(label_set, i), fontsize=11, color=INK, va="center", alpha=pale)
        axes.text(width - 0.15, y, f"{100 * share:.1f} %", fontsize=11, color=INK, va="center", ha="right", alpha=pale)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
