"""The recordings that a finished map was made of: its own, and those of the runs that it extends or was merged with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semslam.engine.fusion import FusionConfig
from semslam.perception import PerceptionConfig
from semslam.runs.folder import RunFolder
from semslam.runs.progress import OtherRun, Progress
from semslam.runs.recording import as_used
from sequences import Sequence as Recording


@dataclass(frozen=True, eq=False)
class Source:
    """A recording, and where its frames are in the map."""

    sequence: Recording  # open
    perception: PerceptionConfig  # of the run that mapped it
    fusion: FusionConfig  # with the sensor's noise as that run measured it
    T_world_camera: dict[int, np.ndarray]  # (4, 4), by index, of the frames that were fused


def sources_of(folder: RunFolder, moved_to: str | None = None) -> list[Source]:
    """The recordings of the map of a run, its own last.

    moved_to: where the run's own recording is now. FileNotFoundError where a recording, or a run that this one extends
    or was merged with, is no longer there; ValueError where it is another one.
    """
    progress = folder.load_progress()
    places = [folder.final.parent, *(Path(other.folder).parent for other in progress.others)]
    found = [_source_of_another(other, folder, places) for other in progress.others]
    return [*found, _source(folder, folder.open_sequence(moved_to), progress, progress.posed())]


def _source(run: RunFolder, sequence: Recording, progress: Progress, posed: dict[int, np.ndarray]) -> Source:
    """The recording of a run, whose frames are where `posed` says."""
    slam = progress.with_found(run.load_config().slam)
    used = as_used(sequence, progress, slam.perception, [posed.get(i) for i in range(len(sequence))])
    return Source(used, slam.perception, slam.fusion, progress.fused_poses(posed))


def _source_of_another(other: OtherRun, folder: RunFolder, places: list[Path]) -> Source:
    """The recording of another run that the map of `folder` is of, too."""
    theirs, progress = _opened(other, folder, places)
    try:
        sequence = theirs.open_sequence()
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"{folder.final}: its map is of {theirs.path}, too, whose recording is needed: {error} (a place that "
            f"--sequence names is that of the last recording alone)"
        ) from None
    return _source(theirs, sequence, progress, other.posed())


def _opened(other: OtherRun, folder: RunFolder, places: list[Path]) -> tuple[RunFolder, Progress]:
    """Another run that a map is of, and its progress: where it was, or in one of the `places` of all these runs."""
    named = [Path(other.folder), *(place / Path(other.folder).name for place in places)]
    runs = [RunFolder(path) for path in named if os.path.realpath(path) != os.path.realpath(folder.final)]
    there = [run for run in runs if run.exists]
    for run in there:
        progress = RunFolder.open(run.path).load_progress()
        if progress.identity == other.identity:
            return run, progress
    if not there:
        raise FileNotFoundError(
            f"{folder.final}: its map is of {other.folder}, too, which is no longer there; put that run back"
        )
    raise ValueError(
        f"{there[0].path}: is not the run that it was when {folder.final} was made of its map (other frames, times "
        f"or poses): where that map's surfels were seen is not known any more; put the earlier run back, or make "
        f"{folder.final} again"
    )
