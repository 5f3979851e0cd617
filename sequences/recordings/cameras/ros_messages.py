"""Messages of ROS as our values: images, cameras, transforms; of sensor_msgs, geometry_msgs and tf2_msgs."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import images, poses
from semslam.camera import Camera, is_fisheye
from semslam.images import CorruptFrame
from semslam.trajectory import Trajectory

COLOR_ENCODINGS = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "8UC3": 3,
    "mono8": 1,
    "8UC1": 1,
    "yuyv": 2,
    "yuv422_yuy2": 2,
    "uyvy": 2,
    "yuv422": 2,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
}
DEPTH_ENCODINGS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
TRANSFORM_GAP = 0.5  # seconds between the transforms that one is interpolated of

# A robot's or a tracking camera's axes (x forward, y left, z up) to a picture's (x right, y down, z forward).
T_BODY_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def is_depth(message: Any) -> bool:
    """Whether an Image or CompressedImage message is depth."""
    if hasattr(message, "format"):
        return "compressedDepth" in message.format or message.format.startswith(("16UC1", "32FC1"))
    return message.encoding in DEPTH_ENCODINGS


def is_other_depth(message: Any) -> bool:
    """Whether an Image message has one channel as depth has, in an encoding that depth is not read of."""
    encoding = getattr(message, "encoding", "")
    return encoding not in DEPTH_ENCODINGS and (encoding.endswith("C1") or encoding == "mono8")


def color_image(
    message: Any, where: str, decode: Callable[[bytes, str], np.ndarray] = images.color_of_bytes
) -> np.ndarray:
    """(H, W, 3) or grey (H, W) uint8 RGB of an Image or CompressedImage message; `decode` of the latter's file."""
    import cv2

    if hasattr(message, "format"):
        return decode(message.data.tobytes(), where)
    encoding = message.encoding.lower() if message.encoding not in COLOR_ENCODINGS else message.encoding
    if encoding not in COLOR_ENCODINGS:
        raise CorruptFrame(f"{where}: encoding {message.encoding}; read are {', '.join(COLOR_ENCODINGS)}")
    image = _rows(message, COLOR_ENCODINGS[encoding], "u1", where)
    codes = {
        "bgr8": cv2.COLOR_BGR2RGB, "8UC3": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB,
        "yuyv": cv2.COLOR_YUV2RGB_YUY2, "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2, "uyvy": cv2.COLOR_YUV2RGB_UYVY,
        "yuv422": cv2.COLOR_YUV2RGB_UYVY, "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
        "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB, "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
        "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
    }  # fmt: skip
    return cv2.cvtColor(image, codes[encoding]) if encoding in codes else image


def depth_image(message: Any, depth_scale: float, where: str) -> np.ndarray:
    """(h, w) float32 m of an Image (16-bit units, or float metres) or a compressedDepth message; 0 = none."""
    import cv2

    if hasattr(message, "format"):
        data = message.data.tobytes()
        start = max(data.find(b"\x89PNG"), 0)
        if not data.startswith(b"\x89PNG", start):
            how = "RVL" if "rvl" in message.format.lower() else repr(message.format)
            raise CorruptFrame(
                f"{where}: depth is compressed as {how}, read is PNG: republish the topic in compressedDepth's "
                f"format png, or as raw images"
            )
        raw = images.decode_bytes(data[start:], where, cv2.IMREAD_UNCHANGED)
        if "32FC1" in message.format and start >= 12:  # inverse depth, quantised: 1 / z = (raw - b) / a
            a, b = struct.unpack_from("<ff", data, start - 8)
            return np.where(
                raw > 0, np.float32(a) / np.maximum(raw.astype(np.float32) - np.float32(b), 1e-6), np.float32(0)
            )
    elif message.encoding in DEPTH_ENCODINGS:
        raw = _rows(message, 1, DEPTH_ENCODINGS[message.encoding], where)
    else:
        raise CorruptFrame(f"{where}: encoding {message.encoding}; depth has {', '.join(DEPTH_ENCODINGS)}")
    if raw.dtype == np.uint16:
        return images.depth_of_units(raw, depth_scale)
    depth = raw.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _rows(message: Any, channels: int, kind: str, where: str) -> np.ndarray:
    """The pixels (H, W) or (H, W, channels) of an Image message, whose rows may be padded."""
    order = ">" if message.is_bigendian else "<"
    size = np.dtype(kind).itemsize * channels
    height, width, step = int(message.height), int(message.width), int(message.step)
    step = step or width * size
    if step < width * size or len(message.data) < height * step or height < 1 or width < 1:
        raise CorruptFrame(
            f"{where}: {len(message.data)} bytes are no {message.encoding} image of {width}x{height}", broken_file=True
        )
    rows = np.asarray(message.data)[: height * step].reshape(height, step)[:, : width * size]
    pixels = np.ascontiguousarray(rows).view(order + kind).reshape(height, width, channels)
    pixels = pixels.astype(np.dtype(kind), copy=False)
    return pixels[:, :, 0] if channels == 1 else pixels


