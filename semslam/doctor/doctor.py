"""What is wrong with a recording, found from its own images: each finding with its remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from semslam.doctor import flow, guesses, intrinsics, label_edges
from semslam.doctor.colors import doubtful_colors
from semslam.doctor.depth import edges
from semslam.doctor.depth.along_the_ray import along_the_ray
from semslam.doctor.depth.blended import blended
from semslam.doctor.depth.range import with_range, without_cut_off
from semslam.doctor.depth.readings import doubtful_readings, empty
from semslam.doctor.depth.repeats import hanging
from semslam.doctor.finding import Finding
from semslam.doctor.intrinsics import Intrinsics
from semslam.doctor.matched import Matches
from semslam.doctor.order.copies import copies
from semslam.doctor.order.gaps import gaps
from semslam.doctor.order.interleaved import interleaved
from semslam.doctor.order.timestamps import timestamps
from semslam.doctor.poses import convention, errors, single, systematic
from semslam.doctor.poses.repeated import interpolate_repeated_poses, repeats_of
from semslam.doctor.unsound import unsound
from semslam.engine.fusion import USUAL_RANGE, FusionConfig
from semslam.frame import UNLABELLED, Frame, evenly_spread
from sequences import CorruptFrame, Sequence, open_sequence
from sequences.rebased import without_poses

FRAMES_READ = 100  # at most, evenly spread
FRAMES_KEPT = 12  # of them, for statistics on pixels
FRAMES_WHOLE = 16  # at full size, for planes and edges


def examine(path: str | Path) -> list[Finding]:
    """Open a recording and diagnose it; a recording that cannot be opened is the finding."""
    try:
        sequence = open_sequence(path)
    except ValueError as problem:
        return [unopened(problem)]
    return diagnose(sequence)


def unopened(problem: ValueError) -> Finding:
    """The finding of a recording that cannot be opened."""
    return Finding("error", str(problem), "the recording cannot be opened before this is put right")


def diagnose(sequence: Sequence) -> list[Finding]:
    """The findings, errors first; empty if nothing seems wrong."""
    return diagnosis(sequence).findings


class Diagnosis(NamedTuple):
    """What is known of a recording when it has been looked at."""

    findings: list[Finding]  # errors first
    lengths: Intrinsics | None  # None where they are not known, or worth nothing beside the errors
    not_judged: tuple[str, ...]  # what could not be judged, and why


def diagnosis(sequence: Sequence) -> Diagnosis:
    """What is wrong with a recording, how long its lengths are, and what its images do not tell.

    Statistics of pixels are of up to FRAMES_READ frames; checks of motion and edges read more. Without poses or depth
    the checks that need them are left out.
    """
    frames, findings = _read(sequence)
    lengths: Intrinsics | None = None
    not_judged = []
    findings += timestamps(sequence) + copies(sequence) + (interleaved(sequence) or gaps(sequence))
    if not sequence.has_depth:
        what = "there are no depth images"
        findings.append(Finding("hint", what, "depth can be predicted from colour (--depth predicted)"))
    if frames:
        shown = frames[:: max(1, len(frames) // FRAMES_KEPT)]
        void = _labels(frames)
        of_labels = None if void else label_edges.measured(sequence)
        findings += void if of_labels is None else of_labels.findings()
        if of_labels is not None and not of_labels.told:
            not_judged.append("whether labels are of their colour images (too few frames with boundaries at edges)")
        findings += doubtful_colors([frame.color for frame in shown]) + hanging(frames)
        findings += empty([frame.depth for frame in frames if frame.depth is not None])
        of_numbers = intrinsics.doubtful(sequence.camera)
        of_numbers += doubtful_readings([frame.depth for frame in shown if frame.depth is not None])
        findings += of_numbers
        if not any(finding.level == "error" for finding in of_numbers):  # which would explain a misfit
            sequence, _ = without_cut_off(sequence)  # told above
            whole = [f for i in evenly_spread(range(len(sequence)), FRAMES_WHOLE) if (f := sequence.try_read(i))]
            findings += [] if of_numbers else _depth_range(sequence)
            of_images = along_the_ray(whole) + blended(whole)
            if sequence.has_depth:
                of_edges = edges.seen(sequence)
                of_images += of_edges.findings()
                if not of_edges.told:
                    not_judged.append(
                        "whether depth is of its colour images (too few steps of depth, or edges of colour)"
                    )
            is_unsound = any(finding.level == "error" for finding in of_images)
            findings += of_images
            if not is_unsound:
                of_motion, lengths, unsure = _motion(sequence)
                findings += of_motion or single.far_world(sequence)
                not_judged += unsure
    rank = ("error", "warning", "hint")
    return Diagnosis(sorted(findings, key=lambda finding: rank.index(finding.level)), lengths, tuple(not_judged))


def _unmeasured(sequence: Sequence) -> str:
    """Why the lengths of a recording could not be measured."""
    seconds = sequence.timestamps[-1] - sequence.timestamps[0]
    if seconds < intrinsics.SHORTEST:
        return f"it lasts {seconds:.1f} s; {intrinsics.SHORTEST:.0f} s are needed"
    return f"too few points are found again{'' if sequence.has_poses else ', or the camera turns too little'}"


# What each check looks at


def _read(sequence: Sequence) -> tuple[list[Frame], list[Finding]]:
    """The frames that can be read, small enough to keep; and what the others say."""
    frames: list[Frame] = []
    broken: list[str] = []
    wrong: list[str] = []
    without_labels: list[CorruptFrame] = []
    missing = [str(path) for path in sequence.missing_files()]
    indices = evenly_spread(range(len(sequence)), FRAMES_READ)
    for index in indices:
        try:
            frames.append(_thinned(sequence[index]))
        except CorruptFrame as problem:
            if (frame := sequence.try_read(index)) is not None:
                frames.append(_thinned(frame))
                without_labels.append(problem)
            elif not str(problem).startswith(tuple(missing)):
                (broken if problem.broken_file else wrong).append(str(problem))
    again = "copy the files again; frames that stay unreadable are skipped and counted"
    by_hand = "put right what the message says, in every file"
    findings = []
    if missing:
        findings.append(Finding("error", f"{len(missing)} files are missing or empty; the first: {missing[0]}", again))
    for problems, remedy in ((broken, again), (wrong, by_hand)):
        if problems:
            what = f"{len(problems)} of {len(indices)} frames cannot be used; the first: {problems[0]}"
            findings.append(Finding("error", what, remedy))
    if without_labels:
        what = f"the labels of {len(without_labels)} of {len(indices)} frames cannot be used; the first: "
        remedy = f"{again if without_labels[0].broken_file else by_hand}; only --labels truth needs them"
        broken_only = all(problem.broken_file for problem in without_labels)
        findings.append(Finding("warning" if broken_only else "error", f"{what}{without_labels[0]}", remedy))
    return frames, findings


def _thinned(frame: Frame) -> Frame:
    """Every fourth pixel each way: enough for statistics, and all that are looked at fit into memory."""
    return replace(
        frame,
        color=frame.color[::4, ::4].copy(),
        depth=None if frame.depth is None else frame.depth[::4, ::4].copy(),
        labels=None if frame.labels is None else frame.labels[::4, ::4].copy(),
    )


def _depth_range(sequence: Sequence) -> list[Finding]:
    """Whether readings lie outside the range that is usual, and what is used then."""
    near, far = with_range(FusionConfig(), sequence).range
    if (near, far) == USUAL_RANGE:
        return []
    what = f"many readings lie outside {USUAL_RANGE[0]:g} to {USUAL_RANGE[1]:g} m"
    remedy = (
        f"depth from {near:g} to {far:g} m will be used; --set slam.fusion.near=M and slam.fusion.far=M change that"
    )
    return [Finding("hint", what, remedy)]


def _motion(sequence: Sequence) -> tuple[list[Finding], Intrinsics | None, list[str]]:
    """Faults that show where frames are held against each other; the lengths, unless an error voids them; and what the
    points of the frames tell too little of."""
    if not sequence.has_depth:
        return [], None, []
    matched, hints = Matches(sequence), []
    groups = repeats_of(sequence)
    moving = interpolate_repeated_poses(sequence, groups)
    if groups is not None and moving is not sequence:
        remedy = "runs interpolate those between; --set reject_poses=false takes them as they are"
        hints = [Finding("hint", groups.note, remedy)]
        sequence = moving
    of_images = unsound(matched)
    if of_images.findings:
        return of_images.findings, None, [f"{'poses and ' * sequence.has_poses}the focal length (because of the above)"]
    measured = intrinsics.measured(sequence, matched=matched)
    lengths = intrinsics.findings_of(measured, sequence.camera)
    findings = lengths + hints
    if sequence.has_poses:
        found = guesses.findings_of(guesses.fit(sequence, flow.stretches(sequence), measured))
        unexplained = any(finding.level == "warning" for finding in found)  # by anything simple
        if unexplained or convention.at_one_place(sequence):
            of_poses = convention.findings_of_poses(sequence, matched)
            found = found if of_poses is None else of_poses
        findings = found or findings
        if all(finding.level == "hint" for finding in found):  # poses of other frames tell nothing of single ones
            wrong = single.contradicted(sequence)
            of_others = without_poses(sequence, wrong.wrong), matched, (*wrong.jumps, *wrong.slips)
            shared, off = systematic.measured(*of_others), errors.measured(*of_others)
            of_all = systematic.findings_of(shared, off, lengths)
            if found:  # the delay is known
                of_all = [finding for finding in of_all if finding.what != found[0].what]
            findings = (
                found + hints * (not found) + single.findings_of(wrong, len(sequence), sequence.number_of) + of_all
            )
    if any(finding.level == "error" for finding in findings):
        return findings, None, []
    unsure = of_images.not_judged
    if measured is None:
        unsure.append(f"the focal length{' and the unit of depth' * sequence.has_poses} ({_unmeasured(sequence)})")
    return findings, measured, unsure


def _labels(frames: list[Frame]) -> list[Finding]:
    labelled = [frame.labels for frame in frames if frame.labels is not None]
    if not labelled or any((labels != UNLABELLED).any() for labels in labelled):
        return []
    what = f"all {len(labelled)} label images that were read are void everywhere"
    return [Finding("warning", what, "label files hold 0 for void and count the classes from 1")]
