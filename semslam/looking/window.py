"""A window to turn a map in, with Open3D's legacy visualizer: it needs OpenGL only, and draws off-screen over EGL.

What the keys do is in KEYS; the caller prints `key_help()` and what `MapWindow` reports.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.frame import UNLABELLED
from semslam.looking.viewed import Viewed, description, frustum_lines, legend_lines, shown_range, surfel_quads
from semslam.rendering.coloring import COLORINGS
from semslam.rendering.pictures import (
    BACKGROUND,
    PATH_COLOR,
    class_name,
    classes_present,
    draw_path,
    legend_entries,
    legend_image,
    picture,
    picture_camera,
    write_figure,
)
from semslam.rendering.splatting import lit, render
from semslam.rendering.viewpoint import overview, up_direction

__all__ = ["KEYS", "MapWindow", "Viewed", "key_help", "legend_lines", "render_png", "view"]
logger = logging.getLogger(__name__)

# the visualizer keeps H, L, N, S, W and others for itself unless they are taken, as here
KEYS: dict[str, tuple[str, str]] = {
    **{str(k + 1): (f"show:{name}", f"show {name.replace('_', ' ')}") for k, name in enumerate([*COLORINGS, "error"])},
    "T": ("toggle_path", "camera path on and off"),
    "F": ("toggle_frusta", "camera frusta on and off"),
    "D": ("toggle_disks", "surfels as disks with their backs hidden, or as points"),
    ",": ("previous_class", "choose the class above in the legend"),
    ".": ("next_class", "choose the class below in the legend"),
    "X": ("toggle_class", "hide or show the chosen class"),
    "A": ("show_all", "show all classes"),
    "O": ("look_from_outside", "back to the view from outside"),
    "P": ("pick", "say what is under the mouse pointer"),
    "Q": ("quit", "close"),
}


def key_help() -> list[str]:
    """One line for every key."""
    return [f"  {key}  {meaning}" for key, (_, meaning) in KEYS.items()]


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

        self._o3d: Any = o3d
        self.report = report
        self.viewed = viewed
        self.camera = picture_camera(width, height)
        self.coloring = "color"
        self.hidden: set[int] = set()
        self.chosen = 0  # place in the legend
        self.path_shown, self.frusta_shown, self.disks = True, False, False
        self.open = True
        self._mouse = (width / 2, height / 2)
        self._vis = o3d.visualization.VisualizerWithKeyCallback()
        with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
            created = self._vis.create_window(viewed.name or "semslam", width, height, visible=visible)
        if not created:
            raise RuntimeError("Open3D found neither a display nor an EGL driver (Debian: apt-get install libegl1)")
        self._legend: Any = None
        options = self._vis.get_render_option()
        options.background_color = np.array(BACKGROUND) / 255
        options.point_size = 3.0
        options.mesh_show_back_face = False
        options.light_on = False  # colours stand for something
        for key, (action, _) in KEYS.items():
            self._vis.register_key_callback(ord(key), lambda _vis, action=action: self.act(action))
        self._vis.register_mouse_move_callback(self._mouse_moved)
        self._shapes: list[Any] = []
        self._redraw()
        self.look_from_outside()

    # what keys do

    def act(self, action: str) -> bool:
        """Do what a key stands for (see KEYS); True, which is how the visualizer is told to draw again."""
        name, _, argument = action.partition(":")
        getattr(self, name)(*([argument] if argument else []))
        return True

    def show(self, coloring: str) -> None:
        """Colour the map by a name of COLORINGS, or error."""
        if coloring == "error" and self.viewed.errors is None:
            self.report("error: this map was not compared with a reference")
            return
        self.coloring = coloring
        self.report(": ".join(filter(None, (coloring.replace("_", " "), shown_range(coloring)))))
        self._redraw()

    def toggle_path(self) -> None:
        """Show or hide the camera's path."""
        self.path_shown = not self.path_shown
        self._redraw()

    def toggle_frusta(self) -> None:
        """Show or hide a frustum every half second of frames."""
        self.frusta_shown = not self.frusta_shown
        self._redraw()

    def toggle_disks(self) -> None:
        """Draw surfels as disks whose backs are hidden, so that rooms open towards the viewer, or as points."""
        self.disks = not self.disks
        self._redraw()

    def classes(self) -> list[int]:
        """Class ids in the legend's order."""
        return [i for i, _ in classes_present(self.viewed.cloud, self.viewed.label_set)]

    def next_class(self, step: int = 1) -> None:
        """Choose the next class of the legend."""
        classes = self.classes()
        if classes:
            self.chosen = (self.chosen + step) % len(classes)
            state = "hidden" if classes[self.chosen] in self.hidden else "shown"
            self.report(f"{class_name(self.viewed.label_set, classes[self.chosen])} ({state})")
            self._redraw_legend()

    def previous_class(self) -> None:
        """Choose the class before."""
        self.next_class(-1)

    def toggle_class(self) -> None:
        """Hide the chosen class, or show it again."""
        classes = self.classes()
        if classes:
            self.hidden ^= {classes[min(self.chosen, len(classes) - 1)]}
            self.next_class(0)
            self._redraw()

    def show_all(self) -> None:
        """Show every class."""
        self.hidden.clear()
        self._redraw()

    def switches(self) -> tuple[str, frozenset[int], bool, bool, bool]:
        """What is shown: coloring, hidden classes, path, frusta, disks; for `set_switches` of another window."""
        return self.coloring, frozenset(self.hidden), self.path_shown, self.frusta_shown, self.disks

    def set_switches(self, switches: tuple[str, frozenset[int], bool, bool, bool]) -> None:
        """Show what another window shows."""
        if switches != self.switches():
            self.coloring, hidden, self.path_shown, self.frusta_shown, self.disks = switches
            self.hidden = set(hidden)
            self._redraw()

    def quit(self) -> None:
        """Close at the next poll."""
        self.open = False

    def pick(self) -> None:
        """Report the surfel under the mouse pointer: class, probabilities, confidence, place."""
        self.report(self.described(*self._mouse))

    # seeing

    def look_from_outside(self) -> None:
        """The raised view from outside that shows most of the map."""
        viewed = self.viewed
        if len(viewed.cloud):
            up = up_direction(viewed.cloud, viewed.label_set, viewed.trajectory)
            self.look_from(overview(viewed.cloud, self.camera, up, trajectory=viewed.trajectory))

    def look_from(self, T_world_camera: np.ndarray) -> None:
        """Put the window's camera at a pose."""
        camera = self.camera
        parameters = self._o3d.camera.PinholeCameraParameters()
        parameters.intrinsic = self._o3d.camera.PinholeCameraIntrinsic(
            camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy
        )
        parameters.extrinsic = poses.inverse(T_world_camera)
        self._vis.get_view_control().convert_from_pinhole_camera_parameters(parameters, True)

    def pose(self) -> np.ndarray:
        """T_world_camera (4, 4) of the window's camera."""
        parameters = self._vis.get_view_control().convert_to_pinhole_camera_parameters()
        return poses.inverse(np.asarray(parameters.extrinsic))

    def visible_surfels(self) -> np.ndarray:
        """(N,) bool: surfels of classes that are not hidden."""
        return ~np.isin(self.viewed.cloud.labels(), sorted(self.hidden))

    def described(self, u: float, v: float) -> str:
        """One line on the surfel at a pixel of the window."""
        viewed, shown = self.viewed, np.flatnonzero(self.visible_surfels())
        parameters = self._vis.get_view_control().convert_to_pinhole_camera_parameters()
        K = np.asarray(parameters.intrinsic.intrinsic_matrix)
        size = parameters.intrinsic.width, parameters.intrinsic.height
        camera = Camera(*size, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        seen = render(viewed.cloud.selected(shown), camera, self.pose(), cull_back=self.disks).index
        column, row = int(np.clip(u, 0, size[0] - 1)), int(np.clip(v, 0, size[1] - 1))
        if seen[row, column] < 0:
            return "nothing there"
        return description(viewed, int(shown[seen[row, column]]))

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

    def update(self, viewed: Viewed) -> None:
        """Show a newer state of the map from where the user stands; for viewing while a run goes on."""
        first = len(self.viewed.cloud) == 0
        self.viewed = viewed
        self._redraw()
        if first:
            self.look_from_outside()

    def close(self) -> None:
        """Take the windows down."""
        self._vis.destroy_window()
        if self._legend is not None:
            self._legend.destroy_window()
            self._legend = None

    # drawing

    def _mouse_moved(self, _vis: Any, x: float, y: float) -> bool:
        self._mouse = (x, y)
        return False  # the visualizer turns the view as it would without us

    def _redraw(self) -> None:
        o3d, viewed = self._o3d, self.viewed
        shapes: list[Any] = []
        visible = self.visible_surfels()
        cloud = viewed.cloud.selected(visible)
        colors = viewed.colored(self.coloring)[visible].astype(np.float64) / 255
        if len(cloud) == 0:
            pass  # Open3D warns of shapes without points
        elif self.disks:
            vertices, triangles = surfel_quads(cloud)
            mesh = o3d.geometry.TriangleMesh(
                o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(triangles)
            )
            mesh.vertex_colors = o3d.utility.Vector3dVector(np.repeat(colors, 4, axis=0))
            shapes.append(mesh)
        else:
            points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.positions.astype(np.float64)))
            points.colors = o3d.utility.Vector3dVector(colors)
            shapes.append(points)
        trajectory = viewed.trajectory
        if trajectory is not None and len(trajectory) > 1 and self.path_shown:
            count = np.arange(len(trajectory) - 1)
            shapes.append(self._lines(trajectory[:, :3, 3], np.column_stack([count, count + 1])))
        if trajectory is not None and viewed.camera is not None and self.frusta_shown:
            every_half_second = trajectory[::15]
            shapes += [self._lines(*frustum_lines(viewed.camera, T)) for T in every_half_second]
        for shape in self._shapes:
            self._vis.remove_geometry(shape, False)
        for shape in shapes:
            self._vis.add_geometry(shape, not self._shapes)
        self._shapes = shapes
        self._redraw_legend()

    def _lines(self, points: np.ndarray, pairs: np.ndarray) -> Any:
        o3d = self._o3d
        lines = o3d.geometry.LineSet(
            o3d.utility.Vector3dVector(np.ascontiguousarray(points, np.float64)),
            o3d.utility.Vector2iVector(np.ascontiguousarray(pairs, np.int32)),
        )
        lines.paint_uniform_color(np.array(PATH_COLOR) / 255)
        return lines

    def open_legend(self) -> None:
        """A second window with the classes' names and colours; the chosen one framed, hidden ones struck out."""
        if self._legend is None:
            image = self._legend_picture()
            self._legend = self._o3d.visualization.Visualizer()
            self._legend.create_window("classes", image.shape[1], image.shape[0], 1300, 50)
            self._redraw_legend()

    def _legend_picture(self) -> np.ndarray:
        chosen = (self.classes() or [UNLABELLED])[min(self.chosen, max(len(self.classes()) - 1, 0))]
        return legend_image(self.viewed.cloud, self.viewed.label_set, hidden=self.hidden, chosen=chosen)

    def _redraw_legend(self) -> None:
        if self._legend is None:
            return
        self._legend.clear_geometries()
        self._legend.add_geometry(self._o3d.geometry.Image(np.ascontiguousarray(self._legend_picture())))


