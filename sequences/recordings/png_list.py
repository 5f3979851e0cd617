"""The list of PNG pairs that SemanticFusion reads in place of ElasticFusion's .klg."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.files.reading import names_of
from sequences.recordings.sensor import NOTHING_SAID, SaidOfSensor, Usual, usual_readers
from sequences.sequence import ImageSequence

LAYOUT = "a text file of lines 'timestamp_ms depth rgb depth_name rgb_name', paths from the list's folder"
USUAL = Usual(Camera(640, 480, 528.0, 528.0, 320.0, 240.0), "ElasticFusion's", 1000.0)


def fits(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() not in (".txt", ".list", ".lst", ""):
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        words = file.readline(4096).split()
    return len(words) == 5 and words[0].isdecimal()


def open_png_list(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
) -> ImageSequence:
    """Open a list file: times in milliseconds, depth in millimetres, registered to colour; no poses."""
    path = Path(path)
    entries = []
    for number, line in enumerate(names_of(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 5 or not words[0].isdecimal():
            raise ValueError(f"{path}:{number}: '{line[:60]}' is not 'timestamp_ms depth rgb depth_name rgb_name'")
        entries.append((int(words[0]) / 1000, path.parent / words[1], path.parent / words[2]))
    colors, depths = tuple(color for _, _, color in entries), tuple(depth for _, depth, _ in entries)
    readers, assumed = usual_readers(path, colors, depths, USUAL, said)
    return ImageSequence(
        name=path.stem,
        timestamps=np.array([time for time, _, _ in entries]),
        color_paths=colors,
        depth_paths=depths,
        assumptions=tuple(assumed),
        **readers,
    )
