"""TUM RGB-D: rgb.txt, depth.txt and groundtruth.txt, each with its own clock ticks; or pairs in associations.txt.

ETH3D SLAM (Schoeps et al., "BAD SLAM", CVPR 2019) is the same with a calibration.txt of rectified images.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.files.reading import names_of, text_of
from semslam.trajectory import associate
from semslam.trajectory.files import read_trajectory
from sequences.clock import UNIT_NAMES, camera_ticks_a_second, seconds, since_1970
from sequences.files import check_unpacked, first_readable
from sequences.pairing import MOST, SAME_TIME, depth_delays
from sequences.pose_pairing import NO_HINTS, Frames, PoseHints, poses_of_frames
from sequences.recordings.decoded import at_working_size
from sequences.recordings.sensor import NOTHING_SAID, SaidOfSensor, Usual, usual_readers
from sequences.sequence import ImageSequence

LAYOUT = "rgb.txt and depth.txt (timestamp file), groundtruth.txt"
ETH3D_LAYOUT = "as tum, with calibration.txt (fx fy cx cy)"
ASSOCIATIONS_LAYOUT = "associations.txt (time rgb/time.png time depth/time.png), groundtruth.txt"
CALIBRATION = "calibration.txt"
DEPTH_SCALE = 5000.0  # units per metre
POSE_FILES = ("groundtruth.txt", "traj.txt", "poses.txt", "trajectory.txt", "trajectory.log")
MOST_STANDING = 0.1  # of the images of a list: how many may have the time of another one
FPS = 30.0  # of lists that count frames, where nothing says otherwise

# Calibrations that come with the data set; freiburg3's images are undistorted already.
CAMERAS = {
    "1": Camera(
        640, 480, 517.306408, 516.469215, 318.643040, 255.313989, (0.262383, -0.953104, -0.005358, 0.002628, 1.163314)
    ),
    "2": Camera(
        640, 480, 520.908620, 521.007327, 325.141442, 249.701764, (0.231222, -0.784899, -0.003257, -0.000105, 0.917205)
    ),
    "3": Camera(640, 480, 535.4, 539.2, 320.1, 247.6),
}
ROS_DEFAULT = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)


def fits(path: Path) -> bool:
    return (path / "rgb.txt").is_file() and (path / "depth.txt").is_file()


def fits_eth3d(path: Path) -> bool:
    return fits(path) and (path / CALIBRATION).is_file()


def fits_associations(path: Path) -> bool:
    return (path / "associations.txt").is_file() and not (path / "rgb.txt").is_file()


def open_tum(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
    hints: PoseHints = NO_HINTS,
) -> ImageSequence:
    """Open a TUM RGB-D folder. A frame is a colour image with the depth image within SAME_TIME seconds.

    Where nothing else says so, depth is registered to colour and counts 5000 per metre, and the camera follows from
    calibration.txt, or else from 'freiburg1..3' or 'fr1..3' in the folder's name. A frame's pose is interpolated
    between the poses around its colour image.
    """
    path = Path(path)
    color_times, color, of_order = images_listed(path / "rgb.txt")
    depth_times, depth, of_depth_order = images_listed(path / "depth.txt")
    of_color, of_depth = associate(color_times, depth_times, SAME_TIME)
    if len(of_color) == 0:
        raise ValueError(
            f"{path}: no image of rgb.txt has a depth image within {SAME_TIME} s; the clocks start at "
            f"{color_times[0]:.3f} and {depth_times[0]:.3f} s"
        )
    lone = [len(times) - len(of_color) for times in (color_times, depth_times)]
    if len(of_color) <= MOST * min(len(color_times), len(depth_times)):
        raise ValueError(
            f"{path}: only {len(of_color)} of {len(color_times)} images of rgb.txt have a depth image within "
            f"{SAME_TIME} s; are both lists of one recording, and do their clocks agree?"
        )
    notes = [*of_order, *of_depth_order]
    notes += [
        f"{count} of {len(times)} images of {name} have no partner within {SAME_TIME} s and are left out"
        for count, times, name in zip(lone, (color_times, depth_times), ("rgb.txt", "depth.txt"))
        if count
    ]
    files = [color[i] for i in of_color], [depth[i] for i in of_depth]
    delays = depth_delays(color_times[of_color], depth_times[of_depth])
    listed = Listed(color_times[of_color], *files, tuple(notes), delays)
    usual = Usual(said.camera or _calibrated(path, color), None, DEPTH_SCALE) if fits_eth3d(path) else _usual(path)
    return opened(path, listed, usual_readers(path, listed.color, listed.depth, usual, said), hints)


def open_eth3d(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
    hints: PoseHints = NO_HINTS,
) -> ImageSequence:
    """Open an ETH3D SLAM folder as `open_tum` does; FileNotFoundError without its calibration, as no other camera would
    be right."""
    if not fits_eth3d(Path(path)):
        raise FileNotFoundError(f"{path}: expected {ETH3D_LAYOUT}")
    return open_tum(path, said=said, hints=hints)


def open_associations(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
    fps: float | None = None,
    hints: PoseHints = NO_HINTS,
) -> ImageSequence:
    """Open a folder whose associations.txt pairs colour and depth, of whatever sensor: times in seconds, or counted.

    Which of a line's two files is depth is told from their names, else colour is taken to come first.
    """
    path = Path(path)
    entries, of_order = read_associations(path / "associations.txt")
    stamps = np.array([entry.stamp for entry in entries])
    of_depth = np.array([entry.depth_stamp for entry in entries])
    notes: tuple[str, ...] = ()
    if (unit := since_1970(stamps)) is not None:
        stamps, of_depth = stamps / unit, of_depth / unit
    elif (unit := _ticks_a_second(stamps)) != 1:
        notes = (f"associations.txt counts {UNIT_NAMES[unit]}, and is read so",)
        stamps, of_depth = stamps / unit, of_depth / unit
    elif len(stamps) > 1 and np.all(stamps == np.rint(stamps)) and np.median(np.diff(stamps)) >= 1:  # they count frames
        if said.camera is None:
            raise ValueError(
                f"{path}: associations.txt counts frames, and nothing tells their camera; write a camera.yaml, name "
                f"one with --camera, or say --kind icl-nuim if this is ICL-NUIM"
            )
        notes = (f"associations.txt counts frames: {fps or FPS:g} per second are taken",)
        stamps, of_depth = stamps / (fps or FPS), of_depth / (fps or FPS)
    files = [entry.color for entry in entries], [entry.depth for entry in entries]
    listed = Listed(stamps, *files, (*of_order, *notes), depth_delays(stamps, of_depth))
    readers = usual_readers(path, listed.color, listed.depth, _usual(path), said)
    return opened(path, listed, readers, hints)


def _ticks_a_second(stamps: np.ndarray) -> float:
    """1e3, 1e6 or 1e9 where times are in such a unit; 1 for seconds, and for frames that are counted."""
    steps = np.diff(stamps)
    least = steps.min(initial=np.inf)  # frames are counted in equal steps, and some may be missing
    counted = np.all(stamps == np.rint(stamps)) and least > 0 and np.all(steps % least == 0)
    return 1.0 if counted else camera_ticks_a_second(stamps)


class Listed(NamedTuple):
    """The images of a recording's frames."""

    timestamps: np.ndarray  # (N,) seconds
    color: list[Path]
    depth: list[Path]
    notes: tuple[str, ...]
    depth_delays: np.ndarray  # (N,) seconds from each colour image to its depth image


