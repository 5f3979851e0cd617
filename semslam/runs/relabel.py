"""Other labels for a finished run: another network's predictions fused into the same surfels, without running SLAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.cloud import CloudInParts
from semslam.engine.associations import Associations, Event
from semslam.engine.fusion import Fusion
from semslam.engine.labels.evidence_map import EvidenceMap
from semslam.engine.labels.label_fusion import LabelFusion, label_fusion
from semslam.engine.paging import StoredRows
from semslam.engine.surfels import SurfelMap
from semslam.labels import LABEL_SETS
from semslam.perception import Network, Perception
from semslam.rendering.splatting import observed_in_parts
from semslam.runs import networks
from semslam.runs.derived import derived_folder, with_labels, write_derived
from semslam.runs.finished.sources import Source, sources_of
from semslam.runs.folder import RunFolder
from semslam.runs.unreadable import Unreadable
from semslam.stage import prefixed
from sequences import Sequence as Recording


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
    """Fuse the predictions of a network into the surfels of a finished run; returns the new run.

    Its labels equal those of a full run with these weights, bit by bit, except for an extended or merged map, whose
    surfels are associated anew with the frames of all its recordings, by depth and pose. The run may have had labels of
    any source, or none. Where its depth was predicted, depth and so the surfels stay those of the old network.
    Surfels that fill holes or planes take the labels of the nearest others. Frames that cannot be read any more are
    skipped as a run skips them: told, and an error where they are too many.

    moved_to: where the recording is now. overwrite: replace a run that `out` holds. report: called with the number of
    frames after each one.
    """
    source = RunFolder.open(run)
    config = with_labels(source.load_config(), weights, classes, engine)
    in_parts = source.in_parts
    state = source.load_state(stored=in_parts)
    associations = source.load_associations(state)
    if associations is None and not source.load_progress().others:
        raise _unassociated(source)
    sources = sources_of(source, moved_to) if associations is None else []
    folder = derived_folder(source, Path(out), overwrite)
    network = networks.predictor(classes, weights, engine)
    labels = label_fusion(config.slam.labels)
    evidence = EvidenceMap(len(LABEL_SETS[classes]), config.slam.map.memory_bytes if in_parts else None, folder.path)
    if associations is None:
        labelled, frames = _associate_anew(source, state, sources, labels, network, evidence, classes, report)
    else:
        sequence = source.open_sequence(moved_to)
        perceive = Perception(config.slam.perception, sequence.camera, sequence.label_set, network)
        unreadable = Unreadable(sequence, config.max_corrupt)
        labelled = _fuse_again(associations, labels, perceive, sequence, evidence, unreadable, report)
        frames = len(labelled)
    rows = StoredRows.of_blocks(folder.path, evidence.rows(state["counts"]), evidence.surfels.evidence)
    metrics: dict[str, Any] = {"relabelled_from": str(run), "frames_labelled": frames, "engine": network.engine}
    metrics["engine_same_for_any_threads"] = network.same_for_any_threads
    changes: dict[str, Any] = {"evidence": rows, "classes": np.array(len(LABEL_SETS[classes]))}
    changes["run_labelled"] = np.array(labelled, np.int64)
    changes |= prefixed("labels_", labels.state())
    return write_derived(source, folder, config, changes, metrics, associations)


def _unassociated(source: RunFolder) -> Exception:
    """That nothing says which surfels of a run were seen where, and what to do."""
    refined = source.load_metrics().get("refined_from")
    remedy = f"relabel {refined}, and refine that again" if refined else "copy the whole folder again, or map again"
    return FileNotFoundError(
        f"{source.path}: {source.associations.name} is missing, without which nothing says which surfel was seen "
        f"where; {remedy}"
    )


def _fuse_again(
    associations: Associations,
    labels: LabelFusion,
    perceive: Perception,
    sequence: Recording,
    evidence: EvidenceMap,
    unreadable: Unreadable,
    report: Callable[[int], None],
) -> list[int]:
    """Fill in the evidence of the surfels, by the pixels that they were merged with; the frames that were read."""
    frames = associations.frames

    def fuse(surfels: SurfelMap, chunks: np.ndarray, pixels: np.ndarray, event: Event) -> None:
        report(len(frames))
        frame = unreadable.read(sequence.read_without_labels, event.frame, len(frames))
        probabilities = None if frame is None else perceive.observe(frame, True).class_probabilities
        if probabilities is not None:
            assert event.T_world_camera is not None  # those that saw something have one
            labels.fuse(surfels, chunks, pixels, probabilities, event.T_world_camera)

    associations.fuse_again(evidence, fuse, perceive.camera.width * perceive.camera.height)
    return [index for index in frames if index not in unreadable.frames]


def _associate_anew(
    folder: RunFolder,
    state: dict[str, Any],
    sources: list[Source],
    labels: LabelFusion,
    network: Network,
    evidence: EvidenceMap,
    classes: str,
    report: Callable[[int], None],
) -> tuple[list[int], int]:
    """Fill in the evidence of the surfels of an extended or merged map, whose frames say by their depth and poses which
    surfels they show; the run's own frames that were labelled, and how many of all recordings were.

    Where depth was predicted, the map itself tells the depth that a frame should see.
    """
    surfels, max_corrupt = folder.load_map(state, paged=folder.in_parts), folder.load_config().max_corrupt
    clouds = _shown(surfels) if any(s.perception.depth == "predicted" for s in sources) else None
    evidence.reserve(surfels.n_chunks)
    labelled = evidence.surfels
    labelled.counts = surfels.counts
    chosen = [list(s.T_world_camera)[:: s.perception.network_labels_every] for s in sources]
    frames, read = sum(map(len, chosen)), []
    for source, indices in zip(sources, chosen):
        unreadable = Unreadable(source.sequence, max_corrupt)
        perception = replace(source.perception, labels="predicted", classes=classes)
        perceive = Perception(perception, source.sequence.camera, source.sequence.label_set, network)
        fusion = Fusion(perceive.camera, source.fusion)
        for index in indices:
            T = source.T_world_camera[index]
            frame = unreadable.read(source.sequence.read_without_labels, index, len(indices))
            report(frames)
            if frame is None:
                continue
            observation = perceive.observe(frame, True)
            probabilities = observation.class_probabilities
            assert probabilities is not None
            if perception.depth == "predicted" and clouds is not None:
                observation = observed_in_parts(clouds, perceive.camera, T)
            chunks, pixels = fusion.associate(surfels, fusion.prepare(observation), T)
            labels.fuse(labelled, chunks, pixels, probabilities, T)
            evidence.looked_at(chunks)
            if surfels.paging is not None:
                surfels.paging.next_frame()
        read.append([index for index in indices if index not in unreadable.frames])
    return read[-1], sum(map(len, read))


def _shown(surfels: SurfelMap) -> CloudInParts:
    """What pictures of a map show, without classes."""
    if surfels.paging is None:
        return CloudInParts.of(surfels.cloud())
    return CloudInParts(surfels.living(), lambda: map(surfels.cloud_of, surfels.parts()))
