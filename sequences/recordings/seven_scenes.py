"""7-Scenes: frame-000000.{color,depth,pose}.* in seq-01 ..., depth from another camera than colour."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.files.reading import text_of
from semslam.trajectory.files import read_pose_folder
from sequences.recordings.sensor import NOTHING_SAID, DepthCamera, SaidOfSensor, image_readers
from sequences.selected import with_both_images
from sequences.sequence import ImageSequence, Sequence

LAYOUT = "frame-000000.color.png, .depth.png, .pose.txt; or a scene of such folders seq-01, seq-02, ..."
FPS = 30.0
PAUSE = 10.0  # seconds between the sequences of a scene, which were recorded apart

COLOR_CAMERA = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)
DEPTH_CAMERA = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)
# Not part of the data set: the calibration of a like sensor that the field has settled on (ACE's set-up).
T_COLOR_DEPTH = np.array(
    [
        [0.99996518012567637, 0.0026765126468950343, -0.0079041012313000904, -0.025558943178152542],
        [-0.00274093112813167, 0.99996302803027592, -0.0081504520778013286, 0.00010109636268061706],
        [0.0078819942130445332, 0.0081718328771890631, 0.99993554558014031, 0.0020318321729487039],
        [0, 0, 0, 1],
    ]
)


def fits(path: Path) -> bool:
    return _is_sequence(path) or any(_is_sequence(folder) for folder in path.glob("seq-*"))


def open_seven_scenes(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
    fps: float | None = None,
    split: str | None = None,
) -> Sequence:
    """Open a sequence folder, or a scene's sequences one after the other.

    `said.registered`: the depth files are in the colour camera already, else they are warped into it. Where nobody says
    so, depth of 640x480 beside a camera that nobody named is taken for the data set's own and warped; that of another
    camera is taken as registered. `split` ("train" or "test") takes those of TrainSplit.txt or TestSplit.txt that are
    there. Poses are as published, of KinectFusion's depth camera, 2.6 cm beside: the usual reading, and below the
    poses' own error.
    """
    path = Path(path)
    folders = [path] if _is_sequence(path) else _sequences(path, split)
    timestamps: list[float] = []
    color: list[Path] = []
    depth: list[Path] = []
    poses: list[np.ndarray | None] = []
    for folder in folders:
        start = timestamps[-1] + PAUSE if timestamps else 0.0
        truth = read_pose_folder(folder, fps=1.0)
        T_of_frame = {round(number): T for number, T in zip(truth.timestamps, truth.T_world_camera)}
        for number, file in sorted(_frames(folder).items()):
            timestamps.append(start + number / (fps or FPS))
            color.append(file)
            depth.append(folder / f"frame-{number:06d}.depth.png")
            poses.append(T_of_frame.get(number))
    usual = DepthCamera(DEPTH_CAMERA, T_COLOR_DEPTH) if said.camera is None or said.registered is False else None
    unregistered = said.unregistered(path, usual)
    assumed = []
    if said.camera is None:
        assumed.append(f"{path}: the camera is taken for that of 7-Scenes (525 525 320 240)")
    if said.registered is None and said.depth_camera is None:
        state = "by the 7-Scenes calibration; say --registered if it lies under colour's pixels already"
        assumed.append(f"{path}: depth is {'registered to colour ' + state if unregistered else 'taken as registered'}")
    sequence = ImageSequence(
        name=path.resolve().name,
        timestamps=np.array(timestamps),
        color_paths=tuple(color),
        depth_paths=tuple(depth),
        poses=tuple(poses),
        assumptions=tuple(assumed),
        **image_readers(
            color,
            said.camera or COLOR_CAMERA,
            images.DepthReader(tuple(depth), said.depth_scale or 1000.0),
            unregistered,
            along_ray=bool(said.depth_along_ray),
        ),
    )
    return with_both_images(sequence)


def _is_sequence(folder: Path) -> bool:
    return any(folder.glob("frame-*.pose.txt")) and any(folder.glob("frame-*.color.*"))


def _frames(folder: Path) -> dict[int, Path]:
    """Colour files by frame number; the original's are PNG, copies often JPEG."""
    found = ((re.match(r"frame-(\d+)\.color\.(png|jpg|jpeg)$", file.name), file) for file in folder.iterdir())
    return {int(match[1]): file for match, file in found if match}


def _sequences(scene: Path, split: str | None) -> list[Path]:
    there = sorted(folder for folder in scene.glob("seq-*") if _is_sequence(folder))
    if split is None:
        return there
    listing = scene / f"{split.capitalize()}Split.txt"
    if split not in ("train", "test") or not listing.is_file():
        raise ValueError(f"{listing}: not found; split is 'train' or 'test', or leave it out for every sequence")
    names = {f"seq-{int(number):02d}" for number in re.findall(r"[0-9]+", text_of(listing))}
    chosen = [folder for folder in there if folder.name in names]
    if not chosen:
        raise ValueError(f"{listing}: none of {', '.join(sorted(names))} is there")
    return chosen
