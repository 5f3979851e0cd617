"""What a machine is short of for a moment makes no unreadable frame of a whole one."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semslam.depth.multiview import MultiViewDepth
from semslam.doctor.flow import followed
from semslam.doctor.order.gaps import gaps
from semslam.frame import Frame
from sequences import CorruptFrame
from sequences.files import Archive
from sequences.room.room import RoomSequence


class Failing(RoomSequence):
    """A room whose images cannot be read by themselves, for a reason."""

    def __init__(self, number: int) -> None:
        super().__init__(frames=6, width=96, height=72)
        self.number = number

    def read_without_labels(self, index: int) -> Frame:
        return replace(self[index], color=self.color_of(index))

    def color_of(self, index: int) -> np.ndarray:
        raise OSError(self.number, "as told")


def tracks(sequence: Failing) -> Any:
    sequence.try_read = lambda index: sequence[index]  # type: ignore[method-assign]
    return followed(sequence, [0, 1])


def kept_grey(sequence: Failing) -> Any:
    return MultiViewDepth._grey_of(SimpleNamespace(_greys={}, _grey=None, color_of=sequence.color_of), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("read", [lambda sequence: sequence.try_read(0), gaps, tracks, kept_grey])
def test_an_image_is_unreadable_only_for_a_reason_of_its_own(read: Callable[[Failing], Any]):
    assert not read(Failing(errno.EIO)), "a bad sector is of that file"
    with pytest.raises(OSError, match="as told"):
        read(Failing(errno.EMFILE))


@pytest.mark.parametrize(("number", "expected"), [(errno.EIO, CorruptFrame), (errno.EMFILE, OSError)])
def test_a_file_of_an_archive_is_unreadable_only_for_a_reason_of_its_own(tmp_path, monkeypatch, number, expected):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"")
    files = Archive(tmp_path / "a.zip")

    def failing(*_):
        raise OSError(number, "as told")

    monkeypatch.setattr(zipfile.ZipFile, "read", failing)
    with pytest.raises(expected, match="as told"):
        files.read("a.png")
