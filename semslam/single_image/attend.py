"""A figure of where a network looks: the image, and a heat map over it for each layer of the encoder.

The network is a `networks.inference.attention.Attention`; its target is given as a text, "class:chair" for example.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semslam.images import labels as label_images
from semslam.labels import LABEL_SETS
from semslam.rendering.pictures import picture_format, save_figure
from semslam.single_image.predict import shown_size

logger = logging.getLogger(__name__)
KINDS = "class, class:NAME, depth:U,V (pixels), pose or pose:X,Y,Z (metres, the true position)"


@dataclass(frozen=True)
class Target:
    """The prediction whose causes are to be shown."""

    kind: str  # class | depth | pose
    class_name: str | None = None  # None = the most frequent class of the image
    numbers: tuple[float, ...] = ()  # a pixel (u, v), or the true position of the camera


def parse_target(text: str) -> Target:
    """The target that a text names; ValueError names what is possible."""
    kind, _, rest = text.partition(":")
    if kind == "class":
        return Target(kind, rest or None)
    expected = {"depth": (2,), "pose": (0, 3)}.get(kind)
    if expected is not None:
        try:
            numbers = tuple(float(number) for number in rest.split(",")) if rest else ()
        except ValueError:
            numbers = (float("nan"),)
        if len(numbers) in expected and np.all(np.isfinite(numbers)):
            return Target(kind, None, numbers)
    raise ValueError(f"--target {text!r} is not understood; expected {KINDS}")


def default_target(attention: Any) -> Target:
    """The pose, of a network that predicts one; of any other the most frequent class."""
    return Target("pose" if "pose" in attention.tasks else "class")


def read_labels(path: str | Path, label_set: str | None) -> np.ndarray:
    """(H, W) uint8 class ids, 255 = none, of a label image; of a set that has no name here, the file's own numbers."""
    if label_set in LABEL_SETS:
        return label_images.read_labels(Path(path), label_set)
    found = label_images.label_image(Path(path))
    if found.ndim != 2 or found.dtype != np.uint8:
        raise ValueError(f"{path}: not a label image; expected a PNG of 8 bits and one channel")
    return found


@dataclass(frozen=True, eq=False)
class Question:
    """A target put to one network about one image."""

    scores: list[Any]
    title: str
    pixel: tuple[float, float] | None = None  # (u, v) of the depth
    region: np.ndarray | None = None  # (h, w) bool: where the network sees the class


def question(attention: Any, target: Target, image: np.ndarray, labels: np.ndarray | None = None) -> Question:
    """What to ask the network; ValueError where it cannot answer."""
    needed = {"class": "segmentation"}.get(target.kind, target.kind)
    if needed not in attention.tasks:
        raise ValueError(
            f"this network predicts {' and '.join(attention.tasks)}, not {needed}; choose another --target"
        )
    if attention.needs_labels and labels is None:
        raise ValueError("this network reads labels beside the image; name a label image with --labels")
    if target.kind == "pose":
        return Question(
            attention.pose_scores(target.numbers or None), "error of the position" if target.numbers else "pose"
        )
    if target.kind == "depth":
        u, v = target.numbers
        height, width = image.shape[:2]
        if not (0 <= u <= width - 1 and 0 <= v <= height - 1):
            raise ValueError(f"pixel {u:g},{v:g} is outside the image, which is {width}x{height}")
        return Question(
            attention.depth_scores((u + 0.5) / width, (v + 0.5) / height), f"depth at pixel {u:g}, {v:g}", (u, v)
        )
    found = attention.labels(image, labels)
    class_id = _class_id(attention, target.class_name, found)
    label_set = LABEL_SETS.get(attention.label_set)
    name = label_set.classes[class_id] if label_set is not None else f"class {class_id}"
    region = found == class_id
    if not region.any():
        logger.warning("the network sees no %s in this image: the maps show what speaks for it all the same", name)
    title = f"{name}, {100 * region.mean():.0f} % of the image"
    return Question(attention.class_scores(class_id), title, None, region)


def _class_id(attention: Any, name: str | None, found: np.ndarray) -> int:
    """The id of a class by its name; without one, the most frequent among `found`."""
    if name is None:
        return int(np.bincount(found.ravel()).argmax())
    label_set = LABEL_SETS.get(attention.label_set)
    if label_set is None:
        raise ValueError(f"the classes of these weights have no names here; use --target class, without {name!r}")
    return label_set.id_of(name)


def attend(
    attention: Any,
    image: np.ndarray,
    path: str | Path,
    target: Target | None = None,
    layers: Sequence[int] = (1, 2, 3, 4),
    labels: np.ndarray | None = None,
    **options: Any,
) -> dict[int, np.ndarray]:
    """Write the figure of an image (H, W, 3) uint8 RGB to `path`; returns the maps (H, W), 0 to 1, by layer.

    options: of `Attention.__call__`, the formula, `weighting`, for example.
    """
    asked = question(attention, target or default_target(attention), image, labels)
    maps = attention(image, asked.scores, layers, labels, **options)
    write_figure(path, image, maps, asked)
    return maps


def write_figure(path: str | Path, image: np.ndarray, maps: dict[int, np.ndarray], asked: Question) -> None:
    """The image, the maps laid over it, and the scale of their colours."""
    import cv2
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    form = picture_format(path)
    width, height = shown_size(*image.shape[:2])
    pixel = None if asked.pixel is None else tuple(x * width / image.shape[1] for x in asked.pixel)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    panels, inches = 1 + len(maps), 3.2
    figure = Figure(figsize=(inches * panels + 0.7, inches * height / width + 0.7), dpi=130, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(image)
    axes[0].set_title("image", fontsize=11)
    if pixel is not None:
        for color, thickness in (("white", 3), ("red", 1.5)):
            axes[0].plot(*pixel, "o", markersize=9, mfc="none", markeredgecolor=color, markeredgewidth=thickness)
    if asked.region is not None:
        # smoothed, or the outlines of a class that is strewn over the image would hide it
        region = cv2.resize(asked.region.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        region = cv2.GaussianBlur(region, (0, 0), width / 120)
        if region.min() < 0.5 < region.max():
            axes[0].contour(region, [0.5], colors="white", linewidths=2.5)
            axes[0].contour(region, [0.5], colors="red", linewidths=1.2)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2) / 255
    for axis, (number, heat) in zip(axes[1:], maps.items()):
        # hot places hide the image least where the map is low
        heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
        cover = 0.25 + 0.5 * heat[..., None]
        axis.imshow((1 - cover) * grey + cover * colormaps["inferno"](heat)[..., :3])
        axis.set_title(f"layer {number}", fontsize=11)
    scale = figure.colorbar(_scale(), ax=list(axes), shrink=0.8, pad=0.01, ticks=[0, 1])
    scale.ax.set_yticklabels(["least", "most"])
    figure.suptitle(f"Where the network looks: {asked.title}", fontsize=12)
    save_figure(figure, path, format=form)


def _scale() -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, 1), "inferno")
