"""Which files of a recording belong to one frame: those of one name, or with one number or one time in their names.

Never by their place in a folder: a file that is missing would move all that follow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from semslam.images import natural_key
from semslam.trajectory import associate
from sequences.pose_pairing import numbers_of_names

SAME_TIME = 0.02  # seconds between the images of one frame
CLOCK_ROUNDING = 2e-3  # seconds from a colour image to its depth that may be a clock's rounding
MOST = 0.5  # of the files; where fewer find a partner, the folders are not of one recording
FEW = 0.1  # of the files: where more are named unlike the others, they are frames
_HEXADECIMAL = re.compile("[0-9a-fA-F]+")


def without_copies(files: Mapping[str, Path]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files, by name without suffix, that are no copies of others, as file managers make them: `000010 (1).png`;
    and notes for people of what was left out and of what is named unlike nearly all others.

    Taken for a frame, a copy would move all that follow in time, and away from their poses.
    """
    forms = {name: re.sub("[0-9]+", "0", name) for name in files}
    usual = Counter(forms.values()).most_common(1)[0][0] if files else ""
    odd = [name for name, form in forms.items() if form != usual]
    if not odd or len(odd) > FEW * len(files):
        return dict(files), ()
    copied = {name: original for name in odd if (original := _original(files[name], files, odd)) is not None}
    notes = [f"{files[name]}: is a copy of {original.name}, and is left out" for name, original in copied.items()]
    notes += [
        f"{files[name]}: is named unlike the other {len(files) - len(odd)} images, and is taken for a frame: if it is "
        "none, remove it"
        for name in odd
        if name not in copied
    ]
    return {name: file for name, file in files.items() if name not in copied}, tuple(notes)


def _original(copy: Path, files: Mapping[str, Path], odd: list[str]) -> Path | None:
    """A file with the usual name and the same bytes."""
    size = copy.stat().st_size
    alike = (file for name, file in files.items() if name not in odd and file.stat().st_size == size)
    return next((file for file in alike if file.read_bytes() == copy.read_bytes()), None)


def paired(
    path: Path, first: Mapping[str, Path], second: Mapping[str, Path], whole: bool = True
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files of `second` under the names of `first`; those that have no partner there keep their own name.

    Args:
        path: the recording, named in messages.
        first, second: files by name without suffix.
        whole: `second` should hold a file for every one of `first`, so one that is not there is counted as well.

    Returns:
        The renamed files, and notes for people of what found no partner. ValueError where that is most of them.
    """
    if not second or not first:
        return dict(second), ()
    names = _partners(list(first), list(second))
    found = len(names)
    folders = [next(iter(files.values())).parent.name for files in (first, second)]
    if found <= MOST * (min(len(first), len(second)) if whole else len(second)):
        raise ValueError(
            f"{path}: {len(second) - found} of {len(second)} files in {folders[1]}/ match no file in {folders[0]}/ by "
            f"name, number or time ({next(iter(second.values())).name}, {next(iter(first.values())).name}); give the "
            f"images of one frame one name"
        )
    notes = []
    if extra := len(second) - found:
        notes.append(f"{extra} of {len(second)} files in {folders[1]}/ have no partner in {folders[0]}/")
    if whole and (lone := len(first) - found):
        notes.append(f"{lone} of {len(first)} files in {folders[0]}/ have no partner in {folders[1]}/")
    return {names.get(name, name): file for name, file in second.items()}, tuple(notes)


def depth_delays(color_times: np.ndarray, depth_times: np.ndarray) -> np.ndarray:
    """(N,) seconds from each colour image to its depth image; 0 where they are of one moment. times: (N,) seconds."""
    delays = depth_times - color_times
    return np.where(np.abs(delays) < CLOCK_ROUNDING, 0.0, delays)


def in_order(names: Sequence[str]) -> list[str]:
    """Names as people count: by their numbers, and by time where they are times."""
    if len({len(name) for name in names}) == 1 and all(_HEXADECIMAL.fullmatch(name) for name in names):
        return sorted(names, key=str.lower)
    return sorted(names, key=lambda name: natural_key(Path(name)))


def _partners(first: list[str], second: list[str]) -> dict[str, str]:
    """For names of `second` their partners in `first`, by the rule under which most find one; of two, the simpler."""
    candidates: list[Callable[[], dict[str, str]]] = [
        lambda: {name: name for name in set(first) & set(second)},
        lambda: _by_number(first, second),
        lambda: _by_time(first, second),
    ]
    best: dict[str, str] = {}
    for candidate in candidates:
        found = candidate()
        if len(found) > len(best):
            best = found
        if len(best) == min(len(first), len(second)):
            break
    return best


def _by_number(first: list[str], second: list[str]) -> dict[str, str]:
    """Names that share the number at one place in both: rgb_7 and depth_7, 0000007-1305 and 0000007-1322."""
    best: dict[str, str] = {}
    for ours in numbers_of_names([f"{name}.x" for name in first]):
        name_of = dict(zip(ours.tolist(), first))
        for theirs in numbers_of_names([f"{name}.x" for name in second]):
            found = {name: name_of[number] for name, number in zip(second, theirs.tolist()) if number in name_of}
            best = found if len(found) > len(best) else best
    return best


def _by_time(first: list[str], second: list[str]) -> dict[str, str]:
    """Names that are times in seconds, at most SAME_TIME apart."""
    ours, theirs = times_of_names(first), times_of_names(second)
    if ours is None or theirs is None:
        return {}
    a, b = np.argsort(ours), np.argsort(theirs)
    pairs = zip(*associate(ours[a], theirs[b], SAME_TIME))
    return {second[b[j]]: first[a[i]] for i, j in pairs}


def times_of_names(names: Sequence[str]) -> np.ndarray | None:
    """(N,) float64 seconds where every name is, or ends in, a time that differs from the others'.

    That is a decimal number of seconds, or milliseconds, microseconds or nanoseconds since 1970 by their digits.
    """
    matches = [_TIME.search(name) for name in names]
    times = np.array([float(m[0]) / 10.0 ** max(0, len(m[0].partition(".")[0]) - 10) for m in matches if m])
    return times if len(times) == len(names) and len(np.unique(times)) == len(times) else None


_TIME = re.compile(r"(?<![0-9.])([0-9]{1,10}\.[0-9]+|[0-9]{13}|[0-9]{16}|[0-9]{19})$")


def frame_number(file: Path, layout: str) -> int:
    """The number that a file is named by; ValueError, which says what is expected, where the name is none."""
    if not file.stem.isdecimal():
        raise ValueError(f"{file}: the name is no frame number; expected {layout}")
    return int(file.stem)
