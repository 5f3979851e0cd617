"""Fusing a frame, compiled: mark and write new surfels, mark what has to go; what is seen again is merged by `merging`.

One surfel or one pixel an iteration, plain scalars. How surfels are stored: `chunks`; the index map: `index_map`.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL, SERIAL, Pinhole, prefetch
from semslam.engine.chunks import CHUNK, MARKED
from semslam.engine.depth_filter import depth_sigma
from semslam.engine.index_map import AHEAD, EMPTY, MICRO, SLOT, locate, pixel_at

f32 = np.float32
RIM = 160  # see `mark_removals`
RARE = f32(0.2)  # of `stable`: the confidence of what was seen once or twice at the border of the image
MOST_OF_DEPTH = f32(0.1)  # of its depth: what a surface's gate grows to
NOTHING = np.int32(EMPTY >> 32)  # micrometres: the depth of a pixel of the index map that shows no surfel
DEEPEST = f32(2147483520)  # micrometres: the largest float32 below that


class Measured(NamedTuple):
    """A prepared frame. A measurement's weight is weights_u[u] * weights_v[v] * confidence[v, u]."""

    depth: np.ndarray  # (H, W) float32 metres, 0 = none
    normals: np.ndarray  # (H, W, 3) float32 unit, camera frame, 0 = none
    color: np.ndarray  # (H, W, 3) uint8
    confidence: np.ndarray  # (H, W) float32; empty counts as 1 everywhere
    weights_u: np.ndarray  # (W,) float32
    weights_v: np.ndarray  # (H,) float32


class Rules(NamedTuple):
    """The settings of `FusionConfig` that the loops need, and the depths between which surfels count in this frame.

    Flat, because Numba's parallel loops take no tuple of tuples; `depth_sigma` reads base and quadratic.
    """

    near: np.float32  # metres
    far: np.float32
    base: np.float32  # see `Noise`
    quadratic: np.float32
    gate: np.float32  # metres, on top of three standard deviations
    cos_gate: np.float32  # least cosine between the normals of a surfel and of its measurement
    spacing: np.float32  # metres
    coarsest: np.float32
    max_confidence: np.float32
    carve: np.float32
    stable: np.float32


class Traces(NamedTuple):
    """What the fusion of a frame leaves beside the map."""

    index_map: np.ndarray  # (H * W,) int64
    pixels: np.ndarray  # (S,) int32 the pixel that each slot was merged with, -1 for none
    merged: np.ndarray  # (chunks,) int64 how many of each chunk in view were


@nb.njit(inline="always")
def gate_of(z, rules):
    """How far, in metres, a measurement at depth z may lie from the surfel that it belongs to.

    What a camera's noise grows by with depth is bounded: a car before a facade is no error of the facade's.
    """
    return rules.gate + min(f32(3) * depth_sigma(z, rules), f32(3) * rules.base + MOST_OF_DEPTH * z)


@nb.njit(inline="always")
def radius_of(z, n_z, inverse_focal, spacing):
    """Radius in metres of the disk that stands for a pixel at depth z with normal n_z (Whelan et al. 2015, sec. 4)."""
    tilt = min(f32(2), f32(1) / max(abs(n_z), f32(0.01)))
    return f32(1.4142135) * max(z * inverse_focal, spacing) * tilt


@nb.njit(inline="always")
def covered(index, u, v, width, height, d, gate, reach):
    """Whether a surfel within `reach` pixels of (u, v) already stands at depth d."""
    low = np.int64(max(d - gate, f32(0)) * MICRO)
    high = np.int64((d + gate) * MICRO)
    for w in range(max(v - reach, 0), min(v + reach + 1, height)):
        for q in range(max(u - reach, 0), min(u + reach + 1, width)):
            z = index[w * width + q] >> 32
            if z > low and z < high:
                return True
    return False


