"""Dense depth of a frame from its neighbours in a recording whose poses are known, and from a network where they fail.

Coarse first: a sweep at half of the resolution, over a wide range, tells how far the network's depth is off here, and
that is corrected; a second one refines around the result. What the images do not determine keeps the network's shape,
moved with the surfaces around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.config import Count, Natural, NotNegative, Positive, Range, Turn, check_ranges
from semslam.depth.agreement import Keyframe, agreed
from semslam.depth.completion import CompletedDepth, CompletionConfig, complete, everywhere
from semslam.depth.plane_sweep import SweepConfig, SweptDepth, sweep
from semslam.files.failures import raise_passing
from semslam.frame import Observation
from semslam.images.resizing import resized_depth, resized_ids
from semslam.stage import Stage

f32 = np.float32


@dataclass(frozen=True)
class MultiViewConfig:
    """Which frames are looked at, and how depth is searched in them."""

    baselines: tuple[Positive, ...] = (0.03, 0.06, 0.12, 0.2)  # camera's ways to other frames, in the scene's depth
    before: Natural = 240  # frames that are looked back, where the camera moves slowly ...
    after: Natural = 180  # ... and ahead
    max_turn_deg: Turn = 30.0  # degrees: between two frames that are compared
    fewest: Count = 2  # frames to compare with; a keyframe that has fewer gets no depth
    longest: Annotated[int, Range(16, 10_000)] = 384  # pixels: longer side of the images that are swept, at most
    keyframe_step: NotNegative = 0.05  # of the scene's depth, from one keyframe to the next
    keyframe_turn_deg: Turn = 7.5  # degrees: likewise, where the camera turns
    least_std: Positive = 0.02  # of the logarithm of depth: what poses, lens and shutter of real cameras add everywhere
    agreeing: Natural = 5  # keyframes before, and as many after, that are asked whether they say the same
    max_std: Positive = 0.045  # of the logarithm of depth: what is less sure does not enter the map
    unit_std: Positive = 0.036  # of the logarithm of depth: what counts as one measurement of a sensor
    most_confidence: Positive = 2.0  # of one pixel
    least_confidence: NotNegative = 1.0  # of surfels in the finished map, or half of their median where that is less
    planes: bool = True  # whether the insides of planes, whose edges alone are sure, are added to the finished map
    coarse: SweepConfig = field(
        default_factory=lambda: SweepConfig(
            nearest=0.25, farthest=2.5, candidates=46, noise=1.0, min_margin=0.04, range_share=0.2
        )
    )
    fine: SweepConfig = field(
        default_factory=lambda: SweepConfig(
            nearest=0.75, farthest=1.333, candidates=24, half_window=2, best_of=5, noise=1.0, min_margin=0.06
        )
    )
    completion: CompletionConfig = field(default_factory=CompletionConfig)

    def __post_init__(self) -> None:
        check_ranges(self, "slam.multiview")
        if not self.baselines:
            raise ValueError("`slam.multiview.baselines` is empty, expected at least one")


def neighbours(
    index: int, T_world_camera: Sequence[np.ndarray | None], depth: float, config: MultiViewConfig
) -> list[int]:
    """Frames to compare frame `index` with: on either side the nearest ones at each of the baselines.

    depth: of the scene, metres.
    """
    T = T_world_camera[index]
    assert T is not None
    found = set()
    for sign, reach in ((-1, config.before), (1, config.after)):
        wanted = list(config.baselines)
        for j in range(index + sign, index + sign * (reach + 1), sign):
            if not wanted or not 0 <= j < len(T_world_camera):
                break
            other = T_world_camera[j]
            if other is None:
                continue
            way = poses.inverse(other) @ T
            if np.degrees(poses.rotation_angle(way)) > config.max_turn_deg:
                break
            if np.linalg.norm(way[:3, 3]) >= wanted[0] * depth:
                found.add(j)
                while wanted and np.linalg.norm(way[:3, 3]) >= wanted[0] * depth:
                    wanted.pop(0)
    return sorted(found)


def depth_from_views(
    grey: np.ndarray,
    camera: Camera,
    others: Sequence[np.ndarray],
    T_other_camera: Sequence[np.ndarray],
    predicted: np.ndarray,
    config: MultiViewConfig | None = None,
    measured: SweptDepth | None = None,
    foretold: Callable[[float], object] = lambda metres: None,
) -> CompletedDepth:
    """Depth at every pixel of an image, from other images where they determine it; see `plane_sweep.sweep`.

    measured: by a depth camera, of the image's size, 0 = nothing; it counts there in place of what the images say.
    foretold: called, before the finer sweep, with about the median of the depth, metres.
    """
    c = config or MultiViewConfig()
    half = (camera.width // 2, camera.height // 2)
    small = camera.resized(*half)
    smaller = [cv2.resize(image, half, interpolation=cv2.INTER_AREA) for image in (grey, *others)]
    rough = cv2.resize(predicted, half, interpolation=cv2.INTER_AREA)
    if measured is not None and (there := measured.depth > 0).any():
        level = float(np.median(measured.depth[there] / predicted[there]))
        rough, predicted = rough * f32(level), predicted * f32(level)
    found = _known(sweep(smaller[0], small, smaller[1:], T_other_camera, rough, c.coarse), measured)
    believed = found.depth > 0
    if believed.mean() > 0.02:  # what all of the image says first, so that gaps do not hang on to the network's scale
        level = float(np.median(found.depth[believed] / rough[believed]))
        rough, predicted = rough * f32(level), predicted * f32(level)
    corrected = complete(rough, found.depth, found.log_std, smaller[0], c.completion)
    foretold(corrected.median)
    size = (camera.width, camera.height)
    prior = predicted * cv2.resize(corrected.depth / rough, size, interpolation=cv2.INTER_LINEAR)
    found = _known(sweep(grey, camera, others, T_other_camera, prior, c.fine), measured)
    completed = complete(prior, found.depth, found.log_std, grey, c.completion)
    return replace(completed, log_std=np.hypot(completed.log_std, f32(c.least_std)))


def _known(swept: SweptDepth, measured: SweptDepth | None) -> SweptDepth:
    """What was measured, brought to the sweep's size, and what was swept elsewhere."""
    if measured is None:
        return swept
    size = swept.depth.shape[::-1]
    depth, log_std = resized_depth(measured.depth, size), resized_ids(measured.log_std, size)
    there = depth > 0
    return SweptDepth(np.where(there, depth, swept.depth), np.where(there, log_std, swept.log_std))


