"""Pictures and plots of a comparison, as data URIs: a page that holds them needs no network and no other file.

Colours are Okabe and Ito's, which readers with any colour vision tell apart; lines differ in their dashes too, so that
they can be told apart in grey print.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.labels import LabelSet
from semslam.metrics.segmentation import CalibrationScores, ConfusionMatrix
from semslam.rendering.coloring import graded
from semslam.rendering.pictures import picture, picture_camera, shown_colors
from semslam.rendering.splatting import lit
from semslam.rendering.viewpoint import overview, up_direction

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)), (0, (3, 3)))
WORST_ERROR = 0.20  # metres; what the painted errors' last colour means
ERROR_COLORS = "YlOrRd"  # pale where right: print spends its ink on what is wrong
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "0.9",
    "grid.linewidth": 0.7, "axes.axisbelow": True, "lines.linewidth": 1.4, "svg.hashsalt": "semslam",
    "legend.frameon": False,
}  # fmt: skip


def overview_of(cloud: SurfelCloud, labels: LabelSet, trajectory: Any) -> tuple[Camera, np.ndarray]:
    """A camera and its pose, T_world_camera, that show most of a map from outside."""
    path = None if trajectory is None else trajectory.T_world_camera
    camera = picture_camera(640, 480)
    return camera, overview(cloud, camera, up_direction(cloud, labels, path), trajectory=path)


def painted_views(
    cloud: SurfelCloud, labels: LabelSet, errors: np.ndarray | None, view: tuple[Camera, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """The map in its colours, in its classes, and in its distances (N,) to the truth: (H, W, 3) uint8 each."""
    camera, T = view
    painted = graded(np.full(len(cloud), np.nan) if errors is None else errors, 0, WORST_ERROR, ERROR_COLORS)
    colors = [shown_colors(cloud, labels, "color", T), shown_colors(cloud, labels, "label", T), lit(painted, cloud, T)]
    return tuple(picture(cloud, camera, T, colors))


# ---------------------------------------------------------------------------------------------- to data URIs


def photograph(image: np.ndarray) -> str:
    """The data URI of a picture (H, W, 3) uint8."""
    import cv2

    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def drawing(figure: Any) -> str:
    """The data URI of a matplotlib figure, as SVG: sharp in print at any size; the same bytes every time."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _axes(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, drawn in our style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _styled(draw: Any) -> Any:
    """A function that draws in our style, whatever the user's settings are."""
    from functools import wraps

    @wraps(draw)
    def wrapped(*arguments: Any, **named: Any) -> str:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return drawing(draw(*arguments, **named))

    return wrapped


