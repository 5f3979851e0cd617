"""Where surfels are stored: chunks of `CHUNK` slots, each for one cube of space.

Chunk k owns the slots k * CHUNK .. k * CHUNK + count[k] - 1, so that what the camera cannot see is skipped a chunk at a
time.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL, SERIAL

f32 = np.float32
CHUNK = 1024
MARKED = np.uint16(1)  # in the spare fourth channel of its colour: the surfel waits for the next compaction
LEAST_BLOCKS = 1 << 12  # places in a table of cubes
NO_KEYS, NO_CHUNKS = np.empty(0, np.int64), np.empty(0, np.int32)


class Table(NamedTuple):
    """What is known of each chunk."""

    counts: np.ndarray  # (K,) int32 surfels
    origins: np.ndarray  # (K, 3) float32 lower corner of its cube, metres
    block: np.float32  # side of the cubes, metres


class Surfels(NamedTuple):
    """The arrays of a map, see `SurfelMap`."""

    counts: np.ndarray  # (K,) int32 surfels per chunk
    position: np.ndarray
    normal: np.ndarray
    color: np.ndarray
    seen: np.ndarray
    evidence: np.ndarray


@nb.njit(**SERIAL)
def visible_chunks(table, margin, pose, camera, near, far, out):
    """Chunks whose cube of space meets the view frustum from `pose`, T_world_camera, between two depths.

    A cube is outside when its centre is further from one of the six planes than its half-diagonal plus the margin, in
    metres, by which surfels may have moved. Returns how many ids were written to `out`.
    """
    counts, origins, block = table
    R, t = pose
    width, height, fx, fy, cx, cy = camera
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
    for k in range(counts.size):
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
def allocate(points, start, table, keys, open_chunks, n_chunks, n_blocks, out):
    """Slots for points[start:] (N, 3), world metres, in the open chunk of each one's cube or in a new chunk.

    Sequential, so that slots do not depend on threads. Stops early where the chunks are used up or the table of
    cubes is half full. Returns how far it came, the number of chunks and of cubes: the caller makes room and goes on.
    """
    counts, origins, block = table
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
def compact_chunks(chunks, surfels):
    """Close the gaps that dead surfels leave, a chunk an iteration, keeping the order of the living."""
    counts, position, normal, color, seen, evidence = surfels
    width = evidence.shape[1]
    for c_ in nb.prange(chunks.size):
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
                for k in range(width):
                    evidence[end, k] = evidence[i, k]
            end += 1
        counts[chunk] = end - first


@nb.njit(**SERIAL)
def reopen_chunks(chunks, table, keys, open_chunks):
    """Let each cube append to the emptiest of the given chunks, so that removed surfels' slots are used again."""
    counts, origins, block = table
    half = f32(0.5) * block
    for c in range(chunks.size):
        chunk = chunks[c]
        key = block_key(origins[chunk, 0] + half, origins[chunk, 1] + half, origins[chunk, 2] + half, block)
        h = find_block(keys, key)
        if keys[h] == key and counts[chunk] < counts[open_chunks[h]]:
            open_chunks[h] = chunk


class BlockTable:
    """The chunk that each cube of space appends to: an open-addressing table, at most half full.

    Attributes:
        keys: (T,) int64, `block_key` of a cube, -1 where there is none; T is a power of two
        open_chunks: (T,) int32, the cube's chunk; -1 where it has none
        count: cubes in the table
    """

    def __init__(self, keys: np.ndarray = NO_KEYS, open_chunks: np.ndarray = NO_CHUNKS) -> None:
        size = LEAST_BLOCKS
        while size <= 2 * len(keys):
            size *= 2
        self._fill(keys, open_chunks, size)

    def _fill(self, keys: np.ndarray, open_chunks: np.ndarray, size: int) -> None:
        self.keys = np.full(size, -1, np.int64)
        self.open_chunks = np.full(size, -1, np.int32)
        self.count = len(keys)
        for key, chunk in zip(keys, open_chunks):
            h = find_block(self.keys, key)
            self.keys[h] = key
            self.open_chunks[h] = chunk

    def allocate(self, points: np.ndarray, start: int, table: Table, n_chunks: int, out: np.ndarray) -> tuple[int, int]:
        """`allocate` of this module, which stops where the chunks are used up or the table must grow; the caller calls
        again. Returns how far it came and the number of chunks."""
        if 2 * self.count >= len(self.keys):
            known = np.flatnonzero(self.keys != -1)
            self._fill(self.keys[known], self.open_chunks[known], 2 * len(self.keys))
        done, n_chunks, self.count = allocate(
            points, start, table, self.keys, self.open_chunks, n_chunks, self.count, out
        )
        return done, n_chunks

    def reopen(self, chunks: np.ndarray, table: Table) -> None:
        """Let each cube append to the emptiest of the given chunks."""
        reopen_chunks(chunks, table, self.keys, self.open_chunks)

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The cubes' keys (N,) int64 in rising order, and their open chunks (N,) int32."""
        occupied = np.flatnonzero(self.keys != -1)
        occupied = occupied[np.argsort(self.keys[occupied])]
        return self.keys[occupied], self.open_chunks[occupied]
