"""Maps from colour alone: the whole command on the room, with a network that knows its depth roughly."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from stub_networks import KnowingNetwork

from semslam import config as configs
from semslam import poses as poses_of
from semslam.depth.corrections import DepthCorrections
from semslam.depth.multiview import MultiViewConfig, MultiViewDepth
from semslam.engine.labels.surfel_crf import CrfConfig
from semslam.frame import Frame
from semslam.judging.references import scene_reference
from semslam.judging.run import evaluate_run
from semslam.metrics.surface import surface_scores
from semslam.metrics.trajectory import absolute_error, umeyama
from semslam.perception import Perception, PerceptionConfig
from semslam.rendering.splatting import render
from semslam.runs.color_only.depth import correction_of
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.known_scale import KnownSize, with_known_size
from semslam.runs.color_only.poses import KEPT, VisualPoses, track_images
from semslam.runs.color_only.settings import settings_of_poses
from semslam.runs.color_only.sfm import sfm_poses, step_of
from semslam.runs.color_only.tracked import doubts, visual_poses
from semslam.runs.config import RunConfig
from semslam.runs.finished.finish import finish, why_no_map
from semslam.runs.folder import RunFolder
from semslam.runs.poses import pose_source
from semslam.runs.reconstruct import prepare
from semslam.runs.refine import refine
from semslam.slam import SlamConfig
from semslam.tracking.predicted_poses import PredictedPoses
from semslam.trajectory import Trajectory
from sequences import CorruptFrame, open_sequence
from sequences.recalibrated import UnzoomedSequence
from sequences.selected import SelectedSequence
from sequences.sequence import DerivedSequence

ROOM = "room:frames=60,width=320,height=240"


def smeared(depth: np.ndarray, index: int) -> np.ndarray:
    """A network's depth: without edges, and wrong in scale by a tenth this way and that."""
    return cv2.GaussianBlur(depth, (41, 41), 12) * np.float32(1 + 0.1 * np.sin(1.7 * index))


def settings(poses: str) -> RunConfig:
    changes = {"sequence": ROOM, "poses": poses, "slam.perception.depth": "predicted"}
    return configs.updated(RunConfig(), changes, "test")


@pytest.fixture(scope="module")
def network():
    return KnowingNetwork(open_sequence(ROOM), spoil=smeared)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, network):
    @cache
    def made(poses: str, **changes: float) -> Path:
        config = configs.updated(settings(poses), changes, "test")
        run = prepare(config, tmp_path_factory.mktemp(poses) / "run", network=network)
        for _ in run:
            pass
        finish(run, mesh=False)
        return run.folder.path

    return made


@pytest.mark.slow
@pytest.mark.parametrize("poses", ["dataset", "tracked"])
def test_the_map_lies_on_the_rooms_surfaces(runs, poses):
    """The world of a tracked run begins at its first camera; its scale is as good as the network's, to a tenth."""
    room, folder = open_sequence(ROOM), RunFolder.open(runs(poses))
    T_run = folder.load_trajectory().T_world_camera
    ways = [np.linalg.norm(np.diff(np.stack(T)[::5, :3, 3], axis=0), axis=1).sum() for T in (room.poses, T_run)]
    scale = ways[0] / ways[1]
    assert scale == pytest.approx(1, abs=0.1)
    cloud = folder.load_cloud()[0]
    shown, true = render(cloud, room.camera, T_run[0]).depth, room[0].depth
    there = np.isfinite(shown) & (true > 0)
    level = np.median(true[there] / shown[there])  # a path that is bent a little is no measure of the map's size
    assert level == pytest.approx(1, abs=0.1)
    from_camera = poses_of.transform(poses_of.inverse(T_run[0]), cloud.positions)
    scores = surface_scores(poses_of.transform(room.poses[0], level * from_camera), scene_reference(room))
    assert scores.accuracy_m < 0.05
    assert scores.completeness_m < 0.08


