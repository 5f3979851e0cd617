"""Zoom while filming: told from an approach, undone, and not seen where there is none."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from filmed_rooms import ROOM, error
from stub_networks import BlindNetwork
from test_bundle_adjustment import disturbed, scene

from semslam import poses
from semslam.camera import Camera
from semslam.runs import recording
from semslam.runs.color_only import zooming
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.poses import VisualPoses, track_images
from semslam.runs.color_only.recalling import RecallingSequence
from semslam.runs.config import RunConfig
from semslam.tracking.visual import normal_equations, zoom
from semslam.tracking.visual.zoom_jump import jump_between
from sequences import open_sequence
from sequences.recalibrated import UnzoomedSequence, zoomed
from sequences.sequence import DerivedSequence


class ZoomingSequence(DerivedSequence):
    """A recording as a camera would have taken it that zooms, its intrinsics those of the widest image."""

    def __init__(self, whole, factors) -> None:
        super().__init__(whole)
        self.factors = factors

    def color_of(self, index: int) -> np.ndarray:
        s, c = self.factors[index], self.camera
        affine = np.array([[s, 0, c.cx * (1 - s)], [0, s, c.cy * (1 - s)]])
        return cv2.warpAffine(super().color_of(index), affine, (c.width, c.height), flags=cv2.INTER_LINEAR)


def zooming_scene(z: np.ndarray, noise: float = 0.2):
    """A scene, what its cameras' focal lengths times exp(z) show of it, and its landmarks seen in a hosting one."""
    exact, _ = scene(count=len(z), landmarks=200, noise=noise)
    seen = exact.seen * np.exp(z[exact.camera])[:, None]
    return exact._replace(seen=seen, pixel=exact.pixel * np.exp(z[exact.host])[:, None], fixed=np.arange(len(z)) == 0)


def test_the_focal_length_of_each_camera_is_found():
    z = np.linspace(0, 0.2, 6)
    found, cost = zoom.adjusted(zooming_scene(z), pixel_std=0.2)
    assert np.abs((found.z - found.z[0]) - z).max() < 0.02
    still = zoom.adjusted(zooming_scene(z), pixel_std=0.2, zooming=False)
    assert not still[0].z.any() and still[1] > 5 * cost


@pytest.mark.parametrize("factor", [0.74, 1.35, 1.6])
def test_a_jump_of_zoom_is_found_between_two_images_and_none_without(factor):
    room = open_sequence("room:frames=60")
    c, before, after = room.camera, room.color_of(10), room.color_of(11)
    affine = np.array([[factor, 0, c.cx * (1 - factor)], [0, factor, c.cy * (1 - factor)]])
    jumped = cv2.warpAffine(after, affine, (c.width, c.height))
    assert jump_between(before, jumped) == pytest.approx(factor, rel=0.02)
    assert jump_between(before, after) is None
    assert jump_between(before, np.zeros_like(after)) is None


@pytest.mark.slow
def test_a_zoom_at_once_that_is_followed_without_a_doubt_is_undone_as_one():
    room = open_sequence(ROOM)
    found = track_images(ZoomingSequence(room, np.where(np.arange(60) < 30, 1, 1.2)), BlindNetwork())
    assert found.lost == 0 and error(room, found, with_scale=True) < 0.02
    assert found.zoom is not None
    assert set(found.zoom[:30]) == {1.0} and found.zoom[30:] == pytest.approx(1.2, rel=0.03)


@pytest.mark.slow
def test_a_camera_that_zooms_at_once_is_followed_behind_that(caplog):
    room = open_sequence("room:frames=90,width=320,height=240")
    filmed = ZoomingSequence(room, np.where(np.arange(90) < 45, 1, 1.5))
    found = track_images(filmed, BlindNetwork())
    assert found.lost == 0 and "at once" in caplog.text
    assert found.zoom is not None and found.zoom.max() == pytest.approx(1.5, rel=0.05)
    assert error(room, found, with_scale=True) < 0.05


def test_an_approach_is_no_zoom():
    exact, _ = scene(count=6, landmarks=200)
    T = np.stack([poses.exp(np.array([0.02 * i, 0, -0.12 * i, 0, 0, 0])) for i in range(6)])
    points = np.column_stack([exact.pixel / exact.focal, np.ones(200)]) * np.exp(exact.log_depth)[:, None]
    world = poses.inverse(T[exact.host]) @ np.column_stack([points, np.ones(200)])[:, :, None]
    shown = (T[exact.camera] @ world[exact.landmark])[:, :3, 0]
    seen = exact.focal * shown[:, :2] / shown[:, 2:]
    near = exact._replace(T_camera_world=T, seen=seen, fixed=np.arange(6) == 0)
    found, _ = zoom.adjusted(near, pixel_std=0.5)
    assert np.ptp(found.z) < 0.002


