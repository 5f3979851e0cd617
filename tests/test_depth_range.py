"""The depth that is used fits the scene, unless it is set; how much of it that is stands in the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_networks import KnowingNetwork
from variants import one_fast

from semslam.doctor.depth import edges
from semslam.doctor.depth.range import with_range, without_cut_off
from semslam.doctor.depth.readings import cut_off
from semslam.doctor.doctor import diagnose
from semslam.engine.fusion import USUAL_RANGE, Fusion, FusionConfig
from semslam.frame import Frame
from semslam.judging.run import depth_limits, judged_recording
from semslam.perception import PerceptionConfig
from semslam.poses import from_rotation_translation
from semslam.runs.config import RunConfig
from semslam.runs.finished.finish import finish
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.finished.sources import sources_of
from semslam.runs.progress import Progress
from semslam.runs.reconstruct import prepare
from semslam.slam import SlamConfig
from sequences import open_sequence
from sequences.recordings.folder import write_folder
from sequences.room.kinect_noise import kinect_noise
from sequences.room.room import RoomSequence
from sequences.sequence import DerivedSequence


class Scaled(DerivedSequence):
    """The room, so many times as large."""

    def __init__(self, factor: float, frames: int = 8, **options) -> None:
        room = RoomSequence(frames=frames, width=80, height=60, **options)
        super().__init__(room)
        self.factor = factor
        stretch = np.diag([factor, factor, factor, 1.0])
        self.poses = tuple(stretch @ T @ np.linalg.inv(stretch) for T in room.poses)

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, depth=(frame.depth * self.factor).astype(np.float32), T_world_camera=self.poses[index])

    def depth_of(self, index: int) -> np.ndarray:
        return self[index].depth


@pytest.mark.parametrize("noise", [None, kinect_noise])
def test_rooms_have_the_usual_range(noise):
    chosen = with_range(FusionConfig(), Scaled(1.0, noise=noise))
    assert chosen.range == USUAL_RANGE == FusionConfig().range
    assert (Fusion(RoomSequence(1).camera).config.range) == USUAL_RANGE


@pytest.mark.parametrize("name", ["redkitchen", "icl_livingroom1", "nyuv2_cafe", "realsense_office"])
def test_real_recordings_of_rooms_have_the_usual_range(shared_data, name):
    assert with_range(FusionConfig(), open_sequence(shared_data / name)).range == USUAL_RANGE


@pytest.mark.parametrize("factor", [0.1, 3.0, 8.0])
def test_small_and_large_scenes_are_in_the_range_that_is_chosen(factor):
    scene = Scaled(factor)
    near, far = with_range(FusionConfig(), scene).range
    depth = np.concatenate([frame.depth[frame.depth > 0] for frame in scene])
    assert np.mean((depth > near) & (depth < far)) > 0.97
    assert near <= 0.3 and far >= 5.0


def test_what_is_set_stays():
    assert with_range(FusionConfig(near=0.5, far=4.0), Scaled(8.0)).range == (0.5, 4.0)
    near, far = with_range(FusionConfig(far=9.0), Scaled(8.0)).range
    assert (near, far) == (0.3, 9.0)
    with pytest.raises(ValueError, match=r"near` is 4\.0 and `far` 2\.0"):
        FusionConfig(near=4.0, far=2.0)


def reconstructed(scene: Scaled, out: Path, **settings) -> dict:
    folder = write_folder(scene, out / "recording", depth_scale=10000.0 if scene.factor < 1 else 1000.0)
    config = RunConfig(str(folder))
    config = replace(config, slam=replace(config.slam, perception=replace(config.slam.perception, labels="truth")))
    config = replace(config, slam=replace(config.slam, fusion=FusionConfig(**settings)))
    run = prepare(config, out / "run")
    for _ in run:
        pass
    return finish(run, mesh=False)


@pytest.mark.slow
@pytest.mark.parametrize("factor", one_fast(8.0, 0.1))
def test_a_scene_of_another_size_becomes_a_map(tmp_path, factor):
    usual = reconstructed(Scaled(1.0), tmp_path / "usual")
    other = reconstructed(Scaled(factor), tmp_path / "other")
    assert other["frames_fused"] == 8 and other["depth_used"] > 0.97
    assert other["surfels"] > (0.2 if factor < 1 else 0.8) * usual["surfels"], (
        "2 mm apart at least, however small it is"
    )


def test_who_comes_back_to_a_run_uses_the_depth_that_it_used(tmp_path):
    """A hall's walls are beyond the usual 5 m: who finds, labels or judges by nearer depth alone sees none of them."""
    used = reconstructed(Scaled(8.0), tmp_path)["depth_range_m"]
    assert used[1] > 20
    finished = FinishedMap(tmp_path / "run")
    assert list(finished.progress.with_found(finished.config.slam).fusion.range) == used
    assert list(sources_of(finished.folder)[-1].fusion.range) == used
    recording = judged_recording(finished.folder.open_sequence(), finished.config, finished.progress)
    assert list(depth_limits(finished.config, recording)) == used
    predicted = replace(finished.config.slam.perception, depth="predicted")
    by_network = replace(finished.config, slam=replace(finished.config.slam, perception=predicted))
    assert list(depth_limits(by_network, recording)) == used, "they are held against the same surface"


