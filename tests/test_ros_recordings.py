"""Bags of ROS 1 and ROS 2: topics, cameras, clocks and poses find each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from written_recordings import assert_like_the_room, encoded, millimetres, put, room_frames

from semslam import poses
from sequences import CorruptFrame, open_sequence
from sequences.recordings.cameras.ros_messages import T_BODY_CAMERA

pytest.importorskip("rosbags", reason="bags are read by rosbags, which is not installed")

START = 1_600_000_000.0


@pytest.fixture(scope="module")
def frames():
    return room_frames()


class BagWriter:
    """Messages of either ROS, written with few words."""

    def __init__(self, path: Path, ros: int, storage: str = "sqlite3") -> None:
        from rosbags import rosbag1, rosbag2
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.ros = ros
        self.store = get_typestore(Stores.ROS1_NOETIC if ros == 1 else Stores.ROS2_HUMBLE)
        if ros == 1:
            tf = get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage")
            self.store.register(tf)
            self.writer = rosbag1.Writer(path)
        else:
            plugin = rosbag2.StoragePlugin.MCAP if storage == "mcap" else rosbag2.StoragePlugin.SQLITE3
            self.writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
        self.connections: dict = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def type(self, name: str):
        return self.store.types[name]

    def header(self, time: float, frame: str):
        seconds = int(time)
        stamp = self.type("builtin_interfaces/msg/Time")(seconds, round((time - seconds) * 1e9))
        Header = self.type("std_msgs/msg/Header")
        return Header(0, stamp, frame) if self.ros == 1 else Header(stamp, frame)

    def write(self, topic: str, kind: str, time: float, message) -> None:
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        serialize = self.store.serialize_ros1 if self.ros == 1 else self.store.serialize_cdr
        self.writer.write(self.connections[topic], round(time * 1e9), serialize(message, kind))

    def image(self, topic: str, time: float, image: np.ndarray, encoding: str, frame: str) -> None:
        rows = np.ascontiguousarray(image).view(np.uint8).reshape(len(image), -1)
        padded = np.hstack([rows, np.zeros((len(rows), 4), np.uint8)])  # rows may be longer than their pixels
        kind = "sensor_msgs/msg/Image"
        message = self.type(kind)(
            self.header(time, frame), *image.shape[:2], encoding, 0, padded.shape[1], padded.ravel()
        )
        self.write(topic, kind, time + 0.2, message)

    def compressed(self, topic: str, time: float, data: bytes, form: str, frame: str) -> None:
        kind = "sensor_msgs/msg/CompressedImage"
        self.write(topic, kind, time, self.type(kind)(self.header(time, frame), form, np.frombuffer(data, np.uint8)))

    def info(self, topic: str, time: float, camera, frame: str) -> None:
        kind = "sensor_msgs/msg/CameraInfo"
        roi = self.type("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
        K, D = camera.K.ravel(), np.zeros(max(5, len(camera.distortion or ())))
        D[: len(camera.distortion or ())] = camera.distortion or ()
        message = self.type(kind)(
            self.header(time, frame),
            camera.height,
            camera.width,
            "equidistant" if camera.fisheye else "plumb_bob",
            D,
            K,
            np.eye(3).ravel(),
            np.zeros(12),
            0,
            0,
            roi,
        )
        self.write(topic, kind, time, message)

    def transform(self, T: np.ndarray):
        quaternion = self.type("geometry_msgs/msg/Quaternion")(*Rotation.from_matrix(T[:3, :3]).as_quat())
        return self.type("geometry_msgs/msg/Transform")(self.type("geometry_msgs/msg/Vector3")(*T[:3, 3]), quaternion)

    def tf(self, topic: str, time: float, *edges) -> None:
        Stamped = self.type("geometry_msgs/msg/TransformStamped")
        stamped = [Stamped(self.header(time, parent), child, self.transform(T)) for parent, child, T in edges]
        self.write(topic, "tf2_msgs/msg/TFMessage", time, self.type("tf2_msgs/msg/TFMessage")(stamped))

    def odometry(self, topic: str, time: float, T: np.ndarray, child: str) -> None:
        kind = "nav_msgs/msg/Odometry"
        zeros = self.type("geometry_msgs/msg/Vector3")(0.0, 0.0, 0.0)
        point = self.type("geometry_msgs/msg/Point")(*T[:3, 3])
        quaternion = self.type("geometry_msgs/msg/Quaternion")(*Rotation.from_matrix(T[:3, :3]).as_quat())
        pose = self.type("geometry_msgs/msg/Pose")(point, quaternion)
        with_covariance = self.type("geometry_msgs/msg/PoseWithCovariance")(pose, np.zeros(36))
        twist = self.type("geometry_msgs/msg/TwistWithCovariance")(
            self.type("geometry_msgs/msg/Twist")(zeros, zeros), np.zeros(36)
        )
        self.write(topic, kind, time, self.type(kind)(self.header(time, "odom"), child, with_covariance, twist))


OPTICAL = "camera_color_optical_frame"


def write_aligned(bag: BagWriter, frames, infos: bool = True) -> None:
    """As realsense-ros records: colour, depth aligned to it 4 ms later, a fisheye that is neither, a moving robot."""
    T_body_camera = poses.from_rotation_translation(T_BODY_CAMERA[:3, :3], np.array([0.1, 0, 0.3]))
    bag.tf("/tf_static", START, ("base_link", OPTICAL, T_body_camera))
    for i, frame in enumerate(frames):
        time = START + i / 30
        if infos:
            bag.info("/camera/color/camera_info", time, frame.camera, OPTICAL)
            bag.info("/camera/aligned_depth_to_color/camera_info", time, frame.camera, OPTICAL)
        bag.image("/camera/color/image_raw", time, frame.color[..., ::-1], "bgr8", OPTICAL)
        bag.image("/camera/aligned_depth_to_color/image_raw", time + 0.004, millimetres(frame.depth), "16UC1", OPTICAL)
        bag.image("/camera/fisheye1/image_raw", time, frame.color[..., 0], "mono8", "fisheye")
        bag.odometry("/odom", time, frame.T_world_camera @ poses.inverse(T_body_camera), "base_link")


@pytest.mark.parametrize(("ros", "storage"), [(1, ""), (2, "sqlite3"), (2, "mcap")])
def test_aligned_depth_with_odometry(frames, tmp_path, ros, storage):
    path = tmp_path / ("a.bag" if ros == 1 else "a")
    with BagWriter(path, ros, storage) as bag:
        write_aligned(bag, frames)
    inner = [path] if ros == 1 else [path, next(path.glob("*.mcap" if storage == "mcap" else "*.db3"))]
    for place in inner:
        sequence = open_sequence(place)
        assert sequence.camera == frames[0].camera and sequence.sensor == "realsense"
        assert_like_the_room(sequence, frames, color=0.01)
        np.testing.assert_allclose(sequence.timestamps, START + np.arange(4) / 30, atol=1e-6)
        assert [frame.depth_delay for frame in sequence] == pytest.approx([0.004] * 4, abs=1e-6)
        assert (sequence[1].color == sequence[1].color).all() and (sequence[3].depth == sequence[3].depth).all()


def test_colour_images_that_have_no_depth_are_counted(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        for i in range(12):  # a connection that loses two of three depth images
            time, frame = START + i / 30, frames[i % 4]
            bag.info("/camera/color/camera_info", time, frame.camera, OPTICAL)
            bag.image("/camera/color/image_raw", time, frame.color, "rgb8", OPTICAL)
            if i % 3 == 0:
                bag.info("/camera/depth/camera_info", time, frame.camera, OPTICAL)
                bag.image("/camera/depth/image_raw", time, millimetres(frame.depth), "16UC1", OPTICAL)
    sequence = open_sequence(tmp_path / "a.bag")
    assert len(sequence) < 12
    (note,) = [note for note in sequence.assumptions if "of 12 colour images have depth" in note]
    assert f"{len(sequence)} of 12" in note


def test_a_lens_of_fourteen_numbers_is_undistorted(frames, tmp_path):
    camera = replace(frames[0].camera, distortion=(0.1, -0.03, 0.002, -0.001, *[0.01] * 10))
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        bag.info("/camera/rgb/camera_info", START, camera, OPTICAL)
        bag.image("/camera/rgb/image_raw", START, frames[0].color, "rgb8", OPTICAL)
    expected = camera.undistort(frames[0].color)
    np.testing.assert_array_equal(open_sequence(tmp_path / "a.bag")[0].color, expected)


def test_a_camera_that_was_never_calibrated_is_one_line_and_given(frames, tmp_path):
    known = frames[0].camera
    nothing = SimpleNamespace(
        width=known.width, height=known.height, K=np.zeros((3, 3)), distortion=None, fisheye=False
    )
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        bag.info("/camera/rgb/camera_info", START, nothing, OPTICAL)
        bag.image("/camera/rgb/image_raw", START, frames[0].color, "rgb8", OPTICAL)
    with pytest.raises(ValueError, match="/camera/rgb/camera_info: its CameraInfo is of no calibrated camera"):
        open_sequence(tmp_path / "a.bag")
    assert open_sequence(tmp_path / "a.bag", camera=known).camera == known


def test_a_tracking_cameras_fisheye_is_undistorted(frames, tmp_path):
    """As a T265 records: a grey fisheye image, and its model's four numbers followed by a 0."""
    camera = replace(frames[0].camera, distortion=(0.01, -0.003, 0.002, -0.001), fisheye=True)
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        for i, frame in enumerate(frames):
            bag.info("/camera/fisheye1/camera_info", START + i / 30, camera, OPTICAL)
            bag.image("/camera/fisheye1/image_raw", START + i / 30, frame.color[..., 0], "mono8", OPTICAL)
    sequence = open_sequence(tmp_path / "a.bag")
    assert sequence.camera == frames[0].camera
    expected = camera.undistort(np.repeat(frames[2].color[..., :1], 3, axis=2))
    np.testing.assert_array_equal(sequence[2].color, expected)


