"""Where the camera was before: a new keyframe registered against earlier ones."""

from __future__ import annotations

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.engine.fusion import stride_for
from semslam.frame import Observation, evenly_spread
from semslam.loops import loop_kernels
from semslam.loops.pose_graph import Edge
from semslam.loops.settings import LoopConfig
from semslam.loops.snapshot import Snapshot
from semslam.stage import Stage
from semslam.tracking.registration.registrar import Registrar, Registration
from semslam.tracking.tracker import Tracker

f32 = np.float32
SAME = 0.3  # metres between depths that may be of one surface
COMPARED = 300  # keyframes, the nearest ones, with which a new one may have common surfaces
REMEMBERED = 400  # keyframes from which on one that sees what an older one saw is not kept to come back to
REDUNDANT = 0.7  # share of the older one's surface that it must see for that


class Closures(Stage):
    """Small images of a tracker's keyframes, and the edges of a pose graph that registering a new one to them gives."""

    def __init__(self, tracker: Tracker, config: LoopConfig) -> None:
        self.tracker, self.config = tracker, config
        self.snapshots: list[Snapshot | None] = []  # one a keyframe, None where an older one shows the same
        self._camera: Camera | None = None  # of the snapshots
        self._registrar: Registrar | None = None
        self._grids: list[np.ndarray | None] = []  # of the snapshots

    def __len__(self) -> int:
        """Keyframes that were seen."""
        return len(self.snapshots)

    def forget(self, count: int) -> None:
        """Begin after so many keyframes of which nothing is kept."""
        self.snapshots, self._grids = [None] * count, [None] * count

    def remember(self, observation: Observation, far: float) -> None:
        """Take in the next keyframe, whose depth is good up to `far` metres."""
        if self._camera is None:
            self._prepare(observation.camera)
        assert self._camera is not None
        snapshot = Snapshot.of(observation, self._camera, far)
        self.snapshots.append(snapshot)
        self._grids.append(snapshot.grid(self._camera))

    def kept(self) -> np.ndarray:
        """The numbers (N,) of the keyframes that have a snapshot."""
        return np.flatnonzero([snapshot is not None for snapshot in self.snapshots])

    def _prepare(self, camera: Camera) -> None:
        self._camera = Snapshot.camera_of(camera)
        self._registrar = Registrar(self._camera, self.config.registration)

    def edges_to(self, k: int) -> list[Edge]:
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
        if edges and shared.max(initial=0) >= REDUNDANT and len(self.kept()) > REMEMBERED:
            self.snapshots[k] = self._grids[k] = None
        return edges

    def _shared(self, k: int, depth: np.ndarray) -> np.ndarray:
        """(k - 1,) shares of what the keyframes before the last one see that keyframe k should see, too.

        Only the COMPARED nearest are looked at, a metre counting as much as a radian.
        """
        assert self._camera is not None
        shared = np.zeros(max(k - 1, 0))
        near = self.kept()
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

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        return {
            "kept": self.kept(),
            "keyframes": np.array(len(self.snapshots)),
            "depths": np.array([s.depth for s in self.snapshots if s is not None], np.uint16),
            "depth_units": np.array([s.unit for s in self.snapshots if s is not None]),
            "greys": np.array([s.grey for s in self.snapshots if s is not None], np.uint8),
            "camera": np.array(
                [] if self._camera is None else [self._camera.fx, self._camera.fy, self._camera.cx, self._camera.cy]
            ),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        kept = state["kept"]
        self.snapshots = [None] * int(state["keyframes"])
        for k, depth, grey, unit in zip(kept, state["depths"], state["greys"], state["depth_units"].tolist()):
            self.snapshots[k] = Snapshot(depth, grey, unit)
        self._grids = [None] * len(self.snapshots)
        if len(kept):
            height, width = state["depths"].shape[1:]
            fx, fy, cx, cy = map(float, state["camera"])
            self._camera = Camera(width, height, fx, fy, cx, cy)
            self._registrar = Registrar(self._camera, self.config.registration)
            self._grids = [None if s is None else s.grid(self._camera) for s in self.snapshots]
