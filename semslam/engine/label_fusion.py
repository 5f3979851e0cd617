"""Class probabilities of surfels from the class probabilities of images.

Every variant adds evidence e(p) >= 0 to a sum a class and reads probabilities from the sums; what they differ in is e
and the reading. Adding bounded evidence has no product that one near-zero output could pin to zero for ever.

Views repeat each other's errors. How much a view adds to what a surfel's last one said depends on how far the camera
has moved and turned in between, and what many views add up to is bounded when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic
from scipy.spatial import cKDTree

from semslam.compiled import PARALLEL
from semslam.config import check_choices
from semslam.engine.evidence import (
    MOST,
    UNIT,
    VIEW,
    WHOLE,
    Said,
    add_evidence,
    columns_of_classes,
    evidence_in,
    row_width,
    rows_of,
    views_in,
)  # fmt: skip
from semslam.engine.surfels import SurfelMap
from semslam.stage import Stage

f32 = np.float32
BAYES_VIEWS = 2.0  # independent views that count whole


def _log2_polynomial(degree: int) -> np.ndarray:
    nodes = 1.5 + 0.5 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return np.polynomial.polynomial.polyfit(nodes, np.log2(nodes), degree).astype(np.float32)


LOG2 = _log2_polynomial(4)


@dataclass(frozen=True)
class LabelFusionConfig:
    """How class probabilities reach the surfels."""

    method: Literal["bayes", "mean", "histogram"] = "bayes"  # how evidence adds up
    floor: float = 0.001  # bayes: the least probability that an observation may give a class
    way: float = 0.5  # metres: way between two views of a surfel that share 1/e of their errors
    turn_deg: float = 30.0  # degrees: turn between two such views
    # bayes: views that any number of independent ones is worth at most; inf = errors that no view repeats
    most_worth: float = field(default=3.0, metadata={"infinite": True})
    memory: float = 32.0  # views: independent ones beyond which old evidence fades, because scenes change
    reach: float = 0.05  # metres: to the neighbour whose classes a never labelled surfel borrows; 0 = none

    def __post_init__(self) -> None:
        check_choices(self, "slam.labels")
        if not 0 < self.floor < 1:
            raise ValueError(f"`slam.labels.floor` is {self.floor}, expected a probability between 0 and 1")
        if self.way <= 0 or self.turn_deg <= 0:
            raise ValueError(
                f"`slam.labels.way` is {self.way} and `turn_deg` {self.turn_deg}, expected positive metres and degrees"
            )
        if self.most_worth < BAYES_VIEWS:
            raise ValueError(f"`slam.labels.most_worth` is {self.most_worth}, expected {BAYES_VIEWS:g} views or more")
        if not 1 <= self.memory <= 32:
            raise ValueError(f"`slam.labels.memory` is {self.memory}, expected 1 to 32 views")
        if -(self.memory + 1) * math.log(self.floor) > MOST / UNIT:
            raise ValueError(
                f"`slam.labels.floor` is {self.floor}, too small for the evidence of {self.memory:g} views to be kept"
            )


@dataclass(eq=False)
class LabelFusion(Stage):
    """A way to fuse: what an image's probabilities say, and the reading of probabilities from sums of that."""

    say: Callable[[np.ndarray, np.ndarray], None]  # probabilities (H * W, C) -> evidence, flat uint16, in place
    read_evidence: Callable[[np.ndarray, np.ndarray], np.ndarray]  # evidence (N, C), views (N,) -> probabilities
    write_evidence: Callable[[np.ndarray], np.ndarray]  # probabilities (N, C) -> evidence that is read as them
    config: LabelFusionConfig
    _views: np.ndarray = field(default_factory=lambda: np.zeros((64, 4, 4)), init=False)  # poses, by number - 1
    _count: int = field(default=0, init=False)  # of labelled views, in all
    _image: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint16), init=False)

    def fuse(
        self,
        surfels: SurfelMap,
        chunks: np.ndarray,
        pixels: np.ndarray,
        probabilities: np.ndarray,
        T_world_camera: np.ndarray,
    ) -> None:
        """Add the evidence of an image, seen from a pose, to the surfels of `chunks` that were merged with its pixels.

        chunks and pixels are `Fusion.visible` and `Fusion.pixels`: each surfel is updated once, from its pixel.
        probabilities: (H, W, C) float32, all zero where a pixel has no label.
        """
        if probabilities.shape[2] != surfels.num_classes:
            raise ValueError(
                f"class probabilities are of {probabilities.shape[2]} classes, the map of {surfels.num_classes}"
            )
        flat = np.ascontiguousarray(probabilities, f32).reshape(-1, surfels.num_classes)
        if len(self._image) != flat.size + row_width(surfels.num_classes):
            # a working image that the next call uses again: fresh memory costs as much as filling it
            self._image = np.zeros(flat.size + row_width(surfels.num_classes), np.uint16)
        self.say(flat, self._image[: flat.size])
        known = self._views[: min(self._count, MOST)]
        weights = np.concatenate([[1.0], view_weights(known, T_world_camera, self.config)])
        view = self._count % MOST  # its number is one more
        if view == len(self._views):
            self._views = np.concatenate([self._views, np.zeros_like(self._views)])[:MOST]
        self._views[view] = T_world_camera
        self._count += 1
        said = Said(
            self._image,
            columns_of_classes(surfels.num_classes),
            np.uint16(view + 1),
            np.rint(weights * WHOLE).astype(np.uint16),
            np.uint16(self.config.memory * VIEW),
        )
        add_evidence(chunks, surfels.counts, pixels, said, surfels.evidence)

    def probabilities(self, surfels: SurfelMap, slots: np.ndarray | None = None) -> np.ndarray:
        """(N, C) float32 class probabilities of the surfels (of all, in the order of `slots()`); 0 where unlabelled.

        Of all, those that no labelled frame showed have what their neighbours have, see `borrowed`.
        """
        if slots is not None:
            return self.read(surfels.evidence[slots], surfels.num_classes)
        slots = surfels.slots()
        found = self.read(surfels.evidence[slots], surfels.num_classes)
        return borrowed(found, surfels.position[slots, :3], self.config.reach)

    def read(self, rows: np.ndarray, num_classes: int) -> np.ndarray:
        """Probabilities (N, C) from rows of evidence, see `evidence`; 0 where there is none."""
        return self.read_evidence(evidence_in(rows, num_classes), views_in(rows))

    def rows_of(self, probabilities: np.ndarray) -> np.ndarray:
        """Rows of evidence that are read as these probabilities (N, C); as of one view where there are any."""
        known = probabilities.max(axis=1, initial=0) > 0
        return rows_of(np.where(known[:, None], self.write_evidence(probabilities), 0), known.astype(f32))

    def state(self) -> dict[str, np.ndarray]:
        return {"views": self._views, "count": np.array(self._count)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._views = state.get("views", self._views).copy()
        self._count = int(state.get("count", self._count))


def view_weights(views: np.ndarray, T_world_camera: np.ndarray, config: LabelFusionConfig) -> np.ndarray:
    """(N,) in 0..1, what a view from a pose adds to what each of N earlier views (N, 4, 4) said of the same surfel.

    A view repeats the errors of one from the same place. How many errors two views share falls exponentially with the
    way and the turn between them.
    """
    ways = np.linalg.norm(views[:, :3, 3] - T_world_camera[:3, 3], axis=1)
    cosines = (np.einsum("nij,ij->n", views[:, :3, :3], T_world_camera[:3, :3]) - 1) / 2
    turns = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return -np.expm1(-np.hypot(ways / config.way, turns / config.turn_deg))


def worth(views: np.ndarray, most: float) -> np.ndarray:
    """How many views that err independently a sum over views (N,) is worth: all of one or two, at most `most`.

    Also views from different places err alike where a thing looks like another one from everywhere.
    """
    over, room = np.maximum(views - BAYES_VIEWS, 0), most - BAYES_VIEWS
    if np.isinf(most):
        return views
    return np.minimum(views, BAYES_VIEWS) + (-np.expm1(-over / room) * room if room > 0 else 0)


def borrowed(probabilities: np.ndarray, positions: np.ndarray, reach: float) -> np.ndarray:
    """Probabilities (N, C) in which surfels without any have those of the nearest surfel with some, within `reach`.

    A network sees every tenth frame; what came into view and left it in between would stay without a class. Positions
    (N, 3) and reach are metres.
    """
    known = probabilities.max(axis=1, initial=0) > 0
    if reach <= 0 or known.all() or not known.any():
        return probabilities
    unknown = np.flatnonzero(~known)
    distance, nearest = cKDTree(positions[known]).query(positions[unknown], distance_upper_bound=reach, workers=-1)
    near = np.isfinite(distance)
    probabilities[unknown[near]] = probabilities[np.flatnonzero(known)[nearest[near]]]
    return probabilities


def _softmax(scores: np.ndarray) -> np.ndarray:
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True, initial=0))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def _shares(evidence: np.ndarray, views: np.ndarray) -> np.ndarray:
    total = evidence.sum(axis=1, keepdims=True)
    return np.divide(evidence, total, out=np.zeros_like(evidence), where=total > 0)


