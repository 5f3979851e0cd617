"""From the last frame of a run to the files that people look at."""

from __future__ import annotations

import logging
import time
from typing import Any

from semslam.depth.multiview import MultiViewDepth
from semslam.doctor.depth.range import LITTLE
from semslam.geometry import export
from semslam.labels import LABEL_SETS
from semslam.rendering import pictures
from semslam.runs.color_only.fitted import FITTED, FittedPoses
from semslam.runs.color_only.kept import load_kept
from semslam.runs.color_only.poses import KEPT, VisualPoses
from semslam.runs.derived import tell_unlabelled
from semslam.runs.finished.extend import why_none_was_found
from semslam.runs.finished.fill import fill_holes
from semslam.runs.finished.held_out import judged_by_held_out
from semslam.runs.finished.mesh import write_mesh
from semslam.runs.finished.passing import remove_passing
from semslam.runs.finished.planes import complete_planes
from semslam.runs.poses import ListedPoses, PosesOfFile
from semslam.runs.progress import NoMap
from semslam.runs.run import Run
from semslam.tracking.given_poses import GivenPoses
from semslam.tracking.predicted_poses import PredictedPoses
from semslam.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

_NO_DEPTH = {
    "sensor": "no frame has depth that can be used",
    "predicted": "no frame has depth that is sure enough (it is measured by parallax: the camera has to move, and a "
    "part of a recording may be too short for that)",
}


def finish(run: Run, mesh: bool = True) -> dict[str, Any]:
    """Write everything that a run leaves behind; returns its metrics. `NoMap` where no frame was fused."""
    if isinstance(run.slam.track, Tracker):  # from here on its poses are known
        posed = run.progress.posed()
        run.synchronise([posed.get(i) for i in range(len(run.sequence))])
    _remove_unsure(run)
    run.judge_depth()  # where the last frames that tell could not be read
    run.save()
    _check_map(run)
    metrics = run.metrics() | {"surfels_passed_by": run.progress.passed_by}
    _tell_unused_depth(run, metrics)
    metrics |= _figures_of_parts(run)
    added, besides = _add_surfels(run)
    metrics |= added
    if run.progress.held_out:
        metrics |= judged_by_held_out(run)
    found, seconds = _figures_of_images(run)
    metrics |= found
    besides += seconds
    if besides:  # both are of all that it took before the files
        metrics["seconds"] = run.progress.seconds + besides
        metrics["frames_per_second"] = run.progress.frames_per_second(besides)
    if run.progress.before:
        metrics["surfels_of_earlier_frames"] = run.slam.surfels.count_earlier()
    _write_map(run, metrics, mesh)
    run.folder = run.folder.published()
    return metrics


def _remove_unsure(run: Run) -> None:
    """Leave out what passed by, and count it, or, once, what several views of predicted depth did not make sure of."""
    views = run.slam.correct
    if isinstance(views, MultiViewDepth):
        if not views.ended:
            run.remove_unsure(views.config.least_confidence)
            views.ended = True
    elif run.config.slam.perception.depth == "sensor":
        run.progress.passed_by += remove_passing(run)


def _check_map(run: Run) -> None:
    """NoMap, with the reason, where nothing was fused."""
    if run.config.extend is not None and run.progress.before and not run.progress.frames_of(0):
        raise NoMap(
            f"{run.config.sequence}: none of its frames was found in {run.config.extend}, so that nothing is "
            f"added to that map; {why_none_was_found(run.config.extend, run.sequence.camera)}"
        )
    if run.progress.fused == 0:
        raise NoMap(f"{run.config.sequence}: no frame was fused, so there is no map; {why_no_map(run)}")


def why_no_map(run: Run) -> str:
    """Why no frame was fused: lost frames explain it only where no frame was tracked."""
    progress = run.progress
    tracked, lost = len(set(progress.indices) - set(progress.lost)), len(progress.lost)
    if not tracked:
        return progress.reason or "no frame could be read"
    why = _NO_DEPTH[run.config.slam.perception.depth]
    return f"frames that could not be tracked: {lost}; of the {tracked} others {why}" if lost else why


