"""Merging a frame into the surfels that it shows again, compiled: the larger part of what fusion costs.

What a surfel needs of the image is looked up surfel by surfel; the means are then made of a group of surfels at once,
in loops without branches that run over whole vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL, SERIAL, prefetch
from semslam.engine.chunks import CHUNK
from semslam.engine.fusion_kernels import gate_of, radius_of
from semslam.engine.index_map import AHEAD, MICRO, atomic_min, locate, pixel_at
from semslam.engine.vectors import GROUP, LANES, to_columns, to_rows

f32 = np.float32
LAYERS = f32(4)  # gates behind a measurement, within which a surfel of the same normal is a second layer of its surface
DEAD = f32(-1)  # the confidence of a surfel that has to go
ONE, TWO = np.uint64(1), np.uint64(2)
BYTE, LOW, COLORS = np.int32(0xFF), np.int32(0xFFFF), np.int64(0xFFFFFFFFFFFF)  # bits of one number, and of three
# What is known of a group, each (GROUP,) float32, one after the other: of the measurements depth, normal in the
# camera's frame, weight, and the part that they have in the mean; of the surfels position, radius, normal, confidence.
FIELDS = 14
DEPTH, M_X, M_Y, M_Z, WEIGHT, PART, P_X, P_Y, P_Z, RADIUS, S_X, S_Y, S_Z, CONFIDENCE = (
    k * GROUP for k in range(FIELDS)
)


class Found(NamedTuple):
    """The measurements that the surfels of a group project to."""

    places: np.ndarray  # (GROUP,) int32, see `locate`
    shades: np.ndarray  # (GROUP,) int32, red + green << 8 + blue << 16
    values: np.ndarray  # (FIELDS * GROUP,) float32, as above; the weight is 0 where a surfel has no partner


@nb.njit(**SERIAL)
def merge_group(position, normal, color, seen, pixels, found, view, rules):
    """Merge a group of surfels with what was found for them, see `merge`; returns how many have merged.

    position, normal (4 N,) float32, color (N,) uint64, seen (N,) int64, pixels (N,): the rows of N slots, of which only
    those with a weight are changed; N is a multiple of `LANES`. view: (pose, camera, frame). Loops without branches
    over few arrays, which run over whole vectors: the mean is made for all, and written where there is one.
    """
    places, shades, values = found
    (R, t), camera, now = view
    r00, r01, r02 = R[0, 0], R[0, 1], R[0, 2]
    r10, r11, r12 = R[1, 0], R[1, 1], R[1, 2]
    r20, r21, r22 = R[2, 0], R[2, 1], R[2, 2]
    t0, t1, t2 = t[0], t[1], t[2]
    width, _, fx, fy, cx, cy = camera
    cos_gate, spacing, max_confidence = rules.cos_gate, rules.spacing, rules.max_confidence
    inverse_focal = f32(2) / (fx + fy)
    inverse_fx, inverse_fy = f32(1) / fx, f32(1) / fy
    n = pixels.size
    for j in range(0, n, LANES):
        to_columns(position, 4 * j, values, P_X + j)
        to_columns(normal, 4 * j, values, S_X + j)
    for j in range(n):
        d, weight = values[DEPTH + j], values[WEIGHT + j]
        m_x, m_y, m_z = values[M_X + j], values[M_Y + j], values[M_Z + j]
        p_x, p_y, p_z, p_r = values[P_X + j], values[P_Y + j], values[P_Z + j], values[RADIUS + j]
        s_x, s_y, s_z, confident = values[S_X + j], values[S_Y + j], values[S_Z + j], values[CONFIDENCE + j]
        n_x = r00 * m_x + r01 * m_y + r02 * m_z
        n_y = r10 * m_x + r11 * m_y + r12 * m_z
        n_z = r20 * m_x + r21 * m_y + r22 * m_z
        merges = (s_x * n_x + s_y * n_y + s_z * n_z > cos_gate) & (weight > f32(0))
        total = confident + weight
        radius = radius_of(d, m_z, inverse_focal, spacing)
        moves = merges & (radius < f32(1.5) * p_r)
        b = weight / total
        u, v = np.int32(places[j] & LOW), np.int32(places[j] >> np.int32(16))
        m_x = (f32(u) - cx) * inverse_fx * d
        m_y = (f32(v) - cy) * inverse_fy * d
        x = r00 * m_x + r01 * m_y + r02 * d + t0 - p_x
        y = r10 * m_x + r11 * m_y + r12 * d + t1 - p_y
        z = r20 * m_x + r21 * m_y + r22 * d + t2 - p_z
        shift = b * (x * s_x + y * s_y + z * s_z)
        values[P_X + j] = p_x + shift * s_x if moves else p_x
        values[P_Y + j] = p_y + shift * s_y if moves else p_y
        values[P_Z + j] = p_z + shift * s_z if moves else p_z
        values[RADIUS + j] = p_r + b * (radius - p_r) if moves else p_r
        n_x = s_x + b * (n_x - s_x)
        n_y = s_y + b * (n_y - s_y)
        n_z = s_z + b * (n_z - s_z)
        scale = f32(1) / np.sqrt(n_x * n_x + n_y * n_y + n_z * n_z)
        values[S_X + j] = n_x * scale if moves else s_x
        values[S_Y + j] = n_y * scale if moves else s_y
        values[S_Z + j] = n_z * scale if moves else s_z
        values[CONFIDENCE + j] = min(total, max_confidence) if merges else confident
        values[WEIGHT + j] = weight if merges else f32(0)
        values[PART + j] = b if moves else f32(0)
    for j in range(0, n, LANES):
        to_rows(values, P_X + j, position, 4 * j)
        to_rows(values, S_X + j, normal, 4 * j)
    for j in range(n):  # colours are 8.8 fixed point
        b, shade, old = values[PART + j], shades[j], np.int64(color[j])
        c_0, c_1, c_2 = f32(np.int32(old & LOW)), f32(np.int32((old >> 16) & LOW)), f32(np.int32((old >> 32) & LOW))
        m_0, m_1, m_2 = f32(np.int32(shade & BYTE)), f32(np.int32((shade >> 8) & BYTE)), f32(np.int32(shade >> 16))
        c_0 += b * (f32(256) * m_0 - c_0)
        c_1 += b * (f32(256) * m_1 - c_1)
        c_2 += b * (f32(256) * m_2 - c_2)
        new = np.int64(np.int32(c_0 + f32(0.5))) | (np.int64(np.int32(c_1 + f32(0.5))) << 16)
        new |= np.int64(np.int32(c_2 + f32(0.5))) << 32
        color[j] = np.uint64(new | (old & ~COLORS))
    merged = 0
    for j in range(n):
        merges = values[WEIGHT + j] > f32(0)
        pixel = np.int32(places[j] >> np.int32(16)) * np.int32(width) + np.int32(places[j] & LOW)
        pixels[j] = np.int32(pixel) if merges else np.int32(-1)
        seen[j] = (seen[j] & 0xFFFFFFFF) | (np.int64(now) << 32) if merges else seen[j]
        merged += np.int64(merges)
    return merged


@nb.njit(inline="always")
def fetch_measurement(place, width, depth, normals, color, index):
    """Let the processor fetch what `merge` is about to look up of a pixel, if any."""
    if place >= 0:
        q = pixel_at(place, width)
        prefetch(depth, q)
        prefetch(normals, 3 * q + 2)
        prefetch(color, 3 * q)
        prefetch(index, q)


@nb.njit(inline="always")
def punished(confident, loss):
    """A surfel's confidence after a loss; below zero it is dead."""
    confident -= loss
    return confident if confident >= f32(0) else DEAD


