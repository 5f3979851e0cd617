"""Sequences that are made from another one: what they do not change is that one's."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semslam import config as configs
from semslam.comparison.comparison import open_comparisons
from semslam.comparison.variants import Settings
from semslam.frame import Frame
from semslam.images.bars import Window
from semslam.runs.config import RunConfig
from semslam.runs.recording import found_again, remembered
from sequences.rebased import RebasedSequence
from sequences.recalibrated import CroppedSequence, without_bars
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence
from sequences.selected import SelectedSequence
from sequences.sequence import DerivedSequence, Sequence

COMPUTED = {"trajectory", "has_labels", "has_poses", "numbers", "try_read"}  # from what is told


def test_all_that_a_sequence_tells_is_told_by_one_that_is_made_from_it():
    """What is added to `Sequence` must not end at the first sequence that is made from another one."""
    tells = {name for name in {*vars(Sequence), *Sequence.__annotations__} if not name.startswith("_")}
    assert tells - COMPUTED <= {*vars(DerivedSequence), *Sequence.__annotations__}
    room = RoomSequence(frames=4, width=32, height=24)
    room.ahead, room.decoders, room.packed_in, room.readout = 3, 5, (Path("a.bag"),), 0.02
    moved = RebasedSequence(room, room.poses, np.array([1.0, 2, 3]))
    part = SelectedSequence(moved, np.array([1, 3]))
    assert (part.ahead, part.decoders, part.packed_in, part.readout) == (3, 5, (Path("a.bag"),), 0.02)
    np.testing.assert_array_equal(part.world_origin, [1, 2, 3])


def test_frames_are_changed_by_one_after_the_other():
    room = RoomSequence(frames=4, width=32, height=24)
    part = SelectedSequence(RebasedSequence(room, room.poses, np.array([1.0, 2, 3])), np.array([1, 3]))
    frame, recorded = part[1], room[3]
    assert frame.index == 1 and frame.number == part.number_of(1) == 3
    np.testing.assert_array_equal(frame.color, recorded.color)
    np.testing.assert_array_equal(part.depth_of(1), recorded.depth)
    np.testing.assert_allclose(frame.T_world_camera[:3, 3], recorded.T_world_camera[:3, 3] - [1, 2, 3])


class Barred(DerivedSequence):
    """A recording that was fitted into a wider or higher shape with black bars, and fades in from black."""

    def __init__(self, whole: Sequence, top: int = 0, left: int = 0, noise: int = 0) -> None:
        super().__init__(whole)
        self.top, self.left, self.noise, c = top, left, noise, whole.camera
        self.camera = replace(
            c, width=c.width + 2 * left, height=c.height + 2 * top, cx=c.cx + left, cy=c.cy + top, focal_known=False
        )

    def color_of(self, index: int) -> np.ndarray:
        image = super().color_of(index) * (index > 0)
        barred = np.pad(image, ((self.top, self.top), (self.left, self.left), (0, 0)))
        noise = np.random.default_rng(index).integers(0, self.noise + 1, barred.shape)
        return np.clip(barred + noise, 0, 255).astype(np.uint8)

    def _changed(self, frame: Frame, index: int) -> Frame:
        edges = (self.top, self.top), (self.left, self.left)
        depth, labels = (None if x is None else np.pad(x, edges) for x in (frame.depth, frame.labels))
        return replace(frame, color=self.color_of(index), depth=depth, labels=labels, camera=self.camera)


@pytest.fixture
def barred(tmp_path) -> Path:
    """The folder of a recording of 160x160 pixels, of which the middle 120 rows show a room."""
    filmed = Barred(RoomSequence(frames=3, width=160, height=120), 20)
    filmed.camera = replace(filmed.camera, focal_known=True)
    return write_folder(filmed, tmp_path / "barred")


@pytest.mark.parametrize(("top", "left", "noise"), [(20, 0, 0), (0, 32, 6), (8, 16, 3)])
def test_bars_along_the_edges_of_all_images_are_cut_off(top, left, noise, caplog):
    room = RoomSequence(frames=6, width=160, height=120)
    plain = without_bars(Barred(room, top, left, noise))
    camera = plain.camera
    assert 0 <= room.camera.width - camera.width <= 4 and 0 <= room.camera.height - camera.height <= 4
    assert plain.color_of(3).shape[:2] == camera.shape
    assert f"{camera.width}x{camera.height} of {160 + 2 * left}x{120 + 2 * top}" in caplog.text


def test_a_run_finds_its_recording_with_the_bars_that_it_had(barred, tmp_path):
    as_recorded = RunConfig(sequence=str(barred))
    without = configs.updated(as_recorded, {"bars": True}, "test")
    whole, cut = as_recorded.open_sequence(), without.open_sequence()
    assert whole.camera.height == 160 and 116 <= cut.camera.height <= 120
    for first, then in ((whole, without), (cut, as_recorded)):  # whatever bars would be seen now
        again = found_again(then, remembered(first, as_recorded, tmp_path), tmp_path)
        assert again.camera == first.camera
        np.testing.assert_array_equal(again.color_of(1), first.color_of(1))


def test_all_variants_of_a_barred_recording_are_made_without_bars(barred, tmp_path):
    (all_,) = open_comparisons([str(barred)], tmp_path / "all", Settings())
    assert all_.base.bars and all_.sequence.camera.height <= 120
    assert "bars=true" in all_.commands(all_.variants[0])[0]
    (sensor,) = open_comparisons([str(barred)], tmp_path / "sensor", Settings(), "sensor")
    assert sensor.base.bars is None and sensor.sequence.camera.height == 160


def test_an_even_area_along_one_edge_is_no_bar():
    """A white ceiling, a blown-out sky, or a dark floor."""
    room = RoomSequence(frames=6, width=160, height=120)

    class Ceiling(DerivedSequence):
        def color_of(self, index: int) -> np.ndarray:
            image = super().color_of(index).copy()
            image[:30] = 255
            return image

    ceiling = Ceiling(room)
    assert without_bars(ceiling) is ceiling


def test_what_is_left_between_bars_has_the_camera_that_took_it():
    room = RoomSequence(frames=4, width=160, height=120)
    cut = CroppedSequence(room, Window(10, 20, 150, 118))
    frame, whole = cut[2], room[2]
    np.testing.assert_array_equal(frame.depth, whole.depth[20:118, 10:150])
    np.testing.assert_array_equal(cut.depth_of(2), frame.depth)
    np.testing.assert_array_equal(cut.labels_of(2), frame.labels)
    np.testing.assert_array_equal(cut.color_of(2), frame.color)
    np.testing.assert_allclose(
        frame.camera.backproject(frame.depth), room.camera.backproject(whole.depth)[20:118, 10:150], atol=1e-6
    )


def test_images_without_bars_are_left_alone_and_looked_at_once(monkeypatch):
    room = RoomSequence(frames=6, width=160, height=120)
    asked: list[int] = []
    read = RoomSequence.color_of
    monkeypatch.setattr(RoomSequence, "color_of", lambda self, i: (asked.append(i), read(self, i))[1])
    assert without_bars(room) is room and asked == [0]


def test_the_benchmark_of_filling_takes_depth_away_however_it_is_read():
    benchmark = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "filling.py"))
    room = RoomSequence(frames=2, width=64, height=48)
    holed = benchmark["WithoutCubes"](room, {1: room.poses[1]})
    np.testing.assert_array_equal(holed.depth_of(0), room.depth_of(0))
    np.testing.assert_array_equal(holed.depth_of(1), holed[1].depth)
    assert 0 < (holed.depth_of(1) > 0).sum() < (room.depth_of(1) > 0).sum()
