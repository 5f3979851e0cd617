"""Tracking by images of a camera whose lens is not as it is said, or that reads an image row by row: what that does to
images is undone in what was tracked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam.camera import Camera
from semslam.perception import Network
from semslam.runs.color_only.following import Scene
from semslam.runs.color_only.zooming import WORTH, unzoomed_scene
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.lens import EVIDENT, USUAL, FoundLens, is_believable, lens_of
from semslam.tracking.visual.shutter import readout_of, twists_of
from semslam.tracking.visual.visual_tracker import VisualTracker
from semslam.tracking.visual.zoom import zoom_of
from sequences import Sequence as Recording
from sequences.recalibrated import StraightenedSequence, UnrolledSequence

logger = logging.getLogger(__name__)
TOLD = 0.2  # explained, from which a lens is told: recordings with the camera of their data set have up to 0.13
PASSES = 5  # that undo a lens; each leaves a part
SQUARE = 0.01  # of their width, that the height of square pixels may differ
WRONG = "the map may be wrong; calibrate the camera, or give its field of view (--camera, --fov)"
NO_WORSE, LEFT = 1.05, 0.67  # times the residual, and what a lens explains, before: at most
NEARER = 0.95  # times the residual with the focal length that was found, that one with another and a lens has


class Straight(NamedTuple):
    """What was tracked of a recording, without the distortion of a lens."""

    tracker: VisualTracker
    lens: Camera | None  # that took the recording's images; None = as it is said
    left: FoundLens | None  # what is left to be undone

    def without(self, lens: Camera) -> Straight:
        """The same without the distortion of another lens, which took the recording's images."""
        tracker = self.tracker.straightened(lens.resized(*map(int, self.tracker.size)))
        focal = float(tracker.map.camera.fx * lens.width / tracker.size[0])  # adjusted, where it was not known
        return Straight(tracker, with_focal(lens, focal), lens_of(tracker.map))

    def is_better(self, before: Straight) -> bool:
        """Whether landmarks are not farther off, and less of a lens is left."""
        if self.left is None or before.left is None:
            return False
        fits = self.tracker.map.residual < NO_WORSE * before.tracker.map.residual
        return fits and self.left.explained < LEFT * before.left.explained


class StraightScene(NamedTuple):
    """What a tracker found of a recording in whose images lens and zoom are undone."""

    scene: Scene
    zoom: np.ndarray | None  # see `unzoomed_scene`
    lens: Camera | None  # that took the recording's images; None = as it is said


def straight_scene(
    sequence: Recording,
    network: Network,
    config: VisualConfig | None,
    report: Callable[[], object],
    folder: Path | None,
) -> StraightScene:
    """The `unzoomed_scene` of a `sequences.Sequence`, without the distortion that its landmarks tell of.

    Where they say the same of focal length or principal point, these are taken as well. The images are not tracked
    again, unless a zoom shows once the lens is undone; those of a camera that zooms are left as they are.
    """
    scene, zoom = unzoomed_scene(sequence, network, config, report, folder)
    if zoom is not None:
        return StraightScene(scene, zoom, None)
    as_said, best, likely = _of_likely_camera(sequence.camera, scene)
    doubtful = as_said.left is not None and as_said.left.most > TOLD
    if best.lens is None:
        if doubtful:
            logger.warning(
                "the images fit no likely camera: are they stretched, cropped, stabilised or shaken? %s", WRONG
            )
        elif not likely:
            logger.warning("no usual camera has the focal length that was found: %s", WRONG)
        return StraightScene(scene, None, None)
    tell_lens(best.lens, doubtful, best.left)
    if (found := zoom_of(best.tracker.map)) is not None and found.evident and found.z.max() > WORTH:
        images = StraightenedSequence(sequence, best.lens)
        again, zoom = unzoomed_scene(images, network, config, lambda: None, folder)
        if zoom is not None:
            return StraightScene(again, zoom, best.lens)
    return StraightScene(scene._replace(tracker=best.tracker), None, best.lens)


