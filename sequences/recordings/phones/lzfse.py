"""Apple's LZFSE compression, in which Record3D stores depth: decoding, in plain loops that Numba compiles.

A file is a chain of blocks, each with a magic word: stored bytes (bvx-), LZVN for short inputs (bvxn), LZFSE (bvx1,
bvx2), the end (bvx$). An LZFSE block holds literals and triples (L literals, match of M bytes, distance D), both
coded by finite state entropy and read backwards from their ends.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numba import njit

L_SYMBOLS, M_SYMBOLS, D_SYMBOLS, LITERALS = 20, 20, 64, 256
L_STATES, M_STATES, D_STATES, LITERAL_STATES = 64, 64, 256, 1024
L_BITS = np.array([0] * 16 + [2, 3, 5, 8])
M_BITS = np.array([0] * 16 + [3, 5, 8, 11])
D_BITS = np.repeat(np.arange(16), 4)
HEADER_2 = 32  # bytes of a bvx2 header before its frequencies


class Stream(NamedTuple):
    """Bits that are read backwards from the end of `source`, down to `start`."""

    source: np.ndarray  # (N,) uint8
    start: int
    bits: int  # of the last byte that do not count, -7 to 0


def decompress(data: bytes, expected: int) -> bytes:
    """What LZFSE packed, `expected` bytes; ValueError where the data are damaged or hold another number of bytes."""
    out = np.zeros(expected, np.uint8)
    source = np.frombuffer(data, np.uint8)
    at = written = 0
    try:
        while True:
            magic = data[at : at + 4]
            if magic == b"bvx$":
                break
            if magic == b"bvx-":
                (raw,) = struct.unpack_from("<I", data, at + 4)
                if written + raw > expected or at + 8 + raw > len(data):
                    raise ValueError("a stored block is longer than it may be")
                out[written : written + raw] = source[at + 8 : at + 8 + raw]
                at, written = at + 8 + raw, written + raw
            elif magic == b"bvxn":
                raw, payload = struct.unpack_from("<II", data, at + 4)
                if at + 12 + payload > len(data):
                    raise ValueError("a block is cut short")
                end = _lzvn(source[at + 12 : at + 12 + payload], out, written, min(written + raw, expected))
                if end != written + raw:
                    raise ValueError("a block does not hold what it claims")
                at, written = at + 12 + payload, end
            elif magic in (b"bvx1", b"bvx2"):
                at, written = _lzfse_block(data, source, at, out, written)
            else:
                raise ValueError("it starts with no block of LZFSE")
    except (struct.error, IndexError):
        raise ValueError("it is cut short") from None
    if written != expected:
        raise ValueError(f"it holds {written} bytes, expected {expected}")
    return out.tobytes()


def _lzfse_block(data: bytes, source: np.ndarray, at: int, out: np.ndarray, written: int) -> tuple[int, int]:
    """Decode the block at `at` behind the `written` bytes of `out`; (where the next one starts, bytes written)."""
    frequencies = np.zeros(L_SYMBOLS + M_SYMBOLS + D_SYMBOLS + LITERALS, np.int64)
    (raw,) = struct.unpack_from("<I", data, at + 4)
    if data[at + 3 : at + 4] == b"2":
        a, b, c = struct.unpack_from("<QQQ", data, at + 8)
        literals, literal_bytes, matches, literal_bits = (
            a & 0xFFFFF,
            a >> 20 & 0xFFFFF,
            a >> 40 & 0xFFFFF,
            (a >> 60 & 7) - 7,
        )
        states = [b >> shift & 0x3FF for shift in (0, 10, 20, 30)]
        lmd_bytes, lmd_bits = b >> 40 & 0xFFFFF, (b >> 60 & 7) - 7
        header, l_state, m_state, d_state = c & 0xFFFFFFFF, c >> 32 & 0x3FF, c >> 42 & 0x3FF, c >> 52 & 0x3FF
        if header > HEADER_2:
            _unpack_frequencies(source[at + HEADER_2 : at + header], frequencies)
    else:
        _, literals, matches, literal_bytes, lmd_bytes = struct.unpack_from("<IIIII", data, at + 8)
        (literal_bits,) = struct.unpack_from("<i", data, at + 28)
        states = list(struct.unpack_from("<4H", data, at + 32))
        lmd_bits, l_state, m_state, d_state = struct.unpack_from("<iHHH", data, at + 40)
        frequencies[:] = np.frombuffer(data, "<u2", len(frequencies), at + 50)
        header = 50 + 2 * len(frequencies) + 2  # padded to a multiple of 4
    payload = at + header
    end = payload + literal_bytes + lmd_bytes
    if end > len(source) or literals % 4 or written + raw > len(out):
        raise ValueError("a block is cut short or claims too much")
    if max(states) >= LITERAL_STATES or l_state >= L_STATES or m_state >= M_STATES or d_state >= D_STATES:
        raise ValueError("a block starts in a state that is none")
    l_end, m_end, d_end = np.cumsum([L_SYMBOLS, M_SYMBOLS, D_SYMBOLS])
    tables = (
        _table(L_STATES, frequencies[:l_end], L_BITS),
        _table(M_STATES, frequencies[l_end:m_end], M_BITS),
        _table(D_STATES, frequencies[m_end:d_end], D_BITS),
        _table(LITERAL_STATES, frequencies[d_end:], np.zeros(LITERALS, np.int64)),
    )
    literal = np.zeros(literals + 4, np.uint8)
    literal_stream = Stream(source[: payload + literal_bytes], payload, literal_bits)
    match_stream = Stream(source[:end], payload + literal_bytes, lmd_bits)
    ok = _decode_literals(literal_stream, np.array(states), tables[3], literal)
    if ok:
        triples = np.array([l_state, m_state, d_state])
        written = _decode_matches(match_stream, triples, matches, tables[:3], literal, out, written)
    if not ok or written < 0:
        raise ValueError("a block is damaged")
    return end, written


def _table(states: int, frequencies: np.ndarray, value_bits: np.ndarray) -> np.ndarray:
    """(states, 4) int64: of each state the bits to read, the value's among them, the next state's and value's base."""
    if frequencies.sum() > states:
        raise ValueError("a block's table of frequencies is damaged")
    return _filled_table(states, frequencies, value_bits)


