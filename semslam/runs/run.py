"""One run: a sequence through the loop into a run folder, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semslam import config as configs
from semslam.depth.corrections import DepthHelps
from semslam.engine.associations import Associations
from semslam.engine.surfels import SurfelMap
from semslam.frame import Frame, Step, Tracking
from semslam.runs.folder import RunFolder, versions
from semslam.slam import Slam, SlamConfig, Track, given_pose
from semslam.tracking.predicted_poses import PoseOf, RefinedTrack, predicted_track, proposals
from semslam.tracking.tracker import Tracker, TrackingConfig
from semslam.trajectory import Trajectory

logger = logging.getLogger(__name__)
READ_AHEAD = 6  # frames decoded by another thread while one is fused


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes; config.yaml in its folder."""

    sequence: str = ""
    kind: str | None = None  # of the sequence; None = by its layout
    camera: str | None = None  # camera.yaml that replaces what the sequence says of its camera
    depth_scale: float | None = None  # depth units a metre, in place of what the sequence says
    poses: str = ""  # dataset | tracked | refined | predicted | predicted-refined | a file
    pose_weights: str | None = None  # of a pose network, for poses that are predicted or tracked
    hold_out: int | None = None  # every so many-th frame is not fused but kept to judge the map by
    max_corrupt: float = 0.1  # share of frames that may be unreadable before the run stops
    weights: str | None = None  # of the network; None = the bundled ones
    loops: bool = True  # whether tracked poses are corrected where the camera comes back
    engine: str | None = None  # of the inference; None = the best one present
    slam: SlamConfig = field(default_factory=SlamConfig)

    def open_sequence(self) -> Any:
        """The `sequences.Sequence` that the run is of."""
        from sequences import open_sequence

        return open_sequence(self.sequence, self.kind, camera=self.camera, depth_scale=self.depth_scale)


@dataclass
class Progress:
    """What a run has behind it, besides the map."""

    next_index: int = 0
    indices: list[int] = field(default_factory=list)
    timestamps: list[float] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    loops: int = 0  # closed
    fused: int = 0
    reason: str = ""  # why the last lost frame was lost
    seconds: float = 0.0
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    def trajectory(self) -> Trajectory:
        """The pose of every frame, by time; of frames with the same time the first.

        Lost frames repeat the last pose; those before the first pose are left out.
        """
        timestamps, first = np.unique(np.array(self.timestamps), return_index=True)
        return Trajectory(timestamps, np.array(self.poses).reshape(-1, 4, 4)[first])

    def record(self, step: Step) -> None:
        T = step.tracking.T_world_camera
        if step.tracking.ok:
            self.fused += step.fused
        else:
            self.lost.append(step.frame.index)
            self.reason = step.tracking.reason
            if not self.poses:
                return  # there is not even a last pose to repeat
            T = self.poses[-1]
        self.indices.append(step.frame.index)
        self.timestamps.append(step.frame.timestamp)
        self.poses.append(T)
        if step.correction is not None:
            self.poses = list(step.correction.corrected(self.indices, np.array(self.poses)))
            self.loops += 1
        for stage, milliseconds in step.stages_ms.items():
            self.stages_ms.setdefault(stage, []).append(milliseconds)

    def state(self) -> dict[str, np.ndarray]:
        arrays = {
            "run_next_index": np.array(self.next_index),
            "run_timestamps": np.array(self.timestamps, np.float64),
            "run_poses": np.array(self.poses, np.float64).reshape(-1, 4, 4),
            "run_seconds": np.array(self.seconds),
            "run_loops": np.array(self.loops),
            "run_fused": np.array(self.fused),
            "run_reason": np.array(self.reason),
        }
        for name in ("indices", "lost", "corrupt", "held_out"):
            arrays[f"run_{name}"] = np.array(getattr(self, name), np.int64)
        for stage, values in self.stages_ms.items():
            arrays[f"run_ms_{stage}"] = np.array(values)
        return arrays

    @staticmethod
    def from_state(state: dict[str, np.ndarray]) -> Progress:
        lists: dict[str, Any] = {
            name: [int(i) for i in state[f"run_{name}"]] for name in ("indices", "lost", "corrupt", "held_out")
        }
        return Progress(
            next_index=int(state["run_next_index"]),
            timestamps=list(state["run_timestamps"]),
            poses=list(state["run_poses"]),
            seconds=float(state["run_seconds"]),
            loops=int(state["run_loops"]),
            fused=int(state["run_fused"]),
            reason=str(state.get("run_reason", "")),
            stages_ms={name[len("run_ms_") :]: list(v) for name, v in state.items() if name.startswith("run_ms_")},
            **lists,
        )