def opened(path: Path, listed: Listed, sensor: tuple[dict[str, Any], list[str]], hints: PoseHints) -> ImageSequence:
    """The sequence of listed images, with the poses of the folder's trajectory file, if it has one.

    sensor: of `usual_readers`.
    """
    readers, assumed = sensor
    truth = next((path / name for name in POSE_FILES if (path / name).is_file()), None)
    if truth is None:
        check_unpacked(path / POSE_FILES[0])
    poses: tuple[np.ndarray | None, ...] | None = None
    notes: tuple[str, ...] = ()
    if truth is not None:
        frames = Frames(listed.timestamps, [file.name for file in listed.color])
        trajectory = read_trajectory(truth)
        try:
            poses, notes, _ = poses_of_frames(trajectory, truth, frames, hints)
        except ValueError as problem:
            if hints != NO_HINTS:
                raise
            notes = (f"{problem}; until then its poses are left out",)
    return at_working_size(
        ImageSequence(
            name=path.resolve().name,
            timestamps=listed.timestamps,
            color_paths=tuple(listed.color),
            depth_paths=tuple(listed.depth),
            poses=poses,
            assumptions=(*assumed, *listed.notes, *notes),
            depth_delays=listed.depth_delays,
            **readers,
        )
    )


def camera_of_name(path: Path) -> Camera | None:
    """TUM's camera where a folder's name says which it is: freiburg1..3 or fr1..3."""
    match = re.search(r"(?:freiburg|fr)([123])(?!\d)", path.resolve().name)
    return CAMERAS[match[1]] if match else None


def _calibrated(path: Path, color: list[Path]) -> Camera:
    """The camera of an ETH3D recording, of whose images and depth it is."""
    height, width = first_readable(images.read_color, color).shape[:2]
    try:
        fx, fy, cx, cy = (float(word) for word in text_of(path / CALIBRATION).split()[:4])
    except ValueError:
        raise ValueError(f"{path / CALIBRATION}: expected fx fy cx cy in one line") from None
    return Camera(width, height, fx, fy, cx, cy)


