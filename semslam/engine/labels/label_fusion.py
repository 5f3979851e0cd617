"""Class probabilities of surfels from the class probabilities of images.

Every method adds evidence e(p) >= 0 to a weighted sum for each class and reads probabilities from the mean; they differ
in e and in the reading. Sums of bounded evidence have no product that one near-zero output could pin to zero for ever.

Errors are correlated, which Bayes' rule does not know of, in three ways:

- Views from nearby poses repeat each other's errors: the weight of a view, and the number of independent views, grow
  with the distance and the angle to the surfel's latest view.
- A network errs on some surfaces from everywhere: the effective number of views is bounded (`max_views`), and so is the
  probability that is read from many of them (`error_rate`).
- Neighbouring surfels belong together: what few views say is completed by the mean of a surfel's neighbourhood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np

from semslam.config import NotNegative, Positive, Range, Share, check_choices, check_ranges
from semslam.engine.labels.evidence import (
    FULL,
    MAX,
    PER_NAT,
    PER_VIEW,
    ImageEvidence,
    add_evidence,
    class_columns,
    evidence_in,
    row_width,
    rows_of,
    views_in,
    weights_in,
)
from semslam.engine.labels.neighbourhoods import Neighbourhoods, SurfelEvidence, divided
from semslam.engine.labels.observing import fixed_point, logarithms, winners
from semslam.engine.surfels import SurfelMap
from semslam.stage import Layout, Stage, check_state

f32 = np.float32
STATE: Layout = {"views": (np.float64, ("room", 4, 4)), "count": (np.int64, ())}  # of a saved fusion
ROUNDED = 1.005  # factor by which evidence may outgrow its weights, as both are rounded to whole units
REPEATED = 0.2  # weight of a view that repeats another one, to what an independent view adds to that


@dataclass(frozen=True)
class LabelFusionConfig:
    """How class probabilities reach the surfels."""

    method: Literal["bayes", "mean", "histogram"] = "bayes"  # how evidence adds up
    # bayes: the least probability that an observation may give a class
    floor: Annotated[float, Range(0, 1, open=True)] = 0.001
    distance: Positive = 0.25  # metres: between two views of a surfel that share 1/e of their errors
    angle_deg: Positive = 15.0  # degrees: between two such views
    # bayes: largest effective number of independent views; inf = no error is repeated from everywhere
    max_views: Annotated[float, Range(1)] = field(default=2.0, metadata={"infinite": True})
    error_rate: Share = 0.08  # bayes: share of surfels whose class no number of views would tell
    memory: Annotated[float, Range(1, 32)] = 32.0  # views: independent ones beyond which old evidence fades
    neighbourhood: NotNegative = 0.1  # metres: within which surfels complete each other's evidence; 0 = none
    neighbour_views: NotNegative = 10.0  # views: weight of that evidence; 0 = only for surfels that have none

    @property
    def unit(self) -> tuple[str, float]:
        """What evidence is counted in, method and floor: that of two maps adds up where these are equal."""
        return self.method, self.floor

    def __post_init__(self) -> None:
        check_choices(self, "slam.labels")
        check_ranges(self, "slam.labels")
        if self.floor == 1:
            raise ValueError(f"`slam.labels.floor` is {self.floor}, expected a probability between 0 and 1")
        if self.error_rate == 1:
            raise ValueError(f"`slam.labels.error_rate` is {self.error_rate}, expected 0 or more and less than 1")
        if -(self.memory + 1) * math.log(self.floor) * ROUNDED > MAX / PER_NAT:
            raise ValueError(
                f"`slam.labels.floor` is {self.floor}, too small for the evidence of {self.memory:g} views to be kept"
            )


@dataclass(eq=False)
class LabelFusion(Stage):
    """A way to fuse: the evidence of an image's probabilities, and the probabilities that evidence is read as."""

    observe: Callable[[np.ndarray, np.ndarray], None]  # probabilities (H * W, C) -> evidence, flat uint16, in place
    read_mean: Callable[[np.ndarray, np.ndarray], np.ndarray]  # mean evidence (N, C), views (N,) -> probabilities
    evidence_of: Callable[[np.ndarray], np.ndarray]  # probabilities (N, C) -> evidence of a view, read as them
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
        self.observe(flat, self._image[: flat.size])
        earlier = self._views[: min(self._count, MAX)]
        independent = np.concatenate([[1.0], independence(earlier, T_world_camera, self.config)])
        view = self._count % MAX  # its number is one more
        if view == len(self._views):
            self._views = np.concatenate([self._views, np.zeros_like(self._views)])[:MAX]
        self._views[view] = T_world_camera
        self._count += 1
        evidence = ImageEvidence(
            self._image,
            class_columns(surfels.num_classes),
            np.uint16(view + 1),
            np.rint((independent + REPEATED) / (1 + REPEATED) * FULL).astype(np.uint16),
            np.rint(independent * FULL).astype(np.uint16),
            np.uint16(self.config.memory * PER_VIEW),
        )
        add_evidence(chunks, surfels.counts, pixels, evidence, surfels.evidence)

    def probabilities(self, surfels: SurfelMap, slots: np.ndarray | None = None) -> np.ndarray:
        """(N, C) float32 class probabilities of the surfels (of all, in the order of `slots()`); 0 where unlabelled.

        Those of all are completed by their neighbourhoods, see `Neighbourhoods`.
        """
        if slots is not None:
            return self.read(surfels.evidence[slots], surfels.num_classes)
        return self.reader(surfels)(surfels.slots())

    def reader(self, surfels: SurfelMap) -> Callable[[np.ndarray], np.ndarray]:
        """A function from any slots of a map to their completed `probabilities`; the map is read in its `parts`."""
        neighbourhoods = None
        if self.config.neighbourhood > 0:
            neighbourhoods = Neighbourhoods(
                lambda: (surfels.position[part, :3] for part in surfels.parts()),
                lambda: (_unpacked(surfels.evidence[part], surfels.num_classes) for part in surfels.parts()),
                self.config.neighbourhood,
                self.config.neighbour_views,
            )

        def read(slots: np.ndarray) -> np.ndarray:
            own = _unpacked(surfels.evidence[slots], surfels.num_classes)
            return self._read(neighbourhoods.completed(own, surfels.position[slots, :3]) if neighbourhoods else own)

        return read

    def read(self, rows: np.ndarray, num_classes: int, positions: np.ndarray | None = None) -> np.ndarray:
        """Probabilities (N, C) from rows of evidence, see `semslam.engine.labels.evidence`; 0 where there is none.

        positions (N, 3), metres: those of the surfels, if their neighbourhoods shall complete the evidence.
        """
        own = _unpacked(rows, num_classes)
        if positions is not None and self.config.neighbourhood > 0:
            config = self.config
            neighbourhoods = Neighbourhoods(
                lambda: iter([positions]), lambda: iter([own]), config.neighbourhood, config.neighbour_views
            )
            return self._read(neighbourhoods.completed(own, positions))
        return self._read(own)

    def _read(self, evidence: SurfelEvidence) -> np.ndarray:
        probabilities = self.read_mean(evidence.mean, evidence.views)
        probabilities[evidence.weights <= 0] = 0
        return probabilities

    def rows_of(self, probabilities: np.ndarray) -> np.ndarray:
        """Rows (N, row_width(C)) of evidence that are read as these probabilities (N, C).

        Exactly so only where `neighbourhood` is 0; otherwise it is applied to them.
        """
        labelled = probabilities.max(axis=1, initial=0) > 0
        evidence = np.where(labelled[:, None], self.evidence_of(probabilities), 0)
        return rows_of(evidence, labelled.astype(f32), labelled.astype(f32))

    def state(self) -> dict[str, np.ndarray]:
        return {"views": self._views, "count": np.array(self._count)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        check_state(state, STATE)
        if len(state["views"]) < min(int(state["count"]), MAX):
            raise ValueError(f"the saved labels count {state['count']} views and hold {len(state['views'])}")
        self._views, self._count = state["views"].copy(), int(state["count"])


def independence(views: np.ndarray, T_world_camera: np.ndarray, config: LabelFusionConfig) -> np.ndarray:
    """(N,) in 0..1, how many independent views one from a pose adds to each of N earlier views (N, 4, 4).

    The share of the errors that two views have in common falls exponentially with the distance and the angle between
    them.
    """
    distances = np.linalg.norm(views[:, :3, 3] - T_world_camera[:3, 3], axis=1)
    cosines = (np.einsum("nij,ij->n", views[:, :3, :3], T_world_camera[:3, :3]) - 1) / 2
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return -np.expm1(-np.hypot(distances / config.distance, angles / config.angle_deg))


def _unpacked(rows: np.ndarray, num_classes: int) -> SurfelEvidence:
    weights = weights_in(rows)
    return SurfelEvidence(divided(evidence_in(rows, num_classes), weights[:, None]), weights, views_in(rows))


def _softmax(scores: np.ndarray) -> np.ndarray:
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True, initial=0))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def _shares(evidence: np.ndarray, views: np.ndarray) -> np.ndarray:
    return divided(evidence, evidence.sum(axis=1, keepdims=True))


