"""Two finished runs joined into one map, where their maps show the same places."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.engine.doubles import doubles
from semslam.engine.fusion import Fusion
from semslam.engine.labels.evidence import LATEST
from semslam.engine.saved_surfels import state_of
from semslam.engine.surfels import SURFEL_ARRAYS, SurfelMap
from semslam.geometry.tsdf_mesh import ReconstructionConfig, mesh_of_map
from semslam.loops.meetings import AGREE
from semslam.loops.pose_graph import Edge, optimized_poses
from semslam.rendering.splatting import observed
from semslam.runs.derived import check_derivable, derived_folder, tell_memory, write_derived
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.folder import RunFolder
from semslam.stage import prefixed
from semslam.tracking.relocalisation.places import WIDTH
from semslam.tracking.relocalisation.resection import Described
from semslam.tracking.tracker import Tracker

logger = logging.getLogger(__name__)
VIEWS = 40  # of the second map, those that most look like it, that are looked for in the first; then one by one ...
ENOUGH = 4  # ... the others, until so many are found at one place
FEWEST = 2  # of them that have to be found at one place
SHORT = 5  # views, below which it is told that a run shows little
COPIES, BESIDES = 6, 240  # of a surfel's arrays, and bytes for what its map shows and the mesh: memory, about
ERR = 0.005  # metres and radians by which views err besides noise


@dataclass(frozen=True, eq=False)
class _Sight:
    """A view of the second map, found in the first."""

    T_b_view: np.ndarray  # (4, 4)
    T_a_view: np.ndarray  # (4, 4)
    covariance: np.ndarray  # (6, 6) of the twist of T_a_view

    @property
    def T_a_b(self) -> np.ndarray:
        return self.T_a_view @ poses.inverse(self.T_b_view)

    def agrees(self, other: _Sight) -> bool:
        apart = poses.inverse(other.T_a_b @ self.T_b_view) @ self.T_a_view
        return bool(np.linalg.norm(apart[:3, 3]) < AGREE[0] and poses.rotation_angle(apart) < AGREE[1])


def merge(run_a: str | Path, run_b: str | Path, out: str | Path, overwrite: bool = False) -> RunFolder:
    """Write the run `run_a` with the map of `run_b` added to it, in the world of `run_a`.

    Views of the second map are found in the first by features, and registered against it; two at least have to lead to
    the same motion between the maps. Its surfels that the first map has already are left out. Where both runs have a
    mesh, a new one is made of what the joint map shows from its places. Trajectory, figures and recording stay those of
    `run_a`; the poses of `run_b`, and of the runs that either map is of, are written to other_trajectory_N.txt.

    overwrite: replace a run that `out` holds. ValueError where the maps do not meet or are of different classes, where
    both are one, and where `out` is one of the two runs.
    """
    if os.path.realpath(run_a) == os.path.realpath(run_b):
        raise ValueError(f"{run_b}: is the same run; name two runs, of recordings that show part of the same place")
    if os.path.realpath(out) in (os.path.realpath(run_a), os.path.realpath(run_b)):
        raise ValueError(f"{out}: a run is not written over one that it is made from; name another --out")
    of_a, of_b = RunFolder.open(run_a), RunFolder.open(run_b)
    check_derivable(of_a, Path(out), overwrite)
    size = of_a.load_metrics().get("bytes_per_surfel", 0.0)  # none of a run that was interrupted
    tell_memory("joining", COPIES * size + BESIDES, of_a, of_b)
    a, b = FinishedMap(run_a), FinishedMap(run_b)
    _check_alike(a, b)
    _check_apart(a, b)
    for folder in (of_a, of_b):
        if added := folder.count_filled():
            logger.warning("%s: %d surfels that --fill or planes added to its map are not joined", folder.path, added)
    T_a_b, sights = _motion_between(a, b, str(run_a), str(run_b))
    folder = derived_folder(a.folder, Path(out), overwrite)

    earlier = a.progress.before + b.progress.next_index  # frames of b count as those before the ones of a
    merged, doubled = _joined(a, b, T_a_b, earlier)
    places = a.places
    places.take(b.places, T_a_b, -earlier)
    camera = _camera(a)
    changes = state_of(merged) | prefixed("places_", places.state())
    others = [*a.progress.others, *b.progress.as_others(os.path.abspath(run_b), -earlier, T_a_b)]
    changes |= replace(a.progress, before=earlier + b.progress.before, others=others).state()
    changes["fusion_index"] = np.full(camera.height * camera.width, np.iinfo(np.int64).max)  # of no surfel
    metrics = {
        "surfels": merged.living(),
        "merged_from": [str(run_a), str(run_b)],
        "merged_views": sights,
        "merged_doubled": doubled,
    }
    out_of_date = ("run_events", "fusion_index_pose", "fusion_to_compact")
    mesh = None
    if a.folder.mesh.is_file() and b.folder.mesh.is_file():
        far = float(np.percentile(np.concatenate([points[:, 2] for points in places.points]), 99))
        reach = ReconstructionConfig.reaching(far)
        mesh = partial(mesh_of_map, camera=camera, T_world_camera=places.T_world_camera, config=reach)
    config = replace(a.config, extend=None)  # no frames of its own go on in it
    return write_derived(a.folder, folder, config, changes, metrics, forget=out_of_date, mesh_of=mesh)


def _check_apart(a: FinishedMap, b: FinishedMap) -> None:
    """ValueError where both maps are of the same runs; a warning where some of them are in both."""
    of_a, of_b = ({run.progress.identity, *(other.identity for other in run.progress.others)} for run in (a, b))
    if of_a == of_b:
        raise ValueError(f"{b.folder.path}: its frames are in the map of {a.folder.path} already; name another run")
    if shared := of_a & of_b:
        told = "%s: the frames of %d of its %d runs are in the map of %s already, and count twice"
        logger.warning(told, b.folder.path, len(shared), len(of_b), a.folder.path)


def _check_alike(a: FinishedMap, b: FinishedMap) -> None:
    """ValueError where either map is in parts, or where what they know of classes does not add up."""
    for finished in (a, b):
        finished.check_joined("merge")
    run_a, run_b = a.folder.path, b.folder.path
    classes = [(f.surfels.num_classes, f.config.slam.perception.classes) for f in (a, b)]
    if classes[0] != classes[1]:
        has = [f"{count} classes ({label_set})" if count else "no labels" for count, label_set in classes]
        raise ValueError(
            f"{run_a} has {has[0]}, {run_b} has {has[1]}; give both the same classes with `semslam relabel`"
        )
    ours, theirs = (f.config.slam.labels.unit for f in (a, b))
    if classes[0][0] and ours != theirs:
        raise ValueError(
            f"{run_a}: its classes were fused with `slam.labels.method` {ours[0]} and `floor` {ours[1]}, those of "
            f"{run_b} with {theirs[0]} and {theirs[1]}, which do not add up; make one of them again as the other"
        )


def _camera(finished: FinishedMap) -> Camera:
    """That of the run's frames as they were fused."""
    return finished.camera.of_width(finished.config.slam.perception.width or finished.camera.width)