def _bayes(config: LabelFusionConfig) -> LabelFusion:
    """Bayes' rule in logarithms: log p - log floor (McCormac et al. 2017, eq. 2, with a floor), of views that repeat
    each other's errors."""

    def say(probabilities: np.ndarray, out: np.ndarray) -> None:
        logarithms(probabilities.reshape(-1), f32(config.floor), out)

    def read(evidence: np.ndarray, views: np.ndarray) -> np.ndarray:
        known = views > 0
        temper = np.divide(worth(views, config.most_worth), views, out=np.zeros_like(views), where=known)
        return np.where(known[:, None], _softmax(evidence * temper[:, None]), f32(0))

    def write(probabilities: np.ndarray) -> np.ndarray:
        logarithms = np.log(np.maximum(probabilities, f32(1e-30)))
        return logarithms - logarithms.min(axis=1, keepdims=True, initial=0)

    return LabelFusion(say, read, write, config)


def _mean(config: LabelFusionConfig) -> LabelFusion:
    """The mean of the probabilities."""

    def say(probabilities: np.ndarray, out: np.ndarray) -> None:
        fixed_point(probabilities.reshape(-1), out)

    return LabelFusion(say, _shares, _as_shares, config)


def _histogram(config: LabelFusionConfig) -> LabelFusion:
    """A count of how often each class was the most probable one."""

    def say(probabilities: np.ndarray, out: np.ndarray) -> None:
        winners(probabilities, out)

    return LabelFusion(say, _shares, _as_shares, config)


