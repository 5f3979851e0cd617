"""Bags of ROS 1 (.bag, RealSense's too) and ROS 2 (.mcap, .db3, a bag's folder), read by `rosbags` without ROS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam import images, poses
from semslam.camera import Camera
from semslam.trajectory import Trajectory, associate
from sequences.pairing import depth_delays
from sequences.pose_pairing import FramePoses, poses_at
from sequences.recordings.cameras import ros_messages as ros
from sequences.recordings.cameras.bag_messages import Topic, opened
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "NAME.bag (ROS 1, RealSense), NAME.mcap, NAME.db3, or a ROS 2 bag's folder with metadata.yaml"
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
POSE_TYPES = ("nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped")
TF_TYPE = "tf2_msgs/msg/TFMessage"
NOT_COLOR = ("infra", "/ir/", "ir_", "fisheye", "confidence", "mask", "disparity")
OTHER_SHAPE = 0.02  # logarithm of the ratio of two shapes: more than rounding makes


def fits(path: Path) -> bool:
    if path.is_dir():
        return (path / "metadata.yaml").is_file() and (any(path.glob("*.mcap*")) or any(path.glob("*.db3*")))
    return path.is_file() and path.suffix.lower() in (".bag", ".mcap", ".db3")


@dataclass(frozen=True)
class Topics:
    """Which topics of a bag make the sequence."""

    color: str
    depth: str | None
    pose: str | None  # of odometry or poses; None: tf, where it moves the camera
    notes: tuple[str, ...] = ()  # what is not read, for people


def open_ros_bag(
    path: str | Path,
    *,
    depth_scale: float | None = None,
    camera: Camera | None = None,
    registered: bool | None = None,
    color_topic: str | None = None,
    depth_topic: str | None = None,
    pose_topic: str | None = None,
) -> DecodedSequence:
    """Open a bag: colour with the nearest depth in time, cameras from CameraInfo, poses from odometry, poses or tf.

    Topics are told from their types and names; those given replace them. `registered` says that depth lies under
    colour's pixels (True) or not (False); None: as topics and cameras say. Depth of another camera is registered by
    the transform that tf or a RealSense recording holds. depth_scale: 16-bit units per metre; None = the recording's
    or 1000.
    """
    path = Path(path)
    with opened(path) as bag:
        topics = _chosen(bag, path, color_topic, depth_topic, pose_topic)
        color_info, color_frame = _camera(bag, topics.color, given=camera is not None)
        depth_info, depth_frame = (
            (None, "") if topics.depth is None else _camera(bag, topics.depth, given=registered is True)
        )
        units = depth_scale or _depth_units(bag) or 1000.0
        sensor = _sensor(bag, topics)
        index = _indexed(bag, topics)
        T_color_depth = None if topics.depth is None else _extrinsics(bag, index.tree, topics, color_frame, depth_frame)
    color = Topic(path, topics.color, index.messages[topics.color])
    depth = None if topics.depth is None else Topic(path, topics.depth, index.messages[topics.depth])
    first = ros.color_image(color.message(0), f"{path}: {topics.color}")
    color_camera = _color_camera(path, topics, first.shape[:2], camera, color_info)
    rig = Rig(color_camera)
    times, of_color, of_depth = color.timestamps, np.arange(len(color.timestamps)), None
    notes, delays = topics.notes, None
    if depth is not None:
        shape = ros.depth_image(depth.message(0), units, f"{path}: {topics.depth}").shape
        rig = _rig(path, topics, color_camera, depth_info, shape, T_color_depth, registered)
        of_color, of_depth = _paired(path, topics, color.timestamps, depth.timestamps)
        times = color.timestamps[of_color]
        if color.of_sensor and depth.of_sensor:  # times of arrival tell of the transport
            delays = depth_delays(times, depth.timestamps[of_depth])
        for stream, name, lacks in ((color, "colour", "depth"), (depth, "depth", "colour")):
            if len(of_color) < 0.9 * len(stream.timestamps):
                notes += (
                    f"{path}: {len(of_color)} of {len(stream.timestamps)} {name} images have {lacks} at their time; "
                    "the others are left out",
                )
    found = _camera_poses(index, f"{path}: {topics.pose}", color_frame, times)
    return DecodedSequence(
        name=path.stem,
        rig=rig,
        timestamps=times,
        read=partial(_read, color, depth, (of_color, of_depth), units, _color_reader(color)),
        poses=found.T_world_camera or None,
        assumptions=(*notes, *found.notes),
        depth_delays=delays,
        sensor=sensor,
    )


def _color_camera(
    path: Path, topics: Topics, shape: tuple[int, int], given: Camera | None, info: Camera | None
) -> Camera:
    """The camera of colour images of a shape (height, width): one that a person names, else what the bag says, resized
    to them. ValueError where there is neither, or the bag's is of images of another shape."""
    camera = given or info
    if camera is None:
        raise ValueError(f"{path}: has no camera info for {topics.color}; give its camera with --camera FILE")
    height, width = shape
    if camera.shape == shape:
        return camera
    ratio = width / height * camera.height / camera.width
    if given is None and abs(np.log(ratio)) > OTHER_SHAPE:
        raise ValueError(
            f"{path}: the camera info of {topics.color} is of {camera.width}x{camera.height} images, and these are "
            f"{width}x{height}; give their camera with --camera FILE"
        )
    return camera.resized(width, height)


