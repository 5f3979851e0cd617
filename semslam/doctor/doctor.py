"""What is wrong with a recording, found from its own images: each finding with its remedy."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam.camera import Camera
from semslam.doctor import conventions, flow, intrinsics
from semslam.doctor.conventions import USUAL_DEPTH
from semslam.doctor.depth import edges
from semslam.doctor.depth.along_the_ray import along_the_ray
from semslam.doctor.depth.range import with_range
from semslam.doctor.depth.repeats import hanging
from semslam.doctor.finding import Finding
from semslam.doctor.gaps import gaps
from semslam.doctor.interleaved import interleaved
from semslam.doctor.intrinsics import Intrinsics
from semslam.doctor.matched import Matches
from semslam.doctor.poses import convention, errors, single, systematic
from semslam.doctor.poses.repeated import interpolate_repeated_poses, repeats_of
from semslam.doctor.unsound import unsound
from semslam.engine.fusion import USUAL_RANGE, FusionConfig
from semslam.frame import UNLABELLED, Frame, evenly_spread
from sequences import CorruptFrame, Sequence, open_sequence
from sequences.rebased import without_poses
from sequences.selected import selected

FRAMES_READ = 100  # at most, evenly spread
FRAMES_KEPT = 12  # of them, for statistics on pixels
FRAMES_WHOLE = 16  # at full size, for planes and edges
POSSIBLE_DEPTH = (0.05, 80.0)  # metres; a median outside is a wrong unit
POSSIBLE_ROUGHNESS = 0.3  # of the depth, between readings a few pixels apart; 0.01 in rooms and on streets
UNITS = (1000, 5000, 4000, 10000, 256)  # per metre, that depth files count
SMOOTH = 0.03  # of the depth, between readings a few pixels apart of one surface
SHORTEST_STEP = 1 / 400  # seconds between frames; depth cameras take 300 a second at most
WARM_SHARE = 0.3  # of colourful pixels; in 98 of 100 indoor photographs (NYUv2) more than 0.46 have red above blue


def examine(
    path: str | Path, kind: str | None = None, start: int = 0, frames: int | None = None, every: int = 1, **options: Any
) -> list[Finding]:
    """Open a recording and diagnose it, or part of it; a recording that cannot be opened is the finding.

    start, frames, every: of `sequences.selected`. options: of `sequences.open_sequence`.
    """
    try:
        sequence = selected(open_sequence(path, kind, **options), start, frames, every)
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
    findings += timestamps(sequence) + (interleaved(sequence) or gaps(sequence))
    if not sequence.has_depth:
        what = "there are no depth images"
        findings.append(Finding("hint", what, "depth can be predicted from colour (--depth predicted)"))
    if frames:
        shown = frames[:: max(1, len(frames) // FRAMES_KEPT)]
        findings += _labels(frames)
        findings += _colors(shown) + hanging(frames)
        of_numbers = doubtful_intrinsics(sequence.camera) + _depth_scale(shown)
        findings += of_numbers
        if not any(finding.level == "error" for finding in of_numbers):  # which would explain a misfit
            whole = [f for i in evenly_spread(range(len(sequence)), FRAMES_WHOLE) if (f := sequence.try_read(i))]
            findings += [] if of_numbers else _depth_range(sequence)
            of_images = along_the_ray(whole)
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


def implausible_depth(sequence: Sequence) -> Finding | None:
    """The error that would make a map of this recording worthless, from a few frames: ask before a long run."""
    frames = []
    for index in evenly_spread(range(len(sequence)), 5):
        with suppress(CorruptFrame):
            frames.append(_thinned(sequence.read_without_labels(index)))
    return next((finding for finding in _depth_scale(frames) if finding.level == "error"), None)


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
        found = conventions.findings_of(conventions.fit(sequence, flow.stretches(sequence), measured))
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


def timestamps(sequence: Sequence) -> list[Finding]:
    """What is wrong with the times of frames: their order, their unit, their steps."""
    times = sequence.timestamps
    if len(times) < 3:
        return []
    steps = np.diff(times)
    findings = []
    if (backwards := np.flatnonzero(steps < 0)).size:
        what = f"timestamps go backwards {backwards.size} times, first at frame {sequence.number_of(backwards[0] + 1)}"
        findings.append(Finding("error", what, "sort the frames by time"))
    if (same := np.flatnonzero(steps == 0)).size:
        what = (
            f"{same.size} frames have the timestamp of the frame before, first frame {sequence.number_of(same[0] + 1)}"
        )
        findings.append(Finding("error", what, "remove the duplicates or give each frame its own time"))
    if findings:
        return findings
    usual = float(np.median(steps))
    if usual > 1.0 or usual < SHORTEST_STEP:
        unit = "milliseconds" if usual < 1e3 else "microseconds" if usual < 1e6 else "nanoseconds"
        guess = f" (they look like {unit})" if usual > 5 else ""
        what = f"frames are {usual:.6g} s apart by their timestamps{guess}"
        remedy = "timestamps are in seconds, and fps (camera.yaml) in frames a second"
        return [Finding("error" if guess else "warning", what, remedy)]
    irregular = float((np.abs(steps - usual) > 0.5 * usual).mean())
    if irregular > 0.2:
        what = f"{irregular:.0%} of the frames come more than half a frame early or late"
        findings.append(Finding("hint", what, "frames were dropped, or colour and depth are badly synchronised"))
    return findings


def _labels(frames: list[Frame]) -> list[Finding]:
    labelled = [frame.labels for frame in frames if frame.labels is not None]
    if not labelled or any((labels != UNLABELLED).any() for labels in labelled):
        return []
    what = f"all {len(labelled)} label images that were read are void everywhere"
    return [Finding("warning", what, "label files hold 0 for void and count the classes from 1")]


def _colors(frames: list[Frame]) -> list[Finding]:
    """Indoors, colourful things are mostly wood, skin and lamp light: red above blue."""
    pixels = np.concatenate([frame.color.reshape(-1, 3) for frame in frames]).astype(np.int16)
    brightest, darkest = pixels.max(axis=1), pixels.min(axis=1)
    findings = _black(brightest)
    colorful = pixels[(brightest - darkest > 0.25 * brightest) & (brightest > 40)]
    if len(colorful) > 0.02 * len(pixels):
        warm = float((colorful[:, 0] > colorful[:, 2]).mean())
        if warm < WARM_SHARE:
            what = f"only {warm:.0%} of the colourful pixels have more red than blue, unusual indoors: RGB may be BGR"
            remedy = "swap the first and third channel where the files are written (OpenCV writes BGR arrays)"
            findings.append(Finding("hint", what, remedy))
    return findings


def _black(brightest: np.ndarray) -> list[Finding]:
    """Of the brightest channel (N,) of pixels."""
    if np.median(brightest) >= 12:
        return []
    what = f"the images are nearly black (median {np.median(brightest):.0f} of 255)"
    return [Finding("warning", what, "look at the colour files; 16-bit images may have been cut to 8")]


def black_images(sequence: Sequence) -> list[Finding]:
    """Whether the colour of a recording shows nothing, by up to five of its frames that can be read."""
    frames = [frame for i in evenly_spread(range(len(sequence)), 5) if (frame := sequence.try_read(i)) is not None]
    return _black(np.concatenate([frame.color[::4, ::4].max(axis=2).ravel() for frame in frames])) if frames else []


def doubtful_intrinsics(camera: Camera) -> list[Finding]:
    """What no camera that maps rooms has: a far principal point, hardly any or all of the view, stretched pixels."""
    findings = []
    off = max(abs(camera.cx / (camera.width - 1) - 0.5), abs(camera.cy / (camera.height - 1) - 0.5))
    if off > 0.15:
        what = (
            f"the principal point ({camera.cx:.1f}, {camera.cy:.1f}) is far from the middle of the "
            f"{camera.width}x{camera.height} images"
        )
        remedy = "the intrinsics may be those of another image size: scale fx, fy, cx, cy with the images"
        findings.append(Finding("error", what, remedy))
    if not 25 < camera.fov < 130:
        what = f"fx {camera.fx:.1f} makes the images {camera.fov:.0f} degrees wide; depth cameras see 40 to 100"
        findings.append(Finding("error", what, "give the focal length in pixels of these images"))
    if not 0.9 < camera.fx / camera.fy < 1.1:
        what = f"fx {camera.fx:.1f} and fy {camera.fy:.1f} differ by more than a tenth"
        findings.append(Finding("warning", what, "pixels of most cameras are square: were the images stretched?"))
    return findings


def _roughness(frames: list[Frame]) -> float:
    """The median share of their depth by which readings of neighbouring columns differ; 0 where there are none."""
    found = []
    for depth in (frame.depth for frame in frames if frame.depth is not None):
        left, right = depth[:, :-1], depth[:, 1:]
        there = (left > 0) & (right > 0)
        found.append(np.abs(left[there] - right[there]) / np.maximum(left[there], right[there]))
    differences = np.concatenate(found) if found else np.zeros(0)
    return float(np.median(differences)) if len(differences) else 0.0


def _is_byte_swapped(depths: list[np.ndarray]) -> bool:
    """Whether 16-bit readings (H, W) make smooth surfaces in the other byte order, and hardly any in theirs."""
    units = [found for depth in depths if (found := _counted(depth)) is not None]
    if not units:
        return False
    recorded, swapped = (np.mean([_smooth(u) for u in order]) for order in (units, [u.byteswap() for u in units]))
    return bool(swapped > 0.8 and 1 - swapped < 0.35 * (1 - recorded))


def _counted(depth: np.ndarray) -> np.ndarray | None:
    """Depth in the units (uint16) of its file; None where it was not read from whole numbers."""
    for scale in UNITS:
        units = depth * float(scale)
        if units.max(initial=0) < 65536 and np.abs(units - np.rint(units)).max(initial=0) < 0.02:
            return np.rint(units).astype(np.uint16)
    return None


def _smooth(units: np.ndarray) -> float:
    """The share of neighbouring readings, of those that differ, that may be of one surface; 0 where there are none."""
    left, right = units[:, :-1].astype(np.float64), units[:, 1:].astype(np.float64)
    there = (left > 0) & (right > 0) & (left != right)
    near = np.abs(left - right) < SMOOTH * np.maximum(left, right)
    return float(near[there].mean()) if there.any() else 0.0


def _depth_scale(frames: list[Frame]) -> list[Finding]:
    depths = [frame.depth.ravel() for frame in frames if frame.depth is not None]
    if not depths:
        return []
    depth = np.concatenate(depths)
    valid = depth[depth > 0]
    if len(valid) < 0.02 * len(depth):
        what = f"only {len(valid) / len(depth):.1%} of the depth pixels hold a reading"
        return [Finding("error", what, "look at the depth files: are they the right ones, and 16 bits deep?")]
    if (rough := _roughness(frames)) > POSSIBLE_ROUGHNESS:
        what = f"neighbouring depth readings differ by {rough:.0%} of their depth: they show no surfaces"
        return [Finding("error", what, "look at the depth files: are they images of another kind?")]
    if _is_byte_swapped([frame.depth for frame in frames if frame.depth is not None]):
        what = "depth readings make surfaces only when the two bytes of each are swapped"
        return [Finding("error", what, "write them in the other byte order (array.byteswap(), before it is encoded)")]
    findings = []
    farthest = valid.max()
    nearer = valid[valid < farthest]
    if not len(nearer) and farthest > USUAL_DEPTH[1]:
        what = f"every depth reading is {farthest:.3f} m: a mark for missing depth"
        return [Finding("error", what, "look at the depth files, and write 0 where depth is missing")]
    share = 1 - len(nearer) / len(valid)
    if share > 0.01 and len(nearer) and farthest > 3 * np.median(nearer):
        what = f"{share:.0%} of the readings are {farthest:.3f} m, the largest: a mark for missing depth"
        findings.append(Finding("error", what, "write 0 where depth is missing"))
        valid = nearer
    median = float(np.median(valid))
    if not USUAL_DEPTH[0] < median < USUAL_DEPTH[1]:
        factor = min((1e-3, 1e-2, 0.1, 0.2, 5.0, 10.0, 1e2, 1e3), key=lambda f: abs(np.log(f * median / 2.0)))
        change = f"{1 / factor:g} times larger" if factor < 1 else f"{factor:g} times smaller"
        what = f"the median depth is {median:.4g} m; indoors it is {USUAL_DEPTH[0]} to {USUAL_DEPTH[1]} m"
        if POSSIBLE_DEPTH[0] < median < POSSIBLE_DEPTH[1]:
            scene = "outdoors" if median > USUAL_DEPTH[1] else "of small things"
            remedy = f"right for a recording {scene}; else depth_scale (units per metre) should be {change}"
            findings.append(Finding("hint", what, remedy))
        else:
            findings.append(Finding("error", what, f"depth_scale (units per metre) should probably be {change}"))
    return findings
