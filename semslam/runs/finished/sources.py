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
        before = int(their_state["run_next_index"])
        if "merged_runs" not in state:  # frames of merged runs count as earlier ones, too
            _check_unchanged(theirs, folder, before + Progress.from_state(their_state).before, progress.before)
        moved = _moved(their_state, state, before)
        for source in _sources_of_another(theirs, folder, -before):
            poses = source.T_world_camera
            if moved is not None and poses:
                corrected = moved.corrected([i + source.shift for i in poses], np.stack(list(poses.values())))
                poses = dict(zip(poses, corrected))
            found.append(replace(source, T_world_camera=poses, shift=source.shift + shift))
    added = (state.get(f"merged_{name}", ()) for name in ("runs", "poses", "shifts", "frames"))
    for run, T_world_theirs, their_shift, frames in zip(*added):
        theirs, their_state = _opened(str(run), folder)
        _check_unchanged(theirs, folder, int(their_state["run_next_index"]), int(frames))
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
    state: dict[str, np.ndarray], run: str | Path, T_world_theirs: np.ndarray, shift: int, frames: int
) -> dict[str, np.ndarray]:
    """The arrays by which the state of a run names those whose maps were added to its own, with one more, of so many
    frames."""
    runs = [*map(str, state.get("merged_runs", ())), os.path.abspath(run)]
    return {
        "merged_runs": np.array(runs),
        "merged_poses": np.stack([*state.get("merged_poses", ()), T_world_theirs]),
        "merged_shifts": np.array([*state.get("merged_shifts", ()), shift], np.int64),
        "merged_frames": np.array([*state.get("merged_frames", ()), frames], np.int64),
    }


def _opened(run: str, folder: RunFolder) -> tuple[RunFolder, dict[str, np.ndarray]]:
    """A run that the map of another one is of, too, and its state: where it was, or beside that one."""
    for place in (Path(run), folder.final.parent / Path(run).name):
        if RunFolder(place).exists and os.path.realpath(place) != os.path.realpath(folder.final):
            theirs = RunFolder.open(place)
            return theirs, theirs.load_state()
    raise FileNotFoundError(f"{folder.final}: its map is of {run}, too, which is no longer there; put that run back")


def _check_unchanged(theirs: RunFolder, folder: RunFolder, frames: int, then: int) -> None:
    if frames != then:
        raise ValueError(
            f"{theirs.path}: has {frames} frames, and had {then} when {folder.final} was made of its map, whose frames "
            f"are not known any more"
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
