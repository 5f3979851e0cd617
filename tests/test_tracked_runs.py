"""Whole tracked runs: bad input, refined poses, resuming. A small synthetic room, whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from semslam import poses
from semslam.engine.saved_surfels import restored, state_of
from semslam.frame import Frame, Observation, Tracking, View
from semslam.loops.loop_closure import LoopCloser
from semslam.runs.config import settings_of
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.slam import Slam
from semslam.tracking.judgement import CALM, Announcements
from semslam.tracking.tracker import Tracker
from sequences.room.room import RoomSequence, orbit

SPEED = 3  # times the room's own: 150 frames per round, 2.4 degrees per frame


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """A third of a round."""
    return list(RoomSequence(frames=50, width=160, height=120, path=lambda seconds: orbit(SPEED * seconds)))


@pytest.fixture(scope="module")
def surface():
    """(N, 3) points -> metres to the room's surface."""
    import open3d as o3d

    vertices, triangles, _ = RoomSequence(frames=1).mesh()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(vertices.astype(np.float32), triangles.astype(np.uint32))
    return lambda points: scene.compute_distance(np.ascontiguousarray(points, np.float32)).numpy()


@dataclass
class Tracked:
    """What became of some frames."""

    slam: Slam
    steps: list[Tracking]
    errors: np.ndarray  # (N,) metres from the true positions, NaN where lost
    sizes: list[int]  # surfels after each frame

    @property
    def ok(self) -> list[bool]:
        return [tracking.ok for tracking in self.steps]

    def smeared(self, surface) -> float:
        """Share of the surfels that are more than 3 cm from any surface."""
        return float((surface(self.slam.cloud(2.0).positions) > 0.03).mean())


def tracked(frames: Sequence[Frame], tracker: Tracker | None = None, given: bool = False) -> Tracked:
    """Track and fuse frames, numbered anew; the first one's pose is given, or those of all."""
    tracker = tracker or Tracker()
    slam = Slam(
        frames[0].camera,
        perceive=Observation.of,
        track=tracker,
        loops=LoopCloser(tracker),
    )
    steps, errors, sizes = [], [], []
    for k, frame in enumerate(frames):
        T = frame.T_world_camera
        seen = replace(frame, index=k, T_world_camera=T if k == 0 or given else None)
        tracking = slam.step(seen).tracking
        steps.append(tracking)
        errors.append(np.linalg.norm(tracking.T_world_camera[:3, 3] - T[:3, 3]) if tracking.ok else np.nan)
        sizes.append(slam.surfels.living())
    return Tracked(slam, steps, np.array(errors), sizes)


def at(frame: Frame, seconds: float) -> Frame:
    return replace(frame, timestamp=seconds)


def without_depth(frame: Frame) -> Frame:
    return replace(frame, depth=np.zeros_like(frame.depth))


def black(frame: Frame) -> Frame:
    return replace(frame, color=np.zeros_like(frame.color))


def test_frames_out_of_order_are_tracked_and_told(frames, surface, caplog):
    order = [k ^ 1 for k in range(30)]  # neighbours change places, and take their times along
    result = tracked([frames[k] for k in order])
    assert np.mean(result.ok) > 0.9 and result.ok[-1] and np.nanmax(result.errors) < 0.02
    assert "unsorted" in caplog.text
    assert result.smeared(surface) < 0.01


