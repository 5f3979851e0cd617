"""Class probabilities of surfels from the class probabilities of images.

Every variant adds evidence e(p) >= 0 to a score a class and reads probabilities from the sums; what they differ in is
e and the reading. Adding bounded evidence has no product that one near-zero output could pin to zero for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba as nb
import numpy as np

from semslam.camera import Camera
from semslam.depth_filter import COMPILED
from semslam.kernels import CHUNK
from semslam.surfels import SurfelMap

f32 = np.float32
STEPS = 4095  # a probability is looked up as one of so many steps: a table in the first cache, no logarithms


@dataclass(frozen=True)
class LabelFusionConfig:
    """How class probabilities reach the surfels."""

    method: str = "bayes"  # one of LABEL_FUSIONS
    floor: float = 0.01  # bayes: the least probability that an observation may give a class
    weight: float = 0.5  # bayes: the exponent of an observation; below 1 because neighbouring frames agree in errors
    most_evidence: float = 200.0  # the sum of scores beyond which old evidence fades


@dataclass(frozen=True, eq=False)
class LabelFusion:
    """A way to fuse: evidence by table, and probabilities from scores."""

    table: np.ndarray  # (STEPS + 1,) float32, the evidence of a class whose probability is k / STEPS
    winner: bool  # whether only the most probable class of a pixel gets evidence
    read: Callable[[np.ndarray], np.ndarray]  # scores (N, C) -> probabilities (N, C)
    most_evidence: float

    def fuse(
        self,
        surfels: SurfelMap,
        chunks: np.ndarray,
        probabilities: np.ndarray,
        weights: np.ndarray,
        camera: Camera,
        T_world_camera: np.ndarray,
        now: int,
    ) -> None:
        """Add the evidence of an image to the surfels of `chunks` that were merged in frame `now`.

        probabilities: (H, W, C) float32, all zero where a pixel has no label. weights: (H, W) float32, how much a
        pixel's evidence counts. Each surfel is updated once, from the pixel that it projects to.
        """
        if probabilities.shape[2] != surfels.num_classes:
            raise ValueError(
                f"class probabilities are of {probabilities.shape[2]} classes, the map of {surfels.num_classes}"
            )
        add_evidence(
            chunks, surfels.counts, surfels.position, surfels.seen, np.ascontiguousarray(T_world_camera[:3, :3], f32),
            np.ascontiguousarray(T_world_camera[:3, 3], f32),
            np.array([camera.fx, camera.fy, camera.cx, camera.cy], f32), np.int32(now), probabilities, weights,
            self.table, self.winner, f32(self.most_evidence), surfels.scores,
        )  # fmt: skip

    def probabilities(self, surfels: SurfelMap, slots: np.ndarray | None = None) -> np.ndarray:
        """(N, C) float32 class probabilities of the surfels (of all, in the order of `slots()`); 0 where unlabelled."""
        scores = surfels.scores[surfels.slots() if slots is None else slots]
        return self.read(scores)


def _softmax(scores: np.ndarray) -> np.ndarray:
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True, initial=0))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities[scores.max(axis=1, initial=0) <= 0] = 0
    return probabilities


def _shares(scores: np.ndarray) -> np.ndarray:
    total = scores.sum(axis=1, keepdims=True)
    return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)


def _bayes(config: LabelFusionConfig) -> LabelFusion:
    """Bayes' rule in logarithms: log p - log floor, times the weight (McCormac et al. 2017, eq. 2, with a floor)."""
    p = np.arange(STEPS + 1) / STEPS
    table = config.weight * (np.log(np.maximum(p, config.floor)) - np.log(config.floor))
    return LabelFusion(table.astype(f32), False, _softmax, config.most_evidence)


def _mean(config: LabelFusionConfig) -> LabelFusion:
    """The confidence-weighted mean of the probabilities."""
    return LabelFusion((np.arange(STEPS + 1) / STEPS).astype(f32), False, _shares, config.most_evidence)


def _histogram(config: LabelFusionConfig) -> LabelFusion:
    """A count of how often each class was the most probable one."""
    return LabelFusion(np.ones(STEPS + 1, f32), True, _shares, config.most_evidence)


LABEL_FUSIONS: dict[str, Callable[[LabelFusionConfig], LabelFusion]] = {
    "bayes": _bayes,
    "mean": _mean,
    "histogram": _histogram,
}


def label_fusion(config: LabelFusionConfig | None = None) -> LabelFusion:
    """The label fusion that a configuration asks for."""
    config = config or LabelFusionConfig()
    if config.method not in LABEL_FUSIONS:
        raise ValueError(f"label fusion {config.method!r} is not known; it is one of {', '.join(LABEL_FUSIONS)}")
    if not 0 < config.floor < 1:
        raise ValueError(f"label fusion: floor is {config.floor}, expected a probability between 0 and 1")
    return LABEL_FUSIONS[config.method](config)


@nb.njit(**COMPILED)
def add_evidence(
    chunks, counts, position, seen, R, t, K, now, probabilities, weights, table, winner, most_evidence, scores
):
    """scores[i, k] += weight * table[p_k] for every surfel i merged in frame `now`, p being its pixel's classes."""
    height, width, n_classes = probabilities.shape
    for c_ in nb.prange(chunks.size):
        c = np.int64(c_)  # prange counts unsigned
        first = np.int64(chunks[c]) * CHUNK
        for i in range(np.uint64(first), np.uint64(first + counts[chunks[c]])):
            if seen[i, 1] != now:
                continue
            x = position[i, 0] - t[0]
            y = position[i, 1] - t[1]
            z = position[i, 2] - t[2]
            scale = f32(1) / (R[0, 2] * x + R[1, 2] * y + R[2, 2] * z)
            u = np.int64(np.floor((R[0, 0] * x + R[1, 0] * y + R[2, 0] * z) * scale * K[0] + K[2] + f32(0.5)))
            v = np.int64(np.floor((R[0, 1] * x + R[1, 1] * y + R[2, 1] * z) * scale * K[1] + K[3] + f32(0.5)))
            if u < 0 or v < 0 or u >= width or v >= height:
                continue
            p = probabilities[v, u]
            weight = weights[v, u]
            total = f32(0)
            if winner:
                best = 0
                for k in range(1, n_classes):
                    if p[k] > p[best]:
                        best = k
                if p[best] > f32(0):
                    scores[i, best] += weight
                for k in range(n_classes):
                    total += scores[i, k]
            else:
                for k in range(n_classes):
                    step = np.uint64(min(max(p[k], f32(0)), f32(1)) * f32(STEPS) + f32(0.5))
                    score = scores[i, k] + weight * table[step]
                    scores[i, k] = score
                    total += score
            if total > most_evidence:
                fade = most_evidence / total
                for k in range(n_classes):
                    scores[i, k] *= fade
