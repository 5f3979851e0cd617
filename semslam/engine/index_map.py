"""The index map: which surfel each pixel shows, as one number, and what a tracker reads from it.

The map (H * W,) int64 holds for each pixel the nearest surfel as one key, depth in micrometres << 32 | slot: the
minimum of keys is the nearest surfel, and among equals the lower slot, whatever the order in which threads arrive.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from semslam.compiled import PARALLEL, SERIAL, prefetch
from semslam.engine.chunks import CHUNK
from semslam.engine.vectors import GROUP, LANES, to_columns
from semslam.frame import NO_GREY

f32 = np.float32
EMPTY = np.int64(0x7FFFFFFFFFFFFFFF)
SLOT = np.int64(0xFFFFFFFF)
AHEAD = 16  # surfels before its turn that what a surfel needs of an image is asked for
MICRO = f32(1e6)


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


@nb.njit(**SERIAL)
def locate(xyz, pose, camera, near, far, depths, places):
    """Where the surfels of a chunk are in the image: depths (N,) float32 metres, places (N,) int32.

    xyz: (4 N,) float32, their positions and radii, to the end of a chunk or of a group of `LANES`. A place is
    v << 16 | u, or -1 out of the image or of near..far. A loop without branches, which runs over whole vectors.
    """
    R, t = pose
    r00, r01, r02 = R[0, 0], R[0, 1], R[0, 2]
    r10, r11, r12 = R[1, 0], R[1, 1], R[1, 2]
    r20, r21, r22 = R[2, 0], R[2, 1], R[2, 2]
    t0, t1, t2 = t[0], t[1], t[2]
    width, height, fx, fy, cx, cy = camera
    columns = np.empty(4 * GROUP, np.float32)
    for first in range(0, xyz.size // 4, GROUP):
        count = min(xyz.size // 4 - first, GROUP)
        for i in range(0, count, LANES):
            to_columns(xyz, 4 * (first + i), columns, i)
        group_depths, group_places = depths[first:], places[first:]
        for i in range(count):
            x = columns[i] - t0
            y = columns[GROUP + i] - t1
            z = columns[2 * GROUP + i] - t2
            z_c = r02 * x + r12 * y + r22 * z
            inverse = f32(1) / z_c
            u = (r00 * x + r10 * y + r20 * z) * inverse * fx + cx + f32(0.5)
            v = (r01 * x + r11 * y + r21 * z) * inverse * fy + cy + f32(0.5)
            seen = (z_c >= near) & (z_c <= far) & (u >= f32(0)) & (v >= f32(0)) & (u < f32(width)) & (v < f32(height))
            group_depths[i] = z_c
            group_places[i] = (np.int32(v) << np.int32(16)) | np.int32(u) if seen else np.int32(-1)


@nb.njit(inline="always")
def pixel_at(place, width):
    """The pixel v * width + u of a place that `locate` found."""
    return np.int64(place >> np.int32(16)) * np.int64(width) + np.int64(place & np.int32(0xFFFF))


@nb.njit(**PARALLEL)
def project_chunks(chunks, surfels, pose, camera, near, far, index):
    """The index map of the surfels in `chunks` seen from `pose`, T_world_camera, between two depths, metres."""
    counts, position, normal, _, _, _ = surfels
    width = camera.width
    flat_position, flat_normal = position.reshape(-1), normal.reshape(-1)
    for c_ in nb.prange(chunks.size):
        c = np.int64(c_)  # prange counts unsigned
        first, count = np.int64(chunks[c]) * CHUNK, np.int64(counts[chunks[c]])
        depths, places = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.int32)
        locate(flat_position[4 * first : 4 * (first + count)], pose, camera, near, far, depths, places)
        for i in range(count):
            ahead = places[min(i + AHEAD, count - 1)]
            if ahead >= 0:
                prefetch(index, pixel_at(ahead, width))
            if places[i] < 0 or flat_normal[4 * (first + i) + 3] < f32(0):
                continue
            p = pixel_at(places[i], width)
            key = (np.int64(depths[i] * MICRO) << 32) | (first + i)
            if key < index[p]:
                atomic_min(index, p, key)


@nb.njit(**PARALLEL)
def shown_grey(index, color, out):
    """Luminance 0..255 (H, W) float32 of the surfels that an index map shows; NO_GREY where it is empty."""
    height, width = out.shape
    # ITU-R BT.601, of colours in 1/256
    red, green, blue = f32(0.299 / 256), f32(0.587 / 256), f32(0.114 / 256)
    packed = color.reshape(-1).view(np.uint64)  # a surfel's colour is one number, and one access
    low = np.uint64(0xFFFF)
    if packed.size == 0:  # there is no slot that an empty pixel could stand for
        out[:] = f32(NO_GREY)
        return
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        keys = index[v * width : (v + 1) * width]
        shown = np.empty(width, np.uint64)
        # without branches: which pixels are empty cannot be guessed
        for u in range(width):
            shown[u] = packed[np.uint64(keys[u] & SLOT if keys[u] != EMPTY else 0)]
        for u in range(width):
            c = shown[u]
            r, g = f32(np.int32(c & low)), f32(np.int32((c >> np.uint64(16)) & low))
            b = f32(np.int32((c >> np.uint64(32)) & low))
            out[v, u] = red * r + green * g + blue * b if keys[u] != EMPTY else f32(NO_GREY)


@nb.njit(**SERIAL)
def _first_shown(index, width, v_0, v_1, u_0, u_1):
    """The first pixel of a block, along its rows, where an index map shows a surfel; -1 if none."""
    for v in range(v_0, v_1):
        for u in range(u_0, u_1):
            if index[v * width + u] != EMPTY:
                return v * width + u
    return -1


@nb.njit(**PARALLEL)
def shown_points(index, camera, stride, surfels, pose, pixels, points):
    """One point of each stride x stride block of an index map that shows any: see `View`. Returns how many."""
    _, position, normal, _, _, _ = surfels
    R, t = pose
    flat_position, flat_normal = position.reshape(-1), normal.reshape(-1)
    width, height = camera.width, camera.height
    rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride  # of blocks
    firsts, ends = np.empty((rows, columns), np.int32), np.zeros(rows + 1, np.int64)
    for row_ in nb.prange(rows):
        row = np.int64(row_)  # prange counts unsigned
        v, count = row * stride, 0
        for u in range(0, width, stride):
            pixel = _first_shown(index, width, v, min(v + stride, height), u, min(u + stride, width))
            if pixel >= 0:
                firsts[row, count] = pixel
                count += 1
        ends[row + 1] = count
    ends = np.cumsum(ends)
    for row_ in nb.prange(rows):
        row = np.int64(row_)
        start, shown = ends[row], firsts[row, : ends[row + 1] - ends[row]]
        for j in range(len(shown)):
            ahead = 4 * (index[shown[min(j + AHEAD, len(shown) - 1)]] & SLOT)
            prefetch(flat_position, ahead)
            prefetch(flat_normal, ahead)
            pixel, n = shown[j], start + j
            i = np.uint64(index[pixel] & SLOT)
            x, y, z = position[i, 0] - t[0], position[i, 1] - t[1], position[i, 2] - t[2]
            nx, ny, nz = normal[i, 0], normal[i, 1], normal[i, 2]
            for k in range(3):
                points[n, k] = R[0, k] * x + R[1, k] * y + R[2, k] * z
                points[n, 3 + k] = R[0, k] * nx + R[1, k] * ny + R[2, k] * nz
            points[n, 6] = normal[i, 3]
            pixels[n, 0], pixels[n, 1] = pixel % width, pixel // width
    return ends[rows]
