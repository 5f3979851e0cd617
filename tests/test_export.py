"""Files of maps and meshes: what was written is what other programs and we read."""

from __future__ import annotations

import csv
import subprocess
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_maps import BED, NYU13, TABLE, cloud_of, path_through_room, plane, room

from semslam.cloud import CloudInParts, joined
from semslam.files.writing import replacing
from semslam.frame import UNLABELLED
from semslam.geometry.export import (
    read_map_ply,
    read_mesh_ply,
    write_class_clouds,
    write_map_in_parts,
    write_map_ply,
    write_mesh,
    write_mesh_ply,
)
from semslam.geometry.mesh import LabelledMesh
from semslam.geometry.objects import connected_pieces, objects, surfel_areas, write_objects_csv
from semslam.geometry.ply import read_ply, write_ply, write_ply_in_parts
from semslam.labels import LABEL_SETS
from semslam.rendering.viewpoint import up_direction

FIELDS = ("positions", "normals", "radii", "confidence", "colors", "first_seen", "last_seen")


@pytest.fixture(scope="module")
def cloud():
    return room()


@pytest.fixture(scope="module")
def mesh():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]], np.uint8)
    labels = np.array([4, 4, 11, UNLABELLED], np.uint8)
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return LabelledMesh(vertices, triangles, np.tile(np.float32([0, 0, 1]), (4, 1)), colors, labels)


# maps


def test_a_map_written_and_read_is_the_same_map_with_the_same_labels(cloud, tmp_path):
    write_map_ply(tmp_path / "map.ply", cloud, NYU13)
    back = read_map_ply(tmp_path / "map.ply")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(back, name), getattr(cloud, name), err_msg=name)
        assert getattr(back, name).dtype == getattr(cloud, name).dtype
    np.testing.assert_array_equal(back.labels(), cloud.labels())
    np.testing.assert_array_equal(back.label_confidence(), cloud.label_confidence())
    assert back.class_probabilities.shape == cloud.class_probabilities.shape
    np.testing.assert_allclose(back.class_probabilities.sum(axis=1), cloud.class_probabilities.sum(axis=1), atol=1e-5)


def test_labels_survive_where_all_classes_are_equally_likely(tmp_path):
    flat = cloud_of([("floor", *plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.1))], 0.1)
    flat.class_probabilities[:] = np.float32(1 / 13)
    flat.class_probabilities[3] = 0  # one surfel without any class
    write_map_ply(tmp_path / "map.ply", flat, NYU13)
    np.testing.assert_array_equal(read_map_ply(tmp_path / "map.ply").labels(), flat.labels())


def test_open3d_reads_every_attribute_of_a_map(cloud, tmp_path):
    import open3d as o3d

    write_map_ply(tmp_path / "map.ply", cloud, NYU13)
    points = o3d.t.io.read_point_cloud(str(tmp_path / "map.ply")).point
    expected = {
        "positions": cloud.positions,
        "normals": cloud.normals,
        "colors": cloud.colors,
        "radius": cloud.radii[:, None],
        "confidence": cloud.confidence[:, None],
        "label": (cloud.labels() + np.uint8(1))[:, None],  # 255 wraps to 0: files count from 1
        "label_confidence": cloud.label_confidence()[:, None],
        "entropy": cloud.entropy()[:, None],
        "first_seen": cloud.first_seen[:, None],
        "last_seen": cloud.last_seen[:, None],
    }
    assert {name for name in points} == set(expected)  # noqa: C416  (Open3D's TensorMap iterates, but is no set)
    for name, values in expected.items():
        np.testing.assert_array_equal(points[name].numpy(), values, err_msg=name)
        assert points[name].numpy().dtype == values.dtype


