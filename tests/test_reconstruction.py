"""The labelled mesh: where its surface lies, and whose classes it takes."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_maps import NYU13, cloud_of, plane

from semslam.camera import Camera
from semslam.frame import UNLABELLED, Frame, Observation, evenly_spread
from semslam.geometry.mesh import LabelledMesh
from semslam.geometry.tsdf_mesh import (
    Reconstruction,
    ReconstructionConfig,
    frames_enough,
    labelled,
    mesh_of_map,
    reconstructed,
)
from semslam.poses import exp
from semslam.rendering.viewpoint import look_at

CAMERA = Camera(160, 120, 140.0, 140.0, 79.5, 59.5)
NORMAL = np.array([0.2, -0.1, -1.0]) / np.linalg.norm([0.2, -0.1, -1.0])  # of a slanted wall facing the cameras
OFFSET = float(NORMAL @ [0, 0, 1.5])
RADIUS = ReconstructionConfig().label_radius


def wall_depth(T_world_camera: np.ndarray, normal: np.ndarray = NORMAL, offset: float = OFFSET) -> np.ndarray:
    """Exact z-depth of the plane normal . p = offset from a pose."""
    rays = CAMERA.backproject(np.ones(CAMERA.shape, np.float32)).astype(np.float64)
    distance = offset - normal @ T_world_camera[:3, 3]
    return (distance / (rays @ (T_world_camera[:3, :3].T @ normal))).astype(np.float32)


def poses_before_the_wall() -> list[np.ndarray]:
    eyes = [np.array([x, y, 0.0]) for x in (-0.2, 0.2) for y in (-0.1, 0.1)]
    return [look_at(eye, np.array([0, 0, 1.5]), np.array([0, -1.0, 0])) for eye in eyes]


@pytest.fixture(scope="module")
def mesh() -> LabelledMesh:
    reconstruction = Reconstruction()
    color = np.zeros((*CAMERA.shape, 3), np.uint8)
    color[:] = (200, 100, 50)
    for T in poses_before_the_wall():
        reconstruction.integrate(wall_depth(T), color, CAMERA, T)
    return reconstruction.mesh()


def test_the_mesh_lies_on_the_wall_and_faces_the_cameras(mesh):
    distance = mesh.vertices @ NORMAL - OFFSET
    assert len(mesh.vertices) > 5000
    assert np.abs(distance).mean() < 0.001
    assert np.abs(distance).max() < 0.005
    assert np.median(mesh.normals @ NORMAL) > 0.999
    a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
    winding = np.cross(b - a, c - a) @ NORMAL
    assert (winding >= 0).mean() > 0.99  # counter-clockwise seen from the cameras


@pytest.mark.parametrize("slant", [(0.7, 0.0), (0.0, 0.7)], ids=["slanted to the side", "slanted upwards"])
def test_the_mesh_is_not_moved_against_the_pixels_along_either_axis(slant):
    normal = np.array([*slant, -1.0]) / np.linalg.norm([*slant, -1.0])
    offset = float(normal @ [0, 0, 1.5])
    reconstruction = Reconstruction()
    for T in poses_before_the_wall():
        reconstruction.integrate(wall_depth(T, normal, offset), np.zeros((*CAMERA.shape, 3), np.uint8), CAMERA, T)
    assert abs(np.median(reconstruction.mesh().vertices @ normal - offset)) < 0.0003  # half a pixel is 5 mm here


def test_the_mesh_has_the_recorded_colour(mesh):
    np.testing.assert_allclose(np.median(mesh.colors, axis=0), [200, 100, 50], atol=1)


def test_the_mesh_is_the_same_every_time_and_from_a_grid_that_had_to_grow(mesh, monkeypatch):
    monkeypatch.setattr("semslam.geometry.tsdf_mesh.FIRST_BLOCKS", 8)
    again = Reconstruction()
    for T in poses_before_the_wall():
        again.integrate(wall_depth(T), np.full((*CAMERA.shape, 3), (200, 100, 50), np.uint8), CAMERA, T)
    assert again.blocks > 100
    other = again.mesh()
    for name in ("vertices", "triangles", "colors"):
        np.testing.assert_array_equal(getattr(other, name), getattr(mesh, name), err_msg=name)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_few_frames_make_a_mesh_too(frames):
    reconstruction = Reconstruction()
    for T in poses_before_the_wall()[:frames]:
        reconstruction.integrate(wall_depth(T), np.zeros((*CAMERA.shape, 3), np.uint8), CAMERA, T)
    mesh = reconstruction.mesh()
    assert len(mesh.triangles) > 5000
    assert np.abs(mesh.vertices @ NORMAL - OFFSET).mean() < 0.002


def test_what_only_two_frames_show_has_a_mesh_where_no_place_is_shown_by_more():
    reconstruction, depth = Reconstruction(), np.full(CAMERA.shape, 1.5, np.float32)
    places = 0.8 * np.arange(8)  # a view is 1.7 m wide
    for x in places:
        T = np.eye(4)
        T[0, 3] = x
        reconstruction.integrate(depth, np.zeros((*CAMERA.shape, 3), np.uint8), CAMERA, T)
    found = reconstruction.mesh().vertices[:, 0]
    shown = np.histogram(found, np.arange(places[0], places[-1], 0.1))[0]
    assert (shown > 100).all()


def path(xs: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) at places along x."""
    T = np.tile(np.eye(4), (len(xs), 1, 1))
    T[:, 0, 3] = xs
    return T


