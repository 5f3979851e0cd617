"""What every reader returns: frames by index, one camera, and what the recording has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.frame import Frame
from semslam.images import CorruptFrame
from semslam.trajectory import Trajectory

__all__ = ["CorruptFrame", "ImageSequence", "Sequence"]


class Sequence(ABC):
    """A recording. Frames are read when asked for; one that cannot be read raises CorruptFrame.

    Iterating stops at the first corrupt frame. Who wants to count and skip them asks by index:
    `for i in range(len(sequence)): try: frame = sequence[i] ...`.
    """

    name: str
    camera: Camera  # of every frame; without distortion, readers undistort
    timestamps: np.ndarray  # (N,) float64 seconds, as recorded (`semslam doctor` judges them)
    poses: tuple[np.ndarray | None, ...] | None  # T_world_camera (4, 4) a frame, None where a frame has none
    label_set: str | None  # the key of LABEL_SETS of the frames' labels
    has_depth: bool

    @abstractmethod
    def __getitem__(self, index: int) -> Frame:
        """Frame `index`, 0..len-1; IndexError outside."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    @property
    def has_labels(self) -> bool:
        return self.label_set is not None

    @property
    def has_poses(self) -> bool:
        """Whether any frame has one: a trajectory of another recording gives none."""
        return self.poses is not None and any(T is not None for T in self.poses)

    @property
    def trajectory(self) -> Trajectory | None:
        """The recorded poses with their times, frames without one left out; None if there are none."""
        if self.poses is None:
            return None
        posed = [i for i, T in enumerate(self.poses) if T is not None]
        T_world_camera = np.array([self.poses[i] for i in posed], np.float64).reshape(-1, 4, 4)
        return Trajectory(self.timestamps[posed], T_world_camera) if posed else None

    def missing_files(self) -> list[Path]:
        """Files that the recording lists and that are not there or empty."""
        return []

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has frames 0..{len(self) - 1}, asked for {index}")
        return int(index)


@dataclass(frozen=True, eq=False)
class ImageSequence(Sequence):
    """A recording of image files. Readers list the files; how an image is read is an argument."""

    name: str
    camera: Camera
    timestamps: np.ndarray
    color_paths: tuple[Path, ...]
    depth_paths: tuple[Path, ...] | None = None
    label_paths: tuple[Path | None, ...] | None = None  # None for a frame without labels
    poses: tuple[np.ndarray | None, ...] | None = None
    label_set: str | None = None
    read_color: Callable[[Path], np.ndarray] = images.read_color
    read_depth: Callable[[Path], np.ndarray] = images.read_depth
    read_labels: Callable[[Path], np.ndarray] = images.read_labels

    def __post_init__(self) -> None:
        if not self.color_paths:
            raise ValueError(f"{self.name}: the sequence has no frames")
        self._check_first_frame()

    @property
    def has_depth(self) -> bool:  # type: ignore[override]
        return self.depth_paths is not None

    def __getitem__(self, index: int) -> Frame:
        i = self._checked(index)
        color = self._of_camera_size(self.read_color(self.color_paths[i]), "image", self.color_paths[i])
        depth = None
        if self.depth_paths is not None:
            depth = self._of_camera_size(self.read_depth(self.depth_paths[i]), "depth", self.depth_paths[i])
        labels = None
        if self.label_paths is not None and (path := self.label_paths[i]) is not None:
            labels = self._of_camera_size(self.read_labels(path), "label image", path)
        return Frame(
            index=i,
            timestamp=float(self.timestamps[i]),
            color=color,
            camera=self.camera,
            depth=depth,
            labels=labels,
            T_world_camera=None if self.poses is None else self.poses[i],
        )

    def missing_files(self) -> list[Path]:
        listed = [*self.color_paths, *(self.depth_paths or ()), *(path for path in self.label_paths or () if path)]
        return [path for path in listed if not path.is_file() or path.stat().st_size == 0]

    def _of_camera_size(self, image: np.ndarray, what: str, path: Path) -> np.ndarray:
        if image.shape[:2] != self.camera.shape:
            raise CorruptFrame(
                f"{path}: {what} is {image.shape[1]}x{image.shape[0]}, the camera's is "
                f"{self.camera.width}x{self.camera.height}; colour, depth, labels and camera must have one size"
            )
        return image

    def _check_first_frame(self) -> None:
        """Refuse the sequence when its first frame is readable but of the wrong size or type: so are the others."""
        try:
            self[0]
        except CorruptFrame as problem:
            if not problem.broken_file:
                raise ValueError(str(problem)) from None
