"""Named arrays in one file: NumPy's .npz, written block by block, so that no array is copied as a whole."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from semslam.atomic import replacing
from semslam.engine.surfels import StatePart


def parts_of(arrays: Mapping[str, np.ndarray]) -> Iterable[StatePart]:
    """Arrays that exist, as parts of one block."""
    for name, array in arrays.items():
        yield StatePart(name, array.dtype, array.shape, iter([array]))


def save_arrays(path: Path, parts: Iterable[StatePart], before: Callable[[], None] = lambda: None) -> None:
    """Write arrays to a file that `numpy.load` reads, whole or not at all.

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
        before()


def load_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file, or those of them that are named; ValueError where the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            wanted = arrays.files if names is None else [name for name in names if name in arrays.files]
            return {name: arrays[name] for name in wanted}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds for a damaged file
        raise ValueError(f"{path}: damaged ({error}); run `semslam reconstruct` again") from None


def _bytes_of(block: np.ndarray) -> memoryview:
    """The bytes of an array, in C order, without a copy where it lies so."""
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
