"""Images with the poses they were taken from: what pose networks learn from and are scored on.

`open_posed(path)` takes the data sets of camera relocalisation (DeepLoc, Cambridge Landmarks, any list of poses), and
every recording that `open_sequence` knows. Adding a data set is a file and a line in POSED_READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam import images
from semslam.labels import label_set
from semslam.trajectory import associate, read_trajectory
from sequences.sequence import ImageSequence, Sequence

POSE_TOLERANCE = 0.02  # seconds between a frame and the pose that a trajectory file has for it


@dataclass(frozen=True, eq=False)
class PosedImage:
    """One image, where it was taken, and what else is known of it."""

    name: str
    color: np.ndarray  # (H, W, 3) uint8 RGB
    T_world_camera: np.ndarray  # (4, 4) float64
    labels: np.ndarray | None = None  # (H, W) ids in memory, 255 = unlabelled
    depth: np.ndarray | None = None  # (h, w) float32 metres, 0 = none


@dataclass(frozen=True, eq=False)
class PosedImages:
    """Posed images in the order in which they were taken: `len`, indexing and iteration give PosedImage."""

    source: str  # named in messages
    names: tuple[str, ...]
    T_world_camera: np.ndarray  # (N, 4, 4) float64
    recordings: np.ndarray  # (N,) int64: which images were taken in one go; tuples of images never mix two
    numbers: np.ndarray  # (N,) int64: the image's place in what was opened, before any were left out
    read_color: Callable[[int], np.ndarray]  # takes a number, as the other two
    read_labels: Callable[[int], np.ndarray | None] | None = None
    read_depth: Callable[[int], np.ndarray | None] | None = None
    labelled: np.ndarray | None = None  # (N,) bool: which have labels
    label_set: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> PosedImage:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.source} has images 0..{len(self) - 1}, asked for {index}")
        number = int(self.numbers[index])
        color = self.read_color(number)
        labels = None if self.read_labels is None else self.read_labels(number)
        depth = None if self.read_depth is None else self.read_depth(number)
        return PosedImage(self.names[index], color, self.T_world_camera[index], labels, depth)

    def __iter__(self) -> Iterator[PosedImage]:
        return (self[i] for i in range(len(self)))

    def selected(self, keep: np.ndarray) -> PosedImages:
        """The images that a mask or an increasing index array keeps; ValueError if there is none."""
        chosen = np.arange(len(self))[keep]
        if not len(chosen):
            raise ValueError(f"{self.source}: none of its {len(self)} images is left; widen the choice of frames")
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            T_world_camera=self.T_world_camera[chosen],
            recordings=self.recordings[chosen],
            numbers=self.numbers[chosen],
            labelled=None if self.labelled is None else self.labelled[chosen],
        )

    def with_labels(self, folder: str | Path, classes: str = "nyu40") -> PosedImages:
        """The same images with the labels NAME.png of another folder, such as a network's; each must have one."""
        files = images_named(folder)
        if lacking := [name for name in self.names if Path(name).stem not in files]:
            raise ValueError(f"{folder}: no label image for {lacking[0]} and {len(lacking) - 1} more of {len(self)}")
        stems = [Path(name).stem for name in self.names]
        if len(set(stems)) < len(stems):
            raise ValueError(
                f"{folder}: {self.source} has several images of one name, such as {max(stems, key=stems.count)}; label "
                f"one recording at a time"
            )
        of_number = {int(n): files[Path(name).stem] for n, name in zip(self.numbers, self.names)}
        return replace(
            self,
            read_labels=lambda number: images.read_labels(of_number[number], classes),
            labelled=np.ones(len(self), bool),
            label_set=classes,
        )

    def colors(self) -> np.ndarray:
        """(C, 3) uint8 RGB of the classes of its labels."""
        if self.label_set is None:
            raise ValueError(f"{self.source} has no labels; name a folder of them")
        return label_set(self.label_set).colors


class PosedReader(NamedTuple):
    """How one data set of posed images is told apart and opened."""

    open: Callable[[Path, str | None], PosedImages]  # (path, split)
    fits: Callable[[Path], bool]
    layout: str  # what lies in it, for people


def posed_readers() -> dict[str, PosedReader]:
    """The data sets that are not recordings, by name."""
    from sequences.images import cambridge, deeploc, pose_list

    return {
        "deeploc": PosedReader(deeploc.open_deeploc, deeploc.fits, deeploc.LAYOUT),
        "cambridge": PosedReader(cambridge.open_cambridge, cambridge.fits, cambridge.LAYOUT),
        "pose-list": PosedReader(pose_list.open_pose_list, pose_list.fits, pose_list.LAYOUT),
    }


