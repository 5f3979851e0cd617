"""Settings of loop closure."""

from __future__ import annotations

from dataclasses import dataclass, field

from semslam.config import Count, NotNegative, Positive, Share, Turn, check_ranges
from semslam.tracking.registration.settings import RegistrationConfig


@dataclass(frozen=True)
class LoopConfig:
    """When a loop is seen, when the map is deformed, and how stiff the way between keyframes is."""

    closures: Count = 3  # keyframes: how many earlier ones a new one is registered against
    overlap: Share = 0.25  # share of the image in which two keyframes must see the same surface
    fitting: Share = 0.5  # share of that surface which must fit
    max_dissimilarity: NotNegative = 0.3  # dissimilarity of two keyframes, at most, for a global closure
    min_shift: NotNegative = 0.005  # metres: smaller corrections wait
    min_turn_deg: Turn = 0.25  # degrees: smaller corrections wait
    way_std: Positive = 0.01  # metres and radians: drift per metre, or per radian, between keyframes
    way_floor: Positive = 0.003  # metres and radians: drift between keyframes, at least
    closure_floor: Positive = 0.005  # metres and radians: error of a closure besides noise; the sensor distorts
    robust: Positive = 15.0  # standard deviations: from this residual on a closure loses its weight
    # a closure is asked whether the poses that it starts from are right: they are no motion model to fall back on
    registration: RegistrationConfig = field(
        default_factory=lambda: RegistrationConfig(structure=False, converged=3e-4)
    )
    points: Count = 5_000  # points: of a keyframe, about, that are registered

    def __post_init__(self) -> None:
        check_ranges(self, "slam.loops")