ReadColor = Callable[[int], np.ndarray]  # the index of a frame -> (H, W, 3) uint8 RGB
# likewise -> its image, and a network's depth of it, (H, W) metres, both of the map's size
LookAt = Callable[[int], tuple[np.ndarray, np.ndarray]]


class Ahead(NamedTuple):
    """What a keyframe to come says by itself."""

    scene: float  # metres: median depth of the keyframe before it
    found: CompletedDepth | None  # None: too few other frames show the same


class MultiViewDepth(Stage):
    """Gives keyframes depth from the frames before and after them, and all others none; for `Slam`'s `correct`."""

    def __init__(
        self,
        camera: Camera,
        T_world_camera: Sequence[np.ndarray | None],
        color_of: ReadColor,
        config: MultiViewConfig | None = None,
        look_at: LookAt | None = None,
    ) -> None:
        """camera: of the map. T_world_camera: (4, 4) of each frame of the recording, None where it is not known.
        color_of: an image of the recording; ValueError or OSError where it cannot be read. look_at: the same, with
        depth; without it, keyframes after a frame are not asked what they say of it."""
        self.config = config or MultiViewConfig()
        self.map_camera, self.T_world_camera, self.color_of = camera, T_world_camera, color_of
        self.look_at = look_at
        shrink = max(1, math.ceil(max(camera.shape) / self.config.longest))
        self.camera = camera.resized(camera.width // shrink, camera.height // shrink)
        self._greys: dict[int, np.ndarray | None] = {}  # of frames within reach of the last keyframes
        self._last: np.ndarray | None = None  # T_world_camera of the last keyframe
        self.scene = 2.0  # metres: median depth of the last keyframe
        self._before: list[Keyframe] = []  # the last keyframes, each by itself
        self._ahead: dict[int, Ahead] = {}  # the next ones, by the indices of their frames
        # the frame that is looked at beside the finer sweep of the keyframe before it, as it will likely be the next
        self._begun: tuple[int, Future[tuple[np.ndarray, np.ndarray]]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="depth")  # not a background one: it is waited for
        self.ended = False  # whether all frames are done, and what stayed unsure was removed from the map

    def is_keyframe(self, observation: Observation) -> bool:
        """Whether the camera has moved enough since the last keyframe."""
        return self.has_moved(observation.frame.index)

    def has_moved(self, index: int) -> bool:
        """The same of a frame that need not be read for it."""
        T = self.T_world_camera[index]
        if T is None:
            return False
        return self._last is None or self._is_apart(self._last, T, self.scene)

    def _is_apart(self, T_world_last: np.ndarray, T_world_camera: np.ndarray, scene: float) -> bool:
        return poses.are_apart(
            T_world_last, T_world_camera, self.config.keyframe_step * scene, self.config.keyframe_turn_deg
        )

    def __call__(self, observation: Observation, predict: object) -> Observation:
        """A keyframe with depth and its confidence; no depth where too few other frames show the same.

        Nor where the observation has none: at the border that perception leaves out.
        """
        index = observation.frame.index
        none = replace(observation, depth=np.zeros_like(observation.depth), confidence=None)
        if not observation.depth.any() or not self.is_keyframe(observation):
            return none
        if (ahead := self._ahead.get(index)) is not None and ahead.scene == self.scene:
            found = ahead.found
        else:
            found = self.measured(index, observation.color, observation.depth)
        if found is None:
            return none
        depth, sure = self.weighed(self.agreed(index, found))
        self.advance(index, found)
        seen = observation.depth > 0
        return replace(observation, depth=np.where(seen, depth, f32(0)), confidence=np.where(seen, sure, f32(0)))

    def agreed(self, index: int, found: CompletedDepth) -> CompletedDepth:
        """What frame `index`, the last keyframes and the next ones say together of its depth."""
        T = self.T_world_camera[index]
        assert T is not None
        here = Keyframe(T, found.depth, found.log_std)
        return agreed(here, self.camera, [*self._before, *self._after(index, here, found.median)])

    def _after(self, index: int, before: Keyframe, scene: float) -> list[Keyframe]:
        """The keyframes that follow frame `index`, each by itself. before: that frame as one; scene: its median depth.

        What is measured of them is kept until they are the present frame.
        """
        following: list[Keyframe] = []
        ahead: dict[int, Ahead] = {}
        end = min(index + 1 + self.config.after, len(self.T_world_camera))
        while self.look_at is not None and len(following) < self.config.agreeing:
            if (index := self._next(index, end, before.T_world_camera, scene)) == end:
                break
            known, T = self._ahead.get(index), self.T_world_camera[index]
            ahead[index] = known if known is not None and known.scene == scene else self._looked_at(index, scene)
            if (found := ahead[index].found) is not None and T is not None:
                before, scene = Keyframe(T, found.depth, found.log_std), found.median
                following.append(before)
        self._ahead = ahead
        return following

    def _next(self, index: int, end: int, T_world_last: np.ndarray, scene: float) -> int:
        """The first frame after frame `index` that is apart from a pose; `end` where none before it is."""
        for j in range(index + 1, end):
            if (T := self.T_world_camera[j]) is not None and self._is_apart(T_world_last, T, scene):
                return j
        return end

    def _looked_at(self, index: int, scene: float) -> Ahead:
        """What frame `index` says by itself; nothing where it cannot be read, which the run counts."""
        assert self.look_at is not None
        begun, self._begun = self._begun, None
        try:
            color, predicted = begun[1].result() if begun and begun[0] == index else self.look_at(index)
        except (ValueError, OSError) as problem:
            raise_passing(problem)
            return Ahead(scene, None)
        if not predicted.any():
            return Ahead(scene, None)
        return Ahead(scene, self.measured(index, color, predicted, None, scene, lambda deep: self._begin(index, deep)))

    def _begin(self, index: int, scene: float) -> None:
        """Begin to look at the keyframe that follows frame `index` if its depth has this median."""
        T, end = self.T_world_camera[index], len(self.T_world_camera)
        assert T is not None and self.look_at is not None
        if (following := self._next(index, end, T, scene)) < end:
            self._begun = following, self._thread.submit(self.look_at, following)

    def advance(self, index: int, found: CompletedDepth) -> None:
        """Frame `index` is the last keyframe from now on. found: its depth by itself."""
        T = self._last = self.T_world_camera[index]
        assert T is not None
        self.scene = found.median
        self._before = [Keyframe(T, found.depth, found.log_std), *self._before][: self.config.agreeing]

    def weighed(self, found: CompletedDepth) -> tuple[np.ndarray, np.ndarray]:
        """Depth and confidence, (H, W) float32 of the map's size, both 0 where it is too unsure to enter the map."""
        c = self.config
        confidence = np.minimum((c.unit_std / np.maximum(found.log_std, 1e-4)) ** 2, c.most_confidence)
        confidence[found.log_std > c.max_std] = 0
        whole = (self.map_camera.width, self.map_camera.height)
        depth = cv2.resize(found.depth, whole, interpolation=cv2.INTER_LINEAR)
        sure = resized_ids(confidence.astype(f32), whole)
        return np.where(sure > 0, depth, f32(0)), sure

    def measured(
        self,
        index: int,
        color: np.ndarray,
        predicted: np.ndarray,
        sensed: SweptDepth | None = None,
        scene: float | None = None,
        foretold: Callable[[float], object] = lambda metres: None,
    ) -> CompletedDepth | None:
        """Depth of frame `index`, whose pose is known, at the size of `camera`; None where too few frames show it.

        color: (H, W, 3) uint8 RGB. predicted: (H, W) float32 metres, a network's depth of it, positive but for a border
        of zeros, where it is taken for what the nearest pixel has. sensed: by a depth camera, at the size of `camera`.
        scene: metres, median depth of the keyframe before; of the last one, if it is not told. foretold: see
        `depth_from_views`.
        """
        c, T = self.config, self.T_world_camera[index]
        assert T is not None
        reach = c.before + c.after, 2 * c.after  # keyframes to come are looked at, too, and what they reach
        self._greys = {j: g for j, g in self._greys.items() if index - reach[0] <= j <= index + reach[1]}
        ways, greys = [], []
        for j in neighbours(index, self.T_world_camera, self.scene if scene is None else scene, c):
            if (other := self._grey_of(j)) is not None:
                ways.append(poses.inverse(self.T_world_camera[j]) @ T)  # type: ignore[arg-type]
                greys.append(other.astype(f32))
        if len(ways) < c.fewest:
            return None
        size = (self.camera.width, self.camera.height)
        small = cv2.resize(everywhere(predicted), size, interpolation=cv2.INTER_AREA)
        return depth_from_views(self._grey(color).astype(f32), self.camera, greys, ways, small, c, sensed, foretold)

    def neighbours_of(self, index: int) -> list[int]:
        """The frames that frame `index`, whose pose is known, is compared with."""
        return neighbours(index, self.T_world_camera, self.scene, self.config)

    def _grey_of(self, index: int) -> np.ndarray | None:
        """The luminance of a frame of the recording, None where it cannot be read; the run counts those."""
        if index not in self._greys:
            try:
                self._greys[index] = self._grey(self.color_of(index))
            except (ValueError, OSError) as problem:
                raise_passing(problem)
                self._greys[index] = None
        return self._greys[index]

    def _grey(self, color: np.ndarray) -> np.ndarray:
        """(H, W) uint8 luminance at the sweep's size."""
        small = cv2.resize(color, (self.camera.width, self.camera.height), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        state = {"scene": np.array(self.scene), "ended": np.array(self.ended)}
        for name in Keyframe._fields if self._before else ():
            state[f"before_{name}"] = np.stack([getattr(keyframe, name) for keyframe in self._before])
        return state if self._last is None else state | {"last": self._last}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.scene, self._last = float(state["scene"]), state.get("last")
        before = [state[name] for name in (f"before_{field}" for field in Keyframe._fields) if name in state]
        self._before = [Keyframe(*arrays) for arrays in zip(*before)]
        self.ended = bool(state["ended"])