@pytest.mark.slow
def test_what_stayed_unsure_is_removed_once_when_all_frames_are_done(runs, network):
    """One view says little, and what the next ones contradict becomes no surer: it is not in the finished map."""
    folder = RunFolder.open(runs("tracked"))
    made, metrics = folder.map.read_bytes(), json.loads(folder.metrics.read_text())
    confidence = folder.load_cloud()[0].confidence[: metrics["surfels"]]  # the insides of planes come after them
    assert confidence.min() >= min(1.0, 0.25 * np.median(confidence))
    finish(prepare(settings("tracked"), folder.path, network=network, resume=True), mesh=False)
    assert folder.map.read_bytes() == made


@pytest.mark.slow
def test_the_insides_of_planes_lie_on_the_rooms_surfaces(runs):
    """The walls of the room have no texture; what is added to them comes last, and is as good as the rest.

    With keyframes as near to one another as here, the map leaves something to be added.
    """
    near = {"slam.multiview.keyframe_step": 0.04, "slam.multiview.keyframe_turn_deg": 6.0}
    room, folder = open_sequence(ROOM), RunFolder.open(runs("tracked", **near))
    cloud, metrics = folder.load_cloud()[0], json.loads(folder.metrics.read_text())
    added = metrics["surfels_of_planes"]
    assert len(cloud) == metrics["surfels"] + added and added > 0
    T_run = folder.load_trajectory().T_world_camera
    moved = umeyama(T_run[:, :3, 3], np.stack(room.poses)[:, :3, 3], with_scale=True)(cloud.positions)
    error = scene_reference(room).distance(moved)
    assert np.median(error[-added:]) < 1.5 * np.median(error[:-added])


def test_the_camera_finds_its_way_by_itself(runs):
    assert evaluate_run(runs("tracked")).figures["ate_m"] < 0.03
    metrics = json.loads((runs("tracked") / "metrics.json").read_text())
    assert metrics["tracking"] == "colour alone" and 0.2 < metrics["scale_std"] < 0.3


def test_keyframes_bring_their_labels(runs):
    cloud, _ = RunFolder.open(runs("tracked")).load_cloud()
    labelled = cloud.class_probabilities.max(axis=1) > 0.2
    assert labelled.mean() > 0.9


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_map_and_is_not_tracked_again(tmp_path: Path, runs, network):
    run = prepare(settings("tracked"), tmp_path / "run", network=network)
    for _, _ in zip(range(25), run):
        pass
    run.save()
    kept = (tmp_path / "run" / "visual.npz").stat().st_mtime_ns
    again = prepare(settings("tracked"), tmp_path / "run", network=network, resume=True)
    for _ in again:
        pass
    finish(again, mesh=False)
    with np.load(tmp_path / "run" / "visual.npz") as a, np.load(runs("tracked") / "visual.npz") as b:
        np.testing.assert_array_equal(a["T_world_camera"], b["T_world_camera"])
    assert (tmp_path / "run" / "visual.npz").stat().st_mtime_ns == kept
    assert (tmp_path / "run" / "map.ply").read_bytes() == (runs("tracked") / "map.ply").read_bytes()


def test_parallax_is_not_measured_between_the_guesses_of_a_pose_network(network):
    room = open_sequence(ROOM)
    perception = Perception(PerceptionConfig(depth="predicted", labels="none"), room.camera, None, network)
    track = PredictedPoses(lambda color: np.eye(4))
    assert isinstance(correction_of(SlamConfig(), room, perception, track), DepthCorrections)
    given = correction_of(SlamConfig(), room, perception, pose_source("dataset", room))
    assert isinstance(given, MultiViewDepth)
    np.testing.assert_array_equal(given.T_world_camera, room.poses)


class Damaged(DerivedSequence):
    """A recording one of whose images is damaged, which notes what is read of it."""

    def __init__(self, whole) -> None:
        super().__init__(whole)
        self.read: list[int] = []

    def color_of(self, index: int) -> np.ndarray:
        if index == 7:
            raise CorruptFrame("an image is damaged")
        return super().color_of(index)

    def read_without_labels(self, index: int) -> Frame:
        self.read.append(index)
        return replace(super().read_without_labels(index), color=self.color_of(index))


