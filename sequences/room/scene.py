"""The furniture of the synthetic room: boxes, cylinders and spheres with classes, textures and baked light.

World: x along the long wall, y along the short one, z up, metres; the floor is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from semslam import poses
from semslam.labels import LABEL_SETS
from sequences.room.textures import SIZE, TEXEL, textures

ROOM = np.array([5.0, 4.2, 2.5])  # metres
CELL = 0.14  # metres; faces are cut into cells of at most this size, so that baked light has somewhere to live


@dataclass(frozen=True, eq=False)
class Scene:
    """A triangle mesh with what is needed to colour and label a ray's hit."""

    vertices: np.ndarray  # (N, 3) float32 metres
    triangles: np.ndarray  # (M, 3) int32
    labels: np.ndarray  # (M,) uint8 NYU-40 ids, in memory
    texture: np.ndarray  # (M,) uint8 index into `textures()`
    uv: np.ndarray  # (M, 3, 2) float32 texels of the corners
    normals: np.ndarray  # (M, 3) float32 unit, outwards


@dataclass
class _Builder:
    """Collects surfaces; a transform moves what is added while it is set."""

    vertices: list[np.ndarray] = field(default_factory=list)
    triangles: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    textures: list[np.ndarray] = field(default_factory=list)
    uv: list[np.ndarray] = field(default_factory=list)
    count: int = 0
    T_world_object: np.ndarray = field(default_factory=lambda: np.eye(4))

    def at(self, x: float, y: float, degrees: float = 0.0, z: float = 0.0) -> None:
        """Place what follows at (x, y, z), turned about the vertical."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        self.T_world_object = np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1]], np.float64)

    def sheet(self, points: np.ndarray, uv: np.ndarray, label: str, texture: str) -> None:
        """A grid of points (R, C, 3), object frame, with texture coordinates (R, C, 2) in texels.

        Seen from outside, rows go down and columns go to the right.
        """
        rows, columns = points.shape[:2]
        corner = np.arange(rows * columns).reshape(rows, columns)
        a, b, c, d = (corner[r, q].ravel() for r in (slice(-1), slice(1, None)) for q in (slice(-1), slice(1, None)))
        triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
        world = poses.transform(self.T_world_object, points.reshape(-1, 3))
        self.vertices.append(world)
        self.triangles.append(triangles + self.count)
        self.labels.append(np.full(len(triangles), LABEL_SETS["nyu40"].id_of(label), np.uint8))
        self.textures.append(np.full(len(triangles), list(textures()).index(texture), np.uint8))
        self.uv.append(uv.reshape(-1, 2)[triangles])
        self.count += len(world)

    def face(self, origin, right, down, label: str, texture: str, fitted: bool = False) -> None:
        """A flat rectangle: its top left corner and its two edges, as seen from outside."""
        origin, right, down = (np.asarray(x, np.float64) for x in (origin, right, down))
        width, height = np.linalg.norm(right), np.linalg.norm(down)
        u, v = (np.linspace(0, 1, max(1, int(np.ceil(length / CELL))) + 1) for length in (width, height))
        points = origin + v[:, None, None] * down + u[None, :, None] * right
        if fitted:
            uv = np.stack(np.meshgrid(u * (SIZE - 1), v * (SIZE - 1)), axis=-1)
        else:  # by position, so that parts of one piece meet without a seam
            start = np.array([origin @ right / width, origin @ down / height])
            uv = (start + np.stack(np.meshgrid(u * width, v * height), axis=-1)) / TEXEL
        self.sheet(points, uv, label, texture)

    def box(self, low, high, label: str, texture: str, front: str | None = None, front_side: str = "-y") -> None:
        """An axis-aligned box (object frame); `front` is a texture fitted to one of its sides."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
        sides = {
            "-y": ((x0, y0, z1), (dx, 0, 0), (0, 0, -dz)),
            "+y": ((x1, y1, z1), (-dx, 0, 0), (0, 0, -dz)),
            "-x": ((x0, y1, z1), (0, -dy, 0), (0, 0, -dz)),
            "+x": ((x1, y0, z1), (0, dy, 0), (0, 0, -dz)),
            "+z": ((x0, y1, z1), (dx, 0, 0), (0, -dy, 0)),
            "-z": ((x0, y0, z0), (dx, 0, 0), (0, dy, 0)),
        }
        for side, (origin, right, down) in sides.items():
            if front is not None and (side == front_side or front_side == "all"):
                self.face(origin, right, down, label, front, fitted=True)
            else:
                self.face(origin, right, down, label, texture)

    def turned(self, profile, center, label: str, texture: str) -> None:
        """A solid of revolution about the vertical: (radius, z) points of its outline, from the top down."""
        radius, z = np.array(profile, np.float64).T
        angle = np.linspace(0, 2 * np.pi, 32 + 1)
        x = center[0] + radius[:, None] * np.cos(angle)
        y = center[1] + radius[:, None] * np.sin(angle)
        points = np.stack([x, y, np.broadcast_to(z[:, None] + center[2], x.shape)], axis=-1)
        around = angle * max(radius.max(), 0.05) / TEXEL
        along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(radius), np.diff(z)))]) / TEXEL
        self.sheet(points, np.stack(np.meshgrid(around, along), axis=-1), label, texture)

    def cylinder(self, radius: float, z0: float, z1: float, center, label: str, texture: str) -> None:
        steps = np.linspace(z1, z0, max(2, int(np.ceil((z1 - z0) / CELL)) + 1))
        rings = [(r, z1) for r in np.linspace(0, radius, 4)] + [(radius, z) for z in steps] + [(0.0, z0)]
        self.turned(rings, (*center, 0.0), label, texture)

    def ball(self, radius: float, center, label: str, texture: str) -> None:
        angle = np.linspace(0, np.pi, 17)
        self.turned(np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1), center, label, texture)

    def scene(self) -> Scene:
        vertices = np.concatenate(self.vertices).astype(np.float32)
        triangles = np.concatenate(self.triangles).astype(np.int32)
        corner = vertices[triangles]
        normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        area = np.linalg.norm(normals, axis=1)
        keep = area > 1e-10  # the tip of a turned solid has triangles without a surface
        return Scene(
            vertices,
            triangles[keep],
            np.concatenate(self.labels)[keep],
            np.concatenate(self.textures)[keep],
            np.concatenate(self.uv)[keep].astype(np.float32),
            (normals[keep] / area[keep, None]).astype(np.float32),
        )


