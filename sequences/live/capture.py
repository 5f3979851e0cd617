"""The newest image of a camera: those that nobody was ready for are dropped, so that nothing falls behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from semslam.camera import Camera

WARM_UP = 10  # images at the start, while exposure settles
POLL = 0.05  # seconds between two looks at whether the recording is to end


class Captured(NamedTuple):
    """What a camera gives at one moment."""

    seconds: float  # by any clock that increases
    color: np.ndarray  # (H, W, 3) uint8 RGB
    depth: np.ndarray | None = None  # (H, W) uint16 units, registered to colour, 0 = none


class Source(Protocol):
    """A camera that is switched on."""

    name: str
    camera: Camera  # of colour; with its distortion
    depth_scale: float | None  # units of depth per metre; None without a depth camera
    sensor: str | None  # the key of `semslam.camera.SENSORS` of its depth camera, where it is known

    def read(self) -> Captured | None:
        """Wait for the next image; None when the camera gives no more."""

    def close(self) -> None:
        """Switch it off."""


class Capture:
    """Takes every image of a camera as it comes, in a thread of its own, and keeps the newest."""

    def __init__(self, source: Source, warm_up: int = WARM_UP) -> None:
        self.seen = 0  # images after the first `warm_up`
        self._source, self._warm_up = source, warm_up
        self._newest: Captured | None = None
        self.problem: Exception | None = None  # with which the camera ended
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._take_all, name="camera", daemon=True)
        self._thread.start()

    def newest(self, stop: Callable[[], bool]) -> Captured | None:
        """The newest image that was not given before, waited for; None when the camera ended, or `stop` says so."""
        with self._changed:
            while self._newest is None and not self._ended and not stop():
                self._changed.wait(POLL)
            found, self._newest = self._newest, None
            return None if stop() else found

    def close(self) -> None:
        """Switch the camera off."""
        with self._changed:
            self._ended = True
        self._thread.join(timeout=2.0)  # a camera that hangs must not hold the map up
        self._source.close()

    def _take_all(self) -> None:
        try:
            for _ in range(self._warm_up):
                self._source.read()
            while not self._ended and (captured := self._source.read()) is not None:
                with self._changed:
                    self.seen += 1
                    self._newest = captured
                    self._changed.notify()
        except Exception as problem:  # of a driver: told to who waits
            self.problem = problem
        with self._changed:
            self._ended = True
            self._changed.notify()
