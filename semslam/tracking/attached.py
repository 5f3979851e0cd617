"""What moves with the camera: a hand that holds it, a robot's bumper, a car's bonnet.

It agrees with itself from frame to frame while everything else moves, and so holds the pose where it was, and leaves a
trail in the map. Each cell of the image is a sequential test (Wald 1945) of two hypotheses, over pairs of frames
between which the camera has moved: that it shows what it showed before, and that it shows what lay there in the world.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera, depth_std
from semslam.frame import Frame, Observation, Tracking
from semslam.stage import Stage, prefixed, under_prefix
from semslam.tracking.features import Features, Reference, features_of, pose_from
from semslam.trajectory import Correction

logger = logging.getLogger(__name__)
COLUMNS = 80  # cells across the image, at least; what is said of a cell holds for its pixels
MOVED = 3.0  # cells that the world has moved, on median, between two frames that are compared ...
MOVED_AT_FIRST = 0.5  # ... and at first, where features tell the motion
ASKED = 8  # frames of which features are asked, at most
CHANGED = 1.5  # log likelihood against what a cell showed first: it shows something else
CHANGING = 0.3  # share of the cells of which that holds where the camera moves
WIDE = 0.5  # share of the image, along its less covered side, over which features move alike: more than a passer-by
SEEN_AGAIN = 0.3  # share of the cells that show something which both frames saw
WORLD = 0.35  # share of these that have to show what lay there: the poses are right
GREY_STD = 8.0  # grey levels: of a cell that shows the same again
DEPTH_SHARE = 0.004  # of a depth: what it is off by, besides noise, where the pose is a little wrong
CLEAR = 4.0  # log likelihood: a measurement tells no more than this, however badly it fits
MOST = 30.0  # log likelihood that adds up, so that it is soon forgotten where the thing is taken away
SURE, POSSIBLE = 10.0, -2.0  # log likelihood ratio, mean around a cell: attached; and so beside a cell that is
OFF_AT_FIRST = 0.01  # of a depth: what it is off by where features tell the motion
BELIEVED = 5.0  # log likelihood ratio, mean over a thing: a few cells that are sure may be wrong
SURFACE = 0.05  # of a depth: neighbouring cells of one thing differ by less, and a thing that stays changes by less
LEAST, LARGEST = 0.02, 0.6  # share of the image: less is as well noise, and of more the poses are wrong
USUAL_NOISE = 0.0012, 0.0019  # metres and 1 / metre: of a depth camera of which nothing else is known, see `depth_std`
SOME = 5  # cells: of every so many each way it is asked how far they have moved
AROUND = np.ones((3, 3), np.uint8)  # a cell and its neighbours


@dataclass(eq=False)
class _Seen:
    """A frame as it is compared with others, cell by cell."""

    depth: np.ndarray  # (h, w) float32 metres, 0 = none
    grey: np.ndarray  # (h, w) float32
    T_world_camera: np.ndarray  # (4, 4), once it is known

    def state(self) -> dict[str, np.ndarray]:
        return {"depth": self.depth, "grey": self.grey, "pose": self.T_world_camera}

    @staticmethod
    def restored(state: dict[str, np.ndarray]) -> _Seen:
        return _Seen(state["depth"], state["grey"], state["pose"])


class Attached(Stage):
    """Leaves out of each observation what moves with the camera, once enough was seen of it."""

    def __init__(self) -> None:
        self._ratio: np.ndarray | None = None  # (h, w) float32 log likelihood ratio of attached against the world
        self._depth = np.zeros((0, 0), np.float32)  # (h, w) metres: of what is attached, 0 where nothing is
        self._now: _Seen | None = None  # the frame that is tracked
        self._before: _Seen | None = None  # with which those to come are compared
        self._first: _Seen | None = None  # the first frame, until the camera has moved, ...
        self._reference: Reference | None = None  # ... and its features
        self._asked = 0  # frames of which features were asked
        self._camera: Camera | None = None  # of the cells
        self._told = False

    def __call__(self, observation: Observation) -> Observation:
        """The observation with hidden pixels, without depth, where something is attached to the camera."""
        camera, step = _cells(observation.camera)
        self._camera = camera
        depth = np.ascontiguousarray(
            observation.depth[step // 2 :: step, step // 2 :: step][: camera.height, : camera.width]
        )
        grey = cv2.cvtColor(observation.color, cv2.COLOR_RGB2GRAY)[: camera.height * step, : camera.width * step]
        grey = cv2.resize(grey, (camera.width, camera.height), interpolation=cv2.INTER_AREA).astype(np.float32)
        self._now = _Seen(depth, grey, np.eye(4))
        if self._ratio is None:
            self._ratio, self._depth = np.zeros_like(depth), np.zeros_like(depth)
            self._first, self._reference = self._now, Reference(np.eye(4), observation, None)
        elif self._first is not None:
            self._compare_with_first(observation)
        stays = (depth == 0) | (np.abs(depth - self._depth) < SURFACE * self._depth)
        cells = (self._depth > 0) & stays
        if cells.mean() < LEAST:
            return observation
        self._tell(observation.frame, float(cells.mean()))
        wide = cv2.dilate(cells.astype(np.uint8), AROUND).astype(bool)
        hidden = wide[np.ix_(*_cells_of_pixels(observation.camera.shape, step, cells.shape))]
        return replace(observation, depth=np.where(hidden, np.float32(0), observation.depth), hidden=hidden)

    def _tell(self, frame: Frame, share: float) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "frame %d: %.0f %% of the image moves with the camera, as a hand or a bumper does; it is left out",
                *(frame.number, 100 * share),
            )

    def _compare_with_first(self, observation: Observation) -> None:
        """Compare with the first frame by the motion that features tell: what is attached may hold tracking from the
        start, and then no pose tells that the camera moves. Features of cells that show the same again say nothing."""
        now, first, reference = self._now, self._first, self._reference
        assert now is not None and first is not None and reference is not None
        both = (first.depth > 0) & (now.depth > 0)
        changed = both & (_misfit(first.depth - now.depth, both, _std(now.depth), now.grey - first.grey) >= CHANGED)
        if changed.sum() <= CHANGING * both.sum():  # or neither has depth
            return
        self._asked += 1
        if self._asked >= ASKED:
            self._first = self._reference = None
        live = features_of(observation.color, observation.depth, observation.camera)
        step = _cells(observation.camera)[1]
        found = pose_from(_inside(reference.features(), changed, step), live, observation.camera)
        if found is not None and found.believable and found.spread >= WIDE:
            self._compare(now, first, found.T_known_live, MOVED_AT_FIRST, off=OFF_AT_FIRST)

    def tracked(self, tracking: Tracking) -> None:
        """Compare the frame with an earlier one, if the camera has moved enough since."""
        now, before = self._now, self._before
        if now is None or not (tracking.ok and tracking.sound):
            self._before = None
            return
        now.T_world_camera = tracking.T_world_camera
        if before is None:
            self._before = now
            return
        T_before_now = poses.inverse(before.T_world_camera) @ now.T_world_camera
        if self._compare(now, before, T_before_now, MOVED, tracking.noise):
            self._before, self._first, self._reference = now, None, None

    def _compare(
        self,
        now: _Seen,
        before: _Seen,
        T_before_now: np.ndarray,
        least: float,
        noise: tuple[float, float] | None = None,
        off: float = 0.0,
    ) -> bool:
        """Take in what two frames tell; False where the world has moved by less than `least` cells between them.

        noise: the sensor's, as measured; None = a usual one. off: share of a depth, by which it may
            be off because the motion is.
        """
        camera = self._camera
        assert self._ratio is not None and camera is not None
        free = np.where(self._depth == 0, now.depth, np.float32(0))
        if _moved(free, T_before_now, camera) < least:
            return False
        measured = now.depth > 0
        u, v, z = _places(now.depth, T_before_now, camera)
        again = measured & (z > 0) & (u >= 0) & (v >= 0) & (u <= camera.width - 1) & (v <= camera.height - 1)
        if again.sum() < SEEN_AGAIN * measured.sum():
            return True
        depth_then = cv2.remap(before.depth, u, v, cv2.INTER_NEAREST)
        grey_then = cv2.remap(before.grey, u, v, cv2.INTER_LINEAR)
        std = _std(now.depth, noise)
        # on a surface that is seen obliquely, a place that is half a cell off has another depth
        steep = cv2.remap(_steepness(before.depth), u, v, cv2.INTER_NEAREST)
        std_there = np.sqrt(std**2 + steep**2 + (off * now.depth) ** 2)
        of_world = _misfit(depth_then - z, depth_then > 0, std_there, now.grey - grey_then)
        of_camera = _misfit(before.depth - now.depth, before.depth > 0, std, now.grey - before.grey)
        if (of_world[again] < CLEAR / 2).mean() < WORLD:
            return True  # poses that are off make a world that fits nowhere
        told = np.where(again, of_world - of_camera, 0).astype(np.float32)
        # something else that stays as far away, or has the same colour, passes by
        self._ratio += np.where(of_camera < CLEAR / 2, told, np.minimum(told, 0))
        np.clip(self._ratio, -MOST, MOST, out=self._ratio)
        self._depth = _attached(self._ratio, now.depth)
        return True

    def world_moved(self, correction: Correction) -> None:
        """Frames before are forgotten: how those to come lie to them has changed."""
        self._before = None

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        if self._ratio is None:
            return {}
        state = {"ratio": self._ratio, "depth": self._depth, "told": np.array(self._told)}
        state |= {"asked": np.array(self._asked)}
        for name, part in (("before_", self._before), ("first_", self._first), ("reference_", self._reference)):
            state |= prefixed(name, {} if part is None else part.state())
        return state

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`; of one before the first frame as at the start."""
        if "ratio" not in state:
            return
        self._ratio, self._depth = state["ratio"].copy(), state["depth"]
        self._told, self._asked = bool(state["told"]), int(state["asked"])
        if "before_pose" in state:
            self._before = _Seen.restored(under_prefix("before_", state))
        if "first_pose" in state:
            self._first = _Seen.restored(under_prefix("first_", state))
            self._reference = Reference.restored(under_prefix("reference_", state))


