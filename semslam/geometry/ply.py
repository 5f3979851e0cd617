"""PLY files whose vertices carry named scalars.

Written here rather than by Open3D, whose writers (0.20) report success on a full disk, drop the labels of a mesh and
refuse an empty cloud; read here because its readers crash on damaged headers. What is written opens in Open3D, MeshLab
and CloudCompare with every property kept. Format: Greg Turk, The PLY Polygon File Format (1994).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from semslam.files.reading import regular_size
from semslam.files.writing import replacing
from semslam.geometry.polygons import triangles_of

TYPES = {"u1": "uchar", "i1": "char", "u2": "ushort", "i2": "short", "u4": "uint", "i4": "int", "f4": "float"}
TYPES["f8"] = "double"
DTYPES = {name: dtype for dtype, name in TYPES.items()}
DTYPES |= {"uint8": "u1", "int8": "i1", "uint16": "u2", "int16": "i2", "uint32": "u4", "int32": "i4"}
DTYPES |= {"float32": "f4", "float64": "f8"}
CORNERS = ("vertex_indices", "vertex_index")  # what the list of a face's corners is called
COUNT = re.compile(r"[0-9]{1,18}")
LONGEST_HEADER = 1 << 20  # bytes; label sets of 894 classes take 40 kB
AT_ONCE = 1 << 16  # vertices that are put into rows


def write_ply(
    path: str | Path,
    properties: Mapping[str, np.ndarray],
    triangles: np.ndarray | None = None,
    comments: Sequence[str] = (),
) -> None:
    """Write vertices with the scalar properties name -> (N,) and, where given, triangles (M, 3) of vertex indices.

    The file appears whole or not at all. OSError where it cannot be written.
    """
    write_ply_in_parts(path, [properties], len(next(iter(properties.values()))), triangles, comments)


def write_ply_in_parts(
    path: str | Path,
    parts: Iterable[Mapping[str, np.ndarray]],
    count: int,
    triangles: np.ndarray | None = None,
    comments: Sequence[str] = (),
) -> None:
    """`write_ply` of vertices that come in parts, at least one, with the same properties; count: of all vertices.

    ValueError, and no file, where another number comes.
    """
    rest = iter(parts)
    first_part = next(rest)
    fields = [(name, np.asarray(values).dtype.str[1:]) for name, values in first_part.items()]
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {count}", *(f"property {TYPES[dtype]} {name}" for name, dtype in fields)]
    if triangles is not None:
        header += [f"element face {len(triangles)}", "property list uchar int vertex_indices"]
        faces = np.empty(len(triangles), np.dtype([("count", "u1"), ("indices", "<i4", (3,))]))
        faces["count"], faces["indices"] = 3, triangles
    header.append("end_header\n")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write("\n".join(header).encode("ascii", "replace"))
        written = 0
        for part in chain([first_part], rest):
            written += (size := len(next(iter(part.values()))))
            for first in range(0, size, AT_ONCE):
                rows = np.empty(min(AT_ONCE, size - first), np.dtype([(name, "<" + dtype) for name, dtype in fields]))
                for name, values in part.items():
                    rows[name] = values[first : first + len(rows)]
                file.write(rows.data)
        if written != count:
            raise ValueError(f"{path}: {written} vertices came, expected {count}")
        if triangles is not None:
            file.write(faces.data)


@dataclass(frozen=True)
class _Property:
    name: str
    dtype: str  # of a value, such as f4
    counted: str = ""  # of the count before the values of a list; "" = one value


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


def read_ply(path: str | Path) -> tuple[dict[str, np.ndarray], np.ndarray | None, list[str]]:
    """Properties name -> (N,) of the vertices, triangles (M, 3) int32 or None, and the comments of a file.

    Text and binary files of either byte order; polygons are cut into triangles that share their first corner. Memory
    follows the size of the file, whatever its header says. ValueError where it is not whole.
    """
    path = Path(path)
    regular_size(path)
    data = np.fromfile(path, np.uint8)
    order, elements, comments, start = _header(path, data[:LONGEST_HEADER].tobytes())
    body = _Text(path, data[start:].tobytes()) if order == "text" else _Binary(path, data, start, order)
    vertices: dict[str, np.ndarray] | None = None
    triangles: np.ndarray | None = None
    for element in elements:
        if element.name == "vertex":
            vertices = dict(body.scalars(element))
        elif element.name == "face":
            polygons = [p.name for p in element.properties if p.counted and p.name in CORNERS]
            if not polygons and element.count:
                raise ValueError(f"{path}: its faces have no vertex_indices; write it again as a mesh or without faces")
            triangles = triangles_of(*body.lists(element, polygons[0])) if polygons else None
        else:
            body.skip(element)
    if vertices is None:
        raise ValueError(f"{path}: a PLY file without vertices")
    count = len(next(iter(vertices.values()), ()))
    if triangles is not None and len(triangles) and not (triangles.min() >= 0 and triangles.max() < count):
        raise ValueError(f"{path}: a face names a vertex beyond the {count} there are; write the file again")
    return vertices, None if triangles is None else triangles.astype(np.int32), comments


def _header(path: Path, head: bytes) -> tuple[str, list[_Element], list[str], int]:
    """Byte order ("<", ">" or "text"), elements, comments and length in bytes of a PLY file's header."""
    orders = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "text"}
    order, elements, comments, place = "", [], [], 0
    while True:
        end = head.find(b"\n", place)
        line = head[place : max(end, 0)].rstrip(b"\r").decode("utf-8", "replace")
        if end < 0 or (place == 0 and line.strip() != "ply"):
            raise ValueError(f"{path}: not a PLY file, or its header is cut short; write it again")
        place = end + 1
        words = line.split()
        if words[:1] == ["end_header"]:
            break
        if words[:1] == ["comment"]:
            comments.append(line.removeprefix("comment "))
        elif words[:1] == ["format"]:
            order = orders.get(words[1], "") if len(words) == 3 else ""
        elif words[:1] == ["element"] and len(words) == 3 and COUNT.fullmatch(words[2]):
            elements.append(_Element(words[1], int(words[2]), ()))
        elif words[:1] == ["property"] and elements:
            last = elements.pop()
            elements.append(_Element(last.name, last.count, (*last.properties, _property(path, line, words))))
        elif words[:1] not in (["ply"], ["obj_info"], []):
            raise ValueError(f"{path}: the header's line {line[:60]!r} is not understood; write the file again")
    if not order:
        raise ValueError(f"{path}: its format is none of {', '.join(orders)} 1.0")
    for element in elements:
        names = [p.name for p in element.properties]
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: the header names a property of {element.name} twice")
    return order, elements, comments, place