def _bayes(config: LabelFusionConfig) -> LabelFusion:
    """Bayes' rule in logarithms: log p - log floor (McCormac et al. 2017, eq. 2, with a floor), of a bounded number of
    views, and mixed with the uniform distribution by the error rate as far as there are several."""

    def observe(probabilities: np.ndarray, out: np.ndarray) -> None:
        logarithms(probabilities.reshape(-1), f32(config.floor), out)

    def read(mean: np.ndarray, views: np.ndarray) -> np.ndarray:
        views = np.clip(views, 1, f32(config.max_views))[:, None]
        # what one view says is calibrated as it is; the more views there are, the more of the rest is repeated errors
        error_rate = f32(config.error_rate) * (1 - 1 / views)
        return (1 - error_rate) * _softmax(mean * views) + error_rate / f32(mean.shape[1])

    def evidence_of(probabilities: np.ndarray) -> np.ndarray:
        logarithms = np.log(np.maximum(probabilities, f32(1e-30)))
        return logarithms - logarithms.min(axis=1, keepdims=True, initial=math.log(config.floor))

    return LabelFusion(observe, read, evidence_of, config)


def _mean(config: LabelFusionConfig) -> LabelFusion:
    """The mean of the probabilities."""

    def observe(probabilities: np.ndarray, out: np.ndarray) -> None:
        fixed_point(probabilities.reshape(-1), out)

    return LabelFusion(observe, _shares, _as_shares, config)


def _histogram(config: LabelFusionConfig) -> LabelFusion:
    """A count of how often each class was the most probable one."""

    def observe(probabilities: np.ndarray, out: np.ndarray) -> None:
        winners(probabilities, out)

    return LabelFusion(observe, _shares, _as_shares, config)


def _as_shares(probabilities: np.ndarray) -> np.ndarray:
    return probabilities * f32(0.5 * MAX / PER_NAT)


LABEL_FUSIONS: dict[str, Callable[[LabelFusionConfig], LabelFusion]] = {
    "bayes": _bayes,
    "mean": _mean,
    "histogram": _histogram,
}


def label_fusion(config: LabelFusionConfig | None = None) -> LabelFusion:
    """The label fusion that a configuration asks for."""
    config = config or LabelFusionConfig()
    return LABEL_FUSIONS[config.method](config)
