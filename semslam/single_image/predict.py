"""Depth, labels and normals of single images as files and as a figure."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from semslam.files.writing import replacing
from semslam.frame import evenly_spread
from semslam.images import (
    COLOR_SUFFIXES,
    DEPTH_SCALES,
    depth_units,
    fitting_scale,
    natural_key,
    read_color,
    write_png,
)
from semslam.images.resizing import resized_ids
from semslam.labels import LABEL_SETS, LabelSet
from semslam.rendering.pictures import save_figure
from sequences.files import VIDEOS
from sequences.recordings.cameras.given_camera import OtherAspect, exif_focal, given_camera

NAMED = 12  # classes in a figure's legend
MOST_PIXELS = (
    2_000_000  # at which probabilities are computed, the network itself seeing far less: 40 classes take 320 MB
)


@dataclass(frozen=True)
class Predicted:
    """What became of one image."""

    image: Path
    files: list[Path]  # that were written
    problem: str | None = None  # why there are none
    lens: str | None = None  # what told the focal length by which depth is scaled


def shown_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) of at most `MOST_PIXELS`, of the shape of an image: that at which figures show it."""
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (height * width)))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves and, in place of a folder, the images in it as people count: of a recording those of color/.

    ValueError for a folder without images, FileNotFoundError where there is nothing of a name.
    """
    found: list[Path] = []
    for path in paths:
        if not os.path.lexists(path):
            raise FileNotFoundError(f"{path}: no such image or folder of images")
        if path.suffix.lower() in VIDEOS:
            raise ValueError(
                f"{path}: is a video, and this is for single images; `semslam reconstruct {path} --depth predicted` "
                f"maps it, and `semslam convert` writes its images into a folder"
            )
        if not path.is_dir():
            found.append(path)
            continue
        folder = path / "color" if (path / "color").is_dir() else path
        images = _images_in(folder)
        if not images:
            raise ValueError(f"{folder}: no JPEG or PNG images are in this folder; give images, or a folder of some")
        found += images
    return found


def _images_in(folder: Path) -> list[Path]:
    files = (
        path for path in folder.iterdir() if path.suffix.lower() in COLOR_SUFFIXES and not path.name.startswith(".")
    )
    return sorted(files, key=natural_key)


def images_of(folder: str | Path, count: int) -> list[np.ndarray]:
    """At most `count` images of a folder, evenly spread over its names in order."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    paths = _images_in(folder)
    if not paths or count < 1:
        raise ValueError(f"{folder}: {len(paths)} JPEG or PNG images are in it, {count} are wanted; name one with some")
    return [read_color(path, upright=True) for path in evenly_spread(paths, count)]


def write_prediction(
    folder: str | Path,
    name: str,
    depth: np.ndarray,
    labels: np.ndarray,
    label_set: LabelSet,
    normals: np.ndarray | None = None,
) -> list[Path]:
    """Write NAME_depth.png (uint16 millimetres), NAME_labels.png (file ids), NAME_normals.png; the paths.

    Depth beyond 65.5 m is written in larger units, which a NAME_depth.yaml then names.

    depth: (H, W) metres. labels: (H, W) ids in memory. normals: (H, W, 3), stored as 255 times `normal_colors`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scale = fitting_scale(depth)
    images = {
        "depth": depth_units(depth, scale),
        "labels": label_set.to_file_ids(labels),
    }
    if normals is not None:
        images["normals"] = np.round(255 * normal_colors(normals)).astype(np.uint8)
    paths = []
    for kind, image in images.items():
        path = folder / f"{name}_{kind}.png"
        write_png(path, image)
        paths.append(path)
    unit = folder / f"{name}_depth.yaml"
    if scale != DEPTH_SCALES[0]:
        with replacing(unit) as temporary:
            temporary.write_text(f"depth_scale: {scale}  # units a metre\n", encoding="utf-8")
        paths.append(unit)
    else:
        unit.unlink(missing_ok=True)  # of depth that was written here before
    return paths


def normal_colors(normals: np.ndarray) -> np.ndarray:
    """Unit normals (H, W, 3) of the camera frame as RGB 0 to 1: (n + 1) / 2 with z towards the camera positive."""
    return (normals * [1, 1, -1] + 1) / 2


def write_figure(
    path: str | Path,
    color: np.ndarray,
    depth: np.ndarray,
    labels: np.ndarray,
    label_set: LabelSet,
    normals: np.ndarray | None = None,
) -> None:
    """A picture for people: image, depth with its scale, labels with the names of the classes present, normals."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels = 3 + (normals is not None)
    figure = Figure(figsize=(4.2 * panels, 4), layout="constrained")
    axes = figure.subplots(1, panels)
    for axis, title in zip(axes, ("image", "depth (m)", f"classes ({label_set.name})", "normals")):
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    axes[0].imshow(color)
    shown = axes[1].imshow(depth, cmap="viridis_r")
    figure.colorbar(shown, ax=axes[1], shrink=0.7)
    axes[2].imshow(label_set.colorize(labels))
    ids, counts = np.unique(labels[labels < len(label_set)], return_counts=True)
    order = np.argsort(-counts)
    patches = [Patch(color=label_set.colors[i] / 255, label=label_set.classes[i]) for i in ids[order[:NAMED]]]
    if len(ids) > NAMED:
        rest = 100 * counts[order[NAMED:]].sum() / labels.size
        patches.append(Patch(color="none", label=f"{len(ids) - NAMED} more, {rest:.1f} %"))
    axes[2].legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, fontsize=8, frameon=False)
    if normals is not None:
        axes[3].imshow(normal_colors(normals))
    save_figure(figure, path, dpi=130)


