"""Surface figures on shapes whose answer is known by hand, and against Open3D where it computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from synthetic_maps import cloud_of, plane

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import CloudInParts, SurfelCloud
from semslam.metrics.layering import layering
from semslam.metrics.nearest import Surface
from semslam.metrics.surface import (
    depth_reference,
    mesh_reference,
    points_reference,
    sampled,
    surface_errors,
    surface_scores,
)
from semslam.metrics.voxels import voxel_means
from semslam.rendering.viewpoint import look_at

CAMERA = Camera(80, 60, 70.0, 70.0, 39.5, 29.5)
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def wall(z: float = 0.0, spacing: float = 0.005, width: float = 1.0) -> np.ndarray:
    """Points on the unit square at a height z, or on the part of it below a width in x."""
    return plane((0, 0, z), (width, 0, 0), (0, 1, 0), spacing)[0].astype(np.float32)


@pytest.mark.parametrize("reference", [points_reference(wall()), mesh_reference(SQUARE, TRIANGLES)])
def test_a_shifted_wall_is_as_far_as_it_was_shifted(reference):
    scores = surface_scores(wall(0.03), reference)
    assert scores.accuracy_m == pytest.approx(0.03, abs=5e-4)
    assert scores.accuracy_median_m == pytest.approx(0.03, abs=5e-4)
    assert scores.completeness_m == pytest.approx(0.03, abs=5e-4)
    assert scores.at(0.02) == (0, 0, 0)
    assert scores.at(0.05) == (1, 1, 1)
    assert "no visible-region rule" in scores.protocol


def test_half_a_wall_is_accurate_and_half_complete():
    scores = surface_scores(wall(width=0.5), mesh_reference(SQUARE, TRIANGLES))
    assert scores.accuracy_m < 1e-5
    precision, recall, fscore = scores.at(0.05)
    assert precision == 1
    assert recall == pytest.approx(0.55, abs=0.01)  # 5 cm beyond the edge are still near enough
    assert fscore == pytest.approx(2 * recall / (1 + recall))
    # the other half lies 0 to 0.5 m away: 0.25 m on average, over half of the wall
    assert scores.completeness_m == pytest.approx(0.125, abs=0.005)


def test_precision_is_of_the_reconstruction_and_recall_of_the_reference():
    twice = np.concatenate([wall(), wall(1.0)])
    more = surface_scores(twice, points_reference(wall()))
    less = surface_scores(wall(), points_reference(twice))
    assert more.precision[0] == pytest.approx(0.5, abs=0.01)
    assert more.recall[0] == 1
    assert (less.precision[0], less.recall[0]) == (1, pytest.approx(0.5, abs=0.01))


def test_where_points_are_dense_they_do_not_count_more():
    uneven = np.concatenate([wall(), wall(0.04, spacing=0.01, width=0.5), wall(0.04, spacing=0.002, width=0.5)])
    even = np.concatenate([wall(), wall(0.04, spacing=0.01, width=0.5)])
    a, b = (surface_scores(points, points_reference(wall())) for points in (uneven, even))
    assert a.accuracy_m == pytest.approx(b.accuracy_m, rel=0.02)


def test_an_empty_map_scores_zero_and_has_no_accuracy():
    scores = surface_scores(np.zeros((0, 3), np.float32), points_reference(wall()))
    assert scores.fscore == scores.precision == scores.recall == (0, 0, 0)
    assert np.isnan(scores.accuracy_m)
    assert np.isnan(scores.completeness_m)


def test_an_empty_reference_is_one_clear_error():
    with pytest.raises(ValueError, match="the reference has no points"):
        points_reference(np.zeros((0, 3), np.float32), "truth.ply")
    with pytest.raises(ValueError, match="no triangles"):
        mesh_reference(SQUARE, np.zeros((0, 3), np.int32))
    with pytest.raises(ValueError, match="no frame has a pose and depth"):
        depth_reference([(CAMERA, np.zeros(CAMERA.shape, np.float32), np.eye(4))])


def test_voxel_means_and_distances_agree_with_open3d():
    o3d = pytest.importorskip("open3d")
    rng = np.random.default_rng(2)
    points, others = rng.random((4000, 3)), rng.random((3000, 3))
    points[0], points[1] = 0, 1  # Open3D's voxels start half a voxel before the lowest point
    theirs = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    other = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(others))
    down = np.asarray(theirs.voxel_down_sample(0.1).points) + 0.05
    ours = voxel_means(points + 0.05, 0.1)
    assert len(ours) == len(down)
    assert cKDTree(ours).query(down)[0].max() < 1e-6
    distance = Surface(others).distance(points)
    np.testing.assert_allclose(distance, theirs.compute_point_cloud_distance(other), atol=1e-6)


@pytest.mark.parametrize("origin", [np.zeros(3), np.array([5e5, 5.4e6, 300.0])])
def test_distances_are_exact_near_a_surface_and_far_from_it_wherever_the_world_begins(origin):
    rng = np.random.default_rng(3)
    points = np.concatenate([wall(), wall(0.5), sampled(SQUARE[:, [2, 0, 1]], TRIANGLES)]).astype(np.float64)
    for spread in (0.01, 3.0, 1000.0):
        queries = points[rng.integers(0, len(points), 500)] + rng.normal(0, spread, (500, 3))
        exact = cKDTree(points).query(queries)[0]
        found = Surface(points + origin).distance(queries + origin)
        np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("far", [100.0, 1000.0, 1e7])
def test_a_stray_point_far_away_changes_no_other_points_figures(far):
    stray = np.array([[far, -far, far / 3]], np.float32)
    points = np.concatenate([wall(0.001), stray])
    for reference in (points_reference(wall()), mesh_reference(SQUARE, TRIANGLES)):
        alone, scores = surface_scores(wall(0.001), reference), surface_scores(points, reference)
        assert scores.points == alone.points + 1
        np.testing.assert_allclose(scores.precision, alone.points / scores.points)  # the stray one alone is wrong
        assert scores.recall == alone.recall
        assert scores.completeness_m == pytest.approx(alone.completeness_m, abs=1e-8)
        assert scores.accuracy_median_m == pytest.approx(alone.accuracy_median_m, abs=1e-8)
    reference = points_reference(np.concatenate([wall(), stray]))
    scores, count = surface_scores(wall(0.001), reference), len(reference.points)
    assert scores.precision == (1, 1, 1)
    assert scores.recall[0] == pytest.approx((count - 1) / count)


def test_voxels_are_told_apart_over_any_extent():
    rng = np.random.default_rng(5)
    near = rng.integers(-4, 4, (500, 3)) * 0.02 + 0.01
    far = np.array([[1e9, 0, 0], [0, -1e9, 0], [0, 0, 1e9], [1e9, 1e9, -1e9]])
    means = voxel_means(np.concatenate([near, far]))
    assert len(means) == len(np.unique(near.round(4), axis=0)) + len(far)
    alone = voxel_means(near)
    np.testing.assert_allclose(means[np.abs(means).max(axis=1) < 1], alone, atol=1e-6)  # in the same order


def test_only_what_a_view_shows_is_judged():
    T = look_at(np.array([0.5, 0.5, -1.0]), np.array([0.5, 0.5, 0]), np.array([0, -1.0, 0]))
    behind = SQUARE + [0, 0, 0.5]  # a second wall, hidden by the first
    vertices, triangles = np.concatenate([SQUARE, behind]), np.concatenate([TRIANGLES, TRIANGLES + 4])
    whole = mesh_reference(vertices, triangles)
    seen = mesh_reference(vertices, triangles, camera=CAMERA, T_world_camera=[T])
    assert whole.points[:, 2].max() > 0.49
    assert seen.points[:, 2].max() < 0.01
    assert "visible region of 1 views" in seen.protocol
    # in front, on and behind what was seen counts; beside the image and where there is nothing does not
    places = np.array([[0.5, 0.5, -0.2], [0.5, 0.5, 0], [0.5, 0.5, 0.3], [9, 0.5, 0], [0.5, 0.5, -2]], np.float32)
    np.testing.assert_array_equal(seen.judges(places), [True, True, True, False, False])
    errors = surface_errors(places, seen)
    np.testing.assert_allclose(errors[:3], [0.2, 0, 0.2], atol=1e-5)
    assert np.isnan(errors[3:]).all()
    scores = surface_scores(places, seen)
    assert scores.points == 3


def test_depth_back_projected_is_the_surface_it_was_cast_from():
    T = look_at(np.array([0.5, 0.5, -1.0]), np.array([0.5, 0.5, 0]), np.array([0, -1.0, 0]))
    depth = mesh_reference(SQUARE, TRIANGLES, camera=CAMERA, T_world_camera=[T]).views[0].depth
    reference = depth_reference([(CAMERA, depth, T)])
    scores = surface_scores(wall(), reference)
    assert scores.accuracy_m < 0.008  # pixels are 1.4 cm apart
    assert scores.at(0.02)[1] == 1
    near = depth_reference([(CAMERA, np.where(CAMERA.backproject(depth)[..., 0] > 0, depth, 7.0), T)])
    assert near.points[:, 0].min() > 0.4 or near.points[:, 0].max() < 0.6  # 7 m is beyond the limit


def test_a_rigid_motion_of_both_sides_changes_nothing():
    T = poses.exp(np.array([1.0, -2.0, 0.5, 0.3, 0.2, -1.0]))
    T_view = look_at(np.array([0.5, 0.5, -1.0]), np.array([0.5, 0.5, 0]), np.array([0, -1.0, 0]))
    reference = mesh_reference(SQUARE, TRIANGLES, camera=CAMERA, T_world_camera=[T_view])
    points = wall(0.03)
    moved = mesh_reference(
        poses.transform(T, SQUARE).astype(np.float32), TRIANGLES, camera=CAMERA, T_world_camera=[T @ T_view]
    )
    there = surface_errors(poses.transform(T, points).astype(np.float32), moved)
    np.testing.assert_allclose(there, surface_errors(points, reference), atol=1e-5)


def test_samples_of_a_mesh_are_even_and_always_the_same():
    points = sampled(SQUARE, np.array([[0, 1, 2], [0, 2, 3], [0, 0, 1]]), spacing=0.02)
    assert len(points) == 2500
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=5, range=[[0, 1], [0, 1]])[0]
    assert counts.min() > 70
    np.testing.assert_array_equal(points, sampled(SQUARE, np.array([[0, 1, 2], [0, 2, 3], [0, 0, 1]]), spacing=0.02))


def roughened(part, std: float):
    """A plane's points, each off by a normal error along z."""
    points, normals = part
    return points + np.random.default_rng(0).normal(0, std, (len(points), 1)) * np.array([0, 0, 1.0]), normals


