"""Whether given poses are used, and how they are meant: what the images say of them before a run begins."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import NamedTuple

from semslam.doctor import intrinsics, single_poses
from semslam.doctor.finding import Finding
from semslam.doctor.pose_convention import AS_RECORDED, Judged, as_convention, in_convention, judged, tell
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.poses import poses_of_file
from sequences import Sequence
from sequences.rebased import near_origin, without_poses

logger = logging.getLogger(__name__)

NOT_GIVEN = ("tracked", "sfm", "predicted", "predicted-refined")  # settings of `poses` by which no recorded one is used


class PoseVerdict(NamedTuple):
    """What the images say of poses that are used together with depth."""

    rejected: tuple[int, ...] = ()  # frames whose pose is not used
    contradicted: str | None = None  # why all poses, or the depth, seem wrong
    told: bool = False  # whether the images tell anything: that poses and depth are in metres, for example


def with_verdict(
    config: RunConfig, sequence: Sequence, begun: RunFolder | None = None
) -> tuple[RunConfig, Sequence, PoseVerdict]:
    """The settings with how given poses are meant, the recording with its poses read so and without those that its
    images contradict, and what these say of poses that are used together with its depth.

    begun: a run that is gone on with; what it began with is not judged again. The convention is told from the images
    where the settings leave it open. Unless these insist on the poses (`reject_poses`), ValueError where the images
    leave no doubt that all poses, or the depth, are wrong in a way that no convention explains, or that the poses are
    in several worlds.
    """
    own = config.poses_of_recording
    if own and not sequence.has_poses:
        return config, sequence, PoseVerdict()
    name = config.sequence if own else config.poses
    listed = None if own else poses_of_file(config.poses, sequence, config.pose_hints).T_world_camera
    convention = config.pose_convention or (begun.load_config().pose_convention if begun is not None else None)
    found = judged(sequence, listed) if convention is None else Judged(convention, told=False)
    if convention is None and found.convention != AS_RECORDED:
        tell(name, found.convention, f"--pose-convention {AS_RECORDED}")
    if own and config.pose_convention is None and found.convention != AS_RECORDED:
        sequence = near_origin(in_convention(sequence, found.convention))
    config = replace(config, pose_convention=found.convention)
    if config.poses in NOT_GIVEN or config.slam.perception.depth != "sensor":
        return config, sequence, PoseVerdict()
    if begun is not None:
        verdict = PoseVerdict(begun.load_poses_rejected(), told=True)
    else:
        used = sequence
        if listed is not None:
            used = copy.copy(sequence)
            used.poses = tuple(as_convention(listed, found.convention))
        verdict = _verdict(config, used, found, name)
    return config, without_poses(sequence, verdict.rejected) if own else sequence, verdict


def _verdict(config: RunConfig, used: Sequence, found: Judged, name: str) -> PoseVerdict:
    """What the images say of the poses of `used`; told to the user. ValueError as `with_verdict` says."""
    wrong, single = found.contradiction, single_poses.Contradicted()
    if wrong is not None and found.decisive and config.reject_poses:
        raise ValueError(_refusal(name, wrong))
    if config.reject_poses:
        single = single_poses.contradicted(used)
    findings = single_poses.findings_of(single, len(used))
    given = config.poses != "refined"  # which finds its own poses, and these only help it
    if given and (single.jumps or single.mostly_wrong(len(used))):
        raise ValueError(_refusal(name, findings[0]))
    rejected = single.wrong if given else ()
    if wrong is not None:
        findings.insert(0, wrong)
    else:
        lengths = intrinsics.measured(without_poses(used, single.wrong), sensor=config.sensor)
        findings = intrinsics.findings_of(lengths, used.camera) + findings
    for finding in findings:
        if finding.level != "hint":
            logger.warning("%s: %s; %s; `semslam doctor` tells more", name, finding.what, finding.remedy)
    return PoseVerdict(rejected, None if wrong is None else wrong.what, found.told)


def _refusal(name: str, finding: Finding) -> str:
    """Why a run ends, and what it may do instead; each once."""
    tracked = "" if "--poses tracked" in finding.remedy else ", and `--poses tracked` without these poses"
    return f"{name}: {finding.what}; {finding.remedy}; `--set reject_poses=false` maps it as it is{tracked}"
