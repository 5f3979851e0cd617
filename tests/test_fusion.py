"""The engine against the obvious loop, and the laws that fusion must keep."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from semslam import poses
from semslam.camera import SENSORS
from semslam.engine.chunks import CHUNK
from semslam.engine.fusion import Fusion, FusionConfig
from semslam.engine.labels.evidence import (
    FULL,
    LATEST,
    PER_VIEW,
    VIEWS,
    WEIGHT,
    ImageEvidence,
    add_evidence,
    class_columns,
    row_width,
    rows_of,
)
from semslam.engine.labels.label_fusion import LABEL_FUSIONS, REPEATED, LabelFusionConfig, independence, label_fusion
from semslam.engine.labels.neighbourhoods import cube_number, interpolate
from semslam.engine.merging import LAYERS
from semslam.engine.surfels import MapConfig, SurfelMap
from semslam.engine.vectors import GROUP, LANES, to_columns, to_rows
from semslam.frame import NO_GREY, Frame, Observation
from sequences import open_sequence
from sequences.room.room import NOISE, RoomSequence, render

SMALL = "room:frames=12,width=128,height=96"


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(open_sequence(SMALL + ",noise=kinect"))


def observe(frame: Frame) -> Observation:
    assert frame.depth is not None
    return Observation(frame, frame.camera, frame.color, frame.depth)


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
            maps.append(fused(frames)[0].state())
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


def test_a_view_from_a_new_pose_is_projected_anew(frames):
    surfels, fusion = fused(frames[:6])
    there = frames[0].T_world_camera
    fusion.predict(surfels, frames[5].T_world_camera)
    view, fresh = fusion.predict(surfels, there), Fusion(frames[0].camera).predict(surfels, there)
    assert np.array_equal(view.points, fresh.points) and np.array_equal(view.grey, fresh.grey)


def test_surfels_are_not_set_closer_than_the_spacing(frames):
    surfels, fusion = SurfelMap(0), Fusion(frames[0].camera, FusionConfig(spacing=0.02))
    for k in range(5):
        fusion.fuse(surfels, fusion.prepare(flat(0.6, frames[0])), np.eye(4), k)
    from scipy.spatial import cKDTree

    positions = surfels.cloud().positions
    distance, _ = cKDTree(positions).query(positions, k=2)
    assert distance[:, 1].min() > 0.018


def test_a_full_map_goes_on_merging(frames):
    surfels, _ = fused(frames, map_config=MapConfig(max_surfels=2000))
    assert len(surfels) <= 2000
    assert surfels.full and surfels.rejected > 0
    assert surfels.seen[surfels.slots(), 1].max() == frames[-1].index


@pytest.mark.parametrize("image", ["depth", "color", "confidence", "class_probabilities"])
def test_images_of_another_size_are_one_clear_error(frames, image):
    _, fusion = fused(frames[:1])
    small = np.zeros((48, 64, 3), np.float32) if image != "depth" else frames[0].depth[::2, ::2]
    with pytest.raises(ValueError, match="64x48, the map's camera is 128x96"):
        fusion.prepare(replace(observe(frames[0]), **{image: small}))


def test_a_pose_that_is_not_finite_is_one_clear_error(frames):
    surfels, fusion = fused(frames[:1])
    with pytest.raises(ValueError, match="pose of frame 1 is not finite"):
        fusion.fuse(surfels, fusion.prepare(observe(frames[1])), np.full((4, 4), np.nan), 1)


def test_a_mirrored_pose_is_one_clear_error_and_leaves_the_map_alone(frames):
    surfels, fusion = fused(frames[:1])
    before = surfels.cloud().positions
    with pytest.raises(ValueError, match="frame 1 is mirrored"):
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
            observation = observe(frame) if k % 4 else replace(observe(frame), depth=observe(frame).depth - 0.1)
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


APART = 100.0  # metres between views that share no error


def labelled(
    method: str, images: list[np.ndarray], apart: float = APART, config: LabelFusionConfig | None = None
) -> np.ndarray:
    """Class probabilities (N, C) of a wall after fusing constant class images (C,), seen so many metres apart."""
    frame = open_sequence("room:frames=1,width=32,height=24")[0]
    labels = label_fusion(config or LabelFusionConfig(method=method, max_views=4, error_rate=0))
    surfels, fusion = SurfelMap(len(images[0])), Fusion(frame.camera)
    for k, p in enumerate(images):
        fusion.fuse(surfels, fusion.prepare(flat(2.0, frame)), np.eye(4), k)
        image = np.broadcast_to(np.float32(p), (*frame.camera.shape, len(p))).copy()
        view = poses.moved_by(np.eye(4), np.array([k * apart, 0, 0]))
        labels.fuse(surfels, fusion.visible, fusion.pixels, image, view)
    return labels.probabilities(surfels)


A, B = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3])


@pytest.mark.parametrize("method", ["bayes", "mean"])
@pytest.mark.parametrize("p", [[0.7, 0.2, 0.1], [0.5] + [0.5 / 12] * 12, [0.025] * 40])
def test_one_view_reads_its_own_probabilities_wherever_it_shows_a_surfel(method, p):
    assert np.allclose(labelled(method, [np.array(p)]), p, rtol=0.02)


def test_two_views_that_share_no_error_give_bayes():
    assert np.allclose(labelled("bayes", [A, B]), A * B / (A * B).sum(), atol=2e-3)
    p = np.array([0.5] + [0.5 / 12] * 12)
    assert np.allclose(labelled("bayes", [p, p]), p**2 / (p**2).sum(), atol=2e-3)


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_the_same_view_again_adds_nothing(method):
    assert np.allclose(labelled(method, [A]), labelled(method, [A] * 200, apart=0), atol=2e-3)


def test_a_view_from_the_same_place_has_a_small_weight_and_makes_nothing_surer():
    mean = np.exp((np.log(A) + REPEATED / (1 + REPEATED) * np.log(B)) / (1 + REPEATED / (1 + REPEATED)))
    assert np.allclose(labelled("bayes", [A, B], apart=0), mean / mean.sum(), atol=5e-3)


def test_the_neighbourhood_decides_for_few_views_and_hardly_counts_for_many():
    fusion = label_fusion(LabelFusionConfig(neighbourhood=0.1, neighbour_views=10, error_rate=0))
    said = np.log(np.stack([A, A, B, A, A]) / 0.001)
    shares = np.array([30.0, 30, 1, 0, 0], np.float32)
    rows = rows_of(said * np.minimum(shares, 1)[:, None] * [[1], [1], [1], [0], [0]], np.minimum(shares, 1), shares > 0)
    rows[:2, :3] *= 30
    rows[:2, WEIGHT] *= 30
    near, far = np.full((4, 3), 0.05), np.full((1, 3), 5.0)
    many, _, few, none, alone = fusion.read(rows, 3, np.concatenate([near, far]))
    assert np.allclose(many, A, atol=0.01)
    assert few.argmax() == A.argmax() and few[B.argmax()] > many[B.argmax()]
    assert np.allclose(none, A, atol=0.02)
    assert not alone.any()


def around(grid, positions, side):
    """Sums of cubes, by place in the grid, interpolated the obvious way."""
    out = np.zeros((len(positions), 2), np.float32)
    for i, position in enumerate(positions / side - 0.5):
        for place, sums in grid.items():
            out[i] += np.prod(np.maximum(1 - np.abs(position - place), 0)) * np.array(sums)
    return out


def test_neighbourhoods_are_interpolated_between_the_middles_of_cubes():
    rng = np.random.default_rng(3)
    grid = {tuple(place): rng.random(2) for place in rng.integers(-3, 3, (40, 3)).tolist()}
    numbers = {int(cube_number(*place)): sums for place, sums in grid.items()}
    assert len(numbers) == len(grid)
    positions, out = rng.uniform(-0.4, 0.4, (200, 3)).astype(np.float32), np.empty((200, 2), np.float32)
    sums = np.array([numbers[n] for n in sorted(numbers)], np.float32)
    interpolate(positions, 0.1, np.array(sorted(numbers)), sums, out)
    np.testing.assert_allclose(out, around(grid, positions, 0.1), atol=1e-5)


def test_no_border_of_a_neighbourhood_shows():
    fusion, x = label_fusion(), np.linspace(0, 1, 2001)
    positions = np.stack([x, 0 * x, 0 * x], axis=1)
    rows = fusion.rows_of(np.where(x[:, None] < 0.43, A, B).astype(np.float32))
    rows[::2] = 0  # surfels that no view showed have nothing but their neighbours
    read = fusion.read(rows, 3, positions)[::2]
    assert np.abs(np.diff(read, axis=0)).max() < 0.01 and np.abs(read[0] - read[-1]).max() > 0.3


def test_no_number_of_views_makes_the_map_surer_than_its_error_rate_allows():
    sure, config = np.array([1.0, 0, 0]), LabelFusionConfig(max_views=np.inf, error_rate=0.06)
    for n in (1, 4, 32):
        most = 1 - 0.04 * (1 - 1 / n)  # one view is believed as it is
        assert np.allclose(labelled("bayes", [sure] * n, config=config)[:, 0], most, atol=2e-3)


def test_an_error_rate_changes_no_order_of_classes_and_keeps_the_sum():
    exact = labelled("bayes", [A, B])
    mixed = labelled("bayes", [A, B], config=LabelFusionConfig(max_views=4, error_rate=0.3))
    assert np.allclose(mixed, 0.85 * exact + 0.05, atol=1e-3)  # two views: half of the rate


def test_the_farther_apart_two_views_are_the_more_the_second_adds():
    found = [labelled("bayes", [A, B], apart)[0, 1] for apart in (0, 0.05, 0.2, 1, APART)]
    assert np.all(np.diff(found) > 0)


def test_a_turn_makes_a_view_new_as_a_step_does():
    config, turned = LabelFusionConfig(angle_deg=30, distance=0.5), poses.exp(np.radians([0, 0, 0, 0, 30, 0]))
    views = np.stack([np.eye(4), poses.moved_by(np.eye(4), np.array([0.5, 0, 0])), np.linalg.inv(turned)])
    assert np.allclose(independence(views, np.eye(4), config), [0, 1 - np.exp(-1), 1 - np.exp(-1)])


def test_many_views_are_worth_no_more_than_the_configuration_says():
    for n in (1, 4, 16, 64):
        found = labelled("bayes", [A] * n, config=LabelFusionConfig(max_views=3, error_rate=0))[0]
        power = A**3 / (A**3).sum()
        assert found[0] <= power[0] + 1e-3
    assert np.allclose(found, power, atol=5e-3)
    free = labelled("bayes", [A] * 16, config=LabelFusionConfig(max_views=np.inf, error_rate=0))[0]
    assert np.allclose(free, A**16 / (A**16).sum(), atol=2e-3)


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_probabilities_sum_to_one_and_agree_with_the_images(method):
    p = labelled(method, [np.array([0.7, 0.2, 0.1])] * 5)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert np.all(p.argmax(axis=1) == 0)


def test_the_mean_is_the_mean():
    assert np.allclose(labelled("mean", [A, B]), (A + B) / 2, atol=1e-3)


def test_the_histogram_counts_winners():
    assert np.allclose(labelled("histogram", [A, A, B]), [2 / 3, 1 / 3, 0], atol=1e-5)


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_no_single_observation_vetoes_a_class_for_ever(method):
    wrong, right = np.array([0.0, 1.0, 0.0]), np.array([0.8, 0.1, 0.1])
    assert np.all(labelled(method, [wrong] + [right] * 6).argmax(axis=1) == 0)


def test_old_evidence_fades_where_the_scene_changes():
    before, after = np.array([0.9, 0.05, 0.05]), np.array([0.05, 0.9, 0.05])
    images = [before] * 40 + [after] * 15
    assert np.all(labelled("bayes", images, config=LabelFusionConfig(memory=8)).argmax(axis=1) == 1)
    assert np.all(labelled("bayes", images, config=LabelFusionConfig(memory=32)).argmax(axis=1) == 0)


def test_a_row_of_evidence_never_overflows():
    """Sums that no longer fit 16 bits would start again from 0."""
    p = np.array([1.0, 0, 0])
    for method in LABEL_FUSIONS:
        found = labelled(method, [p] * 300, config=LabelFusionConfig(method=method, error_rate=0))
        assert np.all(found[:, 0] > 0.99)


def test_labels_settings_that_cannot_work_are_refused():
    for wrong in (
        {"max_views": 0.5},
        {"distance": 0.0},
        {"memory": 100.0},
        {"floor": 0.0},
        {"floor": 1e-9},
        {"error_rate": 1.0},
    ):
        with pytest.raises(ValueError, match=f"slam.labels.{next(iter(wrong))}"):
            LabelFusionConfig(**wrong)


@pytest.mark.parametrize("classes", [3, 13, 14, 15, 40])
def test_adding_evidence_is_the_ten_line_loop(classes):
    rng = np.random.default_rng(classes)
    image = np.zeros(500 * classes + row_width(classes), np.uint16)
    image[: 500 * classes] = (1800 * rng.dirichlet(np.full(classes, 0.1), 500)).ravel()
    image[5 * classes : 6 * classes] = 0  # a pixel of which nothing is known
    pixels = rng.integers(-1, 500, CHUNK).astype(np.int32)
    pixels[:10] = 5
    rows = rows_of(rng.uniform(0, 30, (CHUNK, classes)), rng.uniform(0, 32, CHUNK), rng.uniform(0, 32, CHUNK))
    rows[:, LATEST] = rng.integers(0, 7, CHUNK)
    weights, independent = rng.integers(0, FULL + 1, (2, 7)).astype(np.uint16)
    most = np.uint16(32 * PER_VIEW)
    expected = rows.astype(np.int64)
    for row, p in zip(expected, pixels):
        seen = image[p * classes : (p + 1) * classes].astype(np.int64)
        if p < 0 or not seen.any():
            continue
        weight, new = int(weights[row[LATEST]]), int(independent[row[LATEST]])
        row[:classes] += (seen * weight + 32768) >> 16
        row[WEIGHT] += (weight + 32) >> 6
        row[VIEWS] = min(row[VIEWS] + ((new + 32) >> 6), most)
        row[LATEST] = 7
        if row[WEIGHT] > most:
            row[:VIEWS] >>= 1
    chunks, counts = np.zeros(1, np.int32), np.full(1, CHUNK, np.int32)
    evidence = ImageEvidence(image, class_columns(classes), np.uint16(7), weights, independent, most)
    add_evidence(chunks, counts, pixels, evidence, rows)
    np.testing.assert_array_equal(rows, expected)


def test_a_view_of_another_map_counts_as_none():
    """A row that names a view this fusion never saw must not be looked up beyond the views there are."""
    found = []
    for last in (0, 9, 65535):
        image = np.full(3 + row_width(3), 900, np.uint16)
        rows = rows_of(np.ones((CHUNK, 3)), np.ones(CHUNK), np.ones(CHUNK))
        rows[:, LATEST] = last
        weights, independent = np.array([FULL, 9, 9], np.uint16), np.array([FULL, 5, 5], np.uint16)
        evidence = ImageEvidence(image, class_columns(3), np.uint16(3), weights, independent, np.uint16(32 * PER_VIEW))
        add_evidence(np.zeros(1, np.int32), np.full(1, CHUNK, np.int32), np.zeros(CHUNK, np.int32), evidence, rows)
        found.append(rows)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_saved_fusion_that_holds_fewer_views_than_it_counts_is_refused():
    fusion = label_fusion()
    fusion.restore({})  # an earlier version kept nothing
    fusion.restore(fusion.state() | {"count": np.array(64)})
    with pytest.raises(ValueError, match="count 65 views and hold 64"):
        fusion.restore(fusion.state() | {"count": np.array(65)})


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_unlabelled_pixels_change_nothing(method):
    p = np.array([0.6, 0.3, 0.1])
    assert np.array_equal(labelled(method, [p]), labelled(method, [p, np.zeros(3)]))
    assert not labelled(method, [np.zeros(3)]).any()


def test_a_wrong_class_count_is_one_clear_error():
    frame = open_sequence("room:frames=1,width=32,height=24")[0]
    surfels, fusion = SurfelMap(13), Fusion(frame.camera)
    image = np.zeros((*frame.camera.shape, 40), np.float32)
    with pytest.raises(ValueError, match="40 classes, the map of 13"):
        label_fusion().fuse(surfels, fusion.visible, fusion.pixels, image, np.eye(4))


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
