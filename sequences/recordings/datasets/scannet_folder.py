"""ScanNet's exported frames: color/0.jpg, depth/0.png, pose/0.txt, intrinsic/."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.files.reading import names_of
from semslam.trajectory.files import read_pose_folder
from sequences.files import Folder, first_readable
from sequences.pairing import frame_number
from sequences.recordings.cameras.given_camera import camera_of_matrix
from sequences.recordings.datasets.scannet_labels import find_labels
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.folder import images_by_name
from sequences.selected import FEW_LACKING

LAYOUT = "color/0.jpg, depth/0.png (mm), pose/0.txt (4x4), intrinsic/intrinsic_color.txt; label-filt/ (optional)"
FPS = 30.0


def fits(path: Path) -> bool:
    if (path / "camera.yaml").is_file():  # a plain folder made from it
        return False
    return all((path / name).is_dir() for name in ("pose", "color")) and _matrix_file(path, "color") is not None


def open_scannet_folder(
    path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None
) -> DecodedSequence:
    """Open a folder of exported frames. Images, depth and poses are paired by their numbers; a pose of -inf is none."""
    path = Path(path)
    color = {frame_number(file, LAYOUT): file for file in images_by_name(path / "color").values()}
    depth = {frame_number(file, LAYOUT): file for file in images_by_name(path / "depth").values()}
    if not color:
        raise ValueError(f"{path / 'color'}: holds no images; expected {LAYOUT}")
    numbers = sorted(color)
    left_out: tuple[str, ...] = ()
    if depth and (lone := len(color.keys() - depth.keys())) > max(1, FEW_LACKING * len(color)):
        numbers = sorted(color.keys() & depth.keys())  # exported at two rates
        left_out = (f"{lone} of {len(color)} frames have no depth and are left out",)
    if not numbers:
        raise ValueError(f"{path}: no number in color/ is one in depth/; expected {LAYOUT}")
    files = Folder(path)
    height, width = first_readable(files.image, (f"color/{color[n].name}" for n in numbers)).shape[:2]
    recorded = _camera(path, "color", width, height)
    rig = Rig(recorded if camera is None else camera)
    if depth:
        first = first_readable(files.depth, (f"depth/{file.name}" for file in depth.values()))
        depth_camera = recorded.resized(first.shape[1], first.shape[0])
        if _matrix_file(path, "depth") is not None:
            depth_camera = _camera(path, "depth", first.shape[1], first.shape[0])
        rig = Rig(rig.color, depth_camera)
    truth = read_pose_folder(path / "pose", fps=1.0)
    T_of_frame = {round(number): T for number, T in zip(truth.timestamps, truth.T_world_camera)}
    labels, unread = find_labels(path, path.resolve().name)
    return DecodedSequence(
        name=path.resolve().name,
        rig=rig,
        timestamps=np.array(numbers) / FPS,
        read=partial(
            _read,
            files,
            [(number, color[number].name) for number in numbers],
            bool(depth),
            depth_scale or 1000.0,
        ),
        read_labels=None if labels is None else lambda index: labels.of(numbers[index]),
        poses=tuple(T_of_frame.get(number) for number in numbers),
        label_set=None if labels is None else "nyu40",
        assumptions=(*unread, *left_out),
        labelled=None if labels is None else tuple(i for i, number in enumerate(numbers) if number in labels.names),
    )


def _read(
    files: Folder,
    frames: list[tuple[int, str]],
    has_depth: bool,
    depth_scale: float,
    index: int,
) -> Images:
    number, name = frames[index]
    return Images(
        files.image(f"color/{name}"),
        files.depth(f"depth/{number}.png", depth_scale) if has_depth else None,
    )


def _matrix_file(path: Path, which: str) -> Path | None:
    places = (path / "intrinsic", path / "intrinsics", path)
    return next((p / f"intrinsic_{which}.txt" for p in places if (p / f"intrinsic_{which}.txt").is_file()), None)


def _camera(path: Path, which: str, width: int, height: int) -> Camera:
    file = _matrix_file(path, which)
    assert file is not None
    try:
        K = np.array(names_of(file).split(), np.float64)
        K = K.reshape((4, 4) if len(K) == 16 else (3, 3))
    except ValueError:
        raise ValueError(f"{file}: expected the 16 numbers of a 4x4 intrinsic matrix") from None
    camera = camera_of_matrix(width, height, K)
    # Frames are often exported smaller than they were recorded, with the intrinsics left as they were.
    if camera.cx > width:
        scale = width / (2 * camera.cx + 1)
        camera = Camera(round(width / scale), round(height / scale), camera.fx, camera.fy, camera.cx, camera.cy)
        camera = camera.resized(width, height)
    return camera
