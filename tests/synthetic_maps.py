"""Small maps whose every figure is known, for the tests of whatever reads maps."""

from __future__ import annotations

import numpy as np

from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.frame import UNLABELLED
from semslam.labels import LABEL_SETS
from semslam.looking.viewed import Viewed
from semslam.rendering.viewpoint import look_at

NYU13 = LABEL_SETS["nyu13"]
SMALL = Camera(96, 72, 80.0, 80.0, 47.5, 35.5)
ROOM = (3.0, 2.4, 2.5)  # metres along x, y and z; z is up, the floor lies at z = 0
TABLE = ((1.0, 0.8), (2.0, 1.6), 0.75)  # corners in x, y and the height of its top
BED = ((0.1, 1.8), (0.9, 2.3), 0.4)  # hangs free: only its top, 0.8 m x 0.5 m
COLORS = {"floor": (120, 90, 60), "ceiling": (250, 250, 250), "wall": (200, 205, 210), "table": (160, 60, 40)}


def plane(corner, side_a, side_b, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) on a rectangle, spacing apart and half a spacing from its edges, and their normals a x b."""
    corner, a, b = (np.asarray(v, np.float64) for v in (corner, side_a, side_b))
    u, v = (np.arange(spacing / 2, np.linalg.norm(s), spacing) / np.linalg.norm(s) for s in (a, b))
    points = corner + u[:, None, None] * a + v[None, :, None] * b
    normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    return points.reshape(-1, 3), np.tile(normal, (len(u) * len(v), 1))


def cloud_of(parts, spacing: float, seed: int = 0) -> SurfelCloud:
    """A map of (class name or None, points, normals) parts."""
    rng = np.random.default_rng(seed)
    positions = np.concatenate([p for _, p, _ in parts]).astype(np.float32)
    normals = np.concatenate([n for _, _, n in parts]).astype(np.float32)
    names = [name for name, p, _ in parts for _ in range(len(p))]
    labels = np.array([UNLABELLED if name is None else NYU13.id_of(name) for name in names], np.uint8)
    n = len(positions)
    probabilities = np.full((n, len(NYU13)), 0.1 / (len(NYU13) - 1), np.float32)
    known = np.flatnonzero(labels != UNLABELLED)
    probabilities[known, labels[known]] = 0.9
    probabilities[labels == UNLABELLED] = 0
    first = rng.integers(0, 50, n).astype(np.int32)
    return SurfelCloud(
        positions,
        normals,
        np.full(n, 0.8 * spacing, np.float32),
        rng.uniform(1, 30, n).astype(np.float32),
        np.array([COLORS.get(name, (90, 120, 160)) for name in names], np.uint8),
        first,
        first + rng.integers(0, 50, n).astype(np.int32),
        probabilities,
    )


def room(spacing: float = 0.03) -> SurfelCloud:
    """A closed room with a table and a bed in it; the far wall's upper half is unlabelled."""
    x, y, z = ROOM
    (x0, y0), (x1, y1), top = TABLE
    (u0, v0), (u1, v1), height = BED
    rectangles = [
        ("floor", (0, 0, 0), (x, 0, 0), (0, y, 0)),
        ("ceiling", (0, 0, z), (0, y, 0), (x, 0, 0)),
        ("wall", (0, 0, 0), (0, y, 0), (0, 0, z)),
        ("wall", (x, 0, 0), (0, 0, z), (0, y, 0)),
        ("wall", (0, 0, 0), (0, 0, z), (x, 0, 0)),
        ("wall", (0, y, 0), (x, 0, 0), (0, 0, z / 2)),
        (None, (0, y, z / 2), (x, 0, 0), (0, 0, z / 2)),
        ("table", (x0, y0, top), (x1 - x0, 0, 0), (0, y1 - y0, 0)),
        ("bed", (u0, v0, height), (u1 - u0, 0, 0), (0, v1 - v0, 0)),
    ]
    return cloud_of([(name, *plane(*rectangle, spacing)) for name, *rectangle in rectangles], spacing)


def path_through_room(count: int = 12) -> np.ndarray:
    """(count, 4, 4) poses, T_world_camera, of an upright camera that walks along x and looks across the table."""
    eyes = np.linspace([0.4, 0.3, 1.4], [2.6, 0.3, 1.4], count)
    return np.stack([look_at(eye, np.array([1.5, 1.6, 0.6]), np.array([0, 0, 1.0])) for eye in eyes])


def viewed_room(cloud: SurfelCloud) -> Viewed:
    """A `room` with its classes, a path, a camera, and an error for each surfel."""
    return Viewed(cloud, NYU13, "room", [path_through_room()], SMALL, np.linspace(0, 0.1, len(cloud)))