@cache
def furnished_room() -> Scene:
    """The room of the demo and the tests: about twenty NYU-40 classes."""
    b = _Builder()
    _shell(b)
    _south_side(b)
    _east_side(b)
    _north_side(b)
    _west_side(b)
    _middle(b)
    return b.scene()


def _shell(b: _Builder) -> None:
    x, y, z = ROOM
    b.at(0, 0)
    b.face((0, 0, 0), (0, y, 0), (x, 0, 0), "floor", "planks")
    b.face((0, 0, z), (x, 0, 0), (0, y, 0), "ceiling", "ceiling")
    b.face((x, 0, z), (-x, 0, 0), (0, 0, -z), "wall", "wallpaper")
    b.face((0, y, z), (x, 0, 0), (0, 0, -z), "wall", "plaster")
    b.face((0, 0, z), (0, y, 0), (0, 0, -z), "wall", "plaster")
    b.face((x, y, z), (0, -y, 0), (0, 0, -z), "wall", "wallpaper")


def _south_side(b: _Builder) -> None:
    """Along y = 0: a bookshelf, a picture and the door."""
    b.at(0, 0)
    rng = np.random.default_rng(3)
    x0, x1, depth, height, board = 0.55, 1.65, 0.32, 1.95, 0.03
    for x in (x0, x1 - board):
        b.box((x, 0, 0), (x + board, depth, height), "bookshelf", "oak")
    b.box((x0 + board, 0, 0), (x1 - board, 0.02, height), "bookshelf", "walnut")
    shelves = np.linspace(0.06, height - board, 6)
    for z in shelves:
        b.box((x0 + board, 0.02, z), (x1 - board, depth - 0.005, z + board), "bookshelf", "oak")
    names = [name for name in textures() if name.startswith("book_")]
    for row, z in enumerate(shelves[:-1] + board):
        x = x0 + board + 0.01
        end = x1 - board - (0.02, 0.3, 0.1, 0.45, 0.2)[row]
        while x < end - 0.06:
            thick, tall, deep = rng.uniform(0.03, 0.065), rng.uniform(0.2, 0.29), rng.uniform(0.19, 0.25)
            color = names[rng.integers(len(names))]
            b.box((x, 0.03, z), (x + thick, 0.03 + deep, z + tall), "books", color, color, "+y")
            x += thick + 0.002
    b.box((x1 - 0.36, 0.05, shelves[3] + board), (x1 - 0.12, 0.25, shelves[3] + board + 0.2), "box", "gift")
    b.ball(0.1, (x1 - 0.22, 0.16, shelves[1] + board + 0.1), "otherprop", "vase")

    b.box((2.25, 0, 1.2), (3.15, 0.03, 1.85), "picture", "walnut", "picture_hills", "+y")
    b.box((2.35, 0, 0), (3.2, 0.42, 0.78), "dresser", "walnut", "drawers", "+y")
    b.turned(
        [(0, 0.3), (0.05, 0.3), (0.04, 0.24), (0.09, 0.12), (0.05, 0.0), (0, 0)], (2.6, 0.2, 0.78), "otherprop", "vase"
    )
    b.ball(0.15, (2.6, 0.2, 1.16), "otherprop", "leaves")
    b.box((2.8, 0.1, 0.78), (3.08, 0.3, 0.83), "books", "book_red")
    b.box((2.82, 0.1, 0.83), (3.05, 0.29, 0.87), "books", "book_cream")

    b.box((3.55, 0, 0), (4.45, 0.05, 2.06), "door", "oak", "door", "+y")
    b.ball(0.035, (4.33, 0.09, 1.02), "door", "metal")


