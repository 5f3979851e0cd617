"""Registration of a frame against the map's view."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from semslam import poses
from semslam.camera import Camera
from semslam.engine.depth_filter import Noise
from semslam.frame import Frame, Observation, View
from semslam.tracking.registration import terms
from semslam.tracking.registration.registrar import Registrar
from semslam.tracking.registration.settings import Level
from semslam.tracking.tracker import Tracker

CAMERA = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)


class Corner:
    """A scene known by formula: the inside of a textured corner, floor y = 1, walls z = 3 and x = 1.2."""

    planes = (((0.0, -1.0, 0.0), 1.0), ((0.0, 0.0, -1.0), 3.0), ((-1.0, 0.0, 0.0), 1.2))  # n . p + d = 0

    def __init__(self, contrast: float = 60.0) -> None:
        self.contrast = contrast

    def seen_from(self, T: np.ndarray, camera: Camera = CAMERA) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Exact depth, normals (camera frame) and colour from a pose T_world_camera."""
        rays = camera.backproject(np.ones(camera.shape)) @ T[:3, :3].T
        depth = np.full(camera.shape, np.inf)
        normals = np.zeros((*camera.shape, 3))
        for normal, offset in self.planes:
            along = -(T[:3, 3] @ normal + offset) / (rays @ normal)
            nearer = (along > 0) & (along < depth)
            depth[nearer] = along[nearer]
            normals[nearer] = np.asarray(normal) @ T[:3, :3]
        depth[~np.isfinite(depth)] = 0
        points = T[:3, 3] + rays * depth[..., None]
        grey = 120 + self.contrast * np.sin(4 * points[..., 0] + 1) * np.sin(5 * points[..., 1]) * np.cos(
            3 * points[..., 2]
        )
        color = np.repeat(np.clip(grey + 0.5, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        return depth.astype(np.float32), normals.astype(np.float32), color

    def observation(self, T: np.ndarray, index: int = 0) -> Observation:
        depth, normals, color = self.seen_from(T)
        return Observation(Frame(index, index / 30, color, CAMERA, depth), CAMERA, color, depth, normals=normals)

    def view(self, T: np.ndarray) -> View:
        depth, normals, color = self.seen_from(T)
        v, u = np.nonzero(depth)
        some = (u % 2 == 0) & (v % 2 == 0)
        u, v = u[some], v[some]
        sure = np.full((len(u), 1), 10)
        points = np.hstack([CAMERA.backproject(depth)[v, u], normals[v, u], sure]).astype(np.float32)
        pixels = np.column_stack([u, v]).astype(np.int32)
        return View(CAMERA, T, color[..., 0].astype(np.float32), 2, pixels, points)


class Wall(Corner):
    """A bare wall seen straight on: geometry holds one translation and two rotations."""

    planes = (((0.0, 0.0, -1.0), 2.0),)


def moved(metres: tuple[float, float, float], degrees: tuple[float, float, float]) -> np.ndarray:
    return poses.exp(np.concatenate([metres, np.radians(degrees)]))


def error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Metres and degrees between two poses."""
    E = poses.inverse(a) @ b
    return float(np.linalg.norm(E[:3, 3])), float(np.degrees(poses.rotation_angle(E)))


def linearized(tracker: Registrar, scene: Corner, T_live: np.ndarray, T: np.ndarray, **gates: float) -> np.ndarray:
    """The sums of both terms at T = T_live_view on the finest level, view at the origin."""
    observation = scene.observation(T_live)
    tracker._see(observation, scene.view(np.eye(4)))
    n = len(tracker._points)
    values = {
        "far": 0.5,
        "cosine": 0.5,
        "geometry_scale": 1e3,
        "tukey": 1e3,
        "grey_scale": 1.0,
        "grey_offset": 0,
        "gradient2": -1,
        "huber": 1e6,
        "border": 0,
    }
    values.update(gates)
    out = np.empty((-(-n // terms.BLOCK), 3, terms.SUMS), np.float32)
    pinhole = tracker._pinholes[0]
    terms.linearize(
        tracker._model_of(Level(1, 0, 1, 0.1)),
        T.astype(np.float32),
        terms.Live(observation.depth, observation.normals, tracker._live[0]),
        pinhole,
        pinhole,
        terms.Gates(*Noise.of(0.01, 0), **{name: np.float32(value) for name, value in values.items()}),
        out,
    )
    return out.sum(axis=0, dtype=np.float64)


def test_the_jacobians_of_both_terms_agree_with_finite_differences():
    # With unit weights the gradient J^T r is half the derivative of the sum of squares, as long as the pairs stay
    # the same: at 1e-5 almost none change.
    tracker = Registrar(CAMERA)
    scene, T = Corner(), moved((0.011, -0.007, 0.013), (0.5, -0.3, 0.4))
    step = 2e-5
    analytic = linearized(tracker, scene, np.eye(4), T)[:2, 21:27]
    numeric = np.zeros((2, 6))
    for k in range(6):
        costs = []
        for sign in (1, -1):
            twist = np.zeros(6)
            twist[k] = sign * step
            costs.append(linearized(tracker, scene, np.eye(4), poses.exp(twist) @ T)[:2, terms.WRR])
        numeric[:, k] = (costs[0] - costs[1]) / (4 * step)
    scale = np.abs(analytic).max(axis=1, keepdims=True)
    np.testing.assert_allclose(numeric / scale, analytic / scale, atol=0.02)


def test_the_sums_do_not_depend_on_the_number_of_threads():
    scene, T = Corner(), moved((0.02, 0.01, -0.02), (1, 1, 0))
    before = numba.get_num_threads()
    sums = []
    try:
        for threads in (1, 2):
            numba.set_num_threads(min(threads, before))
            sums.append(linearized(Registrar(CAMERA), scene, np.eye(4), T))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(sums[0], sums[1])


def test_the_sums_agree_with_the_obvious_loop():
    tracker, scene, T = Registrar(CAMERA), Corner(), moved((0.02, 0.01, -0.02), (1, 1, 0))
    sums = linearized(tracker, scene, np.eye(4), T)
    observation = scene.observation(np.eye(4))
    points, root = tracker._points.astype(np.float64), 1.0  # a surfel of full weight
    hessian, gradient, count = np.zeros((6, 6)), np.zeros(6), 0
    for point in points:
        x, n = T[:3, :3] @ point[:3] + T[:3, 3], T[:3, :3] @ point[3:6]
        u, v = np.floor(CAMERA.project(x) + 0.5).astype(int)
        if not (0 <= u < CAMERA.width and 0 <= v < CAMERA.height):
            continue
        d = float(observation.depth[v, u])
        p = np.array([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, 1]) * d
        if np.linalg.norm(p - x) > 0.5 or observation.normals[v, u] @ n < 0.5:
            continue
        J = -np.concatenate([n, np.cross(p, n)]) * root / 0.01
        hessian += np.outer(J, J)
        gradient += J * root * (n @ (p - x)) / 0.01
        count += 1
    assert sums[0, terms.COUNT] == pytest.approx(count, abs=2)
    np.testing.assert_allclose(sums[0, :21], hessian[np.triu_indices(6)], atol=1e-3 * np.abs(hessian).max())
    np.testing.assert_allclose(sums[0, 21:27], gradient, atol=2e-3 * np.abs(gradient).max())


@pytest.mark.parametrize(
    ("metres", "degrees"),
    [((0, 0, 0), (0, 0, 0)), ((0.03, -0.02, 0.04), (1, -2, 1)), ((0.08, 0.05, -0.06), (3, 4, -3))],
)
def test_a_motion_is_found(metres, degrees):
    scene, T = Corner(), moved(metres, degrees)
    tracking = Tracker().track(scene.observation(T), scene.view(np.eye(4)), np.eye(4))
    assert tracking.ok, tracking.reason
    assert error(tracking.T_world_camera, T)[0] < 2e-3 and error(tracking.T_world_camera, T)[1] < 0.05


def test_a_motion_is_found_against_a_view_with_holes_from_elsewhere_in_the_world():
    scene, T = Corner(), moved((0.03, -0.02, 0.04), (1, -2, 1))
    T_new_old = moved((5, -3, 2), (40, 100, -20))  # the same scene in another world frame
    view = scene.view(np.eye(4))
    kept = np.random.default_rng(0).random(len(view.points)) > 0.4
    view = replace(view, T_world_camera=T_new_old, pixels=view.pixels[kept], points=view.points[kept])
    tracking = Tracker().track(scene.observation(T), view, T_new_old)
    assert tracking.ok and error(tracking.T_world_camera, T_new_old @ T)[0] < 2e-3


def test_fast_rotation_is_caught_by_the_pre_alignment():
    scene, T = Corner(), moved((0, 0, 0), (0, 9, 0))
    observation, view = scene.observation(T), scene.view(np.eye(4))
    tracking = Tracker().track(observation, view, np.eye(4))
    assert tracking.ok and error(tracking.T_world_camera, T)[1] < 0.1


def test_along_a_bare_wall_the_motion_model_holds_and_not_the_noise():
    scene = Wall(contrast=0)
    T = moved((0, 0, 0.02), (0.5, 0, 0))  # what geometry can see
    T_prior = moved((0.02, -0.01, 0), (0, 0, 1.0))  # what only the motion model knows
    observation = scene.observation(T)
    rng = np.random.default_rng(0)
    normals = observation.normals + rng.normal(scale=0.03, size=observation.normals.shape).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    view = scene.view(np.eye(4))
    noisy = view.points[:, 3:6] + rng.normal(scale=0.03, size=(len(view.points), 3)).astype(np.float32)
    view.points[:, 3:6] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    tracking = Tracker().track(replace(observation, normals=normals), view, T_prior)
    found = poses.log(tracking.T_world_camera)
    assert found[2] == pytest.approx(0.02, abs=2e-3) and np.degrees(found[3]) == pytest.approx(0.5, abs=0.1)
    assert found[:2] == pytest.approx([0.02, -0.01], abs=1e-3) and np.degrees(found[5]) == pytest.approx(1, abs=0.05)
    std = np.sqrt(np.diag(tracking.covariance))
    assert std[0] > 10 * std[2], "the covariance must say which directions nobody measured"


def test_along_a_textured_wall_colour_holds():
    scene, T = Wall(contrast=60), moved((0.03, -0.02, 0.02), (0.5, 0.5, 1.0))
    tracking = Tracker().track(scene.observation(T), scene.view(np.eye(4)), np.eye(4))
    assert tracking.ok, tracking.reason
    assert error(tracking.T_world_camera, T)[0] < 3e-3


def test_a_person_in_part_of_the_view_does_not_pull_the_pose():
    scene, T = Corner(), moved((0.02, -0.02, 0.03), (1, -1, 1))
    observation = scene.observation(T)
    for frame in range(3):  # a slab 1 m before the camera that moves otherwise than the scene
        depth, color = observation.depth.copy(), observation.color.copy()
        depth[20:110, 50 + 5 * frame : 90 + 5 * frame] = 1.0 + 0.02 * frame
        color[20:110, 50 + 5 * frame : 90 + 5 * frame] = 30
        with_person = replace(observation, depth=depth, color=color)
        tracking = Tracker().track(with_person, scene.view(np.eye(4)), np.eye(4))
        assert tracking.ok and error(tracking.T_world_camera, T)[0] < 3e-3


def test_a_frame_without_depth_is_lost_and_says_so():
    scene = Corner()
    observation = replace(scene.observation(np.eye(4)), depth=np.zeros(CAMERA.shape, np.float32))
    tracking = Tracker().track(observation, scene.view(np.eye(4)), np.eye(4))
    assert not tracking.ok and "depth" in tracking.reason


def test_a_black_image_is_tracked_by_its_geometry():
    scene, T = Corner(), moved((0.02, -0.02, 0.03), (1, -1, 1))
    observation = scene.observation(T)
    tracking = Tracker().track(
        replace(observation, color=np.zeros_like(observation.color)), scene.view(np.eye(4)), np.eye(4)
    )
    assert tracking.ok and error(tracking.T_world_camera, T)[0] < 3e-3


def test_another_place_is_lost():
    tracking = Tracker().track(Wall().observation(np.eye(4)), Corner().view(moved((0, 0, -1), (0, 40, 0))), np.eye(4))
    assert not tracking.ok and tracking.reason


def test_a_frame_is_compared_with_the_map_along_normals_and_along_the_ray():
    registrar, wall, near = Registrar(CAMERA), Wall(), moved((0, 0, 0.01), (0, 0, 0))
    observation = wall.observation(near)
    registrar._see(observation, wall.view(np.eye(4)))
    wrong, right = registrar._compared(np.eye(4), observation), registrar._compared(poses.inverse(near), observation)
    assert len(wrong.depth) > 200 and wrong.depth == pytest.approx(2.0, abs=1e-5)
    assert wrong.residual == pytest.approx(0.01, abs=1e-5) and wrong.along_ray == pytest.approx(0.01, abs=1e-5)
    assert right.residual == pytest.approx(0.0, abs=1e-5) and right.fitting == 1

    tilted = moved((0, 0, 0), (0, 40, 0))  # seen obliquely, depth differs by more than the distance from the wall
    observation = wall.observation(near @ tilted)
    registrar._see(observation, wall.view(tilted))
    oblique = registrar._compared(np.eye(4), observation)
    assert np.median(oblique.along_ray / oblique.residual) > 1.2
