"""`semslam compare`: a few variants of a tiny room with a network that errs in a known way, and the report of them."""

from __future__ import annotations

import base64
import importlib
import json
import re
import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import refused, semslam
from stub_networks import KnowingNetwork

from semslam.comparison import depth_study as compare_depth
from semslam.comparison import making, sections
from semslam.comparison.answer import answer
from semslam.comparison.comparison import open_comparisons
from semslam.comparison.depth_study import SHIFTED, DepthSource, StudiedFrame, best_scale, best_scale_shift, near_edges
from semslam.comparison.report import Section, Table, number, write_markdown
from semslam.comparison.variants import Settings, variants_of
from semslam.judging import run_labels
from semslam.metrics.surface import points_reference
from semslam.runs import networks, reconstruct
from semslam.runs.folder import RunFolder
from semslam.runs.progress import NoMap
from semslam.runs.storage.lock import unlock
from semslam.trajectory import Trajectory
from sequences import open_sequence
from sequences.recordings.folder import write_folder

# Those that need whole runs are marked slow.
ROOM = "room:frames=20,width=96,height=72"
VARIANTS = "sensor,predicted_raw,predicted_all,sensor_tracked,sensor_true_labels"


def too_far(depth: np.ndarray, index: int) -> np.ndarray:
    """What the network says: everything 1.5 times as far, give or take a tenth a frame."""
    return (depth * (1.5 + 0.1 * np.sin(index))).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return KnowingNetwork(open_sequence(ROOM), "nyu40", mistakes=0.2, spoil=too_far)


@pytest.fixture(scope="module")
def report(tmp_path_factory, network):
    """The folder of a comparison."""
    out = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "predictor", lambda *_: network)
        patch.setattr(compare_depth, "FRAMES", 5)  # enough to see that every figure is there
        patch.setattr(run_labels, "VOTES", 6)
        assert semslam("compare", ROOM, "--out", out, "--variants", VARIANTS, "--json", out / "flat.json") == 0
    return out


@pytest.fixture(scope="module")
def figures(report):
    return json.loads((report / "report.json").read_text())["scenes"]["room"]


@pytest.mark.slow
def test_every_variant_is_a_run_that_evaluate_reads(report, network, monkeypatch):
    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    for name in VARIANTS.split(","):
        for file in ("config.yaml", "trajectory.txt", "map.ply", "map.npz", "metrics.json", "preview.png"):
            assert (report / name / file).stat().st_size > 0, (name, file)
    monkeypatch.setattr(run_labels, "VOTES", 6)
    before = json.loads((report / "sensor" / "metrics.json").read_text())
    assert semslam("evaluate", report / "sensor") == 0
    assert json.loads((report / "sensor" / "metrics.json").read_text()) == before


