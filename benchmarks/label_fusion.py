"""What fusing labels gains: the map's classes rendered back into the frames against the network's on single frames.

    python benchmarks/label_fusion.py [--weights FILE] [--data ../shared/data] [--width 320] [--quick] [--json FILE]

Protocol: depth of the sensor, poses of the data set, frames 320 wide. Every tenth frame is labelled, half of these by
their mirror images, as in a run. The map after the last frame is rendered from the pose of every frame with true
labels; 13 classes, one confusion matrix a scene, void and a band of 3 pixels at boundaries of the truth ignored, holes
of the map count as missed, classes absent from truth and prediction skipped; the network alone is scored on the same
pixels, not mirrored. ECE over 15 bins of the largest probability, holes left out.

Settings are also chosen leaving one room out: those of `grid()` with the least ECE in one room are scored in the other.

The network sees every frame and its mirror image once and which pixel was merged with which surfel does not depend on
classes: both are kept in --cache, by the hash of the weights and of the code that fuses, and a variant then costs a
second.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from networks.inference import postprocessing
from networks.inference.export import content_hash
from networks.inference.predictor import Predictor
from networks.joint import checkpoints
from semslam.engine import chunks, depth_filter, fusion, index_map
from semslam.engine import fusion_kernels as kernels
from semslam.engine.chunks import CHUNK
from semslam.engine.fusion import Fusion
from semslam.engine.labels.evidence import row_width
from semslam.engine.labels.label_fusion import LabelFusion, LabelFusionConfig, label_fusion
from semslam.engine.surfels import SurfelMap
from semslam.files.writing import write_json
from semslam.frame import UNLABELLED
from semslam.images.resizing import resized_ids
from semslam.labels import remap_labels, remapping
from semslam.metrics.segmentation import Calibration, ConfusionMatrix, boundary_band
from semslam.perception import Perception, PerceptionConfig
from semslam.rendering.splatting import render
from sequences import open_sequence

BAND = 3  # pixels of 320, at the truth's boundaries
CLASSES = 13
FUSING: Any = (chunks, depth_filter, index_map, kernels, fusion)  # a change of theirs may change who merges with whom
SCENES = ("icl_livingroom1", "redkitchen")


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything of a sequence that label fusion and its scoring need."""

    size: tuple[int, int]  # width, height of the map's frames
    poses: np.ndarray  # (T, 4, 4) T_world_camera of every frame
    surfels: list[np.ndarray]  # a frame: (M,) int32 surfels that were merged with a pixel
    pixels: list[np.ndarray]  # a frame: (M,) int32 that pixel, v * W + u
    positions: np.ndarray  # (N, 3) float32 metres, of surfels that died NaN
    shown: np.ndarray  # (N + 1, 13) int64 labelled pixels that show a surfel, by true class; last row: holes
    truths: dict[int, np.ndarray]  # by frame: (H, W) uint8 true classes, void and band 255


def observed(path: Path, width: int) -> Scene:
    """Fuse a sequence's depth once and note who was merged with what."""
    sequence: Any = open_sequence(str(path))
    perceive = Perception(PerceptionConfig(labels="none", width=width), sequence.camera)
    fusion, surfels = Fusion(perceive.camera), SurfelMap(1)
    merged, pixels, truths, poses, known = [], [], {}, [], 0

    def numbers(slots: np.ndarray) -> np.ndarray:
        return surfels.evidence[slots, 0] + (surfels.evidence[slots, 1].astype(np.int32) << 16)

    for i in range(len(sequence)):
        frame = sequence[i]
        fusion.fuse(surfels, fusion.prepare(perceive(frame)), frame.T_world_camera, i)
        slots = (fusion.visible[:, None].astype(np.int64) * CHUNK + np.arange(CHUNK)).ravel()
        slots = slots[np.tile(np.arange(CHUNK), len(fusion.visible)) < np.repeat(surfels.counts[fusion.visible], CHUNK)]
        slots = slots[fusion.pixels[slots] >= 0]
        # in place of evidence a surfel has its number, from 1: it moves along when the map is compacted
        fresh = slots[numbers(slots) == 0]
        given = np.arange(known + 1, known + 1 + len(fresh))
        surfels.evidence[fresh, 0], surfels.evidence[fresh, 1] = given & 0xFFFF, given >> 16
        known += len(fresh)
        merged.append(numbers(slots) - 1)
        poses.append(frame.T_world_camera)
        pixels.append(fusion.pixels[slots])
        if frame.labels is not None:
            size = (perceive.camera.width, perceive.camera.height)
            truth = resized_ids(frame.labels, size)
            truth = remap_labels(truth, sequence.label_set, "nyu13")
            truths[i] = np.where(boundary_band(truth, BAND), np.uint8(UNLABELLED), truth)
    cloud = surfels.cloud()
    number = numbers(surfels.slots()[surfels.are_living()]) - 1
    positions = np.full((known, 3), np.nan, np.float32)
    positions[number] = cloud.positions
    shown = np.zeros((known + 1, CLASSES), np.int64)
    for i, truth in truths.items():
        index = render(cloud, perceive.camera, sequence.poses[i], cull_back=False).index
        of = np.where(index >= 0, number[index], known)
        valid = truth != UNLABELLED
        np.add.at(shown, (of[valid], truth[valid]), 1)
    size = (perceive.camera.width, perceive.camera.height)
    return Scene(size, np.array(poses), merged, pixels, positions, shown, truths)