def open_posed(
    path: str | Path, kind: str | None = None, split: str | None = None, poses: str | Path | None = None
) -> PosedImages:
    """Posed images of a data set or of a recording with poses.

    Args:
        kind: a key of `posed_readers` or of `sequences.READERS`; told from what lies in the folder where not given.
        split: "train" or "test" of the data sets that have them (DeepLoc, Cambridge, a scene of 7-Scenes).
        poses: a trajectory file in place of the recording's own poses, such as the trajectory.txt that
            `semslam reconstruct --poses tracked` wrote; frames that it has no pose for are left out.
    """
    from sequences import READERS, detect_kind, open_sequence

    path, readers = Path(path), posed_readers()
    if not path.exists() and not any(reader.fits(path) for reader in READERS.values()):  # the room is no file
        raise FileNotFoundError(f"{path}: no such data; give a data set, a recording with poses, or a list of poses")
    if kind is None:
        kind = next((name for name, reader in readers.items() if reader.fits(path)), None) or detect_kind(path)
    if kind in readers:
        if poses is not None:
            raise ValueError(f"{path}: {kind} has poses and no times, so a trajectory file cannot take their place")
        return readers[kind].open(path, split)
    if split is not None and kind != "7scenes":
        raise ValueError(f"{path}: a {kind} recording has no split {split!r}; choose its frames by number")
    sequence = open_sequence(path, kind, **({"split": split} if split else {}))
    return posed_sequence(sequence, str(path), None if poses is None else Path(poses))


def posed_sequence(sequence: Sequence, source: str, poses: Path | None = None) -> PosedImages:
    """The frames of a recording that have a pose; see `open_posed`."""
    if poses is not None:
        trajectory = read_trajectory(poses)
        kept, places = associate(sequence.timestamps, trajectory.timestamps, POSE_TOLERANCE)
        T_world_camera = trajectory.T_world_camera[places]
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
    readers = _image_readers(sequence) if isinstance(sequence, ImageSequence) else _frame_readers(sequence)
    names, recordings, labelled = [f"{i:06d}" for i in kept], np.zeros(len(kept), np.int64), None
    if isinstance(sequence, ImageSequence):
        names = [sequence.color_paths[i].name for i in kept]
        recordings = np.unique([str(sequence.color_paths[i].parent) for i in kept], return_inverse=True)[1]
    if sequence.has_labels:
        paths = sequence.label_paths if isinstance(sequence, ImageSequence) else None
        labelled = np.array([paths is None or paths[i] is not None for i in kept])
    return PosedImages(
        source=source,
        names=tuple(names),
        T_world_camera=np.asarray(T_world_camera, np.float64),
        recordings=recordings.astype(np.int64),
        numbers=np.asarray(kept, np.int64),
        read_color=readers["color"],
        read_labels=readers["labels"] if sequence.has_labels else None,
        read_depth=readers["depth"] if sequence.has_depth else None,
        labelled=labelled,
        label_set=sequence.label_set,
    )


def _image_readers(sequence: ImageSequence) -> dict[str, Callable[[int], Any]]:
    """Readers that touch no file but the one that is asked for."""

    def labels(number: int) -> np.ndarray | None:
        path = None if sequence.label_paths is None else sequence.label_paths[number]
        return None if path is None else sequence.read_labels(path)

    def depth(number: int) -> np.ndarray | None:
        return None if sequence.depth_paths is None else sequence.read_depth(sequence.depth_paths[number])

    return {"color": lambda number: sequence.read_color(sequence.color_paths[number]), "labels": labels, "depth": depth}


def _frame_readers(sequence: Sequence) -> dict[str, Callable[[int], Any]]:
    """Readers of whole frames, of which the last few are kept: each is asked for up to three times in a row."""
    frame = lru_cache(maxsize=4)(sequence.__getitem__)
    return {
        "color": lambda number: frame(number).color,
        "labels": lambda number: frame(number).labels,
        "depth": lambda number: frame(number).depth,
    }


def test_split(path: str | Path) -> str | None:
    """ "test" of a data set that comes in training and test parts, None of anything else."""
    path = Path(path)
    parts = (path / "test" / "LeftImages", path / "dataset_test.txt", path / "TestSplit.txt")
    return "test" if any(part.exists() for part in parts) else None


def images_named(folder: str | Path) -> dict[str, Path]:
    """The PNG files of a folder by name without suffix; FileNotFoundError if there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected label images NAME.png in it")
    return {file.stem: file for file in sorted(folder.glob("*.png"))}