def _property(path: Path, line: str, words: list[str]) -> _Property:
    match words:
        case ["property", "list", counted, kind, name] if kind in DTYPES and DTYPES.get(counted, "f")[0] in "ui":
            return _Property(name, DTYPES[kind], DTYPES[counted])
        case ["property", kind, name] if kind in DTYPES:
            return _Property(name, DTYPES[kind])
    raise ValueError(f"{path}: cannot read {line[:60]!r}; known types are {', '.join(TYPES.values())}")


class _Binary:
    """The body of a binary file, read one element after the other."""

    def __init__(self, path: Path, data: np.ndarray, start: int, order: str) -> None:
        self._path, self._data, self._at, self._order = path, data, start, order

    def scalars(self, element: _Element) -> Iterator[tuple[str, np.ndarray]]:
        rows, _ = self._read(element, "")
        for p in element.properties:
            if not p.counted:
                yield p.name, rows[p.name].astype(p.dtype)

    def lists(self, element: _Element, name: str) -> tuple[np.ndarray, np.ndarray]:
        _, found = self._read(element, name)
        return found

    def skip(self, element: _Element) -> None:
        self._read(element, "")

    def _read(self, element: _Element, wanted: str) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """The single values of an element's rows, and of one of its lists the counts and all values."""
        if element.count == 0 or not element.properties:
            return {p.name: np.zeros(0, p.dtype) for p in element.properties}, (np.zeros(0, int), np.zeros(0, int))
        lengths = self._lengths_of_first(element)
        rows = self._uniform(element, lengths)
        if rows is None:
            return self._one_by_one(element, wanted)
        self._at += rows.nbytes
        lists = np.zeros(0, int), np.zeros(0, int)
        if wanted:
            values = rows[f"values of {wanted}"].astype(np.int64)
            lists = np.full(len(rows), values.shape[1]), values.ravel()
        return {p.name: rows[p.name] for p in element.properties if not p.counted}, lists

    def _take(self, count: int, dtype: np.dtype) -> np.ndarray:
        """Values at the place that is read; ValueError where the file ends before."""
        size = count * dtype.itemsize
        if size > len(self._data) - self._at:
            raise ValueError(
                f"{self._path}: cut short: {len(self._data)} bytes, its header promises more, up to byte "
                f"{self._at + size}; write the file again"
            )
        found = self._data[self._at : self._at + size].view(dtype)
        self._at += size
        return found

    def _dtype(self, name: str) -> np.dtype:
        return np.dtype(self._order + name)

    def _lengths_of_first(self, element: _Element) -> dict[str, int]:
        """How long the lists of an element's first row are; the place that is read stays."""
        start, lengths = self._at, {}
        for p in element.properties:
            count = int(self._take(1, self._dtype(p.counted))[0]) if p.counted else 1
            lengths[p.name] = count
            self._take(max(count, 0), self._dtype(p.dtype))
        self._at = start
        return lengths

    def _uniform(self, element: _Element, lengths: Mapping[str, int]) -> np.ndarray | None:
        """All rows at once, if the lists of all are as long as those of the first."""
        fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
        for p in element.properties:
            if p.counted:
                fields.append((f"count of {p.name}", self._order + p.counted))
                fields.append((f"values of {p.name}", self._order + p.dtype, (lengths[p.name],)))
            else:
                fields.append((p.name, self._order + p.dtype))
        dtype, counted = np.dtype(fields), [p.name for p in element.properties if p.counted]
        if min(lengths.values()) < 0 or (counted and element.count * dtype.itemsize > len(self._data) - self._at):
            return None
        start = self._at
        rows = self._take(element.count, dtype)
        self._at = start
        return rows if all((rows[f"count of {name}"] == lengths[name]).all() for name in counted) else None

    def _one_by_one(
        self, element: _Element, wanted: str
    ) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """As `_read`, row by row: lists of different lengths."""
        least = sum(np.dtype(p.counted or p.dtype).itemsize for p in element.properties)
        if element.count * least > len(self._data) - self._at:
            self._take(element.count, np.dtype((np.void, least)))  # says that the file is cut short
        scalars: dict[str, list[np.ndarray]] = {p.name: [] for p in element.properties if not p.counted}
        counts, values = np.zeros(element.count, np.int64), [np.zeros(0, np.int64)]
        for row in range(element.count):
            for p in element.properties:
                count = int(self._take(1, self._dtype(p.counted))[0]) if p.counted else 1
                if count < 0:
                    raise ValueError(f"{self._path}: a list of {count} values; the file is damaged, write it again")
                found = self._take(count, self._dtype(p.dtype))
                if not p.counted:
                    scalars[p.name].append(found)
                elif p.name == wanted:
                    counts[row] = count
                    values.append(found.astype(np.int64))
        return {name: np.concatenate(found) for name, found in scalars.items()}, (counts, np.concatenate(values))


