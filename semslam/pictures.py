"""Pictures of a map: single views, the preview of a run with its legend, the camera's path drawn in.

Everything is drawn in software (see semslam.splatting), so pictures come out the same with and without a display.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semslam.atomic import replacing
from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.coloring import COLORINGS, UNLABELLED_COLOR, Coloring, label
from semslam.frame import UNLABELLED
from semslam.labels import LabelSet
from semslam.splatting import lit, painted, render
from semslam.viewpoint import overview, up_direction

BACKGROUND = (228, 232, 238)  # white walls and white paper must both stand out against it
PATH_COLOR = (214, 40, 40)
INK = "#222222"


def picture_camera(width: int = 960, height: int = 720, field_of_view: float = np.radians(50)) -> Camera:
    """A pinhole camera for drawing, its horizontal field of view in radians."""
    focal = width / 2 / np.tan(field_of_view / 2)
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def picture(
    cloud: SurfelCloud,
    label_set: LabelSet,
    camera: Camera,
    T_world_camera: np.ndarray,
    colorings: Sequence[Coloring],
    *,
    cull_back: bool = True,
    background: tuple[int, int, int] = BACKGROUND,
) -> list[np.ndarray]:
    """The map from one pose, once for every coloring: (H, W, 3) uint8 each.

    Drawn at twice the size and averaged down, so that edges are smooth in print. Colours that stand for something
    are lit, recorded ones are left as the camera saw them. `cull_back` False shows surfaces from behind as well.
    """
    import cv2

    fine = camera.resized(2 * camera.width, 2 * camera.height)
    rendering = render(cloud, fine, T_world_camera, cull_back=cull_back)
    images = []
    for coloring in colorings:
        colors = coloring(cloud, label_set)
        if coloring is label:
            colors = lit(colors, cloud, T_world_camera)
        image = painted(rendering, colors, background)
        images.append(cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA))
    return images


def draw_path(
    image: np.ndarray,
    camera: Camera,
    T_world_view: np.ndarray,
    trajectory: np.ndarray,
    color: tuple[int, int, int] = PATH_COLOR,
) -> np.ndarray:
    """The picture with the path of a trajectory (N, 4, 4) drawn over it, from a ring to a dot."""
    import cv2

    from semslam import poses

    image = np.ascontiguousarray(image).copy()
    if len(trajectory) == 0:
        return image
    T = poses.inverse(T_world_view)
    points = np.asarray(trajectory)[:, :3, 3] @ T[:3, :3].T + T[:3, 3]
    pixels = np.zeros((len(points), 2), np.int64)
    in_front = points[:, 2] > 0.05
    pixels[in_front] = np.round(np.clip(camera.project(points[in_front]), -30000, 30000) * 16)  # 1/16 pixel
    thickness = max(1, round(camera.width / 480))
    for width, stroke in ((thickness + 2, (255, 255, 255)), (thickness, color)):
        for a, b, visible in zip(pixels[:-1], pixels[1:], in_front[:-1] & in_front[1:], strict=True):
            if visible:
                cv2.line(image, a.tolist(), b.tolist(), stroke, width, cv2.LINE_AA, shift=4)
        for end, filled in ((0, False), (-1, True)):
            if in_front[end]:
                radius = (2 * thickness + 1) * 16
                line = cv2.FILLED if filled and stroke == color else width
                cv2.circle(image, pixels[end].tolist(), radius, stroke, line, cv2.LINE_AA, shift=4)
    return image


def classes_present(cloud: SurfelCloud, label_set: LabelSet, threshold: float = 0.0) -> list[tuple[int, float]]:
    """(class id, share of the map's surface in 0..1), largest first; id 255 is what was never labelled.

    The share is by the area of the disks: surfels seen from near are small and many.
    """
    labels = cloud.labels()
    area = np.bincount(labels, weights=cloud.radii.astype(np.float64) ** 2, minlength=UNLABELLED + 1)
    share = area / max(float(area.sum()), 1e-12)
    order = [i for i in np.argsort(-share, kind="stable") if share[i] > threshold]
    return [(int(i), float(share[i])) for i in order if i < len(label_set) or i == UNLABELLED]


def class_name(label_set: LabelSet, class_id: int) -> str:
    """The name of a class as a legend prints it."""
    return "unlabelled" if class_id == UNLABELLED else label_set.classes[class_id]


def class_color(label_set: LabelSet, class_id: int) -> tuple[int, int, int]:
    """The RGB colour of a class in pictures."""
    if class_id == UNLABELLED:
        return UNLABELLED_COLOR
    red, green, blue = (int(c) for c in label_set.colors[class_id])
    return red, green, blue


def preview(
    path: str | Path,
    cloud: SurfelCloud,
    label_set: LabelSet,
    *,
    title: str = "",
    trajectory: np.ndarray | None = None,
    views: Sequence[str] = ("color", "label"),
) -> None:
    """Write a PNG: the map in its colours and in its labels side by side, a legend of the classes present, a title.

    `trajectory` (N, 4, 4), T_world_camera, is drawn in and helps to find up. `views` names COLORINGS.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    camera = picture_camera()
    if len(cloud):
        up = up_direction(cloud, label_set, trajectory)
        T_world_view = overview(cloud, camera, up, trajectory=trajectory)
        images = picture(cloud, label_set, camera, T_world_view, [COLORINGS[name] for name in views])
        if trajectory is not None:
            images = [draw_path(image, camera, T_world_view, trajectory) for image in images]
    else:
        images = [np.full((camera.height, camera.width, 3), BACKGROUND, np.uint8) for _ in views]

    # sizes in inches at 100 dots an inch: a picture's pixel is the figure's pixel
    margin, gap, head, per_row = 0.25, 0.12, 0.55, 8
    entries = [
        Patch(
            facecolor="#{:02x}{:02x}{:02x}".format(*class_color(label_set, i)),
            edgecolor=INK,
            linewidth=0.4,
            label=f"{class_name(label_set, i)}  {100 * share:.1f} %" if share >= 0.0005 else class_name(label_set, i),
        )
        for i, share in classes_present(cloud, label_set)
    ]
    rows = max(1, -(-len(entries) // per_row))
    foot = 0.3 + 0.3 * rows
    width, height = camera.width / 100, camera.height / 100
    total_width = 2 * margin + len(images) * width + (len(images) - 1) * gap
    total_height = head + height + foot
    figure = Figure(figsize=(total_width, total_height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    for k, image in enumerate(images):
        left = (margin + k * (width + gap)) / total_width
        axes = figure.add_axes((left, foot / total_height, width / total_width, height / total_height))
        axes.imshow(image, interpolation="none", aspect="auto")
        axes.set_axis_off()
    figure.text(
        margin / total_width, 1 - 0.5 * head / total_height, title, fontsize=15, color=INK, va="center", weight="bold"
    )
    count = f"{len(cloud):,} surfels"
    figure.text(
        1 - margin / total_width, 1 - 0.5 * head / total_height, count, fontsize=13, color=INK, va="center", ha="right"
    )
    if entries:
        figure.legend(
            handles=entries,
            loc="center",
            bbox_to_anchor=(0.5, 0.5 * foot / total_height),
            ncols=min(per_row, len(entries)),
            frameon=False,
            fontsize=13,
            labelcolor=INK,
            handlelength=1.1,
            handleheight=1.1,
            columnspacing=1.6,
        )
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB picture (H, W, 3) uint8; the format is the suffix of the path (.png, .jpg)."""
    import cv2

    path = Path(path)
    ok, encoded = cv2.imencode(path.suffix, image[..., ::-1])
    if not ok:
        raise ValueError(f"{path}: pictures are written as .png or .jpg, not as {path.suffix!r}")
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
