"""Maps and meshes as files that other programs read.

Labels in files count from 1; 0 is unlabelled. A PLY file names its classes in its comments.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from semslam.cloud import CloudInParts, SurfelCloud
from semslam.files.writing import check_suffix, check_writable, replacing
from semslam.frame import UNLABELLED
from semslam.geometry.mesh import LabelledMesh
from semslam.geometry.ply import read_ply, write_ply, write_ply_in_parts
from semslam.labels import LabelSet
from semslam.rendering.coloring import UNLABELLED_COLOR

AT_ONCE = 1 << 16  # surfels
CLASS_CLOUDS = "[0-9]*_*.ply"  # the files that `write_class_clouds` writes
CLASS_COMMENT = re.compile(r"label ([0-9]{1,18}) (.*?)(?: color \d+ \d+ \d+)?$")
MAP_PROPERTIES = ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "radius", "confidence", "label",
                  "label_confidence", "first_seen", "last_seen")  # fmt: skip


def file_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as files hold them: 255 wraps to 0, every other id grows by one."""
    return labels.astype(np.uint8) + np.uint8(1)


def memory_labels(labels: np.ndarray) -> np.ndarray:
    """The inverse of `file_labels`."""
    return labels.astype(np.uint8) - np.uint8(1)


def checked_classes(cloud: SurfelCloud, label_set: LabelSet) -> None:
    """ValueError where the map's classes are not those of the label set."""
    if cloud.class_probabilities is not None and cloud.class_probabilities.shape[1] != len(label_set):
        raise ValueError(
            f"the map tells {cloud.class_probabilities.shape[1]} classes apart, {label_set.name} has {len(label_set)}; "
            f"name the label set that the map was made with"
        )


def _class_comments(label_set: LabelSet) -> list[str]:
    colors = (" ".join(str(int(c)) for c in color) for color in label_set.colors)
    return [
        "made by semslam; metres",
        f"classes {label_set.name}",
        "label 0 unlabelled",
        *(f"label {i + 1} {name} color {rgb}" for i, (name, rgb) in enumerate(zip(label_set.classes, colors))),
    ]


def _vectors(names: str, vectors: np.ndarray, dtype: type) -> dict[str, np.ndarray]:
    return {name: np.asarray(vectors[:, k], dtype) for k, name in enumerate(names.split())}


def _places(positions: np.ndarray, world_origin: np.ndarray) -> dict[str, np.ndarray]:
    """x, y and z in the world: float32, or float64 far from 0, where float32 has lost its digits."""
    if not world_origin.any():
        return _vectors("x y z", positions, np.float32)
    return _vectors("x y z", positions + world_origin, np.float64)


def _origin_comments(world_origin: np.ndarray) -> list[str]:
    return [f"world_origin {' '.join(map(repr, world_origin.tolist()))}"] if world_origin.any() else []


def _read_places(values: Mapping[str, np.ndarray], comments: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 3) float32 relative to the world's origin, which a comment tells, and that."""
    said = [line.split()[1:] for line in comments if line.startswith("world_origin ")]
    try:
        origin = np.array(said[0] if said else [0, 0, 0], np.float64)
    except ValueError:
        raise ValueError(f"the file's comment world_origin {' '.join(said[0])} is not three numbers") from None
    positions = np.column_stack([values[k] for k in ("x", "y", "z")])
    return (positions - origin).astype(np.float32) if said else positions, origin


def write_map_ply(path: str | Path, cloud: SurfelCloud, label_set: LabelSet) -> None:
    """Write a map as binary PLY: x y z nx ny nz red green blue radius confidence label label_confidence entropy
    first_seen last_seen."""
    _write_ply_in_parts(path, CloudInParts.of(cloud), label_set)


def _write_ply_in_parts(path: str | Path, clouds: CloudInParts, label_set: LabelSet) -> None:
    parts = iter(clouds)
    first = next(parts)
    comments = [*_origin_comments(first.world_origin), *_class_comments(label_set)]
    properties = (_map_properties(part, label_set) for part in chain([first], parts))
    write_ply_in_parts(path, properties, len(clouds), comments=comments)


def _map_properties(cloud: SurfelCloud, label_set: LabelSet) -> dict[str, np.ndarray]:
    checked_classes(cloud, label_set)
    return {
        **_places(cloud.positions, cloud.world_origin),
        **_vectors("nx ny nz", cloud.normals, np.float32),
        **_vectors("red green blue", cloud.colors, np.uint8),
        "radius": np.asarray(cloud.radii, np.float32),
        "confidence": np.asarray(cloud.confidence, np.float32),
        "label": file_labels(cloud.labels()),
        "label_confidence": np.asarray(cloud.label_confidence(), np.float32),
        "entropy": np.asarray(cloud.entropy(), np.float32),
        "first_seen": np.asarray(cloud.first_seen, np.int32),
        "last_seen": np.asarray(cloud.last_seen, np.int32),
    }


