"""A camera that reads its images row by row: found in where landmarks are seen, undone in these and in the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from filmed_rooms import Changed, error
from stub_networks import KnowingNetwork

from semslam import poses
from semslam.camera import Camera
from semslam.runs import recording
from semslam.runs.color_only import poses as color_only_poses
from semslam.runs.color_only.fitted import FittedPoses
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.poses import track_images
from semslam.runs.color_only.recalling import RecallingSequence
from semslam.runs.config import RunConfig
from semslam.tracking.visual.shutter import readout_of, twists_of
from semslam.tracking.visual.sparse_map import SparseMap
from sequences import open_sequence
from sequences.recalibrated import UnrolledSequence
from sequences.room.room import RoomSequence, orbit, render

CAMERA = Camera(320, 240, 260.0, 250.0, 165.0, 118.0)
EVERY, KEYFRAMES = 1 / 30, 12
TWIST = np.array([0.3, -0.1, 0.2, 0.25, -0.4, 0.3])  # a second


def place(seconds: float) -> np.ndarray:
    """T_world_camera of a camera in a hand."""
    t = seconds * np.array([5.0, 7.0, 6.0, 9.0, 8.0, 11.0])
    return poses.exp(np.array([0.3 * seconds, 0, 0, 0, 0.1 * seconds, 0]) + 0.05 * np.sin(t + np.arange(6)))


def shown(points: np.ndarray, seconds: float, readout: np.ndarray) -> np.ndarray:
    """Where a camera that takes `readout` for an image shows points (N, 3) in its image of a moment, pixels (N, 2)."""
    pixels = np.full((len(points), 2), 100.0)
    for n, point in enumerate(points):
        for _ in range(5):
            late = float(CAMERA.elapsed(pixels[n], readout))
            x = poses.transform(poses.inverse(place(seconds + late)), point[None])[0]
            pixels[n] = x[:2] / x[2] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]
    return pixels


def filmed(readout: np.ndarray, noise: float = 0.3) -> tuple[SparseMap, np.ndarray]:
    """A map of keyframes that such a camera took, and its twists."""
    rng = np.random.default_rng(0)
    times = 6 * EVERY * np.arange(KEYFRAMES)
    points = rng.uniform([-2, -1.2, 1.5], [2.5, 1.2, 4], (300, 3))
    world = SparseMap(CAMERA, pixel_std=0.5, prior_std=0.3)
    ids = np.zeros(0, int)
    for k, seconds in enumerate(times):
        T = poses.inverse(place(seconds))
        world.add_keyframe(6 * k, np.zeros(CAMERA.shape, np.uint8), T)
        pixels = shown(points, seconds, readout) + rng.normal(0, noise, (300, 2))
        if k == 0:
            ids = world.add_landmarks(0, pixels, np.log(poses.transform(T, points)[:, 2]))
        else:
            there = world.inside(pixels)
            world.observe(ids[there], pixels[there], k)
    frames = np.arange(-1, 6 * KEYFRAMES) * EVERY
    twists = twists_of([place(seconds) for seconds in frames], frames)
    return world, twists[1::6]


def test_flow_is_the_difference_quotient_of_where_a_pixel_goes():
    pixels, depth, h = np.array([[10.0, 20.0], [300.0, 200.0]]), np.array([1.5, 3.0]), 1e-6
    moved = poses.transform(poses.inverse(poses.exp(h * TWIST)), CAMERA.points(pixels, depth))
    there = moved[:, :2] / moved[:, 2:] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]
    np.testing.assert_allclose(CAMERA.flow(pixels, depth, TWIST), (there - pixels) / h, rtol=1e-4)


def test_twists_are_those_of_a_camera_that_moves_evenly_and_none_where_poses_are_far_apart():
    times = np.array([0.0, 0.03, 0.06, 0.1, 1.0])
    T = [poses.exp(seconds * TWIST) for seconds in times]
    found = twists_of(T, times)
    np.testing.assert_allclose(found[:3], np.tile(TWIST, (3, 1)), atol=1e-9)
    assert not found[4].any() and not twists_of([T[0], None, None, None, T[4]], times).any()
    np.testing.assert_allclose(twists_of([T[0], T[1], None, None, None], times)[1], TWIST, atol=1e-9)


@pytest.mark.parametrize("readout", [(0.0, 0.028), (0.0, -0.02), (0.025, 0.0)])  # upright, upside down, on its side
def test_a_readout_is_found_where_landmarks_are_seen(readout):
    world, twists = filmed(np.array(readout))
    found = readout_of(world, twists, EVERY)
    assert found is not None
    np.testing.assert_allclose(found, readout, atol=0.003)


def test_images_that_are_read_at_once_tell_of_no_readout():
    assert readout_of(*filmed(np.zeros(2)), EVERY) is None


def test_rows_that_wobble_otherwise_than_the_camera_moves_tell_of_no_readout():
    world, twists = filmed(np.zeros(2))
    for k in range(1, KEYFRAMES):  # as a picture that is shaken afterwards, up to four pixels
        rows = world._keyframe == k
        world._seen[rows, 0] += 4 * np.sin(world._seen[rows, 1] / 40 + 2.4 * k)
    assert readout_of(world, twists, EVERY) is None


def test_a_readout_that_only_half_of_the_keyframes_have_is_not_believed():
    readout = np.array([0.0, 0.028])
    world, twists = filmed(readout)
    for k in range(1, KEYFRAMES):
        if k >= KEYFRAMES // 2:
            mine = world._keyframe == k
            ids = world._landmark[mine]
            depth = world.project(ids, world.T_camera_world[k]).points[:, 2]
            late = world.read_late(world._seen[mine], depth, readout, twists[k])
            world._seen[mine] -= 2 * late  # as if read from below
    assert readout_of(world, twists, EVERY) is None


def test_undone_landmarks_are_where_a_camera_sees_them_at_once():
    readout = np.array([0.0, 0.028])
    world, twists = filmed(readout, noise=0.0)
    at_once, _ = filmed(np.zeros(2), noise=0.0)
    undone = world.unrolled(readout, twists)
    both = min(len(undone._seen), len(at_once._seen))
    assert both and len(world._seen) == len(undone._seen)
    before, after = (
        np.linalg.norm(one.pixel - at_once.pixel, axis=1).mean() for one in (world, undone)
    )  # of the hosts, which show all points in both
    assert after < 0.1 * before and before > 0.5


def read_by_rows(camera: Camera, T_of: Callable[[float], np.ndarray], readout: float, rows: int = 16) -> np.ndarray:
    """(H, W, 3) uint8: the room by a camera that takes so many seconds for an image, some rows at a time.

    T_of: seconds from the image's moment -> T_world_camera.
    """
    image = np.empty((*camera.shape, 3), np.uint8)
    for row in range(0, camera.height, rows):
        late = readout * ((row + rows / 2) / camera.height - 0.5)
        image[row : row + rows] = render(camera, T_of(late)).color[row : row + rows]
    return image


@pytest.mark.slow
def test_an_image_is_as_if_all_its_rows_had_been_read_at_once():
    room, twist = open_sequence("room:frames=1,width=160,height=120"), 6 * TWIST
    T, readout = room.poses[0], np.array([0.0, 0.03])
    read = read_by_rows(room.camera, lambda late: T @ poses.exp(late * twist), readout[1], rows=8)
    undone = UnrolledSequence(room, readout, twist[None], float(np.median(room[0].depth)))
    once, rows, after = (
        image[10:-10, 10:-10].astype(float) for image in (room.color_of(0), read, undone._color(read, 0))
    )
    assert np.abs(after - once).mean() < 0.5 * np.abs(rows - once).mean()


def shaking(seconds: float) -> np.ndarray:
    """T_world_camera of the room's path in a hand that shakes by a degree."""
    return orbit(seconds) @ poses.exp(0.015 * np.array([0, 0, 0, *np.sin(seconds * np.array([25.0, 21.0, 17.0]))]))


