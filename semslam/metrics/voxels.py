"""Points (N, 3) gathered in cubes of space, block by block where they are too many for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

Blocks = Callable[[], Iterable[np.ndarray]]  # points (N, 3) block by block, as often as asked for
VOXEL = 0.02  # metres


def voxel_means(points: np.ndarray | Blocks, voxel: float = VOXEL) -> np.ndarray:
    """(M, 3) means of the points (N, 3) of each occupied voxel, in the voxels' order; float64 if the points are.

    Points in blocks are never all in memory, unless stray ones span a world of voxels.
    """
    blocks = in_blocks(points)
    number_of = _numbering(blocks, voxel)
    if number_of is None:
        blocks = in_blocks(np.concatenate(list(blocks())))
        number_of = partial(voxel_keys, voxel=voxel)
    numbers, kind = np.empty(0, np.int64), np.dtype(np.float32)
    for block in blocks():
        numbers, kind = np.union1d(numbers, number_of(block)), np.result_type(block, kind)
    sums = np.zeros((4, len(numbers)))  # of x, y, z and 1
    for block in blocks():
        voxel_of = np.searchsorted(numbers, number_of(block))
        for row, values in zip(sums, (*block.T, np.ones(len(block)))):
            np.add.at(row, voxel_of, values)
    return (sums[:3] / sums[3]).T.astype(kind)


def in_blocks(points: np.ndarray | Blocks) -> Blocks:
    """Points (N, 3) as one block, or the blocks that they are."""
    if callable(points):
        return points
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise ValueError(f"points are {points.shape} {points.dtype}, expected (N, 3) numbers, metres")
    if not (finite := np.isfinite(points).all(axis=1)).all():
        raise ValueError(f"{np.sum(~finite)} of {len(points)} points are NaN or infinite; leave them out")
    return lambda: iter([points])


def _numbering(blocks: Blocks, voxel: float) -> Callable[[np.ndarray], np.ndarray] | None:
    """A function from points (N, 3) of the blocks to the numbers (N,) int64 of their voxels, in the order of x, then y,
    then z; None where the points span more voxels than can be counted."""
    cells = [np.zeros((0, 3), np.int64)]
    for block in blocks():
        if len(block):
            of_block = _cells(block, voxel)
            cells += [of_block.min(axis=0, keepdims=True), of_block.max(axis=0, keepdims=True)]
    ends = np.concatenate(cells) if len(cells) > 1 else np.zeros((1, 3), np.int64)
    low, size = ends.min(axis=0), np.ptp(ends, axis=0) + 1
    if np.prod(size.astype(float)) > 2.0**62:
        return None

    def numbers(points: np.ndarray) -> np.ndarray:
        x, y, z = (_cells(points, voxel) - low).T
        return (x * size[1] + y) * size[2] + z

    return numbers


def _cells(points: np.ndarray, voxel: float) -> np.ndarray:
    return np.floor(np.asarray(points, np.float64) / voxel).astype(np.int64)


def one_a_voxel(points: np.ndarray, voxel: float) -> np.ndarray:
    """The first of the points of each voxel: averaging again and again would favour late ones."""
    if len(points) == 0:
        return points
    return points[np.sort(np.unique(voxel_keys(points, voxel), return_index=True)[1])]


def voxel_keys(points: np.ndarray, voxel: float) -> np.ndarray:
    """(N,) int64, the same for the points (N, 3) of a voxel, in the order of its x, then y, then z."""
    if (numbers := _numbering(in_blocks(points), voxel)) is not None:
        return numbers(points)
    cells = _cells(points, voxel)  # stray points span a world of voxels: number the occupied ones
    cells = np.column_stack([np.unique(column, return_inverse=True)[1] for column in cells.T])
    rows = np.unique(cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1], return_inverse=True)[1]
    return rows * (cells[:, 2].max() + 1) + cells[:, 2]
