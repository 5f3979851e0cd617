"""`semslam reconstruct`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from semslam.commands.app import FLAGS, Out, SettingsFile, app, busy, chosen_settings, interruptible, progress
from semslam.commands.mapping import run_options as options
from semslam.commands.mapping.live import RECORDING, live_camera
from semslam.commands.mapping.summary import summary

if TYPE_CHECKING:
    from semslam.looking.live import LiveView
    from semslam.runs.config import RunConfig
    from semslam.runs.run import Run
    from sequences.live.live import LiveSequence

SEQUENCE = "Folder or list file of a recording, or 'room' for the built-in one."
LIVE = "Map what a camera sees now: SEQUENCE is webcam[:N] (default; needs --fov or --camera) or realsense[:N]."
SET = "Any setting: slam.fusion.gate=0.02; `semslam config --explain` lists all."
OVERWRITE = "Replace a run with other settings, or an unfinished one, in --out."
CHECKPOINT = "Seconds of work that a crash may lose; 0 = all. [default: 30, or what costs 2 % of the run]"
FILES = {"preview": "picture", "map": "surfels", "mesh": "mesh", "trajectory": "trajectory", "metrics": "figures"}


@app.command()
def reconstruct(
    context: typer.Context,
    out: Out,
    sequence: Annotated[str | None, typer.Argument(help=SEQUENCE)] = None,
    live: Annotated[bool, typer.Option("--live", help=LIVE)] = False,
    kind: options.Kind = None,
    camera: options.CameraFile = None,
    depth_scale: options.DepthScale = None,
    registered: options.Registered = None,
    sensor: options.Sensor = None,
    fov: options.Fov = None,
    start: options.Start = None,
    frames: options.FrameCount = None,
    every: options.Every = None,
    depth: options.Depth = None,
    labels: options.Labels = None,
    fill: options.Fill = None,
    poses: options.Poses = None,
    pose_rate: options.PoseRate = None,
    pose_indices: options.PoseIndices = None,
    pose_convention: options.PoseConvention = None,
    extend: options.Extend = None,
    pose_weights: options.PoseWeights = None,
    scale_from: options.ScaleFrom = None,
    classes: options.Classes = None,
    label_every: options.LabelEvery = None,
    weights: options.Weights = None,
    engine: options.Engine = None,
    corrections: options.Corrections = None,
    hold_out: options.HoldOut = None,
    loops: options.Loops = None,
    max_surfels: options.MaxSurfels = None,
    memory: options.Memory = None,
    config: SettingsFile = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help=SET)] = None,
    mesh: Annotated[bool, typer.Option(help="Also write a labelled triangle mesh.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    checkpoint: Annotated[float | None, typer.Option(min=0, help=CHECKPOINT)] = None,
    show: Annotated[bool, typer.Option("--show", help="Look at the map in a window while it grows.")] = False,
) -> None:
    """Reconstruct a sequence into a labelled surfel map."""
    began = time.perf_counter()
    chosen = chosen_settings(context)
    if sequence is None and not live:
        raise ValueError("SEQUENCE is missing: give the folder of a recording, or --live for a camera")
    if live and resume:
        raise ValueError(f"--resume cannot turn time back; run `semslam reconstruct {out / RECORDING}` instead")
    with ExitStack() as at_end:
        recorder, interrupted = None, None
        if live:
            interrupted = at_end.enter_context(interruptible())
            recorder, chosen = live_camera(sequence or "webcam", out, chosen, interrupted)
            at_end.callback(recorder.end)
            typer.echo(f"mapping what {recorder.name} sees; move it slowly, Ctrl-C ends", err=True)
        else:
            chosen |= {"sequence": sequence}
        settings = _settings(chosen, config, set_ or [])
        run = _prepared(settings, out, recorder, resume, overwrite, checkpoint)
        interrupted = interrupted or at_end.enter_context(interruptible())
        window = _live_view(run, asked=show) if show or live else None
        _fuse(run, window, None if live else interrupted)  # a camera ends by itself
        if recorder is not None:
            _end_recording(recorder)
            if not len(recorder):
                typer.echo("interrupted before the first frame was recorded: there is no map to keep", err=True)
                raise typer.Exit(130)
        run.save()  # still deaf to Ctrl-C: impatience must not cost the run
    if len(run):
        typer.echo(
            f"stopped with {len(run)} frames to go; the same command with {_again(overwrite)} goes on from here: {out}"
        )
        if run.folder.path != run.folder.final:
            typer.echo(f"until it is whole, {out} shows the run that it replaces")
        raise typer.Exit(130)
    if not live and interrupted():  # while the last frame was fused, or what is done was saved
        _end_before_the_last_files(None, out, _again(overwrite))
    metrics = _finished(run, mesh, recorder, out, _again(overwrite))
    seconds = time.perf_counter() - began
    for sentence in summary(metrics, settings, run.sequence.camera, run.progress.reason, live, seconds):
        typer.echo(sentence)
    _list_files(run, out)
    if window is not None:
        window.stay()


def _settings(chosen: dict[str, Any], file: Path | None, assignments: list[str]) -> RunConfig:
    """The settings of the run: of a file, changed by options (chosen, by dotted names), changed by --set.

    ValueError for an option that is empty or does not go with the others.
    """
    from semslam.depth.corrections import CorrectionsConfig
    from semslam.runs.config import settings_of

    if empty := [name for name, value in chosen.items() if value == ""]:  # a variable of the shell that is not set
        flag = "SEQUENCE" if empty[0] == "sequence" else FLAGS[empty[0]]
        raise ValueError(f"{flag} is empty; give it a value, or leave it out")
    if names := chosen.get("slam.corrections"):
        chosen = chosen | {"slam.corrections": CorrectionsConfig.named(names)}
    settings = settings_of(file, chosen, assignments)
    if names and settings.slam.perception.depth != "predicted":
        raise ValueError("--corrections is for --depth predicted; leave it out")
    return settings


def _prepared(
    settings: RunConfig,
    out: Path,
    recorder: LiveSequence | None,
    resume: bool,
    overwrite: bool,
    checkpoint: float | None,
) -> Run:
    """The run, ready to iterate, of a recorder where a camera films; the others are options of `prepare`."""
    from semslam.runs.reconstruct import prepare

    if recorder is not None:
        checkpoint = 0.0  # what it was made of is on the disk already
    try:
        with progress(0, "frames tracked") as advance:
            return prepare(
                settings,
                out,
                sequence=recorder,
                resume=resume,
                overwrite=overwrite,
                checkpoint=checkpoint,
                report=advance,
            )
    except KeyboardInterrupt:
        typer.echo("interrupted before the first frame was fused: there is no new map to keep", err=True)
        raise typer.Exit(130) from None


def _fuse(run: Run, window: LiveView | None, interrupted: Callable[[], bool] | None) -> None:
    """Step through the frames until the last one, or until `interrupted` says so; None: it is not asked."""
    with progress(len(run) if interrupted else 0, "frames") as advance:
        for _ in run:
            advance()
            if window is not None:
                window()
            if interrupted is not None and interrupted():
                typer.echo("saving what is done ...", err=True)
                break


def _end_recording(recorder: LiveSequence) -> None:
    recorder.end()
    typer.echo(f"{len(recorder)} frames recorded in {recorder.path}; {recorder.dropped} of the camera's dropped")


def _finished(run: Run, mesh: bool, recorder: LiveSequence | None, out: Path, again: str) -> dict[str, Any]:
    """The metrics of a run whose frames are all fused, after its last files are written; again: see `_again`."""
    from semslam.runs.finished.finish import finish

    try:
        with busy("writing map, mesh and pictures"):
            return finish(run, mesh=mesh)
    except KeyboardInterrupt:
        _end_before_the_last_files(recorder, out, again)


def _again(overwrite: bool) -> str:
    """The option with which the command of a run that was interrupted ends it."""
    return "--resume in place of --overwrite" if overwrite else "--resume"


def _end_before_the_last_files(recorder: LiveSequence | None, out: Path, again: str) -> NoReturn:
    ends = f"`semslam reconstruct {recorder.path}` maps them anew" if recorder is not None else f"{again} ends it"
    typer.echo(f"interrupted; all frames are fused and saved, the last files are not written; {ends}: {out}")
    raise typer.Exit(130) from None


def _list_files(run: Run, out: Path) -> None:
    for name, what in FILES.items():
        path = getattr(run.folder, name)
        if path.is_file():
            typer.echo(f"{what + ':':<12}{path}")
    typer.echo(f"look at it:  semslam view {shlex.quote(str(out))}")


def _live_view(run: Run, asked: bool) -> LiveView | None:
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