@nb.njit(**PARALLEL)
def find_new(index, measured, camera, rules, new, new_counts):
    """Find the measurements that no surfel covers: in `new` (H, W) int32 each row begins with its pixels v * W + u that
    are new, as many as new_counts (H,) says.

    Covered means that a surfel stands within the gate of the measurement's depth in its pixel or a neighbouring one,
    or in as many pixels around as `spacing` metres take up there. Only the black fields of a chessboard become surfels,
    as long as these stand less than `coarsest` metres apart: 1.41 pixels, which is their radius, so that their disks
    overlap, and what is left out is the half that repeats what its neighbours say.
    """
    depth, normals, confidence = measured.depth, measured.normals, measured.confidence
    spacing, coarsest = rules.spacing, rules.coarsest
    height, width = depth.shape
    focal = f32(0.5) * (camera.fx + camera.fy)
    has_confidence = confidence.size > 0
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        row, keys = depth[v], index[v * width : (v + 1) * width]
        lows, highs = np.empty(width, np.int32), np.empty(width, np.int32)
        hidden = np.zeros(width, np.uint8)
        # most pixels are done with here, in loops without branches: those without depth, the white fields, and those
        # that a surfel in their own or a neighbouring pixel covers
        for u in range(width):
            d = row[u]
            gate = gate_of(d, rules)
            lows[u] = np.int32(min(max(d - gate, f32(0)) * MICRO, DEEPEST))
            highs[u] = np.int32(min((d + gate) * MICRO, DEEPEST))
            white = (d > spacing * focal) & ((u + v) & 1 == 1) & (f32(1.4142135) * d < coarsest * focal)
            own = abs(f32(np.int32(keys[u] >> 32)) / MICRO - d) < gate
            hidden[u] = np.uint8(1) if (d <= f32(0)) | own | white else np.uint8(0)
        depths = np.empty(width + 2, np.int32)
        for w in range(max(v - 1, 0), min(v + 2, height)):
            keys = index[w * width : (w + 1) * width]
            depths[0] = depths[width + 1] = NOTHING
            for u in range(width):
                depths[u + 1] = np.int32(keys[u] >> 32)
            for du in range(3):
                there = depths[du : du + width]
                for u in range(width):
                    hidden[u] |= np.uint8((there[u] > lows[u]) & (there[u] < highs[u]))
        n_new = 0
        for u in range(width):
            if hidden[u] or normals[v, u, 2] == f32(0) or (has_confidence and confidence[v, u] <= f32(0)):
                continue
            d = row[u]
            if d <= spacing * focal:  # cells of two pixels or more, as one is smaller than the spacing
                reach = np.int64(min(spacing * focal / d, f32(width))) + 1
                if u % reach != 0 or v % reach != 0:
                    continue
                if (u // reach + v // reach) & 1 == 1 and f32(1.4142135) * d < coarsest * focal:
                    continue
                if covered(index, u, v, width, height, d, gate_of(d, rules), reach):
                    continue
            new[v, n_new] = np.int32(v * width + u)
            n_new += 1
        new_counts[v] = n_new


@nb.njit(**SERIAL)
def list_new(new, ends, pixels):
    """The pixels of `find_new` in row-major order; ends (H,) is the inclusive prefix sum of the rows' counts."""
    for v in range(ends.size):
        first = ends[v - 1] if v > 0 else 0
        for k in range(first, ends[v]):
            pixels[k] = new[v, k - first]


class New(NamedTuple):
    """Measurements that become surfels, one row each."""

    pixels: np.ndarray  # (N,) int32 v * W + u
    points: np.ndarray  # (N, 3) float32 world, metres
    slots: np.ndarray  # (M,) int64 of the first M, which found room in the map


@nb.njit(**SERIAL)
def world_points(pixels, depth, pose, camera, out):
    """World positions (N, 3), metres, of the given pixels (N,) of a depth image."""
    R, t = pose
    width = depth.shape[1]
    for j in range(pixels.size):
        v = pixels[j] // width
        u = pixels[j] - v * width
        d = depth[v, u]
        x = (f32(u) - camera.cx) / camera.fx * d
        y = (f32(v) - camera.cy) / camera.fy * d
        for k in range(3):
            out[j, k] = R[k, 0] * x + R[k, 1] * y + R[k, 2] * d + t[k]


@nb.njit(**SERIAL)
def write_new(new, surfels, pose, camera, measured, rules, now, traces):
    """Make the new surfels, and enter them in the index map."""
    pixels, points, new_slots = new
    _, s_position, s_normal, s_color, s_seen, s_evidence = surfels
    depth, normals, color, confidence, weights_u, weights_v = measured
    index, s_pixels, _ = traces
    R = pose.R
    width = depth.shape[1]
    inverse_focal = f32(2) / (camera.fx + camera.fy)
    for j in range(new_slots.size):
        p = pixels[j]
        v = p // width
        u = p - v * width
        i = new_slots[j]
        d = depth[v, u]
        for k in range(3):
            s_position[i, k] = points[j, k]
            s_normal[i, k] = R[k, 0] * normals[v, u, 0] + R[k, 1] * normals[v, u, 1] + R[k, 2] * normals[v, u, 2]
            s_color[i, k] = np.uint16(256) * np.uint16(color[v, u, k])
        s_color[i, 3] = np.uint16(0)
        s_position[i, 3] = radius_of(d, normals[v, u, 2], inverse_focal, rules.spacing)
        s_normal[i, 3] = weights_u[u] * weights_v[v] * (confidence[v, u] if confidence.size > 0 else f32(1))
        s_seen[i, 0] = now
        s_seen[i, 1] = now
        for k in range(s_evidence.shape[1]):
            s_evidence[i, k] = np.uint16(0)
        s_pixels[i] = p
        index[p] = (np.int64(d * MICRO) << 32) | np.int64(i)


@nb.njit(**PARALLEL)
def mark_removals(chunks, surfels, pose, camera, depth, rules, stale, index):
    """Kill surfels in view that are unstable and no longer confirmed, or doubles of a better one in their pixel.

    Unstable: confidence below `stable`, nothing else is measured in its pixel, yet it was last merged before frame
    `stale`. Where no depth is measured, nothing would ever see through what was there for a moment. RARE: far below
    `stable`, and in a rim around the image, a pixel more than 1 / RIM of its width; what noise has moved out there is
    made anew inside, again and again.
    Double: the same normal, within the gate in depth and half a radius sideways of the pixel's front surfel; of the two
    the less confident goes, on a tie the one behind. The mark goes into the colour's spare channel, which nobody reads
    here, so that the result does not depend on the order; `compact_chunks` removes what is marked.
    """
    counts, position, normal, color, seen, _ = surfels
    near, far, cos_gate, stable = rules.near, rules.far, rules.cos_gate, rules.stable
    flat_position, flat_depth = position.reshape(-1), depth.reshape(-1)
    width, height = camera.width, camera.height
    rim = min(1 + width // RIM, (65535 - width) // 2, (32767 - height) // 2)
    wide = Pinhole(width + 2 * rim, height + 2 * rim, camera.fx, camera.fy, camera.cx + f32(rim), camera.cy + f32(rim))
    for c_ in nb.prange(chunks.size):
        c = np.int64(c_)  # prange counts unsigned
        first, count = np.int64(chunks[c]) * CHUNK, np.int64(counts[chunks[c]])
        depths, places = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.int32)
        locate(flat_position[4 * first : 4 * (first + count)], pose, wide, near, far, depths, places)
        for k in range(count):
            ahead = places[min(k + AHEAD, count - 1)]
            if ahead >= 0:
                q = max(min(pixel_at(ahead, width) - rim * (width + 1), index.size - 1), 0)
                prefetch(flat_depth, q)
                prefetch(index, q)
            i = np.uint64(first + k)
            if places[k] < 0 or normal[i, 3] < f32(0):
                continue
            u, v = np.int64(places[k] & 0xFFFF) - rim, np.int64(places[k] >> 16) - rim
            inside = u >= 0 and v >= 0 and u < width and v < height
            if not inside:
                if normal[i, 3] < RARE * stable and seen[i, 1] < stale:
                    color[i, 3] = MARKED
                continue
            z_c, p = depths[k], np.uint64(v * width + u)
            room = gate_of(z_c, rules)
            d = flat_depth[p]
            hidden = d > f32(0) and abs(d - z_c) >= f32(2) * room
            if not hidden and normal[i, 3] < stable and seen[i, 1] < stale:
                color[i, 3] = MARKED
                continue
            key = index[p]
            j = key & SLOT
            if key == EMPTY or j == np.int64(i) or f32(key >> 32) / MICRO < z_c - room:
                continue
            n_x = normal[j, 0]
            n_y = normal[j, 1]
            n_z = normal[j, 2]
            if n_x * normal[i, 0] + n_y * normal[i, 1] + n_z * normal[i, 2] < cos_gate:
                continue
            x = position[i, 0] - position[j, 0]
            y = position[i, 1] - position[j, 1]
            z = position[i, 2] - position[j, 2]
            along = x * n_x + y * n_y + z * n_z
            sideways = x * x + y * y + z * z - along * along
            reach = f32(0.5) * min(position[i, 3], position[j, 3])
            if abs(along) < room and sideways < reach * reach:
                if normal[i, 3] <= normal[j, 3]:
                    color[i, 3] = MARKED
                else:
                    color[j, 3] = MARKED
