"""Pose networks on two scenes with one budget of processor time each, and nearest-neighbour retrieval beside them.

    python benchmarks/poses.py OUT [--seconds 30] [--seeds 1 2 3] [--scenes redkitchen icl_livingroom1] [--json FILE]

Training frames are the first 70 % of a scene, except every fifth of them; tested are those fifths ("between", frames
that have neighbours in training 1/30 s away) and the last 30 % ("later", which the camera reaches after training).
Every network starts from ImageNet's MobileNet-v2 at 160x120, the joint trunk from the bundled weights (trained on NYUv2
with labels and depth: a better start than the others have). Dual-Input reads labels that the bundled network predicts,
in training and in testing, because a camera brings no labels. MapNet+PGO adds the motions of our own tracking. MapNet++
goes on from MapNet, for the same time again, with these motions over the whole scene: the only one that has seen the
later images, without their poses. Both need OUT/SCENE_tracked, a run of `semslam reconstruct --poses tracked`.
What `semslam localise` finds by colour alone stands beside them where OUT/SCENE_map is a run over the training frames:
`semslam reconstruct ../shared/data/SCENE --frames 140 --hold-out 5 --labels none --no-mesh --out OUT/SCENE_map` (147
for the living room, 428 and `--poses dataset --depth predicted` for the desk); its medians are of the images that it
finds, and the share of these is printed.

A training that was killed goes on; results stand in OUT/SCENE/results.json after each; `--table` alone prints them.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from networks.inference.labelling import Teacher, label_folder
from networks.joint import checkpoints
from networks.pose.encoders import open_encoder
from networks.pose.predictor import PosePredictor
from networks.pose.samples import PoseSource, open_source
from networks.training.loop import Loop
from networks.training.pose import PoseTraining, train
from semslam import poses
from semslam.files.writing import write_json
from semslam.judging.pose_network import score_poses
from semslam.labels import LABEL_SETS
from semslam.loops.pose_windows import Covariances, windowed_poses
from semslam.metrics.localisation import pose_errors
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.finished.localise import located
from semslam.trajectory.files import read_tum
from sequences import open_sequence
from sequences.selected import SelectedSequence

DATA = Path("../shared/data")
IMAGENET = DATA / "weights" / "mobilenet_v2_imagenet_folded.npz"
LAST = {"redkitchen": 140, "icl_livingroom1": 147, "tum_fr1_desk_rgb": 428}  # frame after the last one of the 70 %
UNLABELLED = "tum_fr1_desk_rgb"  # its multi-task networks learn the bundled network's labels
TUPLES = {"tuple_length": 3, "skip": 10, "relative": "difference", "batch": 5}
MODELS: dict[str, dict] = {
    "PoseNet": {"network": "pose", "batch": 15},
    "MapNet": {"network": "pose", **TUPLES},
    "Dual-Input": {"network": "dual_input", **TUPLES},
    "Multi-task": {"network": "multitask", **TUPLES},
    "Multi-task, joint trunk": {"network": "joint", "trunk": "bundled", **TUPLES},
    "VLocNet": {"network": "vlocnet", **TUPLES},
    "VLocNet++": {"network": "vlocnet++", **TUPLES},
}
# Goes on from MapNet for the same time again, with motions of our own tracking over the whole scene: it sees the images
# of the later part, and not their poses.
PLUS = "MapNet++"
PGO, RETRIEVAL, MEAN = "MapNet + PGO", "retrieval", "mean pose of training"
LOCALISED = "semslam localise"
ORACLE = "nearest training pose (oracle)"  # what the best retrieval could reach
SPLITS = ("between", "later")


def sources(scene: str, labels: Path | None) -> tuple[PoseSource, dict[str, PoseSource]]:
    """(training frames, test frames by split) of a scene."""
    known = None if labels is None else str(labels)
    kept = PoseSource(str(DATA / scene), last=LAST[scene], hold_out=5, labels=known)
    later = PoseSource(str(DATA / scene), first=LAST[scene], labels=known)
    return kept, {"between": replace(kept, held_out=True), "later": later}


def with_motions(predicted: np.ndarray, numbers: np.ndarray, trajectory: Path) -> np.ndarray:
    """Predictions of test frames, made to agree with the motions between them by our own tracking."""
    tracked = read_tum(trajectory).T_world_camera[numbers]
    motions = poses.inverse(tracked[:-1]) @ tracked[1:]
    skip = max(1, round(10 / float(np.median(np.diff(numbers)))))
    return windowed_poses(predicted, motions, window=7, covariances=Covariances(), skip=skip)


@torch.no_grad()
def retrieved(train_source: PoseSource, source: PoseSource) -> np.ndarray:
    """The pose of the training image that looks most alike: cosine of the mean last features of ImageNet's encoder."""
    encoder = open_encoder("mobilenet_v2")
    encoder.load_imagenet(IMAGENET)
    encoder.eval()

    def features(images) -> torch.Tensor:
        from networks.joint.network import normalised
        from networks.pose.predictor import shrunk

        seen = [normalised(torch.from_numpy(shrunk(image.color, (120, 160)))[None]) for image in images]
        found = torch.cat([encoder.levels(image)[-1].mean((2, 3)) for image in seen])
        return torch.nn.functional.normalize(found, dim=1)

    known, asked = open_source(train_source), open_source(source)
    return known.T_world_camera[(features(asked) @ features(known).T).argmax(1).numpy()]


