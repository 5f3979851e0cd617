"""The compiled loops over surfels and pixels. One surfel or one pixel an iteration, plain scalars.

Surfels live in chunks of `CHUNK` slots; chunk k owns the slots k * CHUNK .. k * CHUNK + count[k] - 1, all in one cube
of space, so that what the camera cannot see is skipped a chunk at a time. The index map (H * W,) int64 holds for each
pixel the nearest surfel as one key, depth in micrometres << 32 | slot: the minimum of keys is the nearest surfel, and
among equals the lower slot, whatever the order in which threads arrive.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from semslam.compiled import PARALLEL, SERIAL
from semslam.depth_filter import depth_sigma
from semslam.frame import NO_GREY

f32 = np.float32
CHUNK = 1024
EMPTY = np.int64(0x7FFFFFFFFFFFFFFF)
SLOT = np.int64(0xFFFFFFFF)
MICRO = f32(1e6)
DEAD = f32(-1)  # the confidence of a surfel that waits for the next compaction
MARKED = np.uint16(1)  # the same, said in the spare fourth channel of its colour


@intrinsic
def atomic_min(typing_context, array, index, value):
    """array[index] = min(array[index], value) for a contiguous int64 array, atomically."""
    signature = types.void(array, types.intp, types.int64)

    def generate(context, builder, signature, arguments):
        from numba.np.arrayobj import make_array

        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.atomic_rmw("min", builder.gep(data, [arguments[1]]), arguments[2], "monotonic")
        return context.get_dummy_value()

    return signature, generate


@nb.njit(inline="always")
def gate_of(z, base, quadratic, gate):
    """How far, in metres, a measurement at depth z may lie from the surfel that it belongs to."""
    return gate + f32(3) * depth_sigma(z, base, quadratic)


@nb.njit(inline="always")
def radius_of(z, n_z, inverse_focal, spacing):
    """Radius in metres of the disk that stands for a pixel at depth z with normal n_z (Whelan et al. 2015, sec. 4)."""
    tilt = min(f32(2), f32(1) / max(abs(n_z), f32(0.01)))
    return f32(1.4142135) * max(z * inverse_focal, spacing) * tilt


@nb.njit(**SERIAL)
def visible_chunks(origins, counts, n_chunks, block, margin, R, t, K, near, far, width, height, out):
    """Chunks whose cube of space (lower corner `origins`, side `block`, metres) meets the view frustum.

    R, t is T_world_camera. A cube is outside when its centre is further from one of the six planes than its
    half-diagonal plus the margin by which surfels may have moved. Returns how many ids were written to `out`.
    """
    fx, fy, cx, cy = K[0], K[1], K[2], K[3]
    # inward normals (x, z) or (y, z) of the four side planes, through the outer edges of the border pixels
    left = (f32(-0.5) - cx) / fx
    right = (f32(width) - f32(0.5) - cx) / fx
    top = (f32(-0.5) - cy) / fy
    bottom = (f32(height) - f32(0.5) - cy) / fy
    n_left = f32(1) / np.sqrt(f32(1) + left * left)
    n_right = f32(1) / np.sqrt(f32(1) + right * right)
    n_top = f32(1) / np.sqrt(f32(1) + top * top)
    n_bottom = f32(1) / np.sqrt(f32(1) + bottom * bottom)
    reach = f32(0.8660254) * block + margin
    half = f32(0.5) * block
    n = 0
    for k in range(n_chunks):
        if counts[k] == 0:
            continue
        x = origins[k, 0] + half - t[0]
        y = origins[k, 1] + half - t[1]
        z = origins[k, 2] + half - t[2]
        z_c = R[0, 2] * x + R[1, 2] * y + R[2, 2] * z
        if z_c < near - reach or z_c > far + reach:
            continue
        x_c = R[0, 0] * x + R[1, 0] * y + R[2, 0] * z
        if (x_c - left * z_c) * n_left < -reach or (right * z_c - x_c) * n_right < -reach:
            continue
        y_c = R[0, 1] * x + R[1, 1] * y + R[2, 1] * z
        if (y_c - top * z_c) * n_top < -reach or (bottom * z_c - y_c) * n_bottom < -reach:
            continue
        out[n] = k
        n += 1
    return n


@nb.njit(**PARALLEL)
def clear_index(index):
    for p_ in nb.prange(index.size):
        p = np.int64(p_)  # prange counts unsigned
        index[p] = EMPTY


@nb.njit(**PARALLEL)
def project_chunks(chunks, n, counts, position, normal, R, t, K, near, far, width, height, index):
    """The index map of the surfels in `chunks[:n]` seen from T_world_camera = (R, t)."""
    r00, r01, r02 = R[0, 0], R[0, 1], R[0, 2]
    r10, r11, r12 = R[1, 0], R[1, 1], R[1, 2]
    r20, r21, r22 = R[2, 0], R[2, 1], R[2, 2]
    t0, t1, t2 = t[0], t[1], t[2]
    fx, fy, cx, cy = K[0], K[1], K[2], K[3]
    for c_ in nb.prange(n):
        c = np.int64(c_)  # prange counts unsigned
        first = np.int64(chunks[c]) * CHUNK
        for i in range(np.uint64(first), np.uint64(first + counts[chunks[c]])):
            x = position[i, 0] - t0
            y = position[i, 1] - t1
            z = position[i, 2] - t2
            z_c = r02 * x + r12 * y + r22 * z
            if z_c < near or z_c > far:
                continue
            u = np.int32(np.floor((r00 * x + r10 * y + r20 * z) / z_c * fx + cx + f32(0.5)))
            v = np.int32(np.floor((r01 * x + r11 * y + r21 * z) / z_c * fy + cy + f32(0.5)))
            if u < 0 or v < 0 or u >= width or v >= height:
                continue
            if normal[i, 3] < f32(0):
                continue
            p = v * width + u
            key = (np.int64(z_c * MICRO) << 32) | np.int64(i)
            if key < index[p]:
                atomic_min(index, p, key)


@nb.njit(**PARALLEL)
def merge(
    chunks, n, counts, s_position, s_normal, s_color, s_seen, R, t, K, near, far, depth, normals, color, weights_u,
    weights_v, confidence, base, quadratic, gate, cos_gate, spacing, max_confidence, carve, now, index, pixels,
    merged_counts,
):  # fmt: skip
    """Merge the frame into the surfels of `chunks[:n]`, carve free space, and make the frame's index map.

    A surfel's partner is the measurement in the pixel that it projects to: being there bounds its distance to the
    pixel's ray to 0.71 pixels; depth and normal must agree within the gates. Going surfel by surfel has no races,
    touches each surfel's memory once, and updates all surfels of a surface, so that no second layer can hide behind
    the first.

    The merge is the confidence-weighted mean (Keller et al. 2013, eq. 3-6), with one change: the position moves along
    the surfel's normal only, because what the measurement says across it is where its pixel happened to lie; this
    keeps the surfels' spacing. A measurement much coarser than the surfel (radius over 1.5 times) only confirms it
    (Whelan et al. 2015, sec. 4).

    A surfel in front of a reliable measurement by more than two gates contradicts it: it loses `carve` of its
    confidence, dies below zero, and takes no part in the index map. A measurement's weight is weights_u[u] *
    weights_v[v] * confidence[v, u]; an empty confidence counts as 1. pixels (S,) int32 gets the pixel that each slot of
    these chunks was merged with, -1 for none; merged_counts (n,) how many they are.
    """
    height, width = depth.shape
    r00, r01, r02 = R[0, 0], R[0, 1], R[0, 2]
    r10, r11, r12 = R[1, 0], R[1, 1], R[1, 2]
    r20, r21, r22 = R[2, 0], R[2, 1], R[2, 2]
    t0, t1, t2 = t[0], t[1], t[2]
    fx, fy, cx, cy = K[0], K[1], K[2], K[3]
    inverse_focal = f32(2) / (fx + fy)
    inverse_fx = f32(1) / fx
    inverse_fy = f32(1) / fy
    has_confidence = confidence.size > 0
    for c_ in nb.prange(n):
        c = np.int64(c_)  # prange counts unsigned
        first = np.int64(chunks[c]) * CHUNK
        partners = np.empty(CHUNK, np.int32)  # offsets of the surfels that have a partner ...
        places = np.empty(CHUNK, np.int32)  # ... and its pixel, v << 16 | u
        n_partners = 0
        # two loops, because the locked minimum waits for all writes before it, and merging writes a lot
        for i in range(np.uint64(first), np.uint64(first + counts[chunks[c]])):
            pixels[i] = -1
            x = s_position[i, 0] - t0
            y = s_position[i, 1] - t1
            z = s_position[i, 2] - t2
            z_c = r02 * x + r12 * y + r22 * z
            if z_c < near or z_c > far:
                continue
            inverse = f32(1) / z_c
            u_f = (r00 * x + r10 * y + r20 * z) * inverse * fx + cx + f32(0.5)
            v_f = (r01 * x + r11 * y + r21 * z) * inverse * fy + cy + f32(0.5)
            if not (u_f >= f32(0) and v_f >= f32(0) and u_f < f32(width) and v_f < f32(height)):
                continue
            u = np.int64(u_f)
            v = np.int64(v_f)
            confident = s_normal[i, 3]
            if confident < f32(0):
                continue
            d = depth[v, u]
            if d > f32(0) and normals[v, u, 2] != f32(0):
                room = gate_of(d, base, quadratic, gate)
                if d - z_c > f32(2) * room:
                    confident -= carve
                    s_normal[i, 3] = confident if confident >= f32(0) else DEAD
                    continue
                if abs(d - z_c) < room:
                    partners[n_partners] = np.int32(i - np.uint64(first))
                    places[n_partners] = np.int32((v << 16) | u)
                    n_partners += 1
            p = v * width + u
            key = (np.int64(z_c * MICRO) << 32) | np.int64(i)
            if key < index[p]:
                atomic_min(index, p, key)
        merged = 0
        for j in range(n_partners):
            i = np.uint64(first + partners[j])
            u = np.uint64(places[j] & 0xFFFF)
            v = np.uint64(places[j] >> 16)
            m_x = normals[v, u, 0]
            m_y = normals[v, u, 1]
            m_z = normals[v, u, 2]
            n_x = r00 * m_x + r01 * m_y + r02 * m_z
            n_y = r10 * m_x + r11 * m_y + r12 * m_z
            n_z = r20 * m_x + r21 * m_y + r22 * m_z
            s_x = s_normal[i, 0]
            s_y = s_normal[i, 1]
            s_z = s_normal[i, 2]
            weight = weights_u[u] * weights_v[v]
            if has_confidence:
                weight *= confidence[v, u]
            if s_x * n_x + s_y * n_y + s_z * n_z <= cos_gate or weight <= f32(0):
                continue
            merged += 1
            pixels[i] = np.int32(v) * np.int32(width) + np.int32(u)
            s_seen[i, 1] = now
            confident = s_normal[i, 3]
            total = confident + weight
            s_normal[i, 3] = min(total, max_confidence)
            d = depth[v, u]
            radius = radius_of(d, m_z, inverse_focal, spacing)
            if radius >= f32(1.5) * s_position[i, 3]:
                continue
            b = weight / total
            m_x = (f32(u) - cx) * inverse_fx * d
            m_y = (f32(v) - cy) * inverse_fy * d
            x = r00 * m_x + r01 * m_y + r02 * d + t0 - s_position[i, 0]
            y = r10 * m_x + r11 * m_y + r12 * d + t1 - s_position[i, 1]
            z = r20 * m_x + r21 * m_y + r22 * d + t2 - s_position[i, 2]
            shift = b * (x * s_x + y * s_y + z * s_z)
            s_position[i, 0] += shift * s_x
            s_position[i, 1] += shift * s_y
            s_position[i, 2] += shift * s_z
            s_position[i, 3] += b * (radius - s_position[i, 3])
            s_x += b * (n_x - s_x)
            s_y += b * (n_y - s_y)
            s_z += b * (n_z - s_z)
            scale = f32(1) / np.sqrt(s_x * s_x + s_y * s_y + s_z * s_z)
            s_normal[i, 0] = s_x * scale
            s_normal[i, 1] = s_y * scale
            s_normal[i, 2] = s_z * scale
            for k in range(3):  # colours are 8.8 fixed point
                old = f32(s_color[i, k])
                s_color[i, k] = np.uint16(np.int32(old + b * (f32(256) * f32(color[v, u, k]) - old) + f32(0.5)))
        merged_counts[c] = merged


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
def mark_new(index, depth, normals, confidence, focal, base, quadratic, gate, spacing, coarsest, new, new_counts):
    """Mark the measurements that no surfel covers: in `new` (H * W,) uint8, counted by row in new_counts (H,).

    Covered means that a surfel stands within the gate of the measurement's depth in its pixel or a neighbouring one,
    or in as many pixels around as `spacing` metres take up there. Only the black fields of a chessboard become surfels,
    as long as these stand less than `coarsest` metres apart: 1.41 pixels, which is their radius, so that their disks
    overlap, and what is left out is the half that repeats what its neighbours say.
    """
    height, width = depth.shape
    has_confidence = confidence.size > 0
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        n_new = 0
        for u in range(width):
            p = v * width + u
            new[p] = 0
            d = depth[v, u]
            if d <= f32(0):
                continue
            room = gate_of(d, base, quadratic, gate)
            if abs(f32(index[p] >> 32) / MICRO - d) < room:  # its own surfel, most often
                continue
            if normals[v, u, 2] == f32(0) or (has_confidence and confidence[v, u] <= f32(0)):
                continue
            # cells of one pixel, or of two to four where a pixel is smaller than the spacing
            reach = 1
            odd = (u + v) & 1
            if d <= spacing * focal:
                reach = min(np.int64(spacing * focal / d) + 1, 4)
                if u % reach != 0 or v % reach != 0:
                    continue
                odd = (u // reach + v // reach) & 1
            if odd == 1 and f32(1.4142135) * d < coarsest * focal:
                continue
            if not covered(index, u, v, width, height, d, room, reach):
                new[p] = 1
                n_new += 1
        new_counts[v] = n_new


@nb.njit(**PARALLEL)
def list_new(new, width, offsets, pixels):
    """The marked pixels, in row-major order; offsets (H,) is the exclusive prefix sum of the rows' counts."""
    for v_ in nb.prange(offsets.size):
        v = np.int64(v_)  # prange counts unsigned
        k = offsets[v]
        for u in range(width):
            if new[v * width + u]:
                pixels[k] = v * width + u
                k += 1


