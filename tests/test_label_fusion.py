"""Class probabilities of surfels: how the evidence of views and of neighbours adds up, and how it is read."""

from __future__ import annotations

import numpy as np
import pytest
from test_fusion import flat

from semslam import poses
from semslam.engine.chunks import CHUNK
from semslam.engine.fusion import Fusion
from semslam.engine.labels.evidence import (
    FULL,
    LATEST,
    PER_VIEW,
    VIEWS,
    WEIGHT,
    ImageEvidence,
    add_evidence,
    class_columns,
    row_width,
    rows_of,
)
from semslam.engine.labels.label_fusion import LABEL_FUSIONS, REPEATED, LabelFusionConfig, independence, label_fusion
from semslam.engine.labels.neighbourhoods import cube_number, interpolate
from semslam.engine.surfels import SurfelMap
from sequences import open_sequence

APART = 100.0  # metres between views that share no error


def labelled(
    method: str, images: list[np.ndarray], apart: float = APART, config: LabelFusionConfig | None = None
) -> np.ndarray:
    """Class probabilities (N, C) of a wall after fusing constant class images (C,), seen so many metres apart."""
    frame = open_sequence("room:frames=1,width=32,height=24")[0]
    labels = label_fusion(config or LabelFusionConfig(method=method, max_views=4, error_rate=0))
    surfels, fusion = SurfelMap(len(images[0])), Fusion(frame.camera)
    for k, p in enumerate(images):
        fusion.fuse(surfels, fusion.prepare(flat(2.0, frame)), np.eye(4), k)
        image = np.broadcast_to(np.float32(p), (*frame.camera.shape, len(p))).copy()
        view = poses.moved_by(np.eye(4), np.array([k * apart, 0, 0]))
        labels.fuse(surfels, fusion.visible, fusion.pixels, image, view)
    return labels.probabilities(surfels)


A, B = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3])


@pytest.mark.parametrize("method", ["bayes", "mean"])
@pytest.mark.parametrize("p", [[0.7, 0.2, 0.1], [0.5] + [0.5 / 12] * 12, [0.025] * 40])
def test_one_view_reads_its_own_probabilities_wherever_it_shows_a_surfel(method, p):
    assert np.allclose(labelled(method, [np.array(p)]), p, rtol=0.02)


def test_two_views_that_share_no_error_give_bayes():
    assert np.allclose(labelled("bayes", [A, B]), A * B / (A * B).sum(), atol=2e-3)
    p = np.array([0.5] + [0.5 / 12] * 12)
    assert np.allclose(labelled("bayes", [p, p]), p**2 / (p**2).sum(), atol=2e-3)


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_the_same_view_again_adds_nothing(method):
    assert np.allclose(labelled(method, [A]), labelled(method, [A] * 200, apart=0), atol=2e-3)


def test_a_view_from_the_same_place_has_a_small_weight_and_makes_nothing_surer():
    mean = np.exp((np.log(A) + REPEATED / (1 + REPEATED) * np.log(B)) / (1 + REPEATED / (1 + REPEATED)))
    assert np.allclose(labelled("bayes", [A, B], apart=0), mean / mean.sum(), atol=5e-3)


def test_the_neighbourhood_decides_for_few_views_and_hardly_counts_for_many():
    fusion = label_fusion(LabelFusionConfig(neighbourhood=0.1, neighbour_views=10, error_rate=0))
    said = np.log(np.stack([A, A, B, A, A]) / 0.001)
    shares = np.array([30.0, 30, 1, 0, 0], np.float32)
    rows = rows_of(said * np.minimum(shares, 1)[:, None] * [[1], [1], [1], [0], [0]], np.minimum(shares, 1), shares > 0)
    rows[:2, :3] *= 30
    rows[:2, WEIGHT] *= 30
    near, far = np.full((4, 3), 0.05), np.full((1, 3), 5.0)
    many, _, few, none, alone = fusion.read(rows, 3, np.concatenate([near, far]))
    assert np.allclose(many, A, atol=0.01)
    assert few.argmax() == A.argmax() and few[B.argmax()] > many[B.argmax()]
    assert np.allclose(none, A, atol=0.02)
    assert not alone.any()


def around(grid, positions, side):
    """Sums of cubes, by place in the grid, interpolated the obvious way."""
    out = np.zeros((len(positions), 2), np.float32)
    for i, position in enumerate(positions / side - 0.5):
        for place, sums in grid.items():
            out[i] += np.prod(np.maximum(1 - np.abs(position - place), 0)) * np.array(sums)
    return out


