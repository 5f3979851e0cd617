"""Keyframes, relocalisation, pose graph, and loops closed in a room whose truth is known."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.engine.surfels import SurfelMap
from semslam.frame import Frame, Observation, Tracking, View
from semslam.loops import closures, loop_kernels
from semslam.loops.closures import Closures
from semslam.loops.loop_closure import LoopCloser, deform
from semslam.loops.pose_graph import Edge, disagreement, optimized_poses
from semslam.loops.snapshot import Snapshot
from semslam.metrics.layering import layering
from semslam.metrics.trajectory import absolute_error
from semslam.slam import Slam
from semslam.tracking.relocalisation.keyframes import NO_CODE, Ferns, Keyframes
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Correction, Trajectory
from sequences.room.room import RoomSequence, orbit

SPEED = 5  # the room's orbit five times as fast: 90 frames per round, 4 degrees per frame


def room(frames: int) -> RoomSequence:
    return RoomSequence(frames=frames, width=160, height=120, path=lambda seconds: orbit(SPEED * seconds))


def covered(frame: Frame) -> Frame:
    return replace(frame, depth=np.zeros_like(frame.depth), color=np.zeros_like(frame.color))


class Drifting(Tracker):
    """A tracker that errs a little in every frame, always to the same side."""

    def __init__(self, twist: np.ndarray) -> None:
        super().__init__()
        self.error = poses.exp(twist)

    def track(self, observation: Observation, view: View, T_prior: np.ndarray) -> Tracking:
        tracking = super().track(observation, view, T_prior)
        return replace(tracking, T_world_camera=tracking.T_world_camera @ self.error)


def chain(n: int = 12, seed: int = 0) -> tuple[np.ndarray, list[Edge]]:
    """Poses round a circle and the exact edges between neighbours."""
    T = np.stack([poses.exp([0, 0, 0, 0, 0, 2 * np.pi * k / n]) @ poses.exp([1.0, 0, 0, 0, 0, 0]) for k in range(n)])
    edges = [Edge(k, k + 1, poses.inverse(T[k]) @ T[k + 1], np.eye(6) * 100) for k in range(n - 1)]
    return T, edges


def test_an_exact_graph_is_left_alone_and_a_disturbed_start_comes_back():
    T, edges = chain()
    edges.append(Edge(0, len(T) - 1, poses.inverse(T[0]) @ T[-1], np.eye(6) * 100, closure=True))
    np.testing.assert_allclose(optimized_poses(T, edges), T, atol=1e-9)
    rng = np.random.default_rng(0)
    disturbed = np.stack([T[0], *[pose @ poses.exp(rng.normal(scale=0.05, size=6)) for pose in T[1:]]])
    np.testing.assert_allclose(optimized_poses(disturbed, edges), T, atol=1e-6)


def test_a_closed_loop_spreads_its_drift_evenly():
    T, edges = chain()
    drift = poses.exp([0, 0, 0.01, 0, 0, 0.02])
    drifted, measured = [T[0]], []
    for edge in edges:
        measured.append(replace(edge, T_i_j=edge.T_i_j @ drift))
        drifted.append(drifted[-1] @ measured[-1].T_i_j)
    closure = Edge(0, len(T) - 1, poses.inverse(T[0]) @ T[-1], np.eye(6) * 1e6, closure=True)
    new = optimized_poses(np.stack(drifted), [*measured, closure])
    before = np.linalg.norm(np.stack(drifted)[:, :3, 3] - T[:, :3, 3], axis=1)
    after = np.linalg.norm(new[:, :3, 3] - T[:, :3, 3], axis=1)
    assert after[-1] < 1e-3 and after.max() < 0.5 * before.max()
    shares = [
        np.linalg.norm(poses.log(poses.inverse(e.T_i_j) @ poses.inverse(new[e.i]) @ new[e.j])[:3]) for e in measured
    ]
    assert max(shares) < 1.5 * min(shares)


def test_a_wrong_closure_is_outvoted():
    T, edges = chain()
    wrong = Edge(2, 8, poses.exp([3, 0, 0, 0, 0, 1.0]), np.eye(6) * 100, closure=True)
    right = [Edge(i, i + 6, poses.inverse(T[i]) @ T[i + 6], np.eye(6) * 100, closure=True) for i in range(5)]
    new = optimized_poses(T, [*edges, *right, wrong])
    assert np.abs(new[:, :3, 3] - T[:, :3, 3]).max() < 0.05


def test_a_drift_of_many_deviations_does_not_make_its_closure_look_wrong():
    T, edges = chain(40)
    edges = [replace(edge, information=np.eye(6) * 4e4) for edge in edges]  # 5 mm
    drift = poses.exp([0, 0, 0.01, 0, 0, 0])
    drifted = [T[0]]
    for k, edge in enumerate(edges):
        edges[k] = replace(edge, T_i_j=edge.T_i_j @ drift)
        drifted.append(drifted[-1] @ edges[k].T_i_j)
    closure = Edge(0, len(T) - 1, poses.inverse(T[0]) @ T[-1], np.eye(6) * 4e4, closure=True)
    new = optimized_poses(np.stack(drifted), [*edges, closure, replace(closure)], robust=15)
    assert np.linalg.norm(drifted[-1][:3, 3] - T[-1][:3, 3]) > 0.3  # 60 deviations
    assert np.linalg.norm(new[-1][:3, 3] - T[-1][:3, 3]) < 0.03
    metres, _ = disagreement(np.stack(drifted), [closure])
    assert metres == pytest.approx(np.linalg.norm(drifted[-1][:3, 3] - T[-1][:3, 3]), rel=0.1)
    assert disagreement(T, [closure]) == pytest.approx((0, 0), abs=1e-9)


def test_what_keyframes_share_agrees_with_the_obvious_loop():
    rng = np.random.default_rng(0)
    camera = Pinhole.of(Camera(80, 60, 50, 50, 39.5, 29.5))
    grids = rng.uniform([-1, -1, 0.5], [1, 1, 3], (5, 40, 3)).astype(np.float32)
    grids[:, ::7] = 0
    depth = rng.uniform(0.5, 3, (60, 80)).astype(np.float32)
    depth[::5] = 0
    T = np.stack([poses.exp(rng.normal(scale=0.2, size=6)) for _ in range(5)])
    expected = []
    for points, T_live in zip(grids, T):
        known = points[points[:, 2] > 0]
        moved = known @ T_live[:3, :3].T + T_live[:3, 3]
        shared = 0
        for x, y, z in moved:
            if z < 0.1:
                continue
            u, v = int(np.floor(50 * x / z + 40)), int(np.floor(50 * y / z + 30))
            shared += 0 <= u < 80 and 0 <= v < 60 and depth[v, u] > 0 and abs(depth[v, u] - z) < 0.3
        expected.append(shared / len(known))
    found = np.empty(5)
    loop_kernels.overlaps(grids, T[:, :3].astype(np.float32), depth, camera, np.float32(0.3), found)
    np.testing.assert_allclose(found, expected, atol=0.03)  # a point on a pixel's edge may fall to either side
    assert max(expected) > 0.05


def test_a_correction_interpolates_between_keyframes_and_moves_surfels_with_their_frames():
    shift = poses.exp([0, 0, 0.2, 0, 0, 0])
    correction = Correction(np.array([10, 20]), np.stack([np.eye(4), shift]))
    np.testing.assert_allclose(correction.at([15])[0, :3, 3], [0, 0, 0.1], atol=1e-12)
    np.testing.assert_allclose(correction.at([0])[0], np.eye(4))
    np.testing.assert_allclose(correction.at([99])[0], shift)
    position = np.array([[0, 0, 1, 0.01]] * 3, np.float32)
    normal = np.array([[0, 0, -1, 5]] * 3, np.float32)
    seen = np.array([[5, 30], [15, 30], [25, 30]], np.int32)
    surfels = SurfelMap.from_arrays(position, normal, np.zeros((3, 4), np.uint16), seen)
    deform(surfels, correction)
    slots = surfels.slots()
    by_frame = dict(zip(surfels.seen[slots, 0].tolist(), surfels.position[slots, 2].tolist()))
    assert by_frame == pytest.approx({5: 1.0, 15: 1.1, 25: 1.2})


def test_codes_of_the_same_view_agree_and_of_other_views_do_not():
    frames = room(60)
    observations = [Observation.of(f) for f in (frames[0], frames[1], frames[40])]
    keyframes = Keyframes(Ferns())
    for i, observation in enumerate(observations):
        keyframes.add(i, np.eye(4), keyframes.ferns.code(observation))
    d = keyframes.dissimilarity(keyframes.codes[0])
    assert d[0] == 0 and d[1] < 0.3 < d[2]
    assert keyframes.nearest(keyframes.codes[1], 2) == [1, 0]
    np.testing.assert_array_equal(Ferns().code(observations[2]), keyframes.codes[2])
    blind = covered(frames[0])
    code = keyframes.ferns.code(Observation.of(blind))
    assert np.all(code == NO_CODE) and keyframes.nearest(code, 3) == []


def test_a_kidnapped_camera_is_found_where_it_has_been_before():
    frames = room(60)
    tracker = Tracker()
    slam = Slam(frames.camera, perceive=Observation.of, track=tracker)
    path = [frames[i] for i in range(50)]
    path += [covered(replace(frames[49], index=50 + i, timestamp=(50 + i) / 30)) for i in range(30)]
    path += [replace(frames[i], index=70 + i, timestamp=(70 + i) / 30) for i in range(10, 25)]
    ok, wrong = [], 0.0
    for k, frame in enumerate(path):
        before = len(slam.surfels)
        tracking = slam.step(replace(frame, T_world_camera=frame.T_world_camera if k == 0 else None)).tracking
        ok.append(tracking.ok)
        if 50 <= k < 80:
            assert not tracking.ok and "depth" in tracking.reason
            assert len(slam.surfels) == before, "a lost frame must not touch the map"
        elif tracking.ok:
            error = poses.inverse(frame.T_world_camera) @ tracking.T_world_camera
            wrong = max(wrong, float(np.linalg.norm(error[:3, 3])))
    assert all(ok[:50]) and any(ok[80:95]), "found again within 15 frames"
    assert all(ok[80 + ok[80:].index(True) :])
    assert wrong < 0.02


@pytest.mark.parametrize(("far", "unit"), [(5.0, 1e-4), (80.0, 80 / 65535)])
def test_a_keyframe_keeps_depth_as_far_as_the_map_does(far, unit):
    frame = next(iter(room(1)))
    frame = replace(frame, depth=np.linspace(0.5, far, frame.depth.size, dtype=np.float32).reshape(frame.depth.shape))
    snapshot = Snapshot.of(Observation.of(frame), Snapshot.camera_of(frame.camera), far)
    assert snapshot.unit == unit
    np.testing.assert_allclose(snapshot.depth * snapshot.unit, frame.depth[::2, ::2], atol=unit)


@pytest.mark.parametrize(("width", "height", "n"), [(639, 479, 2), (1280, 720, 4), (3840, 2160, 12)])
def test_a_keyframe_is_kept_as_small_whatever_the_camera(width, height, n):
    """Depth of every n-th pixel, so that its camera sees the same rays; grey without the patterns of those between."""
    camera = Camera(width, height, 0.8 * width, 0.8 * width, width / 2, height / 2)
    kept = Snapshot.camera_of(camera)
    depth = camera.backproject(np.ones(camera.shape, np.float32))[..., 0] + np.float32(2)
    stripes = np.zeros((height, width, 3), np.uint8)
    stripes[:, ::4] = 200
    frame = Frame(0, 0.0, stripes, camera, depth)
    snapshot = Snapshot.of(Observation.of(frame), kept, 5.0)
    assert snapshot.depth.shape == kept.shape and kept.width <= 320
    expected = kept.backproject(np.ones(kept.shape, np.float32))[..., 0] + 2
    np.testing.assert_allclose(snapshot.depth * snapshot.unit, expected, atol=1e-4)
    if n > 4:
        assert np.ptp(snapshot.grey[:, 1:-1].astype(int)) < 60


def two_rounds(frames: list[Frame], close: bool) -> tuple[float, float, LoopCloser]:
    """ATE, share of doubled surfels and the closer of two rounds with drift forced on every frame."""
    tracker = Drifting(18 * np.array([4e-4, 0, 4e-4, 0, 2e-4, 0]))
    closer = LoopCloser(tracker)
    slam = Slam(
        frames[0].camera,
        perceive=Observation.of,
        track=tracker,
        loops=closer if close else None,
    )
    T = []
    for i, frame in enumerate(frames):
        step = slam.step(replace(frame, T_world_camera=frame.T_world_camera if i == 0 else None))
        assert step.tracking.ok, (i, step.tracking.reason)
        T.append(step.tracking.T_world_camera)
        if step.correction is not None:
            T = list(step.correction.corrected(range(i + 1), np.stack(T)))
    times = np.arange(len(T)) / 30
    truth = Trajectory(times, np.stack([frame.T_world_camera for frame in frames]))
    return absolute_error(Trajectory(times, np.stack(T)), truth).rmse, layering(slam.cloud(3.0)), closer


@pytest.mark.slow
def test_closing_loops_halves_forced_drift_and_leaves_no_doubled_walls():
    frames = list(room(180))
    before, doubled, _ = two_rounds(frames, close=False)
    after, single, closer = two_rounds(frames, close=True)
    assert closer.closed > 0 and before > 0.02 and doubled > 0.1
    assert after < 0.5 * before
    assert single < 0.2 * doubled


def test_a_place_that_is_seen_again_elsewhere_closes_a_global_loop():
    frames = room(26)
    tracker = Tracker()
    closer = LoopCloser(tracker)
    slam = Slam(frames.camera, perceive=Observation.of, track=tracker, loops=closer)
    for i in range(25):
        slam.step(replace(frames[i], T_world_camera=frames[0].T_world_camera if i == 0 else None))
    # From frame 6 on a drift of 0.6 m that nobody noticed: map, keyframes and the ways between them bend with it.
    keyframes = tracker.keyframes
    axis = frames[1].T_world_camera[:3, 2]
    drift = np.stack([poses.exp([*(0.6 * max(i - 6, 0) / 19 * axis), 0, 0, 0]) for i in keyframes.indices])
    bent = Correction(np.array(keyframes.indices), drift)
    deform(slam.surfels, bent)
    tracker.world_moved(bent)
    T = keyframes.T_world_camera
    closer.edges = [replace(e, T_i_j=poses.inverse(T[e.i]) @ T[e.j]) for e in closer.edges if not e.closure]
    # Back at the start.
    drifted = poses.exp([*(0.6 * axis), 0, 0, 0]) @ frames[1].T_world_camera
    observation = slam.fusion.prepare(Observation.of(replace(frames[1], index=25)))
    keyframes.add(25, drifted, keyframes.ferns.code(observation))
    correction = closer(observation, Tracking(drifted, ok=True), slam.surfels, slam.fusion)
    assert correction is not None
    tracker.world_moved(correction)
    assert {edge.i for edge in closer.edges if edge.closure} <= {0, 1, 2}
    assert np.linalg.norm(keyframes.T_world_camera[-1][:3, 3] - frames[1].T_world_camera[:3, 3]) < 0.05


def test_a_wrong_closure_is_forgotten_and_leaves_the_map_alone():
    frames = room(14)
    tracker = Tracker()

    class Mistaken(Closures):
        """Believes to see its first keyframe again, a metre from where it was."""

        def edges_to(self, k: int) -> list[Edge]:
            seen = poses.inverse(tracker.keyframes.T_world_camera[0]) @ tracker.keyframes.T_world_camera[k]
            wrong = Edge(0, k, seen @ poses.exp([1, 0, 0, 0, 0, 0]), np.eye(6) * 4e4, closure=True)
            return [*super().edges_to(k), *[wrong] * (k == 5)]

    closer = LoopCloser(tracker)
    closer.closures = Mistaken(tracker, closer.config)
    slam = Slam(frames.camera, perceive=Observation.of, track=tracker, loops=closer)
    for i in range(14):
        step = slam.step(replace(frames[i], T_world_camera=frames[0].T_world_camera if i == 0 else None))
        assert step.correction is None
    assert len(tracker.keyframes) > 6 and closer.closed == 0
    T = np.stack(tracker.keyframes.T_world_camera)
    assert disagreement(T, closer.edges)[0] < 0.02 and any(edge.closure for edge in closer.edges)


def test_a_keyframe_that_shows_nothing_new_is_not_kept_once_there_are_many(monkeypatch):
    monkeypatch.setattr(closures, "REMEMBERED", 3)
    frames = room(14)
    tracker = Tracker()
    closer = LoopCloser(tracker)
    slam = Slam(frames.camera, perceive=Observation.of, track=tracker, loops=closer)
    there_and_back = [*range(14), *range(12, -1, -1)]
    for k, i in enumerate(there_and_back):
        given = frames[0].T_world_camera if k == 0 else None
        slam.step(replace(frames[i], index=k, timestamp=k / 30, T_world_camera=given))
    kept = sum(snapshot is not None for snapshot in closer.closures.snapshots)
    assert len(tracker.keyframes) == len(closer.closures.snapshots) > kept > 3
    resumed = LoopCloser(tracker)
    resumed.restore(closer.state())
    assert [s is None for s in resumed.closures.snapshots] == [s is None for s in closer.closures.snapshots]


def test_an_extension_that_is_interrupted_before_the_camera_is_found_goes_on():
    """Nothing is kept of the keyframes of the map that it extends."""
    frames, tracker = room(3), Tracker()
    extended = LoopCloser(tracker)
    extended.closures.forget(4)
    resumed = LoopCloser(tracker)
    resumed.restore(extended.state())
    for closures_of in (extended.closures, resumed.closures):
        for frame in (frames[0], frames[1]):
            closures_of.remember(Observation.of(frame), 5.0)
        assert len(closures_of) == 6 and closures_of.kept().tolist() == [4, 5]
    assert [g is None for g in resumed.closures._grids] == [g is None for g in extended.closures._grids]


@pytest.mark.slow
def test_a_long_recording_costs_no_more_a_frame_at_its_end():
    soak = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "soak.py"))["soak"]
    walked = soak(1200, 160, 1e-3, every=300)
    assert np.median(walked.busy[-300:]) < 1.5 * np.median(walked.busy[300:600])
    assert walked.megabytes[-1] < 1.2 * walked.megabytes[1] and walked.ate < 0.01
