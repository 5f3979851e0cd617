"""The loop itself: what a step holds, and that it counts frames, not their indices."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from stub_networks import KnowingNetwork

from semslam.camera import Camera
from semslam.frame import Frame, Tracking
from semslam.perception import Perception, PerceptionConfig
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.labels_ahead import LabelsAhead
from semslam.runs.reconstruct import prepare
from semslam.slam import Slam, SlamConfig
from sequences import open_sequence

ROOM = "room:frames=24,width=96,height=72"


@pytest.fixture(scope="module")
def room():
    return open_sequence(ROOM)


def test_a_border_that_leaves_nothing_and_more_classes_than_fit_are_refused():
    camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
    Perception(PerceptionConfig(labels="none", border=23), camera)
    with pytest.raises(ValueError, match="border` is 24 pixels, which leaves nothing of images of 64x48"):
        Perception(PerceptionConfig(labels="none", border=24), camera)
    with pytest.raises(
        ValueError, match=r"classes` is nyu894, whose 894 classes are more than the 255 .* take nyu40, nyu13"
    ):
        PerceptionConfig(classes="nyu894")


def test_a_list_of_steps_holds_each_frames_own_depth(room):
    slam = Slam(room.camera, SlamConfig(PerceptionConfig(labels="none")))
    steps = list(slam.run(room[i] for i in range(6)))
    for step in steps:
        np.testing.assert_array_equal(step.observation.depth, room[step.frame.index].depth)
    assert not np.array_equal(steps[0].observation.depth, steps[-1].observation.depth)


@pytest.mark.parametrize("stride", [1, 3, 10])
def test_labels_come_every_so_many_frames_whatever_their_indices(room, stride):
    perceive = Perception(PerceptionConfig(labels="truth", label_every=4), room.camera, room.label_set)
    frames = [replace(room[k], index=stride * k) for k in range(12)]
    labelled = [k for k, frame in enumerate(frames) if perceive(frame).class_probabilities is not None]
    assert labelled == [0, 4, 8]


def test_every_frame_of_a_map_of_every_tenth_frame_can_be_relabelled(tmp_path, room):
    """Which frames can be labelled afterwards is counted as the labelled frames are."""
    network = KnowingNetwork(room)
    settings = {"sequence": ROOM, "hold_out": 2, "slam.perception.label_every": 3}
    run = prepare(settings_of(None, settings), tmp_path / "run", network=network)
    for _ in run:
        pass
    assert run.progress.labelled == [0, 6, 12, 18]
    assert run.slam.associations.frames == run.progress.labelled


@pytest.mark.parametrize("every", [1, 3])
def test_a_network_that_looks_ahead_looks_at_the_labelled_frames_alone_and_once(tmp_path, room, every):
    class Counting(KnowingNetwork):
        def class_probabilities(self, image, size, mirrored=False):
            looked_at.append(self.frames[image.tobytes()].index)
            return super().class_probabilities(image, size, mirrored)

    looked_at: list[int] = []
    settings = {"sequence": ROOM, "hold_out": 4, "slam.perception.label_every": every}
    run = prepare(settings_of(None, settings), tmp_path / "run", network=Counting(room))
    for _ in run:
        pass
    assert sorted(looked_at) == run.progress.labelled and len(looked_at) == -(-18 // every)


def test_half_of_the_labelled_frames_are_mirrored_whenever_they_are_asked_for(tmp_path, room):
    class Noting(KnowingNetwork):
        def class_probabilities(self, image, size, mirrored=False):
            looked_at[self.frames[image.tobytes()].index] = mirrored
            return super().class_probabilities(image, size, mirrored)

    looked_at: dict[int, bool] = {}
    settings = {"sequence": ROOM, "slam.perception.label_every": 4}
    for _ in prepare(settings_of(None, settings), tmp_path / "run", network=Noting(room)):
        pass
    assert looked_at == {0: False, 4: True, 8: True, 12: False, 16: True, 20: False}
    perceive = Perception(PerceptionConfig(label_every=4), room.camera, None, Noting(room))
    looked_at.clear()
    for index in (12, 0):
        perceive.observe(room[index], True)
    assert looked_at == {12: False, 0: False}
    for left in (1, 2, 3, 4):  # of every so many frames one is held out
        numbers = [i for i in range(2000) if left == 1 or i % left != left - 1][::4]
        mirrored = [perceive.config.is_mirrored(i) for i in numbers]
        assert 0.4 < np.mean(mirrored) < 0.6


def test_labels_are_the_same_whether_a_frame_was_begun_or_not_and_few_frames_are_begun(room):
    class Counting(KnowingNetwork):
        def class_probabilities(self, image, size, mirrored=False):
            looked_at.append(self.frames[image.tobytes()].index)
            return super().class_probabilities(image, size, mirrored)

    looked_at: list[int] = []
    plain, ahead, frames, size = KnowingNetwork(room), LabelsAhead(Counting(room)), list(room), (16, 12)
    for frame in frames[:10]:
        ahead.begin(frame.index, frame.color, size)
    for frame in (frames[1], frames[7], frames[0]):
        expected = plain.class_probabilities(frame.color, size)
        np.testing.assert_array_equal(ahead.class_probabilities(frame.color, size), expected)
    assert looked_at == [0, 1, 7]  # the first two were begun, the others of the ten were not


def test_the_count_goes_on_after_a_break(tmp_path, room):
    settings = settings_of(None, {"sequence": ROOM, "hold_out": 4, "slam.perception.label_every": 3})
    network = KnowingNetwork(room)
    whole = prepare(settings, tmp_path / "whole", network=network)
    broken = prepare(settings, tmp_path / "broken", network=network)
    for _ in zip(range(8), broken):
        pass
    broken.save()
    broken = prepare(settings, tmp_path / "broken", network=network, resume=True)
    for run in (whole, broken):
        for _ in run:
            pass
    assert broken.progress.labelled == whole.progress.labelled == [0, 4, 8, 12, 16, 20]
    assert broken.slam.associations.frames == whole.slam.associations.frames


class Losing:
    """Tracking that loses some frames."""

    def __init__(self, lost: set[int]) -> None:
        self.lost = lost

    def __call__(self, observation, predict) -> Tracking:
        frame: Frame = observation.frame
        return Tracking(frame.T_world_camera, ok=frame.index not in self.lost, reason="lost for a test")


def test_lost_frames_have_no_line_in_the_trajectory_and_do_not_count_as_covered(tmp_path, room):
    run = prepare(settings_of(None, {"sequence": ROOM, "slam.perception.labels": "none"}), tmp_path / "run")
    lost = {0, 5, 6, 7, 23}
    run.slam.track = Losing(lost)
    for _ in run:
        pass
    metrics = finish(run, mesh=False)
    assert metrics["frames_lost"] == 5
    times = RunFolder.open(tmp_path / "run").load_trajectory().timestamps
    expected = [room[i].timestamp for i in range(24) if i not in lost]
    np.testing.assert_allclose(times, expected, atol=1e-6)

    from semslam.judging.foreign import evaluate_trajectory
    from semslam.judging.run import evaluate_run
    from semslam.trajectory.files import write_tum

    assert evaluate_run(tmp_path / "run").figures["coverage"] == pytest.approx(19 / 24)
    write_tum(tmp_path / "truth.txt", room.trajectory)
    figures = evaluate_trajectory(tmp_path / "run" / "trajectory.txt", tmp_path / "truth.txt", False).figures
    assert figures["coverage"] == pytest.approx(19 / 24)


@pytest.mark.slow
def test_after_a_rehearsal_a_frame_needs_no_more_compiled_code():
    """In a process of its own: in this one, other tests have loaded it."""
    code = """
import gc
from numba.core.dispatcher import Dispatcher
from semslam.runs.reconstruct import rehearse
from semslam.slam import Slam, SlamConfig
from semslam.perception import PerceptionConfig
from semslam.loops.loop_closure import LoopCloser
from semslam.tracking.tracker import Tracker
from sequences import open_sequence

def loaded():
    return sum(len(found.overloads) for found in gc.get_objects() if isinstance(found, Dispatcher))

room = open_sequence("room:frames=24,width=96,height=72")
frames = [room[i] for i in range(3)]  # drawing them takes compiled code, too
before = loaded()
rehearse()
rehearsed = loaded()
tracker = Tracker()
config = SlamConfig(PerceptionConfig(labels="truth"))
parts = {"track": tracker, "loops": LoopCloser(tracker), "places": tracker.places}
slam = Slam(room.camera, config, label_set=room.label_set, **parts)
for frame in frames:
    assert slam.step(frame).fused
print(before, rehearsed, loaded())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, rehearsed, after = map(int, found.stdout.split())
    assert before < rehearsed == after
