"""Commands to look at a run: exports, pictures, windows, films, pages."""

from __future__ import annotations

import csv
import json
import struct

import cv2
import numpy as np
import pytest
from test_reconstruct import refused, semslam

from semslam.export import read_map_ply, read_mesh_ply
from semslam.run_folder import RunFolder

ROOM = "room:frames=12,width=128,height=96"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "room"
    assert semslam("reconstruct", ROOM, "--out", out, "--labels", "truth") == 0
    return RunFolder.open(out)


def test_every_export_opens_in_open3d_with_what_the_run_holds(run, tmp_path, capfd):
    import open3d as o3d

    out = tmp_path / "made" / "here"
    assert semslam("export", run.path, "--out", out) == 0
    cloud, label_set = run.load_cloud()
    mesh = read_mesh_ply(run.mesh)
    for name in ("surfels.ply", "surfels.pcd"):
        points = o3d.t.io.read_point_cloud(str(out / name)).point
        np.testing.assert_array_equal(points.positions.numpy(), cloud.positions)
        np.testing.assert_array_equal(points["label"].numpy()[:, 0].astype(np.uint8) - np.uint8(1), cloud.labels())
    for name in ("mesh.ply", "mesh.obj", "mesh.glb", "mesh_labels.glb"):
        read = o3d.io.read_triangle_mesh(str(out / name))
        assert len(read.triangles) == len(mesh.triangles), name
        assert read.has_vertex_colors(), name
        extent = read.get_max_bound() - read.get_min_bound()
        np.testing.assert_allclose(extent, np.ptp(mesh.vertices, axis=0), atol=1e-4, err_msg=name)
    clouds = sorted((out / "classes").iterdir())
    assert sum(len(read_map_ply(path)) for path in clouds) == len(cloud)
    with open(out / "objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class_name"] for row in rows} <= set(label_set.classes)
    assert all(float(row["area_m2"]) > 0 and float(row["length_m"]) > 0 for row in rows)
    assert {"floor", "wall"} <= {row["class_name"] for row in rows}
    plan = cv2.imread(str(out / "floor_plan.png"))
    assert min(plan.shape[:2]) > 400 and plan.std() > 20
    named = [line.split(":", 1)[1].strip() for line in capfd.readouterr().out.splitlines()]
    written = {str(path) for path in out.rglob("*") if path.is_file()} - {str(out / "mesh.mtl")}
    assert set(named) == written, "every file is named, and nothing else is left"


def test_a_glb_is_whole(run, tmp_path):
    """glTF 2.0 binary: magic, version, length, then a JSON chunk that names colours."""
    assert semslam("export", run.path, "--out", tmp_path) == 0
    data = (tmp_path / "mesh_labels.glb").read_bytes()
    magic, version, length, size, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    described = json.loads(data[20 : 20 + size])
    assert "COLOR_0" in described["meshes"][0]["primitives"][0]["attributes"]


def test_a_run_without_a_mesh_exports_the_rest_and_says_so(run, tmp_path, capsys):
    out = tmp_path / "bare"
    assert semslam("reconstruct", ROOM, "--out", out, "--labels", "none", "--no-mesh") == 0
    assert semslam("export", out, "--out", tmp_path / "exports") == 0
    assert "no mesh" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "exports").iterdir()} == {"surfels.ply", "surfels.pcd", "floor_plan.png"}
    assert "not a run" in refused(capsys, "export", tmp_path / "nowhere", "--out", tmp_path / "x")