def test_neighbourhoods_are_interpolated_between_the_middles_of_cubes():
    rng = np.random.default_rng(3)
    grid = {tuple(place): rng.random(2) for place in rng.integers(-3, 3, (40, 3)).tolist()}
    numbers = {int(cube_number(*place)): sums for place, sums in grid.items()}
    assert len(numbers) == len(grid)
    positions, out = rng.uniform(-0.4, 0.4, (200, 3)).astype(np.float32), np.empty((200, 2), np.float32)
    sums = np.array([numbers[n] for n in sorted(numbers)], np.float32)
    interpolate(positions, 0.1, np.array(sorted(numbers)), sums, out)
    np.testing.assert_allclose(out, around(grid, positions, 0.1), atol=1e-5)


def test_no_border_of_a_neighbourhood_shows():
    fusion, x = label_fusion(), np.linspace(0, 1, 2001)
    positions = np.stack([x, 0 * x, 0 * x], axis=1)
    rows = fusion.rows_of(np.where(x[:, None] < 0.43, A, B).astype(np.float32))
    rows[::2] = 0  # surfels that no view showed have nothing but their neighbours
    read = fusion.read(rows, 3, positions)[::2]
    assert np.abs(np.diff(read, axis=0)).max() < 0.01 and np.abs(read[0] - read[-1]).max() > 0.3


def test_no_number_of_views_makes_the_map_surer_than_its_error_rate_allows():
    sure, config = np.array([1.0, 0, 0]), LabelFusionConfig(max_views=np.inf, error_rate=0.06)
    for n in (1, 4, 32):
        most = 1 - 0.04 * (1 - 1 / n)  # one view is believed as it is
        assert np.allclose(labelled("bayes", [sure] * n, config=config)[:, 0], most, atol=2e-3)


def test_an_error_rate_changes_no_order_of_classes_and_keeps_the_sum():
    exact = labelled("bayes", [A, B])
    mixed = labelled("bayes", [A, B], config=LabelFusionConfig(max_views=4, error_rate=0.3))
    assert np.allclose(mixed, 0.85 * exact + 0.05, atol=1e-3)  # two views: half of the rate


def test_the_farther_apart_two_views_are_the_more_the_second_adds():
    found = [labelled("bayes", [A, B], apart)[0, 1] for apart in (0, 0.05, 0.2, 1, APART)]
    assert np.all(np.diff(found) > 0)


def test_a_turn_makes_a_view_new_as_a_step_does():
    config, turned = LabelFusionConfig(angle_deg=30, distance=0.5), poses.exp(np.radians([0, 0, 0, 0, 30, 0]))
    views = np.stack([np.eye(4), poses.moved_by(np.eye(4), np.array([0.5, 0, 0])), np.linalg.inv(turned)])
    assert np.allclose(independence(views, np.eye(4), config), [0, 1 - np.exp(-1), 1 - np.exp(-1)])


def test_many_views_are_worth_no_more_than_the_configuration_says():
    for n in (1, 4, 16, 64):
        found = labelled("bayes", [A] * n, config=LabelFusionConfig(max_views=3, error_rate=0))[0]
        power = A**3 / (A**3).sum()
        assert found[0] <= power[0] + 1e-3
    assert np.allclose(found, power, atol=5e-3)
    free = labelled("bayes", [A] * 16, config=LabelFusionConfig(max_views=np.inf, error_rate=0))[0]
    assert np.allclose(free, A**16 / (A**16).sum(), atol=2e-3)


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_probabilities_sum_to_one_and_agree_with_the_images(method):
    p = labelled(method, [np.array([0.7, 0.2, 0.1])] * 5)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert np.all(p.argmax(axis=1) == 0)


def test_the_mean_is_the_mean():
    assert np.allclose(labelled("mean", [A, B]), (A + B) / 2, atol=1e-3)


def test_the_histogram_counts_winners():
    assert np.allclose(labelled("histogram", [A, A, B]), [2 / 3, 1 / 3, 0], atol=1e-5)


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_no_single_observation_vetoes_a_class_for_ever(method):
    wrong, right = np.array([0.0, 1.0, 0.0]), np.array([0.8, 0.1, 0.1])
    assert np.all(labelled(method, [wrong] + [right] * 6).argmax(axis=1) == 0)


def test_old_evidence_fades_where_the_scene_changes():
    before, after = np.array([0.9, 0.05, 0.05]), np.array([0.05, 0.9, 0.05])
    images = [before] * 40 + [after] * 15
    assert np.all(labelled("bayes", images, config=LabelFusionConfig(memory=8)).argmax(axis=1) == 1)
    assert np.all(labelled("bayes", images, config=LabelFusionConfig(memory=32)).argmax(axis=1) == 0)


