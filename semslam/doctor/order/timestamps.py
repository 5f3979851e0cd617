"""What is wrong with the times of frames: their order, their unit, their steps."""

from __future__ import annotations

import numpy as np

from semslam.doctor.finding import Finding
from sequences import Sequence

SHORTEST_STEP, LONGEST_STEP = 1 / 400, 1.0  # seconds between frames; depth cameras take 300 a second at most


def timestamps(sequence: Sequence) -> list[Finding]:
    """What is wrong with them; nothing for fewer than three."""
    times = sequence.timestamps
    if len(times) < 3:
        return []
    steps = np.diff(times)
    findings = []
    if (backwards := np.flatnonzero(steps < 0)).size:
        what = f"timestamps go backwards {backwards.size} times, first at frame {sequence.number_of(backwards[0] + 1)}"
        findings.append(Finding("error", what, "sort the frames by time"))
    if (same := np.flatnonzero(steps == 0)).size:
        what = (
            f"{same.size} frames have the timestamp of the frame before, first frame {sequence.number_of(same[0] + 1)}"
        )
        findings.append(Finding("error", what, "remove the duplicates or give each frame its own time"))
    if findings:
        return findings
    usual = float(np.median(steps))
    if usual > LONGEST_STEP or usual < SHORTEST_STEP:
        unit = "milliseconds" if usual < 1e3 else "microseconds" if usual < 1e6 else "nanoseconds"
        guess = f" (they look like {unit})" if usual > 5 else ""
        what = f"frames are {usual:.6g} s apart by their timestamps{guess}"
        remedy = "timestamps are in seconds, and fps (camera.yaml) in frames a second"
        return [Finding("error" if guess else "warning", what, remedy)]
    irregular = float((np.abs(steps - usual) > 0.5 * usual).mean())
    if irregular > 0.2:
        what = f"{irregular:.0%} of the frames come more than half a frame early or late"
        findings.append(Finding("hint", what, "frames were dropped, or colour and depth are badly synchronised"))
    return findings