def test_depth_that_rvl_has_compressed_is_one_line(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        for i, frame in enumerate(frames):
            bag.info("/camera/color/camera_info", START + i / 30, frame.camera, OPTICAL)
            bag.image("/camera/color/image_raw", START + i / 30, frame.color[..., ::-1], "bgr8", OPTICAL)
            topic = "/camera/aligned_depth_to_color/image_raw/compressedDepth"
            bag.compressed(topic, START + i / 30, bytes(40), "16UC1; compressedDepth rvl", OPTICAL)
    with pytest.raises(ValueError, match="depth is compressed as RVL, read is PNG: republish"):
        open_sequence(tmp_path / "a.bag")


def test_tf_moves_the_camera_where_there_is_no_odometry(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        bag.tf("/tf_static", START, ("camera_link", OPTICAL, T_BODY_CAMERA))
        bag.info("/camera/rgb/camera_info", START, frames[0].camera, OPTICAL)
        for i, frame in enumerate(frames):
            time = START + i / 30
            bag.tf("/tf", time, ("world", "camera_link", frame.T_world_camera @ T_BODY_CAMERA.T))
            bag.compressed(
                "/camera/rgb/image_color/compressed",
                time,
                encoded(".jpg", frame.color),
                "rgb8; jpeg compressed bgr8",
                OPTICAL,
            )
            png = bytes(12) + encoded(".png", millimetres(frame.depth))
            bag.compressed(
                "/camera/depth_registered/image/compressedDepth", time, png, "16UC1; compressedDepth", OPTICAL
            )
    assert_like_the_room(open_sequence(tmp_path / "a.bag"), frames)


def test_16_bit_colour_in_compressed_messages_is_reduced_alike(frames, tmp_path):
    """A dark image alone would look as if its camera had 12 bits."""
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        bag.info("/camera/rgb/camera_info", START, frames[0].camera, OPTICAL)
        bright = frames[0].color.astype(np.uint16) * 257
        for i, image in enumerate((bright // 32, bright)):
            png = encoded(".png", image)
            bag.compressed("/camera/rgb/image_color/compressed", START + i / 30, png, "rgb16; png compressed", OPTICAL)
    dark, whole = (frame.color for frame in open_sequence(tmp_path / "a.bag"))
    np.testing.assert_array_equal(whole, frames[0].color)
    assert np.abs(dark.astype(int) - whole // 32).max() <= 1


def write_unaligned(bag: BagWriter, frames, place: bool = True, info: bool = True) -> None:
    """Depth in float metres from a sensor 5 cm beside colour; depth's own images are the room's."""
    for i, frame in enumerate(frames):
        time = START + i / 30
        if place and i == 0:
            T = poses.from_rotation_translation(np.eye(3), np.array([0.05, 0, 0]))
            bag.tf("/tf_static", time, ("rgb_optical", "depth_optical", T))
        if info:
            bag.info("/camera/rgb/camera_info", time, replace(frame.camera, fx=90.0, fy=90.0), "rgb_optical")
            bag.info("/camera/depth/camera_info", time, frame.camera, "depth_optical")
        bag.image("/camera/rgb/image_raw", time, frame.color, "rgb8", "rgb_optical")
        bag.image(
            "/camera/depth/image_raw",
            time,
            np.where(frame.depth > 0, frame.depth, np.float32(np.nan)),
            "32FC1",
            "depth_optical",
        )


def test_depth_of_another_camera_is_registered_by_tf(frames, tmp_path):
    from sequences.recordings.registration import registered_depth

    with BagWriter(tmp_path / "a.bag", 1) as bag:
        write_unaligned(bag, frames)
    sequence = open_sequence(tmp_path / "a.bag")
    T = poses.from_rotation_translation(np.eye(3), np.array([0.05, 0, 0]))
    for read, true in zip(sequence, frames):
        assert np.array_equal(read.depth, registered_depth(true.depth, true.camera, sequence.camera, T))
    assert (sequence[0].depth > 0).mean() > 0.5


def test_what_is_missing_to_register_depth_is_said(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        write_unaligned(bag, frames, place=False)
    with pytest.raises(ValueError, match=r"no transform \(tf_static\) tells how to bring it there.*--registered"):
        open_sequence(tmp_path / "a.bag")
    assert np.array_equal(open_sequence(tmp_path / "a.bag", registered=True)[1].depth, frames[1].depth)


def test_no_camera_info_and_no_topic_are_one_line(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        write_aligned(bag, frames, infos=False)
    with pytest.raises(ValueError, match="has no camera info for /camera/color/image_raw; give its camera"):
        open_sequence(tmp_path / "a.bag")
    assert_like_the_room(open_sequence(tmp_path / "a.bag", camera=frames[0].camera), frames, color=0.01)
    with pytest.raises(ValueError, match=r"has no topic /rgb; it has .*/camera/color/image_raw \(Image\)"):
        open_sequence(tmp_path / "a.bag", color_topic="/rgb")
    with BagWriter(tmp_path / "b.bag", 1) as bag:
        bag.odometry("/odom", START, np.eye(4), "base")
    with pytest.raises(ValueError, match=r"no topic of colour images; its topics are /odom \(Odometry\)"):
        open_sequence(tmp_path / "b.bag")


def test_a_bag_that_is_none_or_is_cut_short_is_one_line(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        write_aligned(bag, frames)
    data = (tmp_path / "a.bag").read_bytes()
    for name, content in (
        ("b.bag", data[: len(data) // 2]),
        ("c.bag", b"#ROSBAG V2.0\n"),
        ("d.mcap", b"x" * 99),
        ("e.db3", b""),
    ):
        put(tmp_path / name, content)
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a bag") as problem:
            open_sequence(tmp_path / name)
        assert "\n" not in str(problem.value)


def test_an_image_shorter_than_it_claims_is_one_corrupt_frame(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        write_aligned(bag, frames)
        message_type = bag.type("sensor_msgs/msg/Image")
        time = START + 1.0
        for topic, encoding in (
            ("/camera/color/image_raw", "bgr8"),
            ("/camera/aligned_depth_to_color/image_raw", "16UC1"),
        ):
            message = message_type(bag.header(time, OPTICAL), 10**6, 10**6, encoding, 0, 10**7, np.zeros(9, np.uint8))
            bag.write(topic, "sensor_msgs/msg/Image", time + 0.2, message)
    sequence = open_sequence(tmp_path / "a.bag")
    assert sequence[3].depth is not None
    with pytest.raises(CorruptFrame, match="9 bytes are no bgr8 image of 1000000x1000000"):
        sequence[4]


def test_realsense_recordings_say_units_and_places(frames, tmp_path):
    with BagWriter(tmp_path / "a.bag", 1) as bag:
        sensor = "/device_0/sensor_{}/{}_0"
        color, depth = sensor.format(1, "Color"), sensor.format(0, "Depth")
        T = poses.from_rotation_translation(np.eye(3), np.array([0.015, 0, 0]))
        bag.write(f"{color}/tf/0", "geometry_msgs/msg/Transform", START, bag.transform(T))
        bag.write(f"{depth}/tf/0", "geometry_msgs/msg/Transform", START, bag.transform(np.eye(4)))  # the reference
        bag.write(
            "/device_0/sensor_0/option/Depth_Units/value",
            "std_msgs/msg/Float32",
            START,
            bag.type("std_msgs/msg/Float32")(0.0005),
        )
        for i, frame in enumerate(frames):
            time = START + i / 30
            bag.info(f"{color}/info/camera_info", time, replace(frame.camera, cx=50.0), "0")
            bag.info(f"{depth}/info/camera_info", time, frame.camera, "0")
            bag.image(f"{color}/image/data", time, frame.color, "rgb8", "0")
            bag.image(f"{depth}/image/data", time, millimetres(frame.depth, 2000), "mono16", "0")
    from sequences.recordings.registration import registered_depth

    sequence = open_sequence(tmp_path / "a.bag")
    expected = registered_depth(frames[2].depth, frames[2].camera, sequence.camera, T)
    assert sequence.camera.cx == 50.0 and sequence.sensor == "realsense"
    assert np.quantile(np.abs(sequence[2].depth - expected), 0.97) < 1e-3


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor behind a Bayer filter of that pattern (its 2x2 pixels by row) sees."""
    out = np.empty(rgb.shape[:2], np.uint8)
    for place, color in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        out[rows, columns] = rgb[rows, columns, "rgb".index(color)]
    return out


def one_of_each(path, frames, color=None, depth=None, info=None, second=False) -> Path:
    """A bag whose images are (encoding, image of a frame), and whose camera info is of another camera."""
    encoding, of_color = color or ("rgb8", lambda frame: frame.color)
    units, of_depth = depth or ("16UC1", lambda frame: millimetres(frame.depth))
    with BagWriter(path, 2, "mcap") as bag:
        for i, frame in enumerate(frames[:2]):
            for camera in ("/a", "/b") if second else ("/a",):
                bag.info(f"{camera}/color/camera_info", START + i / 30, info or frame.camera, OPTICAL)
                bag.image(f"{camera}/color/image_raw", START + i / 30, of_color(frame), encoding, OPTICAL)
                bag.info(f"{camera}/depth/camera_info", START + i / 30, frame.camera, OPTICAL)
                bag.image(f"{camera}/depth/image_raw", START + i / 30, of_depth(frame), units, OPTICAL)
    return path


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_colour_behind_a_bayer_filter_is_read(frames, tmp_path, pattern):
    smooth = [replace(f, color=np.full_like(f.color, (200, 120, 40))) for f in frames]
    bag = one_of_each(tmp_path / "a", smooth, color=(f"bayer_{pattern}8", lambda frame: mosaic(frame.color, pattern)))
    np.testing.assert_array_equal(open_sequence(bag)[1].color, smooth[1].color)


def test_what_a_bag_holds_and_is_not_read_is_said(frames, tmp_path, caplog):
    bytes_of_depth = ("8UC1", lambda frame: (frame.depth * 20).astype(np.uint8))
    assert not open_sequence(one_of_each(tmp_path / "bytes", frames, depth=bytes_of_depth)).has_depth
    assert "/a/depth/image_raw is not read as depth, as it holds 8UC1 (read are 16UC1" in caplog.text
    assert open_sequence(one_of_each(tmp_path / "two", frames, second=True)).has_depth
    assert "several depth cameras; /a/depth/image_raw is read with /a/color/image_raw" in caplog.text
    turned = replace(frames[0].camera, width=frames[0].camera.height, height=frames[0].camera.width)
    with pytest.raises(ValueError, match=r"camera info of /a/color/image_raw is of \d+x\d+ images, and these are"):
        open_sequence(one_of_each(tmp_path / "turned", frames, info=turned))
