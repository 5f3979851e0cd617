"""What every reader returns: frames by index, one camera, and what the recording has to offer."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam import images
from semslam.camera import Camera, same_aspect
from semslam.files.failures import raise_passing
from semslam.frame import Frame, RecordedImage
from semslam.images import CorruptFrame
from semslam.images import labels as label_images
from semslam.trajectory import Trajectory
from sequences.resampling import resampled_depth

__all__ = ["CorruptFrame", "DerivedSequence", "ImageSequence", "Mesh", "Sequence"]


class Mesh(NamedTuple):
    """A scene's exact surface, world frame."""

    vertices: np.ndarray  # (N, 3) float32 metres
    triangles: np.ndarray  # (M, 3) int32
    labels: np.ndarray  # (M,) uint8 class ids of the triangles, in the sequence's label set


class Sequence(ABC):
    """A recording. Frames are read when asked for; one that cannot be read raises CorruptFrame.

    Iterating stops at the first corrupt frame. To skip those, and count them, ask for each frame by its index:
    `for i in range(len(sequence)): frame = sequence.try_read(i, labels=True) ...`.
    """

    name: str
    camera: Camera  # of every frame; without distortion, readers undistort
    timestamps: np.ndarray  # (N,) float64 seconds, as recorded (`semslam doctor` judges them)
    poses: tuple[np.ndarray | None, ...] | None  # T_world_camera (4, 4) a frame, None where a frame has none
    label_set: str | None  # the key of LABEL_SETS of the frames' labels
    has_depth: bool
    sensor: str | None = None  # the key of `semslam.camera.SENSORS` of its depth camera, where the recording names it
    readout: float | None = None  # seconds from the first row of an image to its last; None where nothing says it
    depth_delays: np.ndarray | None = None  # (N,) seconds from each colour image to its depth image; None: all 0
    cut_off: float | None = None  # metres: depth that far stood for all that lies farther, and was taken off
    assumptions: tuple[str, ...] = ()  # what was taken for granted or left out when the files were read, for people
    grows: bool = False  # whether a camera still records it
    ahead: int = 9  # frames worth decoding before they are asked for
    decoders: int = 1  # threads that decode faster than one: of a single file, read in order, there is no more than one
    packed_in: tuple[Path, ...] = ()  # files that hold the images of many frames: a video, a bag, an archive
    # (3,) float64 metres: what was taken off the recorded poses, see `sequences.rebased`
    world_origin: np.ndarray = np.zeros(3)

    @abstractmethod
    def __getitem__(self, index: int) -> Frame:
        """Frame `index`, 0..len-1; IndexError outside."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def numbers(self, start: int = 0) -> Iterator[int]:
        """The numbers of the frames from `start` on; a camera that is still recording waits for each."""
        return iter(range(start, len(self)))

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

    @property
    def labelled_indices(self) -> list[int]:
        """The frames that come with labels, told without reading images."""
        return list(range(len(self))) if self.has_labels else []

    @property
    def origin(self) -> tuple[Sequence, np.ndarray]:
        """The recording that this is part of, and the number (N,) of each frame in it."""
        return self, np.arange(len(self))

    def number_of(self, index: int) -> int:
        """The number of frame `index` in the recording that this is part of: what messages name it by."""
        return int(index)

    def mesh(self) -> Mesh | None:
        """The scene's exact surface, where it is known: a synthetic scene's."""
        return None

    def try_read(self, index: int, labels: bool = False) -> Frame | None:
        """Frame `index`, or None where its files are missing or damaged.

        labels: with its labels; a damaged image of labels is no matter to those who do without.
        """
        try:
            return self[index] if labels else self.read_without_labels(index)
        except (ValueError, OSError) as problem:
            raise_passing(problem)
            return None

    def missing_files(self) -> list[Path]:
        """Files that the recording lists and that are not there or empty."""
        return []

    def size_of(self, index: int) -> int:
        """Bytes of the files of a frame's colour and depth, to recognise a recording by; 0 without such files."""
        return 0

    def read_without_labels(self, index: int) -> Frame:
        """Frame `index` without its labels, which need not be read."""
        return replace(self[index], labels=None)

    # One part of a frame, for those who need no more of it.

    def name_of(self, index: int) -> str:
        """The name of a frame's image."""
        return f"{index:06d}"

    def part_of(self, index: int) -> str:
        """Which of the recordings that were made apart a frame belongs to."""
        return self.name

    def color_of(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self._recent(index).color

    def recorded_image(self, index: int) -> RecordedImage | None:
        """The image that `color_of` was resampled from, where a lens or a zoom was undone."""
        return None

    def recorded_camera(self, index: int) -> Camera:
        """The camera of a frame's image as it was recorded, with the distortion that the reader undoes."""
        return self.camera

    def shown_at(self, index: int, pixels: np.ndarray) -> np.ndarray:
        """Where pixels (N, 2) u, v of a frame's image as it was recorded are in the image that `color_of` gives."""
        recorded = self.recorded_camera(index)
        return pixels if recorded == self.camera else self.camera.pixels_of(recorded.rays_of(pixels))

    def depth_of(self, index: int) -> np.ndarray | None:
        """(H, W) float32 metres along z, 0 = none."""
        return self._recent(index).depth

    def labels_of(self, index: int) -> np.ndarray | None:
        """(H, W) uint8 class ids, 255 = unlabelled."""
        return self._recent(index).labels

    @cached_property
    def _recent(self) -> Callable[[int], Frame]:
        """`__getitem__` that keeps the last few frames: their parts are asked for one after the other."""
        return lru_cache(maxsize=4)(self.__getitem__)

    def _checked(self, index: int) -> int:
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has frames 0..{len(self) - 1}, asked for {index}")
        return int(index)


@dataclass(eq=False)
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
    read_labels: Callable[[Path], np.ndarray] = label_images.read_labels
    assumptions: tuple[str, ...] = ()
    decoders: int = 2
    depth_delays: np.ndarray | None = None
    lens: Camera | None = None  # of the images as recorded, where `read_color` undoes its distortion

    def __post_init__(self) -> None:
        if not self.color_paths:
            raise ValueError(f"{self.name}: the sequence has no frames")
        self._check_first_frame()

    @property
    def has_depth(self) -> bool:  # type: ignore[override]
        return self.depth_paths is not None

    def __getitem__(self, index: int) -> Frame:
        return replace(self.read_without_labels(index), labels=self.labels_of(index))

    def read_without_labels(self, index: int) -> Frame:
        i = self._checked(index)
        return Frame(
            index=i,
            timestamp=float(self.timestamps[i]),
            color=self.color_of(i),
            camera=self.camera,
            depth=self.depth_of(i),
            T_world_camera=None if self.poses is None else self.poses[i],
            depth_delay=0.0 if self.depth_delays is None else float(self.depth_delays[i]),
        )

    @property
    def labelled_indices(self) -> list[int]:
        return [i for i, path in enumerate(self.label_paths or ()) if path is not None]

    def name_of(self, index: int) -> str:
        return self.color_paths[index].name

    def part_of(self, index: int) -> str:
        return str(self.color_paths[index].parent)

    def color_of(self, index: int) -> np.ndarray:
        path = self.color_paths[index]
        return self._of_camera_size(self.read_color(path), "image", path)

    def depth_of(self, index: int) -> np.ndarray | None:
        if self.depth_paths is None:
            return None
        path = self.depth_paths[index]
        depth = self.read_depth(path)
        recorded = self.depth_shape
        if recorded != self.camera.shape and depth.shape == recorded and same_aspect(recorded, self.camera.shape):
            return resampled_depth(depth, self.camera.resized(recorded[1], recorded[0]), self.camera)
        return self._of_camera_size(depth, "depth", path)

    @cached_property
    def depth_shape(self) -> tuple[int, ...]:
        """(H, W) of the depth images as recorded: that of the first that can be read."""
        for path in (self.depth_paths or ())[:20]:
            try:
                return self.read_depth(path).shape
            except CorruptFrame:
                continue
        return self.camera.shape

    def labels_of(self, index: int) -> np.ndarray | None:
        path = None if self.label_paths is None else self.label_paths[index]
        return None if path is None else self._of_camera_size(self.read_labels(path), "label image", path)

    def recorded_camera(self, index: int) -> Camera:
        return self.lens or self.camera

    def files_of(self, index: int) -> list[Path]:
        """The files that are listed for a frame."""
        listed = (paths[index] for paths in (self.color_paths, self.depth_paths, self.label_paths) if paths is not None)
        return [path for path in listed if path is not None]

    def missing_files(self) -> list[Path]:
        listed = (path for i in range(len(self)) for path in self.files_of(i))
        return [path for path in listed if not path.is_file() or path.stat().st_size == 0]

    def size_of(self, index: int) -> int:
        paths = [self.color_paths[index], *([self.depth_paths[index]] if self.depth_paths is not None else [])]
        return sum(path.stat().st_size for path in paths if path.is_file())

    def _of_camera_size(self, image: np.ndarray, what: str, path: Path) -> np.ndarray:
        if image.shape[:2] != self.camera.shape:
            raise CorruptFrame(
                f"{path}: {what} is {image.shape[1]}x{image.shape[0]}, the camera's is "
                f"{self.camera.width}x{self.camera.height}; {self._remedy_of_size(image, what)}"
            )
        return image

    def _remedy_of_size(self, image: np.ndarray, what: str) -> str:
        """What to do about an image that is not of the camera's size."""
        camera = self.recorded_camera(0)
        upright = (camera.height, camera.width)
        if same_aspect(image.shape[:2], upright[::-1]) and not same_aspect(image.shape[:2], upright):
            return (
                f"it seems turned by 90 degrees: turn it back, or, if all images are turned, write width: "
                f"{camera.height}, height: {camera.width}, fx: {camera.fy:g}, fy: {camera.fx:g} and the turned centre "
                f"(clockwise cx: {camera.height - 1 - camera.cy:g}, cy: {camera.cx:g}; counter-clockwise cx: "
                f"{camera.cy:g}, cy: {camera.width - 1 - camera.cx:g}) as the camera's"
            )
        if what == "label image":
            return "resize label images to that by nearest neighbour, or crop colour and depth as they were cropped"
        return (
            "colour, labels and camera must have one size, depth their aspect (depth of another camera: write "
            "depth_camera and T_color_depth into camera.yaml)"
        )

    def _check_first_frame(self) -> None:
        """Refuse the sequence when its first frame is readable but of the wrong size or type: so are the others."""
        try:
            self[0]
        except CorruptFrame as problem:
            if not problem.broken_file:
                raise ValueError(str(problem)) from None


class DerivedSequence(Sequence):
    """Another sequence with something about it changed; all that a subclass does not change is the other one's."""

    def __init__(self, whole: Sequence) -> None:
        self.whole = whole
        for name in Sequence.__annotations__:
            setattr(self, name, getattr(whole, name))

    def _changed(self, frame: Frame, index: int) -> Frame:
        """Frame `index`, made from that of the other sequence. Who changes an image changes what is read of it alone,
        too: `color_of`, `depth_of`, `labels_of`."""
        return frame

    def _of_whole(self, index: int) -> int:
        """The number of frame `index` in the other sequence, which raises IndexError outside."""
        return index

    def __getitem__(self, index: int) -> Frame:
        return self._changed(self.whole[self._of_whole(index)], index)

    def read_without_labels(self, index: int) -> Frame:
        return self._changed(self.whole.read_without_labels(self._of_whole(index)), index)

    @property
    def labelled_indices(self) -> list[int]:
        return self.whole.labelled_indices

    @property
    def origin(self) -> tuple[Sequence, np.ndarray]:
        return self.whole.origin

    def number_of(self, index: int) -> int:
        return self.whole.number_of(self._of_whole(index))

    def recorded_camera(self, index: int) -> Camera:
        return self.whole.recorded_camera(self._of_whole(index))

    def shown_at(self, index: int, pixels: np.ndarray) -> np.ndarray:
        return self.whole.shown_at(self._of_whole(index), pixels)

    def mesh(self) -> Mesh | None:
        return self.whole.mesh()

    def missing_files(self) -> list[Path]:
        return self.whole.missing_files()

    def size_of(self, index: int) -> int:
        return self.whole.size_of(self._of_whole(index))

    def name_of(self, index: int) -> str:
        return self.whole.name_of(self._of_whole(index))

    def part_of(self, index: int) -> str:
        return self.whole.part_of(self._of_whole(index))

    def color_of(self, index: int) -> np.ndarray:
        return self.whole.color_of(self._of_whole(index))

    def recorded_image(self, index: int) -> RecordedImage | None:
        return self.whole.recorded_image(self._of_whole(index))

    def depth_of(self, index: int) -> np.ndarray | None:
        return self.whole.depth_of(self._of_whole(index))

    def labels_of(self, index: int) -> np.ndarray | None:
        return self.whole.labels_of(self._of_whole(index))
