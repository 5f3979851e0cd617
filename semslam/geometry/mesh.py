"""A triangle mesh whose vertices have colours and classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class LabelledMesh:
    """V vertices and F triangles in the world frame less its origin."""

    vertices: np.ndarray  # (V, 3) float32 metres
    triangles: np.ndarray  # (F, 3) int32 indices of vertices, counter-clockwise seen from outside
    normals: np.ndarray  # (V, 3) float32 unit
    colors: np.ndarray  # (V, 3) uint8 RGB
    labels: np.ndarray  # (V,) uint8 class ids, 255 = unlabelled
    world_origin: np.ndarray = field(default_factory=lambda: np.zeros(3))  # (3,) float64 metres, of the vertices

    def areas(self) -> np.ndarray:
        """(F,) float64 areas of the triangles in square metres."""
        a, b, c = (self.vertices[self.triangles[:, k]].astype(np.float64) for k in range(3))
        return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
