"""How well a map predicts the sensor's depth in frames that it was not made from."""

from __future__ import annotations

import numpy as np

from semslam.rendering.splatting import render_in_parts
from semslam.runs.poses import ListedPoses
from semslam.runs.run import Run

MOST_APART = 4.5  # frames from the one before to the one after: between them one more may be lost


def judged_by_held_out(run: Run) -> dict[str, float]:
    """The median error of the map's depth in the frames held out, in metres, and the share of depth that it covers.

    A held-out frame is seen from its own pose where all were given, as the run uses them: in the map's world, and
    corrected where the images ask for that; else from the pose between its neighbours', unless these are far apart,
    because the camera was lost there: such frames, and those before the first pose and after the last, are left out and
    counted.
    """
    clouds, trajectory = run.clouds(), run.progress.trajectory().selected(run.progress.tracked)
    listed = run.slam.track.T_world_camera if isinstance(run.slam.track, ListedPoses) else None
    times = run.sequence.timestamps
    apart = MOST_APART * float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    errors, valid, unposed = _Errors(), 0, 0
    for index in run.progress.held_out:
        T = trajectory.at(times[index], apart) if listed is None else listed[index]
        frame = run.frames.try_read(index)
        unposed += T is None
        if T is None or frame is None or frame.depth is None:
            continue
        predicted = render_in_parts(clouds, frame.camera, T, cull_back=False).depth
        near, far = run.slam.fusion.config.range
        measured = (frame.depth > near) & (frame.depth < far)
        seen = measured & np.isfinite(predicted)
        errors.add(np.abs(predicted - frame.depth)[seen])
        valid += int(measured.sum())
    return {
        "held_out_depth_median_m": errors.median(),
        "held_out_coverage": errors.count / valid if valid else float("nan"),
        "held_out_unposed": unposed,
        "held_out_measured": valid,  # readings of depth
    }


class _Errors:
    """How often errors of each size came, to 0.1 % of themselves: 2 MB however many pixels there are.

    The upper bits of a single-precision number that is not negative, exponent and the first of the fraction, rise with
    it, and number the sizes.
    """

    LEFT_OUT = 13  # bits, the lowest ones

    def __init__(self) -> None:
        self._counts = np.zeros(1 << (31 - self.LEFT_OUT), np.int64)

    def add(self, errors: np.ndarray) -> None:
        """Count errors (N,), not negative."""
        bits = np.ascontiguousarray(errors, np.float32).view(np.uint32)
        self._counts += np.bincount(bits >> self.LEFT_OUT, minlength=len(self._counts))

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def median(self) -> float:
        """The middle of the sizes that the median error is of; NaN where there was none."""
        if self.count == 0:
            return float("nan")
        size = int(np.searchsorted(np.cumsum(self._counts), (self.count + 1) // 2))
        return float(np.uint32((size << self.LEFT_OUT) + (1 << (self.LEFT_OUT - 1))).view(np.float32))
