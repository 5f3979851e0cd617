"""Depth, labels and normals of single images as files and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semslam.atomic import replacing
from semslam.frame import evenly_spread
from semslam.images import write_png
from semslam.labels import LABEL_SETS, LabelSet

NAMED = 12  # classes in a figure's legend


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file; ValueError, one line, where it is not 8-bit colour."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path}: cannot be decoded; expected a JPEG or PNG image")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        channels = 1 if image.ndim == 2 else image.shape[2]
        raise ValueError(
            f"{path}: {8 * image.dtype.itemsize}-bit image of {channels} channel(s), expected 8-bit RGB; convert it, "
            f"for example with `magick {path.name} -depth 8 -type TrueColor out.png`"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def images_of(folder: str | Path, count: int) -> list[np.ndarray]:
    """At most `count` images of a folder, evenly spread over its names in order."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths or count < 1:
        raise ValueError(f"{folder}: {len(paths)} JPEG or PNG images are in it, {count} are wanted; name one with some")
    return [read_image(path) for path in evenly_spread(paths, count)]


def write_prediction(
    folder: str | Path,
    name: str,
    depth: np.ndarray,
    labels: np.ndarray,
    label_set: LabelSet,
    normals: np.ndarray | None = None,
) -> list[Path]:
    """Write NAME_depth.png (uint16 millimetres), NAME_labels.png (1-based ids), NAME_normals.png; the paths.

    depth: (H, W) metres. labels: (H, W) ids in memory. normals: (H, W, 3), stored as 255 times `normal_colors`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = {
        "depth": np.clip(np.round(depth * 1000), 0, 65535).astype(np.uint16),
        "labels": label_set.to_file_ids(labels),
    }
    if normals is not None:
        images["normals"] = np.round(255 * normal_colors(normals)).astype(np.uint8)
    paths = []
    for kind, image in images.items():
        path = folder / f"{name}_{kind}.png"
        write_png(path, image)
        paths.append(path)
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
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def names_for(images: Sequence[Path]) -> list[str]:
    """The name of each image's outputs: its own, with as many of its folders before it as tell it from the others.

    kitchen/0001.jpg and office/0001.jpg become kitchen_0001 and office_0001. An image named twice has one name.
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
    return [names[path] for path in paths]


def _last(parts: tuple[str, ...], count: int) -> tuple[str, ...]:
    return parts[max(0, len(parts) - count) :]


def predict_files(images: Sequence[Path], out: Path, predictor: Any) -> Iterator[list[Path]]:
    """Write predictions and a figure of one image after the other; yields the paths of each.

    `predictor` is a `networks.inference.predictor.Predictor`.
    """
    label_set = LABEL_SETS[predictor.label_set]
    for path, name in zip(images, names_for(images)):
        color = read_image(path)
        prediction = predictor(color)
        labels = prediction.class_probabilities.argmax(axis=2).astype(label_set.dtype)
        written = write_prediction(out, name, prediction.depth, labels, label_set, prediction.normals)
        figure = out / f"{name}_figure.png"
        write_figure(figure, color, prediction.depth, labels, label_set, prediction.normals)
        yield [*written, figure]