def _color_reader(color: Topic) -> images.ColorReader:
    """Reads the image files of a topic's compressed messages; 16-bit colour is reduced alike in all of them."""
    numbers = {color.path / str(i): i for i in range(len(color.timestamps))}
    return images.ColorReader(tuple(numbers), read=lambda path: color.message(numbers[path]).data.tobytes())


def _read(
    color: Topic,
    depth: Topic | None,
    pairs: tuple[np.ndarray, np.ndarray | None],
    units: float,
    reader: images.ColorReader,
    index: int,
) -> Images:
    of_color, of_depth = pairs
    where = f"{color.path}: {color.name}, frame {index}"
    image = ros.color_image(color.message(int(of_color[index])), where, reader.of_bytes)
    if depth is None or of_depth is None:
        return Images(image)
    where = f"{depth.path}: {depth.name}, frame {index}"
    return Images(image, ros.depth_image(depth.message(int(of_depth[index])), units, where))


def _first(bag: Any, topic: str) -> Any:
    connections = [c for c in bag.connections if c.topic == topic]
    for connection, _, data in bag.messages(connections=connections):
        return bag.deserialize(data, connection.msgtype)
    raise ValueError(
        f"{topic} should have {sum(c.msgcount for c in connections)} messages and holds none; it is damaged"
    )


class Index(NamedTuple):
    """What one pass over a bag finds."""

    messages: dict[str, list[tuple[int, float]]]  # of the image topics: time of recording (ns), stamp (s)
    tree: ros.Transforms
    odometry: Trajectory | None
    body: str  # the frame whose poses odometry holds, '' where it does not say


def _indexed(bag: Any, topics: Topics) -> Index:
    """Read the bag once: when images come, and what moves. Images are not decoded."""
    tree, found, body = ros.Transforms(), {}, ""
    messages: dict[str, list[tuple[int, float]]] = {name: [] for name in (topics.color, topics.depth) if name}
    wanted = {*messages, *_of_type(bag, TF_TYPE), *([topics.pose] if topics.pose else [])}
    for connection, time, data in bag.messages(connections=[c for c in bag.connections if c.topic in wanted]):
        if connection.topic in messages:
            messages[connection.topic].append((time, ros.header_stamp(data, bag.is2)))
            continue
        message = bag.deserialize(data, connection.msgtype)
        if connection.msgtype == TF_TYPE:
            tree.add(message.transforms, fixed="static" in connection.topic)
            continue
        body = getattr(message, "child_frame_id", "").lstrip("/")
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        T = ros.transform_of(pose.position, pose.orientation)
        if T is not None:
            found[ros.stamp_of(message.header)] = T
    times = sorted(found)
    odometry = Trajectory(np.array(times), np.stack([found[t] for t in times])) if times else None
    return Index(messages, tree, odometry, body)


def _of_type(bag: Any, *kinds: str) -> list[str]:
    return sorted({c.topic for c in bag.connections if c.msgtype in kinds and c.msgcount})


