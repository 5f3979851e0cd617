"""Places to come back to: what a map looks like from a few poses in it, kept small, and a camera found among them.

A place is SIFT features (Lowe, IJCV 2004) of a small image, each with its depth. The descriptors are compared as
RootSIFT (Arandjelovic and Zisserman, CVPR 2012). An image's pose follows from its features found again in the places
that share most of them, see `resection`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.frame import Observation
from semslam.stage import Stage
from semslam.threads import background
from semslam.tracking.relocalisation.resection import BYTES, Described, Located, solved
from semslam.trajectory import Correction

WIDTH = 320  # pixels of the images that are described: wide baselines want coarse features
COUNT = 500  # features of an image, at most
UPSCALED = 0.25  # pixels to the lower right of where they are, OpenCV says that features lie: it doubles images first
RATIO = 0.8  # of the best match's distance to the second best's (Lowe 2004)
MOST = 300  # places; about 15 MB in a run's files, at 50 kB each; twice that where they lie farther apart than at first
APART = (0.12, np.radians(8.0))  # metres, and radians, from a place to the next one, at first
LIKE = np.radians(35.0)  # radians from which features are not found again: what looks another way is another place ...
VAST = 64.0  # ... until, at 280 times `APART`, a 64th of that many times its angle is more: some room must be left
COMPARED = 16  # places with which all features of an image are compared
POOLED = 4  # places whose matches are put together: those of more would drown an agreement
ALIKE = 0.85 * 512**2  # product of two descriptors, whose length is 512, that may be of one point
REACH = 4.0  # metres between places that may show the same things


def described(color: np.ndarray, camera: Camera) -> Described:
    """The features of an image (H, W, 3) uint8 RGB of a camera."""
    grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    if camera.width > WIDTH:
        camera = camera.of_width(WIDTH)
        grey = cv2.resize(grey, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    return Described(camera, *root_sift(grey))


def root_sift(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) float32 and descriptors (N, BYTES) uint8 of the features of an image (H, W) uint8."""
    keypoints, descriptors = cv2.SIFT_create(COUNT, contrastThreshold=0.02).detectAndCompute(grey, None)  # type: ignore[attr-defined]
    if not keypoints:
        return np.zeros((0, 2), np.float32), np.zeros((0, BYTES), np.uint8)
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
    pixels = np.array([keypoint.pt for keypoint in keypoints], np.float32) - np.float32(UPSCALED)
    return pixels, np.minimum(512 * roots, 255).astype(np.uint8)


