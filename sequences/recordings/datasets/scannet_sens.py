"""ScanNet's .sens: one file of compressed frames with poses, read without being unpacked.

Dai et al., "ScanNet: richly-annotated 3D reconstructions of indoor scenes", CVPR 2017. Version 4, little-endian:
version, sensor's name, colour and depth intrinsics and extrinsics (4x4 float32), compressions, sizes, depth shift,
number of frames; then a frame: camera-to-world (4x4), two times (us), two sizes, colour, depth.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from semslam import images, poses
from semslam.camera import Camera
from semslam.images import CorruptFrame
from sequences.clock import seconds_or_count
from sequences.files import read_part, unpacked
from sequences.recordings.cameras.given_camera import camera_of_matrix
from sequences.recordings.datasets.scannet_labels import find_labels
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "scene0000_00.sens; labels from scene0000_00_2d-label-filt.zip and scannetv2-labels.combined.tsv beside it"
FPS = 30.0
FRAME_HEADER = struct.Struct("<64sQQQQ")
COLOR_RAW, COLOR_PNG, COLOR_JPEG = 0, 1, 2
DEPTH_RAW, DEPTH_ZLIB = 0, 1
LARGEST_SIDE = 1 << 13  # pixels


@dataclass(frozen=True)
class Header:
    """What a .sens file says before its frames."""

    color: Camera
    depth: Camera
    T_color_depth: np.ndarray | None  # (4, 4); None = one optical centre
    color_compression: int
    depth_compression: int
    depth_scale: float  # units per metre
    frames: int  # as claimed
    end: int  # bytes


def fits(path: Path) -> bool:
    return _file(path) is not None


def open_scannet_sens(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a .sens file, or a scan's folder with one. Frames with a pose of -inf have none.

    A file that is cut short gives the frames before the cut, with a warning.
    """
    file = _file(Path(path))
    assert file is not None, "the caller asked fits() first, or named the kind"
    with file.open("rb") as stream:
        header = _header(stream, file)
        places, ticks, matrices, notes = _frames(stream, header, file)
    T_world_camera = [_pose(matrix) for matrix in matrices]
    labels, unread = find_labels(file.parent, file.stem)
    return DecodedSequence(
        name=file.stem,
        rig=Rig(header.color if camera is None else camera, header.depth, header.T_color_depth),
        timestamps=seconds_or_count(np.array(ticks), FPS),
        read=partial(_read, file, header, np.array(places)),
        read_labels=None if labels is None else labels.of,
        poses=tuple(T_world_camera) if any(T is not None for T in T_world_camera) else None,
        label_set=None if labels is None else "nyu40",
        assumptions=(*notes, *unread),
        labelled=None if labels is None else tuple(i for i in range(len(places)) if i in labels.names),
    )


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() == ".sens" else None
    found = sorted(path.glob("*.sens")) if path.is_dir() else []
    return found[0] if len(found) == 1 else None


