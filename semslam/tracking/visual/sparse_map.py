"""The map that visual tracking keeps: keyframes, landmarks, where the ones saw the others, and their adjustment.

A landmark lies on the ray of a pixel of its host, the keyframe that first showed it; the logarithm of its depth is its
one unknown. Lengths are in the map's unit, which the network's depth in the first keyframes set: `SparseMap.scale`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.tracking.visual.bundle_adjustment import PosePriors, Scene, adjust
from semslam.tracking.visual.votes import PLACE_STD, VOTE_POWER, Vote, Votes, vote_of, voted_scale

WINDOW = 200  # keyframes that are adjusted together when all frames are done
STRIKES = 3  # times that a landmark was seen where it should not be, from which it is used no longer
FOCAL_STD = 0.35  # of the logarithm of a focal length that nothing is known of
# Relative standard deviation, by what unknown distortion did to recordings of known cameras. It does the same to all
# parts of one, so that their scatter does not tell it.
FOCAL_FLOOR = 0.05
ALIKE = 0.15  # standard deviations by which all observations may be wrong, alike in the way that a focal length is
KNOWN_STD = 0.15  # of the logarithm of a landmark's depth: what parallax knows no better does not judge the network
LEAST_CONFIDENCE = 1e-3  # that a network's depth is given
FEWEST_VOTES = 10  # landmarks of a keyframe that are enough to judge it
FIRST_FOCAL = 5  # keyframes from which a focal length is estimated
FOCAL_SETTLED = 0.002  # relative change of the focal length by one more adjustment, at most
MOST_FIXED = 40  # keyframes that stay, but whose view of landmarks counts where others are adjusted
ADJUSTED = ("T_camera_world", "log_depth", "variance", "strikes", "_landmark", "_keyframe", "_seen")
MOST_LOOKED_AT = 50_000  # observations, for the residual of all
BORDER = 8  # pixels along the images' edges where nothing is looked for
MOST_ROUNDS = 50  # adjustments of a focal length that does not settle


@dataclass(eq=False)
class Keyframe:
    """A frame that landmarks are tied to."""

    index: int
    grey: np.ndarray | None  # (H, W) uint8; None for all but the last ones
    given: np.ndarray | None  # (4, 4) T_camera_world that is known beforehand
    ids: np.ndarray  # (N,) int32 landmarks that it shows ...
    descriptors: np.ndarray  # (N, 32) uint8 ... and what they look like in it (ORB); both empty for most old ones
    level: float = 0.0  # logarithm of the map's depth over the network's, as it was when the keyframe was made
    votes: Votes | None = None


class Projected(NamedTuple):
    """Landmarks seen from a pose."""

    pixels: np.ndarray  # (N, 2), NaN behind the camera
    points: np.ndarray  # (N, 3) camera frame
    by_log_depth: np.ndarray  # (N, 3) their derivative by the logarithm of the landmark's depth


class SparseMap:
    """Keyframes and landmarks of one camera."""

    def __init__(
        self,
        camera: Camera,
        pixel_std: float,
        prior_std: float,
        focal_known: bool = True,
        given_std: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """pixel_std: of where a landmark is seen, pixels. prior_std: of the logarithm of the network's depth.
        focal_known: else the camera's focal length is a guess, and is adjusted with the rest. given_std: metres and
        radians, of poses that are given."""
        self.camera, self.given_std = camera, given_std
        self.pixel_std, self.prior_std = pixel_std, prior_std
        self.focal_known = focal_known
        self.focal_std = 0.0 if focal_known else FOCAL_STD  # relative standard deviation of the focal length
        self._guess = camera.fx
        self._centre = np.array([camera.cx, camera.cy])
        self._size = np.array([camera.width, camera.height])
        self.keyframes: list[Keyframe] = []
        self.T_camera_world = np.zeros((0, 4, 4))  # of each keyframe
        # landmarks
        self.host = np.zeros(0, np.int64)
        self.pixel = np.zeros((0, 2))  # in the host, from the principal point
        self.log_depth = np.zeros(0)
        self.prior = np.zeros(0)  # what the network says of that
        self.variance = np.zeros(0)  # of log_depth
        self.strikes = np.zeros(0, np.int64)
        # observations, in the order in which they were made; they are most of what is kept
        self._landmark = np.zeros(0, np.int32)
        self._keyframe = np.zeros(0, np.int32)
        self._seen = np.zeros((0, 2), np.float32)  # pixels from the principal point

    def __len__(self) -> int:
        return len(self.host)

    # building

    def add_keyframe(
        self, index: int, grey: np.ndarray, T_camera_world: np.ndarray, given: np.ndarray | None = None
    ) -> int:
        """Its number. given: what is known of T_camera_world beforehand, with `given_std`."""
        self.keyframes.append(Keyframe(index, grey, given, np.zeros(0, np.int32), np.zeros((0, 32), np.uint8)))
        self.T_camera_world = np.concatenate([self.T_camera_world, T_camera_world[None]])
        return len(self.keyframes) - 1

    def add_landmarks(self, k: int, pixels: np.ndarray, log_depth: np.ndarray) -> np.ndarray:
        """The numbers (N,) of new landmarks at pixels (N, 2) of keyframe k, at the network's depth."""
        n, first = len(pixels), len(self)
        self.host = appended(self.host, np.full(n, k))
        self.pixel = appended(self.pixel, pixels - self._centre)
        self.log_depth = appended(self.log_depth, log_depth)
        self.prior = appended(self.prior, log_depth)
        self.variance = appended(self.variance, np.full(n, self.prior_std**2))
        self.strikes = appended(self.strikes, np.zeros(n, np.int64))
        return np.arange(first, first + n)

    def observe(self, ids: np.ndarray, pixels: np.ndarray, k: int) -> None:
        """Keyframe k shows landmarks (N,) at pixels (N, 2)."""
        self._landmark = appended(self._landmark, ids)
        self._keyframe = appended(self._keyframe, np.full(len(ids), k))
        self._seen = appended(self._seen, pixels - self._centre)

    # looking

    def project(self, ids: np.ndarray, T_camera_world: np.ndarray) -> Projected:
        """Landmarks (N,) as a camera at a pose (4, 4), or at one for each of them (N, 4, 4), sees them."""
        K = self.camera
        T = T_camera_world @ poses.inverse(self.T_camera_world[self.host[ids]])
        rays = np.column_stack([self.pixel[ids] / [K.fx, K.fy], np.ones(len(ids))])
        along = np.einsum("nij,nj->ni", T[:, :3, :3], rays) * np.exp(self.log_depth[ids])[:, None]
        points = along + T[:, :3, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            shown = points[:, :2] / points[:, 2:] * [K.fx, K.fy] + self._centre
        shown[points[:, 2] < 0.05] = np.nan
        return Projected(shown, points, along)

    def expected_again(self, followed: np.ndarray, k: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks, and their pixels (N, 2), that keyframe k should show and that are not followed: the best known.

        Only those that were first seen from a similar side and distance, in a keyframe whose image is kept.
        """
        idle = np.ones(len(self), bool)
        idle[followed] = False
        idle &= np.array([keyframe.grey is not None for keyframe in self.keyframes])[self.host]
        ids = np.flatnonzero(idle & (self.strikes < STRIKES) & (self.variance < 0.1**2))
        shown, points, along = self.project(ids, self.T_camera_world[k])
        depth = np.exp(self.log_depth[ids])
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = self.inside(shown)
            lengths = np.linalg.norm(points, axis=1) * np.linalg.norm(along, axis=1)
            cosine = np.einsum("ni,ni->n", points, along) / lengths  # of the angle to the view it was first seen in
            inside &= (cosine > 0.85) & (points[:, 2] > 0.6 * depth) & (points[:, 2] < 1.6 * depth)
        ids, shown = ids[inside], shown[inside]
        best = np.argsort(self.variance[ids], kind="stable")[:most] if len(ids) > most else slice(None)
        return ids[best], shown[best]

    def inside(self, pixels: np.ndarray) -> np.ndarray:
        """Which pixels (N, 2) lie in the image, BORDER from its edges; NaN do not."""
        return np.all((pixels > BORDER) & (pixels < self._size - BORDER), axis=1)

    def seen_by(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The landmarks (N,) that keyframe k shows, and where (N, 2): pixels from the principal point."""
        rows, hosted = np.flatnonzero(self._keyframe == k), np.flatnonzero(self.host == k)
        ids = np.concatenate([self._landmark[rows], hosted])
        return ids, np.concatenate([self._seen[rows], self.pixel[hosted]]).astype(np.float32)

    def shown_by(self, k: int) -> np.ndarray:
        """The landmarks (N,) that keyframe k is tied to, or that it was the first to show."""
        return np.union1d(self._landmark[self._keyframe == k], np.flatnonzero(self.host == k))

    def pixels_in_host(self, ids: np.ndarray) -> np.ndarray:
        """(N, 2) float32: where the hosts of landmarks show them."""
        return (self.pixel[ids] + self._centre).astype(np.float32)

    # the network's votes

    def votes(
        self, ids: np.ndarray, pixels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, focal: float
    ) -> Votes:
        """What the network's depth (H, W, 0 = none) and confidence (H, W) say of landmarks (N,) at pixels (N, 2).

        focal: pixels, that the network was told.
        """
        u, v = np.clip(pixels, 0, self._size - 1).astype(int).T
        said = predicted[v, u] > 0
        u, v = u[said], v[said]
        sure = np.maximum(confidence[v, u], LEAST_CONFIDENCE)
        log_depth = np.log(predicted[v, u]).astype(np.float16)
        return Votes(ids[said].astype(np.int32), log_depth, sure.astype(np.float16), focal)

    def vote(self, k: int, votes: Votes, power: float = 1.0) -> Vote | None:
        """What keyframe k says of the scale of the map as it is now, by the landmarks that parallax knows; None where
        they are too few. power: of the network's confidence."""
        known = (self.variance[votes.ids] < KNOWN_STD**2) & (self.strikes[votes.ids] < STRIKES)
        z = self.project(votes.ids[known], self.T_camera_world[k]).points[:, 2]
        ahead = z > 0
        if ahead.sum() < FEWEST_VOTES:
            return None
        log_depth = votes.log_depth[known][ahead] + np.log(self.camera.fx / votes.focal)  # as it would be said now
        return vote_of(np.log(z[ahead]) - log_depth, votes.confidence[known][ahead].astype(np.float64), power)

    @property
    def scale(self) -> tuple[float, float]:
        """Metres in the map's unit, by the votes of all keyframes as the map is now, and its relative standard
        deviation."""
        judged = [self.vote(k, frame.votes, VOTE_POWER) for k, frame in enumerate(self.keyframes) if frame.votes]
        return voted_scale(*np.array([one for one in judged if one is not None]).reshape(-1, 2).T)

    @property
    def depth(self) -> float:
        """Median depth of the landmarks that parallax was seen of, of all where it was of none, in the map's unit."""
        known = self.log_depth[self.variance < 0.3**2]
        return float(np.exp(np.median(known if len(known) else self.log_depth))) if len(self) else 1.0

    # adjustment

    def seen_by_camera(self, camera: Camera, moved: Callable[[np.ndarray], np.ndarray]) -> SparseMap:
        """The same map of images of another camera, where pixels (N, 2) of these images are `moved`; not adjusted."""
        other = copy.copy(self)
        other.restore(self.snapshot())
        other.camera, other._guess, other._centre = camera, camera.fx, np.array([camera.cx, camera.cy])
        other.pixel = moved(self.pixel + self._centre) - other._centre
        other._seen = (moved(self._seen + self._centre) - other._centre).astype(np.float32)
        return other

    def unrolled(self, readout: np.ndarray, twists: np.ndarray) -> SparseMap:
        """The same map of images each of which was read at one moment, not row by row; not adjusted.

        readout: (2,) seconds, see `Camera.elapsed`. twists: (K, 6) a second of the camera at each keyframe, in its own
        frame, in the map's unit.
        """
        other = copy.copy(self)
        other.restore(self.snapshot())
        other.pixel = self.pixel - self.read_late(self.pixel, np.exp(self.log_depth), readout, twists[self.host])
        for first in range(0, len(self._seen), MOST_LOOKED_AT):
            some = slice(first, first + MOST_LOOKED_AT)
            of, seen = self._keyframe[some], self._seen[some]
            depth = self.project(self._landmark[some], self.T_camera_world[of]).points[:, 2]
            other._seen[some] = seen - self.read_late(seen, depth, readout, twists[of])
        return other

    def read_late(self, seen: np.ndarray, depth: np.ndarray, readout: np.ndarray, twists: np.ndarray) -> np.ndarray:
        """(N, 2) pixels by which landmarks moved from the moment of an image to that at which their rows were read.

        seen: (N, 2) pixels from the principal point. depth: (N,) in the map's unit. readout, twists: see `unrolled`.
        """
        pixels = seen + self._centre
        return self.camera.flow(pixels, np.maximum(depth, 0.05), twists) * self.camera.elapsed(pixels, readout)[:, None]

    def snapshot(self) -> dict[str, np.ndarray]:
        """What adjustments of a known focal length change; for `restore`."""
        return {name: getattr(self, name).copy() for name in ADJUSTED}

    def restore(self, before: dict[str, np.ndarray]) -> None:
        """Take back all adjustments since a `snapshot`, and what they left out as wrong."""
        for name, array in before.items():
            setattr(self, name, array)

    def adjust_recent(self, followed: np.ndarray, count: int, iterations: int = 8) -> None:
        """Adjust the last keyframes, and those that see the same landmarks; the others hold the world still.

        followed: landmarks (N,) that the last keyframe shows. count: of keyframes of either kind.
        """
        free = np.zeros(len(self.keyframes), bool)
        whole = len(self.keyframes) <= 2 * count
        if whole:
            free[:] = True
        else:
            free[-count:] = True
            mine = np.zeros(len(self), bool)
            mine[followed] = True
            shared = np.bincount(self._keyframe[mine[self._landmark]], minlength=len(self.keyframes))
            shared[free] = 0
            best = np.argsort(-shared, kind="stable")[:count]
            free[best[shared[best] >= 10]] = True
            free[0] = False
        # a focal length that changes in a part of the map would bend it against the rest
        self._solve(free, iterations, with_focal=whole and len(self.keyframes) >= FIRST_FOCAL)

    def adjust_all(self) -> None:
        """Adjust everything, when the last frame is done; long recordings a window at a time."""
        count = len(self.keyframes)
        if count < 3:
            return
        start = self.T_camera_world[0].copy()
        for first in range(0, max(1, count - WINDOW // 2), WINDOW // 2):
            free = np.zeros(count, bool)
            free[first : first + WINDOW] = True
            if first == 0 and not self.focal_known:
                self._settle_focal(free)
            self._solve(free, 20, with_focal=False)
        given = any(keyframe.given is not None for keyframe in self.keyframes)  # that is what holds the world then
        if not given and not np.array_equal(start, self.T_camera_world[0]):
            # of a long recording the first window was held by what follows it; the world begins at keyframe 0
            self.T_camera_world = self.T_camera_world @ (poses.inverse(self.T_camera_world[0]) @ start)

    def _settle_focal(self, free: np.ndarray) -> None:
        """Adjust the focal length with the free keyframes (bool), again while what is left out as wrong changes it."""
        for _ in range(MOST_ROUNDS):
            before = self.camera.fx
            self._solve(free, 20, with_focal=True)
            if abs(self.camera.fx / before - 1) <= FOCAL_SETTLED:
                return

    def _solve(self, free: np.ndarray, iterations: int, with_focal: bool) -> None:
        scene, frames, landmarks, rows = self.scene(free, with_focal and not self.focal_known)
        if len(rows) < 20:
            return
        found = adjust(scene, iterations, pixel_std=self.pixel_std, priors=self._priors(frames))
        self.T_camera_world[frames] = found.T_camera_world
        self.log_depth[landmarks] = found.log_depth
        self.variance[landmarks] = 1 / np.maximum(found.information, 1e-9) + 0.01**2
        if scene.focal_std > 0:
            ratio = self.camera.fy / self.camera.fx
            self.camera = replace(self.camera, fx=found.focal, fy=found.focal * ratio)
            alike = ALIKE * np.sqrt(len(rows)) * found.focal_std  # how much of that the path leaves open
            self.focal_std = min(float(np.hypot(alike, FOCAL_FLOOR)), FOCAL_STD)
        wrong = found.residuals > 6 * self.pixel_std
        self.strikes[np.unique(self._landmark[rows[wrong]])] += 1
        keep = np.ones(len(self._landmark), bool)
        keep[rows[wrong]] = False
        for name in ("_landmark", "_keyframe", "_seen"):
            column, kept = getattr(self, name), int(keep.sum())
            column[:kept] = column[keep]
            setattr(self, name, column[:kept])

    def misfit(self, T_camera_world: np.ndarray) -> float:
        """Median distance in pixels between where landmarks are seen and where they would be with other poses (K, 4, 4)
        of all keyframes, after the landmarks have followed; NaN where nothing was seen twice."""
        scene, frames, _, rows = self.scene(np.ones(len(self.keyframes), bool), False)
        if len(rows) == 0:
            return float("nan")
        held = scene._replace(T_camera_world=T_camera_world[frames], fixed=np.ones(len(frames), bool))
        return float(np.median(adjust(held, pixel_std=self.pixel_std).residuals))

    @property
    def residual(self) -> float:
        """Median distance in pixels between where landmarks are seen and where the map has them; NaN where none is."""
        used = np.flatnonzero(self.strikes[self._landmark] < STRIKES)
        used = used[:: max(1, len(used) // MOST_LOOKED_AT)]
        T = self.T_camera_world[self._keyframe[used]]
        shown = self.project(self._landmark[used], T).pixels - self._centre
        off = np.linalg.norm(shown - self._seen[used], axis=1)
        return float(np.nanmedian(off)) if np.isfinite(off).any() else float("nan")

    def _priors(self, frames: np.ndarray) -> PosePriors | None:
        """What is known beforehand of the poses of keyframes (N,); None where it is nothing."""
        given = [self.keyframes[k].given for k in frames]
        known = np.array([T is not None for T in given])
        if not known.any():
            return None
        T = np.stack([np.eye(4) if T is None else T for T in given])
        return PosePriors(T, known, *self.given_std)

    def scene(self, free: np.ndarray, with_focal: bool) -> tuple[Scene, np.ndarray, np.ndarray, np.ndarray]:
        """All that the free keyframes (bool) are tied to, and the keyframes, landmarks and observations in it."""
        touched = free[self.host]
        touched[self._landmark[free[self._keyframe]]] = True
        rows = np.flatnonzero((touched & (self.strikes < STRIKES))[self._landmark])
        shared = np.bincount(self._keyframe[rows], minlength=len(free))
        shared[free] = 0
        if np.count_nonzero(shared) > MOST_FIXED:  # a place seen many times must not cost more each time
            counted = free.copy()
            counted[np.argsort(-shared, kind="stable")[:MOST_FIXED]] = True
            rows = rows[counted[self._keyframe[rows]]]
        rows = rows[np.argsort(self._landmark[rows], kind="stable")]
        landmarks = np.unique(self._landmark[rows])
        frames = np.unique(np.concatenate([self._keyframe[rows], self.host[landmarks], np.flatnonzero(free)]))
        place = np.full(len(self.keyframes), -1)
        place[frames] = np.arange(len(frames))
        fixed = ~free[frames]
        given = any(self.keyframes[k].given is not None for k in frames)
        if not fixed.any() and not given:
            fixed[0] = True
        # Where given poses tell the scale, the network's depths count together as one measurement of it.
        together = (self.prior_std / PLACE_STD) ** 2
        share = min(1.0, together / max(len(landmarks), 1)) if given else 1.0
        stretch = np.array([1.0, self.camera.fx / self.camera.fy])
        # observations are wrong alike, and a guess of the focal length counts beside what they tell even so
        guess_std = FOCAL_STD / max(1.0, ALIKE * np.sqrt(len(rows)))
        scene = Scene(
            self.T_camera_world[frames],
            fixed,
            place[self.host[landmarks]],
            self.pixel[landmarks] * stretch,
            self.log_depth[landmarks],
            self.prior[landmarks],
            np.full(len(landmarks), share / self.prior_std**2),
            np.searchsorted(landmarks, self._landmark[rows]),
            place[self._keyframe[rows]],
            self._seen[rows] * stretch,
            self.camera.fx,
            self._guess,
            guess_std if with_focal else 0.0,
        )
        return scene, frames, landmarks, rows


def appended(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """An array with rows behind its last one, in the same memory where there is room: `array` is used no more.

    There is room for half as much again after each time that there was none. Arrays that are made anew for each
    keyframe, a little longer every time, leave holes in memory that nothing fits into.
    """
    count, total = len(array), len(array) + len(rows)
    room = array.base
    if not isinstance(room, np.ndarray) or len(room) < total or room.ctypes.data != array.ctypes.data:
        room = np.empty((total + total // 2, *array.shape[1:]), array.dtype)
        room[:count] = array
    room[count:total] = rows
    return room[:total]
