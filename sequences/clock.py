"""Times of recordings: whatever their clocks count, seconds come out."""

from __future__ import annotations

import numpy as np

UNITS = {1.0: "s", 1e3: "ms", 1e6: "us", 1e9: "ns"}  # ticks a second
UNIT_NAMES = {1.0: "seconds", 1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
LONGEST_STEP = 4.0  # seconds between frames; slower than that nobody records
IN_TIME = 0.02  # seconds between a frame and a pose, by which the unit of the poses' times is told
FEW_MET, MOST_MET = 0.1, 0.6  # of the frames: what meets more is in seconds; what another unit must meet
CAMERA_STEP = (7.5, 130.0)  # milliseconds between the frames of a camera, 8 to 130 a second


def ticks_a_second(ticks: np.ndarray) -> float:
    """1, 1e3, 1e6 or 1e9: in which unit the times (N,) of frames count, told from their size or their steps.

    Times since 1970 tell it by their digits; others by the median step between frames, which lies between 1/1000
    and 4 seconds. One time alone that is not since 1970 counts as seconds.
    """
    ticks = np.asarray(ticks, np.float64)
    if len(ticks) == 0:
        return 1.0
    if (unit := since_1970(ticks)) is not None:
        return unit
    steps = np.abs(np.diff(ticks))
    steps = steps[steps > 0]
    if len(steps) == 0:
        return 1.0
    step = float(np.median(steps))
    return next((unit for unit in UNITS if step <= LONGEST_STEP * unit), 1e9)


def since_1970(ticks: np.ndarray) -> float | None:
    """The same where the first time counts from 1970, of the years 1985 to 2128; None where it does not."""
    first = abs(float(ticks[0])) if len(ticks) else 0.0
    return next((unit for unit in UNITS if 5e8 * unit <= first < 5e9 * unit), None)


def camera_ticks_a_second(ticks: np.ndarray) -> float:
    """The same where it is beyond doubt, 1 elsewhere: photographs that somebody takes may be a minute apart.

    A camera's steps are regular: most are within a fifth of their median. Those of a time lapse are, too, in whole
    seconds; milliseconds are believed only at the rates of cameras and where steps are not all the same whole number.
    """
    ticks = np.asarray(ticks, np.float64)
    if since_1970(ticks) is not None:
        return ticks_a_second(ticks)
    steps = np.diff(ticks)
    if len(steps) < 3 or (steps <= 0).any():
        return 1.0
    usual = np.median(steps)
    if np.median(np.abs(steps - usual)) >= 0.2 * usual:
        return 1.0
    unit = ticks_a_second(ticks)
    a_lapse = (steps == usual).all() and usual == np.rint(usual)
    return 1.0 if unit == 1e3 and (a_lapse or not CAMERA_STEP[0] <= usual <= CAMERA_STEP[1]) else unit


def read_as_seconds(ticks: np.ndarray, source: object) -> tuple[np.ndarray, tuple[str, ...]]:
    """Times (N,) of a camera in seconds, and a note for people where they were written in another unit."""
    unit = camera_ticks_a_second(ticks)
    note = f"{source}: its times count {UNIT_NAMES[unit]}, and are read so"
    return np.asarray(ticks, np.float64) / unit, () if unit == 1 else (note,)


def seconds(ticks: np.ndarray) -> np.ndarray:
    """Times (N,) float64 in seconds."""
    return np.asarray(ticks, np.float64) / ticks_a_second(ticks)


def seconds_or_count(ticks: np.ndarray, fps: float) -> np.ndarray:
    """Times (N,) in seconds where they increase strictly; where a recorder left them empty, frames at `fps`."""
    ticks = np.asarray(ticks, np.float64)
    if len(ticks) > 1 and not np.all(np.diff(ticks) > 0):
        return np.arange(len(ticks)) / fps
    return seconds(ticks)


def unit_that_meets(times: np.ndarray, timestamps: np.ndarray) -> float:
    """1e3, 1e6 or 1e9 where times (N,) meet most frames' seconds (M,) in that unit and few as they are; else 1."""

    def met(unit: float) -> float:
        ticks = np.sort(times) / unit
        after = np.clip(np.searchsorted(ticks, timestamps), 1, len(ticks) - 1)
        away = np.minimum(np.abs(ticks[after - 1] - timestamps), np.abs(ticks[after] - timestamps))
        return float(np.mean(away < IN_TIME))

    if len(times) < 2 or met(1.0) > FEW_MET:
        return 1.0
    return next((unit for unit in list(UNITS)[1:] if met(unit) > MOST_MET), 1.0)
