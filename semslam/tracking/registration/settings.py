"""How a frame is registered against a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from semslam.config import Count, Gate, Iterations, NotNegative, Positive, Range, check_ranges
from semslam.tracking.registration.comparison import COMPARED_ON, SAMPLED


@dataclass(frozen=True)
class Level:
    """One stage of the coarse-to-fine search."""

    every: Count  # every n-th point of the model takes part
    pyramid: Annotated[int, Range(0, 8)]  # the grey images are halved so often
    iterations: Iterations  # at most
    # metres: pairs further apart are not the same surface; beyond 5 m, three standard deviations where that is more
    gate: Positive

    def __post_init__(self) -> None:
        check_ranges(self, "registration.levels")


@dataclass(frozen=True)
class RegistrationConfig:
    """How a frame is registered against a view."""

    levels: tuple[Level, ...] = (Level(4, 2, 8, 0.2), Level(2, 1, 5, 0.1), Level(1, 0, 4, 0.07))  # coarsest first
    rotation_iterations: Iterations = 5  # iterations: of the SO(3) pre-alignment on the coarsest level
    normal_gate_deg: Gate = 40.0  # degrees: largest angle between normals of one surface
    noise: Positive = 0.0012  # metres: standard deviation of depth at 0.4 m
    noise_quadratic: NotNegative = 0.0019  # metres: growth of that deviation with (z - 0.4)^2 (Nguyen et al. 2012)
    tukey: Positive = 4.685  # standard deviations: at this distance a pair of points counts no longer
    huber: Positive = 1.345  # standard deviations: from this difference on a grey value counts linearly
    min_gradient: NotNegative = 2.0  # grey levels per pixel: flatter places tell nothing
    trusted: Positive = 10.0  # confidence from which a surfel counts in full
    border: Positive = 5.0  # weight falls to a half where a ray's squared slope is 1 / border: depth is distorted there
    color_weight: NotNegative = 0.3  # of the grey term against its statistical weight
    prior_translation: Positive = 0.02  # metres: standard deviation of the motion model's shift between two frames
    prior_rotation: Positive = 0.02  # radians: standard deviation of the motion model's rotation between two frames
    degenerate: NotNegative = 0.004  # mean squared share of the normals along a direction that geometry does not hold
    structure: bool = True  # leave directions of motion that nothing but noise has told to the motion model
    converged: Positive = 2e-4  # metres and radians: smaller steps end a level
    correlation: Positive = 25.0  # pixels: neighbours err together, so many count as one measurement
    textured: Positive = 6.0  # grey levels: standard deviation of the model, at least, for greys to tell views apart

    def __post_init__(self) -> None:
        check_ranges(self, "registration")
        pyramids = [level.pyramid for level in self.levels]
        if sorted(set(pyramids), reverse=True) != pyramids:
            raise ValueError(f"`registration.levels` are of pyramid {pyramids}, expected coarsest first, each once")
        compared = [level.every for level in self.levels if level.pyramid == COMPARED_ON]
        if not compared or SAMPLED % compared[0]:
            raise ValueError(
                f"`registration.levels` need one of pyramid {COMPARED_ON} with 1, 2, 4, 8 or {SAMPLED} for every: "
                "frames are compared with the map on it"
            )
