"""The systems that tracking.py compares, each given the same frames, and what is reported of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from semslam.depth.readout import KINECT_READOUT, has_kinect_steps
from semslam.frame import Frame, Observation, evenly_spread
from semslam.loops.loop_closure import LoopCloser
from semslam.metrics import trajectory as evaluation
from semslam.slam import Slam, SlamConfig
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Trajectory
from sequences.room.room import RoomSequence

GAPS = (10, 60, 100, 199)  # frames: how far apart depth is compared


@dataclass(frozen=True)
class Result:
    """What a system made of some frames."""

    name: str
    T_world_camera: np.ndarray  # (N, 4, 4)
    ok: np.ndarray  # (N,) bool
    milliseconds: np.ndarray  # (N,) a frame


System = Callable[[Sequence[Frame]], Result]


def without_pose(frame: Frame) -> Frame:
    return replace(frame, T_world_camera=None)


def settings_for(frames: Sequence[Frame], config: SlamConfig | None = None) -> SlamConfig:
    """The settings with the readout that a run would choose: that of a Kinect's recording, 0 for the rendered room."""
    config, camera = config or SlamConfig(), frames[0].camera
    if camera == RoomSequence(1, camera.width, camera.height).camera:
        return config
    depths = (frame.depth for frame in evenly_spread(frames, 4) if frame.depth is not None)
    readout = KINECT_READOUT if has_kinect_steps(depths) else 0.0
    return replace(config, perception=replace(config.perception, readout=readout))


def semslam(frames: Sequence[Frame], loops: bool = True) -> Result:
    """Tracking with fusion, as `reconstruct --poses tracked` does it; starts at the first frame's given pose."""
    result, _ = semslam_with_map(frames, loops)
    return result


def semslam_with_map(
    frames: Sequence[Frame], loops: bool = True, tracker: Tracker | None = None
) -> tuple[Result, Slam]:
    tracker = tracker or Tracker(places=Places())
    slam = Slam(
        frames[0].camera,
        settings_for(frames),
        perceive=Observation.of,
        track=tracker,
        loops=LoopCloser(tracker) if loops else None,
        places=tracker.places,
    )
    T, ok, milliseconds = [], [], []
    for i, frame in enumerate(frames):
        began = time.perf_counter()
        step = slam.step(frame if i == 0 else without_pose(frame))
        milliseconds.append((time.perf_counter() - began) * 1e3)
        T.append(step.tracking.T_world_camera)
        ok.append(step.tracking.ok)
        if step.correction is not None:
            T = list(step.correction.corrected([f.index for f in frames[: i + 1]], np.stack(T)))
    return Result(
        "semslam" + ("" if loops else " without loops"), np.stack(T), np.array(ok), np.array(milliseconds)
    ), slam


def open3d_odometry(method: str) -> System:
    """Frame to frame: Open3D's rgbd_odometry_multi_scale with its defaults."""

    def run(frames: Sequence[Frame]) -> Result:
        import open3d as o3d

        o3d.utility.set_max_threads(2)
        odometry = o3d.t.pipelines.odometry
        K = o3d.core.Tensor(frames[0].camera.K)
        identity = o3d.core.Tensor(np.eye(4))
        T, ok, milliseconds, previous = [frames[0].T_world_camera], [True], [0.0], _rgbd(frames[0])
        for frame in frames[1:]:
            began = time.perf_counter()
            live = _rgbd(frame)
            try:
                found = odometry.rgbd_odometry_multi_scale(
                    live, previous, K, identity, 1000.0, 5.0,
                    [odometry.OdometryConvergenceCriteria(n) for n in (10, 5, 3)], getattr(odometry.Method, method),
                )  # fmt: skip
                T.append(T[-1] @ found.transformation.numpy())
                ok.append(bool(found.fitness > 0.1))
            except RuntimeError:  # a singular system ends the odometry of a frame
                T.append(T[-1])
                ok.append(False)
            previous = live
            milliseconds.append((time.perf_counter() - began) * 1e3)
        return Result(f"Open3D odometry {method}", np.stack(T), np.array(ok), np.array(milliseconds))

    return run