def _motion_between(a: FinishedMap, b: FinishedMap, run_a: str, run_b: str) -> tuple[np.ndarray, int]:
    """T_a_b, and how many views it rests on; ValueError where the maps do not meet."""
    sights = _sights(a, b, _camera(a), _camera(b))
    largest = _largest(sights)
    if len(largest) < FEWEST:
        kept = f"{len(a.places)} and {len(b.places)} views are kept of them"
        hint = (
            f"{kept}, too few to be found: record longer, with a camera that moves"
            if min(len(a.places), len(b.places)) < SHORT
            else f"{kept}; record the second so that it sees part of what the first shows"
        )
        raise ValueError(
            f"{run_b} does not meet {run_a}: {len(sights)} of {len(b.places)} views of its map are found in the other, "
            f"{len(largest)} of them at one place, expected {FEWEST} or more; {hint}"
        )
    edges = []
    for sight in largest:
        A = poses.adjoint(sight.T_b_view)  # errors of the view as ones of b
        covariance = A @ (sight.covariance + np.eye(6) * ERR**2) @ A.T
        edges.append(Edge(0, 1, sight.T_a_b, np.linalg.inv(covariance), closure=True))
    return optimized_poses(np.stack([np.eye(4), largest[0].T_a_b]), edges)[1], len(largest)


