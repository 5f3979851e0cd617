"""Which depth a run uses: chosen from the recording where the settings leave it open, and how much of it that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from semslam.doctor.depth.readings import cut_off, cut_off_at
from semslam.doctor.finding import Finding
from semslam.engine.fusion import USUAL_RANGE, FusionConfig
from semslam.frame import evenly_spread
from sequences import CorruptFrame, Sequence
from sequences.selected import NearerSequence

FRAMES = 12  # that are looked at
ENOUGH = 0.8  # of the readings; where the usual range holds so many it is taken
BEFORE_END = 5e-4  # metres: half a unit of most depth files
LITTLE = 0.8  # of the readings; less than that is worth a line at the end of a run


def with_range(
    config: FusionConfig,
    sequence: Sequence,
    depth_of: Callable[[int], np.ndarray | None] | None = None,
    usual: tuple[float, float] = USUAL_RANGE,
    frames: int = FRAMES,
) -> FusionConfig:
    """The settings with `near` and `far`: as set, else the usual range, else what most of the readings need.

    Where depth is cut off, `far` ends before the reading that stands for all that lies farther.

    depth_of: depth (H, W) of a frame by its number, where it is not the recording's own; so many frames are asked for.
    """
    if config.near is not None and config.far is not None:
        return config
    near, far = usual
    if depth_of is None:
        depth_of = sequence.depth_of if sequence.has_depth else lambda _: None
    readings = _readings(depth_of, evenly_spread(range(len(sequence)), frames))
    end = sequence.cut_off or _end(readings)
    depth = np.concatenate(readings) if readings else np.zeros(0, np.float32)
    if end is not None:
        depth, far = depth[depth < end], min(far, end)
    if len(depth) and np.mean((depth >= near) & (depth <= far)) < ENOUGH:
        # a hand before the camera, in some frames, is nearer than what is mapped
        low = float(np.median([np.percentile(frame, 1) for frame in readings if len(frame)]))
        high = float(np.percentile(depth, 99))
        near, far = min(near, _rounded(0.8 * low)), max(far, _rounded(1.2 * high))
        if end is not None:
            far = min(far, end)
    near, far = near if config.near is None else config.near, far if config.far is None else config.far
    return replace(config, near=near, far=far)


def without_cut_off(sequence: Sequence) -> tuple[Sequence, list[Finding]]:
    """A recording, with no depth where a reading stands for all that lies farther; and the finding that says so."""
    if not sequence.has_depth:
        return sequence, []
    readings = _readings(sequence.depth_of, evenly_spread(range(len(sequence)), FRAMES))
    end = _end(readings)
    return (sequence, []) if end is None else (NearerSequence(sequence, end), cut_off(readings))


def _end(readings: list[np.ndarray]) -> float | None:
    """Metres just before the reading that stands for all that lies farther; None where none does."""
    end = cut_off_at(readings)
    return None if end is None else round(end - BEFORE_END, 4)


def usable_share(depth: np.ndarray, config: FusionConfig) -> tuple[int, int]:
    """How many readings of a depth image (H, W) in metres are in the range that is used, and how many there are.

    Every fourth pixel each way is looked at.
    """
    near, far = config.range
    thin = depth[::4, ::4]
    return int(np.count_nonzero((thin >= near) & (thin <= far))), int(np.count_nonzero(thin))


def _readings(depth_of: Callable[[int], np.ndarray | None], indices: Iterable[int]) -> list[np.ndarray]:
    """(N,) metres a frame: some of the readings of some frames."""
    found = []
    for index in indices:
        with suppress(CorruptFrame, OSError):
            depth = depth_of(index)
            if depth is not None:
                thin = depth[::8, ::8]
                found.append(thin[thin > 0])
    return found


def _rounded(metres: float) -> float:
    """To two digits, so that a settings file reads well."""
    return float(f"{metres:.2g}")