def test_of_the_frames_between_keyframes_none_is_read_that_was_read_when_its_pose_was_found(tmp_path, network):
    """A damaged one is counted, and keyframes that were looked at ahead are not read again."""
    room = Damaged(open_sequence(ROOM))
    run = prepare(settings("dataset"), tmp_path / "run", sequence=room, network=network)
    room.read.clear()
    steps = list(run)
    keyframes = [index for index, step in enumerate(steps) if step is not None]
    assert sorted(room.read) == sorted({7, *keyframes}) and 2 < len(keyframes) < 30
    assert run.progress.corrupt == [7] and run.progress.indices == [i for i in range(60) if i != 7]
    assert run.progress.fused == len(keyframes) and run.progress.stepped == 59
    np.testing.assert_array_equal(run.progress.poses[20], run.slam.track.T_world_camera[21])


def test_a_look_ahead_needs_no_labels(network):
    """Those of a frame may be damaged, where none are used."""

    class Unlabelled(DerivedSequence):
        def __getitem__(self, index: int) -> Frame:
            raise CorruptFrame("labels of a frame are damaged")

    room = open_sequence(ROOM)
    perception = Perception(PerceptionConfig(depth="predicted", labels="none"), room.camera, None, network)
    given = correction_of(SlamConfig(), Unlabelled(room), perception, pose_source("dataset", room))
    assert isinstance(given, MultiViewDepth) and given.look_at is not None
    np.testing.assert_array_equal(given.look_at(5)[0], room[5].color)


# scale


class Doubting(KnowingNetwork):
    """Whose depth is a third too small."""

    def __init__(self, sequence) -> None:
        super().__init__(sequence, spoil=lambda depth, index: smeared(depth, index) * np.float32(0.67))


@pytest.fixture(scope="module")
def shrunk():
    """A tracked room that is too small, its sequence and the network."""
    room = open_sequence(ROOM)
    network = Doubting(room)
    return track_images(room, network), room, network


def way(T: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(T[::5, :3, 3], axis=0), axis=1).sum())


def length_in(room, index: int, ends: tuple[tuple[int, int], tuple[int, int]]) -> float:
    points = room.camera.backproject(room[index].depth)
    (u, v), (x, y) = ends
    return float(np.linalg.norm(points[v, u] - points[y, x]))


@pytest.mark.parametrize("kind", ["length", pytest.param("height", marks=pytest.mark.slow)])
def test_a_known_size_gives_the_scale_whatever_the_network_says(shrunk, kind):
    visual, room, network = shrunk
    assert way(visual.T_world_camera) / way(np.stack(room.poses)) < 0.8
    ends = ((60, 180), (260, 180))
    above = np.median([T[2, 3] for T in room.poses])
    text = f"height={above}" if kind == "height" else f"length={length_in(room, 30, ends)},30,60,180,260,180"
    known = KnownSize.parsed(text)
    found = with_known_size(visual, known, room, network, "nyu13", MultiViewConfig())
    # before: 0.67; 0.94 on some processors
    assert way(found.T_world_camera) / way(np.stack(room.poses)) == pytest.approx(1, abs=0.08)
    np.testing.assert_array_equal(found.T_world_camera[0], visual.T_world_camera[0])
    assert 0.01 <= found.scale_std < 0.1


