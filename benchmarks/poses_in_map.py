"""Maps from given, tracked, predicted and refined poses: how good is each? And is a camera found again in a map?

    python benchmarks/poses_in_map.py OUT WEIGHTS [--sequence ../shared/data/redkitchen] [--width 320]
    python benchmarks/poses_in_map.py OUT    (only `semslam localise`: second halves of recordings in maps of the first)

WEIGHTS is the pose network of that scene, runs/pose_experiment/redkitchen/mapnet-1/network.safetensors of
benchmarks/poses.py for example: it has seen 56 % of the frames in training, and none of the last 30 %. Every run is
that of `semslam reconstruct`, without labels and without a mesh, and is judged by what `semslam evaluate` runs. Runs
stay in OUT and are not repeated.

Tracked and refined poses start at the data set's first pose; the predicted ones are all the network's. The median error
is that of the frames fused, in the data set's world; ATE, accuracy and completeness are after an alignment of the
fused frames, as `semslam evaluate` has it.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.files.writing import write_json
from semslam.frame import Observation, Tracking
from semslam.judging.references import scene_reference
from semslam.judging.run import evaluate_run
from semslam.perception import PerceptionConfig
from semslam.poses import inverse, rotation_angle
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.networks import pose_network
from semslam.runs.reconstruct import prepare
from semslam.slam import Predict, Slam, SlamConfig
from semslam.tracking.judgement import TrackingConfig
from semslam.tracking.predicted_poses import proposals
from semslam.tracking.relocalisation.localisation import Localiser, without_depth
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from sequences import open_sequence
from sequences.selected import selected

DATA = "../shared/data/"
# recordings -> frames that are mapped; as many after them are localised
HALVES = {
    DATA + "redkitchen": 100,
    DATA + "icl_livingroom1": 105,
    DATA + "nyuv2_cafe": 110,
    DATA + "realsense_office": 150,
}
HALVES |= {"room:frames=120": 60, "room:frames=120,noise=kinect": 60}
RUNS = {"given": "dataset", "tracked": "tracked", "predicted": "predicted", "predicted + refined": "predicted-refined"}


def reconstructed(out: Path, sequence: str, poses: str, weights: str, width: int) -> Path:
    """The folder of a run, made unless it is there."""
    folder = out / poses
    if not (folder / "metrics.json").is_file():
        needs = weights if poses.startswith("predicted") else None
        settings = {"sequence": sequence, "poses": poses, "pose_weights": needs}
        settings |= {"slam.perception.labels": "none", "slam.perception.width": width}
        run = prepare(settings_of(None, settings), folder)
        for _ in run:
            pass
        finish(run, mesh=False)
    return folder


def world_errors(folder: Path, sequence: str) -> tuple[float, float]:
    """Median metres and degrees of the believed poses in the data set's world, without any alignment."""
    run, truth = RunFolder.open(folder), open_sequence(sequence)
    trajectory, lost = run.load_trajectory(), set(run.load_metrics()["lost"])
    metres, degrees = [], []
    for T, time in zip(trajectory.T_world_camera, trajectory.timestamps):
        i = int(np.abs(np.asarray(truth.timestamps) - time).argmin())
        if i in lost:
            continue
        off = error(truth[i].T_world_camera, T)
        metres.append(off[0])
        degrees.append(off[1])
    return float(np.median(metres)), float(np.median(degrees))