def test_frames_are_taken_where_the_camera_moves_on():
    still, fast = np.zeros(300), 0.2 * np.arange(1, 101)
    chosen = np.array(frames_enough(path(np.concatenate([still, fast])), CAMERA, 2.0, 40, 1000))
    assert np.diff(chosen[chosen < 300]).max() <= 11 and (chosen >= 300).sum() == 100
    half = frames_enough(path(fast), CAMERA, 4.0, 10, 1000)
    assert np.diff(half).max() == 2 and len(half) == 50 + 1  # what is twice as far moves half as fast
    assert len(frames_enough(path(fast), CAMERA, 2.0, 10, 30)) == 30
    turning = np.stack([exp(np.array([0, 0, 0, 0, a, 0])) for a in np.radians(np.linspace(0, 360, 200))])
    assert len(frames_enough(turning, CAMERA, np.inf, 10, 1000)) == pytest.approx(3600 / 46.4, abs=2)


def test_frames_of_a_slow_camera_are_evenly_spread():
    slow = frames_enough(path(1e-4 * np.arange(211)), CAMERA, 2.0, 100, 1000)
    assert slow == evenly_spread(range(211), 100)
    assert len(frames_enough(path(np.zeros(50)), CAMERA, np.inf, 5, 50)) == 5


def test_frames_without_depth_make_an_empty_mesh():
    reconstruction = Reconstruction()
    reconstruction.integrate(
        np.zeros(CAMERA.shape, np.float32), np.zeros((*CAMERA.shape, 3), np.uint8), CAMERA, np.eye(4)
    )
    mesh = reconstruction.mesh()
    assert len(mesh.vertices) == len(mesh.triangles) == 0
    floor = cloud_of([("floor", *plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.1))], 0.1)
    assert len(labelled(mesh, floor, RADIUS).labels) == 0


def test_images_of_another_size_and_impossible_voxels_are_refused():
    with pytest.raises(ValueError, match="resize them to one size"):
        Reconstruction().integrate(np.ones((10, 10), np.float32), np.zeros((10, 10, 3), np.uint8), CAMERA, np.eye(4))
    with pytest.raises(ValueError, match="`voxel_size` is 0, expected more than 0"):
        Reconstruction(ReconstructionConfig(voxel_size=0))


def flat_mesh(points: np.ndarray, normals: np.ndarray) -> LabelledMesh:
    n = len(points)
    triangles, colors = np.zeros((0, 3), np.int32), np.zeros((n, 3), np.uint8)
    return LabelledMesh(points.astype(np.float32), triangles, normals.astype(np.float32), colors,
                        np.full(n, UNLABELLED, np.uint8))  # fmt: skip


def test_vertices_take_the_class_of_the_surfels_on_their_side():
    front = plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.02)
    back = plane((0, 0, -0.005), (0, 1, 0), (1, 0, 0), 0.02)  # the other side of a thin board
    cloud = cloud_of([("table", *front), ("wall", *back)], 0.02)
    for points, normals, name in ((*front, "table"), (*back, "wall")):
        labels = labelled(flat_mesh(points, normals), cloud, RADIUS).labels
        assert (labels == NYU13.id_of(name)).all()


def test_vertices_far_from_any_surfel_or_among_unlabelled_ones_have_no_class():
    here, normals = plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.02)
    cloud = cloud_of([("table", here, normals)], 0.02)
    assert (labelled(flat_mesh(here + [0, 0, 0.05], normals), cloud, RADIUS).labels == UNLABELLED).all()
    void = cloud_of([(None, here, normals)], 0.02)
    assert (labelled(flat_mesh(here, normals), void, RADIUS).labels == UNLABELLED).all()
    nothing = cloud.selected(np.zeros(len(cloud), bool))
    assert (labelled(flat_mesh(here, normals), nothing, RADIUS).labels == UNLABELLED).all()


def test_observations_and_a_map_make_a_labelled_mesh():
    color = np.zeros((*CAMERA.shape, 3), np.uint8)
    observed = []
    for i, T in enumerate(poses_before_the_wall()):
        frame = Frame(i, i / 30, color, CAMERA, wall_depth(T))
        observed.append((Observation(frame, CAMERA, color, wall_depth(T)), T))
    points = np.concatenate([CAMERA.backproject(o.depth).reshape(-1, 3) @ T[:3, :3].T + T[:3, 3] for o, T in observed])
    cloud = cloud_of([("wall", points, np.tile(NORMAL, (len(points), 1)))], 0.01)
    mesh = reconstructed(observed, cloud, ReconstructionConfig(voxel_size=0.02))
    assert len(mesh.vertices) > 1000
    assert (mesh.labels == NYU13.id_of("wall")).mean() > 0.99


def test_a_map_without_its_frames_has_a_mesh_of_what_it_shows():
    wall = cloud_of([("wall", *plane((-0.5, 0.4, 1.5), (1, 0, 0), (0, -0.8, 0), 0.01))], 0.01)
    found = mesh_of_map(wall, CAMERA, poses_before_the_wall(), ReconstructionConfig())
    assert len(found.vertices) > 3000
    assert np.abs(found.vertices[:, 2] - 1.5).max() < 0.005
    assert (found.labels == NYU13.id_of("wall")).mean() > 0.95
