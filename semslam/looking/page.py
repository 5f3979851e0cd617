"""A map as one web page that turns in a browser, without a network: plotly's viewer with its script packed in."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semslam.cloud import SurfelCloud
from semslam.files.writing import replacing
from semslam.looking.viewed import Viewed, shown_range
from semslam.rendering.coloring import COLORINGS
from semslam.rendering.legend import class_color, class_name, classes_present
from semslam.rendering.pictures import PATH_COLOR, encodable, picture_camera
from semslam.rendering.viewpoint import level_axes, overview, thinned, up_direction

POINTS = 100_000  # what a browser still turns without a graphics card
SWITCHES = ("label", "color", "confidence", "entropy", "normal", "first_seen")
PALETTE = 256


def quantized(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) uint8 as indices (N,) uint8 into at most 256 colours (K, 3) uint8 that come near to them."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(colors[None], np.uint8))
    indexed = image.quantize(PALETTE, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = np.array(indexed.getpalette(), np.uint8).reshape(-1, 3)
    index = np.asarray(indexed)[0]
    return index, palette[: int(index.max(initial=0)) + 1]


def _colorscale(palette: np.ndarray) -> list[list[Any]]:
    """A plotly colour scale on which the value k in 0..255 is exactly colour k."""
    palette = palette[np.minimum(np.arange(PALETTE), len(palette) - 1)]
    return [[k / (PALETTE - 1), _css(c)] for k, c in enumerate(palette)]


def _css(color: Any) -> str:
    """A colour (3,) uint8 as a page names it."""
    return "rgb({},{},{})".format(*map(int, color))


def shown_first(class_name: str) -> bool | str:
    """Whether a class is seen when the page opens, as plotly says it: the ceiling would hide the room."""
    return "legendonly" if class_name == "ceiling" else True


@dataclass(frozen=True, eq=False)
class _Scene:
    """What a page shows, in its own axes: z upwards, for the turntable, and the origin in the map's middle."""

    viewed: Viewed
    cloud: SurfelCloud  # the surfels that are shown

    @cached_property
    def up(self) -> np.ndarray:
        return up_direction(self.viewed.cloud, self.viewed.label_set, self.viewed.trajectory)

    @cached_property
    def axes(self) -> np.ndarray:
        return level_axes(self.up)

    @cached_property
    def middle(self) -> np.ndarray:
        return np.median(self.cloud.positions, axis=0)

    @cached_property
    def members(self) -> list[tuple[int, np.ndarray]]:
        """The classes that are present, each with its surfels."""
        labels = self.cloud.labels()
        return [(i, np.flatnonzero(labels == i)) for i, _ in classes_present(self.cloud, self.viewed.label_set)]

    def placed(self, positions: np.ndarray) -> np.ndarray:
        """World positions (N, 3) in the page's axes."""
        return (positions - self.middle) @ self.axes.T

    def color_of(self, label: int) -> str:
        return _css(class_color(self.viewed.label_set, label))

    def eye(self) -> np.ndarray:
        """(3,) the camera's place as plotly counts it: in units of the scene's size, from its middle."""
        view_pose = overview(self.cloud, picture_camera(640, 480), self.up, trajectory=self.viewed.trajectory)
        towards = self.axes @ (view_pose[:3, 3] - self.middle)
        return 1.25 * towards / np.linalg.norm(towards)


def write_html(path: str | Path, viewed: Viewed, *, points: int = POINTS) -> None:
    """Write a standalone page: drag to turn, scroll to zoom, click a class in the legend to hide or show it.

    Maps of more than `points` surfels are thinned to as many, chosen at random, always the same; the page says so.
    The ceiling starts hidden, so that a room is open from above.
    """
    import plotly.graph_objects as go

    if len(viewed.cloud) == 0:
        raise ValueError(f"{path}: there is nothing to show: the map is empty")
    scene = _Scene(viewed, thinned(viewed.cloud, points))
    traces = [go.Scatter3d(**trace) for trace in (*_surfels(scene), *_legend(scene), *_paths(scene))]
    page = go.Figure(traces, layout=_layout(scene)).to_html(
        include_plotlyjs=True, full_html=True, config={"displaylogo": False, "responsive": True}, div_id="map"
    )
    whole_window = "<style>html, body, body > div {height: 100%; margin: 0; overflow: hidden}</style>"
    page = page.replace("<head>", f"<head><title>{html.escape(_title(viewed))}</title>{whole_window}", 1)
    with replacing(path) as temporary:
        temporary.write_text(encodable(page), encoding="utf-8")


def _title(viewed: Viewed) -> str:
    return viewed.name or "semslam"


