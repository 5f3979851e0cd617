"""Sequences that are made from another one: what they do not change is that one's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sequences.rebased import RebasedSequence
from sequences.room.room import RoomSequence
from sequences.selected import SelectedSequence
from sequences.sequence import DerivedSequence, Sequence

COMPUTED = {"trajectory", "has_labels", "has_poses", "numbers", "try_read"}  # from what is told


def test_all_that_a_sequence_tells_is_told_by_one_that_is_made_from_it():
    """What is added to `Sequence` must not end at the first sequence that is made from another one."""
    tells = {name for name in {*vars(Sequence), *Sequence.__annotations__} if not name.startswith("_")}
    assert tells - COMPUTED <= {*vars(DerivedSequence), *Sequence.__annotations__}
    room = RoomSequence(frames=4, width=32, height=24)
    room.ahead, room.decoders, room.packed_in, room.readout = 3, 5, (Path("a.bag"),), 0.02
    moved = RebasedSequence(room, room.poses, np.array([1.0, 2, 3]))
    part = SelectedSequence(moved, np.array([1, 3]))
    assert (part.ahead, part.decoders, part.packed_in, part.readout) == (3, 5, (Path("a.bag"),), 0.02)
    np.testing.assert_array_equal(part.world_origin, [1, 2, 3])


def test_frames_are_changed_by_one_after_the_other():
    room = RoomSequence(frames=4, width=32, height=24)
    part = SelectedSequence(RebasedSequence(room, room.poses, np.array([1.0, 2, 3])), np.array([1, 3]))
    frame, recorded = part[1], room[3]
    assert frame.index == 1 and frame.number == part.number_of(1) == 3
    np.testing.assert_array_equal(frame.color, recorded.color)
    np.testing.assert_array_equal(part.depth_of(1), recorded.depth)
    np.testing.assert_allclose(frame.T_world_camera[:3, 3], recorded.T_world_camera[:3, 3] - [1, 2, 3])