def camera_of_info(message: Any, where: str) -> Camera:
    """The camera of a CameraInfo message; ValueError for one that was not calibrated or has a lens of another model."""
    K = np.asarray(message.K if hasattr(message, "K") else message.k, np.float64)
    D = np.asarray(message.D if hasattr(message, "D") else message.d, np.float64)
    if not np.any(K):  # what drivers of cameras write that nobody calibrated
        raise ValueError(
            f"{where}: its CameraInfo is of no calibrated camera (K is 0); give its camera with --camera FILE"
        )
    try:
        fisheye = bool(np.any(D)) and is_fisheye(message.distortion_model)
        if fisheye and not np.any(D[4:]):  # drivers fill the fifth of five with 0
            D = D[:4]
        distortion = tuple(float(d) for d in D) if np.any(D) else None
        return Camera(int(message.width), int(message.height), K[0], K[4], K[2], K[5], distortion, fisheye)
    except ValueError as problem:
        raise ValueError(f"{where}: {problem}") from None


def transform_of(translation: Any, rotation: Any) -> np.ndarray | None:
    """(4, 4) of a message's translation or position and its quaternion; None where that is none."""
    quaternion = np.array([rotation.x, rotation.y, rotation.z, rotation.w], np.float64)
    t = np.array([translation.x, translation.y, translation.z], np.float64)
    if not np.all(np.isfinite([*quaternion, *t])) or not 0.5 < float(np.linalg.norm(quaternion)) < 2:
        return None
    return poses.from_rotation_translation(Rotation.from_quat(quaternion).as_matrix(), t)


class Transforms:
    """The tree of frames that tf messages span, each edge fixed or a trajectory."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}
        self._fixed: dict[str, np.ndarray] = {}  # T_parent_child of the child
        self._moving: dict[str, dict[float, np.ndarray]] = defaultdict(dict)
        self._trajectories: dict[str, Trajectory] = {}

    def add(self, messages: Iterable[Any], fixed: bool) -> None:
        """Take in the transforms of a TFMessage."""
        for stamped in messages:
            T = transform_of(stamped.transform.translation, stamped.transform.rotation)
            if T is None:
                continue
            child = stamped.child_frame_id.lstrip("/")
            self.parent[child] = stamped.header.frame_id.lstrip("/")
            if fixed:
                self._fixed[child] = T
            else:
                self._moving[child][stamp_of(stamped.header)] = T

    def path(self, frame: str) -> list[str]:
        """The frames from one up to its root."""
        chain = [frame]
        while chain[-1] in self.parent and self.parent[chain[-1]] not in chain:
            chain.append(self.parent[chain[-1]])
        return chain

    def moves(self, frame: str) -> bool:
        """Whether any transform between a frame and its root changes with time."""
        return any(len(self._moving[link]) > 1 for link in self.path(frame))

    def at(self, target: str, source: str, time: float = 0.0) -> np.ndarray | None:
        """T_target_source (4, 4) at a time in seconds; None where the tree does not join them then."""
        up, down = self.path(source), self.path(target)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            return None
        sides = []
        for chain in (up, down):
            T = np.eye(4)
            for child in chain[: chain.index(common)]:
                T_parent_child = self._edge(child, time)
                if T_parent_child is None:
                    return None
                T = T_parent_child @ T
            sides.append(T)
        return poses.inverse(sides[1]) @ sides[0]

    def _edge(self, child: str, time: float) -> np.ndarray | None:
        if child in self._fixed:
            return self._fixed[child]
        if child not in self._trajectories:
            times = sorted(self._moving[child])
            self._trajectories[child] = Trajectory(np.array(times), np.stack([self._moving[child][t] for t in times]))
        trajectory = self._trajectories[child]
        if len(trajectory) == 1:  # published once, for ever
            return trajectory.T_world_camera[0]
        return trajectory.at(time, max_gap=TRANSFORM_GAP)


def stamp_of(header: Any) -> float:
    """Seconds of a message's header."""
    stamp = header.stamp
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def header_stamp(data: bytes, ros2: bool) -> float:
    """Seconds of the header at the start of a serialised message, without deserialising it."""
    start = 4  # CDR's encapsulation, or ROS 1's counter
    if len(data) < start + 8:
        return 0.0
    seconds, nanoseconds = struct.unpack_from("<iI" if ros2 else "<II", data, start)
    return seconds + 1e-9 * nanoseconds
