"""Depth by parallax looks at frames to come: what was read of these, and what a network said of them, is kept until
they are the present frame."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from threading import Lock

import numpy as np

from semslam.frame import Frame
from semslam.perception import Network, NetworkInFront, Prediction
from sequences.sequence import DerivedSequence, Sequence

# Predictions that are kept, the last one always: keyframes after the present one, and some to spare; and bytes that
# they take, 12 a pixel. Of very large images fewer are kept than keyframes follow, and the network looks again.
MOST, MOST_BYTES = 8, 200_000_000
FRAME_BYTES = 18  # a pixel of a frame: colour and depth, and of its image as recorded, colour and places


class RecallingNetwork(NetworkInFront):
    """A network that keeps what it said of the last images."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._changing = Lock()  # of what it said: frames to come are looked at by a thread of their own
        self._said: dict[tuple[bytes, tuple[int, int], float, bool], Prediction] = {}  # the last one last

    def __call__(self, image: np.ndarray, size: tuple[int, int], focal: float, mirror_too: bool = False) -> Prediction:
        asked = blake2b(image.tobytes(), digest_size=16).digest(), size, focal, mirror_too
        with self._changing:
            if (said := self._said.pop(asked, None)) is not None:
                return said  # nobody asks a third time, and class probabilities take memory
        said = self.network(image, size, focal, mirror_too)
        with self._changing:
            self._said[asked] = said
            bytes_each = 12 * size[0] * size[1]
            while len(self._said) > max(1, min(MOST, MOST_BYTES // bytes_each)):
                del self._said[next(iter(self._said))]
        return said


class RecallingSequence(DerivedSequence):
    """Another sequence's frames, of which the last that were read are kept until they are read once more."""

    def __init__(self, whole: Sequence) -> None:
        super().__init__(whole)
        self._changing = Lock()  # of what was read: likewise
        self._read: dict[int, Frame] = {}  # the last one last

    def __getitem__(self, index: int) -> Frame:
        return replace(self.read_without_labels(index), labels=self.labels_of(index))

    def read_without_labels(self, index: int) -> Frame:
        with self._changing:
            if (kept := self._read.pop(index, None)) is not None:
                return kept
        frame = super().read_without_labels(index)
        with self._changing:
            self._read[index] = frame
            bytes_each = FRAME_BYTES * self.camera.width * self.camera.height
            while len(self._read) > max(1, min(MOST, MOST_BYTES // bytes_each)):
                del self._read[next(iter(self._read))]
        return frame