def test_the_gradient_is_the_difference_quotient_of_the_cost(monkeypatch):
    monkeypatch.setattr(normal_equations, "HUBER", 1e9)
    start = disturbed(scene(count=4, landmarks=20)[0])._replace(prior_weight=np.full(20, 2.0))
    state = zoom.Zoomed(start.T_camera_world, start.log_depth + 0.1, np.array([0.1, -0.05, 0.02, 0.0]))
    _, equations = zoom.linearised(start, state, 1.0)

    def cost(cameras, landmarks) -> float:
        return zoom.linearised(start, state.moved(cameras, landmarks), 1.0)[0]

    h = 1e-6
    for i in range(4 * zoom.UNKNOWNS):
        step = h * (np.arange(4 * zoom.UNKNOWNS) == i)
        quotient = (cost(step, np.zeros(20)) - cost(-step, np.zeros(20))) / (2 * h)
        assert 2 * equations.g[i] == pytest.approx(quotient, rel=1e-4, abs=1e-1)
    for l in range(0, 20, 5):
        step, none = h * (np.arange(20) == l), np.zeros(4 * zoom.UNKNOWNS)
        quotient = (cost(none, step) - cost(none, -step)) / (2 * h)
        assert 2 * equations.g_l[l] == pytest.approx(quotient, rel=1e-4, abs=1e-1)


def test_undone_images_are_those_of_the_longest_focal_length_with_depth_and_labels():
    room = open_sequence("room:frames=2,width=160,height=120")
    undone = UnzoomedSequence(room, np.array([1.0, 1.25]))
    assert undone.camera.fx == pytest.approx(1.25 * room.camera.fx)
    np.testing.assert_array_equal(undone[1].color, room[1].color)
    frame = undone[0]
    np.testing.assert_array_equal(frame.color, undone.color_of(0))
    np.testing.assert_array_equal(frame.labels, undone.labels_of(0))
    np.testing.assert_array_equal(frame.depth, undone.depth_of(0))
    points, seen = room.camera.backproject(room[0].depth), undone.camera.backproject(frame.depth)
    v, u = 30, 110
    place = room.camera.project(seen[v, u][None])[0].round().astype(int)
    assert np.linalg.norm(points[place[1], place[0]] - seen[v, u]) < 0.05


def undone(monkeypatch, *says: zoom.FoundZoom, found=(60, 60, 60, 60)):
    """The zoom that is undone where maps say so one after the other, each of so many frames."""
    filmed, answers, counts = open_sequence(ROOM), iter(says), iter(found)

    def scene(*_):
        tracker = SimpleNamespace(finish=lambda: None, map=SimpleNamespace(keyframes=[Keyframe(0), Keyframe(59)]))
        here = np.arange(60) < next(counts)
        return SimpleNamespace(tracker=tracker, followed=SimpleNamespace(found=here, good=here))

    monkeypatch.setattr(zooming, "longest_scene", scene)
    monkeypatch.setattr(zooming, "zoom_of", lambda *_: next(answers))
    monkeypatch.setattr(zooming, "_jump_at", lambda *_: None)
    factors = zooming.unzoomed_scene(filmed, None, None, lambda: None, None)[1]
    return None if factors is None else factors.max()


def test_a_zoom_that_stabilised_images_seem_to_have_is_told_and_left(monkeypatch, caplog):
    assert undone(monkeypatch, zoom.FoundZoom(np.array([0, 0.05]), 0.002, 0.3)) is None
    assert "seems to zoom by 1.05" in caplog.text


def test_a_jump_that_was_followed_is_looked_for_where_zoom_is_steepest():
    z = np.array([0, 0.01, 0.01, 0.04, 0.2, 0.22, 0.22])
    keyframes = [Keyframe(10 * k) for k in range(7)]
    scene = SimpleNamespace(tracker=SimpleNamespace(map=SimpleNamespace(keyframes=keyframes)))
    frames = zooming.Undone(np.ones(61), scene, zoom.FoundZoom(z, 0.01, 0.5)).frames_of_the_steepest_zoom()
    np.testing.assert_array_equal(frames, np.arange(11, 61))  # two keyframes around the third and the fourth
    two = zooming.Undone(np.ones(11), scene, zoom.FoundZoom(z[[0, 6]], 0.01, 0.5))
    scene.tracker.map.keyframes = keyframes[:2]
    np.testing.assert_array_equal(two.frames_of_the_steepest_zoom(), np.arange(1, 11))


