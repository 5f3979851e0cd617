"""Recognises the convention of recorded poses from the images, where these leave no doubt.

A convention is words joined by commas, such as "inverted,millimetres"; POSE_WORDS has all of them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple, Self

import numpy as np

from semslam.doctor import flow, intrinsics
from semslam.doctor.finding import Finding
from semslam.doctor.guesses import ALIKE, Fit, Guess, findings_of, fit, flow_misfit, quaternion_read_from, stretched
from semslam.doctor.matched import Matches
from semslam.doctor.poses import errors
from semslam.poses import inverse, moved_by
from sequences import Sequence as Recording
from sequences.rebased import RebasedSequence, near_origin

logger = logging.getLogger(__name__)

AS_RECORDED = "as-recorded"  # camera to world, metres, x right, y down, z forward, quaternions xyzw
# the words, in the order in which a pose is changed -> what poses are then meant as
POSE_WORDS = {
    "qw-first": "their quaternions have qw first",
    "millimetres": "their positions are in millimetres",
    "centimetres": "their positions are in centimetres",
    "inverted": "they are world to camera (T_camera_world)",
    "opengl": "their camera looks along -z, with y up (OpenGL, Blender)",
}
UNITS = {"millimetres": 1e-3, "centimetres": 1e-2}  # metres in a unit
EVERY_CONVENTION = sorted(
    (
        tuple(word for word in words if word)
        for words in product(("", "qw-first"), ("", *UNITS), ("", "inverted"), ("", "opengl"))
    ),
    key=len,
)
CLEARLY = 0.25  # of the recorded misfit: what another convention must reach to be taken
NOTHING, UNEXPLAINED = 0.5, 0.35  # of a long motion: least misfits, as recorded and at best, of another motion's poses
FITS = 2.0  # times the misfit that is notable: what it must reach as well
APART = 2.0  # times the best misfit of long motions: what the other conventions must exceed, where none fits so well
NOISE = (0.02, np.radians(1.0))  # metres and radians, of poses that are usable
GROSS = 3.0  # times the misfit of such noise, and twice the motion: that is no noise


class Judged(NamedTuple):
    """What the images say of poses."""

    convention: str  # how they are meant; AS_RECORDED where nothing else explains them
    contradiction: Finding | None = None  # why they fit the images in no convention
    decisive: bool = False  # whether the images leave no doubt of what the contradiction says
    told: bool = True  # whether the images tell anything: that poses and depth are in metres, for example


def as_convention(T_world_camera: Iterable[np.ndarray | None], convention: str) -> list[np.ndarray | None]:
    """Poses (4, 4) that are meant as a convention says, as camera-to-world poses in metres; None stays None.

    ValueError for a word that is none of POSE_WORDS.
    """
    words = _words_of(convention)
    return [None if T is None else _as_words(T, words) for T in T_world_camera]


def judged(
    recording: Recording,
    T_world_camera: Iterable[np.ndarray | None] | None = None,
    matched: Matches | None = None,
) -> Judged:
    """How poses are meant, told from points that are followed through the images.

    A few stretches tell sound poses; only where they do not fit, all are looked at. Poses pass where nothing can be
    told: without depth, texture or movement, and in recordings of a few frames. T_world_camera: (4, 4) a frame, None
    for those without; by default the recording's. matched: the recording's pairs of frames, where they are known.
    """
    matched = matched or Matches(recording)
    view = copy.copy(recording)
    view.poses = tuple(recorded_poses(recording) if T_world_camera is None else T_world_camera)
    if not view.has_poses or not _shows_motion(view):
        return Judged(AS_RECORDED, told=False)
    short = _Stretches.of(view, flow.stretches(view, flow.FEWEST_STRETCHES + 1))
    if len(short.tracks) < flow.FEWEST_STRETCHES:  # only whole frames can be held against each other
        return Judged(AS_RECORDED, _contradiction(fit(view, short.tracks, None)), told=False)
    if short.misfit < flow.notable(view.camera):
        return Judged(AS_RECORDED)
    best, least = _best_convention(view, short)
    if best and least < _explaining(view, short.misfit):
        return Judged(",".join(best))
    if at_one_place(view) and (motionless := errors.motionless(view, matched)) is not None:
        return Judged(AS_RECORDED, motionless, decisive=True)
    misread = best if least < min(UNEXPLAINED * short.misfit, NOTHING * short.moved) else ()
    return _of_all_stretches(view, matched, short, misread)


class _Stretches(NamedTuple):
    """What followed points tell of poses as they are recorded."""

    tracks: Sequence[flow.Tracks]  # those whose first and last frames have poses
    moved: float  # pixels, the median; inf where there are too few stretches
    misfit: float  # pixels that the points lie off, the median

    @classmethod
    def of(cls, view: Recording, tracks: Sequence[flow.Tracks]) -> Self:
        tracks = _posed(view, tracks)
        enough = len(tracks) >= flow.FEWEST_STRETCHES
        moved = float(np.median([t.flow for t in tracks])) if enough else np.inf
        return cls(tracks, moved, flow_misfit(view, tracks, Guess("", "")))


def _explaining(view: Recording, misfit: float) -> float:
    """Pixels that points may lie off where something explains poses that lie off by a misfit."""
    return min(CLEARLY * misfit, FITS * flow.notable(view.camera))


def _best_convention(view: Recording, short: _Stretches) -> tuple[tuple[str, ...], float]:
    """The shortest convention among those that fit about equally well, and pixels that points lie off in it."""
    misfits = _misfits(view, short.tracks)
    least = min(misfits.values())
    return next((words, pixels) for words, pixels in misfits.items() if pixels <= ALIKE * least)


def _of_all_stretches(view: Recording, matched: Matches, short: _Stretches, misread: tuple[str, ...]) -> Judged:
    """How poses are meant that do not fit a few stretches: by all, and by those in which the camera moves far.

    misread: the convention in which they fit the few much better, though not well; empty if none.
    """
    measured = intrinsics.measured(view, matched=matched)
    found = fit(view, _posed(view, flow.stretches(view)), measured)
    contradiction = _contradiction(found)
    if found is None or contradiction is None:
        return Judged(AS_RECORDED, told=False)
    if found.under_guess < _explaining(view, found.as_recorded):
        return Judged(AS_RECORDED, contradiction, decisive=True)
    far = _Stretches.of(view, flow.long_stretches(view))
    if misread and (words := _by_long_motion(view, far) or _by_unit(measured)):
        return Judged(",".join(words))
    off = errors.measured(view, matched)
    if contradiction.level == "warning" and _is_noise(off, far):
        findings = [contradiction] if off is None or not off.compared else off.findings()
        return Judged(AS_RECORDED, next(iter(findings), None), told=False)
    nothing = far.misfit > NOTHING * far.moved and _explains_nothing(view, far, measured)
    if misread and not nothing:
        return Judged(AS_RECORDED, _misread(misread), decisive=True)
    gross = short.misfit > max(2 * short.moved, GROSS * _misfit_of_noise(view))
    another = off is not None and off.another_motion
    return Judged(AS_RECORDED, contradiction, decisive=nothing or gross or another)


def _explains_nothing(view: Recording, far: _Stretches, measured: intrinsics.Intrinsics | None) -> bool:
    """Whether no fault that is known makes poses fit long motions."""
    explanation = fit(view, far.tracks, measured)
    return explanation is not None and explanation.under_guess > UNEXPLAINED * far.moved


def at_one_place(recording: Recording) -> bool:
    """Whether all poses of a recording have the same position, whatever its unit, and turn there."""
    posed = [T for T in recording.poses or () if T is not None]
    if len(posed) < 2:
        return False
    apart = np.ptp(posed, axis=0)
    return not apart[:3, 3].any() and bool(apart[:3, :3].any())


def _is_noise(off: errors.PoseErrors | None, far: _Stretches) -> bool:
    """Whether poses that fit in no convention are of the right motion: by pairs of frames or, where these are too few,
    by stretches in which the points move far."""
    if off is not None:
        return not off.another_motion
    return far.misfit < UNEXPLAINED * far.moved < np.inf


def _shows_motion(recording: Recording) -> bool:
    """Whether there are depth and frames enough to follow points."""
    return recording.has_depth and len(recording) >= flow.STRETCH + flow.FEWEST_STRETCHES


def _contradiction(found: Fit | None) -> Finding | None:
    return next((finding for finding in findings_of(found) if finding.level != "hint"), None)


def _misfits(view: Recording, tracks: Sequence[flow.Tracks]) -> dict[tuple[str, ...], float]:
    """Pixels that followed points lie off in every convention."""

    def misfit(words: tuple[str, ...]) -> float:
        return flow_misfit(view, tracks, Guess("", "", lambda T: _as_words(T, words)))

    return {words: misfit(words) for words in EVERY_CONVENTION}


def _by_long_motion(view: Recording, far: _Stretches) -> tuple[str, ...]:
    """The convention that explains long motions alone, though poses are only good to some pixels; empty if none."""
    if len(far.tracks) < flow.FEWEST_STRETCHES:
        return ()
    misfits = _misfits(view, far.tracks)
    best, second = sorted(misfits, key=lambda words: misfits[words])[:2]
    alone = APART * misfits[best] < misfits[second]
    return best if alone and misfits[best] < CLEARLY * min(far.moved, far.misfit) else ()


def _by_unit(measured: intrinsics.Intrinsics | None) -> tuple[str, ...]:
    """The unit of positions that the measured length of depth by the poses tells; empty if it is none of UNITS."""
    if measured is None or measured.depth is None or not measured.depth.decisive:
        return ()
    factor, std = measured.depth
    return next(((unit,) for unit, metres in UNITS.items() if abs(np.log(factor * metres)) < min(0.2, 4 * std)), ())


def _misread(words: tuple[str, ...]) -> Finding:
    """The error of poses that fit much better in another convention, but well in none."""
    meant = ", and ".join(POSE_WORDS[word] for word in words)
    what = f"the images fit the poses in no convention well; they fit them better than as recorded if {meant}"
    remedy = (
        "look for mirrored images and for poses of something else than the camera, such as the body that carries it; "
        f"if the poses are known to be meant so, say it (--pose-convention {','.join(words)})"
    )
    return Finding("error", what, remedy)


def _misfit_of_noise(view: Recording) -> float:
    """Pixels between two frames whose poses have the standard deviations NOISE."""
    metres, radians = NOISE
    return float(np.sqrt(2) * view.camera.fx * np.hypot(metres / flow.median_depth(view), radians))


def findings_of_poses(recording: Recording, matched: Matches) -> list[Finding] | None:
    """What `judged` says of a recording's own poses: another convention, or why they fit in none; empty where they
    fit, None where the recording is too short to tell."""
    if not _shows_motion(recording):
        return None
    found = judged(recording, matched=matched)
    if found.convention == AS_RECORDED:
        return [found.contradiction] if found.contradiction is not None else []
    meant = ", and ".join(POSE_WORDS[word] for word in _words_of(found.convention))
    remedy = f"runs read them so; `semslam convert --pose-convention {found.convention}` writes them as usual"
    return [Finding("error", f"the images fit the poses only if {meant}", remedy)]


def as_meant(recording: Recording, name: str) -> Recording:
    """A recording, near the origin, whose own poses are read as its images tell; a line says so where that is not as
    recorded."""
    convention = judged(recording).convention
    if convention != AS_RECORDED:
        tell(name, convention)
    return near_origin(in_convention(recording, convention))


def in_convention(recording: Recording, convention: str) -> Recording:
    """A recording whose own poses are meant as a convention says; with the coordinates of the file."""
    if recording.poses is None or convention == AS_RECORDED:
        return recording
    poses = as_convention(recorded_poses(recording), convention)
    whole = recording.whole if isinstance(recording, RebasedSequence) else recording  # its origin is another one's
    return RebasedSequence(whole, poses, np.zeros(3))


def tell(name: str, convention: str, otherwise: str = "") -> None:
    """Log that the poses of something are read in another convention than the usual one.

    otherwise: what takes them as they are, where something does.
    """
    meant = ", and ".join(POSE_WORDS[word] for word in _words_of(convention))
    logger.warning(
        "%s: the images fit its poses only if %s; they are read so%s",
        *(name, meant, f" ({otherwise} takes them as they are)" if otherwise else ""),
    )


def _words_of(convention: str) -> tuple[str, ...]:
    words = {word.strip() for word in convention.split(",")} - {"", AS_RECORDED}
    if unknown := words - set(POSE_WORDS):
        raise ValueError(
            f"`pose_convention` {convention}: unknown '{min(unknown)}', expected {AS_RECORDED}, or some of "
            f"{', '.join(POSE_WORDS)}, joined by commas"
        )
    if words >= set(UNITS):
        raise ValueError(f"`pose_convention` {convention}: {' and '.join(UNITS)} are two units; give one of them")
    return tuple(word for word in POSE_WORDS if word in words)


def _as_words(T: np.ndarray, words: tuple[str, ...]) -> np.ndarray:
    """The pose (4, 4), camera to world in metres, that is written in a convention."""
    for word in words:  # in the order of POSE_WORDS
        if word == "qw-first":
            T = quaternion_read_from([1, 2, 3, 0])(T)
        elif word in UNITS:
            T = stretched(UNITS[word])(T)
        elif word == "inverted":
            T = inverse(T)
        else:
            T = T @ np.diag([1.0, -1.0, -1.0, 1.0])
    return T


def recorded_poses(recording: Recording) -> list[np.ndarray | None]:
    """The poses (4, 4) in the coordinates of the file, whatever origin was taken off."""
    return [None if T is None else moved_by(T, recording.world_origin) for T in recording.poses or ()]


def _posed(view: Recording, tracks: Sequence[flow.Tracks]) -> Sequence[flow.Tracks]:
    """Those whose first and last frames have poses."""
    poses = view.poses or ()
    return [t for t in tracks if poses[t.first] is not None and poses[t.last] is not None]
