"""The plain folder: color/, depth/, label40/, groundtruth.txt, camera.yaml."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.images import COLOR_SUFFIXES
from semslam.images import labels as label_images
from semslam.labels import LABEL_SETS
from semslam.trajectory import Trajectory
from semslam.trajectory.files import write_tum
from sequences.files import first_readable
from sequences.pairing import depth_delays, in_order, paired, times_of_names, without_copies
from sequences.pose_pairing import NO_HINTS, PoseHints
from sequences.recordings.camera_file import read_camera_file, write_camera_file
from sequences.recordings.decoded import at_working_size
from sequences.recordings.folder_poses import FPS, WRITTEN, timed_and_posed
from sequences.recordings.sensor import NOTHING_SAID, SaidOfSensor, image_readers
from sequences.selected import with_both_images
from sequences.sequence import ImageSequence, Sequence

logger = logging.getLogger(__name__)

LAYOUT = (
    "color/NAME.(jpg|png), depth/NAME.(png|pgm|tiff|npy|exr), label40/NAME.png, groundtruth.txt (TUM lines), "
    "camera.yaml"
)
DEPTH_SUFFIXES = (".png", ".pgm", ".tif", ".tiff", ".npy", ".exr")
NO_IMAGES = ("", ".txt", ".md", ".csv", ".json", ".yaml", ".db", ".ini")  # what may lie beside images


def fits(path: Path) -> bool:
    return (path / "color").is_dir() or (path / "camera.yaml").is_file()


def open_folder(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
    fps: float | None = None,
    hints: PoseHints = NO_HINTS,
) -> Sequence:
    """Open a plain folder. Depth, labels and poses are optional; what is None is left as the layout has it.

    A frame is what has one name in color/ and depth/; where these were recorded at two rates, see `with_both_images`.
    Its pose is the line of groundtruth.txt in its place, where there is one a frame; else it is found as
    `sequences.pose_pairing` says.
    """
    path = Path(path)
    color, color_copies = without_copies(images_by_name(path / "color"))
    if not color:
        _check_none_of_another_kind(path / "color", COLOR_SUFFIXES, "colour")
        raise ValueError(f"{path}: color/ holds no images; expected {LAYOUT}")
    depth_files, depth_copies = without_copies(images_by_name(path / "depth", DEPTH_SUFFIXES))
    if not depth_files:
        _check_none_of_another_kind(path / "depth", DEPTH_SUFFIXES, "depth")
    camera = said.camera
    if camera is None and not depth_files:
        height, width = first_readable(images.read_color, list(color.values())).shape[:2]
        camera = Camera.unknown(width, height)
    if camera is None:
        state = "lacks" if (path / "camera.yaml").is_file() else "missing; write"
        raise ValueError(f"{path / 'camera.yaml'}: {state} width, height, fx, fy, cx, cy (pixels), depth_scale and fps")
    depth, lone = paired(path, color, depth_files)
    # A frame that lost its colour or its depth file stays a frame: reading it says which file is missing.
    names = in_order(list(color.keys() | depth.keys()))
    frames = {name: color.get(name, depth.get(name, path)) for name in names}
    label_files, label_copies = without_copies(images_by_name(path / "label40", (".png",)))
    labels, unlabelled = paired(path, frames, label_files, whole=False)
    suffix = next(iter(color.values())).suffix
    assumed = [] if said.depth_scale or not depth else ["depth is taken to count millimetres (depth_scale 1000)"]
    found = timed_and_posed(path, names, fps, hints)
    delays = _depth_delays(names, depth)
    sequence = ImageSequence(
        name=path.resolve().name,
        timestamps=found.timestamps,
        color_paths=tuple(color.get(name, path / "color" / f"{name}{suffix}") for name in names),
        depth_paths=tuple(depth.get(name, path / "depth" / f"{name}.png") for name in names) if depth else None,
        label_paths=tuple(labels.get(name) for name in names) if labels else None,
        poses=found.T_world_camera,
        label_set="nyu40" if labels else None,
        assumptions=(*assumed, *color_copies, *depth_copies, *label_copies, *lone, *unlabelled, *found.notes),
        depth_delays=delays,
        **image_readers(
            color.values(),
            camera,
            images.DepthReader(tuple(depth.values()), said.depth_scale or 1000.0),
            said.unregistered(path),
            label_images.LabelReader(tuple(labels.values()), "nyu40"),
            along_ray=bool(said.depth_along_ray),
        ),
    )
    return with_both_images(at_working_size(sequence))


def _depth_delays(names: list[str], depth: dict[str, Path]) -> np.ndarray:
    """(N,) seconds from each colour image to its depth image, where the files' names are times; else 0."""
    delays = np.zeros(len(names))
    both = [i for i, name in enumerate(names) if name in depth]
    color_times = times_of_names([names[i] for i in both])
    depth_times = times_of_names([depth[names[i]].stem for i in both])
    if color_times is not None and depth_times is not None:
        delays[both] = depth_delays(color_times, depth_times)
    return delays


