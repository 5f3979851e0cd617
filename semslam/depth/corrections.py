"""Corrections of predicted depth on its way into a map. Each can be switched off, and has its row in `compare`.

A network's depth is smooth, wrong in scale by tens of per cent, differently so in every frame, and smeared between
surfaces at edges. Fused like a sensor's it gives one layer a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.depth.alignment import KnownDepths, ScaleShift, at_pixels, fit_scale_shift, smooth_correction
from semslam.depth.anchors import Anchors
from semslam.engine.fusion import FusionConfig
from semslam.frame import Observation, View
from semslam.stage import Stage, prefixed, under_prefix

FARTHEST = 1.6  # times; no measurement moves a pixel farther from what the network says here
Predict = Callable[[np.ndarray], View]  # T_world_camera -> what the map shows from there
Expect = Callable[[Observation], "np.ndarray | None"]  # where the camera of an observation will be, if that is known


@dataclass(frozen=True)
class CorrectionsConfig:
    """Which corrections predicted depth gets, in the order in which `compare` adds them."""

    noise: bool = True  # association and smoothing with a network's errors instead of a Kinect's
    anchors: bool = True  # scale and shift from features triangulated between the frames' poses
    align: bool = True  # scale and shift from the map's predicted view
    bend: bool = True  # a smooth correction field besides scale and shift, from the same measurements
    edges: bool = True  # pixels on slopes that no surface has are left out
    weights: bool = True  # the network's own uncertainty as the weight of a measurement
    gate: bool = True  # surfels that further views do not confirm go, and so do ones that are contradicted
    keyframes: bool = True  # frames that hardly moved say the same again: they are not fused
    multiview: bool = True  # depth by parallax to the frames before and after; it takes the place of all but `noise`

    @staticmethod
    def named(names: str) -> CorrectionsConfig:
        """From "all", "none" or names with commas; ValueError names the known ones."""
        known = [f.name for f in fields(CorrectionsConfig)]
        if names in ("all", "none"):
            return CorrectionsConfig(**dict.fromkeys(known, names == "all"))
        chosen = [name.strip() for name in names.split(",") if name.strip()]
        for name in chosen:
            if name not in known:
                raise ValueError(f"`slam.corrections`: there is no {name!r}; there are all, none, {', '.join(known)}")
        return CorrectionsConfig(**{name: name in chosen for name in known})

    @property
    def names(self) -> str:
        """What `named` reads."""
        chosen = [f.name for f in fields(self) if getattr(self, f.name)]
        return {0: "none", len(fields(self)): "all"}.get(len(chosen), ",".join(chosen))


def fusion_config(corrections: CorrectionsConfig, chosen: FusionConfig | None = None) -> FusionConfig:
    """The fusion's settings for predicted depth: what was chosen, else what the corrections change, else a
    sensor's."""
    changes: dict[str, Any] = {}
    if corrections.multiview:
        changes = {"near": 0.2, "far": 10.0, "noise": 0.015, "noise_quadratic": 0.006, "gate": 0.04}
        changes |= {"normal_gate_deg": 60.0, "stable": 1.5, "patience": 8, "clean_every": 1}
        return _where_default(chosen or FusionConfig(), changes)
    if corrections.noise:
        changes |= {"noise": 0.03, "noise_quadratic": 0.02, "gate": 0.1, "normal_gate_deg": 75.0}
    if corrections.keyframes:
        changes |= {"clean_every": 1}  # cleaning every few frames would rarely meet a keyframe
    if corrections.gate:
        changes |= {"stable": 3.0, "patience": 8, "clean_every": 1}
    return _where_default(chosen or FusionConfig(), changes)


def _where_default(config: FusionConfig, changes: dict[str, Any]) -> FusionConfig:
    """The settings with the changes that touch nothing somebody chose."""
    usual = FusionConfig()
    return replace(config, **{k: v for k, v in changes.items() if getattr(config, k) == getattr(usual, k)})


def without_slopes(depth: np.ndarray, camera: Camera, steepest_deg: float = 75.0) -> np.ndarray:
    """Depth (H, W) with 0 where it falls off more steeply than a surface would that could still be measured.

    steepest_deg: angle between the viewing ray and the surface's normal. Between an object and what lies behind it a
    network draws such a slope, pixels that fly in mid-air; a real surface seen so obliquely is measured badly anyhow.
    """
    limit = np.tan(np.radians(steepest_deg))
    across = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE) * camera.fx
    down = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE) * camera.fy
    return np.where(np.hypot(across, down) < limit * depth, depth, np.float32(0))


