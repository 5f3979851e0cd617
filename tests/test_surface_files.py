"""Meshes and clouds of other programs: every form of PLY and OBJ, and damaged files that end in one line."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from semslam.geometry import open3d_reader
from semslam.geometry.files import read_surface
from semslam.geometry.obj import read_obj
from semslam.geometry.ply import read_ply, write_ply

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 2, 0]], np.float32)
POLYGONS = ([0, 1, 2], [0, 2, 3], [3, 2, 4])
HEADER = """ply
format {form} 1.0
comment made by hand
obj_info nothing
element vertex 5
property float x
property float y
property float z
property uchar quality
element face {faces}
property uchar shade
property list uchar int {corners}
property list uchar float texcoord
element edge 1
property int from
property int to
end_header
"""


def ply(form: str, polygons, corners: str = "vertex_indices", newline: str = "\n") -> bytes:
    """A PLY file with more in it than we need: a scalar and a list beside each face's corners, and edges."""
    head = HEADER.format(form=form, faces=len(polygons), corners=corners).replace("\n", newline).encode()
    if form == "ascii":
        lines = [f"{x} {y} {z} 7" for x, y, z in CORNERS]
        lines += [f"9 {len(p)} {' '.join(map(str, p))} 2 0.5 0.25" for p in polygons]
        return head + ("\n".join([*lines, "0 1"]) + "\n").encode()
    order = "<" if "little" in form else ">"
    body = b"".join(struct.pack(f"{order}3fB", *corner, 7) for corner in CORNERS)
    for p in polygons:
        body += struct.pack(f"{order}BB{len(p)}iB2f", 9, len(p), *p, 2, 0.5, 0.25)
    return head + body + struct.pack(f"{order}2i", 0, 1)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_form_of_ply_holds_the_same_mesh(form, newline, tmp_path):
    (tmp_path / "mesh.ply").write_bytes(ply(form, POLYGONS, newline=newline))
    values, triangles, comments = read_ply(tmp_path / "mesh.ply")
    np.testing.assert_array_equal(np.column_stack([values[k] for k in "xyz"]), CORNERS)
    assert (values["quality"] == 7).all() and values["quality"].dtype == np.uint8
    np.testing.assert_array_equal(triangles, POLYGONS)
    assert comments == ["made by hand"]


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_polygons_become_triangles_and_lines_nothing(form, tmp_path):
    (tmp_path / "mesh.ply").write_bytes(ply(form, ([0, 1, 2, 3], [3, 2], [3, 2, 4]), corners="vertex_index"))
    _, triangles = read_surface(tmp_path / "mesh.ply")
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [0, 2, 3], [3, 2, 4]])
    (tmp_path / "quads.ply").write_bytes(ply(form, ([0, 1, 2, 3], [0, 1, 4, 3])))
    _, triangles = read_surface(tmp_path / "quads.ply")
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [0, 2, 3], [0, 1, 4], [0, 4, 3]])


