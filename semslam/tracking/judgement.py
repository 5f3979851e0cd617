"""Good, poor or lost: whether a registration is the camera's pose, and whether its frame may enter the map."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from semslam import poses
from semslam.config import Correlation, Natural, NotNegative, Positive, Range, Share, Turn, check_ranges
from semslam.frame import Frame, Tracking
from semslam.tracking.registration.registrar import Registration
from semslam.tracking.registration.settings import RegistrationConfig

logger = logging.getLogger(__name__)
CALM = 5  # good frames after which a poor spell is over
SETTLED = (0.03, np.radians(1.5))  # metres and radians that registering once more may move a pose found from far away
LIKENESS = 0.7  # correlation with what the map shows from which an image confirms its pose

MOTIONS = "sideways", "up or down", "to or fro", "in pitch", "in yaw", "in roll"  # of a camera, as a twist has them


@dataclass(frozen=True)
class TrackingConfig:
    """How frames are registered, when they count as lost, and when a lost camera counts as found."""

    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    min_points: Natural = 500  # points: of the model, seen with depth in the live frame, at least
    min_fitting: Share = 0.45  # share of those points that must fit for the frame to be fused
    max_residual: Positive = 2.8  # standard deviations: of the sensor's noise as measured, at most, for it to be fused
    min_correlation: Correlation = 0.5  # correlation of the image with the map, at least, for it to be fused
    lost_evidence: Annotated[float, Range(0, 2)] = 0.9  # share that fits plus correlation: with less the pose is lost
    lost_residual: Positive = 6.0  # standard deviations: of the sensor's noise; with more the pose is lost
    max_step: Positive = 0.3  # metres: between the expected pose and the result, at most
    max_turn_deg: Turn = 30.0  # degrees: between the expected pose and the result, at most
    max_std: Positive = 0.1  # metres and radians: what may add up over frames that do not determine the pose
    keyframe_distance: NotNegative = 0.1  # metres: from the last keyframe to the next
    keyframe_turn_deg: Turn = 6.0  # degrees: from the last keyframe to the next, if it is nearer
    candidates: Natural = 4  # keyframes: how many that look alike are tried for a lost frame
    found_fitting: Share = 0.5  # share of the map in view that must fit for a lost camera to be found
    found_residual: Positive = 2.8  # standard deviations: of the sensor's noise, at most, for a lost camera to be found
    found_correlation: Correlation = 0.65  # of the image with the map, at least, for a lost camera to be found
    feature_std: Positive = 0.02  # metres: what a motion found from features alone may be wrong by
    gap: NotNegative = 0.5  # seconds: so long without a pose, motion says nothing, and a pose must fit as a found one
    measure_noise: bool = True  # whether the sensor's noise follows what the recording says
    # seconds: lost so long, and five frames, a camera that sees something begins a sub-map; 0 = never
    new_map_after: NotNegative = 1.0
    black: NotNegative = 8.0  # grey levels: mean of an image that shows nothing, if the map there is brighter by far

    def __post_init__(self) -> None:
        check_ranges(self, "slam.tracking")


def why_lost(found: Registration, T_prior: np.ndarray, unmeasured: float, config: TrackingConfig) -> str:
    """Why a registration around T_prior is no pose of the camera; empty where it is one.

    unmeasured: metres squared, variance that has added up over frames that did not determine the pose.
    """
    c = config
    step = poses.inverse(T_prior) @ found.T_world_camera
    moved, turned = float(np.linalg.norm(step[:3, 3])), np.degrees(poses.rotation_angle(step))
    alike = found.comparison.correlation >= LIKENESS  # false where the view is flat
    if found.measured < c.min_points and not (alike and found.std < 0.01):
        return f"only {found.measured} points of the map are in view with depth (at least {c.min_points})"
    if evidence(found) < c.lost_evidence:
        return f"only {100 * found.fitting:.0f} % of the map in view fits, and the image does not look like it"
    if found.geometry.spread > c.lost_residual:
        return f"residual is {found.geometry.spread:.1f} times the sensor's noise (at most {c.lost_residual:g})"
    if unmeasured > c.max_std**2:
        return f"nothing determines the pose: uncertain by {unmeasured**0.5:.2f} m (at most {c.max_std:g})"
    if moved > c.max_step or turned > c.max_turn_deg:
        return f"jump of {moved:.2f} m and {turned:.0f} degrees from the expected pose"
    return ""


def why_poor(found: Registration, config: TrackingConfig) -> str:
    """Why a pose that holds is not good enough to fuse the frame; empty where it is."""
    c, black = config, config.black
    if found.live_grey < black and found.model_grey >= 2 * black + 4 * found.live_grey:
        return "the image is black where the map is not; the pose is from the depth alone, nothing is fused"
    few = found.comparison.correlation < LIKENESS or found.measured < 0.2 * c.min_points
    if found.measured < c.min_points and few:
        return f"only {found.measured} points of the map are in view with depth; the pose is from the image"
    if found.fitting < c.min_fitting:
        return f"only {100 * found.fitting:.0f} % of the map in view fits (at least {100 * c.min_fitting:.0f} %)"
    if found.geometry.spread > c.max_residual:
        return f"residual is {found.geometry.spread:.1f} times the sensor's noise (at most {c.max_residual:g})"
    if found.comparison.correlation < c.min_correlation:
        return f"the image hardly looks like the map there (correlation {found.comparison.correlation:.2f})"
    return ""


def why_open(tracking: Tracking, most: float) -> str:
    """Which motion of a pose, uncertain by more than `most` metres or radians, is only what was expected."""
    assert tracking.covariance is not None
    std = np.sqrt(np.diag(tracking.covariance))
    names = [name for name, uncertain in zip(MOTIONS, std) if uncertain >= min(most, std.max())]
    return f"nothing in view tells the motion {', '.join(names)}; it is taken to go on as before, nothing is fused"


def fits(found: Registration, config: TrackingConfig) -> bool:
    """Whether a pose that was searched far from where the camera was known to be is to be believed."""
    likeness = found.comparison.correlation
    return (
        found.measured >= 2 * config.min_points
        and found.measured >= 0.15 * found.visible
        and found.fitting >= config.found_fitting
        and found.geometry.spread <= config.found_residual
        and found.std < 0.01
        and (likeness >= config.found_correlation or (np.isnan(likeness) and found.fitting >= 0.7))
    )


def stays(T: np.ndarray, T_again: np.ndarray) -> bool:
    """Whether a pose that was found from far away is where it was when it is registered again from there."""
    moved = poses.inverse(T) @ T_again
    return bool(np.linalg.norm(moved[:3, 3]) < SETTLED[0] and poses.rotation_angle(moved) < SETTLED[1])


def evidence(found: Registration) -> float:
    """Share of the map in view that fits plus correlation of the image with it: up to 2."""
    likeness = found.comparison.correlation
    return 2 * found.fitting if np.isnan(likeness) else found.fitting + likeness


def judged(found: Registration, lost: str, config: TrackingConfig) -> Tracking:
    """A registration as what becomes of its frame. lost: why it is no pose; empty where it is one."""
    poor = "" if lost else why_poor(found, config)
    return Tracking(
        T_world_camera=found.T_world_camera,
        ok=not lost,
        inliers=found.geometry.count,
        residual=found.geometry.rms,
        covariance=found.covariance,
        reason=lost or poor,
        sound=not poor,
        evidence=evidence(found),
    )


class Announcements:
    """Says once that the state of tracking has changed, and why; a good frame between poor ones is no change."""

    def __init__(self) -> None:
        self.told = "good"  # the last state that was told
        self.calm = 0  # frames that are good since
        self._was_lost = False  # since it was good

    def tell(self, frame: Frame, tracking: Tracking) -> None:
        """Log what has become of a frame where that is news: as a warning from a lost camera on until it is good."""
        state = tracking.state
        self.calm = self.calm + 1 if state == "good" else 0
        if state == self.told or (state == "good" and self.told == "poor" and self.calm < CALM):
            return
        if state == "good":
            what = "good again" if self.told == "poor" else "found again"
            if tracking.submap:
                what = "begun anew, in a part of the map that has not met the others yet"
        else:
            what = f"{state}: {tracking.reason}"
        self._was_lost |= "lost" in (state, self.told)
        level = logging.WARNING if self._was_lost else logging.INFO
        self._was_lost &= state != "good"
        logger.log(level, "frame %d at %.3f s: tracking is %s", frame.number, frame.timestamp, what)
        self.told = state

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        return {"told": np.array(self.told), "calm": np.array(self.calm), "was_lost": np.array(self._was_lost)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`, or from one that holds more."""
        self.told, self.calm = str(state["told"]), int(state["calm"])
        self._was_lost = bool(state["was_lost"])
