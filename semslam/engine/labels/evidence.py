"""The class evidence of surfels, in one row of 16-bit numbers a surfel.

A row holds the weighted sum of the evidence for each class (in 1 / `PER_NAT` nats for Bayes' rule; in 1 / `PER_VIEW` of
a probability for the others, of which only ratios are read), then zeros, then the sum of the views' weights and the
effective number of independent views, both in 1 / `PER_VIEW`, then the number of the latest view, 0 for none. Its width
is a multiple of `LANES`, so that compiled loops run over it in whole vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from semslam.compiled import PARALLEL, prefetch
from semslam.engine.chunks import CHUNK
from semslam.engine.index_map import AHEAD
from semslam.engine.vectors import LANES

f32 = np.float32
PER_NAT = 256  # units: a row holds up to 256 nats
PER_VIEW = 1024  # units: a row holds up to 64 views
FULL = 65535  # the weight of a view that counts in full
WEIGHT, VIEWS, LATEST = -3, -2, -1  # columns of a row
MAX = np.iinfo(np.uint16).max


def row_width(num_classes: int) -> int:
    """How many numbers a row for so many classes has; none for no classes."""
    return -(-(num_classes - WEIGHT) // LANES) * LANES if num_classes else 0


def rows_of(evidence: np.ndarray, weights: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Rows (N, row_width(C)) uint16 of evidence (N, C), weights and views (N,), clipped to what they hold."""
    rows = np.zeros((len(evidence), row_width(evidence.shape[1])), np.uint16)
    if rows.shape[1]:
        rows[:, : evidence.shape[1]] = np.clip(np.rint(evidence * PER_NAT), 0, MAX)
        rows[:, WEIGHT] = np.clip(np.rint(weights * PER_VIEW), 0, MAX)
        rows[:, VIEWS] = np.clip(np.rint(views * PER_VIEW), 0, MAX)
    return rows


def evidence_in(rows: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, C) float32 the weighted sums of evidence for each class that rows hold."""
    return rows[:, :num_classes].astype(f32) / f32(PER_NAT)


def weights_in(rows: np.ndarray) -> np.ndarray:
    """(N,) float32 the sum of the weights of each row's views."""
    return rows[:, WEIGHT].astype(f32) / f32(PER_VIEW)


def views_in(rows: np.ndarray) -> np.ndarray:
    """(N,) float32 the effective number of independent views of each row."""
    return rows[:, VIEWS].astype(f32) / f32(PER_VIEW)


def class_columns(num_classes: int) -> np.ndarray:
    """(row width,) uint16 with all bits set in the columns of classes, and none in the others."""
    return np.where(np.arange(row_width(num_classes)) < num_classes, MAX, 0).astype(np.uint16)


@intrinsic
def add_lanes(typing_context, rows, r, image, p, mask, k, weight):
    """rows[r + j] += (image[p + j] & mask[k + j]) * weight / 2^16, rounded, for j < `LANES`; whether any was not 0.

    All arrays are flat uint16. As vectors by hand, because the compiler cannot know that the arrays do not overlap.
    """
    signature = types.boolean(rows, types.intp, image, types.intp, mask, types.intp, types.uint16)

    def generate(context, builder, signature, arguments):
        from numba.np.arrayobj import make_array

        narrow, wide = ir.VectorType(ir.IntType(16), LANES), ir.VectorType(ir.IntType(32), LANES)

        def place(k):
            data = make_array(signature.args[k])(context, builder, arguments[k]).data
            return builder.bitcast(builder.gep(data, [arguments[k + 1]]), narrow.as_pointer())

        def load(pointer):
            value = builder.load(pointer)
            value.align = 2
            return value

        row, nothing = place(0), ir.Constant(wide, ir.Undefined)
        evidence = builder.and_(load(place(2)), load(place(4)))
        one = builder.insert_element(nothing, builder.zext(arguments[6], ir.IntType(32)), ir.IntType(32)(0))
        weights = builder.shuffle_vector(one, nothing, ir.Constant(wide, [0] * LANES))
        product = builder.add(builder.mul(builder.zext(evidence, wide), weights), ir.Constant(wide, [1 << 15] * LANES))
        part = builder.trunc(builder.lshr(product, ir.Constant(wide, [16] * LANES)), narrow)
        builder.store(builder.add(load(row), part), row).align = 2
        bits = ir.IntType(16 * LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(evidence, bits), bits(0))

    return signature, generate


class ImageEvidence(NamedTuple):
    """The class evidence of an image, and how its view weighs after each earlier one."""

    image: np.ndarray  # (H * W * C + row width,) uint16, pixel after pixel; all 0 where a pixel has no label
    columns: np.ndarray  # see `class_columns`
    view: np.uint16  # the number of the image's view
    weights: np.ndarray  # (V,) uint16 its weight where view v was a surfel's latest, in 1 / FULL
    independence: np.ndarray  # (V,) uint16 the independent views that it adds there, in 1 / FULL
    max_weight: np.uint16  # of a row, and of its views, in 1 / PER_VIEW


@nb.njit(**PARALLEL)
def add_evidence(chunks, counts, pixels, evidence, rows):
    """Add the evidence in a surfel's pixel to its row, for every surfel of `chunks` that has a pixel.

    A row that weighs more than `max_weight` is halved then: old evidence fades. A latest view that is not among
    `weights`, of a map that came from elsewhere, counts as none.
    """
    image, columns, view, weights, independence, max_weight = evidence
    width = rows.shape[1]
    flat = rows.reshape(-1)
    n_classes = np.int64(0)
    while n_classes < width and columns[n_classes] != 0:
        n_classes += 1
    for c_ in nb.prange(chunks.size):
        c = np.int64(c_)  # prange counts unsigned
        first, count = np.int64(chunks[c]) * CHUNK, np.int64(counts[chunks[c]])
        for i in range(first, first + count):
            prefetch(image, n_classes * max(np.int64(pixels[min(i + AHEAD, first + count - 1)]), 0))
            if pixels[i] < 0:
                continue
            pixel, row = np.int64(pixels[i]) * n_classes, np.int64(i) * width
            latest = flat[row + width + LATEST] if flat[row + width + LATEST] < weights.size else np.uint16(0)
            labelled = False
            for k in range(0, width, LANES):
                labelled |= add_lanes(flat, row + k, image, pixel + k, columns, k, weights[latest])
            if labelled:
                # from 1 / FULL to 1 / PER_VIEW
                views = flat[row + width + VIEWS] + np.uint16(
                    (np.int32(independence[latest]) + np.int32(32)) >> np.int32(6)
                )
                flat[row + width + VIEWS] = min(views, max_weight)
                flat[row + width + WEIGHT] += np.uint16((np.int32(weights[latest]) + np.int32(32)) >> np.int32(6))
                flat[row + width + LATEST] = view
                if flat[row + width + WEIGHT] > max_weight:
                    for k in range(width + VIEWS):
                        flat[row + k] >>= 1