def _of_likely_camera(camera: Camera, scene: Scene) -> tuple[Straight, Straight, bool]:
    """What was tracked of a recording with this camera; the same without the distortion that is evident in it; and
    whether any camera has the focal length that was found, where none is known.

    A wide lens that distorts leads the focal length astray. Where no camera has it, or what the landmarks tell from
    there is no likely lens, one is looked for from the guess, and taken where no camera has that focal length, or
    landmarks are clearly nearer with it.
    """
    known, tracker = _known(camera, scene), scene.tracker
    likely = camera.focal_known or is_believable(known, known, focal_known=False)
    as_said = best = Straight(tracker, None, lens_of(tracker.map))
    if likely:
        best = straightened(as_said, known)
        doubtful = as_said.left is not None and as_said.left.most > TOLD
        if camera.focal_known or not doubtful or (best.lens is not None and known.fx <= USUAL * max(known.shape)):
            return as_said, best, likely
    guess = camera.undistorted()
    guessed = tracker.with_focal(guess.fx * tracker.size[0] / guess.width)
    as_guessed = Straight(guessed, None, lens_of(guessed.map))
    by_guess = straightened(as_guessed, guess)
    nearer = by_guess.lens is not None and by_guess.tracker.map.residual < NEARER * tracker.map.residual
    return (as_guessed, by_guess, likely) if nearer or not likely else (as_said, best, likely)


def straightened(best: Straight, known: Camera) -> Straight:
    """What was tracked by a known camera, with the lens undone that is evident in it, step by step."""
    for _ in range(PASSES):
        if best.left is None or best.left.explained < EVIDENT:
            break
        lens = best.left.applied_to(best.lens or known)
        again = best.without(lens) if is_believable(lens, known, best.tracker.map.focal_known) else None
        if again is None or not again.is_better(best):
            break
        best = again
    return best


def unrolled(tracker: VisualTracker, timestamps: np.ndarray) -> tuple[VisualTracker, np.ndarray | None]:
    """What was tracked of frames (N,) at these times, seconds, as if each image had been read at one moment, and the
    readout (1, 2), see `readout_of`, that its landmarks tell of; None where they tell of none."""
    twists = twists_of([tracker.pose(i) for i in range(len(timestamps))], timestamps)
    of_keyframes = twists[[keyframe.index for keyframe in tracker.map.keyframes]]
    readout = readout_of(tracker.map, of_keyframes, float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else 0)
    if readout is None:
        return tracker, None
    logger.info("images are read within %.0f ms (a rolling shutter), which is undone", 1000 * np.abs(readout).max())
    return tracker.unrolled(readout, twists), readout[None]


def at_one_moment(
    sequence: Recording, readout: np.ndarray | None, T_world_camera: np.ndarray, depth: float
) -> Recording:
    """A `sequences.Sequence` as if each image had been read at one moment; itself where no readout (1, 2) was found.

    T_world_camera: (N, 4, 4) metres, not finite where there is none. depth: of the scene, metres.
    """
    if readout is None:
        return sequence
    twists = twists_of([T if np.isfinite(T[0, 0]) else None for T in T_world_camera], sequence.timestamps)
    # rounded as they are kept
    return UnrolledSequence(sequence, readout[0], twists.astype(np.float32).astype(np.float64), depth)


def tell_lens(lens: Camera, doubtful: bool, left: FoundLens | None) -> None:
    """Say which lens was undone. doubtful: whether it is far from what was known. left: what it leaves to be undone."""
    level = logging.WARNING if doubtful else logging.INFO
    logger.log(level, "the images fit another camera than the one that is known: %s", _told(lens))
    if left is not None and left.most > TOLD:
        logger.warning("not all that is wrong could be undone: the map may be wrong; calibrate the camera")


def _known(camera: Camera, scene: Scene) -> Camera:
    """A recording's camera, with the focal length that was found where none is known."""
    if camera.focal_known:
        return camera.undistorted()
    return camera.undistorted().with_focal(scene.tracker.map.camera.fx * camera.width / scene.tracker.size[0])


def with_focal(lens: Camera, focal: float) -> Camera:
    """The lens of the same images whose straight ones have another focal length along x, pixels."""
    assert lens.distortion is not None
    ratio = (focal / lens.fx) ** 2
    k1, k2 = lens.distortion[:2]
    return replace(lens.with_focal(focal), distortion=(ratio * k1, ratio**2 * k2, 0.0, 0.0))


def _pixels(fx: float, fy: float) -> str:
    """Focal lengths in words; two where pixels are not as wide as high."""
    return f"{fx:.0f} pixels" if abs(fx / fy - 1) < SQUARE else f"{fx:.0f} pixels across and {fy:.0f} down"


def _told(lens: Camera) -> str:
    assert lens.distortion is not None
    return (
        f"focal length {_pixels(lens.fx, lens.fy)}, principal point {lens.cx:.0f}, {lens.cy:.0f}, distortion k1 "
        f"{lens.distortion[0]:.2f}, k2 {lens.distortion[1]:.2f}, which is undone (--camera gives the true one)"
    )
