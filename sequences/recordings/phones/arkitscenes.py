"""ARKitScenes: lowres_wide/ (colour), lowres_depth/ (mm), confidence/, lowres_wide_intrinsics/, lowres_wide.traj.

Files are named VIDEO_SECONDS. A .pincam file holds width, height, fx, fy, cx, cy; a line of the .traj file a time, a
rotation vector and a translation, from world to camera. Baruch et al., "ARKitScenes", NeurIPS 2021.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.camera import Camera
from semslam.files.reading import text_of
from semslam.images import CorruptFrame
from semslam.trajectory import Trajectory, associate
from sequences.files import Folder, first_readable, reason
from sequences.pose_pairing import poses_at
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.phones import arkit

LAYOUT = "lowres_wide/ID_TIME.png, lowres_depth/, confidence/, lowres_wide_intrinsics/ID_TIME.pincam, lowres_wide.traj"
COLORS = ("lowres_wide", "vga_wide", "wide")
PAIR = 0.011  # seconds: the names of one moment differ by a rounding


def fits(path: Path) -> bool:
    folder = _frames_folder(path)
    return (folder / "lowres_depth").is_dir() and any((folder / name).is_dir() for name in COLORS)


def open_arkitscenes(
    path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None
) -> DecodedSequence:
    """Open a video's folder: colour paired with depth by time, poses interpolated between those of lowres_wide.traj."""
    path = Path(path)
    folder = _frames_folder(path)
    top = next(name for name in COLORS if (folder / name).is_dir())
    files = Folder(folder)
    color_times, color = _timed(folder / top, ".png")
    depth_times, depth = _timed(folder / "lowres_depth", ".png")
    of_color, of_depth = associate(color_times, depth_times, PAIR)
    if len(of_color) == 0:
        raise ValueError(f"{folder}: no image of {top}/ has one of lowres_depth/ of the same time; expected {LAYOUT}")
    times = color_times[of_color]
    height, width = first_readable(files.image, (f"{top}/{color[i]}" for i in of_color)).shape[:2]
    own: list = [None] * len(times) if camera is not None else _cameras(folder / f"{top}_intrinsics", times)
    first = camera or next((c for c in own if isinstance(c, Camera)), None)
    if first is None:
        raise ValueError(
            f"{folder / f'{top}_intrinsics'}: holds no .pincam of the images' times; add it or give --camera"
        )
    first = first.resized(width, height)
    shape = first_readable(files.units, (f"lowres_depth/{depth[i]}" for i in of_depth)).shape
    traj = next((p / "lowres_wide.traj" for p in (folder, path) if (p / "lowres_wide.traj").is_file()), None)
    found = None if traj is None else poses_at(read_traj(traj), traj, times)
    return DecodedSequence(
        name=path.resolve().name,
        rig=Rig(first, first.resized(shape[1], shape[0])),
        timestamps=times,
        read=partial(
            _read,
            files,
            [(f"{top}/{color[i]}", depth[k]) for i, k in zip(of_color, of_depth)],
            [c.resized(width, height) if isinstance(c, Camera) else c for c in own],
            depth_scale or 1000.0,
        ),
        poses=None if found is None else found.T_world_camera,
        assumptions=() if found is None else found.notes,
    )


def _frames_folder(path: Path) -> Path:
    """The folder of the frames: the given one, or ID_frames in it, as the data set for detection has it."""
    if (path / "lowres_depth").is_dir() or not path.is_dir():
        return path
    return next((inner for inner in sorted(path.glob("*_frames")) if (inner / "lowres_depth").is_dir()), path)


def _read(
    files: Folder,
    names: list[tuple[str, str]],
    cameras: list[Camera | CorruptFrame | None],
    depth_scale: float,
    index: int,
) -> Images:
    color, depth_name = names[index]
    camera = cameras[index]
    if isinstance(camera, CorruptFrame):
        raise camera
    depth = files.depth(f"lowres_depth/{depth_name}", depth_scale)
    if (files.path / "confidence" / depth_name).is_file():
        depth = arkit.trusted(depth, files.units(f"confidence/{depth_name}"))
    return Images(files.image(color), depth, camera=camera)


def _timed(folder: Path, suffix: str) -> tuple[np.ndarray, list[str]]:
    """Times (N,) in seconds, increasing, and names of a folder's files ID_SECONDS.suffix."""
    entries = []
    for file in folder.glob(f"*{suffix}"):
        try:
            entries.append((float(file.stem.rpartition("_")[2]), file.name))
        except ValueError:
            raise ValueError(f"{file}: the name holds no time; expected {LAYOUT}") from None
    entries.sort()
    return np.array([time for time, _ in entries]), [name for _, name in entries]


def _cameras(folder: Path, times: np.ndarray) -> list[Camera | CorruptFrame | None]:
    """The camera of each time, or what is wrong with its file; None where no .pincam lies within a rounding of it."""
    there, names = _timed(folder, ".pincam") if folder.is_dir() else (np.zeros(0), [])
    found: list[Camera | CorruptFrame | None] = [None] * len(times)
    if names:
        for i, k in zip(*associate(times, there, PAIR)):
            found[i] = _pincam(folder / names[k])
    return found


def _pincam(file: Path) -> Camera | CorruptFrame:
    try:
        width, height, fx, fy, cx, cy = (float(word) for word in text_of(file).split())
        return Camera(int(width), int(height), fx, fy, cx, cy)
    except (ValueError, OSError, OverflowError) as problem:
        return CorruptFrame(f"{file}: expected width height fx fy cx cy ({reason(problem)})", broken_file=True)


def read_traj(path: Path) -> Trajectory:
    """ARKitScenes' trajectory: lines of seconds, rotation vector, translation, world to camera."""
    rows: dict[float, np.ndarray] = {}
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = np.array(line.split(), np.float64)
            if row.shape != (7,) or not np.all(np.isfinite(row)):
                raise ValueError
        except ValueError:
            raise ValueError(f"{path}:{number}: expected seconds, 3 numbers of rotation, 3 of translation") from None
        T_camera_world = poses.from_rotation_translation(Rotation.from_rotvec(row[1:4]).as_matrix(), row[4:7])
        rows[float(row[0])] = poses.inverse(T_camera_world)
    if not rows:
        raise ValueError(f"{path}: holds no poses")
    times = sorted(rows)
    return Trajectory(np.array(times), np.stack([rows[t] for t in times]))
