"""Binary PLY files whose vertices carry named scalars.

Written here rather than by Open3D, whose writers (0.20) report success on a full disk, drop the labels of a mesh and
refuse an empty cloud. What is written opens in Open3D, MeshLab and CloudCompare with every property kept.
Format: Greg Turk, The PLY Polygon File Format (1994).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from semslam.atomic import replacing

TYPES = {"u1": "uchar", "i1": "char", "u2": "ushort", "i2": "short", "u4": "uint", "i4": "int", "f4": "float"}
TYPES["f8"] = "double"
DTYPES = {name: dtype for dtype, name in TYPES.items()}
DTYPES |= {"uint8": "u1", "int8": "i1", "uint16": "u2", "int16": "i2", "uint32": "u4", "int32": "i4"}
DTYPES |= {"float32": "f4", "float64": "f8"}
LONGEST_HEADER = 1 << 20  # bytes; label sets of 894 classes take 40 kB


def write_ply(
    path: str | Path,
    properties: Mapping[str, np.ndarray],
    triangles: np.ndarray | None = None,
    comments: Sequence[str] = (),
) -> None:
    """Write vertices with the scalar properties name -> (N,) and, where given, triangles (M, 3) of vertex indices.

    The file appears whole or not at all. OSError where it cannot be written.
    """
    fields = [(name, np.asarray(values).dtype.str[1:]) for name, values in properties.items()]
    count = len(next(iter(properties.values())))
    vertices = np.empty(count, np.dtype([(name, "<" + dtype) for name, dtype in fields]))
    for name, values in properties.items():
        vertices[name] = values
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {count}", *(f"property {TYPES[dtype]} {name}" for name, dtype in fields)]
    if triangles is not None:
        header += [f"element face {len(triangles)}", "property list uchar int vertex_indices"]
        faces = np.empty(len(triangles), np.dtype([("count", "u1"), ("indices", "<i4", (3,))]))
        faces["count"], faces["indices"] = 3, triangles
    header.append("end_header\n")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write("\n".join(header).encode("ascii", "replace"))
        file.write(vertices.data)
        if triangles is not None:
            file.write(faces.data)


def read_ply(path: str | Path) -> tuple[dict[str, np.ndarray], np.ndarray | None, list[str]]:
    """Properties name -> (N,), triangles (M, 3) int32 or None, and the comments of a file that `write_ply` wrote.

    ValueError for other layouts (text, big endian, polygons): Open3D and MeshLab convert them.
    """
    path = Path(path)
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    head = data[:LONGEST_HEADER].tobytes()
    end = head.find(b"end_header\n")
    lines = head[: max(end, 0)].decode("ascii", "replace").splitlines()
    if end < 0 or lines[0] != "ply" or "format binary_little_endian 1.0" not in lines:
        raise ValueError(f"{path}: not a binary little-endian PLY file; convert it with Open3D or MeshLab")
    elements: dict[str, tuple[int, list[tuple[str, str]]]] = {}
    for words in (line.split() for line in lines):
        if words[:1] == ["element"]:
            elements[words[1]] = (int(words[2]), [])
        elif words[:2] == ["property", "list"]:
            if words[2:] not in (["uchar", "int", "vertex_indices"], ["uchar", "uint", "vertex_indices"]):
                raise ValueError(f"{path}: cannot read the property {' '.join(words)!r}; convert it with Open3D")
            list(elements.values())[-1][1].extend([("count", "u1"), ("indices", "(3,)<i4")])
        elif words[:1] == ["property"]:
            if words[1] not in DTYPES:
                raise ValueError(f"{path}: the property {words[2]} has the unknown type {words[1]!r}")
            list(elements.values())[-1][1].append((words[2], "<" + DTYPES[words[1]]))
    start = end + len(b"end_header\n")
    found: dict[str, np.ndarray] = {}
    for name, (count, fields) in elements.items():
        dtype = np.dtype(fields)
        if len(data) < start + count * dtype.itemsize:
            raise ValueError(
                f"{path}: cut short: {len(data)} bytes, its header promises {count} of {name} up to byte "
                f"{start + count * dtype.itemsize}; write the file again"
            )
        found[name] = data[start : start + count * dtype.itemsize].view(dtype)
        start += count * dtype.itemsize
    if "vertex" not in found:
        raise ValueError(f"{path}: a PLY file without vertices")
    triangles = None
    if "face" in found:
        if np.any(found["face"]["count"] != 3):
            raise ValueError(f"{path}: has faces that are not triangles; triangulate it with Open3D or MeshLab")
        triangles = found["face"]["indices"].copy()
    vertices = found["vertex"]
    comments = [line.removeprefix("comment ") for line in lines if line.startswith("comment ")]
    return {name: vertices[name].copy() for name in vertices.dtype.names or ()}, triangles, comments
