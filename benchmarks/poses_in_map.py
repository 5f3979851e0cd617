"""One map from given poses, one from tracked, one from a pose network's, one from these refined: how good is each?

    python benchmarks/poses_in_map.py OUT WEIGHTS [--sequence ../shared/data/redkitchen] [--width 320]

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
from pathlib import Path

import numpy as np

from semslam import config as configs
from semslam import main_job
from semslam.evaluate import evaluate_run, scene_reference
from semslam.perception import PerceptionConfig
from semslam.run import RunConfig
from semslam.run_folder import RunFolder, write_json
from semslam.slam import SlamConfig
from sequences import open_sequence

RUNS = {"given": "dataset", "tracked": "tracked", "predicted": "predicted", "predicted + refined": "predicted-refined"}


def reconstructed(out: Path, sequence: str, poses: str, weights: str, width: int) -> Path:
    """The folder of a run, made unless it is there."""
    folder = out / poses
    if not (folder / "metrics.json").is_file():
        settings = RunConfig(slam=SlamConfig(perception=PerceptionConfig(labels="none", width=width)))
        folder.mkdir(parents=True, exist_ok=True)
        path = out / "settings.yaml"
        configs.save(path, settings)
        needs = weights if poses.startswith("predicted") else None
        run = main_job.prepare(sequence, folder, config=path, poses=poses, pose_weights=needs)
        for _ in run:
            pass
        main_job.finish(run, mesh=False)
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
        E = np.linalg.inv(truth[i].T_world_camera) @ T
        metres.append(np.linalg.norm(E[:3, 3]))
        degrees.append(np.degrees(np.arccos(np.clip((np.trace(E[:3, :3]) - 1) / 2, -1, 1))))
    return float(np.median(metres)), float(np.median(degrees))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--sequence", default="../shared/data/redkitchen")
    parser.add_argument("--width", type=int, default=320)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # each lost frame would say so
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


if __name__ == "__main__":
    main()
