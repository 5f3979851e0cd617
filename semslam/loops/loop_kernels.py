"""The compiled loops of loop closure: a map deformed by time, and what keyframes see of each other."""

from __future__ import annotations

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL, SERIAL, pixel_of


@nb.njit(**PARALLEL)
def deform(slots, position, normal, seen, first, T_new_old, moved):
    """Move the surfels in `slots`, each by the transform of the frame that made it; moved (N,): how far, metres.

    T_new_old (F, 3, 4) float32, of frame `first` and those after it; frames beyond its ends move with the nearest.
    """
    last = T_new_old.shape[0] - 1
    for j_ in nb.prange(slots.size):
        j = np.int64(j_)  # prange counts unsigned
        i = slots[j]
        f = min(max(np.int64(seen[i, 0]) - first, 0), last)
        x, y, z = position[i, 0], position[i, 1], position[i, 2]
        n_x, n_y, n_z = normal[i, 0], normal[i, 1], normal[i, 2]
        way2 = np.float32(0)
        for k in range(3):
            a, b, c = T_new_old[f, k, 0], T_new_old[f, k, 1], T_new_old[f, k, 2]
            old = position[i, k]
            position[i, k] = a * x + b * y + c * z + T_new_old[f, k, 3]
            normal[i, k] = a * n_x + b * n_y + c * n_z
            way2 += (position[i, k] - old) ** 2
        moved[j] = np.sqrt(way2)


@nb.njit(**PARALLEL)
def overlaps(grids, T_live_grid, depth, camera, near, out):
    """For each keyframe the share of its points whose surface another camera sees, too.

    grids (N, P, 3) float32: points of the keyframes in their own cameras, z = 0 for none. T_live_grid (N, 3, 4)
    float32 takes them to the live camera, whose depth (H, W) there has to be alike, within
    `near` metres.
    """
    for k_ in nb.prange(grids.shape[0]):
        k = np.int64(k_)  # prange counts unsigned
        known, shared = 0, 0
        for i in range(grids.shape[1]):
            if grids[k, i, 2] <= 0:
                continue
            known += 1
            x, y, z = grids[k, i, 0], grids[k, i, 1], grids[k, i, 2]
            zz = T_live_grid[k, 2, 0] * x + T_live_grid[k, 2, 1] * y + T_live_grid[k, 2, 2] * z + T_live_grid[k, 2, 3]
            if zz < np.float32(0.1):
                continue
            xx = T_live_grid[k, 0, 0] * x + T_live_grid[k, 0, 1] * y + T_live_grid[k, 0, 2] * z + T_live_grid[k, 0, 3]
            yy = T_live_grid[k, 1, 0] * x + T_live_grid[k, 1, 1] * y + T_live_grid[k, 1, 2] * z + T_live_grid[k, 1, 3]
            u, v = pixel_of(camera, xx, yy, zz)
            if u < 0:
                continue
            d = depth[v, u]
            if d > 0 and abs(d - zz) < near:
                shared += 1
        out[k] = shared / known if known > 0 else 0.0


@nb.njit(**SERIAL)
def every_nth(depth, color, n, unit, out_depth, out_grey):
    """Depth (H, W) in metres as uint16 in a unit, 0 where that does not hold it, of every n-th pixel each way, and the
    mean of a colour image's channels there, and of as many pixels around as are nearer to it than to the next."""
    height, width = out_depth.shape
    reach = (n - 1) // 2
    for v in range(height):
        for u in range(width):
            d = np.rint(depth[n * v, n * u] / unit)
            out_depth[v, u] = np.uint16(d if d < 65536 else 0)
            total, count = np.uint32(0), np.uint32(0)
            for row in range(max(n * v - reach, 0), min(n * v + reach + 1, color.shape[0])):
                for column in range(max(n * u - reach, 0), min(n * u + reach + 1, color.shape[1])):
                    for channel in range(3):
                        total += np.uint32(color[row, column, channel])
                    count += np.uint32(3)
            out_grey[v, u] = total // count


@nb.njit(**SERIAL)
def surface_points(depth, normals, camera, stride, pixels, points):
    """Pixels (N, 2) and points (N, 7) of a `View` of every n-th pixel with a normal; returns how many."""
    height, width = depth.shape
    n = 0
    for v in range(stride // 2, height, stride):
        for u in range(stride // 2, width, stride):
            if normals[v, u, 2] == 0:
                continue
            z = depth[v, u]
            pixels[n, 0], pixels[n, 1] = u, v
            points[n, 0], points[n, 1], points[n, 2] = (
                (u - camera.cx) / camera.fx * z,
                (v - camera.cy) / camera.fy * z,
                z,
            )
            for k in range(3):
                points[n, 3 + k] = normals[v, u, k]
            points[n, 6] = np.inf  # measured once, but by the sensor itself
            n += 1
    return n
