"""Whether settings and recording fit together, before a run begins."""

from __future__ import annotations

from pathlib import Path

from semslam.doctor.depth.readings import implausible_depth
from semslam.runs.color_only.known_scale import KnownSize
from semslam.runs.config import RunConfig
from sequences import Sequence as Recording
from sequences import detect_kind

BY_IMAGES = ("tracked", "sfm")  # settings of `poses` by which predicted depth is posed by the images alone


def check_settings(config: RunConfig, sequence: Recording, recorded: bool = True) -> None:
    """ValueError for settings that contradict one another, or the recording. recorded: whether it is at its end."""
    depth, poses, hold_out = config.slam.perception.depth, config.poses, config.hold_out
    if depth == "sensor" and not sequence.has_depth:
        hint = _around(config.sequence) or "with `slam.perception.depth` predicted it is mapped from its colours"
        raise ValueError(f"{config.sequence}: has no depth images; {hint}")
    camera = sequence.camera
    if not (abs(camera.cx - camera.width / 2) < camera.width and abs(camera.cy - camera.height / 2) < camera.height):
        raise ValueError(
            f"{config.sequence}: the principal point ({camera.cx:g}, {camera.cy:g}) is far outside the "
            f"{camera.width}x{camera.height} images; give cx and cy in pixels of these images (camera.yaml, --camera)"
        )
    if hold_out is not None and hold_out > len(sequence):
        raise ValueError(f"`hold_out` is {hold_out}, but there are {len(sequence)} frames: none would be left out")
    if config.extend is not None and (depth, poses) != ("sensor", "tracked"):
        raise ValueError(f"`extend` needs `slam.perception.depth` sensor and `poses` tracked, here {depth} and {poses}")
    if config.fill and (depth != "sensor" or config.extend is not None):
        raise ValueError(
            "`fill` is for the holes of `slam.perception.depth` sensor, and not for `extend`; leave it out"
        )
    set_by_hand = config.slam.fusion.near is not None and config.slam.fusion.far is not None
    if depth == "sensor" and not set_by_hand and (finding := implausible_depth(sequence)) is not None:
        raise ValueError(f"{config.sequence}: {finding.what}; {finding.remedy}")
    if depth == "predicted" and poses in ("refined", "predicted-refined"):
        raise ValueError(
            f"`poses` {poses} registers every frame, which needs the sensor's depth; with `slam.perception.depth` "
            f"predicted use `poses` dataset, predicted or tracked"
        )
    if recorded and depth == "predicted" and poses in BY_IMAGES and len(sequence) < 2:
        raise ValueError(f"{config.sequence}: is one frame; tracking by images needs several that overlap")
    if depth == "sensor" and poses == "sfm":
        raise ValueError(
            "`poses` sfm is for recordings without a depth camera; use `slam.perception.depth` predicted, or `poses` "
            "tracked"
        )
    if config.scale_from is not None:
        KnownSize.parsed(config.scale_from)
        if depth != "predicted" or poses not in BY_IMAGES:
            raise ValueError(
                "`scale_from` is for `slam.perception.depth` predicted with `poses` tracked; elsewhere depth or poses "
                "tell it"
            )
    if not sequence.camera.focal_known and (depth != "predicted" or poses not in BY_IMAGES):
        raise ValueError(
            f"{config.sequence}: nothing says what camera took it; write a camera.yaml beside it (width, height, fx, "
            f"fy, cx, cy), or give its horizontal field of view in degrees with `fov` (phones: about 65); with "
            f"`slam.perception.depth` predicted and `poses` tracked or sfm it is estimated"
        )


def _around(sequence: str) -> str:
    """A hint at the recording of which a folder of images is a part; nothing where it is none."""
    try:
        whole = Path(sequence).resolve().parent
        if Path(sequence).is_dir() and detect_kind(whole) != "photos":
            return f"it is a part of a recording: give {Path(sequence).parent} instead"
    except (ValueError, OSError):
        pass
    return ""
