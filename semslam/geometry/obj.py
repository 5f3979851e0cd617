"""Wavefront OBJ files, their vertices and faces: read here, because Open3D's reader crashes on damaged ones."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from semslam.geometry.polygons import triangles_of


def read_obj(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) float64 and triangles (M, 3) int64, none for a cloud; polygons are cut into triangles.

    Normals, texture coordinates, colours and groups are passed over. ValueError, with the line, for what is no number
    and for faces of vertices that are not there.
    """
    path = Path(path)
    places, counts, corners = array("d"), array("q"), array("q")
    for number, line in enumerate(path.read_bytes().replace(b"\\\n", b" ").splitlines(), 1):
        words = line.split()
        try:
            if words[:1] == [b"v"]:
                x, y, z = map(float, words[1:4])
                places.extend((x, y, z))
            elif words[:1] == [b"f"] and len(words) > 3:
                named = [int(word.split(b"/", 1)[0]) for word in words[1:]]
                known = len(places) // 3
                counts.append(len(named))
                # counted from 1; negative ones from the latest vertex backwards
                corners.extend(i - 1 if i > 0 else known + i if i < 0 else -1 for i in named)
        except (ValueError, OverflowError):
            raise ValueError(
                f"{path}:{number}: cannot read {line[:60].decode('latin-1')!r}; the file is damaged, write it again"
            ) from None
    vertices, flat = np.array(places).reshape(-1, 3), np.array(corners, np.int64)
    if len(flat) and not (flat.min() >= 0 and flat.max() < len(vertices)):
        raise ValueError(f"{path}: a face names a vertex beyond the {len(vertices)} there are; write the file again")
    return vertices, triangles_of(np.array(counts, np.int64), flat)
