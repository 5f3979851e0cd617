"""How well a map predicts the sensor's depth in frames that it was not made from."""

from __future__ import annotations

import numpy as np

from semslam.rendering.splatting import render_in_parts
from semslam.runs.poses import ListedPoses
from semslam.runs.run import Run


def judged_by_held_out(run: Run) -> dict[str, float]:
    """The median error of the map's depth in the frames held out, in metres, and the share of depth that it covers.

    A held-out frame is seen from its own pose where all were given, as the run uses them: in the map's world, and
    corrected where the images ask for that; else from the pose between its neighbours'.
    """
    clouds, trajectory = run.clouds(), run.progress.trajectory().selected(run.progress.tracked)
    listed = run.slam.track.T_world_camera if isinstance(run.slam.track, ListedPoses) else None
    errors, valid = [], 0
    for index in run.progress.held_out:
        T = trajectory.at(run.sequence.timestamps[index]) if listed is None else listed[index]
        frame = run.frames.try_read(index)
        if T is None or frame is None or frame.depth is None:
            continue
        predicted = render_in_parts(clouds, frame.camera, T, cull_back=False).depth
        near, far = run.slam.fusion.config.range
        measured = (frame.depth > near) & (frame.depth < far)
        seen = measured & np.isfinite(predicted)
        errors.append(np.abs(predicted - frame.depth)[seen])
        valid += int(measured.sum())
    pooled = np.concatenate(errors) if errors else np.zeros(0)
    return {
        "held_out_depth_median_m": float(np.median(pooled)) if len(pooled) else float("nan"),
        "held_out_coverage": len(pooled) / valid if valid else float("nan"),
    }
