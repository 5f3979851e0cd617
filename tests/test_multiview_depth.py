"""Depth by parallax: the sweep against the obvious loop, its completion, and a room whose depth is known."""

from __future__ import annotations

import threading
from itertools import pairwise

import cv2
import numpy as np
import pytest

from semslam import poses
from semslam.camera import Camera
from semslam.depth import plane_sweep
from semslam.depth import plane_sweep_kernels as kernels
from semslam.depth.completion import complete
from semslam.depth.multiview import MultiViewConfig, MultiViewDepth, depth_from_views, neighbours
from semslam.frame import Frame, Observation
from sequences import open_sequence

f32 = np.float32
CAMERA = Camera(48, 36, 40.0, 40.0, 23.5, 17.5)


@pytest.fixture(scope="module")
def room():
    return open_sequence("room:frames=60,width=160,height=120")


def grey_of(frame) -> np.ndarray:
    return cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(f32)


# matching costs


def correlation_by_hand(a: np.ndarray, b: np.ndarray, noise: float) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(np.mean((a - a.mean()) * (b - b.mean())) / np.sqrt((a.var() + noise) * (b.var() + noise)))


def test_the_cost_is_that_of_the_obvious_loop():
    rng = np.random.default_rng(0)
    grey, other = (cv2.GaussianBlur(rng.uniform(0, 255, CAMERA.shape).astype(f32), (5, 5), 1) for _ in range(2))
    predicted = rng.uniform(1.5, 2.5, CAMERA.shape).astype(f32)
    T = poses.exp(np.array([0.1, 0.02, 0.01, 0.01, -0.02, 0.01]))
    K = CAMERA.K
    turn, shift = (K @ T[:3, :3] @ np.linalg.inv(K)).astype(f32)[None], (K @ T[:3, 3]).astype(f32)[None]
    ratios, half, noise = np.array([0.8, 1.0, 1.3], f32), 2, f32(4)
    cost = np.empty((*CAMERA.shape, 3), f32)
    other = np.rint(other)
    views = kernels.Views(kernels.packed(other)[None], turn, shift)
    kernels.match(grey, views, predicted, ratios, kernels.Matching(half, 1, noise), cost)
    for u, v, d in ((10, 9, 0), (24, 18, 1), (40, 30, 2), (20, 25, 1)):
        warped = np.empty((2 * half + 1, 2 * half + 1))
        for i in range(-half, half + 1):
            for k in range(-half, half + 1):
                ray = np.array([(u + k - CAMERA.cx) / CAMERA.fx, (v + i - CAMERA.cy) / CAMERA.fy, 1])
                x = T[:3, :3] @ ray * predicted[v + i, u + k] * ratios[d] + T[:3, 3]
                p = CAMERA.project(x).astype(f32)
                assert 0 <= p[0] < 47 and 0 <= p[1] < 35
                warped[i + half, k + half] = cv2.getRectSubPix(other, (1, 1), (float(p[0]), float(p[1])))[0, 0]
        window = grey[v - half : v + half + 1, u - half : u + half + 1]
        assert cost[v, u, d] == pytest.approx(0.5 - 0.5 * correlation_by_hand(window, warped, 4.0), abs=0.02)


def test_the_way_along_a_row_is_the_cheapest_of_all_ways():
    """One path of the aggregation, against trying every sequence of candidates."""
    rng = np.random.default_rng(1)
    cost = rng.uniform(0, 1, (4, 3)).astype(f32)
    small, jump = f32(0.1), f32(0.3)
    (before, now), total = np.full((2, 5), f32(np.inf)), cost[0].copy()
    before[1:-1], sums = cost[0], cost[0].copy()
    least = [before.min()]
    for k in range(1, 4):
        kernels._step(cost[k], before, small, jump, now, total)
        before, now = now, before
        sums += before[1:-1]
        least.append(before.min())
    np.testing.assert_array_equal(total, sums)

    def price(way: tuple[int, ...]) -> float:
        steps = [0.0 if a == b else 0.1 if abs(a - b) == 1 else 0.3 for a, b in pairwise(way)]
        return float(sum(cost[k, d] for k, d in enumerate(way)) + sum(steps))

    ways = [(a, b, c, d) for a in range(3) for b in range(3) for c in range(3) for d in range(3)]
    for last in range(3):
        best = min(price(way) for way in ways if way[-1] == last)
        assert before[1 + last] + sum(least[:-1]) == pytest.approx(best, abs=1e-5)


# completion


