"""Pictures of a map: single views, the preview of a run with its legend, the camera's path drawn in.

Everything is drawn in software (see semslam.rendering.splatting): pictures are the same with and without a display.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.cloud import CloudInParts, SurfelCloud
from semslam.files.writing import check_suffix, replacing
from semslam.labels import LabelSet
from semslam.rendering.coloring import COLORINGS, INK
from semslam.rendering.legend import legend_entries_in_parts
from semslam.rendering.splatting import lit, painted, render, rendered_parts
from semslam.rendering.viewpoint import overview, up_direction

BACKGROUND = (228, 232, 238)  # white walls and white paper must both stand out against it
SAMPLE = 300_000  # surfels of a map in parts by which the view is chosen
PATH_COLOR = (214, 40, 40)
DIM, BRIGHT, MOST_GAIN = 90.0, 170.0, 8.0  # grey levels of a map's bright tenth: raised if below, to what, how far
PICTURE_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".pdf": "pdf", ".svg": "svg"}


def picture_camera(width: int = 960, height: int = 720) -> Camera:
    """A pinhole camera for drawing, its horizontal field of view 50 degrees."""
    focal = width / 2 / np.tan(np.radians(25))
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def picture(
    cloud: SurfelCloud,
    camera: Camera,
    T_world_camera: np.ndarray,
    colors: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """The map from one pose, once in each of the colours (N, 3) uint8: (H, W, 3) uint8 each.

    Drawn at twice the size and averaged down, so that edges are smooth in print. Surfaces are not seen from behind.
    """
    import cv2

    fine = camera.resized(2 * camera.width, 2 * camera.height)
    rendering = render(cloud, fine, T_world_camera)
    return [
        cv2.resize(painted(rendering, c, BACKGROUND), (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        for c in colors
    ]


def picture_in_parts(
    clouds: CloudInParts,
    camera: Camera,
    T_world_camera: np.ndarray,
    colors_of: Callable[[SurfelCloud], list[np.ndarray]],
) -> list[np.ndarray]:
    """`picture` of a map in parts, of which each pixel shows the nearest, without specks; colors_of: of a part."""
    import cv2

    fine = camera.resized(2 * camera.width, 2 * camera.height)
    images: list[np.ndarray] = []
    for part, rendering, nearer in rendered_parts(map(without_specks, clouds), fine, T_world_camera):
        colors = colors_of(part)
        images = images or [np.full((*fine.shape, 3), BACKGROUND, np.uint8) for _ in colors]
        for image, c in zip(images, colors):
            image[nearer] = c[rendering.index[nearer]]
    size = (camera.width, camera.height)
    return [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]


def without_specks(cloud: SurfelCloud) -> SurfelCloud:
    """The cloud as pictures draw it: surfels without a class amid ones that have one take their nearest one's class.

    A network labels every tenth frame, so that surfels which only the frames between have seen are grey specks on
    surfaces whose class is known. A surfel counts as such a speck where at least a third of its twelve nearest
    neighbours have a class; wider grey areas stay grey. For the eye only: files and figures keep what the map says.
    """
    from scipy.spatial import cKDTree

    probabilities, neighbours = cloud.class_probabilities, 12
    if probabilities is None or len(cloud) <= neighbours:
        return cloud
    known = probabilities.max(axis=1, initial=0) > 0
    blank = np.flatnonzero(~known)
    if len(blank) == 0 or not known.any():
        return cloud
    _, nearest = cKDTree(cloud.positions, balanced_tree=False).query(
        cloud.positions[blank], k=list(range(2, neighbours + 2)), workers=-1
    )
    labelled = known[nearest]
    specks = labelled.sum(axis=1) >= neighbours / 3
    chosen = nearest[np.arange(len(blank)), labelled.argmax(axis=1)]  # the first is the nearest
    filled = probabilities.copy()
    filled[blank[specks]] = probabilities[chosen[specks]]
    return replace(cloud, class_probabilities=filled)


def shown_colors(cloud: SurfelCloud, label_set: LabelSet, coloring: str, T_world_camera: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 colours by a name of COLORINGS, as they are shown from a pose."""
    if coloring not in COLORINGS:
        raise ValueError(f"there is no coloring {coloring!r}; there are {', '.join(COLORINGS)}")
    return lit_if_flat(COLORINGS[coloring](cloud, label_set), coloring, cloud, T_world_camera)


