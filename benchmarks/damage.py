"""How files are damaged for `faults.py`: bit flips, cuts, blown-up sizes, odd numbers, and forged insides.

A mutation takes the bytes of a file, those of another sample of its kind, and random numbers; it returns bytes.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, bytes, np.random.Generator], bytes]
NUMBER = re.compile(rb"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
ODD_NUMBERS = [
    *(b"nan", b"inf", b"-inf", b"-1", b"0", b"-0.0", b"1e308", b"1e400", b"1e-320", b"", b" ", b"1_000", b"0x10"),
    *(b"255", b"256", b"65536", b"2147483648", b"4294967295", b"1000000000000", b"18446744073709551616", b"9" * 5000),
    *("²".encode(), "٣٤".encode(), "１２".encode(), "½".encode(), "−1".encode(), b"\xff\xfe", b"1,5", b"true", b"null"),
]  # fmt: skip
EXTREMES = [struct.pack("<I", n) for n in (0xFFFFFFFF, 0xFFFFFF7F, 0x7FFFFFFF, 0x80000000, 0, 0x10000, 0x40000000)]
BOMB = b"".join(b"l%d: &l%d [%s]\n" % (i, i, b",".join([b"*l%d" % (i - 1)] * 10) if i else b"x") for i in range(12))
YAML_ODDITIES = [
    b"\na: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    b"\n" + BOMB,
    b"\ndeep: " + b"[" * 3000 + b"]" * 3000 + b"\n",
    b"\ndeep: " + b"{a: " * 2000 + b"1" + b"}" * 2000 + b"\n",
    b"\nx: !!python/object/apply:os.getcwd []\n",
    b"\n? [a, b]\n: 1\n",
    b"\nloop: &loop [*loop]\n",
    b"\nfx: 2024-13-45\n",
    b"\nfx: 2024-01-01\n",
    b"\nwidth: 1e400\n",
    b"\n<<: 3\n",
    b"\n--- 1\n--- 2\n",
    b"\n\t- x\n",
]  # fmt: skip


def flip_bits(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to 64 bits turned, in the whole file or near its beginning."""
    array = np.frombuffer(data, np.uint8).copy()
    reach = len(array) if rng.random() < 0.5 else min(len(array), 256)
    for at in rng.integers(0, max(reach, 1), 2 ** rng.integers(0, 7)) if reach else ():
        array[at] ^= 1 << rng.integers(0, 8)
    return array.tobytes()


