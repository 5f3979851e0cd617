"""The recording that a run was made of: found again where it was, or beside the run, and recognised."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.depth.synchronised_sequence import synchronised_by
from semslam.images.bars import Window
from semslam.perception import PerceptionConfig
from semslam.runs.color_only.recalling import RecallingSequence
from semslam.runs.config import RunConfig
from semslam.runs.progress import Progress
from sequences import Sequence as Recording
from sequences.files import digest_of_samples
from sequences.recalibrated import (
    CroppedSequence,
    RecalibratedSequence,
    StraightenedSequence,
    UnrolledSequence,
    UnzoomedSequence,
    numbers_of,
    window_of,
    with_lens,
    zoomed,
)
from sequences.selected import WithoutDepth, WithoutHidden

PATHS = ("sequence", "extend", "camera", "poses", "pose_weights", "weights")  # settings that may name a file or folder
ONLY_PATHS = ("extend", "camera")  # of these, those that name nothing else
# what a recording is recognised by, in words
FEATURES = {
    "frames": "the number of frames",
    "camera": "the camera",
    "names": "the names of images",
    "times": "the times of frames",
    "first": "the first frame",
    "last": "the last frame",
    "sizes": "the size of image files",
    "packed": "the content of the file",
    "depth": "the depth of the first or of the last frame",
}
UNREAD = 0  # in place of the digest of a frame
SAME_DEPTH = 1e-3  # share of the median depth of a frame: depth of two units, or two recordings, differs by more


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The settings with every path made absolute that exists, or cannot be anything else: they hold wherever they are
    read."""
    values = {name: getattr(config, name) for name in PATHS}
    existing = {name: value for name, value in values.items() if value and (name in ONLY_PATHS or Path(value).exists())}
    return replace(config, **{name: os.path.abspath(value) for name, value in existing.items()})


def as_compared(saved: RunConfig, settings: RunConfig) -> RunConfig:
    """The settings of a run as those of another are compared with them: how poses are meant is that of the other where
    only one of the two says it, since a run finds it out when it begins; how many frames may be unreadable is the
    other's, since it changes no map."""
    known = saved.pose_convention is not None and settings.pose_convention is not None
    convention = saved.pose_convention if known else settings.pose_convention
    return replace(with_absolute_paths(saved), pose_convention=convention, max_corrupt=settings.max_corrupt)


def as_used(
    sequence: Recording, progress: Progress, perception: PerceptionConfig, T_world_camera: Many[np.ndarray | None]
) -> Recording:
    """The recording as a run uses it: without depth that a hanging depth camera repeated, all rows of one moment, and,
    once all poses are known, without what moves with the camera.

    perception: as the run found it. T_world_camera: (4, 4) of the frames by which depth is moved, None where a frame
    has none; empty where no pose is known yet.
    """
    without = WithoutDepth(sequence, progress.depth_repeated)
    moved = len(T_world_camera) and perception.synchronise and perception.depth == "sensor"
    used = synchronised_by(without, T_world_camera, perception.readout) if moved else without
    return WithoutHidden(used, progress.hidden) if len(T_world_camera) and progress.hidden else used


def delay_undone(sequence: Recording, perception: PerceptionConfig) -> float | None:
    """Seconds between a colour image and its depth, the median of a recording; None where none are undone."""
    delays = sequence.depth_delays
    if delays is None or not delays.any() or not perception.synchronise or perception.depth != "sensor":
        return None
    return float(np.median(np.abs(delays)))


def check_apart(out: Path, recording: str) -> None:
    """ValueError where files that are written to `out` would lie among those of a recording.

    A folder of its own within that of the recording is apart.
    """
    place, whole = os.path.realpath(out), os.path.realpath(recording)
    if not os.path.isdir(place) or os.path.commonpath([place, whole]) != whole:
        return
    ours = any(os.path.exists(os.path.join(place, name)) for name in ("map.npz", "checkpoint", ".lock"))
    if not ours and os.listdir(place):
        raise ValueError(f"{out}: is a folder of the recording {recording}; name another --out")


def fingerprint(sequence: Recording) -> dict[str, Any]:
    """What a recording is recognised by, as FEATURES says; numbers that JSON keeps."""
    sequence = _recalled(sequence)
    camera, last = sequence.camera, len(sequence) - 1
    whole, numbers = sequence.origin
    sizes = np.array([whole.size_of(int(number)) for number in numbers], np.int64)
    return {
        "frames": len(sequence),
        "camera": [camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy],
        "names": _digest_of_names(sequence.name_of(i) for i in range(len(sequence))),
        "times": zlib.crc32(np.asarray(sequence.timestamps, np.float64).tobytes()),
        "sizes": zlib.crc32(sizes.tobytes()),
        "packed": [digest_of_samples(file) for file in whole.packed_in],
        "first": _digest(sequence, 0),
        "last": _digest(sequence, last),
        "depth": [_median_depth(whole, int(number)) for number in (numbers[0], numbers[-1])],
    }


