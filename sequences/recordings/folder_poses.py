"""Times and poses of a plain folder's frames: which line of its groundtruth.txt, or another file, is of which frame."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam.trajectory import Trajectory, associate
from semslam.trajectory.files import detect_kind, read_trajectory, read_tum_lines
from sequences.clock import read_as_seconds
from sequences.files import check_unpacked
from sequences.pairing import times_of_names
from sequences.pose_pairing import NO_HINTS, NO_POSE, Frames, PoseHints, numbers_of_names, poses_at, poses_of_frames

OTHER_POSES = ("trajectory.log", "traj.txt", "poses.txt", "pose", "poses")  # where there is no groundtruth.txt
# What nerfstudio and COLMAP put beside images, and nothing here reads: their worlds have no scale
NOT_READ = ("transforms.json", "images.txt", "images.bin", "sparse", "colmap")
FPS = 30.0  # where neither poses nor names nor camera.yaml tell the time
TOGETHER = 10  # steps of poses whose time tells their rate
OTHER_TIMES = 0.1  # share: a rate of poses that differs by more from that of their times contradicts these
LIKE_LONG = 0.02  # of the frames' duration, by which that of timed poses may differ that are of the same recording
WRITTEN = 1e-3  # seconds, by which times of files are rounded
MOST_LACKING = 8  # numbers per frame: names that leave out more do not count frames
OTHER_RATE = 1.2  # times as many poses as frames: fewer are of the same rate, and some frames are missing


class Posed(NamedTuple):
    """Frames in time and space."""

    timestamps: np.ndarray  # (N,) seconds
    T_world_camera: tuple[np.ndarray | None, ...] | None
    notes: tuple[str, ...] = ()


def timed_and_posed(folder: Path, names: list[str], fps: float | None, hints: PoseHints) -> Posed:
    """Times and poses of the frames of these names.

    Times are those of groundtruth.txt where that has a line a frame, else those that the names are, else counted by the
    frames' numbers, so that frames that lack leave a gap.
    """
    path, times, numbers = folder / "groundtruth.txt", times_of_names(names), _numbers(names)
    counted = times if times is not None else numbers / (fps or FPS)
    frames = Frames(counted, names)
    check_unpacked(path)
    if not os.path.lexists(path):  # what is there and no file is told when it is read
        log = next((folder / name for name in OTHER_POSES if (folder / name).exists()), None)
        return _unposed(folder, counted) if log is None else _paired(read_trajectory(log), log, frames, hints)
    if detect_kind(path) != "tum":
        return _paired(read_trajectory(path), path, frames, hints)
    lines = _Lines.of(path)
    apart = times is None or times.max() < lines.seconds.min() or times.min() > lines.seconds.max()
    if len(lines) == len(names) and apart and hints == NO_HINTS:
        return _line_by_line(lines)
    trajectory = lines.at(lines.ticks)
    if times is None and hints == NO_HINTS:
        return _without_times(lines, _Counted(numbers, counted, fps))
    if hints.rate is not None:
        if (own := lines.rate) is not None and abs(own / hints.rate - 1) > OTHER_TIMES:
            raise ValueError(f"{path}: its poses carry times, {own:.3g} a second; leave --pose-rate {hints.rate:g} out")
        trajectory = Trajectory(np.array(lines.there, np.float64), trajectory.T_world_camera, "lines", len(lines))
    return _paired(trajectory, path, frames, hints)


def _unposed(folder: Path, counted: np.ndarray) -> Posed:
    """Frames at times (N,) without poses; what may hold them and is not read is named."""
    others = [name for name in NOT_READ if (folder / name).exists()]
    unread = "its poses, if it has any, are not read; write them into groundtruth.txt (TUM lines)"
    return Posed(counted, None, tuple(f"{folder / name}: {unread}" for name in others))


def _paired(trajectory: Trajectory, path: Path, frames: Frames, hints: PoseHints) -> Posed:
    """Poses found by what file, frames and hints say of each other's times."""
    found = poses_of_frames(trajectory, path, frames, hints)
    return Posed(frames.timestamps, found.T_world_camera, found.notes)


@dataclass(frozen=True, eq=False)
class _Lines:
    """The lines of a groundtruth.txt."""

    path: Path
    ticks: np.ndarray  # (M,) times as written
    seconds: np.ndarray  # (M,) the same in seconds
    poses: list[np.ndarray | None]  # (M,) T_world_camera (4, 4)
    notes: tuple[str, ...]  # on the unit of the times

    @classmethod
    def of(cls, path: Path) -> _Lines:
        """Those of a file."""
        ticks, poses = read_tum_lines(path)
        seconds, notes = read_as_seconds(ticks, path)
        return cls(path, ticks, seconds, poses, notes)

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def rate(self) -> float | None:
        """Poses a second by their times; None where they have none, but equal ones or the numbers of frames."""
        times = self.ticks[self.there]
        if len(times) < 2 or (np.diff(times) <= 0).any() or (times == np.round(times)).all():
            return None
        seconds = self.seconds[self.there]
        apart = min(TOGETHER, len(seconds) - 1)  # times of two decimals are rounded by a sixth of a frame
        return apart / float(np.median(seconds[apart:] - seconds[:-apart]))

    @property
    def there(self) -> list[int]:
        """The numbers of the lines that hold a pose."""
        return [i for i, T in enumerate(self.poses) if T is not None]

    def at(self, times: np.ndarray) -> Trajectory:
        """The poses that are there; times: (M,) of the lines."""
        return Trajectory(times[self.there], np.array([self.poses[i] for i in self.there]))


