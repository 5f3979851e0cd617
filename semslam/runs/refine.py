"""A finished run with its classes smoothed by a conditional random field over the surfels, as a run of its own."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from semslam.engine.labels.label_fusion import label_fusion
from semslam.engine.labels.surfel_crf import CrfConfig, refined_probabilities
from semslam.frame import UNLABELLED
from semslam.labels import LABEL_SETS
from semslam.runs.derived import derived_folder, tell_memory, write_derived
from semslam.runs.folder import RunFolder

# a surfel: neighbours and weights; and a surfel and class: probabilities, evidence and both marginals
BYTES, CLASS_BYTES = 350, 20


def refine(run: str | Path, out: str | Path, crf: CrfConfig | None = None, overwrite: bool = False) -> RunFolder:
    """Write the refined run to `out`: the same surfels, poses and settings, with the field's class probabilities.

    overwrite: replace a run that `out` holds.
    """
    source = RunFolder.open(run)
    classes = len(LABEL_SETS[source.load_config().slam.perception.classes])
    # the field joins each surfel with its neighbours, and all of them change in every iteration
    tell_memory("smoothing its", BYTES + CLASS_BYTES * classes, source)
    folder = derived_folder(source, Path(out), overwrite)
    crf = crf or CrfConfig()
    config = source.load_config()
    surfels = source.load_map()
    if surfels.num_classes == 0:
        raise ValueError(f"{run}: its map has no classes; give it some first: `semslam relabel {run}`")
    fusion = label_fusion(config.slam.labels)
    if not surfels.are_living().any():
        raise ValueError(source.nothing_mapped)
    cloud = surfels.cloud(fusion.probabilities(surfels))
    before = cloud.labels()
    began = time.perf_counter()
    probabilities = refined_probabilities(cloud, crf)
    seconds = time.perf_counter() - began
    # the field's classes are to be read as they are: it has seen the neighbours
    labels = replace(config.slam.labels, neighbourhood=0.0)
    config = replace(config, slam=replace(config.slam, labels=labels))
    evidence = surfels.evidence[surfels.slots()]
    evidence[surfels.are_living()] = label_fusion(labels).rows_of(probabilities)
    after, known = probabilities.argmax(axis=1), before != UNLABELLED
    metrics = {
        "refined_from": str(run),
        "refine": asdict(crf),
        "refine_seconds": seconds,
        "refine_changed": float(np.mean(after[known] != before[known])) if known.any() else 0.0,
        "refine_filled": int(np.count_nonzero(~known & (probabilities.max(axis=1) > 0))),
    }
    return write_derived(source, folder, config, {"evidence": evidence}, metrics)
