"""What the images say of the camera's motion: points followed from frame to frame, held against the poses.

A point with depth that is followed from frame a to frame b should lie where the poses put it. How far off it lies, in
pixels, tells poses whose positions are too long, poses that belong to other frames, and single wrong ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.files.failures import raise_passing
from semslam.frame import evenly_spread
from semslam.tracking.features import sampled_pose
from semslam.tracking.optical_flow import follow
from sequences import Sequence as Recording

STRETCHES = 14  # of frames in which points are followed
STRETCH = 6  # frames
FRAMES = 8  # whose depth tells that of a recording
POINTS = 250  # followed in each, at most
FEWEST_POINTS = 12
FEWEST_STRETCHES = 5
FAR = 60.0  # pixels at 640 wide that points move in a long stretch
LONGEST = 40  # frames of one
COMES_BACK = 1.0  # pixels from where it came from, at most, that a followed point ends


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points followed from one frame to a later one."""

    first: int  # frame indices
    last: int
    pixels: np.ndarray  # (N, 2) in the first frame
    depth: np.ndarray  # (N,) metres there
    found: np.ndarray  # (N, 2) pixels in the last frame

    def residual(self, camera: Camera, T_last_first: np.ndarray) -> float:
        """Median distance in pixels of the points from where the motion puts them."""
        moved = poses.transform(T_last_first, camera.points(self.pixels, self.depth))
        ahead = moved[:, 2] > 1e-3
        if ahead.sum() < 0.5 * len(moved):
            return np.inf
        return float(np.median(np.linalg.norm(camera.project(moved[ahead]) - self.found[ahead], axis=1)))

    def motion(self, camera: Camera) -> tuple[np.ndarray, float] | None:
        """T_last_first (4, 4) that the points tell by themselves, and the share of them that it explains; None where
        they tell none."""
        points = camera.points(self.pixels, self.depth)
        sampled = sampled_pose(points, self.found, camera, 2 * notable(camera), tries=300, confidence=0.999)
        if sampled is None:
            return None
        return sampled.T_camera_points, len(sampled.inliers) / len(points)

    @property
    def flow(self) -> float:
        """Median distance in pixels that the points moved."""
        return float(np.median(np.linalg.norm(self.found - self.pixels, axis=1)))


def stretches(recording: Recording, count: int = STRETCHES) -> list[Tracks]:
    """Points followed over evenly spread stretches of a recording; empty without depth or in frames without texture."""
    starts = evenly_spread(range(max(len(recording) - STRETCH, 0)), count)
    found = (followed(recording, list(range(start, start + STRETCH + 1))) for start in starts)
    return [tracks for tracks in found if tracks is not None]


def long_stretches(recording: Recording) -> list[Tracks]:
    """The same over stretches in which the camera moves a long way, so that noise of poses is small beside it."""
    far = FAR * recording.camera.width / 640
    found = []
    for start in evenly_spread(range(max(len(recording) - STRETCH, 0)), STRETCHES):
        indices = range(start, min(start + LONGEST, len(recording)))
        tracks = next((tracks for tracks in _following(recording, indices) if tracks.flow > far), None)
        found += [] if tracks is None else [tracks]
    return found


def followed(recording: Recording, indices: Sequence[int]) -> Tracks | None:
    """Points of the first of some frames in the last of them; None where fewer than a dozen could be followed."""
    tracks = next(iter(deque(_following(recording, indices), maxlen=1)), None)
    return tracks if tracks is not None and tracks.last == indices[-1] else None


def _following(recording: Recording, indices: Sequence[int]) -> Iterator[Tracks]:
    """Points of the first of some frames in each of the others, up to where fewer than a dozen can be followed."""
    first = recording.try_read(indices[0])
    if first is None or first.depth is None:
        return
    small = first.camera.width / 640
    grey = cv2.cvtColor(first.color, cv2.COLOR_RGB2GRAY)
    corners = cv2.goodFeaturesToTrack(grey, POINTS, 0.01, max(3.0, 8 * small))
    if corners is None:
        return
    pixels = corners.reshape(-1, 2)
    columns, rows = np.rint(pixels).astype(int).T
    depth = first.depth[rows, columns].astype(np.float64)
    kept, at = on_surfaces(first.depth, pixels), pixels
    window = max(9, int(21 * small) | 1)
    for index in indices[1:]:
        try:
            color = recording.color_of(index)  # depth is needed where the points begin, and only there
        except (ValueError, OSError) as problem:
            raise_passing(problem)
            return
        following = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
        at, there = found_again(grey, following, at, window)
        kept = kept & there
        grey = following
        if kept.sum() < FEWEST_POINTS:
            return
        yield Tracks(indices[0], index, pixels[kept].astype(np.float64), depth[kept], at[kept].astype(np.float64))


def median_depth(recording: Recording) -> float:
    """Metres; the median over a few frames of a recording, 2 where none has depth."""
    frames = (recording.try_read(i) for i in evenly_spread(range(len(recording)), FRAMES))
    depth = [f.depth[f.depth > 0][::50] for f in frames if f is not None and f.depth is not None]
    valid = np.concatenate(depth) if depth else np.zeros(0)
    return float(np.median(valid)) if len(valid) else 2.0


def notable(camera: Camera) -> float:
    """Pixels below which points lie where right poses put them, whatever the noise: 1 in images 640 wide."""
    return max(0.4, camera.width / 640)


def found_again(one: np.ndarray, other: np.ndarray, at: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Where points (N, 2) of one grey image are in the other, and which (N,) come back to where they were."""
    to, apart, found = follow(one, other, at, window, start=at)
    return to, found & (apart < COMES_BACK)


def on_surfaces(depth: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Which pixels (N, 2) have depth that is much the same all around: at an edge a point's depth is a guess."""
    nearest, farthest = cv2.erode(depth, np.ones((5, 5))), cv2.dilate(depth, np.ones((5, 5)))
    columns, rows = np.rint(pixels).astype(int).T
    near, far = nearest[rows, columns], farthest[rows, columns]
    return (near > 0) & (far - near < 0.03 * near)
