"""A map as one web page that turns in a browser, without a network: plotly's viewer with its script packed in."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np

from semslam.atomic import replacing
from semslam.looking.viewed import Viewed, shown_range
from semslam.rendering.coloring import COLORINGS
from semslam.rendering.pictures import PATH_COLOR, class_color, class_name, classes_present, encodable, picture_camera
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
    return [[k / (PALETTE - 1), "rgb({},{},{})".format(*map(int, c))] for k, c in enumerate(palette)]


def shown_first(class_name: str) -> bool | str:
    """Whether a class is seen when the page opens, as plotly says it: the ceiling would hide the room."""
    return "legendonly" if class_name == "ceiling" else True


def write_html(
    path: str | Path,
    viewed: Viewed,
    *,
    points: int = POINTS,
) -> None:
    """Write a standalone page: drag to turn, scroll to zoom, click a class in the legend to hide or show it.

    Maps of more than `points` surfels are thinned to as many, chosen at random, always the same; the page says so.
    The ceiling starts hidden, so that a room is open from above.
    """
    import plotly.graph_objects as go

    if len(viewed.cloud) == 0:
        raise ValueError(f"{path}: there is nothing to show: the map is empty")
    label_set, trajectory = viewed.label_set, viewed.trajectory
    up = up_direction(viewed.cloud, label_set, trajectory)
    axes = level_axes(up)  # the page's turntable wants z upwards
    cloud = thinned(viewed.cloud, points)
    middle = np.median(cloud.positions, axis=0)
    places = ((cloud.positions - middle) @ axes.T).astype(np.float32).round(4)
    labels = cloud.labels()
    members = [(i, np.flatnonzero(labels == i)) for i, _ in classes_present(cloud, label_set)]
    count = len(members)

    buttons = []
    for name in SWITCHES:
        if name == "label":
            colors: list[Any] = ["rgb({},{},{})".format(*class_color(label_set, i)) for i, _ in members]
            restyle = {"marker.color": colors, "marker.colorscale": [None] * count}
        else:
            index, palette = quantized(COLORINGS[name](cloud, label_set))
            restyle = {
                "marker.color": [index[rows].tolist() for _, rows in members],
                "marker.colorscale": [_colorscale(palette)] * count,
            }
        note = shown_range(name)
        buttons.append(
            {
                "label": name.replace("_", " "),
                "method": "update",
                "args": [restyle, {"annotations[0].text": note}, list(range(count))],
            }
        )

    traces: list[Any] = []
    for i, rows in members:
        x, y, z = places[rows].T
        name = class_name(label_set, i)
        color = "rgb({},{},{})".format(*class_color(label_set, i))
        traces.append(
            go.Scatter3d(
                x=x,
                y=y,
                z=z,
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=False,
                visible=shown_first(name),
                marker={"size": 1.8, "color": color, "cmin": 0, "cmax": PALETTE - 1, "opacity": 1},
                hovertemplate=f"{html.escape(name)}<br>%{{x:.2f}}, %{{y:.2f}}, %{{z:.2f}} m<extra></extra>",
            )
        )
    for i, _ in members:  # the legend keeps the classes' colours, whatever the surfels' stand for
        name = class_name(label_set, i)
        marker = {"size": 8, "color": "rgb({},{},{})".format(*class_color(label_set, i))}
        point = {"x": [None], "y": [None], "z": [None]}
        traces.append(
            go.Scatter3d(**point, mode="markers", name=name, legendgroup=name, marker=marker, visible=shown_first(name))
        )
    if trajectory is not None and len(trajectory) > 1:
        gap = np.full((1, 3), np.nan)  # plotly breaks the line there
        broken = np.concatenate([row for path in viewed.paths for row in (path[:, :3, 3], gap)])[:-1]
        x, y, z = ((broken - middle) @ axes.T).T
        color = "rgb({},{},{})".format(*PATH_COLOR)
        traces.append(
            go.Scatter3d(
                x=x, y=y, z=z, mode="lines", name="camera path", line={"color": color, "width": 4}, hoverinfo="skip"
            )
        )

    # plotly counts the camera's place in units of the scene's size, from its middle
    view_pose = overview(cloud, picture_camera(640, 480), up, trajectory=trajectory)
    towards = axes @ (view_pose[:3, 3] - middle)
    eye = 1.25 * towards / np.linalg.norm(towards)
    shown = f"{len(viewed.cloud):,} surfels"
    if len(cloud) < len(viewed.cloud):
        shown += f", {len(cloud):,} of them shown"
    title = viewed.name or "semslam"
    axis = {"visible": False, "showspikes": False}
    figure = go.Figure(
        traces,
        layout={
            "title": {"text": f"<b>{html.escape(title)}</b>   <span style='font-size:14px'>{shown}</span>", "x": 0.01},
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
                "camera": {"eye": dict(zip("xyz", eye.tolist())), "up": {"x": 0, "y": 0, "z": 1}},
            },
            "legend": {"itemsizing": "constant", "bgcolor": "rgba(255,255,255,0.85)", "x": 0.99, "xanchor": "right"},
            "updatemenus": [
                {
                    "type": "buttons",
                    "direction": "right",
                    "buttons": buttons,
                    "x": 0.01,
                    "xanchor": "left",
                    "y": 0.99,
                    "yanchor": "top",
                    "showactive": True,
                }
            ],
            "annotations": [
                {
                    "text": "",
                    "showarrow": False,
                    "xref": "paper",
                    "yref": "paper",
                    "x": 0.01,
                    "y": 0.01,
                    "align": "left",
                }
            ],
        },
    )
    page = figure.to_html(
        include_plotlyjs=True, full_html=True, config={"displaylogo": False, "responsive": True}, div_id="map"
    )
    whole_window = "<style>html, body, body > div {height: 100%; margin: 0; overflow: hidden}</style>"
    page = page.replace("<head>", f"<head><title>{html.escape(title)}</title>{whole_window}", 1)
    with replacing(path) as temporary:
        temporary.write_text(encodable(page), encoding="utf-8")