def read_map_ply(path: str | Path) -> SurfelCloud:
    """The map in a file of `write_map_ply`.

    The file keeps each surfel's most probable class and its probability; the other classes share the rest evenly,
    so labels and label_confidence come back as they were, entropy does not (map.npz is the lossless form).
    """
    values, _, comments = read_ply(path)
    missing = [name for name in MAP_PROPERTIES if name not in values]
    if missing:
        raise ValueError(
            f"{path}: not a semslam map: it has {', '.join(values) or 'nothing'} but not {', '.join(missing)}; "
            f"only files written by semslam hold all that a map needs"
        )
    named = [int(m[1]) for m in map(CLASS_COMMENT.match, comments) if m]
    count = max([*named, int(values["label"].max(initial=0))], default=0)
    if count > UNLABELLED:
        raise ValueError(f"{path}: its comments name a class {count}, a map has at most {UNLABELLED}; write it again")
    probabilities = None
    if count:
        labels, confidence = memory_labels(values["label"]), values["label_confidence"]
        # the stored arg max must stay the arg max where rounding would let an equal share overtake it
        rest = np.minimum((1 - confidence) / max(count - 1, 1), confidence * np.float32(1 - 1e-6))
        probabilities = np.repeat(rest[:, None], count, axis=1).astype(np.float32)
        labelled = np.flatnonzero(labels != UNLABELLED)
        probabilities[labelled, labels[labelled]] = confidence[labelled]
        probabilities[labels == UNLABELLED] = 0
    positions, origin = _read_places(values, comments)
    return SurfelCloud(
        positions,
        np.column_stack([values[k] for k in ("nx", "ny", "nz")]),
        values["radius"],
        values["confidence"],
        np.column_stack([values[k] for k in ("red", "green", "blue")]),
        values["first_seen"],
        values["last_seen"],
        probabilities,
        origin,
    )


_PCD = (*("x", "y", "z", "normal_x", "normal_y", "normal_z"), "rgb", "radius", "confidence", "label_confidence",
        "entropy", "label")  # fmt: skip


def _write_pcd_in_parts(path: str | Path, clouds: CloudInParts, label_set: LabelSet) -> None:
    """Binary PCD, PCL's format, with the fields of the PLY but the frames; positions relative to the world's origin."""
    if len(clouds) == 0:
        raise ValueError(f"{path}: the map is empty, and a PCD file cannot be")
    kinds = {"rgb": ("U", "<u4"), "label": ("U", "u1")}
    row = np.dtype([(name, kinds.get(name, ("F", "<f4"))[1]) for name in _PCD])
    lines = {
        "VERSION": "0.7",
        "FIELDS": " ".join(_PCD),
        "SIZE": " ".join(str(row[name].itemsize) for name in _PCD),
        "TYPE": " ".join(kinds.get(name, ("F", ""))[0] for name in _PCD),
        "COUNT": " ".join("1" for _ in _PCD),
        "WIDTH": len(clouds),
        "HEIGHT": 1,
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": len(clouds),
        "DATA": "binary",
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        heading = "".join(f"{key} {value}\n" for key, value in lines.items())
        file.write(f"# .PCD v0.7 - Point Cloud Data file format\n{heading}".encode("ascii"))
        for part in clouds:
            checked_classes(part, label_set)
            for first in range(0, len(part), AT_ONCE):
                file.write(_pcd_rows(part.selected(np.arange(first, min(first + AT_ONCE, len(part)))), row).data)


def _pcd_rows(cloud: SurfelCloud, row: np.dtype) -> np.ndarray:
    red, green, blue = cloud.colors.astype(np.uint32).T
    values = {
        **_vectors("x y z", cloud.positions, np.float32),
        **_vectors("normal_x normal_y normal_z", cloud.normals, np.float32),
        "rgb": red << 16 | green << 8 | blue,
        "radius": cloud.radii,
        "confidence": cloud.confidence,
        "label_confidence": cloud.label_confidence(),
        "entropy": cloud.entropy(),
        "label": file_labels(cloud.labels()),
    }
    rows = np.empty(len(cloud), row)
    for name, array in values.items():
        rows[name] = array
    return rows


def _check_written(written: bool, path: str | Path) -> None:
    """OSError where Open3D wrote no whole file beside `path`: it may not notice a full disk, and never says why."""
    if shutil.disk_usage(Path(path).parent).free == 0:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    if not written:
        raise OSError(f"{path}: Open3D could not write it; is its folder read-only?")


def write_class_clouds(folder: str | Path, clouds: CloudInParts, label_set: LabelSet) -> list[Path]:
    """Write the surfels of each class present to their own PLY, `05_floor.ply`, unlabelled ones to
    `00_unlabelled.ply`; the paths written. The folder is made where it is missing; those of
    an older export are removed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for older in folder.glob(CLASS_CLOUDS):
        older.unlink()
    counts = np.zeros(UNLABELLED + 1, np.int64)
    for part in clouds:
        checked_classes(part, label_set)
        counts += np.bincount(part.labels(), minlength=len(counts))
    digits = len(str(len(label_set)))
    paths = []
    for class_id in map(int, np.flatnonzero(counts)):
        name = "unlabelled" if class_id == UNLABELLED else label_set.classes[class_id]
        number = 0 if class_id == UNLABELLED else class_id + 1
        path = folder / f"{number:0{digits}d}_{re.sub(r'[^0-9A-Za-z]+', '-', name)}.ply"
        of_class = clouds.where(lambda part, wanted=class_id: part.labels() == wanted, int(counts[class_id]))  # type: ignore[misc]
        _write_ply_in_parts(path, of_class, label_set)
        paths.append(path)
    return paths


def mesh_label_colors(mesh: LabelledMesh, label_set: LabelSet) -> np.ndarray:
    """(V, 3) uint8 colours of the vertices' classes, grey where unlabelled."""
    colors = label_set.colorize(mesh.labels)
    colors[mesh.labels == UNLABELLED] = UNLABELLED_COLOR
    return colors


def write_mesh_ply(path: str | Path, mesh: LabelledMesh, label_set: LabelSet, *, by: str = "color") -> None:
    """Write a mesh as binary PLY with x y z nx ny nz red green blue label label_red label_green label_blue.

    red green blue are what programs show: the recorded colour, or with `by` "label" the class's.
    """
    label_colors = mesh_label_colors(mesh, label_set)
    properties = {
        **_places(mesh.vertices, mesh.world_origin),
        **_vectors("nx ny nz", mesh.normals, np.float32),
        **_vectors("red green blue", _shown_colors(mesh, label_set, by), np.uint8),
        "label": file_labels(mesh.labels),
        **_vectors("label_red label_green label_blue", label_colors, np.uint8),
    }
    comments = [*_origin_comments(mesh.world_origin), *_class_comments(label_set)]
    write_ply(path, properties, mesh.triangles, comments)


def read_mesh_ply(path: str | Path) -> LabelledMesh:
    """The mesh in a file of `write_mesh_ply`."""
    values, triangles, comments = read_ply(path)
    needed = ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "label")
    missing = [name for name in needed if name not in values]
    if triangles is None or missing:
        raise ValueError(f"{path}: not a labelled mesh of semslam: it has no {', '.join(missing) or 'triangles'}")
    vertices, origin = _read_places(values, comments)
    return LabelledMesh(
        vertices,
        triangles,
        np.column_stack([values[k] for k in ("nx", "ny", "nz")]),
        np.column_stack([values[k] for k in ("red", "green", "blue")]),
        memory_labels(values["label"]),
        origin,
    )