def cut(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The first part of the file."""
    return data[: rng.integers(0, len(data) + 1)]


def blow_up(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A number of four bytes near the beginning, or anywhere, becomes an extreme one."""
    reach = min(len(data), 512) if rng.random() < 0.8 else len(data)
    at = int(rng.integers(0, max(reach - 4, 1)))
    extreme = EXTREMES[rng.integers(len(EXTREMES))] * (2 if rng.random() < 0.3 else 1)
    return data[:at] + extreme + data[at + len(extreme) :]


def splice(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A part of another file in the place of a part of this one; what follows moves."""
    a, b = sorted(rng.integers(0, len(data) + 1, 2))
    c, d = sorted(rng.integers(0, len(other) + 1, 2))
    return data[:a] + other[c:d] + data[b:]


def blank(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A part of the file becomes zeros, as after a crash of the disk's cache; or there is nothing at all."""
    a, b = sorted(rng.integers(0, len(data) + 1, 2))
    return b"" if rng.random() < 0.05 else data[:a] + bytes(b - a) + data[b:]


def noise(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes after a beginning that is right."""
    keep = int(rng.integers(0, 64)) if rng.random() < 0.7 else 0
    return data[:keep] + rng.bytes(int(rng.integers(0, 4096)))


def repeat(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A part of the file stands there several times."""
    a, b = sorted(rng.integers(0, len(data) + 1, 2))
    b = min(b, a + 100_000)
    return data[:b] + data[a:b] * int(rng.integers(1, 8)) + data[b:]


def odd_numbers(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to three numbers that are written as text near the beginning become odd ones."""
    for _ in range(rng.integers(1, 4)):
        found = list(NUMBER.finditer(data[:20_000]))
        if not found:
            return blow_up(data, other, rng)
        match = found[rng.integers(len(found))]
        data = data[: match.start()] + ODD_NUMBERS[rng.integers(len(ODD_NUMBERS))] + data[match.end() :]
    return data


def swap_lines(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Two lines change places, one is lost or stands there twice; line ends or a mark as Windows writes them."""
    lines = data.split(b"\n")
    a, b = rng.integers(0, len(lines), 2)
    match rng.integers(5):
        case 0:
            lines[a], lines[b] = lines[b], lines[a]
        case 1:
            del lines[a]
        case 2:
            lines.insert(a, lines[b])
        case 3:
            return b"\xef\xbb\xbf" + b"\r\n".join(lines)
        case _:
            return data.decode("latin1").encode("utf-16")
    return b"\n".join(lines)


ANY_FILE: tuple[Mutation, ...] = (flip_bits, cut, blow_up, splice, blank, noise, repeat, odd_numbers, swap_lines)


def forge_image(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Another size, depth or kind of pixels in the header of a PNG (its checksum made right) or a JPEG."""
    sizes = [0, 1, 2, 63, 4096, 16_000, 65_535, 1 << 20, (1 << 31) - 1]
    width, height = (int(sizes[i]) for i in rng.integers(0, len(sizes), 2))
    if data[:4] == b"\x89PNG" and len(data) > 33:
        header = bytearray(data[16:29])
        if rng.random() < 0.7:
            struct.pack_into(">II", header, 0, width, height)
        if rng.random() < 0.5:
            header[8:13] = bytes(
                [*rng.choice([1, 2, 4, 8, 16], 1), *rng.choice([0, 2, 3, 4, 6], 1), 0, 0, rng.integers(2)]
            )
        return data[:16] + bytes(header) + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (at := data.find(marker)) > 0:
            return data[: at + 5] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[at + 9 :]
    return blow_up(data, other, rng)


def forge_zip(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A member of an archive is damaged, left out, doubled or huge; the archive itself is whole."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[rng.integers(len(members))]
    match rng.integers(6):
        case 0:
            del members[name]
        case 1:
            members[name] = list(members.values())[rng.integers(len(members))]
        case 2:
            claims = b"(%d,)" % 10 ** rng.integers(3, 15)
            members[name] = re.sub(rb"\(\d+,[^)]*\)", claims, members[name][:128]) + members[name][128:]
        case 3:
            members[name] = re.sub(
                rb"[<|][fiub]\d", rng.choice([b"<f8", b"|O8", b"<U9", b"<c8", b"<i2"]), members[name]
            )
        case _:
            damage = ANY_FILE[rng.integers(len(ANY_FILE))]
            members[name] = damage(members[name], next(iter(members.values())), rng)
    buffer, packing = io.BytesIO(), zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", packing) as archive:
        warnings.simplefilter("ignore")
        for key, value in members.items():
            archive.writestr(key, value)
    return buffer.getvalue()


def forge_matlab(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """An element of a MATLAB 5 file is damaged before it is compressed; HDF5 (MATLAB 7.3) is damaged as it is."""
    damage = ANY_FILE[rng.integers(len(ANY_FILE))]
    if not data.startswith(b"MATLAB 5.0") or struct.unpack_from("<I", data, 128)[0] != 15:
        return data[:128] + damage(data[128:], other[128:], rng)
    length = struct.unpack_from("<I", data, 132)[0]
    element = zlib.compress(damage(zlib.decompress(data[136 : 136 + length]), other, rng))
    return data[:128] + struct.pack("<II", 15, len(element)) + element + data[136 + length :]


def forge_yaml(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Aliases that explode, deep nesting, dates, tags, a second document."""
    oddity = YAML_ODDITIES[rng.integers(len(YAML_ODDITIES))]
    at = data.find(b"\n", int(rng.integers(0, len(data) + 1)))
    return oddity + data if at < 0 else data[:at] + oddity + data[at + 1 :]
