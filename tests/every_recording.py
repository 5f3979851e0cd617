"""A written recording of 640x480 for every kind that is read, of the built-in room: what is changed by
`test_hostile_recordings.py` and timed by `benchmarks/readers.py`.

Each is laid out as its LAYOUT says; other tests hold whether the readers understand the real thing. Images are encoded
once and linked into the layouts.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation
from written_recordings import encoded, millimetres, put, write_video

from semslam import poses
from semslam.frame import Frame
from sequences.conversion import write_open3d_folder, write_tum_folder
from sequences.recordings.cameras.klg import write_klg
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence

FLIP = np.diag([1.0, -1, -1, 1])  # a telephone's camera axes


class Written(NamedTuple):
    """A recording, and how it is opened."""

    path: Path
    options: dict[str, Any] = {}  # noqa: RUF012


class Room:
    """Frames of the room, and their images as files to be linked."""

    def __init__(self, count: int, folder: Path) -> None:
        self.sequence = RoomSequence(frames=count)
        self.frames: list[Frame] = list(self.sequence)
        self.camera = self.frames[0].camera
        self._folder = folder

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, what: str, i: int) -> np.ndarray:
        """Frame i's colour, or its depth in the unit, size or encoding that the word says."""
        frame = self.frames[i]
        depth = frame.depth
        assert depth is not None
        if what == "color":
            return frame.color
        if what == "ray":
            return millimetres(np.linalg.norm(frame.camera.backproject(depth), axis=2))
        if what == "small":  # of a lidar
            return millimetres(np.ascontiguousarray(depth[1::3, 1::3]))
        if what == "disparity":  # of the first Kinect
            with np.errstate(divide="ignore"):
                return np.where(depth > 0, np.rint(1092.5 - 351.3 / depth), 2047).astype(np.uint16).byteswap()
        if what == "rotated":
            units = millimetres(depth)
            return (units << 3) | (units >> 13)
        return millimetres(depth, float(what))

    @cache  # noqa: B019
    def bytes_of(self, what: str, i: int, suffix: str) -> bytes:
        """An image file."""
        return encoded(suffix, self.image(what, i))

    def link(self, path: Path, what: str, i: int) -> None:
        """Have an image at a path, in the format of its suffix."""
        original = self._folder / "images" / f"{what}-{i}{path.suffix}"
        if not original.exists():
            put(original, self.bytes_of(what, i, path.suffix))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, path)

    def pose(self, i: int, axes: np.ndarray | None = None) -> np.ndarray:
        """(4, 4) T_world_camera, of a camera with other axes."""
        T = self.frames[i].T_world_camera
        assert T is not None
        return T if axes is None else T @ axes


def _row(T: np.ndarray) -> str:
    return " ".join(f"{x:.9f}" for x in T.ravel()) + "\n"


def _rows(T: np.ndarray) -> str:
    return "".join(_row(row) for row in T)


def _numbers(T: np.ndarray) -> list[float]:
    return [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]


def _K4(room: Room) -> np.ndarray:
    K = np.eye(4)
    K[:3, :3] = room.camera.K
    return K


def tum(room: Room, path: Path) -> Written:
    freiburg = write_tum_folder(room.sequence, path / "rgbd_dataset_freiburg1_room")  # whose lens distorts
    (freiburg / "calibration.txt").unlink()
    return Written(freiburg)


def eth3d(room: Room, path: Path) -> Written:
    return Written(write_tum_folder(room.sequence, path))