def test_a_rough_wall_is_not_layered_and_two_rough_walls_and_fog_are():
    one = plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.01)
    two = plane((0, 0, 0.05), (1, 0, 0), (0, 1, 0), 0.01)
    assert layering(cloud_of([("wall", *roughened(one, 0.005))], 0.01)) < 0.02
    assert layering(cloud_of([("wall", *roughened(one, 0.008))], 0.01)) < 0.08
    both = [("wall", *roughened(part, 0.005)) for part in (one, two)]
    assert layering(cloud_of(both, 0.01)) > 0.98
    fog = one[0] + np.random.default_rng(0).uniform(0, 0.2, (len(one[0]), 1)) * np.array([0, 0, 1.0])
    assert layering(cloud_of([("wall", fog, one[1])], 0.01)) > 0.7


def test_a_wall_mapped_once_is_not_layered_and_one_mapped_twice_is():
    one = plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.02)
    two = plane((0, 0, 0.07), (1, 0, 0), (0, 1, 0), 0.02)
    back = plane((0, 0, 0.07), (0, 1, 0), (1, 0, 0), 0.02)  # the other side of a thick board
    assert layering(cloud_of([("wall", *one)], 0.02)) == 0
    assert layering(cloud_of([("wall", *one), ("wall", *back)], 0.02)) == 0
    assert layering(cloud_of([("wall", *one), ("wall", *two)], 0.02)) == 1
    assert np.isnan(layering(cloud_of([("wall", *one)], 0.02).selected(np.zeros(0, int))))


