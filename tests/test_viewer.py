"""Pictures of maps: what is drawn is what is there."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from synthetic_maps import COLORS, NYU13, ROOM, SMALL, cloud_of, path_through_room, plane, room, viewed_room
from variants import one_fast

from semslam.camera import Camera
from semslam.cloud import joined
from semslam.frame import UNLABELLED
from semslam.labels import LABEL_SETS
from semslam.looking.picture import render_png
from semslam.looking.shapes import path_shapes
from semslam.rendering.coloring import COLORINGS, UNLABELLED_COLOR, graded
from semslam.rendering.legend import classes_present, legend_image
from semslam.rendering.pictures import (
    BACKGROUND,
    PATH_COLOR,
    draw_path,
    draw_paths,
    gain_of,
    picture,
    picture_camera,
    preview,
    shown_colors,
    without_specks,
)
from semslam.rendering.splatting import painted, render
from semslam.rendering.viewpoint import framed, look_at, overview, raised_direction, swing, thinned

UP = np.array([0, 0, 1.0])


@pytest.fixture(scope="module")
def cloud():
    return room()


@pytest.fixture(scope="module")
def viewed(cloud):
    return viewed_room(cloud)


def read_png(path) -> np.ndarray:
    import cv2

    return cv2.imread(str(path))[..., ::-1]


# the renderer


def slow_render(cloud, camera, T_world_camera, cull_back, orthographic):
    """Every pixel against every disk, in float64."""
    T = np.linalg.inv(T_world_camera)
    points, normals = cloud.positions @ T[:3, :3].T + T[:3, 3], cloud.normals @ T[:3, :3].T
    depth = np.full(camera.shape, np.inf)
    index = np.full(camera.shape, -1)
    rays = camera.backproject(np.ones(camera.shape, np.float64))
    for i, (p, n, r) in enumerate(zip(points, normals, cloud.radii.astype(np.float64))):
        if (not orthographic and p[2] < 0.05) or (cull_back and (-n[2] if orthographic else -n @ p) <= 0):
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            if orthographic:
                hit = rays.copy()
                hit[..., 2] = (n @ p - rays[..., :2] @ n[:2]) / n[2]
            else:
                hit = rays * ((n @ p) / (rays @ n))[..., None]
        scale = 1 if orthographic else 1 / p[2]
        centre = np.zeros(camera.shape, bool)
        u, v = (camera.fx * p[0] * scale + camera.cx, camera.fy * p[1] * scale + camera.cy)
        u, v = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
        if 0 <= u < camera.width and 0 <= v < camera.height:
            centre[v, u] = True
        inside = ((hit - p) ** 2).sum(axis=-1) <= r * r
        z = np.where(inside, hit[..., 2], np.where(centre, p[2], np.inf))
        nearer = z < depth
        depth[nearer], index[nearer] = z[nearer], i
    return index, depth


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("cull_back", [False, True])
def test_the_fast_renderer_draws_what_the_obvious_loop_draws(orthographic, cull_back):
    rng = np.random.default_rng(3)
    positions = rng.uniform([-1, -0.8, -0.5], [1, 0.8, 3], (150, 3))
    normals = rng.normal(size=(150, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    cloud = cloud_of([("wall", positions, normals)], 0.1)
    cloud.radii[:] = rng.uniform(0.001, 0.2, 150)
    T = look_at(np.array([0.1, -0.05, -0.3]), np.array([0, 0, 2.0]), np.array([0.1, -1, 0]))
    camera = Camera(64, 48, 30.0, 30.0, 31.5, 23.5) if orthographic else Camera(64, 48, 50.0, 52.0, 30.0, 25.0)
    fast = render(cloud, camera, T, cull_back=cull_back, orthographic=orthographic)
    index, depth = slow_render(cloud, camera, T, cull_back, orthographic)
    same = fast.index == index
    assert (index >= 0).sum() > 500
    assert same.mean() > 0.995  # a ray may graze a rim on this side in float32 and on that in float64
    drawn = same & (index >= 0)
    np.testing.assert_allclose(fast.depth[drawn], depth[drawn], atol=2e-3)


def test_a_picture_is_the_same_for_any_number_of_threads(cloud):
    import numba

    T = path_through_room()[3]
    threads = numba.get_num_threads()
    pictures = []
    for count in (1, threads):
        numba.set_num_threads(count)
        pictures.append(render(cloud, SMALL, T))
    numba.set_num_threads(threads)
    np.testing.assert_array_equal(pictures[0].index, pictures[1].index)
    np.testing.assert_array_equal(pictures[0].depth, pictures[1].depth)


def test_the_depth_of_a_wall_is_its_distance():
    wall = cloud_of([("wall", *plane((-2, -2, 2), (0, 4, 0), (4, 0, 0), 0.02))], 0.02)  # faces a camera at 0
    drawn = render(wall, SMALL, np.eye(4))
    assert (drawn.index >= 0).all()
    np.testing.assert_allclose(drawn.depth, 2, atol=1e-5)
    assert (render(wall, SMALL, look_at(np.array([0, 0, 4.0]), np.zeros(3), UP + [0, 1, 0])).index < 0).all()


def test_an_empty_map_is_drawn_as_background(cloud):
    nothing = cloud.selected(np.zeros(len(cloud), bool))
    drawn = render(nothing, SMALL, np.eye(4))
    assert (painted(drawn, nothing.colors, (1, 2, 3)) == (1, 2, 3)).all()


# where to stand


def test_looking_at_a_point_puts_it_in_the_middle_of_the_image_and_up_at_the_top():
    T = look_at(np.array([1.0, 2, 3]), np.array([4.0, -1, 1]), UP)
    T_inv = np.linalg.inv(T)
    target, above = (T_inv @ [4, -1, 1, 1])[:3], (T_inv @ [4, -1, 2, 1])[:3]
    np.testing.assert_allclose(SMALL.project(target), [SMALL.cx, SMALL.cy], atol=1e-9)
    assert SMALL.project(above)[1] < SMALL.cy
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    assert np.isfinite(look_at(np.zeros(3), UP, UP)).all()  # straight up


def test_a_framed_map_fills_the_image_with_the_path_inside(cloud):
    path = path_through_room()[:, :3, 3]
    T = framed(cloud.positions, raised_direction(UP, 0.7, 0.6), UP, SMALL, path)
    for points, all_inside in ((cloud.positions, 0.98), (path, 1.0)):
        local = (np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(T).T)[:, :3]
        u, v = SMALL.project(local).T
        inside = (u > -0.5) & (u < SMALL.width - 0.5) & (v > -0.5) & (v < SMALL.height - 0.5) & (local[:, 2] > 0)
        assert inside.mean() >= all_inside
        if points is cloud.positions:
            used = max(np.ptp(u) / SMALL.width, np.ptp(v) / SMALL.height)
            assert used > 0.85


def test_the_overview_stands_above_and_sees_the_floor_of_a_closed_room(cloud):
    T = overview(cloud, SMALL, UP, trajectory=path_through_room())
    assert T[2, 3] > ROOM[2]
    assert T[1, 3] < 0  # the cameras looked along y: so does the viewer
    seen = render(cloud, SMALL, T).index
    labels = cloud.labels()[seen[seen >= 0]]
    assert {NYU13.id_of(name) for name in ("floor", "wall", "table", "bed")} <= set(labels)
    assert NYU13.id_of("ceiling") not in labels


def test_what_lies_far_away_and_was_hardly_measured_does_not_shrink_the_picture(cloud):
    remote = cloud.selected(np.arange(len(cloud)) % 20 == 0)
    remote.positions[:] += [0, 0, 30]
    remote.confidence[:] = 0.001 * cloud.confidence.mean()
    alone, both = (
        overview(part, SMALL, UP, trajectory=path_through_room()) for part in (cloud, joined([cloud, remote]))
    )
    np.testing.assert_allclose(both, alone, atol=0.2)
    remote.confidence[:] = cloud.confidence.mean()
    assert overview(joined([cloud, remote]), SMALL, UP)[2, 3] > alone[2, 3] + 10  # well measured, it is shown


def test_a_film_goes_all_the_way_around_what_is_seen_from_all_sides(cloud):
    views = swing(cloud, SMALL, UP, 8)
    looking = views[:, :2, 2] / np.linalg.norm(views[:, :2, 2], axis=1, keepdims=True)
    np.testing.assert_allclose(looking[:4], -looking[4:], atol=1e-6)
    assert (views[:, 2, 3] > ROOM[2]).all()


def test_a_film_of_an_open_map_goes_to_and_fro_before_it_and_never_behind():
    wall = cloud_of([(None, *plane((-2, 2, 0), (4, 0, 0), (0, 0, 2), 0.05))], 0.05)
    views = swing(wall, SMALL, UP, 24)
    assert (views[:, 1, 3] < 2).all()  # in front
    assert np.ptp(views[:, 0, 3]) > 1 and np.abs(np.diff(views[:, 0, 3])).max() < 2  # steadily
    best = overview(wall, SMALL, UP)
    np.testing.assert_allclose(views[0][:3, 2], best[:3, 2], atol=1e-6)
    for T in views:
        assert (render(wall, SMALL, T).index >= 0).mean() > 0.1  # it fills the picture


def test_thinning_keeps_the_surface_covered(cloud):
    thin = thinned(cloud, 1000)
    assert len(thin) == 1000
    assert np.sum(thin.radii**2) == pytest.approx(np.sum(cloud.radii**2), rel=1e-3)
    assert cloud.radii.max() < thin.radii.max()  # the map itself is left alone


# colours


def test_every_coloring_colours_every_surfel(cloud):
    for name, coloring in COLORINGS.items():
        colors = coloring(cloud, NYU13)
        assert colors.shape == (len(cloud), 3) and colors.dtype == np.uint8, name
        assert len(coloring(cloud.selected(np.zeros(len(cloud), bool)), NYU13)) == 0


def test_labels_are_shown_in_the_colours_of_the_legend(cloud):
    colors = COLORINGS["label"](cloud, NYU13)
    table = cloud.labels() == NYU13.id_of("table")
    assert (colors[table] == NYU13.colors[NYU13.id_of("table")]).all()
    assert (colors[cloud.labels() == UNLABELLED] == UNLABELLED_COLOR).all()
    with pytest.raises(ValueError, match="no coloring 'mood'; there are color"):
        shown_colors(cloud, NYU13, "mood", np.eye(4))


def test_a_scale_runs_from_its_low_to_its_high_colour_and_marks_what_has_no_value():
    colors = graded(np.array([-1, 0, 5, 10, 99, np.nan]), 0, 10)
    assert (colors[0] == colors[1]).all() and (colors[3] == colors[4]).all()
    assert len({tuple(c) for c in colors}) == 4
    assert tuple(colors[5]) == UNLABELLED_COLOR


def test_the_legend_counts_surface_and_not_surfels():
    parts = [
        ("floor", *plane((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.02)),
        ("wall", *plane((0, 0, 0), (0, 1, 0), (0, 0, 1), 0.04)),
    ]
    cloud = cloud_of(parts, 0.02)
    cloud.radii[cloud.labels() == NYU13.id_of("wall")] *= 2
    assert dict(classes_present(cloud, NYU13)) == {
        NYU13.id_of("floor"): pytest.approx(0.5, abs=0.02),
        NYU13.id_of("wall"): pytest.approx(0.5, abs=0.02),
    }


# pictures


def test_a_preview_shows_the_room_its_labels_and_its_legend(cloud, tmp_path):
    preview(tmp_path / "preview.png", cloud, NYU13, title="a room", paths=[path_through_room()])
    preview(tmp_path / "again.png", cloud, NYU13, title="a room", paths=[path_through_room()])
    assert (tmp_path / "preview.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    image = read_png(tmp_path / "preview.png")
    assert image.shape[1] > 1.8 * image.shape[0]
    left, right = np.split(image[60:-80], [image.shape[1] // 2], axis=1)
    pixels = {tuple(c) for c in image.reshape(-1, 3)[::7]}
    assert tuple(BACKGROUND) in pixels and len(pixels) > 100
    assert (left == COLORS["table"]).all(axis=-1).sum() > 2000
    assert (right == COLORS["table"]).all(axis=-1).sum() == 0
    legend = image[-60:]
    for name in ("floor", "wall", "table", "bed"):
        assert (legend == NYU13.colors[NYU13.id_of(name)]).all(axis=-1).sum() > 50, name


def test_the_preview_of_a_dim_map_is_brightened_and_its_labels_are_not(cloud, tmp_path):
    dim = replace(cloud, colors=cloud.colors // 8)
    assert gain_of(cloud.colors) == 1 < gain_of(dim.colors) and gain_of(np.zeros((0, 3), np.uint8)) == 1
    preview(tmp_path / "bright.png", cloud, NYU13)
    preview(tmp_path / "dim.png", dim, NYU13)
    images = [read_png(tmp_path / name)[60:-80].astype(int) for name in ("bright.png", "dim.png")]
    (left, right), (brightened, same) = (np.split(image, [image.shape[1] // 2], axis=1) for image in images)
    assert np.array_equal(same, right)
    assert np.abs(brightened - left).mean() < 0.5 * np.abs(left // 8 - left).mean()


def test_grey_specks_take_their_neighbours_class_in_pictures_and_grey_walls_stay_grey(cloud):
    before = cloud.labels()
    rng = np.random.default_rng(5)
    specks = (rng.random(len(cloud)) < 0.1) & (before == NYU13.id_of("floor"))
    probabilities = np.where(specks[:, None], np.float32(0), cloud.class_probabilities)
    drawn = without_specks(replace(cloud, class_probabilities=probabilities)).labels()
    assert np.mean(drawn[specks] == before[specks]) > 0.95
    grey = before == UNLABELLED  # the far wall's upper half
    assert np.mean(drawn[grey] == UNLABELLED) > 0.9
    labelled = ~specks & ~grey
    np.testing.assert_array_equal(drawn[labelled], before[labelled])
    assert without_specks(replace(cloud, class_probabilities=None)).class_probabilities is None


def test_an_empty_map_has_a_preview_too(cloud, tmp_path):
    preview(tmp_path / "preview.png", cloud.selected(np.zeros(len(cloud), bool)), NYU13)
    assert read_png(tmp_path / "preview.png").size


def test_the_path_is_drawn_where_the_camera_was(cloud):
    camera, path = picture_camera(320, 240), path_through_room()
    T = overview(cloud, camera, UP, trajectory=path)
    colors = [shown_colors(cloud, NYU13, name, T) for name in ("color", "label")]
    plain = picture(cloud, camera, T, colors)
    assert [image.shape for image in plain] == [(240, 320, 3)] * 2
    drawn = draw_path(plain[0], camera, T, path)
    changed = (drawn != plain[0]).any(axis=-1)
    ends = camera.project((np.linalg.inv(T) @ path[[0, -1], :, 3].T).T[:, :3])
    for u, v in ends:
        assert changed[round(v) - 3 : round(v) + 4, round(u) - 3 : round(u) + 4].any()
    assert 30 < changed.sum() < 4000
    assert (drawn == PATH_COLOR).all(axis=-1).any()
    behind = draw_path(plain[0], camera, T, np.stack([T @ np.diag([1, 1, 1, 1.0])] * 2))
    np.testing.assert_array_equal(behind, plain[0])


def test_a_path_is_not_drawn_where_the_camera_was_lost(cloud):
    camera, path = picture_camera(320, 240), path_through_room()
    T = overview(cloud, camera, UP, trajectory=path)
    plain = np.zeros((240, 320, 3), np.uint8)

    def around(drawn: np.ndarray) -> bool:
        u, v = np.rint(middle).astype(int)
        return bool(drawn[v - 2 : v + 3, u - 2 : u + 3].any())

    path[6:, :3, 3] += 2 * (path[6, :3, 3] - path[5, :3, 3])  # far from the fifth
    middle = camera.project((np.linalg.inv(T) @ ((path[5] + path[6]) / 2)[:, 3])[:3])
    assert around(draw_paths(plain, camera, T, [path]))
    assert not around(draw_paths(plain, camera, T, [path[:6], path[6:]]))
    assert len(path_shapes([path[:6], path[6:]])) == 2


def test_a_legend_has_a_line_for_every_class(cloud):
    one, chosen = legend_image(cloud, NYU13), legend_image(cloud, NYU13, hidden={4}, chosen=4)
    assert one.shape == chosen.shape and (one != chosen).any()
    for name in ("floor", "wall", "table"):
        assert (one == NYU13.colors[NYU13.id_of(name)]).all(axis=-1).sum() > 80


# pictures of maps


def test_a_png_is_written_without_a_display_and_is_not_blank(viewed, tmp_path):
    render_png(tmp_path / "map.png", viewed)
    image = read_png(tmp_path / "map.png")
    shown = (image[60:-60] != BACKGROUND).any(axis=-1)
    assert shown.mean() > 0.3
    for name in ("table", "floor"):
        assert (image[-60:] == NYU13.colors[NYU13.id_of(name)]).all(axis=-1).any()


def test_without_a_driver_our_own_renderer_draws_the_same_scene_and_says_so(viewed, tmp_path, monkeypatch, caplog):
    render_png(tmp_path / "opengl.png", viewed, coloring="normal")

    def no_driver(*_, **__):
        raise RuntimeError("no driver")

    monkeypatch.setattr("semslam.looking.picture.MapWindow", no_driver)
    with caplog.at_level(logging.WARNING):
        render_png(tmp_path / "ours.png", viewed, coloring="normal")
    assert "software renderer" in caplog.text
    difference = np.abs(read_png(tmp_path / "opengl.png").astype(int) - read_png(tmp_path / "ours.png"))
    assert np.median(difference) == 0
    assert (difference.max(axis=-1) > 60).mean() < 0.05


def test_hidden_classes_are_not_drawn_and_hiding_all_is_an_error(viewed, tmp_path):
    bare = viewed.without(["floor"])
    assert NYU13.id_of("floor") not in bare.cloud.labels() and len(bare.errors) == len(bare.cloud)
    with pytest.raises(ValueError, match="nothing to draw"):
        render_png(tmp_path / "map.png", viewed, hidden=[*NYU13.classes, "unlabelled"])


def test_a_class_is_hidden_by_its_name_in_a_map_of_other_classes_too(viewed):
    """Id 0 is wall in the one label set and bed in the other."""
    of_13, of_40 = (replace(viewed, label_set=LABEL_SETS[name]) for name in ("nyu13", "nyu40"))
    ids = [one.ids_of(["wall"]) for one in (of_13, of_40)]
    assert ids == [[of_13.label_set.id_of("wall")], [0]] and ids[0] != ids[1]
    assert not of_13.ids_of(["whiteboard"]) and of_40.ids_of(["whiteboard"])


@pytest.mark.parametrize("suffix", one_fast(".pdf", ".png", ".PNG", ".jpg", ".jpeg", ".svg"))
def test_a_picture_has_the_format_of_its_suffix(viewed, tmp_path, suffix):
    render_png(tmp_path / f"map{suffix}", viewed)
    magic = {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".jpeg": b"\xff\xd8", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert (tmp_path / f"map{suffix}").read_bytes().startswith(magic[suffix.lower()])


@pytest.mark.parametrize("name", ["map.gif", "map", "map.tar.gz"])
def test_a_picture_of_another_kind_is_refused_and_nothing_is_written(viewed, tmp_path, name):
    with pytest.raises(ValueError, match=r"pictures are written as \.png, \.jpg"):
        render_png(tmp_path / name, viewed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", one_fast(b"caf\xe9 \xff".decode("utf-8", "surrogateescape"), "5 $ and $x_", "$\\frac{$", "a\nb")
)
def test_a_map_of_any_name_has_a_picture(viewed, tmp_path, name):
    render_png(tmp_path / "map.png", replace(viewed, name=name))
    preview(tmp_path / "preview.png", viewed.cloud, NYU13, title=name)
    assert read_png(tmp_path / "map.png").std() > 10 and read_png(tmp_path / "preview.png").std() > 10
