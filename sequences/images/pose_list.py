"""Lists of images and poses, one per line, as relocalisation data sets (RobotCar and others) are handed round.

A line is an image's path (from the list's folder), its position and its orientation. A first line of names says
which column is which, in any order: `image` (or img_name, filename, name; or timestamp, for which TIMESTAMP.png, .jpg
or .jpeg is looked for), `x y z` (or tx ty tz; northing easting down), and `qw qx qy qz` or `roll pitch yaw` in radians
(RobotCar). Without names the columns are image x y z qw qx qy qz. Further columns are skipped. Separators are blanks or
commas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import images, poses
from semslam.files.reading import text_of
from semslam.trajectory.files import is_number
from sequences.images.posed_images import PosedImages

LAYOUT = "a .txt or .csv of lines 'image x y z qw qx qy qz', or with a first line that names the columns"
DEFAULT = ("image", "x", "y", "z", "qw", "qx", "qy", "qz")
_ALIASES = {
    "img_name": "image", "filename": "image", "file": "image", "name": "image", "imagefile": "image", "path": "image",
    "tx": "x", "ty": "y", "tz": "z", "northing": "x", "easting": "y", "down": "z",
    "pos_x": "x", "pos_y": "y", "pos_z": "z", "source_timestamp": "timestamp",
}  # fmt: skip
_QUATERNION, _ANGLES = ("qw", "qx", "qy", "qz"), ("roll", "pitch", "yaw")


@dataclass(frozen=True, eq=False)
class PoseLine:
    """What one line of a list says."""

    image: str
    T_world_camera: np.ndarray  # (4, 4) float64
    line: int  # of the file, from 1


def fits(path: Path) -> bool:
    if path.suffix not in (".txt", ".csv") or not path.is_file():
        return False
    lines = _lines(path, 0)
    if not lines:
        return False
    words = lines[0][1]
    if _is_header(words):
        return bool({"image", "timestamp"} & set(_named(words))) and "x" in _named(words)
    return len(words) >= len(DEFAULT) and Path(words[0]).suffix.lower() in (".png", ".jpg", ".jpeg")


def open_pose_list(path: str | Path, split: str | None = None) -> PosedImages:
    """Open a list of poses, in its order; images of one folder are one recording."""
    path = Path(path)
    if split is not None:
        raise ValueError(f"{path}: a list of poses has no split {split!r}; choose frames by number, or another list")
    rows = read_pose_lines(path)
    return images_of(path, rows, [path.parent / row.image for row in rows])


def images_of(source: Path, rows: Sequence[PoseLine], files: Sequence[Path]) -> PosedImages:
    """Posed images of lines and the image files that they name; the first absent file is told."""
    if absent := [(row, file) for row, file in zip(rows, files, strict=True) if not file.is_file()]:
        row, file = absent[0]
        raise FileNotFoundError(f"{source}:{row.line}: no image {file} ({len(absent)} of {len(rows)} are absent)")
    folders = [str(file.parent) for file in files]
    return PosedImages(
        source=str(source),
        names=tuple(row.image for row in rows),
        T_world_camera=np.stack([row.T_world_camera for row in rows]),
        recordings=np.unique(folders, return_inverse=True)[1].astype(np.int64),
        numbers=np.arange(len(rows)),
        read_color=lambda number: images.read_color(files[number]),
    )


def read_pose_lines(
    path: str | Path, skip: int = 0, columns: Sequence[str] | None = None, world_to_camera: bool = False
) -> list[PoseLine]:
    """The lines of a list; ValueError names the line or the column that is wrong.

    Args:
        skip: lines before the one that names the columns, or before the first pose.
        columns: their names, where the file does not give them.
        world_to_camera: the orientation turns the world into the camera (Cambridge); positions are the camera's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list of poses; expected {LAYOUT}")
    lines = _lines(path, skip)
    if columns is None:
        columns = DEFAULT
        if lines and _is_header(lines[0][1]):
            columns, lines = lines[0][1], lines[1:]
    if not lines:
        raise ValueError(f"{path}: holds no poses")
    place = {name: i for i, name in enumerate(_named(columns))}
    orientation = _ANGLES if "qw" not in place and "yaw" in place else _QUATERNION
    wanted = ("x", "y", "z", *orientation)
    image = "image" if "image" in place else "timestamp"
    if missing := [name for name in (image, *wanted) if name not in place]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(columns)}")
    rows = []
    for number, words in lines:
        if len(words) <= (last := max(place[name] for name in (image, *wanted))):
            raise ValueError(f"{path}:{number}: {len(words)} columns, expected at least {last + 1}")
        pose = _pose(path, number, [words[place[name]] for name in wanted], world_to_camera)
        rows.append(PoseLine(_image(path, words[place[image]], image), pose, number))
    return rows


def _image(path: Path, word: str, column: str) -> str:
    if column == "image":
        return word
    for suffix in (".png", ".jpg", ".jpeg"):
        if (path.parent / f"{word}{suffix}").is_file():
            return f"{word}{suffix}"
    return f"{word}.png"


def _pose(path: Path, line: int, words: Sequence[str], world_to_camera: bool) -> np.ndarray:
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        raise ValueError(f"{path}:{line}: {' '.join(words)!r} are not numbers; expected a pose") from None
    if not np.all(np.isfinite(numbers)):
        raise ValueError(f"{path}:{line}: holds NaN or an infinite number; remove the line of an image without a pose")
    if len(numbers) == 6:
        rotation = Rotation.from_euler("xyz", numbers[3:]).as_matrix()
    else:
        length = float(np.linalg.norm(numbers[3:]))
        if abs(length - 1) > 1e-2:
            raise ValueError(f"{path}:{line}: quaternion of length {length:.4f}, expected 1; are the columns in order?")
        rotation = Rotation.from_quat(np.roll(numbers[3:], -1)).as_matrix()
    return poses.from_rotation_translation(rotation.T if world_to_camera else rotation, numbers[:3])


def _lines(path: Path, skip: int) -> list[tuple[int, list[str]]]:
    """(line number from 1, words) of the lines after the first `skip` that hold something."""
    text = text_of(path, LAYOUT)
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if number > skip and line.strip(" ,\t") and not (found and line.lstrip().startswith("#")):
            found.append((number, line.replace(",", " ").lstrip("# ").split()))
    return found


def _named(words: Iterable[str]) -> list[str]:
    lowered = [word.lower() for word in words]
    return [_ALIASES.get(word, word) for word in lowered]


def _is_header(words: Sequence[str]) -> bool:
    """Names of columns hold no number, except a pose's first word, the image."""
    return not any(is_number(word) for word in words)
