"""Class probabilities of surfels from the class probabilities of images.

Every variant adds evidence e(p) >= 0 to a score a class and reads probabilities from the sums; what they differ in is
e and the reading. Adding bounded evidence has no product that one near-zero output could pin to zero for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic
from scipy.spatial import cKDTree

from semslam.compiled import PARALLEL
from semslam.config import check_choices
from semslam.engine.chunks import CHUNK
from semslam.engine.surfels import SurfelMap

f32 = np.float32
LOGARITHM, PROBABILITY, WINNER, SUM = 0, 1, 2, 3  # the rules of `add_evidence`
FADE_EVERY = 10  # frames between two looks for surfels with too much evidence


def _log2_polynomial(degree: int) -> np.ndarray:
    nodes = 1.5 + 0.5 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return np.polynomial.polynomial.polyfit(nodes, np.log2(nodes), degree).astype(np.float32)


LOG2 = _log2_polynomial(4)


@dataclass(frozen=True)
class LabelFusionConfig:
    """How class probabilities reach the surfels."""

    method: Literal["bayes", "mean", "histogram"] = "bayes"  # how evidence adds up
    floor: float = 0.01  # bayes: the least probability that an observation may give a class
    weight: float = 1.0  # bayes: the exponent of an observation
    # bayes: the sum of scores that counts half; inf = views err independently of each other
    saturation: float = field(default=20.0, metadata={"infinite": True})
    most_evidence: float = 1000.0  # the sum of scores beyond which old evidence fades
    reach: float = 0.05  # metres: to the neighbour whose classes a never labelled surfel borrows; 0 = none

    def __post_init__(self) -> None:
        check_choices(self, "slam.labels")
        if not 0 < self.floor < 1:
            raise ValueError(f"`slam.labels.floor` is {self.floor}, expected a probability between 0 and 1")


@dataclass(eq=False)
class LabelFusion:
    """A way to fuse: a compiled rule that adds evidence, and the reading of probabilities from scores."""

    rule: int  # LOGARITHM, PROBABILITY or WINNER
    read: Callable[[np.ndarray], np.ndarray]  # scores (N, C) -> probabilities (N, C)
    config: LabelFusionConfig
    _image: np.ndarray | None = field(default=None, init=False)

    def fuse(
        self,
        surfels: SurfelMap,
        chunks: np.ndarray,
        pixels: np.ndarray,
        probabilities: np.ndarray,
        weights: np.ndarray,
        now: int,
    ) -> None:
        """Add the evidence of an image to the surfels of `chunks` that were merged in frame `now`.

        chunks and pixels are `Fusion.visible` and `Fusion.pixels`: each surfel is updated once, from its pixel.
        probabilities: (H, W, C) float32, all zero where a pixel has no label. weights: (H, W) float32, how much a
        pixel's evidence counts.
        """
        if probabilities.shape[2] != surfels.num_classes:
            raise ValueError(
                f"class probabilities are of {probabilities.shape[2]} classes, the map of {surfels.num_classes}"
            )
        c = self.config
        fades = now % FADE_EVERY == 0
        rule, image = self.rule, np.ascontiguousarray(probabilities, f32).reshape(-1, surfels.num_classes)
        if rule == LOGARITHM and surfels.counts[chunks].sum() > len(image):
            rule, image = SUM, self._evidence(image)  # several surfels per pixel: its logarithms are taken once
        add_evidence(
            chunks, surfels.counts, pixels, image, weights.ravel(),
            Evidence(rule, f32(c.floor), f32(c.weight), f32(c.most_evidence if fades else np.inf)), surfels.scores,
        )  # fmt: skip

    def _evidence(self, probabilities: np.ndarray) -> np.ndarray:
        """A working image that the next call uses again: fresh memory costs as much as filling it."""
        if self._image is None or self._image.shape != probabilities.shape:
            self._image = np.empty_like(probabilities)
        evidence_image(probabilities, f32(self.config.floor), self._image)
        return self._image

    def probabilities(self, surfels: SurfelMap, slots: np.ndarray | None = None) -> np.ndarray:
        """(N, C) float32 class probabilities of the surfels (of all, in the order of `slots()`); 0 where unlabelled.

        Of all, those that no labelled frame showed have what their neighbours have, see `borrowed`.
        """
        if slots is not None:
            return self.read(surfels.scores[slots])
        slots = surfels.slots()
        return borrowed(self.read(surfels.scores[slots]), surfels.position[slots, :3], self.config.reach)


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
    probabilities[scores.max(axis=1, initial=0) <= 0] = 0
    return probabilities


def _saturating(saturation: float) -> Callable[[np.ndarray], np.ndarray]:
    """Soft-max of scores that count less the more of them there are: s / (1 + sum(s) / saturation).

    Views of one surface show the network the same things and repeat its errors, so that evidence of sum t is worth no
    more than t / (1 + t / saturation). The most probable class stays the same; how sure it is becomes believable
    (benchmarks/label_fusion.py: expected calibration error of the map against that of single frames).
    """
    if saturation <= 0:
        raise ValueError(f"label fusion: saturation is {saturation}, expected a positive sum of scores, or inf")
    return lambda scores: _softmax(scores / (1 + scores.sum(axis=1, keepdims=True) / f32(saturation)))


def _shares(scores: np.ndarray) -> np.ndarray:
    total = scores.sum(axis=1, keepdims=True)
    return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)


def _bayes(config: LabelFusionConfig) -> LabelFusion:
    """Bayes' rule in logarithms: log p - log floor, times the weight (McCormac et al. 2017, eq. 2, with a floor)."""
    return LabelFusion(LOGARITHM, _saturating(config.saturation), config)