@nb.njit(inline="always")
def block_key(x, y, z, block):
    """One int64 for the cube of side `block` that holds a point: 21 bits an axis, enough for +-260 km at 0.25 m."""
    offset = np.int64(1 << 20)
    i = np.int64(np.floor(x / block)) + offset
    j = np.int64(np.floor(y / block)) + offset
    k = np.int64(np.floor(z / block)) + offset
    return (i << 42) | (j << 21) | k


@nb.njit(inline="always")
def find_block(keys, key):
    """Where `key` stands, or would stand, in an open-addressing table whose size is a power of two."""
    mask = keys.size - 1
    h = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    k = np.int64(h >> np.uint64(20)) & mask
    while keys[k] != -1 and keys[k] != key:
        k = (k + 1) & mask
    return k


@nb.njit(**SERIAL)
def allocate(points, start, block, keys, open_chunks, origins, counts, n_chunks, n_blocks, out):
    """Slots for points[start:] (N, 3), world metres, in the open chunk of each one's cube or in a new chunk.

    Sequential, so that slots do not depend on threads. Stops early where the chunks are used up or the table of
    cubes is half full. Returns how far it came, the number of chunks and of cubes: the caller makes room and goes on.
    """
    i = start
    while i < len(points):
        if n_chunks == counts.size or 2 * n_blocks >= keys.size:
            break
        key = block_key(points[i, 0], points[i, 1], points[i, 2], block)
        h = find_block(keys, key)
        if keys[h] == -1:
            keys[h] = key
            open_chunks[h] = -1
            n_blocks += 1
        chunk = open_chunks[h]
        if chunk == -1 or counts[chunk] == CHUNK:
            chunk = n_chunks
            n_chunks += 1
            open_chunks[h] = chunk
            counts[chunk] = 0
            for k in range(3):
                origins[chunk, k] = np.floor(points[i, k] / block) * block
        out[i] = np.int64(chunk) * CHUNK + counts[chunk]
        counts[chunk] += 1
        i += 1
    return i, n_chunks, n_blocks


