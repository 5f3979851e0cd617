"""What was read of frames to come, and what a network said of them, is remembered until it is asked again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from semslam.runs.color_only.recalling import MOST, RecallingNetwork, RecallingSequence
from sequences import open_sequence
from sequences.sequence import DerivedSequence

SIZE = (8, 6)


class Counting:
    """A network that notes what it is asked."""

    engine, same_for_any_threads = "none", True

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def __call__(self, image, size, focal, mirror_too=False):
        self.asked.append((int(image[0, 0, 0]), focal, mirror_too))
        return SimpleNamespace(depth=image[..., 0])


def image(grey: int) -> np.ndarray:
    return np.full((6, 8, 3), grey, np.uint8)


def test_the_same_image_is_computed_once_and_answered_twice():
    network = Counting()
    recalling = RecallingNetwork(network)
    first, second = (recalling(image(7), SIZE, 50.0, True) for _ in range(2))
    assert first is second and len(network.asked) == 1


def test_anything_else_that_is_asked_is_computed():
    network = Counting()
    recalling = RecallingNetwork(network)
    for grey, focal, mirror_too in ((7, 50.0, True), (8, 50.0, True), (7, 60.0, True), (7, 50.0, False)):
        recalling(image(grey), SIZE, focal, mirror_too)
    assert network.asked == [(7, 50.0, True), (8, 50.0, True), (7, 60.0, True), (7, 50.0, False)]


def test_old_answers_are_forgotten():
    network = Counting()
    recalling = RecallingNetwork(network)
    for grey in [*range(MOST + 1), 0]:
        recalling(image(grey), SIZE, 50.0)
    assert len(network.asked) == MOST + 2


def test_answers_of_large_images_are_forgotten_sooner_and_the_last_is_kept():
    network = Counting()
    recalling = RecallingNetwork(network)
    for grey in (0, 1, 2, 2, 0):
        recalling(image(grey), (4000, 3000), 50.0)
    assert [asked[0] for asked in network.asked] == [0, 1, 2, 0]


class Noting(DerivedSequence):
    """A recording that notes which of its frames are read."""

    def __init__(self, whole) -> None:
        super().__init__(whole)
        self.read: list[int] = []

    def read_without_labels(self, index: int):
        self.read.append(index)
        return super().read_without_labels(index)


def test_a_frame_is_read_once_and_given_twice():
    noting = Noting(open_sequence("room:frames=12,width=64,height=48"))
    recalling = RecallingSequence(noting)
    first, second = recalling.read_without_labels(3), recalling[3]
    assert second.color is first.color and noting.read == [3]
    np.testing.assert_array_equal(second.labels, noting.labels_of(3))
    assert recalling.read_without_labels(3).index == 3 and noting.read == [3, 3]


def test_frames_that_nobody_asked_for_again_are_forgotten():
    noting = Noting(open_sequence("room:frames=12,width=64,height=48"))
    recalling = RecallingSequence(noting)
    for index in [*range(MOST + 1), 0]:
        recalling.read_without_labels(index)
    assert noting.read == [*range(MOST + 1), 0]
