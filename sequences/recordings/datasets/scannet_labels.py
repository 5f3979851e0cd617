"""ScanNet's 2-D labels: images of ScanNet's own ids, and the table that gives their NYU-40 classes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semslam.frame import UNLABELLED
from semslam.labels import LABEL_SETS
from sequences.files import Files, open_files

TABLES = ("scannetv2-labels.combined.tsv", "scannet-labels.combined.tsv")
FOLDERS = ("label-filt", "label", "labels-filt", "labels")


@dataclass(frozen=True, eq=False)
class ScanNetLabels:
    """The label images of a scan, by frame number."""

    files: Files
    names: dict[int, str]
    table: np.ndarray  # (65536,) uint8: the NYU-40 id in memory of every ScanNet id

    def of(self, number: int) -> np.ndarray | None:
        """(H, W) uint8 NYU-40 ids, 255 = unlabelled, of a frame; None where it has no label image."""
        name = self.names.get(number)
        return None if name is None else self.table[self.files.units(name)]


def find_labels(folder: Path, scan: str) -> tuple[ScanNetLabels | None, tuple[str, ...]]:
    """The labels beside a scan: a folder label-filt/ or label/, or the archive SCAN_2d-label-filt.zip.

    None, with the reason, where the table scannetv2-labels.combined.tsv is in none of the scan's folder and two above.
    """
    places = [folder / name for name in FOLDERS]
    places += [folder / f"{scan}_2d-{name}.zip" for name in ("label-filt", "label")]
    place = next((place for place in places if place.exists()), None)
    if place is None:
        return None, ()
    table = next(
        (up / name for up in (folder, *folder.resolve().parents[:2]) for name in TABLES if (up / name).is_file()), None
    )
    if table is None:
        return None, (f"{place}: the labels are left out, since {TABLES[0]} is not beside the scan or above it",)
    files = open_files(place)
    names = {
        int(Path(name).stem): name for name in files.names if name.endswith(".png") and Path(name).stem.isdecimal()
    }
    return ScanNetLabels(files, names, read_table(table)), ()


def read_table(path: Path) -> np.ndarray:
    """(65536,) uint8: the NYU-40 id in memory, 255 = unlabelled, of every ScanNet id."""
    ids = np.full(1 << 16, UNLABELLED, np.uint8)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        if not {"id", "nyu40id"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}: lacks the columns id and nyu40id; expected ScanNet's {TABLES[0]}")
        for row in rows:
            try:
                scannet, nyu = int(row["id"]), int(row["nyu40id"])
            except (TypeError, ValueError):
                continue
            if 0 <= scannet < len(ids) and 1 <= nyu <= len(LABEL_SETS["nyu40"]):
                ids[scannet] = nyu - 1
    return ids
