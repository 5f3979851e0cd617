"""Class probabilities of surfels from the class probabilities of images.

Every method adds evidence e(p) >= 0 to a sum a class and reads probabilities from the mean; what they differ in is e
and the reading. Adding bounded evidence has no product that one near-zero output could pin to zero for ever.

Views repeat each other's errors. How many independent views a surfel's evidence is worth grows with the way and the
turn of the camera between two of them, up to a bound. What few views say is completed by what is said of the surfels
around. Views from nearly the same place, and surfels side by side, should say the same: where they do not, the network
is less sure than it says, and so is the map. That takes no truth, and notices what the network knows less of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

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
    shares_in,
    views_in,
)  # fmt: skip
from semslam.engine.surfels import SurfelMap
from semslam.stage import Layout, Stage, check_state

f32 = np.float32
STATE: Layout = {"views": (np.float64, ("room", 4, 4)), "count": (np.int64, ())}  # of a saved fusion
ROUNDED = 1.005  # factor by which evidence may outgrow its shares, as both are rounded to whole units
LOST = f32(0.013)  # nats that a view's evidence may lose where it is rounded to units in a small share
AGAIN = 0.2  # share in the evidence of a view that repeats another one, to what an independent view adds to that


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
    most_worth: float = field(default=2.0, metadata={"infinite": True})
    memory: float = 32.0  # views: independent ones beyond which old evidence fades, because scenes change
    reach: float = 0.1  # metres: side of the cubes whose surfels complete each other's evidence; 0 = none
    pull: float = 20.0  # views: as many as what is said of a surfel's cube counts; 0 = nothing but where it has no own

    def __post_init__(self) -> None:
        check_choices(self, "slam.labels")
        if not 0 < self.floor < 1:
            raise ValueError(f"`slam.labels.floor` is {self.floor}, expected a probability between 0 and 1")
        if self.way <= 0 or self.turn_deg <= 0:
            raise ValueError(
                f"`slam.labels.way` is {self.way} and `turn_deg` {self.turn_deg}, expected positive metres and degrees"
            )
        if self.most_worth < 1:
            raise ValueError(f"`slam.labels.most_worth` is {self.most_worth}, expected 1 view or more")
        if self.reach < 0 or self.pull < 0:
            raise ValueError(f"`slam.labels.reach` is {self.reach} and `pull` {self.pull}, expected 0 or more")
        if not 1 <= self.memory <= 32:
            raise ValueError(f"`slam.labels.memory` is {self.memory}, expected 1 to 32 views")
        if -(self.memory + 1) * math.log(self.floor) * ROUNDED > MOST / UNIT:
            raise ValueError(
                f"`slam.labels.floor` is {self.floor}, too small for the evidence of {self.memory:g} views to be kept"
            )


@dataclass(eq=False)
class LabelFusion(Stage):
    """A way to fuse: what an image's probabilities say, and the reading of probabilities from sums of that."""

    say: Callable[[np.ndarray, np.ndarray], None]  # probabilities (H * W, C) -> evidence, flat uint16, in place
    read_evidence: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of a view (N, C), views (N,) -> probabilities
    write_evidence: Callable[[np.ndarray], np.ndarray]  # probabilities (N, C) -> evidence of a view, read as them
    agreement: Callable[[np.ndarray], np.ndarray]  # of what a mean (N, C) is of: logarithm (N,), 0 of one view alone
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
        news = np.concatenate([[1.0], news_of_view(known, T_world_camera, self.config)])
        view = self._count % MOST  # its number is one more
        if view == len(self._views):
            self._views = np.concatenate([self._views, np.zeros_like(self._views)])[:MOST]
        self._views[view] = T_world_camera
        self._count += 1
        said = Said(
            self._image,
            columns_of_classes(surfels.num_classes),
            np.uint16(view + 1),
            np.rint((news + AGAIN) / (1 + AGAIN) * WHOLE).astype(np.uint16),
            np.rint(news * WHOLE).astype(np.uint16),
            np.uint16(self.config.memory * VIEW),
        )
        add_evidence(chunks, surfels.counts, pixels, said, surfels.evidence)

    def probabilities(self, surfels: SurfelMap, slots: np.ndarray | None = None) -> np.ndarray:
        """(N, C) float32 class probabilities of the surfels (of all, in the order of `slots()`); 0 where unlabelled.

        Of all, what is said of the surfels around counts too, see `Around`.
        """
        if slots is not None:
            return self.read(surfels.evidence[slots], surfels.num_classes)
        return self.reader(surfels)(surfels.slots())

    def reader(self, surfels: SurfelMap) -> Callable[[np.ndarray], np.ndarray]:
        """What gives `probabilities` of any slots of a map, those around counted; the map is read in its `parts`."""
        around = None
        if self.config.reach > 0:
            around = Around(
                lambda: (surfels.position[part, :3] for part in surfels.parts()),
                lambda: (self._own(surfels.evidence[part], surfels.num_classes) for part in surfels.parts()),
                self.config,
            )

        def read(slots: np.ndarray) -> np.ndarray:
            own = self._own(surfels.evidence[slots], surfels.num_classes)
            return self._read(own, surfels.num_classes, surfels.position[slots, :3], around)

        return read

    def read(self, rows: np.ndarray, num_classes: int, positions: np.ndarray | None = None) -> np.ndarray:
        """Probabilities (N, C) from rows of evidence, see `evidence`; 0 where there is none.

        positions (N, 3), metres: those of the surfels, where what is said of those around shall count.
        """
        own = self._own(rows, num_classes)
        around = None
        if positions is not None and self.config.reach > 0:
            around = Around(lambda: iter([positions]), lambda: iter([own]), self.config)
        return self._read(own, num_classes, positions, around)

    def _own(self, rows: np.ndarray, num_classes: int) -> SaidOfSurfels:
        """What rows of evidence say of each surfel alone, the agreement of its views in the last column."""
        shares = shares_in(rows)
        said = _divided(evidence_in(rows, num_classes), shares)
        return SaidOfSurfels(np.column_stack([said, self.agreement(said)]), shares, views_in(rows))

    def _read(
        self, own: SaidOfSurfels, num_classes: int, positions: np.ndarray | None, around: Around | None
    ) -> np.ndarray:
        """Probabilities (N, C) of surfels, those around counted where there is an `around`."""
        both, shares, views = own
        said, agreed = both[:, :-1], both[:, -1]
        believed = np.zeros_like(agreed)  # logarithm of the part that disagreement does not spread over all classes
        if positions is not None and around is not None:
            both, shares, views = around.completed(own, positions)
            said, agreed = both[:, :-1], both[:, -1]
            believed = self.agreement(said) - agreed  # between neighbours
        known = shares > 0
        worth = np.minimum(views, f32(self.config.most_worth))
        repeated = 1 - _divided(worth - 1, shares - 1)  # part of what the views after the first one add
        believed += np.where(shares > 1, np.clip(repeated, 0, 1), 0) * agreed
        believed = np.exp(np.minimum(believed, 0))[:, None]
        probabilities = believed * self.read_evidence(said, worth) + (1 - believed) / f32(num_classes)
        probabilities[~known] = 0
        return probabilities

    def rows_of(self, probabilities: np.ndarray) -> np.ndarray:
        """Rows (N, row_width(C)) of evidence that are read as these probabilities (N, C) where `reach` is 0."""
        known = probabilities.max(axis=1, initial=0) > 0
        evidence = np.where(known[:, None], self.write_evidence(probabilities), 0)
        return rows_of(evidence, known.astype(f32), known.astype(f32))

    def state(self) -> dict[str, np.ndarray]:
        return {"views": self._views, "count": np.array(self._count)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        if not state:  # of an earlier version, whose evidence names no views
            return
        check_state(state, STATE)
        if len(state["views"]) < min(int(state["count"]), MOST):
            raise ValueError(f"the saved labels count {state['count']} views and hold {len(state['views'])}")
        self._views, self._count = state["views"].copy(), int(state["count"])


def news_of_view(views: np.ndarray, T_world_camera: np.ndarray, config: LabelFusionConfig) -> np.ndarray:
    """(N,) in 0..1, how many independent views one from a pose adds to each of N earlier views (N, 4, 4).

    A view repeats the errors of one from the same place. How many errors two views share falls exponentially with the
    way and the turn between them.
    """
    ways = np.linalg.norm(views[:, :3, 3] - T_world_camera[:3, 3], axis=1)
    cosines = (np.einsum("nij,ij->n", views[:, :3, :3], T_world_camera[:3, :3]) - 1) / 2
    turns = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return -np.expm1(-np.hypot(ways / config.way, turns / config.turn_deg))


class SaidOfSurfels(NamedTuple):
    """What was said of surfels."""

    said: np.ndarray  # (N, K) float32, a view
    shares: np.ndarray  # (N,) float32
    views: np.ndarray  # (N,) float32


class Around:
    """What is said together of the surfels in each cube of space, to complete what is said of one.

    What a network says of neighbouring surfels differs by chance more than their classes do. The mean of all in the
    same cube counts as `pull` views: it decides where few views or none showed a surfel, and hardly counts where many
    did. A surfel that no view showed has the shares and views of its neighbours.
    """

    def __init__(
        self,
        positions: Callable[[], Iterator[np.ndarray]],
        own: Callable[[], Iterator[SaidOfSurfels]],
        config: LabelFusionConfig,
    ) -> None:
        """positions, own: of a map's surfels, part by part, at least one, as often as asked for; (N, 3) metres."""
        self._config = config
        self._keys = np.empty(0, np.int64)
        for part in positions():
            self._keys = np.union1d(self._keys, self._cubes(part))
        sums: list[np.ndarray] = []
        for part, (said, shares, views) in zip(positions(), own(), strict=True):
            cube = np.searchsorted(self._keys, self._cubes(part))
            values = [shares, shares > 0, shares * views, *(shares * column for column in said.T)]
            if not sums:
                sums = [np.bincount(cube, value, len(self._keys)) for value in values]
            else:
                for total, value in zip(sums, values):
                    np.add.at(total, cube, value)  # in order, as bincount adds: the sums of one part, to the last bit
        there, shown, views_there, *columns = (total.astype(f32) for total in sums)
        self._shares, self._views = _divided(there, shown), _divided(views_there, there)
        self._mean = np.stack([_divided(column, there) for column in columns], axis=1)

    def completed(self, own: SaidOfSurfels, positions: np.ndarray) -> SaidOfSurfels:
        """What is said of surfels of the map, at these places (N, 3), completed."""
        said, shares, views = own
        cube = np.searchsorted(self._keys, self._cubes(positions))
        pull = np.where(shares > 0, f32(self._config.pull), f32(1))
        together = _divided(shares[:, None] * said + pull[:, None] * self._mean[cube], shares + pull)
        shown = shares > 0
        return SaidOfSurfels(
            together, np.where(shown, shares, self._shares[cube]), np.where(shown, views, self._views[cube])
        )

    def _cubes(self, positions: np.ndarray) -> np.ndarray:
        """(N,) int64: a number for the cube of space that each place is in."""
        cubes = np.floor(positions / self._config.reach).astype(np.int64) & 0x1FFFFF
        return (cubes[:, 0] << 42) | (cubes[:, 1] << 21) | cubes[:, 2]


def _divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Values (N,) or (N, K) divided by (N,); 0 where that is 0."""
    by = by if values.ndim == 1 else by[:, None]
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


def _softmax(scores: np.ndarray) -> np.ndarray:
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True, initial=0))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def _shares(evidence: np.ndarray, views: np.ndarray) -> np.ndarray:
    total = evidence.sum(axis=1, keepdims=True)
    return np.divide(evidence, total, out=np.zeros_like(evidence), where=total > 0)


def _bayes(config: LabelFusionConfig) -> LabelFusion:
    """Bayes' rule in logarithms: log p - log floor (McCormac et al. 2017, eq. 2, with a floor), of views that repeat
    each other's errors.

    The geometric mean of probabilities sums to 1 where all are the same, and to less the more they differ (of two, the
    sum is Bhattacharyya's coefficient): that is their agreement. Independent views may differ, and give Bayes' rule;
    so much of the views as repeats others, and neighbours, should agree, and what they lack of it is spread over all
    classes.
    """

    def say(probabilities: np.ndarray, out: np.ndarray) -> None:
        logarithms(probabilities.reshape(-1), f32(config.floor), out)

    def read(evidence: np.ndarray, views: np.ndarray) -> np.ndarray:
        return _softmax(evidence * views[:, None])

    def write(probabilities: np.ndarray) -> np.ndarray:
        logarithms = np.log(np.maximum(probabilities, f32(1e-30)))
        return logarithms - logarithms.min(axis=1, keepdims=True, initial=math.log(config.floor))

    def agreement(said: np.ndarray) -> np.ndarray:
        whole = np.log(np.exp(said).sum(axis=1)) + f32(math.log(config.floor))
        return np.minimum(whole + LOST, 0)

    return LabelFusion(say, read, write, agreement, config)


def _mean(config: LabelFusionConfig) -> LabelFusion:
    """The mean of the probabilities."""

    def say(probabilities: np.ndarray, out: np.ndarray) -> None:
        fixed_point(probabilities.reshape(-1), out)

    return LabelFusion(say, _shares, _as_shares, _full_agreement, config)


def _histogram(config: LabelFusionConfig) -> LabelFusion:
    """A count of how often each class was the most probable one."""

    def say(probabilities: np.ndarray, out: np.ndarray) -> None:
        winners(probabilities, out)

    return LabelFusion(say, _shares, _as_shares, _full_agreement, config)


def _full_agreement(said: np.ndarray) -> np.ndarray:
    """No view is believed less: the mean of probabilities is flat already where views differ."""
    return np.zeros(len(said), f32)


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
