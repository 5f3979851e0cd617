"""Pictures of a trajectory: over the truth, and its errors over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from semslam.metrics.trajectory import absolute_error, matched, pair_errors
from semslam.rendering.pictures import save_figure
from semslam.trajectory import Trajectory

FINEST = 0.1, 0.01  # millimetres and degrees that an axis of errors spans at least: below them is rounding


def plot_trajectory(
    path: str | Path,
    estimate: Trajectory,
    reference: Trajectory,
    tracked: np.ndarray,
    with_scale: bool,
) -> None:
    """A PNG of the aligned trajectory over the reference, seen along the reference's two widest axes."""
    from matplotlib.figure import Figure

    found = estimate.selected(tracked)
    error = absolute_error(found, reference, with_scale)
    aligned, truth = error.alignment(estimate.positions), reference.positions
    # World axes differ between data sets; the plane of most motion shows the path best.
    _, _, axes = np.linalg.svd(truth - truth.mean(axis=0), full_matrices=False)
    plane = axes[:2].T
    figure = Figure(figsize=(6, 5), layout="constrained")
    ax = figure.add_subplot()
    ax.plot(*((truth - truth.mean(axis=0)) @ plane).T, color="0.45", linewidth=2.5, label="reference")
    line = (aligned - truth.mean(axis=0)) @ plane
    ax.plot(*line.T, color="#0072b2", linewidth=1.2, label="estimate")
    if not tracked.all():
        ax.plot(*line[~tracked].T, "x", color="#d55e00", markersize=4, label="lost")
    ax.plot(*line[0], "o", color="#0072b2", markersize=5)
    ax.set(
        xlabel="metres, first principal axis",
        ylabel="metres, second principal axis",
        aspect="equal",
        adjustable="datalim",
    )
    ax.set_title(f"ATE {error.rmse * 1000:.1f} mm ({error.protocol}, {error.matched} poses)")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    save_figure(figure, path, dpi=150, format="png")


def plot_errors(
    path: str | Path,
    estimate: Trajectory,
    reference: Trajectory,
    tracked: np.ndarray,
    with_scale: bool,
) -> None:
    """A PNG of the error of position (after alignment) and of rotation per frame over time; lost spells are shaded.

    Both axes span at least FINEST, so that poses which were given are shown without error.
    """
    from matplotlib.figure import Figure

    found = estimate.selected(tracked)
    error = absolute_error(found, reference, with_scale)
    est, ref = matched(found, reference)
    steps = np.arange(len(est) - 1)
    E = pair_errors(est, ref, steps, steps + 1)
    start = estimate.timestamps[0]
    seconds = error.timestamps - start
    figure = Figure(figsize=(7, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot(seconds, error.errors * 1000, color="#0072b2", linewidth=1.2)
    if error.errors.max(initial=0) < 1e-3 * FINEST[0] and len(steps):
        words = "no errors: the poses were given"
        top.text(0.5, 0.5, words, transform=top.transAxes, ha="center", va="center", color="0.3")
    top.axhline(error.rmse * 1000, color="0.45", linewidth=1, linestyle="--", label=f"RMSE {error.rmse * 1000:.1f} mm")
    top.set(
        ylabel=f"position error, mm ({error.protocol})",
        ylim=(0, max(FINEST[0], 1.1e3 * float(error.errors.max(initial=0)))),
    )
    turned = np.degrees(Rotation.from_matrix(E[:, :3, :3]).magnitude())
    bottom.plot(seconds[1:], turned, color="#d55e00", linewidth=1.2)
    bottom.set(
        xlabel="seconds",
        ylabel="rotation error a frame, degrees",
        ylim=(0, max(FINEST[1], 1.1 * float(turned.max(initial=0)))),
    )
    for ax in (top, bottom):
        label = "lost"
        for k in map(int, np.flatnonzero(~tracked)):  # up to the next frame's time
            end = estimate.timestamps[min(k + 1, len(estimate) - 1)]
            ax.axvspan(
                estimate.timestamps[k] - start, end - start, color="#d55e00", alpha=0.2, linewidth=0, label=label
            )
            label = "_"
        ax.grid(alpha=0.3)
    top.legend(frameon=False)
    save_figure(figure, path, dpi=150, format="png")
