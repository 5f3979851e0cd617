"""Whether the numbers in depth images are depth at all: that they show surfaces, in an order of bytes and in a unit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from semslam.doctor.depth.marks import mark
from semslam.doctor.finding import Finding
from semslam.doctor.guesses import USUAL_DEPTH, change_of_scale
from semslam.frame import evenly_spread
from sequences import CorruptFrame
from sequences import Sequence as Recording

FRAMES, STRIDE = 5, 4  # that are looked at before a run; every so many pixels each way of them
FEWEST = 0.02  # of the pixels that hold a reading
IN_ROOMS = 2.0  # metres, of a median
DOUBTFUL = (0.3, 7.0)  # metres: a median outside is worth a line, though nothing else contradicts it
FACTORS = (0.01, 0.1, 0.2, 5.0, 10.0, 100.0)  # between the units that depth images are written in
CONTRADICTED = 2.5  # times that a median has to differ from what is expected
POSSIBLE_DEPTH = (0.05, 80.0)  # metres; a median outside is a wrong unit
POSSIBLE_ROUGHNESS = 0.3  # of the depth, between readings a few pixels apart; 0.01 in rooms and on streets
MARKED, BEYOND = 0.01, 3.0  # share of the readings that are the largest, and times the others' median: no depth
OFTEN_EMPTY = 0.1  # of the depth images
CUT_OFF = 0.02  # share of the readings that are one and the same, the largest: no surface is so deep everywhere
CUT_OFF_FRAMES = 0.75  # of the frames: so many hold the same largest reading
JUST_NEARER, OUTNUMBERED = 0.95, 2.0  # of the largest; and times the readings between, as quantised ones spread
UNITS = (1000, 5000, 4000, 10000, 256)  # per metre, that depth files count
COUNTED = 0.02  # units that readings may be off whole numbers
SMOOTH = 0.03  # of the depth, between readings a few pixels apart of one surface
SWAPPED, RECORDED = 0.8, 0.35  # smooth readings with bytes swapped, at least; what may be rough, of that as recorded


def implausible_depth(recording: Recording) -> Finding | None:
    """The error that would make a map of this recording worthless, from a few frames: ask before a long run."""
    depths = []
    for index in evenly_spread(range(len(recording)), FRAMES):
        with suppress(CorruptFrame):
            depth = recording.read_without_labels(index).depth
            if depth is not None:
                depths.append(depth[::STRIDE, ::STRIDE])
    return next((finding for finding in doubtful_readings(depths) if finding.level == "error"), None)


def doubtful_readings(depths: Sequence[np.ndarray]) -> list[Finding]:
    """What no depth image has, by some (H, W) of a recording, in metres, 0 = none; the first fault that explains the
    others."""
    if not depths:
        return []
    depth = np.concatenate([depth.ravel() for depth in depths])
    valid = depth[depth > 0]
    if len(valid) < FEWEST * len(depth):
        what = f"only {len(valid) / len(depth):.1%} of the depth pixels hold a reading"
        return [Finding("error", what, "look at the depth files: are they the right ones, and 16 bits deep?")]
    if (rough := _roughness(depths)) > POSSIBLE_ROUGHNESS:
        what = f"neighbouring depth readings differ by {rough:.0%} of their depth: they show no surfaces"
        return [Finding("error", what, "look at the depth files: are they images of another kind?")]
    if _is_byte_swapped(depths):
        what = "depth readings make surfaces only when the two bytes of each are swapped"
        return [Finding("error", what, "write them in the other byte order (array.byteswap(), before it is encoded)")]
    return _beyond(valid) or _marked(depths) or _of_median(float(np.median(valid))) or cut_off(depths)


def _marked(depths: Sequence[np.ndarray]) -> list[Finding]:
    """That a number among the readings stands for missing depth, and what the others say of their unit."""
    if (found := mark(depths)) is None or found.depth == cut_off_at(depths):  # which is left out
        return []
    what = (
        f"{found.share:.0%} of the readings are {found.depth:.3f} m, whatever is beside them: a mark for missing depth"
    )
    error = Finding("error", what, "write 0 where depth is missing")
    valid = np.concatenate([depth[(depth > 0) & (depth != found.depth)] for depth in depths])
    return [error, *(_of_median(float(np.median(valid))) if len(valid) else [])]


def empty(depths: Sequence[np.ndarray]) -> list[Finding]:
    """That many depth images hold nothing."""
    count = sum(not depth.any() for depth in depths)
    if count < max(2, OFTEN_EMPTY * len(depths)) or count == len(depths):
        return []
    what = f"{count} of {len(depths)} depth images that were looked at hold no reading"
    return [
        Finding("warning", what, "those frames add nothing to the map: is depth of a lower rate, or were files lost?")
    ]


def cut_off(depths: Sequence[np.ndarray]) -> list[Finding]:
    """That farther surfaces were written as the largest reading."""
    if (farthest := cut_off_at(depths)) is None:
        return []
    share = float(np.mean(np.concatenate([depth[depth > 0] for depth in depths]) == farthest))
    what = f"{share:.0%} of the readings are {farthest:.3f} m, the largest: what lies farther was written as that"
    return [
        Finding("warning", what, "such readings are left out; write 0 where the sensor's or the export's range ends")
    ]


def cut_off_at(depths: Sequence[np.ndarray]) -> float | None:
    """The largest reading (metres) of some frames' depth (H, W), or (N,), where all that lies farther has it, too."""
    readings = [valid for depth in depths if len(valid := depth[depth > 0])]
    if not readings:
        return None
    valid = np.concatenate(readings)
    farthest = valid.max()
    largest = valid == farthest
    beside = np.count_nonzero((valid > JUST_NEARER * farthest) & ~largest)  # none at all beside a wall that is exact
    alike = np.mean([frame.max() == farthest for frame in readings])
    spike = np.count_nonzero(largest)
    found = spike > CUT_OFF * len(valid) and spike > OUTNUMBERED * beside > 0 and alike >= CUT_OFF_FRAMES
    return float(farthest) if found else None


