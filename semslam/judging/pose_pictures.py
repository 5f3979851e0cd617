"""Pictures of what a pose network did: paths with their errors, the share within each error, labels by the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semslam.labels import LabelSet
from semslam.metrics.localisation import PoseErrors
from semslam.rendering.pictures import printable, save_figure

TRUTH, PREDICTION, BETWEEN = "#1a9641", "#d7191c", "#9a9a9a"


def pose_graph(path: str | Path, predicted: np.ndarray, truth: np.ndarray, title: str = "") -> None:
    """Write a figure of true (green) and predicted (red) positions (N, 4, 4), each pair joined by a line.

    The two axes of the world along which the camera moves most are drawn, and the longest with the third, in metres.
    """
    spread = np.argsort(-np.ptp(truth[:, :3, 3], axis=0), kind="stable")
    figure, axes = _figure(10, 4.8, 1, 2)
    for axis, (a, b) in zip(axes, ((spread[0], spread[1]), (spread[0], spread[2])), strict=True):
        ends = np.stack([truth[:, :3, 3], predicted[:, :3, 3]], 1)[:, :, [a, b]]
        for pair in ends:
            axis.plot(*pair.T, color=BETWEEN, linewidth=0.6, zorder=1)
        axis.plot(*ends[:, 0].T, "o-", color=TRUTH, markersize=3, linewidth=0.8, label="truth", zorder=2)
        axis.plot(*ends[:, 1].T, "o", color=PREDICTION, markersize=3, label="prediction", zorder=3)
        axis.set_xlabel(f"{'xyz'[a]} (m)")
        axis.set_ylabel(f"{'xyz'[b]} (m)")
        axis.set_aspect("equal", adjustable="datalim")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="best", fontsize=8)
    figure.suptitle(printable(title))
    save_figure(figure, path, dpi=110, format="png")


def cumulative_errors(path: str | Path, errors: Mapping[str, PoseErrors]) -> None:
    """Write the share of images whose error is below what the axis says, a curve for each of `errors` by name."""
    figure, axes = _figure(10, 4, 1, 2)
    for name, found in errors.items():
        for axis, values in zip(axes, (found.metres, found.degrees), strict=True):
            ordered = np.concatenate([[0.0], np.sort(values)])
            axis.step(ordered, np.arange(len(ordered)) / len(values), where="post", label=name)
    for axis, label in zip(axes, ("position error (m)", "orientation error (degrees)"), strict=True):
        axis.set_xlabel(label)
        axis.set_ylabel("share of images")
        axis.set_ylim(0, 1.02)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    axes[1].legend(loc="lower right", fontsize=8)
    save_figure(figure, path, dpi=110, format="png")


def label_rows(
    path: str | Path, rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]], labels: LabelSet
) -> None:
    """Write rows of input, result and target: (image (H, W, 3), labels (H, W), true labels or None), and a legend."""
    from matplotlib.patches import Patch

    height = 10 / 3 * rows[0][0].shape[0] / rows[0][0].shape[1]
    figure, axes = _figure(10, (height + 0.25) * len(rows) + 0.9, len(rows), 3)
    shown: set[int] = set()
    for line, row in zip(np.reshape(axes, (len(rows), 3)), rows, strict=True):
        for axis, image, title in zip(line, row, ("input", "result", "target"), strict=True):
            axis.set_axis_off()
            if image is None:
                continue
            if image.ndim == 2:
                shown |= {int(i) for i in np.unique(image) if i < len(labels)}
                image = labels.colorize(image)
            axis.imshow(image, interpolation="nearest")
            axis.set_title(title, fontsize=9)
    patches = [
        Patch(facecolor=labels.colors[i] / 255, edgecolor="black", label=labels.classes[i]) for i in sorted(shown)
    ]
    figure.legend(handles=patches[:24], loc="outside lower center", ncols=8, fontsize=7)
    save_figure(figure, path, dpi=110, format="png")


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)
