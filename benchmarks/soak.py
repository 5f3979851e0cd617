"""A long recording: do memory and the time of a frame stay flat?

    python benchmarks/soak.py [--frames 6000] [--width 320] [--drift 0.2] [--limit 250]

A Kinect is walked round and round the synthetic room, no two rounds alike, tracked by a tracker that drifts, with
loops closed. Each line is a stretch of frames: median, 99th percentile and largest time of a step (milliseconds,
without making the frame), the most processor time that the main thread took for one, what loop closure has to remember,
the size of the map, and the memory of the process. At the end the slowest frames stand with what they did. Ends with 1
if a frame after the first two hundred, in which the loops are compiled and the first one closes, took longer than the
limit.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from semslam import poses
from semslam.frame import Observation, Tracking, View
from semslam.loops.loop_closure import LoopCloser
from semslam.metrics.trajectory import absolute_error
from semslam.slam import Slam
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Trajectory
from sequences.room.kinect_noise import kinect_noise
from sequences.room.room import RoomSequence, orbit

WARM = 200  # frames whose time does not count


def walk(seconds: float) -> np.ndarray:
    """T_world_camera (4, 4): the room's orbit, but never the same way and the same look twice."""
    slow = np.sin(seconds * np.array([0.11, 0.13, 0.17, 0.07, 0.05, 0.03]) + np.arange(6))
    return orbit(seconds) @ poses.exp(slow * [0.1, 0.1, 0.15, 0.1, 0.3, 0.1])


def megabytes() -> float:
    """The resident memory of this process, now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


class Drifting(Tracker):
    """A tracker that errs a little in every frame, always to the same side."""

    def __init__(self, drift: float) -> None:
        """drift: metres a frame."""
        super().__init__()
        self.error = poses.exp(drift * np.array([1, 0, 1, 0, 0.5, 0]))

    def track(self, observation: Observation, view: View, T_prior: np.ndarray) -> Tracking:
        tracking = super().track(observation, view, T_prior)
        return replace(tracking, T_world_camera=tracking.T_world_camera @ self.error)


@dataclass(frozen=True)
class Soak:
    """What a walk took."""

    milliseconds: np.ndarray  # (N,) a frame
    busy: np.ndarray  # (N,) milliseconds of the main thread's processor time; other jobs of the machine do not count
    stages_ms: list[dict[str, float]]  # a frame
    megabytes: np.ndarray  # at the end of each stretch
    ate: float  # metres


def soak(count: int, width: int, drift: float, every: int = 500) -> Soak:
    """Walk, and print a line for each stretch of `every` frames."""
    frames = RoomSequence(frames=count, width=width, height=3 * width // 4, noise=kinect_noise, path=walk)
    tracker = Drifting(drift)
    closer = LoopCloser(tracker)
    slam = Slam(frames.camera, perceive=Observation.of, track=tracker, loops=closer)
    milliseconds, busy, stages = np.zeros(count), np.zeros(count), []
    memory, T = [], np.empty((count, 4, 4))
    print(f"{'frames':>8}{'median':>9}{'p99':>9}{'largest':>9}{'busiest':>9}{'lost':>6}{'keyframes':>11}{'kept':>6}{'edges':>8}"
          f"{'closed':>8}{'surfels':>10}{'MB':>7}")  # fmt: skip
    lost = 0
    for i in range(count):
        frame = frames[i] if i == 0 else replace(frames[i], T_world_camera=None)
        began = time.perf_counter(), time.thread_time()
        step = slam.step(frame)
        milliseconds[i] = 1e3 * (time.perf_counter() - began[0])
        busy[i] = 1e3 * (time.thread_time() - began[1])
        stages.append(step.stages_ms)
        T[i] = step.tracking.T_world_camera
        lost += not step.tracking.ok
        if step.correction is not None:
            T[: i + 1] = step.correction.corrected(np.arange(i + 1), T[: i + 1])
        if (i + 1) % every == 0 or i + 1 == count:
            stretch = slice(max(i // every * every, min(WARM, i)), i + 1)
            part = milliseconds[stretch]
            memory.append(megabytes())
            kept = sum(snapshot is not None for snapshot in closer.closures.snapshots)
            print(f"{i + 1:8}{np.median(part):9.1f}{np.percentile(part, 99):9.1f}{part.max():9.1f}"
                  f"{busy[stretch].max():9.1f}{lost:6}"
                  f"{len(tracker.keyframes):11}{kept:6}{len(closer.edges):8}{closer.closed:8}{len(slam.surfels):10}"
                  f"{memory[-1]:7.0f}", flush=True)  # fmt: skip
    truth = Trajectory(frames.timestamps, np.stack([walk(t) for t in frames.timestamps]))
    ate = absolute_error(Trajectory(frames.timestamps, T), truth).rmse
    return Soak(milliseconds, busy, stages, np.array(memory), ate)


def slowest(found: Soak) -> None:
    """Print the slowest frames after the first ones, and what they did."""
    for i in sorted(np.argsort(found.milliseconds[WARM:])[::-1][:8] + WARM):
        stages = ", ".join(f"{name} {ms:.0f}" for name, ms in found.stages_ms[i].items() if ms >= 5)
        print(f"    frame {i}: {found.milliseconds[i]:.0f} ms, processor {found.busy[i]:.0f} ms ({stages})")


def main() -> None:
    """Print the table; 1 if a frame was too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--drift", type=float, default=0.2, help="millimetres a frame")
    parser.add_argument("--limit", type=float, default=250.0, help="milliseconds")
    arguments = parser.parse_args()
    found = soak(arguments.frames, arguments.width, 1e-3 * arguments.drift)
    warm = slice(min(WARM, arguments.frames - 1), None)
    longest, busiest = found.milliseconds[warm].max(), found.busy[warm].max()
    print(
        f"slowest frame {longest:.0f} ms (at most {arguments.limit:.0f}), {busiest:.0f} ms of the main thread's "
        f"processor time at most, ATE {1e3 * found.ate:.1f} mm"
    )
    slowest(found)
    sys.exit(int(longest > arguments.limit))


if __name__ == "__main__":
    main()
