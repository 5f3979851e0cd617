"""A recording whose poses are in coordinates far from 0, such as UTM."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import semslam

from semslam import poses
from semslam.engine.fusion import Fusion
from semslam.engine.surfels import SurfelMap
from semslam.frame import Observation
from semslam.geometry.export import read_map_ply, read_mesh_ply, write_map_ply
from semslam.geometry.files import read_surface
from semslam.geometry.ply import read_ply, write_ply
from semslam.judging.foreign import evaluate_map
from semslam.judging.references import scene_reference
from semslam.judging.run import evaluate_run
from semslam.labels import LABEL_SETS
from semslam.runs.config import RunConfig
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.trajectory.files import read_tum
from sequences import open_sequence
from sequences.rebased import RebasedSequence, near_origin
from sequences.recordings.folder import write_folder

UTM = np.array([500_000.0, 5_400_000.0, 300.0])
ROOM = "room:frames=12,width=160,height=120,noise=kinect"


class Elsewhere(RebasedSequence):
    """The same room, seen from a far origin."""

    def __init__(self) -> None:
        room = open_sequence(ROOM)
        super().__init__(room, room.poses or (), -UTM)
        self.world_origin = np.zeros(3)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    for name, sequence in (("near", open_sequence(ROOM)), ("far", Elsewhere())):
        write_folder(sequence, folder / name)
    return {name: folder / name for name in ("near", "far")}


@pytest.fixture(scope="module")
def runs(recordings, tmp_path_factory) -> dict[str, RunFolder]:
    out = tmp_path_factory.mktemp("runs")
    found = {}
    for name, recording in recordings.items():
        run = prepare(RunConfig(sequence=str(recording)), out / name)
        for _ in run:
            pass
        finish(run)
        found[name] = RunFolder.open(out / name)
    return found


@pytest.mark.slow
def test_a_far_world_gives_the_same_map_moved(runs):
    near, far = (read_ply(runs[name].map)[0] for name in ("near", "far"))
    assert near["x"].dtype == np.float32 and far["x"].dtype == np.float64
    assert len(near["x"]) == pytest.approx(len(far["x"]), rel=0.01)
    places = [np.column_stack([found[axis] for axis in "xyz"]) for found in (near, far)]
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(places[0]).query(places[1] - UTM)
    assert np.median(distance) < 1e-4 and np.quantile(distance, 0.99) < 2e-3


@pytest.mark.slow
def test_files_of_a_far_world_come_back_as_they_were(runs, tmp_path):
    cloud, labels = runs["far"].load_cloud()
    np.testing.assert_array_equal(cloud.world_origin, [500_000, 5_400_000, 300])
    assert np.abs(cloud.positions).max() < 110
    write_map_ply(tmp_path / "again.ply", cloud, labels)
    again = read_map_ply(tmp_path / "again.ply")
    np.testing.assert_allclose(again.positions, cloud.positions, atol=1e-6)
    np.testing.assert_array_equal(again.world_origin, cloud.world_origin)
    mesh = read_mesh_ply(runs["far"].mesh)
    np.testing.assert_array_equal(mesh.world_origin, cloud.world_origin)
    given = read_tum(runs["near"].trajectory).positions + UTM
    np.testing.assert_allclose(read_tum(runs["far"].trajectory).positions, given, atol=1e-6)
    np.testing.assert_allclose(runs["far"].load_trajectory().positions, given - cloud.world_origin, atol=1e-6)


@pytest.mark.slow
def test_exports_of_a_far_world_say_what_their_coordinates_are_relative_to(runs, tmp_path, capsys):
    tmp_path.joinpath("near").mkdir()
    (tmp_path / "near" / "world_origin.txt").write_text("of an older export")
    (tmp_path / "near" / "export.json").write_text("{}")
    for name in ("near", "far"):
        assert semslam("export", runs[name].path, "--out", tmp_path / name) == 0
        said = capsys.readouterr().out
        assert ("are relative to" in said) == (name == "far")
    assert not (tmp_path / "near" / "world_origin.txt").exists()
    origin = np.loadtxt(tmp_path / "far" / "world_origin.txt")
    np.testing.assert_array_equal(origin, [500_000, 5_400_000, 300])
    world = read_ply(tmp_path / "far" / "surfels.ply")[0]
    for file in ("surfels.pcd", "mesh.obj", "mesh.glb"):
        points, _ = read_surface(tmp_path / "far" / file)
        middle = np.array([np.median(world[axis]) for axis in "xyz"])
        assert np.abs(np.median(points + origin, axis=0) - middle).max() < 2, file
    rows = [
        list(csv.DictReader((tmp_path / name / "objects.csv").read_text().splitlines())) for name in ("near", "far")
    ]
    centres = [np.array([[float(row[f"center_{axis}"]) for axis in "xyz"] for row in of]) for of in rows]
    assert np.linalg.norm(np.median(centres[1], axis=0) - np.median(centres[0], axis=0) - UTM) < 1


@pytest.mark.slow
def test_a_far_world_is_judged_as_a_near_one(runs):
    near, far = (evaluate_run(runs[name].path).figures for name in ("near", "far"))
    for figure in ("ate_m", "accuracy_m", "completeness_m", "fscore_5cm", "layered"):
        assert far[figure] == pytest.approx(near[figure], rel=0.05, abs=1e-3), figure
    itself = evaluate_map(runs["far"].map, runs["far"].map).figures
    assert itself["accuracy_m"] < 1e-3 and itself["fscore_5cm"] == 1


def test_poses_of_a_far_file_find_their_origin_themselves(recordings, tmp_path):
    config = RunConfig(sequence=str(recordings["near"]), poses=str(recordings["far"] / "groundtruth.txt"), frames=3)
    run = prepare(config, tmp_path / "run")
    steps = list(run)
    np.testing.assert_array_equal(run.slam.surfels.world_origin, [500_000, 5_400_000, 300])
    assert all(step is not None and step.fused for step in steps)


def test_a_far_file_is_the_reference_of_a_map_whose_poses_a_far_file_told(tmp_path):
    """The recording has no poses of its own, which would say what the map is relative to."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]]) + UTM
    write_ply(tmp_path / "scan.ply", dict(zip("xyz", corners.T)), np.array([[0, 1, 2]], np.int32), [])
    recording = SimpleNamespace(
        has_poses=False, poses=None, world_origin=np.zeros(3), camera=open_sequence(ROOM).camera
    )
    reference = scene_reference(recording, str(tmp_path / "scan.ply"), world_origin=UTM)
    assert reference.distance(np.zeros((1, 3), np.float32))[0] < 0.1


def test_a_near_world_keeps_its_coordinates():
    room = open_sequence(ROOM)
    assert near_origin(room) is room and not room.world_origin.any()


def test_a_far_pose_does_not_reach_the_map_in_silence():
    frame = next(iter(Elsewhere()))
    fusion = Fusion(frame.camera)
    observation = fusion.prepare(Observation.of(frame))
    with pytest.raises(ValueError, match="5400 km from the origin"):
        fusion.fuse(SurfelMap(0), observation, frame.T_world_camera, 0)
    moved = poses.moved_by(frame.T_world_camera, -UTM)
    fusion.fuse(SurfelMap(len(LABEL_SETS["nyu13"])), observation, moved, 0)