def open3d_model(frames: Sequence[Frame], voxel_size: float = 0.01) -> Result:
    """Frame to model: Open3D's t.pipelines.slam.Model, in the order of its own example."""
    import open3d as o3d

    o3d.utility.set_max_threads(2)
    slam, cpu = o3d.t.pipelines.slam, o3d.core.Device("CPU:0")
    height, width = frames[0].camera.shape
    K = o3d.core.Tensor(frames[0].camera.K)
    T = frames[0].T_world_camera
    model = slam.Model(voxel_size, 16, 40000, o3d.core.Tensor(T), cpu)
    live, cast = slam.Frame(height, width, K, cpu), slam.Frame(height, width, K, cpu)
    all_T, ok, milliseconds = [], [], []
    for i, frame in enumerate(frames):
        began = time.perf_counter()
        live.set_data_from_image("depth", o3d.t.geometry.Image(_millimetres(frame)))
        live.set_data_from_image("color", o3d.t.geometry.Image(o3d.core.Tensor(np.ascontiguousarray(frame.color))))
        good = True
        if i > 0:
            try:
                found = model.track_frame_to_model(live, cast, 1000.0, 5.0, 0.07)
                T = T @ found.transformation.numpy()
                good = bool(found.fitness > 0.1)
            except RuntimeError:
                good = False
        model.update_frame_pose(i, o3d.core.Tensor(T))
        model.integrate(live, 1000.0, 5.0, 8.0)
        model.synthesize_model_frame(cast, 1000.0, 0.1, 5.0, 8.0, False)
        milliseconds.append((time.perf_counter() - began) * 1e3)
        all_T.append(T)
        ok.append(good)
    name = f"Open3D slam.Model {voxel_size * 1e3:.0f} mm"
    return Result(name, np.stack(all_T), np.array(ok), np.array(milliseconds))


def _millimetres(frame: Frame):
    import open3d as o3d

    return o3d.core.Tensor(np.rint(frame.depth * 1000).astype(np.uint16))


def _rgbd(frame: Frame):
    import open3d as o3d

    color = o3d.t.geometry.Image(o3d.core.Tensor(np.ascontiguousarray(frame.color)))
    return o3d.t.geometry.RGBDImage(color, o3d.t.geometry.Image(_millimetres(frame)))


def given(frames: Sequence[Frame]) -> Result:
    """The data set's own poses."""
    T = np.stack([frame.T_world_camera for frame in frames])
    return Result("data set", T, np.ones(len(T), bool), np.zeros(len(T)))


def trajectories(result: Result, frames: Sequence[Frame]) -> tuple[Trajectory, Trajectory]:
    times = np.array([frame.timestamp for frame in frames])
    return Trajectory(times, result.T_world_camera), Trajectory(times, np.stack([f.T_world_camera for f in frames]))


def tracked_error(result: Result, frames: Sequence[Frame]) -> float:
    """ATE of the frames that were not lost, metres."""
    estimate, truth = trajectories(result, frames)
    return evaluation.absolute_error(estimate.selected(result.ok), truth.selected(result.ok)).rmse


def report(result: Result, frames: Sequence[Frame]) -> float:
    """Print one line about a result; returns its ATE in metres."""
    estimate, truth = trajectories(result, frames)
    ate, rpe = evaluation.absolute_error(estimate, truth), evaluation.relative_error(estimate, truth)
    depths = [frame.depth for frame in frames]
    own = " ".join(
        f"{evaluation.self_consistency(depths, frames[0].camera, result.T_world_camera, gap) * 1e3:5.1f}"
        for gap in GAPS
        if gap < len(frames)
    )
    print(
        f"{result.name:28s} ATE {ate.rmse * 1e3:7.2f} mm (largest {ate.maximum * 1e3:7.1f})  "
        f"RPE {rpe.rmse_m * 1e3:6.2f} mm {np.degrees(rpe.rmse_rad):6.3f} deg  "
        f"lost {np.count_nonzero(~result.ok):3d}  depth against itself {own} mm  "
        f"{np.median(result.milliseconds[5:]):6.1f} ms a frame",
        flush=True,
    )
    return ate.rmse


PEERS: tuple[System, ...] = (open3d_odometry("Hybrid"), open3d_odometry("PointToPlane"), open3d_model)
