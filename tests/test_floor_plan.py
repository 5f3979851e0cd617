"""Floor plans: what stands where, with the walls along their sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_maps import NYU13, ROOM, path_through_room, room

from semslam import images
from semslam.rendering.floor_plan import floor_height, floor_plan, scale_bar_length, wall_heading, write_floor_plan
from semslam.rendering.viewpoint import level_axes


@pytest.fixture(scope="module")
def cloud():
    return room()


def test_a_plan_shows_the_furniture_where_it_stands_and_not_the_ceiling(cloud, tmp_path):
    plan = floor_plan(cloud, NYU13, paths=[path_through_room()], pixels=300)
    labels = plan.labels
    assert NYU13.id_of("ceiling") not in labels
    T = np.linalg.inv(plan.T_world_plan)
    x, y = (T @ [1.5, 1.2, 0.75, 1])[:2], (T @ [2.5, 0.5, 0, 1])[:2]
    low = (T @ [*ROOM, 1])[:2], (T @ [0, 0, 0, 1])[:2]
    corner = np.minimum(*low)
    border = (np.array(labels.shape[::-1]) - np.ptp(low, axis=0) * plan.pixels_per_metre) / 2
    for place, name in ((x, "table"), (y, "floor")):
        u, v = np.round((place - corner) * plan.pixels_per_metre + border).astype(int)
        assert labels[v, u] == NYU13.id_of(name)
    table = (labels == NYU13.id_of("table")).sum() / plan.pixels_per_metre**2
    assert table == pytest.approx(0.8, rel=0.1)
    assert max(plan.image.shape) in (300, 301)
    write_floor_plan(tmp_path / "plan.png", plan, NYU13, title="room")
    assert (tmp_path / "plan.png").stat().st_size > 5000


def test_a_long_title_and_legend_fit_a_small_plan(cloud, tmp_path):
    plan = floor_plan(cloud, NYU13, pixels=60)
    write_floor_plan(tmp_path / "short.png", plan, NYU13)
    write_floor_plan(tmp_path / "long.png", plan, NYU13, title="a name of a run that is wider than its plan, by far")
    short, long = (images.read_color(tmp_path / f"{name}.png") for name in ("short", "long"))
    assert long.shape[1] > short.shape[1]
    for picture in (short, long):
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert (edge == 255).all(), "nothing is cut off"


def test_a_street_of_150_metres_has_a_floor_plan(cloud) -> None:
    far = cloud.selected(np.arange(len(cloud)))
    far.positions[:] *= np.float32(150 / np.ptp(far.positions, axis=0).max())
    assert 1 < floor_plan(far, NYU13, pixels=300).pixels_per_metre < 2.1


def test_walls_run_along_the_sides_of_a_plan_however_the_room_is_turned(cloud):
    angle = 0.4
    R = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]], np.float32)
    turned = replace(cloud, positions=cloud.positions @ R.T, normals=cloud.normals @ R.T)
    axes = level_axes(np.array([0, 0, 1.0]))
    difference = wall_heading(turned, axes) - wall_heading(cloud, axes) - angle
    assert np.angle(np.exp(4j * difference)) / 4 == pytest.approx(0, abs=1e-3)


def test_the_floor_is_found_with_and_without_its_label(cloud):
    up = np.array([0, 0, 1.0])
    bare = replace(cloud, class_probabilities=None)
    assert floor_height(cloud, NYU13, up) == pytest.approx(0, abs=1e-6)
    assert floor_height(bare, NYU13, up) == pytest.approx(0, abs=1e-6)


def test_scale_bars_are_round_numbers_of_at_most_a_third():
    assert [scale_bar_length(m) for m in (0.9, 3, 4, 7, 17, 60)] == pytest.approx([0.2, 1, 1, 2, 5, 20])
