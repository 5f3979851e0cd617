"""A camera.yaml beside the images: what it says of their cameras and units, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam import poses
from semslam.camera import SENSORS, Camera, is_fisheye
from sequences.recordings.sensor import DepthCamera, SaidOfSensor

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
