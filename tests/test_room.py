"""The synthetic room is what its mesh says, the same every time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from semslam.labels import LABEL_SETS
from semslam.poses import inverse, is_rigid, log
from sequences import open_sequence
from sequences.room.kinect_noise import kinect_noise
from sequences.room.room import FPS, ROUND, RoomSequence, orbit
from sequences.room.scene import furnished_room


@pytest.fixture(scope="module")
def room() -> RoomSequence:
    return RoomSequence(width=160, height=120)


def test_a_frame_is_complete_and_fits_its_camera(room):
    frame = room[7]
    assert frame.color.shape == (120, 160, 3) and frame.color.dtype == np.uint8
    assert frame.depth.shape == (120, 160) and frame.depth.dtype == np.float32
    assert frame.labels.shape == (120, 160) and frame.labels.dtype == np.uint8
    assert frame.camera == room.camera and frame.timestamp == pytest.approx(7 / 30)
    assert room.has_depth and room.has_labels and room.has_poses


def test_every_pixel_back_projected_lies_on_the_mesh(room):
    import open3d as o3d

    vertices, triangles, _ = room.mesh()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(triangles.astype(np.uint32)))
    for index in (0, 150, 300):
        frame = room[index]
        points = frame.camera.backproject(frame.depth)[::3, ::3].reshape(-1, 3)
        world = points @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]
        distance = scene.compute_distance(o3d.core.Tensor(world.astype(np.float32))).numpy()
        assert distance.max() < 1e-4


def test_labels_are_those_of_the_triangles_that_are_seen(room):
    vertices, triangles, labels = room.mesh()
    frame = room[60]
    floor = LABEL_SETS["nyu40"].id_of("floor")
    heights = (room.camera.backproject(frame.depth) @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3])[
        ..., 2
    ]
    assert np.abs(heights[frame.labels == floor]).max() < 1e-3
    assert vertices[triangles[labels == floor]][..., 2].max() == 0


def test_a_round_shows_a_furnished_room(room):
    seen = set(np.concatenate([np.unique(room[i].labels) for i in range(0, ROUND, 30)]).tolist()) - {255}
    names = {LABEL_SETS["nyu40"].classes[i] for i in seen}
    assert {"wall", "floor", "ceiling", "bed", "sofa", "chair", "desk", "table", "bookshelf", "books"} <= names
    assert {"window", "curtain", "door", "picture", "television", "lamp", "box", "pillow"} <= names


def test_nothing_is_missed_and_the_camera_keeps_its_distance(room):
    for index in range(0, ROUND, 25):
        depth = room[index].depth
        assert (depth > 0).all()
        assert np.quantile(depth, 0.05) > 1.0


def test_the_path_is_smooth_and_closes_after_a_round():
    poses = [orbit(i / FPS) for i in range(ROUND + 1)]
    assert all(is_rigid(T, 1e-9) for T in poses)
    steps = np.array([log(inverse(a) @ b) for a, b in pairwise(poses)])
    assert np.linalg.norm(steps[:, :3], axis=1).max() < 0.03
    assert np.degrees(np.linalg.norm(steps[:, 3:], axis=1)).max() < 2.5
    assert np.abs(np.diff(steps, axis=0)).max() < 2e-3
    np.testing.assert_allclose(poses[0], poses[-1], atol=1e-9)


def test_photographs_of_one_surface_from_two_sides_agree(room):
    """Warped by the exact depth and poses, neighbouring frames differ by no more than texture sampling."""
    a, b = room[100], room[104]
    T_b_a = inverse(b.T_world_camera) @ a.T_world_camera
    points = room.camera.backproject(a.depth.astype(np.float64)) @ T_b_a[:3, :3].T + T_b_a[:3, 3]
    uv = np.rint(room.camera.project(points)).astype(int)
    inside = (uv >= 0).all(-1) & (uv < (160, 120)).all(-1)
    u, v = uv[inside].T
    same = np.abs(b.depth[v, u] - points[inside][:, 2]) < 0.01
    assert same.mean() > 0.85
    error = np.abs(b.color[v, u].astype(int) - a.color[inside].astype(int))[same]
    assert np.median(error) <= 6


def test_the_mesh_is_sound():
    scene = furnished_room()
    corner = scene.vertices[scene.triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert (np.linalg.norm(normal, axis=1) > 0).all()
    assert scene.labels.max() < 40 and len(scene.labels) == len(scene.triangles)


def test_surfaces_face_the_camera(room):
    """Every triangle that is seen is seen from outside: winding and normals are right."""
    import open3d as o3d

    from sequences.room.room import _caster, _rays

    for index in range(0, ROUND, 90):
        rays = _rays(room.camera, room.poses[index])
        hits = _caster().cast_rays(o3d.core.Tensor(rays))
        towards = (hits["primitive_normals"].numpy() * rays[..., 3:]).sum(-1) < 0
        assert towards.mean() > 0.999


def test_a_frame_is_the_same_every_time():
    for noise in (None, kinect_noise):
        one, other = (RoomSequence(frames=30, width=96, height=72, noise=noise, seed=4)[20] for _ in range(2))
        assert np.array_equal(one.depth, other.depth) and np.array_equal(one.color, other.color)
        assert np.array_equal(one.labels, other.labels)


def test_frames_and_seeds_have_noise_of_their_own():
    one, other = (RoomSequence(frames=30, width=96, height=72, noise=kinect_noise, seed=s)[20] for s in (1, 2))
    assert not np.array_equal(one.depth, other.depth)


def test_kinect_noise_has_the_published_size_and_quantisation():
    exact, noisy = (RoomSequence(frames=1, noise=noise)[0] for noise in (None, kinect_noise))
    raw = 1092.5 - 351.3 / noisy.depth[noisy.depth > 0]
    assert np.abs(raw - np.rint(raw)).max() < 2e-2
    near = (np.abs(exact.depth - 3.0) < 0.1) & (noisy.depth > 0)
    error = (noisy.depth - exact.depth)[near]
    step = 3.0**2 / 351.3
    expected = np.hypot(0.0012 + 0.0019 * 2.6**2, step / np.sqrt(12))
    measured = 1.4826 * np.median(np.abs(error - np.median(error)))
    assert measured == pytest.approx(expected, rel=0.2)
    assert 0.001 < (noisy.depth == 0).mean() < 0.2
    assert np.array_equal(noisy.labels, exact.labels) and np.array_equal(noisy.T_world_camera, exact.T_world_camera)


def test_the_room_is_opened_by_its_name():
    settings = {"frames": 12, "width": 80, "height": 60, "noise": "kinect", "seed": 3}
    room = open_sequence("room:" + ",".join(f"{key}={value}" for key, value in settings.items()))
    assert len(room) == 12 and room.camera.shape == (60, 80)
    assert (open_sequence("room", **settings)[3].depth == room[3].depth).all()
    assert len(open_sequence("room")) == ROUND


def test_an_unknown_setting_of_the_room_names_the_known_ones():
    with pytest.raises(ValueError, match="no rounds; it has frames, width"):
        open_sequence("room:rounds=2")
    with pytest.raises(ValueError, match="no noise 'some'; there are none, kinect"):
        open_sequence("room:noise=some")
    with pytest.raises(ValueError, match="many"):
        open_sequence("room:frames=many")
