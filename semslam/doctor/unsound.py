"""What is wrong with images and depth whatever the poses: nothing else can be judged by them before it is put right."""

from __future__ import annotations

from typing import NamedTuple

from semslam.doctor import free_motion, stuck
from semslam.doctor.depth import drifting, motion
from semslam.doctor.finding import Finding
from semslam.doctor.matched import Matches


class Unsound(NamedTuple):
    """The first fault that explains what pairs of frames show."""

    findings: list[Finding]  # empty where there is none
    not_judged: list[str]


def unsound(matched: Matches, sensor: str | None = None) -> Unsound:
    """Parts of the image that stay, depth that is none of its images, no distance or drifts, another principal point.

    sensor: the depth camera, as the settings say.
    """
    recording = matched.recording
    if not recording.has_depth:
        return Unsound([], [])
    found = stuck.findings(matched) or motion.findings(matched, recording.camera)
    if found:
        return Unsound(found, [])
    bent = free_motion.measured(recording, matched, sensor)
    found = bent.findings(recording.camera)
    if not any(finding.level == "error" for finding in found):  # depth that drifts looks like another principal point
        found = drifting.findings(matched, recording.camera) or found
    return Unsound(found, [] if found else bent.not_judged())