@nb.njit(**PARALLEL)
def world_points(pixels, n, depth, R, t, K, out):
    """World positions (n, 3), metres, of the given pixels of a depth image."""
    width = depth.shape[1]
    for j_ in nb.prange(n):
        j = np.int64(j_)  # prange counts unsigned
        v = pixels[j] // width
        u = pixels[j] - v * width
        d = depth[v, u]
        x = (f32(u) - K[2]) / K[0] * d
        y = (f32(v) - K[3]) / K[1] * d
        for k in range(3):
            out[j, k] = R[k, 0] * x + R[k, 1] * y + R[k, 2] * d + t[k]


@nb.njit(**PARALLEL)
def write_new(
    pixels, points, new_slots, n, depth, normals, color, weights_u, weights_v, confidence, R, K, spacing,
    now, s_position, s_normal, s_color, s_seen, s_scores, s_pixels, index,
):  # fmt: skip
    """Make the n new surfels, and enter them in the index map."""
    width = depth.shape[1]
    inverse_focal = f32(2) / (K[0] + K[1])
    n_scores = s_scores.shape[1]
    for j_ in nb.prange(n):
        j = np.int64(j_)  # prange counts unsigned
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
        s_position[i, 3] = radius_of(d, normals[v, u, 2], inverse_focal, spacing)
        s_normal[i, 3] = weights_u[u] * weights_v[v] * (confidence[v, u] if confidence.size > 0 else f32(1))
        s_seen[i, 0] = now
        s_seen[i, 1] = now
        for k in range(n_scores):
            s_scores[i, k] = f32(0)
        s_pixels[i] = p
        index[p] = (np.int64(d * MICRO) << 32) | np.int64(i)


