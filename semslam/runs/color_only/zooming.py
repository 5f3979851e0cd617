"""Tracking by images of a camera that may zoom while it films: what it zoomed is undone, and it is tracked again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semslam.perception import Network
from semslam.runs.color_only.following import Scene, longest_scene
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.zoom import zoom_of
from sequences.recalibrated import UnzoomedSequence

logger = logging.getLogger(__name__)
PASSES = 3  # that undo zoom; each leaves about a fifth of what the one before left


def unzoomed_scene(
    sequence: Any,
    network: Network,
    config: VisualConfig | None,
    report: Callable[[], object],
    folder: Path | None,
) -> tuple[Scene, np.ndarray | None]:
    """The finished `longest_scene` of a `sequences.Sequence`, and the zoom (N,) of each of its frames, at least 1, that
    was undone in its images; None where the camera did not zoom.

    A map made of images that zoom is bent, and what it says of the zoom is too little: the images with that much undone
    are tracked again, until none is seen. The widest image is taken to be of the known focal length.
    """
    scene, zoom = longest_scene(sequence, network, config, report, folder), None
    scene.tracker.finish()
    for _ in range(PASSES):
        if (change := zoom_of(scene.tracker.map, evident=zoom is not None)) is None:
            return scene, zoom
        indices = [keyframe.index for keyframe in scene.tracker.map.keyframes]
        zoom = (1 if zoom is None else zoom) * np.exp(np.interp(np.arange(len(sequence)), indices, change))
        zoom /= zoom.min()
        logger.warning("the camera zooms by %.2f while it films: tracked again with that undone", zoom.max())
        scene = longest_scene(UnzoomedSequence(sequence, zoom), network, config, lambda: None, folder)
        scene.tracker.finish()
    if zoom_of(scene.tracker.map) is not None:
        logger.warning("not all of the zoom could be undone: the map may be wrong; film without zooming")
    return scene, zoom
