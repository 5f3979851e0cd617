"""How a frame is registered against a view."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """One stage of the coarse-to-fine search."""

    every: int  # every n-th point of the model takes part
    pyramid: int  # the grey images are halved so often
    iterations: int  # at most
    gate: float  # metres: pairs further apart are not the same surface


@dataclass(frozen=True)
class RegistrationConfig:
    """How a frame is registered against a view."""

    levels: tuple[Level, ...] = (Level(4, 2, 8, 0.2), Level(2, 1, 5, 0.1), Level(1, 0, 4, 0.07))  # coarsest first
    rotation_iterations: int = 5  # iterations: of the SO(3) pre-alignment on the coarsest level
    normal_gate_deg: float = 40.0  # degrees: largest angle between normals of one surface
    noise: float = 0.0012  # metres: standard deviation of depth at 0.4 m
    noise_quadratic: float = 0.0019  # metres: growth of that deviation with (z - 0.4)^2 (Nguyen et al. 2012)
    tukey: float = 4.685  # standard deviations: at this distance a pair of points counts no longer
    huber: float = 1.345  # standard deviations: from this difference on a grey value counts linearly
    min_gradient: float = 2.0  # grey levels per pixel: flatter places tell nothing
    trusted: float = 10.0  # confidence from which a surfel counts in full
    border: float = 5.0  # weight falls to a half where a ray's squared slope is 1 / border: depth is distorted there
    color_weight: float = 0.3  # of the grey term against its statistical weight
    prior_translation: float = 0.02  # metres: standard deviation of the motion model's translation between two frames
    prior_rotation: float = 0.02  # radians: standard deviation of the motion model's rotation between two frames
    degenerate: float = 0.004  # mean squared share of the normals along a direction that geometry does not hold
    converged: float = 2e-4  # metres and radians: smaller steps end a level
    correlation: float = 25.0  # pixels: neighbours err together, so many count as one measurement
    textured: float = 6.0  # grey levels: standard deviation of the model, at least, for greys to tell views apart