class Run:
    """A reconstruction in progress. Iterate to step through the sequence; `save` at any time between two steps."""

    def __init__(self, config: RunConfig, sequence: Any, slam: Slam, folder: RunFolder, resume: bool = False) -> None:
        """sequence: an open `sequences.Sequence`. resume: go on where the folder's saved state ends, if it has one."""
        self.config, self.sequence, self.slam, self.folder = config, sequence, slam, folder
        self.progress = Progress()
        # where a network's labels would go, so can others later
        slam.remember(Associations(config.slam.perception.network_labels_every))
        if resume and folder.state.is_file():
            self._restore()

    def __len__(self) -> int:
        """Frames still to do."""
        return len(self.sequence) - self.progress.next_index

    def __iter__(self) -> Iterator[Step | None]:
        """Step through the remaining frames; None for one that was unreadable or held out."""
        began = time.perf_counter()
        for index, frame in self._frames():
            step = self._advance(index, frame)
            self.progress.next_index = index + 1
            self.progress.seconds += time.perf_counter() - began
            yield step
            began = time.perf_counter()  # waiting for the next frame to be decoded counts

    def _advance(self, index: int, frame: Frame | Exception) -> Step | None:
        if isinstance(frame, Exception):
            self.progress.corrupt.append(index)
            logger.warning("frame %d is skipped: %s", index, frame)
            allowed = max(1, int(self.config.max_corrupt * len(self.sequence)))
            if len(self.progress.corrupt) > allowed:
                self.progress.next_index = index + 1
                self.save()
                raise ValueError(
                    f"{self.config.sequence}: {len(self.progress.corrupt)} of {index + 1} frames are unreadable, more "
                    f"than the {allowed} allowed (max_corrupt of a --config file raises that); the last: {frame}"
                )
            return None
        if self.config.hold_out and index % self.config.hold_out == self.config.hold_out - 1:
            self.progress.held_out.append(index)
            return None
        step = self.slam.step(frame)
        self.progress.record(step)
        return step

    def _frames(self) -> Iterator[tuple[int, Frame | Exception]]:
        """Frames in order, decoded ahead by another thread; the exception of one that cannot be read."""

        def read(index: int) -> Frame | Exception:
            try:
                return self.sequence[index]
            except (ValueError, OSError) as error:
                return error

        first, last = self.progress.next_index, len(self.sequence)
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(read, i) for i in range(first, min(first + READ_AHEAD, last))]
            try:
                for index in range(first, last):
                    frame = ahead.pop(0).result()
                    if index + READ_AHEAD < last:
                        ahead.append(reader.submit(read, index + READ_AHEAD))
                    yield index, frame
            finally:
                for future in ahead:
                    future.cancel()

    def save(self) -> None:
        """Write the lossless state and the trajectory: enough to go on, or to look at what there is."""
        state = {**self.slam.surfels.state(), **self._loop_state(), **self.progress.state()}
        if self.slam.associations is not None:  # first, because the map beside it says how many of its events count
            self.folder.save_associations(self.slam.associations)
            state["run_events"] = np.array(len(self.slam.associations.events))
        self.folder.save_state(state)
        self.folder.forget_derived()
        configs.save(self.folder.config, self.config)  # beside the map that it made, not before
        self.folder.save_trajectory(self.progress.trajectory())

    def metrics(self) -> dict[str, Any]:
        """Counts, timings and versions, under the names of DESIGN.md."""
        progress, surfels = self.progress, self.slam.surfels
        done = progress.next_index - len(progress.corrupt) - len(progress.held_out)
        return {
            "frames": progress.next_index,
            "frames_fused": progress.fused,
            "frames_lost": len(progress.lost),
            "frames_corrupt": len(progress.corrupt),
            "frames_held_out": len(progress.held_out),
            "loops_closed": progress.loops,
            "surfels": surfels.living(),
            "surfels_turned_away": surfels.rejected,
            "bytes_per_surfel": surfels.bytes_per_surfel,
            "bytes_per_labelled_frame": self.slam.associations.bytes_per_frame if self.slam.associations else 0.0,
            "seconds": progress.seconds,
            "frames_per_second": done / progress.seconds if progress.seconds else float("nan"),
            "stages_ms": {
                stage: {"median": float(np.median(v)), "p95": float(np.percentile(v, 95))}
                for stage, v in progress.stages_ms.items()
            },
            "lost": progress.lost,
            "corrupt": progress.corrupt,
            "versions": versions(),
        }

    def _loop_state(self) -> dict[str, np.ndarray]:
        return {f"{name}_{key}": value for name, part in self._parts().items() for key, value in part.state().items()}

    def _parts(self) -> dict[str, Any]:
        """The parts of the loop, besides the map, that remember something between frames."""
        parts: dict[str, Any] = {"fusion": self.slam.fusion}
        if isinstance(self.slam.track, Tracker | RefinedTrack):
            parts["tracker"] = self.slam.track
        if self.slam.loops is not None:
            parts["loops"] = self.slam.loops
        if isinstance(self.slam.correct, DepthHelps):
            parts["helps"] = self.slam.correct
        return parts

    def _restore(self) -> None:
        saved = configs.load(self.folder.config, RunConfig)
        if saved != self.config:
            raise ValueError(
                f"{self.folder.config}: this run was made with other settings; resume it with the same, or use "
                f"another --out"
            )
        state = self.folder.load_state()
        self.slam.surfels = SurfelMap.from_state(state, self.config.slam.map)
        for name, part in self._parts().items():
            part.restore({k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(f"{name}_")})
        self.progress = Progress.from_state(state)
        if "run_events" in state:
            self.slam.remember(self.folder.load_associations(int(state["run_events"])))
        else:  # of an earlier version: what was not kept is not known
            self.slam.associations = None