@nb.njit(**PARALLEL)
def mark_removals(
    chunks, n, counts, position, normal, color, seen, R, t, K, near, far, depth, index, base, quadratic, gate, cos_gate,
    now, stable, patience,
):  # fmt: skip
    """Kill surfels in view that are unstable and no longer confirmed, or doubles of a better one in their pixel.

    Unstable: confidence below `stable`, the surface is measured where it stands, yet it was not merged for more than
    `patience` frames. Double: the same normal, within the gate in depth and half a radius sideways of the pixel's
    front surfel; of the two the less confident goes, on a tie the one behind. The mark goes into the colour's spare
    channel, which nobody reads here, so that the result does not depend on the order; `compact_chunks` buries what is
    marked.
    """
    height, width = depth.shape
    fx, fy, cx, cy = K[0], K[1], K[2], K[3]
    for c_ in nb.prange(n):
        c = np.int64(c_)  # prange counts unsigned
        first = np.int64(chunks[c]) * CHUNK
        for i in range(np.uint64(first), np.uint64(first + counts[chunks[c]])):
            if normal[i, 3] < f32(0):
                continue
            x = position[i, 0] - t[0]
            y = position[i, 1] - t[1]
            z = position[i, 2] - t[2]
            z_c = R[0, 2] * x + R[1, 2] * y + R[2, 2] * z
            if z_c < near or z_c > far:
                continue
            u = np.int32(np.floor((R[0, 0] * x + R[1, 0] * y + R[2, 0] * z) / z_c * fx + cx + f32(0.5)))
            v = np.int32(np.floor((R[0, 1] * x + R[1, 1] * y + R[2, 1] * z) / z_c * fy + cy + f32(0.5)))
            if u < 0 or v < 0 or u >= width or v >= height:
                continue
            room = gate_of(z_c, base, quadratic, gate)
            d = depth[v, u]
            if d > f32(0) and abs(d - z_c) < f32(2) * room and normal[i, 3] < stable and now - seen[i, 1] > patience:
                color[i, 3] = MARKED
                continue
            key = index[v * width + u]
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