def _features(color: np.ndarray, depth: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Of an image whose depth (H, W) is known in part: points (N, 3) float32, camera frame, and descriptors (N, BYTES)
    of the features with depth."""
    image = described(color, camera)
    c = image.camera
    u, v = image.pixels.T
    rows = ((v + 0.5) * depth.shape[0] / c.height).astype(int).clip(0, depth.shape[0] - 1)
    columns = ((u + 0.5) * depth.shape[1] / c.width).astype(int).clip(0, depth.shape[1] - 1)
    z = depth[rows, columns]
    points = np.stack([(u - c.cx) / c.fx * z, (v - c.cy) / c.fy * z, z], axis=1).astype(np.float32)
    return points[z > 0], image.descriptors[z > 0]


@dataclass(eq=False)
class Places(Stage):
    """What the map looks like from at most MOST poses, or twice as many, at least APART from one another."""

    indices: list[int] = field(default_factory=list)  # of the frames
    T_world_camera: list[np.ndarray] = field(default_factory=list)
    apart: float = 1.0  # times the distance of APART; doubles where there are too many
    _points: list[np.ndarray] = field(default_factory=list)
    _descriptors: list[np.ndarray] = field(default_factory=list)
    # The features of the newest place, which are found beside the next frames: it takes as long as all the rest of a
    # step. `points` and `descriptors` wait for them.
    _newest: Future[tuple[np.ndarray, np.ndarray]] | None = None
    _describer: ThreadPoolExecutor = field(default_factory=lambda: background("places"))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def points(self) -> list[np.ndarray]:
        """Of each place, the points (N, 3) float32 of its features: metres, camera frame."""
        self._settle()
        return self._points

    @property
    def descriptors(self) -> list[np.ndarray]:
        """Of each place, the descriptors (N, BYTES) uint8 of its features."""
        self._settle()
        return self._descriptors

    def is_new(self, T_world_camera: np.ndarray) -> bool:
        """Whether no place shows what is seen from there."""
        return not self.T_world_camera or bool(self._away(T_world_camera).min() >= 1)

    def see(self, observation: Observation, T_world_camera: np.ndarray) -> None:
        """Make what was observed from a pose a place, if no other shows the same."""
        if not self.is_new(T_world_camera):
            return
        self._settle()
        self.indices.append(observation.frame.index)
        self.T_world_camera.append(np.array(T_world_camera))
        depth = observation.depth.copy()  # a working image of fusion
        self._newest = self._describer.submit(_features, observation.color, depth, observation.camera)
        if len(self) > self._most:
            self._thin_out()

    def candidates(self, image: Described, most: int = 2, among: Sequence[int] | None = None) -> Iterator[Located]:
        """Where an image may have been taken, likeliest first, at most so many; each waits to be verified.

        among: numbers of the places that are asked; None = all.
        """
        matched = self._matched(image, range(len(self)) if among is None else among)
        order = sorted(matched, key=lambda k: -len(matched[k][0]))[:POOLED]
        for _ in range(most):
            if not order:
                return
            centre = self.T_world_camera[order[0]][:3, 3]
            near = [k for k in order if np.linalg.norm(self.T_world_camera[k][:3, 3] - centre) < REACH]
            order = [k for k in order if k not in near]
            points = [poses.transform(self.T_world_camera[k], self.points[k][matched[k][0]]) for k in near]
            features = np.concatenate([matched[k][1] for k in near])
            seen_from = np.repeat([self.T_world_camera[k][:3, 3] for k in near], [len(p) for p in points], axis=0)
            found = solved(np.concatenate(points), features, image, seen_from)
            if found is not None and found.plausible:
                yield found

    def likeness(self, other: Places) -> np.ndarray:
        """(N,) of each place of another map, how many of a quarter of its features one place of this map has too."""
        known = [d for d in self.descriptors if len(d)]
        found = np.zeros(len(other), np.int64)
        if not known:
            return found
        firsts = np.cumsum([0, *map(len, known)])[:-1]
        all_known = np.concatenate(known).astype(np.float32).T
        for k, descriptors in enumerate(other.descriptors):
            best = np.maximum.reduceat(descriptors[::4].astype(np.float32) @ all_known, firsts, axis=1)
            found[k] = (best >= ALIKE).sum(axis=0).max(initial=0)
        return found

    def take(self, other: Places, T_here_other: np.ndarray, shift: int) -> None:
        """Add the places of another map that show what none of this one's does; shift: is added to their frames."""
        for index, T, points, descriptors in zip(
            other.indices, other.T_world_camera, other.points, other.descriptors, strict=True
        ):
            T = poses.orthonormalized(T_here_other @ T)
            if self.is_new(T):
                self._append(index + shift, T, points, descriptors)
        while len(self) > self._most:
            self._thin_out()

    def keep(self, frames: set[int]) -> None:
        """Forget the places that other frames have seen."""
        for place in self._taken_out():
            if place[0] in frames:
                self._append(*place)

    def world_moved(self, correction: Correction) -> None:
        """Places follow the map."""
        if len(self):
            moved = correction.corrected(self.indices, np.stack(self.T_world_camera))
            self.T_world_camera = [poses.orthonormalized(T) for T in moved]

    def state(self) -> dict[str, np.ndarray]:
        """As arrays, to be kept: about 50 kB a place."""
        return {
            "indices": np.array(self.indices, np.int64),
            "poses": np.array(self.T_world_camera, np.float64).reshape(-1, 4, 4),
            "counts": np.array([len(points) for points in self.points], np.int64),
            "points": np.concatenate([np.zeros((0, 3), np.float32), *self.points]),
            "descriptors": np.concatenate([np.zeros((0, BYTES), np.uint8), *self.descriptors]),
            "apart": np.array(self.apart),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._settle()
        ends = np.cumsum(state["counts"])[:-1]
        several = len(state["counts"]) > 0
        self.indices = [int(i) for i in state["indices"]]
        self.T_world_camera = list(state["poses"])
        self._points = np.split(state["points"], ends) if several else []
        self._descriptors = np.split(state["descriptors"], ends) if several else []
        self.apart = float(state["apart"])

    def _settle(self) -> None:
        """Take in the features of the newest place."""
        if self._newest is not None:
            points, descriptors = self._newest.result()
            self._points.append(points)
            self._descriptors.append(descriptors)
            self._newest = None

    def _taken_out(self) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """All places: index, pose, points and descriptors of each. None is left."""
        taken = list(zip(self.indices, self.T_world_camera, self.points, self.descriptors, strict=True))
        self.indices, self.T_world_camera, self._points, self._descriptors = [], [], [], []
        return taken

    def _append(self, index: int, T: np.ndarray, points: np.ndarray, descriptors: np.ndarray) -> None:
        self.indices.append(index)
        self.T_world_camera.append(T)
        self.points.append(points)
        self.descriptors.append(descriptors)

    def _away(self, T: np.ndarray) -> np.ndarray:
        """(P,) how far the places are from a pose: 1 is a new view."""
        places = np.stack(self.T_world_camera)
        traces = places[:, :3, :3].reshape(-1, 9) @ T[:3, :3].reshape(9)  # of the rotations between
        turns = np.arccos(np.clip((traces - 1) / 2, -1, 1))
        turned = APART[1] * max(min(self.apart, LIKE / APART[1]), self.apart / VAST)
        distances = np.linalg.norm(places[:, :3, 3] - T[:3, 3], axis=1)
        return np.maximum(distances / (self.apart * APART[0]), turns / turned)

    @property
    def _most(self) -> int:
        """How many places there may be: more in a large map."""
        return MOST if self.apart == 1 else 2 * MOST

    def _thin_out(self) -> None:
        """Keep the places that are twice as far apart, the oldest first."""
        self.apart *= 2
        for place in self._taken_out():
            if self.is_new(place[1]):
                self._append(*place)

    def _matched(self, image: Described, among: Sequence[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Of the places most like an image: which of their features are which of the image's."""
        if len(image) < 8:
            return {}
        live = image.descriptors.astype(np.float32)
        chosen = [k for k in self._alike(live, among) if len(self.points[k]) >= 2]
        return {k: matches(self.descriptors[k].astype(np.float32), live) for k in chosen}

    def _alike(self, live: np.ndarray, among: Sequence[int]) -> Sequence[int]:
        """The places that may show what an image shows, by the votes of a quarter of its features (N, BYTES).

        A feature votes for the places where its best match is nearly as good as its best one anywhere.
        """
        if len(among) <= COMPARED:
            return among
        some, chosen = live[::4], [self.descriptors[k] for k in among]
        best = np.stack([(some @ d.astype(np.float32).T).max(axis=1, initial=0) for d in chosen], axis=1)
        votes = (best >= 0.95 * best.max(axis=1, keepdims=True)).sum(axis=0)
        return [among[k] for k in np.argsort(-votes, kind="stable")[:COMPARED]]


def matches(known: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of known and live descriptors, (M, BYTES) and (N, BYTES) float32, that are each other's best match, and
    clearly so."""
    squares = (live**2).sum(axis=1)[:, None] + (known**2).sum(axis=1) - 2 * live @ known.T
    rows = np.arange(len(live))
    best = squares.argmin(axis=1)
    first = squares[rows, best].copy()
    mutual = squares.argmin(axis=0)[best] == rows
    squares[rows, best] = np.inf
    clear = first < RATIO**2 * squares.min(axis=1)
    chosen = np.flatnonzero(clear & mutual)
    return best[chosen], chosen
