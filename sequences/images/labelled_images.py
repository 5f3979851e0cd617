"""Sets of labelled images, for training and scoring networks. Images are read when they are asked for.

Three forms besides the official NYUv2 file (see `sequences.images.nyu_mat`):

- a folder: `color/NAME.(jpg|png)`, `label40/NAME.png`, `depth/NAME.png` and split files `train.txt`, `val.txt`, ...
  with one NAME a line. The label folder is named by the number of classes (`label6` for KITTI-6);
- a list file: on each line the paths of an image, its labels and its depth, `-` for what is missing;
- KITTI: depth as uint16 / 256 is `depth_scale` 256, and labels may be colour-coded images.

Label files of NYU's classes may count from 1, with 0 for void, or from 0, with 255 for void: see `semslam.images`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.files.reading import names_of
from semslam.images import COLOR_SUFFIXES, read_color, read_depth
from semslam.images.labels import numbering, read_labels
from semslam.labels import LabelSet, label_set
from sequences.nyu_calibration import COLOR_CAMERA

NYU_CAMERA = COLOR_CAMERA.undistorted()  # of NYUv2's labelled images
NORMALS_WINDOW = 11  # pixels along a side, over which depth is differentiated


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image with what is known of it."""

    name: str
    color: np.ndarray  # (H, W, 3) uint8 RGB
    labels: np.ndarray | None = None  # (H, W) uint8 0-based class ids, 255 = unlabelled
    depth: np.ndarray | None = None  # (h, w) float32 metres, 0 = none; may be smaller than the colour


@dataclass(frozen=True)
class ImageFiles:
    """Where one image and what is known of it lie."""

    name: str
    color: Path
    labels: Path | None = None
    depth: Path | None = None


@dataclass(frozen=True)
class LabelledImages:
    """A set of labelled images: `len`, indexing and iteration give LabelledImage."""

    files: tuple[ImageFiles, ...]
    classes: LabelSet  # as the label files count it
    depth_scale: float = 1000.0  # units per metre of the depth images
    source: str = field(default="", compare=False)  # what to name in messages

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> LabelledImage:
        files = self.files[index]
        color = read_color(files.color)
        labels = None if files.labels is None else read_labels(files.labels, self.classes)
        if labels is not None and labels.shape != color.shape[:2]:
            raise ValueError(
                f"{files.labels}: labels are {labels.shape[1]}x{labels.shape[0]}, the image "
                f"{color.shape[1]}x{color.shape[0]}; resize the labels with nearest neighbours"
            )
        depth = None if files.depth is None else read_depth(files.depth, self.depth_scale)
        return LabelledImage(files.name, color, labels, depth)

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class Relabelled:
    """Labelled images with the labels of other files, a teacher's for example: `len`, indexing and iteration."""

    images: Sequence[LabelledImage]
    folder: Path
    files: dict[str, Path]  # label image by the image's name
    classes: LabelSet  # as the label files count it

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> LabelledImage:
        image = self.images[index]
        if image.name not in self.files:
            raise FileNotFoundError(f"{self.folder}: no {image.name}.png among its {len(self.files)} label images")
        return replace(image, labels=read_labels(self.files[image.name], self.classes))

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[i] for i in range(len(self)))


def open_labelled_folder(
    root: str | Path,
    split: str | None = None,
    classes: str = "nyu40",
    depth_scale: float = 1000.0,
    labels: str | Path | None = None,
    read_truth: bool = True,
    first_id: int | None = None,
) -> LabelledImages:
    """A split of a folder of labelled images: `root`/SPLIT.txt, or the path of a .txt file; None takes every image.

    A folder of labels or depth that is there must hold a file for every image.

    Args:
        classes: label set of the label files.
        depth_scale: units per metre of the depth images.
        labels: folder of the label files, if not `root`/label40 (say, what a teacher wrote).
        read_truth: look for labels and depth at all.
        first_id: what the label files call the first class, 0 or 1; None = found out.
    """
    root = Path(root)
    if not (root / "color").is_dir():
        if root.is_dir() and any(path.suffix.lower() in COLOR_SUFFIXES for path in root.iterdir()):
            raise FileNotFoundError(f"{root}: no folder color/ in it; move the images there that lie in it directly")
        raise FileNotFoundError(f"{root}: no folder color/ in it; expected color/, label40/, depth/ and split files")
    color = {p.stem: p for p in sorted((root / "color").iterdir()) if p.suffix.lower() in COLOR_SUFFIXES}
    names = list(color) if split is None else _names(root, split, color)
    _need(names, color, root / "color", "an image")
    found: dict[str, dict[str, Path]] = {}
    label_folder = root / f"label{len(label_set(classes))}" if labels is None else Path(labels)
    if labels is not None and not label_folder.is_dir():
        raise FileNotFoundError(f"{label_folder}: no such folder of labels")
    for kind, folder in (("labels", label_folder), ("depth", root / "depth")):
        if read_truth and folder.is_dir():
            found[kind] = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() == ".png"}
            _need(names, found[kind], folder, f"a {kind} file")
    files = [ImageFiles(n, color[n], **{kind: paths[n] for kind, paths in found.items()}) for n in names]
    counted = numbering([f.labels for f in files if f.labels is not None], classes, first_id)
    return LabelledImages(tuple(files), counted, depth_scale, f"{root} ({split or 'all'})")


