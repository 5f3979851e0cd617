"""A network that looks at a frame while the frames before it are fused: its labels are there when their turn comes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

import numpy as np

from semslam.perception import Network, NetworkInFront, Prediction
from semslam.threads import background

# Frames that are begun and not asked for yet, and bytes that their probabilities take, unless a single one takes more.
MOST, MOST_BYTES = 2, 400_000_000
OVER = 20  # frames after which one that was begun is asked for no more; fewer are read ahead


@dataclass(frozen=True, eq=False)
class _Begun:
    number: int
    image: np.ndarray
    size: tuple[int, int]
    mirrored: bool
    probabilities: Future[np.ndarray]


class LabelsAhead(NetworkInFront):
    """A network on a thread of its own. What it says of an image is the same, whenever that was begun."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._thread = background("labels")
        self._begun: list[_Begun] = []
        self._changing = Lock()  # of that list: several threads read frames
        self._bytes_each = 0  # of the last probabilities

    def begin(self, number: int, image: np.ndarray, size: tuple[int, int], mirrored: bool = False) -> None:
        """Start on the class probabilities of a frame that will be asked for, unless others wait already."""
        with self._changing:
            self._begun = [begun for begun in self._begun if number - begun.number < OVER]
            if len(self._begun) < (MOST if MOST * self._bytes_each <= MOST_BYTES else 1):
                probabilities = self._thread.submit(self.network.class_probabilities, image, size, mirrored)
                self._begun.append(_Begun(number, image, size, mirrored, probabilities))

    def class_probabilities(self, image: np.ndarray, size: tuple[int, int], mirrored: bool = False) -> np.ndarray:
        with self._changing:
            asked = size, mirrored
            of_image = [b for b in self._begun if b.image is image and (b.size, b.mirrored) == asked]
            self._begun = [begun for begun in self._begun if begun not in of_image]
        begun = of_image[0].probabilities if of_image else None
        found = (begun or self._thread.submit(self.network.class_probabilities, image, size, mirrored)).result()
        self._bytes_each = found.nbytes
        return found

    def __call__(self, image: np.ndarray, size: tuple[int, int], focal: float, mirror_too: bool = False) -> Prediction:
        return self._thread.submit(self.network, image, size, focal, mirror_too).result()
