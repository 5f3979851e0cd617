"""The viewer while a run goes on: the caller tells it of every step."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from semslam.labels import LABEL_SETS
from semslam.looking.viewed import Viewed
from semslam.looking.window import MapWindow
from semslam.runs.run import Run

SHARE = 0.2  # of the time may go into showing the map; the rest is for making it


class LiveView:
    """A window on a run in progress. Call it after every step; it shows a newer map as often as `SHARE` allows.

    RuntimeError where no window can be made.
    """

    def __init__(
        self, run: Run, report: Callable[[str], None], *, visible: bool = True, width: int = 1280, height: int = 960
    ) -> None:
        self.run = run
        self.report = report
        self.window: MapWindow | None = MapWindow(
            self._viewed(), width=width, height=height, visible=visible, report=report
        )
        self.window.show("label" if run.slam.surfels.num_classes else "color")
        self._shown_at = -np.inf
        self._cost = 0.0

    def __call__(self) -> None:
        """Let the window react, and show the map as it is now if it is time to."""
        if self.window is None:
            return
        if not self.window.poll():
            self.close()
            self.report("the window is closed, the reconstruction goes on")
            return
        now = time.perf_counter()
        if now - self._shown_at < self._cost * (1 / SHARE - 1):
            return
        self.window.update(self._viewed())
        self._shown_at = time.perf_counter()
        self._cost = self._shown_at - now

    def stay(self) -> None:
        """Show the finished map until the window is closed."""
        if self.window is not None:
            self.window.update(self._viewed())
            self.report("the map is finished; close the window, or press Q in it, to end")
            while self.window.poll():
                time.sleep(0.01)
            self.close()

    def close(self) -> None:
        """Take the window down."""
        if self.window is not None:
            self.window.close()
            self.window = None

    def _viewed(self) -> Viewed:
        run = self.run
        label_set = LABEL_SETS[run.config.slam.perception.classes]
        return Viewed(run.cloud(), label_set, run.config.sequence, run.progress.paths(), run.slam.fusion.camera)
