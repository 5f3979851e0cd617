"""What a run has done so far, besides the map: frames, poses, timings."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from semslam.cloud import SurfelCloud
from semslam.frame import Step
from semslam.poses import LONGEST
from semslam.slam import SlamConfig
from semslam.stage import under_prefix
from semslam.trajectory import Correction, Trajectory
from sequences.selected import hidden_cells

FRAME_LISTS = (
    "indices",
    "lost",
    "poor",
    "depth_repeated",
    "color_repeated",
    "corrupt",
    "held_out",
    "labelled",
    "poses_rejected",
)
IDENTIFYING = ("indices", "timestamps", "poses")  # what tells one run from another


class NoMap(ValueError):
    """A recording of which no map can be made in the way that was asked for; another way may make one."""


@dataclass(frozen=True, eq=False)
class OtherRun:
    """Another run whose map a run's map is of, too: one that it extends or was merged with; where its frames are."""

    folder: str
    identity: int  # its `Progress.identity`
    shift: int  # is added to its frames' indices where surfels, places and keyframes of the map name them
    indices: np.ndarray  # (N,) int64 of its tracked frames, as the map names them: below 0
    timestamps: np.ndarray  # (N,) float64 seconds
    T_world_camera: np.ndarray  # (N, 4, 4) float64, relative to the origin of the map

    def corrected(self, correction: Correction) -> OtherRun:
        """The same after a loop was closed."""
        return replace(self, T_world_camera=correction.corrected(self.indices, self.T_world_camera))

    def in_map(self, shift: int, T_map_world: np.ndarray) -> OtherRun:
        """The same in another map, to which the one that it is part of was added; T_map_world (4, 4)."""
        return replace(
            self,
            shift=self.shift + shift,
            indices=self.indices + shift,
            T_world_camera=T_map_world @ self.T_world_camera,
        )

    def trajectory(self) -> Trajectory:
        """The poses of its tracked frames, by time."""
        return _by_time(self.timestamps, self.T_world_camera)

    def posed(self) -> dict[int, np.ndarray]:
        """T_world_camera (4, 4) of every tracked frame, by its index in that run."""
        return dict(zip((self.indices - self.shift).tolist(), self.T_world_camera))


