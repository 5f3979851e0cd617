"""Other labels for the same surfels: as if the whole run had been made with them."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import refused, semslam
from stub_networks import KnowingNetwork

from semslam import poses
from semslam.engine.associations import Associations, Event
from semslam.engine.chunks import CHUNK
from semslam.engine.labels.evidence_map import EvidenceMap
from semslam.engine.packed import PackedFile, pack, unpack
from semslam.engine.surfels import SurfelMap
from semslam.frame import Frame
from semslam.runs import networks
from semslam.runs import relabel as relabelling
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.stage import Stage
from semslam.trajectory import Correction
from sequences import CorruptFrame, open_sequence
from sequences.room.room import RoomSequence

ROOM = "room:frames=45,width=96,height=72,noise=kinect"
EVERY = ["--label-every", "5"]
NETWORKS = {"a": ("nyu13", 0.1, 1), "b": ("nyu13", 0.4, 2), "b40": ("nyu40", 0.4, 2)}


def stub(classes: str = "nyu13", weights: str | None = None, *_) -> KnowingNetwork:
    """What `predictor` gives for the "weights" a and b: two networks that err differently."""
    set_of, mistakes, seed = NETWORKS[weights + ("40" if classes == "nyu40" else "")]
    return KnowingNetwork(open_sequence(ROOM), set_of, mistakes, seed=seed)


class Bending(Stage):
    """Stands for a loop closer: bends map and poses every so often, a little, back and forth."""

    def __init__(self, every: int = 8) -> None:
        self.every, self.count = every, 0

    def __call__(self, observation, tracking, surfels, fusion) -> Correction | None:
        index = observation.frame.index
        if index % self.every != self.every - 1:
            return None
        self.count += 1
        shift = poses.exp([0.004 * (-1) ** self.count, 0.002, 0.3, 0, 0.002, 0])  # 0.3 m: into other cubes
        correction = Correction(np.array([0, index]), np.stack([shift, shift]))
        slots = surfels.slots()
        R, t = shift[:3, :3].astype(np.float32), shift[:3, 3].astype(np.float32)
        surfels.position[slots, :3] = surfels.position[slots, :3] @ R.T + t
        surfels.normal[slots, :3] = surfels.normal[slots, :3] @ R.T
        surfels.sort_again()
        fusion.invalidate(slots_moved=True)
        return correction

    def state(self) -> dict[str, np.ndarray]:
        return {"count": np.array(self.count)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.count = int(state["count"])


@pytest.fixture(autouse=True)
def stubs(monkeypatch):
    monkeypatch.setattr(networks, "predictor", stub)
    monkeypatch.setattr("semslam.rendering.pictures.preview_in_parts", lambda *_, **__: None)  # looked at elsewhere


def reconstructed(out: Path, weights: str, classes: str = "nyu13", stop_at: int | None = None, bends: bool = True):
    """A run, broken off after `stop_at` frames and resumed where that is given; with a map that is bent as it grows."""
    for part in (stop_at, None) if stop_at else (None,):
        settings = {"sequence": ROOM, "weights": weights, "poses": "dataset"}
        settings |= {"slam.perception.classes": classes, "slam.perception.label_every": 5}
        run = prepare(settings_of(None, settings), out, network=stub(classes, weights), resume=True)
        run.slam.loops = Bending() if bends else None
        if part is None and stop_at:
            run = type(run)(run.config, run.sequence, run.slam, run.folder, resume=True)  # with the loops' state too
        for _, _step in zip(range(part or 1000), run):
            pass
        run.save()
    finish(run, mesh=False)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same recording with the networks a and b, and what is needed to compare."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: reconstructed(folder / name, name).folder for name in ("a", "b")}


def same_map(first: RunFolder, second: RunFolder) -> None:
    a, b = first.load_state(), second.load_state()
    timings = {name for name in {*a, *b} if name.startswith(("run_ms_", "run_seconds"))}
    assert set(a) - timings == set(b) - timings
    for name in a:
        if name not in timings:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert first.map.read_bytes() == second.map.read_bytes()
    assert first.config.read_text() == second.config.read_text()


def test_a_relabelled_run_equals_a_full_run_bit_by_bit(runs, tmp_path):
    kinds = [event.kind for event in runs["a"].load_associations(runs["a"].load_state()).events]
    assert set(kinds) == {0, 1, 2}, "frames were labelled, surfels removed, and the map was deformed"
    relabelled = relabelling.relabel(runs["a"].path, tmp_path / "new", weights="b")
    assert not np.array_equal(runs["a"].load_state()["evidence"], runs["b"].load_state()["evidence"])
    same_map(relabelled, runs["b"])


def test_a_run_whose_filled_surfels_are_missing_is_not_relabelled_without_them(runs, tmp_path):
    shutil.copytree(runs["a"].path, tmp_path / "filled")
    source = RunFolder.open(tmp_path / "filled")
    source.save_metrics(source.load_metrics() | {"surfels_filled": 5})
    with pytest.raises(ValueError, match=r"filled\.npz: is missing, with 5 surfels"):
        relabelling.relabel(source.path, tmp_path / "new", weights="a")


def test_a_map_whose_labelled_frames_have_no_depth_is_told_to_have_no_class(tmp_path, monkeypatch, caplog):
    read = RoomSequence.__getitem__

    def sparse(self: RoomSequence, index: int) -> Frame:
        frame = read(self, index)
        return frame if index % 5 else replace(frame, depth=np.zeros_like(frame.depth))

    monkeypatch.setattr(RoomSequence, "__getitem__", sparse)
    run = reconstructed(tmp_path / "run", "a", bends=False)
    assert "no surfel has a class" in caplog.text and "one in 5" in caplog.text
    caplog.clear()
    relabelling.relabel(run.folder.path, tmp_path / "new", weights="b")
    assert "no surfel has a class" in caplog.text


def test_where_a_pair_cannot_be_kept_none_is_any_more(monkeypatch):
    kept, values = PackedFile(), np.arange(5, dtype=np.int32)
    kept.add(values, values)
    assert kept.ends[-1] > 0
    kept._file = SimpleNamespace(write=lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    kept.add(values, values)
    for again in (lambda: kept.ends, lambda: kept.add(values, values), lambda: kept.data):
        with pytest.raises(OSError, match="No space"):
            again()


class FullFile(io.FileIO):
    """On a disk with room for one byte."""

    room = 1

    def write(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        self.room = 0
        return super().write(data[:1])


def test_a_record_goes_on_in_memory_where_it_may_and_the_file_is_full(tmp_path):
    kept, pairs = PackedFile(folder=tmp_path, or_memory=True), np.arange(20, dtype=np.int32).reshape(5, 2, 2)
    for k, pair in enumerate(pairs):
        assert kept.add(*pair) == k
        if k == 1:
            kept[k]  # is written by now
            kept._file = FullFile(os.dup(kept._file.fileno()), "r+b")
    nowhere = PackedFile(folder=tmp_path / "missing", or_memory=True)
    nowhere.add(*pairs[0])
    for record, count in ((kept, 5), (nowhere, 1)):
        np.testing.assert_array_equal([[unpack(one) for one in record[k]] for k in range(count)], pairs[:count])


@pytest.mark.slow
def test_relabelling_there_and_back_is_the_first_run_again(runs, tmp_path):
    relabelling.relabel(runs["a"].path, tmp_path / "b", weights="b", classes="nyu40")
    same_map(relabelling.relabel(tmp_path / "b", tmp_path / "a", weights="a"), runs["a"])


@pytest.mark.slow
def test_an_interrupted_run_can_be_relabelled_as_one_without_a_break(runs, tmp_path):
    broken = reconstructed(tmp_path / "broken", "a", stop_at=23).folder
    same_map(broken, runs["a"])
    same_map(relabelling.relabel(broken.path, tmp_path / "new", weights="b"), runs["b"])


def test_what_happened_after_the_map_was_saved_does_not_count(runs):
    state = runs["a"].load_state()
    all_of_it = runs["a"].load_associations(state)
    some = runs["a"].load_associations(state | {"run_events": np.array(7)})
    assert len(all_of_it.events) > 7
    assert [some.packed[k] for k in range(7)] == [all_of_it.packed[k] for k in range(7)]


@pytest.mark.slow
def test_a_map_without_labels_gets_them_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "bare"
    assert semslam("reconstruct", ROOM, "--out", out, "--labels", "none", *EVERY, "--no-mesh") == 0
    assert semslam("relabel", out, "--weights", "b", "--classes", "nyu40") == 0
    assert "9 frames" in capsys.readouterr().out
    full = tmp_path / "full"
    arguments = ["--weights", "b", "--classes", "nyu40", *EVERY, "--no-mesh"]
    assert semslam("reconstruct", ROOM, "--out", full, *arguments) == 0
    same_map(RunFolder.open(tmp_path / "bare-relabelled"), RunFolder.open(full))
    assert RunFolder.open(tmp_path / "bare-relabelled").load_metrics()["relabelled_from"] == str(out)


def test_frames_that_cannot_be_read_any_more_are_skipped_until_they_are_too_many(runs, tmp_path, monkeypatch, caplog):
    def read_without_labels(self, index: int):
        if index == 5:
            raise CorruptFrame("5.png: damaged")
        return self[index]

    monkeypatch.setattr(RoomSequence, "read_without_labels", read_without_labels)
    with pytest.raises(ValueError, match="1 of 9 frames are unreadable, more than the 10 % allowed"):
        relabelling.relabel(runs["a"].path, tmp_path / "few", weights="b")
    lenient = replace(runs["a"].load_config(), max_corrupt=0.2)
    monkeypatch.setattr(RunFolder, "load_config", lambda self: lenient)
    new = relabelling.relabel(runs["a"].path, tmp_path / "new", weights="b")
    assert new.load_metrics()["frames_labelled"] == 8 and 5 not in new.load_progress().labelled
    assert "frame 5 is skipped: 5.png: damaged" in caplog.text


@pytest.mark.slow
def test_what_cannot_be_relabelled_is_one_line(runs, tmp_path, capsys):
    assert "not written over" in refused(capsys, "relabel", runs["a"].path, "--out", runs["a"].path, "--weights", "b")
    line = refused(capsys, "relabel", runs["a"].path, "--out", tmp_path / "x", "--weights", "b", "--classes", "x")
    assert "--classes is 'x'" in line
    bare = reconstructed(tmp_path / "bare", "a", bends=False).folder
    bare.associations.unlink()
    assert "associations.npz is missing" in refused(capsys, "relabel", bare.path, "--weights", "b")


def test_the_map_of_another_run_is_not_relabelled(tmp_path, capsys):
    for name, size in (("long", "frames=45,width=96,height=72"), ("short", "frames=30,width=80,height=60")):
        sequence = f"room:{size}"
        assert semslam("reconstruct", sequence, "--out", tmp_path / name, "--labels", "none", *EVERY, "--no-mesh") == 0
    for name, other in (("long", "short"), ("short", "long")):
        mixed = shutil.copytree(tmp_path / name, tmp_path / f"mixed-{name}")
        for file, told in (("map.npz", "files of two runs"), ("metrics.json", "npz are of different runs")):
            shutil.copy(tmp_path / other / file, mixed)
            assert told in refused(capsys, "relabel", mixed, "--weights", "b")


def test_packing_keeps_every_value():
    for values in ([], [5], [3, 1, 2**31 - 1, 0, 7]):
        np.testing.assert_array_equal(unpack(pack(np.array(values, np.int32))), values)


def test_evidence_follows_its_surfels_through_any_history(tmp_path):
    """Random births, labels, deaths and moves: what is fused again is what a map beside it has added up."""
    rng = np.random.default_rng(4)
    surfels = SurfelMap(2)
    surfels.journal = record = Associations(every=1)
    fusion = type("Fused", (), {})()

    def label(frame: int) -> None:
        fusion.visible = np.flatnonzero(surfels.counts[: surfels.n_chunks]).astype(np.int32)
        fusion.pixels = np.full(len(surfels.position), -1, np.int32)
        slots = surfels.slots()
        seen = slots[rng.random(len(slots)) < 0.6]
        fusion.pixels[seen] = rng.integers(0, 1000, len(seen))
        surfels.evidence[seen, 0] += fusion.pixels[seen].astype(np.uint16)
        surfels.evidence[seen, 1] += frame
        record.seen(frame, poses.moved_by(np.eye(4), np.array([frame, 0, 0])), surfels, fusion)

    def again(ghost: SurfelMap, chunks: np.ndarray, pixels: np.ndarray, event: Event) -> None:
        assert event.T_world_camera[0, 3] == event.frame
        slots = np.flatnonzero(pixels >= 0)
        assert set(np.unique(slots // CHUNK)) == set(chunks)
        ghost.evidence[slots, 0] += pixels[slots].astype(np.uint16)
        ghost.evidence[slots, 1] += event.frame

    for frame in range(1, 30):
        points = rng.uniform(-0.6, 0.6, (rng.integers(1, 1500), 3)).astype(np.float32)
        slots = surfels.insert(points)
        surfels.position[slots, :3] = points
        surfels.normal[slots] = 1
        surfels.color[slots] = 0
        surfels.evidence[slots] = 0
        label(frame)
        if frame % 3 == 0:
            slots = surfels.slots()
            surfels.normal[slots[rng.random(len(slots)) < 0.2], 3] = -1
            surfels.color[slots[rng.random(len(slots)) < 0.1], 3] = 1
            chunks = rng.permutation(surfels.n_chunks)[: surfels.n_chunks // 2 + 1].astype(np.int32)
            surfels.compact(chunks)
        if frame % 7 == 0:
            slots = surfels.slots()
            surfels.position[slots, :3] += rng.uniform(-0.2, 0.2, (len(slots), 3)).astype(np.float32)
            surfels.sort_again()
    slots = surfels.slots()
    assert len(slots) > 3000
    back = Associations.from_state(record.state())
    for memory in (None, 20_000):
        labelled = EvidenceMap(2, memory, tmp_path)
        back.fuse_again(labelled, again, 1000)
        np.testing.assert_array_equal(np.concatenate([*labelled.rows(surfels.counts)]), surfels.evidence[slots])
    with pytest.raises(ValueError, match="pixels outside of the image"):
        back.fuse_again(EvidenceMap(2), again, 900)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("data"),
        lambda s: s.update(ends=s["ends"][:-1]),
        lambda s: s.update(ends=s["ends"] + 1000),
        lambda s: s.update(every=np.array(0)),
    ],
)
def test_damaged_associations_are_refused(damage):
    associations = Associations(every=1)
    associations.moved(np.arange(5), np.arange(5)[::-1])
    state = associations.state()
    damage(state)
    with pytest.raises(ValueError, match="the saved"):
        Associations.from_state(state)


def test_associations_that_were_cut_or_name_negative_slots_are_refused():
    with pytest.raises(ValueError, match="damaged"):
        unpack(pack(np.arange(100, dtype=np.int32))[:-5])
    with pytest.raises(ValueError, match="below 0"):
        unpack(pack(np.array([3, -1], np.int32)))
