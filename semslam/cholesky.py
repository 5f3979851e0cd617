"""Positive definite systems of some hundred unknowns, with the same bits whatever the number of threads.

SciPy's take half of the time (0.20 ms at 193 unknowns, 0.37 here), but their last bits depend on the threads of its
BLAS, which are as many as whoever imports SciPy first has it.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from semslam.compiled import SERIAL

PANEL = 32  # rows that are finished before the rows below follow, so that each of those is read that much less often


def solved(A: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """x (N,) of A x = b; None where the matrix A (N, N) float64, of which the upper triangle counts, is not positive
    definite."""
    factor = np.array(A, np.float64)
    return substitute(factor, np.array(b, np.float64)) if factorise(factor) else None


@nb.njit(**SERIAL)
def factorise(A):
    """Replace the upper triangle of A by U with U^T U = A, row by row; False where that is not possible.

    The inner loops run along rows, four earlier rows at once, so that the compiler makes vectors of them.
    """
    n = A.shape[0]
    for first in range(0, n, PANEL):
        last = min(n, first + PANEL)
        for k in range(first, last):
            pivot = A[k, k]
            if not pivot > 0.0:
                return False
            scale = 1.0 / np.sqrt(pivot)
            for j in range(k, n):
                A[k, j] *= scale
            for i in range(k + 1, last):
                x = A[k, i]
                for j in range(i, n):
                    A[i, j] -= x * A[k, j]
        for i in range(last, n):  # of a whole panel: the last one has no rows below it
            row = A[i]
            for k in range(first, last, 4):
                a, b, c, d = A[k, i], A[k + 1, i], A[k + 2, i], A[k + 3, i]
                r0, r1, r2, r3 = A[k], A[k + 1], A[k + 2], A[k + 3]
                for j in range(i, n):
                    row[j] -= a * r0[j] + b * r1[j] + c * r2[j] + d * r3[j]
    return True


@nb.njit(**SERIAL)
def substitute(U, b):
    """x of U^T U x = b, in b's memory."""
    n = U.shape[0]
    for k in range(n):
        b[k] /= U[k, k]
        for j in range(k + 1, n):
            b[j] -= U[k, j] * b[k]
    for k in range(n - 1, -1, -1):
        total = b[k]
        for j in range(k + 1, n):
            total -= U[k, j] * b[j]
        b[k] = total / U[k, k]
    return b
