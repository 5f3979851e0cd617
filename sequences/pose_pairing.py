"""Which frame, or which other pose, each pose of a file belongs to: by time, by frame number, or by line.

A file with times is paired by time, and poses between two of them are interpolated. A file that carries frame numbers
(Open3D's .log, a folder of poses) is paired by these. A file that carries neither (KITTI, Replica) is one line a frame:
where the counts disagree nothing is guessed, and the message says what would settle it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.files.reading import text_of
from semslam.trajectory import Trajectory
from sequences.clock import UNIT_NAMES, since_1970, unit_that_meets

logger = logging.getLogger(__name__)

USUAL_GAP = 0.1  # seconds; between poses further apart the camera may have been anywhere, unless poses are rarer
LONGEST_GAP = 0.5  # seconds; poses rarer than that are not interpolated
NO_POSE = "frames have no pose"  # in notes: how many, and why
SAME_CLOCK = 5e-3  # seconds; what a frame and a pose may lie apart where none can be interpolated
ROUNDING = 1e-3  # seconds; what the ends of a trajectory may lie off the frames, written with fewer digits


class FramePoses(NamedTuple):
    """The poses of a recording's frames."""

    T_world_camera: tuple[np.ndarray | None, ...]  # (4, 4) a frame, None where it has none
    notes: tuple[str, ...]  # how they were found and what was left out, for people
    interpolated: int = 0  # how many lie between two of the file's


class Frames(NamedTuple):
    """The frames that poses are looked for."""

    timestamps: np.ndarray  # (N,) seconds
    names: Sequence[str]  # of their images
    taken: np.ndarray | None = None  # (K,) numbers of those that are used, which notes are about; None = all


class PoseHints(NamedTuple):
    """What a person says about a file of poses that carries no times."""

    rate: float | None = None  # poses per second, the first at the first frame
    indices: str | None = None  # the frame of each pose: START:STOP:STEP, or a file with one number a line

    @classmethod
    def given(cls, rate: float | None, indices: str | None) -> PoseHints | None:
        """The hints of two options; None where neither was given."""
        return None if rate is None and indices is None else cls(rate, indices)

    def checked(self) -> PoseHints:
        """These hints; ValueError where they contradict each other or make no sense."""
        if self.rate is not None and self.indices is not None:
            raise ValueError("--pose-rate and --pose-indices both say which frame a pose is of; give one of them")
        if self.rate is not None and not 0 < self.rate < np.inf:
            raise ValueError(f"--pose-rate is {self.rate}, expected a positive number of poses per second")
        return self

    def frames_of(self, count: int, frames: int) -> tuple[np.ndarray, str]:
        """(count,) int64 frame indices of the poses, and what was left out; ValueError where they are not as many, or
        outside 0..frames-1."""
        assert self.indices is not None
        note = ""
        if re.fullmatch(r"-?\d*:-?\d*(:-?\d*)?", self.indices):
            parts = [int(part) if part else None for part in self.indices.split(":")]
            if parts[2:] == [0]:
                raise ValueError(f"--pose-indices {self.indices}: the step is 0, expected at least 1")
            found = np.arange(frames)[slice(*parts)]
            if len(found) > count:
                note = (
                    f"--pose-indices {self.indices}: names {len(found)} frames for {count} poses; the last "
                    f"{len(found) - count} frames have none"
                )
                found = found[:count]
        else:
            try:
                words = text_of(self.indices).split()
                found = np.array([int(word) for word in words], np.int64)
            except (ValueError, OSError, OverflowError):
                raise ValueError(
                    f"--pose-indices {self.indices}: neither START:STOP:STEP nor a file of one frame number a line"
                ) from None
        if len(found) != count:
            raise ValueError(f"--pose-indices {self.indices}: names {len(found)} frames for {count} poses")
        if len(found) and not 0 <= found.min() <= found.max() < frames:
            raise ValueError(
                f"--pose-indices {self.indices}: frames {found.min()} to {found.max()}, there are 0..{frames - 1}"
            )
        if len(np.unique(found)) < len(found):
            raise ValueError(f"--pose-indices {self.indices}: names a frame twice; one frame has one pose")
        return found, note


NO_HINTS = PoseHints()


