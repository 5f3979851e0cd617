"""The plain folder: color/, depth/, label40/, groundtruth.txt, camera.yaml."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import images, poses
from semslam.camera import Camera
from semslam.frame import UNLABELLED
from semslam.labels import LABEL_SETS
from semslam.trajectory import Trajectory, read_tum, write_tum
from sequences.sequence import ImageSequence, Sequence

logger = logging.getLogger(__name__)

LAYOUT = "color/NAME.(jpg|png), depth/NAME.png (uint16), label40/NAME.png, groundtruth.txt (TUM lines), camera.yaml"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MISSING_POSES_ALLOWED = 0.5  # of the frames; a file of nothing but NaN is a failed export, not a few lost frames


def fits(path: Path) -> bool:
    return (path / "color").is_dir() or (path / "camera.yaml").is_file()


def open_folder(path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None) -> ImageSequence:
    """Open a plain folder. Depth, labels and poses are optional; depth_scale and camera replace camera.yaml's."""
    path = Path(path)
    color = images_by_name(path / "color")
    if not color:
        raise ValueError(f"{path}: color/ holds no images; expected {LAYOUT}")
    if camera is None or (path / "camera.yaml").exists():
        recorded, recorded_scale, fps = read_camera(path / "camera.yaml")
        camera = recorded if camera is None else camera
        depth_scale = recorded_scale if depth_scale is None else depth_scale
    else:
        fps = 30.0
    depth, labels = images_by_name(path / "depth", (".png",)), images_by_name(path / "label40", (".png",))
    # A frame that lost its colour or its depth file stays a frame: reading it says which file is missing.
    names = sorted(color.keys() | depth.keys(), key=lambda name: images.natural_key(Path(name)))
    suffix = next(iter(color.values())).suffix
    timestamps, T_world_camera = _poses(path / "groundtruth.txt", len(names), fps)
    return ImageSequence(
        name=path.resolve().name,
        camera=camera.undistorted(),
        timestamps=timestamps,
        color_paths=tuple(color.get(name, path / "color" / f"{name}{suffix}") for name in names),
        depth_paths=tuple(depth.get(name, path / "depth" / f"{name}.png") for name in names) if depth else None,
        label_paths=tuple(labels.get(name) for name in names) if labels else None,
        poses=T_world_camera,
        label_set="nyu40" if labels else None,
        read_color=images.undistorting(images.read_color, camera),
        read_depth=images.undistorting(
            partial(images.read_depth, depth_scale=depth_scale or 1000.0), camera, nearest=True
        ),
        read_labels=images.undistorting(images.read_labels, camera, nearest=True, outside=UNLABELLED),
    )


def read_camera(path: Path) -> tuple[Camera, float, float]:
    """(camera, depth units per metre, frames per second) of a camera.yaml."""
    import yaml

    if not path.is_file():
        raise ValueError(f"{path}: missing; write width, height, fx, fy, cx, cy (pixels), depth_scale and fps into it")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError(f"{path}: is not YAML; expected lines like 'fx: 525.0'") from None
    required, optional = ("width", "height", "fx", "fy", "cx", "cy"), ("depth_scale", "fps", "distortion")
    values = values if isinstance(values, dict) else {}
    if missing := [key for key in required if key not in values]:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; expected {', '.join(required + optional)}")
    if unknown := [str(key) for key in values if key not in required + optional]:
        raise ValueError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(required + optional)}")
    try:
        width, height = int(values["width"]), int(values["height"])
        fx, fy, cx, cy = (float(values[key]) for key in ("fx", "fy", "cx", "cy"))
        distortion = values.get("distortion")
        camera = Camera(width, height, fx, fy, cx, cy, None if distortion is None else tuple(map(float, distortion)))
        depth_scale, fps = float(values.get("depth_scale", 1000.0)), float(values.get("fps", 30.0))
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{path}: {problem}") from None
    if not (0 < depth_scale < np.inf and 0 < fps < np.inf):
        raise ValueError(f"{path}: depth_scale {depth_scale} and fps {fps} must be above 0")
    return camera, depth_scale, fps


