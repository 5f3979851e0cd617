"""Loops closed: drift seen, spread over a pose graph of keyframes, and map and poses moved along with it.

Each new keyframe is registered against the old part of the map, the surfels made before a window of frames: as seen
from where the camera is believed to be (local closure), else from the old keyframe that the frame looks like (global
closure). Where the old map and the tracked pose disagree and the fit is beyond doubt, the disagreement becomes an edge
of the pose graph. Every surfel then moves rigidly with the camera of the frame that made it, whose correction is
interpolated between the keyframes before and after.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation, Slerp

from semslam import kernels, loop_kernels, poses
from semslam.frame import Observation, Tracking, View
from semslam.fusion import Fusion
from semslam.registration import Registration
from semslam.surfels import SurfelMap
from semslam.tracking import Tracker

logger = logging.getLogger(__name__)
f32 = np.float32


@dataclass(frozen=True)
class LoopConfig:
    """When a loop is seen, when it is closed, and how stiff the way between keyframes is."""

    window: int = 60  # frames: surfels first seen so long ago are the old map
    covered: float = 0.2  # share of the image that the old map must fill
    min_shift: float = 0.01  # metres: smaller disagreements are noted, and do not bend the map
    min_turn_deg: float = 0.5
    max_dissimilarity: float = 0.3  # of a keyframe for a global closure
    candidates: int = 2  # keyframes tried for a global closure
    way_std: float = 0.01  # metres of drift a metre, and radians a radian, between keyframes ...
    way_floor: float = 0.001  # ... and at least
    closure_std: float = 0.006  # metres, and radians, of a closure


@dataclass(frozen=True, eq=False)
class Edge:
    """A measured motion between two keyframes."""

    i: int
    j: int
    T_i_j: np.ndarray  # (4, 4)
    information: np.ndarray  # (6, 6) inverse covariance of the twist of T_i_j, in j's frame
    closure: bool = False  # between distant keyframes: may be wrong, so it is weighted robustly


@dataclass(frozen=True, eq=False)
class Correction:
    """How the world moved, by time: T_new_old at keyframes, interpolated between them."""

    indices: np.ndarray  # (K,) increasing frame indices
    T_new_old: np.ndarray  # (K, 4, 4)

    def at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """T_new_old (N, 4, 4) at frames; before the first and after the last keyframe, that one's."""
        times = np.clip(np.asarray(indices, np.float64), self.indices[0], self.indices[-1])
        result = np.tile(np.eye(4), (len(times), 1, 1))
        rotations = Rotation.from_matrix(self.T_new_old[:, :3, :3])
        # Corrections are small: turning and shifting apart from one another is as good as along a screw.
        result[:, :3, :3] = Slerp(self.indices, rotations)(times).as_matrix()
        for axis in range(3):
            result[:, axis, 3] = np.interp(times, self.indices, self.T_new_old[:, axis, 3])
        return result

    def corrected(self, indices: Sequence[int] | np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
        """The poses (N, 4, 4) of the frames with these indices, after the correction."""
        return self.at(indices) @ T_world_camera

    def bend(self, surfels: SurfelMap) -> None:
        """Move every surfel with the frame that made it."""
        slots = surfels.slots()
        if len(slots) == 0:
            return
        table = self.at(np.arange(int(surfels.seen[slots, 0].max()) + 1))[:, :3].astype(f32)
        positions, normals = np.empty((len(slots), 3), f32), np.empty((len(slots), 3), f32)
        loop_kernels.bend(slots, surfels.position, surfels.normal, surfels.seen, table, positions, normals)
        surfels.move(positions, normals)


class LoopCloser:
    """Watches a tracker's keyframes for loops, and closes them. Call it after every fused frame."""

    def __init__(self, tracker: Tracker, config: LoopConfig | None = None) -> None:
        self.tracker = tracker
        self.config = config or LoopConfig()
        self.edges: list[Edge] = []
        self.closed = 0  # loops
        self._known = 0  # keyframes that are in the graph

    def __call__(
        self, observation: Observation, tracking: Tracking, surfels: SurfelMap, fusion: Fusion
    ) -> Correction | None:
        """Look for a loop if the frame became a keyframe. Where one is closed, map and tracker have been corrected.

        The caller applies the returned correction to the poses that it keeps.
        """
        keyframes = self.tracker.keyframes
        if not tracking.ok or len(keyframes) == self._known:
            return None
        k, self._known = len(keyframes) - 1, len(keyframes)
        if k == 0:
            return None
        T = keyframes.T_world_camera[k]
        way = poses.inverse(keyframes.T_world_camera[k - 1]) @ T
        self.edges.append(Edge(k - 1, k, way, self._way_information(way)))
        found = self._seen_again(k, observation, surfels, fusion)
        if found is None:
            return None
        a, T_found = found
        information = np.eye(6) / self.config.closure_std**2
        closure = Edge(a, k, poses.inverse(keyframes.T_world_camera[a]) @ T_found, information, closure=True)
        shift = poses.inverse(T) @ T_found
        metres, degrees = float(np.linalg.norm(shift[:3, 3])), float(np.degrees(poses.rotation_angle(shift)))
        if metres < self.config.min_shift and degrees < self.config.min_turn_deg:
            self.edges.append(closure)
            return None
        correction = self._spread(closure)
        if correction is None:
            logger.info("frame %d: a loop of %.3f m is refused, it fits no other", observation.frame.index, metres)
            return None
        logger.info("frame %d: a loop of %.3f m and %.2f degrees is closed", observation.frame.index, metres, degrees)
        self.edges.append(closure)
        self.closed += 1
        correction.bend(surfels)
        fusion.restore({"index": np.full(observation.depth.size, kernels.EMPTY)})  # slots have moved
        self.tracker.correct(correction.corrected, observation.frame.index)
        return correction

    def _seen_again(
        self, k: int, observation: Observation, surfels: SurfelMap, fusion: Fusion
    ) -> tuple[int, np.ndarray] | None:
        """The old keyframe that keyframe k meets again, and k's pose (4, 4) according to the old map."""
        c, keyframes = self.config, self.tracker.keyframes
        before = observation.frame.index - c.window
        if keyframes.indices[0] >= before:
            return None
        T = keyframes.T_world_camera[k]
        found = self._against_old(observation, surfels, fusion, T, before)
        if found is not None:
            return found
        dissimilarity = keyframes.dissimilarity(keyframes.codes[k])
        dissimilarity[np.array(keyframes.indices) >= before] = 1
        for a in np.argsort(dissimilarity, kind="stable")[: c.candidates]:
            if dissimilarity[a] > c.max_dissimilarity:
                break
            start = self._against_old(observation, surfels, fusion, keyframes.T_world_camera[a], before)
            again = start and self._against_old(observation, surfels, fusion, start[1], before)
            if start and again:
                difference = poses.inverse(start[1]) @ again[1]
                if np.linalg.norm(difference[:3, 3]) < 0.02 and poses.rotation_angle(difference) < np.radians(1):
                    return again
        return None

    def _against_old(
        self, observation: Observation, surfels: SurfelMap, fusion: Fusion, T: np.ndarray, before: int
    ) -> tuple[int, np.ndarray] | None:
        """The middle keyframe of the old map in view from T, and the pose registered against it, or None."""
        view = old_view(surfels, fusion, T, before)
        covered = view.index >= 0
        if covered.mean() < self.config.covered:
            return None
        registration: Registration = self.tracker.register(observation, view, T)
        if not self.tracker.fits(registration):
            return None
        made = int(np.median(surfels.seen[view.index[covered], 0]))
        a = int(np.searchsorted(self.tracker.keyframes.indices, made, side="right")) - 1
        return max(a, 0), registration.T_world_camera

    def _spread(self, closure: Edge) -> Correction | None:
        """The correction that closes a loop, or None where the graph would rather not."""
        keyframes = self.tracker.keyframes
        old = np.stack(keyframes.T_world_camera)
        new = optimized_poses(old, [*self.edges, closure])

        def disagreement(T: np.ndarray) -> float:
            r = poses.log(poses.inverse(closure.T_i_j) @ poses.inverse(T[closure.i]) @ T[closure.j])
            return float(np.sqrt(r @ closure.information @ r))

        if disagreement(new) > 0.5 * disagreement(old):
            return None
        return Correction(np.array(keyframes.indices), new @ poses.inverse(old))

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
            "known": np.array(self._known),
            "closed": np.array(self.closed),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        rows = zip(state["ends"], state["motions"], state["information"], state["closures"])
        self.edges = [Edge(int(i), int(j), T, information, bool(closure)) for (i, j), T, information, closure in rows]
        self._known, self.closed = int(state["known"]), int(state["closed"])


def old_view(surfels: SurfelMap, fusion: Fusion, T_world_camera: np.ndarray, before: int) -> View:
    """What the part of the map first seen before a frame looks like from a pose."""
    camera = fusion.camera
    R, t = np.ascontiguousarray(T_world_camera[:3, :3], f32), np.ascontiguousarray(T_world_camera[:3, 3], f32)
    K = np.array([camera.fx, camera.fy, camera.cx, camera.cy], f32)
    near, far = f32(0.5 * fusion.config.near), f32(1.2 * fusion.config.far)
    chunks = np.empty(surfels.n_chunks, np.int32)
    n = kernels.visible_chunks(
        surfels.origins, surfels.counts, surfels.n_chunks, f32(surfels.config.block), f32(0.1), R, t, K, near, far,
        camera.width, camera.height, chunks,
    )  # fmt: skip
    index = np.full(camera.width * camera.height, kernels.EMPTY)
    loop_kernels.project_old(
        chunks, n, surfels.counts, surfels.position, surfels.normal, surfels.seen, np.int32(before), R, t, K, near, far,
        camera.width, camera.height, index,
    )  # fmt: skip
    view = empty_view(camera, T_world_camera)
    kernels.gather(
        index, surfels.position, surfels.normal, surfels.color, R, t,
        view.vertices, view.normals, view.color, view.confidence, view.index,
    )  # fmt: skip
    return view


def empty_view(camera, T_world_camera: np.ndarray) -> View:
    shape = camera.shape
    return View(
        camera=camera,
        T_world_camera=T_world_camera,
        vertices=np.zeros((*shape, 3), f32),
        normals=np.zeros((*shape, 3), f32),
        color=np.zeros((*shape, 3), np.uint8),
        confidence=np.zeros(shape, f32),
        index=np.full(shape, -1, np.int32),
    )


def adjoint(T: np.ndarray) -> np.ndarray:
    """The (6, 6) matrix with T exp(x) T^-1 = exp(adjoint(T) x), twists (translation, rotation)."""
    R, t = T[:3, :3], T[:3, 3]
    result = np.zeros((6, 6))
    result[:3, :3] = result[3:, 3:] = R
    result[:3, 3:] = poses.skew(t) @ R
    return result


def optimized_poses(
    T_world: np.ndarray, edges: Sequence[Edge], iterations: int = 20, robust: float = 5.0
) -> np.ndarray:
    """Keyframe poses (N, 4, 4) that agree best with the edges; the first keyframe stays where it is.

    Gauss-Newton on the twists log(T_i_j^-1 T_i^-1 T_j), weighted by their information; closures by Cauchy's weight
    with the given constant besides, so that a wrong one loses its say (Agarwal et al., ICRA 2013).
    """
    T = T_world.copy()
    n = len(T)
    if n < 2 or not edges:
        return T
    for _ in range(iterations):
        rows, columns, values = [], [], []
        gradient = np.zeros((n, 6))
        for edge in edges:
            between = poses.inverse(T[edge.i]) @ T[edge.j]
            r = poses.log(poses.inverse(edge.T_i_j) @ between)
            weight = 1.0 / (1.0 + float(r @ edge.information @ r) / robust**2) if edge.closure else 1.0
            # T_i exp(x_i), T_j exp(x_j) changes r by x_j - Ad(T_j^-1 T_i) x_i, up to second order in r.
            J = {edge.i: -adjoint(poses.inverse(between)), edge.j: np.eye(6)}
            W = weight * edge.information
            for a in (edge.i, edge.j):
                gradient[a] += J[a].T @ W @ r
                for b in (edge.i, edge.j):
                    rows.append(np.repeat(np.arange(6) + 6 * a, 6))
                    columns.append(np.tile(np.arange(6) + 6 * b, 6))
                    values.append((J[a].T @ W @ J[b]).ravel())
        shape = (6 * n, 6 * n)
        hessian = sparse.csc_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
        step = np.zeros(6 * n)
        free = hessian[6:, 6:] + 1e-9 * sparse.identity(6 * n - 6)
        step[6:] = -spsolve(free.tocsc(), gradient.ravel()[6:])
        for k in range(1, n):
            T[k] = poses.orthonormalized(T[k] @ poses.exp(step[6 * k : 6 * k + 6]))
        if np.abs(step).max() < 1e-8:
            break
    return T
