"""What one image says of the classes of its pixels, as evidence: compiled, in loops that vectorise."""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from semslam.compiled import PARALLEL
from semslam.engine.labels.evidence import (
    PER_NAT,
    PER_VIEW,
)

f32 = np.float32
PARTS = 64  # of an image's work, in whole rows of vectors


def _log2_polynomial(degree: int) -> np.ndarray:
    nodes = 1.5 + 0.5 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return np.polynomial.polynomial.polyfit(nodes, np.log2(nodes), degree).astype(np.float32)


LOG2 = _log2_polynomial(4)


@intrinsic
def bits_of(typing_context, x):
    """The bits of a float32 as int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def float_of(typing_context, bits):
    """The float32 with these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@nb.njit(inline="always")
def logarithm(x):
    """Natural logarithm of a positive float32 to 2e-4, without a branch or a call, so that loops of it vectorise.

    The exponent's bits are the logarithm's whole part; for the mantissa m in 1..2 a polynomial of degree four is
    fitted to log2(m) at Chebyshev's points.
    """
    bits = bits_of(x)
    whole = f32((bits >> 23) - 127)
    m = float_of((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000))
    part = LOG2[0] + m * (LOG2[1] + m * (LOG2[2] + m * (LOG2[3] + m * LOG2[4])))
    return (whole + part) * f32(0.6931472)


@nb.njit(**PARALLEL)
def logarithms(probabilities, floor, out):
    """log p - log floor of flat probabilities, at least 0, in 1 / PER_NAT."""
    log_floor = logarithm(floor)
    size = -(-out.size // PARTS)
    for part_ in nb.prange(PARTS):
        part = np.int64(part_)  # prange counts unsigned
        q = probabilities[part * size : (part + 1) * size]
        evidence = out[part * size : (part + 1) * size]
        for k in range(q.size):
            nats = logarithm(max(q[k], floor)) - log_floor
            nats = nats if q[k] > floor else f32(0)  # also what is not a number
            evidence[k] = np.uint16(np.int32(nats * f32(PER_NAT) + f32(0.5)))


@nb.njit(**PARALLEL)
def fixed_point(probabilities, out):
    """Flat probabilities in 1 / PER_VIEW."""
    size = -(-out.size // PARTS)
    for part_ in nb.prange(PARTS):
        part = np.int64(part_)  # prange counts unsigned
        q = probabilities[part * size : (part + 1) * size]
        evidence = out[part * size : (part + 1) * size]
        for k in range(q.size):
            evidence[k] = np.uint16(np.int32((q[k] if q[k] > f32(0) else f32(0)) * f32(PER_VIEW) + f32(0.5)))


@nb.njit(**PARALLEL)
def winners(probabilities, out):
    """1 view, in 1 / PER_VIEW, for the most probable class of each pixel of (P, C) probabilities, if any is above 0."""
    n_classes = probabilities.shape[1]
    for p_ in nb.prange(len(probabilities)):
        p = np.int64(p_)  # prange counts unsigned
        best = 0
        for k in range(n_classes):
            out[p * n_classes + k] = np.uint16(0)
            if probabilities[p, k] > probabilities[p, best]:
                best = k
        if probabilities[p, best] > f32(0):
            out[p * n_classes + best] = np.uint16(PER_VIEW)