def test_the_header_is_what_meshlab_and_cloudcompare_expect_and_names_the_classes(cloud, tmp_path):
    write_map_ply(tmp_path / "map.ply", cloud, NYU13)
    header = (tmp_path / "map.ply").read_bytes().split(b"end_header\n")[0].decode("ascii")
    for line in (
        "format binary_little_endian 1.0",
        f"element vertex {len(cloud)}",
        *(f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz", "radius", "confidence")),
        *(f"property uchar {name}" for name in ("red", "green", "blue", "label")),
        "comment label 0 unlabelled",
    ):
        assert line in header.splitlines()
    assert f"comment label {NYU13.id_of('floor') + 1} floor color" in header


def test_an_empty_map_and_a_map_without_classes_can_be_written(cloud, tmp_path):
    write_map_ply(tmp_path / "empty.ply", cloud.selected(np.zeros(len(cloud), bool)), NYU13)
    assert len(read_map_ply(tmp_path / "empty.ply")) == 0
    bare = type(cloud)(**{name: getattr(cloud, name)[:10] for name in FIELDS})
    write_map_ply(tmp_path / "bare.ply", bare, NYU13)
    assert (read_map_ply(tmp_path / "bare.ply").labels() == UNLABELLED).all()


def test_a_map_of_other_classes_is_refused(cloud, tmp_path):
    with pytest.raises(ValueError, match=r"13 classes.*nyu40 has 40"):
        write_map_ply(tmp_path / "map.ply", cloud, LABEL_SETS["nyu40"])


def test_pcd_keeps_labels_and_class_clouds_add_up_to_the_map(cloud, tmp_path):
    import open3d as o3d

    write_map_in_parts(tmp_path / "map.pcd", CloudInParts.of(cloud), NYU13)
    points = o3d.t.io.read_point_cloud(str(tmp_path / "map.pcd")).point
    np.testing.assert_array_equal(points["label"].numpy()[:, 0], cloud.labels() + np.uint8(1))
    np.testing.assert_array_equal(points["radius"].numpy()[:, 0], cloud.radii)

    (tmp_path / "classes").mkdir()
    for name in ("01_bed.ply", "notes.txt"):  # of an older export, and somebody's
        (tmp_path / "classes" / name).touch()
    paths = write_class_clouds(tmp_path / "classes", CloudInParts.of(cloud), NYU13)
    assert {*(tmp_path / "classes").iterdir()} == {*paths, tmp_path / "classes" / "notes.txt"}
    assert {path.name for path in paths} >= {"00_unlabelled.ply", "05_floor.ply", "12_wall.ply"}
    clouds = [read_map_ply(path) for path in paths]
    assert sum(map(len, clouds)) == len(cloud)
    for path, part in zip(paths, clouds, strict=True):
        number = int(path.name[:2])
        assert (part.labels() == (UNLABELLED if number == 0 else number - 1)).all()


def test_an_unknown_format_names_the_known_ones(cloud, mesh, tmp_path):
    with pytest.raises(ValueError, match=r"\.ply, \.pcd, not as \.xyz"):
        write_map_in_parts(tmp_path / "map.xyz", CloudInParts.of(cloud), NYU13)
    with pytest.raises(ValueError, match=r"\.ply, \.obj, \.glb, not as \.stl"):
        write_mesh(tmp_path / "mesh.stl", mesh, NYU13)


# meshes


def test_a_mesh_written_and_read_is_the_same_mesh(mesh, tmp_path):
    import open3d as o3d

    write_mesh_ply(tmp_path / "mesh.ply", mesh, NYU13)
    back = read_mesh_ply(tmp_path / "mesh.ply")
    for name in ("vertices", "triangles", "normals", "colors", "labels"):
        np.testing.assert_array_equal(getattr(back, name), getattr(mesh, name), err_msg=name)
    shown = o3d.t.io.read_triangle_mesh(str(tmp_path / "mesh.ply"))
    np.testing.assert_array_equal(shown.triangle.indices.numpy(), mesh.triangles)
    np.testing.assert_allclose(shown.vertex.colors.numpy(), mesh.colors / 255, atol=1e-6)
    assert back.areas() == pytest.approx([0.5, 0.5])


def test_a_mesh_in_label_colours_shows_them_and_keeps_the_labels(mesh, tmp_path):
    write_mesh_ply(tmp_path / "mesh.ply", mesh, NYU13, by="label")
    back = read_mesh_ply(tmp_path / "mesh.ply")
    np.testing.assert_array_equal(back.colors[:3], NYU13.colors[[4, 4, 11]])
    np.testing.assert_array_equal(back.labels, mesh.labels)
    with pytest.raises(ValueError, match="color or label"):
        write_mesh_ply(tmp_path / "mesh.ply", mesh, NYU13, by="mood")


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_other_programs_get_the_same_triangles_and_colours(mesh, tmp_path, suffix, capfd):
    import open3d as o3d

    path = tmp_path / f"mesh{suffix}"
    write_mesh(path, mesh, NYU13)
    shown = o3d.t.io.read_triangle_mesh(str(path))
    corners = shown.vertex.positions.numpy()[shown.triangle.indices.numpy()]
    colors = shown.vertex.colors.numpy()[shown.triangle.indices.numpy()]

    def sets(corners, colors):
        exact = np.concatenate([corners, np.round(colors, 2)], axis=-1).astype(np.float64).round(5)
        return {frozenset(map(tuple, triangle)) for triangle in exact.tolist()}

    expected = mesh.colors.astype(np.float64) / 255
    if suffix == ".glb":  # glTF holds linear light: middle grey, 128, is 0.216
        assert sorted({round(float(c), 2) for c in colors[..., 0].ravel()}) == [0.0, 0.22, 1.0]
        expected = np.where(expected <= 0.04045, expected / 12.92, ((expected + 0.055) / 1.055) ** 2.4)
    assert sets(corners, colors) == sets(mesh.vertices[mesh.triangles], expected[mesh.triangles])
    assert {p.name for p in tmp_path.iterdir()} <= {f"mesh{suffix}", "mesh.mtl"}
    if suffix == ".obj":
        assert "mtllib mesh.mtl" in path.read_text()
    assert capfd.readouterr().out == ""


# broken files and broken disks


def test_a_file_cut_short_says_so(cloud, tmp_path):
    write_map_ply(tmp_path / "map.ply", cloud, NYU13)
    data = (tmp_path / "map.ply").read_bytes()
    (tmp_path / "map.ply").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"map\.ply: cut short"):
        read_map_ply(tmp_path / "map.ply")