def test_a_known_length_names_the_frame_of_the_recording_and_the_pixels_of_its_image(shrunk):
    """Of part of a recording, whose images were enlarged because another frame of it is zoomed in."""
    visual, room, network = shrunk
    ends = ((100, 150), (220, 150))
    plain = KnownSize.parsed(f"length={length_in(room, 30, ends)},30,100,150,220,150")
    there = replace(plain, frame=1030)

    class Later(DerivedSequence):
        def number_of(self, index: int) -> int:
            return 1000 + index

    zoom = np.full(len(room), 1.0)
    zoom[50:] = 1.2
    part = UnzoomedSequence(Later(room), zoom)
    config = MultiViewConfig()
    as_recorded = with_known_size(visual, plain, room, network, "nyu13", config)
    assert as_recorded.T_world_camera[-1] == pytest.approx(
        with_known_size(visual, there, Later(room), network, "nyu13", config).T_world_camera[-1]
    )
    shown = part.shown_at(30, np.array(ends, float))
    assert np.linalg.norm(shown[1] - shown[0]) == pytest.approx(1.2 * 120)
    for size, what in (
        (plain, "there are frames 1000..1059"),
        (replace(there, pixels=((5, 5), (220, 150))), "cut off"),
    ):
        with pytest.raises(ValueError, match=what):
            with_known_size(visual, size, part, network, "nyu13", config)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1.5", "expected height=METRES"),
        ("height=-1", "expected height=METRES"),
        ("height=nan", "expected height=METRES"),
        ("length=1,2,3", "length=METRES,FRAME"),
        ("length=1,30.7,10,10,20,20", "frame is 30.7, expected a whole number"),
        ("length=1,99,10,10,20,20", "names frame 99, but there are frames 0..59"),
        ("length=1,30,10,10,20,900", "outside the 320x240 image"),
        ("length=1,30,10,10,10,10", "show one place"),
    ],
)
def test_a_size_that_cannot_be_measured_is_named(shrunk, text, what):
    visual, room, network = shrunk
    with pytest.raises(ValueError, match=what):
        with_known_size(visual, KnownSize.parsed(text), room, network, "nyu13", MultiViewConfig())


def test_a_length_in_a_frame_without_parallax_names_frames_that_have_some(shrunk):
    """The camera stands for the first forty of sixty frames."""
    visual, room, network = shrunk
    T = visual.T_world_camera.copy()
    T[:40] = T[0]
    still = replace(visual, T_world_camera=T)
    near = MultiViewConfig(before=20, after=20)
    with pytest.raises(ValueError, match=r"frame 5, which shows no parallax; frames (\d+, )+\d+ show some") as told:
        with_known_size(still, KnownSize.parsed("length=1,5,60,180,260,180"), room, network, "nyu13", near)
    named = [int(word) for word in str(told.value).split("frames ")[1].split(" show")[0].split(", ")]
    assert min(named) > 20 and max(named) < len(room)


def test_doubts_are_said_again_of_poses_that_were_kept_and_not_of_a_size_that_was_given(shrunk, tmp_path, caplog):
    visual, room, network = shrunk
    config = configs.updated(settings("tracked"), {"frames": len(room)}, "test")
    doubted = replace(visual, strange=1.0, residual=2.0)
    save_kept(tmp_path / KEPT, doubted, settings_of_poses(config, room))
    for _ in range(2):
        caplog.clear()
        visual_poses(tmp_path, room, network, config, lambda: None)
        assert "--scale-from sets it" in caplog.text and "without stabilisation" in caplog.text
    assert doubts(visual, scale_known=False) == [] and len(doubts(doubted, scale_known=True)) == 1
    flickering = doubts(replace(visual, restless=0.8), scale_known=True)
    assert len(flickering) == 1 and "in 80 % of the images" in flickering[0]
    unsure, sure = (doubts(replace(visual, focal_std=std), scale_known=True) for std in (0.14, 0.07))
    assert len(unsure) == 1 and "focal length to 14 % only" in unsure[0] and sure == []
    changes, still = (doubts(replace(visual, focal_spread=most), scale_known=True) for most in (0.03, 0.02))
    assert len(changes) == 1 and "seems to change by +- 3.0 %" in changes[0] and still == []
    assert doubted.figures()["strange_images"] == 1.0 and doubted.figures()["residual_pixels"] == 2.0


def test_a_height_needs_classes_with_a_floor(shrunk):
    visual, room, network = shrunk
    with pytest.raises(ValueError, match="have no floor; use nyu13"):
        with_known_size(visual, KnownSize.parsed("height=1.5"), room, network, "kitti6", MultiViewConfig())