def _east_side(b: _Builder) -> None:
    """Along x = 5: the bed, its night stand and a picture."""
    x, y0, y1 = 3.95, 1.0, 3.0
    b.at(0, 0)
    b.box((x, y0, 0.0), (5.0, y1, 0.28), "bed", "oak")
    b.box((x + 0.02, y0 + 0.02, 0.28), (4.98, y1 - 0.05, 0.46), "bed", "sheet")
    b.box((x - 0.02, y0, 0.2), (4.97, 2.35, 0.5), "bed", "bedcover")
    b.box((x, y1 - 0.05, 0.0), (5.0, y1, 0.95), "bed", "oak")
    for px in (4.08, 4.52):
        b.box((px, 2.5, 0.46), (px + 0.38, 2.9, 0.58), "pillow", "pillow")
    b.box((4.97, 1.5, 1.25), (5.0, 2.4, 1.9), "picture", "walnut", "picture_abstract", "-x")
    b.box((4.5, 3.12, 0), (5.0, 3.52, 0.52), "night stand", "pine", "night_drawers", "-x")
    b.cylinder(0.07, 0.52, 0.54, (4.76, 3.32), "lamp", "metal")
    b.cylinder(0.015, 0.54, 0.78, (4.76, 3.32), "lamp", "metal")
    b.turned([(0, 1.0), (0.09, 1.0), (0.15, 0.78), (0, 0.78)], (4.76, 3.32, 0), "lamp", "shade")
    b.at(4.55, 0.5, 20)
    b.box((-0.25, -0.2, 0), (0.25, 0.2, 0.36), "box", "cardboard", "cardboard", "all")
    b.at(4.52, 0.5, -8)
    b.box((-0.17, -0.14, 0.36), (0.17, 0.14, 0.6), "box", "cardboard", "cardboard", "all")