def poses_of_frames(
    trajectory: Trajectory,
    source: str | Path,
    frames: Frames,
    hints: PoseHints = NO_HINTS,
) -> FramePoses:
    """The pose of each frame; ValueError where file and frames do not fit each other, with what would make them fit."""
    hints, count = hints.checked(), len(frames.timestamps)
    if hints.indices is not None:
        total = trajectory.lines or len(trajectory)
        of_pose, left_out = hints.frames_of(total, count)
        places = trajectory.timestamps.astype(np.int64) if trajectory.clock == "lines" else np.arange(len(trajectory))
        note = f"{source}: poses belong to the frames that --pose-indices names"
        found = _placed(trajectory, of_pose[places], count, note)
        return found._replace(notes=(*found.notes, left_out)) if left_out else found
    if trajectory.clock == "seconds":
        if hints.rate is not None:
            raise ValueError(f"{source}: its poses carry times; leave --pose-rate {hints.rate:g} out")
        if (unit := since_1970(trajectory.timestamps)) is not None:  # which may be ms, us or ns
            trajectory = replace(trajectory, timestamps=trajectory.timestamps / unit)
        if _counts_frames(trajectory, frames.timestamps):
            return _by_number(replace(trajectory, clock="numbers"), source, frames)
        unit = unit_that_meets(trajectory.timestamps, frames.timestamps)
        found = poses_at(
            replace(trajectory, timestamps=trajectory.timestamps / unit), source, frames.timestamps, frames.taken
        )
        note = f"{source}: its times count {UNIT_NAMES[unit]} to the frames' seconds, and are read so"
        return found if unit == 1 else found._replace(notes=(note, *found.notes))
    if hints.rate is not None:
        times = frames.timestamps[0] + trajectory.timestamps / hints.rate
        return poses_at(Trajectory(times, trajectory.T_world_camera), source, frames.timestamps, frames.taken)
    if trajectory.clock == "numbers":
        return _by_number(trajectory, source, frames)
    if trajectory.lines != count:
        raise ValueError(
            f"{source}: {trajectory.lines} poses for {count} frames, and neither times nor frame numbers in the file; "
            f"say how many poses per second there are (--pose-rate R), or which frame each is of (--pose-indices "
            f"START:STOP:STEP or FILE)"
        )
    places = trajectory.timestamps.astype(np.int64)
    taken = np.arange(count) if frames.taken is None else frames.taken
    missing = int((~np.isin(taken, places)).sum())
    note = f"{source}: {missing} of {len(taken)} {NO_POSE} (NaN)" if missing else ""
    return _placed(trajectory, places, count, note)


def poses_at(
    trajectory: Trajectory, source: str | Path, timestamps: np.ndarray, taken: np.ndarray | None = None
) -> FramePoses:
    """The poses at times (N,), interpolated within gaps of `usual_gap`; ValueError where there is none at all.

    taken: (K,) numbers of the frames that are used, in increasing order; others have no pose. None = all.
    """
    gap = usual_gap(trajectory)
    every = timestamps
    timestamps = every if taken is None else every[taken]
    found: list[np.ndarray | None] = [None] * len(every)
    interpolated, outside, apart, longest = 0, 0, 0, 0.0
    for number, time in zip(range(len(every)) if taken is None else taken, timestamps):
        T, between = _pose_at(trajectory, float(time), gap)
        found[int(number)] = T
        if T is not None and between is not None:
            interpolated, longest = interpolated + 1, max(longest, between)
        elif T is None and between is None:
            outside += 1
        elif T is None:
            apart += 1
    if outside + apart == len(timestamps):
        raise ValueError(
            f"{source}: its times {trajectory.timestamps[0]:.3f} to {trajectory.timestamps[-1]:.3f} s meet none of the "
            f"frames' {timestamps.min():.3f} to {timestamps.max():.3f} s; both must count from one clock, or say which "
            f"frame each pose is of (--pose-indices START:STOP:STEP or FILE)"
        )
    notes = []
    if interpolated and len(trajectory) > 1 and np.median(np.diff(trajectory.timestamps)) > _interval(timestamps) * 1.2:
        notes.append(
            f"{source}: poses of {interpolated} of {len(timestamps)} frames are interpolated, between poses up to "
            f"{longest:.3f} s apart"
        )
    if outside + apart:
        reasons = [f"{outside} before its first or after its last pose"] * bool(outside)
        reasons += [f"{apart} where its poses are more than {gap:.3g} s apart"] * bool(apart)
        notes.append(f"{source}: {outside + apart} of {len(timestamps)} {NO_POSE}: {', '.join(reasons)}")
    return FramePoses(tuple(found), tuple(notes), interpolated)


