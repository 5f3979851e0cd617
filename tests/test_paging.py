"""Maps larger than memory: the same bits from files, and no more of them in memory than was allowed."""

from __future__ import annotations

import errno
import json
import os
import sys
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from stub_networks import KnowingNetwork
from synthetic_maps import cloud_of, plane
from typer.testing import CliRunner

from semslam import poses
from semslam.cli import app
from semslam.cloud import CloudInParts
from semslam.engine.associations import MOVED, Associations
from semslam.engine.chunks import CHUNK
from semslam.engine.fusion import Fusion
from semslam.engine.labels.label_fusion import LabelFusionConfig, label_fusion
from semslam.engine.saved_surfels import restored, state_parts
from semslam.engine.surfels import SURFEL_ARRAYS, MapConfig, SurfelMap
from semslam.frame import Observation
from semslam.geometry.export import read_mesh_ply
from semslam.geometry.tsdf_mesh import ReconstructionConfig
from semslam.loops.loop_closure import deform
from semslam.runs import networks
from semslam.runs.storage.arrays import load_arrays, save_arrays, stored_rows
from semslam.runs.storage.checkpoint import Checkpoint
from semslam.trajectory import Correction
from sequences import open_sequence
from sequences.room.room import RoomSequence

ROOMS = 4
STEP = np.array([50.0, 0, 0])  # metres from one to the next


