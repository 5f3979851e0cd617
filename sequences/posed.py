"""Posed images of every kind: the data sets of camera relocalisation, and each recording that has poses.

Adding a data set is a file with `fits(path)` and an `open_...` function, and a line in POSED_READERS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam.trajectory import associate
from semslam.trajectory.files import read_trajectory
from sequences import READERS, detect_kind, open_sequence
from sequences.images import cambridge, deeploc, pose_list
from sequences.images.posed_images import PosedImages
from sequences.pose_pairing import Frames, poses_of_frames
from sequences.sequence import Sequence

POSE_TOLERANCE = 0.02  # seconds between a frame and the pose that a trajectory file has for it


class PosedReader(NamedTuple):
    """How one data set of posed images is told apart and opened."""

    open: Callable[[Path, str | None], PosedImages]  # (path, split)
    fits: Callable[[Path], bool]
    layout: str  # what lies in it, for people


POSED_READERS: dict[str, PosedReader] = {
    "deeploc": PosedReader(deeploc.open_deeploc, deeploc.fits, deeploc.LAYOUT),
    "cambridge": PosedReader(cambridge.open_cambridge, cambridge.fits, cambridge.LAYOUT),
    "pose-list": PosedReader(pose_list.open_pose_list, pose_list.fits, pose_list.LAYOUT),
}


def open_posed(
    path: str | Path, kind: str | None = None, split: str | None = None, poses: str | Path | None = None
) -> PosedImages:
    """Posed images of a data set or of a recording with poses.

    Args:
        kind: a key of POSED_READERS or of `sequences.READERS`; told from what lies in the folder where not given.
        split: "train" or "test" of the data sets that have them (DeepLoc, Cambridge, a scene of 7-Scenes).
        poses: a trajectory file in place of the recording's own poses, such as the trajectory.txt that
            `semslam reconstruct --poses tracked` wrote; frames that it has no pose for are left out.
    """
    path = Path(path)
    if not path.exists() and not any(reader.fits(path) for reader in READERS.values()):  # the room is no file
        raise FileNotFoundError(f"{path}: no such data; give a data set, a recording with poses, or a list of poses")
    if kind is None:
        kind = next((name for name, reader in POSED_READERS.items() if reader.fits(path)), None) or detect_kind(path)
    if kind in POSED_READERS:
        if poses is not None:
            raise ValueError(f"{path}: {kind} has poses and no times, so a trajectory file cannot take their place")
        return POSED_READERS[kind].open(path, split)
    if split is not None and kind != "7scenes":
        raise ValueError(f"{path}: a {kind} recording has no split {split!r}; choose its frames by number")
    sequence = open_sequence(path, kind, split=split)
    return posed_sequence(sequence, str(path), None if poses is None else Path(poses))


def posed_sequence(sequence: Sequence, source: str, poses: Path | None = None) -> PosedImages:
    """The frames of a recording that have a pose; see `open_posed`."""
    if poses is not None:
        kept, T_world_camera = _of_trajectory(sequence, poses)
        if not len(kept):
            raise ValueError(
                f"{poses}: has a pose for none of {source}'s {len(sequence)} frames; is it of another run?"
            )
    else:
        known = sequence.poses or ()
        kept = np.array([i for i, T in enumerate(known) if T is not None], np.int64)
        if not len(kept):
            raise ValueError(
                f"{source}: none of its {len(sequence)} frames has a pose; track it first "
                f"(semslam reconstruct --poses tracked) and name its trajectory.txt as poses"
            )
        T_world_camera = np.stack([known[i] for i in kept])  # type: ignore[misc]
    return PosedImages(
        source=source,
        names=tuple(sequence.name_of(i) for i in kept),
        T_world_camera=np.asarray(T_world_camera, np.float64),
        recordings=np.unique([sequence.part_of(i) for i in kept], return_inverse=True)[1].astype(np.int64),
        numbers=np.asarray(kept, np.int64),
        read_color=sequence.color_of,
        read_labels=sequence.labels_of if sequence.has_labels else None,
        read_depth=sequence.depth_of if sequence.has_depth else None,
        labelled=np.isin(kept, sequence.labelled_indices) if sequence.has_labels else None,
        label_set=sequence.label_set,
    )


def _of_trajectory(sequence: Sequence, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The frames that a trajectory file has a pose for, and these: none is interpolated, a network would learn it."""
    trajectory = read_trajectory(path)
    if trajectory.clock == "seconds":
        kept, places = associate(sequence.timestamps, trajectory.timestamps, POSE_TOLERANCE)
        return kept, trajectory.T_world_camera[places]
    frames = Frames(sequence.timestamps, [sequence.name_of(i) for i in range(len(sequence))])
    found = poses_of_frames(trajectory, path, frames).T_world_camera
    posed = [(i, T) for i, T in enumerate(found) if T is not None]
    return np.array([i for i, _ in posed], np.int64), np.array([T for _, T in posed]).reshape(-1, 4, 4)


def split_to_score(path: str | Path) -> str | None:
    """ "test" of a data set that comes in training and test parts, None of anything else."""
    path = Path(path)
    parts = (path / "test" / "LeftImages", path / "dataset_test.txt", path / "TestSplit.txt")
    return "test" if any(part.exists() for part in parts) else None