@njit(cache=True, nogil=True)
def _filled_table(states, frequencies, value_bits):
    table = np.zeros((states, 4), np.int64)
    at = value_base = 0
    for symbol in range(len(frequencies)):
        f = frequencies[symbol]
        k = 0
        while f > 0 and (f << k) < states:
            k += 1
        first = ((2 * states) >> k) - f
        for j in range(f):
            bits, base = k, ((f + j) << k) - states
            if j >= first:
                bits, base = k - 1, (j - first) << (k - 1)
            table[at, 0] = bits + value_bits[symbol]
            table[at, 1] = value_bits[symbol]
            table[at, 2] = base
            table[at, 3] = value_base
            at += 1
        value_base += 1 << value_bits[symbol]
    return table


@njit(cache=True, nogil=True)
def _unpack_frequencies(packed, frequencies):
    """Frequencies as bvx2 packs them: small ones in 2 to 5 bits, others in 8 or 14."""
    lengths = np.array([2, 3, 2, 5, 2, 3, 2, 8, 2, 3, 2, 5, 2, 3, 2, 14] * 2)
    values = np.array(
        [0, 2, 1, 4, 0, 3, 1, -1, 0, 2, 1, 5, 0, 3, 1, -1, 0, 2, 1, 6, 0, 3, 1, -1, 0, 2, 1, 7, 0, 3, 1, -1]
    )
    bits, held, at = 0, 0, 0
    for i in range(len(frequencies)):
        while held <= 24 and at < len(packed):
            bits |= np.int64(packed[at]) << held
            held += 8
            at += 1
        low = bits & 31
        n = lengths[low]
        if n == 8:
            frequencies[i] = 8 + ((bits >> 4) & 0xF)
        elif n == 14:
            frequencies[i] = 24 + ((bits >> 4) & 0x3FF)
        else:
            frequencies[i] = values[low]
        bits >>= n
        held -= n


@njit(cache=True, nogil=True)
def _begin(stream):
    """(accumulator, bits in it, position) at the end of a stream; -1 bits where it is damaged."""
    source, start, bits = stream.source, stream.start, stream.bits
    size = 8 if bits else 7
    at = len(source) - size
    if at < start - 8 or at < 0:
        return np.uint64(0), -1, at
    held = np.uint64(0)
    for i in range(size):
        held |= np.uint64(source[at + i]) << np.uint64(8 * i)
    count = bits + 8 * size
    if count < 56 or count >= 64 or (held >> np.uint64(count)) != 0:
        return held, -1, at
    return held, count, at