@dataclass
class Progress:
    """What a run has done so far, besides the map."""

    next_index: int = 0
    indices: list[int] = field(default_factory=list)
    timestamps: list[float] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    poor: list[int] = field(default_factory=list)  # tracked, but not good enough to be fused
    depth_repeated: list[int] = field(default_factory=list)  # whose depth is not used: the depth camera hung
    color_repeated: list[int] = field(default_factory=list)  # that were left out: the colour camera hung
    corrupt: list[int] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    hidden: dict[int, np.ndarray] = field(default_factory=dict)  # by frame: `hidden_cells`, which move with the camera
    labelled: list[int] = field(default_factory=list)  # whose labels were fused
    poses_rejected: list[int] = field(default_factory=list)  # whose given pose is not used: the images contradict it
    poses_contradicted: str | None = None  # what the images say against all poses that were given
    submaps: list[int] = field(default_factory=list)  # of each pose: the number of the part of the map that it is in
    before: int = 0  # frames of the other runs whose maps this one has; surfels name them -1, -2 ...
    others: list[OtherRun] = field(default_factory=list)
    loops: int = 0  # closed
    fused: int = 0
    passed_by: int = 0  # surfels that were removed because other frames see through them
    noise: tuple[float, float] | None = None  # of the depth camera, as tracking measured it: see `Tracking`
    reason: str = ""  # why the last lost frame was lost; of frames whose pose was rejected where all are
    poor_reason: str = ""  # why the last poor frame was not fused whose depth is its own
    depth_contradicted: str = ""  # what colour images say against the depth images, if anything
    seconds: float = 0.0
    depth_used: int = 0  # of the depth readings that were looked at: how many lie in the range that is used
    depth_read: int = 0
    depth_range: tuple[float, float] | None = None  # metres: nearest and farthest depth that is used
    readout: float | None = None  # seconds from the first row of a depth image to its last, as is undone
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    def trajectory(self) -> Trajectory:
        """The pose of every frame, by time; of frames with the same time the first.

        Lost frames repeat the last pose, see `tracked`; those before the first pose are left out.
        """
        return _by_time(self.timestamps, self.poses)

    @property
    def others_in_map(self) -> list[OtherRun]:
        """`others`; none where the largest sub-map is another one than theirs, the first."""
        return self.others if self.parts[0] == 0 else []

    def paths(self) -> list[np.ndarray]:
        """The camera's paths in the map, each (N, 4, 4) T_world_camera from where it was found to where it was lost:
        the run's own, then those of the other runs whose maps it has."""
        trajectories = [self.trajectory().selected(self.tracked), *(run.trajectory() for run in self.others_in_map)]
        return [piece for trajectory in trajectories for piece in trajectory.pieces()]

    def as_others(self, folder: str, shift: int, T_map_world: np.ndarray) -> list[OtherRun]:
        """The runs that this run's map is of, itself last, for a map that this one is added to.

        folder: of this run. shift, T_map_world: see `OtherRun.in_map`.
        """
        posed, times = self.posed(), dict(zip(self.indices, self.timestamps))
        own = OtherRun(
            folder,
            self.identity,
            0,
            np.array(list(posed), np.int64),
            np.array([times[i] for i in posed], np.float64),
            np.array(list(posed.values()), np.float64).reshape(-1, 4, 4),
        )
        return [run.in_map(shift, T_map_world) for run in (*self.others, own)]

    @property
    def tracked(self) -> np.ndarray:
        """(N,) bool: which poses of `trajectory` are of frames that were tracked, not repeated for lost ones, and are
        in the largest sub-map."""
        return self.tracked_in(self.parts[0])

    @property
    def tracked_well(self) -> np.ndarray:
        """(N,) bool: the same without frames whose tracking was too poor to fuse them."""
        return self.tracked & ~self._are_of(self.poor)

    def tracked_in(self, submap: int) -> np.ndarray:
        """(N,) bool: the same for any sub-map."""
        return self._are_of(self.frames_of(submap))

    def _are_of(self, frames: list[int]) -> np.ndarray:
        """(N,) bool: which poses of `trajectory` are of these frames."""
        _, first = np.unique(np.array(self.timestamps), return_index=True)
        return np.isin(np.array(self.indices)[first], frames)

    @property
    def parts(self) -> list[int]:
        """The numbers of the sub-maps that have not met, the one with most frames first; [0] where there is one."""
        lost = set(self.lost)
        count = Counter([0] if self.before else [])
        count.update(submap for index, submap in zip(self.indices, self.submaps) if index not in lost)
        return sorted(count, key=lambda number: (-count[number] - self.before * (number == 0), number)) or [0]

    def frames_of(self, submap: int) -> list[int]:
        """The frames that were tracked in a sub-map."""
        lost = set(self.lost)
        return [i for i, number in zip(self.indices, self.submaps) if number == submap and i not in lost]

    def part_of(self, cloud: SurfelCloud, submap: int) -> SurfelCloud:
        """The surfels of a run's cloud that the frames of a sub-map made."""
        return cloud if len(self.parts) == 1 else cloud.selected(self.are_part_of(cloud.first_seen, submap))

    def are_part_of(self, first_seen: np.ndarray, submap: int) -> np.ndarray:
        """(N,) bool: whether surfels that frames (N,) made belong to a sub-map."""
        if len(self.parts) == 1:
            return np.ones(len(first_seen), bool)
        return (first_seen < 0) & (submap == 0) | np.isin(first_seen, self.frames_of(submap))

    @property
    def stepped(self) -> int:
        """Frames that went through the system."""
        return self.next_index - len(self.corrupt) - len(self.color_repeated) - len(self.held_out)

    def frames_per_second(self, besides: float = 0.0) -> float:
        """Of the frames that went through the system; besides: seconds that were spent before and after."""
        return self.stepped / (self.seconds + besides) if self.seconds + besides else float("nan")

    def posed(self) -> dict[int, np.ndarray]:
        """T_world_camera (4, 4) of every tracked frame of the largest sub-map, by its index."""
        main = set(self.frames_of(self.parts[0]))
        return {index: T for index, T in zip(self.indices, self.poses) if index in main}

    def fused_poses(self, posed: dict[int, np.ndarray] | None = None) -> dict[int, np.ndarray]:
        """The same without frames that did not enter the map: tracked poorly, or with the depth of another moment.

        posed: where the tracked frames are in another map that has this one.
        """
        left_out = {*self.poor, *self.depth_repeated}
        posed = self.posed() if posed is None else posed
        return {index: T for index, T in posed.items() if index not in left_out}

    @property
    def motion_known(self) -> bool:
        """Whether two poses are near enough in time to tell a velocity by which depth is moved."""
        posed = set(self.posed_anywhere())
        times = np.unique([time for index, time in zip(self.indices, self.timestamps) if index in posed])
        return bool(np.any(np.diff(times) <= LONGEST))

    def posed_anywhere(self) -> dict[int, np.ndarray]:
        """The same for the frames of all sub-maps, whose worlds lie far apart."""
        lost = set(self.lost)
        return {index: T for index, T in zip(self.indices, self.poses) if index not in lost}

    def record(self, step: Step) -> None:
        """Add a step to what is done."""
        T = step.tracking.T_world_camera
        if step.tracking.state == "poor":
            self.poor.append(step.frame.index)
            if step.frame.index not in self.depth_repeated:  # which has its own reason
                self.poor_reason = step.tracking.reason
        self.noise = step.tracking.noise or self.noise
        if step.observation.hidden is not None:
            self.hidden[step.frame.index] = hidden_cells(step.observation.hidden)
        if step.tracking.ok:
            self.fused += step.fused
            if step.fused and step.observation.class_probabilities is not None:
                self.labelled.append(step.frame.index)
        else:
            self.lost.append(step.frame.index)
            if step.frame.index not in self.poses_rejected or not self.reason:
                self.reason = step.tracking.reason
            if not self.poses:
                return  # there is not even a last pose to repeat
            T = self.poses[-1]
        self.add_pose(step.frame.index, step.frame.timestamp, T, step.tracking.submap)
        if step.correction is not None:
            self.poses = list(step.correction.corrected(self.indices, np.array(self.poses)))
            self.others = [run.corrected(step.correction) for run in self.others]
            self.loops += 1
            if step.correction.joined is not None:
                gone, into = step.correction.joined
                self.submaps = [into if number == gone else number for number in self.submaps]
        for stage, milliseconds in step.stages_ms.items():
            self.stages_ms.setdefault(stage, []).append(milliseconds)

    def add_pose(self, index: int, timestamp: float, T_world_camera: np.ndarray, submap: int = 0) -> None:
        """Add the pose of a frame, also of one that is not looked at as nothing of it would enter the map."""
        self.indices.append(index)
        self.timestamps.append(timestamp)
        self.poses.append(T_world_camera)
        self.submaps.append(submap)

    def with_found(self, slam: SlamConfig) -> SlamConfig:
        """A run's settings with what it found out about its depth: which of it is used, how it is read, its noise."""
        fusion, perception = slam.fusion, replace(slam.perception, readout=self.readout)
        if self.depth_range is not None:
            fusion = replace(fusion, near=self.depth_range[0], far=self.depth_range[1])
        if self.noise is not None:
            fusion = replace(fusion, noise=self.noise[0], noise_quadratic=self.noise[1])
        return replace(slam, fusion=fusion, perception=perception)

    def count_depth(self, used: int, read: int) -> None:
        """Add a frame's depth readings, and how many of them are in the range that is used."""
        self.depth_used, self.depth_read = self.depth_used + used, self.depth_read + read

    @property
    def identity(self) -> int:
        """By which a run is recognised whose map another one goes on with: its frames, when and where they were."""
        return identity_of(self.indices, self.timestamps, self.poses)

    def state(self) -> dict[str, np.ndarray]:
        """What must be kept to go on later; for `from_state`."""
        arrays = {
            "run_next_index": np.array(self.next_index),
            "run_timestamps": np.array(self.timestamps, np.float64),
            "run_poses": np.array(self.poses, np.float64).reshape(-1, 4, 4),
            "run_seconds": np.array(self.seconds),
            "run_loops": np.array(self.loops),
            "run_fused": np.array(self.fused),
            "run_passed_by": np.array(self.passed_by),
            "run_depth": np.array([self.depth_used, self.depth_read]),
            "run_reason": np.array(self.reason),
            "run_poor_reason": np.array(self.poor_reason),
            "run_poses_contradicted": np.array(self.poses_contradicted or ""),
            "run_depth_contradicted": np.array(self.depth_contradicted),
            "run_before": np.array(self.before),
            "run_submaps": np.array(self.submaps, np.int64),
            "run_noise": np.array(self.noise or (), np.float64),
            "run_depth_range": np.array(self.depth_range or (), np.float64),
            "run_hidden_frames": np.array(list(self.hidden), np.int64),
            "run_hidden": np.array(list(self.hidden.values()), np.uint8),
            "run_readout": np.array([] if self.readout is None else [self.readout]),
        }
        arrays |= _others_state(self.others)
        for name in FRAME_LISTS:
            arrays[f"run_{name}"] = np.array(getattr(self, name), np.int64)
        for stage, values in self.stages_ms.items():
            arrays[f"run_ms_{stage}"] = np.array(values)
        return arrays

    @staticmethod
    def from_state(state: dict[str, np.ndarray]) -> Progress:
        """The progress whose `state` is among these arrays."""
        lists: dict[str, Any] = {name: state[f"run_{name}"].tolist() for name in FRAME_LISTS}
        used, read = state["run_depth"].tolist()
        return Progress(
            next_index=int(state["run_next_index"]),
            before=int(state["run_before"]),
            others=_others_from(state),
            timestamps=list(state["run_timestamps"]),
            poses=list(state["run_poses"]),
            submaps=state["run_submaps"].tolist(),
            seconds=float(state["run_seconds"]),
            loops=int(state["run_loops"]),
            fused=int(state["run_fused"]),
            passed_by=int(state["run_passed_by"]),
            depth_used=used,
            depth_read=read,
            noise=_pair(state["run_noise"]),
            hidden=dict(zip(state["run_hidden_frames"].tolist(), state["run_hidden"])),
            depth_range=_pair(state["run_depth_range"]),
            readout=next(iter(state["run_readout"].tolist()), None),
            reason=str(state["run_reason"]),
            poor_reason=str(state["run_poor_reason"]),
            poses_contradicted=str(state["run_poses_contradicted"]) or None,
            depth_contradicted=str(state["run_depth_contradicted"]),
            stages_ms={name: list(v) for name, v in under_prefix("run_ms_", state).items()},
            **lists,
        )


