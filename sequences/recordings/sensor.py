"""What a recording says of its sensor, and how its images are read by that.

What the command line says counts first, then a camera.yaml beside the images, then what the layout usually holds. What
was taken from the layout alone is an assumption, which a sequence hands on for people to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam import images, poses
from semslam.camera import SENSORS, Camera, is_fisheye
from semslam.frame import UNLABELLED
from semslam.images import labels as label_images
from sequences.recordings.registration import registered_depth
from sequences.resampling import z_of_ray

LARGEST = 1e9  # of numbers that count something a second, or a metre
LONGEST_BASELINE = 2.0  # metres between the cameras of colour and depth: of a street's car, half as much
LONGEST_READOUT = 0.2  # seconds
SHARES = 4.0  # pixels; intrinsics below are shares of the image's sides
LONGEST_REASON = 80  # characters of what a YAML reader says
_INTRINSICS = ("width", "height", "fx", "fy", "cx", "cy")
_KEYS = (
    *_INTRINSICS,
    "distortion",
    "distortion_model",
    "depth_scale",
    "fps",
    "registered",
    "depth_along_ray",
    "depth_camera",
    "T_color_depth",
    "sensor",
    "readout",
)


class DepthCamera(NamedTuple):
    """The camera that depth was recorded with, where it is not registered to colour."""

    camera: Camera
    T_color_depth: np.ndarray  # (4, 4) float64


class SaidOfSensor(NamedTuple):
    """What a camera.yaml or a person says of the sensor of recorded images; None for what is left to the layout."""

    camera: Camera | None = None  # of colour
    depth_scale: float | None = None  # units per metre
    registered: bool | None = None  # whether depth lies under colour's pixels
    depth_along_ray: bool | None = None  # whether depth is the distance from the optical centre instead of z
    depth_camera: DepthCamera | None = None

    def unregistered(self, path: Path, usual: DepthCamera | None = None) -> DepthCamera | None:
        """The camera that depth has to be registered from, None where it is registered.

        usual: the depth camera of the layout, which is taken where nobody says anything. ValueError, which names the
        recording's path, where depth is said to be unregistered and its camera is not known.
        """
        if self.registered or (self.registered is None and self.depth_camera is None and usual is None):
            return None
        if (found := self.depth_camera or usual) is None:
            raise ValueError(
                f"{path}: --unregistered needs the depth camera; write depth_camera (width, height, fx, fy, cx, cy) "
                f"and T_color_depth (4x4, from its coordinates to those of colour) into camera.yaml"
            )
        return found


NOTHING_SAID = SaidOfSensor()


class CameraFile(NamedTuple):
    """What a camera.yaml says; None for what it leaves out."""

    said: SaidOfSensor
    fps: float | None  # frames per second
    sensor: str | None  # kind of the depth camera, a key of SENSORS
    readout: float | None  # seconds from the first row of an image to its last

    @property
    def options(self) -> dict[str, Any]:
        """What it says as options of a reader, by their names."""
        options = {"fps": self.fps} | self.said._asdict()
        return {name: value for name, value in options.items() if value is not None}


def read_camera_file(path: Path) -> CameraFile:
    """A camera.yaml; ValueError names the key that is wrong."""
    values = _values(path)
    camera = _camera(path, values)
    if unknown := [str(key) for key in values if key not in _KEYS]:
        raise ValueError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(_KEYS)}")
    registered, along_ray = (_flag(path, values, key) for key in ("registered", "depth_along_ray"))
    depth_camera = _depth_camera(path, values)
    if depth_camera is not None and registered is None:
        registered = False
    depth_scale, fps = (_positive(path, values, key) for key in ("depth_scale", "fps"))
    sensor = values.get("sensor")
    if sensor is not None and sensor not in SENSORS:
        raise ValueError(f"{path}: sensor is {sensor!r}, expected one of {', '.join(SENSORS)}")
    readout = _readout(path, values)
    return CameraFile(SaidOfSensor(camera, depth_scale, registered, along_ray, depth_camera), fps, sensor, readout)


def write_camera_file(
    path: Path,
    camera: Camera | None,
    depth_scale: float | None = None,
    fps: float | None = None,
    sensor: str | None = None,
    readout: float | None = None,
) -> None:
    """Write a camera.yaml, see `CameraFile`, of a camera without distortion; what is None is left out."""
    import yaml

    values: dict[str, Any] = {}  # YAML knows no numbers of NumPy's
    if camera is not None:
        values |= {"width": int(camera.width), "height": int(camera.height)}
        values |= {key: float(getattr(camera, key)) for key in ("fx", "fy", "cx", "cy")}
    values |= {key: float(value) for key, value in (("depth_scale", depth_scale), ("fps", fps)) if value is not None}
    values |= {} if sensor is None else {"sensor": sensor}
    values |= {} if readout is None else {"readout": float(readout)}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _readout(path: Path, values: dict[str, Any]) -> float | None:
    if "readout" not in values:
        return None
    try:
        if 0 <= (readout := _number("readout", values["readout"])) <= LONGEST_READOUT:
            return readout
    except ValueError:
        pass
    raise ValueError(
        f"{path}: readout is {values['readout']!r}, expected the seconds from an image's first row to its last, "
        f"0 to {LONGEST_READOUT:g}"
    )


def _values(path: Path) -> dict[str, Any]:
    from semslam import config

    if not path.is_file():
        raise ValueError(f"{path}: missing; write width, height, fx, fy, cx, cy (pixels), depth_scale and fps into it")
    try:
        values = config.read(path)
    except (ValueError, RecursionError) as problem:
        why = str(problem).partition("not YAML: ")[2][:LONGEST_REASON]
        if not why:  # no text at all
            raise
        raise ValueError(f"{path}: is not YAML ({why}); expected lines like 'fx: 525.0'") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: lacks {', '.join(_INTRINSICS)}; expected {', '.join(_KEYS)}")
    return values


def _camera(path: Path, values: dict[str, Any]) -> Camera | None:
    """The intrinsics, None where there are none at all."""
    missing = [key for key in _INTRINSICS if key not in values]
    if len(missing) == len(_INTRINSICS) and "distortion" not in values:
        return None
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; expected {', '.join(_KEYS)}")
    try:
        width, height = (_whole(key, values[key]) for key in ("width", "height"))
        fx, fy, cx, cy = (_number(key, values[key]) for key in ("fx", "fy", "cx", "cy"))
        if 0 < fx < SHARES and 0 < fy < SHARES and max(cx, cy) < SHARES < width:
            raise ValueError(
                f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} look like shares of the image's sides; expected pixels: "
                f"multiply fx and cx by {width}, fy and cy by {height}"
            )
        distortion = values.get("distortion")
        if distortion is not None and not isinstance(distortion, (list, tuple)):
            raise ValueError(f"distortion is {distortion!r}; expected a list of numbers")
        coefficients = None if distortion is None else tuple(_number("distortion", value) for value in distortion)
        fisheye = coefficients is not None and is_fisheye(str(values.get("distortion_model", "")))
        return Camera(width, height, fx, fy, cx, cy, coefficients, fisheye)
    except (TypeError, ValueError, OverflowError) as problem:
        raise ValueError(f"{path}: {problem}") from None


def _number(key: str, value: Any) -> float:
    """A number; ValueError for a truth value, which Python takes for one."""
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    comma = isinstance(value, str) and "," in value
    raise ValueError(f"{key} is {value!r}, expected a number{' with a decimal point' * comma}")


def _whole(key: str, value: Any) -> int:
    """A number of pixels; ValueError for half of one."""
    if isinstance(value, bool) or _number(key, value) != int(value):
        raise ValueError(f"{key} is {value!r}, expected a whole number of pixels")
    return int(value)


def _depth_camera(path: Path, values: dict[str, Any]) -> DepthCamera | None:
    if "depth_camera" not in values:
        if "T_color_depth" in values:
            raise ValueError(f"{path}: has T_color_depth, but no depth_camera that it is of; add that, or leave it out")
        return None
    inner = values["depth_camera"]
    camera = _camera(path, inner) if isinstance(inner, dict) else None
    try:
        T = np.array(values.get("T_color_depth", np.eye(4)), np.float64)
    except (TypeError, ValueError):
        T = np.zeros(0)
    if camera is None or T.shape != (4, 4) or not poses.is_rigid(T):
        raise ValueError(
            f"{path}: depth_camera needs {', '.join(_INTRINSICS)}, and T_color_depth the 4 rows of a rigid transform "
            f"from its coordinates to those of colour, metres"
        )
    if (length := float(np.linalg.norm(T[:3, 3]))) > LONGEST_BASELINE:
        raise ValueError(f"{path}: T_color_depth puts the cameras {length:g} m apart; expected metres, not millimetres")
    return DepthCamera(camera, T)


def _flag(path: Path, values: dict[str, Any], key: str) -> bool | None:
    if values.get(key) not in (None, True, False):
        raise ValueError(f"{path}: {key} is {values[key]!r}, expected true or false")
    return values.get(key)


def _positive(path: Path, values: dict[str, Any], key: str) -> float | None:
    if values.get(key) is None:
        return None
    try:
        number = _number(key, values[key])
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not 0 < number < LARGEST:
        raise ValueError(f"{path}: {key} {number} must be above 0 and below {LARGEST:g} (found {values[key]!r})")
    return number


def image_readers(
    color: Iterable[Path],
    camera: Camera,
    read_depth: Callable[[Path], np.ndarray],
    unregistered: DepthCamera | None = None,
    read_labels: Callable[[Path], np.ndarray] = label_images.read_labels,
    along_ray: bool = False,
) -> dict[str, Any]:
    """The cameras and the reading functions of an `ImageSequence` whose images are those of `camera`, undistorted.

    color: the files of its colour images. read_depth: metres (H, W) as recorded. unregistered: the camera that depth
    comes from, if it is not colour's own. along_ray: what is read are distances from the optical centre.
    """
    if along_ray:
        read_depth = partial(_read_ray, read_depth, camera if unregistered is None else unregistered.camera)
    if unregistered is None:
        depth = images.undistorting(read_depth, camera, nearest=True)
    else:
        depth = partial(_read_registered, read_depth, unregistered, camera.undistorted())
    return {
        "camera": camera.undistorted(),
        "lens": camera,
        "read_color": images.undistorting(images.ColorReader(tuple(color)), camera),
        "read_depth": depth,
        "read_labels": images.undistorting(read_labels, camera, nearest=True, outside=UNLABELLED),
    }


class Usual(NamedTuple):
    """What the recordings of a layout hold where nobody says otherwise."""

    camera: Camera
    whose: str | None  # camera that is, for people; None = the recording says so itself
    depth_scale: float  # units per metre


def usual_readers(
    path: Path, color: Iterable[Path], depth: Iterable[Path], usual: Usual, said: SaidOfSensor
) -> tuple[dict[str, Any], list[str]]:
    """`image_readers` by what is said of the sensor of the recording at a path, else by what is usual; and what was
    taken for granted.

    color, depth: the recording's files.
    """
    assumed = []
    if said.camera is None and usual.whose is not None:
        numbers = " ".join(
            f"{number:g}" for number in (usual.camera.fx, usual.camera.fy, usual.camera.cx, usual.camera.cy)
        )
        assumed.append(f"{path}: the camera is taken for {usual.whose} ({numbers})")
    if said.depth_scale is None:
        assumed.append(
            f"{path}: depth is taken to count {usual.depth_scale:g} per metre (--depth-scale says otherwise)"
        )
    read_depth = images.DepthReader(tuple(depth), said.depth_scale or usual.depth_scale)
    readers = image_readers(
        color,
        said.camera or usual.camera,
        read_depth,
        said.unregistered(path),
        along_ray=bool(said.depth_along_ray),
    )
    return readers, assumed


def _read_ray(read: Callable[[Path], np.ndarray], camera: Camera, path: Path) -> np.ndarray:
    ray = read(path)
    return z_of_ray(ray, camera.resized(ray.shape[1], ray.shape[0]))


def _read_registered(
    read_depth: Callable[[Path], np.ndarray], depth_camera: DepthCamera, color_camera: Camera, path: Path
) -> np.ndarray:
    depth, source = read_depth(path), depth_camera.camera
    if depth.shape != source.shape:
        raise images.CorruptFrame(
            f"{path}: depth is {depth.shape[1]}x{depth.shape[0]}, its camera's is {source.width}x{source.height}"
        )
    undistorted = source.undistort(depth, nearest=True)
    return registered_depth(undistorted, source.undistorted(), color_camera, depth_camera.T_color_depth)
