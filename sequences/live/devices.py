"""Cameras that can be switched on: a webcam through OpenCV, a RealSense through Open3D.

Adding one is a class with the methods of `Source`, and a line in DEVICES.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from sequences.live.capture import Captured, Source


def open_device(name: str, camera: Camera | None = None, fov: float | None = None) -> Source:
    """Switch on a camera, such as "webcam", "webcam:1" or "realsense:0".

    camera, fov (horizontal, degrees): of a webcam, which does not know its own. ValueError for a name that is none,
    OSError where there is no such camera, ImportError where the library of its kind is not installed.
    """
    kind, _, number = name.partition(":")
    if kind not in DEVICES and Path(name).exists():
        raise ValueError(f"--live maps what a camera sees now: leave it out to map the recording {name}")
    if kind not in DEVICES or not (number.isdecimal() or not number):
        raise ValueError(
            f"--live is for {', '.join(DEVICES)}, or one of several as {next(iter(DEVICES))}:1; got '{name}'"
        )
    return DEVICES[kind](int(number or 0), camera, fov)


class Webcam:
    """A camera that the system knows by a number; colour alone."""

    depth_scale: float | None = None
    sensor: str | None = None

    def __init__(self, number: int, camera: Camera | None, fov: float | None) -> None:
        import cv2

        self.name = f"webcam:{number}"
        if camera is None and fov is None:
            raise ValueError(
                f"{self.name}: a webcam does not know its lens: give its horizontal field of view with --fov DEGREES "
                f"(most have 55 to 80), or --camera FILE (width, height, fx, fy, cx, cy); {plugged_in()}"
            )
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says is not for people
        self._device = cv2.VideoCapture(number)
        cv2.utils.logging.setLogLevel(level)
        if camera is not None:
            self._device.set(cv2.CAP_PROP_FRAME_WIDTH, camera.width)
            self._device.set(cv2.CAP_PROP_FRAME_HEIGHT, camera.height)
        self._device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        first = self.read()
        if first is None:
            self.close()
            raise OSError(f"{self.name}: there is no such camera, or another program uses it; {plugged_in()}")
        height, width = first.color.shape[:2]
        self.camera = camera or Camera.of_fov(width, height, fov)  # type: ignore[arg-type]
        if (self.camera.height, self.camera.width) != (height, width):
            self.close()
            raise ValueError(
                f"{self.name}: gives {width}x{height}, its camera is {self.camera.width}x{self.camera.height}"
            )

    def read(self) -> Captured | None:
        import cv2

        there, pixels = self._device.read()
        return Captured(time.monotonic(), cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)) if there else None

    def close(self) -> None:
        self._device.release()


class RealSense:
    """A RealSense depth camera, with the settings that it has at rest; depth is registered by its own library."""

    sensor: str | None = "realsense"

    def __init__(self, number: int, camera: Camera | None, fov: float | None) -> None:
        import open3d as o3d

        self.name = f"realsense:{number}"
        if camera is not None or fov is not None:
            raise ValueError(f"{self.name}: knows its own camera; leave --camera and --fov out")
        if not hasattr(o3d.t.io, "RealSenseSensor"):
            raise ImportError(f"{self.name}: this build of Open3D knows no RealSense; pip install open3d-cpu has it")
        if number >= _realsenses():
            raise OSError(f"{self.name}: there is no such camera; {plugged_in()}")
        self._device = o3d.t.io.RealSenseSensor()
        self._device.init_sensor(sensor_index=number)
        self._device.start_capture()
        said = self._device.get_metadata()
        K = np.asarray(said.intrinsics.intrinsic_matrix)
        self.camera = Camera(said.width, said.height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        self.depth_scale: float | None = float(said.depth_scale)

    def read(self) -> Captured | None:
        image = self._device.capture_frame(True, True)
        if image.is_empty():
            return None
        return Captured(time.monotonic(), image.color.as_tensor().numpy(), image.depth.as_tensor().numpy()[..., 0])

    def close(self) -> None:
        self._device.stop_capture()


def plugged_in() -> str:
    """Which cameras can be switched on here, in words. Webcams are looked for where Linux lists them."""
    realsenses = [f"realsense:{number}" for number in range(_realsenses())]
    if sys.platform != "linux":
        return f"RealSense cameras found here: {', '.join(realsenses) or 'none'}"
    numbers = (path.name.removeprefix("video") for path in Path("/dev").glob("video[0-9]*"))
    webcams = [f"webcam:{number}" for number in sorted(int(number) for number in numbers if number.isdecimal())]
    return f"cameras found here: {', '.join([*webcams, *realsenses]) or 'none'}"


def _realsenses() -> int:
    """How many RealSense cameras are plugged in, as far as this build of Open3D knows them."""
    import open3d as o3d

    if not hasattr(o3d.t.io, "RealSenseSensor"):
        return 0
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        return len(o3d.t.io.RealSenseSensor.enumerate_devices())


DEVICES: dict[str, Callable[[int, Camera | None, float | None], Source]] = {"webcam": Webcam, "realsense": RealSense}
