"""What seems wrong with a depth camera, by its images, when a run begins."""

from __future__ import annotations

import logging

from semslam.doctor import intrinsics
from semslam.doctor.colors import black_images
from semslam.doctor.depth.along_the_ray import along_the_ray
from semslam.doctor.depth.blended import blended
from semslam.doctor.depth.readings import empty
from semslam.doctor.depth.unit import doubtful_depth_unit
from semslam.doctor.matched import Matches
from semslam.doctor.unsound import unsound
from semslam.perception import Network
from semslam.runs.config import RunConfig
from semslam.runs.given.verdict import PoseVerdict
from sequences import Sequence

logger = logging.getLogger(__name__)


def tell_of_depth_camera(config: RunConfig, sequence: Sequence, verdict: PoseVerdict, network: Network | None) -> None:
    """Warn of what the images of a depth camera contradict: their light, the focal length, the unit of depth.

    verdict: of the recording's poses, whose pairs of frames are not matched again. network: predicts metric depth.
    """
    matched = Matches(sequence) if verdict.matched is None else verdict.matched
    findings = black_images(sequence) + along_the_ray(matched.samples) + blended(matched.samples)
    findings += empty([frame.depth for frame in matched.samples if frame.depth is not None])
    told = unsound(matched, config.sensor).findings if verdict.unsound is None else verdict.unsound
    if config.poses == "tracked" and not told:
        lengths = intrinsics.measured(sequence, by_poses=False, sensor=config.sensor, matched=matched)
        told = intrinsics.findings_of(lengths, sequence.camera)
    findings += told
    for finding in findings:
        logger.warning("%s: %s; %s", config.sequence, finding.what, finding.remedy)
    told_before = verdict.told or config.extend is not None  # the map that is extended has the unit, or does not fit
    if not told_before and (doubt := doubtful_depth_unit(sequence, network)):
        logger.warning("%s: %s", config.sequence, doubt)