def usual_gap(trajectory: Trajectory) -> float:
    """Seconds within which poses are interpolated: half as much again as from one to the next, but 0.1 to 0.5."""
    usual = float(np.median(np.diff(trajectory.timestamps))) if len(trajectory) > 1 else 0.0
    return float(np.clip(1.5 * usual, USUAL_GAP, LONGEST_GAP)) + 1e-9


def on_one_clock(
    estimate: Trajectory,
    reference: Trajectory,
    hints: PoseHints = NO_HINTS,
) -> tuple[Trajectory, Trajectory]:
    """Two trajectories whose timestamps mean the same; ValueError where nothing says how they belong together.

    The hints are about the one without times: with `rate` its first pose is at the other's first, with `indices` each
    pose is that of the other's.
    """
    hints = hints.checked()
    if estimate.clock == reference.clock:
        if estimate.clock == "lines" and estimate.lines != reference.lines:
            if hints.indices is None:
                raise ValueError(_unpaired(estimate, reference))
            return _renumbered(estimate, hints, reference), reference
        if estimate.clock == "lines" and hints.rate is not None:
            return _timed(estimate, hints.rate), _timed(reference, hints.rate)
        if hints != NO_HINTS:
            both = {"seconds": "times", "numbers": "frame numbers", "lines": "as many poses"}[estimate.clock]
            given = "--pose-indices" if hints.rate is None else "--pose-rate"
            raise ValueError(f"both trajectories carry {both}, by which they are paired; leave {given} out")
        return _in_one_unit(estimate, reference) if estimate.clock == "seconds" else (estimate, reference)
    if reference.clock != "seconds" and estimate.clock == "seconds":
        reference, estimate = on_one_clock(reference, estimate, hints)
        return estimate, reference
    if hints.indices is not None:
        return _renumbered(estimate, hints, reference), reference
    if reference.clock == "seconds" and hints.rate is not None:
        return _timed(estimate, hints.rate, reference.timestamps[0]), reference
    count = reference.lines or len(reference)
    if (estimate.lines or int(estimate.timestamps[-1]) + 1) != count:
        raise ValueError(_unpaired(estimate, reference))
    if reference.clock != "seconds":
        return replace(estimate, clock=reference.clock), reference
    places = estimate.timestamps.astype(np.int64)
    return replace(estimate, timestamps=reference.timestamps[places], clock="seconds"), reference


def _in_one_unit(estimate: Trajectory, reference: Trajectory) -> tuple[Trajectory, Trajectory]:
    """Two trajectories with times in seconds, where one's times count another unit; a line says so."""
    both = []
    for name, ours, theirs in (("estimate", estimate, reference), ("reference", reference, estimate)):
        unit = since_1970(ours.timestamps) or unit_that_meets(
            ours.timestamps, theirs.timestamps / (since_1970(theirs.timestamps) or 1.0)
        )
        if unit != 1.0:
            logger.warning("the times of the %s count %s, and are read so", name, UNIT_NAMES[unit])
        both.append(replace(ours, timestamps=ours.timestamps / unit) if unit != 1.0 else ours)
    return both[0], both[1]


def _timed(trajectory: Trajectory, rate: float, start: float = 0.0) -> Trajectory:
    """The trajectory with times: frame 0 at `start` seconds, `rate` frames per second."""
    return Trajectory(start + trajectory.timestamps / rate, trajectory.T_world_camera)


def _unpaired(estimate: Trajectory, reference: Trajectory) -> str:
    counts = [t.lines or len(t) for t in (estimate, reference)]
    kinds = {"seconds": "times", "numbers": "frame numbers", "lines": "one pose a line"}
    return (
        f"a trajectory of {counts[0]} poses ({kinds[estimate.clock]}) and a reference of {counts[1]} "
        f"({kinds[reference.clock]}) cannot be paired; say how many poses per second the one without times has "
        f"(--pose-rate R), or which of the other's each pose is (--pose-indices START:STOP:STEP or FILE)"
    )


def _renumbered(trajectory: Trajectory, hints: PoseHints, other: Trajectory) -> Trajectory:
    """The trajectory on the other's clock, by the indices that the hints give."""
    total = trajectory.lines or len(trajectory)
    of_pose, left_out = hints.frames_of(total, other.lines or len(other))
    if left_out:
        logger.warning("%s", left_out)
    places = trajectory.timestamps.astype(np.int64) if trajectory.clock == "lines" else np.arange(len(trajectory))
    clock = other.timestamps if other.clock != "lines" else np.arange(other.lines or len(other), dtype=np.float64)
    order = np.argsort(of_pose[places])
    return Trajectory(clock[of_pose[places][order]], trajectory.T_world_camera[order], other.clock, other.lines)


