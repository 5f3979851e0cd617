"""Commands to look at a run: exports, pictures, windows, films, pages."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from command_line import refused, semslam

from semslam import cli
from semslam.geometry.export import read_map_ply, read_mesh_ply
from semslam.looking.live import LiveView
from semslam.looking.viewed import viewed_run
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare

ROOM = "room:frames=12,width=128,height=96"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "room"
    assert semslam("reconstruct", ROOM, "--out", out, "--labels", "truth") == 0
    return RunFolder.open(out)


def test_every_export_opens_in_open3d_with_what_the_run_holds(run, tmp_path, capfd):
    import open3d as o3d

    out = tmp_path / "made" / "here"
    assert semslam("export", run.path, "--out", out) == 0
    cloud, label_set = run.load_cloud()
    mesh = read_mesh_ply(run.mesh)
    for name in ("surfels.ply", "surfels.pcd"):
        points = o3d.t.io.read_point_cloud(str(out / name)).point
        np.testing.assert_array_equal(points.positions.numpy(), cloud.positions)
        np.testing.assert_array_equal(points["label"].numpy()[:, 0].astype(np.uint8) - np.uint8(1), cloud.labels())
    for name in ("mesh.ply", "mesh.obj", "mesh.glb", "mesh_labels.glb"):
        read = o3d.io.read_triangle_mesh(str(out / name))
        assert len(read.triangles) == len(mesh.triangles), name
        assert read.has_vertex_colors(), name
        extent = read.get_max_bound() - read.get_min_bound()
        np.testing.assert_allclose(extent, np.ptp(mesh.vertices, axis=0), atol=1e-4, err_msg=name)
    clouds = sorted((out / "classes").iterdir())
    assert sum(len(read_map_ply(path)) for path in clouds) == len(cloud)
    with open(out / "objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class_name"] for row in rows} <= set(label_set.classes)
    assert all(float(row["area_m2"]) > 0 and float(row["length_m"]) > 0 for row in rows)
    assert {"floor", "wall"} <= {row["class_name"] for row in rows}
    plan = cv2.imread(str(out / "floor_plan.png"))
    assert min(plan.shape[:2]) > 400 and plan.std() > 20
    named = [line.split(":", 1)[1].strip() for line in capfd.readouterr().out.splitlines()]
    written = {str(path) for path in out.rglob("*") if path.is_file()} - {str(out / "mesh.mtl")}
    assert set(named) == written, "every file is named, and nothing else is left"


def test_a_glb_is_whole(run, tmp_path):
    """glTF 2.0 binary: magic, version, length, then a JSON chunk that names colours."""
    assert semslam("export", run.path, "--out", tmp_path) == 0
    data = (tmp_path / "mesh_labels.glb").read_bytes()
    magic, version, length, size, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    described = json.loads(data[20 : 20 + size])
    assert "COLOR_0" in described["meshes"][0]["primitives"][0]["attributes"]


def test_a_run_without_a_mesh_exports_the_rest_and_says_so(run, tmp_path, capsys):
    out = tmp_path / "bare"
    assert semslam("reconstruct", ROOM, "--out", out, "--labels", "none", "--no-mesh") == 0
    assert semslam("export", out, "--out", tmp_path / "exports") == 0
    assert "no mesh" in capsys.readouterr().out
    named = {"export.json", "trajectory.txt", "surfels.ply", "surfels.pcd", "floor_plan.png"}
    assert {path.name for path in (tmp_path / "exports").iterdir()} == named
    assert "no such folder" in refused(capsys, "export", tmp_path / "nowhere", "--out", tmp_path / "x")


@pytest.mark.parametrize("frames", [1, *(pytest.param(frames, marks=pytest.mark.slow) for frames in (2, 8))])
def test_a_run_of_a_few_frames_is_evaluated_exported_and_seen(frames, tmp_path):
    from semslam.geometry.ply import write_ply
    from sequences import open_sequence
    from sequences.recordings.folder import write_folder

    recording = write_folder(open_sequence(f"room:frames={frames},width=128,height=96"), tmp_path / "recording")
    run, out = tmp_path / "run", tmp_path / "exports"
    assert semslam("reconstruct", recording, "--out", run, "--labels", "truth") == 0
    assert semslam("evaluate", run, "--json", tmp_path / "figures.json") == 0
    assert json.loads((tmp_path / "figures.json").read_text())["fscore_5cm"] > 0.9
    assert semslam("export", run, "--out", out) == 0
    assert (out / "mesh.obj").is_file() and (out / "mesh_labels.glb").is_file()
    assert semslam("view", run, "--png", tmp_path / "map.png") == 0
    mesh = read_mesh_ply(run / "mesh.ply")
    columns = [*mesh.vertices.T, *mesh.normals.T, *mesh.colors.T, mesh.labels]
    names = ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "label")
    write_ply(run / "mesh.ply", dict(zip(names, columns, strict=True)), np.zeros((0, 3), np.int32))
    assert semslam("export", run, "--out", tmp_path / "without") == 0  # a mesh without triangles is none
    assert not (tmp_path / "without" / "mesh.obj").exists()


def test_a_recording_without_readings_is_evaluated_without_a_surface_and_says_so(tmp_path, capsys, caplog):
    from sequences import open_sequence
    from sequences.recordings.folder import write_folder

    recording = write_folder(open_sequence("room:frames=3,width=64,height=48"), tmp_path / "recording")
    run = tmp_path / "run"
    assert semslam("reconstruct", recording, "--out", run, "--labels", "none", "--no-mesh") == 0
    blank = cv2.imencode(".png", np.zeros((48, 64), np.uint16))[1].tobytes()
    for path in (recording / "depth").iterdir():  # of their old sizes, by which the recording is recognised
        path.write_bytes(blank.ljust(path.stat().st_size, b"\0"))
    assert semslam("evaluate", run, "--json", tmp_path / "figures.json") == 0
    assert "accuracy_m" not in json.loads((tmp_path / "figures.json").read_text())
    assert "no surface to compare the map with" in caplog.text
    assert "its depth and poses make no mesh" in refused(capsys, "evaluate", run, "--truth", "tsdf")


def test_a_recording_for_rerun_holds_frames_predictions_poses_and_map(run, tmp_path, capsys):
    pytest.importorskip("rerun", reason="Rerun's SDK is an optional extra: pip install rerun-sdk")
    assert semslam("view", run.path, "--rerun", tmp_path / "run.rrd", "--hide", "ceiling") == 0
    data = (tmp_path / "run.rrd").read_bytes()
    assert data[:3] == b"RRF"  # Rerun's recordings begin so
    for entity in ("camera/color", "camera/depth", "camera/classes", "path", "map/classes", "map/colors"):
        assert entity.encode() in data, entity
    assert "written as .rrd, not as .txt" in refused(capsys, "view", run.path, "--rerun", tmp_path / "run.txt")


def test_without_rerun_its_extra_is_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)  # as if it were not installed
    line = refused(capsys, "view", run.path, "--rerun", tmp_path / "run.rrd")
    assert "pip install rerun-sdk" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_map_without_classes_is_shown_in_its_colors(tmp_path, capsys):
    run, picture = tmp_path / "run", tmp_path / "map.png"
    assert semslam("reconstruct", "room:frames=3,width=128,height=96", "--out", run, "--labels", "none") == 0
    assert semslam("view", run, "--png", picture) == 0
    assert semslam("view", run, "--png", tmp_path / "color.png", "--color-by", "color") == 0
    assert picture.read_bytes() == (tmp_path / "color.png").read_bytes()
    for coloring in ("label", "entropy"):
        capsys.readouterr()
        line = refused(capsys, "view", run, "--png", tmp_path / "x.png", "--color-by", coloring)
        assert "its map has no classes" in line
    both, one = (cv2.imread(str(path)) for path in (run / "preview.png", picture))
    shape = np.array([both.shape[1] / both.shape[0], one.shape[1] / one.shape[0]])
    assert (shape < 1.5).all()  # one panel, and not a grey one beside it


@pytest.mark.slow
def test_a_run_without_figures_is_told_to_be_one(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    for content, told in (("{}", True), ("{", False), ('{"frames": 12}', False)):
        (copy / "metrics.json").write_text(content)
        capsys.readouterr()
        assert semslam("view", copy, "--png", tmp_path / "map.png") == 0
        assert ("frames are done, but metrics.json is missing" in capsys.readouterr().err) == told
    (copy / "metrics.json").write_text("{}")
    for words in (["refine", copy], ["export", copy]):
        assert semslam(*words, "--out", tmp_path / words[0]) == 0
        assert "metrics.json is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_errors_are_shown_where_evaluate_has_found_them(run, tmp_path, capsys):
    assert "were not compared" in refused(capsys, "view", run.path, "--png", tmp_path / "e.png", "--color-by", "error")
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    assert semslam("evaluate", copy) == 0
    viewed = viewed_run(copy)
    assert viewed.errors is not None and np.nanmedian(viewed.errors) < 0.01
    assert semslam("view", copy, "--png", tmp_path / "e.png", "--color-by", "error") == 0
    assert cv2.imread(str(tmp_path / "e.png")).std() > 10
    assert viewed.camera is not None and viewed.camera.width == 128 and len(viewed.trajectory) == 12


@pytest.mark.slow
def test_two_runs_are_drawn_from_one_pose(run, tmp_path, capsys):
    assert semslam("view", run.path, "--compare", run.path, "--png", tmp_path / "two.png") == 0
    two = cv2.imread(str(tmp_path / "two.png"))
    assert two.shape[1] > 2560
    picture = two[100:900, 25:1305]
    np.testing.assert_array_equal(picture, two[100:900, 25 + 1292 : 1305 + 1292])  # 1280 pixels and a gap
    assert picture.std() > 20
    line = refused(capsys, "view", run.path, "--compare", run.path, "--html", tmp_path / "x.html")
    assert "--compare goes with the window or with --png" in line


@pytest.mark.slow
def test_films_go_round_the_map_or_along_the_path(run, tmp_path, capsys):
    assert semslam("view", run.path, "--video", tmp_path / "path.mp4", "--along", "path") == 0
    film = cv2.VideoCapture(str(tmp_path / "path.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 12  # one a recorded frame
    assert film.read()[1].std() > 20
    line = refused(capsys, "view", run.path, "--video", tmp_path / "x.mp4", "--along", "river")
    assert "orbit or the path, not along 'river'" in line


def test_a_film_ends_at_once_where_the_disk_is_full(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    line = refused(
        capsys, "view", run.path, "--video", tmp_path / "path.mp4", "--along", "path", code=cli.MACHINE_FAILED
    )
    assert "path.mp4: No space left on device" in line
    assert list(tmp_path.iterdir()) == []


def test_without_a_display_view_names_what_it_can_write(run, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    line = refused(capsys, "view", run.path)
    assert "no display" in line and "--png" in line


def test_show_without_a_display_is_one_line_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    arguments = ["--out", tmp_path / "a", "--labels", "none", "--no-mesh", "--show"]
    assert semslam("reconstruct", "room:frames=3,width=64,height=48", *arguments) == 0
    assert capsys.readouterr().err.splitlines() == ["--show: there is no display; going on without a window"]


def test_the_live_view_follows_the_growing_map_and_leaves_the_run_alone(run, tmp_path, monkeypatch):
    """Off-screen; the map that comes out is that of a run without a window."""
    making = prepare(settings_of(None, {"sequence": ROOM, "slam.perception.labels": "truth"}), tmp_path / "live")
    monkeypatch.setattr("semslam.looking.live.SHARE", 1.0)  # of the time: a newer map after every step
    lines: list[str] = []
    try:
        live = LiveView(making, lines.append, visible=False, width=160, height=120)
    except RuntimeError as error:
        pytest.skip(str(error))
    shown = []
    for _ in making:
        live()
        shown.append(len(live.window.viewed.cloud))
    assert shown[-1] > shown[0] > 0 and len(set(shown)) > 6  # surfels go, too
    assert live.window.switches.coloring == "label" and len(live.window.viewed.trajectory) > 1
    live.window.press("Q")
    live()
    assert live.window is None and lines[-1] == "the window is closed, the reconstruction goes on"
    live()
    live.stay()
    assert finish(making, mesh=False)["surfels"] == run.load_metrics()["surfels"]
    assert RunFolder.open(tmp_path / "live").map.read_bytes() == run.map.read_bytes()