def test_a_row_of_evidence_never_overflows():
    """Sums that no longer fit 16 bits would start again from 0."""
    p = np.array([1.0, 0, 0])
    for method in LABEL_FUSIONS:
        found = labelled(method, [p] * 300, config=LabelFusionConfig(method=method, error_rate=0))
        assert np.all(found[:, 0] > 0.99)


def test_labels_settings_that_cannot_work_are_refused():
    for wrong in (
        {"max_views": 0.5},
        {"distance": 0.0},
        {"memory": 100.0},
        {"floor": 0.0},
        {"floor": 1e-9},
        {"error_rate": 1.0},
    ):
        with pytest.raises(ValueError, match=f"slam.labels.{next(iter(wrong))}"):
            LabelFusionConfig(**wrong)


@pytest.mark.parametrize("classes", [3, 13, 14, 15, 40])
def test_adding_evidence_is_the_ten_line_loop(classes):
    rng = np.random.default_rng(classes)
    image = np.zeros(500 * classes + row_width(classes), np.uint16)
    image[: 500 * classes] = (1800 * rng.dirichlet(np.full(classes, 0.1), 500)).ravel()
    image[5 * classes : 6 * classes] = 0  # a pixel of which nothing is known
    pixels = rng.integers(-1, 500, CHUNK).astype(np.int32)
    pixels[:10] = 5
    rows = rows_of(rng.uniform(0, 30, (CHUNK, classes)), rng.uniform(0, 32, CHUNK), rng.uniform(0, 32, CHUNK))
    rows[:, LATEST] = rng.integers(0, 7, CHUNK)
    weights, independent = rng.integers(0, FULL + 1, (2, 7)).astype(np.uint16)
    most = np.uint16(32 * PER_VIEW)
    expected = rows.astype(np.int64)
    for row, p in zip(expected, pixels):
        seen = image[p * classes : (p + 1) * classes].astype(np.int64)
        if p < 0 or not seen.any():
            continue
        weight, new = int(weights[row[LATEST]]), int(independent[row[LATEST]])
        row[:classes] += (seen * weight + 32768) >> 16
        row[WEIGHT] += (weight + 32) >> 6
        row[VIEWS] = min(row[VIEWS] + ((new + 32) >> 6), most)
        row[LATEST] = 7
        if row[WEIGHT] > most:
            row[:VIEWS] >>= 1
    chunks, counts = np.zeros(1, np.int32), np.full(1, CHUNK, np.int32)
    evidence = ImageEvidence(image, class_columns(classes), np.uint16(7), weights, independent, most)
    add_evidence(chunks, counts, pixels, evidence, rows)
    np.testing.assert_array_equal(rows, expected)


def test_a_view_of_another_map_counts_as_none():
    """A row that names a view this fusion never saw must not be looked up beyond the views there are."""
    found = []
    for last in (0, 9, 65535):
        image = np.full(3 + row_width(3), 900, np.uint16)
        rows = rows_of(np.ones((CHUNK, 3)), np.ones(CHUNK), np.ones(CHUNK))
        rows[:, LATEST] = last
        weights, independent = np.array([FULL, 9, 9], np.uint16), np.array([FULL, 5, 5], np.uint16)
        evidence = ImageEvidence(image, class_columns(3), np.uint16(3), weights, independent, np.uint16(32 * PER_VIEW))
        add_evidence(np.zeros(1, np.int32), np.full(1, CHUNK, np.int32), np.zeros(CHUNK, np.int32), evidence, rows)
        found.append(rows)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_saved_fusion_that_holds_fewer_views_than_it_counts_is_refused():
    fusion = label_fusion()
    fusion.restore(fusion.state() | {"count": np.array(64)})
    with pytest.raises(ValueError, match="count 65 views and hold 64"):
        fusion.restore(fusion.state() | {"count": np.array(65)})


@pytest.mark.parametrize("method", LABEL_FUSIONS)
def test_unlabelled_pixels_change_nothing(method):
    p = np.array([0.6, 0.3, 0.1])
    assert np.array_equal(labelled(method, [p]), labelled(method, [p, np.zeros(3)]))
    assert not labelled(method, [np.zeros(3)]).any()


def test_a_wrong_class_count_is_one_clear_error():
    frame = open_sequence("room:frames=1,width=32,height=24")[0]
    surfels, fusion = SurfelMap(13), Fusion(frame.camera)
    image = np.zeros((*frame.camera.shape, 40), np.float32)
    with pytest.raises(ValueError, match="40 classes, the map of 13"):
        label_fusion().fuse(surfels, fusion.visible, fusion.pixels, image, np.eye(4))
