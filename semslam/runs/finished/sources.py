"""The recordings that a finished map was made of: its own, and those of the runs that it extends or was merged with."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.engine.fusion import FusionConfig
from semslam.perception import PerceptionConfig
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.trajectory import Correction

UNKNOWN = -1  # identity of a run


@dataclass(frozen=True, eq=False)
class Source:
    """A recording, and where its frames are in the map."""

    sequence: Any  # open
    perception: PerceptionConfig  # of the run that mapped it
    fusion: FusionConfig  # with the sensor's noise as that run measured it
    T_world_camera: dict[int, np.ndarray]  # (4, 4), by index, of the frames that were fused
    shift: int  # is added to their indices where surfels and places of the map name frames


def sources_of(folder: RunFolder, moved_to: str | None = None, shift: int = 0) -> list[Source]:
    """The recordings of the map of a run, its own last.

    moved_to: where the run's own recording is now. shift: see `Source`. FileNotFoundError where a recording, or a run
    that this one extends or was merged with, is no longer there; ValueError where it is another one.
    """
    config, state = folder.load_config(), folder.load_state()
    progress = Progress.from_state(state)
    found = []
    if config.extend is not None:
        theirs, their_state = _opened(config.extend, folder)
        their_progress = Progress.from_state(their_state)
        before = their_progress.next_index
        if progress.extends is not None:
            _check_unchanged(theirs, folder, their_progress.identity == progress.extends)
        elif "merged_runs" not in state:  # of an earlier version; frames of merged runs count as earlier ones, too
            _check_unchanged(theirs, folder, before + their_progress.before == progress.before)
        moved = _moved(their_state, state, before)
        for source in _sources_of_another(theirs, folder, -before):
            poses = source.T_world_camera
            if moved is not None and poses:
                corrected = moved.corrected([i + source.shift for i in poses], np.stack(list(poses.values())))
                poses = dict(zip(poses, corrected))
            found.append(replace(source, T_world_camera=poses, shift=source.shift + shift))
    added = (state.get(f"merged_{name}", ()) for name in ("runs", "poses", "shifts", "frames"))
    for run, T_world_theirs, their_shift, frames, identity in zip(*added, _merged_identities(state)):
        theirs, their_state = _opened(str(run), folder)
        their_progress = Progress.from_state(their_state)
        by_frames = identity == UNKNOWN
        same = frames == their_progress.next_index if by_frames else identity == their_progress.identity
        _check_unchanged(theirs, folder, same)
        for source in _sources_of_another(theirs, folder, int(their_shift) + shift):
            poses = {i: T_world_theirs @ T for i, T in source.T_world_camera.items()}
            found.append(replace(source, T_world_camera=poses))
    fusion = config.slam.fusion
    if progress.noise is not None:
        fusion = replace(fusion, noise=progress.noise[0], noise_quadratic=progress.noise[1])
    poor = set(progress.poor)
    own = {i: T for i, T in progress.posed().items() if i not in poor}
    sequence = folder.open_sequence(moved_to)
    return [*found, Source(sequence, config.slam.perception, fusion, own, shift)]


def _sources_of_another(theirs: RunFolder, folder: RunFolder, shift: int) -> list[Source]:
    """`sources_of` a run that the map of `folder` is of, too."""
    try:
        return sources_of(theirs, shift=shift)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"{folder.final}: its map is of {theirs.path}, too, whose recording is needed: {error} (a place that "
            f"--sequence names is that of the last recording alone)"
        ) from None


def merged_with(
    state: dict[str, np.ndarray], run: str | Path, T_world_theirs: np.ndarray, shift: int, progress: Progress
) -> dict[str, np.ndarray]:
    """The arrays by which the state of a run names those whose maps were added to its own, with one more."""
    runs = [*map(str, state.get("merged_runs", ())), os.path.abspath(run)]
    return {
        "merged_runs": np.array(runs),
        "merged_poses": np.stack([*state.get("merged_poses", ()), T_world_theirs]),
        "merged_shifts": np.array([*state.get("merged_shifts", ()), shift], np.int64),
        "merged_frames": np.array([*state.get("merged_frames", ()), progress.next_index], np.int64),
        "merged_identities": np.array([*_merged_identities(state), progress.identity], np.int64),
    }


def _merged_identities(state: dict[str, np.ndarray]) -> np.ndarray:
    """Of each run whose map was added, its `Progress.identity`, UNKNOWN for those that an earlier version added."""
    return state.get("merged_identities", np.full(len(state.get("merged_runs", ())), UNKNOWN))


def _opened(run: str, folder: RunFolder) -> tuple[RunFolder, dict[str, np.ndarray]]:
    """A run that the map of another one is of, too, and its state: where it was, or beside that one."""
    for place in (Path(run), folder.final.parent / Path(run).name):
        if RunFolder(place).exists and os.path.realpath(place) != os.path.realpath(folder.final):
            theirs = RunFolder.open(place)
            return theirs, theirs.load_state()
    raise FileNotFoundError(f"{folder.final}: its map is of {run}, too, which is no longer there; put that run back")


def _check_unchanged(theirs: RunFolder, folder: RunFolder, same: bool) -> None:
    if not same:
        raise ValueError(
            f"{theirs.path}: is not the run that it was when {folder.final} was made of its map (other frames, times "
            f"or poses): where that map's surfels were seen is not known any more; put the earlier run back, or make "
            f"{folder.final} again"
        )


def _moved(old: dict[str, np.ndarray], new: dict[str, np.ndarray], before: int) -> Correction | None:
    """How the frames of a run have moved in the map of one that extends it, as its places have; None without places.

    before: how many frames the run had; they count as -before to -1 in the other.
    """
    if "places_indices" not in old or "places_indices" not in new:
        return None
    then = {int(i) - before: T for i, T in zip(old["places_indices"], old["places_poses"])}
    now = {int(i): T for i, T in zip(new["places_indices"], new["places_poses"])}
    common = sorted(then.keys() & now.keys())
    if not common:
        return None
    return Correction.between(common, np.stack([then[i] for i in common]), np.stack([now[i] for i in common]))
