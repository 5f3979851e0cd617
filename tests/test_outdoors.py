"""A street: depth to 80 m, wide frames, six classes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from command_line import semslam
from street import Street
from stub_networks import KnowingNetwork

from networks.joint import checkpoints
from networks.joint.network import JointNetwork
from semslam.engine.chunks import CHUNK
from semslam.engine.saved_surfels import restored, state_of
from semslam.images import read_color
from semslam.images.labels import read_labels
from semslam.labels import LABEL_SETS
from semslam.perception import PerceptionConfig
from semslam.runs.color_only.following import tracked_camera
from semslam.runs.config import RunConfig
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.slam import SlamConfig

TRUTH = RunConfig(
    sequence="street", poses="dataset", slam=SlamConfig(PerceptionConfig(labels="truth", classes="kitti6"))
)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def street() -> Street:
    return Street()


@pytest.fixture(scope="module")
def mapped(street, tmp_path_factory):
    run = prepare(TRUTH, tmp_path_factory.mktemp("street") / "run", sequence=street)
    assert all(step.fused for step in run)
    return run


def test_the_range_reaches_as_far_as_the_street(mapped):
    near, far = mapped.slam.fusion.config.range
    assert near <= 2.0 and 60 <= far <= 100, "chosen from the readings, not from a room's 5 m"


def test_cubes_grow_with_the_range_so_that_memory_goes_into_surfels(mapped):
    surfels = mapped.slam.surfels
    assert surfels.block > 1.0 and len(surfels) > 0.2 * CHUNK * surfels.n_chunks
    again = restored(state_of(surfels), mapped.config.slam.map)
    assert again.block == surfels.block, "a run that goes on has the same cubes"


def test_surfels_lie_on_the_surfaces_of_the_street(mapped, street):
    cloud = mapped.slam.cloud(min_confidence=1.5)
    off = street.distance(cloud.positions.astype(np.float64))
    assert np.percentile(off, 90) < 0.05 and cloud.positions[:, 2].max() > 60


def test_six_classes_are_where_they_belong(mapped):
    cloud = mapped.slam.cloud(min_confidence=1.5)
    road = LABEL_SETS["kitti6"].id_of("road")
    found = cloud.class_probabilities.argmax(axis=1) == road
    assert np.mean(found == (cloud.positions[:, 1] > 1.6)) > 0.97


def test_a_walk_is_tracked_meshed_and_pictured(tmp_path):
    config, walk = replace(TRUTH, poses="tracked"), Street(frames=20, speed=1.5)
    run = prepare(config, tmp_path / "run", sequence=walk)
    list(run)
    metrics = finish(run)
    assert metrics["frames_lost"] == 0 and (tmp_path / "run" / "preview.png").stat().st_size > 20_000
    assert (tmp_path / "run" / "mesh.ply").stat().st_size > 100_000
    T = np.array(run.progress.poses)
    truth = np.array(walk.poses)
    assert np.linalg.norm(T[:, :3, 3] - truth[:, :3, 3], axis=1).max() < 0.15


def test_a_drive_at_eight_metres_a_second_is_tracked(tmp_path):
    """80 cm a frame from the first one on, along a road and walls that fit wherever the camera is."""
    perception = replace(TRUTH.slam.perception, labels="none", width=600)
    drive = Street(frames=8, speed=8.0)
    config = replace(TRUTH, poses="tracked", slam=replace(TRUTH.slam, perception=perception))
    run = prepare(config, tmp_path / "run", sequence=drive)
    assert all(step.tracking.state == "good" for step in run)
    off = np.linalg.norm(np.array(run.progress.poses)[:, :3, 3] - np.array(drive.poses)[:, :3, 3], axis=1)
    assert off.max() < 0.1


def test_predicted_depth_of_a_street_is_used_as_far_as_it_reaches(street, tmp_path):
    """A network of KITTI's classes tells depth to 80 m; a room's range would leave most of it out."""
    perception = PerceptionConfig(depth="predicted", labels="predicted", classes="kitti6")
    config = replace(TRUTH, slam=replace(TRUTH.slam, perception=perception))
    frames = [replace(frame, labels=np.where(frame.labels == 255, 0, frame.labels)) for frame in street]
    network = KnowingNetwork(street, "kitti6")
    tracked = tracked_camera(street.camera)  # the given poses are compared with images of this size
    network.frames = {frame.color.tobytes(): frame for frame in frames}
    for frame in frames:
        small = cv2.resize(frame.color, (tracked.width, tracked.height), interpolation=cv2.INTER_AREA)
        network.frames[small.tobytes()] = frame
    run = prepare(config, tmp_path / "run", sequence=street, network=network)
    assert run.slam.fusion.config.range[1] > 60


def test_46_classes_go_through_predicting_mapping_and_evaluating(shared_data, tmp_path):
    """Real frames of KITTI, and a network of NYU's 40 and KITTI's 6 classes that has learned neither."""
    weights = tmp_path / "both.safetensors"
    checkpoints.save(weights, JointNetwork(46))
    given = ["--weights", weights, "--classes", "kitti6"]
    image = next((shared_data / "samples" / "kitti" / "metric3d_demo" / "rgb").glob("*.png"))
    assert semslam("predict", image, *given, "--out", tmp_path / "images") == 0
    labels = read_labels(next((tmp_path / "images").glob("*_labels.png")), "kitti6")
    assert labels.shape == read_color(image).shape[:2] and labels.max() < 6
    street, run = shared_data / "samples" / "kitti_odometry06", tmp_path / "run"
    words = ["--frames", 3, "--depth", "predicted", "--poses", "dataset", "--corrections", "none", "--no-mesh"]
    assert semslam("reconstruct", street, *given, *words, "--out", run) == 0
    cloud, label_set = RunFolder.open(run).load_cloud()
    assert label_set.name == "kitti6" and cloud.class_probabilities.shape[1] == 6
    assert semslam("evaluate", run) == 0
    metrics = RunFolder.open(run).load_metrics()
    assert metrics["ate_m"] == pytest.approx(0, abs=1e-6) and metrics["frames"] == 3
