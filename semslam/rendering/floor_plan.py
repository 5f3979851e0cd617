"""A labelled plan of the map seen from straight above, with a scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.frame import UNLABELLED
from semslam.labels import LabelSet
from semslam.rendering.coloring import INK
from semslam.rendering.legend import class_color, class_name
from semslam.rendering.pictures import printable, save_figure, shown_colors, without_specks
from semslam.rendering.splatting import painted, render
from semslam.rendering.viewpoint import level_axes, up_direction

BACKGROUND = (255, 255, 255)
HEAD_ROOM = 2.1  # metres above the floor: above it are ceilings and lamps, which would hide the room


@dataclass(frozen=True, eq=False)
class FloorPlan:
    """A plan and where its pixels lie."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    labels: np.ndarray  # (H, W) uint8 class of what is highest there, 255 = unlabelled or nothing
    pixels_per_metre: float
    T_world_plan: np.ndarray  # (4, 4) float64; plan: x right, y down the image, z away from the viewer, metres
    classes: tuple[int, ...]  # the class ids on it, largest area first, 255 for surfaces without a class
    paths: tuple[np.ndarray, ...]  # each (N, 2) pixels of the camera's way until it was lost


def floor_height(cloud: SurfelCloud, label_set: LabelSet, up: np.ndarray) -> float:
    """Metres along `up` of the floor: of the surfels labelled floor, else of the lowest level surface."""
    height = cloud.positions.astype(np.float64) @ up
    if "floor" in label_set.classes:
        floor = cloud.labels() == label_set.id_of("floor")
        if floor.sum() > 50:
            return float(np.median(height[floor]))
    level = height[cloud.normals @ up > 0.9]
    return float(np.percentile(level if len(level) > 50 else height, 2))


def wall_heading(cloud: SurfelCloud, axes: np.ndarray) -> float:
    """Radians by which to turn the plan so that most walls run along the image's sides.

    Level normals of walls repeat every quarter turn; the mean of their angle times four is theirs.
    """
    level = cloud.normals.astype(np.float64) @ axes.T
    upright = np.abs(level[:, 2]) < 0.2
    if not upright.any():
        return 0.0
    weight = cloud.radii[upright].astype(np.float64) ** 2
    quarter = np.exp(4j * np.arctan2(level[upright, 1], level[upright, 0]))
    direction = np.sum(weight * quarter)
    for degrees in (15, 8, 4, 4):  # furniture that stands askew loses its vote
        near = np.abs(np.angle(quarter * np.conj(direction))) < np.radians(4 * degrees)
        direction = np.sum(weight[near] * quarter[near]) if near.any() else direction
    return float(np.angle(direction) / 4)


