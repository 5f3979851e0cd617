"""A software renderer for maps: every surfel is an opaque disk, the nearest disk gives a pixel its surfel.

Pictures need no display, no OpenGL and no driver, and are the same on every machine: an image is cut into bands of
rows, each band is drawn by one thread, and among disks of equal depth the first in the map wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numba as nb
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import CloudInParts, SurfelCloud
from semslam.compiled import PARALLEL, Pinhole, Pose, f32
from semslam.frame import Frame, Observation

BANDS = 16  # enough to keep a few threads busy when the surfels crowd in one part of the image
NEAR = f32(0.05)  # metres in front of the camera


@dataclass(frozen=True, eq=False)
class Rendering:
    """Which surfel each pixel shows."""

    camera: Camera
    T_world_camera: np.ndarray  # (4, 4) float64
    index: np.ndarray  # (H, W) int32 index into the cloud, -1 = nothing
    depth: np.ndarray  # (H, W) float32 metres along the view axis, inf = nothing


class _Disks(NamedTuple):
    """The surfels in the camera's frame."""

    centres: np.ndarray  # (N, 3) float32 metres
    normals: np.ndarray  # (N, 3) float32
    radii: np.ndarray  # (N,) float32 metres
    rows: np.ndarray  # (N, 2) int16 first and last row that each may touch; last < first where it is not drawn


@nb.njit(**PARALLEL)
def _project(positions, normals, T_camera_world, camera, orthographic, cull, disks):
    """Fill in the disks of surfels (N, 3) in the world. Short rows keep `_draw` quick."""
    R, t = T_camera_world
    width, height, fx, fy, cx, cy = camera
    points, axes, radii, rows = disks
    for i in nb.prange(len(positions)):
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        px = R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]
        py = R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]
        pz = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
        ax = R[0, 0] * nx + R[0, 1] * ny + R[0, 2] * nz
        ay = R[1, 0] * nx + R[1, 1] * ny + R[1, 2] * nz
        az = R[2, 0] * nx + R[2, 1] * ny + R[2, 2] * nz
        points[i, 0], points[i, 1], points[i, 2] = px, py, pz
        axes[i, 0], axes[i, 1], axes[i, 2] = ax, ay, az
        rows[i, 0], rows[i, 1] = 1, 0
        facing = -az if orthographic else -(ax * px + ay * py + az * pz)
        if (not orthographic and pz < NEAR) or (cull and facing <= f32(0)) or not (px == px and pz == pz):
            continue
        scale = f32(1) if orthographic else f32(1) / pz
        u, v, reach = fx * px * scale + cx, fy * py * scale + cy, max(fx, fy) * radii[i] * scale
        if u + reach < f32(-0.5) or u - reach > width - f32(0.5):
            continue
        if v + reach < f32(-0.5) or v - reach > height - f32(0.5):
            continue
        # rounding outwards by half a pixel keeps a disk that falls between pixel centres on its nearest pixel
        rows[i, 0] = max(0, int(np.floor(v - reach + f32(0.5))))
        rows[i, 1] = min(height - 1, int(np.floor(v + reach + f32(0.5))))


@nb.njit(**PARALLEL)
def _draw(disks, drawn, camera, orthographic, index, depth):
    """Every pixel's nearest disk: the ray of a pixel meets the disk's plane within its radius of the centre.

    drawn: (M,) the disks that touch the image, in order.

    A disk seen edge-on, or smaller than a pixel, still draws the pixel its centre falls on.
    """
    points, axes, radii, rows = disks
    width, height, fx, fy, cx, cy = camera
    x_of_column = np.empty(width, f32)  # of rays with z = 1
    for column in range(width):
        x_of_column[column] = (f32(column) - cx) / fx
    for band in nb.prange(BANDS):
        top, bottom = band * height // BANDS, (band + 1) * height // BANDS
        for i in drawn:
            if rows[i, 0] >= bottom or rows[i, 1] < top:
                continue
            px, py, pz = points[i, 0], points[i, 1], points[i, 2]
            ax, ay, az = axes[i, 0], axes[i, 1], axes[i, 2]
            r = radii[i]
            scale = f32(1) if orthographic else f32(1) / pz
            u, v, reach = fx * px * scale + cx, fy * py * scale + cy, fx * r * scale
            centre_u, centre_v = int(np.floor(u + f32(0.5))), int(np.floor(v + f32(0.5)))
            first_u = max(0, int(np.floor(u - reach + f32(0.5))))
            last_u = min(width - 1, int(np.floor(u + reach + f32(0.5))))
            offset = ax * px + ay * py + az * pz
            for row in range(max(top, np.int64(rows[i, 0])), min(bottom, np.int64(rows[i, 1]) + 1)):
                dy = (f32(row) - cy) / fy
                for column in range(first_u, last_u + 1):
                    if depth[row, column] < pz - r:  # hidden whatever the angle
                        continue
                    dx = x_of_column[column]
                    if orthographic:
                        z = (offset - ax * dx - ay * dy) / az
                        ex, ey, ez = dx - px, dy - py, z - pz
                    else:
                        z = offset / (ax * dx + ay * dy + az)
                        ex, ey, ez = dx * z - px, dy * z - py, z - pz
                    if not (ex * ex + ey * ey + ez * ez <= r * r):  # also where the ray runs along the plane
                        if row != centre_v or column != centre_u:
                            continue
                        z = pz
                    if z < depth[row, column]:
                        depth[row, column] = z
                        index[row, column] = i


