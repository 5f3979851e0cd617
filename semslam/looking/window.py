"""A window to turn a map in, with Open3D's legacy visualizer: it needs OpenGL only, and draws off-screen over EGL.

What the keys do is in KEYS; the caller prints `key_help()` and what `MapWindow` reports.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.frame import UNLABELLED
from semslam.looking.shapes import frustum_shapes, path_shapes, surfel_shapes
from semslam.looking.viewed import Viewed, description, shown_range
from semslam.rendering.coloring import COLORINGS
from semslam.rendering.legend import class_name, classes_present, legend_image
from semslam.rendering.pictures import BACKGROUND, picture_camera, printable
from semslam.rendering.splatting import render
from semslam.rendering.viewpoint import overview, pyramid_depth, up_direction

logger = logging.getLogger(__name__)


def has_display() -> bool:
    """Whether a window would be seen: without a display Open3D draws off-screen and nobody could close it."""
    return not sys.platform.startswith("linux") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))


@dataclass(frozen=True)
class Switches:
    """What a window shows of its map."""

    coloring: str = "color"  # a name of COLORINGS, or error
    hidden: frozenset[str] = frozenset()  # names of classes: another map beside this one may number them otherwise
    path: bool = True  # the camera's
    frusta: bool = False
    disks: bool = False  # surfels as disks whose backs are hidden, so that rooms open to the viewer; else as points


class MapWindow:
    """One window with one map; `poll` it until it returns False.

    RuntimeError where no window can be made: neither a display nor an EGL driver.
    """

    def __init__(
        self,
        viewed: Viewed,
        *,
        width: int = 1280,
        height: int = 960,
        visible: bool = True,
        report: Callable[[str], None] = logger.info,
    ) -> None:
        import open3d as o3d

        self.report = report
        self.viewed = viewed
        self.camera = picture_camera(width, height)
        self.switches = Switches()
        self.chosen = 0  # place in the legend
        self.open = True
        self._mouse = (width / 2, height / 2)
        # libwayland complains where it is not set, which is of no interest off-screen
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
        self._vis = o3d.visualization.VisualizerWithKeyCallback()
        with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
            created = self._vis.create_window(printable(viewed.name) or "semslam", width, height, visible=visible)
        if not created:
            raise RuntimeError("Open3D found neither a display nor an EGL driver (Debian: apt-get install libegl1)")
        self._legend: Any = None
        options = self._vis.get_render_option()
        options.background_color = np.array(BACKGROUND) / 255
        options.point_size = 3.0
        options.mesh_show_back_face = False
        options.light_on = False  # colours stand for something
        for key in KEYS:
            self._vis.register_key_callback(ord(key), lambda _vis, key=key: self.press(key))
        self._vis.register_mouse_move_callback(self._mouse_moved)
        self._shapes: list[Any] = []
        self._colors = viewed.colored(self.switches.coloring)
        self._redraw()
        self.look_from_outside()

    # what is shown

    def press(self, key: str) -> bool:
        """Do what a key of KEYS does; True, which tells the visualizer to draw again."""
        KEYS[key][0](self)
        return True

    def switch(self, switches: Switches) -> None:
        """Show the map in another way."""
        if switches != self.switches:
            self.switches = switches
            self._colors = self.viewed.colored(switches.coloring)
            self._redraw()

    def show(self, coloring: str) -> None:
        """Colour the map by a name of COLORINGS, or error."""
        if coloring == "error" and self.viewed.errors is None:
            self.report("error: this map was not compared with a reference")
            return
        self.switch(replace(self.switches, coloring=coloring))
        self.report(": ".join(filter(None, (coloring.replace("_", " "), shown_range(coloring)))))

    def paint(self, colors: np.ndarray) -> None:
        """Give the surfels other colours, (N, 3) uint8, until the next switch."""
        self._colors = colors
        self._redraw()

    def update(self, viewed: Viewed) -> None:
        """Show a newer state of the map from where the user stands, while a run goes on."""
        first = len(self.viewed.cloud) == 0
        self.viewed = viewed
        self.paint(viewed.colored(self.switches.coloring))
        if first:
            self.look_from_outside()

    # the legend

    def classes(self) -> list[int]:
        """Class ids in the legend's order."""
        return [i for i, _ in classes_present(self.viewed.cloud, self.viewed.label_set)]

    def choose(self, step: int) -> None:
        """Choose the class so many places further down the legend."""
        classes = self.classes()
        if classes:
            self.chosen = (self.chosen + step) % len(classes)
            name = class_name(self.viewed.label_set, classes[self.chosen])
            self.report(f"{name} ({'hidden' if name in self.switches.hidden else 'shown'})")
            self._redraw_legend()

    def toggle_class(self) -> None:
        """Hide the chosen class, or show it again."""
        classes = self.classes()
        if classes:
            chosen = class_name(self.viewed.label_set, classes[min(self.chosen, len(classes) - 1)])
            self.switch(replace(self.switches, hidden=self.switches.hidden ^ {chosen}))
            self.choose(0)

    def open_legend(self) -> None:
        """A second window with the classes' names and colours; the chosen one framed, hidden ones pale."""
        import open3d as o3d

        if self._legend is None:
            image = self._legend_picture()
            self._legend = o3d.visualization.Visualizer()
            self._legend.create_window("classes", image.shape[1], image.shape[0], 1300, 50)
            self._redraw_legend()

    # where from

    def look_from_outside(self) -> None:
        """The raised view from outside that shows most of the map."""
        viewed = self.viewed
        if len(viewed.cloud):
            up = up_direction(viewed.cloud, viewed.label_set, viewed.trajectory)
            self.look_from(overview(viewed.cloud, self.camera, up, trajectory=viewed.trajectory))

    def look_from(self, T_world_camera: np.ndarray) -> None:
        """Put the window's camera at a pose."""
        import open3d as o3d

        camera = self.camera
        parameters = o3d.camera.PinholeCameraParameters()
        parameters.intrinsic = o3d.camera.PinholeCameraIntrinsic(
            camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy
        )
        parameters.extrinsic = poses.inverse(T_world_camera)
        self._vis.get_view_control().convert_from_pinhole_camera_parameters(parameters, True)

    def pose(self) -> np.ndarray:
        """T_world_camera (4, 4) of the window's camera."""
        parameters = self._vis.get_view_control().convert_to_pinhole_camera_parameters()
        return poses.inverse(np.asarray(parameters.extrinsic))

    # what is there

    def visible_surfels(self) -> np.ndarray:
        """(N,) bool: surfels of classes that are not hidden."""
        return ~np.isin(self.viewed.cloud.labels(), self.viewed.ids_of(self.switches.hidden))

    def described(self, u: float, v: float) -> str:
        """One line on the surfel at a pixel of the window: class, probabilities, confidence, place."""
        viewed, shown = self.viewed, np.flatnonzero(self.visible_surfels())
        parameters = self._vis.get_view_control().convert_to_pinhole_camera_parameters()
        K = np.asarray(parameters.intrinsic.intrinsic_matrix)
        size = parameters.intrinsic.width, parameters.intrinsic.height
        camera = Camera(*size, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        seen = render(viewed.cloud.selected(shown), camera, self.pose(), cull_back=self.switches.disks).index
        column, row = int(np.clip(u, 0, size[0] - 1)), int(np.clip(v, 0, size[1] - 1))
        if seen[row, column] < 0:
            return "nothing there"
        return description(viewed, int(shown[seen[row, column]]))

    def pick(self) -> None:
        """Report the surfel under the mouse pointer."""
        self.report(self.described(*self._mouse))

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB of what the window shows."""
        pixels = self._vis.capture_screen_float_buffer(True)
        return np.clip(np.asarray(pixels) * 255 + 0.5, 0, 255).astype(np.uint8)

    # the loop

    def poll(self) -> bool:
        """Handle what the user did and draw; False when the window is closed."""
        self.open = bool(self._vis.poll_events()) and self.open
        self._vis.update_renderer()
        if self._legend is not None:
            self._legend.poll_events()
            self._legend.update_renderer()
        return self.open

    def quit(self) -> None:
        """Close at the next poll."""
        self.open = False

    def close(self) -> None:
        """Take the windows down."""
        self._vis.destroy_window()
        if self._legend is not None:
            self._legend.destroy_window()
            self._legend = None

    def _mouse_moved(self, _vis: Any, x: float, y: float) -> bool:
        self._mouse = (x, y)
        return False  # the visualizer turns the view as it would without us

    def _redraw(self) -> None:
        viewed, switches, visible = self.viewed, self.switches, self.visible_surfels()
        shapes = surfel_shapes(viewed.cloud.selected(visible), self._colors[visible], switches.disks)
        if switches.path:
            shapes += path_shapes(viewed.paths)
        if viewed.trajectory is not None and viewed.camera is not None and switches.frusta:
            shapes += frustum_shapes(viewed.camera, viewed.trajectory, pyramid_depth(viewed.cloud))
        for shape in self._shapes:
            self._vis.remove_geometry(shape, False)
        for shape in shapes:
            self._vis.add_geometry(shape, not self._shapes)
        self._shapes = shapes
        self._redraw_legend()

    def _legend_picture(self) -> np.ndarray:
        chosen = (self.classes() or [UNLABELLED])[min(self.chosen, max(len(self.classes()) - 1, 0))]
        hidden = self.viewed.ids_of(self.switches.hidden)
        return legend_image(self.viewed.cloud, self.viewed.label_set, hidden=hidden, chosen=chosen)

    def _redraw_legend(self) -> None:
        import open3d as o3d

        if self._legend is not None:
            self._legend.clear_geometries()
            self._legend.add_geometry(o3d.geometry.Image(np.ascontiguousarray(self._legend_picture())))


def _show(coloring: str, window: MapWindow) -> None:
    window.show(coloring)


# What each key does, and how it is described. The visualizer keeps H, L, N, S, W and others unless they are taken here.
KEYS: dict[str, tuple[Callable[[MapWindow], None], str]] = {
    **{
        str(k + 1): (partial(_show, name), f"show {name.replace('_', ' ')}")
        for k, name in enumerate([*COLORINGS, "error"])
    },
    "T": (
        lambda window: window.switch(replace(window.switches, path=not window.switches.path)),
        "camera path on and off",
    ),
    "F": (
        lambda window: window.switch(replace(window.switches, frusta=not window.switches.frusta)),
        "camera frusta on and off",
    ),
    "D": (
        lambda window: window.switch(replace(window.switches, disks=not window.switches.disks)),
        "surfels as disks with their backs hidden, or as points",
    ),
    ",": (lambda window: window.choose(-1), "choose the class above in the legend"),
    ".": (lambda window: window.choose(1), "choose the class below in the legend"),
    "X": (MapWindow.toggle_class, "hide or show the chosen class"),
    "A": (lambda window: window.switch(replace(window.switches, hidden=frozenset())), "show all classes"),
    "O": (MapWindow.look_from_outside, "back to the view from outside"),
    "P": (MapWindow.pick, "say what is under the mouse pointer"),
    "Q": (MapWindow.quit, "close"),
}


def key_help() -> list[str]:
    """One line for every key."""
    return [f"  {key}  {meaning}" for key, (_, meaning) in KEYS.items()]
