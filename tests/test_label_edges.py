"""Labels of other images than the frames' own, or turned ones, are told; coarse ones and few are not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from semslam.doctor import label_edges
from semslam.frame import Frame
from sequences import Sequence, open_sequence
from sequences.sequence import DerivedSequence


@pytest.fixture(scope="module")
def room() -> Sequence:
    return open_sequence("room:frames=24,width=320,height=240")


class Relabelled(DerivedSequence):
    """The frames of the room with other labels."""

    def __init__(self, whole: Sequence, change) -> None:
        super().__init__(whole)
        self._change = change

    def _changed(self, frame: Frame, index: int) -> Frame:
        if frame.labels is None:
            return frame
        return replace(frame, labels=np.ascontiguousarray(self._change(frame.labels, index)))


def told(room: Sequence, change) -> list[str]:
    return [f"{f.level}: {f.what}" for f in label_edges.measured(Relabelled(room, change)).findings()]


@pytest.mark.slow
def test_labels_of_their_images_and_coarse_ones_are_sound(room) -> None:
    for change in (
        lambda labels, _: labels,
        lambda labels, _: np.roll(labels, 2, axis=1),
        lambda labels, _: cv2.resize(labels[::4, ::4], (320, 240), interpolation=cv2.INTER_NEAREST),
    ):
        gains = label_edges.measured(Relabelled(room, change))
        assert gains.findings() == [] and gains.told, gains


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda labels, _: labels[:, ::-1], "are mirrored"),
        (lambda labels, _: labels[::-1], "are upside down"),
        (lambda labels, _: labels[::-1, ::-1], "are turned by half"),
    ],
)
def test_turned_labels_are_told(room, change, said) -> None:
    (line,) = told(room, change)
    assert line.startswith("error: the label images") and said in line


@pytest.mark.parametrize("late", [2, -4])
def test_labels_that_are_a_few_frames_off_are_told(room, late) -> None:
    labels = [frame.labels for frame in room]
    (line,) = told(room, lambda _, index: labels[np.clip(index + late, 0, len(labels) - 1)])
    assert line.startswith("warning: the label images belong to colour images about")
    assert line.endswith("frames later" if late > 0 else "frames earlier")


def test_labels_of_other_frames_are_told(room) -> None:
    (line,) = told(room, lambda _, i: room.labels_of((i + 12) % 24))
    assert line.startswith("error: the label images are not of their colour images")


def test_few_labels_and_labels_without_boundaries_are_not_judged(room) -> None:
    one = label_edges.measured(Relabelled(room, lambda labels, _: np.full_like(labels, 3)))
    assert one.findings() == [] and not one.told
    assert label_edges.measured(open_sequence("room:frames=4,width=320,height=240")).told is False
