"""What stands in the map: connected pieces of one class, with their area and extent."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semslam.cloud import SurfelCloud
from semslam.files.writing import replacing
from semslam.frame import UNLABELLED
from semslam.labels import LabelSet
from semslam.rendering.viewpoint import level_axes, up_direction

COLUMNS = (
    *("class_id", "class_name", "object", "surfels", "area_m2", "length_m", "width_m", "height_m", "heading_deg"),
    *("center_x", "center_y", "center_z", "label_confidence"),
)

LEAST_AREA, LEAST_SURFELS = 0.01, 12  # square metres of an object, and surfels


@dataclass(frozen=True)
class MapObject:
    """One connected piece of a class. Lengths in metres."""

    class_id: int  # counted from 0, as in memory
    class_name: str
    number: int  # within its class, from 1, the largest area first
    surfels: int
    area: float  # square metres of visible surface
    length: float  # longer level side of the smallest upright box
    width: float  # shorter level side
    height: float  # along up
    heading: float  # radians, of the longer side about up, 0..pi
    center: tuple[float, float, float]  # of the box, world frame
    label_confidence: float  # mean over its surfels


def surfel_areas(cloud: SurfelCloud) -> np.ndarray:
    """(N,) float64 square metres of surface that each surfel stands for.

    Disks overlap, so their areas must not be added. Instead the area around a surfel is shared by its k = 12 nearest:
    pi d_k^2 / k, with d_k the distance to the k-th. At a free edge the circle hangs over it, so that the area of a
    piece is a few centimetres too wide along such edges.
    """
    from scipy.spatial import cKDTree

    n, neighbours = len(cloud), 12
    if n <= neighbours:
        return np.pi * cloud.radii.astype(np.float64) ** 2
    distance, _ = cKDTree(cloud.positions).query(cloud.positions, k=[neighbours + 1], workers=-1)
    # a surfel far from all others covers no more than its own disk and a bit
    return np.minimum(np.pi * distance[:, 0] ** 2 / neighbours, 4 * np.pi * cloud.radii.astype(np.float64) ** 2)


def connected_pieces(positions: np.ndarray, gap: float) -> np.ndarray:
    """(N,) int piece of each point (N, 3): points in the same or in touching cubes of side `gap` metres are one piece.

    Points nearer than `gap` are always one piece, points farther than 2 sqrt(3) gap never directly.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(positions) == 0:
        return np.zeros(0, np.int64)
    cells = np.floor((positions - positions.min(axis=0)) / gap).astype(np.int64) + 1
    size = cells.max(axis=0) + 2
    keys = (cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]
    occupied, cell_of_point = np.unique(keys, return_inverse=True)
    offsets = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]
    rows, columns = [], []
    for x, y, z in offsets:  # the other 13 directions are the same pairs seen from the other side
        neighbour = occupied + (x * size[1] + y) * size[2] + z
        at = np.minimum(np.searchsorted(occupied, neighbour), len(occupied) - 1)
        touching = occupied[at] == neighbour
        rows.append(np.flatnonzero(touching))
        columns.append(at[touching])
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(i), np.int8), (i, j)), shape=(len(occupied), len(occupied)))
    return connected_components(graph, directed=False)[1][cell_of_point]


def objects(
    cloud: SurfelCloud,
    label_set: LabelSet,
    *,
    up: np.ndarray | None = None,
    gap: float = 0.05,
) -> list[MapObject]:
    """The map's pieces of at least a square decimetre and a dozen surfels, by class and then by area.

    `gap`: see `connected_pieces`; that of a class whose surfels lie farther apart is a diameter of its median one. Two
    chairs that touch are one piece: the map knows classes, not instances.
    """
    import cv2

    axes = level_axes(up_direction(cloud, label_set) if up is None else up)
    labels, areas, certainty = cloud.labels(), surfel_areas(cloud), cloud.label_confidence()
    upright = cloud.positions.astype(np.float64) @ axes.T
    found: list[MapObject] = []
    for class_id in np.unique(labels[labels != UNLABELLED]):
        members = np.flatnonzero(labels == class_id)
        pieces = connected_pieces(cloud.positions[members], max(gap, 2 * float(np.median(cloud.radii[members]))))
        order = np.argsort(pieces, kind="stable")
        starts = np.flatnonzero(np.diff(pieces[order], prepend=-1))
        of_class = []
        for piece in np.split(members[order], starts[1:]):
            area = float(areas[piece].sum())
            if area < LEAST_AREA or len(piece) < LEAST_SURFELS:
                continue
            (x, y), (a, b), degrees = cv2.minAreaRect(upright[piece, :2].astype(np.float32))
            if b > a:
                a, b, degrees = b, a, degrees + 90
            low, high = upright[piece, 2].min(), upright[piece, 2].max()
            center = np.array([x, y, (low + high) / 2]) @ axes
            of_class.append(
                MapObject(
                    int(class_id),
                    label_set.classes[class_id],
                    0,
                    len(piece),
                    area,
                    float(a),
                    float(b),
                    float(high - low),
                    float(np.radians(degrees % 180)),
                    (float(center[0]), float(center[1]), float(center[2])),
                    float(certainty[piece].mean()),
                )
            )
        of_class.sort(key=lambda piece: -piece.area)
        found += [MapObject(**{**vars(piece), "number": k + 1}) for k, piece in enumerate(of_class)]
    return found


def write_objects_csv(path: str | Path, found: Sequence[MapObject]) -> None:
    """Write objects as CSV, one per line; class_id counts from 1, as labels in files do."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for piece in found:
            lengths = (piece.length, piece.width, piece.height)
            writer.writerow(
                [
                    piece.class_id + 1,
                    piece.class_name,
                    piece.number,
                    piece.surfels,
                    f"{piece.area:.4f}",
                    *(f"{value:.3f}" for value in lengths),
                    f"{np.degrees(piece.heading):.1f}",
                    *(f"{value:.3f}" for value in piece.center),
                    f"{piece.label_confidence:.3f}",
                ]
            )