def render(
    cloud: SurfelCloud,
    camera: Camera,
    T_world_camera: np.ndarray,
    *,
    cull_back: bool = True,
    orthographic: bool = False,
) -> Rendering:
    """The cloud as a camera at that pose sees it.

    `cull_back` leaves out surfels that face away, so that a room seen from outside is open towards the viewer.
    `orthographic` looks along parallel rays: the camera's focal lengths then count pixels per metre.
    """
    n = len(cloud)
    positions, normals, radii = (np.ascontiguousarray(a, f32) for a in (cloud.positions, cloud.normals, cloud.radii))
    disks = _Disks(np.empty((n, 3), f32), np.empty((n, 3), f32), radii, np.empty((n, 2), np.int16))
    index = np.full(camera.shape, -1, np.int32)
    depth = np.full(camera.shape, np.inf, f32)
    T_camera_world = Pose.of(poses.inverse(np.asarray(T_world_camera, np.float64)))
    _project(positions, normals, T_camera_world, Pinhole.of(camera), orthographic, cull_back, disks)
    drawn = np.flatnonzero(disks.rows[:, 0] <= disks.rows[:, 1])  # each band looks through these, not through the map
    _draw(disks, drawn, Pinhole.of(camera), orthographic, index, depth)
    return Rendering(camera, T_world_camera, index, depth)


def painted(rendering: Rendering, colors: np.ndarray, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """(H, W, 3) uint8 picture of a rendering in which surfel i has colors[i], (N, 3) uint8."""
    image = np.empty((*rendering.index.shape, 3), np.uint8)
    image[:] = background
    drawn = rendering.index >= 0
    image[drawn] = colors[rendering.index[drawn]]
    return image


def rendered_parts(
    parts: Iterable[SurfelCloud], camera: Camera, T_world_camera: np.ndarray, cull_back: bool = True
) -> Iterator[tuple[SurfelCloud, Rendering, np.ndarray]]:
    """Each part of a map, its rendering, and the pixels (H, W) bool where it is nearer than all parts before."""
    depth = np.full(camera.shape, np.inf, f32)
    for part in parts:
        found = render(part, camera, T_world_camera, cull_back=cull_back)
        nearer = found.depth < depth
        depth[nearer] = found.depth[nearer]
        yield part, found, nearer


def render_in_parts(
    clouds: CloudInParts, camera: Camera, T_world_camera: np.ndarray, *, cull_back: bool = True
) -> Rendering:
    """`render` of a map in parts: the same picture as of the whole."""
    seen = Rendering(camera, T_world_camera, np.full(camera.shape, -1, np.int32), np.full(camera.shape, np.inf, f32))
    first = 0
    for part, found, nearer in rendered_parts(clouds.geometry, camera, T_world_camera, cull_back):
        seen.index[nearer], seen.depth[nearer] = found.index[nearer] + first, found.depth[nearer]
        first += len(part)
    return seen


def observed(cloud: SurfelCloud, camera: Camera, T_world_camera: np.ndarray) -> Observation:
    """What a depth camera would have recorded of a map from a pose; in the mean colour where the map shows nothing."""
    return observed_in_parts(CloudInParts.of(cloud), camera, T_world_camera)


def observed_in_parts(clouds: CloudInParts, camera: Camera, T_world_camera: np.ndarray) -> Observation:
    """`observed` of a map in parts."""
    color, depth = np.zeros((*camera.shape, 3), np.uint8), np.zeros(camera.shape, f32)
    total = np.zeros(3)
    for part, found, nearer in rendered_parts(clouds.geometry, camera, T_world_camera):
        color[nearer], depth[nearer] = part.colors[found.index[nearer]], found.depth[nearer]
        total += part.colors.sum(axis=0)
    color[depth == 0] = total / max(len(clouds), 1)
    return Observation(Frame(0, 0.0, color, camera), camera, color, depth)


def lit(colors: np.ndarray, cloud: SurfelCloud, T_world_camera: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 colours under a lamp above the viewer's left shoulder, so that flat label colours show shape."""
    lamp = np.asarray(T_world_camera, np.float64)[:3, :3] @ np.array([-0.35, -0.6, -0.72])
    brightness = 0.75 + 0.25 * np.abs(cloud.normals @ lamp.astype(f32))
    return np.clip(colors * brightness[:, None], 0, 255).astype(np.uint8)