def view(
    maps: Sequence[Viewed],
    *,
    coloring: str = "color",
    hidden: Iterable[int] = (),
    report: Callable[[str], None] = logger.info,
) -> None:
    """Open a window for each map, all with one camera and the same switches, until the first is closed."""
    windows = [MapWindow(viewed, report=report) for viewed in maps]
    try:
        for window in windows:
            window.set_switches((coloring, frozenset(hidden), *window.switches()[2:]))
        windows[0].open_legend()
        shared, switches = windows[0].pose(), windows[0].switches()
        for window in windows[1:]:
            window.look_from(shared)
        while sum(window.poll() for window in windows) == len(windows):  # polls every window, unlike all()
            time.sleep(0.005)  # polling does not wait, and a still picture needs no core of its own
            shared = _follow(windows, shared)
            for changed in [window.switches() for window in windows if window.switches() != switches][:1]:
                switches = changed
                for window in windows:
                    window.set_switches(switches)
    finally:
        for window in windows:
            window.close()


def _follow(windows: Iterable[MapWindow], shared: np.ndarray) -> np.ndarray:
    """Turn all windows to the pose of the one that moved away from the shared pose."""
    moved = [window.pose() for window in windows]
    for T in moved:
        if not np.allclose(T, shared, atol=1e-6):
            for window in windows:
                window.look_from(T)
            return T
    return shared


