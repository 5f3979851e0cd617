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
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.engine.fusion import MARGIN, Fusion, stride_for
from semslam.engine.surfels import SurfelMap
from semslam.frame import Observation, Tracking, evenly_spread
from semslam.loops import loop_kernels
from semslam.loops.pose_graph import Edge, disagreement, optimized_poses
from semslam.loops.snapshot import Snapshot
from semslam.stage import Stage
from semslam.tracking.registration import Registrar, Registration, RegistrationConfig
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Correction

logger = logging.getLogger(__name__)
f32 = np.float32
SAME = 0.3  # metres between depths that may be of one surface
MOST_STRAY = 0.5 * MARGIN  # metres that corrections may lead surfels out of their cubes; fusion moves them, too


@dataclass(frozen=True)
class LoopConfig:
    """When a loop is seen, when the map is deformed, and how stiff the way between keyframes is."""

    closures: int = 3  # keyframes: how many earlier ones a new one is registered against
    overlap: float = 0.25  # share of the image in which two keyframes must see the same surface
    fitting: float = 0.5  # share of that surface which must fit
    max_dissimilarity: float = 0.3  # dissimilarity of two keyframes, at most, for a global closure
    min_shift: float = 0.005  # metres: smaller corrections wait
    min_turn_deg: float = 0.25  # degrees: smaller corrections wait
    way_std: float = 0.01  # metres and radians: drift per metre, or per radian, between keyframes
    way_floor: float = 0.003  # metres and radians: drift between keyframes, at least
    closure_floor: float = 0.005  # metres and radians: error of a closure besides noise; the sensor distorts
    robust: float = 15.0  # standard deviations: from this residual on a closure loses its weight
    registration: RegistrationConfig = field(default_factory=lambda: RegistrationConfig(converged=3e-4))
    points: int = 5_000  # points: of a keyframe, about, that are registered


def deform(surfels: SurfelMap, correction: Correction) -> float:
    """Move every surfel with the frame that made it; returns how many metres the farthest went."""
    slots = surfels.slots()
    if len(slots) == 0:
        return 0.0
    table = correction.at(np.arange(int(surfels.seen[slots, 0].max()) + 1))[:, :3].astype(f32)
    moved = np.empty(len(slots), f32)
    loop_kernels.deform(slots, surfels.position, surfels.normal, surfels.seen, table, moved)
    return float(moved.max())