def _cells(camera: Camera) -> tuple[Camera, int]:
    """The camera whose pixels are cells, each seen in its middle, and how many pixels wide they are."""
    step = max(1, camera.width // COLUMNS)
    width, height = camera.width // step, camera.height // step
    cx, cy = ((c - step // 2) / step for c in (camera.cx, camera.cy))
    return Camera(width, height, camera.fx / step, camera.fy / step, cx, cy), step


def _cells_of_pixels(shape: tuple[int, int], step: int, cells: tuple[int, ...]) -> list[np.ndarray]:
    """The row of cells of each row of pixels, and the same of columns; those that are left over go to the last one."""
    return [np.minimum(np.arange(n) // step, m - 1) for n, m in zip(shape, cells)]


def _inside(features: Features, cells: np.ndarray, step: int) -> Features:
    """Those features that lie in some of the cells (h, w) bool."""
    u, v = (np.minimum(features.pixels.T / step, np.array(cells.shape[::-1])[:, None] - 1)).astype(int)
    chosen = cells[v, u]
    return Features(features.pixels[chosen], features.points[chosen], features.descriptors[chosen])


def _moved(depth: np.ndarray, T_before_now: np.ndarray, camera: Camera) -> float:
    """Cells that those with depth have moved since an earlier frame, if they are of the world: the median of some."""
    v, u = np.nonzero(depth[SOME:-SOME:SOME, SOME:-SOME:SOME])
    if len(v) == 0:
        return 0.0
    u, v = SOME * (u + 1), SOME * (v + 1)
    z = depth[v, u]
    rays = np.column_stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(len(u))])
    x, y, ahead = poses.transform(T_before_now, rays * z[:, None]).T
    ahead = np.maximum(ahead, 1e-3)
    then_u, then_v = camera.fx * x / ahead + camera.cx, camera.fy * y / ahead + camera.cy
    return float(np.median(np.hypot(then_u - u, then_v - v)))


def _places(depth: np.ndarray, T_before_now: np.ndarray, camera: Camera) -> tuple[np.ndarray, ...]:
    """Where the cells of a frame were in an earlier one, if they are of the world: columns and rows (h, w) float32, and
    depth there, metres, 0 behind it."""
    points = poses.transform(T_before_now, camera.backproject(depth).reshape(-1, 3)).astype(np.float32)
    x, y, z = points.T.reshape(3, *depth.shape)
    ahead = np.maximum(z, np.float32(1e-3))
    u, v = camera.fx * x / ahead + camera.cx, camera.fy * y / ahead + camera.cy
    return u.astype(np.float32), v.astype(np.float32), np.maximum(z, np.float32(0))


def _std(depth: np.ndarray, noise: tuple[float, float] | None = None) -> np.ndarray:
    """(h, w) metres: standard deviation of the difference of two depths that should be the same."""
    return DEPTH_SHARE * depth + 2**0.5 * depth_std(depth, *(noise or USUAL_NOISE)) + 1e-6


def _steepness(depth: np.ndarray) -> np.ndarray:
    """(h, w) metres: how much a depth (h, w), 0 = none, changes from a cell to its neighbours: half of their range."""
    nearest = cv2.erode(np.where(depth > 0, depth, np.float32(np.inf)), AROUND)
    return np.maximum(cv2.dilate(depth, AROUND) - nearest, 0) / 2


def _misfit(off: np.ndarray, measured: np.ndarray, std: np.ndarray, grey_off: np.ndarray) -> np.ndarray:
    """(h, w) minus log likelihood of differences of depth, metres, where measured, and of grey; at most CLEAR each."""
    of_depth = np.where(measured, np.minimum(0.5 * (off / std) ** 2, CLEAR), 0)
    return of_depth + np.minimum(0.5 * (grey_off / GREY_STD) ** 2, CLEAR)


def _attached(ratio: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(h, w) metres: the depth of what is attached, 0 elsewhere, by the log likelihood ratios (h, w): where these are
    sure, and on from there over what no motion has told apart yet, as far as the surface goes on."""
    mean = cv2.blur(ratio, AROUND.shape)
    found = (mean > SURE) & (depth > 0)
    possible = (mean > POSSIBLE) & (depth > 0)
    for _ in range(sum(depth.shape)):
        near = cv2.dilate(np.where(found, depth, np.float32(0)), AROUND)
        wider = found | (possible & (near > 0) & (np.abs(near - depth) < SURFACE * depth))
        if np.array_equal(wider, found):
            break
        found = wider
    count, thing = cv2.connectedComponents(found.astype(np.uint8))
    cells = np.bincount(thing.ravel(), minlength=count)
    believed = np.bincount(thing.ravel(), weights=ratio.ravel(), minlength=count) > BELIEVED * cells
    found &= believed[thing]
    return np.where(found & (LEAST <= found.mean() <= LARGEST), depth, np.float32(0))