def test_depth_that_is_not_used_is_told(tmp_path, caplog):
    metrics = reconstructed(Scaled(1.0), tmp_path, near=0.3, far=2.4)
    depth = np.concatenate([frame.depth[::4, ::4].ravel() for frame in Scaled(1.0)])
    depth = depth[depth > 0]
    assert metrics["depth_used"] == pytest.approx(np.mean((depth >= 0.3) & (depth <= 2.4)), abs=0.01)
    assert metrics["depth_range_m"] == [0.3, 2.4]
    assert "of the depth readings lie between 0.3 and 2.4 m and were used" in caplog.text


def test_classes_of_rooms_on_a_drive_are_told(tmp_path, caplog):
    scene = Scaled(1.0)
    scene.poses = tuple(T @ from_rotation_translation(np.eye(3), [0, 0, i / 3]) for i, T in enumerate(scene.poses))
    perception = PerceptionConfig(depth="predicted", labels="predicted")
    config = RunConfig(sequence="scaled", poses="dataset", slam=SlamConfig(perception))
    network = KnowingNetwork(scene, "nyu13")
    prepare(config, tmp_path / "run", sequence=scene, network=network)
    assert "m/s, as on a street, and the classes nyu13 are of rooms" in caplog.text


@pytest.mark.parametrize(
    ("factor", "classes", "told"),
    [
        (8.0, "nyu13", "as on a street, and the classes nyu13 are of rooms"),
        (1.0, "nyu13", ""),
        (1.0, "kitti6", "are of streets"),
    ],
)
def test_classes_of_another_place_than_the_depth_camera_sees_are_told(tmp_path, caplog, factor, classes, told):
    scene = Scaled(factor)
    perception = PerceptionConfig(labels="predicted", classes=classes)
    config = RunConfig(sequence="scaled", poses="dataset", slam=SlamConfig(perception))
    prepare(config, tmp_path / "run", sequence=scene, network=KnowingNetwork(scene, classes))
    assert ("the classes" in caplog.text) == bool(told) and told in caplog.text


class CutOff(DerivedSequence):
    """The room by a sensor that writes all that lies farther as the end of its range."""

    def __init__(self, end: float, **options) -> None:
        super().__init__(RoomSequence(frames=60, width=160, height=120, noise=kinect_noise, **options))
        self.end = np.float32(end)

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, depth=np.minimum(frame.depth, self.end))

    def depth_of(self, index: int) -> np.ndarray:
        return self[index].depth


def test_readings_that_stand_for_all_that_is_farther_are_told_and_left_out_and_are_no_edges():
    cut, sound = CutOff(2.5), CutOff(100)
    (finding,) = cut_off([cut.depth_of(i) for i in range(0, 60, 8)])
    assert finding.level == "warning" and "2.500 m, the largest" in finding.what
    near, far = with_range(FusionConfig(), cut).range
    assert near == USUAL_RANGE[0] and 2.49 < far < 2.5
    assert with_range(FusionConfig(far=3.0, near=0.3), cut).range == (0.3, 3.0)
    assert not edges.seen(cut).findings()
    assert not cut_off([sound.depth_of(i) for i in range(0, 60, 8)])
    assert with_range(FusionConfig(), sound).range == USUAL_RANGE


def test_where_depth_is_cut_off_there_is_none_and_all_else_is_judged_without_it():
    cut = CutOff(2.5)
    nearer, (finding,) = without_cut_off(cut)
    config = RunConfig(pose_convention="as-recorded", reject_poses=False)
    assert judged_recording(cut, config, Progress()).depth_of(0).max() == nearer.depth_of(0).max()
    depth = nearer.depth_of(0)
    np.testing.assert_array_equal(depth, np.where(cut[0].depth < 2.5, cut[0].depth, 0))
    np.testing.assert_array_equal(nearer[0].depth, depth)
    assert with_range(FusionConfig(), nearer).range == with_range(FusionConfig(), cut).range
    assert finding.level == "warning" and [found.level for found in diagnose(cut)] == ["warning"]


def test_a_hand_that_is_before_the_camera_for_a_while_is_not_mapped():
    class Hand(DerivedSequence):
        def depth_of(self, index: int) -> np.ndarray:
            depth = self.whole.depth_of(index)
            return np.full_like(depth, 0.09) if index % 4 == 0 else depth

    room = RoomSequence(frames=24, width=80, height=60)
    assert with_range(FusionConfig(), Hand(room)).range[0] == USUAL_RANGE[0]


def test_an_exact_wall_is_not_where_depth_is_cut_off():
    wall = np.full((60, 80), 2, np.float32)
    wall[20:40, 30:50] = 1.2
    assert cut_off([wall] * 8) == []
