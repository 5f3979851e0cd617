"""Tracked poses beside Open3D's RGB-D odometry and its t.pipelines.slam.Model, on the same frames in one run.

Run on an otherwise idle machine:  python benchmarks/tracking.py [--only accuracy,recordings,held-out,...]
Everything is decoded beforehand, except where whole runs are timed; two threads for everybody.
"""

from __future__ import annotations

from semslam import poses  # isort: skip  # before NumPy, as the command line does: its BLAS then has one thread

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
from rgbd_systems import (
    GAPS,
    PEERS,
    Result,
    given,
    open3d_model,
    report,
    semslam,
    semslam_with_map,
    tracked_error,
    trajectories,
)

from semslam.frame import Frame, Observation, Tracking, View
from semslam.metrics import trajectory as evaluation
from semslam.metrics.layering import layering
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.reconstruct import prepare
from semslam.slam import Slam
from semslam.tracking.features import features_of, pose_from
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from sequences import open_sequence
from sequences.room.room import NOISE, ROUND, RoomSequence, orbit
from sequences.room.wall import along_a_wall, bare, striped, with_a_picture


def with_holes(frame: Frame) -> Frame:
    """Half of what depth the frame has is gone, in blobs that change with every frame."""
    assert frame.depth is not None
    rng = np.random.default_rng(frame.index)
    blobs = cv2.resize(rng.standard_normal((36, 48), np.float32), frame.depth.shape[::-1])
    return replace(frame, depth=np.where(blobs < np.median(blobs), np.float32(0), frame.depth))


def recordings(data: Path) -> None:
    """The settings are the same for all of them. They were chosen while looking at the first four, office included, so
    these rows do not show how well they carry over to a recording that nobody has seen."""
    print("\nEvery recording, every 2nd and 3rd frame of it, and with half of its depth taken away")
    rooms = [f"room:frames=200,width=320,height=240,noise={noise}" for noise in ("kinect", "realsense", "tof")]
    for name in ("realsense_office", "redkitchen", "icl_livingroom1", "nyuv2_cafe", *rooms):
        whole = list(open_sequence(name if name.startswith("room") else data / name))
        for what, frames in (
            ("", whole),
            (", every 2nd", whole[::2]),
            (", every 3rd", whole[::3]),
            (", holes", [with_holes(frame) for frame in whole]),
        ):
            frames = [replace(frame, index=k) for k, frame in enumerate(frames)]
            print(f"{name}{what}, {len(frames)} frames")
            if frames[0].T_world_camera is None:
                result, slam = semslam_with_map([replace(f, T_world_camera=np.eye(4)) for f in frames])
                print(f"{result.name:28s} no truth; lost {np.count_nonzero(~result.ok)}, {len(slam.surfels)} surfels")
                continue
            for system in (semslam, *(PEERS if not what else ())):
                report(system(frames), frames)


def accuracy(data: Path) -> None:
    for name in ("realsense_office", "icl_livingroom1", "redkitchen"):
        frames = list(open_sequence(data / name))
        print(f"\n{name}, {len(frames)} frames; depth {', '.join(map(str, GAPS))} frames apart")
        report(given(frames), frames)
        for system in (semslam, lambda f: semslam(f, loops=False), *PEERS):
            report(system(frames), frames)


def reference(data: Path) -> None:
    """How closely the kitchen's given poses can be followed at all: they are those of another system."""
    frames = list(open_sequence(data / "redkitchen"))
    truth, ours = given(frames), semslam(frames)
    print(
        f"\nredkitchen: one step beside the two around it, and motions over {GAPS[0]} frames beside those of features"
    )
    for result in (truth, ours):
        step, off = out_of_line(result.T_world_camera)
        metres, radians = np.median(beside_features(result.T_world_camera, frames), axis=0)
        print(
            f"{result.name}: off by {off * 1e3:.0f} mm after frame {step}; by {metres * 1e3:.1f} mm and "
            f"{np.degrees(radians):.2f} degrees (medians)"
        )
    after, _ = out_of_line(truth.T_world_camera)
    mended = replace(truth, T_world_camera=with_even_step(truth.T_world_camera, after))
    parts = [slice(0, after + 1), slice(after + 1, None)]
    errors = [
        tracked_error(replace(ours, T_world_camera=ours.T_world_camera[part], ok=ours.ok[part]), frames[part])
        for part in parts
    ]
    print(
        f"ATE against the data set: its own poses with that step made even {tracked_error(mended, frames) * 1e3:.1f} "
        f"mm; semslam {tracked_error(ours, frames) * 1e3:.1f}, its two parts alone "
        f"{', '.join(f'{error * 1e3:.1f}' for error in errors)}"
    )
    for factor in (0.97, 1.03):
        others = [replace(f, camera=f.camera.with_focal(factor * f.camera.fx)) for f in frames]
        print(f"with {factor:g} times the focal length")
        report(semslam(others), others)


