"""A video file, colour alone: what any phone or camera records."""

from __future__ import annotations

from pathlib import Path

from semslam.camera import Camera
from semslam.trajectory.files import read_trajectory
from sequences.files import VIDEOS
from sequences.pose_pairing import poses_at
from sequences.recordings.cameras.given_camera import OtherAspect, given_camera
from sequences.recordings.cameras.video_file import VideoFile
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "a video (.mp4, .mov, .avi, ...) or a folder with one, NAME.yaml or camera.yaml beside it, or --fov DEGREES"


def fits(path: Path) -> bool:
    return _file(path) is not None


def _file(path: Path) -> Path | None:
    """The video: the path itself, or the only one in a folder without images of its own."""
    if path.is_file():
        return path if path.suffix.lower() in VIDEOS else None
    if not path.is_dir() or (path / "color").is_dir():
        return None
    videos = [file for file in path.iterdir() if file.suffix.lower() in VIDEOS and file.is_file()]
    return videos[0] if len(videos) == 1 else None


def open_video(path: str | Path, *, camera: Camera | None = None, fov: float | None = None) -> DecodedSequence:
    """Open a video; frames are decoded when asked for. There is no depth: the network predicts it.

    NAME.txt beside NAME.mp4 may hold poses (TUM lines, seconds from the video's first frame).
    """
    file = _file(Path(path))
    if file is None:
        raise ValueError(f"{path}: is no video, nor a folder with one; expected {LAYOUT}")
    path, video = file, VideoFile(file)
    times = video.timestamps
    poses = path.with_suffix(".txt")
    found = poses_at(read_trajectory(poses), poses, times) if poses.is_file() else None
    return DecodedSequence(
        name=path.stem,
        rig=Rig(_camera(path, video, camera, fov)),
        timestamps=times,
        read=lambda index: Images(video.frame(index)),
        poses=None if found is None else found.T_world_camera,
        assumptions=(*_of_length(video), *_of_pixels(video), *(() if found is None else found.notes)),
    )


def _camera(path: Path, video: VideoFile, camera: Camera | None, fov: float | None) -> Camera:
    """The camera of a video's frames as they are shown; one that is given may be of the pixels as they are stored."""
    try:
        return given_camera(path, video.width, video.height, camera, fov)
    except OtherAspect:
        return given_camera(path, video.stored[0], video.stored[1], camera, fov).resized(video.width, video.height)


def _of_length(video: VideoFile) -> tuple[str, ...]:
    """What is told of a file that holds less than it announces."""
    if not video.announced:
        return ()
    return (
        f"{video.path}: announces {video.announced:.1f} s, and its {len(video.timestamps)} images end after "
        f"{video.timestamps[-1]:.1f} s: it was cut short, or its sound is longer; copy it again if images are missing",
    )


def _of_pixels(video: VideoFile) -> tuple[str, ...]:
    """What is told of pixels that are not square."""
    if video.shown is None:
        return ()
    return (
        f"{video.path}: its pixels are {video.width / video.stored[0]:.3g} times as wide as high: its frames of "
        f"{video.stored[0]}x{video.stored[1]} are shown as {video.width}x{video.height}, as players do",
    )