def predicted(path: Path, predictor: Predictor) -> np.ndarray:
    """(2, T, h, w, C) float16 class scores of every frame, as the network gives them of it and of its mirror image."""
    sequence = open_sequence(str(path))

    def scores(color: np.ndarray) -> np.ndarray:
        return predictor.outputs(np.ascontiguousarray(color))[0].astype(np.float16)

    colors = [sequence[i].color for i in range(len(sequence))]
    return np.stack([[scores(c) for c in colors], [scores(c[:, ::-1])[:, ::-1] for c in colors]])


def cached_scene(cache: Path, path: Path, width: int) -> Scene:
    code = hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in FUSING)).hexdigest()[:12]
    file = cache / f"{path.name}-{width}-{code}.npz"
    if not file.is_file():
        s = observed(path, width)
        lengths = np.array([len(a) for a in s.surfels])
        np.savez(
            file, size=np.array(s.size), poses=s.poses, surfels=np.concatenate(s.surfels),
            pixels=np.concatenate(s.pixels), lengths=lengths, positions=s.positions, shown=s.shown,
            truth_frames=np.array(list(s.truths)), truths=np.stack(list(s.truths.values())),
        )  # fmt: skip
    with np.load(file) as kept:
        ends = np.cumsum(kept["lengths"])[:-1]
        return Scene(
            (int(kept["size"][0]), int(kept["size"][1])), kept["poses"], np.split(kept["surfels"], ends),
            np.split(kept["pixels"], ends), kept["positions"], kept["shown"],
            dict(zip(kept["truth_frames"].tolist(), kept["truths"])),
        )  # fmt: skip


def cached_scores(cache: Path, path: Path, predictor: Predictor) -> np.ndarray:
    file = cache / f"{path.name}-{content_hash(predictor.network)}-mirrored.npy"
    if not file.is_file():
        np.save(file, predicted(path, predictor))
    return np.load(file, mmap_mode="r")


@dataclass(frozen=True)
class Variant:
    """One way to fuse."""

    name: str
    config: LabelFusionConfig = field(default_factory=LabelFusionConfig)
    every: int = 10  # frames
    temperature: float | None = None  # of the network's scores; None = what the weights say
    mirrored: bool | None = None  # whether labelled frames are; None = half of them, as in a run


def probabilities(scores: np.ndarray, size: tuple[int, int], temperature: float) -> np.ndarray:
    """(H, W, 13) as perception gives them to the map."""
    merge = postprocessing.merging(remapping("nyu40", "nyu13"))
    return postprocessing.class_probabilities(scores.astype(np.float32), size, merge, temperature)


