"""ICL-NUIM in its TUM-compatible form: associations.txt, depth/, rgb/, and the poses in one of two files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.trajectory.files import read_icl_sim, read_tum
from sequences.recordings.sensor import NOTHING_SAID, SaidOfSensor, Usual, usual_readers
from sequences.recordings.tum import read_associations
from sequences.sequence import ImageSequence

LAYOUT = "associations.txt (id depth id rgb), rgb/, depth/, *.gt.freiburg or *.gt.sim"
FPS = 30.0
# The data set's own camera has fy = -480: its y axis points up. Ours points down; see _mirrored.
USUAL = Usual(Camera(640, 480, 481.20, 480.0, 319.5, 239.5), "ICL-NUIM's, mirrored", 5000.0)


SIGN = re.compile(r"living_?room|office.*traj|traj.*frei|icl", re.IGNORECASE)


def fits(path: Path) -> bool:
    """Frame numbers in associations.txt, and a sign that they are this data set's: its poses or its names."""
    listing = path / "associations.txt"
    if not listing.is_file() or any((path / name).is_file() for name in ("rgb.txt", "groundtruth.txt")):
        return False
    with listing.open(encoding="utf-8-sig", errors="replace") as file:
        words = file.readline(4096).split()
    counts_frames = bool(words) and re.fullmatch("[0-9]+", words[0]) is not None
    return counts_frames and (bool(_trajectories(path)) or SIGN.search(path.resolve().name) is not None)


def open_icl_nuim(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
    fps: float | None = None,
) -> ImageSequence:
    """Open an ICL-NUIM folder. A .gt.freiburg file counts frames from 1, so frame 0 has no pose; .gt.sim from 0.

    Its camera and world have y up and are left-handed; both are mirrored, so the pictures stay as they are and
    the poses become T' = S T S with S = diag(1, -1, 1, 1).
    """
    path = Path(path)
    entries, of_order = read_associations(path / "associations.txt")
    numbers = [round(entry.stamp) for entry in entries]
    T_of_frame = _poses(path)
    color, depth = tuple(entry.color for entry in entries), tuple(entry.depth for entry in entries)
    readers, assumed = usual_readers(path, color, depth, USUAL, said)
    sequence = ImageSequence(
        name=path.resolve().name,
        timestamps=np.array(numbers) / (fps or FPS),
        color_paths=color,
        depth_paths=depth,
        poses=None if T_of_frame is None else tuple(T_of_frame.get(number) for number in numbers),
        assumptions=(*assumed, *of_order),
        **readers,
    )
    sequence.readout = 0.0  # rendered, though some of its depth has a Kinect's noise
    return sequence


def _trajectories(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.freiburg")) + sorted(folder.glob("*.gt.sim"))


def _poses(folder: Path) -> dict[int, np.ndarray] | None:
    """T_world_camera by frame number, in our handedness; None where there is no file."""
    files = _trajectories(folder)
    if len(files) > 1 and files[0].suffix == files[1].suffix:
        raise ValueError(f"{folder}: several trajectories ({', '.join(f.name for f in files)}); keep one")
    if not files:
        return None
    trajectory = (read_tum if files[0].suffix == ".freiburg" else read_icl_sim)(files[0])
    return {round(number): _mirrored(T) for number, T in zip(trajectory.timestamps, trajectory.T_world_camera)}


def _mirrored(T: np.ndarray) -> np.ndarray:
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    return mirror @ T @ mirror
