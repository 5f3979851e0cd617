"""Compiled loops of the plane sweep: windows compared, judgements aggregated, winners chosen."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL, SERIAL

f32 = np.float32

MIDDLE = f32(128)  # grey level that is taken off before squares are summed

BYTE, EIGHT = np.int32(255), np.int32(8)
STRIP = 32  # rows that are warped and summed while they stay in a core's own caches


class Views(NamedTuple):
    """Other images, and how their pixels follow from ours: z (x, y, 1) = depth turn (u, v, 1) + shift."""

    images: np.ndarray  # (N, H, W) int32, see `packed`
    turn: np.ndarray  # (N, 3, 3) float32
    shift: np.ndarray  # (N, 3) float32


class Matching(NamedTuple):
    """How windows are compared."""

    half: int  # pixels
    best_of: int
    noise: np.float32  # grey levels squared


class Candidates(NamedTuple):
    """Evenly spaced logarithms of ratios."""

    first: np.float32
    step: np.float32


class Limits(NamedTuple):
    """What a winner must reach."""

    correlation: np.float32
    margin: np.float32


class Winners(NamedTuple):
    """What `select` writes, (H, W) float32 each."""

    log_ratio: np.ndarray
    log_std: np.ndarray


def packed(image: np.ndarray) -> np.ndarray:
    """(H, W) int32 of luminance 0..255, rounded: the bytes of each pixel and its neighbours right, below, and right
    below, which are then read at once."""
    one = np.rint(image).astype(np.uint8).astype(np.uint32)
    two = one | np.roll(one, -1, axis=1) << np.uint32(8)
    return (two | np.roll(two, -1, axis=0) << np.uint32(16)).view(np.int32)


@nb.njit(**PARALLEL)
def match(grey, views, predicted, ratios, matching, cost):
    """Fill cost (H, W, D) with (1 - correlation) / 2 of windows, 1 where no other image shows the candidate.

    The inner loops run along rows, without branches, so that the compiler makes vectors of them.
    """
    height, width = grey.shape
    half, best_of = matching.half, matching.best_of
    strips = (height + STRIP - 1) // STRIP
    for strip_ in nb.prange(strips):
        strip = np.int64(strip_)  # prange counts unsigned
        first, last = strip * STRIP, min(height, (strip + 1) * STRIP)
        top, bottom = max(0, first - half), min(height, last + half)
        # rows from first - half on, zeros beyond the image; float32 keeps more of the squares of small numbers
        ours = np.zeros((last - first + 2 * half, width), np.float32)
        warped = np.zeros((last - first + 2 * half, width), np.float32)
        seen = np.zeros((last - first + 2 * half, width), np.float32)
        inside = slice(top - first + half, bottom - first + half)
        ours[inside] = grey[top:bottom] - MIDDLE
        means = np.empty((last - first, width), np.float32)  # of the windows of our image
        scales = np.empty((last - first, width), np.float32)  # 1 / standard deviation there
        shares = np.zeros((2 * half + 2, width), np.float32)  # 1 / pixels of a window of so many rows
        for rows in range(1, 2 * half + 2):
            for u in range(width):
                shares[rows, u] = f32(1) / f32(rows * (min(width, u + half + 1) - max(0, u - half)))
        columns = np.zeros((3, width + 2 * half), np.float32)  # sums over rows, with zeros beside the image
        sums = np.empty((3, width), np.float32)
        for v in range(first, last):
            row, rows = v - first, min(height, v + half + 1) - max(0, v - half)
            _column_sums(ours, ours, row, half, columns)
            _window_sums(columns, half, sums)
            _moments(sums, shares[rows], matching.noise, means[row], scales[row])
        scores = np.empty((best_of, last - first, width), np.float32)
        for d in range(ratios.size):
            scores[:] = f32(-1)
            for o in range(views.images.shape[0]):
                turn, shift = views.turn[o], views.shift[o]
                _warp(views.images[o], turn, shift, predicted, ratios[d], top, warped[inside], seen[inside])
                for v in range(first, last):
                    row, rows = v - first, min(height, v + half + 1) - max(0, v - half)
                    _column_sums(warped, ours, row, half, columns)
                    _window_sums(columns, half, sums)
                    share, mean, scale, there = shares[rows], means[row], scales[row], seen[row + half]
                    for u in range(width):
                        m = sums[0, u] * share[u]
                        variance = max(sums[1, u] * share[u] - m * m, f32(0)) + matching.noise
                        score = (sums[2, u] * share[u] - mean[u] * m) * scale[u] / np.sqrt(variance)
                        sums[0, u] = score if there[u] > f32(0) else f32(-1)
                    for k in range(min(o + 1, best_of)):  # insertion into the best so far
                        best = scores[k, row]
                        for u in range(width):
                            score, known = sums[0, u], best[u]
                            best[u] = max(score, known)
                            sums[0, u] = min(score, known)
            for v in range(first, last):
                for u in range(width):
                    total, n_seen = f32(0), f32(0)
                    for k in range(best_of):
                        if scores[k, v - first, u] > f32(-1):
                            total += scores[k, v - first, u]
                            n_seen += f32(1)
                    cost[v, u, d] = f32(0.5) - f32(0.5) * total / n_seen if n_seen > 0 else f32(1)


@nb.njit(**SERIAL)
def _column_sums(image, other, first, half, columns):
    """Sums of image, image^2 and image other over 2 half + 1 rows of each column, from a first row on.

    columns: (3, W + 2 half), where first > 0 the sums of the rows from first - 1 on, which one row joins and one
    leaves.
    """
    width, last = image.shape[1], first + 2 * half
    c0, c1, c2 = columns[0, half : half + width], columns[1, half : half + width], columns[2, half : half + width]
    if first == 0:
        columns[:] = f32(0)
        for row in range(last + 1):
            one, two = image[row], other[row]
            for u in range(width):
                x = one[u]
                c0[u] += x
                c1[u] += x * x
                c2[u] += x * two[u]
        return
    new, old, new_other, old_other = image[last], image[first - 1], other[last], other[first - 1]
    for u in range(width):
        x, y = new[u], old[u]
        c0[u] += x - y
        c1[u] += x * x - y * y
        c2[u] += x * new_other[u] - y * old_other[u]


@nb.njit(**SERIAL)
def _window_sums(columns, half, sums):
    """(3, W) sums over 2 half + 1 columns around each pixel.

    Windows of the usual sizes are summed in one go, which takes an eighth off all matching.
    """
    width = sums.shape[1]
    for k in range(3):
        row, out = columns[k], sums[k]
        if half == 2:
            for u in range(width):
                out[u] = row[u] + row[u + 1] + row[u + 2] + row[u + 3] + row[u + 4]
            continue
        if half == 3:
            for u in range(width):
                out[u] = row[u] + row[u + 1] + row[u + 2] + row[u + 3] + row[u + 4] + row[u + 5] + row[u + 6]
            continue
        out[:] = f32(0)
        for step in range(2 * half + 1):
            shifted = row[step : step + width]
            for u in range(width):
                out[u] += shifted[u]


@nb.njit(**SERIAL)
def _moments(sums, share, noise, means, scales):
    """Means of windows, and 1 / their standard deviations, from their sums."""
    for u in range(means.size):
        m = sums[0, u] * share[u]
        means[u] = m
        scales[u] = f32(1) / np.sqrt(max(sums[1, u] * share[u] - m * m, f32(0)) + noise)


@nb.njit(**SERIAL)
def _warp(other, turn, shift, predicted, ratio, top, warped, seen):
    """Rows from `top` of the image as the other image shows it, less MIDDLE, if its depth is ratio * predicted.

    seen: 1 where the other image shows it, else 0.
    """
    height, width = other.shape
    flat = other.reshape(-1)
    end_x, end_y = f32(width - 1), f32(height - 1)
    right, down = np.empty(width, np.float32), np.empty(width, np.float32)
    corner, four = np.empty(width, np.uint32), np.empty(width, np.int32)
    for row in range(warped.shape[0]):
        v = top + row
        depth, out, there = predicted[v], warped[row], seen[row]
        x0 = turn[0, 1] * f32(v) + turn[0, 2]
        y0 = turn[1, 1] * f32(v) + turn[1, 2]
        z0 = turn[2, 1] * f32(v) + turn[2, 2]
        for u in range(width):
            d = depth[u] * ratio
            z = (turn[2, 0] * f32(u) + z0) * d + shift[2]
            inverse = f32(1) / z
            x = ((turn[0, 0] * f32(u) + x0) * d + shift[0]) * inverse
            y = ((turn[1, 0] * f32(u) + y0) * d + shift[1]) * inverse
            inside = (z > f32(0.05)) & (x >= f32(0)) & (y >= f32(0)) & (x < end_x) & (y < end_y)
            x = x if inside else f32(0)
            y = y if inside else f32(0)
            i, j = np.int32(x), np.int32(y)
            right[u], down[u] = x - f32(i), y - f32(j)
            corner[u] = j * np.int32(width) + i
            there[u] = f32(1) if inside else f32(0)
        for u in range(width):
            four[u] = flat[corner[u]]  # one by one, in a loop of its own: what follows becomes vectors
        for u in range(width):
            bytes_ = four[u]
            a, b = f32(bytes_ & BYTE), f32((bytes_ >> EIGHT) & BYTE)
            c, d = f32((bytes_ >> np.int32(16)) & BYTE), f32((bytes_ >> np.int32(24)) & BYTE)
            upper, lower = a + right[u] * (b - a), c + right[u] * (d - c)
            out[u] = (upper + down[u] * (lower - upper) - MIDDLE) * there[u]


@nb.njit(**PARALLEL)
def aggregate(cost, grey, small, large, edge, total):
    """Add the costs of the cheapest ways along eight paths to total (3, H, W, D): along rows, downwards, upwards."""
    height, width, count = cost.shape
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        lines = np.full((2, count + 2), np.float32(np.inf))
        for direction in range(2):
            for i in range(width):
                u = i if direction == 0 else width - 1 - i
                back = u - 1 if direction == 0 else u + 1
                if i == 0:
                    _begin(cost[v, u], lines[i & 1], total[0, v, u])
                else:
                    jump = max(large / (f32(1) + abs(grey[v, u] - grey[v, back]) / edge), small)
                    _step(cost[v, u], lines[1 - (i & 1)], small, jump, lines[i & 1], total[0, v, u])
    for half_ in nb.prange(2):
        half = np.int64(half_)
        lines = np.full((2, 3, width, count + 2), np.float32(np.inf))
        for i in range(height):
            v = i if half == 0 else height - 1 - i
            back = v - 1 if half == 0 else v + 1
            old, new = i & 1, 1 - (i & 1)
            for u in range(width):
                for k in range(3):
                    w = u + k - 1
                    if i == 0 or w < 0 or w >= width:
                        _begin(cost[v, u], lines[new, k, u], total[1 + half, v, u])
                    else:
                        jump = max(large / (f32(1) + abs(grey[v, u] - grey[back, w]) / edge), small)
                        _step(cost[v, u], lines[old, k, w], small, jump, lines[new, k, u], total[1 + half, v, u])


@nb.njit(**SERIAL)
def _begin(cost, now, total):
    """The first step along a path; see `_step`."""
    for d in range(cost.size):
        now[d + 1] = cost[d]
        total[d] += cost[d]


@nb.njit(**SERIAL)
def _step(cost, before, small, jump, now, total):
    """One step along a path: now(d) = cost(d) + the cheapest way here - the cheapest of all before; adds it to total.

    before, now: (D + 2,), infinite at both ends.
    """
    least = before[1]
    for d in range(cost.size):
        least = min(least, before[d + 1])
    for d in range(cost.size):
        beside = min(before[d], before[d + 2]) + small
        now[d + 1] = cost[d] + min(min(before[d + 1], least + jump), beside) - least
        total[d] += now[d + 1]


@nb.njit(**PARALLEL)
def select(cost, total, candidates, limits, found):
    """The winning candidates, to a part of a step; log_std is infinite where none wins clearly.

    The standard deviation is that of a parabola's minimum through three costs whose noise is the cost that is left:
    what matches badly, and what matches alike over several candidates, is uncertain.
    """
    height, width, count = cost.shape
    first, step = candidates.first, candidates.step
    log_ratio, log_std = found.log_ratio, found.log_std
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        s = np.empty(count, np.float32)
        for u in range(width):
            for d in range(count):
                s[d] = (total[0, v, u, d] + total[1, v, u, d] + total[2, v, u, d]) * f32(0.125)
            best = np.argmin(s)
            second = np.float32(np.inf)
            for d in range(count):
                if abs(d - best) > 3:
                    second = min(second, s[d])
            correlation = f32(1) - f32(2) * cost[v, u, best]
            log_std[v, u] = np.float32(np.inf)
            log_ratio[v, u] = first + step * f32(best)
            if best == 0 or best == count - 1:
                continue
            curvature = s[best - 1] - f32(2) * s[best] + s[best + 1]
            if curvature <= f32(1e-6):
                continue
            offset = f32(0.5) * (s[best - 1] - s[best + 1]) / curvature
            log_ratio[v, u] = first + step * (f32(best) + offset)
            if correlation < limits.correlation or second - s[best] < limits.margin:
                continue
            log_std[v, u] = step * np.sqrt(f32(0.05) + f32(0.5) * cost[v, u, best] / curvature)