def relabelled(
    images: Sequence[LabelledImage], folder: str | Path, classes: str = "nyu40", first_id: int | None = None
) -> Relabelled:
    """The same images with the labels NAME.png of another folder; see `open_labelled_folder`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of labels")
    files = {path.stem: path for path in sorted(folder.glob("*.png"))}
    return Relabelled(images, folder, files, numbering(list(files.values()), classes, first_id))


def _names(root: Path, split: str, color: Collection[str]) -> list[str]:
    path = Path(split) if split.endswith(".txt") else root / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in root.glob("*.txt") if _is_split(p, color))) or "none"
        raise FileNotFoundError(f"{path}: no such split; the folder's splits are: {known}")
    names = names_of(path).split()
    if not names:
        raise ValueError(f"{path}: the split is empty; expected one image name a line")
    return names


def _is_split(path: Path, color: Collection[str]) -> bool:
    """Whether a text file begins with the name of an image; one of poses does not, nor does what cannot be read."""
    try:
        return names_of(path).split(maxsplit=1)[0] in color
    except (ValueError, OSError, IndexError):
        return False


def _need(names: list[str], there: dict[str, Path], folder: Path, what: str) -> None:
    if missing := [name for name in names if name not in there]:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(names)} names of the split have not {what} here, the first is "
            f"{missing[0]}; add the files or leave the names out"
        )


def open_labelled_list(
    path: str | Path, classes: str = "nyu40", depth_scale: float = 1000.0, first_id: int | None = None
) -> LabelledImages:
    """The images of a list file: `image labels depth` on each line, relative to the file; `-` or nothing = missing."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list of images")
    files = []
    for number, line in enumerate(names_of(path).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 3:
            raise ValueError(f"{path}:{number}: {len(words)} columns, expected image, labels, depth ('-' = missing)")
        color, labels, depth = [None if w == "-" else path.parent / w for w in [*words, "-", "-"][:3]]
        if color is None:
            raise ValueError(f"{path}:{number}: the image itself is missing")
        for file in (color, labels, depth):
            if file is not None and not file.is_file():
                raise FileNotFoundError(f"{path}:{number}: {file} does not exist")
        files.append(ImageFiles(color.stem, color, labels, depth))
    if not files:
        raise ValueError(f"{path}: the list is empty; expected 'image labels depth' on each line")
    counted = numbering([f.labels for f in files if f.labels is not None], classes, first_id)
    return LabelledImages(tuple(files), counted, depth_scale, str(path))


def normals_of_depth(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Unit normals (H, W, 3) float32 of a depth image in metres, towards the camera; zero where there is none.

    The cross product of the vertex map's differences over `NORMALS_WINDOW` pixels, after a bilateral filter that spares
    edges. It filters 1 / depth, which is linear over a plane, so that planes stay planes. Where depth is missing in
    the window, or a neighbour is nearer or farther by more than a tenth, there is no normal. On NYUv2's quantised depth
    normals over 5 pixels are wrong by 12 to 18 degrees, over 11 by 4.
    """
    import cv2

    camera = camera.resized(depth.shape[1], depth.shape[0])
    window, half = NORMALS_WINDOW, NORMALS_WINDOW // 2
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-3), 0).astype(np.float32)
    smooth = 1 / np.maximum(cv2.bilateralFilter(inverse, window, 0.02, window), 1e-3)
    vertices = cv2.copyMakeBorder(camera.backproject(smooth), half, half, half, half, cv2.BORDER_REPLICATE)
    z = cv2.copyMakeBorder(depth, half, half, half, half, cv2.BORDER_CONSTANT, value=0)
    height, width = depth.shape
    rows, columns = slice(half, half + height), slice(half, half + width)
    left, right = (rows, slice(0, width)), (rows, slice(2 * half, 2 * half + width))
    up, down = (slice(0, height), columns), (slice(2 * half, 2 * half + height), columns)
    normals = np.cross(vertices[down] - vertices[up], vertices[right] - vertices[left])
    length = np.linalg.norm(normals, axis=-1)
    valid = cv2.erode((depth > 0).astype(np.uint8), np.ones((window, window))).astype(bool) & (length > 1e-12)
    for neighbour in (left, right, up, down):
        valid &= (z[neighbour] > 0) & (np.abs(z[neighbour] - depth) < 0.1 * depth)
    normals[valid] /= length[valid, None]
    normals[~valid] = 0
    away = (normals * camera.backproject(np.ones_like(depth))).sum(-1) > 0
    normals[away] *= -1
    return normals.astype(np.float32)
