"""A map as a film: around it, or along the path of the camera."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.files.writing import check_suffix, replacing
from semslam.looking.viewed import Viewed
from semslam.rendering.pictures import draw_paths, lit_if_flat, picture, picture_camera
from semslam.rendering.viewpoint import swing, up_direction

BACK = 0.6  # metres: a camera on the recorded path stands so far behind it, to see what lay around the frame


def orbit_poses(viewed: Viewed, camera: Camera, count: int = 240) -> np.ndarray:
    """(count, 4, 4) poses around the map, or to and fro where it is open to one side, see `viewpoint.swing`."""
    up = up_direction(viewed.cloud, viewed.label_set, viewed.trajectory)
    return swing(viewed.cloud, camera, up, count, trajectory=viewed.trajectory)


def followed_poses(viewed: Viewed) -> np.ndarray:
    """(N, 4, 4) poses of a viewer who walks behind the recorded camera."""
    if viewed.trajectory is None or len(viewed.trajectory) == 0:
        raise ValueError(f"{viewed.name or 'the map'} has no trajectory to follow; ask for an orbit instead")
    followed = np.array(viewed.trajectory, np.float64)
    followed[:, :3, 3] -= BACK * followed[:, :3, 2]
    return followed


def views_along(viewed: Viewed, along: str) -> np.ndarray:
    """(N, 4, 4) poses of a film: "orbit" around the map, or "path", behind the recorded camera."""
    if along == "path":
        return followed_poses(viewed)
    if along != "orbit":
        raise ValueError(f"a film goes along the orbit or the path, not along {along!r}")
    return orbit_poses(viewed, picture_camera())


def check_film(path: Path) -> None:
    """ValueError for a name that is not that of a film that can be written."""
    check_suffix(path, "films", (".mp4",))


def write_video(
    path: str | Path,
    viewed: Viewed,
    T_world_views: Iterable[np.ndarray],
    *,
    coloring: str = "label",
    camera: Camera | None = None,
    fps: float = 30.0,
    report: Callable[[], object] = lambda: None,
) -> int:
    """Write an mp4 (MPEG-4 part 2, which media players open) of the map seen from the poses; the number of frames.

    `coloring` is a name of COLORINGS, or error. The camera's path is drawn in. report: called after each frame.
    """
    import cv2

    path = Path(path)
    check_film(path)
    camera = camera or picture_camera(960, 720)
    colors, count = viewed.colored(coloring), 0
    with replacing(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, (camera.width, camera.height))
        if not writer.isOpened():
            raise OSError(f"{path}: OpenCV cannot write films here; is the folder read-only?")
        try:
            for T_world_view in T_world_views:
                shown = lit_if_flat(colors, coloring, viewed.cloud, T_world_view)
                image = picture(viewed.cloud, camera, T_world_view, [shown])[0]
                image = draw_paths(image, camera, T_world_view, viewed.paths)
                writer.write(np.ascontiguousarray(image[..., ::-1]))
                if shutil.disk_usage(path.parent).free == 0:  # the writer itself does not notice, and goes on
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                count += 1
                report()
        finally:
            writer.release()
    return count