def _beyond(valid: np.ndarray) -> list[Finding]:
    """That the largest of the readings (N,) is a mark for missing depth, and what the others say of their unit."""
    farthest = valid.max()
    nearer = valid[valid < farthest]
    if not len(nearer) and farthest > USUAL_DEPTH[1]:
        what = f"every depth reading is {farthest:.3f} m: a mark for missing depth"
        return [Finding("error", what, "look at the depth files, and write 0 where depth is missing")]
    share = 1 - len(nearer) / len(valid)
    if share > MARKED and len(nearer) and farthest > BEYOND * np.median(nearer):
        what = f"{share:.0%} of the readings are {farthest:.3f} m, the largest: a mark for missing depth"
        of_mark = Finding("error", what, "write 0 where depth is missing")
        return [of_mark, *_of_median(float(np.median(nearer)))]
    return []


def _of_median(median: float) -> list[Finding]:
    """Of the median (metres) of all readings."""
    if DOUBTFUL[0] < median < DOUBTFUL[1]:
        return []
    if POSSIBLE_DEPTH[0] < median < POSSIBLE_DEPTH[1]:
        doubt = doubt_of_unit(median)
        return [Finding("hint", f"the median depth is {median:.4g} m, and rooms have 1 to 4 m", doubt)] if doubt else []
    factor = min((*FACTORS, 1e-3, 1e3), key=lambda f: abs(np.log(f * median / IN_ROOMS)))
    what = f"the median depth is {median:.4g} m; in rooms it is 1 to 4 m"
    return [Finding("error", what, f"depth_scale (units per metre) should probably be {change_of_scale(factor)}")]


def doubt_of_unit(median: float, expected: float = IN_ROOMS) -> str:
    """What to do about a median depth (metres) where another one is expected: it may be right, or in another unit;
    empty where no usual unit explains the difference."""
    factor = min(FACTORS, key=lambda f: abs(np.log(f * median / expected)))
    if not 1 / CONTRADICTED < factor * median / expected < CONTRADICTED:
        return ""
    scene, size = ("in a hall or outdoors", "large") if factor < 1 else ("of small things", "small")
    return (
        f"right {scene}; if all surfaces come out too {size}, make --depth-scale (units per metre) "
        f"{change_of_scale(factor)}"
    )


def _roughness(depths: Sequence[np.ndarray]) -> float:
    """The median share of their depth by which readings of neighbouring columns differ; 0 where there are none."""
    found = []
    for depth in depths:
        left, right = depth[:, :-1], depth[:, 1:]
        there = (left > 0) & (right > 0)
        found.append(np.abs(left[there] - right[there]) / np.maximum(left[there], right[there]))
    differences = np.concatenate(found) if found else np.zeros(0)
    return float(np.median(differences)) if len(differences) else 0.0


def _is_byte_swapped(depths: Sequence[np.ndarray]) -> bool:
    """Whether 16-bit readings (H, W) make smooth surfaces in the other byte order, and hardly any in theirs."""
    units = [found for depth in depths if (found := _counted(depth)) is not None]
    if not units:
        return False
    recorded, swapped = (np.mean([_smooth(u) for u in order]) for order in (units, [u.byteswap() for u in units]))
    return bool(swapped > SWAPPED and 1 - swapped < RECORDED * (1 - recorded))


def _counted(depth: np.ndarray) -> np.ndarray | None:
    """Depth in the units (uint16) of its file; None where it was not read from whole numbers."""
    for scale in UNITS:
        units = depth * float(scale)
        if units.max(initial=0) < 65536 and np.abs(units - np.rint(units)).max(initial=0) < COUNTED:
            return np.rint(units).astype(np.uint16)
    return None


def _smooth(units: np.ndarray) -> float:
    """The share of neighbouring readings, of those that differ, that may be of one surface; 0 where there are none."""
    left, right = units[:, :-1].astype(np.float64), units[:, 1:].astype(np.float64)
    there = (left > 0) & (right > 0) & (left != right)
    near = np.abs(left - right) < SMOOTH * np.maximum(left, right)
    return float(near[there].mean()) if there.any() else 0.0
