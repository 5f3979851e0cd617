"""Mapping that goes on in the map of a finished run, with another recording."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.loops.loop_closure import LoopCloser
from semslam.runs.config import RunConfig
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.folder import RunFolder
from semslam.runs.progress import OtherRun
from semslam.runs.recording import is_a_copy, is_the_one, recorded_camera
from semslam.slam import Slam
from semslam.stage import under_prefix
from semslam.tracking.relocalisation.keyframes import Keyframes
from semslam.tracking.tracker import Tracker
from sequences import Sequence as Recording

logger = logging.getLogger(__name__)
OTHER_VIEW = 0.08  # of the logarithm of a field of view: cameras that differ by more may be why nothing is found


def extend(system: Slam, run: str) -> tuple[int, list[OtherRun]]:
    """Give a system that has done nothing yet the map of a finished run, its tracker lost in it.

    Returns how many frames that run, and those that it extended, had: they count as those before the first one, -1 and
    below, wherever surfels, places and keyframes name frames; and these runs, for `Progress.others`. ValueError where
    mapping cannot go on in that run.
    """
    finished = FinishedMap(run)
    tracker, surfels, before = system.track, finished.surfels, finished.progress.next_index
    assert isinstance(tracker, Tracker) and system.places is not None
    finished.check_joined("extend")
    if told := finished.folder.unfinished:
        logger.warning("%s: %s", run, told)
    if added := finished.folder.count_filled():
        logger.warning("%s: %d surfels that --fill added to its map are not in the extended one", run, added)
    if surfels.num_classes != system.surfels.num_classes:
        was = finished.config.slam.perception
        raise ValueError(
            f"{run}: its map has {surfels.num_classes} classes, the new frames {system.surfels.num_classes}; choose "
            f"`slam.perception.labels` {was.labels} and `slam.perception.classes` {was.classes}, as that run did"
        )
    ours, theirs = system.config.labels.unit, finished.config.slam.labels.unit
    if surfels.num_classes and ours != theirs:
        raise ValueError(
            f"{run}: its classes were fused with `slam.labels.method` {theirs[0]} and `floor` {theirs[1]}, the "
            f"new frames with {ours[0]} and {ours[1]}, which do not add up; set them as that run did"
        )
    if len(surfels) > (most := system.surfels.config.max_surfels):
        raise ValueError(f"{run}: its map has {len(surfels)} surfels, and `slam.map.max_surfels` is {most}; raise it")
    surfels.seen[surfels.slots()] -= before
    surfels.config = system.surfels.config  # of this run: the bounds of the map and of its memory
    system.surfels = surfels
    # the map's evidence names views by their number
    system.labels.restore(under_prefix("labels_", finished.state))
    places = finished.places
    places.indices = [index - before for index in places.indices]
    system.places.restore(places.state())

    state = finished.state
    keyframes = Keyframes()
    kept = under_prefix("tracker_keyframe_", state)
    loops = under_prefix("loops_", state)
    followed = bool(kept) and finished.camera == system.fusion.camera and len(kept["indices"]) == loops.get("keyframes")
    if followed:
        keyframes.restore(kept | {"indices": kept["indices"] - before})
    else:  # poses were given, or by another camera: what can be come back to are places
        for index, T in zip(places.indices, places.T_world_camera):
            keyframes.add(index, T, keyframes.ferns.nothing)
    tracker.begin_lost(keyframes)
    if isinstance(system.loops, LoopCloser):
        if followed:
            system.loops.restore(loops)
        else:
            system.loops.go_on_from_keyframes()
    others = finished.progress.as_others(os.path.abspath(run), -before, np.eye(4))
    return before + finished.progress.before, others


def check_new(config: RunConfig, sequence: Recording) -> None:
    """ValueError where all frames of a recording are in the map that a run with these settings extends; a warning where
    some are. Seen once, a frame would count as two views: the map gets too sure of it, and surfels are lost."""
    assert config.extend is not None
    folder = RunFolder.open(config.extend)
    earlier = [folder, *(RunFolder(Path(other.folder)) for other in folder.load_progress().others)]
    count = max(_shared(config, sequence, run) for run in earlier if run.exists)
    if count == len(sequence):
        raise ValueError(
            f"{config.sequence}: its frames are in the map of {config.extend} already, and would count twice; extend "
            f"it with another recording, or with other frames of this one (`start`, `frames`)"
        )
    if count:
        logger.warning(
            "%s: %d of the %d frames are in the map of %s already and count twice; leave them out (`start`, `frames`)",
            *(config.sequence, count, len(sequence), config.extend),
        )


def _shared(config: RunConfig, sequence: Recording, run: RunFolder) -> int:
    """How many frames of a recording, which these settings name, are in the map of a run."""
    kept = run.load_recording()
    if is_the_one(kept, sequence) or is_a_copy(kept, sequence):
        return len(sequence)
    theirs = run.load_config()
    if os.path.realpath(theirs.sequence) != os.path.realpath(config.sequence):
        return 0
    length = len(sequence.origin[0])
    ours, offered = (range(one.start, length, one.every)[: one.frames] for one in (config, theirs))
    progress = run.load_progress()
    fused = progress.fused_poses(progress.posed_anywhere())
    return len(set(ours).intersection(offered[index] for index in fused if index < len(offered)))


def why_none_was_found(run: str, camera: Camera) -> str:
    """What may have kept all frames of a camera from being found in the map of a run: their camera, or the place."""
    now, then = camera.fov, recorded_camera(RunFolder.open(run).load_recording()).fov
    if abs(math.log(now / then)) > OTHER_VIEW:
        return (
            f"its camera sees {now:.0f} degrees across, that of the map saw {then:.0f}: if they are one camera, give "
            f"both its fx and fy (camera.yaml, --camera); else, do both show the same place?"
        )
    return "do both show the same place?"