def lit_if_flat(colors: np.ndarray, coloring: str, cloud: SurfelCloud, T_world_camera: np.ndarray) -> np.ndarray:
    """The colours (N, 3) of a coloring; those of classes are lit, so that flat areas show their shape."""
    return lit(colors, cloud, T_world_camera) if coloring == "label" else colors


def draw_path(image: np.ndarray, camera: Camera, T_world_view: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
    """The picture with the path of a trajectory (N, 4, 4) drawn over it, from a ring to a dot."""
    import cv2

    from semslam import poses

    image = np.ascontiguousarray(image).copy()
    if len(trajectory) == 0:
        return image
    T = poses.inverse(T_world_view)
    points = poses.transform(T, np.asarray(trajectory)[:, :3, 3])
    pixels = np.zeros((len(points), 2), np.int64)
    in_front = points[:, 2] > 0.05
    pixels[in_front] = np.round(np.clip(camera.project(points[in_front]), -30000, 30000) * 16)  # 1/16 pixel
    kept = [0]  # segments shorter than the line is wide would string it like beads
    for i in range(1, len(pixels)):
        if i == len(pixels) - 1 or np.linalg.norm(pixels[i] - pixels[kept[-1]]) > 16 * camera.width / 200:
            kept.append(i)
    pixels, in_front = pixels[kept], in_front[kept]
    thickness = max(1, round(camera.width / 480))
    for width, stroke in ((thickness + 2, (255, 255, 255)), (thickness, PATH_COLOR)):
        for a, b, visible in zip(pixels[:-1], pixels[1:], in_front[:-1] & in_front[1:], strict=True):
            if visible:
                cv2.line(image, a.tolist(), b.tolist(), stroke, width, cv2.LINE_AA, shift=4)
        below = stroke != PATH_COLOR  # white, a little larger
        for end, filled in ((0, False), (-1, True)):
            if in_front[end]:
                center, radius = pixels[end].tolist(), (2 * thickness + 1) * 16 + 32 * below
                line = cv2.FILLED if filled or below else width
                cv2.circle(image, center, radius, stroke, line, cv2.LINE_AA, shift=4)
    return image


def draw_paths(image: np.ndarray, camera: Camera, T_world_view: np.ndarray, paths: Iterable[np.ndarray]) -> np.ndarray:
    """`draw_path` of every path: one ends where the camera was lost."""
    for path in paths:
        image = draw_path(image, camera, T_world_view, path)
    return image


def encodable(text: str) -> str:
    """A text as UTF-8 files can hold it: bytes of a file's name that are no UTF-8 become question marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def printable(text: str) -> str:
    """The same in one line, as a title."""
    return encodable(" ".join(text.split()))


def picture_format(path: str | Path) -> str:
    """What matplotlib calls the format of a picture's suffix; ValueError names the known ones."""
    return PICTURE_FORMATS[check_suffix(path, "pictures", PICTURE_FORMATS)]


def save_figure(figure: Any, path: str | Path, **options: Any) -> None:
    """Write a figure of matplotlib's, whole or not at all. Letters that its font lacks are boxes, and no warning."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, **options)


def write_figure(
    path: str | Path,
    images: Sequence[np.ndarray],
    *,
    title: str = "",
    note: str = "",
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> None:
    """Write pictures of one size side by side: title above on the left, note on the right, legend below.

    The format is the suffix of the path, one of PICTURE_FORMATS.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    form = picture_format(path)
    # sizes in inches at 100 dots per inch: a picture's pixel is the figure's pixel
    height, width = images[0].shape[0] / 100, images[0].shape[1] / 100
    margin, gap, head = 0.25, 0.12, 0.55
    total_width = 2 * margin + len(images) * width + (len(images) - 1) * gap
    per_row = max(1, int((total_width - 2 * margin) // 2.2))
    rows = -(-len(legend) // per_row)
    foot = margin + 0.3 * rows + (0.1 if rows else 0)
    total_height = head + height + foot
    figure = Figure(figsize=(total_width, total_height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    for k, image in enumerate(images):
        figure.figimage(image, round(100 * (margin + k * (width + gap))), round(100 * foot))
    line = 1 - 0.5 * head / total_height
    fitting = int((total_width - 2 * margin - 0.085 * len(note)) / 0.13)  # letters of the title that leave room
    title = title if len(title) <= fitting else "..." + title[3 - fitting :]
    figure.text(margin / total_width, line, printable(title), fontsize=15, color=INK, va="center", weight="bold",
                parse_math=False)  # fmt: skip
    figure.text(1 - margin / total_width, line, note, fontsize=13, color=INK, va="center", ha="right")
    if legend:
        figure.legend(
            handles=[
                Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor=INK, linewidth=0.4, label=text)
                for text, color in legend
            ],
            loc="center",
            bbox_to_anchor=(0.5, 0.5 * foot / total_height),
            ncols=min(per_row, len(legend)),
            frameon=False,
            fontsize=13,
            labelcolor=INK,
            handlelength=1.1,
            handleheight=1.1,
            columnspacing=1.6,
        )
    # the usual compression takes twice as long for a tenth less
    quick = {"pil_kwargs": {"compress_level": 3}} if form == "png" else {}
    save_figure(figure, path, format=form, **quick)


def preview(
    path: str | Path,
    cloud: SurfelCloud,
    label_set: LabelSet,
    *,
    title: str = "",
    paths: Sequence[np.ndarray] = (),
) -> None:
    """Write a PNG: the map in its colours and, if it has classes, in its labels side by side with a legend; a title.

    `paths`, each (N, 4, 4) T_world_camera, are drawn in and help to find up: a path ends where the camera was lost.
    Specks without a class are drawn like their neighbours (see `without_specks`); the legend counts what the map says.
    """
    preview_in_parts(path, CloudInParts.of(cloud), label_set, title=title, paths=paths)


def preview_in_parts(
    path: str | Path,
    clouds: CloudInParts,
    label_set: LabelSet,
    *,
    title: str = "",
    paths: Sequence[np.ndarray] = (),
) -> None:
    """`preview` of a map in parts: the view is chosen by some of its surfels, and drawn part by part.

    The colours of a dim recording are brightened, which the picture says.
    """
    camera = picture_camera()
    sample = clouds.sample(SAMPLE)
    with_classes = sample.class_probabilities is not None
    panels = ("color", "label") if with_classes else ("color",)
    gain = gain_of(sample.colors)
    if len(clouds):
        trajectory = np.concatenate(paths) if paths else None
        up = up_direction(sample, label_set, trajectory)
        T_world_view = overview(sample, camera, up, trajectory=trajectory)

        def colors_of(part: SurfelCloud) -> list[np.ndarray]:
            shown = brightened(part, gain)
            return [shown_colors(shown, label_set, name, T_world_view) for name in panels]

        images = picture_in_parts(clouds, camera, T_world_view, colors_of)
        images = [draw_paths(image, camera, T_world_view, paths) for image in images]
    else:
        images = [np.full((camera.height, camera.width, 3), BACKGROUND, np.uint8)] * len(panels)
    note = f"{len(clouds):,} surfels" + f", colours brightened {gain:.1f} times" * (gain > 1)
    legend = []
    if with_classes:
        legend = legend_entries_in_parts(clouds, label_set)
    write_figure(path, images, title=title, note=note, legend=legend)


def gain_of(colors: np.ndarray) -> float:
    """By how much the colours (N, 3) uint8 of a dim map are multiplied to be seen; 1 where they are bright enough."""
    bright = float(np.percentile(colors.mean(axis=1), 90)) if len(colors) else BRIGHT
    return 1.0 if bright >= DIM else min(BRIGHT / max(bright, 1.0), MOST_GAIN)


def brightened(cloud: SurfelCloud, gain: float) -> SurfelCloud:
    """The cloud with its colours times a gain, for pictures of it."""
    if gain == 1:
        return cloud
    return replace(cloud, colors=np.clip(cloud.colors * gain + 0.5, 0, 255).astype(np.uint8))
