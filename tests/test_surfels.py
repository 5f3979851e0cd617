"""The map's store: slots, capacity, saving, removal."""

from __future__ import annotations

import numpy as np
import pytest

from semslam.camera import Camera
from semslam.compiled import Pinhole, Pose
from semslam.engine.chunks import CHUNK, visible_chunks
from semslam.engine.labels.evidence import rows_of
from semslam.engine.saved_surfels import restored, state_of, state_parts
from semslam.engine.surfels import SURFEL_ARRAYS, MapConfig, SurfelMap


def random_points(n: int, extent: float = 3.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-extent, extent, (n, 3)).astype(np.float32)


def filled(n: int, seed: int = 0, config: MapConfig | None = None, num_classes: int = 3) -> SurfelMap:
    """A map of n surfels, inserted in three parts."""
    surfels = SurfelMap(num_classes, config)
    rng = np.random.default_rng(seed)
    for points in np.array_split(random_points(n, seed=seed), 3):
        slots = surfels.insert(points)
        m = len(slots)
        surfels.position[slots] = np.column_stack([points[:m], np.full(m, 0.005)])
        normals = rng.normal(size=(m, 3))
        surfels.normal[slots, :3] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        surfels.normal[slots, 3] = rng.uniform(0.5, 20, m)
        surfels.color[slots] = np.column_stack([rng.integers(0, 65280, (m, 3)), np.zeros(m)])
        surfels.seen[slots] = 7
        surfels.evidence[slots] = rows_of(9 * rng.random((m, num_classes)), np.full(m, 3.0), np.full(m, 2.0))
    return surfels


