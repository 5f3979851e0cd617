"""Settings of visual tracking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from semslam.config import Count, Natural, NotNegative, Positive, Range, Share, check_ranges


@dataclass(frozen=True)
class VisualConfig:
    """How features are followed, when a keyframe is made, what is adjusted. Pixels count in images 640 long."""

    features: Annotated[int, Range(1, 100_000)] = 500  # followed at a time
    apart: NotNegative = 14.0  # pixels between features
    quality: Annotated[float, Range(0, 1, open=True)] = 0.002  # of a corner, as a share of the best one's
    window: Annotated[float, Range(0, 2000, open=True)] = 21.0  # pixels along a side that are compared
    returns: Positive = 1.0  # image pixels from its start that a feature followed forth and back may end
    pixel_std: Positive = 0.8  # image pixels: of where a feature is seen
    prior_std: Positive = 0.3  # of the logarithm of the network's depth, from pixel to pixel
    outlier: Positive = 3.0  # standard deviations beyond which a feature is on no landmark
    blank: NotNegative = 4.0  # grey levels: an image of less contrast shows nothing
    min_inliers: Count = 25  # below that the camera is lost
    poor_inliers: Natural = 50  # below that the pose is doubtful
    keyframe_flow: Positive = 35.0  # pixels that features have moved since the last keyframe ...
    keyframe_share: Share = 0.65  # ... or share of them that is still followed
    again: Natural = 400  # landmarks at most that are looked for again in a keyframe
    again_radius: Positive = 24.0  # pixels from where they should be
    adjusted: Count = 16  # keyframes that move in a bundle adjustment
    given_std: NotNegative = 0.02  # metres: of given poses, which the images correct where they contradict; 0 = never
    given_turn_std_deg: Positive = 1.0  # degrees: likewise

    def __post_init__(self) -> None:
        check_ranges(self, "slam.visual")

    def in_images(self, longest: int) -> VisualConfig:
        """The same with lengths in pixels of images whose longer side has so many."""
        unit = longest / 640
        return replace(
            self, apart=self.apart * unit, window=self.window * unit, keyframe_flow=self.keyframe_flow * unit,
            again_radius=self.again_radius * unit,
        )  # fmt: skip

    def holds(self, distances: np.ndarray) -> bool:
        """Whether enough landmarks are where a pose says: distances (N,) in standard deviations."""
        return self.inliers(distances) >= max(self.min_inliers, 0.3 * len(distances))

    def inliers(self, distances: np.ndarray) -> int:
        """How many landmarks are where a pose says, likewise."""
        return int((distances < self.outlier).sum())