def _chosen(bag: Any, path: Path, color: str | None, depth: str | None, pose: str | None) -> Topics:
    there = _of_type(bag, *IMAGE_TYPES)
    listing = ", ".join(f"{c.topic} ({c.msgtype.rpartition('/')[2]})" for c in bag.connections) or "none"
    for name in (color, depth, pose):
        if name is not None and name not in {c.topic for c in bag.connections}:
            raise ValueError(f"{path}: has no topic {name}; it has {listing}")
    firsts = {t: _first(bag, t) for t in there}
    unread = {t: m.encoding for t, m in firsts.items() if "depth" in t.lower() and ros.is_other_depth(m)}
    there = [t for t in there if t not in unread]
    depths = [t for t in there if ros.is_depth(firsts[t]) and not any(word in t.lower() for word in NOT_COLOR)]
    colors = [t for t in there if t not in depths and not any(word in t.lower() for word in NOT_COLOR)]
    colors = colors or [t for t in there if t not in depths]
    if color is None and not colors:
        raise ValueError(f"{path}: has no topic of colour images; its topics are {listing}")
    color = color or max(colors, key=lambda t: ("color" in t.lower() or "rgb" in t.lower(), "rect" in t, -len(t)))
    if depth is None and depths:
        aligned = ("aligned", "depth_registered", "depth_to_color", "/registered")
        depth = max(depths, key=lambda t: (any(word in t for word in aligned), _shared_start(t, color), -len(t)))
    odometries = [t for kind in POSE_TYPES for t in _of_type(bag, kind)]
    notes = [
        f"{path}: {topic} is not read as depth, as it holds {encoding} (read are {', '.join(ros.DEPTH_ENCODINGS)})"
        for topic, encoding in (unread.items() if depth is None else ())
    ]
    if depth is not None and len({t.split("/")[1] for t in depths if "/" in t}) > 1:
        others = ", ".join(t for t in depths if t != depth)
        notes.append(f"{path}: has several depth cameras; {depth} is read with {color}, and these are not: {others}")
    return Topics(color, depth, pose or (odometries[0] if odometries else None), tuple(notes))


def _shared_start(a: str, b: str) -> int:
    """How many parts two topics' names have in common from the left."""
    parts = zip(a.split("/"), b.split("/"))
    return next((i for i, (x, y) in enumerate(parts) if x != y), min(a.count("/"), b.count("/")) + 1)


def _camera(bag: Any, topic: str, given: bool) -> tuple[Camera | None, str]:
    """The camera of the CameraInfo that belongs to an image topic, and the frame that the images are in.

    given: the camera is known from elsewhere; a driver that was never calibrated says nothing of use.
    """
    frame = getattr(getattr(_first(bag, topic), "header", None), "frame_id", "").lstrip("/")
    infos = _of_type(bag, INFO_TYPE)
    near = [t for t in infos if topic.startswith(re.sub(r"(/info)?/camera_info$", "/", t))]
    if not near and len(infos) == 1:
        near = infos
    if not near:
        return None, frame
    chosen = max(near, key=len)
    message = _first(bag, chosen)
    camera = None if given else ros.camera_of_info(message, chosen)
    return camera, frame or message.header.frame_id.lstrip("/")


def _sensor(bag: Any, topics: Topics) -> str | None:
    """The key of `semslam.camera.SENSORS` of the depth camera, as the usual names of its driver's topics tell it."""
    name = (topics.depth or "").lower()
    if any(word in name for word in ("kinect2", "azure", "k4a", "depth_to_rgb", "l515")):
        return "tof"
    if "realsense" in name or "aligned_depth_to_color" in name:
        return "realsense"
    if not name.startswith("/device_"):
        return None
    # a RealSense recording says which camera it is of, as messages of a key and a value
    infos = [c for c in bag.connections if c.topic.endswith("/info") and c.msgtype.endswith("/KeyValue")]
    values = [bag.deserialize(data, c.msgtype).value for c, _, data in bag.messages(connections=infos)] if infos else []
    return "tof" if any("L515" in value for value in values) else "realsense"