def software_image(viewed: Viewed, coloring: str, T_world_camera: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W, 3) uint8 picture by our own renderer, camera path drawn in."""
    colors = viewed.colored(coloring)
    if coloring == "label":
        colors = lit(colors, viewed.cloud, T_world_camera)
    return picture(viewed.cloud, camera, T_world_camera, [colors])[0]


def opengl_image(viewed: Viewed, coloring: str, T_world_camera: np.ndarray, camera: Camera) -> np.ndarray:
    """The same by Open3D's window, off-screen; RuntimeError where there is no driver."""
    import cv2

    window = MapWindow(viewed, width=2 * camera.width, height=2 * camera.height, visible=False)
    try:
        window.path_shown, window.disks = False, True
        if coloring == "label":
            viewed.colors["label"] = lit(viewed.colored("label"), viewed.cloud, T_world_camera)
        window.show(coloring)
        window.look_from(T_world_camera)
        window.poll()
        image = window.image()
    finally:
        window.close()
    return cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


def render_png(
    path: str | Path,
    viewed: Viewed,
    *,
    coloring: str = "label",
    T_world_camera: np.ndarray | None = None,
    hidden: Iterable[int] = (),
    beside: Sequence[Viewed] = (),
) -> None:
    """Write a picture of the map with its legend, without a display: from a pose, or from outside.

    `coloring` is a name of COLORINGS, or error; surfels of the class ids in `hidden` are left out. `beside`: other
    maps, seen from the same pose. Drawn by Open3D over EGL; where there is no driver for it by our own renderer, which
    a warning says.
    """
    camera = picture_camera(1280, 960)
    hidden = list(hidden)
    maps = [one.without(hidden) for one in (viewed, *beside)]
    viewed = maps[0]
    for one in maps:
        if len(one.cloud) == 0:
            raise ValueError(f"{path}: there is nothing to draw: the map is empty or all of its classes are hidden")
    if T_world_camera is None:
        up = up_direction(viewed.cloud, viewed.label_set, viewed.trajectory)
        T_world_camera = overview(viewed.cloud, camera, up, trajectory=viewed.trajectory)
    try:
        images = [opengl_image(one, coloring, T_world_camera, camera) for one in maps]
    except RuntimeError as error:
        logger.warning("%s; drawing with the software renderer instead", error)
        images = [software_image(one, coloring, T_world_camera, camera) for one in maps]
    for k, one in enumerate(maps):
        if one.trajectory is not None:
            images[k] = draw_path(images[k], camera, T_world_camera, one.trajectory)
    legend = dict(entry for one in reversed(maps) for entry in legend_entries(one.cloud, one.label_set))
    if beside:  # shares of two maps do not fit one legend
        legend = {name.split("  ")[0]: color for name, color in legend.items()}
    note = " ".join(filter(None, (f"{coloring.replace('_', ' ')}:", shown_range(coloring))))
    write_figure(
        path,
        images,
        title="   |   ".join(one.name for one in maps),
        note=note if shown_range(coloring) else "",
        legend=list(legend.items()) if coloring == "label" else [],
    )
