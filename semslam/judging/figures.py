"""Results as one flat dict of figures with stable names, and as lines for people."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from semslam.judging.map_labels import MapLabelScores
from semslam.metrics.surface import SurfaceScores
from semslam.metrics.trajectory import TrajectoryErrors


def trajectory_figures(
    errors: TrajectoryErrors | None, frames: int, lost: int, with_scale: bool = False
) -> dict[str, Any]:
    """ate_m and so on; coverage is the share of all frames with a pose that was believed.

    ate_m, its median and maximum are after SE(3), or after Sim(3) `with_scale`: ValueError where that is degenerate.
    ate_se3_m and ate_sim3_m stand beside it. trajectory_scale is what the estimate must be multiplied by, scale_error
    how much too large the estimate is.
    """
    found: dict[str, Any] = {"coverage": 1 - lost / frames if frames else float("nan")}
    if errors is None:
        return found | {"ate_m": None, "rpe_m": None, "rpe_deg": None}
    similar, step = errors.similar, errors.per_frame
    absolute = errors.absolute if not with_scale else similar
    if absolute is None:
        raise ValueError(f"no alignment by Sim(3): {errors.degenerate}")
    return found | {
        "ate_m": absolute.rmse,
        "ate_se3_m": errors.absolute.rmse,
        "ate_sim3_m": similar.rmse if similar else None,
        "trajectory_scale": similar.alignment.scale if similar else None,
        "scale_error": 1 / similar.alignment.scale - 1 if similar else None,
        "sim3_degenerate": errors.degenerate or None,
        "ate_median_m": absolute.median,
        "ate_max_m": absolute.maximum,
        "rpe_m": step.rmse_m,
        "rpe_deg": float(np.degrees(step.rmse_rad)),
        "rpe_1s_m": errors.per_second.rmse_m if errors.per_second else None,
        "rpe_1s_deg": float(np.degrees(errors.per_second.rmse_rad)) if errors.per_second else None,
        "drift_per_metre": errors.drift_per_metre,
        "times_lost": len(errors.losses.lost_at),
        "first_lost_s": errors.losses.lost_at[0] if errors.losses.lost_at else None,
        "longest_recovery_s": max(errors.losses.recovered_after, default=None),
        "trajectory_protocol": f"{absolute.protocol} alignment, RMSE, {absolute.matched} poses; RPE over {step.step}",
    }


def surface_figures(scores: SurfaceScores) -> dict[str, Any]:
    """accuracy_m and so on; thresholds are named in centimetres."""
    found: dict[str, Any] = {
        "accuracy_m": scores.accuracy_m,
        "accuracy_median_m": scores.accuracy_median_m,
        "completeness_m": scores.completeness_m,
        "completeness_median_m": scores.completeness_median_m,
    }
    for k, threshold in enumerate(scores.thresholds_m):
        for name in ("precision", "recall", "fscore"):
            found[f"{name}_{round(100 * threshold)}cm"] = getattr(scores, name)[k]
    return found | {"surface_points": scores.points, "surface_protocol": scores.protocol}


def filling_figures(unfilled: SurfaceScores, filled: SurfaceScores) -> dict[str, Any]:
    """completeness_unfilled_m and so on: of a map without the surfels that fill the sensor's holes, and of those."""
    return {
        "completeness_unfilled_m": unfilled.completeness_m,
        "recall_5cm_unfilled": unfilled.at(0.05)[1],
        "accuracy_filled_m": filled.accuracy_m,
        "precision_5cm_filled": filled.at(0.05)[0],
    }


def label_figures(labels: dict[int, MapLabelScores]) -> dict[str, Any]:
    """miou_13_single, miou_13_map and so on, by the number of classes; None where there is nothing to compare."""
    found: dict[str, Any] = {f"miou_{count}_{name}": None for count in labels or (13,) for name in ("single", "map")}
    for count, scores in labels.items():
        for name in ("single", "map", "single_covered", "map_covered", "surfels"):
            matrix = getattr(scores, name)
            if matrix.counts.sum() == 0:
                continue
            figures = matrix.scores()
            found[f"miou_{count}_{name}"] = figures.miou
            found[f"pixel_accuracy_{count}_{name}"] = figures.pixel_accuracy
            found[f"class_accuracy_{count}_{name}"] = figures.class_accuracy
        for name in ("single", "map"):
            calibration = getattr(scores, f"{name}_calibration").scores()
            if calibration.pixels.sum():
                found[f"ece_{count}_{name}"] = calibration.ece
        found[f"label_protocol_{count}"] = scores.protocol
    return found