def _line_by_line(lines: _Lines) -> Posed:
    """A line a frame, whose time is the frame's too."""
    lacking = len(lines) - len(lines.there)
    note = f"{lines.path}: {lacking} of {len(lines)} {NO_POSE} (lines of NaN, inf or a quaternion of zeros)"
    return Posed(lines.seconds, tuple(lines.poses), lines.notes + ((note,) if lacking else ()))


class _Counted(NamedTuple):
    """Frames that carry no times."""

    numbers: np.ndarray  # (N,) from the first one's on
    seconds: np.ndarray  # (N,) at the rate
    fps: float | None  # frames a second; None = FPS, which is assumed

    @property
    def rate(self) -> str:
        """The rate for people."""
        return f"{self.fps or FPS:g} frames a second{'' if self.fps else ', which is assumed'}"


def _without_times(lines: _Lines, frames: _Counted) -> Posed:
    """Frames that carry no times with another number of lines: the first way that fits; ValueError where none does."""
    for way in (_of_some_frames, _of_another_rate, _of_lacking_frames):
        if (found := way(lines, frames)) is not None:
            return found
    raise ValueError(
        f"{lines.path}: {len(lines)} pose lines, but {len(frames.numbers)} frames in color/ and depth/; every frame "
        f"needs one line in order (nan for a frame without a pose), or say which frame each line is of (--pose-indices "
        f"START:STOP:STEP or FILE) or how many there are per second (--pose-rate R)"
    )


def _of_some_frames(lines: _Lines, frames: _Counted) -> Posed | None:
    """Lines of some of the frames, as keyframes have them, from the first frame's time 0."""
    if not _of_these_moments(lines.seconds[lines.there], frames.seconds):
        return None
    found = poses_at(lines.at(lines.seconds), lines.path, frames.seconds)
    told = (
        f"{lines.path}: {len(lines.there)} of the {len(frames.numbers)} frames have a pose of their own; they are "
        f"paired by time, at {frames.rate}"
    )
    return Posed(frames.seconds, found.T_world_camera, (*lines.notes, told, *found.notes))


def _of_another_rate(lines: _Lines, frames: _Counted) -> Posed | None:
    """Far more lines than frames, which last as long: both began at once, by one clock."""
    seconds, lasting, count = np.ptp(lines.seconds), np.ptp(frames.seconds), len(frames.numbers)
    if not len(lines) > OTHER_RATE * count > 1 or abs(seconds - lasting) > LIKE_LONG * lasting:
        return None
    found = poses_at(lines.at(lines.seconds - lines.seconds[0]), lines.path, frames.seconds)
    told = (
        f"{lines.path}: {len(lines)} pose lines for {count} frames, and both last {seconds:.1f} s: the frames are "
        f"paired with them by time, at {frames.rate}"
    )
    return Posed(frames.seconds + lines.seconds[0], found.T_world_camera, (*lines.notes, told, *found.notes))


def _of_lacking_frames(lines: _Lines, frames: _Counted) -> Posed | None:
    """A line for every number up to the last frame's, also for those of which there is no image."""
    count, numbers = len(frames.numbers), frames.numbers
    if not count < len(lines) == numbers[-1] + 1:
        return None
    told = f"{lines.path}: {len(lines)} pose lines for {count} frames, which are paired by the frames' numbers"
    return Posed(lines.seconds[numbers], tuple(lines.poses[i] for i in numbers), (*lines.notes, told))


def _numbers(names: list[str]) -> np.ndarray:
    """(N,) the frames' numbers from the first one's on, where the names count them; else their places.

    They are counted in the largest step that fits all of them: every tenth frame is one of a tenth of the rate.
    """
    for numbers in numbers_of_names([f"{name}.x" for name in names])[:1]:
        steps = np.diff(numbers)
        if len(steps) and steps.min() > 0:
            counted = (numbers - numbers[0]) // np.gcd.reduce(steps)
            if counted[-1] < MOST_LACKING * len(names):
                return counted
    return np.arange(len(names))


def _of_these_moments(times: np.ndarray, counted: np.ndarray) -> bool:
    """Whether poses' times (N,), fewer than frames, are all those of some frames (M,); seconds."""
    return 1 < len(times) < len(counted) and len(associate(counted, np.sort(times), WRITTEN)[0]) == len(times)
