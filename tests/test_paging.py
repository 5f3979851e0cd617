"""Maps larger than memory: the same bits from files, and no more of them in memory than was allowed."""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from semslam.cli import app
from semslam.engine.chunks import CHUNK
from semslam.engine.fusion import Fusion
from semslam.engine.surfels import SURFEL_ARRAYS, MapConfig, SurfelMap
from semslam.frame import Observation
from semslam.runs.storage.checkpoint import Checkpoint
from sequences.room.room import RoomSequence

ROOMS = 4
STEP = np.array([50.0, 0, 0])  # metres from one to the next


@cache
def views() -> list[Observation]:
    room = RoomSequence(frames=6, width=160, height=120)
    return [Observation(frame, room.camera, frame.color, frame.depth) for frame in room]


def walk():
    """The same room several times, far apart, and the first one again: (observation, pose, number)."""
    observations, frames = views(), len(views())
    for number in range((ROOMS + 1) * frames):
        T = observations[number % frames].frame.T_world_camera.copy()
        T[:3, 3] += STEP * (number // frames % ROOMS)
        yield observations[number % frames], T, number


def mapped(memory: str | None, folder: Path, tell=lambda surfels: None) -> SurfelMap:
    surfels = SurfelMap(0, MapConfig(memory=memory))
    surfels.page_to(folder)
    fusion = None
    for observation, T, number in walk():
        fusion = fusion or Fusion(observation.camera)
        fusion.fuse(surfels, fusion.prepare(observation), T, number)
        if number % 3 == 2:
            tell(surfels)
    return surfels


def resident(descriptors: str = ".pages-") -> int:
    """Bytes of the files of maps that this process has in memory, as Linux counts them."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and ":" not in line.split(" ")[0]:
            ours = descriptors in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_a_map_four_times_its_budget_is_the_same_bit_by_bit_and_stays_within_it(tmp_path):
    whole = mapped(None, tmp_path)
    size = whole.n_chunks * CHUNK * int(whole.bytes_per_surfel)
    budget = size // 4
    peaks: list[int] = []
    linux = sys.platform == "linux"
    paged = mapped(f"{budget / 1e6:.3f}MB", tmp_path, lambda surfels: peaks.append(resident() if linux else 0))
    for name in SURFEL_ARRAYS:
        slots = whole.slots()
        np.testing.assert_array_equal(getattr(paged, name)[slots], getattr(whole, name)[slots])
    np.testing.assert_array_equal(paged.slots(), whole.slots())
    in_view = size // ROOMS
    assert max(peaks) <= max(budget, in_view) * 1.3, "no more than the budget, or what one place shows"
    assert len(list(tmp_path.iterdir())) == 0, "the files have no names, so that nothing is left of them"


def test_saving_reads_the_map_in_parts(tmp_path):
    surfels = mapped("0.5MB", tmp_path)
    before = {part.name: list(part.blocks) for part in mapped(None, tmp_path).state_parts()}
    for part in surfels.state_parts():
        for ours, theirs in zip(part.blocks, before[part.name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    Checkpoint(tmp_path / "checkpoint").save(surfels, {})
    assert sys.platform != "linux" or resident() < 3 << 20
    state = Checkpoint(tmp_path / "checkpoint").load()
    for name in SURFEL_ARRAYS:
        np.testing.assert_array_equal(state[name], np.concatenate(before[name]))


def test_a_full_disk_is_one_line_when_the_map_grows(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    surfels = SurfelMap(13, MapConfig(memory="1MB"))
    with pytest.raises(OSError, match=r"No space left on device: the surfels need 4 MB for position; make room"):
        surfels.page_to(tmp_path)


@pytest.mark.parametrize("memory", ["500", "lots", "-1MB", "1 PB"])
def test_an_amount_of_memory_has_a_unit(memory):
    with pytest.raises(ValueError, match=r"`slam.map.memory` is .*, expected an amount such as 500MB"):
        MapConfig(memory=memory)
    assert MapConfig(memory="1.5 GB").memory_bytes == 1_500_000_000


@pytest.mark.slow
def test_a_run_with_little_memory_makes_the_same_files(tmp_path):
    words = [
        "reconstruct",
        "room:frames=60,width=320,height=240",
        "--labels",
        "truth",
        "--no-mesh",
        "--poses",
        "tracked",
    ]
    for name, more in (("all", []), ("little", ["--memory", "2MB", "--checkpoint", "0.3"])):
        result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / name), *more])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "all" / "map.ply").read_bytes() == (tmp_path / "little" / "map.ply").read_bytes()