def _shown_colors(mesh: LabelledMesh, label_set: LabelSet, by: str) -> np.ndarray:
    if by not in ("color", "label"):
        raise ValueError(f"a mesh is coloured by color or label, not by {by!r}")
    return mesh.colors if by == "color" else mesh_label_colors(mesh, label_set)


def _write_mesh_open3d(path: str | Path, mesh: LabelledMesh, label_set: LabelSet, *, by: str = "color") -> None:
    """OBJ (colours behind the vertices) or GLB (glTF's COLOR_0, which is linear light)."""
    import open3d as o3d

    path = Path(path)
    check_writable(path)
    if len(mesh.triangles) == 0:
        raise ValueError(f"{path}: the mesh has no triangles, and {path.suffix} files need some")
    colors = _shown_colors(mesh, label_set, by).astype(np.float32) / 255
    if path.suffix == ".glb":
        colors = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4).astype(np.float32)
    shape = o3d.t.geometry.TriangleMesh(
        o3d.core.Tensor(np.ascontiguousarray(mesh.vertices, np.float32)),
        o3d.core.Tensor(np.ascontiguousarray(mesh.triangles, np.int32)),
    )
    shape.vertex.normals = o3d.core.Tensor(np.ascontiguousarray(mesh.normals, np.float32))
    shape.vertex.colors = o3d.core.Tensor(np.ascontiguousarray(colors))
    # an OBJ names its material file, so both are written under their own names and moved together
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part") as temporary:
        text = path.suffix == ".obj"  # says so itself, on standard output, when it is not asked for
        written = o3d.t.io.write_triangle_mesh(str(Path(temporary) / path.name), shape, write_ascii=text)
        _check_written(written, path)
        for file in sorted(Path(temporary).iterdir()):
            os.replace(file, path.with_name(file.name))


MAP_WRITERS: dict[str, Callable[[str | Path, CloudInParts, LabelSet], None]] = {
    ".ply": _write_ply_in_parts,
    ".pcd": _write_pcd_in_parts,
}
MESH_WRITERS: dict[str, Callable[..., None]] = {
    ".ply": write_mesh_ply,
    ".obj": _write_mesh_open3d,
    ".glb": _write_mesh_open3d,
}


def write_mesh(path: str | Path, mesh: LabelledMesh, label_set: LabelSet, *, by: str = "color") -> None:
    """Write a mesh in the format that the path's suffix names, coloured `by` color or label."""
    MESH_WRITERS[check_suffix(path, "meshes", MESH_WRITERS)](path, mesh, label_set, by=by)


def write_map_in_parts(path: str | Path, clouds: CloudInParts, label_set: LabelSet) -> None:
    """Write a map's surfels, of which there is at least one part, in the format that the path's suffix names."""
    MAP_WRITERS[check_suffix(path, "surfels", MAP_WRITERS)](path, clouds, label_set)
