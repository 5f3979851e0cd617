"""Some maps in windows that share one camera and the same switches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from semslam.looking.viewed import Viewed
from semslam.looking.window import MapWindow


def view(maps: Sequence[Viewed], coloring: str, hidden: Iterable[str], report: Callable[[str], None]) -> None:
    """Open a window for each map, all with one camera and the same switches, until one is closed.

    `coloring` is a name of COLORINGS, or error; `hidden`: classes, by name. RuntimeError where no window can be made.
    """
    windows: list[MapWindow] = []
    try:
        for viewed in maps:  # one after the other, so that those there are get closed if the next cannot be made
            windows.append(MapWindow(viewed, report=report))
        switches = replace(windows[0].switches, coloring=coloring, hidden=frozenset(hidden))
        for window in windows:
            window.switch(switches)
        windows[0].open_legend()
        pose = windows[0].pose()
        for window in windows[1:]:
            window.look_from(pose)
        while sum(window.poll() for window in windows) == len(windows):  # polls every window, unlike all()
            time.sleep(0.005)  # polling does not wait, and a still picture needs no core of its own
            pose = _follow(windows, pose)
            switches = next((window.switches for window in windows if window.switches != switches), switches)
            for window in windows:
                window.switch(switches)
    finally:
        for window in windows:
            window.close()


def _follow(windows: Iterable[MapWindow], pose: np.ndarray) -> np.ndarray:
    """Turn all windows to the pose of the one that moved away from the shared pose."""
    for moved in [window.pose() for window in windows]:
        if not np.allclose(moved, pose, atol=1e-6):
            for window in windows:
                window.look_from(moved)
            return moved
    return pose
