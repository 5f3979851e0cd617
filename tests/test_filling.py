"""Holes of a depth camera's images, filled: nothing that was measured changes, and what is added is as good as told."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from command_line import refused
from stub_networks import KnowingNetwork

from semslam import config as configs
from semslam import poses
from semslam.camera import Camera
from semslam.commands.mapping.summary import filled_holes
from semslam.depth.filling import HoleFilling, with_doubt
from semslam.depth.multiview import MultiViewDepth, depth_from_views
from semslam.engine.depth_filter import Noise
from semslam.frame import Observation
from semslam.geometry.export import read_map_ply
from semslam.judging.run import evaluate_run
from semslam.labels import LABEL_SETS
from semslam.rendering.splatting import render
from semslam.runs.config import RunConfig
from semslam.runs.finished.fill import measured_depth
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from sequences import open_sequence
from sequences.selected import SelectedSequence

f32 = np.float32
ROOM = "room:frames=30,width=160,height=120"
NOISE = Noise.of(0.0006, 0.0004)
CAMERA = Camera(96, 72, 80.0, 80.0, 47.5, 35.5)


class WithHoles:
    """A sequence whose depth camera sees nothing of one class, as real ones see nothing of glass or black plastic."""

    def __init__(self, whole, blind_for: str) -> None:
        self.whole = whole
        self.unseen = LABEL_SETS[whole.label_set].classes.index(blind_for)

    def __getattr__(self, name):
        if name == "whole":  # asked for by what copies it, before it is there
            raise AttributeError(name)
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index):
        frame = self.whole[index]
        return replace(frame, depth=np.where(frame.labels == self.unseen, f32(0), frame.depth))

    def read_without_labels(self, index):
        return replace(self[index], labels=None)


def smeared(depth: np.ndarray, index: int) -> np.ndarray:
    """A network's depth: without edges, and a quarter too far."""
    return cv2.GaussianBlur(depth, (21, 21), 6) * f32(1.25)


# images


def test_a_hole_in_a_plane_becomes_the_plane():
    """Nothing is to be seen but grey, and the network knows the shape, at half the scale: the surrounding tells it."""
    u, v = np.meshgrid(np.arange(96), np.arange(72))
    plane = (1 / (0.5 + 0.002 * u - 0.001 * v)).astype(f32)  # inverse depth of a plane is linear in the image
    sensed = plane.copy()
    sensed[25:45, 35:60] = 0
    grey = np.full(CAMERA.shape, 120, f32)
    T = [poses.exp(np.array([x, 0, 0, 0, 0, 0])) for x in (-0.1, 0.1)]
    found = depth_from_views(grey, CAMERA, [grey, grey], T, 0.5 * plane, measured=with_doubt(sensed, NOISE))
    np.testing.assert_allclose(found.depth[sensed == 0], plane[sensed == 0], rtol=0.005)
    assert found.log_std[35, 47] > found.log_std[35, 36] > found.log_std[35, 30]  # doubt grows into the hole


@pytest.fixture(scope="module")
def filled_frame():
    room = open_sequence(ROOM)
    holed = WithHoles(room, "bed")
    network = KnowingNetwork(room, spoil=smeared)
    views = MultiViewDepth(room.camera, list(room.poses), room.color_of)
    filling = HoleFilling(views, NOISE, lambda T: np.full(room.camera.shape, np.inf, f32))
    frame = holed[20]
    predicted = network(frame.color, (160, 120), frame.camera.fx).depth
    return frame, room[20], filling, filling(Observation(frame, room.camera, frame.color, predicted), None)


def test_measured_pixels_stay_and_have_no_weight(filled_frame):
    frame, _, _, found = filled_frame
    measured = frame.depth > 0
    np.testing.assert_array_equal(found.depth[measured], frame.depth[measured])
    assert not found.confidence[measured].any()


def test_filled_pixels_are_as_near_to_the_truth_as_they_say(filled_frame):
    frame, whole, filling, found = filled_frame
    filled = found.confidence > 0
    assert filled.sum() > 0.3 * (frame.depth == 0).sum()
    assert np.median(np.abs(found.depth - whole.depth)[filled] / whole.depth[filled]) < 0.03
    figures = filling.counts.figures()
    assert figures["fill_hidden_median_m"] < 0.05
    assert figures["fill_hidden_deviation"] < 1.5


def test_points_before_what_was_measured_are_contradicted_and_those_behind_are_not(filled_frame):
    frame, _, filling, _ = filled_frame
    filling.keyframes = 2 * filling.keyframes[:1]
    (_, T), depth = filling.keyframes[0], frame.depth
    v, u = np.argwhere(depth > 1)[100]
    ray = np.array([(u - frame.camera.cx) / frame.camera.fx, (v - frame.camera.cy) / frame.camera.fy, 1.0])
    points = poses.transform(T, np.array([0.8, 1.0, 1.3])[:, None] * ray * depth[v, u])
    assert filling.contradicted(points, lambda index: depth).tolist() == [True, True, False]


# runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a run without and of one with filled holes."""
    room, found = open_sequence(ROOM), []
    network = KnowingNetwork(room, spoil=smeared)
    for fill in (False, True):
        changes = {"sequence": ROOM, "poses": "tracked", "fill": fill, "slam.perception.labels": "none"}
        config = configs.updated(RunConfig(), changes, "test")
        run = prepare(config, tmp_path_factory.mktemp("run"), sequence=WithHoles(room, "bed"), network=network)
        for _ in run:
            pass
        finish(run, mesh=False)
        found.append(run.folder)
    return found


def test_nothing_that_was_measured_changes(runs):
    plain, filled = runs
    assert plain.trajectory.read_bytes() == filled.trajectory.read_bytes()
    (a, _), (b, _) = plain.load_cloud(), filled.load_cloud()
    assert len(b) > len(a)
    for name in ("positions", "normals", "colors", "confidence"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name)[: len(a)])
    assert b.confidence[len(a) :].max() < np.median(a.confidence)
    written = read_map_ply(filled.map)
    np.testing.assert_array_equal(written.positions, b.positions)
    np.testing.assert_array_equal(written.confidence, b.confidence)


def test_the_map_becomes_more_complete_and_stays_near_the_truth(runs):
    folder = RunFolder.open(runs[1].path)
    figures = evaluate_run(folder.path, sequence=open_sequence(ROOM)).figures
    assert figures["recall_5cm"] > figures["recall_5cm_unfilled"] + 0.005
    assert figures["accuracy_filled_m"] < 0.05
    metrics = json.loads(folder.metrics.read_text())
    assert 0 < metrics["fill_filled_share"] <= 1 and metrics["surfels_filled"] == len(folder.load_filled())


def test_a_run_of_the_same_name_without_filling_forgets_what_was_filled(runs):
    folder = runs[1]
    folder.forget_derived()
    assert folder.load_filled() is None


def test_a_recording_without_holes_is_told_so_too():
    room = open_sequence(ROOM)
    network = KnowingNetwork(room, spoil=smeared)
    views = MultiViewDepth(room.camera, list(room.poses), room.color_of)
    filling, frame = HoleFilling(views, NOISE, lambda T: np.zeros(room.camera.shape, f32)), room[20]
    assert (frame.depth > 0).all()
    filling(Observation(frame, room.camera, frame.color, network(frame.color, (160, 120), 1.0).depth), None)
    figures = filling.counts.figures()
    assert figures["fill_hidden_median_m"] is not None and figures["fill_filled_share"] is None
    told = filled_holes(figures | {"surfels_filled": 0, "fill_keyframes": 1, "fill_without_parallax": 0})
    assert told == "holes filled: 0 surfels of 1 keyframes"


def test_predicted_depth_has_no_holes_to_fill(tmp_path, capsys):
    said = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "run", "--depth", "predicted", "--fill")
    assert "--fill is for the holes of --depth sensor" in said


def test_a_camera_that_stands_still_is_told_why_nothing_was_filled(tmp_path):
    room = open_sequence(ROOM)
    still = SelectedSequence(WithHoles(room, "bed"), np.full(5, 12))
    still.timestamps = np.arange(5) / 30.0
    changes = {"sequence": ROOM, "poses": "dataset", "fill": True, "slam.perception.labels": "none"}
    config = configs.updated(RunConfig(), changes, "test")
    run = prepare(config, tmp_path / "run", sequence=still, network=KnowingNetwork(room, spoil=smeared))
    for _ in run:
        pass
    metrics = finish(run, mesh=False)
    assert metrics["fill_keyframes"] == metrics["surfels_filled"] == 0
    assert "5 frames show no parallax" in filled_holes(metrics)


@pytest.mark.slow
def test_the_depth_of_a_map_in_files_is_that_of_the_whole_map(tmp_path):
    room = open_sequence(ROOM)
    found = []
    for memory in (None, "1 MB"):
        changes = {"sequence": ROOM, "poses": "dataset", "slam.perception.labels": "none", "slam.map.memory": memory}
        run = prepare(configs.updated(RunConfig(), changes, "test"), tmp_path / f"run{memory}", sequence=room)
        for _ in run:
            pass
        found.append(run)
    whole, paged = found
    assert paged.slam.surfels.paging is not None
    for T in room.poses[::10]:
        depth = render(whole.cloud(), room.camera, T, cull_back=False).depth
        np.testing.assert_array_equal(measured_depth(whole, room.camera, T), depth)
        np.testing.assert_array_equal(measured_depth(paged, room.camera, T), depth)