def _surfels(scene: _Scene) -> Iterator[dict[str, Any]]:
    """A cloud of points for each class."""
    places = scene.placed(scene.cloud.positions).astype(np.float32).round(4)
    for i, rows in scene.members:
        x, y, z = places[rows].T
        world = (scene.cloud.positions[rows] + scene.cloud.world_origin).round(3)  # which the page's axes do not tell
        name = class_name(scene.viewed.label_set, i)
        yield {
            "x": x,
            "y": y,
            "z": z,
            "mode": "markers",
            "name": name,
            "legendgroup": name,
            "showlegend": False,
            "visible": shown_first(name),
            "marker": {"size": 1.8, "color": scene.color_of(i), "cmin": 0, "cmax": PALETTE - 1, "opacity": 1},
            "hovertemplate": f"{html.escape(name)}<br>%{{customdata[0]:.2f}}, %{{customdata[1]:.2f}}, "
            "%{customdata[2]:.2f} m<extra></extra>",
            "customdata": world if scene.cloud.world_origin.any() else world.astype(np.float32),
        }


def _legend(scene: _Scene) -> Iterator[dict[str, Any]]:
    """A point without a place for each class: the legend keeps its colour, whatever the surfels' stand for."""
    for i, _ in scene.members:
        name = class_name(scene.viewed.label_set, i)
        marker = {"size": 8, "color": scene.color_of(i)}
        place = {"x": [None], "y": [None], "z": [None]}
        yield place | {
            "mode": "markers",
            "name": name,
            "legendgroup": name,
            "marker": marker,
            "visible": shown_first(name),
        }


def _paths(scene: _Scene) -> Iterator[dict[str, Any]]:
    """The ways of the cameras, as one broken line."""
    trajectory = scene.viewed.trajectory
    if trajectory is None or len(trajectory) < 2:
        return
    gap = np.full((1, 3), np.nan)  # plotly breaks the line there
    broken = np.concatenate([row for path in scene.viewed.paths for row in (path[:, :3, 3], gap)])[:-1]
    x, y, z = scene.placed(broken).T
    line = {"color": _css(PATH_COLOR), "width": 4}
    yield {"x": x, "y": y, "z": z, "mode": "lines", "name": "camera path", "line": line, "hoverinfo": "skip"}


def _buttons(scene: _Scene) -> Iterator[dict[str, Any]]:
    """What switches the surfels' colours: to those of their classes, of the images, and so on."""
    count = len(scene.members)
    for name in SWITCHES:
        if name == "label":
            colors: list[Any] = [scene.color_of(i) for i, _ in scene.members]
            restyle = {"marker.color": colors, "marker.colorscale": [None] * count}
        else:
            index, palette = quantized(COLORINGS[name](scene.cloud, scene.viewed.label_set))
            restyle = {
                "marker.color": [index[rows].tolist() for _, rows in scene.members],
                "marker.colorscale": [_colorscale(palette)] * count,
            }
        yield {
            "label": name.replace("_", " "),
            "method": "update",
            "args": [restyle, {"annotations[0].text": shown_range(name)}, list(range(count))],
        }


def _layout(scene: _Scene) -> dict[str, Any]:
    """The page around the scene: title, camera, buttons, and the note of what the colours mean."""
    shown = f"{len(scene.viewed.cloud):,} surfels"
    if len(scene.cloud) < len(scene.viewed.cloud):
        shown += f", {len(scene.cloud):,} of them shown"
    axis = {"visible": False, "showspikes": False}
    title = f"<b>{html.escape(_title(scene.viewed))}</b>   <span style='font-size:14px'>{shown}</span>"
    at_top = {"x": 0.01, "xanchor": "left", "y": 0.99, "yanchor": "top"}
    at_bottom = {"xref": "paper", "yref": "paper", "x": 0.01, "y": 0.01, "align": "left"}
    buttons = list(_buttons(scene))
    return {
        "title": {"text": title, "x": 0.01},
        "font": {"family": "DejaVu Sans, Helvetica, Arial, sans-serif", "color": "#222222"},
        "paper_bgcolor": "white",
        "margin": {"l": 0, "r": 0, "t": 50, "b": 0},
        "scene": {
            "xaxis": axis,
            "yaxis": axis,
            "zaxis": axis,
            "aspectmode": "data",
            "dragmode": "turntable",
            "bgcolor": "rgb(228,232,238)",
            "camera": {"eye": dict(zip("xyz", scene.eye().tolist())), "up": {"x": 0, "y": 0, "z": 1}},
        },
        "legend": {"itemsizing": "constant", "bgcolor": "rgba(255,255,255,0.85)", "x": 0.99, "xanchor": "right"},
        "updatemenus": [{"type": "buttons", "direction": "right", "buttons": buttons, **at_top, "showactive": True}],
        "annotations": [{"text": "", "showarrow": False, **at_bottom}],
    }
