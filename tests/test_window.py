"""The window: its keys, its classes, and two of them side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_maps import NYU13, SMALL, path_through_room, room, viewed_room

from semslam.looking.shapes import FRUSTUM_EVERY, MOST_FRUSTA, frustum_lines, frustum_shapes, surfel_quads
from semslam.looking.side_by_side import view
from semslam.looking.viewed import Viewed, legend_lines
from semslam.looking.window import KEYS, MapWindow, Switches, key_help
from semslam.rendering.viewpoint import look_at, pyramid_depth


@pytest.fixture(scope="module")
def viewed():
    return viewed_room(room())


@pytest.fixture(scope="module")
def cloud(viewed):
    return viewed.cloud


@pytest.fixture
def window(viewed):
    lines: list[str] = []
    try:
        window = MapWindow(viewed, width=320, height=240, visible=False, report=lines.append)
    except RuntimeError as error:
        pytest.skip(str(error))
    window.lines = lines
    yield window
    window.close()


def test_every_key_does_something_that_exists(window):
    for key, (_, meaning) in KEYS.items():
        if meaning != "close":
            window.press(key)
            assert window.poll(), (key, meaning)
    assert len(key_help()) == len(KEYS)
    window.press("Q")
    assert not window.poll()


def test_the_window_shows_classes_hides_them_and_looks_where_it_is_told(window, cloud):
    window.press("D")
    window.press("T")
    window.show("label")
    window.poll()
    floor = NYU13.colors[NYU13.id_of("floor")]
    assert (np.abs(window.image().astype(int) - floor) <= 2).all(axis=-1).sum() > 500
    while window.classes()[window.chosen] != NYU13.id_of("floor"):
        window.press(".")
    window.press("X")
    assert window.lines[-1] == "floor (hidden)"
    window.poll()
    assert (np.abs(window.image().astype(int) - floor) <= 2).all(axis=-1).sum() == 0
    window.press("A")
    window.poll()
    assert (np.abs(window.image().astype(int) - floor) <= 2).all(axis=-1).sum() > 500

    T = path_through_room()[5]
    window.look_from(T)
    np.testing.assert_allclose(window.pose(), T, atol=1e-6)
    window.update(window.viewed)  # a newer map does not move the viewer
    np.testing.assert_allclose(window.pose(), T, atol=1e-6)


def test_picking_names_the_class_under_the_pointer(window):
    window.look_from(look_at(np.array([1.5, 1.2, 2.2]), np.array([1.5, 1.2, 0.75]), np.array([0, 1.0, 0])))
    window.poll()
    line = window.described(160, 120)
    assert "table 0.90" in line and "0.7" in line and "confidence" in line
    window.look_from(look_at(np.array([1.5, 1.2, 9]), np.array([1.5, 1.2, 20]), np.array([0, 1.0, 0])))
    assert window.described(160, 120) == "nothing there"


def test_an_error_view_needs_a_comparison(window, cloud):
    window.show("error")
    assert "reference" in window.lines[-1]
    window.viewed = Viewed(cloud, NYU13)
    window.show("error")
    assert "not compared" in window.lines[-1]


def test_two_maps_share_one_camera(viewed, monkeypatch):
    """Turning one window turns the other; closing one ends the comparison."""
    opened: list[MapWindow] = []
    polls = 0
    real_poll = MapWindow.poll

    def poll(self):
        nonlocal polls
        if self not in opened:
            opened.append(self)
        polls += 1
        alive = real_poll(self)
        if polls == 3:  # the user turns the first window
            self.look_from(path_through_room()[2])
        return alive and polls < 9

    monkeypatch.setattr(MapWindow, "poll", poll)
    monkeypatch.setattr(MapWindow, "open_legend", lambda self: None)
    poses = []
    monkeypatch.setattr(MapWindow, "close", lambda self: (poses.append(self.pose()), self._vis.destroy_window()))
    try:
        view([viewed, viewed], "color", (), print)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert len(opened) == 2 and len(poses) == 2
    np.testing.assert_allclose(poses[0], path_through_room()[2], atol=1e-5)
    np.testing.assert_allclose(poses[1], poses[0], atol=1e-5)


def test_a_switch_of_one_window_switches_the_other(viewed, monkeypatch):
    opened: list[MapWindow] = []
    polls = 0
    real_poll, real_close = MapWindow.poll, MapWindow.close
    seen = []

    def poll(self):
        nonlocal polls
        if self not in opened:
            opened.append(self)
        polls += 1
        alive = real_poll(self)
        if polls == 4:  # in the second window
            self.show("entropy")
            self.switch(replace(self.switches, hidden=frozenset({"ceiling"})))
        return alive and polls < 9

    monkeypatch.setattr(MapWindow, "poll", poll)
    monkeypatch.setattr(MapWindow, "open_legend", lambda self: None)
    monkeypatch.setattr(MapWindow, "close", lambda self: (seen.append(self.switches), real_close(self)))
    try:
        view([viewed, viewed], "label", (), print)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert len(seen) == 2 and seen[0] == seen[1]
    assert seen[0] == Switches("entropy", frozenset({"ceiling"}))


def test_the_first_window_is_closed_when_the_second_cannot_be_made(viewed, monkeypatch):
    made, closed = [], []

    class Window:
        def __init__(self, viewed, report):
            if made:
                raise RuntimeError("no second window")
            made.append(self)

        def close(self):
            closed.append(self)

    monkeypatch.setattr("semslam.looking.side_by_side.MapWindow", Window)
    with pytest.raises(RuntimeError, match="no second window"):
        view([viewed, viewed], "color", (), print)
    assert closed == made and len(made) == 1


def test_lines_of_the_legend_and_shapes_have_the_right_size(viewed, cloud):
    assert any("floor" in line for line in legend_lines(viewed))
    vertices, triangles = surfel_quads(cloud.selected(np.arange(5)))
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a) / 2
    areas = np.linalg.norm(cross, axis=1).reshape(5, 2).sum(axis=1)
    np.testing.assert_allclose(areas, np.pi * cloud.radii[:5] ** 2, rtol=1e-5)  # as large as the disks
    assert (np.einsum("ij,ij->i", cross, np.repeat(cloud.normals[:5], 2, axis=0)) > 0).all()  # seen from the front
    points, lines = frustum_lines(SMALL, np.eye(4), 0.12)
    assert points.shape == (5, 3) and lines.shape == (8, 2)
    np.testing.assert_allclose(points[1:, 2], 0.12)
    np.testing.assert_allclose(SMALL.project(points[1:])[0], [-0.5, -0.5])


def test_cameras_are_drawn_as_large_as_the_map_asks_for_and_not_without_end(cloud):
    assert pyramid_depth(cloud) == 0.12
    street = replace(cloud, positions=20 * cloud.positions, radii=20 * cloud.radii)
    assert 0.5 < pyramid_depth(street) < 2
    still = np.tile(np.eye(4), (FRUSTUM_EVERY * MOST_FRUSTA * 2, 1, 1))
    assert len(frustum_shapes(SMALL, still[: FRUSTUM_EVERY * 7], 0.1)) == 7
    assert len(frustum_shapes(SMALL, still, 0.1)) == MOST_FRUSTA