@nb.njit(inline="always")
def agrees(R, m_x, m_y, m_z, normal, i, cos_gate):
    """Whether surfel i has the normal of a measurement, given in the camera's frame."""
    n_x = R[0, 0] * m_x + R[0, 1] * m_y + R[0, 2] * m_z
    n_y = R[1, 0] * m_x + R[1, 1] * m_y + R[1, 2] * m_z
    n_z = R[2, 0] * m_x + R[2, 1] * m_y + R[2, 2] * m_z
    return normal[i, 0] * n_x + normal[i, 1] * n_y + normal[i, 2] * n_z > cos_gate


@nb.njit(**PARALLEL)
def merge(chunks, surfels, pose, camera, measured, rules, now, traces):
    """Merge frame `now` into the surfels of `chunks`, carve free space, and make the frame's index map.

    A surfel's partner is the measurement in the pixel that it projects to: being there bounds its distance to the
    pixel's ray to 0.71 pixels; depth and normal must agree within the gates. Going surfel by surfel has no races,
    touches each surfel's memory once, and updates all surfels of a surface, so that no second layer can hide behind
    the first.

    The merge is the confidence-weighted mean (Keller et al. 2013, eq. 3-6), with one change: the position moves along
    the surfel's normal only, because what the measurement says across it is where its pixel happened to lie; this
    keeps the surfels' spacing. A measurement much coarser than the surfel (radius over 1.5 times) only confirms it
    (Whelan et al. 2015, sec. 4).

    A surfel in front of a reliable measurement by more than two gates contradicts it: it loses `carve` of its
    confidence, dies below zero, and takes no part in the index map. So does one of the measurement's normal that
    stands between one and two gates before it, or between one and `LAYERS` behind: outliers of depth would heap up a
    second layer there, which becomes stable in time. It loses `carve` times the measurement's weight, by default as
    much as the true layer gains. The pose is T_world_camera.
    """
    counts, s_position, s_normal, s_color, s_seen, _ = surfels
    depth, normals, color, confidence, weights_u, weights_v = measured
    index, pixels, merged_counts = traces
    width, near, far, cos_gate = camera.width, rules.near, rules.far, rules.cos_gate
    has_confidence = confidence.size > 0
    flat_position, flat_depth = s_position.reshape(-1), depth.reshape(-1)
    flat_normal = s_normal.reshape(-1)
    packed_color, packed_seen = s_color.reshape(-1).view(np.uint64), s_seen.reshape(-1).view(np.int64)
    flat_normals, flat_color, flat_confidence = normals.reshape(-1), color.reshape(-1), confidence.reshape(-1)
    for c_ in nb.prange(chunks.size):
        c = np.int64(c_)  # prange counts unsigned
        begin = np.int64(chunks[c]) * CHUNK
        end = begin + np.int64(counts[chunks[c]])
        depths, places, shades = np.empty(GROUP, np.float32), np.empty(GROUP, np.int32), np.zeros(GROUP, np.int32)
        values = np.zeros(FIELDS * GROUP, np.float32)
        merged = 0
        for first in range(begin, end, GROUP):
            count = min(end - first, GROUP)
            locate(flat_position[4 * first : 4 * (first + count)], pose, camera, near, far, depths, places)
            n_partners = 0
            for j in range(count):
                fetch_measurement(places[min(j + AHEAD, count - 1)], width, flat_depth, flat_normals, flat_color, index)
                if j & 3 == 0:  # a line of the next group
                    prefetch(flat_position, 4 * (first + j + GROUP))
                    prefetch(flat_normal, 4 * (first + j + GROUP))
                    if j & 7 == 0:
                        prefetch(packed_color, first + j + GROUP)
                        prefetch(packed_seen, first + j + GROUP)
                values[WEIGHT + j] = f32(0)
                if places[j] < 0:
                    continue
                i = np.uint64(first + j)
                confident = s_normal[i, 3]
                if confident < f32(0):
                    continue
                z_c = depths[j]
                p = np.uint64(pixel_at(places[j], width))
                d = flat_depth[p]
                q = np.uint64(3) * p
                if d > f32(0) and flat_normals[q + TWO] != f32(0):
                    room = gate_of(d, rules)
                    if d - z_c > f32(2) * room:
                        s_normal[i, 3] = punished(confident, rules.carve)
                        continue
                    close = abs(d - z_c) < room
                    if close or z_c - d < LAYERS * room:
                        m_x, m_y, m_z = flat_normals[q], flat_normals[q + ONE], flat_normals[q + TWO]
                        weight = weights_u[places[j] & 0xFFFF] * weights_v[places[j] >> 16]
                        if has_confidence:
                            weight *= flat_confidence[p]
                        if close:
                            red, green, blue = flat_color[q], flat_color[q + ONE], flat_color[q + TWO]
                            shades[j] = np.int32(red) | np.int32(green) << 8 | np.int32(blue) << 16
                            values[DEPTH + j], values[WEIGHT + j] = d, weight
                            values[M_X + j], values[M_Y + j], values[M_Z + j] = m_x, m_y, m_z
                            n_partners += 1
                        elif agrees(pose.R, m_x, m_y, m_z, s_normal, i, cos_gate):
                            s_normal[i, 3] = punished(confident, rules.carve * weight)
                            continue
                key = (np.int64(z_c * MICRO) << 32) | np.int64(i)
                if key < index[p]:
                    atomic_min(index, p, key)
            if n_partners > 0:
                padded = -(-count // LANES) * LANES  # a chunk has slots for that
                values[WEIGHT + count : WEIGHT + padded] = f32(0)
                slots, rows = slice(first, first + padded), slice(4 * first, 4 * (first + padded))
                merged += merge_group(
                    flat_position[rows], flat_normal[rows], packed_color[slots], packed_seen[slots], pixels[slots],
                    Found(places, shades, values), (pose, camera, now), rules,
                )  # fmt: skip
            else:
                pixels[first : first + count] = np.int32(-1)
        merged_counts[c] = merged


@nb.njit(**PARALLEL)
def match(chunks, surfels, pose, camera, measured, rules, pixels):
    """Of each slot of `chunks`, the pixel v * width + u whose measurement `merge` would merge its surfel with, or -1.

    The pose is T_world_camera.
    """
    counts, position, normal, _, _, _ = surfels
    R = pose.R
    flat_position = position.reshape(-1)
    for c_ in nb.prange(chunks.size):
        c = np.int64(c_)  # prange counts unsigned
        first, count = np.int64(chunks[c]) * CHUNK, np.int64(counts[chunks[c]])
        depths, places = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.int32)
        locate(flat_position[4 * first : 4 * (first + count)], pose, camera, rules.near, rules.far, depths, places)
        for j in range(count):
            i = first + j
            pixels[i] = -1
            if places[j] < 0 or normal[i, 3] < f32(0):
                continue
            u, v = np.int64(places[j] & LOW), np.int64(places[j] >> np.int32(16))
            d = measured.depth[v, u]
            if d <= f32(0) or abs(d - depths[j]) >= gate_of(d, rules):
                continue
            cosine = f32(0)
            for k in range(3):  # the surfel's normal in the camera's frame
                n = R[0, k] * normal[i, 0] + R[1, k] * normal[i, 1] + R[2, k] * normal[i, 2]
                cosine += n * measured.normals[v, u, k]
            if cosine > rules.cos_gate:
                pixels[i] = v * camera.width + u