def test_a_forged_class_number_is_refused_before_it_takes_memory(cloud, tmp_path):
    write_map_ply(tmp_path / "map.ply", cloud, NYU13)
    data = (tmp_path / "map.ply").read_bytes()
    (tmp_path / "map.ply").write_bytes(data.replace(b"label 13 ", b"label 214748364 ", 1))
    with pytest.raises(ValueError, match="a map has at most 255"):
        read_map_ply(tmp_path / "map.ply")


def test_other_files_are_refused_with_a_remedy(tmp_path):
    (tmp_path / "text.ply").write_text("ply\nformat ascii 1.0\nelement vertex 0\nend_header\n")
    with pytest.raises(ValueError, match="not a semslam map: it has nothing but not x"):
        read_map_ply(tmp_path / "text.ply")
    (tmp_path / "empty.ply").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.ply: not a PLY file"):
        read_map_ply(tmp_path / "empty.ply")
    write_ply(tmp_path / "points.ply", {name: np.zeros(3, np.float32) for name in "xyz"})
    with pytest.raises(ValueError, match="not a semslam map: it has x, y, z but not nx"):
        read_map_ply(tmp_path / "points.ply")
    with pytest.raises(FileNotFoundError):
        read_map_ply(tmp_path / "absent.ply")


def test_a_file_of_fewer_vertices_than_it_says_is_not_written(tmp_path):
    part = {name: np.zeros(3, np.float32) for name in "xyz"}
    write_ply_in_parts(tmp_path / "two.ply", [part, part], 6)
    assert len(read_ply(tmp_path / "two.ply")[0]["x"]) == 6
    with pytest.raises(ValueError, match=r"seven\.ply: 6 vertices came, expected 7"):
        write_ply_in_parts(tmp_path / "seven.ply", [part, part], 7)
    assert not (tmp_path / "seven.ply").exists()