class LoopCloser(Stage):
    """Watches a tracker's keyframes for loops, and closes them. Call it after every fused frame."""

    def __init__(self, tracker: Tracker, config: LoopConfig | None = None) -> None:
        self.tracker = tracker
        self.config = config or LoopConfig()
        self.edges: list[Edge] = []
        self.snapshots: list[Snapshot] = []  # one a keyframe
        self.closed = 0  # times that the map was deformed
        self._camera: Camera | None = None  # half the size
        self._registrar: Registrar | None = None
        self._grids: list[np.ndarray] = []
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
        self._remember(observation)
        if k == 0:
            return None
        way = poses.inverse(keyframes.T_world_camera[k - 1]) @ keyframes.T_world_camera[k]
        self.edges.append(Edge(k - 1, k, way, self._way_information(way)))
        closures = self._closures(k)
        if not closures:
            return None
        self.edges += closures
        old = np.stack(keyframes.T_world_camera)
        metres, radians = disagreement(old, closures)
        if metres < 0.5 * self.config.min_shift and np.degrees(radians) < 0.5 * self.config.min_turn_deg:
            return None
        new = optimized_poses(old, self.edges, robust=self.config.robust)
        step = poses.inverse(old) @ new
        metres = np.linalg.norm(step[:, :3, 3], axis=1).max()
        degrees = np.degrees(Rotation.from_matrix(step[:, :3, :3]).magnitude().max())
        if metres < self.config.min_shift and degrees < self.config.min_turn_deg:
            return None
        logger.info("frame %d: the map is deformed by %.3f m, %.2f degrees", observation.frame.index, metres, degrees)
        self.closed += 1
        correction = Correction.between(keyframes.indices, old, new)
        self._deform(correction, surfels, fusion)
        return correction

    def _deform(self, correction: Correction, surfels: SurfelMap, fusion: Fusion) -> None:
        """Move the surfels, and sort them into their cubes of space again where they have gone too far from them."""
        self._stray += deform(surfels, correction)
        far = self._stray > MOST_STRAY
        if far:
            surfels.compact(np.arange(surfels.n_chunks, dtype=np.int32))
            slots = surfels.slots()
            surfels.move(surfels.position[slots, :3], surfels.normal[slots, :3])
            self._stray = 0.0
        fusion.invalidate(slots_moved=far)

    def _remember(self, observation: Observation) -> None:
        if self._camera is None:
            self._prepare(observation.camera)
        assert self._camera is not None
        self.snapshots.append(Snapshot.of(observation))
        self._grids.append(self.snapshots[-1].grid(self._camera))

    def _prepare(self, camera: Camera) -> None:
        # Every second pixel, beginning with the first: centres stay centres.
        width, height = (camera.width + 1) // 2, (camera.height + 1) // 2
        self._camera = Camera(width, height, camera.fx / 2, camera.fy / 2, camera.cx / 2, camera.cy / 2)
        self._registrar = Registrar(self._camera, self.config.registration)

    def _closures(self, k: int) -> list[Edge]:
        """Edges from earlier keyframes to keyframe k."""
        assert self._camera is not None
        c, keyframes = self.config, self.tracker.keyframes
        live = self.snapshots[k].observation(self._camera, c.registration)
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
        return edges

    def _shared(self, k: int, depth: np.ndarray) -> np.ndarray:
        """(k - 1,) shares of what the keyframes before the last one see that keyframe k should see, too."""
        assert self._camera is not None
        if k < 2:
            return np.zeros(0)
        T = np.stack(self.tracker.keyframes.T_world_camera[: k + 1])
        T_live_grid = (poses.inverse(T[k]) @ T[: k - 1])[:, :3].astype(f32)
        shared = np.empty(k - 1)
        loop_kernels.overlaps(
            np.stack(self._grids[: k - 1]), T_live_grid, depth, Pinhole.of(self._camera), f32(SAME), shared
        )
        return shared

    def _global_closure(self, k: int, live: Observation, shared: np.ndarray) -> list[Edge]:
        """Edges to the keyframe that looks most alike, although by its pose it should see something else, and to a
        neighbour of it, if both lead to the same pose."""
        c, keyframes = self.config, self.tracker.keyframes
        if k < 2:
            return []
        dissimilarity = keyframes.dissimilarity(keyframes.codes[k])[: k - 1]
        a = int(np.argmin(dissimilarity))
        if dissimilarity[a] > c.max_dissimilarity or shared[a] >= c.overlap:
            return []
        first = self._registered(a, live, np.eye(4), self.tracker.config.found_fitting)
        if first is None:
            return []
        for b in (a + 1, a - 1):
            if not 0 <= b < k - 1:
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
        c = self.config
        view = self.snapshots[a].view(self._camera, c.registration, stride_for(self._camera, c.points))
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
            "stray": np.array(self._stray),
            "depths": np.array([s.depth for s in self.snapshots], np.uint16),
            "greys": np.array([s.grey for s in self.snapshots], np.uint8),
            "camera": np.array(
                [] if self._camera is None else [self._camera.fx, self._camera.fy, self._camera.cx, self._camera.cy]
            ),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        rows = zip(state["ends"], state["motions"], state["information"], state["closures"])
        self.edges = [Edge(int(i), int(j), T, information, bool(closure)) for (i, j), T, information, closure in rows]
        self.closed, self._stray = int(state["closed"]), float(state["stray"])
        self.snapshots = [Snapshot(depth, grey) for depth, grey in zip(state["depths"], state["greys"])]
        if self.snapshots:
            height, width = self.snapshots[0].depth.shape
            fx, fy, cx, cy = map(float, state["camera"])
            self._camera = Camera(width, height, fx, fy, cx, cy)
            self._registrar = Registrar(self._camera, self.config.registration)
            self._grids = [snapshot.grid(self._camera) for snapshot in self.snapshots]
