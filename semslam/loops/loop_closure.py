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
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.config import Count, NotNegative, Positive, Share, Turn, check_ranges
from semslam.engine.chunks import MARKED
from semslam.engine.doubles import doubles
from semslam.engine.fusion import MARGIN, Fusion, stride_for
from semslam.engine.surfels import SurfelMap
from semslam.frame import Observation, Tracking, evenly_spread
from semslam.loops import loop_kernels
from semslam.loops.long_graphs import bounded_poses
from semslam.loops.meetings import Meeting, Meetings
from semslam.loops.pose_graph import Edge, cost, disagreement, squared_errors
from semslam.loops.snapshot import DEPTH_UNIT, Snapshot
from semslam.stage import Stage
from semslam.tracking.registration.registrar import Registrar, Registration
from semslam.tracking.registration.settings import RegistrationConfig
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Correction

logger = logging.getLogger(__name__)
f32 = np.float32
UNKNOWN = 100.0  # metres and radians: what is known of the way between sub-maps that have not met
SAME = 0.3  # metres between depths that may be of one surface
MOST_STRAY = 0.5 * MARGIN  # metres that corrections may lead surfels out of their cubes; fusion moves them, too

COMPARED = 300  # keyframes, the nearest ones, with which a new one may have common surfaces
REMEMBERED = 400  # keyframes from which on one that sees what an older one saw is not kept to come back to
REDUNDANT = 0.7  # share of the older one's surface that it must see for that
CHECKED = 1000  # edges, the newest ones, by which a solution is judged


