"""`semslam reconstruct`."""

from __future__ import annotations

import math
import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semslam.commands.app import (
    CONVENTION,
    EVERY,
    FLAGS,
    FRAMES,
    START,
    Out,
    SettingsFile,
    app,
    busy,
    chosen_settings,
    frames_setting,
    interruptible,
    progress,
    setting,
)
from semslam.commands.mapping.live import RECORDING, live_camera

if TYPE_CHECKING:
    from semslam.runs.config import RunConfig

SEQUENCE = "Folder or list file of a recording, or 'room' for the built-in one."
LIVE = "Map what a camera sees now: SEQUENCE is webcam[:N] (default; needs --fov or --camera) or realsense[:N]."
MEMORY = "Most memory for surfels, such as 500MB; the others wait in files, and the mesh gets coarser to fit."
FILES = {"preview": "picture", "map": "surfels", "mesh": "mesh", "trajectory": "trajectory", "metrics": "figures"}
POSES = "dataset (default, if there) | tracked | sfm | refined | predicted | predicted-refined | a file."
POSE_WEIGHTS = "Weights of a pose network: for predicted poses, or to find a tracked camera that is lost."
CORRECTIONS = "Of predicted depth: all | none | noise,anchors,align,bend,edges,weights,gate,keyframes,multiview."