def test_a_map_that_is_moved_there_and_back_is_the_same():
    cloud, T = cloud_of([("wall", *plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.1))], 0.1), poses.exp(np.full(6, 0.4))
    there = cloud.moved(T)
    np.testing.assert_allclose(there.positions, poses.transform(T, cloud.positions), atol=1e-5)
    np.testing.assert_allclose(there.normals, cloud.normals @ T[:3, :3].T, atol=1e-5)
    back = there.moved(poses.inverse(T))
    np.testing.assert_allclose(back.positions, cloud.positions, atol=1e-5)
    np.testing.assert_allclose(back.normals, cloud.normals, atol=1e-5)


def in_parts(cloud: SurfelCloud, count: int) -> CloudInParts:
    """The map as one that is too large for memory."""
    return CloudInParts(len(cloud), lambda: map(cloud.selected, np.array_split(np.arange(len(cloud)), count)))


def test_a_map_in_parts_has_the_figures_of_a_whole_one(monkeypatch):
    monkeypatch.setattr("semslam.cloud.AT_ONCE", 700)
    monkeypatch.setattr("semslam.metrics.layering.SLAB", 2000)
    parts = [plane((0, 0, z), (1, 0, 0), (0, 1, 0), 0.02) for z in (0, 0.07, 0.5)]
    whole = cloud_of([("wall", *roughened(part, 0.003)) for part in parts], 0.02)
    whole = whole.selected(np.random.default_rng(1).permutation(len(whole)))
    cut, reference = in_parts(whole, 7), points_reference(wall())
    assert len(list(cut.positions())) > 3
    np.testing.assert_array_equal(np.concatenate([*cut.positions(slice(100, 5000))]), whole.positions[100:5000])
    np.testing.assert_array_equal(voxel_means(cut.positions), voxel_means(whole.positions))
    np.testing.assert_array_equal(surface_errors(cut.positions, reference), surface_errors(whole.positions, reference))
    ours, theirs = (surface_scores(points, reference) for points in (cut.positions, whole.positions))
    assert (ours.fscore, ours.accuracy_m, ours.points) == (theirs.fscore, theirs.accuracy_m, theirs.points)
    assert ours.completeness_m == pytest.approx(theirs.completeness_m, rel=1e-9)
    assert layering(cut) == layering(whole) > 0.6


def test_points_in_blocks_are_told_apart_over_any_extent():
    points = np.array([[0, 0, 0], [1e9, 0, 0], [0, -1e9, 1e9], [0.001, 0, 0]])
    np.testing.assert_array_equal(voxel_means(lambda: iter(np.split(points, 2))), voxel_means(points))