def test_known_depths_are_kept_and_carry_their_surface_with_them():
    predicted = np.full(CAMERA.shape, 2.0, f32)
    known, log_std = np.zeros(CAMERA.shape, f32), np.full(CAMERA.shape, np.inf, f32)
    known[10:26:5, 10:40:5], log_std[10:26:5, 10:40:5] = 2.4, 0.005
    found = complete(predicted, known, log_std, np.full(CAMERA.shape, 100, f32))
    assert np.abs(found.depth[known > 0] - 2.4).max() < 0.02
    assert found.depth[18, 22] == pytest.approx(2.4, rel=0.02)  # between them
    assert found.log_std[10, 10] < found.log_std[18, 22] < found.log_std[0, 47]


def test_a_correction_stops_at_an_edge_that_both_depth_and_image_show():
    predicted, grey = np.full(CAMERA.shape, 2.0, f32), np.full(CAMERA.shape, 60, f32)
    predicted[:, 24:], grey[:, 24:] = 4.0, 200
    known, log_std = np.zeros(CAMERA.shape, f32), np.full(CAMERA.shape, np.inf, f32)
    known[::4, 4:20:4], log_std[::4, 4:20:4] = 2.4, 0.01
    found = complete(predicted, known, log_std, grey)
    assert found.depth[18, 16] == pytest.approx(2.4, rel=0.03)
    assert found.depth[18, 40] == pytest.approx(4.0, rel=0.02)


def test_an_edge_that_the_image_alone_shows_stops_no_correction():
    predicted, even = np.full(CAMERA.shape, 2.0, f32), np.full(CAMERA.shape, 60, f32)
    known, log_std = np.zeros(CAMERA.shape, f32), np.full(CAMERA.shape, np.inf, f32)
    known[::4, 4:20:4], log_std[::4, 4:20:4] = 2.4, 0.01
    edged = even.copy()
    edged[:, 24:] = 200
    found = [complete(predicted, known, log_std, grey) for grey in (even, edged)]
    np.testing.assert_array_equal(found[0].depth, found[1].depth)
    assert found[0].depth[18, 28] > 2.1


def test_without_known_depths_the_prediction_stays_and_is_as_unsure_as_the_prior():
    predicted = np.linspace(1, 3, 48 * 36, dtype=f32).reshape(CAMERA.shape)
    nothing = np.zeros(CAMERA.shape, f32)
    found = complete(predicted, nothing, np.full(CAMERA.shape, np.inf, f32), nothing)
    np.testing.assert_allclose(found.depth, predicted, rtol=1e-6)
    assert found.log_std == pytest.approx(0.25, rel=1e-3)


