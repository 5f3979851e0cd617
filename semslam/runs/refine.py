"""A finished run with its classes smoothed by a conditional random field over the surfels, as a run of its own."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from semslam.engine.label_fusion import LOGARITHM, label_fusion
from semslam.engine.surfel_crf import CrfConfig, refined_probabilities
from semslam.runs.derived import derived_folder, write_derived
from semslam.runs.folder import RunFolder


def refine(run: str | Path, out: str | Path, crf: CrfConfig | None = None, overwrite: bool = False) -> RunFolder:
    """Write the refined run to `out`: the same surfels, poses and settings, with the field's class probabilities.

    overwrite: replace a run that `out` holds.
    """
    source = RunFolder.open(run)
    folder = derived_folder(source, Path(out), overwrite)
    crf = crf or CrfConfig()
    config = source.load_config()
    surfels = source.load_map()
    if surfels.num_classes == 0:
        raise ValueError(f"{run}: its map has no classes; give it some first: `semslam relabel {run}`")
    fusion = label_fusion(config.slam.labels)
    cloud = surfels.cloud(fusion.probabilities(surfels))
    before = cloud.labels()
    began = time.perf_counter()
    probabilities = refined_probabilities(cloud, crf)
    seconds = time.perf_counter() - began
    # scores of the field are to be read as they are: they are no sum over views
    labels = replace(config.slam.labels, saturation=float("inf"))
    config, fusion = replace(config, slam=replace(config.slam, labels=labels)), label_fusion(labels)
    scores = surfels.scores[surfels.slots()].copy()
    scores[surfels.are_living()] = scores_of(probabilities, fusion.rule)
    after = probabilities.argmax(axis=1)
    metrics = {
        "refined_from": str(run),
        "refine": asdict(crf),
        "refine_seconds": seconds,
        "refine_changed": float(np.mean(after[before < 255] != before[before < 255])) if (before < 255).any() else 0.0,
        "refine_filled": int(np.count_nonzero((before == 255) & (probabilities.max(axis=1) > 0))),
    }
    return write_derived(source, folder, config, {"scores": scores}, metrics)


def scores_of(probabilities: np.ndarray, rule: int) -> np.ndarray:
    """Scores (N, C) that a label fusion of this rule, without saturation, reads as the given probabilities (N, C)."""
    if rule != LOGARITHM:
        return probabilities
    known = probabilities.max(axis=1, initial=0) > 0
    logarithms = np.log(np.maximum(probabilities, np.float32(1e-30)))
    logarithms -= logarithms.min(axis=1, keepdims=True, initial=0)
    return np.where(known[:, None], logarithms, np.float32(0))
