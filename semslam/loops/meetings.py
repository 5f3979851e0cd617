"""Sub-maps that meet: a keyframe of one is found in another, twice, at the same place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.engine.fusion import Fusion
from semslam.engine.surfels import SurfelMap
from semslam.frame import Observation
from semslam.stage import Stage
from semslam.tracking.relocalisation.places import described
from semslam.tracking.tracker import Tracker

AGREE = (0.05, np.radians(2.0))  # metres and radians between where two keyframes meet the other sub-map, at most


class Sight(NamedTuple):
    """Keyframe k as keyframe a of another sub-map sees it."""

    a: int
    k: int
    T_a_k: np.ndarray  # (4, 4)
    covariance: np.ndarray  # (6, 6) of that motion


class Once(NamedTuple):
    """What was found of another sub-map once, and has to be found again."""

    other: int
    T_other_present: np.ndarray  # (4, 4)
    sight: Sight


@dataclass(frozen=True, eq=False)
class Meeting:
    """Two sub-maps are one."""

    gone: int  # the younger one, which becomes part of ...
    into: int  # ... this one
    T_into_gone: np.ndarray  # (4, 4)
    found: tuple[Sight, ...]  # keyframes of the present sub-map as keyframes of the other see them


class Meetings(Stage):
    """Looks for the keyframes of one sub-map in the others. Two of them have to meet the other at the same place."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._first: Once | None = None

    def met(self, k: int, observation: Observation, surfels: SurfelMap, fusion: Fusion) -> Meeting | None:
        """Whether keyframe k, just observed, completes a meeting of its sub-map with another."""
        tracker = self.tracker
        keyframes, present = tracker.keyframes, tracker.submaps.of(tracker.keyframes.indices[k])
        others = [p for p, index in enumerate(tracker.places.indices) if tracker.submaps.of(index) != present]
        if not others or observation.color.mean() < tracker.config.black:
            return None
        T_k = keyframes.T_world_camera[k]
        for found in tracker.places.candidates(described(observation.color, observation.camera), among=others):
            measured = tracker.settled(observation, partial(fusion.predict, surfels), found.T_world_camera)
            if measured is None:
                continue
            T = measured.T_world_camera
            distances = np.linalg.norm(np.stack(keyframes.T_world_camera)[:, :3, 3] - T[:3, 3], axis=1)
            numbers = np.array([tracker.submaps.of(index) for index in keyframes.indices])
            distances[numbers == present] = np.inf
            a = int(distances.argmin())
            sight = Sight(a, k, poses.inverse(keyframes.T_world_camera[a]) @ T, measured.covariance)
            other, join = int(numbers[a]), T @ poses.inverse(T_k)
            first, self._first = self._first, Once(other, join, sight)
            if first is None or first.other != other or first.sight.k == k:
                return None
            apart = poses.inverse(first.T_other_present @ T_k) @ T
            if np.linalg.norm(apart[:3, 3]) > AGREE[0] or poses.rotation_angle(apart) > AGREE[1]:
                return None
            self._first = None
            gone, into = max(present, other), min(present, other)
            T_into_gone = join if gone == present else poses.inverse(join)
            return Meeting(gone, into, T_into_gone, (first.sight, sight))
        return None

    def state(self) -> dict[str, np.ndarray]:
        """What was found once, as arrays."""
        if self._first is None:
            return {}
        other, join, (a, k, T, covariance) = self._first
        return {"met": np.array([other, a, k]), "met_join": join, "met_motion": T, "met_covariance": covariance}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._first = None
        if "met" in state:
            other, a, k = (int(n) for n in state["met"])
            self._first = Once(other, state["met_join"], Sight(a, k, state["met_motion"], state["met_covariance"]))