def _usual(path: Path) -> Usual:
    """What TUM's recordings have; of the camera, what the folder's name says."""
    if (named := camera_of_name(path)) is not None:
        return Usual(named, "TUM's freiburg camera of that name", DEPTH_SCALE)
    return Usual(ROS_DEFAULT, "ROS' default camera, as the name has no freiburg1..3", DEPTH_SCALE)


class Association(NamedTuple):
    """A line of associations.txt."""

    stamp: float  # of the colour image
    depth_stamp: float
    color: Path
    depth: Path


def read_associations(path: Path) -> tuple[list[Association], list[str]]:
    """The lines `stamp file stamp file` of an associations.txt, by stamp, and what is said of their order; ValueError
    names a line that is none."""
    entries = []
    for number, words in _word_lines(path):
        try:
            first, second = float(words[0]), float(words[2])
            files = _listed(path, words[1]), _listed(path, words[3])
        except (ValueError, IndexError):
            raise ValueError(f"{path}:{number}: '{' '.join(words)[:60]}' is not 'stamp file stamp file'") from None
        if not np.isfinite([first, second]).all():
            raise ValueError(f"{path}:{number}: the time {words[0]} is no number")
        depth_first = "depth" in words[1].lower() and "depth" not in words[3].lower()
        stamps, files = ((second, first), files[::-1]) if depth_first else ((first, second), files)
        entries.append(Association(*stamps, *files))
    if not entries:
        raise ValueError(f"{path}: lists no frames")
    kept, notes = _by_time(path, [entry.stamp for entry in entries], [entry.color for entry in entries])
    return [entries[i] for i in kept], notes


def _by_time(path: Path, stamps: list[float], files: list[Path]) -> tuple[list[int], list[str]]:
    """Which entries of a list are read, by time, and what is said of the others and of a clock that was set back.

    Of images of one time the first is read: when the others were taken is not known. A line that is written twice is
    one. ValueError where images of one time are many.
    """
    first: dict[float, int] = {}
    standing = [i for i, stamp in enumerate(stamps) if files[first.setdefault(stamp, i)] != files[i]]
    if len(standing) > max(1, MOST_STANDING * len(stamps)):
        raise ValueError(
            f"{path}: {len(standing)} of {len(stamps)} images have the time of another, the first of them "
            f"{files[standing[0]].name} at {stamps[standing[0]]:.10g}; write the time of each, with enough digits"
        )
    notes = []
    if standing:
        notes.append(
            f"{len(standing)} of {len(stamps)} images of {path.name} have the time of another, the first of them "
            f"{files[standing[0]].name}, and are left out"
        )
    back = [i for i in range(1, len(stamps)) if stamps[i] < stamps[i - 1]]
    if 0 < len(back) <= max(1, MOST_STANDING * len(stamps)):  # more are of a list in another order
        places = "once" if len(back) == 1 else f"{len(back)} times"
        notes.append(
            f"the times of {path.name} go back {places}, first at {files[back[0]].name}: its images are read in the "
            f"order of their times; if a clock was set back, correct the times"
        )
    return [first[stamp] for stamp in sorted(first)], notes


def _word_lines(path: Path) -> list[tuple[int, list[str]]]:
    """(number, words) of the lines of a list that hold something and do not start with '#', as comments do."""
    lines = ((number, line.split()) for number, line in enumerate(names_of(path).splitlines(), start=1))
    return [(number, words) for number, words in lines if words and not words[0].startswith("#")]


def _listed(path: Path, name: str) -> Path:
    """The file that a list names, relative to the list; on Windows with backslashes."""
    file = path.parent / name
    return file if "\\" not in name or file.exists() else path.parent / name.replace("\\", "/")


class Images(NamedTuple):
    """The images of a list."""

    timestamps: np.ndarray  # (N,) seconds, increasing
    files: list[Path]
    notes: list[str]  # what is said of their order


def images_listed(path: Path) -> Images:
    """The images of a list of `timestamp file` lines."""
    times: list[float] = []
    files: list[Path] = []
    for number, words in _word_lines(path):
        try:
            time, file = float(words[0]), _listed(path, words[1])
            if len(words) > 2 and (spaced := _listed(path, " ".join(words[1:]))).exists():  # a name with spaces
                file = spaced
        except (ValueError, IndexError):
            raise ValueError(f"{path}:{number}: '{' '.join(words)[:60]}' is not 'timestamp file'") from None
        if not np.isfinite(time):
            raise ValueError(f"{path}:{number}: the time {words[0]} is no number")
        times.append(time)
        files.append(file)
    if not files:
        raise ValueError(f"{path}: lists no images")
    kept, notes = _by_time(path, times, files)
    return Images(seconds(np.array([times[i] for i in kept])), [files[i] for i in kept], notes)
