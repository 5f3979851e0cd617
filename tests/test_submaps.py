"""A camera that is lost for long begins a part of the map of its own, which is joined where the parts meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from semslam import poses
from semslam.camera import Camera
from semslam.engine.doubles import doubles
from semslam.engine.fusion import FusionConfig
from semslam.frame import Frame, Observation, Step, Tracking
from semslam.loops.loop_closure import LoopCloser
from semslam.metrics.trajectory import trajectory_errors
from semslam.runs.config import RunConfig, settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.runs.reconstruct import prepare
from semslam.slam import Slam, SlamConfig
from semslam.tracking.judgement import TrackingConfig
from semslam.tracking.relocalisation.keyframes import Ferns, Keyframes
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.submaps import Absence
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Correction, Trajectory
from semslam.trajectory.files import read_tum, write_tum
from sequences.room.room import RoomSequence, orbit

SOON = 0.15  # seconds
STEP = 2.4  # degrees a frame
SIZE = {"width": 160, "height": 120}


@pytest.fixture(scope="module")
def round_trip() -> RoomSequence:
    """Once around the room."""
    return RoomSequence(frames=150, path=lambda seconds: orbit(3 * seconds), **SIZE)


def in_order(sequence: RoomSequence, order: list[int]) -> list[Frame]:
    """Frames of a sequence as if they had been recorded in this order."""
    return [replace(sequence[i], index=k, timestamp=k / 30) for k, i in enumerate(order)]


def tracked(frames: list[Frame]) -> tuple[Progress, Tracker, Slam]:
    places, config = Places(), TrackingConfig(new_map_after=SOON)
    tracker = Tracker(config, places=places)
    slam = Slam(
        frames[0].camera,
        perceive=Observation.of,
        track=tracker,
        loops=LoopCloser(tracker),
        places=places,
    )
    progress = Progress()
    for k, frame in enumerate(frames):
        step = slam.step(frame if k == 0 else replace(frame, T_world_camera=None))
        progress.record(step)
        if step.correction is not None and step.correction.joined is not None:
            assert left_double(slam) == 0
    return progress, tracker, slam


def left_double(slam: Slam) -> int:
    """Surfels that the second piece, frames 22 to 47, and the others both have on one surface."""
    slots, surfels = slam.surfels.slots(), slam.surfels
    second = (surfels.seen[slots, 0] >= 22) & (surfels.seen[slots, 0] < 48)
    return len(doubles(*((surfels.position[part], surfels.normal[part]) for part in (slots[second], slots[~second]))))


def ate(progress: Progress, frames: list[Frame]) -> float:
    truth = Trajectory(np.array([f.timestamp for f in frames]), np.stack([f.T_world_camera for f in frames]))
    return trajectory_errors(progress.trajectory(), truth, progress.tracked).absolute.rmse


def test_doubles_are_near_and_face_the_same_way() -> None:
    def wall(z: float, normal: float) -> tuple[np.ndarray, np.ndarray]:
        x, y = (a.ravel() for a in np.meshgrid(np.arange(0, 1, 0.05), np.arange(0, 1, 0.05)))
        rows = np.column_stack([x, y, np.full(len(x), z), np.full(len(x), 0.02)]).astype(np.float32)
        return rows, np.tile(np.array([0, 0, normal, 30], np.float32), (len(x), 1))

    here = wall(1.0, -1.0)
    pairs = doubles(here, wall(1.015, -1.0))
    assert np.array_equal(pairs[:, 0], pairs[:, 1]) and len(pairs) == 400
    for others in (wall(1.04, -1.0), wall(1.015, 1.0), (here[0][:0], here[1][:0])):
        assert len(doubles(here, others)) == 0 == len(doubles(others, here))


@pytest.mark.slow
def test_pieces_without_a_common_view_are_joined_when_they_meet(round_trip: RoomSequence) -> None:
    """The second piece sees nothing of the first; the third begins at the end of the first, and reaches the second."""
    frames = in_order(round_trip, [*range(22), *range(70, 96), *range(22, 92)])
    progress, tracker, slam = tracked(frames)
    assert progress.parts == [0] and not tracker.submaps.apart and progress.loops >= 1
    assert tracker.submaps.starts == [0, progress.lost[-1] + 1, 48]  # one begun, and the first again
    assert progress.lost == list(range(22, 22 + len(progress.lost))) and len(progress.lost) <= 30 * SOON + 2
    assert ate(progress, frames) < 0.005
    assert np.ptp(slam.cloud().positions, axis=0).max() < 10  # nothing is left far away


@pytest.mark.slow
def test_pieces_that_never_meet_are_kept_apart(round_trip: RoomSequence) -> None:
    progress, _, slam = tracked(in_order(round_trip, [*range(22), *range(70, 90)]))
    assert len(progress.parts) == 2 and progress.parts[0] == 0
    cloud = slam.cloud()
    first, second = (progress.part_of(cloud, part) for part in progress.parts)
    assert len(first) + len(second) == len(cloud) and min(len(first), len(second)) > 1000
    assert second.positions[:, 0].min() - first.positions[:, 0].max() > 50
    assert set(progress.posed()) == set(progress.frames_of(0)) and len(progress.posed_anywhere()) > len(
        progress.posed()
    )


def test_what_shows_nothing_begins_no_part(round_trip: RoomSequence) -> None:
    seen = in_order(round_trip, [*range(10), *range(70, 90)])
    covered = [replace(f, color=np.zeros_like(f.color)) for f in seen[10:]]
    without_depth = [replace(f, depth=np.zeros_like(f.depth)) for f in seen[10:]]
    for rest in (covered, without_depth):
        progress, tracker, _ = tracked([*seen[:10], *rest])
        assert len(progress.lost) == len(rest) and not tracker.submaps.apart


@pytest.mark.parametrize("rate", [30.0, 5.0, 1.0, 0.5])
def test_a_slow_recording_begins_no_part_at_its_second_lost_frame(rate: float) -> None:
    absence, begun = Absence(), []
    absence.ended(np.ones((8, 8), np.float32))
    for k in range(60):
        begun.append(absence.is_long(k / rate, 1.0))
        absence.lost(k / rate)
    assert begun.index(True) == max(rate, 5)


def test_sparse_depth_is_enough_to_begin_a_part_where_all_of_it_is() -> None:
    lidar, kinect = Absence(), Absence()
    sparse = np.zeros((100, 100), np.float32)
    sparse[:20, ::4] = 10
    lidar.ended(sparse)
    kinect.ended(np.ones((100, 100), np.float32))
    assert lidar.enough == pytest.approx(0.025) and kinect.enough == Absence().enough == 0.2
    restored = Absence()
    restored.restore(lidar.state())
    assert restored.enough == lidar.enough


@pytest.mark.parametrize("far", [5.0, 80.0])
def test_cameras_of_two_parts_see_nothing_of_each_other(far: float) -> None:
    tracker = Tracker()
    Slam(Camera.of_fov(64, 48, 60), SlamConfig(fusion=FusionConfig(far=far)), perceive=Observation.of, track=tracker)
    tracker.submaps.enter(0, 0)
    keyframes = Keyframes(Ferns())
    keyframes.add(0, np.eye(4), keyframes.ferns.nothing)
    _, T = tracker.submaps.next(keyframes)
    assert T[0, 3] >= 2.2 * far + 80 and (far > 5 or T[0, 3] == 100)


def test_a_correction_stops_where_a_part_begins() -> None:
    """Frames between the last keyframe of one part and the first of the next move with their own part."""
    old = np.tile(np.eye(4), (3, 1, 1))
    new = old.copy()
    new[2, 0, 3] = -100.0
    correction = Correction.between([0, 10, 30], old, new, breaks=[0, 25])
    shifts = correction.at(np.arange(41))[:, 0, 3]
    assert np.array_equal(shifts[:25], np.zeros(25)) and np.array_equal(shifts[25:], np.full(16, -100.0))
    assert np.allclose(Correction.between([0, 10, 30], old, new).at([20])[:, 0, 3], -50)


def test_frames_of_joined_parts_count_together() -> None:
    progress, frame = Progress(), RoomSequence(frames=1, **SIZE)[0]
    observation = Observation.of(frame)

    def step(index: int, submap: int, correction: Correction | None = None) -> Step:
        tracking = Tracking(np.eye(4), ok=True, submap=submap)
        return Step(replace(frame, index=index, timestamp=index / 30), observation, tracking, True, {}, correction)

    for index, submap in enumerate((0, 0, 1, 1, 1)):
        progress.record(step(index, submap))
    assert progress.parts == [1, 0] and list(progress.posed()) == [2, 3, 4]
    shift = poses.exp([1.0, 0, 0, 0, 0, 0])
    join = Correction(np.array([1, 2]), np.stack([np.eye(4), shift]), joined=(1, 0))
    progress.record(step(5, 1, join))
    assert progress.parts == [0] and list(progress.posed()) == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(progress.posed()[5], shift) and np.array_equal(progress.posed()[0], np.eye(4))


@pytest.fixture(scope="module")
def recording(round_trip: RoomSequence, tmp_path_factory) -> Path:
    """A recording of two pieces that never meet."""
    path = tmp_path_factory.mktemp("pieces") / "recording"
    frames = in_order(round_trip, [*range(22), *range(70, 90)])
    for name in ("color", "depth"):
        (path / name).mkdir(parents=True)
    for f in frames:
        cv2.imwrite(str(path / f"color/{f.index:06d}.png"), f.color[..., ::-1])
        cv2.imwrite(str(path / f"depth/{f.index:06d}.png"), (1000 * f.depth).round().astype(np.uint16))
    c = frames[0].camera
    (path / "camera.yaml").write_text(
        f"width: {c.width}\nheight: {c.height}\nfx: {c.fx}\nfy: {c.fy}\ncx: {c.cx}\ncy: {c.cy}\ndepth_scale: 1000\n"
    )
    T = np.stack([f.T_world_camera for f in frames])
    write_tum(path / "groundtruth.txt", Trajectory(np.arange(len(frames)) / 30, T))
    return path


def settings(recording: Path) -> RunConfig:
    options = {"sequence": str(recording), "poses": "tracked", "slam.perception.labels": "none"}
    return settings_of(None, options | {"slam.tracking.new_map_after": SOON})


def test_a_run_keeps_what_never_met_beside_its_map(recording: Path, tmp_path: Path) -> None:
    run = prepare(settings(recording), tmp_path / "run")
    for _ in run:
        pass
    metrics, folder = finish(run, mesh=False), RunFolder.open(tmp_path / "run")
    assert metrics["submaps"] == 2 and metrics["frames_apart"] > 10
    cloud, _ = folder.load_cloud()
    assert np.ptp(cloud.positions, axis=0).max() < 10
    assert folder.part_map(2).is_file()
    first, second = read_tum(folder.trajectory), read_tum(folder.part_trajectory(2))
    assert len(first.timestamps) == 22 and len(second.timestamps) == metrics["frames_apart"]
    assert metrics["frames_lost"] + len(first.timestamps) + len(second.timestamps) == metrics["frames"]


@pytest.mark.slow
def test_a_run_that_is_broken_off_in_a_second_part_goes_on_to_the_same_map(recording: Path, tmp_path: Path) -> None:
    whole = prepare(settings(recording), tmp_path / "whole")
    for _ in whole:
        pass
    finish(whole, mesh=False)
    for stop in (24, 34):  # while it is lost, and in the second part
        run = prepare(settings(recording), tmp_path / f"broken{stop}")
        for _ in zip(range(stop), run):
            pass
        run.save()
        again = prepare(settings(recording), tmp_path / f"broken{stop}", resume=True)
        for _ in again:
            pass
        finish(again, mesh=False)
        for name in ("map.ply", "map_2.ply", "trajectory.txt", "trajectory_2.txt"):
            assert (tmp_path / f"broken{stop}" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