def style_of(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line."""
    return {"color": PALETTE[k % len(PALETTE)], "linestyle": DASHES[k % len(DASHES)]}


# -------------------------------------------------------------------------------------------------- the plots


@_styled
def lines(series: Mapping[str, tuple[np.ndarray, np.ndarray]], x: str, y: str) -> Any:
    """Some lines (x values, y values) over one axis, each named in the legend."""
    figure, axes = _axes(7.2, 3.0)
    for k, (name, (xs, ys)) in enumerate(series.items()):
        axes.plot(xs, ys, label=name, **style_of(k))
    axes.set(xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2 if len(series) < 7 else 3)
    return figure


@_styled
def bars(groups: Sequence[str], series: Mapping[str, Sequence[float]], y: str) -> Any:
    """Grouped bars: one group a name, one bar in it for each of the series; NaN leaves a gap."""
    figure, axes = _axes(7.2, 3.0)
    each = 0.8 / len(series)
    for k, (name, values) in enumerate(series.items()):
        at = np.arange(len(groups)) - 0.4 + each * (k + 0.5)
        axes.bar(at, values, 0.92 * each, label=name, color=PALETTE[k % len(PALETTE)], edgecolor="black", linewidth=0.3)
    slanted = max(map(len, groups), default=0) * len(groups) > 90
    axes.set_xticks(np.arange(len(groups)), groups, rotation=40 if slanted else 0, ha="right" if slanted else "center")
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(y)
    figure.legend(loc="outside lower center", ncols=min(len(series), 3))
    return figure


@_styled
def paths(reference: np.ndarray, found: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> Any:
    """Camera paths together, and their distances to the reference over time.

    reference: (N, 3) camera centres. found: by name the aligned centres (M, 3), whether each was tracked (M,), seconds
    (K,) and errors (K,) in metres of the matched ones.
    """
    figure, (left, right) = _axes(7.2, 3.4, 1, 2)
    centre = reference.mean(axis=0)
    _, _, axes3 = np.linalg.svd(reference - centre, full_matrices=False)
    plane = axes3[:2].T  # the plane of most motion, whatever the world's axes are
    left.plot(*((reference - centre) @ plane).T, color="0.65", linewidth=4, label="data set")
    for k, (name, (centres, tracked, seconds, errors)) in enumerate(found.items()):
        line = (centres - centre) @ plane
        left.plot(*line.T, label=name, **style_of(k))
        if not tracked.all():
            left.plot(*line[~tracked].T, "x", color=PALETTE[k % len(PALETTE)], markersize=3)
        right.plot(seconds, 100 * errors, **style_of(k))
    left.set(xlabel="metres, first axis of motion", ylabel="metres, second axis", aspect="equal")
    left.set_adjustable("datalim")
    right.set(xlabel="seconds", ylabel="cm from the data set's path", yscale="symlog" if len(found) > 1 else "linear")
    right.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@_styled
def confusion(matrices: Mapping[str, ConfusionMatrix], labels: LabelSet) -> Any:
    """Confusion matrices side by side, each row (a true class that occurs) as shares of its pixels, in per cent."""
    some = next(iter(matrices.values()))
    occurs = np.flatnonzero(sum(m.counts.sum(axis=1) for m in matrices.values()))
    called = np.flatnonzero(sum(m.counts[:, : some.num_classes].sum(axis=0) for m in matrices.values()))
    columns = np.union1d(occurs, called)
    size = 0.19 * max(len(columns), 8)
    figure, all_axes = _axes(
        1.2 + len(matrices) * (size + 0.4), size + 1.5, 1, len(matrices), squeeze=False, sharey=True
    )
    for axes, (name, matrix) in zip(all_axes[0], matrices.items()):
        counts = matrix.counts[occurs].astype(np.float64)
        share = 100 * counts[:, columns] / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        drawn = axes.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        axes.set_xticks(range(len(columns)), [labels.classes[i] for i in columns], rotation=90, fontsize=7)
        axes.set_yticks(range(len(occurs)), [labels.classes[i] for i in occurs], fontsize=7)
        axes.set(title=name.replace(", ", ",\n"), xlabel="called")
        axes.grid(visible=False)
        if len(columns) <= 13:
            for row, column in np.argwhere(share >= 0.5):
                ink = "white" if share[row, column] < 55 else "black"
                axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=6, color=ink)
    all_axes[0][0].set_ylabel("true")
    figure.colorbar(drawn, ax=list(all_axes[0]), label="% of the true class", shrink=0.8)
    return figure


@_styled
def reliability(curves: Mapping[str, CalibrationScores]) -> Any:
    """How often a class called with some probability is right, against that probability."""
    figure, axes = _axes(4.6, 3.9)
    axes.plot([0, 1], [0, 1], color="0.65", linewidth=1, label="perfect")
    for k, (name, scores) in enumerate(curves.items()):
        known = scores.pixels > 0
        axes.plot(
            scores.confidence[known], scores.accuracy[known], marker="o", markersize=3,
            label=f"{name}: ECE {100 * scores.ece:.1f} %", **style_of(k),
        )  # fmt: skip
    axes.set(xlabel="probability of the class called", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    figure.legend(loc="outside lower center")
    return figure


@_styled
def depth_frame(color: np.ndarray, truth: np.ndarray, depths: Mapping[str, np.ndarray]) -> Any:
    """One frame: colour and true depth, then each depth with its error below; metres, 0 = none."""
    columns = 1 + len(depths)
    height, width = truth.shape
    figure, axes = _axes(1.9 * columns + 0.6, 2 * 1.9 * height / width + 0.9, 2, columns, squeeze=False)
    far = float(np.percentile(truth[truth > 0], 99)) if (truth > 0).any() else 5.0
    axes[0][0].imshow(_thumbnail(color))
    axes[0][0].set_title("colour")
    shown = _depth_image(axes[1][0], truth, far)
    axes[1][0].set_title("sensor depth")
    for k, (name, depth) in enumerate(depths.items(), 1):
        _depth_image(axes[0][k], depth, far)
        axes[0][k].set_title(name)
        error = np.where((truth > 0) & (depth > 0), depth - truth, np.nan)
        wrong = axes[1][k].imshow(_thumbnail(error), cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        valid = np.isfinite(error)
        rmse = float(np.sqrt(np.mean(error[valid] ** 2))) if valid.any() else float("nan")
        axes[1][k].set_title(f"error, RMSE {rmse:.2f} m")
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_facecolor("0.8")
        axis.grid(visible=False)
    figure.colorbar(shown, ax=list(axes[0]), label="metres", shrink=0.9)
    figure.colorbar(wrong, ax=list(axes[1]), label="too near / too far, m", shrink=0.9)
    return figure


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Every n-th pixel: an embedded picture need not be larger than it is shown."""
    step = max(1, image.shape[1] // 320)
    return image[::step, ::step]


def _depth_image(axes: Any, depth: np.ndarray, far: float) -> Any:
    shown = np.where(depth > 0, depth, np.nan)
    return axes.imshow(_thumbnail(shown), cmap="viridis", vmin=0, vmax=far, interpolation="nearest")


@_styled
def error_scale() -> Any:
    """The scale of the painted errors."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = _axes(4.2, 0.6)
    scale = ScalarMappable(Normalize(0, 100 * WORST_ERROR), ERROR_COLORS)
    figure.colorbar(
        scale, cax=axes, orientation="horizontal", extend="max", label="cm from the truth (grey: not judged)"
    )
    return figure
