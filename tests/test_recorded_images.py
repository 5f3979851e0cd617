"""Where a lens or a zoom is undone, a network is shown the images as they were recorded."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from semslam.camera import Camera
from semslam.frame import RecordedImage, at_places
from semslam.images.bars import Window
from semslam.perception import Perception, PerceptionConfig, predicted
from sequences import open_sequence
from sequences.recalibrated import CroppedSequence, StraightenedSequence, UnzoomedSequence, straightened
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.selected import selected

ROOM = "room:frames=2,width=160,height=120"


class SlantedNetwork:
    """Sees the same slanted plane in whatever it is shown, and remembers what that was."""

    engine, same_for_any_threads = "none", True

    def __init__(self) -> None:
        self.shown: list[tuple[np.ndarray, float]] = []

    def __call__(self, image, size, focal, mirror_too=False):
        self.shown.append((image, focal))
        u, v = np.meshgrid(*((np.arange(n, dtype=np.float32) + 0.5) / n for n in size))
        depth = 1 + u + 2 * v
        return SimpleNamespace(depth=depth, depth_confidence=u, class_probabilities=np.stack([u, 1 - u], axis=2))


def bent_room() -> StraightenedSequence:
    room = open_sequence(ROOM)
    return StraightenedSequence(room, replace(room.camera, cx=85.0, distortion=(-0.2, 0.03, 0.0, 0.0)))


def seen_in_recorded(camera: Camera, lens: Camera, pixel: tuple[float, float]) -> np.ndarray:
    ray = np.linalg.inv(camera.K) @ [*pixel, 1]
    return cv2.projectPoints(ray[None], np.zeros(3), np.zeros(3), lens.K, np.array(lens.distortion))[0].ravel()


@pytest.mark.parametrize("width", [160, 80])
def test_pixels_as_recorded_are_where_the_reader_that_undoes_the_lens_shows_them(tmp_path, width):
    """An image file of a lens that bends, and frames that are decoded to another size."""
    lens = Camera(160, 120, 120.0, 120.0, 85.0, 59.5, distortion=(-0.3, 0.1, 0.0, 0.0))
    (tmp_path / "color").mkdir()
    image = np.zeros((120, 160, 3), np.uint8)
    image[20, 30] = 255
    for k in range(2):
        cv2.imwrite(str(tmp_path / "color" / f"{k:06d}.png"), image)
    (tmp_path / "camera.yaml").write_text(
        "width: 160\nheight: 120\nfx: 120\nfy: 120\ncx: 85\ncy: 59.5\ndistortion: [-0.3, 0.1, 0, 0]\n"
    )
    recording = open_sequence(tmp_path)
    if width != 160:
        rig = Rig(lens, lens.undistorted().resized(width, width * 3 // 4))
        recording = DecodedSequence("film", rig, np.arange(2.0), lambda index: Images(image))
    grey = recording.color_of(0)[..., 0].astype(float)
    v, u = np.mgrid[: grey.shape[0], : grey.shape[1]]
    shown = selected(recording, every=2).shown_at(0, np.array([[30.0, 20.0]]))[0]
    np.testing.assert_allclose(shown, [(u * grey).sum() / grey.sum(), (v * grey).sum() / grey.sum()], atol=0.4)
    assert recording.recorded_camera(0).shape == (120, 160)


@pytest.mark.parametrize("width", [160, 80])
def test_depth_of_a_straightened_frame_is_what_the_network_says_of_the_recorded_one(width):
    straight, network = bent_room(), SlantedNetwork()
    perceive = Perception(PerceptionConfig(depth="predicted", width=width), straight.camera, None, network)
    frame = straight[1]
    depth = perceive.observe(frame, True).depth
    np.testing.assert_array_equal(network.shown[0][0], straight.whole.color_of(1))
    assert network.shown[0][1] == pytest.approx(straight.lens.fx)
    for u, v in ((30, 100), (140, 20), (80, 60)):
        x, y = seen_in_recorded(perceive.camera.resized(160, 120), straight.lens, (u, v))
        at = (u + 0.5) * width / 160 - 0.5, (v + 0.5) * width / 160 - 0.5
        there = at_places(depth, np.array([[at]], np.float32))[0, 0]
        assert there == pytest.approx(1 + (x + 0.5) / 160 + 2 * (y + 0.5) / 120, abs=0.01)


def test_a_zoom_undone_in_straightened_images_leads_back_to_the_recorded_ones():
    straight = bent_room()
    zoomed = UnzoomedSequence(straight, np.array([1.0, 1.25]))
    recorded = zoomed.recorded_image(0)
    np.testing.assert_array_equal(recorded.color, straight.whole.color_of(0))
    assert recorded.zoom == pytest.approx(straight.lens.fx / zoomed.camera.fx)
    expected = seen_in_recorded(zoomed.camera, straight.lens, (20, 90))
    np.testing.assert_allclose(recorded.places[90, 20], expected, atol=0.02)
    np.testing.assert_array_equal(zoomed[0].recorded.places, recorded.places)
    np.testing.assert_allclose(zoomed.recorded_image(1).places[90, 20], straight.recorded_image(1).places[90, 20])


def test_images_as_recorded_are_shown_as_they_are():
    room, network = open_sequence(ROOM), SlantedNetwork()
    assert room.recorded_image(0) is None and room[0].recorded is None
    color = room.color_of(0)
    found = predicted(network, color, (80, 60), 100.0, None)
    assert network.shown[0][0] is color and network.shown[0][1] == 100.0
    same = RecordedImage(color, 1.0, np.stack(np.meshgrid(np.arange(160), np.arange(120)), axis=2).astype(np.float32))
    again = predicted(network, color, (80, 60), 100.0, same)
    np.testing.assert_allclose(again.depth, found.depth, atol=1e-5)
    np.testing.assert_allclose(again.class_probabilities, found.class_probabilities, atol=1e-5)
    assert straightened(replace(room.camera, distortion=(0.0, 0.0, 0.0, 0.0))).fx == pytest.approx(room.camera.fx)


def test_pixels_of_a_recorded_image_are_found_where_its_resampled_one_shows_them():
    """Through a lens, a zoom and bars that were undone one after the other."""
    straight = bent_room()
    zoomed = UnzoomedSequence(straight, np.array([1.0, 1.25]))
    for index in (0, 1):
        places = zoomed.recorded_image(index).places
        for u, v in ((80, 60), (20, 90), (140, 15)):
            np.testing.assert_allclose(zoomed.shown_at(index, places[v, u][None]), [(u, v)], atol=0.02)
    cut = CroppedSequence(zoomed, Window(10, 20, 150, 110))
    shown = zoomed.shown_at(0, np.array([[50.0, 60.0]]))
    np.testing.assert_allclose(cut.shown_at(0, np.array([[50.0, 60.0]])), shown - (10, 20))
