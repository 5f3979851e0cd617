"""Arrays on disk: a file at once, or a checkpoint that is changed page by page."""

from __future__ import annotations

import errno
import tracemalloc

import numpy as np
import pytest

from semslam.engine.chunks import CHUNK
from semslam.engine.saved_surfels import restored, state_of, state_parts
from semslam.engine.surfels import SurfelMap
from semslam.runs.storage import checkpoint as checkpoints
from semslam.runs.storage.arrays import load_arrays, parts_of, save_arrays
from semslam.runs.storage.checkpoint import PAGE, Checkpoint, _digests


def grown_map(rng, surfels: SurfelMap, count: int) -> None:
    slots = surfels.insert(rng.uniform(-1, 1, (count, 3)).astype(np.float32))
    for name in ("position", "normal", "color", "seen", "evidence"):
        array = getattr(surfels, name)
        array[slots] = rng.integers(0, 1000, (count, array.shape[1])).astype(array.dtype)


def test_arrays_of_every_kind_come_back_as_they_were(tmp_path):
    arrays = {
        "scalar": np.array(3.5), "text": np.array("nanu: ü"), "empty": np.zeros((0, 4), np.float32),
        "bools": np.array([True, False]), "turned": np.arange(12.0).reshape(3, 4).T,
        "bytes": np.arange(7, dtype=np.uint8),
    }  # fmt: skip
    save_arrays(tmp_path / "a.npz", parts_of(arrays))
    for loaded in (load_arrays(tmp_path / "a.npz"), dict(np.load(tmp_path / "a.npz"))):
        assert loaded.keys() == arrays.keys()
        for name, array in arrays.items():
            assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape
            np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("more", [0, 3, 8, 11])
def test_a_digest_tells_every_byte_and_nothing_else(more):
    data = np.random.default_rng(0).integers(0, 256, 2 * PAGE + more).astype(np.uint8)
    found = []
    for before in range(3):
        leftover = np.full(3, before, np.uint64)  # in the memory that an empty array is given next
        del leftover
        found.append(_digests(data))
    np.testing.assert_array_equal(found[1:], found[:-1])
    data[-1] ^= 1
    assert _digests(data)[-1] != found[0][-1] and (_digests(data)[:-1] == found[0][:-1]).all()


def test_saving_makes_no_second_copy_of_the_map(tmp_path):
    surfels = SurfelMap(13)
    grown_map(np.random.default_rng(0), surfels, 300_000)
    size = len(surfels) * surfels.bytes_per_surfel
    Checkpoint(tmp_path / "first").save(SurfelMap(1), {"values": np.ones(9)})  # what is compiled takes memory, too
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    for save in (
        lambda: save_arrays(tmp_path / "map.npz", state_parts(surfels)),
        lambda: checkpoint.save(surfels, {}),
    ):
        tracemalloc.start()
        save()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.25 * size
    again = restored(load_arrays(tmp_path / "map.npz"))
    np.testing.assert_array_equal(again.evidence[again.slots()], surfels.evidence[surfels.slots()])


def test_a_checkpoint_holds_what_was_saved_last_whatever_changed_in_between(tmp_path):
    rng = np.random.default_rng(0)
    surfels, checkpoint = SurfelMap(3), Checkpoint(tmp_path / "checkpoint")
    grown_map(rng, surfels, 60_000)
    long = rng.uniform(size=400_000)
    for turn in range(12):
        if turn % 3 == 0:
            grown_map(rng, surfels, 3_000)
        slots = rng.choice(surfels.slots(), 5)
        surfels.normal[slots, 3] += 1
        if turn % 4 == 3:  # surfels vanish, the bytes of those before them stay
            chunk = int(rng.integers(surfels.n_chunks))
            surfels.counts[chunk] = max(surfels.counts[chunk] - 2, 0)
        long = np.append(long, turn)[: 390_000 if turn == 7 else None]
        arrays = {
            "run_next_index": np.array(turn),
            "long": long,
            "seldom": np.arange(turn % 2),
            "grid": np.ones((turn, 3, 3)),
        }
        if turn % 2:
            arrays["sometimes"] = np.array([turn])
        checkpoint.save(surfels, arrays)
        saved, expected = Checkpoint(tmp_path / "checkpoint").load(), state_of(surfels) | arrays
        assert set(expected) == set(saved)
        for name, array in saved.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
        if turn == 6:
            checkpoint = Checkpoint(tmp_path / "checkpoint")  # the run was resumed by another process
    held = CHUNK * surfels.n_chunks * surfels.bytes_per_surfel
    assert checkpoint.pages.stat().st_size < 2 * (held + long.nbytes)  # places are used again