def test_doubled_timestamps_are_tracked_and_told(frames, surface, caplog):
    result = tracked([at(frame, (k // 2) / 15) for k, frame in enumerate(frames[:30])])
    assert all(result.ok) and np.nanmax(result.errors) < 0.02
    assert "doubled" in caplog.text
    assert result.smeared(surface) < 0.01


def test_a_gap_of_two_seconds_is_survived(frames, surface, caplog):
    # 48 degrees on: another place, which the map does not know, and then the place where the camera was
    there = [at(frames[k], frames[k].timestamp + 2) for k in range(44, 48)]
    back = [at(frames[k], 4 + (19 - k) / 30) for k in range(19, 13, -1)]
    result = tracked([*frames[:20], *there, *back])
    assert all(result.ok[:20])
    lost = [k for k in range(20, 24) if not result.ok[k]]
    assert np.nanmax(result.errors) < 0.03, "tracked where it is, or lost"
    assert all(result.sizes[k] == result.sizes[k - 1] for k in lost), "a lost frame changes nothing"
    assert not lost or "lost" in caplog.text
    assert all(result.ok[25:])
    assert result.smeared(surface) < 0.01


def test_without_depth_for_a_while_the_image_carries_the_pose_and_nothing_is_fused(frames, surface):
    path = [without_depth(frame) if 15 <= k < 20 else frame for k, frame in enumerate(frames[:20])]
    path += [at(frames[35 - k], k / 30) for k in range(20, 30)]  # 15, 14, ...: back the way it came
    result = tracked(path)
    assert [tracking.state for tracking in result.steps] == ["good"] * 15 + ["poor"] * 5 + ["good"] * 10
    assert all("depth" in tracking.reason for tracking in result.steps[15:20])
    assert len(set(result.sizes[14:20])) == 1
    assert np.nanmax(result.errors) < 0.02
    assert result.smeared(surface) < 0.01


def test_without_depth_and_light_the_camera_is_lost_and_found_again(frames, surface):
    path = [black(without_depth(frame)) if 15 <= k < 20 else frame for k, frame in enumerate(frames[:20])]
    path += [at(frames[35 - k], k / 30) for k in range(20, 30)]
    result = tracked(path)
    assert [tracking.state for tracking in result.steps[:20]] == ["good"] * 15 + ["lost"] * 5
    assert all("depth" in tracking.reason for tracking in result.steps[15:20])
    assert len(set(result.sizes[14:20])) == 1
    assert all(result.ok[21:]) and np.nanmax(result.errors) < 0.02
    assert result.smeared(surface) < 0.01


def test_black_images_are_tracked_by_their_depth_and_do_not_darken_the_map(frames, surface):
    path = [black(frame) if 15 <= k < 20 else frame for k, frame in enumerate(frames[:25])]
    result = tracked(path)
    assert all(result.ok) and np.nanmax(result.errors) < 0.02
    assert [k for k, tracking in enumerate(result.steps) if not tracking.sound] == list(range(15, 20))
    assert "black" in result.steps[15].reason and len(set(result.sizes[14:20])) == 1
    assert np.mean(result.slam.cloud(1.0).colors.max(axis=1) < 10) < 0.01
    assert result.smeared(surface) < 0.01


def test_a_person_who_walks_through_the_view_leaves_nothing_behind(frames, surface):
    # While it is in the view the map holds the body as well, which draws the camera along by a centimetre or two.
    path = []
    for k, frame in enumerate([*frames[:15], *frames[14::-1], *frames[:15]]):  # to and fro
        depth, color = frame.depth.copy(), frame.color.copy()
        if 5 <= k < 25:  # a fifth of the view, at a metre, from the left to the right
            left = 4 * k
            body = np.zeros(depth.shape, bool)
            body[20:, left : left + 35] = True
            body &= depth > 0.9
            depth[body], color[body] = 0.9, (40, 60, 90)
        path.append(at(replace(frame, depth=depth, color=color), k / 30))
    result = tracked(path)
    assert all(result.ok) and np.nanmax(result.errors) < 0.03
    assert result.smeared(surface) < 0.01


def test_refining_starts_from_given_poses_and_is_better_than_they_are(frames):
    rng = np.random.default_rng(0)
    truth = [frame.T_world_camera for frame in frames[:20]]
    noise = [np.zeros(6), *rng.normal(scale=[0.01] * 3 + [0.005] * 3, size=(19, 6))]
    given = [replace(f, T_world_camera=T @ poses.exp(x)) for f, T, x in zip(frames, truth, noise)]
    result = tracked(given, Tracker(refine=True), given=True)
    assert all(result.ok)
    refined = [np.linalg.norm(t.T_world_camera[:3, 3] - T[:3, 3]) for t, T in zip(result.steps, truth)]
    before = [np.linalg.norm(f.T_world_camera[:3, 3] - T[:3, 3]) for f, T in zip(given, truth)]
    assert np.mean(refined) < 0.3 * np.mean(before)


def test_refining_follows_given_poses_over_a_jump(frames):
    given = [*frames[:15], *frames[25:35]]  # 24 degrees and half a metre at once
    result = tracked([at(f, k / 30) for k, f in enumerate(given)], Tracker(refine=True), given=True)
    assert all(result.ok) and np.nanmax(result.errors) < 0.02


def test_an_interrupted_tracked_run_goes_on_to_the_same_map(tmp_path):
    room = {"sequence": "room:frames=24,width=128,height=96", "poses": "tracked", "slam.perception.labels": "none"}

    def run(name: str, resume: bool = False):
        return prepare(settings_of(None, room), tmp_path / name, resume=resume)

    whole = run("whole")
    for _ in whole:
        pass
    broken = run("broken")
    for _ in zip(range(11), broken):
        pass
    broken.save()
    resumed = run("broken", resume=True)
    assert len(resumed) == 13
    for _ in resumed:
        pass
    whole.save()
    resumed.save()
    same(RunFolder.open(tmp_path / "whole").load_state(), RunFolder.open(tmp_path / "broken").load_state())


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        if "seconds" not in name and "run_ms" not in name:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Drifting(Tracker):
    """A tracker that errs a little in every frame, always to the same side, so that the map is bent again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.error = poses.exp([3e-3, 0, 3e-3, 0, 1e-3, 0])

    def track(self, observation: Observation, view: View, T_prior: np.ndarray) -> Tracking:
        tracking = super().track(observation, view, T_prior)
        return replace(tracking, T_world_camera=tracking.T_world_camera @ self.error)


def test_the_state_of_tracker_and_loops_goes_on_as_if_nothing_had_happened(frames):
    def system() -> Slam:
        tracker = Drifting()
        return Slam(
            frames[0].camera,
            perceive=Observation.of,
            track=tracker,
            loops=LoopCloser(tracker),
        )

    def state(slam: Slam) -> dict[str, np.ndarray]:
        stages = {"fusion": slam.fusion, "tracker": slam.track, "loops": slam.loops}
        states = {"map": state_of(slam.surfels)} | {name: stage.state() for name, stage in stages.items()}
        return {f"{name}_{key}": value.copy() for name, part in states.items() for key, value in part.items()}

    whole, half = system(), None
    for frame in frames[:35]:
        if frame.index == 23:
            half = state(whole)
        whole.step(frame if frame.index == 0 else replace(frame, T_world_camera=None))
    assert half is not None and int(half["loops_closed"]) > 0 and whole.loops.closed > int(half["loops_closed"])

    def of(name: str) -> dict[str, np.ndarray]:
        return {k[len(name) + 1 :]: v for k, v in half.items() if k.startswith(f"{name}_")}

    resumed = system()
    resumed.surfels = restored(of("map"))
    resumed.fusion.restore(of("fusion"))
    resumed.track.restore(of("tracker"))
    resumed.loops.restore(of("loops"))
    for frame in frames[23:35]:
        resumed.step(replace(frame, T_world_camera=None))
    same(state(whole), state(resumed))


def test_what_began_with_a_lost_camera_is_told_to_its_end(frames, caplog):
    """Lost, then poor, then good: who was warned of the first is told of the last."""
    announcements, frame = Announcements(), frames[0]
    lost = Tracking(np.eye(4), ok=False, reason="dark")
    poor = Tracking(np.eye(4), ok=True, sound=False, reason="dim")
    good = Tracking(np.eye(4), ok=True)
    for tracking in (lost, poor, *[good] * CALM, poor, *[good] * CALM):
        announcements.tell(frame, tracking)
        kept, announcements = announcements.state(), Announcements()
        announcements.restore(kept)  # as of a run that is interrupted after each frame
    told = [record.message.split("tracking is ")[1] for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["lost: dark", "poor: dim", "good again"]