def _tell_unused_depth(run: Run, metrics: dict[str, Any]) -> None:
    if metrics["depth_used"] is not None and metrics["depth_used"] < LITTLE:
        near, far = run.slam.fusion.config.range
        logger.warning(
            "%.0f %% of the depth readings lie between %.3g and %.3g m and were used (slam.fusion.near and far set it)",
            *(100 * metrics["depth_used"], near, far),
        )


def _figures_of_parts(run: Run) -> dict[str, Any]:
    """What is known of the network that was used, and of given poses."""
    network, track = run.slam.network, run.slam.track
    found: dict[str, Any] = {}
    if network is not None:
        found |= {"engine": network.engine, "engine_same_for_any_threads": network.same_for_any_threads}
    if isinstance(track, PosesOfFile):
        found |= track.figures()
    given = isinstance(track, GivenPoses) and not isinstance(track, PredictedPoses)
    if given and run.config.slam.perception.depth == "sensor":
        found["poses_contradicted"] = run.progress.poses_contradicted
    if isinstance(track, ListedPoses):
        found["poses_rejected"] = [run.sequence.number_of(index) for index in run.progress.poses_rejected]
    return found


def _add_surfels(run: Run) -> tuple[dict[str, Any], float]:
    """Fill holes, or complete flat surfaces, where the settings say so; the figures and the seconds that it took."""
    views = run.slam.correct
    planes = isinstance(views, MultiViewDepth) and views.config.planes
    if not (run.config.fill or planes):
        return {}, 0.0
    began = time.perf_counter()
    added = complete_planes(run) if planes else fill_holes(run)
    run.filled = added.cloud
    run.folder.save_filled(added.cloud, run.progress.identity)
    seconds = time.perf_counter() - began
    return added.figures | {"planes_seconds" if planes else "fill_seconds": seconds}, seconds


def _figures_of_images(run: Run) -> tuple[dict[str, Any], float]:
    """Figures of poses that were found in, or fitted to, the images before the first frame was fused, and the seconds
    that it took."""
    found: dict[str, Any] = {}
    seconds = 0.0
    if (visual := load_kept(run.folder.path / KEPT, VisualPoses, len(run.sequence))) is not None:
        found |= visual.figures() | {"scale_from": run.config.scale_from or "network"}
        seconds += visual.seconds
    if (fitted := load_kept(run.folder.path / FITTED, FittedPoses, len(run.sequence))) is not None:
        found |= fitted.figures()
        seconds += fitted.seconds
    return found, seconds


def _write_map(run: Run, metrics: dict[str, Any], mesh: bool) -> None:
    """Write the surfels and, unless there are none, their picture and mesh, whose seconds go into the metrics, and
    these."""
    folder, clouds = run.folder, run.clouds()
    labels = LABEL_SETS[run.config.slam.perception.classes]
    metrics["surfels_in_map"] = len(clouds)  # with those that fill holes, without those of parts that never met
    export.write_map_in_parts(folder.map, clouds, labels)
    tell_unlabelled(clouds, run.config)
    _write_parts(run)
    if len(clouds) == 0:
        folder.save_metrics(metrics)
        return
    pictures.preview_in_parts(folder.preview, clouds, labels, title=folder.title, paths=run.progress.paths())
    folder.mesh.unlink(missing_ok=True)  # an older run's
    if mesh:
        began = time.perf_counter()
        try:
            write_mesh(run, clouds)
        except Exception:
            folder.save_metrics(metrics)
            raise
        metrics["mesh_seconds"] = time.perf_counter() - began
    folder.save_metrics(metrics)  # last: a run that has figures is ended


def _write_parts(run: Run) -> None:
    """Write the sub-maps that have not met the largest one: each as surfels and a trajectory, in a world of its own."""
    progress, origin = run.progress, run.slam.surfels.world_origin
    if len(progress.parts) == 1:
        return
    labels = LABEL_SETS[run.config.slam.perception.classes]
    for number, submap in enumerate(progress.parts[1:], 2):
        export.write_map_in_parts(run.folder.part_map(number), run.clouds(submap), labels)
        trajectory = progress.trajectory().selected(progress.tracked_in(submap))
        run.folder.save_part_trajectory(number, trajectory, origin)