@app.command()
def reconstruct(
    context: typer.Context,
    out: Out,
    sequence: Annotated[str | None, typer.Argument(help=SEQUENCE)] = None,
    live: Annotated[bool, typer.Option("--live", help=LIVE)] = False,
    kind: Annotated[str | None, setting("kind", "--kind", "Layout of the sequence; detected by default.")] = None,
    camera: Annotated[
        str | None, setting("camera", "--camera", "camera.yaml to use instead of the recording's.")
    ] = None,
    depth_scale: Annotated[float | None, setting("depth_scale", "--depth-scale", "Depth units per metre.")] = None,
    registered: Annotated[
        bool | None, setting("registered", "--registered/--unregistered", "Whether depth lies under colour's pixels.")
    ] = None,
    sensor: Annotated[
        str | None,
        setting(
            "sensor", "--sensor", "Depth camera: kinect | tof | realsense | lidar | synthetic. Refined by tracking."
        ),
    ] = None,
    fov: Annotated[
        float | None, setting("fov", "--fov", "Horizontal field of view of an unknown camera, degrees.")
    ] = None,
    start: Annotated[int | None, frames_setting("start", START)] = None,
    frames: Annotated[int | None, frames_setting("frames", FRAMES)] = None,
    every: Annotated[int | None, frames_setting("every", EVERY)] = None,
    depth: Annotated[str | None, setting("slam.perception.depth", "--depth", "sensor (default) | predicted")] = None,
    labels: Annotated[
        str | None, setting("slam.perception.labels", "--labels", "predicted (default) | truth | none")
    ] = None,
    fill: Annotated[
        bool | None, setting("fill", "--fill/--no-fill", "Fill the depth camera's holes by parallax and the network.")
    ] = None,
    poses: Annotated[str | None, setting("poses", "--poses", POSES)] = None,
    pose_rate: Annotated[
        float | None, setting("pose_rate", "--pose-rate", "Poses per second of a pose file without times.")
    ] = None,
    pose_indices: Annotated[
        str | None,
        setting("pose_indices", "--pose-indices", "Frames of a pose file without times: START:STOP:STEP or a file."),
    ] = None,
    pose_convention: Annotated[str | None, setting("pose_convention", "--pose-convention", CONVENTION)] = None,
    extend: Annotated[
        str | None, setting("extend", "--extend", "Folder of a finished run: go on mapping in its map.")
    ] = None,
    pose_weights: Annotated[str | None, setting("pose_weights", "--pose-weights", POSE_WEIGHTS)] = None,
    scale_from: Annotated[
        str | None,
        setting(
            "scale_from", "--scale-from", "Without a depth camera: height=M above the floor | length=M,FRAME,U,V,U,V."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        setting(
            "slam.perception.classes",
            "--classes",
            "nyu13 (default) | nyu40 | those of other --weights, such as kitti6.",
        ),
    ] = None,
    label_every: Annotated[
        int | None, setting("slam.perception.label_every", "--label-every", "Frames between two labelled ones.")
    ] = None,
    weights: Annotated[
        str | None, setting("weights", "--weights", "Weights of the network; bundled ones by default.")
    ] = None,
    engine: Annotated[
        str | None,
        setting(
            "engine",
            "--engine",
            "torch | torch-cuda | onnxruntime | openvino | openvino-bf16; after `calibrate` ...-int8",
        ),
    ] = None,
    corrections: Annotated[str | None, setting("slam.corrections", "--corrections", CORRECTIONS)] = None,
    helps: Annotated[str | None, typer.Option(hidden=True)] = None,  # what --corrections was called
    hold_out: Annotated[
        int | None, setting("hold_out", "--hold-out", "Keep every n-th frame to judge the map by.")
    ] = None,
    loops: Annotated[
        bool | None, setting("loops", "--loops/--no-loops", "Correct tracked poses where the camera comes back.")
    ] = None,
    max_surfels: Annotated[int | None, setting("slam.map.max_surfels", "--max-surfels", "Capacity of the map.")] = None,
    memory: Annotated[str | None, setting("slam.map.memory", "--memory", MEMORY)] = None,
    config: SettingsFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting: slam.fusion.gate=0.02; `semslam config --explain` lists all."),
    ] = None,
    mesh: Annotated[bool, typer.Option(help="Also write a labelled triangle mesh.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run with other settings, or an unfinished one, in --out.")
    ] = False,
    checkpoint: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds of work that a crash may lose; 0 = all. [default: 30, or what costs 2 % of the run]"
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Look at the map in a window while it grows.")] = False,
) -> None:
    """Reconstruct a sequence into a labelled surfel map."""
    from semslam.depth.corrections import CorrectionsConfig
    from semslam.doctor.poses.single import listed
    from semslam.runs.config import settings_of
    from semslam.runs.reconstruct import finish, prepare

    chosen = chosen_settings(context)
    if sequence is None and not live:
        raise ValueError("SEQUENCE is missing: give the folder of a recording, or --live for a camera")
    if live and resume:
        raise ValueError(f"--resume cannot turn time back; run `semslam reconstruct {out / RECORDING}` instead")
    with ExitStack() as at_end:
        recorder = interrupted = None
        if live:
            interrupted = at_end.enter_context(interruptible())
            recorder, chosen = live_camera(sequence or "webcam", out, chosen, interrupted)
            at_end.callback(recorder.end)
            typer.echo(f"mapping what {recorder.name} sees; move it slowly, Ctrl-C ends", err=True)
        else:
            chosen |= {"sequence": sequence}
        if names := corrections or helps:
            chosen["slam.corrections"] = CorrectionsConfig.named(names)
        if empty := [name for name, value in chosen.items() if value == ""]:  # a variable of the shell that is not set
            flag = "SEQUENCE" if empty[0] == "sequence" else FLAGS[empty[0]]
            raise ValueError(f"{flag} is empty; give it a value, or leave it out")
        settings = settings_of(config, chosen, set_ or [])
        if names and settings.slam.perception.depth != "predicted":
            raise ValueError(f"{'--corrections' if corrections else '--helps'} is for --depth predicted; leave it out")
        with progress(0, "frames tracked") as advance:
            run = prepare(
                settings,
                out,
                sequence=recorder,
                resume=resume,
                overwrite=overwrite,
                checkpoint=0.0 if live else checkpoint,  # what it was made of is on the disk already
                report=advance,
            )
        interrupted = interrupted or at_end.enter_context(interruptible())
        window = live_view(run, asked=show) if show or live else None
        with progress(0 if live else len(run), "frames") as advance:
            for _ in run:
                advance()
                if window is not None:
                    window()
                if interrupted() and not live:  # a camera ends by itself
                    typer.echo("saving what is done ...", err=True)
                    break
        if recorder is not None:
            recorder.end()
            typer.echo(
                f"{len(recorder)} frames recorded in {recorder.path}; {recorder.dropped} of the camera's dropped"
            )
        run.save()  # still deaf to Ctrl-C: impatience must not cost the run
    if len(run):
        typer.echo(f"stopped with {len(run)} frames to go; `semslam reconstruct ... --resume` goes on from here: {out}")
        raise typer.Exit(130)
    try:
        with busy("writing map, mesh and pictures"):
            metrics = finish(run, mesh=mesh)
    except KeyboardInterrupt:
        again = f"`semslam reconstruct {recorder.path}` maps them anew" if recorder is not None else "--resume ends it"
        typer.echo(f"interrupted; all frames are fused and saved, the last files are not written; {again}: {out}")
        raise typer.Exit(130) from None
    sparing = settings.slam.perception.depth == "predicted" and settings.slam.corrections.keyframes
    fused = f"{metrics['frames_fused']} {'keyframes ' if sparing else ''}of {metrics['frames']} frames fused"
    typer.echo(f"{fused}, {metrics['frames_per_second']:.1f} frames/s, {metrics['surfels']} surfels")
    if rejected := metrics.get("poses_rejected"):
        typer.echo(
            f"{listed(rejected)} left out, since the images contradict the given pose; {_asking_doctor(settings)}"
        )
    if contradicted := metrics.get("poses_contradicted"):
        typer.echo(f"the given poses are doubtful: {contradicted}; {_asking_doctor(settings)}")
    if lost := [index for index in metrics["lost"] if index not in (rejected or ())]:
        typer.echo(_told_of_lost(lost, run.progress.reason) + ("" if live else f"; {_asking_doctor(settings)}"))
    if metrics["submaps"] > 1:
        typer.echo(
            f"{metrics['frames_apart']} frames saw parts of the scene that have not met the map: "
            f"{metrics['submaps'] - 1} of them beside it as map_2.ply, trajectory_2.txt ..."
        )
    if "held_out_depth_median_m" in metrics:
        typer.echo(_told_of_held_out(metrics))
    if "surfels_of_earlier_frames" in metrics:
        typer.echo(
            f"{metrics['surfels_of_earlier_frames']} of the surfels are of {settings.extend}, whose others were "
            f"removed, because the new frames saw through them or the two runs saw one surface twice"
        )
    if "surfels_filled" in metrics:
        typer.echo(_told_of_filling(metrics))
    if metrics.get("surfels_of_planes"):
        typer.echo(
            f"flat surfaces without texture completed from their edges: {metrics['surfels_of_planes']} surfels "
            f"(--set slam.multiview.planes=false leaves them out)"
        )
    if "scale_std" in metrics:
        typer.echo(
            f"no depth camera: tracked by {metrics['visual_keyframes']} keyframes; "
            + (
                f"all lengths are the network's guess, good to about {100 * metrics['scale_std']:.0f} % in furnished "
                f"rooms, and far worse in places that look like none "
                f"(--scale-from a known length or height does better)"
                if metrics["scale_from"] == "network"
                else f"scaled by {metrics['scale_from']}, good to about {100 * metrics['scale_std']:.0f} %"
            )
        )
    if metrics.get("poses_corrected"):
        offset = 1000 * metrics["poses_time_offset_s"]
        clocks = f"; they fit {abs(offset):.0f} ms {'later' if offset > 0 else 'earlier'}: the clocks differ"
        typer.echo(
            f"the given poses contradict the images by {metrics['poses_misfit_px']:.1f} pixels"
            + (clocks if offset else "")
            + f"; they were corrected to {metrics['poses_misfit_corrected_px']:.1f} pixels: moved by "
            f"{100 * metrics['poses_moved_m']:.1f} cm, turned by {metrics['poses_turned_deg']:.1f} degrees "
            f"(--set slam.visual.given_std=0 keeps them)"
        )
    if metrics.get("focal_std"):
        typer.echo(
            f"camera unknown: its focal length was estimated, {metrics['focal_pixels']:.0f} pixels +- "
            f"{100 * metrics['focal_std']:.0f} % ({run.sequence.camera.fov:.1f} degrees across; --fov sets it)"
        )
    for name, what in FILES.items():
        path = getattr(run.folder, name)
        if path.is_file():
            typer.echo(f"{what + ':':<12}{path}")
    typer.echo(f"look at it:  semslam view {shlex.quote(str(out))}")
    if window is not None:
        window.stay()