def test_every_point_gets_a_slot_of_its_own_in_its_cube():
    points = random_points(5000)
    surfels = SurfelMap(0)
    slots = surfels.insert(points)
    assert len(np.unique(slots)) == len(points) == len(surfels)
    assert np.array_equal(np.sort(slots), surfels.slots())
    origins = surfels.origins[slots // CHUNK]
    assert np.all(points >= origins) and np.all(points < origins + surfels.block + 1e-5)


def test_thirteen_classes_fit_in_eighty_bytes():
    assert SurfelMap(13).bytes_per_surfel < 80.1  # 80 and a chunk's share of the table


def test_a_full_map_says_so_once_and_keeps_what_it_has(caplog):
    surfels = filled(900, config=MapConfig(max_surfels=1000))
    before = surfels.cloud().positions.copy()
    assert len(surfels.insert(random_points(500, seed=5))) == 100
    assert len(surfels.insert(random_points(10, seed=6))) == 0
    assert len(surfels) == 1000
    assert surfels.rejected == 410
    assert [r.message for r in caplog.records if "full" in r.message] == [caplog.records[0].message]
    assert set(map(tuple, before)) <= set(map(tuple, surfels.position[surfels.slots(), :3]))


def test_a_map_of_too_many_cubes_names_that_bound(caplog):
    surfels = SurfelMap(0, MapConfig(max_surfels=100_000))
    far_apart = np.arange(5000, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    assert len(surfels.insert(far_apart)) == surfels.n_chunks == 4096
    assert "4096 surfels lie in 4096 cubes of 0.25 m" in caplog.text and "100000" not in caplog.text


def test_a_saved_map_continues_as_the_original():
    a = filled(3000)
    b = restored(state_of(a))
    slots = a.slots()
    for name in ("position", "normal", "color", "seen"):
        assert np.array_equal(getattr(a, name)[slots], getattr(b, name)[slots]), name
    more = random_points(2000, seed=9)
    assert np.array_equal(a.insert(more), b.insert(more))
    assert np.array_equal(a.slots(), b.slots())


def test_removing_the_dead_keeps_the_living_in_order():
    surfels = filled(4000)
    slots = surfels.slots()
    dead = np.random.default_rng(3).random(len(slots)) < 0.3
    surfels.normal[slots[dead], 3] = -1
    surfels.color[slots[~dead][:50], 3] = 1  # marked
    expected = surfels.position[slots[~dead][50:]].copy()
    surfels.compact(np.arange(surfels.n_chunks, dtype=np.int32))
    assert np.array_equal(surfels.position[surfels.slots()], expected)


def test_freed_slots_are_used_again():
    surfels = filled(4000)
    surfels.normal[surfels.slots(), 3] = -1
    surfels.compact(np.arange(surfels.n_chunks, dtype=np.int32))
    chunks = surfels.n_chunks
    surfels.insert(random_points(4000))
    assert surfels.n_chunks == chunks


def test_moving_the_map_keeps_every_surfel():
    surfels = filled(2000)
    slots = surfels.slots()
    before = surfels.position[slots].copy()
    surfels.position[slots, 0] += 10
    surfels.sort_again()
    after = surfels.position[surfels.slots()]
    order = lambda p: p[np.lexsort(p.T)]  # noqa: E731
    assert np.allclose(order(after), order(before + np.float32([10, 0, 0, 0])), atol=1e-5)


@pytest.mark.slow
def test_a_state_by_blocks_is_the_state_and_no_block_is_large():
    surfels = filled(300_000)
    state = state_of(surfels)
    for part in state_parts(surfels):
        blocks = list(part.blocks)
        assert part.name not in SURFEL_ARRAYS or max(map(len, blocks)) <= 256 * CHUNK < len(surfels)
        whole = np.concatenate(blocks) if part.shape else blocks[0]
        assert whole.shape == part.shape and whole.dtype == part.dtype
        np.testing.assert_array_equal(whole, state[part.name])


def test_chunks_in_view_hold_every_visible_surfel():
    surfels = filled(20000)
    chunks = np.empty(surfels.n_chunks, np.int32)
    t = np.array([0.2, -0.1, -1], np.float32)
    pose, camera = Pose(np.eye(3, dtype=np.float32), t), Pinhole.of(Camera(128, 96, 100, 100, 63.5, 47.5))
    n = visible_chunks(surfels.chunks(), np.float32(0), pose, camera, np.float32(0.3), np.float32(4), chunks)
    p = surfels.position[surfels.slots(), :3] - t
    u, v = p[:, 0] / p[:, 2] * 100 + 63.5, p[:, 1] / p[:, 2] * 100 + 47.5
    visible = (p[:, 2] > 0.3) & (p[:, 2] < 4) & (u > -0.5) & (u < 127.5) & (v > -0.5) & (v < 95.5)
    in_view = np.isin(surfels.slots() // CHUNK, chunks[:n])
    assert np.all(in_view[visible])
    assert in_view.mean() < 0.5  # and most of the rest is left out


def test_too_many_surfels_for_the_capacity_is_one_clear_error():
    a = filled(500)
    with pytest.raises(ValueError, match="do not fit a map of 100"):
        SurfelMap.from_arrays(
            *(getattr(a, n)[a.slots()] for n in ("position", "normal", "color", "seen")),
            config=MapConfig(max_surfels=100),
        )


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda s: s.pop("normal"), "lacks the array normal"),
        (lambda s: s.update(seen=s["seen"].astype(np.int64)), "seen is int64"),
        (lambda s: s.update(color=s["color"][:-1]), "color is uint16"),
        (lambda s: s.update(evidence=s["evidence"][:, :13]), "3 classes and 13 numbers a surfel"),
        (lambda s: s.update(counts=s["counts"] + 1), "counts .* surfels and holds"),
        (lambda s: s.update(counts=s["counts"] - 2000), "counts .* surfels and holds"),
        (lambda s: s.update(open_chunks=s["open_chunks"] + 10**6), "chunks that it does not have"),
    ],
)
def test_a_damaged_state_is_refused_before_compiled_loops_see_it(damage, found):
    state = state_of(filled(500))
    damage(state)
    with pytest.raises(ValueError, match=found):
        restored(state)


def test_unsure_surfels_are_removed_and_the_others_stay():
    rng = np.random.default_rng(0)
    position = np.column_stack([rng.uniform(-1, 1, (500, 3)), np.full(500, 0.01)]).astype(np.float32)
    normal = np.column_stack([np.tile([0, 0, 1], (500, 1)), rng.uniform(0, 3, 500)]).astype(np.float32)
    surfels = SurfelMap.from_arrays(position, normal, np.zeros((500, 4), np.uint16), np.zeros((500, 2), np.int32))
    surfels.remove_unsure(1.0)
    kept = surfels.cloud()
    assert len(surfels) == len(kept) == np.count_nonzero(normal[:, 3] >= 1)
    assert {tuple(p) for p in kept.positions} == {tuple(p) for p in position[normal[:, 3] >= 1, :3]}
