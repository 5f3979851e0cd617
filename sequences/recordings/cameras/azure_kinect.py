"""Azure Kinect's recordings (.mkv), also Orbbec's: colour and depth tracks, calibration.json attached.

Depth is big-endian uint16 millimetres of the depth camera; it is undistorted and registered to colour with the
factory's calibration, whose numbers are relative to the sensor's size (Azure Kinect Sensor SDK, "record file format").
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from semslam import images, poses
from semslam.camera import Camera
from semslam.images import CorruptFrame
from semslam.trajectory import associate
from sequences.files import MALFORMED, reason
from sequences.pairing import depth_delays
from sequences.recordings.cameras.matroska import Matroska, Track, read_matroska
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "NAME.mkv of k4arecorder: tracks COLOR and DEPTH, calibration.json attached"
# Of each depth mode's image, by its size: (pixels of the sensor it is binned to, first column, first row).
DEPTH_CROPS = {
    (320, 288): (512, 96, 90),
    (640, 576): (1024, 192, 180),
    (512, 512): (512, 0, 0),
    (1024, 1024): (1024, 0, 0),
}
PAIR = 0.02  # seconds
UNITS_PER_METRE = 1000.0
MJPEG, NV12, YUY2, BGRA = b"MJPG", b"NV12", b"YUY2", b"BGRA"


def fits(path: Path) -> bool:
    if path.suffix.lower() != ".mkv" or not path.is_file():
        return False
    try:
        head = read_matroska(path, frames=False)
    except (ValueError, OSError):
        return False
    return head.track("DEPTH") is not None and head.track("COLOR") is not None


def open_azure_kinect(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a recording; the two tracks are paired by time. `camera` replaces the colour camera's intrinsics."""
    path = Path(path)
    file = read_matroska(path)
    color, depth = file.track("COLOR"), file.track("DEPTH")
    if color is None or depth is None or not color.places or not depth.places:
        raise ValueError(f"{path}: holds no frames of colour and depth; record both (k4arecorder)")
    color_camera, depth_camera, T_color_depth = _calibration(file, color, depth)
    of_color, of_depth = associate(file.timestamps(color), file.timestamps(depth), PAIR)
    if len(of_color) == 0:
        raise ValueError(f"{path}: no colour frame has depth within {PAIR} s")
    times = file.timestamps(color)[of_color]
    cut = f"{path}: is cut short or damaged; {len(of_color)} frames before that are read"
    return DecodedSequence(
        name=path.stem,
        rig=Rig(color_camera if camera is None else camera, depth_camera, T_color_depth),
        timestamps=times,
        read=partial(_read, file, (color, depth), (of_color, of_depth)),
        assumptions=() if file.whole else (cut,),
        decoders=2,  # each frame is found and decoded by itself
        depth_delays=depth_delays(times, file.timestamps(depth)[of_depth]),
    )


def _read(file: Matroska, tracks: tuple[Track, Track], pairs: tuple[np.ndarray, np.ndarray], index: int) -> Images:
    color, depth = tracks
    where = f"{file.path}: frame {index}"
    raw = file.frame(depth, int(pairs[1][index]))
    if len(raw) != 2 * depth.width * depth.height:
        raise CorruptFrame(f"{where}: depth has {len(raw)} bytes, expected {2 * depth.width * depth.height}", True)
    units = np.frombuffer(raw, ">u2").reshape(depth.height, depth.width)
    metres = images.depth_of_units(units, UNITS_PER_METRE)
    return Images(_color(file.frame(color, int(pairs[0][index])), color, where), metres)


def _color(data: bytes, track: Track, where: str) -> np.ndarray:
    import cv2

    kind = MJPEG if track.codec == "V_MJPEG" else track.private[16:20]
    height, width = track.height, track.width
    if kind == MJPEG:
        return images.color_of_bytes(data, f"{where}, colour")
    shapes = {
        NV12: ((height * 3 // 2, width), cv2.COLOR_YUV2RGB_NV12),
        YUY2: ((height, width, 2), cv2.COLOR_YUV2RGB_YUY2),
        BGRA: ((height, width, 4), cv2.COLOR_BGRA2RGB),
    }
    if kind not in shapes:
        raise CorruptFrame(f"{where}: colour is coded as {kind!r} ({track.codec}); read are MJPG, NV12, YUY2 and BGRA")
    shape, code = shapes[kind]
    if len(data) != int(np.prod(shape)):
        raise CorruptFrame(f"{where}: colour has {len(data)} bytes, expected {int(np.prod(shape))}", broken_file=True)
    return cv2.cvtColor(np.frombuffer(data, np.uint8).reshape(shape), code)


def _calibration(file: Matroska, color: Track, depth: Track) -> tuple[Camera, Camera, np.ndarray]:
    """Colour camera, depth camera and T_color_depth of the modes that were recorded."""
    where = f"{file.path}: calibration.json"
    data = next((data for name, data in file.attachments.items() if name.endswith(".json")), None)
    if data is None:
        raise ValueError(f"{where}: is not attached, and without it depth cannot be brought to colour; record again")
    if (depth.width, depth.height) not in DEPTH_CROPS:
        raise ValueError(f"{file.path}: depth is {depth.width}x{depth.height}, of no mode of the Azure Kinect")
    try:
        cameras = json.loads(data.rstrip(b"\0"))["CalibrationInformation"]["Cameras"]
        by_place = {camera["Location"].rpartition("Location")[2]: camera for camera in cameras}
        sensor, column, row = DEPTH_CROPS[depth.width, depth.height]
        depth_camera = _camera(by_place["D0"], (sensor, sensor), (column, row), (depth.width, depth.height))
        # Colour of 16:9 is the middle of the sensor's 4:3.
        whole = (color.width, color.width * 3 // 4)
        color_camera = _camera(by_place["PV0"], whole, (0, (whole[1] - color.height) // 2), (color.width, color.height))
        T = _world_to(by_place["PV0"]) @ poses.inverse(_world_to(by_place["D0"]))
    except MALFORMED as problem:
        raise ValueError(f"{where}: not as the Azure Kinect writes it ({reason(problem)})") from None
    return color_camera, depth_camera, T


def _camera(values: dict, whole: tuple[int, int], first: tuple[int, int], size: tuple[int, int]) -> Camera:
    """The camera of an image of `size` cut out at `first` from the sensor's of `whole` pixels."""
    cx, cy, fx, fy, k1, k2, k3, k4, k5, k6, _, _, p2, p1 = (float(x) for x in values["Intrinsics"]["ModelParameters"])
    return Camera(
        *size, fx * whole[0], fy * whole[1], cx * whole[0] - first[0] - 0.5, cy * whole[1] - first[1] - 0.5,
        (k1, k2, p1, p2, k3, k4, k5, k6),
    )  # fmt: skip


def _world_to(values: dict) -> np.ndarray:
    """T_camera_rig (4, 4), metres, of a calibration entry."""
    rotation = np.array(values["Rt"]["Rotation"], np.float64).reshape(3, 3)
    T = poses.from_rotation_translation(rotation, np.array(values["Rt"]["Translation"], np.float64))
    if not poses.is_rigid(T):
        raise ValueError("Rt is no rigid transform")
    return T