def fused(scene: Scene, scores: np.ndarray, variant: Variant) -> np.ndarray:
    """Rows of evidence of every surfel after the last frame, by the map's own code."""
    fusion: LabelFusion = label_fusion(variant.config)
    count = len(scene.shown) - 1
    chunks = -(-count // CHUNK)
    empty = np.zeros((chunks * CHUNK, row_width(CLASSES)), np.uint16)
    # all that fusing labels asks of a map
    surfels: Any = SimpleNamespace(num_classes=CLASSES, counts=np.full(chunks, CHUNK, np.int32), evidence=empty)
    pixel_of = np.full(chunks * CHUNK, -1, np.int32)
    assert variant.temperature is not None
    perception = PerceptionConfig(label_every=variant.every)
    for i in range(0, scores.shape[1], variant.every):
        mirrored = perception.is_mirrored(i) if variant.mirrored is None else variant.mirrored
        image = probabilities(scores[int(mirrored), i], scene.size, variant.temperature)
        pixel_of[scene.surfels[i]] = scene.pixels[i]
        fusion.fuse(surfels, np.arange(chunks, dtype=np.int32), pixel_of, image, scene.poses[i])
        pixel_of[scene.surfels[i]] = -1
    return surfels.evidence[:count]


def on_map(scene: Scene, scores: np.ndarray, variant: Variant) -> np.ndarray:
    """(N, 13) probabilities of every surfel, as the map tells them; 0 for those that died."""
    rows, alive = fused(scene, scores, variant), np.isfinite(scene.positions[:, 0])
    probabilities = np.zeros((len(rows), CLASSES), np.float32)
    probabilities[alive] = label_fusion(variant.config).read(rows[alive], CLASSES, scene.positions[alive])
    return probabilities


def map_figures(scene: Scene, on_surfels: np.ndarray) -> dict[str, float]:
    """Figures of surfels' probabilities (N, 13) on the pixels that show them."""
    labels = on_surfels.argmax(axis=1)
    labels[on_surfels.max(axis=1) <= 0] = CLASSES
    matrix = ConfusionMatrix(CLASSES)
    np.add.at(matrix.counts.T, np.append(labels, CLASSES), scene.shown)
    calibration = Calibration()
    confidence = on_surfels.max(axis=1)
    seen = (confidence > 0) & (scene.shown[:-1].sum(axis=1) > 0)
    confidence, labels, shown = confidence[seen], labels[seen], scene.shown[:-1][seen]
    bins = np.clip(np.searchsorted(calibration.edges, confidence, side="left") - 1, 0, len(calibration.pixels) - 1)
    pixels = shown.sum(axis=1)
    calibration.pixels += np.bincount(bins, pixels, len(calibration.pixels)).astype(np.int64)
    hits = shown[np.arange(len(labels)), labels]
    calibration.hits += np.bincount(bins, hits, len(calibration.pixels)).astype(np.int64)
    calibration.confidence_sum += np.bincount(bins, pixels * confidence, len(calibration.pixels))
    calibration.log_likelihood_sum = float((shown * np.log(np.maximum(on_surfels[seen], 1e-12))).sum())
    return _figures(matrix, calibration)


def single_figures(scene: Scene, scores: np.ndarray, temperature: float) -> dict[str, float]:
    """Figures of the network on the labelled frames, one by one."""
    matrix, calibration = ConfusionMatrix(CLASSES), Calibration()
    for i, truth in scene.truths.items():
        image = probabilities(scores[0, i], scene.size, temperature)
        matrix.add(image.argmax(axis=2).astype(np.uint8), truth)
        calibration.add(image, truth)
    return _figures(matrix, calibration)


def _figures(matrix: ConfusionMatrix, calibration: Calibration) -> dict[str, float]:
    scores, calibrated = matrix.scores(), calibration.scores()
    in_truth = matrix.counts.sum(axis=1) > 0
    return {
        "miou": scores.miou,
        "miou_true_classes": float(scores.iou[in_truth].mean()),  # unmoved by classes that are only predicted
        "pixel_accuracy": scores.pixel_accuracy,
        "ece": calibrated.ece,
        "nll": calibrated.negative_log_likelihood,
    }


def grid(temperature: float) -> list[Variant]:
    """Settings to choose from: where views are independent, how many at most, how often all of them err."""
    return [
        Variant(
            f"{metres} m, {degrees} degrees, at most {views} views, error rate {rate}",
            LabelFusionConfig(distance=metres, angle_deg=degrees, max_views=views, error_rate=rate),
            temperature=temperature,
        )
        for metres, degrees in ((0.25, 15.0), (0.5, 30.0), (1.0, 30.0))
        for views in (1.6, 1.8, 2.0, 2.2, 2.4)
        for rate in (0.0, 0.04, 0.06, 0.08, 0.1, 0.15)
    ]


def variants() -> list[Variant]:
    """The default first, then one thing changed at a time."""
    default = LabelFusionConfig()

    def changed(name: str, **settings: float | str) -> Variant:
        return Variant(name, replace(default, **settings))  # type: ignore[arg-type]

    return [
        Variant("default: bayes", default),
        changed("any number of views", max_views=float("inf")),
        changed("at most 1 view", max_views=1.0),
        changed("at most 1.6 views", max_views=1.6),
        changed("at most 3 views", max_views=3.0),
        changed("error rate 0", error_rate=0.0),
        changed("error rate 0.04", error_rate=0.04),
        changed("error rate 0.15", error_rate=0.15),
        changed("apart at 0.5 m, 30 degrees", distance=0.5, angle_deg=30.0),
        changed("1 m, 60 degrees", distance=1.0, angle_deg=60.0),
        changed("4 m, 120 degrees", distance=4.0, angle_deg=120.0),
        changed("floor 0.01", floor=0.01),
        changed("each surfel alone", neighbourhood=0.0),
        changed("neighbours as 0 views", neighbour_views=0.0),
        changed("20 views", neighbour_views=20.0),
        changed("40 views", neighbour_views=40.0),
        changed("neighbourhood 0.05 m", neighbourhood=0.05),
        changed("0.15 m", neighbourhood=0.15),
        changed("mean", method="mean"),
        changed("histogram", method="histogram"),
        Variant("temperature 1.1", default, temperature=1.1),
        Variant("temperature 2", default, temperature=2.0),
        Variant("no frame mirrored", default, mirrored=False),
        Variant("every frame mirrored", default, mirrored=True),
        Variant("labels every 5 frames", default, every=5),
        Variant("labels every frame", default, every=1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=None, help="default: the bundled ones")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--engine", default=None)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/semslam_label_fusion"))
    parser.add_argument("--quick", action="store_true", help="single frames and the default alone")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    network, metadata = checkpoints.load(arguments.weights)
    temperature = float(metadata.get("temperature", 1.0))
    predictor = Predictor(network, metadata, engine=arguments.engine)
    scenes = {}
    for name in SCENES:
        scene = cached_scene(arguments.cache, arguments.data / name, arguments.width)
        scenes[name] = scene, np.array(cached_scores(arguments.cache, arguments.data / name, predictor))
    print(f"weights {arguments.weights or 'bundled'}, temperature {temperature:g}; map {arguments.width} wide")
    print(f"{'':30}" + "".join(f"{name:>40}" for name in SCENES))
    print(f"{'':30}" + f"{'mIoU  of true  pixels   ECE    NLL':>40}" * len(SCENES))
    rows: dict[str, dict[str, dict[str, float]]] = {}

    def cell(f: dict[str, float]) -> str:
        return (
            f"{100 * f['miou']:8.1f}{100 * f['miou_true_classes']:9.1f}{100 * f['pixel_accuracy']:8.1f}"
            f"{100 * f['ece']:7.1f}{f['nll']:7.2f} "
        )

    def row(name: str, figures: dict[str, dict[str, float]]) -> None:
        rows[name] = figures
        print(f"{name:30}" + "".join(map(cell, figures.values())), flush=True)

    row("single frames", {name: single_figures(scene, scores, temperature) for name, (scene, scores) in scenes.items()})
    for variant in variants()[: 1 if arguments.quick else None]:
        if variant.temperature is None:
            variant = replace(variant, temperature=temperature)
        row(variant.name, {n: map_figures(scene, on_map(scene, s, variant)) for n, (scene, s) in scenes.items()})
    if not arguments.quick:
        found = [
            (v, {n: map_figures(scene, on_map(scene, s, v)) for n, (scene, s) in scenes.items()})
            for v in grid(temperature)
        ]
        for name, other in zip(SCENES, reversed(SCENES)):
            best, figures = min(found, key=lambda pair: pair[1][other]["ece"])
            print(f"{name} with the least ECE in {other}, {best.name}: {cell(figures[name])}")
        worst = max(max(f["ece"] for f in figures.values()) for _, figures in found)
        print(f"of {len(found)} settings the least good has an ECE of {100 * worst:.1f} %")
    if arguments.json:
        write_json(arguments.json, {"weights": arguments.weights or "bundled", "rows": rows})


if __name__ == "__main__":
    main()