def _mean(config: LabelFusionConfig) -> LabelFusion:
    """The confidence-weighted mean of the probabilities."""
    return LabelFusion(PROBABILITY, _shares, config)


def _histogram(config: LabelFusionConfig) -> LabelFusion:
    """A count of how often each class was the most probable one."""
    return LabelFusion(WINNER, _shares, config)


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


@nb.njit(inline="always")
def evidence_of(q, floor, log_floor):
    """log q - log floor, at least 0: what a probability says for its class, by Bayes' rule."""
    evidence = logarithm(max(q, floor)) - log_floor
    return evidence if q > floor else f32(0)


@nb.njit(**PARALLEL)
def evidence_image(probabilities, floor, out):
    """`evidence_of` every probability of an image (H * W, C), for the rule SUM."""
    log_floor = logarithm(floor)
    flat_in, flat_out = probabilities.reshape(-1), out.reshape(-1)
    parts = 64  # of the work, in whole rows of vectors
    size = -(-flat_in.size // parts)
    for part_ in nb.prange(parts):
        part = np.int64(part_)  # prange counts unsigned
        q = flat_in[part * size : (part + 1) * size]
        evidence = flat_out[part * size : (part + 1) * size]
        for k in range(q.size):
            evidence[k] = evidence_of(q[k], floor, log_floor)


class Evidence(NamedTuple):
    """How `add_evidence` adds."""

    rule: int  # LOGARITHM, PROBABILITY, WINNER or SUM
    floor: np.float32  # the least probability that an observation may give a class
    scale: np.float32  # of what is added
    most: np.float32  # scores whose sum exceeds it shrink to it


@nb.njit(**PARALLEL)
def add_evidence(chunks, counts, pixels, probabilities, weights, evidence, scores):
    """scores[i, k] += evidence for class k in the pixel of surfel i, for every surfel of `chunks` that has one.

    probabilities: (H * W, C), for the rule SUM their `evidence_image`; weights: (H * W,).
    """
    rule, floor, scale, most = evidence
    n_classes = probabilities.shape[1]
    log_floor = logarithm(floor)
    for c_ in nb.prange(chunks.size):
        c = np.int64(c_)  # prange counts unsigned
        first = np.int64(chunks[c]) * CHUNK
        for i in range(np.uint64(first), np.uint64(first + counts[chunks[c]])):
            if pixels[i] < 0:
                continue
            p = np.uint64(pixels[i])
            if rule == LOGARITHM:
                weight = weights[p] * scale
                for k in range(n_classes):
                    scores[i, k] += weight * evidence_of(probabilities[p, k], floor, log_floor)
            elif rule != WINNER:
                weight = weights[p] * (scale if rule == SUM else f32(1))
                for k in range(n_classes):
                    scores[i, k] += weight * probabilities[p, k]
            else:
                best = 0
                for k in range(1, n_classes):
                    if probabilities[p, k] > probabilities[p, best]:
                        best = k
                if probabilities[p, best] > f32(0):
                    scores[i, best] += weights[p]
            if most < f32(np.inf):
                total = f32(0)
                for k in range(n_classes):
                    total += scores[i, k]
                if total > most:
                    for k in range(n_classes):
                        scores[i, k] *= most / total
