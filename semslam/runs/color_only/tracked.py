"""The poses of a run without a depth camera: what its folder keeps of them, or the whole of visual tracking."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from semslam.perception import Network
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.known_scale import KnownSize, with_known_size
from semslam.runs.color_only.likeness import MOSTLY
from semslam.runs.color_only.poses import KEPT, VisualPoses, track_images
from semslam.runs.color_only.settings import settings_of_poses
from semslam.runs.color_only.sfm import sfm_poses
from semslam.runs.config import RunConfig
from sequences import Sequence as Recording

logger = logging.getLogger(__name__)
RESIDUAL = 1.4  # pixels of tracked images: sound recordings have 0.7 to 0.9, a wobble of 6 pixels 1.9
RESTLESS = 0.5  # share of the images; see `VisualPoses.restless`
FOCAL_SPREADS = 0.025  # relative: sound recordings as recorded, in parts and every third frame have up to 0.019
FOCAL_UNSURE = 0.1  # relative: whole recordings of unknown cameras have 0.05 to 0.07


def visual_poses(
    folder: Path, sequence: Recording, network: Network, config: RunConfig, report: Callable[[], object]
) -> VisualPoses:
    """What a run's folder keeps of the poses of its `sequences.Sequence` by colour alone; made and kept there where it
    does not, or with other settings: by visual tracking, or where `config.poses` is sfm by structure from motion.

    report: called after each frame that is tracked.
    """
    settings = settings_of_poses(config, sequence)
    found = load_kept(folder / KEPT, VisualPoses, len(sequence), settings)
    if found is None:
        found = _made(folder, sequence, network, config, report)
        save_kept(folder / KEPT, found, settings)
    for doubt in doubts(found, scale_known=config.scale_from is not None):
        logger.warning("%s: %s", config.sequence, doubt)
    return found


def _made(
    folder: Path, sequence: Recording, network: Network, config: RunConfig, report: Callable[[], object]
) -> VisualPoses:
    slam = config.slam
    if config.poses == "sfm":
        found = sfm_poses(sequence, network, report)
    else:
        found = track_images(sequence, network, slam.visual, report, folder)
    if config.scale_from is not None:
        known, calibrated = KnownSize.parsed(config.scale_from), found.calibrated(sequence)
        found = with_known_size(found, known, calibrated, network, slam.perception.classes, slam.multiview)
    return found


def doubts(found: VisualPoses, scale_known: bool) -> list[str]:
    """What a map of these poses may be wrong in, and what to do. scale_known: it is not the network's."""
    said = []
    if found.residual > RESIDUAL:
        said.append(
            f"landmarks are {found.residual:.1f} pixels from where they should be (median; 0.7 to 0.9 in sound "
            f"recordings): the images wobble or show moving things, and the map may be wrong; film without "
            f"stabilisation and with a short, fixed exposure, or leave that part out (--start, --frames)"
        )
    if found.restless > RESTLESS:
        said.append(
            f"in {100 * found.restless:.0f} % of the images a third of what is followed is lost though hardly anything "
            f"moves: the light flickers, a film runs on a screen in view, something is printed over the images or "
            f"blurs them, and the map may be wrong; film by daylight or with an exposure of 10 ms or more"
        )
    if found.focal_spread > FOCAL_SPREADS:
        said.append(
            f"the focal length seems to change by +- {100 * found.focal_spread:.1f} % while the camera films: it zooms "
            f"or focuses, its images are cropped off their middle, stretched or stabilised, or shake too much to be "
            f"followed well, and the map may be wrong; film the whole image slowly with zoom and focus locked, or "
            f"calibrate the camera (--camera)"
        )
    if found.focal_std > FOCAL_UNSURE:
        said.append(
            f"the camera is unknown, and its images tell its focal length to {100 * found.focal_std:.0f} % only: the "
            f"map may be too deep or too flat by as much; give its field of view (--camera, --fov), or move more "
            f"sideways, before things near and far"
        )
    if found.strange >= MOSTLY and not scale_known:
        said.append(
            f"the images are darker, noisier, sharper or more blurred than those that the depth network was trained "
            f"with: the map's size may be wrong by {100 * found.scale_std:.0f} %; --scale-from sets it by a known "
            f"length or height"
        )
    return said
