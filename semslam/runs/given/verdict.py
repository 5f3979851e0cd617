"""Whether given poses are used, and how they are meant: what the images say of them before a run begins."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import NamedTuple

from semslam.doctor import intrinsics
from semslam.doctor.finding import Finding
from semslam.doctor.matched import Matches
from semslam.doctor.poses import errors, single
from semslam.doctor.poses.convention import AS_RECORDED, Judged, as_convention, in_convention, judged, tell
from semslam.doctor.poses.held import released
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.poses import poses_of_file
from sequences import Sequence
from sequences.pose_pairing import FramePoses
from sequences.rebased import near_origin, without_poses

logger = logging.getLogger(__name__)

NOT_GIVEN = ("tracked", "sfm", "predicted", "predicted-refined")  # settings of `poses` by which no recorded one is used


class PoseVerdict(NamedTuple):
    """What the images say of poses that are used together with depth."""

    rejected: tuple[int, ...] = ()  # frames whose pose is not used
    contradicted: str | None = None  # why all poses, or the depth, seem wrong, or how far they are off
    of_file: FramePoses | None = None  # the poses that a trajectory file gives the frames, as they are used
    told: bool = False  # whether the images tell anything: that poses and depth are in metres, for example
    matched: Matches | None = None  # the recording's pairs of frames, for whoever asks for them next


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
    of_file = None if own else poses_of_file(config.poses, sequence, config.pose_hints)
    for note in of_file.notes if of_file is not None else ():
        logger.warning("%s", note)
    listed = None if of_file is None else of_file.T_world_camera
    convention = config.pose_convention or (begun.load_config().pose_convention if begun is not None else None)
    matched = Matches(sequence)
    found = judged(sequence, listed, matched) if convention is None else Judged(convention, told=False)
    if convention is None and found.convention != AS_RECORDED:
        tell(name, found.convention, f"--pose-convention {AS_RECORDED}")
    if own and config.pose_convention is None and found.convention != AS_RECORDED:
        sequence = near_origin(in_convention(sequence, found.convention))
    config = replace(config, pose_convention=found.convention)
    used = sequence
    if listed is not None:
        used = copy.copy(sequence)
        used.poses = tuple(as_convention(listed, found.convention))
        used = released(used) if config.reject_poses else used
    verdict = PoseVerdict(matched=matched)
    if config.poses not in NOT_GIVEN and config.slam.perception.depth == "sensor":
        if begun is not None:
            verdict = PoseVerdict(begun.load_poses_rejected(), told=True)
        else:
            verdict = _verdict(config, used, found, matched, name)
    right = without_poses(used, verdict.rejected)
    if of_file is None:
        return config, right, verdict
    return config, sequence, verdict._replace(of_file=of_file._replace(T_world_camera=right.poses or ()))


def _verdict(config: RunConfig, used: Sequence, found: Judged, matched: Matches, name: str) -> PoseVerdict:
    """What the images say of the poses of `used`; told to the user. ValueError as `with_verdict` says."""
    given = config.poses != "refined"  # which finds its own poses, and these only help it
    wrong = found.contradiction if given or found.decisive else None
    of_single = single.Contradicted()
    if wrong is not None and found.decisive and config.reject_poses:
        raise ValueError(_refusal(name, wrong))
    if config.reject_poses:
        of_single = single.contradicted(used)
    findings = single.findings_of(of_single, len(used))
    if given and (of_single.jumps or of_single.mostly_wrong(len(used))):
        raise ValueError(_refusal(name, findings[0]))
    rejected = of_single.wrong if given else ()
    doubts = [] if wrong is None else [wrong]
    if wrong is None:
        right = without_poses(used, of_single.wrong)
        off = errors.measured(right, matched, (*of_single.jumps, *of_single.slips)) if given else None
        doubts = [] if off is None else off.findings()
        lengths = intrinsics.measured(right, sensor=config.sensor, matched=matched)
        findings = intrinsics.findings_of(lengths, used.camera) + findings
    for finding in doubts + findings:
        if finding.level != "hint":
            logger.warning("%s: %s; %s; `semslam doctor` tells more", name, finding.what, finding.remedy)
    return PoseVerdict(rejected, "; ".join(finding.what for finding in doubts) or None, told=found.told)


def _refusal(name: str, finding: Finding) -> str:
    """Why a run ends, and what it may do instead; each once."""
    tracked = "" if "--poses tracked" in finding.remedy else ", and `--poses tracked` without these poses"
    return f"{name}: {finding.what}; {finding.remedy}; `--set reject_poses=false` maps it as it is{tracked}"
