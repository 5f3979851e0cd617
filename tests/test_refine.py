"""The conditional random field over surfels: against the obvious loops, and what it does to a map."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from command_line import refused, semslam
from synthetic_maps import NYU13, cloud_of, plane

from semslam.engine.labels import surfel_crf
from semslam.engine.labels.surfel_crf import (
    CrfConfig,
    as_sure_as,
    mean_field,
    nearest_neighbours,
    pair_weights,
    refined_probabilities,
)
from semslam.frame import UNLABELLED
from semslam.runs.folder import RunFolder


def scattered(n: int = 40, classes: int = 4, seed: int = 0):
    """A few surfels of every sort in a box of 20 cm; two of them without a class."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(n, 3)) * [0.2, 0.2, 0] + [0, 0, 1]
    cloud = cloud_of([("floor", rng.uniform(0, 0.2, (n, 3)), normals / np.linalg.norm(normals, axis=1)[:, None])], 0.01)
    probabilities = rng.dirichlet(np.full(classes, 0.3), n).astype(np.float32)
    probabilities[[3, 17]] = 0
    cloud.colors[:] = rng.integers(90, 150, (n, 3))
    return type(cloud)(**{**vars(cloud), "class_probabilities": probabilities})


def mean_field_by_loops(cloud, config: CrfConfig) -> np.ndarray:
    """As the formulae stand in the papers, one pair at a time, in float64."""
    n, classes = cloud.class_probabilities.shape
    x, v, c = (np.asarray(a, np.float64) for a in (cloud.positions, cloud.normals, cloud.colors))
    neighbours = []
    for i in range(n):
        distances = np.linalg.norm(x - x[i], axis=1)
        neighbours.append([int(j) for j in np.argsort(distances, kind="stable") if j != i][: config.neighbours])
    weights = np.zeros((n, n))
    for sigma, values, weight in (
        (config.sigma_normal, v, config.weight_normal),
        (config.sigma_color, c, config.weight_color),
    ):
        k = np.zeros((n, n))
        for i in range(n):
            for j in neighbours[i]:
                place = np.sum((x[i] - x[j]) ** 2) / (2 * config.sigma_position**2)
                k[i, j] = np.exp(-place - np.sum((values[i] - values[j]) ** 2) / (2 * sigma**2))
        sums = k.sum(axis=1)
        for i in range(n):
            for j in neighbours[i]:
                weights[i, j] += weight * k[i, j] / np.sqrt(sums[i] * sums[j])
    p = cloud.class_probabilities.astype(np.float64)
    p[p.sum(axis=1) == 0] = 1 / classes
    q = p.copy()
    for _ in range(config.iterations):
        new = np.zeros_like(q)
        for i in range(n):
            energy = -np.log(p[i] + 1e-12)
            for j in neighbours[i]:
                for label in range(classes):
                    energy[label] += weights[i, j] * sum(q[j, other] for other in range(classes) if other != label)
            new[i] = np.exp(-(energy - energy.min()))
            new[i] /= new[i].sum()
        q = new
    return q


@pytest.mark.parametrize("config", [CrfConfig(neighbours=5, iterations=4), CrfConfig(neighbours=39, iterations=1)])
def test_the_fast_field_is_what_the_obvious_loops_compute(config):
    cloud = scattered()
    np.testing.assert_allclose(mean_field(cloud, config), mean_field_by_loops(cloud, config), atol=2e-5)


def test_neighbours_are_the_nearest_others_even_where_surfels_coincide():
    points = np.random.default_rng(1).uniform(0, 1, (200, 3)).astype(np.float32)
    points[50:80] = points[50]
    found = nearest_neighbours(points, 6)
    assert not (found == np.arange(200)[:, None]).any()
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    chosen = np.sort(np.take_along_axis(distances, found.astype(int), axis=1), axis=1)
    np.testing.assert_allclose(chosen, np.sort(distances, axis=1)[:, :6], atol=1e-6)
    assert nearest_neighbours(points[:1], 6).shape == (1, 0) and nearest_neighbours(points[:3], 6).shape == (3, 2)


def test_no_iterations_leave_every_probability():
    cloud = scattered()
    np.testing.assert_array_equal(refined_probabilities(cloud, CrfConfig(iterations=0)), cloud.class_probabilities)


def test_the_field_is_the_same_for_any_number_of_threads():
    cloud, threads = scattered(3000), numba.get_num_threads()
    results = []
    for count in (1, threads):
        numba.set_num_threads(count)
        results.append(refined_probabilities(cloud))
    numba.set_num_threads(threads)
    np.testing.assert_array_equal(*results)


def two_tables(noise: float, seed: int = 2):
    """A floor of one colour beside a table top of another, at one height, with a share of wrong labels."""
    parts = [
        ("floor", *plane((0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), 0.01)),
        ("table", *plane((0.5, 0, 0), (0.5, 0, 0), (0, 0.5, 0), 0.01)),
    ]
    cloud = cloud_of(parts, 0.01)
    truth = cloud.labels()
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(cloud)) < noise
    labels = np.where(wrong, rng.integers(0, 13, len(cloud)), truth)
    cloud.class_probabilities[:] = 0.4 / 12
    cloud.class_probabilities[np.arange(len(cloud)), labels] = 0.6
    return cloud, truth