def out_of_line(T_world_camera: np.ndarray) -> tuple[int, float]:
    """The frame after which a step differs most from the mean of the steps before and after it, and by how many
    metres."""
    steps = np.stack([poses.log(poses.inverse(a) @ b)[:3] for a, b in pairwise(T_world_camera)])
    off = np.linalg.norm(steps[1:-1] - (steps[:-2] + steps[2:]) / 2, axis=1)
    return int(np.argmax(off)) + 1, float(off.max())


def with_even_step(T_world_camera: np.ndarray, after: int) -> np.ndarray:
    """Poses (N, 4, 4) whose step after a frame is the mean of the two around it; those that follow move along."""
    steps = [poses.inverse(a) @ b for a, b in pairwise(T_world_camera)]
    even = poses.exp((poses.log(steps[after - 1]) + poses.log(steps[after + 1])) / 2)
    here, there = T_world_camera[after] @ even, T_world_camera[after + 1]
    moved = here @ poses.inverse(there)
    return np.concatenate([T_world_camera[: after + 1], moved @ T_world_camera[after + 1 :]])


def beside_features(T_world_camera: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
    """(N, 2) metres and radians between poses' motions over GAPS[0] frames and those that features with depth tell."""
    off = []
    for first in range(0, len(frames) - GAPS[0], GAPS[0] // 2):
        here, there = frames[first], frames[first + GAPS[0]]
        known, live = (features_of(frame.color, frame.depth, frame.camera) for frame in (here, there))
        found = pose_from(known, live, here.camera)
        if found is not None and found.believable:
            motion = poses.inverse(T_world_camera[first]) @ T_world_camera[first + GAPS[0]]
            error = poses.inverse(motion) @ found.T_known_live
            off.append((np.linalg.norm(error[:3, 3]), poses.rotation_angle(error)))
    return np.array(off)


def first_failure(result: Result, frames: Sequence[Frame]) -> int | None:
    """The first frame that is lost, or whose motion since the one before is off by 5 cm or 5 degrees."""
    truth = np.stack([f.T_world_camera for f in frames])
    for i in range(1, len(frames)):
        E = poses.inverse(poses.inverse(truth[i - 1]) @ truth[i]) @ (
            poses.inverse(result.T_world_camera[i - 1]) @ result.T_world_camera[i]
        )
        if not result.ok[i] or np.linalg.norm(E[:3, 3]) > 0.05 or poses.rotation_angle(E) > np.radians(5):
            return frames[i].index
    return None


def steps(data: Path) -> None:
    print("\nEvery so many-th frame: the first frame that fails (lost, or 5 cm or 5 degrees off in one step), ATE")
    for name in ("icl_livingroom1", "redkitchen"):
        frames = list(open_sequence(data / name))
        for every in (1, 2, 3, 4, 6, 8):
            some = [replace(f, index=k) for k, f in enumerate(frames[::every])]
            line = []
            for system in (semslam, *PEERS):
                result = system(some)
                failed = first_failure(result, some)
                ate = evaluation.absolute_error(*trajectories(result, some)).rmse
                line.append(f"{result.name}: {'none' if failed is None else failed * every} ({ate * 1e3:.1f} mm)")
            print(f"{name} every {every}: " + "; ".join(line), flush=True)


def speed(data: Path) -> None:
    """Of whole runs, and of slam.Model on the first 60 frames of each."""
    print(
        "\nWhole runs, tracked, files read and decoded while the frame before is computed; Open3D's slam.Model at 10 mm"
    )
    print("on decoded frames. The ratio is of mean milliseconds a frame, labels included.")
    for name in ("redkitchen", "icl_livingroom1", "nyuv2_cafe", "realsense_office"):
        sequence = open_sequence(data / name)
        frames = [sequence[i] for i in range(min(len(sequence), 60))]
        if frames[0].T_world_camera is None:
            frames[0] = replace(frames[0], T_world_camera=np.eye(4))
        semslam(frames[:10])  # compile
        model = float(open3d_model(frames).milliseconds[5:].mean())
        for label, options in (
            ("tracked", {"slam.perception.labels": "none"}),
            ("tracked, network every 10 frames", {"slam.perception.label_every": 10}),
        ):
            metrics = whole_run(data / name, {"poses": "tracked", **options})
            rate = metrics["frames_per_second"]
            stages = ", ".join(f"{stage} {ms['median']:.1f}" for stage, ms in metrics["stages_ms"].items())
            print(
                f"{name}, {label}: {rate:.1f} frames/s, {model * rate / 1e3:.1f} times slam.Model ({model:.0f} ms a "
                f"frame), {metrics['frames_lost']} lost; median ms: {stages}",
                flush=True,
            )


def whole_run(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a run as `semslam reconstruct` makes it, without its mesh."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(settings_of(None, {"sequence": str(path), **settings}), Path(folder) / "run")
        for _ in run:
            pass
        return finish(run, mesh=False)


def held_out(data: Path) -> None:
    print("\nEvery 10th frame held out: median of its depth against the map made of the others, and coverage")
    for name in ("icl_livingroom1", "redkitchen"):
        for source in ("dataset", "tracked"):
            metrics = whole_run(data / name, {"poses": source, "slam.perception.labels": "none", "hold_out": 10})
            print(
                f"{name}, {source}: {metrics['held_out_depth_median_m'] * 1e3:.2f} mm, "
                f"{100 * metrics['held_out_coverage']:.1f} %, {metrics['frames_lost']} lost",
                flush=True,
            )


class Drifting(Tracker):
    """A tracker that errs a little in every frame, always to the same side."""

    def __init__(self, twist: np.ndarray) -> None:
        super().__init__()
        self.error = poses.exp(twist)

    def track(self, observation: Observation, view: View, T_prior: np.ndarray) -> Tracking:
        tracking = super().track(observation, view, T_prior)
        return replace(tracking, T_world_camera=tracking.T_world_camera @ self.error)


def thickness(slam: Slam) -> float:
    """Metres: how far surfels of one surface spread along its normal (90th percentile over the map of the spread,
    10th to 90th percentile, within 3 cm). Layers further apart are told by `layering`."""
    from scipy.spatial import cKDTree

    cloud = slam.cloud(3.0)
    tree, rng, spread = cKDTree(cloud.positions), np.random.default_rng(0), []
    chosen = rng.choice(len(cloud), min(5000, len(cloud)), replace=False)
    for i, near in zip(chosen, tree.query_ball_point(cloud.positions[chosen], 0.03)):
        same = np.array(near)[cloud.normals[near] @ cloud.normals[i] > 0.9]
        along = (cloud.positions[same] - cloud.positions[i]) @ cloud.normals[i]
        spread.append(np.subtract(*np.percentile(along, [90, 10])))
    return float(np.percentile(spread, 90))


def loops(data: Path) -> None:
    print("\nTwo rounds in the synthetic room, 160x120, 4 degrees per frame, drift forced on every frame")
    frames = list(RoomSequence(frames=2 * ROUND // 5, width=160, height=120, path=lambda t: orbit(5 * t)))
    for times, close in ((0, True), (10, False), (10, True), (15, False), (15, True)):
        twist = times * np.array([4e-4, 0, 4e-4, 0, 2e-4, 0])
        result, slam = semslam_with_map(frames, close, Drifting(twist))
        ate = evaluation.absolute_error(*trajectories(result, frames)).rmse
        closed = slam.loops.closed if slam.loops is not None else 0
        print(
            f"{times:2d} times, {'closing loops' if close else 'not closing'}: ATE {ate * 1e3:.1f} mm, "
            f"doubled {100 * layering(slam.cloud(3.0)):.2f} % of the surfels, "
            f"thickness {thickness(slam) * 1e3:.1f} mm, map bent {closed} times",
            flush=True,
        )


def kidnap(data: Path) -> None:
    print("\nCovered lens for 30 frames, then another place seen before")
    room = RoomSequence(frames=300, width=320, height=240)
    for back in (20, 80, 140, 200):
        frames = [room[i] for i in range(240)]
        dark = replace(frames[-1], depth=np.zeros_like(frames[-1].depth), color=np.zeros_like(frames[-1].color))
        frames += [dark] * 30 + [room[i] for i in range(back, back + 30)]
        frames = [replace(f, index=i, timestamp=i / 30) for i, f in enumerate(frames)]
        result = semslam(frames)
        again = np.flatnonzero(result.ok[270:])
        E = poses.inverse(frames[-1].T_world_camera) @ result.T_world_camera[-1]
        when = f"after {again[0]} frames" if len(again) else "never"
        print(f"frame {back}: lost {np.count_nonzero(~result.ok[240:270])} of 30, found {when}, "
              f"{np.linalg.norm(E[:3, 3]) * 1e3:.1f} mm off at the end", flush=True)  # fmt: skip


def pieces(data: Path) -> None:
    """The second piece shows nothing of the first; the third begins in the first and reaches the second."""
    print("\nA recording in three pieces without a common view where it was cut")
    for kind in ("none", "kinect"):
        room = RoomSequence(frames=300, width=320, height=240, noise=NOISE[kind], path=lambda s: orbit(1.5 * s))
        order = [*range(80), *range(140, 220), *range(80, 210)]
        frames = [replace(room[i], index=k, timestamp=k / 30) for k, i in enumerate(order)]
        tracker = Tracker(places=Places())
        result, _ = semslam_with_map(frames, tracker=tracker)
        error = tracked_error(result, frames)
        lost, state = np.count_nonzero(~result.ok), "apart" if tracker.submaps.apart else "joined"
        print(f"noise {kind}: {state}, {lost} of {len(frames)} frames lost, ATE {1e3 * error:.1f} mm", flush=True)
    kitchen = list(open_sequence(data / "redkitchen"))
    cut = [replace(f, index=k, timestamp=k / 30) for k, f in enumerate(kitchen[:40] + kitchen[90:])]
    result = semslam(cut)
    error = tracked_error(result, cut)
    lost = np.count_nonzero(~result.ok)
    print(f"kitchen without frames 40 to 89: {lost} of {len(cut)} lost, ATE {1e3 * error:.1f} mm", flush=True)


def walls(data: Path) -> None:
    print("\nWalls seen straight on with noise in grey (levels) and depth, 30 frames: what becomes of them, and by how")
    print("much poses that are not lost, and those that are fused, are off at most")
    for wall in (bare, striped, with_a_picture):
        for sensor, grey_noise in (("kinect", 1), ("kinect", 8), ("tof", 3), ("realsense", 3)):
            for metres in (0.0, 0.005, 0.02):
                frames = along_a_wall(wall(), metres, 30, grey_noise, sensor)
                states: list[str] = []
                result, _ = semslam_with_map(frames, loops=False, tracker=Watched(states))
                truth = np.stack([frame.T_world_camera for frame in frames])
                off = np.linalg.norm(result.T_world_camera[:, :3, 3] - truth[:, :3, 3], axis=1) * 1e3
                good = np.array(states) == "good"
                print(
                    f"{wall.__name__:14s} {sensor:9s} grey {grey_noise}, {metres * 1e3:2.0f} mm a frame: "
                    f"{good.sum():2d} good, {states.count('poor'):2d} poor, {states.count('lost'):2d} lost; "
                    f"{off[result.ok].max():5.1f} mm, fused {off[good].max():5.1f} mm",
                    flush=True,
                )


class Watched(Tracker):
    """A tracker that writes down the state of each frame."""

    def __init__(self, states: list[str]) -> None:
        super().__init__(places=Places())
        self.states = states

    def __call__(self, observation: Observation, predict: Callable[[np.ndarray], View]) -> Tracking:
        tracking = super().__call__(observation, predict)
        self.states.append(tracking.state)
        return tracking


def surface(data: Path) -> None:
    print("\nicl_livingroom1: mean distance of surfels to the noise-free depth of every 10th frame")
    from scipy.spatial import cKDTree

    frames = list(open_sequence(data / "icl_livingroom1"))
    points = np.concatenate(
        [
            (frame.camera.backproject(frame.depth)[frame.depth > 0] @ frame.T_world_camera[:3, :3].T.astype(np.float32)
             + frame.T_world_camera[:3, 3].astype(np.float32))[::3]
            for frame in frames[::10]
        ]
    )  # fmt: skip
    tree = cKDTree(points)
    given_slam = Slam(frames[0].camera, perceive=Observation.of)
    for frame in frames:
        given_slam.step(frame)
    result, tracked_slam = semslam_with_map(frames)
    alignment = evaluation.absolute_error(*trajectories(result, frames)).alignment
    means = []
    for name, slam in (("given poses", given_slam), ("tracked poses", tracked_slam)):
        positions = slam.cloud(3.0).positions
        if name == "tracked poses":
            positions = alignment(positions)
        means.append(float(np.mean(tree.query(positions[::5], workers=2)[0])))
        print(f"{name}: {means[-1] * 1e3:.2f} mm")
    print(f"difference {1e3 * (means[1] - means[0]):.2f} mm")


SECTIONS: dict[str, Callable[[Path], None]] = {
    "accuracy": accuracy,
    "reference": reference,
    "recordings": recordings,
    "held-out": held_out,
    "speed": speed,
    "steps": steps,
    "loops": loops,
    "kidnap": kidnap,
    "pieces": pieces,
    "walls": walls,
    "map": surface,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    arguments = parser.parse_args()
    numba.set_num_threads(min(2, numba.get_num_threads()))
    for name in arguments.only.split(","):
        SECTIONS[name](arguments.data)


if __name__ == "__main__":
    main()
