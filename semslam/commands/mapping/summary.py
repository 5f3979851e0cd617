"""What a finished run says of itself on the command line: its metrics as sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semslam.camera import Camera
    from semslam.runs.config import RunConfig

Metrics = Mapping[str, Any]  # of metrics.json


def summary(
    metrics: Metrics, settings: RunConfig, camera: Camera, reason: str, live: bool, seconds: float
) -> list[str]:
    """The sentences that are of use, in the order in which they are read.

    metrics: those of `finish`. settings: as they were given. camera: of the run's frames. reason: why the last lost
    frame was not tracked. live: whether the frames came from a camera, so that `doctor` has no recording to look at.
    seconds: that the whole command took.
    """
    doctor = None if live else look_for_cause(settings)
    of_poses = doctor if settings.poses_of_recording else None  # it knows no others
    every = [
        frames_fused(metrics, settings, seconds),
        rejected_poses(metrics, of_poses),
        doubtful_poses(metrics, of_poses),
        lost_frames(metrics, reason, doctor),
        poor_frames(metrics),
        unreadable_frames(metrics),
        hung_depth(metrics),
        hung_color(metrics),
        moved_depth(metrics, settings),
        submaps(metrics),
        held_out(metrics),
        earlier_surfels(metrics, settings),
        filled_holes(metrics),
        completed_planes(metrics),
        scale(metrics),
        corrected_poses(metrics),
        focal_length(metrics, camera),
    ]
    return [sentence for sentence in every if sentence is not None]


def look_for_cause(settings: RunConfig) -> str:
    """The command that looks for the cause of lost frames, in the frames that were taken."""
    return f"`{settings.doctor}` looks for the cause"


def frames_fused(metrics: Metrics, settings: RunConfig, seconds: float) -> str:
    sparing = settings.slam.perception.depth == "predicted" and settings.slam.corrections.keyframes
    fused = f"{metrics['frames_fused']} {'keyframes ' if sparing else ''}of {metrics['frames']} frames fused"
    rate = f"{metrics['frames_per_second']:.1f} frames/s"
    if metrics.get("seconds", 0.0) <= seconds:  # else most of the frames are of a command before, which was resumed
        rate += f" ({seconds:.0f} s with start and final files)"
    return f"{fused}, {rate}, {metrics['surfels']} surfels"


def rejected_poses(metrics: Metrics, doctor: str | None) -> str | None:
    from semslam.doctor.poses.single import listed

    if not (rejected := metrics.get("poses_rejected")):
        return None
    return f"{listed(rejected)} left out, since the images contradict the given pose{_advice(doctor)}"


def doubtful_poses(metrics: Metrics, doctor: str | None) -> str | None:
    if not (contradicted := metrics.get("poses_contradicted")):
        return None
    return f"poses or images are doubtful: {contradicted}{_advice(doctor)}"


def _advice(doctor: str | None) -> str:
    return "" if doctor is None else f"; {doctor}"


def lost_frames(metrics: Metrics, reason: str, doctor: str | None) -> str | None:
    """Which frames are not in the map, and why the last of them is not; those whose pose was rejected aside."""
    rejected = metrics.get("poses_rejected")
    lost = [index for index in metrics["lost"] if index not in (rejected or ())]
    if not lost:
        return None
    advice = _advice(doctor)
    what = "could not be tracked and"
    if rejected is not None:  # the poses were given, or those of a plain camera were found before
        advice, what = "" if "scale_from" in metrics else "; --poses tracked needs none", "had no pose and"
    if len(lost) == 1:
        return f"frame {lost[0]} {what} is not in the map, because {reason}{advice}"
    return (
        f"{len(lost)} frames {what} are not in the map, from frame {lost[0]} to {lost[-1]}; the last, because "
        f"{reason}{advice}"
    )


def poor_frames(metrics: Metrics) -> str | None:
    """Which frames have a pose and are not in the map all the same; those whose depth is repeated aside."""
    from semslam.doctor.poses.single import listed

    repeated = metrics.get("depth_repeated", ())
    if not (poor := [index for index in metrics.get("poor", ()) if index not in repeated]):
        return None
    last = "; the last, because" if len(poor) > 1 else ", because"
    return f"{listed(poor)} tracked but not fused{last} {metrics['poor_reason'] or 'it fits the map too badly'}"


def unreadable_frames(metrics: Metrics) -> str | None:
    from semslam.doctor.poses.single import listed

    if not (corrupt := metrics.get("corrupt")):
        return None
    return f"{listed(corrupt)} could not be read and {'are' if len(corrupt) > 1 else 'is'} not in the map"


def hung_depth(metrics: Metrics) -> str | None:
    from semslam.doctor.depth.repeats import in_words

    if not (repeated := metrics.get("depth_repeated")):
        return None
    return f"{in_words(repeated)}; their depth is not used"


def hung_color(metrics: Metrics) -> str | None:
    from semslam.doctor.depth.repeats import in_words

    if not (repeated := metrics.get("color_repeated")):
        return None
    return f"{in_words(repeated, 'colour')}; they are left out"


def moved_depth(metrics: Metrics, settings: RunConfig) -> str | None:
    """What was undone of the times at which depth was measured, unless the settings asked for it."""
    found = {
        "is {:.0f} ms apart from its colour image (median)": metrics.get("depth_delay_s"),
        "was read row by row in {:.0f} ms, as a Kinect reads": settings.slam.perception.readout is None
        and metrics.get("readout_s"),
    }
    if not (said := [words.format(1000 * seconds) for words, seconds in found.items() if seconds]):
        return None
    return f"depth {' and '.join(said)}; that was undone (--set slam.perception.synchronise=false leaves it)"


def submaps(metrics: Metrics) -> str | None:
    if metrics["submaps"] <= 1:
        return None
    parts = metrics["submaps"] - 1
    saw = (
        f"{parts} parts of the scene that have not met the map; they are"
        if parts > 1
        else ("a part of the scene that has not met the map; it is")
    )
    files = f"map_2.ply, trajectory_2.txt{', and so on' * (parts > 1)}"
    return f"{metrics['frames_apart']} frames saw {saw} saved beside it: {files}"


def held_out(metrics: Metrics) -> str | None:
    """How well the map predicts the depth of the frames that were kept to judge it by."""
    if "held_out_depth_median_m" not in metrics:
        return None
    count, median = metrics["frames_held_out"], metrics["held_out_depth_median_m"]
    of_them = f"{count} frames held out"
    if unposed := metrics.get("held_out_unposed", 0):
        of_them = f"{count - unposed} of {count} frames held out (where the others were is not known)"
    if not metrics["held_out_measured"]:
        return f"{of_them}: they have no depth to judge the map by"
    if not math.isfinite(median):
        return f"{of_them}: none of their depth is covered by the map"
    return (
        f"{of_them}: the map's depth is {100 * median:.2f} cm off theirs (median) and covers "
        f"{100 * metrics['held_out_coverage']:.1f} % of it"
    )


def earlier_surfels(metrics: Metrics, settings: RunConfig) -> str | None:
    if "surfels_of_earlier_frames" not in metrics:
        return None
    return (
        f"{metrics['surfels_of_earlier_frames']} of the surfels are of {settings.extend}, whose others were "
        f"removed, because the new frames saw through them or the two runs saw one surface twice"
    )


def filled_holes(metrics: Metrics) -> str | None:
    """How much of the holes was filled, and how well; or why nothing was."""
    if "surfels_filled" not in metrics:
        return None
    if metrics["fill_keyframes"] == 0:
        shown = metrics["fill_without_parallax"]
        why = f"{shown} frames show no parallax: the camera has to move sideways" if shown else "no frame has a pose"
        return f"holes filled: none, since {why}"
    said = f"holes filled: {metrics['surfels_filled']} surfels"
    if metrics["fill_hidden_median_m"] is None or metrics["fill_filled_share"] is None:  # nothing hidden, or no hole
        return f"{said} of {metrics['fill_keyframes']} keyframes"
    return (
        f"{said}, {100 * metrics['fill_filled_share']:.0f} % of the pixels without depth in "
        f"{metrics['fill_keyframes']} keyframes; measured pixels that were hidden came out "
        f"{100 * metrics['fill_hidden_median_m']:.1f} cm off (median)"
    )


def completed_planes(metrics: Metrics) -> str | None:
    if not (surfels := metrics.get("surfels_of_planes")):
        return None
    return (
        f"flat surfaces without texture completed from their edges: {surfels} surfels "
        f"(--set slam.multiview.planes=false leaves them out)"
    )


def scale(metrics: Metrics) -> str | None:
    """What the lengths of a map from colour alone rest on."""
    if "scale_std" not in metrics:
        return None
    percent = f"good to about {100 * metrics['scale_std']:.0f} %"
    if metrics["scale_from"] == "network":
        known = (
            f"all lengths are the network's guess, {percent} in furnished rooms, and far worse in places that look "
            f"like none (--scale-from a known length or height does better)"
        )
    else:
        known = f"scaled by {metrics['scale_from']}, {percent}"
    return f"no depth camera: tracked by {metrics['visual_keyframes']} keyframes; {known}"


def corrected_poses(metrics: Metrics) -> str | None:
    """How far given poses were from the images, and what was done."""
    if not metrics.get("poses_corrected"):
        return None
    offset = 1000 * metrics["poses_time_offset_s"]
    clocks = f"; they fit {abs(offset):.0f} ms {'later' if offset > 0 else 'earlier'}: the clocks differ"
    return (
        f"the given poses contradict the images by {metrics['poses_misfit_px']:.1f} pixels"
        + (clocks if offset else "")
        + f"; they were corrected to {metrics['poses_misfit_corrected_px']:.1f} pixels: moved by "
        f"{100 * metrics['poses_moved_m']:.1f} cm, turned by {metrics['poses_turned_deg']:.1f} degrees "
        f"(--set slam.visual.given_std=0 keeps them)"
    )


def focal_length(metrics: Metrics, camera: Camera) -> str | None:
    if not metrics.get("focal_std"):
        return None
    return (
        f"camera unknown: its focal length was estimated, {metrics['focal_pixels']:.0f} pixels +- "
        f"{100 * metrics['focal_std']:.0f} % ({camera.fov:.1f} degrees across; --fov sets it)"
    )