def _as_shares(probabilities: np.ndarray) -> np.ndarray:
    return probabilities * f32(0.5 * MOST / UNIT)


LABEL_FUSIONS: dict[str, Callable[[LabelFusionConfig], LabelFusion]] = {
    "bayes": _bayes,
    "mean": _mean,
    "histogram": _histogram,
}


def label_fusion(config: LabelFusionConfig | None = None) -> LabelFusion:
    """The label fusion that a configuration asks for."""
    config = config or LabelFusionConfig()
    return LABEL_FUSIONS[config.method](config)


@intrinsic
def bits_of(typing_context, x):
    """The bits of a float32 as int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def float_of(typing_context, bits):
    """The float32 with these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@nb.njit(inline="always")
def logarithm(x):
    """Natural logarithm of a positive float32 to 2e-4, without a branch or a call, so that loops of it vectorise.

    The exponent's bits are the logarithm's whole part; for the mantissa m in 1..2 a polynomial of degree four is
    fitted to log2(m) at Chebyshev's points.
    """
    bits = bits_of(x)
    whole = f32((bits >> 23) - 127)
    m = float_of((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000))
    part = LOG2[0] + m * (LOG2[1] + m * (LOG2[2] + m * (LOG2[3] + m * LOG2[4])))
    return (whole + part) * f32(0.6931472)


PARTS = 64  # of an image's work, in whole rows of vectors


@nb.njit(**PARALLEL)
def logarithms(probabilities, floor, out):
    """log p - log floor of flat probabilities, at least 0, in 1 / UNIT: what each says for its class."""
    log_floor = logarithm(floor)
    size = -(-out.size // PARTS)
    for part_ in nb.prange(PARTS):
        part = np.int64(part_)  # prange counts unsigned
        q = probabilities[part * size : (part + 1) * size]
        evidence = out[part * size : (part + 1) * size]
        for k in range(q.size):
            said = logarithm(max(q[k], floor)) - log_floor
            said = said if q[k] > floor else f32(0)  # also what is not a number
            evidence[k] = np.uint16(np.int32(said * f32(UNIT) + f32(0.5)))


@nb.njit(**PARALLEL)
def fixed_point(probabilities, out):
    """Flat probabilities in 1 / VIEW."""
    size = -(-out.size // PARTS)
    for part_ in nb.prange(PARTS):
        part = np.int64(part_)  # prange counts unsigned
        q = probabilities[part * size : (part + 1) * size]
        evidence = out[part * size : (part + 1) * size]
        for k in range(q.size):
            evidence[k] = np.uint16(np.int32((q[k] if q[k] > f32(0) else f32(0)) * f32(VIEW) + f32(0.5)))


@nb.njit(**PARALLEL)
def winners(probabilities, out):
    """One view, in 1 / VIEW, for the most probable class of each pixel of (P, C) probabilities, if any is above 0."""
    n_classes = probabilities.shape[1]
    for p_ in nb.prange(len(probabilities)):
        p = np.int64(p_)  # prange counts unsigned
        best = 0
        for k in range(n_classes):
            out[p * n_classes + k] = np.uint16(0)
            if probabilities[p, k] > probabilities[p, best]:
                best = k
        if probabilities[p, best] > f32(0):
            out[p * n_classes + best] = np.uint16(VIEW)