def map_depths(view: View, predicted: np.ndarray, trusted: float = 3.0, cells: int = 16) -> KnownDepths:
    """What the map's view says: for each cell of the image the place of the median ratio to the predicted depth.

    trusted: confidence from which a surfel counts. Cells with few surfels are left out. The weights are low: all
    cells repeat what the same network said before.
    """
    size = -(-predicted.shape[1] // cells)
    u, v = view.pixels.T
    z = view.points[:, 2]
    use = (view.points[:, 6] >= trusted) & (predicted[v, u] > 0)
    u, v, z = u[use], v[use], z[use]
    cell = (v // size) * cells + u // size
    ratio = z / predicted[v, u]
    order = np.lexsort((ratio, cell))
    cell, v, u, z = cell[order], v[order], u[order], z[order]
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    count = np.diff(first, append=len(cell))
    middle = (first + count // 2)[count >= 0.05 * (size / view.stride) ** 2]
    pixels = np.column_stack([u[middle], v[middle]]).astype(np.float32)
    return KnownDepths(pixels, z[middle].astype(np.float64), np.full(len(middle), 0.07))


class DepthCorrections(Stage):
    """Corrects the depth of keyframes before they are fused, and gives other frames none; for `Slam`'s `correct`.

    expect: the given pose of an observation; None = unknown. Nothing is fused until parallax has told the scale, for
    at most `patience` frames.
    """

    def __init__(self, camera: Camera, config: CorrectionsConfig, expect: Expect, patience: int = 30) -> None:
        self.camera = camera
        self.config = config
        self.expect = expect
        self.patience = patience
        self.distance, self.turn = 0.05, np.radians(5)  # metres and radians from keyframe to keyframe
        self._anchors = Anchors(camera)
        self._level: ScaleShift | None = None  # the network's scale and shift here, by triangulation
        self._last: np.ndarray | None = None  # T_world_camera of the last keyframe
        self._waited = 0  # frames without a scale

    def is_keyframe(self, observation: Observation) -> bool:
        """Whether the camera has moved enough since the last keyframe, or the frame brings labels."""
        T = self.expect(observation)
        if not self.config.keyframes or self._last is None or T is None or observation.class_probabilities is not None:
            return True
        step = poses.inverse(self._last) @ T
        return bool(np.linalg.norm(step[:3, 3]) > self.distance or poses.rotation_angle(step) > self.turn)

    def __call__(self, observation: Observation, predict: Predict) -> Observation:
        """A keyframe with better depth."""
        c, T = self.config, self.expect(observation)
        observation = replace(observation, confidence=_relative(observation.confidence) if c.weights else None)
        known = KnownDepths(np.zeros((0, 2), np.float32), np.zeros(0), np.zeros(0))
        depth = observation.depth
        if T is None:
            return observation
        if c.anchors:
            found = self._anchors(observation.color, T)
            known = KnownDepths(found.pixels, found.depths, np.ones(len(found.depths)))
        if not depth.any():  # a frame between keyframes, which was only followed
            return observation
        if not self.is_keyframe(observation):
            return _without_depth(observation)
        self._learn_level(depth, known)
        if self._level is None and c.anchors and self._waited < self.patience:
            self._waited += 1
            return _without_depth(observation)
        anchored = float(known.weights.sum())
        if c.align:
            known = known.joined(map_depths(predict(T), depth))
        if c.anchors or c.align:
            depth = self._corrected(depth, known, anchored)
        if c.edges:
            depth = without_slopes(depth, self.camera)
        self._last = np.array(T)
        return replace(observation, depth=depth)

    def _learn_level(self, depth: np.ndarray, anchors: KnownDepths) -> None:
        """Follow slowly what triangulation says of the network's scale and shift in this place."""
        if len(anchors) < 12:
            return
        predicted = at_pixels(depth, anchors.pixels)
        if self._level is None:
            start = ScaleShift(float(np.median(anchors.depths / predicted)))
            self._level = fit_scale_shift(predicted, anchors.depths, anchors.weights, start)
            return
        now = fit_scale_shift(predicted, anchors.depths, anchors.weights, self._level)
        old, rate = self._level, 0.2
        self._level = ScaleShift(old.scale + rate * (now.scale - old.scale), old.shift + rate * (now.shift - old.shift))

    def _corrected(self, depth: np.ndarray, known: KnownDepths, anchored: float) -> np.ndarray:
        """Scale, shift and bend; the prior is what triangulation says of the place, else the network itself.

        anchored: how many sure measurements triangulation made in this frame. What the map says is no new evidence:
        where it stands alone it counts as 0.03 of one, and no pixel moves by more than FARTHEST from the prior, so
        that a map which misleads itself a little in every frame does not run away.
        """
        predicted = at_pixels(depth, known.pixels)
        independent = min(20.0, anchored + 0.03)
        fit = fit_scale_shift(predicted, known.depths, known.weights, self._level, independent=independent)
        corrected = fit(depth).astype(np.float32)
        if self.config.bend and len(known):
            ratios = np.log(known.depths / fit(predicted))
            corrected *= np.exp(smooth_correction(known.pixels, ratios, known.weights, depth.shape))
        prior = (self._level or ScaleShift())(depth).astype(np.float32)
        return np.clip(corrected, prior / FARTHEST, prior * FARTHEST)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        state = prefixed("anchors_", self._anchors.state())
        state["waited"] = np.array(self._waited)
        if self._level is not None:
            state["level"] = np.array([self._level.scale, self._level.shift])
        return state if self._last is None else state | {"last": self._last}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._anchors.restore(under_prefix("anchors_", state))
        self._waited = int(state["waited"])
        self._level = ScaleShift(*map(float, state["level"])) if "level" in state else None
        self._last = state.get("last")


def _relative(confidence: np.ndarray | None) -> np.ndarray | None:
    """The confidence (H, W) relative to the image's mean: which pixels to believe more than others.

    Surfels become stable by what they add up to; a network that is unsure of everything must not keep them from it.
    """
    if confidence is None:
        return None
    return np.clip(confidence / max(float(confidence.mean()), 1e-6), 0, 2).astype(np.float32)


def _without_depth(observation: Observation) -> Observation:
    return replace(observation, depth=np.zeros_like(observation.depth))
