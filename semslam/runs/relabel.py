"""Other labels for a finished run: another network's predictions fused into the same surfels, without running SLAM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semslam.engine.associations import Event
from semslam.engine.label_fusion import label_fusion
from semslam.engine.surfels import SurfelMap
from semslam.perception import Perception
from semslam.runs import networks
from semslam.runs.derived import derived_folder, with_labels, write_derived
from semslam.runs.folder import RunFolder


def relabel(
    run: str | Path,
    out: str | Path,
    *,
    weights: str | None = None,
    classes: str = "nyu13",
    engine: str | None = None,
    moved_to: str | None = None,
    overwrite: bool = False,
    report: Callable[[int], None] = lambda total: None,
) -> RunFolder:
    """Fuse the predictions of a network into the surfels of a run; the new run, whose labels equal bit by bit those of
    a full run with these weights.

    Whatever the run's own labels came from: truth, another network, or nowhere. Where its depth was predicted, depth
    and so the surfels stay those of the old network. moved_to: where the recording is now. overwrite: replace a run
    that `out` holds. report: called with the number of frames after each one.
    """
    source = RunFolder.open(run)
    config = with_labels(source.load_config(), weights, classes, engine)
    state = source.load_state()
    associations = source.load_associations(state)
    if associations is None:
        raise FileNotFoundError(
            f"{run}: {source.associations.name} is missing, without which nothing says which surfel was seen where; "
            f"relabel the run that this one was refined from, or those that were extended or merged, and do that again"
        )
    folder = derived_folder(source, Path(out), overwrite)
    sequence = source.open_sequence(moved_to)
    network = networks.predictor(classes, weights, engine)
    perceive = Perception(config.slam.perception, sequence.camera, sequence.label_set, network)
    labels = label_fusion(config.slam.labels)
    frames, posed = len(associations.frames), source.load_progress().posed_anywhere()

    def fuse(surfels: SurfelMap, chunks: np.ndarray, pixels: np.ndarray, event: Event) -> None:
        probabilities = perceive.observe(sequence[event.frame], True).class_probabilities
        if probabilities is not None:
            T = posed[event.frame] if event.T_world_camera is None else event.T_world_camera
            labels.fuse(surfels, chunks, pixels, probabilities, T)
        report(frames)

    slots = source.load_map(state).slots()
    changes: dict[str, np.ndarray] = {"evidence": associations.fuse_again(perceive.num_classes, fuse, slots)}
    metrics: dict[str, Any] = {"relabelled_from": str(run), "frames_labelled": frames, "engine": network.engine}
    metrics["engine_same_for_any_threads"] = network.same_for_any_threads
    changes |= {"classes": np.array(perceive.num_classes), "run_labelled": np.array(associations.frames, np.int64)}
    changes |= {f"labels_{name}": array for name, array in labels.state().items()}
    return write_derived(source, folder, config, changes, metrics, associations)