def read_camera(path: Path) -> tuple[Camera, float, float]:
    """(camera, depth units per metre, frames per second) of a camera.yaml; 1000 and 30 where it does not say."""
    found = read_camera_file(path)
    said = found.said
    if said.camera is None:
        raise ValueError(f"{path}: lacks width, height, fx, fy, cx, cy")
    return said.camera, said.depth_scale or 1000.0, found.fps or FPS


def images_by_name(folder: Path, suffixes: Iterable[str] = COLOR_SUFFIXES) -> dict[str, Path]:
    """Image files of a folder by name without suffix; empty if there is no such folder.

    ValueError where there is something else of that name: a file, or a link to nowhere.
    """
    found: dict[str, Path] = {}
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"{folder}: is no folder of images, or a link to nowhere; mend or remove it")
    for file in sorted(folder.iterdir(), key=images.natural_key) if folder.is_dir() else ():
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and not file.is_dir():
            if file.stem in found:
                raise ValueError(f"{folder}: {found[file.stem].name} and {file.name} are one frame; remove one")
            found[file.stem] = file
    return found


def _check_none_of_another_kind(folder: Path, suffixes: tuple[str, ...], what: str) -> None:
    """ValueError where a folder holds files, and nothing that is read: it is not what was recorded."""
    there = folder.iterdir() if folder.is_dir() else ()
    files = [f for f in there if f.is_file() and f.suffix.lower() not in NO_IMAGES and f.name[0] != "."]
    if kind := Counter(file.suffix.lower() for file in files).most_common(1):
        raise ValueError(
            f"{folder}: holds {kind[0][0]} files, which are not read as {what}; expected {', '.join(suffixes)}"
            f"{' (JPEG loses depth)' * (what == 'depth')}; convert them, or remove the folder"
        )


def write_folder(sequence: Sequence, path: str | Path, depth_scale: float = 1000.0) -> Path:
    """Write a sequence as a plain folder: PNG colour, so nothing is lost; depth in steps of 1 / depth_scale m.

    Where 16 bits end before the scene does (65.5 m in millimetres), all depth is written in larger units, which
    camera.yaml names. Labels other than nyu40's are left out. Without poses, which carry the times, files are named by
    them, unless frames follow each other at one rate. The intrinsics of images that nobody knows the camera of are left
    out, so that they stay unknown, unless there is depth, which means nothing without.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    labelled = sequence.label_set == "nyu40"
    stored = [("color", True), ("depth", sequence.has_depth), ("label40", labelled)]
    folders = [path / folder for folder, present in stored if present]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    written: list[Path] = []  # depth files
    for frame in sequence:
        name = f"{frame.index:06d}.png"
        images.write_png(path / "color" / name, frame.color)
        if frame.depth is not None:
            scale = images.fitting_scale(frame.depth, depth_scale)
            if scale != depth_scale:
                _rescale(written, depth_scale, scale)
                depth_scale = scale
            written.append(path / "depth" / name)
            images.write_png(written[-1], images.depth_units(frame.depth, scale))
        if labelled and frame.labels is not None:
            images.write_png(path / "label40" / name, LABEL_SETS["nyu40"].to_file_ids(frame.labels))
    times = sequence.timestamps
    fps = round((len(times) - 1) / np.ptp(times), 3) if np.ptp(times) > 0 else FPS
    camera = sequence.camera if sequence.camera.focal_known or sequence.has_depth else None
    write_camera_file(path / "camera.yaml", camera, depth_scale, fps, sequence.sensor, sequence.readout)
    if sequence.has_poses and sequence.poses is not None:
        _write_poses(path / "groundtruth.txt", times, sequence.poses)
    elif np.abs(times - np.arange(len(times)) / fps).max() > WRITTEN:
        _name_by_time(folders, times)
    return path


def _name_by_time(folders: Iterable[Path], times: np.ndarray) -> None:
    """Name the files of frames 0, 1, ... by their times (N,), where those tell them apart."""
    names = [f"{time:.6f}" for time in times]
    read = times_of_names(names)
    if read is None or np.any(np.diff(read) <= 0) or times[0] < 0:
        logger.warning("the frames' times do not increase, or are below 0, and are left out")
        return
    for folder in folders:
        for file in list(folder.iterdir()):
            file.rename(file.with_stem(names[int(file.stem)]))


def _rescale(paths: Iterable[Path], before: float, after: float) -> None:
    """Write depth files again that counted `before` units per metre and are to count `after`."""
    for path in paths:
        images.write_png(path, images.depth_units(images.read_depth(path, before), after))


def _write_poses(path: Path, timestamps: np.ndarray, T_world_camera: tuple[np.ndarray | None, ...]) -> None:
    posed = [i for i, T in enumerate(T_world_camera) if T is not None]
    if not posed:
        return
    write_tum(path, Trajectory(timestamps[posed], np.array([T_world_camera[i] for i in posed])))
    if len(posed) < len(T_world_camera):
        lines = dict(zip(posed, path.read_text().splitlines()))
        gap = " ".join(["nan"] * 7)
        path.write_text("\n".join(lines.get(i, f"{t:.9f} {gap}") for i, t in enumerate(timestamps)) + "\n")