@pytest.mark.slow
def test_poses_that_were_kept_are_made_again_with_other_settings(shrunk, tmp_path):
    """A run that was stopped while its images were tracked, and goes on with a length that is known."""
    visual, room, network = shrunk
    before = configs.updated(settings("tracked"), {"frames": len(room)}, "test")
    save_kept(tmp_path / KEPT, visual, settings_of_poses(before, room))
    assert visual_poses(tmp_path, room, network, before, lambda: None).scale == visual.scale
    known = replace(before, scale_from=f"length={length_in(room, 30, ((60, 180), (260, 180)))},30,60,180,260,180")
    again = visual_poses(tmp_path, room, network, known, lambda: None)
    assert way(again.T_world_camera) / way(np.stack(room.poses)) == pytest.approx(1, abs=0.08)


def test_poses_that_were_kept_are_of_one_recording_and_forgotten_by_a_run_of_none(shrunk, network, tmp_path):
    """A folder where a run by images was given up, and another recording as long, or another kind of run, goes on."""
    visual, room, _ = shrunk
    longer = open_sequence(ROOM.replace("=60", "=90"))
    config, others = settings("tracked"), SelectedSequence(longer, np.arange(30, 90))
    save_kept(tmp_path / KEPT, visual, settings_of_poses(config, room))
    assert load_kept(tmp_path / KEPT, VisualPoses, len(room), settings_of_poses(config, room)) is not None
    assert load_kept(tmp_path / KEPT, VisualPoses, len(room), settings_of_poses(config, others)) is None
    by_sensor = {"sequence": ROOM, "frames": 5, "poses": "tracked", "slam.perception.labels": "none"}
    run = prepare(configs.updated(RunConfig(), by_sensor, "test"), tmp_path, resume=True)
    for _ in run:
        pass
    assert "tracking" not in finish(run, mesh=False) and not (tmp_path / KEPT).exists()


# structure from motion


def test_lost_frames_do_not_explain_why_tracked_ones_gave_no_map():
    config = configs.updated(RunConfig(), {"slam.perception.depth": "predicted"}, "test")

    def told(indices, lost):
        progress = SimpleNamespace(indices=indices, lost=lost, reason="nothing has a pose")
        return why_no_map(SimpleNamespace(progress=progress, config=config))

    assert told([0, 1], [0, 1]) == "nothing has a pose"
    assert "no frame has depth that is sure enough" in told([0, 1, 2], []) and "could not" not in told([0, 1, 2], [])
    assert told([0, 1, 2], [2]).startswith("frames that could not be tracked: 1; of the 2 others no frame has depth")


def test_images_of_a_long_film_that_are_far_apart_are_told(caplog) -> None:
    assert step_of(open_sequence("room:frames=1600,width=32,height=24")) == 4 and not caplog.text
    assert step_of(open_sequence("room:frames=9000,width=32,height=24")) == 23
    assert "one every 0.8 seconds" in caplog.text


def test_structure_from_motion_without_its_library_is_one_line(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ValueError, match=r"needs pycolmap: pip install pycolmap"):
        sfm_poses(open_sequence(ROOM), network)


@pytest.mark.slow
def test_structure_from_motion_finds_every_fourth_pose_in_metres(network):
    pytest.importorskip("pycolmap", reason="pip install pycolmap")
    room = open_sequence(ROOM)
    found = sfm_poses(room, network)
    assert found.found.sum() >= 10 and not found.found[1::4].any()
    indices = np.flatnonzero(found.found)
    estimate = Trajectory(room.timestamps[indices], found.T_world_camera[indices])
    assert absolute_error(estimate, room.trajectory, with_scale=True).rmse < 0.03
    assert found.scale_std < 0.3 and found.focal == pytest.approx(room.camera.fx)


@pytest.mark.slow
def test_a_refined_run_keeps_the_insides_of_planes_with_labels_of_their_surroundings(tmp_path: Path, runs):
    source = RunFolder.open(runs("tracked"))
    refined = refine(source.path, tmp_path / "refined", CrfConfig(iterations=0))
    before, after = (json.loads(folder.metrics.read_text()) for folder in (source, refined))
    added = before["surfels_of_planes"]
    assert after["surfels_of_planes"] == added
    cloud = refined.load_cloud()[0]
    np.testing.assert_array_equal(cloud.positions[-added:], source.load_cloud()[0].positions[-added:])
    assert (cloud.labels()[-added:] < 255).mean() > 0.9