@dataclass(frozen=True)
class LoopConfig:
    """When a loop is seen, when the map is deformed, and how stiff the way between keyframes is."""

    closures: Count = 3  # keyframes: how many earlier ones a new one is registered against
    overlap: Share = 0.25  # share of the image in which two keyframes must see the same surface
    fitting: Share = 0.5  # share of that surface which must fit
    max_dissimilarity: NotNegative = 0.3  # dissimilarity of two keyframes, at most, for a global closure
    min_shift: NotNegative = 0.005  # metres: smaller corrections wait
    min_turn_deg: Turn = 0.25  # degrees: smaller corrections wait
    way_std: Positive = 0.01  # metres and radians: drift per metre, or per radian, between keyframes
    way_floor: Positive = 0.003  # metres and radians: drift between keyframes, at least
    closure_floor: Positive = 0.005  # metres and radians: error of a closure besides noise; the sensor distorts
    robust: Positive = 15.0  # standard deviations: from this residual on a closure loses its weight
    registration: RegistrationConfig = field(default_factory=lambda: RegistrationConfig(converged=3e-4))
    points: Count = 5_000  # points: of a keyframe, about, that are registered

    def __post_init__(self) -> None:
        check_ranges(self, "slam.loops")


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
        self.snapshots: list[Snapshot | None] = []  # one a keyframe, None where an older one shows the same
        self.meetings = Meetings(tracker)
        self.closed = 0  # times that the map was deformed
        self._camera: Camera | None = None  # half the size
        self._registrar: Registrar | None = None
        self._grids: list[np.ndarray | None] = []  # of the snapshots
        self._stray = 0.0  # metres that surfels may be outside of their cubes of space

    def __call__(
        self, observation: Observation, tracking: Tracking, surfels: SurfelMap, fusion: Fusion
    ) -> Correction | None:
        """Look for loops if the frame became a keyframe, and deform the map where one was closed.

        The caller tells all stages of the returned correction, and applies it to the poses that it keeps.
        """
        keyframes = self.tracker.keyframes
        if not tracking.ok or len(keyframes) == len(self.snapshots):
            return None
        k = len(keyframes) - 1
        self._remember(observation, fusion.config.range[1])
        if k == 0:
            return None
        self.edges += self._way(k)
        old = np.stack(keyframes.T_world_camera)
        closures = self._closures(k)
        joined = self.meetings.met(k, observation, surfels, fusion) if self.tracker.submaps.apart else None
        index = observation.frame.index
        new = self._agreed(old, closures, index) if joined is None else self._joined(old, joined, closures)
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

    def _agreed(self, old: np.ndarray, closures: list[Edge], index: int) -> np.ndarray | None:
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
            logger.info("frame %d: %d of %d closures contradict the others", index, (~keeps).sum(), len(keeps))
            closures = [closure for closure, keep in zip(closures, keeps) if keep]
        checked = self.edges[-CHECKED:]
        if not closures or cost(new, checked, c.robust) > cost(old, checked, c.robust):
            logger.info("frame %d: no loop is closed, the poses that it asks for fit worse than those that are", index)
            self.edges = before
            return None
        metres, radians = _largest(poses.inverse(old) @ new)
        if _below(1.0, metres, radians, c):
            return None
        logger.info("frame %d: the map is deformed by %.3f m, %.2f degrees", index, metres, np.degrees(radians))
        return new

    def _deform(self, correction: Correction, surfels: SurfelMap, fusion: Fusion, joined: Meeting | None) -> None:
        """Move the surfels, and sort them into their cubes of space again where they have gone too far from them; of
        sub-maps that have met, leave each surface once."""
        self._stray += deform(surfels, correction)
        far = self._stray > MOST_STRAY or joined is not None
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

    def _remember(self, observation: Observation, far: float) -> None:
        if self._camera is None:
            self._prepare(observation.camera)
        assert self._camera is not None
        snapshot = Snapshot.of(observation, far)
        self.snapshots.append(snapshot)
        self._grids.append(snapshot.grid(self._camera))

    def _kept(self) -> np.ndarray:
        """Which keyframes have a snapshot."""
        return np.flatnonzero([snapshot is not None for snapshot in self.snapshots])

    def _prepare(self, camera: Camera) -> None:
        # Every second pixel, beginning with the first: centres stay centres.
        width, height = (camera.width + 1) // 2, (camera.height + 1) // 2
        self._camera = Camera(width, height, camera.fx / 2, camera.fy / 2, camera.cx / 2, camera.cy / 2)
        self._registrar = Registrar(self._camera, self.config.registration)

    def _closures(self, k: int) -> list[Edge]:
        """Edges from earlier keyframes to keyframe k."""
        assert self._camera is not None
        c, keyframes, newest = self.config, self.tracker.keyframes, self.snapshots[k]
        assert newest is not None and self._registrar is not None
        self._registrar.noise = self.tracker.noise.along_normals.model_now
        live = newest.observation(self._camera, c.registration)
        T_k = keyframes.T_world_camera[k]
        shared = self._shared(k, live.depth)
        local = np.flatnonzero(shared >= c.overlap)
        if len(local) > c.closures:  # spread over time: old ones tell most of the drift, recent ones fit best
            local = np.array(evenly_spread(local.tolist(), c.closures))
        edges = []
        for a in local:
            found = self._registered(int(a), live, poses.inverse(keyframes.T_world_camera[a]) @ T_k, c.fitting)
            if found is not None:
                edges.append(self._edge(int(a), k, found))
        edges += self._global_closure(k, live, shared)
        if edges and shared.max(initial=0) >= REDUNDANT and len(self._kept()) > REMEMBERED:
            self.snapshots[k] = self._grids[k] = None
        return edges

    def _shared(self, k: int, depth: np.ndarray) -> np.ndarray:
        """(k - 1,) shares of what the keyframes before the last one see that keyframe k should see, too.

        Only the COMPARED nearest are looked at, a metre counting as much as a radian.
        """
        assert self._camera is not None
        shared = np.zeros(max(k - 1, 0))
        near = self._kept()
        near = near[near < k - 1]
        if not len(near):
            return shared
        T = np.stack(self.tracker.keyframes.T_world_camera)
        T_live = poses.inverse(T[k]) @ T[near]
        if len(near) > COMPARED:
            cosines = (np.trace(T_live[:, :3, :3], axis1=1, axis2=2) - 1) / 2
            away = np.linalg.norm(T_live[:, :3, 3], axis=1) + np.arccos(np.clip(cosines, -1, 1))
            nearest = np.sort(np.argpartition(away, COMPARED)[:COMPARED])
            near, T_live = near[nearest], T_live[nearest]
        grids = np.stack([grid for k in near if (grid := self._grids[k]) is not None])
        found = np.empty(len(near))
        camera = Pinhole.of(self._camera)
        loop_kernels.overlaps(grids, np.ascontiguousarray(T_live[:, :3], f32), depth, camera, f32(SAME), found)
        shared[near] = found
        return shared

    def _global_closure(self, k: int, live: Observation, shared: np.ndarray) -> list[Edge]:
        """Edges to the keyframe that looks most alike, although by its pose it should see something else, and to a
        neighbour of it, if both lead to the same pose."""
        c, keyframes = self.config, self.tracker.keyframes
        if k < 2:
            return []
        dissimilarity = keyframes.dissimilarity(keyframes.codes[k])[: k - 1]
        dissimilarity[[snapshot is None for snapshot in self.snapshots[: k - 1]]] = 1.0
        if self.tracker.submaps.apart:  # `Meetings` looks for other sub-maps
            numbers = [self.tracker.submaps.of(index) for index in keyframes.indices[: k - 1]]
            dissimilarity[np.array(numbers) != self.tracker.submaps.of(keyframes.indices[k])] = 1.0
        a = int(np.argmin(dissimilarity))
        if dissimilarity[a] > c.max_dissimilarity or shared[a] >= c.overlap:
            return []
        first = self._registered(a, live, np.eye(4), self.tracker.config.found_fitting)
        if first is None:
            return []
        for b in (a + 1, a - 1):
            if not 0 <= b < k - 1 or self.snapshots[b] is None:
                continue
            T_b_a = poses.inverse(keyframes.T_world_camera[b]) @ keyframes.T_world_camera[a]
            second = self._registered(b, live, T_b_a @ first.T_world_camera, self.tracker.config.found_fitting)
            if second is None:
                continue
            difference = poses.inverse(T_b_a @ first.T_world_camera) @ second.T_world_camera
            if np.linalg.norm(difference[:3, 3]) < 0.03 and poses.rotation_angle(difference) < np.radians(1.5):
                return [self._edge(a, k, first), self._edge(b, k, second)]
        return []

    def _registered(self, a: int, live: Observation, T_a_live: np.ndarray, fitting: float) -> Registration | None:
        """The live keyframe's pose in keyframe a, or None where the fit is open to doubt."""
        assert self._camera is not None and self._registrar is not None
        c, snapshot = self.config, self.snapshots[a]
        assert snapshot is not None
        view = snapshot.view(self._camera, c.registration, stride_for(self._camera, c.points))
        found = self._registrar.register(live, view, T_a_live)
        believable = (
            found.fitting >= fitting
            and found.measured >= c.overlap * len(view.points)
            and found.geometry.spread <= self.tracker.config.max_residual
            and found.std < 0.01
        )
        return found if believable else None

    def _edge(self, a: int, k: int, found: Registration) -> Edge:
        covariance = found.covariance + np.eye(6) * self.config.closure_floor**2
        return Edge(a, k, found.T_world_camera, np.linalg.inv(covariance), closure=True)

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
            "kept": self._kept(),
            "keyframes": np.array(len(self.snapshots)),
            "depths": np.array([s.depth for s in self.snapshots if s is not None], np.uint16),
            "depth_units": np.array([s.unit for s in self.snapshots if s is not None]),
            "greys": np.array([s.grey for s in self.snapshots if s is not None], np.uint8),
            "camera": np.array(
                [] if self._camera is None else [self._camera.fx, self._camera.fy, self._camera.cx, self._camera.cy]
            ),
        }

    def go_on_from_keyframes(self) -> None:
        """Begin with the tracker's keyframes, of which nothing but their poses is known, and these well."""
        T = self.tracker.keyframes.T_world_camera
        self.snapshots, self._grids = [None] * len(T), [None] * len(T)
        for k in range(1, len(T)):
            way = poses.inverse(T[k - 1]) @ T[k]
            self.edges.append(Edge(k - 1, k, way, self._way_information(way)))

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        rows = zip(state["ends"], state["motions"], state["information"], state["closures"])
        self.edges = [Edge(int(i), int(j), T, information, bool(closure)) for (i, j), T, information, closure in rows]
        self.meetings.restore(state)
        self.closed, self._stray = int(state["closed"]), float(state["stray"])
        kept = state.get("kept", np.arange(len(state["depths"])))
        self.snapshots = [None] * int(state.get("keyframes", len(kept)))
        units = state.get("depth_units", np.full(len(kept), DEPTH_UNIT)).tolist()
        for k, depth, grey, unit in zip(kept, state["depths"], state["greys"], units):
            self.snapshots[k] = Snapshot(depth, grey, unit)
        if len(kept):
            height, width = state["depths"].shape[1:]
            fx, fy, cx, cy = map(float, state["camera"])
            self._camera = Camera(width, height, fx, fy, cx, cy)
            self._registrar = Registrar(self._camera, self.config.registration)
            self._grids = [None if s is None else s.grid(self._camera) for s in self.snapshots]


def _largest(T: np.ndarray) -> tuple[float, float]:
    """The longest way, metres, and the widest turn, radians, of transforms (N, 4, 4)."""
    turns = Rotation.from_matrix(T[:, :3, :3]).magnitude()
    return float(np.linalg.norm(T[:, :3, 3], axis=1).max()), float(turns.max())


def _below(share: float, metres: float, radians: float, c: LoopConfig) -> bool:
    """Whether a motion is less than a share of what is worth a correction."""
    return metres < share * c.min_shift and np.degrees(radians) < share * c.min_turn_deg
