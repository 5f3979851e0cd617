"""Recordings written in the layouts of others: the plain folder, TUM RGB-D, Open3D, ElasticFusion's logs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from semslam.files.writing import check_makeable, check_writable, replacing_folder
from semslam.images import write_png
from sequences.pairing import SAME_TIME
from sequences.recordings.cameras.klg import write_klg
from sequences.recordings.depth_units import DepthUnits
from sequences.recordings.folder import write_folder
from sequences.selected import ReadableSequence
from sequences.sequence import Sequence

logger = logging.getLogger(__name__)

TICK = 1e-6  # seconds, by which the times of two frames differ
TUM_SCALE, OPEN3D_SCALE = 5000.0, 1000.0  # units a metre


def write_tum_folder(sequence: Sequence, path: str | Path) -> Path:
    """Write a sequence as TUM RGB-D, with ETH3D's calibration.txt, which says the camera. Labels are left out.

    Depth in steps of 0.2 mm; beyond 13.1 m it becomes none. ValueError where that is most of it.
    """
    path = Path(path)
    (path / "rgb").mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[str]] = {"rgb": []}
    if sequence.has_depth:
        (path / "depth").mkdir(exist_ok=True)
        lists["depth"] = []
    poses = []
    units = DepthUnits(TUM_SCALE)
    timed = _depth_is_near(sequence.whole if isinstance(sequence, ReadableSequence) else sequence)
    for frame in sequence:
        name = f"{frame.timestamp:.6f}"
        write_png(path / "rgb" / f"{name}.png", frame.color)
        lists["rgb"].append(f"{name} rgb/{name}.png\n")
        if frame.depth is not None:
            time = f"{frame.timestamp + (frame.depth_delay if timed else 0.0):.6f}"
            write_png(path / "depth" / f"{time}.png", units(frame.depth))
            lists["depth"].append(f"{time} depth/{time}.png\n")
        if frame.T_world_camera is not None:
            poses.append(f"{name} {_tum_numbers(frame.T_world_camera)}\n")
    units.tell_lost(sequence.name)
    for kind, lines in lists.items():
        (path / f"{kind}.txt").write_text("# timestamp filename\n" + "".join(lines), encoding="ascii")
    if poses:
        (path / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "".join(poses), encoding="ascii")
    camera = sequence.camera
    (path / "calibration.txt").write_text(f"{camera.fx} {camera.fy} {camera.cx} {camera.cy}\n", encoding="ascii")
    return path


def write_open3d_folder(sequence: Sequence, path: str | Path) -> Path:
    """Write a sequence as Open3D's reconstruction system reads it. Times and labels are left out.

    Depth in mm; beyond 65.5 m it becomes none. ValueError where that is most of it.
    """
    path = Path(path)
    (path / "color").mkdir(parents=True, exist_ok=True)
    if sequence.has_depth:
        (path / "depth").mkdir(exist_ok=True)
    log = []
    units = DepthUnits(OPEN3D_SCALE)
    for frame in sequence:
        write_png(path / "color" / f"{frame.index:06d}.png", frame.color)
        if frame.depth is not None:
            write_png(path / "depth" / f"{frame.index:06d}.png", units(frame.depth))
        if frame.T_world_camera is not None:
            rows = "".join(" ".join(f"{x:.10f}" for x in row) + "\n" for row in frame.T_world_camera)
            log.append(f"{frame.index} {frame.index} {frame.index + 1}\n{rows}")
    units.tell_lost(sequence.name)
    camera = sequence.camera
    values = {"width": camera.width, "height": camera.height, "intrinsic_matrix": camera.K.T.ravel().tolist()}
    (path / "camera_intrinsic.json").write_text(json.dumps(values, indent=1), encoding="ascii")
    if log:
        (path / "trajectory.log").write_text("".join(log), encoding="ascii")
    return path


WRITERS: dict[str, Callable[[Sequence, str | Path], Path]] = {
    "folder": write_folder,
    "tum": write_tum_folder,
    "open3d": write_open3d_folder,
    "klg": write_klg,
}


def convert(
    sequence: Sequence, path: str | Path, kind: str | None = None, tell: Callable[[], object] = lambda: None
) -> tuple[int, int]:
    """Write a sequence as another kind, a key of WRITERS, told from the path where not given; (frames, skipped ones).

    tell: called after every frame. ValueError where there is something at the path, its suffix is
    another kind's, no frame can be read, or the kind cannot hold what was recorded.
    """
    path = Path(path)
    kind = ("klg" if path.suffix.lower() == ".klg" else "folder") if kind is None else kind
    if kind not in WRITERS:
        raise ValueError(f"cannot write a recording of kind '{kind}'; written are {', '.join(WRITERS)}")
    if kind == "klg" and path.suffix.lower() != ".klg":
        raise ValueError(f"{path}: a recording of kind 'klg' is one file; give it a name that ends in .klg")
    for file in (path, path.with_suffix(".yaml"), path.with_suffix(".freiburg")) if kind == "klg" else (path,):
        if os.path.lexists(file) and not (file.is_dir() and not any(file.iterdir())):
            raise ValueError(f"{file}: is there already; give another path")
    if kind == "klg":
        check_writable(path)
    else:
        check_makeable(path)
    if kind == "folder" and sequence.label_set not in (None, "nyu40"):
        logger.warning("%s: the %s labels are left out; a plain folder holds nyu40", path, sequence.label_set)
    elif kind != "folder" and sequence.has_labels:
        logger.warning("%s: the labels are left out, which this layout cannot hold", path)
    if not sequence.camera.focal_known and (kind != "folder" or sequence.has_depth):
        logger.warning(
            "%s: nothing says what camera took %s, and this layout must name one; its guessed intrinsics are written "
            "as if they were known: say them with --camera or --fov",
            path, sequence.name,
        )  # fmt: skip
    _check_times(sequence, kind)
    frames = ReadableSequence(sequence, tell)
    if kind != "folder" or sequence.label_set != "nyu40":
        frames.label_set = None
    with nullcontext(path) if kind == "klg" else replacing_folder(path) as place:  # a klg file is whole by itself
        WRITERS[kind](frames, place)
    if frames.without_labels:
        logger.warning("%s: the labels of %d frames cannot be read and are left out", path, frames.without_labels)
    if np.any(sequence.depth_delays) and not (kind == "tum" and _depth_is_near(sequence)):
        logger.warning("%s: the times of depth are left out; --to tum holds such as are near those of colour", path)
    return len(frames), frames.skipped


def _depth_is_near(sequence: Sequence) -> bool:
    """Whether depth is nearer to its colour image than to others, so that a reader finds the two together by time."""
    delays = sequence.depth_delays
    step = np.diff(sequence.timestamps).min(initial=np.inf)
    return delays is None or bool(np.abs(delays).max() < min(0.9 * SAME_TIME, 0.45 * step))


def _check_times(sequence: Sequence, kind: str) -> None:
    """ValueError where two frames have one time, by which a layout tells them, or their poses, apart."""
    if kind == "open3d" or (kind == "folder" and not sequence.has_poses):
        return
    steps = np.diff(np.round(sequence.timestamps / TICK))
    if np.any(steps <= 0):
        at = int(np.argmax(steps <= 0))
        times = "{:.6f} and {:.6f} s".format(*sequence.timestamps[at : at + 2])
        first, second = sequence.number_of(at), sequence.number_of(at + 1)
        raise ValueError(
            f"{sequence.name}: frames {first} and {second} are at {times}; here times must increase by a microsecond: "
            f"leave frames out (--start, --every), or write Open3D's folder (--to open3d), which holds no times"
        )


def _tum_numbers(T: np.ndarray) -> str:
    from scipy.spatial.transform import Rotation

    numbers = (*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat())
    return " ".join(f"{number:.10f}" for number in numbers)