def class_counts(names: Iterable[str]) -> list[int]:
    """The numbers of classes that figures of these names were made for, from the least."""
    return sorted({int(found[1]) for name in names if (found := re.match(r"miou_(\d+)_", name))})


def table(figures: dict[str, Any]) -> str:
    """The figures as lines for people: groups, units, protocols."""
    counts = class_counts(figures)
    rows: list[tuple[str, str, float, str]] = [
        ("trajectory", "ate_se3_m", 1000, "mm"), ("trajectory", "ate_sim3_m", 1000, "mm"),
        ("trajectory", "trajectory_scale", 1, ""), ("trajectory", "scale_error", 100, "%"),
        ("trajectory", "rpe_m", 1000, "mm"), ("trajectory", "rpe_deg", 1, "deg"),
        ("trajectory", "rpe_1s_m", 1000, "mm"), ("trajectory", "rpe_1s_deg", 1, "deg"),
        ("trajectory", "drift_per_metre", 100, "% of the way"), ("trajectory", "coverage", 100, "%"),
        ("trajectory", "times_lost", 1, ""), ("trajectory", "first_lost_s", 1, "s"),
        ("trajectory", "longest_recovery_s", 1, "s"),
        ("surface", "accuracy_m", 100, "cm"), ("surface", "accuracy_median_m", 100, "cm"),
        ("surface", "completeness_m", 100, "cm"), ("surface", "completeness_median_m", 100, "cm"),
        *(("surface", f"{name}_{t}cm", 100, "%") for t in (2, 5, 10) for name in ("precision", "recall", "fscore")),
        ("surface", "completeness_unfilled_m", 100, "cm"), ("surface", "recall_5cm_unfilled", 100, "%"),
        ("surface", "accuracy_filled_m", 100, "cm"), ("surface", "precision_5cm_filled", 100, "%"),
        ("surface", "layered", 100, "%"),
        *(("labels", f"{f}_{c}_{v}", 100, "%") for c in counts
          for v in ("single", "map", "single_covered", "map_covered", "surfels")
          for f in ("miou", "pixel_accuracy", "class_accuracy")),
        *(("labels", f"ece_{c}_{v}", 100, "%") for c in counts for v in ("single", "map")),
        ("frames held out", "held_out_depth_median_m", 100, "cm"), ("frames held out", "held_out_coverage", 100, "%"),
    ]  # fmt: skip
    protocols = {"trajectory": "trajectory_protocol", "surface": "surface_protocol"}
    protocols |= {"labels": f"label_protocol_{counts[0]}"} if counts else {}  # they differ in no word
    names = {"ate_se3_m": "ate, SE(3)", "ate_sim3_m": "ate, Sim(3)", "trajectory_scale": "true / estimated scale",
             "scale_error": "estimate too large by", "drift_per_metre": "drift over stretches of 1 m",
             "rpe_m": "rpe", "rpe_1s_m": "rpe over 1 s", "rpe_1s_deg": "rpe over 1 s", "first_lost_s": "first lost at",
             "longest_recovery_s": "longest recovery"}  # fmt: skip
    lines: list[str] = []
    shown = ""
    for group, name, factor, unit in rows:
        value = figures.get(name)
        if value is None or not np.isfinite(value):
            continue
        if group != shown:
            shown = group
            protocol = figures.get(protocols.get(group, ""))
            lines.append(f"{group} ({protocol})" if protocol else group)
        label = names.get(name, name.removesuffix("_m").removesuffix("_deg").replace("_", " "))
        text = f"{value:10d}   " if isinstance(value, int) else f"{value * factor:13.2f}"
        lines.append(f"  {label:<31}{text} {unit}".rstrip())
        if name == "ate_se3_m" and figures.get("sim3_degenerate"):
            lines.append(f"  no alignment by Sim(3): {figures['sim3_degenerate']}")
    return "\n".join(lines)
