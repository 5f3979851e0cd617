"""A pose network in the map: poses alone, and lost, kidnapped and restarted cameras found where it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from semslam import poses
from semslam.frame import Frame, Observation
from semslam.runs.config import settings_of
from semslam.runs.poses import pose_source
from semslam.slam import Slam
from semslam.tracking.judgement import TrackingConfig
from semslam.tracking.predicted_poses import PredictedPoses, RefinedTrack, around, proposals
from semslam.tracking.relocalisation.keyframes import Keyframes
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from sequences.room.room import RoomSequence


class Oracle:
    """A pose network that recognises its images and errs by a given distance, in a direction drawn for each image."""

    def __init__(self, frames: list[Frame], metres: float = 0.0, degrees: float = 0.0) -> None:
        rng, self.asked = np.random.default_rng(0), 0
        self.poses = {}
        for frame in frames:
            twist = rng.normal(size=6)
            twist[:3] *= metres / np.linalg.norm(twist[:3])
            twist[3:] *= np.radians(degrees) / np.linalg.norm(twist[3:])
            self.poses[frame.color.tobytes()] = frame.T_world_camera @ poses.exp(twist)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.asked += 1
        return self.poses[image.tobytes()]


def error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    E = poses.inverse(a) @ b
    return float(np.linalg.norm(E[:3, 3])), float(np.degrees(poses.rotation_angle(E)))


@pytest.fixture(scope="module")
def room() -> list[Frame]:
    return list(RoomSequence(frames=60, width=160, height=120))


def without_pose(frame: Frame) -> Frame:
    return replace(frame, T_world_camera=None)


def mapped(frames: list[Frame], track: Callable) -> Slam:
    slam = Slam(frames[0].camera, perceive=Observation.of, track=track)
    for i, frame in enumerate(frames):
        slam.step(frame if i == 0 else without_pose(frame))
    return slam


def test_steps_around_a_pose_lie_at_their_distance_in_pairs() -> None:
    steps = around(0.2, 5)
    assert len(steps) == 12
    for there, back in zip(steps[::2], steps[1::2]):
        assert np.allclose(there @ back, np.eye(4), atol=1e-12)
    distances = sorted(
        (round(np.linalg.norm(T[:3, 3]), 6), round(np.degrees(poses.rotation_angle(T)), 6)) for T in steps
    )
    assert distances == [(0.0, 5.0)] * 6 + [(0.2, 0.0)] * 6


def test_a_network_that_is_right_makes_the_map_of_given_poses(room: list[Frame]) -> None:
    oracle = Oracle(room)
    slam = Slam(room[0].camera, perceive=Observation.of, track=PredictedPoses(oracle, TrackingConfig()))
    given = Slam(room[0].camera, perceive=Observation.of)
    for frame in room[:5]:
        step = slam.step(without_pose(frame))
        assert step.tracking.ok and np.allclose(step.tracking.T_world_camera, frame.T_world_camera, atol=1e-12)
        given.step(frame)
    assert len(slam.surfels) == len(given.surfels)
    assert oracle.asked == 5


def test_the_network_is_not_asked_while_tracking_holds(room: list[Frame]) -> None:
    oracle = Oracle(room)
    slam = mapped(room[:10], Tracker(propose=proposals(oracle)))
    asked_by_the_first = oracle.asked
    for frame in room[10:15]:
        assert slam.step(without_pose(frame)).tracking.ok
    assert oracle.asked == asked_by_the_first


def forget_places(tracker: Tracker) -> None:
    """From now on a lost camera is not found by what the places seen so far looked like."""
    tracker.keyframes, tracker._reference = Keyframes(tracker.keyframes.ferns), None
    tracker.places.restore(Places().state())


def test_a_kidnapped_camera_is_found_where_the_network_says_and_refined(room: list[Frame]) -> None:
    """Keyframes are taken away, so that only the network can help; its pose is off by 15 cm and 6 degrees."""
    for oracle, found in ((Oracle(room, 0.15, 6), True), (None, False)):
        tracker = Tracker(propose=proposals(oracle) if oracle else None)
        slam = mapped(room[:50], tracker)
        forget_places(tracker)
        surfels = len(slam.surfels)
        dark = replace(room[50], depth=np.zeros_like(room[50].depth), color=np.zeros_like(room[50].color))
        if oracle:
            oracle.poses[dark.color.tobytes()] = np.eye(4)
        assert not slam.step(without_pose(dark)).tracking.ok
        again = slam.step(replace(without_pose(room[4]), index=51, timestamp=51 / 30)).tracking
        assert again.ok == found
        if found:
            metres, degrees = error(room[4].T_world_camera, again.T_world_camera)
            assert metres < 0.01 and degrees < 0.5
        else:
            assert len(slam.surfels) == surfels, "a lost frame must not touch the map"


def test_a_network_that_is_wrong_does_not_make_a_lost_camera_found_in_a_wrong_place(room: list[Frame]) -> None:
    oracle = Oracle(room, 2.0, 90)
    tracker = Tracker(propose=proposals(oracle))
    slam = mapped(room[:20], tracker)
    forget_places(tracker)
    asked, before = oracle.asked, len(slam.surfels)
    mirrored = np.ascontiguousarray(room[50].color[:, ::-1]), np.ascontiguousarray(room[50].depth[:, ::-1])
    oracle.poses[mirrored[0].tobytes()] = oracle.poses[room[50].color.tobytes()]
    elsewhere = replace(without_pose(room[50]), index=20, timestamp=5.0, color=mirrored[0], depth=mirrored[1])
    assert not slam.step(elsewhere).tracking.ok
    assert oracle.asked == asked + 1 and len(slam.surfels) == before


def test_a_restarted_camera_finds_the_map_that_exists(room: list[Frame]) -> None:
    slam = mapped(room[:40], Tracker())
    slam.track = Tracker(propose=proposals(Oracle(room, 0.12, 5)))  # knows neither keyframes nor a last pose
    first, second = (slam.step(replace(without_pose(room[i]), index=100 + i, timestamp=100 + i / 30)) for i in (20, 21))
    for step, i in ((first, 20), (second, 21)):
        assert step.tracking.ok
        metres, degrees = error(room[i].T_world_camera, step.tracking.T_world_camera)
        assert metres < 0.01 and degrees < 0.5


def test_a_restarted_camera_that_is_not_found_leaves_the_map_alone(room: list[Frame]) -> None:
    slam = mapped(room[:10], Tracker())
    slam.track, surfels = Tracker(propose=lambda observation: []), len(slam.surfels)
    tracking = slam.step(replace(room[5], color=room[5].color[:, ::-1].copy(), depth=room[5].depth * 1.3)).tracking
    assert not tracking.ok and "not found" in tracking.reason
    assert len(slam.surfels) == surfels


def test_each_frame_alone_is_refined_or_lost(room: list[Frame]) -> None:
    oracle = Oracle(room, 0.08, 3)
    oracle.poses[room[0].color.tobytes()] = room[0].T_world_camera
    slam = Slam(room[0].camera, perceive=Observation.of, track=RefinedTrack(oracle))
    for i in (0, 1, 2, 3):
        tracking = slam.step(room[i]).tracking
        metres, degrees = error(room[i].T_world_camera, tracking.T_world_camera)
        assert tracking.ok and metres < 0.01 and degrees < 0.5
    oracle.poses[room[4].color.tobytes()] = poses.exp(np.array([0, 0, -3, 0, 2.0, 0]))
    assert not slam.step(room[4]).tracking.ok


def test_without_a_map_the_first_pose_is_the_recordings_or_else_the_networks(room: list[Frame]) -> None:
    oracle = Oracle(room, 0.1, 5)
    for frame, expected in ((room[3], room[3].T_world_camera), (without_pose(room[3]), oracle(room[3].color))):
        slam = Slam(room[0].camera, perceive=Observation.of, track=Tracker(propose=proposals(oracle)))
        tracking = slam.step(frame).tracking
        assert tracking.ok and np.allclose(tracking.T_world_camera, expected)


def test_poses_that_need_a_network_say_so() -> None:
    sequence = RoomSequence(frames=2, width=64, height=48)
    with pytest.raises(ValueError, match="`poses` predicted needs `pose_weights`"):
        pose_source("predicted", sequence)
    with pytest.raises(ValueError, match="`pose_weights` is for `poses` predicted or tracked"):
        pose_source("dataset", sequence, pose_of=Oracle([]))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A file of random weights of a network by its name."""
    import torch

    from networks.pose.networks import open_network
    from networks.pose.predictor import save

    folder = tmp_path_factory.mktemp("weights")

    def made(name: str) -> str:
        torch.manual_seed(0)
        settings = {"network": name, "encoder": "mobilenet_v2", "feature": 8, "dropout": 0.0, "num_classes": 3,
                    "class_set": None, "mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [48, 64]}  # fmt: skip
        save(folder / f"{name}.safetensors", open_network(name, settings), settings)
        return str(folder / f"{name}.safetensors")

    return made


def test_weights_that_are_missing_or_of_another_kind_are_one_line(weights: Callable[[str], str], tmp_path) -> None:
    from networks.joint import checkpoints
    from semslam.runs.reconstruct import prepare

    for poses_, file, message in (
        ("tracked", str(tmp_path / "none.safetensors"), "none.safetensors: no such weights file"),
        ("tracked", str(checkpoints.bundled()), "not the weights of a pose network"),
        ("tracked", weights("segmentation"), "tells no pose"),
        ("tracked", weights("dual_input"), "reads labels"),
        ("predicted", None, "needs `pose_weights`, the file"),
        ("dataset", weights("pose"), "is for `poses` predicted or tracked, not for dataset"),
    ):
        with pytest.raises((ValueError, OSError), match=message) as caught:
            prepare(
                settings_of(None, {"sequence": "room:frames=2,width=64,height=48", "poses": poses_,
                                   "pose_weights": file, "slam.perception.labels": "none"}),
                tmp_path / "run",
            )  # fmt: skip
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("poses_", ["predicted", "tracked"])
def test_a_run_is_made_with_a_pose_network_and_goes_on(poses_: str, weights: Callable[[str], str], tmp_path) -> None:
    from semslam.runs.finished.finish import finish
    from semslam.runs.reconstruct import prepare

    settings = {"poses": poses_, "pose_weights": weights("pose"), "slam.perception.labels": "none"}
    config = settings_of(None, {"sequence": "room:frames=6,width=96,height=72", **settings})
    run = prepare(config, tmp_path / "run")
    for _ in zip(range(3), run):
        pass
    run.save()
    run = prepare(config, tmp_path / "run", resume=True)
    for _ in run:
        pass
    metrics = finish(run, mesh=False)
    assert metrics["frames"] == 6 and metrics["frames_fused"] == 6
    assert run.config.pose_weights == settings["pose_weights"]