def _told_of_lost(lost: list[int], reason: str) -> str:
    """Which frames are not in the map, and why the last of them is not."""
    if len(lost) == 1:
        return f"frame {lost[0]} could not be tracked and is not in the map, because {reason}"
    return (
        f"{len(lost)} frames could not be tracked and are not in the map, from frame {lost[0]} to {lost[-1]}; the "
        f"last, because {reason}"
    )


def _asking_doctor(settings: RunConfig) -> str:
    """The command that looks for the cause, in the frames that were taken."""
    part = {"--start": (settings.start, 0), "--frames": (settings.frames, None), "--every": (settings.every, 1)}
    words = ["semslam", "doctor", settings.sequence]
    words += [word for flag, (n, usual) in part.items() if n != usual for word in (flag, str(n))]
    return f"`{shlex.join(words)}` looks for the cause"


def _told_of_held_out(metrics: dict[str, Any]) -> str:
    """How well the map predicts the depth of the frames that were kept to judge it by."""
    count, median = metrics["frames_held_out"], metrics["held_out_depth_median_m"]
    if not math.isfinite(median):
        return f"{count} frames held out: none of their depth is covered by the map"
    return (
        f"{count} frames held out: the map's depth is {100 * median:.2f} cm off theirs (median) and covers "
        f"{100 * metrics['held_out_coverage']:.1f} % of it"
    )


def _told_of_filling(metrics: dict[str, Any]) -> str:
    """How much of the holes was filled, and how well; or why nothing was."""
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


def live_view(run: Any, asked: bool) -> Any:
    """A window on a run; None where there is no display, and one line that says so where the window was asked for."""
    from semslam.looking.window import has_display

    if has_display():
        from semslam.looking.live import LiveView

        try:
            return LiveView(run, typer.echo)
        except RuntimeError as error:
            typer.echo(f"--show: {error}; going on without a window", err=True)
            return None
    if asked:
        typer.echo("--show: there is no display; going on without a window", err=True)
    return None
