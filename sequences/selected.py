"""Part of a recording: some of its frames, as if no others had been recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from semslam.frame import Frame, first_few
from sequences.sequence import DerivedSequence, ImageSequence, Sequence

FEW_LACKING = 0.1  # of the frames: so many may have lost a file
CELLS = 80  # along each side of an image, of what is hidden in it


def selected(sequence: Sequence, start: int = 0, frames: int | None = None, every: int = 1) -> Sequence:
    """The sequence from frame `start` on, every so many-th frame of it, at most `frames` of them.

    ValueError, which names the setting, where that leaves no frame.
    """
    indices = chosen_numbers(len(sequence), sequence.name, start, frames, every)
    return sequence if len(indices) == len(sequence) else SelectedSequence(sequence, indices)


def chosen_numbers(count: int, name: str, start: int = 0, frames: int | None = None, every: int = 1) -> np.ndarray:
    """The numbers (N,) of those frames among `count` of them; name: of the sequence, for messages."""
    if every < 1:
        raise ValueError(f"`every` is {every}, expected 1 or more: every so many-th frame is taken")
    if frames is not None and frames < 1:
        raise ValueError(f"`frames` is {frames}, expected 1 or more")
    if not 0 <= start < count:
        raise ValueError(f"`start` is {start}, but {name} has frames 0..{count - 1}")
    return np.arange(start, count, every)[:frames]


def with_both_images(sequence: ImageSequence) -> Sequence:
    """The frames that have a colour and a depth file, where colour and depth were recorded at two rates.

    They were where many frames lack one of them; a few that do have lost it: these stay, to be told as unreadable.
    """
    listed = zip(sequence.color_paths, sequence.depth_paths or sequence.color_paths)
    indices = np.array([i for i, files in enumerate(listed) if all(file.exists() for file in files)], np.int64)
    lacking = len(sequence) - len(indices)
    if lacking <= max(1, FEW_LACKING * len(sequence)) or len(indices) < 2:
        return sequence
    part = SelectedSequence(sequence, indices)
    some = first_few(np.setdiff1d(np.arange(len(sequence)), indices).tolist())
    part.assumptions += (f"{lacking} of {len(sequence)} frames lack colour or depth and are left out ({some})",)
    return part


class SelectedSequence(DerivedSequence):
    """Frames of another sequence, numbered from 0. Only those that are asked for are read."""

    def __init__(self, whole: Sequence, indices: np.ndarray) -> None:
        """indices: (N,) increasing numbers of the whole sequence's frames."""
        super().__init__(whole)
        self.indices = indices
        self.depth_delays = None if whole.depth_delays is None else whole.depth_delays[indices]
        self.timestamps = whole.timestamps[indices]
        self.poses = None if whole.poses is None else tuple(whole.poses[i] for i in indices)

    def _changed(self, frame: Frame, index: int) -> Frame:
        return _renumbered(frame, index)

    def _of_whole(self, index: int) -> int:
        return int(self.indices[self._checked(index)])

    @cached_property
    def labelled_indices(self) -> list[int]:  # type: ignore[override]
        labelled = set(self.whole.labelled_indices)
        return [i for i, number in enumerate(self.indices) if number in labelled]

    @property
    def origin(self) -> tuple[Sequence, np.ndarray]:
        whole, indices = self.whole.origin
        return whole, indices[self.indices]

    def missing_files(self) -> list[Path]:
        missing = self.whole.missing_files()
        whole, indices = self.origin
        if not missing or not isinstance(whole, ImageSequence):
            return missing
        ours = {file for i in indices for file in whole.files_of(int(i))}
        return [file for file in missing if file in ours]


class WithoutDepth(DerivedSequence):
    """Another sequence, some of whose frames have no depth: it is 0 everywhere."""

    def __init__(self, whole: Sequence, frames: Collection[int]) -> None:
        """frames: their numbers, looked up when a frame is read: there may be more of them by then."""
        super().__init__(whole)
        self.frames = frames

    def _changed(self, frame: Frame, index: int) -> Frame:
        blank = index in self.frames and frame.depth is not None
        return replace(frame, depth=np.zeros_like(frame.depth)) if blank else frame

    def depth_of(self, index: int) -> np.ndarray | None:
        depth = super().depth_of(index)
        return np.zeros_like(depth) if depth is not None and index in self.frames else depth


