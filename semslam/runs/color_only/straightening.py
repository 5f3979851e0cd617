"""Tracking by images of a camera whose lens is not as it is said to be: what it distorts is undone, and it is tracked
again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semslam.camera import Camera
from semslam.perception import Network
from semslam.runs.color_only.following import Scene
from semslam.runs.color_only.zooming import unzoomed_scene
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.lens import FoundLens, lens_of
from sequences import Sequence as Recording
from sequences.recalibrated import StraightenedSequence

logger = logging.getLogger(__name__)
# Of the mean cost of an observation, what a lens explains that is undone: recordings with the camera of their data set
# have up to 0.13, where undoing it bends paths less, but moves the network's scale as often for the worse.
EVIDENT = 0.2
PASSES = 3  # that undo a lens; each leaves a part
NO_WORSE, LEFT = 1.05, 0.67  # times the residual, and what a lens explains, before: at most


class Straight(NamedTuple):
    """What a tracker found in images in which a lens was undone."""

    scene: Scene
    zoom: np.ndarray | None  # see `unzoomed_scene`
    lens: Camera | None  # that took the recording's images; None = as it is said
    left: FoundLens | None  # what is left to be undone

    def is_better(self, before: Straight) -> bool:
        """Whether no more frames are lost, landmarks are not farther off, and less of a lens is left."""
        if self.left is None or before.left is None:
            return False
        now, then = self.scene, before.scene
        lost = np.count_nonzero(then.followed.found) > np.count_nonzero(now.followed.found)
        fits = now.tracker.map.residual < NO_WORSE * then.tracker.map.residual
        return not lost and fits and self.left.explained < LEFT * before.left.explained


def straight_scene(
    sequence: Recording,
    network: Network,
    config: VisualConfig | None,
    report: Callable[[], object],
    folder: Path | None,
) -> Straight:
    """The `unzoomed_scene` of a `sequences.Sequence`, in images without the distortion that its landmarks tell of.

    Where they say the same of focal length or principal point, these are taken as well. The images of a camera that
    zooms are left as they are.
    """

    def tracked(lens: Camera | None) -> Straight:
        images = sequence if lens is None else StraightenedSequence(sequence, lens)
        scene, zoom = unzoomed_scene(images, network, config, report if lens is None else lambda: None, folder)
        return Straight(scene, zoom, lens, None if zoom is not None else lens_of(scene.tracker.map))

    best = tracked(None)
    for _ in range(PASSES):
        if best.left is None or best.left.explained < EVIDENT:
            break
        lens = best.left.applied_to(best.lens or _known(sequence.camera, best.scene))
        logger.warning("the images fit another camera than the one that is known: %s", _told(lens))
        if not _sees_its_middle(lens):
            break
        again = tracked(lens)
        if not again.is_better(best):
            logger.warning("tracked again with that they fit no better: the map may be wrong; calibrate the camera")
            break
        best = again
    return best


def _known(camera: Camera, scene: Scene) -> Camera:
    """A recording's camera, with the focal length that was found where none is known."""
    if camera.focal_known:
        return camera.undistorted()
    found = scene.tracker.map.camera.fx * camera.width / scene.tracker.size[0]
    return Camera(camera.width, camera.height, found, found * camera.fy / camera.fx, camera.cx, camera.cy,
                  focal_known=False)  # fmt: skip


def _sees_its_middle(lens: Camera) -> bool:
    """Whether the principal point lies well within the images, without which a lens is not believed."""
    return 0.02 < lens.cx / lens.width < 0.98 and 0.02 < lens.cy / lens.height < 0.98


def _told(lens: Camera) -> str:
    assert lens.distortion is not None
    return (
        f"focal length {lens.fx:.0f} pixels, principal point {lens.cx:.0f}, {lens.cy:.0f}, distortion k1 "
        f"{lens.distortion[0]:.2f}, k2 {lens.distortion[1]:.2f}; tracked again with that (--camera gives the true one)"
    )