def test_every_scalar_type_goes_there_and_back(tmp_path):
    values = {dtype: np.array([0, 1, 100], dtype) for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")}
    write_ply(tmp_path / "all.ply", values)
    back, triangles, comments = read_ply(tmp_path / "all.ply")
    assert triangles is None and comments == []
    for name, expected in values.items():
        assert back[name].dtype == expected.dtype
        np.testing.assert_array_equal(back[name], expected)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "kept.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "kept.txt") as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "old"


def test_a_missing_folder_is_named(cloud, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        write_map_ply(tmp_path / "absent" / "map.ply", cloud, NYU13)


@pytest.fixture
def full_disk():
    """A folder on a disk of 64 kB; skipped where it may not be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip("no right to mount a small disk")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(cloud, full_disk, capfd):
    big = LabelledMesh(
        np.random.default_rng(0).random((9999, 3), np.float32),
        np.arange(9999, dtype=np.int32).reshape(-1, 3),
        np.tile(np.float32([0, 0, 1]), (9999, 1)),
        np.zeros((9999, 3), np.uint8),
        np.zeros(9999, np.uint8),
    )
    for name in ("map.ply", "map.pcd"):
        with pytest.raises(OSError):
            write_map_in_parts(full_disk / name, CloudInParts.of(cloud), NYU13)
    for name in ("mesh.ply", "mesh.obj", "mesh.glb"):
        with pytest.raises(OSError):
            write_mesh(full_disk / name, big, NYU13)
    assert list(full_disk.iterdir()) == []


# objects


def test_up_is_where_the_ceiling_is_with_and_without_labels(cloud):
    bare = type(cloud)(**{name: getattr(cloud, name) for name in FIELDS})
    few = replace(bare, class_probabilities=np.zeros_like(cloud.class_probabilities))
    wall = np.flatnonzero(cloud.labels() == NYU13.id_of("wall"))
    few.class_probabilities[wall[: len(cloud) // 50], NYU13.id_of("floor")] = 1  # wrong labels must not tip the room
    views = path_through_room()
    for up in (up_direction(cloud, NYU13), up_direction(bare, NYU13, views), up_direction(few, NYU13, views)):
        np.testing.assert_allclose(up, [0, 0, 1], atol=1e-3)


def test_areas_of_surfels_add_up_to_the_surface_even_where_disks_overlap_or_lie_double():
    square = plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.01)
    once = cloud_of([("floor", *square)], 0.01)
    rng = np.random.default_rng(1)
    scattered = (square[0] + rng.normal(0, [0.004, 0.004, 0.0005], square[0].shape), square[1])
    twice = cloud_of([("floor", *square), ("floor", *scattered)], 0.01)
    assert surfel_areas(once).sum() == pytest.approx(1, rel=0.08)
    assert surfel_areas(twice).sum() == pytest.approx(1, rel=0.08)
    assert np.pi * np.sum(twice.radii**2) > 3  # what adding the disks would say


def test_pieces_are_joined_within_the_gap_and_parted_beyond():
    near = np.array([[0, 0, 0], [0.04, 0, 0], [0.08, 0, 0], [0.5, 0, 0], [0.5, 0.04, 0]])
    pieces = connected_pieces(near, 0.05)
    assert pieces[0] == pieces[1] == pieces[2] != pieces[3] == pieces[4]
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (300, 3))
    pieces = connected_pieces(points, 0.05)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    i, j = np.nonzero(distance < 0.05)
    assert (pieces[i] == pieces[j]).all()
    assert len(connected_pieces(np.zeros((0, 3)), 0.05)) == 0


def test_objects_have_the_size_of_the_furniture(cloud, tmp_path):
    found = objects(cloud, NYU13, gap=0.06)
    table, bed = (next(o for o in found if o.class_name == name) for name in ("table", "bed"))
    (x0, y0), (x1, y1), top = TABLE
    assert table.length == pytest.approx(x1 - x0, abs=0.04)
    assert table.width == pytest.approx(y1 - y0, abs=0.04)
    assert table.area == pytest.approx((x1 - x0) * (y1 - y0), rel=0.2)  # edges: see surfel_areas
    np.testing.assert_allclose(table.center, [(x0 + x1) / 2, (y0 + y1) / 2, top], atol=0.02)
    assert bed.length == pytest.approx(BED[1][0] - BED[0][0], abs=0.04)
    assert table.label_confidence == pytest.approx(0.9, abs=1e-5)

    write_objects_csv(tmp_path / "objects.csv", found)
    rows = list(csv.DictReader((tmp_path / "objects.csv").open()))
    assert len(rows) == len(found)
    row = next(r for r in rows if r["class_name"] == "table")
    assert int(row["class_id"]) == NYU13.id_of("table") + 1
    assert float(row["area_m2"]) == pytest.approx(table.area, abs=1e-3)


def test_two_tables_apart_are_two_objects_and_specks_are_none():
    parts = [("table", *plane((x, 0, 0), (0.5, 0, 0), (0, 0.5, 0), 0.02)) for x in (0, 1)]
    parts.append(("chair", np.array([[5.0, 5, 5]]), np.array([[0, 0, 1.0]])))
    found = objects(cloud_of(parts, 0.02), NYU13, up=np.array([0, 0, 1.0]))
    assert [(o.class_name, o.number) for o in found] == [("table", 1), ("table", 2)]


def test_a_wall_seen_from_afar_is_one_object():
    spacing = 0.08  # 40 m away: more than the gap
    points, normals = plane((0, 0, 0), (6, 0, 0), (0, 0, 6), spacing)
    wall, speck = (
        cloud_of([("wall", points, normals)], 0.1),
        cloud_of([("wall", points[:4] + [9, 0, 0], normals[:4])], 0.1),
    )
    found = objects(joined([wall, speck]), NYU13, up=np.array([0, 0, 1.0]))
    assert [piece.surfels for piece in found] == [len(points)] and found[0].area == pytest.approx(36, rel=0.1)


def test_a_map_in_parts_is_written_with_the_memory_of_a_few_of_them(tmp_path):
    part = cloud_of([("wall", *plane((0, 0, 0), (2, 0, 0), (0, 0, 2), 0.01))], 0.01)
    clouds = CloudInParts(20 * len(part), lambda: (part for _ in range(20)))
    bytes_of_part = sum(array.nbytes for array in vars(part).values() if isinstance(array, np.ndarray))
    write_map_in_parts(tmp_path / "first.ply", clouds, NYU13)  # imports
    tracemalloc.start()
    try:
        for name in ("map.ply", "map.pcd"):
            write_map_in_parts(tmp_path / name, clouds, NYU13)
        write_class_clouds(tmp_path / "classes", clouds, NYU13)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * bytes_of_part, f"{peak / bytes_of_part:.1f} parts at once"
    assert len(read_map_ply(tmp_path / "classes" / "12_wall.ply")) == len(clouds)
