"""A run made from another one: the same surfels and poses with other label evidence, in a folder of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.cloud import CloudInParts, SurfelCloud
from semslam.engine.associations import Associations
from semslam.geometry import export
from semslam.geometry.tsdf_mesh import LABELLING_BYTES, LabelledMesh, labelled
from semslam.rendering import pictures
from semslam.runs.config import RunConfig
from semslam.runs.finished.mesh import fineness
from semslam.runs.folder import ADDED, RunFolder
from semslam.runs.progress import Progress
from semslam.runs.recording import as_array, check_apart, seen_from, with_absolute_paths
from semslam.runs.storage.arrays import parts_of

logger = logging.getLogger(__name__)
# what metrics.json says of the geometry holds for the new run too, what it says of labels does not
OF_FRAMES = ("frames", "identity", "held_out", "lost", "poor", "corrupt", "depth_repeated", "color_repeated")
KEPT = (*OF_FRAMES, "surfels", "loops_closed", "bytes_per", "versions", "engine")
NOT_KEPT = ("associations_", "run_config")  # of a state: they are saved in their own way


def derived_folder(source: RunFolder, out: Path, overwrite: bool) -> RunFolder:
    """Where to make a run out of `source` that shall end up in `out`; ValueError where that holds a run already."""
    check_derivable(source, out, overwrite)
    return RunFolder.create(out).fresh()


def check_derivable(source: RunFolder, out: Path, overwrite: bool) -> None:
    """ValueError where a run made out of `source` must not be written to `out`."""
    if os.path.realpath(out) == os.path.realpath(source.path):
        raise ValueError(f"{out}: a run is not written over the one that it is made from; name another --out")
    check_apart(out, source.load_config().sequence)
    folder = RunFolder(out)
    foreign = folder.foreign
    if (folder.exists or foreign) and not overwrite:
        found = f"a file {foreign.name} that is not of a run" if foreign else "a run"
        raise ValueError(f"{out}: holds {found}; name another --out, or add --overwrite")


def tell_memory(work: str, bytes_a_surfel: float, source: RunFolder, *others: RunFolder) -> None:
    """Warn before work that needs all of a run's map at once how much memory it takes, where its settings allow less.

    work: what is done to the surfels, as in "smoothing". others: runs whose maps take part in it.
    """
    allowed = source.load_config().slam.map
    if allowed.memory_bytes is None:
        return
    count = sum(int(run.load_state(stored=True)["counts"].sum()) for run in (source, *others))
    if count * bytes_a_surfel > allowed.memory_bytes:
        logger.warning(
            "%s: %s %d surfels takes about %.0f MB of memory, since all of the map is needed at once; the run was made "
            "with %s (slam.map.memory)",
            *(source.path, work, count, count * bytes_a_surfel / 1e6, allowed.memory),
        )


def tell_unlabelled(clouds: CloudInParts, config: RunConfig) -> None:
    """Warn where a map that was to have classes has none."""
    if config.slam.perception.labels == "none" or not len(clouds):
        return
    if any(part.class_probabilities is None or part.class_probabilities.any() for part in clouds):
        return
    every = config.slam.perception.labels_every
    logger.warning(
        "%s: no surfel has a class: no frame whose labels are fused (%s) has them where it has depth of the map",
        *(config.sequence, "each" if every == 1 else f"one in {every}: slam.perception.label_every"),
    )


def write_derived(
    source: RunFolder,
    folder: RunFolder,
    config: RunConfig,
    changes: dict[str, Any],
    metrics: dict[str, Any],
    associations: Associations | None = None,
    forget: tuple[str, ...] = (),
    mesh_of: Callable[[SurfelCloud], LabelledMesh] | None = None,
) -> RunFolder:
    """Write the run of `source` with changes to its state: evidence (N, row width), a row a surfel in the order
    of the slots, as an array or `StoredRows`. What the source's settings do not let be in memory is not.

    folder: of `derived_folder`. metrics are added to what the source's say of geometry. associations: with which the
    new run can be relabelled too. forget: arrays of the source's state that do not hold for the new run. mesh_of: makes
    the mesh of a map that is not the source's. The mesh, where there is one of the same surfels, gets its labels from
    them anew, and so do the surfels that the source added at its end.
    """
    other_map = "position" in changes
    # what is damaged is told before anything is written
    old, mesh = source.load_metrics(), None if other_map else source.load_mesh()
    added = None if other_map else source.load_filled()  # in another map they may have moved
    if associations is not None:
        folder.save_associations(associations)
    state = source.load_state(stored=source.in_parts) | changes
    state["run_recording"] = as_array(seen_from(source.load_recording(), config, folder.final))
    folder.save_state(
        parts_of({k: v for k, v in state.items() if not k.startswith(NOT_KEPT) and k not in forget}), config
    )
    progress = Progress.from_state(state)
    folder.save_trajectories(progress, state["world_origin"])
    clouds, label_set = folder.load_clouds()
    if added is not None and len(clouds):
        folder.save_filled(_labelled_by_nearest(added, clouds), progress.identity)
        clouds, label_set = folder.load_clouds()
    forgotten = ADDED if added is None else ()
    kept = {k: v for k, v in old.items() if k.startswith(KEPT) and k not in forgotten}
    export.write_map_in_parts(folder.map, clouds, label_set)
    tell_unlabelled(clouds, config)
    if len(clouds):
        pictures.preview_in_parts(folder.preview, clouds, label_set, title=folder.title, paths=progress.paths())
    folder.mesh.unlink(missing_ok=True)
    if len(clouds) and mesh is not None:
        some = clouds.sample((config.slam.map.memory_bytes or 0) // LABELLING_BYTES)
        radius = fineness(progress.with_found(source.load_config().slam), clouds).label_radius
        export.write_mesh(folder.mesh, labelled(mesh, some, radius), label_set)
    if mesh_of is not None:
        export.write_mesh(folder.mesh, mesh_of(folder.load_cloud()[0]), label_set)
    folder.save_metrics(kept | metrics | {"surfels_in_map": len(clouds)})  # last: a run that has figures is ended
    return folder.published()


def _labelled_by_nearest(added: SurfelCloud, clouds: CloudInParts) -> SurfelCloud:
    """Surfels with the class probabilities of the nearest one of a map."""
    from scipy.spatial import cKDTree

    nearest, probabilities = np.full(len(added), np.inf), None
    for part in clouds:
        if part.class_probabilities is None:
            return replace(added, class_probabilities=None)
        if probabilities is None:
            probabilities = np.zeros((len(added), part.class_probabilities.shape[1]), np.float32)
        distance, found = cKDTree(part.positions).query(added.positions)  # inf where the part is empty
        nearer = distance < nearest
        nearest[nearer] = distance[nearer]
        probabilities[nearer] = part.class_probabilities[found[nearer]]
    return replace(added, class_probabilities=probabilities)


def with_labels(config: RunConfig, weights: str | None, classes: str, engine: str | None) -> RunConfig:
    """The settings of a run like this one whose labels a network predicts."""
    perception = replace(config.slam.perception, labels="predicted", classes=classes)
    config = replace(config, weights=weights, engine=engine, slam=replace(config.slam, perception=perception))
    return with_absolute_paths(config)
