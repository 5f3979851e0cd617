"""Tracking by images of a camera that may zoom while it films: what it zoomed is undone, and it is tracked again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam.files.failures import raise_passing
from semslam.perception import Network
from semslam.runs.color_only.following import Scene, longest_scene
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.lens import lens_of
from semslam.tracking.visual.zoom import FoundZoom, zoom_of
from semslam.tracking.visual.zoom_jump import jump_between
from sequences import Sequence as Recording
from sequences.recalibrated import UnzoomedSequence

logger = logging.getLogger(__name__)
PASSES = 3  # that undo zoom; each leaves up to half of what the one before left
WORTH = 0.06  # logarithm of a zoom from which it is undone: stabilised images seem to zoom by 5 %
MOST_JUMPS = 20  # places of doubtful tracking that are looked at for a zoom from one frame to the next
AROUND = 2  # keyframes before and after the steepest zoom, between which all frames are looked at for one ...
MOST_AROUND = 100  # ... or so many of them, in the middle
REMEDY = "film without zooming"


class Undone(NamedTuple):
    """What a tracker found in images in which a zoom was undone."""

    zoom: np.ndarray  # (N,) of each frame, at least 1; all 1 where none was undone
    scene: Scene
    left: FoundZoom | None  # of the images as they were tracked

    def with_the_rest(self) -> np.ndarray:
        """The zoom (N,) with that which is left."""
        assert self.left is not None
        zoom = self.zoom * np.exp(np.interp(np.arange(len(self.zoom)), self._indices, self.left.z))
        return zoom / zoom.min()

    def frames_of_the_steepest_zoom(self) -> np.ndarray:
        """The frames (N,) around the two keyframes between which the most zoom is left; not all of a camera at rest."""
        assert self.left is not None
        indices, steepest = self._indices, int(np.abs(np.diff(self.left.z)).argmax())
        last = min(steepest + 1 + AROUND, len(indices) - 1)
        frames = np.arange(indices[max(steepest - AROUND, 0)] + 1, indices[last] + 1)
        middle = (indices[steepest] + indices[steepest + 1]) // 2
        return frames[np.abs(frames - middle) <= MOST_AROUND // 2]

    @property
    def _indices(self) -> list[int]:
        return [keyframe.index for keyframe in self.scene.tracker.map.keyframes]

    def is_rather_a_lens(self, found: FoundZoom) -> bool:
        """Whether one lens for all images explains more than a zoom."""
        lens = lens_of(self.scene.tracker.map)
        return lens is not None and lens.most > found.explained

    def follows_better(self, before: Undone) -> bool:
        """Whether more frames are followed than with less undone, or as many, whose landmarks are not as far off."""
        now, then = self.scene, before.scene
        more = np.count_nonzero(now.followed.found) - np.count_nonzero(then.followed.found)
        return bool(more > 0 or (more == 0 and now.tracker.map.residual < then.tracker.map.residual))

    def is_better(self, before: Undone) -> bool:
        """Whether no more frames are lost than with less undone, and it was a zoom that was undone."""
        if self.left is None or before.left is None:
            return False
        lost = np.count_nonzero(before.scene.followed.found) > np.count_nonzero(self.scene.followed.found)
        return not lost and before.left.is_undone_in(self.left)


def unzoomed_scene(
    sequence: Recording,
    network: Network,
    config: VisualConfig | None,
    report: Callable[[], object],
    folder: Path | None,
) -> tuple[Scene, np.ndarray | None]:
    """The finished `longest_scene` of a `sequences.Sequence`, and the zoom (N,) of each of its frames, at least 1, that
    was undone in its images; None where none was.

    A map made of images that zoom is bent, and what it says of the zoom is too little: the images with that much
    undone are tracked again, until none is evident. A zoom of less than WORTH is told, and left. The widest image
    is taken to be of the known focal length. Where a lens explains more, it is none: see `straightening`. Where
    zoom has as much to explain after it was undone, it was none: those images are not used.
    """

    def tracked(zoom: np.ndarray) -> Undone:
        zooms = zoom.max() > 1
        images = UnzoomedSequence(sequence, zoom) if zooms else sequence
        scene = longest_scene(images, network, config, (lambda: None) if zooms else report, folder)
        scene.tracker.finish()
        return Undone(zoom, scene, zoom_of(scene.tracker.map))

    best = tracked(np.ones(len(sequence)))
    jumps = _jumps(sequence, np.flatnonzero(np.diff(best.scene.followed.good))[:MOST_JUMPS] + 1)
    if jumps.max() == 1 and best.left is not None and best.left.evident:
        jumps = _jumps(sequence, best.frames_of_the_steepest_zoom())
    if jumps.max() > 1:
        logger.warning("the camera zooms by %.2f at once: tracked again with that undone", jumps.max())
        again = tracked(jumps)
        best = again if again.follows_better(best) else best
    undone = best.zoom if best.zoom.max() > 1 else None
    if best.left is not None and best.left.evident and best.is_rather_a_lens(best.left):
        return best.scene, undone
    if best.left is not None and best.left.evident and (z := float(best.left.z.max())) < WORTH:
        logger.warning("the camera seems to zoom by %.2f while it films, and lengths are off as much", np.exp(z))
        return best.scene, undone
    for _ in range(PASSES):
        if best.left is None or not best.left.evident:
            break
        more = best.with_the_rest()
        logger.warning("the camera zooms by %.2f while it films: tracked again with that undone", more.max())
        again = tracked(more)
        if not again.is_better(best):
            logger.warning("undoing it did not help, and is left out: the map may be wrong; %s", REMEDY)
            break
        best = again
    else:
        if best.left is not None and best.left.evident:
            logger.warning("not all of the zoom could be undone: the map may be wrong; %s", REMEDY)
    return best.scene, best.zoom if best.zoom.max() > 1 else None


def _jumps(sequence: Recording, places: np.ndarray) -> np.ndarray:
    """The zoom (N,) of each frame of a `sequences.Sequence`, at least 1, by its jumps to one of these frames (M,) from
    the one before it."""
    zoom = np.ones(len(sequence))
    for at in places:
        if (jump := _jump_at(sequence, int(at))) is not None:
            zoom[at:] *= jump
    return zoom / zoom.min()


def _jump_at(sequence: Recording, at: int) -> float | None:
    """That between frame `at` and the one before it; None where one cannot be read."""
    try:
        return jump_between(sequence.color_of(at - 1), sequence.color_of(at))
    except (ValueError, OSError) as problem:
        raise_passing(problem)
        return None