def _north_side(b: _Builder) -> None:
    """Along y = 4.2: the window with curtains, the desk and its chair, the television."""
    y = ROOM[1]
    b.at(0, 0)
    b.box((1.15, y - 0.04, 0.95), (2.55, y, 2.1), "window", "white_wood", "window", "-y")
    b.box((1.05, y - 0.12, 0.9), (2.65, y, 0.95), "window", "white_wood")
    for x0, x1 in ((0.82, 1.22), (2.48, 2.88)):
        b.box((x0, y - 0.16, 0.5), (x1, y - 0.1, 2.2), "curtain", "curtain")
    b.box((0.75, y - 0.145, 2.2), (2.95, y - 0.115, 2.235), "otherstructure", "metal")

    b.box((1.2, 3.42, 0.7), (2.5, 4.02, 0.74), "desk", "pine")
    for x in (1.22, 2.43):
        for leg_y in (3.44, 3.95):
            b.box((x, leg_y, 0), (x + 0.05, leg_y + 0.05, 0.7), "desk", "pine")
    b.box((1.95, 3.45, 0.42), (2.43, 4.0, 0.7), "desk", "pine", "night_drawers", "-y")
    b.box((1.32, 3.6, 0.74), (1.62, 3.82, 0.79), "books", "book_blue")
    b.box((1.34, 3.6, 0.79), (1.6, 3.81, 0.83), "books", "book_green")
    b.box((2.05, 3.58, 0.74), (2.32, 3.78, 0.9), "box", "gift")

    b.at(1.62, 3.12, 12)
    b.box((-0.22, -0.22, 0.43), (0.22, 0.22, 0.48), "chair", "chair")
    b.box((-0.21, -0.24, 0.52), (0.21, -0.2, 0.95), "chair", "chair")
    for x in (-0.21, 0.17):
        b.box((x, -0.24, 0), (x + 0.04, -0.2, 0.95), "chair", "walnut")
        b.box((x, 0.17, 0), (x + 0.04, 0.21, 0.43), "chair", "walnut")

    b.at(0, 0)
    b.box((3.15, 3.75, 0), (4.4, 4.2, 0.5), "cabinet", "walnut", "drawers", "-y")
    b.box((3.6, 3.92, 0.5), (3.95, 4.1, 0.53), "television", "black")
    b.box((3.74, 3.99, 0.53), (3.82, 4.04, 0.62), "television", "black")
    b.box((3.25, 3.96, 0.6), (4.3, 4.02, 1.2), "television", "black", "screen", "-y")


def _west_side(b: _Builder) -> None:
    """Along x = 0: the sofa, a picture, a floor lamp."""
    y0, y1 = 0.95, 2.75
    b.at(0, 0)
    b.box((0.05, y0, 0.1), (0.88, y1, 0.42), "sofa", "sofa")
    b.box((0.05, y0 + 0.18, 0.42), (0.26, y1 - 0.18, 0.85), "sofa", "sofa")
    for low in (y0, y1 - 0.18):
        b.box((0.05, low, 0.42), (0.86, low + 0.18, 0.62), "sofa", "sofa")
    b.box((0.27, y0 + 0.2, 0.42), (0.39, y0 + 0.58, 0.76), "pillow", "cushion")
    b.box((0.27, y1 - 0.62, 0.42), (0.4, y1 - 0.24, 0.78), "pillow", "cushion")
    for leg_x in (0.1, 0.76):
        for leg_y in (y0 + 0.05, y1 - 0.11):
            b.box((leg_x, leg_y, 0), (leg_x + 0.06, leg_y + 0.06, 0.1), "sofa", "walnut")
    b.box((0, 1.35, 1.2), (0.03, 2.35, 1.85), "picture", "walnut", "picture_dusk", "+x")
    center = (0.42, 3.3)
    b.cylinder(0.14, 0, 0.03, center, "lamp", "metal")
    b.cylinder(0.018, 0.03, 1.45, center, "lamp", "metal")
    b.turned([(0, 1.75), (0.12, 1.75), (0.16, 1.6), (0.21, 1.4), (0, 1.4)], (*center, 0), "lamp", "shade")


def _middle(b: _Builder) -> None:
    """In the middle: a rug, a low table and what lies on it."""
    b.at(2.45, 1.95, 8)
    b.box((-1.0, -0.75, 0), (1.0, 0.75, 0.012), "floor mat", "sheet", "rug", "+z")
    b.box((-0.5, -0.3, 0.36), (0.5, 0.3, 0.4), "table", "oak")
    b.box((-0.44, -0.25, 0.12), (0.44, 0.25, 0.14), "table", "oak")
    for x in (-0.48, 0.42):
        for y in (-0.28, 0.22):
            b.box((x, y, 0.012), (x + 0.06, y + 0.06, 0.36), "table", "oak")
    b.at(2.45, 1.95, -20)
    b.box((-0.36, -0.16, 0.4), (-0.12, 0.02, 0.44), "books", "book_ochre")
    b.at(2.62, 2.05)
    b.turned([(0, 0.14), (0.13, 0.14), (0.09, 0.05), (0.05, 0), (0, 0)], (0, 0, 0.4), "otherprop", "vase")
    b.at(0, 0)
    b.ball(0.13, (3.35, 2.75, 0.13), "otherprop", "ball")