class Keyframe(NamedTuple):
    index: int


def said(log_zoom: float, explained: float) -> zoom.FoundZoom:
    return zoom.FoundZoom(np.array([0, log_zoom]), 0.01, explained)


def test_what_is_left_of_a_zoom_is_undone_while_it_is_evident(monkeypatch, caplog):
    rough = said(0.2, 0.5), said(0.1, 0.3), said(0.06, 0.2)  # 3 % and four times the roughness are 0.07
    assert undone(monkeypatch, *rough) == pytest.approx(np.exp(0.3))
    assert undone(monkeypatch, said(0.2, 0.5), said(0.1, 0.1)) == pytest.approx(np.exp(0.2))
    assert "did not help" not in caplog.text and "not all" not in caplog.text
    assert undone(monkeypatch, *[said(0.2 - 0.01 * n, 0.9 - 0.1 * n) for n in range(4)]) > np.exp(0.5)
    assert "not all of the zoom" in caplog.text


@pytest.mark.parametrize(
    "again, found",
    [(said(0.0, 0.25), 60), (said(0.3, 0.0), 60), (said(0.0, 0.0), 59), (None, 60)],
    ids=["leaves as much to explain", "zooms more than before", "loses frames", "shows too little"],
)
def test_images_that_are_no_better_with_a_zoom_undone_are_used_as_filmed(again, found, monkeypatch, caplog):
    assert undone(monkeypatch, said(0.2, 0.3), again, found=(60, found)) is None
    assert "the map may be wrong; film without zooming" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_a_zoom_is_undone_and_the_path_found(known, caplog):
    room = open_sequence(ROOM)
    factors = np.interp(np.arange(60), [20, 40], [1, 1.3])
    filmed = ZoomingSequence(room, factors)
    if not known:
        filmed.camera = replace(zoomed(room.camera, 1.1), focal_known=False)
    found = track_images(filmed, BlindNetwork())
    assert found.zoom is not None and found.zoom.min() == 1
    assert np.abs(np.log(found.zoom / factors)).max() < 0.06
    assert found.lost == 0 and error(room, found, with_scale=True) < 0.03
    assert "zooms by 1." in caplog.text
    assert found.calibrated(filmed).camera.fx == pytest.approx(1.3 * room.camera.fx, rel=0.08)


@pytest.mark.slow
def test_a_camera_that_does_not_zoom_is_tracked_once(caplog):
    found = track_images(open_sequence(ROOM), BlindNetwork())
    assert found.zoom is None and "zoom" not in caplog.text


def test_a_zoom_is_kept_with_the_poses_and_with_the_recording(tmp_path):
    room = open_sequence("room:frames=3,width=160,height=120")
    T, factors = np.stack(room.poses), np.array([1.0, 1.1, 1.2])
    found = VisualPoses(T, np.ones(3, bool), 1.0, 0.2, 2, 2.0, 1.0, 100.0, 0.0, 0.0, 0.5, zoom=factors)
    save_kept(tmp_path / "kept.npz", found, "settings")
    again = load_kept(tmp_path / "kept.npz", VisualPoses, 3)
    np.testing.assert_array_equal(again.zoom, factors)
    assert again.figures()["zoom"] == pytest.approx(1.2)
    undone = again.calibrated(room)
    config = RunConfig(sequence="room:frames=3,width=160,height=120")
    kept = recording.remembered(RecallingSequence(undone), config, tmp_path)
    assert kept["zoom"] == factors.tolist()
    opened = recording.found_again(config, kept, tmp_path)
    assert opened.camera == undone.camera
    np.testing.assert_array_equal(opened[0].color, undone[0].color)


def test_a_zoomed_camera_has_a_longer_focal_length():
    assert zoomed(Camera(64, 48, 50, 51, 32, 24), 2) == Camera(64, 48, 100, 102, 32, 24)


def test_only_the_cameras_that_are_asked_are_adjusted():
    exact, _ = scene(count=6, landmarks=40)
    mine = np.arange(6) != 2
    part = zoom.seen_within(exact, mine)
    assert len(part.T_camera_world) == len(part.fixed) == 5
    assert len(part.landmark) == np.count_nonzero((exact.camera != 2) & (exact.host[exact.landmark] != 2))
    np.testing.assert_array_equal(part.T_camera_world[part.camera[-1]], exact.T_camera_world[exact.camera[-1]])
    np.testing.assert_array_equal(part.pixel[part.landmark[-1]], exact.pixel[exact.landmark[-1]])
