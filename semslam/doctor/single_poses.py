"""Single poses that contradict the images, jumps of the whole world, and worlds far from the origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semslam import poses
from semslam.doctor import flow
from semslam.doctor.conventions import AS_RECORDED
from semslam.doctor.finding import Finding
from sequences import Sequence as Recording

OUTLIER = 8.0  # times the usual deviation from smooth motion
SUSPECTS = 12  # frames that are looked at
FAR = 1000.0  # metres from the origin; there float32 keeps tenths of a millimetre


def contradicted(recording: Recording) -> list[Finding]:
    """Frames whose pose leaves the smooth path, where the images do not: single wrong poses, and jumps.

    The poses alone name the suspects; points followed from frame to frame decide. Empty without poses or depth.
    """
    if not recording.has_poses or not recording.has_depth:
        return []
    notable = flow.notable(recording.camera)
    deviations = _deviations(recording)
    if not deviations:
        return []
    usual = max(float(np.median(list(deviations.values()))), 0.25 * notable)
    suspects = [i for i, d in deviations.items() if d > OUTLIER * usual and d > 4 * notable]
    suspects = sorted(suspects, key=lambda i: -deviations[i])[:SUSPECTS]
    wrong, jumps = set[int](), set[int]()
    for i in suspects:
        if {i - 1, i, i + 1} & wrong:
            continue
        before, after, across = (_misplaced(recording, a, b) for a, b in ((i - 1, i), (i, i + 1), (i - 1, i + 1)))
        if (before and after and across is False) or (before and after is None) or (after and before is None):
            wrong.add(i)
        elif after and before is False and _misplaced(recording, i + 1, i + 2) is False:
            jumps.add(i)
    found = []
    if wrong:
        what = f"the poses of {_frames(wrong)} do not fit the images, while those around do"
        found.append(Finding("error", what, "remove these poses (a line of nan), or correct them"))
    if jumps:
        what = f"the poses jump after {_frames(jumps)}, and the images do not"
        found.append(
            Finding("error", what, "the world changes there: cut the recording, or track it (--poses tracked)")
        )
    return found


def _frames(indices: set[int]) -> str:
    listed = ", ".join(map(str, sorted(indices)[:5])) + (", ..." if len(indices) > 5 else "")
    return f"frame {listed}" if len(indices) == 1 else f"{len(indices)} frames ({listed})"


def _misplaced(recording: Recording, a: int, b: int) -> bool | None:
    """Whether two frames' poses contradict the images between them; None where that cannot be told."""
    T_b_a = AS_RECORDED.motion(recording, a, b)
    if T_b_a is None:
        return None
    tracks = flow.followed(recording, [a, b])
    if tracks is None:
        return None
    return tracks.residual(recording.camera, T_b_a) > max(3 * flow.notable(recording.camera), 0.5 * tracks.flow)


def _deviations(recording: Recording) -> dict[int, float]:
    """For each frame with posed neighbours: pixels that its pose lies off the path between them, roughly."""
    posed = recording.poses or ()
    depth = _usual_depth(recording)
    found = {}
    for i in range(len(posed)):
        expected = _expected(recording, posed, i)
        if expected is None:
            continue
        T = poses.inverse(expected) @ posed[i]
        found[i] = recording.camera.fx * (float(np.linalg.norm(T[:3, 3])) / depth + poses.rotation_angle(T))
    return found


def _expected(recording: Recording, posed: Sequence[np.ndarray | None], i: int) -> np.ndarray | None:
    """The pose that a frame's neighbours let expect; None without a pose of its own or two around."""
    if posed[i] is None:
        return None
    around = (i - 1, i + 1) if 0 < i < len(posed) - 1 else ((1, 2) if i == 0 else (i - 2, i - 1))
    if min(around) < 0 or max(around) >= len(posed):
        return None
    a, b = (posed[k] for k in around)
    times = recording.timestamps
    if a is None or b is None or times[around[1]] <= times[around[0]]:
        return None
    fraction = (times[i] - times[around[0]]) / (times[around[1]] - times[around[0]])
    return poses.interpolate(a, b, float(fraction))


def _usual_depth(recording: Recording) -> float:
    frame = next((f for i in range(min(len(recording), 5)) if (f := recording.readable(i)) is not None), None)
    valid = np.zeros(0) if frame is None or frame.depth is None else frame.depth[frame.depth > 0]
    return float(np.median(valid)) if len(valid) else 2.0


def far_world(recording: Recording) -> list[Finding]:
    """Whether the camera is so far from the origin that single precision loses digits."""
    positions = [T[:3, 3] for T in recording.poses or () if T is not None]
    distance = float(np.abs(positions).max()) if positions else 0.0
    if distance <= FAR:
        return []
    kept = 1e3 * float(np.spacing(np.float32(distance)))
    what = f"the camera is up to {distance:.0f} m from the origin (map coordinates?)"
    remedy = f"single precision keeps {kept:.2g} mm there: other programs may need positions that start at the origin"
    return [Finding("hint", what, remedy)]
