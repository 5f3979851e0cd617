"""Loops closed: drift seen, spread over a pose graph of keyframes, and map and poses moved along with it.

Each new keyframe is registered directly against a few earlier ones: those that see the same surfaces by what is
believed of their poses, spread over the time that has passed (local closures), and one that looks alike although it
should see something else (global closure). Registering keyframe to keyframe, not to the map, measures the drift that
the map has swallowed. What is measured are edges of a pose graph. Where its best solution has moved away from the
present poses, the map is deformed: every surfel moves rigidly with the camera of the frame that made it, whose
correction is interpolated between the keyframes before and after.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.engine.chunks import MARKED
from semslam.engine.doubles import doubles
from semslam.engine.fusion import Fusion
from semslam.engine.surfels import SurfelMap
from semslam.frame import Observation, Tracking
from semslam.loops import loop_kernels
from semslam.loops.closures import Closures
from semslam.loops.long_graphs import bounded_poses
from semslam.loops.meetings import Meeting, Meetings
from semslam.loops.pose_graph import Edge, cost, disagreement, squared_errors
from semslam.loops.settings import LoopConfig
from semslam.stage import Stage
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Correction

logger = logging.getLogger(__name__)
f32 = np.float32
UNKNOWN = 100.0  # metres and radians: what is known of the way between sub-maps that have not met
MOST_STRAY = 0.5  # of what surfels may lie outside of their cubes, by corrections; fusion moves them, too
CHECKED = 1000  # edges, the newest ones, by which a solution is judged


def deform(surfels: SurfelMap, correction: Correction) -> float:
    """Move every surfel with the frame that made it; returns how many metres the farthest went."""
    if len(surfels) == 0:
        return 0.0
    spans = [(int(made.min()), int(made.max())) for part in surfels.parts() if (made := surfels.seen[part, 0]).size]
    first = min(0, *(low for low, _ in spans))  # below 0 in a map that another run began
    last = max(high for _, high in spans)
    table = correction.at(np.arange(first, last + 1))[:, :3].astype(f32)
    farthest = 0.0
    for slots in surfels.parts():
        moved = np.empty(len(slots), f32)
        loop_kernels.deform(slots, surfels.position, surfels.normal, surfels.seen, first, table, moved)
        farthest = max(farthest, float(moved.max(initial=0)))
    return farthest


class LoopCloser(Stage):
    """Watches a tracker's keyframes for loops, and closes them. Call it after every fused frame."""

    def __init__(self, tracker: Tracker, config: LoopConfig | None = None) -> None:
        self.tracker = tracker
        self.config = config or LoopConfig()
        self.edges: list[Edge] = []
        self.closures = Closures(tracker, self.config)
        self.meetings = Meetings(tracker)
        self.closed = 0  # times that the map was deformed
        self._stray = 0.0  # metres that surfels may be outside of their cubes of space

    def __call__(
        self, observation: Observation, tracking: Tracking, surfels: SurfelMap, fusion: Fusion
    ) -> Correction | None:
        """Look for loops if the frame became a keyframe, and deform the map where one was closed.

        The caller tells all stages of the returned correction, and applies it to the poses that it keeps.
        """
        keyframes = self.tracker.keyframes
        if not tracking.ok or len(keyframes) == len(self.closures):
            return None
        k = len(keyframes) - 1
        self.closures.remember(observation, fusion.config.range[1])
        if k == 0:
            return None
        self.edges += self._way(k)
        old = np.stack(keyframes.T_world_camera)
        closures = self.closures.edges_to(k)
        joined = self.meetings.met(k, observation, surfels, fusion) if self.tracker.submaps.apart else None
        new = (
            self._agreed(old, closures, observation.frame.number)
            if joined is None
            else self._joined(old, joined, closures)
        )
        if new is None:
            return None
        self.closed += 1
        correction = Correction.between(keyframes.indices, old, new, self.tracker.submaps.starts)
        self._deform(correction, surfels, fusion, joined)
        return correction if joined is None else replace(correction, joined=(joined.gone, joined.into))

    def _way(self, k: int) -> list[Edge]:
        """Edges to keyframe k from the one before; where another sub-map begins with k, nearly none, and one from the
        nearest keyframe that k's has already."""
        keyframes, tracker = self.tracker.keyframes, self.tracker
        T = keyframes.T_world_camera
        way = poses.inverse(T[k - 1]) @ T[k]
        numbers = [tracker.submaps.of(index) for index in keyframes.indices[: k + 1]]
        if numbers[k] == numbers[k - 1]:
            return [Edge(k - 1, k, way, self._way_information(way))]
        edges = [Edge(k - 1, k, way, np.eye(6) / UNKNOWN**2)]
        same = [i for i in range(k - 1) if numbers[i] == numbers[k]]
        if same:
            a = min(same, key=lambda i: float(np.linalg.norm(T[i][:3, 3] - T[k][:3, 3])))
            back = poses.inverse(T[a]) @ T[k]
            edges.append(Edge(a, k, back, self._way_information(back), closure=True))
        return edges

    def _joined(self, old: np.ndarray, joined: Meeting, closures: list[Edge]) -> np.ndarray:
        """Keyframe poses (N, 4, 4) with a sub-map moved to where it has met another, and all of them agreed."""
        tracker = self.tracker
        numbers = np.array([tracker.submaps.of(index) for index in tracker.keyframes.indices])
        moved = np.array(old)
        moved[numbers == joined.gone] = joined.T_into_gone @ old[numbers == joined.gone]
        met = [
            Edge(a, k, T, np.linalg.inv(covariance + np.eye(6) * self.config.closure_floor**2), closure=True)
            for a, k, T, covariance in joined.found
        ]
        # what was hardly known between sub-maps is now where they have met
        self.edges = [
            edge
            if edge.information[0, 0] > 1 / UNKNOWN
            else replace(edge, T_i_j=poses.inverse(moved[edge.i]) @ moved[edge.j])
            for edge in self.edges
        ]
        self.edges += [*closures, *met]
        logger.info("sub-map %d has met sub-map %d", joined.gone, joined.into)
        return bounded_poses(moved, self.edges, met, self.config.robust)

    def _agreed(self, old: np.ndarray, closures: list[Edge], number: int) -> np.ndarray | None:
        """Keyframe poses (N, 4, 4) that agree with new closures, too; None where the old ones are good enough.

        A closure that the rest of the graph contradicts, even where the poses agree best, is forgotten, and so are all
        of them where no agreement costs less than leaving the poses as they are.
        """
        c, before = self.config, list(self.edges)
        if not closures or _below(0.5, *disagreement(old, closures), c):
            self.edges += closures
            return None
        while closures:
            self.edges = [*before, *closures]
            new = bounded_poses(old, self.edges, closures, c.robust)
            keeps = squared_errors(new, closures) <= c.robust**2
            if keeps.all():
                break
            logger.info("frame %d: %d of %d closures contradict the others", number, (~keeps).sum(), len(keeps))
            closures = [closure for closure, keep in zip(closures, keeps) if keep]
        checked = self.edges[-CHECKED:]
        if not closures or cost(new, checked, c.robust) > cost(old, checked, c.robust):
            logger.info("frame %d: no loop is closed, the poses that it asks for fit worse than those that are", number)
            self.edges = before
            return None
        metres, radians = _largest(poses.inverse(old) @ new)
        if _below(1.0, metres, radians, c):
            return None
        logger.info("frame %d: the map is deformed by %.3f m, %.2f degrees", number, metres, np.degrees(radians))
        return new

    def _deform(self, correction: Correction, surfels: SurfelMap, fusion: Fusion, joined: Meeting | None) -> None:
        """Move the surfels, and sort them into their cubes of space again where they have gone too far from them; of
        sub-maps that have met, leave each surface once."""
        self._stray += deform(surfels, correction)
        far = self._stray > MOST_STRAY * surfels.margin or joined is not None
        if far:
            if joined is not None:
                self._unite(surfels, joined)
            surfels.compact_all()
            surfels.sort_again()
            self._stray = 0.0
        fusion.invalidate(slots_moved=far)

    def _unite(self, surfels: SurfelMap, joined: Meeting) -> None:
        """Mark the surfels of the younger sub-map for removal whose surface the older one has, too."""
        found: dict[int, list[tuple[np.ndarray, ...]]] = {joined.gone: [], joined.into: []}
        for part in surfels.parts():
            part = part[surfels.are_living(part)]
            frames, which = np.unique(surfels.seen[part, 0], return_inverse=True)
            number = np.array([self.tracker.submaps.of(int(index)) for index in frames], np.int64)[which]
            for submap, rows in found.items():
                slots = part[number == submap]
                rows.append((slots, surfels.position[slots], surfels.normal[slots]))
        (gone, *ours), (_, *theirs) = ([np.concatenate(column) for column in zip(*rows)] for rows in found.values())
        pairs = doubles((ours[0], ours[1]), (theirs[0], theirs[1]))
        surfels.color[gone[pairs[:, 0]], 3] = MARKED

    def _way_information(self, way: np.ndarray) -> np.ndarray:
        c = self.config
        metres = c.way_floor + c.way_std * np.linalg.norm(way[:3, 3])
        radians = c.way_floor + c.way_std * poses.rotation_angle(way)
        return np.diag([1 / metres**2] * 3 + [1 / radians**2] * 3)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later, besides the tracker's state; for `restore`."""
        return {
            "ends": np.array([(e.i, e.j) for e in self.edges], np.int64).reshape(-1, 2),
            "motions": np.array([e.T_i_j for e in self.edges]).reshape(-1, 4, 4),
            "information": np.array([e.information for e in self.edges]).reshape(-1, 6, 6),
            "closures": np.array([e.closure for e in self.edges], bool),
            "closed": np.array(self.closed),
            **self.meetings.state(),
            "stray": np.array(self._stray),
            **self.closures.state(),
        }

    def go_on_from_keyframes(self) -> None:
        """Begin with the tracker's keyframes, of which nothing but their poses is known, and these well."""
        T = self.tracker.keyframes.T_world_camera
        self.closures.forget(len(T))
        for k in range(1, len(T)):
            way = poses.inverse(T[k - 1]) @ T[k]
            self.edges.append(Edge(k - 1, k, way, self._way_information(way)))

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        rows = zip(state["ends"], state["motions"], state["information"], state["closures"])
        self.edges = [Edge(int(i), int(j), T, information, bool(closure)) for (i, j), T, information, closure in rows]
        self.meetings.restore(state)
        self.closed, self._stray = int(state["closed"]), float(state["stray"])
        self.closures.restore(state)


def _largest(T: np.ndarray) -> tuple[float, float]:
    """The longest way, metres, and the widest turn, radians, of transforms (N, 4, 4)."""
    turns = Rotation.from_matrix(T[:, :3, :3]).magnitude()
    return float(np.linalg.norm(T[:, :3, 3], axis=1).max()), float(turns.max())


def _below(share: float, metres: float, radians: float, c: LoopConfig) -> bool:
    """Whether a motion is less than a share of what is worth a correction."""
    return metres < share * c.min_shift and np.degrees(radians) < share * c.min_turn_deg
