"""Sound recordings that tests of the doctor spoil, and what they ask of its findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from semslam.doctor.finding import Finding
from semslam.frame import Frame
from sequences import Sequence


class Spoilt(Sequence):
    """A recording whose frames and poses are changed on their way; the frames are read once."""

    def __init__(
        self,
        sound: Sequence,
        frames: list[Frame],
        change: Callable[[Frame], Frame] = lambda frame: frame,
        poses: Callable[[int, np.ndarray], np.ndarray | None] = lambda i, T: T,
    ) -> None:
        self.name, self.camera, self.timestamps = sound.name, sound.camera, sound.timestamps
        self.label_set, self.has_depth = None, True
        self._frames, self._change = frames, change
        self.poses = tuple(None if T is None else poses(i, T) for i, T in enumerate(sound.poses))

    def __getitem__(self, index: int) -> Frame:
        frame = self._change(self._frames[self._checked(index)])
        return replace(frame, labels=None, T_world_camera=self.poses[index])


def only_error(findings: list[Finding]) -> Finding:
    errors = [finding for finding in findings if finding.level == "error"]
    assert len(errors) == 1, findings
    return errors[0]


def change_poses(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write (4, 4) T_world_camera anew, one after another, in the groundtruth.txt of a plain folder."""
    rows = np.loadtxt(folder / "groundtruth.txt")
    for row in rows:
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_quat(row[4:]).as_matrix(), row[1:4]
        T = change(T)
        row[1:] = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
    np.savetxt(folder / "groundtruth.txt", rows, fmt="%.9f")
