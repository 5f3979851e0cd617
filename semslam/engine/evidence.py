"""What labelled views say of a surfel's class, in one row of 16-bit numbers a surfel.

A row holds the evidence for each class (in 1 / `UNIT` nats for Bayes' rule; for the others, of which only the shares of
the classes are read, in 1 / `VIEW` of a probability), then zeros, then the sum of the views' shares in the evidence and
how many independent views it is worth, both in units of 1 / `VIEW`, then the number of the view that came last, 0 for
none. Its width is a multiple of `LANES`, so that compiled loops run over it in whole vectors.
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

f32 = np.float32
UNIT = 256  # of a nat: a row holds up to 256 nats
VIEW = 1024  # of a view: a row holds up to 64
WHOLE = 65535  # the weight of a view that counts whole
LANES = 16
SHARES, VIEWS, LAST = -3, -2, -1  # columns of a row
MOST = np.iinfo(np.uint16).max


def row_width(num_classes: int) -> int:
    """How many numbers a row for so many classes has; none for no classes."""
    return -(-(num_classes - SHARES) // LANES) * LANES if num_classes else 0


def rows_of(evidence: np.ndarray, shares: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Rows (N, row_width(C)) uint16 of evidence (N, C), shares and views (N,), clipped to what they hold."""
    rows = np.zeros((len(evidence), row_width(evidence.shape[1])), np.uint16)
    if rows.shape[1]:
        rows[:, : evidence.shape[1]] = np.clip(np.rint(evidence * UNIT), 0, MOST)
        rows[:, SHARES] = np.clip(np.rint(shares * VIEW), 0, MOST)
        rows[:, VIEWS] = np.clip(np.rint(views * VIEW), 0, MOST)
    return rows


def evidence_in(rows: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, C) float32 the evidence for each class that rows hold."""
    return rows[:, :num_classes].astype(f32) / f32(UNIT)


def shares_in(rows: np.ndarray) -> np.ndarray:
    """(N,) float32 the sum of the shares that views have in the evidence of each row."""
    return rows[:, SHARES].astype(f32) / f32(VIEW)


def views_in(rows: np.ndarray) -> np.ndarray:
    """(N,) float32 how many independent views the evidence of each row is worth."""
    return rows[:, VIEWS].astype(f32) / f32(VIEW)


def columns_of_classes(num_classes: int) -> np.ndarray:
    """(row width,) uint16 with all bits set in the columns of classes, and none in the others."""
    return np.where(np.arange(row_width(num_classes)) < num_classes, MOST, 0).astype(np.uint16)


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
        said = builder.and_(load(place(2)), load(place(4)))
        one = builder.insert_element(nothing, builder.zext(arguments[6], ir.IntType(32)), ir.IntType(32)(0))
        weights = builder.shuffle_vector(one, nothing, ir.Constant(wide, [0] * LANES))
        product = builder.add(builder.mul(builder.zext(said, wide), weights), ir.Constant(wide, [1 << 15] * LANES))
        part = builder.trunc(builder.lshr(product, ir.Constant(wide, [16] * LANES)), narrow)
        builder.store(builder.add(load(row), part), row).align = 2
        bits = ir.IntType(16 * LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(said, bits), bits(0))

    return signature, generate


class Said(NamedTuple):
    """The evidence of an image."""

    image: np.ndarray  # (H * W * C + row width,) uint16, one pixel's after the other's; all 0 where nothing is known
    columns: np.ndarray  # see `columns_of_classes`
    view: np.uint16  # the number of the image's view
    shares: np.ndarray  # (V,) uint16 the view's share in the evidence after each earlier view, in 1 / WHOLE
    news: np.ndarray  # (V,) uint16 how many independent views it adds after each earlier one, in 1 / WHOLE
    most: np.uint16  # of a row's sum of shares and of its views, in 1 / VIEW


@nb.njit(**PARALLEL)
def add_evidence(chunks, counts, pixels, said, rows):
    """Add the evidence in a surfel's pixel to its row, for every surfel of `chunks` that has a pixel.

    Evidence of more than `most` shares is halved then: what is old fades. A view that `said` does not know, of a map
    that came from elsewhere, counts as none.
    """
    image, columns, view, shares, news, most = said
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
            place, row = np.int64(pixels[i]) * n_classes, np.int64(i) * width
            last = flat[row + width + LAST] if flat[row + width + LAST] < shares.size else np.uint16(0)
            known = False
            for k in range(0, width, LANES):
                known |= add_lanes(flat, row + k, image, place + k, columns, k, shares[last])
            if known:
                views = flat[row + width + VIEWS] + np.uint16((np.int32(news[last]) + np.int32(32)) >> np.int32(6))
                flat[row + width + VIEWS] = min(views, most)
                flat[row + width + SHARES] += np.uint16((np.int32(shares[last]) + np.int32(32)) >> np.int32(6))
                flat[row + width + LAST] = view
                if flat[row + width + SHARES] > most:
                    for k in range(width + VIEWS):
                        flat[row + k] >>= 1