@pytest.mark.slow
def test_the_page_holds_everything_inside(report):
    page = (report / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*['\"]?(https?:)?//", page)
    assert "<script" not in page and "@import" not in page and "url(" not in page
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) > 20
    for uri in sources:
        kind, _, data = uri.partition(";base64,")
        assert kind in ("data:image/svg+xml", "data:image/jpeg")
        content = base64.b64decode(data, validate=True)
        assert content.startswith(b"\xff\xd8" if kind.endswith("jpeg") else b"<?xml")
    assert 'name="viewport"' in page and "@media print" in page


@pytest.mark.slow
def test_every_line_that_was_asked_for_is_in_the_report(report):
    text = (report / "report.md").read_text()
    for heading in ("What does it cost to have no depth camera?", "What predicted depth costs", "The maps",
                    "Depth, frame by frame", "Trajectory", "Surface",
                    "Labels", "Cost", "Every figure again"):  # fmt: skip
        assert f"## {heading}" in text
    said = """Error painted on the maps|By true distance|By true class|Near depth edges|The median frame|The worst frame
        Visible-region rule|the scene's own mesh|precision 2 cm|F 10 cm|Confusions, 13 classes|Confusions, 40 classes
        Reliability, 13 classes|ECE map|Eigen crop, cap 10 m, mean of images|peak memory MB|bytes per surfel
        network's own limit"""
    for words in re.split(r"\||\n", said):
        assert words.strip() in text, words


@pytest.mark.slow
def test_raw_predicted_depth_costs_and_the_helps_give_most_of_it_back(figures):
    error = {name: values["accuracy_m"] for name, values in figures["variants"].items()}
    assert error["predicted_raw"] > 10 * error["sensor"]
    assert error["predicted_all"] < error["predicted_raw"] / 2


@pytest.mark.slow
def test_the_networks_own_limit_is_what_no_scale_and_shift_can_mend(figures):
    study = figures["depth"]
    assert study["network"]["rmse"] > 0.5
    assert study["network, best scale"]["rmse"] < 1e-3  # the stub errs in its scale alone
    assert study[SHIFTED]["surface_m"] < 0.01
    assert study["network"]["abs_rel"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_tracked_poses_are_judged_and_given_ones_are_right_by_construction(figures):
    tracked, given = (figures["variants"][name] for name in ("sensor_tracked", "sensor"))
    assert 0 < tracked["ate_sim3_m"] <= tracked["ate_m"] < 0.05
    assert tracked["trajectory_scale"] == pytest.approx(1, abs=0.1)
    assert given["ate_m"] < 1e-6
    assert tracked["accuracy_m"] < 0.03  # moved back into the world of the truth


@pytest.mark.slow
def test_labels_are_scored_on_13_and_40_classes(figures):
    sensor = figures["variants"]["sensor"]
    assert sensor["miou_40_single"] < sensor["miou_40_map"] <= 1
    assert 0 <= sensor["ece_13_map"] <= 1
    assert figures["variants"]["sensor_true_labels"]["miou_13_map"] > sensor["miou_13_map"]


@pytest.mark.slow
def test_flat_figures_have_one_name_each(report, figures):
    flat = json.loads((report / "flat.json").read_text())
    assert flat["predicted_all.fscore_5cm"] == figures["variants"]["predicted_all"]["fscore_5cm"]
    assert not [value for value in flat.values() if isinstance(value, (dict, list))]


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_what_was_broken_off_goes_on(report, network, monkeypatch, capsys):
    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    settings = Settings()
    (comparison,) = open_comparisons([ROOM], report, settings, "sensor,predicted_all")
    assert [comparison.prepared(variant) for variant in comparison.variants] == [None, None]
    other = report.parent / "broken"
    (comparison,) = open_comparisons([ROOM], other, settings, "predicted_all")
    (variant,) = comparison.variants
    run = comparison.prepared(variant)
    for _ in zip(range(12), run):
        pass
    run.save()
    run = comparison.prepared(variant)
    assert len(run) == 8
    for _ in run:
        pass
    making.finished(run)
    assert (other / "predicted_all" / "map.ply").read_bytes() == (report / "predicted_all" / "map.ply").read_bytes()
    (comparison,) = open_comparisons([ROOM], other, Settings(classes="nyu13"), "predicted_all", overwrite=True)
    monkeypatch.setattr(networks, "predictor", lambda *_: KnowingNetwork(open_sequence(ROOM), "nyu13"))
    assert len(comparison.prepared(variant)) == 20  # other settings: from the start


@pytest.mark.slow
def test_other_weights_mean_that_a_variant_is_made_again(report, network, monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    monkeypatch.setattr(making, "weights_digest", lambda _: "another")
    (comparison,) = open_comparisons([ROOM], tmp_path, Settings(), "sensor")
    (variant,) = comparison.variants
    run = comparison.prepared(variant)
    for _ in run:
        pass
    making.finished(run)
    assert comparison.prepared(variant) is None
    monkeypatch.setattr(making, "weights_digest", lambda _: "a third")
    assert len(comparison.prepared(variant)) == 20


@pytest.mark.slow
def test_the_commands_beside_the_figures_are_commands_of_ours(figures):
    for name, values in figures["variants"].items():
        make, judge = map(shlex.split, values["commands"])
        assert make[:3] == ["semslam", "reconstruct", ROOM]
        assert make[make.index("--out") + 1].endswith(name)
        assert judge[:2] == ["semslam", "evaluate"]
    assert "--depth predicted --corrections all --poses dataset" in figures["variants"]["predicted_all"]["commands"][0]


@pytest.mark.slow
def test_the_command_printed_beside_a_figure_makes_the_same_map(report, figures, network, monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    words = shlex.split(figures["variants"]["predicted_all"]["commands"][0])
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert semslam(*words[1:]) == 0
    assert (tmp_path / "again" / "map.ply").read_bytes() == (report / "predicted_all" / "map.ply").read_bytes()


def test_wrong_input_is_one_clear_line(capsys, tmp_path):
    line = refused(capsys, "compare", ROOM, "--out", tmp_path, "--variants", "sensr")
    assert "'sensr'" in line and "predicted_all" in line
    assert "names none" in refused(capsys, "compare", ROOM, "--out", tmp_path, "--variants", ",")
    assert "--classes" in refused(capsys, "compare", ROOM, "--out", tmp_path, "--classes", "coco")
    assert "nowhere" in refused(capsys, "compare", tmp_path / "nowhere", "--out", tmp_path)
    new = tmp_path / "new"  # made before the figures are written into it, but nothing else is
    assert "sensr" in refused(capsys, "compare", ROOM, "--json", new / "flat.json", "--out", new, "--variants", "sensr")
    line = refused(capsys, "compare", ROOM, "--json", new / "deep" / "flat.json", "--out", new)
    assert "deep does not exist" in line and not new.exists()
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, "compare", ROOM, "--out", tmp_path / "file")


def test_files_that_no_comparison_made_are_left_alone(network, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    (tmp_path / "sensor").mkdir()
    (tmp_path / "sensor" / "notes.txt").write_text("precious")
    line = refused(capsys, "compare", ROOM, "--out", tmp_path, "--variants", "sensor")
    assert "holds files that no comparison made" in line and (tmp_path / "sensor" / "notes.txt").is_file()
    recording = write_folder(open_sequence("room:frames=3,width=32,height=24"), tmp_path / "recording")
    line = refused(capsys, "compare", recording, "--out", recording)
    assert "is a folder of the recording" in line and not (recording / ".lock").exists()


def test_a_variant_of_other_settings_is_replaced_only_where_one_says_so(tmp_path, capsys):
    (comparison,) = open_comparisons([ROOM], tmp_path, Settings(), "sensor_true_labels")
    (variant,) = comparison.variants
    run = making.prepared(RunFolder(comparison.folder(variant)), variant.settings(comparison.base), None)
    next(iter(run))
    run.save()
    open_comparisons([ROOM], tmp_path, Settings(), "sensor_true_labels")  # it goes on
    words = ("compare", ROOM, "--out", tmp_path, "--variants", "sensor_true_labels")
    line = refused(capsys, *words, "--classes", "nyu13")
    assert "sensor_true_labels: holds a run with other settings or weights; name another --out, or add" in line
    assert comparison.folder(variant).is_dir()
    open_comparisons([ROOM], tmp_path, Settings(classes="nyu13"), "sensor_true_labels", overwrite=True)


def test_a_variant_of_a_recording_that_was_changed_is_replaced_only_where_one_says_so(tmp_path, capsys):
    recording = write_folder(open_sequence("room:frames=3,width=96,height=72"), tmp_path / "recording")
    (comparison,) = open_comparisons([recording], tmp_path / "out", Settings(), "sensor_true_labels")
    (variant,) = comparison.variants
    run = making.prepared(RunFolder(comparison.folder(variant)), variant.settings(comparison.base), None)
    next(iter(run))
    run.save()
    unlock(run.folder.path)
    file = recording / "camera.yaml"
    file.write_text(file.read_text().replace("depth_scale: 1000", "depth_scale: 2000"))
    line = refused(capsys, "compare", recording, "--out", tmp_path / "out", "--variants", "sensor_true_labels")
    assert "sensor_true_labels: its recording was changed since; name another --out, or add --overwrite" in line
    open_comparisons([recording], tmp_path / "out", Settings(), "sensor_true_labels", overwrite=True)
    assert not comparison.folder(variant).exists()


def test_paths_are_drawn_beside_the_reference_that_their_errors_are_of(monkeypatch):
    """The recording's poses as a run understands them: those in its file may be in another convention."""
    path = np.tile(np.eye(4), (5, 1, 1))
    recorded = Trajectory(np.arange(5.0), path.copy())
    path[:, :3, 3] = np.random.default_rng(0).normal(size=(5, 3))
    meant = Trajectory(np.arange(5.0), path)
    drawn = []
    monkeypatch.setattr(sections.draw, "paths", lambda reference, found: drawn.append(reference))
    result = SimpleNamespace(variant=variants_of(open_sequence(ROOM))[0], figures={}, estimate=meant)
    result.variant, result.evaluation = replace(result.variant, poses="tracked"), SimpleNamespace(trajectory=meant)
    result.tracked, result.row = np.ones(5, bool), lambda keys: ()
    judge = SimpleNamespace(sequence=SimpleNamespace(trajectory=meant))
    sequence = SimpleNamespace(trajectory=recorded)
    sections.trajectory(SimpleNamespace(judge=judge, sequence=sequence, results=[result]))
    np.testing.assert_array_equal(drawn[0], meant.positions)


@pytest.mark.slow
def test_a_recording_that_cannot_be_tracked_by_its_images_is_still_compared(network, monkeypatch, tmp_path):
    def no_parallax(*_):
        raise NoMap("the camera moved 0.00 m, which shows no parallax")

    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    monkeypatch.setattr(run_labels, "VOTES", 6)
    monkeypatch.setattr(compare_depth, "FRAMES", 5)
    monkeypatch.setattr(reconstruct, "visual_poses", no_parallax)
    variants = "sensor,predicted_all,predicted_all_tracked"
    assert semslam("compare", ROOM, "--out", tmp_path / "out", "--variants", variants) == 0
    assert "Left out: predicted depth, all corrections, tracked poses" in (tmp_path / "out" / "report.md").read_text()


def test_without_a_sensors_map_there_is_nothing_to_compare_with(network, monkeypatch, tmp_path, capsys):
    def unmade(comparison, variant):
        if variant.depth == "sensor":
            raise NoMap("no frame was fused")

    monkeypatch.setattr(importlib.import_module("semslam.commands.measuring.compare"), "_make", unmade)
    words = ("--out", tmp_path / "out", "--variants", "sensor_tracked,predicted_all")
    assert semslam("compare", ROOM, *words) == 2
    assert "no variant with the sensor's depth could be made" in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.md").exists()


def test_a_mistake_is_no_reason_to_leave_a_variant_out(network, monkeypatch, tmp_path, capsys):
    def mistaken(*_):
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(networks, "predictor", lambda *_: network)
    monkeypatch.setattr(reconstruct, "visual_poses", mistaken)
    words = ("--out", tmp_path / "out", "--variants", "predicted_all_tracked")
    assert "a mistake of ours" in refused(capsys, "compare", ROOM, *words)


# the parts


@pytest.mark.parametrize(
    ("poses", "columns"),
    [
        (["dataset", "dataset", "tracked"], ["depth camera", "plain camera alone", "plain camera, given poses"]),
        (["dataset", "dataset"], ["depth camera", "plain camera, given poses"]),
        (["tracked", "tracked"], ["depth camera", "plain camera alone"]),  # of a recording without poses
    ],
)
def test_the_first_screen_calls_poses_given_only_where_they_were(poses, columns):
    names = ("sensor", "predicted_all", "predicted_all_tracked")
    results = [
        SimpleNamespace(variant=SimpleNamespace(name=name, poses=of), figures={"scale_error": -0.1}, pictures=[])
        for name, of in zip(names, poses)
    ]
    section = answer(SimpleNamespace(results=results))
    table = section.parts[1]
    assert list(table.columns[1:]) == columns
    assert ("given poses are right" in table.note) == (columns[-1] == "plain camera, given poses")
    assert ("network's guess" in table.note) == ("plain camera alone" in columns)
    assert all(cell == "10.0" for cell in table.rows[2][1:]), "an error has no sign"
    assert answer(SimpleNamespace(results=results[:1])) is None


def test_variants_follow_what_a_sequence_offers():
    sequence = open_sequence(ROOM)
    names = [variant.name for variant in variants_of(sequence)]
    assert names[:2] == ["sensor", "predicted_raw"]
    assert {"predicted_all", "sensor_tracked", "predicted_all_tracked", "predicted_all_true_labels"} <= set(names)
    assert len(set(names)) == len(names)
    sequence.has_depth, sequence.label_set, sequence.poses = False, None, None
    names = [variant.name for variant in variants_of(sequence)]
    assert names[0] == "predicted_raw" and names[-1] == "predicted_all"
    assert all(variant.poses == "tracked" for variant in variants_of(sequence))


def test_the_best_scale_and_shift_are_found_through_outliers():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(1, 4, (40, 50)).astype(np.float32)
    truth = (1.7 * predicted - 0.3).astype(np.float32)
    truth[:12] = 0  # unknown
    truth[12:17] = 5  # wrong
    found = best_scale_shift(predicted, truth)
    assert (found.scale, found.shift) == pytest.approx((1.7, -0.3), abs=1e-2)
    assert best_scale(predicted, 1.7 * predicted).scale == pytest.approx(1.7)
    assert best_scale(predicted, np.zeros_like(predicted)).scale == 1


def studied(truth: np.ndarray, labels: np.ndarray) -> StudiedFrame:
    camera = open_sequence(f"room:frames=1,width={truth.shape[1]},height={truth.shape[0]}").camera
    return StudiedFrame(0, np.zeros((*truth.shape, 3), np.uint8), camera, truth, labels, np.eye(4))


def test_errors_by_distance_class_and_edge_are_those_that_one_counts_by_hand():
    truth = np.full((60, 80), 1.2, np.float32)
    truth[:, 40:] = 3.5
    labels = np.zeros((60, 80), np.uint8)
    labels[:, 40:] = 3
    depth = truth + np.where(truth > 2, np.float32(0.5), np.float32(0.1))
    depth[:6] = 0  # a hole
    source = DepthSource()
    wall = np.column_stack([np.linspace(-3, 3, 50)[:, None].repeat(50, 1).ravel(), np.tile(np.linspace(-3, 3, 50), 50)])
    source.add(studied(truth, labels), depth, points_reference(np.column_stack([wall, np.full(2500, 1.2)])))
    figures = source.figures()
    assert figures["shown"] == pytest.approx(0.9)
    assert figures["rmse"] == pytest.approx(np.sqrt((0.1**2 + 0.5**2) / 2), abs=1e-4)
    assert figures["abs_rel_cap10_mean_of_images"] == pytest.approx((0.1 / 1.2 + 0.5 / 3.5) / 2, abs=1e-4)
    assert [e.pooled().rmse for e in source.distances if e.pooled().pixels] == pytest.approx([0.1, 0.5], abs=1e-4)
    assert source.classes[0].pooled().rmse == pytest.approx(0.1, abs=1e-4)
    assert source.classes[3].pooled().abs_rel == pytest.approx(0.5 / 3.5, abs=1e-4)
    edges = near_edges(truth)
    assert edges[:, 38:42].all() and not edges[:, :35].any() and not edges[:, 45:].any()
    assert figures["rmse_near_edges"] == pytest.approx(figures["rmse_elsewhere"], rel=0.05)  # half of each on both
    assert figures["surface_m"] >= 0.1


def test_tables_are_markdown_with_as_many_cells_as_columns(tmp_path):
    table = Table("T", ("a", "b"), (("x|y", number(1234.56, 1)), ("z", number(None))), "note")
    write_markdown(tmp_path / "t.md", "title", [Section("s", [table])])
    lines = (tmp_path / "t.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows == ["| a | b |", "| --- | ---: |", "| x\\|y | 1,234.6 |", "| z | – |"]
    assert number(float("nan")) == "–"