def images_by_name(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files of a folder by name without suffix; empty if there is no such folder."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir(), key=images.natural_key) if folder.is_dir() else ():
        if file.suffix.lower() in suffixes and not file.name.startswith("."):
            if file.stem in found:
                raise ValueError(f"{folder}: {found[file.stem].name} and {file.name} are one frame; remove one")
            found[file.stem] = file
    return found


def _poses(path: Path, frames: int, fps: float) -> tuple[np.ndarray, tuple[np.ndarray | None, ...] | None]:
    """(timestamps, poses) of `frames` frames: line i is frame i's; a line of nan is a frame without a pose."""
    if not path.is_file():
        return np.arange(frames) / fps, None
    lines = [
        (number, words)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if (words := line.split("#")[0].split())
    ]
    without = [number for number, words in lines if any(_is_not_finite(word) for word in words[1:])]
    if not without:
        trajectory = read_tum(path)
        timestamps, posed = trajectory.timestamps, list(trajectory.T_world_camera)
    else:
        if len(without) > MISSING_POSES_ALLOWED * len(lines):
            raise ValueError(
                f"{path}:{without[0]}: NaN in this and {len(without) - 1} more of {len(lines)} pose lines; export the "
                f"poses again, or track the camera instead (--poses tracked)"
            )
        logger.warning("%s: %d of %d frames have no pose (NaN lines)", path, len(without), len(lines))
        timestamps, posed = _lines_with_gaps(path, lines)
    if len(posed) != frames:
        raise ValueError(
            f"{path}: {len(posed)} pose lines, but {frames} frames in color/ and depth/; every frame needs one line "
            f"in order (nan for a frame without a pose)"
        )
    return timestamps, tuple(posed)


def _is_not_finite(word: str) -> bool:
    try:
        return not np.isfinite(float(word))
    except ValueError:
        return False


def _lines_with_gaps(path: Path, lines: list[tuple[int, list[str]]]) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """As read_tum, but a line that is not finite stands for a frame without a pose."""
    for number, words in lines:
        if len(words) != 8:
            raise ValueError(f"{path}:{number}: {len(words)} columns, expected timestamp tx ty tz qx qy qz qw")
    try:
        table = np.array([[float(word) for word in words] for _, words in lines])
        posed: list[np.ndarray | None] = [
            poses.from_rotation_translation(Rotation.from_quat(row[4:]).as_matrix(), row[1:4])
            if np.all(np.isfinite(row))
            else None
            for row in table
        ]
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}; expected timestamp tx ty tz qx qy qz qw") from None
    return table[:, 0], posed


def write_folder(sequence: Sequence, path: str | Path, depth_scale: float = 1000.0) -> Path:
    """Write a sequence as a plain folder: PNG colour, so nothing is lost; depth in steps of 1 / depth_scale m."""
    import yaml

    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    stored = [("color", True), ("depth", sequence.has_depth), ("label40", sequence.has_labels)]
    if sequence.label_set not in (None, "nyu40"):
        raise ValueError(f"{sequence.name} has {sequence.label_set} labels; the plain folder holds nyu40")
    for folder, present in stored:
        if present:
            (path / folder).mkdir(exist_ok=True)
    for frame in sequence:
        name = f"{frame.index:06d}.png"
        write_image(path / "color" / name, frame.color)
        if frame.depth is not None:
            units = np.rint(frame.depth * depth_scale)
            write_image(path / "depth" / name, np.where(units < 65536, units, 0).astype(np.uint16))
        if frame.labels is not None:
            write_image(path / "label40" / name, LABEL_SETS["nyu40"].to_file_ids(frame.labels))
    camera = sequence.camera
    values = {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    fps = (len(sequence) - 1) / np.ptp(sequence.timestamps) if np.ptp(sequence.timestamps) > 0 else 30.0
    values |= {"depth_scale": float(depth_scale), "fps": float(round(fps, 3))}
    (path / "camera.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    if sequence.poses is not None:
        _write_poses(path / "groundtruth.txt", sequence.timestamps, sequence.poses)
    return path


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, (H, W, 3) RGB or of one channel, as a PNG that is quick to write rather than small."""
    import cv2

    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok
    path.write_bytes(data.tobytes())  # unlike imwrite, this says what is wrong with a full disk


def _write_poses(path: Path, timestamps: np.ndarray, T_world_camera: tuple[np.ndarray | None, ...]) -> None:
    posed = [i for i, T in enumerate(T_world_camera) if T is not None]
    if not posed:
        return
    write_tum(path, Trajectory(timestamps[posed], np.array([T_world_camera[i] for i in posed])))
    if len(posed) < len(T_world_camera):
        lines = dict(zip(posed, path.read_text().splitlines()))
        gap = " ".join(["nan"] * 7)
        path.write_text("\n".join(lines.get(i, f"{t:.9f} {gap}") for i, t in enumerate(timestamps)) + "\n")
