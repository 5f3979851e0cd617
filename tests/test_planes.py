"""Flat surfaces without texture: completed where their edges and the network agree, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.depth.planes import ON_PLANE, _normal_equations, _votes, even_patches, planes_of
from semslam.frame import Frame, Observation
from semslam.runs.finished.planes import WEIGHT, PlaneCompletion

f32 = np.float32
CAMERA = Camera(160, 120, 140.0, 140.0, 79.5, 59.5)
U, V = np.meshgrid(np.arange(160), np.arange(120))
FLOOR = (1 / (0.3 + 0.001 * U + 0.002 * V)).astype(f32)  # inverse depth of a plane is linear in the image
WHOLE = np.ones(CAMERA.shape, np.int32)


def rim(width: int = 6) -> np.ndarray:
    """(H, W) bool: the pixels along the image's sides."""
    inside = np.zeros(CAMERA.shape, bool)
    inside[width:-width, width:-width] = True
    return ~inside


def completed(depth: np.ndarray, patches: np.ndarray = WHOLE) -> np.ndarray:
    """(H, W) metres: known depth and that of planes, 0 = none."""
    found = depth.copy()
    for plane in planes_of(depth, patches):
        found[plane.found] = plane.depth_at(U[plane.found], V[plane.found])
    return found


def test_a_patch_ends_where_its_colour_changes_and_not_in_its_shades():
    color = np.zeros((120, 160, 3), np.uint8)
    color[..., 0] = 100 + np.arange(160) // 4  # a red wall, lighter to the right
    color[40:80, 60:100] = (40, 90, 200)
    patches = even_patches(color)
    wall, picture = patches[10, 10], patches[60, 80]
    assert wall > 0 and picture > 0 and wall != picture
    assert patches[100, 150] == wall


def test_the_inside_of_a_plane_follows_from_its_rim():
    rng = np.random.default_rng(0)
    noisy = (FLOOR * np.exp(rng.normal(0, 0.005, FLOOR.shape))).astype(f32)
    found = completed(np.where(rim(), noisy, f32(0)))
    assert (found > 0).all()
    assert np.abs(found / FLOOR - 1)[~rim()].max() < 0.01


def test_nothing_is_added_beyond_the_known_pixels():
    known = np.zeros(CAMERA.shape, bool)
    known[20:100, 20:26] = known[20:100, 80:86] = True
    found = completed(np.where(known, FLOOR, f32(0)))
    assert (found[30:90, 30:80] > 0).all()
    assert not found[:, 90:].any() and not found[:, :18].any()


def test_two_planes_meet_in_their_concave_or_convex_corner():
    left, right = ((1 / (0.4 + slope * (U - 80) + 0.0005 * V)).astype(f32) for slope in (0.003, -0.003))
    for surface in (np.minimum(left, right), np.maximum(left, right)):
        found = completed(np.where(rim(10), surface, f32(0)))
        assert (found[20:100, 20:140] > 0).mean() > 0.9
        off = np.abs(found / surface - 1)[found > 0]
        assert off.max() < ON_PLANE and np.median(off) < 0.01


def test_surfaces_that_are_no_planes_stay_as_they_are():
    rng = np.random.default_rng(0)
    rough = np.where(rim(), rng.uniform(1, 3, FLOOR.shape), 0).astype(f32)
    np.testing.assert_array_equal(completed(rough), rough)


def test_the_same_seed_finds_the_same_planes():
    depth = np.where(rim(), FLOOR, f32(0))
    first, second = (planes_of(depth, WHOLE, seed=3) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.inverse, b.inverse)
        np.testing.assert_array_equal(a.found, b.found)


def completion(predicted: np.ndarray) -> tuple[Observation, PlaneCompletion]:
    """What is made of a grey image whose map shows the rim of a plane, by a network that predicts this depth."""
    color = np.full((*CAMERA.shape, 3), 120, np.uint8)
    frame = Frame(0, 0.0, color, CAMERA)
    perception = SimpleNamespace(
        camera=CAMERA,
        resized_color=lambda frame: frame.color,
        observe=lambda frame, labels, mirror_too: Observation(frame, CAMERA, color, predicted),
    )

    def shown(camera: Camera, T: np.ndarray) -> np.ndarray:
        return cv2.resize(np.where(rim(), FLOOR, f32(0)), camera.shape[::-1], interpolation=cv2.INTER_NEAREST)

    found = PlaneCompletion(perception, np.full(CAMERA.shape, 0.5, f32), shown, {0: np.eye(4)})  # type: ignore[arg-type]
    return found(frame), found


def test_only_what_the_map_lacks_is_measured():
    seen, found = completion(0.6 * FLOOR)  # whatever the network's scale is
    inside = ~rim()
    np.testing.assert_allclose(seen.depth, FLOOR, rtol=0.001)
    assert (seen.confidence[inside] == WEIGHT / 0.5).all() and not seen.confidence[~inside].any()
    assert found.completed == 1


def test_a_frame_looks_at_what_faces_it_where_the_map_shows_nothing():
    _, found = completion(0.6 * FLOOR)
    points = CAMERA.backproject(FLOOR)
    inside, on_the_rim, near = points[60, 80], points[2, 80], 0.1 * points[60, 80]
    positions = np.stack([inside, on_the_rim, inside, -inside, near, inside + [9, 0, 0]])
    towards, away = [0.0, 0, -1], [0.0, 0, 1]
    normals = np.array([towards, towards, away, away, towards, towards])
    assert found.looked_at(positions, normals, 0.3, 5.0).tolist() == [1, 0, 0, 0, 0, 0]


def test_a_plane_that_the_network_does_not_see_is_none():
    """A dark hall behind a door frame: its edges lie in the wall, and nothing inside does."""
    seen, found = completion(np.where(rim(), FLOOR, 1.8 * FLOOR).astype(f32))
    assert not seen.measures
    assert found.completed == 0


def test_pixels_on_a_plane_are_counted_and_fitted_as_numpy_does():
    rng = np.random.default_rng(1)
    pixels = np.column_stack([rng.uniform(0, 160, (2, 300)).T, np.ones(300)])
    fits = np.array([[0.001, 0.002, 0.3], [0.0, 0.0, 0.5]])
    inverse = (pixels @ fits[0]) * np.exp(rng.normal(0, 0.03, 300))
    near = np.abs(pixels @ fits.T / inverse[:, None] - 1) < ON_PLANE
    assert _votes(fits, pixels, inverse, ON_PLANE).tolist() == near.sum(axis=0).tolist()
    count, normal, right = _normal_equations(fits[0], pixels, inverse, ON_PLANE)
    on = near[:, 0]
    scaled, ones = pixels[on] / inverse[on, None], np.ones(on.sum())
    assert count == on.sum()
    np.testing.assert_allclose(np.linalg.solve(normal, right), np.linalg.lstsq(scaled, ones, rcond=None)[0], rtol=1e-6)
