"""Images, or a new recording, found in the map of a finished run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from semslam.files.failures import raise_passing
from semslam.files.writing import replacing
from semslam.poses import moved_by
from semslam.rendering.cameras import draw_cameras_in_map
from semslam.runs.config import RunConfig
from semslam.runs.finished.finished_map import FinishedMap
from semslam.tracking.relocalisation.localisation import Localisation, without_depth
from semslam.trajectory import Trajectory
from semslam.trajectory.files import tum_lines
from sequences import CorruptFrame, Sequence, detect_kind, open_sequence
from sequences.recordings.folder import images_by_name
from sequences.selected import chosen_numbers, selected

STEP = 1 / 30  # seconds between images that are given one by one


@dataclass(frozen=True, eq=False)
class LocalisedFrame:
    """What became of one image."""

    name: str
    timestamp: float  # seconds, as recorded
    found: Localisation  # its pose is in the world


def not_looked_for(name: str, timestamp: float, problem: Exception) -> LocalisedFrame:
    """What becomes of an image that cannot be read, or that lacks what is needed to look for it."""
    damaged = isinstance(problem, (CorruptFrame, OSError))
    return LocalisedFrame(name, timestamp, Localisation(None, reason=f"{'unreadable: ' * damaged}{problem}"))


def open_query(finished: FinishedMap, query: RunConfig) -> Sequence:
    """An image, a folder of images or a recording.

    For images whose camera nothing tells that of the run is guessed, see `Localiser.locate`; of those of a folder,
    which may be of several, `single_images` makes queries of their own.
    """
    try:
        found = open_sequence(
            query.sequence,
            query.kind,
            finished.filming_camera,
            camera=query.camera,
            depth_scale=query.depth_scale,
            registered=query.registered,
            fov=query.fov,
        )
    except FileNotFoundError:
        if os.path.lexists(query.sequence):  # something that it names is missing
            raise
        raise FileNotFoundError(f"{query.sequence}: no such image, folder of images or recording") from None
    return selected(found, query.start, query.frames, query.every)


def single_images(query: RunConfig) -> list[RunConfig]:
    """The query, or one for each image of a folder of photographs: each has a camera of its own."""
    path = Path(query.sequence)
    if not path.is_dir() or (query.kind or detect_kind(path)) != "photos":
        return [query]
    files = list(images_by_name(path).values())
    numbers = chosen_numbers(len(files), str(path), query.start, query.frames, query.every)
    alone = replace(query, kind="photos", start=0, frames=None, every=1)
    return [replace(alone, sequence=str(files[number])) for number in numbers]


def located(finished: FinishedMap, sequence: Sequence, depth: bool = True) -> Iterator[LocalisedFrame]:
    """Look for every frame of a sequence, each by itself. depth: use it where there is any."""
    localiser = finished.localiser
    for i in range(len(sequence)):
        name, time = sequence.name_of(i), float(sequence.timestamps[i])
        try:
            frame = sequence.read_without_labels(i)
        except (ValueError, OSError) as error:
            raise_passing(error)
            yield not_looked_for(name, time, error)
            continue
        found = localiser.locate(frame if depth else without_depth(frame))
        if finished.surfels.paging is not None:
            finished.surfels.paging.next_frame()  # nothing is fused, which would give back what is not seen any more
        if found.T_world_camera is not None:
            found = replace(found, T_world_camera=moved_by(found.T_world_camera, finished.surfels.world_origin))
        yield LocalisedFrame(name, time, found)


def located_in_each(
    finished: FinishedMap, sequences: Iterable[Sequence], depth: bool = True
) -> Iterator[LocalisedFrame]:
    """`located` of one sequence after the other; times that do not go on after those before are moved to do so."""
    latest = -np.inf
    for sequence in sequences:
        late = max(0.0, latest + STEP - float(sequence.timestamps[0])) if np.isfinite(latest) else 0.0
        for frame in located(finished, sequence, depth):
            yield replace(frame, timestamp=frame.timestamp + late)
        latest = float(sequence.timestamps[-1]) + late


def tum_text(frames: list[LocalisedFrame]) -> str:
    """TUM lines of the frames that were found, and before each a comment with its name and what it is worth.

    Frames that were not found are comments alone: one for those in a row that share a reason.
    """
    lines = [
        f"# timestamp tx ty tz qx qy qz qw (camera to world, metres; images without times are {STEP:.3f} s apart)\n"
    ]
    for missed, several in groupby(frames, key=_missed):
        if missed is not None:
            names = [_printable(frame.name) for frame in several]
            who = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)} images)"
            lines.append(f"# {who} not found: {missed}\n")
            continue
        for frame in several:
            found = frame.found
            assert found.T_world_camera is not None
            lines.append(
                f"# {_printable(frame.name)} confidence {found.confidence:.3f} inliers {found.inliers} "
                f"std {found.std_m:.4f} m {found.std_deg:.3f} deg"
                f"{'' if found.focal is None else f' focal length {found.focal:.0f} pixels'}\n"
            )
            lines += tum_lines(Trajectory(np.array([frame.timestamp]), found.T_world_camera[None]))
    return "".join(lines)


def _missed(frame: LocalisedFrame) -> str | None:
    """Why an image was not found, without the counts that differ from image to image; None of one that was."""
    return re.sub(r"^\d+ features", "some features", frame.found.reason) if frame.found.T_world_camera is None else None


def _printable(name: str) -> str:
    return " ".join(name.encode("utf-8", "backslashreplace").decode("utf-8").split())  # file names may be any bytes


def write_tum_text(path: str | Path, frames: list[LocalisedFrame]) -> None:
    """Write `tum_text`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(tum_text(frames), encoding="utf-8")


def figures(frames: list[LocalisedFrame]) -> dict[str, Any]:
    """For a JSON file: how many were found, and all that is known of each."""
    found = [frame for frame in frames if frame.found.T_world_camera is not None]
    confidence = [frame.found.confidence for frame in found]
    return {
        "images": len(frames),
        "found": len(found),
        "median_confidence": float(np.median(confidence)) if found else None,
        "frames": [{"name": frame.name, "timestamp": frame.timestamp, **vars(frame.found)} for frame in frames],
    }


def draw(path: str | Path, finished: FinishedMap, frames: list[LocalisedFrame]) -> None:
    """Write a picture of the map with the cameras that were found in it."""
    origin = finished.surfels.world_origin
    found = [f.found.T_world_camera for f in frames if f.found.T_world_camera is not None]
    cameras = moved_by(np.array(found).reshape(-1, 4, 4), -origin)
    confidence = np.array([f.found.confidence for f in frames if f.found.T_world_camera is not None])
    clouds, labels = finished.folder.load_clouds()
    draw_cameras_in_map(path, clouds, labels, cameras, confidence)