def baselines(scene: str) -> dict[str, dict[str, dict]]:
    """Retrieval; the mean position and most central orientation of training; the training pose nearest in place."""
    kept, tests = sources(scene, None)
    found: dict[str, dict[str, dict]] = {RETRIEVAL: {}, MEAN: {}, ORACLE: {}}
    known = open_source(kept).T_world_camera
    turns = np.swapaxes(known[:, None, :3, :3], -1, -2) @ known[None, :, :3, :3]
    angles = np.arccos(np.clip((np.trace(turns, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    middle = known[angles.sum(1).argmin()].copy()
    middle[:3, 3] = known[:, :3, 3].mean(0)
    for split, source in tests.items():
        truth = open_source(source).T_world_camera
        found[RETRIEVAL][split] = pose_errors(retrieved(kept, source), truth).figures()
        apart = np.linalg.norm(truth[:, None, :3, 3] - known[None, :, :3, 3], axis=-1)
        found[ORACLE][split] = pose_errors(known[apart.argmin(1)], truth).figures()
        found[MEAN][split] = pose_errors(np.repeat(middle[None], len(truth), 0), truth).figures()
    return found


def localised(run: Path, scene: str) -> dict[str, dict]:
    """Median errors by split of the images that are found in the map of a run, each by itself, without their depth."""
    finished, whole, found = FinishedMap(run), open_sequence(DATA / scene), {}
    for split, source in sources(scene, None)[1].items():
        images = open_source(source)
        frames = located(finished, SelectedSequence(whole, images.numbers), depth=False)
        poses_found = [frame.found.T_world_camera for frame in frames]
        there = np.array([T is not None for T in poses_found])
        figures = {"median_m": math.nan, "median_deg": math.nan}
        if there.any():
            predicted = np.array([T for T in poses_found if T is not None])
            figures = pose_errors(predicted, images.T_world_camera[there]).figures()
        found[split] = figures | {"found": float(there.mean())}
    return found


def run(out: Path, scenes: list[str], seeds: list[int], seconds: float) -> None:
    """Train and score what has no result yet, seed by seed, so that a table of fewer seeds is whole soon."""
    for scene in scenes:
        labels = out / "labels" / scene
        if not labels.is_dir() or len(list(labels.glob("*.png"))) < len(open_source(PoseSource(str(DATA / scene)))):
            teacher = Teacher(checkpoints.load()[0], LABEL_SETS["nyu40"], resolution=0.5)
            if problems := [p for _, p in label_folder(teacher, DATA / scene, labels) if p is not None]:
                raise ValueError(problems[0])
        if ORACLE not in known_results(out, scene):
            for name, figures in baselines(scene).items():
                keep_result(out, scene, name, 0, figures)
        if (out / f"{scene}_map").is_dir() and LOCALISED not in known_results(out, scene):
            keep_result(out, scene, LOCALISED, 0, localised(out / f"{scene}_map", scene))
    for seed in seeds:
        for scene in scenes:
            for name, settings in MODELS.items():
                if str(seed) not in known_results(out, scene).get(name, {}):
                    train_and_score(out, scene, name, settings, seed, seconds)
    for seed in seeds:
        for scene in scenes:
            tracked = out / f"{scene}_tracked" / "trajectory.txt"
            if tracked.is_file() and str(seed) not in known_results(out, scene).get(PLUS, {}):
                settings = MODELS["MapNet"] | {
                    "relative": None,
                    "batch": 6,
                    "weights": str(out / scene / f"mapnet-{seed}" / "network.safetensors"),
                    "unlabelled": (PoseSource(str(DATA / scene), poses=str(tracked)),),
                    "encoder_rate": 1e-4,
                    "head_rate": 3e-4,
                }
                train_and_score(out, scene, PLUS, settings, seed, seconds)


def train_and_score(out: Path, scene: str, name: str, settings: dict, seed: int, seconds: float) -> None:
    labels = out / "labels" / scene if settings["network"] == "dual_input" or scene == UNLABELLED else None
    kept, tests = sources(scene, labels)
    slug = "".join(c if c.isalnum() else "_" for c in name).lower()
    settings = {"encoder_rate": 5e-4, "head_rate": 1e-3} | settings
    config = PoseTraining(
        out=str(out / scene / f"{slug}-{seed}"),
        sources=(kept,),
        validation=tests["between"],
        encoder="mobilenet_v2",
        imagenet=None if {"trunk", "weights"} & settings.keys() else str(IMAGENET),
        feature=512,
        shorter_side=120,
        color=0.1,
        loop=Loop(steps=10**6, cpu_hours=seconds / 3600, average=0.98, clip=5.0, warmup=10,
                  validate_every=10**6, save_every=20, seed=seed),
        **settings,
    )  # fmt: skip
    train(config)
    with (Path(config.out) / "log.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    predictor = PosePredictor.load(Path(config.out) / "network.safetensors")
    figures: dict[str, Any] = {"steps": int(last["step"]), "cpu_seconds": float(last["seconds"])}
    refined: dict[str, Any] = {}
    for split, source in tests.items():
        images = open_source(source)
        score = score_poses(predictor, images)
        figures[split] = score.figures
        tracked = out / f"{scene}_tracked" / "trajectory.txt"
        if name == "MapNet" and tracked.is_file():
            better = with_motions(score.predicted, images.numbers, tracked)
            refined[split] = pose_errors(better, score.truth).figures()
    keep_result(out, scene, name, seed, figures)
    if refined:
        keep_result(out, scene, PGO, seed, refined)


def known_results(out: Path, scene: str) -> dict[str, dict[str, dict]]:
    """model -> seed -> split -> figures, of what was scored so far."""
    path = out / scene / "results.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def keep_result(out: Path, scene: str, name: str, seed: int, figures: dict) -> None:
    results = known_results(out, scene)
    results.setdefault(name, {})[str(seed)] = figures
    (out / scene).mkdir(parents=True, exist_ok=True)
    write_json(out / scene / "results.json", results)
    print(scene, name, seed, json.dumps(figures), flush=True)


def table(out: Path, scenes: list[str]) -> str:
    """Medians over a split's images, mean and range over the seeds; mIoU of the labels between the training frames."""
    lines = [
        "| scene | model | between: m | deg | later: m | deg | mIoU % | steps | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for scene in scenes:
        results = known_results(out, scene)
        for name in (MEAN, RETRIEVAL, ORACLE, LOCALISED, "PoseNet", "MapNet", PGO, PLUS, *list(MODELS)[2:]):
            runs = list(results.get(name, {}).values())
            if not runs:
                continue
            cells = [
                _spread([run[split][figure] for run in runs], digits)
                for split in SPLITS
                for figure, digits in (("median_m", 3), ("median_deg", 1))
            ]
            cells.append(_spread([100 * run["between"]["miou"] for run in runs if "miou" in run["between"]], 1))
            cells.append(_spread([run["steps"] for run in runs if "steps" in run], 0))
            if shares := [f"{run[split]['found']:.0%}" for run in runs for split in SPLITS if "found" in run[split]]:
                name = f"{name} ({' and '.join(shares)} found)"
            lines.append(f"| {scene} | {name} | {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines)


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    ends = f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="processor time of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--scenes", nargs="+", choices=list(LAST), default=list(LAST))
    parser.add_argument("--table", action="store_true", help="print what there is and train nothing")
    parser.add_argument("--json", type=Path, help="also write every model's figures, seed by seed, here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        run(arguments.out, arguments.scenes, arguments.seeds, arguments.seconds)
    print(table(arguments.out, arguments.scenes))
    if arguments.json:
        write_json(arguments.json, {scene: known_results(arguments.out, scene) for scene in arguments.scenes})


if __name__ == "__main__":
    main()