class _Text:
    """The body of a text file, read one element after the other."""

    def __init__(self, path: Path, body: bytes) -> None:
        self._path, self._at = path, 0
        with warnings.catch_warnings():  # what is no number ends the reading with a warning
            warnings.simplefilter("error")
            try:
                self._numbers = np.fromstring(body.decode("latin-1"), np.float64, sep=" ")
            except (DeprecationWarning, ValueError):
                raise ValueError(f"{path}: holds something that is no number; write the file again") from None

    def scalars(self, element: _Element) -> Iterator[tuple[str, np.ndarray]]:
        if any(p.counted for p in element.properties):
            raise ValueError(f"{self._path}: vertices with lists are not read from text; write the file as binary")
        rows = self._take(element.count * len(element.properties)).reshape(element.count, len(element.properties))
        for p, column in zip(element.properties, rows.T, strict=True):
            with np.errstate(invalid="ignore"):
                yield p.name, column.astype(p.dtype)

    def lists(self, element: _Element, name: str) -> tuple[np.ndarray, np.ndarray]:
        counts, values = [], [np.zeros(0)]
        for _ in range(element.count if element.properties else 0):
            for p in element.properties:
                count = self._take(1)[0] if p.counted else 1
                if not (0 <= count < len(self._numbers) and count == int(count)):
                    raise ValueError(f"{self._path}: a list of {count} values; the file is damaged, write it again")
                found = self._take(int(count))
                if p.name == name:
                    counts.append(len(found))
                    values.append(found)
        found = np.concatenate(values)
        if not np.isfinite(found).all():
            raise ValueError(f"{self._path}: a face names no vertex; the file is damaged, write it again")
        return np.array(counts, np.int64), found.astype(np.int64)

    def skip(self, element: _Element) -> None:
        if any(p.counted for p in element.properties):
            self.lists(element, "")
        else:
            self._take(element.count * len(element.properties))

    def _take(self, count: int) -> np.ndarray:
        if count > len(self._numbers) - self._at:
            raise ValueError(
                f"{self._path}: cut short: it holds {len(self._numbers)} numbers, its header promises more; write the "
                f"file again"
            )
        found = self._numbers[self._at : self._at + count]
        self._at += count
        return found