def forged(tmp_path: Path, old: str, new: str, form: str) -> Path:
    data = ply(form, POLYGONS)
    assert old.encode() in data
    (tmp_path / "forged.ply").write_bytes(data.replace(old.encode(), new.encode(), 1))
    return tmp_path / "forged.ply"


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("element vertex 5", "element vertex 1000000000000", "cut short"),
        ("element face 3", "element face 1000000000000", "cut short"),
        ("element edge 1", "element edge 99999999999999999", "cut short"),
        ("element vertex 5", "element vertex -5", "not understood"),
        ("element vertex 5", "element vertex five", "not understood"),
        ("element vertex 5", "element vortex 5", "without vertices"),
        ("property float y", "property float x", "twice"),
        ("property float y", "property quaternion y", "cannot read"),
        ("property list uchar int", "property list float int", "cannot read"),
        ("end_header", "end_heade", "not understood"),
        ("format", "former", "not understood"),
        ("1.0", "1.0 2.0", "its format is none of"),
    ],
)
def test_a_forged_header_is_one_line_and_costs_no_memory(form, old, new, said, tmp_path):
    path = forged(tmp_path, old, new, form)
    tracemalloc.start()
    with pytest.raises(ValueError, match=said) as caught:
        read_surface(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert peak < 20e6


def test_faces_of_vertices_that_are_not_there_are_refused(tmp_path):
    for corner in (5, -1):
        (tmp_path / "mesh.ply").write_bytes(ply("binary_little_endian", ([0, 1, corner],)))
        with pytest.raises(ValueError, match="a face names a vertex beyond"):
            read_surface(tmp_path / "mesh.ply")
        (tmp_path / "mesh.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 {4 if corner > 0 else -7}\n")
        with pytest.raises(ValueError, match="a face names a vertex beyond"):
            read_surface(tmp_path / "mesh.obj")


def test_an_obj_names_corners_from_the_first_or_from_the_latest_vertex(tmp_path):
    (tmp_path / "mesh.obj").write_text(
        "# by hand\nmtllib none.mtl\no thing\nv 0 0 0 0.5 0.5 0.5\nv 1 0 0\nvn 0 0 1\nv 1 1 0\nv 0 1 0\n"
        "f 1/1/1 2//1 \\\n 3\nf -4 -2 -1\nf 1 2 3 4\nl 1 2\n"
    )
    vertices, triangles = read_obj(tmp_path / "mesh.obj")
    np.testing.assert_array_equal(vertices, CORNERS[:4])
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 3]])
    for bad in ("v 0 0\n", "v 0 0 zero\n", "v 0 0 0\nf a b c\n", "v 0 0 0\nf 1 1 99999999999999999999\n"):
        (tmp_path / "bad.obj").write_text(bad)
        with pytest.raises(ValueError, match=r"bad\.obj:\d: cannot read"):
            read_surface(tmp_path / "bad.obj")


def test_points_that_are_not_finite_are_left_out_and_counted(tmp_path, caplog):
    places = CORNERS.copy()
    places[1, 2] = np.nan
    write_ply(tmp_path / "mesh.ply", dict(zip("xyz", places.T)), np.array(POLYGONS, np.int32))
    points, triangles = read_surface(tmp_path / "mesh.ply")
    np.testing.assert_array_equal(points, CORNERS[[0, 2, 3, 4]])
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [2, 1, 3]])
    assert "1 of 5 points are not finite" in caplog.text


def test_far_coordinates_keep_their_digits(tmp_path):
    far = CORNERS.astype(np.float64) + [500000.125, 5400000.0625, 300]
    write_ply(tmp_path / "far.ply", dict(zip("xyz", far.T)))
    np.testing.assert_array_equal(read_surface(tmp_path / "far.ply")[0], far)
    (tmp_path / "far.obj").write_text("".join(f"v {x:.4f} {y:.4f} {z}\n" for x, y, z in far))
    np.testing.assert_array_equal(read_surface(tmp_path / "far.obj")[0], far)


def test_other_formats_are_read_by_open3d_in_a_process_of_its_own(tmp_path, monkeypatch):
    o3d = pytest.importorskip("open3d")
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(CORNERS.astype(float)), o3d.utility.Vector3iVector(np.array(POLYGONS))
    )
    mesh.compute_vertex_normals()
    assert o3d.io.write_triangle_mesh(str(tmp_path / "mesh.stl"), mesh)
    points, triangles = read_surface(tmp_path / "mesh.stl")
    np.testing.assert_allclose(points[triangles], CORNERS[np.array(POLYGONS)], atol=1e-6)
    crash = "import os; os.abort()"
    monkeypatch.setattr(open3d_reader.sys, "executable", str(tmp_path / "crashing"))
    (tmp_path / "crashing").write_text(f"#!/bin/sh\nexec python3 -c '{crash}'\n")
    (tmp_path / "crashing").chmod(0o755)
    with pytest.raises(ValueError, match="Open3D cannot read it"):
        read_surface(tmp_path / "mesh.stl")
