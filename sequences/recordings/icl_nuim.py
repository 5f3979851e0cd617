"""ICL-NUIM in its TUM-compatible form: associations.txt, depth/, rgb/, and the poses in one of two files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.trajectory import read_icl_sim, read_tum
from sequences.sequence import ImageSequence

LAYOUT = "associations.txt (id depth id rgb), rgb/, depth/, *.gt.freiburg or *.gt.sim"
FPS = 30.0
DEPTH_SCALE = 5000.0
# The data set's own camera has fy = -480: its y axis points up. Ours points down; see _mirrored.
CAMERA = Camera(640, 480, 481.20, 480.0, 319.5, 239.5)


def fits(path: Path) -> bool:
    return (path / "associations.txt").is_file() and not (path / "rgb.txt").is_file()


def open_icl_nuim(path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None) -> ImageSequence:
    """Open an ICL-NUIM folder. A .gt.freiburg file counts frames from 1, so frame 0 has no pose; .gt.sim from 0.

    Its camera and world have y up and are left-handed; both are mirrored, so the pictures stay as they are and
    the poses become T' = S T S with S = diag(1, -1, 1, 1).
    """
    path = Path(path)
    numbers, depth, color = _associations(path / "associations.txt")
    T_of_frame = _poses(path)
    return ImageSequence(
        name=path.resolve().name,
        camera=CAMERA if camera is None else camera,
        timestamps=np.array(numbers) / FPS,
        color_paths=tuple(color),
        depth_paths=tuple(depth),
        poses=None if T_of_frame is None else tuple(T_of_frame.get(number) for number in numbers),
        read_depth=partial(images.read_depth, depth_scale=depth_scale or DEPTH_SCALE),
    )


def _associations(path: Path) -> tuple[list[int], list[Path], list[Path]]:
    """Frame numbers, depth files and colour files, in order; in this data set depth comes first in a line."""
    entries = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 4 or not words[0].isdigit():
            raise ValueError(f"{path}:{line_number}: '{line[:60]}' is not 'id depth/id.png id rgb/id.png'")
        depth, color = path.parent / words[1], path.parent / words[3]
        if "rgb" in words[1] and "depth" in words[3]:
            depth, color = color, depth
        entries.append((int(words[0]), depth, color))
    if not entries:
        raise ValueError(f"{path}: lists no frames")
    entries.sort(key=lambda entry: entry[0])
    return [e[0] for e in entries], [e[1] for e in entries], [e[2] for e in entries]


def _poses(folder: Path) -> dict[int, np.ndarray] | None:
    """T_world_camera by frame number, in our handedness; None where there is no file."""
    freiburg, sim = sorted(folder.glob("*.freiburg")), sorted(folder.glob("*.gt.sim"))
    if len(freiburg) > 1 or len(sim) > 1:
        raise ValueError(f"{folder}: several trajectories ({', '.join(f.name for f in freiburg + sim)}); keep one")
    if freiburg:
        trajectory = read_tum(freiburg[0])
    elif sim:
        trajectory = read_icl_sim(sim[0], fps=1.0)
    else:
        return None
    return {round(number): _mirrored(T) for number, T in zip(trajectory.timestamps, trajectory.T_world_camera)}


def _mirrored(T: np.ndarray) -> np.ndarray:
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    return mirror @ T @ mirror
