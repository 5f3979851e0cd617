"""`semslam reconstruct`."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from typing import Annotated, Any

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
from semslam.commands.mapping.summary import summary

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
    from semslam.runs.config import settings_of
    from semslam.runs.reconstruct import finish, prepare

    began = time.perf_counter()
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
        try:
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
        except KeyboardInterrupt:
            typer.echo("interrupted before the first frame was fused: there is no new map to keep", err=True)
            raise typer.Exit(130) from None
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
    seconds = time.perf_counter() - began
    for sentence in summary(metrics, settings, run.sequence.camera, run.progress.reason, live, seconds):
        typer.echo(sentence)
    for name, what in FILES.items():
        path = getattr(run.folder, name)
        if path.is_file():
            typer.echo(f"{what + ':':<12}{path}")
    typer.echo(f"look at it:  semslam view {shlex.quote(str(out))}")
    if window is not None:
        window.stay()


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
