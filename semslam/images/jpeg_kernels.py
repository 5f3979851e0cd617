"""Walks through the Huffman codes of a JPEG's scans, block by block, without decoding them to pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from semslam.compiled import SERIAL

MARGIN = 8  # bytes that are read beyond a stream's end
TRAILING = 4  # bytes after the last block that some cameras write; damage leaves more


WORDS = 1 << 16  # of 16 bits, each of which begins with a code or none
SHORT = 9  # bits of most codes
AT_ONCE = 57  # bits that are read at once: what is left of 64 after a byte that was begun
MOST_BITS = 31  # of a code and its number


class Stream(NamedTuple):
    """The bits of a scan, without the bytes and markers that are stuffed between them."""

    data: np.ndarray  # (N + MARGIN,) uint8
    ends: np.ndarray  # (R,) int64 bytes: where each part between two restarts ends
    interval: int  # units of each part but the last
    units: int  # of the scan


@njit(inline="always")
def _ahead(data: np.ndarray, bit: Any) -> Any:
    """The next AT_ONCE bits or more, uint64, the first of them on top."""
    byte, eight = np.uint64(bit >> 3), np.uint64(0)
    for k in range(8):  # one access: compilers know this
        eight = eight << np.uint64(8) | np.uint64(data[byte + np.uint64(k)])
    return eight << np.uint64(bit & 7)


@njit(inline="always")
def _peek(data: np.ndarray, bit: Any) -> Any:
    """The next 16 bits."""
    return np.int64(_ahead(data, bit) >> np.uint64(48))


@njit(inline="always")
def _code(tables: np.ndarray, first: Any, word: Any) -> Any:
    """The code that 16 bits begin with, 0 where there is none; see `jpeg` for the table, which starts at `first`."""
    code = np.int64(tables[np.uint64(first + WORDS + (word >> (16 - SHORT)))])
    return code if code != 0 else np.int64(tables[np.uint64(first + word)])


@njit(**SERIAL)
def _block(data: np.ndarray, bit: Any, dc: np.ndarray, ac: np.ndarray, first: Any, sequential: bool, end: Any) -> Any:
    """The bit after a block's codes: that of its mean, and in sequential scans those of all else; -1 = damaged.

    A block of nothing but zeros is sound where they say that it ends. No scene has 63 coefficients alike: a page that
    was never written has.
    """
    word = _peek(data, bit)
    code = _code(dc, first, word)
    if code == 0 or code & 0xFF > 16:
        return -1
    bit += (code >> 8) + (code & 0xFF)
    unwritten = sequential and word == 0
    k: Any = 1
    ahead, left = np.uint64(0), 0
    while sequential and k < 64:
        if left < MOST_BITS:
            if bit > end:
                return -1
            ahead, left = _ahead(data, bit), AT_ONCE
        word = np.int64(ahead >> np.uint64(48))
        code = _code(ac, first, word)
        if code == 0:
            return -1
        zeros, bits = (code & 0xFF) >> 4, code & 15
        taken = (code >> 8) + bits
        bit += taken
        left -= taken
        ahead <<= np.uint64(taken)
        if bits == 0 and zeros < 15:
            unwritten = False
            break
        unwritten &= word == 0
        k += zeros + 1
    return bit if k <= 64 and bit <= end and not unwritten else -1


@njit(**SERIAL)
def scan(stream: Stream, order: np.ndarray, dc: np.ndarray, ac: np.ndarray, sequential: bool, refined: bool) -> bool:
    """Whether a sequential scan, or a progressive one of means, is whole.

    order: (B,) the component of each block of a unit. dc, ac: (C, ...) uint16, the codes of C components, see `jpeg`.
    """
    data, all_dc, all_ac, length = stream.data, dc.reshape(-1), ac.reshape(-1), dc.shape[1]
    bit: Any = 0
    for part in range(len(stream.ends)):
        end = 8 * stream.ends[part]
        for _ in range(part * stream.interval, min((part + 1) * stream.interval, stream.units)):
            for component in order:
                if not sequential and refined:  # a bit a block
                    bit += 1
                else:
                    bit = _block(data, bit, all_dc, all_ac, component * length, sequential, end)
                if bit < 0 or bit > end:
                    return False
        if end - bit >= 8 * TRAILING:
            return False
        bit = end
    return True


@njit(**SERIAL)
def ac_scan(stream: Stream, table: np.ndarray, coded: np.ndarray, first: int, last: int, refined: bool) -> bool:
    """Whether a progressive scan of the coefficients first..last of one component is whole [T.81: G.1.2.2, G.1.2.3].

    coded: (rows, columns) uint64, a bit for each coefficient that is not 0; those of this scan are added.
    """
    bit: Any = 0
    for part in range(len(stream.ends)):
        end = 8 * stream.ends[part]
        run: Any = 0  # blocks to come without a new coefficient
        for unit in range(part * stream.interval, min((part + 1) * stream.interval, stream.units)):
            row, column = unit // coded.shape[1], unit % coded.shape[1]
            known = coded[row, column]
            k: Any = first
            while run == 0 and k <= last:
                if bit > end:
                    return False
                code = _code(table, 0, _peek(stream.data, bit))
                if code == 0:
                    return False
                zeros, bits = (code & 0xFF) >> 4, code & 15
                bit += code >> 8
                if bits == 0 and zeros < 15:
                    run = (1 << zeros) + (_peek(stream.data, bit) >> (16 - zeros))
                    bit += zeros
                    break
                bit += bits
                if refined:
                    while k <= last:
                        if known >> np.uint64(k) & np.uint64(1):
                            bit += 1
                        elif zeros == 0:
                            break
                        else:
                            zeros -= 1
                        k += 1
                else:
                    k += zeros
                if bits:
                    if k > last or (refined and bits > 1):
                        return False
                    coded[row, column] |= np.uint64(1) << np.uint64(k)
                k += 1
            if run:
                while refined and k <= last:
                    bit += np.int64(known >> np.uint64(k) & np.uint64(1))
                    k += 1
                run -= 1
            if bit > end:
                return False
        if end - bit >= 8 * TRAILING:
            return False
        bit = end
    return True