@njit(cache=True, nogil=True)
def _refilled(source, held, count, at):
    """The stream with at least 56 bits to pull. Before the start of the data there are zeros."""
    take = ((63 - count) // 8) * 8
    for _ in range(take // 8):
        at -= 1
        byte = np.uint64(source[at]) if at >= 0 else np.uint64(0)
        held = (held << np.uint64(8)) | byte
    return held, count + take, at


@njit(cache=True, nogil=True)
def _decode_literals(stream, states, table, literal):
    source, start = stream.source, stream.start
    held, count, at = _begin(stream)
    if count < 0:
        return False
    for i in range(0, len(literal) - 4, 4):
        held, count, at = _refilled(source, held, count, at)
        if at < start - 8:
            return False
        for k in range(4):
            state = states[k]
            n = table[state, 0]
            count -= n
            states[k] = table[state, 2] + np.int64(held >> np.uint64(count))
            held &= (np.uint64(1) << np.uint64(count)) - np.uint64(1)
            literal[i + k] = table[state, 3]
            if states[k] >= len(table) or states[k] < 0:
                return False
    return True


@njit(cache=True, nogil=True)
def _decode_matches(stream, states, matches, tables, literal, out, written):
    """Copy literals and matches into `out` from `written` on; the bytes written, or -1 where the data are damaged."""
    source, start = stream.source, stream.start
    held, count, at = _begin(stream)
    if count < 0:
        return -1
    values = np.zeros(3, np.int64)
    used, distance = 0, -1
    for _ in range(matches):
        held, count, at = _refilled(source, held, count, at)
        if at < start - 8:
            return -1
        for k in range(3):
            table = tables[k]
            state = states[k]
            count -= table[state, 0]
            pulled = np.int64(held >> np.uint64(count))
            held &= (np.uint64(1) << np.uint64(count)) - np.uint64(1)
            states[k] = table[state, 2] + (pulled >> table[state, 1])
            values[k] = table[state, 3] + (pulled & ((1 << table[state, 1]) - 1))
            if states[k] >= len(table) or states[k] < 0:
                return -1
        if values[2] != 0:
            distance = values[2]
        length, match = values[0], values[1]
        if used + length > len(literal) or written + length + match > len(out):
            return -1
        for _i in range(length):
            out[written] = literal[used]
            written += 1
            used += 1
        if match > 0 and (distance <= 0 or distance > written):
            return -1
        for _i in range(match):
            out[written] = out[written - distance]
            written += 1
    return written


@njit(cache=True, nogil=True)
def _lzvn(source, out, written, end):
    """Decode an LZVN block into out[written:end]; the bytes written, or -1 where the data are damaged."""
    at, distance = 0, 0
    while at < len(source):
        op = np.int64(source[at])
        at += 1
        length = match = 0
        if op == 0x06:  # the end
            return written
        if op in (0x0E, 0x16):
            continue
        if op >= 0xF0:
            match = op & 15
            if match == 0:
                if at >= len(source):
                    return -1
                match = np.int64(source[at]) + 16
                at += 1
        elif op >= 0xE0:
            length = op & 15
            if length == 0:
                if at >= len(source):
                    return -1
                length = np.int64(source[at]) + 16
                at += 1
        elif 0xA0 <= op <= 0xBF:
            if at + 2 > len(source):
                return -1
            word = np.int64(source[at]) | np.int64(source[at + 1]) << 8
            at += 2
            length, match, distance = (op >> 3) & 3, (((op & 7) << 2) | (word & 3)) + 3, word >> 2
        elif 0x70 <= op <= 0x7F or 0xD0 <= op <= 0xDF or (op < 0x40 and op & 7 == 6):
            return -1  # no instruction
        else:
            length, match = op >> 6, ((op >> 3) & 7) + 3
            kind = op & 7
            if kind == 7:
                if at + 2 > len(source):
                    return -1
                distance = np.int64(source[at]) | np.int64(source[at + 1]) << 8
                at += 2
            elif kind != 6:
                if at >= len(source):
                    return -1
                distance = kind << 8 | np.int64(source[at])
                at += 1
        if at + length > len(source) or written + length + match > end:
            return -1
        for _i in range(length):
            out[written] = source[at]
            written += 1
            at += 1
        if match > 0 and (distance <= 0 or distance > written):
            return -1
        for _i in range(match):
            out[written] = out[written - distance]
            written += 1
    return -1