def floor_plan(
    cloud: SurfelCloud,
    label_set: LabelSet,
    *,
    up: np.ndarray | None = None,
    paths: Sequence[np.ndarray] = (),
    pixels: int = 1000,
) -> FloorPlan:
    """The map from above: the ceiling and what hangs above head height left out, walls along the image's sides.

    The camera's `paths`, each (N, 4, 4) T_world_camera, fit in and help to find up: a path ends where it was lost.
    `pixels`: the longer side of the picture. Specks without a class are drawn like their neighbours; a map without
    classes is drawn in its colours.
    """
    import cv2

    if len(cloud) == 0:
        raise ValueError("the map is empty: there is nothing to draw a plan of")
    cloud = without_specks(cloud)
    up = up_direction(cloud, label_set, np.concatenate(paths) if len(paths) else None) if up is None else up
    axes = level_axes(up)
    heading = wall_heading(cloud, axes)
    right = np.cos(heading) * axes[0] + np.sin(heading) * axes[1]
    height = cloud.positions @ up - floor_height(cloud, label_set, up)
    keep = height < HEAD_ROOM
    if "ceiling" in label_set.classes:
        keep &= cloud.labels() != label_set.id_of("ceiling")
    if not keep.any():
        keep[:] = True
    room = cloud.selected(keep)
    R = np.column_stack([right, np.cross(-up, right), -up])
    local = room.positions @ R
    low, high = (np.percentile(local[:, :2], q, axis=0) for q in (0.1, 99.9))
    flat = [(path[:, :3, 3] @ R)[:, :2] for path in paths if len(path)]
    if flat:
        low, high = np.min([low, *(p.min(axis=0) for p in flat)], 0), np.max([high, *(p.max(axis=0) for p in flat)], 0)
    border = 0.04 * (high - low).max() + 0.02
    low, high = low - border, high + border
    scale = 2 * pixels / float((high - low).max())  # drawn at twice the size, then averaged
    width, height_px = (2 * int(np.ceil(side * scale / 2)) for side in high - low)
    fine = Camera(width, height_px, scale, scale, -low[0] * scale - 0.5, -low[1] * scale - 0.5)
    T_world_plan = poses.from_rotation_translation(R, np.zeros(3))
    rendering = render(room, fine, T_world_plan, cull_back=False, orthographic=True)
    has_classes = cloud.class_probabilities is not None
    colors = shown_colors(room, label_set, "label" if has_classes else "color", T_world_plan)
    small = (width // 2, height_px // 2)
    image = cv2.resize(painted(rendering, colors, BACKGROUND), small, interpolation=cv2.INTER_AREA)
    index = rendering.index[::2, ::2]
    labels = np.where(index >= 0, room.labels()[index], np.uint8(UNLABELLED)).astype(np.uint8)
    share = np.bincount(labels[index >= 0], minlength=UNLABELLED + 1)
    order = np.argsort(-share, kind="stable") if has_classes else ()
    present = tuple(int(i) for i in order if share[i] > 0.0005 * share.sum())
    scale /= 2
    return FloorPlan(image, labels, scale, T_world_plan, present, tuple((p - low) * scale - 0.5 for p in flat))


def scale_bar_length(metres_shown: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is at most a third of the metres shown."""
    power = 10 ** np.floor(np.log10(metres_shown / 3))
    return float(max(m * power for m in (1, 2, 5) if m * power <= metres_shown / 3 + 1e-12))


def write_floor_plan(
    path: str | Path,
    plan: FloorPlan,
    label_set: LabelSet,
    *,
    title: str = "",
) -> None:
    """Write a plan as PNG with its scale bar, a legend of the classes on it and the camera's path where it has one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    height, width = plan.labels.shape
    side, head, foot, legend = 0.25, 0.5, 0.55, 1.9
    total_width, total_height = side + width / 100 + legend, head + height / 100 + foot
    figure = Figure(figsize=(total_width, total_height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    place = (side / total_width, foot / total_height, width / 100 / total_width, height / 100 / total_height)
    axes = figure.add_axes(place)
    axes.imshow(plan.image, interpolation="none", aspect="auto")
    for u, v in (path.T for path in plan.paths):
        axes.plot(u, v, color="white", linewidth=3.5)
        axes.plot(u, v, color="#d62828", linewidth=1.6)
        axes.plot(u[:1], v[:1], "o", markersize=6, markerfacecolor="white", markeredgecolor="#d62828")
        axes.plot(u[-1:], v[-1:], "o", markersize=6, color="#d62828", markeredgecolor="white")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
    figure.text(side / total_width, 1 - 0.5 * head / total_height, printable(title), fontsize=14, color=INK,
                va="center", weight="bold", parse_math=False)  # fmt: skip
    if plan.classes:
        handles = [
            Patch(facecolor="#{:02x}{:02x}{:02x}".format(*class_color(label_set, i)), edgecolor=INK, linewidth=0.4,
                  label=class_name(label_set, i))
            for i in plan.classes
        ]  # fmt: skip
        corner = ((side + width / 100 + 0.1) / total_width, (foot + height / 100) / total_height)
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, frameon=False, fontsize=12,
                      labelcolor=INK, handlelength=1.1, handleheight=1.1, borderaxespad=0)  # fmt: skip
    bar = scale_bar_length(width / plan.pixels_per_metre)
    bar_width = bar * plan.pixels_per_metre / 100 / total_width
    left, bottom = place[0], 0.22 / total_height
    for k in range(2):  # black, then white: half the bar is half the length
        figure.add_artist(
            Rectangle((left + k * bar_width / 2, bottom), bar_width / 2, 0.09 / total_height, edgecolor=INK,
                      facecolor=INK if k == 0 else "white", linewidth=0.8, transform=figure.transFigure)
        )  # fmt: skip
    figure.text(left + bar_width + 0.1 / total_width, bottom + 0.045 / total_height, f"{bar:g} m", fontsize=12,
                color=INK, va="center")  # fmt: skip
    save_figure(figure, path, format="png", bbox_inches="tight", pad_inches=side)  # a long title or legend fits