def _pose_at(trajectory: Trajectory, time: float, gap: float) -> tuple[np.ndarray | None, float | None]:
    """The pose at a time, and the seconds between those that it lies between: None where it is one, or outside."""
    times = trajectory.timestamps
    after = int(np.searchsorted(times, time))
    nearest = min((i for i in (after - 1, after) if 0 <= i < len(times)), key=lambda i: abs(times[i] - time))
    rounding = ROUNDING if after in (0, len(times)) else 1e-2 * ROUNDING
    if abs(times[nearest] - time) <= rounding:
        return trajectory.T_world_camera[nearest].copy(), None
    if after in (0, len(times)):
        return None, None
    between = float(times[after] - times[after - 1])
    if between > gap:  # only the pose of this very moment, as far as clocks tell, is the frame's
        near = abs(times[nearest] - time) <= SAME_CLOCK
        return (trajectory.T_world_camera[nearest].copy(), None) if near else (None, between)
    fraction = float((time - times[after - 1]) / between)
    before = trajectory.T_world_camera[after - 1]
    return poses.interpolate(before, trajectory.T_world_camera[after], fraction), between


def _interval(timestamps: np.ndarray) -> float:
    return float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else np.inf


def _counts_frames(trajectory: Trajectory, timestamps: np.ndarray) -> bool:
    """Whether the times of a TUM file are frame numbers, as ICL-NUIM's .gt.freiburg and lists of keyframes have them.

    They are, where all are whole, none exceeds the number of frames, and most are no times of the recording.
    """
    times = trajectory.timestamps
    if len(times) < 3 or np.any(times != np.rint(times)) or times[0] < 0 or times[-1] > len(timestamps):
        return False
    return bool(np.mean((times >= timestamps.min()) & (times <= timestamps.max())) < 0.5)


def _by_number(trajectory: Trajectory, source: str | Path, frames: Frames) -> FramePoses:
    """Poses with frame numbers: those in the images' names or, where that fits more poses, frames counted from 0."""
    count = len(frames.timestamps)
    wanted = trajectory.timestamps.astype(np.int64)
    readings = [*numbers_of_names(frames.names), np.arange(count)]
    numbers = max(readings, key=lambda numbers: np.isin(wanted, numbers).sum())  # of the same, the first
    place_of = {int(number): place for place, number in enumerate(numbers)}
    places = [place_of.get(int(number)) for number in wanted]
    found = [place for place in places if place is not None]
    if len(found) <= 0.5 * min(len(wanted), count):
        raise ValueError(
            f"{source}: its poses are of frames {wanted[0]} to {wanted[-1]}, which fit neither the names of the "
            f"{count} images ({frames.names[0]} ... {frames.names[-1]}) nor their count; say which frame each pose is "
            f"of (--pose-indices START:STOP:STEP or FILE)"
        )
    T_of_frame: list[np.ndarray | None] = [None] * count
    for place, T in zip(places, trajectory.T_world_camera):
        if place is not None:
            T_of_frame[place] = T
    notes = []
    if len(found) < len(wanted):
        notes.append(f"{source}: {len(wanted) - len(found)} of its {len(wanted)} poses are of no frame that is there")
    taken = np.arange(count) if frames.taken is None else frames.taken
    if missing := sum(T_of_frame[int(number)] is None for number in taken):
        notes.append(f"{source}: {missing} of {len(taken)} {NO_POSE}")
    return FramePoses(tuple(T_of_frame), tuple(notes))


def numbers_of_names(names: Sequence[str]) -> list[np.ndarray]:
    """For each group of digits that all names have, its numbers (N,) int64, where they differ from name to name."""
    groups = [re.findall(r"[0-9]+", Path(name).stem) for name in names]
    if not groups or len({len(group) for group in groups}) != 1:
        return []
    columns = [np.array([int(group[k]) for group in groups], object) for k in range(len(groups[0]))]
    return [c.astype(np.int64) for c in columns if len(set(c)) == len(c) and max(c) < 2**62]


def _placed(trajectory: Trajectory, places: np.ndarray, count: int, note: str) -> FramePoses:
    T_of_frame: list[np.ndarray | None] = [None] * count
    for place, T in zip(places, trajectory.T_world_camera):
        T_of_frame[int(place)] = T
    return FramePoses(tuple(T_of_frame), (note,) if note else ())
