"""Recordings as frames: `open_sequence(path)` knows a layout by what lies in the folder.

Adding a reader is a file with `fits(path)` and an `open_...` function, and a line in READERS.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import signature
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from semslam.camera import USUAL_FOV, Camera, same_aspect
from semslam.images import COLOR_SUFFIXES
from sequences.files import files_of_many_frames
from sequences.pose_pairing import NO_POSE
from sequences.recordings import folder, icl_nuim, nyu_raw, open3d_folder, png_list, seven_scenes, tum
from sequences.recordings.camera_file import read_camera_file
from sequences.recordings.cameras import azure_kinect, klg, photos, ros_bag, video
from sequences.recordings.datasets import (
    deeploc,
    euroc,
    kitti_odometry,
    kitti_raw,
    nyu_raw_zip,
    replica,
    scannet_folder,
    scannet_sens,
    scenenet,
    sun_rgbd,
    tum_rgb,
)
from sequences.recordings.phones import arkitscenes, polycam, record3d, stray_scanner
from sequences.recordings.sensor import SaidOfSensor
from sequences.room import room
from sequences.sequence import CorruptFrame, ImageSequence, Mesh, Sequence

__all__ = [
    "READERS",
    "CorruptFrame",
    "ImageSequence",
    "Mesh",
    "Reader",
    "Sequence",
    "open_sequence",
    "options_of",
]

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
LEAST_SIDE = 16  # pixels: smaller images show nothing that could be tracked
MOST_LOOKED_AT = 50  # entries of a folder that may be recordings


class Reader(NamedTuple):
    """How one kind of recording is told apart and opened."""

    open: Callable[..., Sequence]  # (path, *, said=NOTHING_SAID, ...), or the options one by one
    fits: Callable[[Path], bool]  # whether a path looks like this kind
    layout: str  # what lies in it, for people
    fixed: tuple[str, ...] = ()  # fields of `SaidOfSensor` that the recordings fix, where the reader takes the others
    sensor: str | None = None  # the key of `semslam.camera.SENSORS` of the depth camera that all such recordings have


READERS: dict[str, Reader] = {
    "room": Reader(room.open_room, room.fits, room.LAYOUT),
    "eth3d": Reader(tum.open_eth3d, tum.fits_eth3d, tum.ETH3D_LAYOUT),  # before tum, as which it is laid out
    "tum": Reader(tum.open_tum, tum.fits, tum.LAYOUT),
    "tum-rgb": Reader(tum_rgb.open_tum_rgb, tum_rgb.fits, tum_rgb.LAYOUT),
    "7scenes": Reader(seven_scenes.open_seven_scenes, seven_scenes.fits, seven_scenes.LAYOUT),
    "icl-nuim": Reader(icl_nuim.open_icl_nuim, icl_nuim.fits, icl_nuim.LAYOUT),
    "associations": Reader(tum.open_associations, tum.fits_associations, tum.ASSOCIATIONS_LAYOUT),
    "png-list": Reader(png_list.open_png_list, png_list.fits, png_list.LAYOUT),
    "open3d": Reader(open3d_folder.open_open3d, open3d_folder.fits, open3d_folder.LAYOUT),
    "nyu-raw": Reader(nyu_raw.open_nyu_raw, nyu_raw.fits, nyu_raw.LAYOUT),
    "sun-rgbd": Reader(sun_rgbd.open_sun_rgbd, sun_rgbd.fits, sun_rgbd.LAYOUT, fixed=("depth_scale",)),
    "kitti-odometry": Reader(kitti_odometry.open_kitti_odometry, kitti_odometry.fits, kitti_odometry.LAYOUT),
    "kitti-raw": Reader(kitti_raw.open_kitti_raw, kitti_raw.fits, kitti_raw.LAYOUT),
    "euroc": Reader(euroc.open_euroc, euroc.fits, euroc.LAYOUT),
    "scenenet": Reader(scenenet.open_scenenet, scenenet.fits, scenenet.LAYOUT),
    "deeploc": Reader(deeploc.open_deeploc_sequence, deeploc.fits, deeploc.LAYOUT),
    "nyu-raw-zip": Reader(nyu_raw_zip.open_nyu_raw_zip, nyu_raw_zip.fits, nyu_raw_zip.LAYOUT),
    "scannet-sens": Reader(scannet_sens.open_scannet_sens, scannet_sens.fits, scannet_sens.LAYOUT),
    "scannet": Reader(scannet_folder.open_scannet_folder, scannet_folder.fits, scannet_folder.LAYOUT),
    "replica": Reader(replica.open_nice_slam, replica.fits_nice_slam, replica.NICE_SLAM_LAYOUT),
    "semantic-nerf": Reader(replica.open_semantic_nerf, replica.fits_semantic_nerf, replica.SEMANTIC_NERF_LAYOUT),
    "record3d": Reader(record3d.open_record3d, record3d.fits, record3d.LAYOUT, sensor="lidar"),
    "stray-scanner": Reader(stray_scanner.open_stray_scanner, stray_scanner.fits, stray_scanner.LAYOUT, sensor="lidar"),
    "polycam": Reader(polycam.open_polycam, polycam.fits, polycam.LAYOUT, sensor="lidar"),
    "arkitscenes": Reader(arkitscenes.open_arkitscenes, arkitscenes.fits, arkitscenes.LAYOUT, sensor="lidar"),
    "ros-bag": Reader(ros_bag.open_ros_bag, ros_bag.fits, ros_bag.LAYOUT),
    "azure-kinect": Reader(azure_kinect.open_azure_kinect, azure_kinect.fits, azure_kinect.LAYOUT, sensor="tof"),
    "klg": Reader(klg.open_klg, klg.fits, klg.LAYOUT),
    "video": Reader(video.open_video, video.fits, video.LAYOUT),
    "photos": Reader(photos.open_photos, photos.fits, photos.LAYOUT),
    # The plain folder last: it claims everything with a color/, to say what else it needs.
    "folder": Reader(folder.open_folder, folder.fits, folder.LAYOUT),
}


def open_sequence(
    path: str | Path, kind: str | None = None, stand_in: Camera | None = None, **options: Any
) -> Sequence:
    """Open a recording; its kind, a key of READERS, is told from what lies in the folder where not given.

    stand_in: the likely camera of images that nothing else describes, by their longer side where their shape is not
    its own; without one a usual one is guessed, and a warning says so. Either guess has `focal_known` False.

    Options, of which None is none: `camera` (or a camera.yaml that says it), `depth_scale` (units per metre),
    `registered` (whether depth lies under colour's pixels), `hints` (a `PoseHints`, for poses without times), and what
    a kind has of its own. They replace what a camera.yaml beside the recording says, and that replaces what the layout
    usually holds.
    FileNotFoundError where there is nothing, ValueError where no frame could be right or the kind has no such option,
    TypeError where `path` is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a recording is named by a text or a path, not by {path!r}; the built-in one is 'room'")
    options = {name: value for name, value in options.items() if value is not None}
    scale, camera = options.get("depth_scale", 1.0), options.get("camera")
    if isinstance(scale, bool) or not isinstance(scale, Real) or not 0 < float(scale) < math.inf:
        raise ValueError(f"--depth-scale is {scale}, expected a positive number of units per metre")
    if not isinstance(camera, Camera | str | os.PathLike | None):
        raise TypeError(f"`camera` is {type(camera).__name__}, expected a semslam.camera.Camera or its file")
    if not str(path):
        raise ValueError("the recording's name is empty; give a folder, a file, or 'room' for the built-in one")
    path = Path(path)
    if kind is None:
        kind = detect_kind(path)
    elif kind not in READERS:
        raise ValueError(f"unknown kind of sequence '{kind}'; known are {', '.join(READERS)}")
    options, sensor, readout = _with_camera_files(kind, path, options)
    sequence = _opened(kind, path, options)
    if stand_in is not None and not sequence.camera.focal_known:
        sequence = _opened(kind, path, options | {"camera": _standing_in(stand_in, sequence.camera)})
    if min(sequence.camera.shape) < LEAST_SIDE:
        size = f"{sequence.camera.width}x{sequence.camera.height}"
        raise ValueError(f"{path}: its images are {size}, expected at least {LEAST_SIDE} pixels each way")
    if not sequence.size_of(0):  # frames with files of their own are told apart by those, whatever lies beside them
        sequence.packed_in = files_of_many_frames(path)
    sequence.sensor = sensor or sequence.sensor or READERS[kind].sensor
    if readout is not None:
        sequence.readout = readout
    _tell_assumptions(path, sequence, stand_in is not None)
    return sequence


def _standing_in(stand_in: Camera, images: Camera) -> Camera:
    """The camera that is guessed for images of a size, by the one that is likely theirs."""
    if same_aspect(stand_in.shape, images.shape):
        return replace(stand_in, focal_known=False)
    focal = stand_in.fx * max(images.shape) / max(stand_in.shape)
    return replace(images, fx=focal, fy=focal)


def options_of(kind: str) -> frozenset[str]:
    """The options that the reader of a kind takes, by name; of those that it does not, recordings fix their own."""
    parameters = signature(READERS[kind].open).parameters
    names = {name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    if "said" in names:
        names = names - {"said"} | {*SaidOfSensor._fields}
    return frozenset(names - {*READERS[kind].fixed})


def _with_camera_files(
    kind: str, path: Path, options: dict[str, Any]
) -> tuple[dict[str, Any], str | None, float | None]:
    """The options, completed by the camera.yaml that they name and by the one beside the recording, and the kind of
    depth camera and the readout that these files name.

    ValueError for an option that the kind of recording does not have.
    """
    own = options_of(kind)
    beside = (path if path.is_dir() else path.parent) / "camera.yaml"
    if "fov" in options and _says_a_camera(options.get("camera")):
        raise ValueError("--camera and --fov both say what the images show; give one of them")
    if "fov" in options and "fov" not in own and "camera" in own - {*options} and not beside.is_file():
        recorded = _opened(kind, path, {name: options[name] for name in options if name in own}).camera
        if not recorded.focal_known:
            options = options | {"camera": Camera.of_fov(recorded.width, recorded.height, options["fov"])}
            del options["fov"]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature(READERS[kind].open).parameters.values())
    for name in options:
        if name not in own and not takes_all:
            what = "times of poses (--pose-rate, --pose-indices)" if name == "hints" else name
            raise ValueError(f"{path}: a recording of kind {kind} fixes its own {what}; leave that option out")
    files = [beside] if beside.is_file() and own else []
    if isinstance(options.get("camera"), str | Path):
        files.insert(0, Path(options["camera"]))
        options = {name: value for name, value in options.items() if name != "camera"}
    sensor: str | None = None
    readout: float | None = None
    for file in files:
        found = read_camera_file(file)
        sensor = sensor or found.sensor
        readout = found.readout if readout is None else readout
        if unused := [name for name in found.options if name not in own]:
            logger.warning(
                "%s: a recording of kind %s fixes its own %s; this file's is not used", file, kind, ", ".join(unused)
            )
        options = {name: value for name, value in found.options.items() if name in own} | options
    return options, sensor, readout


def _says_a_camera(camera: Camera | str | Path | None) -> bool:
    """Whether a camera is given, or a file that says its intrinsics."""
    if camera is None or isinstance(camera, Camera):
        return camera is not None
    return "camera" in read_camera_file(Path(camera)).options


def _tell_assumptions(path: Path, sequence: Sequence, stood_in: bool) -> None:
    """Warn of what is taken for granted, and of frames without a pose and, if none stands in, an unknown camera."""
    unposed = sum(T is None for T in sequence.poses or ())
    if unposed and not any(NO_POSE in line for line in sequence.assumptions):  # which pairing says with its reasons
        sequence.assumptions += (f"{path}: {unposed} of {len(sequence)} {NO_POSE}",)
    for line in sequence.assumptions:
        logger.warning("%s", line)
    if not sequence.camera.focal_known and not stood_in:
        logger.warning(
            "%s: nothing says what camera took it (camera.yaml, EXIF or --fov); %.0f degrees along the longer side of "
            "its images are assumed, unless `reconstruct` estimates them",
            path, USUAL_FOV,
        )  # fmt: skip


def _opened(kind: str, path: Path, options: dict[str, Any]) -> Sequence:
    """The recording as its reader opens it; what that raises names the recording."""
    reader = READERS[kind]
    if "said" in signature(reader.open).parameters:
        said = SaidOfSensor(**{name: options[name] for name in SaidOfSensor._fields if name in options})
        options = {name: value for name, value in options.items() if name not in SaidOfSensor._fields}
        options["said"] = said
    try:
        return reader.open(path, **options)
    except CorruptFrame:
        raise
    except ValueError as error:  # a camera, poses or a list say what is wrong with them, not where they come from
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    except (OSError, LookupError, AssertionError, StopIteration) as error:
        if reader.fits(path):
            raise
        raise ValueError(f"{path}: is no recording of kind {kind}; expected {reader.layout}") from error


def detect_kind(path: str | Path) -> str:
    """The key of READERS of the first kind that a path fits."""
    path = Path(path)
    for kind, reader in READERS.items():
        if reader.fits(path):
            return kind
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such sequence; give a folder, a list file, or 'room' for the built-in one")
    if path.is_dir() and not any(path.iterdir()):
        raise ValueError(f"{path}: the folder is empty; a plain sequence holds {folder.LAYOUT}")
    if path.suffix.lower() in ARCHIVES:
        raise ValueError(f"{path}: fits no kind of sequence that is read packed; unpack it and give the folder")
    if (path / "transforms.json").is_file():
        raise ValueError(
            f"{path}: transforms.json (nerfstudio, Instant-NGP) is not read; give the folder of its images (--depth "
            f"predicted), or, where a depth camera took it, name the folders color/ and depth/, and write camera.yaml "
            f"and, if its poses are in metres, groundtruth.txt (TUM lines)"
        )
    if found := list(islice(_inside(path), 3)):
        raise ValueError(f"{path}: is no recording but holds some; give one of them: {', '.join(found)}")
    raise ValueError(
        f"{path}: fits no known kind of sequence; `semslam kinds` lists what is read, and what to give for which device"
    )


def _inside(path: Path) -> Iterator[str]:
    """Files and folders directly in a folder that are recordings; a picture in it is not meant as one."""
    for inner in islice(sorted(path.iterdir()), MOST_LOOKED_AT) if path.is_dir() else ():
        picture = inner.suffix.lower() in COLOR_SUFFIXES
        if not picture and any(reader.fits(inner) for kind, reader in READERS.items() if kind != "room"):
            yield str(inner)
