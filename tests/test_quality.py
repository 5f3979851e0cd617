"""The whole system against scenes whose truth is known: how far surfels are from it, and how much of it they cover."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from semslam.cloud import SurfelCloud
from semslam.labels import remap_labels
from semslam.perception import PerceptionConfig
from semslam.rendering.splatting import render
from semslam.slam import Slam, SlamConfig
from sequences import open_sequence
from sequences.sequence import Sequence

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Quality:
    distance: np.ndarray  # (N,) metres of each surfel from the room's mesh
    completeness: float  # share of what was seen, 1 cm
    doubled: float  # share of surfels within 2 mm of another of the same normal
    labels: float  # share of labelled surfels whose class is that of the nearest triangle


def reconstructed(sequence: Sequence, skip: int = 0) -> SurfelCloud:
    """The map of a sequence with its own poses and labels; every `skip`-th frame is left out."""
    config = SlamConfig(PerceptionConfig(labels="truth"))
    slam = Slam(sequence.camera, config, label_set=sequence.label_set)
    for i in range(len(sequence)):
        if not skip or i % skip != skip - 1:
            slam.step(sequence[i])
    return slam.cloud()


def world_points(sequence: Sequence, indices: range, every: int) -> np.ndarray:
    """Back-projected depth, world frame, of some frames; one point in `every`."""
    points = []
    for i in indices:
        frame = sequence[i]
        seen = (frame.depth > 0.3) & (frame.depth < 5)
        p = frame.camera.backproject(frame.depth)[seen][::every]
        points.append(p @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3])
    return np.concatenate(points)


def doubled(cloud: SurfelCloud) -> float:
    distance, neighbour = cKDTree(cloud.positions).query(cloud.positions, k=6)
    same = (distance < 0.002) & (np.einsum("ij,ikj->ik", cloud.normals, cloud.normals[neighbour]) > 0.8)
    return float(same[:, 1:].any(axis=1).mean())


def measured(noise: str) -> Quality:
    import open3d as o3d

    exact = open_sequence("room:frames=60")
    cloud = reconstructed(open_sequence(f"room:frames=60,noise={noise}"))
    vertices, triangles, classes = exact.mesh()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(vertices.astype(np.float32), triangles.astype(np.uint32))
    nearest = scene.compute_closest_points(cloud.positions)
    distance = np.linalg.norm(nearest["points"].numpy() - cloud.positions, axis=1)
    truth = remap_labels(classes[nearest["primitive_ids"].numpy()].astype(np.uint8), "nyu40", "nyu13")
    labels = cloud.labels()
    known = labels != 255
    gap, _ = cKDTree(cloud.positions).query(world_points(exact, range(0, 60, 10), 23))
    return Quality(distance, float((gap < 0.01).mean()), doubled(cloud), float((labels == truth)[known].mean()))


def test_without_noise_surfels_lie_on_the_room_and_cover_it():
    q = measured("none")
    assert q.distance.mean() < 0.002
    assert q.completeness > 0.99
    assert q.doubled < 0.05
    assert q.labels > 0.985


def test_with_kinect_noise_surfels_stay_near_and_in_one_layer():
    q = measured("kinect")
    assert q.distance.mean() < 0.005
    assert q.completeness > 0.99
    assert q.doubled < 0.05
    assert q.labels > 0.985


def test_the_living_room_is_within_four_millimetres_of_its_exact_depth(shared_data: Path):
    sequence = open_sequence(shared_data / "icl_livingroom1")
    cloud = reconstructed(sequence)
    distance, _ = cKDTree(world_points(sequence, range(0, len(sequence), 5), 3)).query(cloud.positions)
    assert distance.mean() < 0.004


def test_the_kitchen_predicts_the_sensor_in_frames_left_out(shared_data: Path):
    sequence = open_sequence(shared_data / "redkitchen")
    cloud = reconstructed(sequence, skip=10)
    errors, valid = [], 0
    for i in range(9, len(sequence), 10):
        frame = sequence[i]
        predicted = render(cloud, frame.camera, frame.T_world_camera, cull_back=False).depth
        measured = (frame.depth > 0.3) & (frame.depth < 5)
        errors.append(np.abs(predicted - frame.depth)[measured & np.isfinite(predicted)])
        valid += measured.sum()
    pooled = np.concatenate(errors)
    assert np.median(pooled) < 0.02
    assert len(pooled) / valid > 0.9