@pytest.mark.slow
def test_a_film_that_is_read_row_by_row_is_tracked_as_if_it_were_not(monkeypatch):
    room, readout = RoomSequence(40, 320, 240, path=shaking), 0.03
    frames = [
        replace(frame, color=read_by_rows(room.camera, lambda late, t=frame.timestamp: shaking(t + late), readout, 24))
        for frame in room
    ]
    film, network = Changed(room, frames), KnowingNetwork(room)
    network.frames = {frame.color.tobytes(): frame for frame in frames}
    found = track_images(film, network)
    assert found.readout is not None
    np.testing.assert_allclose(found.readout, [[0, readout]], atol=0.006)
    monkeypatch.setattr(color_only_poses, "unrolled", lambda tracker, timestamps: (tracker, None))
    as_read = track_images(film, network)
    assert as_read.readout is None and found.residual < 0.7 * as_read.residual
    assert error(room, found, with_scale=True) < 0.3 * error(room, as_read, with_scale=True)


def test_what_is_read_of_a_frame_is_undone_alike_and_pixels_are_found_in_it():
    room, twists = open_sequence("room:frames=2,width=160,height=120"), np.tile(6 * TWIST, (2, 1))
    undone = UnrolledSequence(room, np.array([0.0, 0.03]), twists, 2.0)
    frame = undone[0]
    np.testing.assert_array_equal(frame.color, undone.color_of(0))
    np.testing.assert_array_equal(frame.depth, undone.depth_of(0))
    np.testing.assert_array_equal(frame.labels, undone.labels_of(0))
    places = undone.recorded_image(0).places
    u, v = 40, 100
    np.testing.assert_allclose(undone.shown_at(0, places[v, u][None].astype(float)), [[u, v]], atol=0.1)
    assert np.abs(places[v, u] - [u, v]).max() > 0.5
    np.testing.assert_array_equal(frame.depth, room[0].depth)  # another camera's
    carried = cv2.remap(room[0].labels, places, None, cv2.INTER_NEAREST, borderValue=255)
    np.testing.assert_array_equal(frame.labels, carried)
    u, v = np.array([[0, 0], [159, 119], [80, 0], [0, 60]]).T  # as exactly at the border
    np.testing.assert_allclose(undone.shown_at(0, places[v, u].astype(float)), np.column_stack([u, v]), atol=1.0)
    still = UnrolledSequence(room, np.array([0.0, 0.03]), 0.001 * twists, 2.0)
    np.testing.assert_array_equal(still.color_of(0), room.color_of(0))


def test_a_readout_is_kept_with_the_poses_and_with_the_recording(tmp_path):
    room = open_sequence("room:frames=3,width=160,height=120")
    found = FittedPoses(np.stack(room.poses), 2.5, 0.7, 0.01, 0.02, True, 0.0, 3.0, None, np.array([[0, 0.028]]), 2.0)
    save_kept(tmp_path / "fitted.npz", found, "settings")
    again = load_kept(tmp_path / "fitted.npz", FittedPoses, 3)
    assert again is not None and again.figures()["color_readout_s"] == pytest.approx(0.028)
    undone = again.calibrated(room)
    assert isinstance(undone, UnrolledSequence) and undone.twists.any()
    config = RunConfig(sequence="room:frames=3,width=160,height=120")
    kept = recording.remembered(RecallingSequence(undone), config, tmp_path)
    assert "shutter" in kept
    opened = recording.found_again(config, kept, tmp_path)
    np.testing.assert_array_equal(opened[1].color, undone[1].color)
