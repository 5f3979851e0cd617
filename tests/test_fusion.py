"""The engine against the obvious loop, and the laws that fusion must keep."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from semslam import poses
from semslam.camera import SENSORS, Camera
from semslam.engine.fusion import Fusion, FusionConfig, stride_for
from semslam.engine.merging import LAYERS
from semslam.engine.saved_surfels import state_of
from semslam.engine.surfels import MapConfig, SurfelMap
from semslam.engine.vectors import GROUP, LANES, to_columns, to_rows
from semslam.frame import NO_GREY, Frame, Observation
from semslam.tracking.registration.settings import RegistrationConfig
from sequences import open_sequence
from sequences.room.room import NOISE, RoomSequence, render

SMALL = "room:frames=12,width=128,height=96"


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(open_sequence(SMALL + ",noise=kinect"))


def observe(frame: Frame) -> Observation:
    assert frame.depth is not None
    return Observation.of(frame)


def fused(frames: list[Frame], config: FusionConfig | None = None, map_config: MapConfig | None = None):
    surfels, fusion = SurfelMap(0, map_config), Fusion(frames[0].camera, config)
    for frame in frames:
        fusion.fuse(surfels, fusion.prepare(observe(frame)), frame.T_world_camera, frame.index)
    return surfels, fusion


def flat(depth: float, frame: Frame) -> Observation:
    return replace(observe(frame), depth=np.full(frame.camera.shape, depth, np.float32))


def plain_merge(surfels: SurfelMap, fusion: Fusion, observation: Observation, T: np.ndarray, now: int) -> dict:
    """What merging does to each surfel, one at a time, in float64: the judge of the compiled loop."""
    c, K = fusion.config, observation.camera
    T_camera_world = poses.inverse(T)
    with np.errstate(invalid="ignore"):  # spare slots hold anything
        position, normal = surfels.position.astype(float), surfels.normal.astype(float)
    seen = surfels.seen.copy()
    for i in surfels.slots():
        if normal[i, 3] < 0:
            continue
        p = T_camera_world[:3, :3] @ position[i, :3] + T_camera_world[:3, 3]
        if not 0.5 * c.near <= p[2] <= 1.2 * c.far:
            continue
        u, v = np.floor(K.project(p) + 0.5).astype(int)
        if not (0 <= u < K.width and 0 <= v < K.height):
            continue
        d, n_camera = float(observation.depth[v, u]), observation.normals[v, u].astype(float)
        if d <= 0 or not n_camera.any():
            continue
        gate = c.gate + 3 * (c.noise + c.noise_quadratic * (d - 0.4) ** 2)
        if d - p[2] > 2 * gate:
            left = normal[i, 3] - c.carve
            normal[i, 3] = left if left >= 0 else -1
            continue
        n_world, weight = T[:3, :3] @ n_camera, float(fusion.weights[v, u])
        if normal[i, :3] @ n_world <= np.cos(np.radians(c.normal_gate_deg)):
            continue
        if abs(d - p[2]) >= gate:
            if p[2] - d < LAYERS * gate:
                left = normal[i, 3] - c.carve * weight
                normal[i, 3] = left if left >= 0 else -1
            continue
        total = normal[i, 3] + weight
        b = weight / total
        seen[i, 1] = now
        normal[i, 3] = min(total, c.max_confidence)
        footprint = max(d / K.fx, c.spacing)
        radius = np.sqrt(2) * footprint * min(2, 1 / max(abs(n_camera[2]), 0.01))
        if radius >= 1.5 * position[i, 3]:
            continue
        measured = T[:3, :3] @ np.array([(u - K.cx) / K.fx * d, (v - K.cy) / K.fy * d, d]) + T[:3, 3]
        position[i, :3] += b * ((measured - position[i, :3]) @ normal[i, :3]) * normal[i, :3]
        position[i, 3] += b * (radius - position[i, 3])
        mean = normal[i, :3] + b * (n_world - normal[i, :3])
        normal[i, :3] = mean / np.linalg.norm(mean)
    return {"position": position, "normal": normal, "seen": seen}


def test_merging_equals_the_obvious_loop(frames):
    surfels, fusion = fused(frames[:5], FusionConfig(clean_every=0))
    frame = frames[8]
    observation = fusion.prepare(observe(frame))
    expected = plain_merge(surfels, fusion, observation, frame.T_world_camera, 8)
    slots = surfels.slots()
    fusion.fuse(surfels, observation, frame.T_world_camera, 8)
    # float32 rounds a few projections into the neighbouring pixel
    same = surfels.seen[slots, 1] == expected["seen"][slots, 1]
    assert same.mean() > 0.999
    for name, tolerance in (("position", 1e-4), ("normal", 2e-3)):
        close = np.isclose(getattr(surfels, name)[slots], expected[name][slots], atol=tolerance).all(axis=1)
        assert close.mean() > 0.998, name
    assert (expected["seen"][slots, 1] == 8).mean() > 0.5  # it did merge


def test_the_map_is_the_same_for_any_thread_count(frames):
    threads = numba.get_num_threads()
    maps = []
    try:
        for n in (1, 2):
            numba.set_num_threads(min(n, threads))
            maps.append(state_of(fused(frames)[0]))
    finally:
        numba.set_num_threads(threads)
    for name, values in maps[0].items():
        assert np.array_equal(values, maps[1][name]), name


def test_a_wall_seen_again_and_again_stays_one_wall(frames):
    surfels, fusion = SurfelMap(0), Fusion(frames[0].camera)
    for k in range(30):
        fusion.fuse(surfels, fusion.prepare(flat(2.0, frames[0])), np.eye(4), k)
    assert len(surfels.cloud()) == frames[0].camera.width * frames[0].camera.height
    assert np.allclose(surfels.cloud().positions[:, 2], 2, atol=1e-6)


def test_noise_averages_out_along_the_normal(frames):
    rng = np.random.default_rng(0)
    surfels, fusion = SurfelMap(0), Fusion(frames[0].camera, FusionConfig(smoothing=0))
    for k in range(40):
        observation = flat(1.5, frames[0])
        observation.depth[:] += rng.normal(0, 0.004, observation.depth.shape)
        fusion.fuse(surfels, fusion.prepare(observation), np.eye(4), k)
    cloud = surfels.cloud()
    good = cloud.confidence > 10
    assert good.mean() > 0.8
    assert np.abs(cloud.positions[good, 2] - 1.5).mean() < 0.0015


def test_what_stood_in_free_space_is_removed(frames):
    surfels, fusion = SurfelMap(0), Fusion(frames[0].camera)
    for k in range(3):
        fusion.fuse(surfels, fusion.prepare(flat(1.0, frames[0])), np.eye(4), k)
    for k in range(3, 20):
        fusion.fuse(surfels, fusion.prepare(flat(2.0, frames[0])), np.eye(4), k)
    assert np.allclose(surfels.cloud().positions[:, 2], 2, atol=1e-6)


def test_an_occluded_surface_is_kept(frames):
    surfels, fusion = SurfelMap(0), Fusion(frames[0].camera)
    for k in range(3):
        fusion.fuse(surfels, fusion.prepare(flat(2.0, frames[0])), np.eye(4), k)
    for k in range(3, 50):
        fusion.fuse(surfels, fusion.prepare(flat(1.0, frames[0])), np.eye(4), k)
    assert (np.abs(surfels.cloud().positions[:, 2] - 2) < 1e-6).sum() == frames[0].depth.size


def test_a_view_has_a_point_for_what_registration_counts_as_one_measurement():
    fusion = FusionConfig()
    assert stride_for(Camera(640, 480, 525, 525, 320, 240), fusion.view_points) ** 2 == RegistrationConfig().correlation


def test_the_view_from_a_fused_pose_shows_the_fused_depth(frames):
    surfels, fusion = fused(frames[:1])
    view = fusion.predict(surfels, frames[0].T_world_camera)
    u, v = view.pixels.T
    assert len(u) > 0.9 * frames[0].depth.size / view.stride**2
    prepared = fusion.prepare(observe(frames[0]))
    assert np.abs(view.points[:, 2] - prepared.depth[v, u]).max() < 1e-4
    assert np.abs(view.points[:, :3] - frames[0].camera.backproject(prepared.depth)[v, u]).max() < 1e-4
    assert (np.abs(view.points[:, 3:6] - prepared.normals[v, u]).max(axis=1) < 2e-3).all()
    grey = frames[0].color @ np.array([0.299, 0.587, 0.114])
    shown = view.grey >= 0
    assert shown.mean() > 0.9 and shown[v, u].all()
    assert np.abs(view.grey - grey)[shown].max() < 1
    blocks = v // view.stride * frames[0].camera.width + u // view.stride
    assert (np.diff(blocks) > 0).all()  # in row order, one each, for any number of threads


def test_a_view_from_a_new_pose_is_projected_anew(frames):
    surfels, fusion = fused(frames[:6])
    there = frames[0].T_world_camera
    fusion.predict(surfels, frames[5].T_world_camera)
    view, fresh = fusion.predict(surfels, there), Fusion(frames[0].camera).predict(surfels, there)
    assert np.array_equal(view.points, fresh.points) and np.array_equal(view.grey, fresh.grey)


@pytest.mark.parametrize("spacing", [0.02, 0.1])  # 4 and 18 pixels
def test_surfels_are_not_set_closer_than_the_spacing(frames, spacing):
    surfels, fusion = SurfelMap(0), Fusion(frames[0].camera, FusionConfig(spacing=spacing))
    for k in range(5):
        fusion.fuse(surfels, fusion.prepare(flat(0.6, frames[0])), np.eye(4), k)
    from scipy.spatial import cKDTree

    positions = surfels.cloud().positions
    distance, _ = cKDTree(positions).query(positions, k=2)
    assert len(surfels) > 10 and distance[:, 1].min() > 0.9 * spacing


def test_a_full_map_goes_on_merging(frames):
    surfels, _ = fused(frames, map_config=MapConfig(max_surfels=2000))
    assert len(surfels) <= 2000
    assert surfels.full and surfels.rejected > 0
    assert surfels.seen[surfels.slots(), 1].max() == frames[-1].index


@pytest.mark.parametrize("image", ["depth", "color", "confidence", "class_probabilities"])
def test_images_of_another_size_are_one_clear_error(frames, image):
    _, fusion = fused(frames[:1])
    fitting = replace(
        observe(frames[0]),
        confidence=np.ones((96, 128), np.float32),
        class_probabilities=np.zeros((96, 128, 3), np.float32),
    )
    small = getattr(fitting, image)[::2, ::2]
    with pytest.raises(ValueError, match="64x48, the map's camera is 128x96"):
        fusion.prepare(replace(fitting, **{image: small}))


def test_a_pose_that_is_not_finite_is_one_clear_error(frames):
    surfels, fusion = fused(frames[:1])
    with pytest.raises(ValueError, match="frame 1: the pose holds NaN"):
        fusion.fuse(surfels, fusion.prepare(observe(frames[1])), np.full((4, 4), np.nan), 1)


def test_a_mirrored_pose_is_one_clear_error_and_leaves_the_map_alone(frames):
    surfels, fusion = fused(frames[:1])
    before = surfels.cloud().positions
    with pytest.raises(ValueError, match="frame 1: the pose mirrors"):
        fusion.fuse(surfels, fusion.prepare(observe(frames[1])), np.diag([1.0, -1, 1, 1]), 1)
    np.testing.assert_array_equal(surfels.cloud().positions, before)


def test_near_surfaces_get_every_second_pixel_far_ones_every_pixel(frames):
    for depth, share in ((0.5, 0.5), (2.0, 1.0)):
        surfels, fusion = SurfelMap(0), Fusion(frames[0].camera, FusionConfig(spacing=0.001, coarsest=0.01))
        fusion.fuse(surfels, fusion.prepare(flat(depth, frames[0])), np.eye(4), 0)
        assert len(surfels) == share * frames[0].depth.size


def test_cleaning_counts_frames_whatever_their_indices(frames):
    config = FusionConfig(patience=3, clean_every=4)
    maps = []
    for step in (1, 5):
        surfels, fusion, removed = SurfelMap(0), Fusion(frames[0].camera, config), 0
        for k, frame in enumerate(frames):
            # every fourth frame stands alone: it sees the wall 10 cm nearer, which no other confirms
            observation = (
                observe(frame) if k % 4 else replace(observe(frame), depth=np.maximum(observe(frame).depth - 0.1, 0))
            )
            removed += fusion.fuse(surfels, fusion.prepare(observation), frame.T_world_camera, k * step).removed
        maps.append((len(surfels.cloud()), removed))
    assert maps[0] == maps[1] and removed > 100


def test_what_was_not_confirmed_for_a_while_is_removed_and_not_before(frames):
    config = FusionConfig(patience=6, clean_every=1, carve=0.0)
    surfels, fusion = SurfelMap(0), Fusion(frames[0].camera, config)
    counts = []
    for k in range(9):
        observation = flat(2.05 if k == 0 else 2.0, frames[0])
        fusion.fuse(surfels, fusion.prepare(observation), np.eye(4), 100 * k)
        counts.append(surfels.living())
    assert counts[1:8] == [2 * counts[0]] * 6 + counts[:1]


def test_what_was_in_view_stays_known_when_the_map_is_looked_at_from_elsewhere(frames):
    surfels, fusion = fused(frames[:3])
    visible = fusion.visible.copy()
    away = frames[2].T_world_camera @ poses.exp([0, 0, 0, 0, 2.0, 0])
    fusion.predict(surfels, away)
    np.testing.assert_array_equal(fusion.visible, visible)


def test_one_broken_pixel_spoils_no_other(frames):
    fusion = Fusion(frames[0].camera)
    for broken in (np.nan, np.inf, -np.inf):
        observation = flat(2.0, frames[0])
        observation.depth[20, 30] = broken
        depth = fusion.prepare(observation).depth
        assert depth[20, 30] == 0
        assert (depth == 2).sum() == depth.size - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 0.0}, {"near": 2.0, "far": 1.0}, {"smoothing": -1}, {"far": 1e5}, {"spacing": 0.0},
        {"coarsest": -1.0}, {"normal_gate_deg": -5.0}, {"max_confidence": 0.0}, {"patience": -1}, {"stable": -5.0},
        {"view_points": -5},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=r"slam\.fusion\..*expected"):
        FusionConfig(**wrong)


# label fusion


def test_who_walks_by_before_missing_depth_does_not_stay_in_the_map():
    """Nothing is measured behind, so nothing ever sees through what was there for a moment."""
    frame = open_sequence("room:frames=1,width=64,height=48")[0]
    surfels, fusion = SurfelMap(0), Fusion(frame.camera)
    for k in range(80):
        observation = flat(0.0, frame)
        observation.depth[:, :12] = 1.5  # a wall for half of the time, then a screen that gives no depth
        if k < 16:
            observation.depth[10:, 14 + 2 * k : 24 + 2 * k] = 1.2
        elif k > 40:
            observation.depth[:, :12] = 0
        fusion.fuse(surfels, fusion.prepare(observation), np.eye(4), k)
    depths = surfels.position[surfels.slots()[surfels.are_living()], 2]
    assert np.sum(np.abs(depths - 1.5) < 0.01) > 100, "what was seen for long stays"
    assert np.sum(np.abs(depths - 1.2) < 0.01) < 30


def test_an_empty_map_shows_nothing():
    camera = RoomSequence(frames=1, width=64, height=48).camera
    view = Fusion(camera).predict(SurfelMap(0), np.eye(4))
    assert (view.grey == NO_GREY).all() and len(view.points) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("sensor", "growth"), [("kinect", 1.07), ("tof", 1.07), ("realsense", 1.1)])
def test_a_minute_of_standing_still_does_not_wear_the_map(sensor, growth):
    """1,800 frames of one place: neither more surfels nor worse ones, where outliers of depth heaped up layers."""
    noise, (base, quadratic) = NOISE[sensor], SENSORS[sensor if sensor == "realsense" else "kinect"]
    sequence = RoomSequence(frames=1, width=160, height=120)
    camera, T = sequence.camera, sequence.poses[0]
    view = render(camera, T)
    fusion = Fusion(camera, FusionConfig(noise=base, noise_quadratic=quadratic))
    surfels, counts, errors, astray = SurfelMap(0), [], [], []
    for k in range(1800):
        exact = Frame(k, k / 30, view.color, camera, view.depth, view.labels, T)
        fusion.fuse(surfels, fusion.prepare(observe(noise(exact, view.incidence, np.random.default_rng(k)))), T, k)
        if k + 1 in (60, 1800):
            points = poses.transform(poses.inverse(T), surfels.cloud().positions)
            u, v = np.rint(camera.project(points)).astype(int).T
            inside = (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
            error = np.abs(points[inside, 2] - view.depth[v[inside], u[inside]])
            counts.append(len(points))
            errors.append(np.median(error))
            astray.append(np.mean(error > 0.05))
    assert counts[1] < growth * counts[0]  # what shows depth in few frames only is still new after 60
    assert errors[1] < 1.02 * errors[0]
    assert astray[1] < astray[0] + 0.006


def test_rows_become_columns_and_rows_again():
    rows = np.arange(4 * GROUP, dtype=np.float32)
    columns, again = np.zeros_like(rows), np.zeros_like(rows)
    turned(rows, columns, again)
    np.testing.assert_array_equal(columns.reshape(4, GROUP), rows.reshape(GROUP, 4).T)
    np.testing.assert_array_equal(again, rows)


@numba.njit
def turned(rows, columns, again):
    for j in range(0, GROUP, LANES):
        to_columns(rows, 4 * j, columns, j)
        to_rows(columns, j, again, 4 * j)


@pytest.mark.parametrize("sensor", ["kinect", "stereo", "survey-lidar"])
def test_a_lorry_is_no_error_of_the_facade_behind_it(frames, sensor):
    """40 m and 34 m away, as driving data sets have them: no surfel of either moves towards the other."""
    base, quadratic = SENSORS[sensor]
    config = FusionConfig(near=2.0, far=80.0, noise=base, noise_quadratic=quadratic)
    surfels, fusion = SurfelMap(0, MapConfig().reaching(80.0)), Fusion(frames[0].camera, config)
    for now, z in enumerate([40.0] * 4 + [34.0] * 4):
        fusion.fuse(surfels, fusion.prepare(flat(z, frames[0])), np.eye(4), now)
    depths = surfels.position[surfels.slots(), 2]
    assert np.minimum(np.abs(depths - 34), np.abs(depths - 40)).max() < 0.01