def names_for(images: Sequence[Path]) -> list[str]:
    """The name of each image's outputs: its own, with as many of its folders before it as tell it from the others.

    kitchen/0001.jpg and office/0001.jpg become kitchen_0001 and office_0001; a kitchen_0001.jpg beside them, which has
    that name already, becomes kitchen_0001_2. An image named twice has one name.
    """
    paths = [path.resolve() for path in images]
    by_stem: dict[str, set[Path]] = {}
    for path in paths:
        by_stem.setdefault(path.stem, set()).add(path)
    names: dict[Path, str] = {}
    for stem, alike in by_stem.items():
        folders = {path: path.relative_to(path.anchor).parts[:-1] for path in alike}
        depth = 0
        while len({_last(parts, depth) for parts in folders.values()}) < len(set(folders.values())):
            depth += 1
        for path, parts in folders.items():
            # the same name in the same folder has another suffix
            own = stem if len(set(folders.values())) == len(alike) else path.name.replace(".", "_")
            names[path] = "_".join([*_last(parts, depth), own])
    names = _numbered(names)
    return [names[path] for path in paths]


def _numbered(names: dict[Path, str]) -> dict[Path, str]:
    """The same names, the second and later ones of those that are alike with a number."""
    found: dict[Path, str] = {}
    wanted, taken = set(names.values()), set[str]()
    for path, name in names.items():
        free = (f"{name}_{number}" for number in count(2))
        found[path] = next(n for n in free if n not in wanted and n not in taken) if name in taken else name
        taken.add(found[path])
    return found


def _last(parts: tuple[str, ...], count: int) -> tuple[str, ...]:
    return parts[max(0, len(parts) - count) :]


def predict_files(images: Sequence[Path], out: Path, predictor: Any, fov: float | None = None) -> Iterator[Predicted]:
    """Write predictions and a figure of one image after the other; an image that cannot be read ends nothing.

    Images are turned upright. `predictor` is a `networks.inference.predictor.Predictor`. fov: of all images,
    horizontal, degrees.
    """
    for path, name in zip(images, names_for(images)):
        try:
            color = read_color(path, upright=True)
            focal, lens = focal_length(path, color.shape[0], color.shape[1], fov)
        except ValueError as problem:
            yield Predicted(path, [], str(problem))
            continue
        yield Predicted(path, _predict(color, out, name, predictor, focal), lens=lens)


def focal_length(path: Path, height: int, width: int, fov: float | None = None) -> tuple[float | None, str]:
    """The focal length of an image in pixels, and what told it: that of a recording of such images, see `given_camera`.

    None where nothing tells it, and the network takes the image for one of the camera that it was trained with.
    ValueError for a camera.yaml of images of another aspect.
    """
    place = path.parent if path.parent.name == "color" else path.parent / "camera"  # NAME.yaml may be anything
    exif = exif_focal(path, max(width, height))
    try:
        camera = given_camera(place, width, height, None, fov, exif)
    except OtherAspect:
        camera = given_camera(place, height, width, None, fov, exif)  # of an image that was turned upright
    if not camera.focal_known:
        return None, "nothing: taken for the network's own camera's (--fov, a camera.yaml or EXIF tells another)"
    if fov is not None:
        return camera.fx, "--fov"
    unwritten = exif is not None and abs(camera.fx - exif) < 1e-6 * exif
    return camera.fx, "EXIF" if unwritten else "camera.yaml"


def _predict(color: np.ndarray, out: Path, name: str, predictor: Any, focal: float | None) -> list[Path]:
    import cv2

    label_set, shape = LABEL_SETS[predictor.label_set], color.shape[:2]
    size = shown_size(*shape)
    prediction = predictor(color, size, focal)
    small = prediction.class_probabilities.argmax(axis=2).astype(label_set.dtype)
    small_color = color if size == shape[::-1] else cv2.resize(color, size, interpolation=cv2.INTER_AREA)
    figure = out / f"{name}_figure.png"
    labels, depth, normals = small, prediction.depth, prediction.normals
    if small_color is not color:
        labels = resized_ids(small, shape[::-1])
        depth = cv2.resize(prediction.depth, shape[::-1], interpolation=cv2.INTER_LINEAR)
        normals = None if normals is None else resized_ids(normals, shape[::-1])
    written = write_prediction(out, name, depth, labels, label_set, normals)
    write_figure(figure, small_color, prediction.depth, small, label_set, prediction.normals)
    return [*written, figure]