def hidden_cells(hidden: np.ndarray) -> np.ndarray:
    """(CELLS, CELLS // 8) uint8: in which cells of an image (H, W) bool most pixels are set, a bit each."""
    cells = cv2.resize(hidden.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.packbits(cells >= 0.5, axis=1)


class WithoutHidden(DerivedSequence):
    """Another sequence, whose depth is 0 where something else than the scene was recognised in it."""

    def __init__(self, whole: Sequence, hidden: Mapping[int, np.ndarray]) -> None:
        """hidden: by the index of a frame, `hidden_cells`; looked up when it is read."""
        super().__init__(whole)
        self.hidden = hidden

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, depth=self._seen(frame.depth, index))

    def depth_of(self, index: int) -> np.ndarray | None:
        return self._seen(super().depth_of(index), index)

    def _seen(self, depth: np.ndarray | None, index: int) -> np.ndarray | None:
        if depth is None or index not in self.hidden:
            return depth
        cells = np.unpackbits(self.hidden[index], axis=1)
        v, u = (np.arange(n) * CELLS // n for n in depth.shape)
        return np.where(cells[np.ix_(v, u)], np.float32(0), depth)


class NearerSequence(DerivedSequence):
    """Another sequence, whose depth is 0, none, from a distance on."""

    def __init__(self, whole: Sequence, cut_off: float) -> None:
        super().__init__(whole)
        self.cut_off = cut_off

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, depth=self._nearer(frame.depth))

    def depth_of(self, index: int) -> np.ndarray | None:
        return self._nearer(super().depth_of(index))

    def _nearer(self, depth: np.ndarray | None) -> np.ndarray | None:
        return None if depth is None else np.where(depth < self.cut_off, depth, np.float32(0))


class ReadableSequence(Sequence):
    """The frames of another sequence that can be read, numbered as they come; `skipped` counts the others.

    One whose labels cannot be read comes without, and `without_labels` counts it; with `label_set` None none are read.

    What it says of times, poses and length is of the frames that came out of the last iteration: who writes a
    recording learns them by writing it, without reading everything twice. An iteration that no frame came out of ends
    in ValueError.
    """

    def __init__(self, whole: Sequence, tell: Callable[[], object] = lambda: None) -> None:
        """tell: called after every frame of the whole sequence."""
        self.whole, self._tell = whole, tell
        self.name, self.camera, self.label_set = whole.name, whole.camera, whole.label_set
        self.has_depth, self.sensor, self.readout = whole.has_depth, whole.sensor, whole.readout
        self.skipped = self.without_labels = 0
        self._numbers: list[int] = []

    def __iter__(self):
        self._numbers, self.skipped, self.without_labels = [], 0, 0
        for number in range(len(self.whole)):
            frame = self.whole.try_read(number, labels=self.has_labels)
            if frame is None and self.has_labels and (frame := self.whole.try_read(number)) is not None:
                self.without_labels += 1
            self._tell()
            if frame is None:
                self.skipped += 1
                continue
            self._numbers.append(number)
            yield _renumbered(frame, len(self._numbers) - 1)
        if not self._numbers:
            raise ValueError(f"{self.name}: none of its {self.skipped} frames can be read")

    def __getitem__(self, index: int) -> Frame:
        return _renumbered(self.whole[self._numbers[self._checked(index)]], index)

    @property
    def timestamps(self) -> np.ndarray:  # type: ignore[override]
        return self.whole.timestamps[self._numbers]

    @property
    def depth_delays(self) -> np.ndarray | None:  # type: ignore[override]
        return None if self.whole.depth_delays is None else self.whole.depth_delays[self._numbers]

    @property
    def poses(self) -> tuple[np.ndarray | None, ...] | None:  # type: ignore[override]
        return None if self.whole.poses is None else tuple(self.whole.poses[number] for number in self._numbers)


def _renumbered(frame: Frame, index: int) -> Frame:
    """A frame of a part, in which it has another number than in the whole recording."""
    return replace(frame, index=int(index), recorded_index=frame.number)
