"""A map and what is shown with it, in words, colours and simple shapes: the window, page and film share it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.labels import LabelSet
from semslam.rendering.coloring import COLORINGS, graded
from semslam.rendering.pictures import class_name, classes_present


@dataclass(frozen=True, eq=False)
class Viewed:
    """A map and what is shown with it."""

    cloud: SurfelCloud
    label_set: LabelSet
    name: str = ""
    trajectory: np.ndarray | None = None  # (N, 4, 4) float64 T_world_camera, one a frame
    camera: Camera | None = None  # of the sequence, for the frusta
    errors: np.ndarray | None = None  # (N,) float32 metres from the reference surface, NaN = not compared
    colors: dict[str, np.ndarray] = field(default_factory=dict, init=False)  # computed on first use

    def colored(self, coloring: str) -> np.ndarray:
        """(N, 3) uint8 colours; `coloring` is a name of COLORINGS, or error."""
        if coloring not in self.colors:
            if coloring == "error":
                errors = np.full(len(self.cloud), np.nan) if self.errors is None else self.errors
                self.colors[coloring] = graded(errors, 0, 0.05, "turbo")
            elif coloring not in COLORINGS:
                raise ValueError(f"there is no coloring {coloring!r}; there are {', '.join([*COLORINGS, 'error'])}")
            else:
                self.colors[coloring] = COLORINGS[coloring](self.cloud, self.label_set)
        return self.colors[coloring]

    def without(self, hidden: Iterable[int]) -> Viewed:
        """The same without the surfels of some class ids."""
        keep = ~np.isin(self.cloud.labels(), list(hidden))
        errors = None if self.errors is None else self.errors[keep]
        return Viewed(self.cloud.selected(keep), self.label_set, self.name, self.trajectory, self.camera, errors)


def shown_range(coloring: str) -> str:
    """What the ends of a coloring's scale mean."""
    return {
        "confidence": "dark blue: seen once; yellow: merged often",
        "entropy": "black: certain of the class; yellow: all classes alike",
        "normal": "red, green, blue: x, y, z of the normal",
        "first_seen": "purple: first frames; yellow: last",
        "last_seen": "purple: long ago; yellow: last frames",
        "error": "blue: 0 cm; red: 5 cm or more from the reference; grey: not compared",
    }.get(coloring, "")


def description(viewed: Viewed, surfel: int) -> str:
    """One line on a surfel: its class, the runners-up, confidence, place and when it was seen."""
    cloud = viewed.cloud
    probabilities = cloud.class_probabilities
    x, y, z = cloud.positions[surfel]
    if probabilities is None or probabilities[surfel].max(initial=0) <= 0:
        classes = "unlabelled"
    else:
        best = np.argsort(-probabilities[surfel], kind="stable")[:3]
        classes = ", ".join(f"{viewed.label_set.classes[i]} {probabilities[surfel, i]:.2f}" for i in best)
    return (
        f"surfel {surfel}: {classes}; confidence {cloud.confidence[surfel]:.1f}, "
        f"radius {1000 * cloud.radii[surfel]:.1f} mm at ({x:.3f}, {y:.3f}, {z:.3f}) m, "
        f"seen in frames {cloud.first_seen[surfel]} to {cloud.last_seen[surfel]}"
    )


def legend_lines(viewed: Viewed) -> list[str]:
    """The legend as lines of text: share of the surface, name."""
    present = classes_present(viewed.cloud, viewed.label_set)
    return [f"  {100 * share:5.1f} %  {class_name(viewed.label_set, i)}" for i, share in present]


def surfel_quads(cloud: SurfelCloud) -> tuple[np.ndarray, np.ndarray]:
    """Every surfel as a square as large as its disk: vertices (4N, 3) float64 and triangles (2N, 3) int32."""
    n = cloud.normals.astype(np.float64)
    side = np.where(np.abs(n[:, :1]) < 0.6, [[1.0, 0, 0]], [[0, 1.0, 0]])
    u = np.cross(side, n)
    u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-12)
    v = np.cross(n, u)
    half = cloud.radii.astype(np.float64)[:, None] * np.sqrt(np.pi) / 2
    corners = [cloud.positions + half * (a * u + b * v) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    first = np.arange(len(cloud), dtype=np.int32)[:, None] * 4
    triangles = np.stack([first + [0, 1, 2], first + [0, 2, 3]], axis=1)
    return np.stack(corners, axis=1).reshape(-1, 3), triangles.reshape(-1, 3).astype(np.int32)


def frustum_lines(camera: Camera, T_world_camera: np.ndarray, size: float = 0.12) -> tuple[np.ndarray, np.ndarray]:
    """Points (5, 3) and line indices (8, 2) of a camera's pyramid, `size` metres deep."""
    corners = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]], np.float64) - 0.5
    rays = np.column_stack(
        [(corners[:, 0] - camera.cx) / camera.fx, (corners[:, 1] - camera.cy) / camera.fy, np.ones(4)]
    )
    points = np.vstack([np.zeros(3), rays * size]) @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    return points, np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]])
