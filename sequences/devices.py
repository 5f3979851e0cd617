"""Which device or data set gives which kind of recording, for people who hold one and ask what to type."""

from __future__ import annotations

from typing import NamedTuple


class Device(NamedTuple):
    """What somebody recorded with, and the sequence to give for it."""

    name: str
    sequence: str  # what stands for SEQUENCE on the command line
    kind: str  # a key of READERS
    tried: (
        str  # on what the reader was tried: 'real' recordings, single 'real frames', 'written' examples of the layout
    )


DEVICES = (
    Device("RealSense, recorded by its viewer or SDK", "NAME.bag", "ros-bag", "written"),
    Device("any camera through ROS 1", "NAME.bag", "ros-bag", "written"),
    Device("any camera through ROS 2", "NAME.mcap, NAME.db3 or the bag's folder", "ros-bag", "written"),
    Device("Azure Kinect, Orbbec Femto", "NAME.mkv", "azure-kinect", "written"),
    Device("ElasticFusion's Logger", "NAME.klg", "klg", "written"),
    Device("Open3D's recorders and reconstruction", "folder with color/, depth/, *.log or *.json", "open3d", "real"),
    Device("iPhone, iPad: Record3D", "NAME.r3d, or its EXR export", "record3d", "written"),
    Device("iPhone, iPad: Stray Scanner", "the scan's folder", "stray-scanner", "written"),
    Device("iPhone, iPad: Polycam, raw data", "export.zip, or its folder", "polycam", "written"),
    Device("any phone or camera: a video", "NAME.mp4 --fov 65", "video", "written"),
    Device("any camera: photographs", "their folder --fov 65", "photos", "written"),
    Device("own files", "folder with color/, depth/, camera.yaml", "folder", "real"),
    Device("TUM RGB-D, Bonn", "folder with rgb.txt, depth.txt", "tum", "real frames"),
    Device("ORB-SLAM's pairs", "folder with associations.txt", "associations", "written"),
    Device("TUM, colour alone", "folder with rgb.txt", "tum-rgb", "written"),
    Device("ETH3D SLAM", "folder with rgb.txt, depth.txt, calibration.txt", "eth3d", "written"),
    Device("7-Scenes", "a sequence's or a scene's folder", "7scenes", "real"),
    Device("ICL-NUIM", "folder with associations.txt", "icl-nuim", "written"),
    Device("NYUv2 raw", "a scene's folder", "nyu-raw", "real frames"),
    Device("NYUv2 raw, as downloaded", "PART.zip/SCENE", "nyu-raw-zip", "written"),
    Device("SUN RGB-D", "a scene's folder", "sun-rgbd", "real frames"),
    Device("ScanNet", "scene0000_00.sens", "scannet-sens", "written"),
    Device("ScanNet, exported", "folder with color/, depth/, pose/, intrinsic/", "scannet", "written"),
    Device("ARKitScenes", "a video's folder", "arkitscenes", "written"),
    Device("Replica, by NICE-SLAM", "a scene's folder, with traj.txt", "replica", "written"),
    Device("Replica, by Semantic-NeRF", "Sequence_1/, with traj_w_c.txt", "semantic-nerf", "written"),
    Device("SceneNet RGB-D", "a trajectory's folder, with photo/", "scenenet", "written"),
    Device("KITTI odometry", "sequences/NN/", "kitti-odometry", "real"),
    Device("KITTI raw", "DATE_drive_NNNN_sync/", "kitti-raw", "written"),
    Device("EuRoC MAV", "folder with mav0/", "euroc", "written"),
    Device("DeepLoc", "its folder --fov DEGREES", "deeploc", "written"),
    Device("SemanticFusion's lists", "the list's file", "png-list", "written"),
    Device("nothing yet", "room", "room", "built in"),
)


def table() -> str:
    """A line for every device: what to give as SEQUENCE, and the kind that it is read as."""
    rows = [(device.name, device.sequence, device.kind) for device in DEVICES]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    head = ("recorded with", "SEQUENCE", "--kind")
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in (head, *rows))