def pose_source(
    poses: str, sequence: Any, config: TrackingConfig | None = None, pose_of: PoseOf | None = None
) -> Track:
    """The tracking that `--poses` names: given by the data set, tracked, refined, predicted, or a trajectory file's.

    pose_of: a pose network; it tells predicted poses, and where a tracked camera that is lost may be.
    """
    if poses in ("dataset", "refined") and not sequence.has_poses:
        raise ValueError(f"--poses {poses}: {sequence.name} has no poses; use --poses tracked or a trajectory file")
    if pose_of is not None and poses not in ("predicted", "predicted-refined", "tracked"):
        raise ValueError(f"--pose-weights is for --poses predicted or tracked, not for {poses}; leave it out")
    if poses in ("predicted", "predicted-refined"):
        if pose_of is None:
            raise ValueError(f"--poses {poses} needs --pose-weights FILE, the weights of a pose network")
        return predicted_track(pose_of) if poses == "predicted" else RefinedTrack(pose_of, config)
    if poses == "dataset":
        return given_pose
    if poses in ("tracked", "refined"):
        return Tracker(config, refine=poses == "refined", propose=proposals(pose_of) if pose_of else None)
    if not Path(poses).exists():
        raise FileNotFoundError(
            f"--poses {poses}: neither dataset, tracked, refined nor predicted, nor a file that exists"
        )
    return poses_from(Path(poses), sequence)


def poses_from(path: Path, sequence: Any) -> Track:
    """Tracking from a trajectory file, interpolated to the frames' times."""
    from semslam.trajectory import read_trajectory

    trajectory = read_trajectory(path)
    if not any(trajectory.at(float(t)) is not None for t in sequence.timestamps):
        raise ValueError(
            f"{path}: its times {trajectory.timestamps[0]:.3f} to {trajectory.timestamps[-1]:.3f} s meet none of the "
            f"frames' {sequence.timestamps[0]:.3f} to {sequence.timestamps[-1]:.3f} s; both must count from one clock"
        )
    gap = 0.1  # seconds between given poses beyond which the one in between is not known

    def track(observation: Any, predict: Any) -> Tracking:
        T = trajectory.at(observation.frame.timestamp, gap)
        if T is None:
            return Tracking(np.eye(4), ok=False, reason=f"{path} has no pose near {observation.frame.timestamp:.3f} s")
        return Tracking(T, ok=True)

    return track