def remembered(sequence: Recording, config: RunConfig, folder: Path) -> dict[str, Any]:
    """What a run in a folder keeps to find its recording again, and to recognise it; JSON's kinds of values."""
    sequence = _recalled(sequence)
    about = {"fingerprint": fingerprint(sequence)} | _undone(sequence)
    if (window := window_of(sequence)) is not None:
        about["window"] = list(window)
    return seen_from(about, config, folder)


def _recalled(sequence: Recording) -> Recording:
    """The recording whose frames are kept for those who ask again; itself where none are."""
    return sequence.whole if isinstance(sequence, RecallingSequence) else sequence


def as_array(about: dict[str, Any]) -> np.ndarray:
    """What was `remembered`, for the state of a run."""
    return np.array(json.dumps(about))


def _undone(sequence: Recording) -> dict[str, Any]:
    """What of the camera's doing a run undoes in the frames of its recording."""
    if isinstance(sequence, UnrolledSequence):
        read = {
            "readout": sequence.shutter.tolist(),
            "twists": sequence.twists.astype(np.float32).tobytes().hex(),
            "depth": sequence.depth,
        }
        return {"shutter": read} | _undone(sequence.whole)
    if isinstance(sequence, UnzoomedSequence):
        return {"zoom": sequence.zoom.tolist()} | _undone(sequence.whole)
    if isinstance(sequence, RecalibratedSequence):
        return _undone(sequence.whole)
    return {"lens": numbers_of(sequence.lens).tolist()} if isinstance(sequence, StraightenedSequence) else {}


def _unrolled(sequence: Recording, about: dict[str, Any]) -> Recording:
    """A recording with its shutter undone as a run did that kept this; itself where it has another number of frames."""
    kept = about["shutter"]
    twists = np.frombuffer(bytes.fromhex(kept["twists"]), np.float32).reshape(-1, 6).astype(np.float64)
    if len(twists) != len(sequence):
        return sequence
    if not sequence.camera.focal_known:
        sequence = RecalibratedSequence(sequence, recorded_camera(about))
    return UnrolledSequence(sequence, np.array(kept["readout"]), twists, kept["depth"])


def seen_from(about: dict[str, Any], config: RunConfig, folder: Path) -> dict[str, Any]:
    """The same for a run in another folder."""
    relative = os.path.relpath(config.sequence, folder) if Path(config.sequence).exists() else ""
    return about | {"relative": relative}


def found_again(config: RunConfig, about: dict[str, Any], folder: Path, moved_to: str | None = None) -> Recording:
    """The open sequence of a run, whose camera is the run's where the recording does not know it.

    ValueError where it is another one, FileNotFoundError where there is none.

    about: what `remembered` gave. moved_to: where the recording is now.
    """
    places = [moved_to] if moved_to else list(_places(config.sequence, about["relative"], folder))
    other: ValueError | None = None
    for place in places:
        sequence = replace(config, sequence=place).open_sequence(_as_cut(about.get("window")))
        if "lens" in about:
            sequence = StraightenedSequence(sequence, with_lens(sequence.camera, about["lens"]))
        if len(about.get("zoom", ())) == len(sequence):
            sequence = UnzoomedSequence(sequence, np.array(about["zoom"]))
        if "shutter" in about:
            sequence = _unrolled(sequence, about)
        if (difference := _difference(about["fingerprint"], sequence)) is None:
            return sequence if sequence.camera.focal_known else RecalibratedSequence(sequence, recorded_camera(about))
        other = other or ValueError(
            f"{place}: is not the recording that {folder} was made of, {difference}; name that one with --sequence"
        )
    raise other or FileNotFoundError(
        f"{config.sequence}: the recording of {folder} is no longer there; name its place with --sequence"
    )


def _as_cut(window: list[int] | None) -> Callable[[Recording], Recording]:
    """What takes the bars off a recording as a run did that kept this window of it; None = it left all of it."""

    def cut(whole: Recording) -> Recording:
        if window is None or window[2] > whole.camera.width or window[3] > whole.camera.height:
            return whole
        return CroppedSequence(whole, Window(*window))

    return cut