def found_again(sequence: str, weights: str, width: int) -> None:
    """A camera that appears anywhere in a map of the training frames: found by the network, or by keyframes, or not?

    The map is tracked. "Between" are frames that were left out of it and of the training; "later" those after both,
    some of which see places that are not in the map. Right is within 10 cm and 3 degrees of the data set's pose.
    """
    recording, pose_of = open_sequence(sequence), pose_network(weights)
    config = SlamConfig(perception=PerceptionConfig(labels="none", width=width))
    places = Places()
    tracker = Tracker(config.tracking, places=places)
    slam = Slam(recording.camera, config, track=tracker, places=places, label_set=recording.label_set)
    last = int(0.7 * len(recording))
    for i in range(last):
        if i % 5 != 4:
            slam.step(recording[i])
    print("\n| frames | of | by | found right | found wrong | network off by m | deg | found off by m | deg |\n"
          "|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name, indices in (("between", range(4, last, 5)), ("later", range(last, len(recording), 4))):
        found: dict[str, list[tuple[float, float]]] = {"network": [], "keyframes": [], "both": []}
        predicted = []
        for i in indices:
            frame = recording[i]
            truth, frame = frame.T_world_camera, replace(frame, T_world_camera=None, timestamp=frame.timestamp + 60)
            observation = slam.fusion.prepare(slam.perceive(frame))
            predicted.append(error(truth, pose_of(frame.color)))
            for by in found:
                known = Places() if by == "network" else places
                anew = Tracker(config.tracking, propose=None if by == "keyframes" else proposals(pose_of), places=known)
                if by != "network":
                    anew.restore(tracker.state())
                    anew.lost = True
                tracking = anew(observation, slam.predict)
                if tracking.ok and tracking.covariance is not None:
                    found[by].append(error(truth, tracking.T_world_camera))
        raw = np.median(np.array(predicted), axis=0)
        for by, errors in found.items():
            right = [e for e in errors if e[0] < 0.1 and e[1] < 3]
            off = np.median(np.array(right), axis=0) if right else (float("nan"),) * 2
            print(f"| {name} | {len(predicted)} | {by} | {len(right)} | {len(errors) - len(right)} "
                  f"| {raw[0]:.3f} | {raw[1]:.1f} | {off[0]:.3f} | {off[1]:.2f} |", flush=True)  # fmt: skip


def localised(name: str, half: int, depth: bool) -> None:
    """A row: frames `half` to 2 `half` of a recording found in a map of those before, each frame by itself.

    Errors against the recorded poses, by which the map was made, too, and against tracking of both halves together,
    with the map of the tracked first half: where the recorded poses disagree with themselves, as the kitchen's do by
    5 to 9 cm and 2 to 3 degrees between its halves, only the second says what localising is worth.
    """
    recording = selected(open_sequence(name), 0, 2 * half)
    cells = []
    for tracked in (False, True):
        if not tracked and not recording.has_poses:
            cells.append("| - | - | - | -")
            continue
        slam = _mapped(recording, half, tracked)
        truth = _mapped(recording, 2 * half, True).track.trail if tracked else recording.poses
        assert slam.places is not None
        localiser = Localiser(slam.surfels, slam.places, slam.config.fusion, slam.config.tracking)
        errors = []
        for i in range(half, 2 * half, 2):
            frame = recording[i]
            found = localiser.locate(frame if depth else without_depth(frame))
            if found.T_world_camera is not None and truth[i] is not None:
                errors.append(error(truth[i], found.T_world_camera))
        median = np.median(np.array(errors).reshape(-1, 2), axis=0)
        wrong = sum(e[0] > 0.15 or e[1] > 5 for e in errors)
        cells.append(
            f"| {100 * len(errors) / len(range(half, 2 * half, 2)):.0f} % | {median[0]:.3f} | {median[1]:.2f} | {wrong}"
        )
    print(f"| {Path(name).name} | {'depth' if depth else 'colour'} {' '.join(cells)} |", flush=True)


class _Trail(Tracker):
    """A tracker that remembers its poses by frame."""

    def __init__(self, config: TrackingConfig, places: Places) -> None:
        super().__init__(config, places=places)
        self.trail: dict[int, np.ndarray] = {}

    def __call__(self, observation: Observation, predict: Predict) -> Tracking:
        tracking = super().__call__(observation, predict)
        self.trail[observation.frame.index] = tracking.T_world_camera
        return tracking


def _mapped(recording: Any, frames: int, tracked: bool) -> Slam:
    places = Places()
    config = SlamConfig(perception=PerceptionConfig(labels="none"))
    track = _Trail(config.tracking, places=places) if tracked else None
    slam = Slam(recording.camera, config, track=track, places=places)
    for i in range(frames):
        frame = recording[i]
        slam.step(replace(frame, T_world_camera=None) if tracked and i else frame)
    return slam


def error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Metres and degrees between two poses."""
    E = inverse(a) @ b
    return float(np.linalg.norm(E[:3, 3])), float(np.degrees(rotation_angle(E)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", nargs="?")
    parser.add_argument("--sequence", default="../shared/data/redkitchen")
    parser.add_argument("--width", type=int, default=320)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # each lost frame would say so
    print("| recording, halves | from | found | median m | deg | wrong | tracked: found | median m | deg | wrong |\n"
          "|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name, half in HALVES.items():
        for depth in (False, True):
            localised(name, half, depth)
    if arguments.weights is None:
        return
    reference = scene_reference(open_sequence(arguments.sequence))
    print("| poses | frames fused | median error m | deg | ATE cm | RPE mm | accuracy cm | completeness cm "
          "| F 5 cm % | surfels |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    rows = {}
    for name, poses in RUNS.items():
        folder = reconstructed(arguments.out, arguments.sequence, poses, arguments.weights, arguments.width)
        metrics = RunFolder.open(folder).load_metrics()
        f = evaluate_run(folder, reference=reference).figures
        metres, degrees = world_errors(folder, arguments.sequence)
        print(f"| {name} | {metrics['frames_fused']} of {metrics['frames']} | {metres:.3f} | {degrees:.1f} "
              f"| {100 * f['ate_m']:.1f} | {1e3 * f['rpe_m']:.1f} | {100 * f['accuracy_m']:.2f} "
              f"| {100 * f['completeness_m']:.2f} | {100 * f['fscore_5cm']:.1f} | {metrics['surfels']} |",
              flush=True)  # fmt: skip
        rows[name] = f | {"frames_fused": metrics["frames_fused"], "median_m": metres, "median_deg": degrees}
    write_json(arguments.out / "table.json", rows)
    found_again(arguments.sequence, arguments.weights, arguments.width)


if __name__ == "__main__":
    main()
