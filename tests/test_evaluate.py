"""`semslam evaluate`: figures of runs whose errors are known, and of files that other systems wrote."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from command_line import refused, semslam
from stub_networks import KnowingNetwork
from synthetic_maps import NYU13, cloud_of, path_through_room, plane, room

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import most_probable
from semslam.frame import UNLABELLED
from semslam.geometry.ply import write_ply
from semslam.judging.foreign import evaluate_trajectory
from semslam.judging.map_labels import (
    MapLabelScores,
    SurfelClasses,
    SurfelVotes,
    pooled_and_mean,
    without_band,
)
from semslam.judging.references import scene_reference
from semslam.judging.run import Evaluation, evaluate_run, keep, over_scenes, world_alignment
from semslam.metrics.segmentation import Calibration, ConfusionMatrix
from semslam.rendering.splatting import render
from semslam.runs import networks
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.trajectory import Trajectory
from semslam.trajectory.files import write_tum
from sequences import open_sequence
from sequences.rebased import with_poses
from sequences.recordings.folder import write_folder

ROOM = "room:frames=24,width=160,height=120"
CAMERA = Camera(96, 72, 80.0, 80.0, 47.5, 35.5)
STABLE = ("ate_m", "rpe_m", "rpe_deg", "coverage", "accuracy_m", "completeness_m", "fscore_5cm", "miou_13_single",
          "miou_13_map")  # fmt: skip


@pytest.fixture(scope="module")
def network():
    return KnowingNetwork(open_sequence(ROOM), mistakes=0.3)


@pytest.fixture(scope="module")
def run(tmp_path_factory, network):
    """A run on the room with a network that is wrong on three tenths of the blocks of a frame."""
    out = tmp_path_factory.mktemp("runs") / "room"
    job = prepare(settings_of(None, {"sequence": ROOM, "slam.perception.label_every": 2}), out, network=network)
    for _ in job:
        pass
    finish(job, mesh=False)
    return out


@pytest.fixture(scope="module")
def evaluation(run, network):
    return evaluate_run(run, network=network)


def test_the_ends_of_a_recording_that_a_piece_of_it_leaves_out_are_no_losses(tmp_path):
    times = np.arange(20) / 10
    T = np.tile(np.eye(4), (20, 1, 1))
    T[:, 0, 3] = times
    write_tum(tmp_path / "all.txt", Trajectory(times, T))
    there = np.r_[5:8, 10:15]
    write_tum(tmp_path / "piece.txt", Trajectory(times[there], T[there]))
    figures = evaluate_trajectory(tmp_path / "piece.txt", tmp_path / "all.txt").figures
    assert figures["times_lost"] == 1 and figures["coverage"] == pytest.approx(8 / 20)


def test_a_run_with_exact_depth_and_poses_is_accurate_and_complete(evaluation):
    figures = evaluation.figures
    assert figures["ate_m"] < 1e-6
    assert figures["coverage"] == 1
    assert figures["accuracy_m"] < 0.005
    assert figures["completeness_m"] < 0.02
    assert figures["fscore_5cm"] > 0.97
    assert "the scene's own mesh" in figures["surface_protocol"]
    assert "visible region of 24 views" in figures["surface_protocol"]
    assert evaluation.errors is not None
    assert np.nanmedian(evaluation.errors) < 0.003


def test_the_map_is_righter_than_the_frames_that_it_was_made_from(evaluation):
    figures = evaluation.figures
    assert figures["miou_13_single"] < 0.75
    assert figures["miou_13_map"] > figures["miou_13_single"] + 0.1
    assert figures["miou_13_map_covered"] >= figures["miou_13_map"]
    assert figures["pixel_accuracy_13_surfels"] > 0.93
    assert evaluation.labels[13].frames == 12  # every second one
    assert set(STABLE) <= set(figures)


def test_the_command_writes_the_figures_into_the_run_and_where_it_is_asked_to(
    run, network, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    assert semslam("evaluate", run, "--json", tmp_path / "figures.json") == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "visible region" in printed
    written, metrics = (json.loads(path.read_text()) for path in (tmp_path / "figures.json", run / "metrics.json"))
    for name in STABLE:
        assert metrics[name] == written[name]
    assert metrics["surfels"] > 0  # what the run itself had written is still there
    for name in ("trajectory.png", "trajectory_errors.png"):
        assert (run / name).stat().st_size > 10_000
    assert written["times_lost"] == 0 and written["coverage"] == 1


def test_an_evaluation_leaves_nothing_of_an_earlier_one_in_the_run(run, evaluation, tmp_path):
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    keep(evaluation, folder)
    (folder.path / "trajectory.png").touch()
    assert folder.load_metrics()["accuracy_m"] == evaluation.figures["accuracy_m"] and folder.errors.exists()
    keep(Evaluation({"surface_protocol": "no reference"}), folder)
    metrics = folder.load_metrics()
    assert "accuracy_m" not in metrics and metrics["surface_protocol"] == "no reference"
    assert metrics["surfels"] > 0 and not folder.errors.exists() and not (folder.path / "trajectory.png").exists()


def test_labels_are_judged_also_where_no_pose_says_where_the_map_is(tmp_path):
    settings = {"sequence": ROOM, "poses": "tracked", "slam.perception.labels": "truth"}
    job = prepare(settings_of(None, settings), tmp_path / "run")
    for _ in zip(range(3), job):
        pass
    job.save()
    recorded = open_sequence(ROOM)
    only_later = with_poses(recorded, [None if i < 12 else T for i, T in enumerate(recorded.poses)])
    figures = evaluate_run(tmp_path / "run", sequence=only_later).figures
    assert figures["surface_protocol"].startswith("no reference in the map's world: ")
    assert "accuracy_m" not in figures and figures["miou_13_map"] > 0.8


@pytest.mark.slow
def test_a_run_is_held_against_the_surface_that_one_names(run, network, tmp_path):
    vertices, triangles, _ = open_sequence(ROOM).mesh()
    shifted = vertices + np.float32([0, 0, 0.03])
    write_ply(tmp_path / "truth.ply", dict(zip("xyz", shifted.T)), triangles)
    figures = evaluate_run(run, str(tmp_path / "truth.ply"), network=network).figures
    assert 0.005 < figures["accuracy_m"] < 0.03  # level surfaces are 3 cm off, walls are not
    for truth in ("depth", "tsdf"):
        figures = evaluate_run(run, truth, network=network).figures
        assert figures["accuracy_m"] < 0.012, truth


def test_a_sequence_without_a_surface_to_compare_with_says_so(tmp_path):
    from sequences.recordings.folder import write_folder

    folder = write_folder(open_sequence("room:frames=3,width=64,height=48"), tmp_path / "room")
    (folder / "groundtruth.txt").unlink()
    with pytest.raises(ValueError, match="no depth with poses to make a reference of"):
        scene_reference(open_sequence(folder))
    with pytest.raises(ValueError, match="has no mesh of its own"):
        scene_reference(open_sequence(folder), "mesh")


def test_a_map_of_another_system_is_compared_with_a_mesh(tmp_path, capsys):
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    write_ply(tmp_path / "truth.ply", dict(zip("xyz", square.T)), np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    points = plane((0, 0, 0.04), (1, 0, 0), (0, 1, 0), 0.01)[0].astype(np.float32)
    write_ply(tmp_path / "other.ply", dict(zip("xyz", points.T)))
    np.savetxt(tmp_path / "other.xyz", points)
    for name in ("other.ply", "other.xyz"):
        out = tmp_path / "figures.json"
        arguments = ("--map", tmp_path / name, "--reference", tmp_path / "truth.ply", "--json", out)
        assert semslam("evaluate", *arguments) == 0
        figures = json.loads(out.read_text())
        assert figures["accuracy_m"] == pytest.approx(0.04, abs=1e-3)
        assert (figures["fscore_2cm"], figures["fscore_5cm"]) == (0, 1)
    assert "accuracy" in capsys.readouterr().out


def test_the_reference_of_a_trajectory_may_be_a_recording(tmp_path):
    recorded = write_folder(open_sequence("room:frames=4,width=64,height=48"), tmp_path / "room")
    truth = (recorded / "groundtruth.txt").rename(tmp_path / "estimate.txt")
    with pytest.raises(ValueError, match="is a recording without poses"):
        evaluate_trajectory(truth, recorded)
    (recorded / "groundtruth.txt").write_text(truth.read_text())
    figures = evaluate_trajectory(truth, recorded).figures
    assert figures["ate_m"] < 1e-6 and figures["coverage"] == 1


def test_trajectories_of_different_recordings_are_told_not_to_fit(tmp_path, caplog):
    t = np.linspace(0, 3, 40)
    for name, path in (("line", [t, 0 * t, np.sin(t)]), ("loop", [np.sin(4 * t), np.cos(4 * t), 0.1 * t])):
        T = np.tile(np.eye(4), (40, 1, 1))
        T[:, :3, 3] = np.stack(path, axis=1)
        write_tum(tmp_path / f"{name}.txt", Trajectory(t, T))
    evaluate_trajectory(tmp_path / "line.txt", tmp_path / "line.txt")
    assert not caplog.text
    evaluate_trajectory(tmp_path / "loop.txt", tmp_path / "line.txt")
    assert "the trajectories do not fit: aligned by Sim(3)" in caplog.text


def test_a_trajectory_of_another_system_is_compared_with_a_reference(tmp_path, capsys):
    t = np.linspace(0, 3, 40)
    T = np.stack([poses.exp(np.array([s, np.sin(s), 0.2 * s, 0, 0.3 * s, 0])) for s in t])
    write_tum(tmp_path / "gt.txt", Trajectory(t, T))
    half = T.copy()
    half[:, :3, 3] *= 0.5
    write_tum(tmp_path / "est.txt", Trajectory(t[:20], half[:20]))
    out = tmp_path / "figures.json"
    files = ("--trajectory", tmp_path / "est.txt", "--reference", tmp_path / "gt.txt", "--json", out)
    assert semslam("evaluate", *files) == 0
    rigid = json.loads(out.read_text())
    assert rigid["coverage"] == 0.5
    assert rigid["ate_m"] > 0.05
    assert "SE(3)" in rigid["trajectory_protocol"]
    assert rigid["ate_se3_m"] == rigid["ate_m"] and rigid["ate_sim3_m"] < 1e-6  # side by side
    assert rigid["trajectory_scale"] == pytest.approx(2) and rigid["scale_error"] == pytest.approx(-0.5)
    assert semslam("evaluate", *files, "--with-scale") == 0
    similar = json.loads(out.read_text())
    assert similar["ate_m"] == similar["ate_sim3_m"] and similar["ate_se3_m"] == rigid["ate_m"]
    said = capsys.readouterr().out
    assert "ate, SE(3)" in said and "ate, Sim(3)" in said and "true / estimated scale" in said
    half[:, :3, 3] *= 1e-3
    write_tum(tmp_path / "est.txt", Trajectory(t[:20], half[:20]))
    assert semslam("evaluate", *files) == 0
    assert "no alignment by Sim(3)" in capsys.readouterr().out
    assert json.loads(out.read_text())["ate_sim3_m"] is None
    assert "no alignment by Sim(3)" in refused(capsys, "evaluate", *files, "--with-scale")
    there = np.r_[0:10, 16:30, 35:40]  # lost twice
    write_tum(tmp_path / "est.txt", Trajectory(t[there], T[there]))
    assert semslam("evaluate", *files) == 0
    gaps = json.loads(out.read_text())
    assert (gaps["coverage"], gaps["times_lost"]) == (pytest.approx(29 / 40), 2)
    assert gaps["first_lost_s"] == pytest.approx(t[10]) and gaps["longest_recovery_s"] == pytest.approx(t[16] - t[10])
    write_tum(tmp_path / "slow.txt", Trajectory(t[::4], T[::4]))  # a camera beside motion capture
    assert semslam("evaluate", "--trajectory", tmp_path / "slow.txt", *files[2:]) == 0
    assert json.loads(out.read_text())["coverage"] > 0.9


def test_what_cannot_be_evaluated_is_one_clear_line(tmp_path, capsys):
    assert "name the folder of a run" in refused(capsys, "evaluate")
    assert "not a run" in refused(capsys, "evaluate", tmp_path)
    assert "--reference" in refused(capsys, "evaluate", "--map", tmp_path / "x.ply")
    (tmp_path / "x.ply").write_text("nonsense")
    files = ("--map", tmp_path / "x.ply", "--reference", tmp_path / "y.ply")
    assert "not a PLY file" in refused(capsys, "evaluate", *files)


def test_worlds_are_aligned_by_whole_poses_also_on_a_straight_path():
    t = np.arange(10) / 10
    T = np.stack([poses.exp(np.array([s, 0, 0, 0, 0, 0])) for s in t])
    T_ref_est = poses.exp(np.array([0.5, 1, -2, 0.4, -0.8, 0.3]))
    found = world_alignment(Trajectory(t, T), Trajectory(t, T_ref_est @ T))
    np.testing.assert_allclose(found, T_ref_est, atol=1e-12)


# the parts: labels of maps


def rendered_probabilities(cloud, rendering):
    """(H, W, C) float32 class probabilities of the map seen in a rendering; all zero where it shows nothing."""
    image = np.zeros((*rendering.index.shape, cloud.class_probabilities.shape[1]), np.float32)
    seen = rendering.index >= 0
    image[seen] = cloud.class_probabilities[rendering.index[seen]]
    return image


def test_a_map_rendered_back_has_its_own_labels():
    cloud, T = room(), path_through_room(1)[0]
    rendering = render(cloud, CAMERA, T)
    scores = MapLabelScores(13)
    shown = np.where(rendering.index >= 0, cloud.labels()[rendering.index], UNLABELLED).astype(np.uint8)
    scores.add(shown, rendering.index, SurfelClasses(cloud.class_probabilities))
    assert scores.map.scores().pixel_accuracy == 1
    assert scores.map.scores().pixels > 0.5 * shown.size


def test_looking_surfels_up_counts_what_scoring_pixel_by_pixel_counts():
    cloud, rng = room(), np.random.default_rng(0)
    probabilities = rng.random((len(cloud), 13)).astype(np.float32) ** 8
    probabilities[rng.random(len(cloud)) < 0.1] = 0  # never labelled
    cloud = replace(cloud, class_probabilities=probabilities / np.maximum(probabilities.sum(1, keepdims=True), 1e-9))
    scores, surfels = MapLabelScores(13), SurfelClasses(cloud.class_probabilities)
    matrix, covered, calibration = ConfusionMatrix(13), ConfusionMatrix(13), Calibration()
    for T in path_through_room(3):
        rendering = render(cloud, CAMERA, T)
        blocks = rng.integers(0, 14, (6, 8)).astype(np.uint8)
        truth = np.where(blocks == 13, UNLABELLED, blocks).repeat(12, axis=0).repeat(12, axis=1)
        scores.add(truth, rendering.index, surfels)
        image = rendered_probabilities(cloud, rendering)
        called = most_probable(image)
        trimmed = without_band(truth)
        matrix.add(called, trimmed)
        covered.add(called, np.where(called == UNLABELLED, UNLABELLED, trimmed))
        calibration.add(image, trimmed)
    assert matrix.counts[:, -1].sum() > 0 and covered.counts.sum() > 1000
    np.testing.assert_array_equal(scores.map.counts, matrix.counts)
    np.testing.assert_array_equal(scores.map_covered.counts, covered.counts)
    found, expected = scores.map_calibration, calibration
    np.testing.assert_array_equal(found.hits, expected.hits)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.confidence_sum, expected.confidence_sum)
    assert found.log_likelihood_sum == pytest.approx(expected.log_likelihood_sum, rel=1e-9)


def test_surfels_get_the_class_that_most_frames_show_and_hidden_ones_none():
    near = plane((-1, -1, 1), (2, 0, 0), (0, 2, 0), 0.02)
    far = plane((-1, -1, 2), (2, 0, 0), (0, 2, 0), 0.02)
    cloud = cloud_of([("wall", near[0], -near[1]), ("floor", far[0], -far[1])], 0.02)
    bed, sofa, table = (NYU13.id_of(name) for name in ("bed", "sofa", "table"))
    half = np.full(CAMERA.shape, table, np.uint8)
    half[:, 48:] = bed
    votes, rendering = SurfelVotes(13), render(cloud, CAMERA, np.eye(4), cull_back=False)
    for truth in (*(np.full(CAMERA.shape, label, np.uint8) for label in (bed, sofa, bed, UNLABELLED)), half):
        votes.add(rendering, truth)
    found = votes.labels(cloud.positions)
    inside = np.abs(cloud.positions[:, :2]).max(axis=1) < 0.4
    front = cloud.positions[:, 2] < 1.5
    assert (found[inside & front] == bed).all()
    assert (found[~front & (np.abs(cloud.positions[:, :2]).max(axis=1) < 0.9)] == UNLABELLED).all()


def one_surfel_a_pixel(probabilities):
    """What the map shows and says where each pixel (H, W, C) has a surfel of its own."""
    height, width, classes = probabilities.shape
    return np.arange(height * width).reshape(height, width), SurfelClasses(probabilities.reshape(-1, classes))


def test_a_frame_that_sees_nothing_of_the_map_counts_for_the_network_alone():
    truth, none = np.zeros((8, 8), np.uint8), SurfelClasses(np.zeros((0, 3), np.float32))
    scores = MapLabelScores(3)
    scores.add(truth, np.full(truth.shape, -1), none, np.full((*truth.shape, 3), 1 / 3, np.float32))
    assert scores.single.counts.sum() > 0 and not scores.map_covered.counts.any()


def test_holes_count_as_missed_but_not_among_the_covered():
    truth = np.zeros((20, 20), np.uint8)
    right = np.zeros((20, 20, 3), np.float32)
    right[..., 0] = 1
    index, surfels = one_surfel_a_pixel(right)
    index[:, 10:] = -1
    scores = MapLabelScores(3)
    scores.add(truth, index, surfels, right)
    assert scores.map.scores().miou == 0.5
    assert scores.map_covered.scores().miou == 1
    assert scores.single.scores().miou == 1
    assert scores.single_covered.scores().pixels == 200
    assert "1 labelled frames" in scores.protocol


def test_the_band_at_boundaries_does_not_count():
    truth = np.zeros((20, 640), np.uint8)
    truth[:, 320:] = 1
    called = np.zeros((20, 640, 2), np.float32)
    called[:, :322, 0] = 1  # two pixels off
    called[:, 322:, 1] = 1
    scores = MapLabelScores(2)
    scores.add(truth, *one_surfel_a_pixel(called))
    assert scores.map.scores().miou == 1


@pytest.mark.parametrize("width", [160, 320, 640, 1280, 3840])
def test_the_band_at_boundaries_is_the_same_share_of_images_of_all_sizes(width):
    truth = np.zeros((8, 160), np.uint8)
    truth[:, 20:40], truth[:, 90:] = 1, 2
    truth = np.kron(truth, np.ones((1, max(1, width // 160)), np.uint8))
    ignored = (without_band(truth) == UNLABELLED).sum(axis=1)
    assert ignored[0] == 3 * 2 * max(1, round(3 * width / 640))


def test_pooling_counts_pixels_and_the_mean_counts_scenes():
    large, small = ConfusionMatrix(2), ConfusionMatrix(2)
    large.add(np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8))
    small.add(np.ones((1, 2), np.uint8), np.array([[0, 1]], np.uint8))
    pooled, mean = pooled_and_mean({"large": large, "small": small})
    assert pooled == pytest.approx((100 / 101 + 1 / 2) / 2)
    assert mean == pytest.approx((1 + (0 + 1 / 2) / 2) / 2)


def test_several_runs_are_pooled_and_averaged(evaluation):
    twice = over_scenes({"a": evaluation, "b": evaluation})
    assert twice["scenes"] == 2
    assert twice["accuracy_m"] == pytest.approx(evaluation.figures["accuracy_m"])
    assert twice["miou_13_map_pooled"] == pytest.approx(evaluation.figures["miou_13_map"])


def test_given_poses_are_no_part_of_the_mean_error_of_tracked_ones(evaluation):
    tracked = replace(evaluation, figures=evaluation.figures | {"poses": "tracked", "ate_m": 0.5})
    given = replace(evaluation, figures=evaluation.figures | {"poses": "dataset", "ate_m": 0.0})
    mean = over_scenes({"a": tracked, "b": given})
    assert mean["ate_m"] == 0.5 and mean["ate_m_scenes"] == 1
    assert over_scenes({"a": given})["ate_m"] == 0