def _header(stream: BinaryIO, file: Path) -> Header:
    try:
        version, length = struct.unpack("<IQ", stream.read(12))
        if version != 4 or length > 4096:
            raise ValueError(f"{file}: version {version}, expected 4; is this a ScanNet .sens file?")
        stream.seek(length, 1)
        matrices = np.frombuffer(stream.read(4 * 64), "<f4").reshape(4, 4, 4).astype(np.float64)
        color_kind, depth_kind, *sizes = struct.unpack("<iiIIII", stream.read(24))
        depth_scale, frames = struct.unpack("<fQ", stream.read(12))
    except (struct.error, ValueError) as problem:
        if str(problem).startswith(str(file)):
            raise
        raise ValueError(f"{file}: the header is cut short; copy the file again") from None
    color_width, color_height, depth_width, depth_height = sizes
    if not 0 < max(sizes) <= LARGEST_SIDE or min(sizes) < 1 or not 0 < depth_scale < np.inf:
        raise ValueError(
            f"{file}: the header claims colour of {color_width}x{color_height}, depth of {depth_width}x{depth_height} "
            f"and {depth_scale:g} units per metre; it is damaged"
        )
    if color_kind not in (COLOR_RAW, COLOR_PNG, COLOR_JPEG) or depth_kind not in (DEPTH_RAW, DEPTH_ZLIB):
        raise ValueError(
            f"{file}: colour compression {color_kind}, depth compression {depth_kind}; read are raw, PNG or JPEG "
            f"colour and raw or zlib depth: export the frames with ScanNet's SensReader and open the folder"
        )
    K_color, ext_color, K_depth, ext_depth = matrices
    rigid = poses.is_rigid(ext_color, 1e-2) and poses.is_rigid(ext_depth, 1e-2)
    T = poses.inverse(ext_color) @ ext_depth if rigid else np.eye(4)
    return Header(
        camera_of_matrix(color_width, color_height, K_color),
        camera_of_matrix(depth_width, depth_height, K_depth),
        None if np.allclose(T, np.eye(4), atol=1e-5) else T,
        color_kind,
        depth_kind,
        float(depth_scale),
        frames,
        stream.tell(),
    )


def _frames(
    stream: BinaryIO, header: Header, file: Path
) -> tuple[list[tuple[int, int, int]], list[int], list[np.ndarray], tuple[str, ...]]:
    """(where colour starts, its bytes, depth's bytes), times and poses of the whole frames, and what is missing."""
    size = file.stat().st_size
    places: list[tuple[int, int, int]] = []
    ticks, matrices = [], []
    at = header.end
    while len(places) < header.frames and at + FRAME_HEADER.size <= size:
        stream.seek(at)
        matrix, color_time, _, color_bytes, depth_bytes = FRAME_HEADER.unpack(stream.read(FRAME_HEADER.size))
        at += FRAME_HEADER.size
        if at + color_bytes + depth_bytes > size:
            break
        places.append((at, color_bytes, depth_bytes))
        ticks.append(color_time)
        matrices.append(np.frombuffer(matrix, "<f4").reshape(4, 4).astype(np.float64))
        at += color_bytes + depth_bytes
    if not places:
        raise ValueError(f"{file}: holds no whole frame of the {header.frames} that it claims; copy it again")
    if len(places) < header.frames:
        return (
            places,
            ticks,
            matrices,
            (f"{file}: claims {header.frames} frames, holds {len(places)}; it is cut short",),
        )
    return places, ticks, matrices, ()


def _pose(T: np.ndarray) -> np.ndarray | None:
    return poses.orthonormalized(T) if poses.is_rigid(T, tolerance=1e-2) else None


def _read(file: Path, header: Header, places: np.ndarray, index: int) -> Images:
    start, color_bytes, depth_bytes = (int(number) for number in places[index])
    where = f"{file}: frame {index}"
    data = read_part(file, start, color_bytes + depth_bytes, where)
    color, depth = data[:color_bytes], data[color_bytes:]
    return Images(_color(color, header, f"{where}, colour"), _depth(depth, header, f"{where}, depth"))


def _color(data: bytes, header: Header, where: str) -> np.ndarray:

    if header.color_compression == COLOR_RAW:
        if len(data) != header.color.width * header.color.height * 3:
            raise CorruptFrame(f"{where}: {len(data)} bytes are no raw image", broken_file=True)
        return np.frombuffer(data, np.uint8).reshape(*header.color.shape, 3)
    return images.color_of_bytes(data, where)


def _depth(data: bytes, header: Header, where: str) -> np.ndarray:
    expected = header.depth.width * header.depth.height * 2
    if header.depth_compression == DEPTH_ZLIB:
        data = unpacked(data, expected, where)
    if len(data) != expected:
        raise CorruptFrame(f"{where}: {len(data)} bytes, expected {expected}", broken_file=True)
    return images.depth_of_units(np.frombuffer(data, "<u2").reshape(header.depth.shape), header.depth_scale)
