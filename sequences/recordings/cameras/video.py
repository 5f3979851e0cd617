"""A video file, colour alone: what any phone or camera records."""

from __future__ import annotations

from pathlib import Path

from semslam.camera import Camera
from semslam.trajectory import read_trajectory
from sequences.pose_pairing import poses_at
from sequences.recordings.cameras.given_camera import given_camera
from sequences.recordings.cameras.video_file import SUFFIXES, VideoFile
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "a video (.mp4, .mov, .avi, ...), NAME.yaml or camera.yaml beside it, or --fov DEGREES"


def fits(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def open_video(path: str | Path, *, camera: Camera | None = None, fov: float | None = None) -> DecodedSequence:
    """Open a video; frames are decoded when asked for. There is no depth: the network predicts it.

    NAME.txt beside NAME.mp4 may hold poses (TUM lines, seconds from the video's first frame).
    """
    path = Path(path)
    video = VideoFile(path)
    times = video.timestamps
    poses = path.with_suffix(".txt")
    found = poses_at(read_trajectory(poses), poses, times) if poses.is_file() else None
    return DecodedSequence(
        name=path.stem,
        rig=Rig(given_camera(path, video.width, video.height, camera, fov)),
        timestamps=times,
        read=lambda index: Images(video.frame(index)),
        poses=None if found is None else found.T_world_camera,
        assumptions=() if found is None else found.notes,
    )
