"""One frame into the map: filter, index map, associate, merge, append, remove; and the map back into an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from semslam.camera import Camera
from semslam.compiled import Pinhole, Pose, plain
from semslam.config import Count, Gate, Natural, NotNegative, Positive, Range, check_ranges
from semslam.engine import depth_filter, index_map
from semslam.engine import fusion_kernels as kernels
from semslam.engine.chunks import visible_chunks
from semslam.engine.depth_filter import Noise
from semslam.engine.merging import match, merge
from semslam.engine.surfels import SurfelMap
from semslam.frame import Observation, Tracking, View
from semslam.images.frame_check import check_observation, check_pose
from semslam.stage import Stage

f32 = np.float32
NEVER = np.iinfo(np.int32).min  # before the first frame
USUAL_RANGE = (0.3, 5.0)  # metres; what sensors of rooms measure well
FARTHEST = 10_000.0  # metres from the origin, along an axis


@dataclass(frozen=True)
class FusionConfig:
    """How measurements become surfels."""

    near: Positive | None = None  # metres: nearer depth is dropped; null = 0.3, or nearer where most readings are
    far: Positive | None = None  # metres: farther depth is dropped; null = 5, or farther where most readings are
    smoothing: Annotated[int, Range(0, 50)] = 2  # pixels: half the width of the bilateral filter's window; 0 = none
    # metres: standard deviation of depth at 0.4 m; left at 0.0012, the named sensor's, or 0.015 of predicted depth
    noise: Positive = 0.0012
    # metres: growth of that deviation with (z - 0.4)^2 (Nguyen et al. 2012); left at 0.0019, likewise, or 0.006
    noise_quadratic: NotNegative = 0.0019
    # metres: depth gate of the association, on top of three standard deviations; left at 0.01, 0.04 of predicted depth
    gate: Positive = 0.01
    # degrees: largest angle between normals of one surface; left at 40, 60 of predicted depth
    normal_gate_deg: Gate = 40.0
    spacing: Positive = 0.002  # metres: surfels are not added closer than this
    coarsest: Positive = 0.006  # metres: where a pixel and a half is less, every second pixel of a chessboard is enough
    max_confidence: Annotated[float, Range(1)] = 100.0  # confidence beyond which the mean forgets: scenes change
    # confidence from which a surfel is kept without being confirmed; left at 5, 1.5 of predicted depth
    stable: NotNegative = 5.0
    # frames: fused after its last merge, seen or not, that an unstable surfel is kept; left at 20, 8 of predicted depth
    patience: Natural = 20
    # frames: fused from one removal of surfels to the next, 0 = never; left at 10, 1 of predicted depth
    clean_every: Natural = 10
    carve: NotNegative = 1.0  # confidence that a surfel in front of a measurement loses in each frame
    # points: of the map in a predicted view, about, evenly spread over the image; at 640x480 one of 25 pixels, which
    # err together (`correlation` of the registration): more of them cost more than they tell
    view_points: Count = 14_000

    def __post_init__(self) -> None:
        check_ranges(self, "slam.fusion")
        near, far = self.range
        if not 0 < near < far <= 1000:
            raise ValueError(f"`slam.fusion.near` is {near} and `far` {far}, expected 0 < near < far <= 1000 metres")

    @property
    def range(self) -> tuple[float, float]:
        """Nearest and farthest depth that is used, metres."""
        near, far = self.near, self.far
        usual = min(USUAL_RANGE[0], 0.5 * far) if far else USUAL_RANGE[0]
        near = usual if near is None else near
        return near, max(USUAL_RANGE[1], 2 * near) if far is None else far


@dataclass(frozen=True)
class FusionCounts:
    """What one frame did to the map."""

    merged: int  # surfels
    added: int  # surfels
    removed: int  # surfels
    visible_chunks: int


class Fusion(Stage):
    """Fuses observations of one image size into a map; holds the working images, not the map.

    The calls of one frame, in this order: `prepare` (depth to smoothed depth and normals, for tracking and fusion),
    `fuse`, then `predict`, which costs no projection as long as the pose stays.

    Attributes:
        weights: (H, W) float32, how much a pixel counts by its place in the image.
        visible: (n,) int32 chunks that the last `fuse` had in view.
        pixels: (S,) int32, for each slot of those chunks the pixel v * W + u that it was merged with, -1 for none.
    """

    def __init__(self, camera: Camera, config: FusionConfig | None = None) -> None:
        self.camera = camera
        config = config or FusionConfig()
        self._near, self._far = config.range
        self.config = replace(config, near=self._near, far=self._far)
        height, width = camera.shape
        if width > 65535 or height > 32767:
            raise ValueError(f"images are {width}x{height}; the map takes at most 65535x32767, resize them with width")
        # Cleaning counts the frames that were fused: indices have gaps where frames are skipped or held out.
        self._fused = 0
        self._recent: list[int] = []  # indices of the last of them, one more than `patience`
        self._pinhole = Pinhole.of(camera)
        self._noise = Noise.of(self.config.noise, self.config.noise_quadratic)
        self._depth = np.zeros((height, width), f32)
        self._normals = np.zeros((height, width, 3), f32)
        self._new = np.empty((height, width), np.int32)  # pixels that become surfels
        self._index = np.full(height * width, index_map.EMPTY, np.int64)
        self._index_pose: np.ndarray | None = None  # the pose that the index map was made for
        self._new_counts = np.zeros(height, np.int64)
        self._merged_counts = np.zeros(0, np.int64)
        self._stride = stride_for(camera, self.config.view_points)
        self._all_sure = np.ones((0, 0), f32)  # empty: no confidence image to read
        self._weights = _radial_weights(camera)
        self.weights = np.outer(self._weights[1], self._weights[0])
        self._chunks = np.empty(0, np.int32)
        self.visible = self._chunks
        self.pixels = np.empty(0, np.int32)
        self._to_compact: np.ndarray | None = None  # chunks with marked surfels

    def prepare(self, observation: Observation) -> Observation:
        """The observation with smoothed depth and its normals, which are working images: the next call reuses them."""
        c = self.config
        check_observation(observation, self.camera)
        depth, confidence = plain(observation.depth, f32), observation.confidence
        depth_filter.bilateral(depth, c.smoothing, f32(self._near), f32(self._far), self._noise, self._depth)
        depth_filter.normals_of(self._depth, self._pinhole, self._noise, self._normals)
        return replace(
            observation,
            depth=self._depth,
            normals=self._normals,
            color=plain(observation.color, np.uint8),
            confidence=None if confidence is None else plain(confidence, f32),
        )

    def fuse(self, surfels: SurfelMap, observation: Observation, T_world_camera: np.ndarray, now: int) -> FusionCounts:
        """Fuse a prepared observation, seen at the given pose as frame `now`, into the map."""
        c = self.config
        depth, normals = observation.depth, observation.normals
        if normals is None:
            raise ValueError("the observation has no normals; call `prepare` first")
        check_pose(observation.frame, "the pose", T_world_camera)
        if (far := np.abs(T_world_camera[:3, 3]).max()) > FARTHEST:
            raise ValueError(
                f"the pose of frame {observation.frame.number} is {far / 1e3:.0f} km from the origin, where "
                f"the map's float32 coordinates are coarser than a millimetre; make poses relative to a nearer origin, "
                f"as `sequences.rebased.near_origin` does"
            )
        pose = Pose.of(T_world_camera)
        removed = self._compact(surfels)
        # what lies behind all that is measured cannot be merged: in a large map most of the view frustum
        rules = self._rules(min(f32(1.2 * self._far), f32(1.2) * depth.max() + f32(0.1)))
        confidence = self._all_sure if observation.confidence is None else observation.confidence
        measured = kernels.Measured(depth, normals, observation.color, confidence, *self._weights)
        chunks = self._see(surfels, pose, rules.far)
        self._follow_growth(surfels)
        self._index.fill(index_map.EMPTY)
        if len(self._merged_counts) < len(chunks):
            self._merged_counts = np.empty(len(self._chunks), np.int64)
        traces = kernels.Traces(self._index, self.pixels, self._merged_counts)
        merge(chunks, surfels.arrays(), pose, self._pinhole, measured, rules, np.int32(now), traces)
        self._index_pose = np.array(T_world_camera)
        merged = int(self._merged_counts[: len(chunks)].sum())
        kernels.find_new(self._index, measured, self._pinhole, rules, self._new, self._new_counts)
        added = self._append(surfels, measured, pose, rules, now)
        self.visible = self._see(surfels, pose, rules.far).copy()
        self._fused += 1
        self._recent = [*self._recent, now][-c.patience - 1 :]
        if c.clean_every and self._fused % c.clean_every == 0:
            stale = np.int32(min(self._recent) if len(self._recent) > c.patience else NEVER)
            kernels.mark_removals(self.visible, surfels.arrays(), pose, self._pinhole, depth, rules, stale, self._index)
            self._to_compact = self.visible
        if surfels.paging is not None:
            surfels.paging.next_frame()
        return FusionCounts(merged, added, removed, len(self.visible))

    def associate(
        self, surfels: SurfelMap, observation: Observation, T_world_camera: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which surfels `fuse` would merge with a prepared observation, seen at a pose; nothing is changed.

        Returns: the chunks in view (n,) int32, and for each slot of those the pixel v * W + u, or -1, (S,) int32.
        """
        assert observation.normals is not None
        pose = Pose.of(T_world_camera)
        rules = self._rules(f32(1.2 * self._far))
        measured = kernels.Measured(
            observation.depth, observation.normals, observation.color, self._all_sure, *self._weights
        )
        chunks = self._see(surfels, pose, rules.far).copy()
        pixels = np.full(len(surfels.position), -1, np.int32)
        match(chunks, surfels.arrays(), pose, self._pinhole, measured, rules, pixels)
        return chunks, pixels

    def predict(self, surfels: SurfelMap, T_world_camera: np.ndarray) -> View:
        """What the map looks like from a pose: one pixel a surfel, with holes where the map is sparse.

        The index map of the last `fuse` is used again where the pose is the same.
        """
        pose = Pose.of(T_world_camera)
        if self._index_pose is None or not np.array_equal(self._index_pose, T_world_camera):
            near, far = f32(0.5 * self._near), f32(1.2 * self._far)
            chunks = self._see(surfels, pose, far)
            self._index.fill(index_map.EMPTY)
            index_map.project_chunks(chunks, surfels.arrays(), pose, self._pinhole, near, far, self._index)
            self._index_pose = np.array(T_world_camera)
        grey = np.empty(self.camera.shape, f32)
        index_map.shown_grey(self._index, surfels.color, grey)
        rows, columns = -(-self.camera.height // self._stride), -(-self.camera.width // self._stride)
        pixels, points = np.empty((rows * columns, 2), np.int32), np.empty((rows * columns, 7), f32)
        n = index_map.shown_points(self._index, self._pinhole, self._stride, surfels.arrays(), pose, pixels, points)
        return View(self.camera, np.array(T_world_camera), grey, self._stride, pixels[:n], points[:n])

    def state(self) -> dict[str, np.ndarray]:
        """What must be kept, beside the map, to go on exactly as if there had been no break."""
        state = {
            "index": self._index,
            "fused": np.array(self._fused),
            "noise": np.array(self._noise),
            "recent": np.array(self._recent, np.int64),
        }
        if self._index_pose is not None:
            state["index_pose"] = self._index_pose
        if self._to_compact is not None:
            state["to_compact"] = self._to_compact
        return state

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up a `state`; ValueError where it is of another image size."""
        if state["index"].shape != self._index.shape:
            raise ValueError(
                f"the saved state is of {state['index'].size} pixels, these frames have {self._index.size}"
            )
        self._index[:] = state["index"]
        self._fused = int(state["fused"])
        self._recent = state["recent"].tolist()
        self._noise = Noise.of(*state["noise"])
        self._index_pose = state.get("index_pose")
        self._to_compact = state.get("to_compact")

    @property
    def rare(self) -> float:
        """Less confidence than this has what was seen once or twice."""
        return float(kernels.RARE) * self.config.stable

    def tracked(self, tracking: Tracking) -> None:
        """Filter and gate by the sensor's noise as tracking measures it, from the next frame on."""
        if tracking.noise is not None:
            self._noise = Noise.of(*tracking.noise)

    def invalidate(self, slots_moved: bool) -> None:
        """Forget the index map, because surfels have moved.

        slots_moved: also what is known by slots, because all surfels were stored anew; the marked ones were removed.
        """
        self._index_pose = None
        if slots_moved:
            self._index[:] = index_map.EMPTY
            self._to_compact = None

    def _rules(self, far: np.float32) -> kernels.Rules:
        """The loops' settings, for surfels up to so many metres of depth."""
        c = self.config
        return kernels.Rules(
            near=f32(0.5 * self._near),
            far=far,
            base=self._noise.base,
            quadratic=self._noise.quadratic,
            gate=f32(c.gate),
            cos_gate=f32(np.cos(np.radians(c.normal_gate_deg))),
            spacing=f32(c.spacing),
            coarsest=f32(c.coarsest),
            max_confidence=f32(c.max_confidence),
            carve=f32(c.carve),
            stable=f32(c.stable),
        )

    def _append(
        self, surfels: SurfelMap, measured: kernels.Measured, pose: Pose, rules: kernels.Rules, now: int
    ) -> int:
        ends = np.cumsum(self._new_counts)
        pixels = np.empty(int(ends[-1]), np.int32)
        kernels.list_new(self._new, ends, pixels)
        points = np.empty((len(pixels), 3), f32)
        kernels.world_points(pixels, measured.depth, pose, self._pinhole, points)
        new = kernels.New(pixels, points, surfels.insert(points))
        self._follow_growth(surfels)
        traces = kernels.Traces(self._index, self.pixels, self._merged_counts)
        kernels.write_new(new, surfels.arrays(), pose, self._pinhole, measured, rules, np.int32(now), traces)
        return len(new.slots)

    def _see(self, surfels: SurfelMap, pose: Pose, far: np.float32) -> np.ndarray:
        """(n,) int32 the chunks in view, up to so many metres; the next call uses the same memory again."""
        if len(self._chunks) < surfels.n_chunks:
            self._chunks = np.empty(max(256, 2 * surfels.n_chunks), np.int32)
        near = f32(0.5 * self._near)
        n = visible_chunks(surfels.chunks(), f32(surfels.margin), pose, self._pinhole, near, far, self._chunks)
        if surfels.paging is not None:
            surfels.paging.see(self._chunks[:n])
        return self._chunks[:n]

    def _follow_growth(self, surfels: SurfelMap) -> None:
        if len(self.pixels) < len(surfels.position):
            grown = np.empty(len(surfels.position), np.int32)
            grown[: len(self.pixels)] = self.pixels
            self.pixels = grown

    def _compact(self, surfels: SurfelMap) -> int:
        """Remove the marked surfels; returns how many."""
        if self._to_compact is None:
            return 0
        before = len(surfels)
        surfels.compact(self._to_compact)
        self._to_compact = None
        self._index_pose = None  # the index map names slots that have moved
        return before - len(surfels)


def stride_for(camera: Camera, points: int) -> int:
    """Side in pixels of the square blocks of which an image holds about so many."""
    return max(round((camera.width * camera.height / points) ** 0.5), 1)


def _radial_weights(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """exp(-(d / d_max)^2 / 0.72), d in pixels from the principal point (Keller et al. 2013, sec. 4.2), as factors.

    A Gaussian of the distance is the product of one in u, (W,), and one in v, (H,): tables that stay in the first
    cache. d_max is half the image's diagonal, so that the weights do not depend on the resolution.
    """
    half_diagonal = 0.5 * np.hypot(camera.width, camera.height)
    u = (np.arange(camera.width) - camera.cx) / half_diagonal
    v = (np.arange(camera.height) - camera.cy) / half_diagonal
    return np.exp(-(u**2) / 0.72).astype(f32), np.exp(-(v**2) / 0.72).astype(f32)