def test_wrong_specks_are_outvoted_and_an_edge_between_colours_stays():
    cloud, truth = two_tables(0.25)
    refined = refined_probabilities(cloud).argmax(axis=1)
    assert np.mean(cloud.labels() == truth) < 0.8
    assert np.mean(refined == truth) > 0.99


def test_the_field_decides_between_classes_and_makes_the_map_no_surer():
    """Its own marginals say 0.99 where 0.6 was put in, though a quarter of the labels was wrong."""
    cloud, _ = two_tables(0.25)
    before = cloud.class_probabilities.max(axis=1).mean()
    free, refined = mean_field(cloud, CrfConfig()), refined_probabilities(cloud)
    assert free.max(axis=1).mean() > 0.95
    assert abs(refined.max(axis=1).mean() - before) < 2e-3
    np.testing.assert_allclose(refined.max(axis=1), cloud.class_probabilities.max(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(refined.argmax(axis=1), free.argmax(axis=1))
    np.testing.assert_allclose(refined.sum(axis=1), 1, rtol=1e-5)


def test_the_sureness_of_a_large_map_is_that_of_its_parts(monkeypatch):
    rng = np.random.default_rng(0)
    q = rng.random((1000, 5), np.float32) ** 8
    q /= q.sum(axis=1, keepdims=True)
    rows = rng.random(1000) < 0.7
    whole = as_sure_as(q, 0.5, rows)
    assert abs(whole[rows].max(axis=1).mean() - 0.5) < 1e-3
    monkeypatch.setattr(surfel_crf, "AT_ONCE", 37)
    np.testing.assert_array_equal(as_sure_as(q, 0.5, rows), whole)


def test_surfels_without_a_class_get_their_neighbours_and_islands_stay_without():
    cloud, truth = two_tables(0)
    blank = np.random.default_rng(0).random(len(cloud)) < 0.3
    cloud.class_probabilities[blank] = 0
    island = cloud_of([(None, *plane((3, 3, 0), (0.1, 0, 0), (0, 0.1, 0), 0.01))], 0.01)
    both = type(cloud)(**{k: np.concatenate([v, vars(island)[k]]) for k, v in vars(cloud).items()})
    refined = refined_probabilities(both)
    assert np.mean(refined[: len(cloud)].argmax(axis=1) == truth) > 0.99
    assert (refined[len(cloud) :] == 0).all()


def test_far_and_near_a_surfel_is_pulled_alike():
    """The kernels are normalised: twice the spacing does not halve what the neighbours say."""
    dense = cloud_of([("floor", *plane((0, 0, 0), (0.3, 0, 0), (0, 0.3, 0), 0.01))], 0.01)
    sparse = cloud_of([("floor", *plane((0, 0, 0), (0.6, 0, 0), (0, 0.6, 0), 0.02))], 0.02)
    config = CrfConfig()
    sums = [pair_weights(c, nearest_neighbours(c.positions, 16), config).sum(axis=1).mean() for c in (dense, sparse)]
    np.testing.assert_allclose(sums, config.weight_normal + config.weight_color, rtol=0.02)


@pytest.mark.parametrize("method", ["bayes", "mean", "histogram"])
def test_evidence_is_read_as_the_probabilities_they_were_made_from(method):
    from semslam.engine.labels.label_fusion import LabelFusionConfig, label_fusion

    fusion = label_fusion(LabelFusionConfig(method=method, error_rate=0))
    p = scattered().class_probabilities
    np.testing.assert_allclose(fusion.read(fusion.rows_of(p), p.shape[1]), p, atol=1e-3)


@pytest.mark.slow
def test_a_refined_run_stands_beside_the_old_one(tmp_path, capsys):
    room, out = "room:frames=9,width=96,height=72,noise=kinect", tmp_path / "run"
    assert semslam("reconstruct", room, "--out", out, "--labels", "truth", "--label-every", "4") == 0
    assert semslam("refine", out) == 0
    assert "surfels got one" in capsys.readouterr().out
    old, new = RunFolder.open(out), RunFolder.open(tmp_path / "run-refined")
    (before, _), (after, label_set) = old.load_cloud(), new.load_cloud()
    assert label_set is NYU13
    np.testing.assert_array_equal(before.positions, after.positions)
    assert (before.labels() == UNLABELLED).sum() > 10 * (after.labels() == UNLABELLED).sum()
    assert new.load_metrics()["refine"]["weight_color"] == 10 and new.mesh.is_file() and new.preview.is_file()
    assert "associations.npz is missing" in refused(capsys, "relabel", new.path)
    assert semslam("evaluate", new.path) == 0
    bare = tmp_path / "bare"
    assert semslam("reconstruct", room, "--out", bare, "--labels", "none", "--no-mesh") == 0
    assert "no classes" in refused(capsys, "refine", bare)


def test_the_mesh_of_a_far_map_keeps_its_labels(tmp_path):
    far = ["room:frames=6,width=80,height=60", "--poses", "dataset", "--labels", "truth", "--set", "slam.fusion.far=60"]
    assert semslam("reconstruct", *far, "--out", tmp_path / "run") == 0
    assert semslam("refine", tmp_path / "run", "--out", tmp_path / "refined") == 0
    before, after = (RunFolder.open(tmp_path / name).load_mesh().labels != UNLABELLED for name in ("run", "refined"))
    assert after.mean() > 0.99 * before.mean() > 0.5