def _depth_units(bag: Any) -> float | None:
    """Units a metre as a RealSense recording says them."""
    for topic in _of_type(bag, "std_msgs/msg/Float32"):
        if topic.endswith(("/option/Depth Units/value", "/option/Depth_Units/value")):
            value = float(_first(bag, topic).data)
            return 1 / value if 1e-6 < value < 1 else None
    return None


def _extrinsics(
    bag: Any, tree: ros.Transforms, topics: Topics, color_frame: str, depth_frame: str
) -> np.ndarray | None:
    """T_color_depth (4, 4) from tf, or from the transforms of a RealSense recording; None where nothing says it."""
    assert topics.depth is not None
    if color_frame and depth_frame and color_frame != depth_frame:
        T = tree.at(color_frame, depth_frame)
        if T is not None:
            return T
    of_reference = {}  # T_stream_reference: a RealSense recording says how to reach each stream from one of them
    for name, topic in (("color", topics.color), ("depth", topics.depth)):
        stream = topic.rpartition("/image/")[0]
        for candidate in _of_type(bag, "geometry_msgs/msg/Transform"):
            if stream and candidate.startswith(f"{stream}/tf/"):
                message = _first(bag, candidate)
                of_reference[name] = ros.transform_of(message.translation, message.rotation)
    color, depth = of_reference.get("color"), of_reference.get("depth")
    return None if color is None or depth is None else color @ poses.inverse(depth)


def _rig(
    path: Path,
    topics: Topics,
    color: Camera,
    depth: Camera | None,
    shape: tuple[int, ...],
    T_color_depth: np.ndarray | None,
    registered: bool | None,
) -> Rig:
    """The cameras of colour and depth (h, w), with depth's own place where it is not registered."""
    same = color.undistorted().resized(shape[1], shape[0])
    name = (topics.depth or "").lower()
    if registered is None:
        registered = "aligned" in name or "registered" in name or "depth_to_color" in name or depth is None
        registered = registered or (depth is not None and np.allclose(depth.K, same.K, rtol=2e-3))
    if registered:
        return Rig(color, same)
    if depth is None or T_color_depth is None:
        raise ValueError(
            f"{path}: {topics.depth} comes from another camera than {topics.color}, and no "
            f"{'camera info' if depth is None else 'transform (tf_static)'} tells how to bring it there; record depth "
            f"aligned to colour, or say --registered if it is"
        )
    return Rig(color, depth.resized(shape[1], shape[0]), T_color_depth)


def _paired(path: Path, topics: Topics, color: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays of colour and depth images that belong together: nearest in time, within half a depth frame."""
    step = float(np.median(np.diff(depth))) if len(depth) > 1 else 0.1
    of_color, of_depth = associate(color, depth, min(max(0.02, 0.55 * step), 0.1))
    if len(of_color) == 0:
        raise ValueError(
            f"{path}: no image of {topics.color} has depth of {topics.depth} at its time; the clocks start at "
            f"{color[0]:.3f} and {depth[0]:.3f} s"
        )
    return of_color, of_depth


def _camera_poses(index: Index, source: str, camera_frame: str, times: np.ndarray) -> FramePoses:
    """T_world_camera at each time, from odometry or else from tf; none at all where neither moves the camera.

    source: what odometry came from, for people.
    """
    truth, body, tree = index.odometry, index.body, index.tree
    if truth is not None:
        notes: tuple[str, ...] = ()
        T_body_camera = tree.at(body, camera_frame) if body and camera_frame else None
        if T_body_camera is None:
            optical = "optical" in body or not body
            T_body_camera = np.eye(4) if optical else ros.T_BODY_CAMERA
            axes = "the same axes" if optical else "its axes turned from x forward, z up"
            notes = (
                f"{source}: no transform leads from {body!r} to the camera, which is taken to sit there, with {axes}",
            )
        try:
            found = poses_at(Trajectory(truth.timestamps, truth.T_world_camera @ T_body_camera), source, times)
        except ValueError as problem:  # the images are still worth having
            return FramePoses((), (str(problem),))
        return FramePoses(found.T_world_camera, (*notes, *found.notes))
    if camera_frame and tree.moves(camera_frame):
        root = tree.path(camera_frame)[-1]
        return FramePoses(tuple(tree.at(root, camera_frame, float(t)) for t in times), ())
    return FramePoses((), ())