def recorded_camera(about: dict[str, Any]) -> Camera:
    """That of the frames of the run that kept this about its recording."""
    width, height, *numbers = about["fingerprint"]["camera"]
    return Camera(int(width), int(height), *numbers)


def filming_camera(about: dict[str, Any]) -> Camera:
    """That of images taken by the camera of the run that kept this: with its lens, and not zoomed in."""
    camera, zoom = recorded_camera(about), about.get("zoom") or [1.0]
    camera = zoomed(camera, min(zoom) / max(zoom))
    return with_lens(camera, about["lens"]) if "lens" in about else camera


def _places(path: str, relative: str, folder: Path) -> Iterator[str]:
    """Where a recording may be: where it was, where it lay as seen from the run, and next to the run."""
    if Path(path).exists() or not os.path.isabs(path):
        yield path
    name = Path(path).name
    beside = [os.path.abspath(folder / relative)] if relative else []
    for place in dict.fromkeys([*beside, os.path.abspath(folder.parent / name)]):
        if os.path.exists(place) and place not in (os.path.abspath(path), os.path.abspath(folder)):
            yield place


def is_the_one(about: dict[str, Any], sequence: Recording) -> bool:
    """Whether a sequence is the recording that `remembered` kept something of."""
    return _difference(about["fingerprint"], sequence) is None


def is_a_copy(about: dict[str, Any], sequence: Recording) -> bool:
    """Whether a sequence shows what the recording showed that `remembered` kept something of, whatever its files are
    called: as many frames, the first and the last the same to the pixel."""
    was = about["fingerprint"]
    if was["frames"] != len(sequence):
        return False
    ends = _digest(sequence, 0), _digest(sequence, len(sequence) - 1)
    return ends == (was["first"], was["last"]) and ends[0] != ends[1]  # films begin and end black, or with a sign


def check_unchanged(about: dict[str, Any], sequence: Recording, folder: Path) -> None:
    """ValueError where a sequence is not the recording that a run in a folder was begun with. Files that could not be
    read may have been copied again meanwhile."""
    if (difference := _difference(about["fingerprint"], sequence, exact=False)) is not None:
        raise ValueError(
            f"{sequence.name}: is not the recording that {folder} was begun with, {difference}; put that one back, "
            f"or begin again with --overwrite"
        )


def _difference(kept: dict[str, Any], sequence: Recording, exact: bool = True) -> str | None:
    """In which feature a sequence differs from the recording that was kept, in words. exact: files that could be read
    on one side alone, and the size of files, count too."""
    here = fingerprint(sequence)
    if not exact:
        unread = [name for name in ("first", "last") if UNREAD in (here[name], kept[name])]
        here |= {name: kept[name] for name in ("sizes", *unread)}
    if not sequence.camera.focal_known:  # the run found it by tracking
        here["camera"] = [*here["camera"][:2], *kept["camera"][2:]]
    here["depth"] = [
        was if 0 in (now, was) or abs(now / was - 1) < SAME_DEPTH else now  # a frame without readings tells nothing
        for now, was in zip(here["depth"], kept.get("depth", here["depth"]), strict=True)
    ]
    for feature, words in FEATURES.items():
        if here[feature] != kept.get(feature, here[feature]):
            values = f" ({here[feature]}, was {kept[feature]})" if feature in ("frames", "camera") else ""
            if feature == "depth":
                values = f" (medians {here[feature]} m, were {kept[feature]}: of another --depth-scale?)"
            return f"{words} differs{values}" if feature not in ("names", "times") else f"{words} differ"
    return None


def _median_depth(whole: Recording, number: int) -> float:
    """Metres, of the readings of a frame as it was recorded, to 6 digits; 0 where it has none."""
    frame = whole.try_read(number) if whole.has_depth else None
    if frame is None or frame.depth is None or not (frame.depth > 0).any():
        return 0.0
    return float(f"{np.median(frame.depth[frame.depth > 0]):.6g}")


def _digest_of_names(names: Iterable[str]) -> int:
    return zlib.crc32("\n".join(names).encode(errors="surrogateescape"))


def _digest(sequence: Recording, index: int) -> int:
    """Of a frame's colours; depth may be read in other units, or with another camera."""
    while isinstance(sequence, (UnrolledSequence, UnzoomedSequence, StraightenedSequence)):
        sequence = sequence.whole  # as recorded: another processor undoes a lens with other last bits
    frame = sequence.try_read(index)
    if frame is None:
        return UNREAD
    return zlib.crc32(np.ascontiguousarray(frame.color).tobytes())
