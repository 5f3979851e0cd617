"""Whether given poses are used, and how they are meant: what the images say of them before a run begins."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from semslam.doctor import intrinsics
from semslam.doctor.depth.along_the_ray import along_the_ray
from semslam.doctor.finding import Finding
from semslam.doctor.matched import Matches
from semslam.doctor.poses import errors, single, systematic
from semslam.doctor.poses.convention import (
    AS_RECORDED,
    Judged,
    as_convention,
    in_convention,
    judged,
    recorded_poses,
    tell,
)
from semslam.doctor.poses.repeated import interpolate_repeated_poses, repeats, repeats_of
from semslam.doctor.unsound import unsound
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
    unsound: list[Finding] | None = None  # what is wrong with its images and depth; None where nobody asked


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
    matched = Matches(sequence)
    convention = config.pose_convention or (begun.load_config().pose_convention if begun is not None else None)
    found, used, repeated = _read(config, sequence, of_file, convention, matched)
    if convention is None and found.convention != AS_RECORDED:
        tell(name, found.convention, f"--pose-convention {AS_RECORDED}")
    if repeated is not None:
        note = f"{name}: {repeated}; they are interpolated (--set reject_poses=false takes them as they are)"
        logger.warning("%s", note)
        used.assumptions = (*used.assumptions, note)
        of_file = of_file and of_file._replace(notes=(*of_file.notes, note))
    config = replace(config, pose_convention=found.convention)
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


def _read(
    config: RunConfig, sequence: Sequence, of_file: FramePoses | None, convention: str | None, matched: Matches
) -> tuple[Judged, Sequence, str | None]:
    """What the images say of given poses, the recording with these read so, and how they are repeated where those
    between are interpolated.

    convention: how the poses are meant; None = as the images tell.
    """

    def meant(T_world_camera: Iterable[np.ndarray | None]) -> tuple[Judged, Sequence]:
        """How poses that are judged in place of the listed ones are meant, and the recording with the listed ones."""
        found = Judged(convention, told=False) if convention else judged(sequence, T_world_camera, matched)
        if of_file is not None:
            used = copy.copy(sequence)
            used.poses = tuple(as_convention(listed, found.convention))
            return found, used
        if config.pose_convention is not None or found.convention == AS_RECORDED:  # as the recording was opened
            return found, sequence
        return found, near_origin(in_convention(sequence, found.convention))

    listed = recorded_poses(sequence) if of_file is None else of_file.T_world_camera
    if config.reject_poses and config.poses not in NOT_GIVEN:
        groups = repeats_of(sequence) if of_file is None else repeats(listed, sequence.timestamps)
        if groups is not None:
            found, used = meant(groups.interpolated(listed, sequence.timestamps))
            moving = interpolate_repeated_poses(used, groups)
            if moving is not used:
                return found, moving, groups.note
    return *meant(listed), None


def _verdict(config: RunConfig, used: Sequence, found: Judged, matched: Matches, name: str) -> PoseVerdict:
    """What the images say of the poses of `used`; told to the user. ValueError as `with_verdict` says."""
    given = config.poses != "refined"  # which finds its own poses, and these only help it
    wrong = found.contradiction if given or found.decisive else None
    of_matches = unsound(matched, config.sensor).findings
    of_numbers = [doubt for doubt in intrinsics.doubtful(used.camera) if doubt.level == "error"]
    of_images = of_numbers or along_the_ray(matched.samples) or of_matches  # which would explain poses that do not fit
    of_single = single.Contradicted()
    if wrong is not None and found.decisive and config.reject_poses:
        raise ValueError(_refusal(name, wrong, of_images))
    if config.reject_poses:
        of_single = single.contradicted(used)
    findings = single.findings_of(of_single, len(used), used.number_of)
    if given and (of_single.jumps or of_single.mostly_wrong(len(used))):
        raise ValueError(_refusal(name, findings[0], of_images))
    rejected = of_single.wrong if given else ()
    doubts = of_images or ([] if wrong is None else [wrong])
    if wrong is None and not of_images:
        right = without_poses(used, of_single.wrong)
        lengths = intrinsics.findings_of(intrinsics.measured(right, sensor=config.sensor, matched=matched), used.camera)
        of_others = right, matched, (*of_single.jumps, *of_single.slips)
        if given:
            doubts = systematic.findings_of(systematic.measured(*of_others), errors.measured(*of_others), lengths)
        else:
            findings = lengths + findings
    for finding in findings if of_images else doubts + findings:  # what is of the images is told with their camera
        if finding.level != "hint":
            more = "; `semslam doctor` tells more" if config.poses_of_recording else ""
            logger.warning("%s: %s; %s%s", name, finding.what, finding.remedy, more)
    contradicted = "; ".join(finding.what for finding in doubts if finding.level != "hint")
    return PoseVerdict(rejected, contradicted or None, told=found.told, unsound=of_matches)


def _refusal(name: str, wrong: Finding, of_images: list[Finding]) -> str:
    """Why a run ends, by what is wrong with the images where that explains it, and what it may do instead."""
    finding = next(iter(of_images), wrong)
    tracked = "" if of_images or "--poses tracked" in wrong.remedy else ", and `--poses tracked` without these poses"
    return f"{name}: {finding.what}; {finding.remedy}; `--set reject_poses=false` maps it as it is{tracked}"
