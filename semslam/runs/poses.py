"""Where a run's poses come from: the data set, tracking, a pose network or a trajectory file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from semslam.frame import Observation, Tracking
from semslam.poses import moved_by
from semslam.slam import Predict
from semslam.tracking.given_poses import GivenPoses
from semslam.tracking.judgement import TrackingConfig
from semslam.tracking.predicted_poses import PoseOf, PredictedPoses, RefinedTrack, proposals
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from semslam.trajectory.files import read_trajectory
from sequences import Sequence as Recording
from sequences.pose_pairing import NO_HINTS, FramePoses, Frames, PoseHints, poses_of_frames
from sequences.rebased import far_origin

SAME_POSE = 1e-5  # metres, and of a rotation's numbers: what reading a pose again may change


class PoseSource(Protocol):
    """Tracking that can say, before the frame is perceived, where its camera is expected."""

    def __call__(self, observation: Observation, predict: Predict) -> Tracking: ...

    def predicted_pose(self, observation: Observation) -> np.ndarray | None: ...


def pose_source(
    poses: str,
    sequence: Recording,
    config: TrackingConfig | None = None,
    pose_of: PoseOf | None = None,
    places: Places | None = None,
    of_file: FramePoses | None = None,
) -> PoseSource:
    """The tracking that the setting `poses` names: dataset, tracked, refined, predicted, or a trajectory file's.

    pose_of: a pose network; it tells predicted poses, and where a tracked camera that is lost may be. places: where a
    tracked camera that is lost is looked for. of_file: what the trajectory file tells of each frame.
    """
    if poses in ("dataset", "refined") and not sequence.has_poses:
        raise ValueError(f"`poses` is {poses}: {sequence.name} has no poses; use tracked or a trajectory file")
    if pose_of is not None and poses not in ("predicted", "predicted-refined", "tracked"):
        raise ValueError(f"`pose_weights` is for `poses` predicted or tracked, not for {poses}; leave it out")
    if poses in ("predicted", "predicted-refined"):
        if pose_of is None:
            raise ValueError(f"`poses` {poses} needs `pose_weights`, the file of a pose network")
        return PredictedPoses(pose_of, config) if poses == "predicted" else RefinedTrack(pose_of, config)
    if poses == "dataset":
        return ListedPoses(sequence.poses or (), "the sequence", config)
    if poses in ("tracked", "refined"):
        propose = proposals(pose_of) if pose_of else None
        return Tracker(config, refine=poses == "refined", propose=propose, places=places)
    assert of_file is not None
    origin = sequence.world_origin if sequence.world_origin.any() else far_origin(of_file.T_world_camera)
    return PosesOfFile(poses, of_file, origin, config)


def poses_of_file(poses: str, sequence: Recording, hints: PoseHints | None = None) -> FramePoses:
    """Poses of a trajectory file, one for each frame; ValueError where they fit no frames of the recording.

    Interpolated between the file's times, or by its frame numbers or lines: see `sequences.pose_pairing`.
    """
    if not Path(poses).exists():
        raise FileNotFoundError(
            f"`poses` {poses}: expected dataset, tracked, sfm, refined, predicted, predicted-refined or a file"
        )
    whole, numbers = sequence.origin
    frames = Frames(whole.timestamps, [whole.name_of(i) for i in range(len(whole))], numbers)
    found = poses_of_frames(read_trajectory(poses), poses, frames, hints or NO_HINTS)
    return found._replace(T_world_camera=tuple(found.T_world_camera[number] for number in numbers))


class ListedPoses(GivenPoses):
    """Takes the poses of frames from a list: all are known before the first frame is read."""

    def __init__(
        self,
        T_world_camera: Sequence[np.ndarray | None],
        source: str,
        config: TrackingConfig | None = None,
        readable: np.ndarray | None = None,
    ) -> None:
        """T_world_camera: (4, 4) of each frame of the recording, None where it is not known. config: see
        `GivenPoses`. readable: (N,) bool, which images were read when the poses were found; None = nobody looked."""
        super().__init__(lambda frame: self.T_world_camera[frame.index], source, config)
        self.T_world_camera, self.readable = T_world_camera, readable

    def check_unchanged(self, posed: Mapping[int, np.ndarray], number_of: Callable[[int], int], folder: Path) -> None:
        """ValueError where the poses are not those (4, 4) that a run in a folder has of its frames, by their index.
        number_of: what people call a frame."""
        for index, T in posed.items():
            now = self.T_world_camera[index]
            if now is None or not np.allclose(now, T, atol=SAME_POSE):
                raise ValueError(
                    f"{self.source}: the pose of frame {number_of(index)} is not what it was when {folder} was begun; "
                    f"put those poses back, or begin again with --overwrite"
                )


class PosesOfFile(ListedPoses):
    """The poses that a file told."""

    def __init__(
        self, path: str, found: FramePoses, world_origin: np.ndarray, config: TrackingConfig | None = None
    ) -> None:
        """world_origin: (3,) metres, what is taken off the poses, see `sequences.rebased`."""
        moved = [None if T is None else moved_by(T, -world_origin) for T in found.T_world_camera]
        super().__init__(moved, path, config)
        self.world_origin = world_origin
        self.found = found

    def figures(self) -> dict[str, Any]:
        """How the file's poses were brought to the recording's frames, under stable names; counts of frames."""
        return {
            "poses_of_file": self.source,
            "poses_interpolated": self.found.interpolated,  # of the whole recording, of which a part may be mapped
            "poses_missing": sum(T is None for T in self.T_world_camera),
            "pose_notes": list(self.found.notes),
        }