def tum_rgb(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        room.link(path / "rgb" / f"{i}.png", "color", i)
    put(path / "rgb.txt", "".join(f"{10 + i / 30:.6f} rgb/{i}.png\n" for i in range(len(room))))
    return Written(path)


def _associated(room: Room, path: Path, line: str) -> Written:
    for i in range(len(room)):
        room.link(path / "rgb" / f"{i}.png", "color", i)
        room.link(path / "depth" / f"{i}.png", "5000", i)
    put(path / "associations.txt", "".join(line.format(i=i, t=10 + i / 30) for i in range(len(room))))
    return Written(path)


def associations(room: Room, path: Path) -> Written:
    return _associated(room, path, "{t:.6f} rgb/{i}.png {t:.6f} depth/{i}.png\n")


def icl_nuim(room: Room, path: Path) -> Written:
    return _associated(room, path / "living_room_traj0_frei_png", "{i} depth/{i}.png {i} rgb/{i}.png\n")


def seven_scenes(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        stem = path / "seq-01" / f"frame-{i:06d}"
        room.link(stem.with_suffix(".color.png"), "color", i)
        room.link(stem.with_suffix(".depth.png"), "1000", i)
        put(stem.with_suffix(".pose.txt"), _rows(room.pose(i)))
    return Written(path / "seq-01")


def png_list(room: Room, path: Path) -> Written:
    lines = []
    for i in range(len(room)):
        room.link(path / "data" / f"{i}depth.png", "1000", i)
        room.link(path / "data" / f"{i}rgb.png", "color", i)
        lines.append(f"{i * 33} data/{i}depth.png data/{i}rgb.png d{i}.pgm r{i}.ppm\n")
    put(path / "list.txt", "".join(lines))
    return Written(path / "list.txt")


def nyu_raw(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        time = f"{1294886360 + i / 30:.6f}-{i}"
        room.link(path / "office_0001" / f"r-{time}.ppm", "color", i)
        room.link(path / "office_0001" / f"d-{time}.pgm", "disparity", i)
    return Written(path / "office_0001")


def nyu_raw_zip(room: Room, path: Path) -> Written:
    scene = nyu_raw(room, path).path
    with zipfile.ZipFile(path / "part.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(scene.iterdir()):
            archive.write(file, f"office_0001/{file.name}")
    return Written(path / "part.zip" / "office_0001")


def sun_rgbd(room: Room, path: Path) -> Written:
    room.link(path / "image" / "0.jpg", "color", 0)
    room.link(path / "depth_bfx" / "0.png", "rotated", 0)
    put(path / "intrinsics.txt", _row(room.camera.K))
    return Written(path)


def kitti_odometry(room: Room, path: Path) -> Written:
    P2 = np.hstack([room.camera.K, np.zeros((3, 1))])
    for i in range(len(room)):
        room.link(path / "04" / "image_2" / f"{i:06d}.png", "color", i)
    put(path / "04" / "calib.txt", f"P2: {_row(P2)}")
    return Written(path / "04")


def kitti_raw(room: Room, path: Path) -> Written:
    drive = path / "2011_09_26_drive_0001_sync"
    stamps = []
    for i in range(len(room)):
        room.link(drive / "image_02" / "data" / f"{i:010d}.png", "color", i)
        stamps.append(f"2011-09-26 13:02:{i:02d}.103000000")
    put(drive / "image_02" / "timestamps.txt", "\n".join(stamps) + "\n")
    P2 = np.hstack([room.camera.K, np.zeros((3, 1))])
    put(path / "calib_cam_to_cam.txt", f"R_rect_00: {_row(np.eye(3))}P_rect_02: {_row(P2)}")
    return Written(drive)


def euroc(room: Room, path: Path) -> Written:
    cam, c = path / "mav0" / "cam0", room.camera
    names = ["#timestamp [ns],filename"]
    for i in range(len(room)):
        tick = 1403636579763555584 + i * 50_000_000
        names.append(f"{tick},{tick}.png")
        room.link(cam / "data" / f"{tick}.png", "color", i)
    put(cam / "data.csv", "\n".join(names))
    sensor = f"resolution: [{c.width}, {c.height}]\nintrinsics: [{c.fx}, {c.fy}, {c.cx}, {c.cy}]\n"
    put(cam / "sensor.yaml", f"{sensor}distortion_model: radtan\ndistortion_coefficients: [-0.28, 0.07, 0.0002, 0.0]\n")
    return Written(path)


def scenenet(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        room.link(path / "photo" / f"{i * 25}.jpg", "color", i)
        room.link(path / "depth" / f"{i * 25}.png", "ray", i)
    return Written(path)


def deeploc(room: Room, path: Path) -> Written:
    lines = ["DeepLoc", "img_name x y z qw qx qy qz"]
    for i in range(len(room)):
        room.link(path / "train" / "LeftImages" / f"Image_{i}.png", "color", i)
        lines.append(f"Image_{i} {i} 0 0 1 0 0 0")
    put(path / "train" / "poses.txt", "\n".join(lines) + "\n")
    return Written(path, {"fov": 70.0})


def scannet_sens(room: Room, path: Path) -> Written:
    from test_dataset_recordings import write_sens

    write_sens(path / "scene0000_00.sens", room.frames)
    return Written(path / "scene0000_00.sens")


def scannet(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        room.link(path / "color" / f"{i}.jpg", "color", i)
        room.link(path / "depth" / f"{i}.png", "1000", i)
        put(path / "pose" / f"{i}.txt", _rows(room.pose(i)))
    put(path / "intrinsic" / "intrinsic_color.txt", _rows(_K4(room)))
    return Written(path)


def replica(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        room.link(path / "room0" / "results" / f"frame{i:06d}.jpg", "color", i)
        room.link(path / "room0" / "results" / f"depth{i:06d}.png", "6553.5", i)
    put(path / "room0" / "traj.txt", "".join(_row(room.pose(i)) for i in range(len(room))))
    c = room.camera
    values = {"fx": c.fx, "fy": c.fy, "cx": c.cx, "cy": c.cy, "w": c.width, "h": c.height, "scale": 6553.5}
    put(path / "cam_params.json", json.dumps({"camera": values}))
    return Written(path / "room0")


def semantic_nerf(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        room.link(path / "rgb" / f"rgb_{i}.png", "color", i)
        room.link(path / "depth" / f"depth_{i}.png", "1000", i)
    put(path / "traj_w_c.txt", "".join(_row(room.pose(i)) for i in range(len(room))))
    return Written(path)


def record3d(room: Room, path: Path) -> Written:
    from test_phone_recordings import record3d_files, write_zip

    path.mkdir()
    files = record3d_files(room.frames)
    files["metadata"] = files["metadata"].replace(b'"dw": 32, "dh": 24', b'"dw": 213, "dh": 160')
    return Written(write_zip(path / "scan.r3d", files))


def stray_scanner(room: Room, path: Path) -> Written:
    path.mkdir()
    write_video(path / "rgb.mp4", room.frames)
    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for i in range(len(room)):
        room.link(path / "depth" / f"{i:06d}.png", "small", i)
        lines.append(f"{77.5 + i / 60:.6f}, {i:06d}, " + ", ".join(f"{x:.9f}" for x in _numbers(room.pose(i))))
    put(path / "odometry.csv", "\n".join(lines) + "\n")
    put(path / "camera_matrix.csv", "\n".join(", ".join(f"{x:.9f}" for x in row) for row in room.camera.K) + "\n")
    return Written(path)


def polycam(room: Room, path: Path) -> Written:
    keyframes = path / "keyframes"
    for i in range(len(room)):
        name, T, c = 88_000_000 + 500_000 * i, room.pose(i, FLIP), room.camera
        values = {key: getattr(c, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
        values |= {f"t_{r}{k}": T[r, k] for r in range(3) for k in range(4)}
        room.link(keyframes / "corrected_images" / f"{name}.jpg", "color", i)
        room.link(keyframes / "depth" / f"{name}.png", "small", i)
        put(keyframes / "corrected_cameras" / f"{name}.json", json.dumps(values))
    return Written(path)


def arkitscenes(room: Room, path: Path) -> Written:
    path, c, lines = path / "47333462", room.camera, []
    for i in range(len(room)):
        t = 100 + i / 10
        room.link(path / "lowres_wide" / f"47333462_{t:.3f}.png", "color", i)
        room.link(path / "lowres_depth" / f"47333462_{t:.3f}.png", "1000", i)
        put(path / "lowres_wide_intrinsics" / f"47333462_{t:.3f}.pincam",
            f"{c.width} {c.height} {c.fx} {c.fy} {c.cx} {c.cy}")  # fmt: skip
        T = poses.inverse(room.pose(i))
        turned = Rotation.from_matrix(T[:3, :3]).as_rotvec()
        lines.append(f"{t:.6f} " + " ".join(f"{x:.9f}" for x in (*turned, *T[:3, 3])))
    put(path / "lowres_wide.traj", "\n".join(lines))
    return Written(path)


def _bag(room: Room, path: Path, ros: int, storage: str = "") -> Written:
    from test_ros_recordings import BagWriter, write_aligned

    with BagWriter(path, ros, storage) as bag:
        write_aligned(bag, room.frames)
    return Written(path)


def ros_1_bag(room: Room, path: Path) -> Written:
    path.mkdir()
    return _bag(room, path / "aligned.bag", 1)


def ros_2_mcap(room: Room, path: Path) -> Written:
    return _bag(room, path, 2, "mcap")


def ros_2_sqlite(room: Room, path: Path) -> Written:
    return _bag(room, path, 2, "sqlite3")


def azure_kinect(room: Room, path: Path) -> Written:
    """Colour of 1280x720, its smallest; depth of its own size."""
    from test_azure_kinect import element, kinect_block, kinect_cameras, kinect_file, number

    color = encoded(".jpg", np.ascontiguousarray(np.kron(room.image("color", 0), np.ones((2, 2, 1), np.uint8))[:720]))
    wall = np.full((288, 320), 2000, ">u2").tobytes()
    clusters = b""
    for i in range(len(room)):
        blocks = number(0xE7, 33 * i) + kinect_block(1, 0, color) + kinect_block(2, 0, wall)
        clusters += element(0x1F43B675, blocks)
    put(path / "kinect.mkv", kinect_file(clusters, kinect_cameras(np.eye(4))[2]))
    return Written(path / "kinect.mkv")


def klg(room: Room, path: Path) -> Written:
    path.mkdir()
    return Written(write_klg(room.sequence, path / "room.klg"))


def video(room: Room, path: Path) -> Written:
    path.mkdir()
    write_video(path / "clip.mp4", room.frames)
    return Written(path / "clip.mp4", {"fov": 60.0})


def photos(room: Room, path: Path) -> Written:
    for i in range(len(room)):
        room.link(path / f"{i}.jpg", "color", i)
    return Written(path, {"fov": 60.0})


def open3d(room: Room, path: Path) -> Written:
    return Written(write_open3d_folder(room.sequence, path))


def folder(room: Room, path: Path) -> Written:
    return Written(write_folder(room.sequence, path))


def builtin(room: Room, path: Path) -> Written:
    return Written(Path(f"room:frames={len(room)}"))


# by the keys of READERS, with what tells several of one kind apart
EVERY: dict[str, Callable[[Room, Path], Written]] = {
    "folder": folder, "tum": tum, "eth3d": eth3d, "tum-rgb": tum_rgb, "associations": associations,
    "7scenes": seven_scenes, "icl-nuim": icl_nuim, "png-list": png_list, "open3d": open3d, "nyu-raw": nyu_raw,
    "nyu-raw-zip": nyu_raw_zip, "sun-rgbd": sun_rgbd, "kitti-odometry": kitti_odometry, "kitti-raw": kitti_raw,
    "euroc": euroc, "scenenet": scenenet, "deeploc": deeploc, "scannet-sens": scannet_sens, "scannet": scannet,
    "replica": replica, "semantic-nerf": semantic_nerf, "record3d": record3d, "stray-scanner": stray_scanner,
    "polycam": polycam, "arkitscenes": arkitscenes, "ros-bag": ros_1_bag, "ros-bag, mcap": ros_2_mcap,
    "ros-bag, sqlite": ros_2_sqlite, "azure-kinect": azure_kinect, "klg": klg, "video": video, "photos": photos,
    "room": builtin,
}  # fmt: skip