@cache
def views() -> list[Observation]:
    room = RoomSequence(frames=6, width=160, height=120)
    return [Observation.of(frame) for frame in room]


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
    before = {part.name: list(part.blocks) for part in state_parts(mapped(None, tmp_path))}
    for part in state_parts(surfels):
        for ours, theirs in zip(part.blocks, before[part.name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    Checkpoint(tmp_path / "checkpoint").save(surfels, {})
    assert sys.platform != "linux" or resident() < 3 << 20
    state = Checkpoint(tmp_path / "checkpoint").load()
    for name in SURFEL_ARRAYS:
        np.testing.assert_array_equal(state[name], np.concatenate(before[name]))


def sheet(memory: str | None, folder: Path) -> SurfelMap:
    """300,000 surfels at random places; each frame has made some."""
    rng = np.random.default_rng(0)
    surfels = SurfelMap(13, MapConfig(memory=memory))
    surfels.page_to(folder)
    for number in range(30):
        points = rng.uniform(-3, 3, (10_000, 3)).astype(np.float32) * np.float32([1, 1, 0.02])
        slots = surfels.insert(points)
        for name in SURFEL_ARRAYS:
            array = getattr(surfels, name)
            array[slots] = rng.integers(2, 1000, (len(slots), array.shape[1])).astype(array.dtype)
        surfels.position[slots, :3], surfels.seen[slots] = points, number
    return surfels


def test_a_loop_is_closed_in_parts_bit_by_bit_as_in_memory(tmp_path):
    shifts = np.stack([poses.exp(np.array([0.1 * k, 0.02 * k, 0, 0, 0.01 * k, 0])) for k in range(30)])
    correction = Correction.between(list(range(30)), np.stack([np.eye(4)] * 30), shifts)
    found, recorded = [], []
    for memory in (None, "2MB"):
        surfels = sheet(memory, tmp_path)
        surfels.journal = record = Associations()
        farthest = deform(surfels, correction)
        surfels.compact_all()
        surfels.sort_again()
        recorded.append([record.packed[k] for k, event in enumerate(record.events) if event.kind == MOVED])
        if memory is not None and sys.platform == "linux":
            assert resident() < 8 << 20
        found.append((farthest, {name: getattr(surfels, name)[surfels.slots()] for name in SURFEL_ARRAYS}))
    assert found[0][0] == found[1][0] > 1
    for name in SURFEL_ARRAYS:
        np.testing.assert_array_equal(found[0][1][name], found[1][1][name])
    assert recorded[0] == recorded[1]


def test_a_saved_map_comes_back_in_parts(tmp_path):
    surfels = sheet(None, tmp_path)
    save_arrays(tmp_path / "map.npz", state_parts(surfels))
    Checkpoint(tmp_path / "checkpoint").save(surfels, {})
    stored = stored_rows(tmp_path / "map.npz", SURFEL_ARRAYS)
    others = load_arrays(tmp_path / "map.npz", without=stored)
    for state in (others | stored, Checkpoint(tmp_path / "checkpoint").load(stored=True)):
        again = restored(state, MapConfig(memory="2MB"), tmp_path)
        assert sys.platform != "linux" or resident() < 8 << 20
        for name in SURFEL_ARRAYS:
            np.testing.assert_array_equal(getattr(again, name)[again.slots()], getattr(surfels, name)[surfels.slots()])


@pytest.mark.parametrize("name", ["map.npz", "checkpoint/pages"])
def test_a_damaged_page_is_told_and_never_loaded(tmp_path, name):
    surfels = sheet(None, tmp_path)
    save_arrays(tmp_path / "map.npz", state_parts(surfels))
    Checkpoint(tmp_path / "checkpoint").save(surfels, {})
    with (tmp_path / name).open("r+b") as file:
        file.seek(3_000_000)
        byte = file.read(1)
        file.seek(3_000_000)
        file.write(bytes([byte[0] ^ 1]))
    for stored in (False, True):
        with pytest.raises(ValueError, match="damaged"):
            if name == "map.npz":
                (stored_rows(tmp_path / name, SURFEL_ARRAYS) if stored else load_arrays(tmp_path / name))
            else:
                Checkpoint(tmp_path / "checkpoint").load(stored)


def test_a_map_in_files_that_is_still_empty_is_one_empty_part_without_labels(tmp_path):
    empty = SurfelMap(13, MapConfig(memory="1MB"))
    empty.page_to(tmp_path)
    assert [len(part) for part in empty.parts()] == [0]
    assert label_fusion(LabelFusionConfig()).probabilities(empty).shape == (0, 13)


def test_a_full_disk_is_one_line_when_the_map_grows(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    surfels = SurfelMap(13, MapConfig(memory="1MB"))
    with pytest.raises(OSError, match=r"No space left on device: the surfels need 4 MB for position; make room"):
        surfels.page_to(tmp_path)


@pytest.mark.parametrize("memory", ["500", "lots", "-1MB", "1 PB", "0MB"])
def test_an_amount_of_memory_has_a_unit(memory):
    with pytest.raises(ValueError, match=r"`slam.map.memory` is .*, expected an amount such as 500MB"):
        MapConfig(memory=memory)
    assert MapConfig(memory="1.5 GB").memory_bytes == 1_500_000_000


@pytest.mark.slow
def test_a_run_with_little_memory_is_judged_and_labelled_again_as_one_in_memory(tmp_path, monkeypatch, caplog):
    name = "room:frames=30,width=160,height=120"
    network = KnowingNetwork(open_sequence(name), "nyu13", 0.3, seed=1)
    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    words = ["reconstruct", name, "--labels", "truth", "--no-mesh", "--poses", "dataset", "--label-every", "5"]
    figures = []
    for run, more in ((tmp_path / "all", []), (tmp_path / "little", ["--memory", "1MB"])):
        caplog.clear()
        for command in (
            [*words, "--out", str(run), *more],
            ["evaluate", str(run), "--json", f"{run}.json"],
            ["relabel", str(run), "--weights", "stub", "--out", f"{run}-relabelled"],
            ["refine", str(run), "--out", f"{run}-refined"],
        ):
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 0, result.output
        assert any("of memory, since all of the map is needed" in text for text in caplog.messages) == bool(more)
        figures.append(json.loads(Path(f"{run}.json").read_text()))
    assert figures[0]["miou_13_map"] > 0.5 and figures[0].keys() == figures[1].keys()
    for figure, value in figures[0].items():
        assert figures[1][figure] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), figure
    for made in ("", "-relabelled", "-refined"):
        maps = [(tmp_path / f"{run}{made}" / "map.ply").read_bytes() for run in ("all", "little")]
        assert maps[0] == maps[1], made
        states = [load_arrays(tmp_path / f"{run}{made}" / "map.npz", SURFEL_ARRAYS) for run in ("all", "little")]
        for array in SURFEL_ARRAYS:
            np.testing.assert_array_equal(states[0][array], states[1][array])


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
    for name in ("all", "little"):
        run = tmp_path / name
        more = [["export", "--out", str(run / "export")], ["view", "--png", str(run / "view.png")]]
        for words in more:
            result = CliRunner().invoke(app, [words[0], str(run), *words[1:]])
            assert result.exit_code == 0, result.output
    exports = [path.relative_to(tmp_path / "all") for path in (tmp_path / "all" / "export").rglob("*.p[lc][yd]")]
    assert len(exports) > 5
    for path in exports:
        assert (tmp_path / "all" / path).read_bytes() == (tmp_path / "little" / path).read_bytes(), path
    pictures = [cv2.imread(str(tmp_path / name / "view.png"))[80:].astype(float) for name in ("all", "little")]
    assert np.abs(pictures[0] - pictures[1]).mean() < 4


def test_a_mesh_is_coarser_with_less_memory_and_as_fine_as_ever_with_enough():
    usual, wall = ReconstructionConfig(), cloud_of([("wall", *plane((0, 0, 0), (2, 0, 0), (0, 0, 2), 0.01))], 0.01)
    map_in_parts = CloudInParts(
        len(wall), lambda: (wall.selected(half) for half in np.array_split(np.arange(len(wall)), 2))
    )
    assert usual.within(1e9, map_in_parts) == usual
    half, quarter = (usual.within(memory, map_in_parts).voxel_size for memory in (10e6, 2.5e6))
    assert quarter == pytest.approx(2 * half) and half > usual.voxel_size
    assert usual.within(10e6, CloudInParts.of(wall)).voxel_size == half  # whatever the parts


@pytest.mark.slow
def test_a_map_in_parts_gives_a_mesh_with_labels_and_the_picture_of_a_whole_one(tmp_path):
    words = ["reconstruct", "room:frames=20,width=160,height=120", "--labels", "truth", "--poses", "dataset"]
    for name, more in (("all", []), ("little", ["--memory", "1MB"])):
        assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / name), *more]).exit_code == 0
    whole, coarse = (read_mesh_ply(tmp_path / name / "mesh.ply") for name in ("all", "little"))
    assert 100 < len(coarse.vertices) < len(whole.vertices)
    assert len(set(coarse.labels) - {255}) > 3 and (coarse.labels == 255).mean() < 0.2
    pictures = [cv2.imread(str(tmp_path / name / "preview.png"))[80:].astype(float) for name in ("all", "little")]
    assert np.abs(pictures[0] - pictures[1]).mean() < 4