def _largest(sights: list[_Sight]) -> list[_Sight]:
    """Most of the sights that agree with one of them."""
    return max(([other for other in sights if other.agrees(one)] for one in sights), key=len, default=[])


def _sights(a: FinishedMap, b: FinishedMap, camera_a: Camera, camera_b: Camera) -> list[_Sight]:
    """The places of b that are found in a: by features, then as b's map looks from there. All are tried where too few
    of the likeliest agree."""
    slam = a.progress.with_found(a.config.slam)
    fusion, tracker, cloud = Fusion(camera_a, slam.fusion), Tracker(slam.tracking), b.surfels.cloud()
    described = camera_b.of_width(min(WIDTH, camera_b.width))
    found: list[_Sight] = []
    likeliest = np.argsort(-a.places.likeness(b.places), kind="stable").tolist()
    for tried, k in enumerate([*sorted(likeliest[:VIEWS]), *likeliest[VIEWS:]]):
        if tried >= VIEWS and len(_largest(found)) >= ENOUGH:
            break
        T_b_view, points = b.places.T_world_camera[k], b.places.points[k]
        pixels = described.project(points).astype(np.float32)
        image = Described(described, pixels, b.places.descriptors[k])
        candidates = list(a.places.candidates(image))
        if not candidates:
            continue
        observation = fusion.prepare(observed(cloud, camera_a, T_b_view))
        for candidate in candidates:
            at = tracker.settled(observation, partial(fusion.predict, a.surfels), candidate.T_world_camera)
            if at is not None:
                found.append(_Sight(T_b_view, at.T_world_camera, at.covariance))
                break
    return found


def _living(surfels: SurfelMap) -> dict[str, np.ndarray]:
    """Copies of the arrays of a map's surfels, without those that wait for their removal: they hide no others."""
    slots = surfels.slots()[surfels.are_living()]
    return {name: getattr(surfels, name)[slots] for name in SURFEL_ARRAYS}


def _joined(a: FinishedMap, b: FinishedMap, T_a_b: np.ndarray, earlier: int) -> tuple[SurfelMap, int]:
    """A map of the surfels of both, and how many of b's were left out because a has the same surface there."""
    first, second = _living(a.surfels), _living(b.surfels)
    second["position"][:, :3] = poses.transform(T_a_b, second["position"][:, :3])
    second["normal"][:, :3] = second["normal"][:, :3] @ T_a_b[:3, :3].T.astype(np.float32)
    second["seen"] -= earlier
    second["evidence"][:, LATEST:] = 0  # b's numbers of views mean others in a
    same = np.zeros(len(second["position"]), bool)
    same[doubles((second["position"], second["normal"]), (first["position"], first["normal"]))[:, 0]] = True
    both = {name: np.concatenate([first[name], second[name][~same]]) for name in SURFEL_ARRAYS}
    count = len(both["position"])
    of_a = a.config.slam.map
    config = replace(of_a, max_surfels=max(of_a.max_surfels, count), block=a.surfels.block)
    merged = SurfelMap.from_arrays(**both, num_classes=a.surfels.num_classes, config=config)
    merged.world_origin = a.surfels.world_origin
    return merged, int(same.sum())
