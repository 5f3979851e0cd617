"""What other programs can open of a run, in one folder: surfels, meshes, class clouds, objects, floor plan."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from semslam.files.writing import replacing, write_json
from semslam.geometry import export
from semslam.geometry.objects import objects, write_objects_csv
from semslam.rendering.floor_plan import floor_plan, write_floor_plan
from semslam.rendering.viewpoint import up_direction
from semslam.runs.folder import RunFolder
from semslam.runs.recording import check_apart
from semslam.runs.storage.paths import OTHERS

MESHES = ("mesh.ply", "mesh.obj", "mesh.glb")
MARK = "export.json"  # of a folder of exports, whose files the next export replaces
logger = logging.getLogger(__name__)

OBJECT_BYTES = 400  # a surfel, by which objects are found and the plan is drawn
ORIGIN = "world_origin.txt"  # of far worlds: what the files with numbers in single precision count from
WRITTEN = (
    "trajectory.txt", "trajectory_fused.txt", OTHERS, ORIGIN, "surfels.ply", "surfels.pcd", *MESHES, "mesh_labels.glb",
    "objects.csv", "floor_plan.png", f"classes/{export.CLASS_CLOUDS}",
)  # fmt: skip


def export_run(run: str | Path, out: str | Path) -> Iterator[tuple[str, Path]]:
    """Write the exports of a run one after another; yields (what it is, its path) of each when it is written.

    trajectory.txt; where tracking was poor, trajectory_fused.txt; of the other runs that the map is of,
    other_trajectory_N.txt; surfels.ply and surfels.pcd; mesh.ply, mesh.obj and mesh.glb in the recorded colours, where
    the run has a mesh with triangles; floor_plan.png; of a map with classes mesh_labels.glb in their colours,
    classes/NN_NAME.ply, objects.csv.
    `out` is made, and export.json in it, by which the next export knows that it may replace these files; ValueError
    where files of others have their names.
    Of a world far from its origin, world_origin.txt says what the coordinates in PCD, OBJ and GLB files are relative
    to, which cannot hold them; PLY, CSV and trajectory files hold the world's own.
    """
    folder = RunFolder.open(run)
    clouds, label_set = folder.load_clouds()
    if len(clouds) == 0:
        raise ValueError(folder.nothing_mapped)
    progress, mesh = folder.load_progress(), folder.load_mesh()
    paths = progress.paths()
    out = Path(out)
    check_apart(out, folder.load_config().sequence)
    if RunFolder(out).exists:
        raise ValueError(f"{out}: holds a run; name another folder for the exports, {out}/export for example")
    _clear(out, run)
    # objects and the plan are of some of the surfels where memory allows no more
    cloud = clouds.sample((folder.load_config().slam.map.memory_bytes or 0) // OBJECT_BYTES)
    if len(cloud) < len(clouds):
        logger.warning(
            "%s: objects.csv and floor_plan.png are made from %d of its %d surfels, made larger, since the memory of "
            "the run allows no more (slam.map.memory); the other files have all of them",
            *(run, len(cloud), len(clouds)),
        )
    if cloud.world_origin.any():
        _write_origin(out / ORIGIN, cloud.world_origin)
        yield "world origin", out / ORIGIN
    for path in RunFolder(out).save_trajectories(progress, cloud.world_origin):
        yield "trajectory", path
    for name in ("surfels.ply", "surfels.pcd"):
        export.write_map_in_parts(out / name, clouds, label_set)
        yield "surfels", out / name
    if mesh is not None and len(mesh.triangles):
        for name in MESHES:
            export.write_mesh(out / name, mesh, label_set)
            yield "mesh", out / name
        if cloud.class_probabilities is not None:
            export.write_mesh(out / "mesh_labels.glb", mesh, label_set, by="label")
            yield "mesh of classes", out / "mesh_labels.glb"
    up = up_direction(cloud, label_set, np.concatenate(paths))
    if cloud.class_probabilities is not None:
        for path in export.write_class_clouds(out / "classes", clouds, label_set):
            yield "class", path
        found = [replace(o, center=tuple(cloud.world_origin + o.center)) for o in objects(cloud, label_set, up=up)]
        write_objects_csv(out / "objects.csv", found)
        yield "objects", out / "objects.csv"
    plan = floor_plan(cloud, label_set, up=up, paths=paths)
    write_floor_plan(out / "floor_plan.png", plan, label_set, title=folder.title)
    yield "floor plan", out / "floor_plan.png"
    yield "export", out / MARK


def _clear(out: Path, run: str | Path) -> None:
    """Make a folder for exports, without those of an earlier one: this run may have fewer."""
    older = [path for name in WRITTEN for path in sorted(out.glob(name))]
    if older and not (out / MARK).is_file():
        raise ValueError(
            f"{out}: holds {older[0].relative_to(out)}, and no {MARK} of an earlier export; move it, or name another "
            f"folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / MARK, {"exported_from": str(run)})
    for path in older:
        path.unlink()


def _write_origin(path: Path, world_origin: np.ndarray) -> None:
    x, y, z = map(repr, world_origin.tolist())
    with replacing(path) as temporary:
        temporary.write_text(
            f"# metres; add them to the coordinates in .pcd, .obj and .glb files to get the world's\n{x} {y} {z}\n",
            encoding="utf-8",
        )