@nb.njit(**PARALLEL)
def compact_chunks(chunks, n, counts, position, normal, color, seen, scores):
    """Close the gaps that dead surfels leave, a chunk an iteration, keeping the order of the living."""
    n_scores = scores.shape[1]
    for c_ in nb.prange(n):
        c = np.int64(c_)  # prange counts unsigned
        chunk = chunks[c]
        first = np.int64(chunk) * CHUNK
        end = first
        for i in range(first, first + counts[chunk]):
            if normal[i, 3] < f32(0) or color[i, 3] == MARKED:
                continue
            if end != i:
                for k in range(4):
                    position[end, k] = position[i, k]
                    normal[end, k] = normal[i, k]
                    color[end, k] = color[i, k]
                seen[end, 0] = seen[i, 0]
                seen[end, 1] = seen[i, 1]
                for k in range(n_scores):
                    scores[end, k] = scores[i, k]
            end += 1
        counts[chunk] = end - first


@nb.njit(**SERIAL)
def reopen_chunks(chunks, n, origins, counts, block, keys, open_chunks):
    """Let each cube append to the emptiest of the given chunks, so that removed surfels' slots are used again."""
    half = f32(0.5) * block
    for c in range(n):
        chunk = chunks[c]
        key = block_key(origins[chunk, 0] + half, origins[chunk, 1] + half, origins[chunk, 2] + half, block)
        h = find_block(keys, key)
        if keys[h] == key and counts[chunk] < counts[open_chunks[h]]:
            open_chunks[h] = chunk


