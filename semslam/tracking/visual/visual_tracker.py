"""Visual tracking: the camera's pose from colour alone, its scale from a network's depth.

Corners are followed from frame to frame. Where a keyframe shows a new one it becomes a landmark, at the depth that the
network says, brought to the scale of the landmarks around it; every further keyframe that shows it tells its depth
better (bundle adjustment). A frame's pose is where the landmarks project to where they are seen, each counted by how
well its depth is known. Landmarks that left the image and come back are found again, which is what holds drift down.
The network's depths never move a pose by themselves: all keyframes together vote for the one scale of the map. Where
nothing is known of the camera, its focal length is adjusted with the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.engine.packed import PackedFile, unpack
from semslam.tracking.optical_flow import corners_apart, evened
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.lens import Straightening
from semslam.tracking.visual.lost_camera import described, found_again
from semslam.tracking.visual.patches import matched, matched_to_hosts
from semslam.tracking.visual.resection import located
from semslam.tracking.visual.sparse_map import BORDER, STRIKES, SparseMap

REMEMBERED = 300  # keyframes whose images are kept to find their landmarks again
HARDLY = 0.5  # of the flow that makes a keyframe: with less, nothing that is followed should be lost
DESCRIBED = 8  # of so many older keyframes one can be found again
# index of a frame, (H, W, 3) uint8 RGB, focal length -> depth, (H, W) metres, and its confidence, (H, W) in 0..1
PredictDepth = Callable[[int, np.ndarray, float], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class VisualTracking:
    """What was found of one frame."""

    T_world_camera: np.ndarray  # (4, 4), in the map's unit: see `SparseMap.scale`
    state: str  # good | poor | lost
    inliers: int
    keyframe: bool
    reason: str = ""
    blank: bool = False  # the image shows nothing to hold on to


class Seen(NamedTuple):
    """What is kept of a frame, to find its pose once more when its landmarks are known better."""

    keyframe: int  # the last one by then
    T_camera_keyframe: np.ndarray  # (4, 4), as it was found then
    record: int | None  # its landmarks and their pixels in the tracker's file; None: it is the keyframe itself


class VisualTracker:
    """Tracks one camera by its images."""

    def __init__(
        self,
        camera: Camera,
        predict_depth: PredictDepth,
        config: VisualConfig | None = None,
        focal_known: bool = True,
        folder: Path | None = None,
    ) -> None:
        """focal_known: else the focal length of `camera` is a guess; `map.camera` has what was found.
        folder: of `PackedFile`."""
        self.predict_depth = predict_depth
        self.config = c = (config or VisualConfig()).in_images(max(camera.shape))
        given_std = c.given_std, float(np.radians(c.given_turn_std_deg))
        self.map = SparseMap(camera, c.pixel_std, c.prior_std, focal_known, given_std)
        self.size = np.array([camera.width, camera.height])  # of the images, pixels
        self.forced = 0  # keyframes that had to be made as much was lost of what is followed, and hardly anything moved
        self._seen: dict[int, Seen] = {}  # by the indices of frames that were not lost
        # of those that are no keyframes: landmarks, and the bits of their pixels
        self._records = PackedFile(folder=folder, or_memory=True)
        self._predictor = ThreadPoolExecutor(1, thread_name_prefix="depth")
        # what is being followed
        self._grey: np.ndarray | None = None
        self._pixels = np.zeros((0, 2), np.float32)
        self._ids = np.zeros(0, np.int64)
        self._T = np.eye(4)  # camera from world
        self._given: np.ndarray | None = None  # the same, as it was given of this frame
        self._velocity = np.zeros(6)  # by which the camera moves a frame
        self._found = 0  # the last frame that was not lost
        self._lens: Camera | None = None  # of the images, where the map is without its distortion ...
        self._straight: Callable[[np.ndarray], np.ndarray] | None = None  # ... and pixels (N, 2) of them without it
        self._readout, self._twists = np.zeros(2), np.zeros((0, 6))  # see `unrolled`; no twists where nothing is undone
        self._started = 0  # landmarks followed at the last keyframe
        self._at_keyframe = np.zeros((0, 2), np.float32)  # where each followed feature was at the last keyframe

    # one frame

    def __call__(self, index: int, color: np.ndarray, given: np.ndarray | None = None) -> VisualTracking:
        """Find the pose of the next frame, (H, W, 3) uint8 RGB.

        given: T_world_camera (4, 4) that is known beforehand, about as well as `VisualConfig.given_std` says. Where the
        first frame has one, its world and its metre are the map's, and a frame that is lost stays where it was given.
        """
        found = self._tracked(index, color, given)
        if found.state != "lost":
            k = len(self.map.keyframes) - 1
            way = poses.inverse(found.T_world_camera) @ poses.inverse(self.map.T_camera_world[k])
            record, self._found = None, index
            if not found.keyframe:
                record = self._records.add(
                    self._ids.astype(np.int32), self._pixels.astype(np.float32).ravel().view(np.int32)
                )
            self._seen[index] = Seen(k, way, record)
        return found

    def close(self) -> None:
        """End the thread that predicts depth: no more frames come. Poses and map stay."""
        self._predictor.shutdown()

    def pose(self, index: int) -> np.ndarray | None:
        """T_world_camera (4, 4) of a frame by all that the map knows now, in its unit; None where the frame was lost.

        When a frame was tracked, the newest of its landmarks had no depth but the network's.
        """
        seen = self._seen.get(index)
        if seen is None:
            return None
        T = seen.T_camera_keyframe @ self.map.T_camera_world[seen.keyframe]
        if seen.record is None:
            return poses.inverse(T)
        ids, bits = (unpack(packed) for packed in self._records[seen.record])
        known, pixels = self.map.strikes[ids] < STRIKES, bits.view(np.float32).reshape(-1, 2)
        if self._straight is not None:
            pixels = self._straight(pixels)
        if len(self._twists):
            centre = np.array([self.map.camera.cx, self.map.camera.cy])
            depth = self.map.project(ids, T).points[:, 2]
            pixels = pixels - self.map.read_late(pixels - centre, depth, self._readout, self._twists[index])
        if known.sum() >= self.config.min_inliers:
            found, distances = located(self.map, T, ids[known], pixels[known])
            T = found if self.config.holds(distances) else T
        return poses.inverse(T)

    def _tracked(self, index: int, color: np.ndarray, given: np.ndarray | None) -> VisualTracking:
        before, self._given = self._given, None if given is None else poses.inverse(given)
        grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
        blank = bool(grey.std() < self.config.blank)
        grey = evened(grey, self.config.window)
        if not self.map.keyframes:
            if blank:
                return VisualTracking(np.eye(4), "lost", 0, False, "the image shows nothing to hold on to", blank)
            self._grey = grey
            self._T = self._T if self._given is None else self._given
            self._make_keyframe(index, grey, color)
            return VisualTracking(poses.inverse(self._T), "good", len(self._ids), True)
        expected = poses.exp(self._velocity) @ self._T
        if before is not None and self._given is not None:
            expected = self._given @ poses.inverse(before) @ self._T
        assert self._grey is not None
        last = self._grey, self._pixels, self._ids, self._at_keyframe
        self._follow(self._grey, grey, expected)
        self._grey = grey
        found, distances = located(self.map, expected, self._ids, self._pixels, self._given)
        if not self.config.holds(distances):
            inliers = self.config.inliers(distances)
            self._velocity[:] = 0
            reason = f"only {inliers} landmarks are where they should be"
            if self._given is not None:
                self._T = self._given
                self._select(np.zeros(len(self._ids), bool))
                if not blank:
                    self._make_keyframe(index, grey, color)
                return VisualTracking(poses.inverse(self._T), "poor", inliers, bool(len(self._ids)), reason, blank)
            if (again := found_again(self.map, grey, self.config)) is None:
                # the next image meets the last one that was not lost: what is followed into another scene comes to
                # rest there, and few landmarks whose depth is unsure fit anywhere
                self._grey, self._pixels, self._ids, self._at_keyframe = last
                return VisualTracking(poses.inverse(self._T), "lost", inliers, False, reason, blank)
            self._T, self._ids, self._pixels = again
            self._at_keyframe = self._pixels.copy()
            found, distances = located(self.map, self._T, self._ids, self._pixels)
        else:
            self._velocity = poses.log(found @ poses.inverse(self._T)) / (index - self._found)
        self._T = found
        good = distances < self.config.outlier
        inliers = int(good.sum())
        self.map.strikes[self._ids[~good]] += 1
        keep = good | (self.map.strikes[self._ids] < STRIKES)
        self._select(keep)
        keyframe = self._is_keyframe(good[keep])
        if keyframe:
            self._make_keyframe(index, grey, color, good[keep])
        state = "good" if inliers >= self.config.poor_inliers else "poor"
        return VisualTracking(poses.inverse(self._T), state, inliers, keyframe, blank=blank)

    def _is_keyframe(self, good: np.ndarray) -> bool:
        """Whether much has moved, or left the image, since the last keyframe. good: (N,) bool, features on landmarks"""
        flow = np.median(np.linalg.norm(self._pixels[good] - self._at_keyframe[good], axis=1))
        left = bool(good.sum() < self.config.keyframe_share * self._started)
        self.forced += left and bool(flow < HARDLY * self.config.keyframe_flow)
        return left or bool(flow > self.config.keyframe_flow)

    def _select(self, keep: np.ndarray) -> None:
        self._pixels, self._ids, self._at_keyframe = self._pixels[keep], self._ids[keep], self._at_keyframe[keep]

    def _follow(self, before: np.ndarray, now: np.ndarray, expected: np.ndarray) -> None:
        """Follow each landmark from where it is expected; what does not come back is dropped."""
        shown = self.map.project(self._ids, expected).pixels
        drift = self._pixels - self.map.project(self._ids, self._T).pixels
        start = np.where(np.isfinite(shown).all(axis=1, keepdims=True), shown + drift, self._pixels)
        self._pixels, keep = matched(before, now, self._pixels, start, self.config)
        self._select(keep)

    # keyframes

    def _make_keyframe(self, index: int, grey: np.ndarray, color: np.ndarray, good: np.ndarray | None = None) -> None:
        """Make the present frame a keyframe. good: (N,) bool, which of the followed features are on their landmarks."""
        # computed beside the search for landmarks and their adjustment, which need it not
        focal = self.map.camera.fx
        prediction = self._predictor.submit(self.predict_depth, index, color, focal)
        k = self.map.add_keyframe(index, grey, self._T, self._given)
        if k >= REMEMBERED:
            self._forget(k - REMEMBERED)
        followed = None
        if good is not None:
            self.map.observe(self._ids[good], self._pixels[good], k)
            self._find_again(grey, k)
            self.map.adjust_recent(self._ids, self.config.adjusted)
            self._T = self.map.T_camera_world[k]
        predicted, confidence = prediction.result()
        if good is not None:
            followed = self.map.vote(k, self.map.votes(self._ids, self._pixels, predicted, confidence, focal))
        level = self.map.keyframes[max(k - 1, 0)].level if followed is None else followed.level
        self.map.keyframes[k].level = level
        # the focal length may have been adjusted since: depth as it would be said now
        self._replenish(grey, predicted * np.float32(self.map.camera.fx / focal), k)
        self.map.keyframes[k].votes = self.map.votes(self._ids, self._pixels, predicted, confidence, focal)
        which, _, descriptors = described(grey, self._pixels)
        self.map.keyframes[k].ids, self.map.keyframes[k].descriptors = self._ids[which].astype(np.int32), descriptors
        self._at_keyframe = self._pixels.copy()
        self._started = len(self._ids)

    def _forget(self, k: int) -> None:
        """Let go of the image of an old keyframe, and of what most of them look like, which is most of its memory."""
        old = self.map.keyframes[k]
        old.grey = None
        if k % DESCRIBED:
            old.ids, old.descriptors = old.ids[:0].copy(), old.descriptors[:0].copy()

    def _find_again(self, grey: np.ndarray, k: int) -> None:
        """Look for landmarks that are not followed but should be in the image; what is found is followed again."""
        ids, pixels = self._shown(grey, k, self._ids)
        self.map.observe(ids, pixels, k)
        self._ids = np.concatenate([self._ids, ids])
        self._pixels = np.concatenate([self._pixels, pixels]).astype(np.float32)

    def _shown(self, grey: np.ndarray, k: int, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (N,) besides the known ones that keyframe k shows, and where (N, 2)."""
        ids, expected = self.map.expected_again(known, k, self.config.again)
        pixels, found = matched_to_hosts(self.map, grey, ids, expected, self.config)
        return ids[found], pixels[found]

    def finish(self) -> None:
        """Adjust the whole map, look in every keyframe for landmarks of earlier and later ones, and adjust it again.

        A keyframe was tied only to what was known when it was made, and to that where the path had drifted to.
        """
        self.map.adjust_all()
        for k, keyframe in enumerate(self.map.keyframes):
            if keyframe.grey is not None:
                self.map.observe(*self._shown(keyframe.grey, k, self.map.shown_by(k)), k)
        self.map.adjust_all()

    def straightened(self, lens: Camera) -> VisualTracker:
        """What was tracked, once it is finished, as if the images had been those of a lens without its distortion.

        lens: of the images that were tracked. Their landmarks are moved, and adjusted; no image is looked at again.
        """
        before, after = Straightening(self.map.camera if self._lens is None else self._lens), Straightening(lens)
        other = copy.copy(self)
        other._lens, other._straight = lens, after.straight
        other.map = self.map.seen_by_camera(after.camera, lambda pixels: after.straight(before.recorded(pixels)))
        other.map.adjust_all()
        return other

    def unrolled(self, readout: np.ndarray, twists: np.ndarray) -> VisualTracker:
        """What was tracked, once it is finished, as if each image had been read at one moment; likewise.

        readout: (2,) seconds, see `Camera.elapsed`. twists: (N, 6) a second of the camera at each frame, in its own
        frame, in the map's unit.
        """
        other = copy.copy(self)
        other._readout, other._twists = readout, twists
        other.map = self.map.unrolled(readout, twists[[keyframe.index for keyframe in self.map.keyframes]])
        other.map.adjust_all()
        return other

    def with_focal(self, focal: float) -> VisualTracker:
        """What was tracked, once it is finished, as if an unknown camera had this focal length, pixels along x.

        The map is adjusted with it; adjustments to come may change it.
        """
        other, camera = copy.copy(self), self.map.camera.with_focal(focal)
        other.map = found = self.map.seen_by_camera(camera, lambda pixels: pixels)
        found.strikes[:] = 0
        found.focal_known = True
        found.adjust_all()
        found.focal_known = self.map.focal_known
        return other

    def _replenish(self, grey: np.ndarray, predicted: np.ndarray, k: int) -> None:
        """New landmarks where none are followed, at the network's depth and the scale of the map around."""
        wanted = self.config.features - len(self._ids)
        if wanted < 10:
            return
        apart = max(3, round(self.config.apart))
        corners = corners_apart(grey, self._pixels, wanted, self.config.quality, apart, BORDER)
        if len(corners) == 0:
            return
        depth = predicted[tuple(corners.astype(int).T[::-1])]
        corners, depth = corners[depth > 0], depth[depth > 0]
        logs = np.log(depth.astype(np.float64)) + self.map.keyframes[k].level
        self._ids = np.concatenate([self._ids, self.map.add_landmarks(k, corners, logs)])
        self._pixels = np.concatenate([self._pixels, corners]).astype(np.float32)
