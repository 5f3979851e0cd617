"""Visual tracking: the camera's pose from colour alone, its scale from a network's depth.

Corners are followed from frame to frame. Where a keyframe shows a new one it becomes a landmark, at the depth that the
network says, brought to the scale of the landmarks around it; every further keyframe that shows it tells its depth
better (bundle adjustment). A frame's pose is where the landmarks project to where they are seen, each counted by how
well its depth is known. Landmarks that left the image and come back are found again, which is what holds drift down.
The network's depths never move a pose by themselves: all keyframes together vote for the one scale of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.tracking.bundle_adjustment import Scene, adjust

REMEMBERED = 300  # keyframes whose images are kept to find their landmarks again
WINDOW = 200  # keyframes that are adjusted together when all frames are done
PredictDepth = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 RGB -> (H, W) float32 metres


@dataclass(frozen=True)
class VisualConfig:
    """How features are followed, when a keyframe is made, what is adjusted. Pixels count at 640 columns."""

    features: int = 500  # followed at a time
    apart: float = 14.0  # pixels between features
    quality: float = 0.002  # of a corner, as a share of the best one's
    window: float = 21.0  # pixels along a side that are compared
    returns: float = 1.0  # image pixels from its start that a feature followed forth and back may end
    pixel_std: float = 0.8  # image pixels: of where a feature is seen
    prior_std: float = 0.3  # of the logarithm of the network's depth, from pixel to pixel
    outlier: float = 3.0  # standard deviations beyond which a feature is on no landmark
    blank: float = 4.0  # grey levels: an image of less contrast shows nothing
    min_inliers: int = 25  # below that the camera is lost
    poor_inliers: int = 50  # below that the pose is doubtful
    keyframe_flow: float = 35.0  # pixels that features have moved since the last keyframe ...
    keyframe_share: float = 0.65  # ... or share of them that is still followed
    again: int = 400  # landmarks at most that are looked for again in a keyframe
    again_radius: float = 24.0  # pixels from where they should be
    adjusted: int = 16  # keyframes that move in a bundle adjustment


@dataclass(eq=False)
class Keyframe:
    """A frame that landmarks are tied to."""

    index: int
    grey: np.ndarray | None  # (H, W) uint8; None for all but the last ones
    T_camera_world: np.ndarray  # (4, 4)
    ids: np.ndarray  # (N,) landmarks that it shows ...
    descriptors: np.ndarray  # (N, 32) uint8 ... and what they look like in it (ORB)
    level: float = 0.0  # logarithm of the map's depth over the network's, the median of its landmarks
    votes: int = 0  # landmarks with parallax that the level is of


@dataclass(frozen=True, eq=False)
class VisualTracking:
    """What was found of one frame."""

    T_world_camera: np.ndarray  # (4, 4), in the map's unit: see `VisualTracker.scale`
    state: str  # good | poor | lost
    inliers: int
    keyframe: bool
    reason: str = ""


class VisualTracker:
    """Tracks one camera by its images."""

    def __init__(self, camera: Camera, predict_depth: PredictDepth, config: VisualConfig | None = None) -> None:
        self.camera, self.predict_depth = camera, predict_depth
        c, unit = config or VisualConfig(), camera.width / 640
        self.config = replace(
            c, apart=c.apart * unit, window=c.window * unit, keyframe_flow=c.keyframe_flow * unit,
            again_radius=c.again_radius * unit,
        )  # fmt: skip
        self._centre = np.array([camera.cx, camera.cy])
        self.keyframes: list[Keyframe] = []
        # landmarks
        self.host = np.zeros(0, np.int64)
        self.pixel = np.zeros((0, 2))
        self.log_depth = np.zeros(0)
        self.prior = np.zeros(0)
        self.variance = np.zeros(0)  # of log_depth
        self.strikes = np.zeros(0, np.int64)  # frames in which it was seen where it should not be
        # observations, in the order in which they were made
        self.seen_landmark = np.zeros(0, np.int64)
        self.seen_keyframe = np.zeros(0, np.int64)
        self.seen_pixel = np.zeros((0, 2))
        # what is being followed
        self._grey: np.ndarray | None = None
        self._pixels = np.zeros((0, 2), np.float32)
        self._ids = np.zeros(0, np.int64)
        self._T = np.eye(4)  # camera from world
        self._velocity = np.zeros(6)
        self._exposure: tuple[float, float] | None = None
        self._started = 0  # landmarks followed at the last keyframe
        self._orb = cv2.ORB.create(1000)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
        self._at_keyframe = np.zeros((0, 2), np.float32)  # where each followed feature was at the last keyframe

    # one frame

    def __call__(self, index: int, color: np.ndarray) -> VisualTracking:
        """Find the pose of the next frame, (H, W, 3) uint8 RGB."""
        grey = self._exposed(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY))
        if not self.keyframes:
            if grey.std() < self.config.blank:
                return VisualTracking(np.eye(4), "lost", 0, False, "the image shows nothing to hold on to")
            self._grey = grey
            self._make_keyframe(index, grey, color)
            return VisualTracking(poses.inverse(self._T), "good", len(self._ids), True)
        expected = poses.exp(self._velocity) @ self._T
        assert self._grey is not None
        self._follow(self._grey, grey, expected)
        self._grey = grey
        found, distances = self._locate(expected)
        if not self._holds(distances):
            inliers = int((distances < self.config.outlier).sum())
            if not self._relocalised(grey):
                self._velocity[:] = 0
                reason = f"only {inliers} landmarks are where they should be"
                return VisualTracking(poses.inverse(self._T), "lost", inliers, False, reason)
            found, distances = self._locate(self._T)
            self._velocity[:] = 0
        else:
            self._velocity = poses.log(found @ poses.inverse(self._T))
        good = distances < self.config.outlier
        inliers = int(good.sum())
        self._T = found
        self.strikes[self._ids[~good]] += 1
        keep = good | (self.strikes[self._ids] < 3)
        self._select(keep)
        good = good[keep]
        flow = np.median(np.linalg.norm(self._pixels[good] - self._at_keyframe[good], axis=1))
        keyframe = bool(flow > self.config.keyframe_flow or inliers < self.config.keyframe_share * self._started)
        if keyframe:
            self._make_keyframe(index, grey, color, good)
        state = "good" if inliers >= self.config.poor_inliers else "poor"
        return VisualTracking(poses.inverse(self._T), state, inliers, keyframe)

    def _holds(self, distances: np.ndarray) -> bool:
        """Whether enough of the followed landmarks are where the pose says."""
        inliers = int((distances < self.config.outlier).sum())
        return inliers >= max(self.config.min_inliers, 0.3 * len(distances))

    def _exposed(self, grey: np.ndarray) -> np.ndarray:
        """The image with the brightness and contrast of the one before, so that exposure is no motion."""
        mean, std = float(grey.mean()), max(float(grey.std()), 1.0)
        if self._exposure is None or std < self.config.blank:
            if std >= self.config.blank:
                self._exposure = (mean, std)
            return grey
        gain = np.clip(self._exposure[1] / std, 0.5, 2.0)
        offset = np.clip(self._exposure[0] - gain * mean, -100, 100)
        # followed slowly back to the camera's own, or a walk into the dark would saturate
        self._exposure = tuple(0.95 * old + 0.05 * new for old, new in zip(self._exposure, (mean, std)))  # type: ignore[assignment]
        return np.clip(grey * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)

    def _select(self, keep: np.ndarray) -> None:
        self._pixels, self._ids, self._at_keyframe = self._pixels[keep], self._ids[keep], self._at_keyframe[keep]

    def _follow(self, before: np.ndarray, now: np.ndarray, expected: np.ndarray) -> None:
        """Pyramidal Lucas and Kanade from where each landmark is expected; what does not come back is dropped."""
        shown = self._project(self._ids, expected)[0].astype(np.float32)
        drift = self._pixels - self._project(self._ids, self._T)[0]
        start = np.where(np.isfinite(shown).all(axis=1, keepdims=True), shown + drift, self._pixels).astype(np.float32)
        there, keep = self._matched(before, now, self._pixels, start)
        self._pixels = there
        self._select(keep)

    def _matched(
        self, before: np.ndarray, now: np.ndarray, pixels: np.ndarray, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where patches around pixels (N, 2) of one image are in another, and which of them are there for certain."""
        if len(pixels) == 0:
            return pixels, np.zeros(0, bool)
        side = (max(9, round(self.config.window)) | 1,) * 2
        size, margin = np.array([self.camera.width, self.camera.height]), 4
        start = np.clip(start, margin, size - 1 - margin).astype(np.float32)
        flags = cv2.OPTFLOW_USE_INITIAL_FLOW
        there, found, _ = cv2.calcOpticalFlowPyrLK(
            before, now, pixels[:, None], start[:, None].copy(), winSize=side, maxLevel=3, flags=flags
        )
        back, again, _ = cv2.calcOpticalFlowPyrLK(
            now, before, there, pixels[:, None].copy(), winSize=side, maxLevel=1, flags=flags
        )
        there = there.reshape(-1, 2)
        keep = (found.ravel() > 0) & (again.ravel() > 0)
        keep &= np.linalg.norm(back.reshape(-1, 2) - pixels, axis=1) < self.config.returns
        return there, keep & ((there >= margin) & (there < size - margin)).all(axis=1)

    def _project(self, ids: np.ndarray, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels (N, 2), camera-frame points (N, 3) and their derivatives by the logarithm of depth (N, 3)."""
        K = self.camera
        T_hosts = np.stack([k.T_camera_world for k in self.keyframes])[self.host[ids]]
        T = T_camera_world @ poses.inverse(T_hosts)
        z = np.exp(self.log_depth[ids])
        rays = np.column_stack([self.pixel[ids] / K.fx, np.ones(len(ids))])
        rays[:, 1] *= K.fx / K.fy
        along = np.einsum("nij,nj->ni", T[:, :3, :3], rays) * z[:, None]
        points = along + T[:, :3, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            shown = points[:, :2] / points[:, 2:] * [K.fx, K.fy] + self._centre
        shown[points[:, 2] < 0.05] = np.nan
        return np.asarray(shown), points, along

    def _described(self, grey: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which of the pixels (N, 2) can be described, those pixels, and their descriptors (M, 32), upright."""
        corners = [cv2.KeyPoint(float(u), float(v), 31, 0, 0, 0, n) for n, (u, v) in enumerate(pixels)]
        kept, descriptors = self._orb.compute(grey, corners) if corners else ((), None)
        if descriptors is None:
            return np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
        which = np.array([corner.class_id for corner in kept])
        return which, pixels[which].astype(np.float32), descriptors

    def _relocalised(self, grey: np.ndarray) -> bool:
        """Find a lost camera: corners of the image matched to those of keyframes, the pose by three of them (P3P).

        The landmarks that it sees are followed from now on.
        """
        apart = max(3, round(0.5 * self.config.apart))
        corners = cv2.goodFeaturesToTrack(grey, 2 * self.config.features, self.config.quality, apart)
        pixels, descriptors = self._described(grey, np.zeros((0, 2)) if corners is None else corners.reshape(-1, 2))[1:]
        if len(pixels) < self.config.min_inliers:
            return False
        recent = range(len(self.keyframes) - 1, -1, -max(1, len(self.keyframes) // 30))
        for k in recent:
            ids, theirs = self.keyframes[k].ids, self.keyframes[k].descriptors
            if len(ids) < self.config.min_inliers:
                continue
            pairs = [
                two[0]
                for two in self._matcher.knnMatch(descriptors, theirs, k=2)
                if len(two) == 2 and two[0].distance < 0.8 * two[1].distance
            ]
            if len(pairs) < self.config.min_inliers:
                continue
            mine, there = np.array([p.queryIdx for p in pairs]), ids[[p.trainIdx for p in pairs]]
            points = self._project(there, np.eye(4))[1]
            ok, rotation, shift, inliers = cv2.solvePnPRansac(
                points, pixels[mine].astype(np.float64), self.camera.K, None, reprojectionError=4.0, iterationsCount=200
            )
            if not ok or inliers is None or len(inliers) < self.config.min_inliers:
                continue
            chosen = inliers.ravel()
            before = self._T, self._ids, self._pixels
            self._T = poses.from_rotation_translation(cv2.Rodrigues(rotation)[0], shift.ravel())
            self._ids, first = np.unique(there[chosen], return_index=True)
            self._pixels = pixels[mine[chosen[first]]]
            found, distances = self._locate(self._T)
            if self._holds(distances):
                self._T = found
                self._at_keyframe = self._pixels.copy()
                return True
            self._T, self._ids, self._pixels = before
        return False

    def _locate(self, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pose, camera from world, from which the followed landmarks are seen where they are, from a guess.

        Gauss-Newton with Huber's weights; an error along the line on which a landmark of uncertain depth would be
        seen counts less. Returns the pose, and each landmark's distance in standard deviations.
        """
        c, K = self.config, self.camera
        ids, pixels = self._ids, self._pixels.astype(np.float64)
        distances = np.full(len(ids), np.inf)
        if len(ids) < 6:
            return T, distances
        for iteration in range(12):
            shown, points, along = self._project(ids, T)
            ok = np.isfinite(shown).all(axis=1)
            z = np.where(ok, points[:, 2], 1.0)
            J = np.zeros((len(ids), 2, 6))
            for row, (f, axis) in enumerate(((K.fx, 0), (K.fy, 1))):
                g = np.zeros((len(ids), 3))  # derivative of the pixel by the point
                g[:, axis] = f / z
                g[:, 2] = -f * points[:, axis] / z**2
                J[:, row, :3] = g
                J[:, row, 3:] = np.cross(points, g)
            by_depth = np.einsum("nri,ni->nr", J[:, :, :3], along)
            spread = by_depth * np.sqrt(self.variance[ids])[:, None]
            S = c.pixel_std**2 * np.eye(2) + spread[:, :, None] * spread[:, None, :]
            W = np.linalg.inv(S)
            r = np.where(ok[:, None], shown - pixels, 0.0)
            distances = np.where(ok, np.sqrt(np.einsum("nr,nrs,ns->n", r, W, r)), np.inf)
            robust = 2.0 if iteration > 3 else 6.0
            weight = np.where(ok, np.minimum(1.0, robust / np.maximum(distances, 1e-9)), 0.0)
            weight[distances > 8 * robust] = 0
            JW = np.einsum("nri,nrs,n->nis", J, W, weight)
            H = np.einsum("nis,nsj->ij", JW, J) + 1e-6 * np.eye(6)
            step = -np.linalg.solve(H, np.einsum("nis,ns->i", JW, r))
            T = poses.exp(step) @ T
            if iteration > 4 and np.abs(step).max() < 1e-6:
                break
        return T, distances

    # keyframes

    def _make_keyframe(self, index: int, grey: np.ndarray, color: np.ndarray, good: np.ndarray | None = None) -> None:
        k = len(self.keyframes)
        predicted = self.predict_depth(color)
        if k >= REMEMBERED:
            self.keyframes[k - REMEMBERED].grey = None  # memory stays flat
        self.keyframes.append(Keyframe(index, grey, self._T, np.zeros(0, np.int64), np.zeros((0, 32), np.uint8)))
        if good is not None:
            self._observe(self._ids[good], self._pixels[good], k)
            self._find_again(grey, k)
            self._adjust(k)
            self._vote(predicted, k)
        self._replenish(grey, predicted, k)
        which, _, descriptors = self._described(grey, self._pixels)
        self.keyframes[k].ids, self.keyframes[k].descriptors = self._ids[which], descriptors
        self._at_keyframe = self._pixels.copy()
        self._started = len(self._ids)

    def _observe(self, ids: np.ndarray, pixels: np.ndarray, k: int) -> None:
        self.seen_landmark = np.concatenate([self.seen_landmark, ids])
        self.seen_keyframe = np.concatenate([self.seen_keyframe, np.full(len(ids), k)])
        self.seen_pixel = np.concatenate([self.seen_pixel, pixels - self._centre])

    def _find_again(self, grey: np.ndarray, k: int) -> None:
        """Look for landmarks that are not followed but should be in the image; what is found is followed again."""
        c = self.config
        idle = np.ones(len(self.host), bool)
        idle[self._ids] = False
        idle &= self.host >= len(self.keyframes) - REMEMBERED
        idle &= (self.strikes < 3) & (self.variance < 0.1**2)
        ids = np.flatnonzero(idle)
        if len(ids) == 0:
            return
        shown, points, along = self._project(ids, self._T)
        depth = np.exp(self.log_depth[ids])
        with np.errstate(invalid="ignore"):
            size = np.array([self.camera.width, self.camera.height])
            inside = np.all((shown > 8) & (shown < size - 8), axis=1)
            lengths = np.linalg.norm(points, axis=1) * np.linalg.norm(along, axis=1)
            cosine = np.einsum("ni,ni->n", points, along) / lengths  # of the angle to the view it was first seen in
            inside &= (cosine > 0.85) & (points[:, 2] > 0.6 * depth) & (points[:, 2] < 1.6 * depth)
        ids, shown = ids[inside], shown[inside]
        if len(ids) > c.again:  # the best known ones
            best = np.argsort(self.variance[ids], kind="stable")[: c.again]
            ids, shown = ids[best], shown[best]
        for h in np.unique(self.host[ids]):
            mine = self.host[ids] == h
            pixels = (self.pixel[ids[mine]] + self._centre).astype(np.float32)
            image = self.keyframes[h].grey
            assert image is not None  # only landmarks of such keyframes are idle
            there, keep = self._matched(image, grey, pixels, shown[mine].astype(np.float32))
            keep &= np.linalg.norm(there - shown[mine], axis=1) < c.again_radius
            found = ids[mine][keep]
            self._observe(found, there[keep], k)
            self._ids = np.concatenate([self._ids, found])
            self._pixels = np.concatenate([self._pixels, there[keep]]).astype(np.float32)
        self._at_keyframe = self._pixels.copy()

    def _scene(self, free: np.ndarray) -> tuple[Scene, np.ndarray, np.ndarray, np.ndarray]:
        """All that the free keyframes (bool) are tied to, and the keyframes, landmarks and observations in it."""
        touched = np.unique(self.seen_landmark[free[self.seen_keyframe]])
        touched = np.union1d(touched, np.flatnonzero(free[self.host]))
        used = np.isin(self.seen_landmark, touched)
        used &= self.strikes[self.seen_landmark] < 3
        rows = np.flatnonzero(used)
        rows = rows[np.argsort(self.seen_landmark[rows], kind="stable")]
        landmarks = np.unique(self.seen_landmark[rows])
        frames = np.unique(np.concatenate([self.seen_keyframe[rows], self.host[landmarks], np.flatnonzero(free)]))
        place = np.full(len(self.keyframes), -1)
        place[frames] = np.arange(len(frames))
        K = self.camera
        fixed = ~free[frames]
        if not fixed.any():
            fixed[0] = True
        stretch = np.array([1.0, K.fx / K.fy])
        scene = Scene(
            np.stack([self.keyframes[f].T_camera_world for f in frames]),
            fixed,
            place[self.host[landmarks]],
            self.pixel[landmarks] * stretch,
            self.log_depth[landmarks],
            self.prior[landmarks],
            np.full(len(landmarks), 1 / self.config.prior_std**2),
            np.searchsorted(landmarks, self.seen_landmark[rows]),
            place[self.seen_keyframe[rows]],
            self.seen_pixel[rows] * stretch,
            K.fx,
        )
        return scene, frames, landmarks, rows

    def _adjust(self, k: int, iterations: int = 8) -> None:
        """Adjust the last keyframes and those that see the same landmarks; the others hold the world still."""
        count = self.config.adjusted
        free = np.zeros(len(self.keyframes), bool)
        if len(self.keyframes) <= 2 * count:
            free[:] = True
        else:
            free[-count:] = True
            shared = np.bincount(
                self.seen_keyframe[np.isin(self.seen_landmark, self._ids)], minlength=len(self.keyframes)
            )
            shared[free] = 0
            best = np.argsort(-shared, kind="stable")[:count]
            free[best[shared[best] >= 10]] = True
            free[0] = False
        self._solve(free, iterations)
        self._T = self.keyframes[k].T_camera_world

    def _solve(self, free: np.ndarray, iterations: int) -> None:
        scene, frames, landmarks, rows = self._scene(free)
        if len(rows) < 20:
            return
        found = adjust(scene, iterations, pixel_std=self.config.pixel_std)
        for n, f in enumerate(frames):
            self.keyframes[f].T_camera_world = found.T_camera_world[n]
        self.log_depth[landmarks] = found.log_depth
        self.variance[landmarks] = 1 / np.maximum(found.information, 1e-9) + 0.01**2
        wrong = found.residuals > 2 * self.config.outlier * self.config.pixel_std
        keep = np.ones(len(self.seen_landmark), bool)
        keep[rows[wrong]] = False
        self.strikes[np.unique(self.seen_landmark[rows[wrong]])] += 1
        self.seen_landmark, self.seen_keyframe = self.seen_landmark[keep], self.seen_keyframe[keep]
        self.seen_pixel = self.seen_pixel[keep]

    def _vote(self, predicted: np.ndarray, k: int) -> None:
        """What the network's depth of keyframe k says of the map's scale."""
        shown, points, _ = self._project(self._ids, self._T)
        size = np.array([self.camera.width, self.camera.height])
        ok = np.isfinite(shown).all(axis=1) & (self.variance[self._ids] < 0.15**2)
        ok &= np.all((np.nan_to_num(shown, nan=-1) >= 0) & (np.nan_to_num(shown, nan=-1) < size - 1), axis=1)
        if ok.sum() < 10:
            self.keyframes[k].level = self.keyframes[k - 1].level
            return
        u, v = shown[ok].astype(int).T
        self.keyframes[k].level = float(np.median(np.log(points[ok, 2] / predicted[v, u])))
        self.keyframes[k].votes = int(ok.sum())

    def _replenish(self, grey: np.ndarray, predicted: np.ndarray, k: int) -> None:
        """New landmarks where none are followed, at the network's depth and the scale of the map around."""
        wanted = self.config.features - len(self._ids)
        free = np.full(grey.shape, 255, np.uint8)
        apart = max(3, round(self.config.apart))
        for u, v in self._pixels.astype(int).tolist():
            cv2.circle(free, (u, v), apart, 0, -1)
        margin = 8
        free[:margin] = free[-margin:] = 0
        free[:, :margin] = free[:, -margin:] = 0
        corners = cv2.goodFeaturesToTrack(grey, max(wanted, 1), self.config.quality, apart, mask=free)
        if corners is None or wanted < 10:
            return
        corners = corners.reshape(-1, 2)
        u, v = corners.astype(int).T
        logs = np.log(predicted[v, u].astype(np.float64)) + self.keyframes[k].level
        n, first = len(corners), len(self.host)
        self.host = np.concatenate([self.host, np.full(n, k)])
        self.pixel = np.concatenate([self.pixel, corners - self._centre])
        self.log_depth = np.concatenate([self.log_depth, logs])
        self.prior = np.concatenate([self.prior, logs])
        self.variance = np.concatenate([self.variance, np.full(n, self.config.prior_std**2)])
        self.strikes = np.concatenate([self.strikes, np.zeros(n, np.int64)])
        self._ids = np.concatenate([self._ids, np.arange(first, first + n)])
        self._pixels = np.concatenate([self._pixels, corners]).astype(np.float32)

    # the whole

    @property
    def scale(self) -> tuple[float, float]:
        """Metres in the map's unit, by the votes of all keyframes, and its relative standard deviation."""
        levels = np.array([k.level for k in self.keyframes if k.votes])
        if len(levels) == 0:
            return 1.0, 1.0
        middle = float(np.median(levels))
        spread = 1.4826 * float(np.median(np.abs(levels - middle)))
        return float(np.exp(-middle)), max(spread, 0.05) / np.sqrt(max(len(levels) / 4, 1))

    def finish(self) -> None:
        """Adjust everything once more, when the last frame is done; long recordings a window at a time."""
        count = len(self.keyframes)
        if count < 3:
            return
        for first in range(0, max(1, count - WINDOW // 2), WINDOW // 2):
            free = np.zeros(count, bool)
            free[first : first + WINDOW] = True
            self._solve(free, 20)