def test_depth_is_doubted_beside_a_jump():
    """A wall 4 m away with a board 2 m away before it, both with texture; the predicted depth is exact."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, CAMERA.shape).astype(f32), (5, 5), 1)
    depth = np.full(CAMERA.shape, 4.0, f32)
    depth[:, 24:] = 2.0
    u, v = np.meshgrid(np.arange(48, dtype=f32), np.arange(36, dtype=f32))
    ways, others = [poses.exp(np.array([x, 0, 0, 0, 0, 0])) for x in (-0.1, 0.1)], []
    for x in (-0.1, 0.1):
        wall, board = (cv2.remap(texture, u - f32(40 * x / z), v, cv2.INTER_LINEAR) for z in (4.0, 2.0))
        others.append(np.where(u - 40 * x / 2.0 >= 24, board, wall))
    found = plane_sweep.sweep(texture, CAMERA, others, ways, depth)
    beside, away = found.log_std[8:28, 20:28], found.log_std[8:28, 6:16]
    assert np.isfinite(away).mean() > 0.5
    assert np.median(beside) > 2 * np.median(away)


# the whole


def test_neighbours_lie_at_the_baselines_on_both_sides_and_skip_what_has_no_pose():
    T = [poses.exp(np.array([0.01 * i, 0, 0, 0, 0, 0])) for i in range(100)]
    T[44] = None
    config = MultiViewConfig(baselines=(0.03, 0.06), before=30, after=10)
    assert neighbours(50, T, 2.0, config) == [38, 43, 56]  # 6 cm is frame 44, without a pose; 12 cm ahead is too late


def test_a_slow_camera_is_compared_with_frames_of_some_seconds_before_and_after():
    """A millimetre a frame, before a scene two metres away: a way of a fifteenth of that takes four seconds."""
    T = [poses.exp(np.array([0.001 * i, 0, 0, 0, 0, 0])) for i in range(500)]
    assert neighbours(250, T, 2.0, MultiViewConfig()) == [10, 130, 190, 310, 370]


@pytest.mark.parametrize("wrong", [0.5, 1.0, 1.8])
def test_depth_of_the_room_is_found_whatever_the_scale_of_the_prediction(room, wrong):
    frames = {i: room[i] for i in range(10, 50, 4)}
    here = frames.pop(30)
    blurred = cv2.GaussianBlur(here.depth, (31, 31), 8) * f32(wrong)  # smeared over edges, as a network's
    others = [frame for frame in frames.values() if frame.index != 30]
    T = [poses.inverse(frame.T_world_camera) @ here.T_world_camera for frame in others]
    found = depth_from_views(grey_of(here), room.camera, [grey_of(frame) for frame in others], T, blurred)
    error = np.abs(np.log(found.depth / here.depth))
    sure = found.log_std < np.median(found.log_std)
    assert np.median(error[sure]) < 0.03
    assert (error < np.log(1.1)).mean() > 0.6
    assert error[sure].mean() < 0.6 * error[~sure].mean()  # it knows where it is right
    assert 0.2 < np.median(error / found.log_std) < 1.5  # and about how right: 0.67 where errors are normal


def test_a_camera_that_only_turns_gets_no_depth(room):
    frame = room[0]
    T = [poses.exp(np.array([0, 0, 0, 0, 0.01 * i, 0])) for i in range(20)]
    stage = MultiViewDepth(room.camera, T, lambda i: frame.color)
    for i in (0, 10):
        seen = Observation(
            Frame(i, i / 30, frame.color, room.camera), room.camera, frame.color, np.full(room.camera.shape, 2, f32)
        )
        assert not stage(seen, None).depth.any()


def test_a_border_that_perception_leaves_out_has_no_depth_and_costs_the_rest_none(room):
    frame, found = room[30], []
    for border in (0, 8):
        predicted = np.pad(frame.depth[border : 120 - border, border : 160 - border], border)
        stage = MultiViewDepth(room.camera, list(room.poses), room.color_of)
        found.append(stage(Observation(frame, room.camera, frame.color, predicted), None))
    whole, bordered = found
    inside = np.zeros(room.camera.shape, bool)
    inside[8:-8, 8:-8] = True
    assert not bordered.depth[~inside].any() and not bordered.confidence[~inside].any()
    both = inside & (whole.depth > 0) & (bordered.depth > 0)
    assert both.sum() > 0.95 * (inside & (whole.depth > 0)).sum() > 0.5 * inside.sum()
    assert np.median(np.abs(bordered.depth - whole.depth)[both] / whole.depth[both]) < 0.005


def looking(room, looked: list[int]) -> MultiViewDepth:
    """Depth of the room that looks ahead, and notes at which frames."""

    def look_at(i: int) -> tuple[np.ndarray, np.ndarray]:
        looked.append(i)
        return room[i].color, room[i].depth

    return MultiViewDepth(room.camera, list(room.poses), room.color_of, look_at=look_at)


def seen_in(room, i: int) -> Observation:
    frame = room[i]
    return Observation.of(frame)


def test_keyframes_to_come_are_asked_and_looked_at_once(room):
    looked, fused = [], []
    ahead, alone = looking(room, looked), MultiViewDepth(room.camera, list(room.poses), room.color_of)
    for i in range(20, 36):
        found, without = ahead(seen_in(room, i), None), alone(seen_in(room, i), None)
        fused += [i] if found.depth.any() else []
        if i == 20:
            assert looked and not np.array_equal(found.depth, without.depth)
    assert len(set(looked)) == len(looked) and set(fused[1:]) <= set(looked)


def test_the_next_keyframe_is_looked_at_beside_the_sweep_and_nothing_changes(room, monkeypatch):
    looked: list[int] = []
    beside, threads = looking(room, looked), set()
    look_at = beside.look_at
    beside.look_at = lambda i: (threads.add(threading.current_thread().name), look_at(i))[1]
    alone = looking(room, [])
    monkeypatch.setattr(alone, "_begin", lambda *_: None)
    for i in range(20, 30):
        np.testing.assert_array_equal(beside(seen_in(room, i), None).depth, alone(seen_in(room, i), None).depth)
    assert any(name.startswith("depth") for name in threads)


def test_it_goes_on_from_its_state(room):
    first, other = looking(room, []), looking(room, [])
    assert first(seen_in(room, 20), None).depth.any()
    other.restore(first.state())
    for i in (22, 34):
        a, b = first(seen_in(room, i), None), other(seen_in(room, i), None)
        np.testing.assert_array_equal(a.depth, b.depth)
