"""Named arrays in one file: NumPy's .npz, written block by block, so that no array is copied as a whole."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from semslam.engine.paging import StoredRows
from semslam.engine.saved_surfels import StatePart
from semslam.files.failures import is_passing
from semslam.files.reading import regular_size
from semslam.files.writing import flush_to_disk, replacing

AT_ONCE = 1 << 22  # bytes that are read


def parts_of(arrays: Mapping[str, np.ndarray | StoredRows]) -> Iterable[StatePart]:
    """Arrays that exist, as parts of one block, or of many where they are stored."""
    for name, array in arrays.items():
        blocks = array.blocks() if isinstance(array, StoredRows) else iter([array])
        yield StatePart(name, array.dtype, array.shape, blocks)


def save_arrays(path: Path, parts: Iterable[StatePart], before: Callable[[], None] = lambda: None) -> None:
    """Write arrays to a file that `numpy.load` reads, whole or not at all, even where the power fails.

    before: called when all is written, and nothing but the last step, one rename, is left to do.
    """
    parts = list(parts)  # whose blocks are not there yet
    needed = sum(math.prod(part.shape) * part.dtype.itemsize for part in parts)
    with replacing(path, needed) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
            for part in parts:
                with file.open(f"{part.name}.npy", "w", force_zip64=True) as member:
                    header = {"descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False}
                    np.lib.format.write_array_header_1_0(member, header | {"shape": part.shape})  # type: ignore[arg-type]
                    for block in part.blocks:
                        member.write(_bytes_of(block))
        flush_to_disk(temporary)
        before()
    flush_to_disk(path.parent)


def stored_rows(path: Path, names: Collection[str]) -> dict[str, StoredRows]:
    """Arrays of a file, left there; ValueError where the file is damaged, for which all of them is read once."""
    regular_size(path)
    found = {}
    with naming(path), zipfile.ZipFile(path) as file:
        for member in file.infolist():
            if (name := member.filename.removesuffix(".npy")) not in names:
                continue
            _check_claim(file, member)
            with file.open(member) as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                header = stream.tell()
                while stream.read(AT_ONCE):  # to the end, where the checksum is compared
                    pass
            raw = path.open("rb")
            raw.seek(member.header_offset + 26)
            start = member.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4))) + header
            found[name] = StoredRows(raw, start, dtype, shape)
    return found


def load_arrays(path: Path, names: Iterable[str] | None = None, without: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of a file, or those of them that are named; ValueError where the file is damaged."""
    regular_size(path)
    with naming(path):
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():
                _check_claim(file, member)
        with np.load(path, allow_pickle=False) as arrays:
            wanted = arrays.files if names is None else [name for name in names if name in arrays.files]
            return {name: arrays[name] for name in wanted if name not in without}


def _check_claim(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError where an array claims more than its file holds: NumPy would first make room for it."""
    with file.open(member) as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if member.compress_type != zipfile.ZIP_STORED or stream.tell() + math.prod(shape) * dtype.itemsize > (
            member.file_size
        ):
            raise ValueError(f"{member.filename} claims to be {dtype} {shape}")


class Damaged(ValueError):
    """A file of a run is not what was written: which, why, and what to do."""

    def __init__(self, path: Path, reason: str, remedy: str = "make the run again (--overwrite)") -> None:
        super().__init__(f"{path}: damaged ({reason}); {remedy}")
        self.path, self.reason = path, reason


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raise `Damaged`, which names the file, where what was read from it does not make sense."""
    try:
        yield
    except Damaged:  # another file, which was read meanwhile
        raise
    except Exception as error:  # zipfile, zlib, NumPy and what reads the arrays raise a dozen kinds
        if is_passing(error) or isinstance(error, PermissionError):
            raise
        reason = " ".join(str(error).split()).removeprefix(f"{path}: ") or type(error).__name__
        raise Damaged(path, reason) from error


def _bytes_of(block: np.ndarray) -> memoryview:
    """The bytes of an array, in C order, without a copy where it lies so."""
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
