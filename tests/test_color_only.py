"""Maps from colour alone: the whole command on the room, with a network that knows its depth roughly."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from stub_networks import KnowingNetwork

from semslam import config as configs
from semslam import poses as poses_of
from semslam.depth.corrections import DepthCorrections
from semslam.depth.multiview import MultiViewDepth
from semslam.judging.references import scene_reference
from semslam.judging.run import evaluate_run
from semslam.metrics.surface import surface_scores
from semslam.perception import Perception, PerceptionConfig
from semslam.runs.color_only.depth import correction_of
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.poses import pose_source
from semslam.runs.reconstruct import finish, prepare
from semslam.slam import SlamConfig
from semslam.tracking.predicted_poses import PredictedPoses
from sequences import open_sequence

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
    made = {}
    for poses in ("dataset", "tracked"):
        run = prepare(settings(poses), tmp_path_factory.mktemp(poses) / "run", network=network)
        for _ in run:
            pass
        finish(run, mesh=False)
        made[poses] = run.folder.path
    return made


@pytest.mark.parametrize("poses", ["dataset", "tracked"])
def test_the_map_lies_on_the_rooms_surfaces(runs, poses):
    """The world of a tracked run begins at its first camera; its scale is as good as the network's, to a tenth."""
    room, folder = open_sequence(ROOM), RunFolder.open(runs[poses])
    T_run = folder.load_trajectory().T_world_camera
    ways = [np.linalg.norm(np.diff(np.stack(T)[::5, :3, 3], axis=0), axis=1).sum() for T in (room.poses, T_run)]
    scale = ways[0] / ways[1]
    assert scale == pytest.approx(1, abs=0.1)
    from_camera = poses_of.transform(poses_of.inverse(T_run[0]), folder.load_cloud()[0].positions)
    scores = surface_scores(poses_of.transform(room.poses[0], scale * from_camera), scene_reference(room))
    assert scores.accuracy_m < 0.08
    assert scores.completeness_m < 0.08


def test_the_camera_finds_its_way_by_itself(runs):
    assert evaluate_run(runs["tracked"]).figures["ate_m"] < 0.03
    metrics = json.loads((runs["tracked"] / "metrics.json").read_text())
    assert metrics["tracking"] == "colour alone" and 0 < metrics["scale_std"] < 0.2


def test_keyframes_bring_their_labels(runs):
    cloud, _ = RunFolder.open(runs["tracked"]).load_cloud()
    labelled = cloud.class_probabilities.max(axis=1) > 0.2
    assert labelled.mean() > 0.9


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
    with np.load(tmp_path / "run" / "visual.npz") as a, np.load(runs["tracked"] / "visual.npz") as b:
        np.testing.assert_array_equal(a["T_world_camera"], b["T_world_camera"])
    assert (tmp_path / "run" / "visual.npz").stat().st_mtime_ns == kept
    assert (tmp_path / "run" / "map.ply").read_bytes() == (runs["tracked"] / "map.ply").read_bytes()


def test_parallax_is_not_measured_between_the_guesses_of_a_pose_network(network):
    room = open_sequence(ROOM)
    perception = Perception(PerceptionConfig(depth="predicted", labels="none"), room.camera, None, network)
    track = PredictedPoses(lambda color: np.eye(4))
    assert isinstance(correction_of(SlamConfig(), room, perception, track), DepthCorrections)
    given = correction_of(SlamConfig(), room, perception, pose_source("dataset", room))
    assert isinstance(given, MultiViewDepth)
    np.testing.assert_array_equal(given.T_world_camera, room.poses)
