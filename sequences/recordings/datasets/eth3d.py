"""ETH3D SLAM: as TUM RGB-D, with a calibration.txt of fx fy cx cy. Schoeps et al., "BAD SLAM", CVPR 2019."""

from __future__ import annotations

from pathlib import Path

from semslam import images
from semslam.atomic import text_of
from semslam.camera import Camera
from sequences.files import first_readable
from sequences.pose_pairing import PoseHints
from sequences.recordings import tum
from sequences.recordings.sensor import DepthCamera
from sequences.sequence import ImageSequence

LAYOUT = "as tum, with calibration.txt (fx fy cx cy)"


def fits(path: Path) -> bool:
    return tum.fits(path) and (path / "calibration.txt").is_file()


def open_eth3d(
    path: str | Path,
    *,
    camera: Camera | None = None,
    depth_scale: float | None = None,
    registered: bool | None = None,
    depth_along_ray: bool | None = None,
    depth_camera: DepthCamera | None = None,
    hints: PoseHints = PoseHints(),  # noqa: B008
) -> ImageSequence:
    """Open a sequence's folder: rectified colour and depth of one camera, 5000 units per metre."""
    path = Path(path)
    if camera is None:
        _, listed = tum.images_listed(path / "rgb.txt")
        height, width = first_readable(images.read_color, listed).shape[:2]
        try:
            fx, fy, cx, cy = (float(word) for word in text_of(path / "calibration.txt").split()[:4])
        except ValueError:
            raise ValueError(f"{path / 'calibration.txt'}: expected fx fy cx cy in one line") from None
        camera = Camera(width, height, fx, fy, cx, cy)
    return tum.open_tum(
        path,
        camera=camera,
        depth_scale=depth_scale,
        registered=registered,
        depth_along_ray=depth_along_ray,
        depth_camera=depth_camera,
        hints=hints,
    )