def test_a_save_writes_what_has_changed_since_the_last_and_a_failed_one_changes_nothing(tmp_path, monkeypatch):
    surfels, checkpoint, written = SurfelMap(3), Checkpoint(tmp_path / "checkpoint"), []
    grown_map(np.random.default_rng(0), surfels, 60_000)
    checkpoint.save(surfels, {"run_next_index": np.array(1)})
    size = checkpoint.pages.stat().st_size
    write_at = checkpoints._write_at

    def counting(descriptor, data, offset):
        written.append(len(data))
        write_at(descriptor, data, offset)

    monkeypatch.setattr(checkpoints, "_write_at", counting)
    checkpoint.save(surfels, {"run_next_index": np.array(2)})
    assert written == []
    surfels.normal[surfels.slots()[17], 3] += 1
    checkpoint.save(surfels, {"run_next_index": np.array(3)})
    assert written == [checkpoints.PAGE]
    expected = checkpoint.load()
    assert int(expected["run_next_index"]) == 3

    def full(descriptor, data, offset):
        write_at(descriptor, data[:100], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write_at", full)
    surfels.normal[surfels.slots(), 3] += 1
    with pytest.raises(
        OSError, match=r"pages: No space left on device: 8\.\d MB are needed, .* MB are free; make room"
    ):
        checkpoint.save(surfels, {"run_next_index": np.array(4)})
    monkeypatch.undo()
    assert checkpoint.pages.stat().st_size <= size + checkpoints.PAGE
    for name, array in Checkpoint(tmp_path / "checkpoint").load().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    checkpoint.save(surfels, {"run_next_index": np.array(5)})
    state = Checkpoint(tmp_path / "checkpoint").load()
    np.testing.assert_array_equal(state["normal"], surfels.normal[surfels.slots()])
    assert int(state["run_next_index"]) == 5


def test_arrays_of_any_size_are_found_by_name_without_reading_the_map(tmp_path):
    arrays = {"run_next_index": np.array(3), "run_poses_rejected": np.arange(PAGE), "run_few": np.arange(9)}
    surfels, checkpoint = SurfelMap(3), Checkpoint(tmp_path / "checkpoint")
    grown_map(np.random.default_rng(0), surfels, 5_000)
    checkpoint.save(surfels, arrays)
    found = Checkpoint(checkpoint.folder).load_arrays(*arrays, "run_config")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_checkpoint_that_is_damaged_or_of_an_earlier_version_says_so(tmp_path):
    surfels, checkpoint = SurfelMap(3), Checkpoint(tmp_path / "checkpoint")
    grown_map(np.random.default_rng(0), surfels, 10_000)
    checkpoint.save(surfels, {"run_next_index": np.array(1)})
    pages = checkpoint.pages.read_bytes()
    for damaged in (pages[:-9], pages[:5000] + b"x" + pages[5001:], b""):
        checkpoint.pages.write_bytes(damaged)
        with pytest.raises(ValueError, match="pages: damaged"):
            checkpoint.load()
    checkpoint.pages.unlink()
    with pytest.raises(ValueError, match="pages: damaged"):
        checkpoint.load()
    checkpoint.save(surfels, {"run_next_index": np.array(2)})  # all of it again
    assert int(Checkpoint(checkpoint.folder).load()["run_next_index"]) == 2


def test_who_reads_while_a_run_saves_gets_one_state_or_the_other(tmp_path, monkeypatch):
    surfels, folder = SurfelMap(), tmp_path / "checkpoint"
    grown_map(np.random.default_rng(0), surfels, 5_000)
    Checkpoint(folder).save(surfels, {"run_next_index": np.array(1), "values": np.full(9, 1)})

    def read_slowly(path, names=None):
        monkeypatch.undo()
        arrays = load_arrays(path, names)
        writer = Checkpoint(folder)  # writes over the pages of the table that was read
        for turn in (2, 3):
            surfels.normal[surfels.slots(), 3] = turn
            writer.save(surfels, {"run_next_index": np.array(turn), "values": np.full(9, turn)})
        return arrays

    monkeypatch.setattr("semslam.runs.storage.checkpoint.load_arrays", read_slowly)
    state = Checkpoint(folder).load()
    assert (state["values"] == state["run_next_index"]).all()
    assert state["run_next_index"] == 3 and (state["normal"][:, 3] == 3).all()