@nb.njit(**PARALLEL)
def shown_grey(index, color, out):
    """Luminance 0..255 (H, W) float32 of the surfels that an index map shows; NO_GREY where it is empty."""
    height, width = out.shape
    # ITU-R BT.601, of colours in 1/256
    red, green, blue = f32(0.299 / 256), f32(0.587 / 256), f32(0.114 / 256)
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        for u in range(width):
            key = index[v * width + u]
            if key == EMPTY:
                out[v, u] = f32(NO_GREY)
            else:
                i = np.uint64(key & SLOT)
                out[v, u] = red * f32(color[i, 0]) + green * f32(color[i, 1]) + blue * f32(color[i, 2])


@nb.njit(**SERIAL)
def _first_shown(index, width, v_0, v_1, u_0, u_1):
    """The first pixel of a block, along its rows, where an index map shows a surfel; -1 if none."""
    for v in range(v_0, v_1):
        for u in range(u_0, u_1):
            if index[v * width + u] != EMPTY:
                return v * width + u
    return -1


@nb.njit(**PARALLEL)
def shown_points(index, width, height, stride, position, normal, R, t, counts, pixels, points):
    """One point of each stride x stride block of an index map that shows any: see `View`. Returns how many.

    counts (rows of blocks,) is working space.
    """
    columns = (width + stride - 1) // stride
    for row_ in nb.prange(len(counts)):
        row = np.int64(row_)  # prange counts unsigned
        found = 0
        for c in range(columns):
            v, u = row * stride, c * stride
            if _first_shown(index, width, v, min(v + stride, height), u, min(u + stride, width)) >= 0:
                found += 1
        counts[row] = found
    total = 0
    for row in range(len(counts)):
        found = counts[row]
        counts[row] = total
        total += found
    for row_ in nb.prange(len(counts)):
        row = np.int64(row_)  # prange counts unsigned
        n = counts[row]
        for c in range(columns):
            v, u = row * stride, c * stride
            pixel = _first_shown(index, width, v, min(v + stride, height), u, min(u + stride, width))
            if pixel >= 0:
                i = np.uint64(index[pixel] & SLOT)
                x, y, z = position[i, 0] - t[0], position[i, 1] - t[1], position[i, 2] - t[2]
                nx, ny, nz = normal[i, 0], normal[i, 1], normal[i, 2]
                for k in range(3):
                    points[n, k] = R[0, k] * x + R[1, k] * y + R[2, k] * z
                    points[n, 3 + k] = R[0, k] * nx + R[1, k] * ny + R[2, k] * nz
                points[n, 6] = normal[i, 3]
                pixels[n, 0], pixels[n, 1] = pixel % width, pixel // width
                n += 1
    return total
