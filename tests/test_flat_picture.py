"""A photograph that a film pans over or zooms into is no room; a room through which a camera moves is no photograph."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from filmed_rooms import Changed
from stub_networks import BlindNetwork

from semslam.runs.color_only.following import depths_by
from semslam.runs.color_only.poses import track_images
from semslam.tracking.visual.flat_picture import is_flat_picture
from semslam.tracking.visual.visual_tracker import VisualTracker
from sequences import open_sequence
from sequences.room.room import orbit, render


class SlopingNetwork(BlindNetwork):
    """Knows no frame: everything is farther away the higher up it is."""

    def __call__(self, image, size, focal, mirror_too=False):
        answer = super().__call__(image, size, focal)
        answer.depth *= np.linspace(2, 0.7, size[1], dtype=np.float32)[:, None]
        return answer


@pytest.fixture(scope="module")
def photograph():
    return open_sequence("room:frames=1")[0].color


def panned(photograph: np.ndarray, count: int = 40) -> list[np.ndarray]:
    """Images (240, 320, 3) of a film that pans over a photograph (480, 640, 3) and zooms into it."""
    images = []
    for i in range(count):
        scale = 0.8 + 0.1 * i / count
        shift = -np.array([5.0, 3.0]) * i * scale
        affine = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        images.append(cv2.warpAffine(photograph, affine, (320, 240), flags=cv2.INTER_AREA))
    return images


def test_a_photograph_that_is_panned_over_makes_no_map(photograph):
    room = open_sequence("room:frames=1,width=320,height=240")
    frames = [replace(room[0], color=image) for image in panned(photograph)]
    with pytest.raises(ValueError, match="are one flat picture"):
        track_images(Changed(room, frames), SlopingNetwork())


def zoomed(photograph: np.ndarray, zoom: float, pan: float, count: int = 30) -> list[np.ndarray]:
    """Images (240, 320, 3) of a film that zooms into a photograph (480, 640, 3) about its middle, `zoom` times in all,
    and moves sideways by `pan` pixels an image."""
    images = []
    for scale, aside in zip(np.geomspace(1, zoom, count) * 0.6 / min(1, zoom), np.linspace(-0.5, 0.5, count)):
        affine = np.array([[scale, 0, 159.5 - 319.5 * scale - aside * pan * count], [0, scale, 119.5 - 239.5 * scale]])
        images.append(cv2.warpAffine(photograph, affine, (320, 240), flags=cv2.INTER_AREA))
    return images


@pytest.mark.parametrize(("zoom", "pan"), [(1.2, 2.0), (1.3, 0.0), (1.6, 0.0), (1.6, 2.0), (1 / 1.5, 0.0)])
def test_a_photograph_that_is_zoomed_into_is_no_walk_ahead(photograph, zoom, pan):
    room = open_sequence("room:frames=1,width=320,height=240")
    tracker = VisualTracker(room.camera, depths_by(SlopingNetwork(), room.camera))
    for i, image in enumerate(zoomed(photograph, zoom, pan)):
        tracker(i, image)
    tracker.finish()
    assert is_flat_picture(tracker.map)


def test_a_walk_ahead_is_no_photograph_that_is_zoomed_into():
    room = open_sequence("room:frames=1,width=320,height=240")
    tracker = VisualTracker(room.camera, depths_by(SlopingNetwork(), room.camera))
    T_world_camera = orbit(12.0)
    for i in range(30):
        T_world_camera[:3, 3] += 0.02 * T_world_camera[:3, 2]
        tracker(i, render(room.camera, T_world_camera).color)
    tracker.finish()
    assert len(tracker.map.keyframes) >= 3 and not is_flat_picture(tracker.map)


@pytest.mark.parametrize("what", ["a room", "a wall that is seen to be flat"])
def test_what_a_camera_moves_through_or_before_is_no_photograph(photograph, what):
    room = open_sequence("room:frames=40,width=320,height=240")
    images = [room.color_of(i) for i in range(40)] if what == "a room" else panned(photograph)
    network = SlopingNetwork() if what == "a room" else BlindNetwork()
    tracker = VisualTracker(room.camera, depths_by(network, room.camera))
    for i, image in enumerate(images):
        tracker(i, image)
    tracker.finish()
    assert len(tracker.map.keyframes) >= 5 and not is_flat_picture(tracker.map)