def identity_of(indices: ArrayLike, timestamps: ArrayLike, poses: ArrayLike) -> int:
    """`Progress.identity` of what `Progress.state` has by the names of IDENTIFYING."""
    whole = np.asarray(indices, np.int64), np.asarray(timestamps, np.float64), np.asarray(poses, np.float64)
    return zlib.crc32(b"".join(array.tobytes() for array in whole))


def _by_time(timestamps: list[float] | np.ndarray, poses: list[np.ndarray] | np.ndarray) -> Trajectory:
    """Poses in the order of their times; of those with the same time the first."""
    times, first = np.unique(np.array(timestamps), return_index=True)
    return Trajectory(times, np.array(poses).reshape(-1, 4, 4)[first])


def _pair(numbers: Iterable[float]) -> tuple[float, float] | None:
    """Two numbers that were kept, or None."""
    kept = tuple(map(float, numbers))
    return (kept[0], kept[1]) if kept else None


def _others_state(others: list[OtherRun]) -> dict[str, np.ndarray]:
    """Other runs as arrays; those of their frames one after another."""
    return {
        "run_others_folder": np.array([run.folder for run in others], np.str_),
        "run_others_identity": np.array([run.identity for run in others], np.int64),
        "run_others_shift": np.array([run.shift for run in others], np.int64),
        "run_others_frames": np.array([len(run.indices) for run in others], np.int64),
        "run_others_indices": np.concatenate([np.zeros(0, np.int64), *(run.indices for run in others)]),
        "run_others_timestamps": np.concatenate([np.zeros(0), *(run.timestamps for run in others)]),
        "run_others_poses": np.concatenate([np.zeros((0, 4, 4)), *(run.T_world_camera for run in others)]),
    }


def _others_from(state: dict[str, np.ndarray]) -> list[OtherRun]:
    """The other runs whose `_others_state` is among these arrays."""
    ends = np.cumsum(state["run_others_frames"])[:-1]
    of_frames = (np.split(state[f"run_others_{name}"], ends) for name in ("indices", "timestamps", "poses"))
    of_runs = (state[f"run_others_{name}"].tolist() for name in ("folder", "identity", "shift"))
    return [OtherRun(*values) for values in zip(*of_runs, *of_frames)]
