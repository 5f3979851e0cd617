"""Commands that make maps, and the doctor that looks at a recording first."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from semslam.commands.app import CameraFile, DepthScale, Engine, Kind, Out, Weights, app, interruptible, progress


@app.command()
def reconstruct(
    sequence: Annotated[
        str, typer.Argument(help="Folder or list file of a recording, or 'room' for the built-in one.")
    ],
    out: Out,
    kind: Kind = None,
    camera: CameraFile = None,
    depth_scale: DepthScale = None,
    depth: Annotated[str | None, typer.Option(help="sensor (default) | predicted")] = None,
    labels: Annotated[str | None, typer.Option(help="predicted (default) | truth | none")] = None,
    poses: Annotated[
        str | None,
        typer.Option(help="dataset (default, if there) | tracked | refined | predicted | predicted-refined | a file."),
    ] = None,
    pose_weights: Annotated[
        str | None,
        typer.Option(help="Weights of a pose network: for predicted poses, or to find a tracked camera that is lost."),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="nyu13 (default) | nyu40")] = None,
    label_every: Annotated[int | None, typer.Option(help="Frames between two labelled ones.")] = None,
    weights: Weights = None,
    engine: Engine = None,
    config: Annotated[Path | None, typer.Option(help="YAML with any of the settings of config.yaml.")] = None,
    helps: Annotated[
        str | None,
        typer.Option(help="For predicted depth: all | none | noise,anchors,align,bend,edges,weights,gate,keyframes."),
    ] = None,
    hold_out: Annotated[int | None, typer.Option(help="Keep every so many-th frame to judge the map by.")] = None,
    loops: Annotated[
        bool | None, typer.Option("--loops/--no-loops", help="Correct tracked poses where the camera comes back.")
    ] = None,
    max_surfels: Annotated[int | None, typer.Option(help="Capacity of the map.")] = None,
    mesh: Annotated[bool, typer.Option(help="Also write a labelled triangle mesh.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run with other settings, or an unfinished one, in --out.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Look at the map in a window while it grows.")] = False,
) -> None:
    """Reconstruct a sequence into a labelled surfel map."""
    from semslam.runs import reconstruct as job

    run = job.prepare(
        sequence,
        out,
        config=config,
        kind=kind,
        camera=camera,
        depth_scale=depth_scale,
        depth=depth,
        labels=labels,
        poses=poses,
        pose_weights=pose_weights,
        classes=classes,
        label_every=label_every,
        weights=weights,
        engine=engine,
        hold_out=hold_out,
        loops=loops,
        helps=helps,
        max_surfels=max_surfels,
        resume=resume,
        overwrite=overwrite,
    )
    live = live_view(run) if show else None
    with interruptible() as interrupted, progress(len(run), "frames") as advance:
        for _ in run:
            advance()
            if live is not None:
                live()
            if interrupted():
                break
    if len(run):
        run.save()
        typer.echo(f"stopped with {len(run)} frames to go; `semslam reconstruct ... --resume` goes on from here: {out}")
        raise typer.Exit(130)
    metrics = job.finish(run, mesh=mesh)
    typer.echo(
        f"{metrics['frames_fused']} of {metrics['frames']} frames fused, {metrics['frames_per_second']:.1f} frames/s, "
        f"{metrics['surfels']} surfels"
    )
    for name, what in (
        ("preview", "picture"),
        ("map", "surfels"),
        ("mesh", "mesh"),
        ("trajectory", "trajectory"),
        ("metrics", "figures"),
    ):
        path = getattr(run.folder, name)
        if path.is_file():
            typer.echo(f"{what + ':':<12}{path}")
    typer.echo(f"look at it:  semslam view {shlex.quote(str(out))}")
    if live is not None:
        live.stay()


def live_view(run: Any) -> Any:
    """A window on a run; None, and one line that says so, where there is no display."""
    from semslam.looking.window import has_display

    if has_display():
        from semslam.looking.live import LiveView

        try:
            return LiveView(run, typer.echo)
        except RuntimeError as error:
            typer.echo(f"--show: {error}; going on without a window", err=True)
            return None
    typer.echo("--show: there is no display; going on without a window", err=True)
    return None


@app.command()
def relabel(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    weights: Weights = None,
    classes: Annotated[str, typer.Option(help="nyu13 | nyu40")] = "nyu13",
    out: Annotated[Path | None, typer.Option(help="Folder to write to; RUN-relabelled by default.")] = None,
    engine: Engine = None,
) -> None:
    """Fuse another network's labels into the surfels of a run, without running SLAM again."""
    from semslam.runs import relabel as job

    with progress(0, "frames") as advance:
        folder = job.relabel(
            run,
            out or run.resolve().with_name(run.resolve().name + "-relabelled"),
            weights=weights,
            classes=classes,
            engine=engine,
            report=lambda _: advance(),
        )
    typer.echo(f"labels of {folder.load_metrics()['frames_labelled']} frames fused again: {folder.path}")
    typer.echo(f"look at it:  semslam view {folder.path}")


@app.command()
def refine(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; RUN-refined by default.")] = None,
    iterations: Annotated[int, typer.Option(help="Mean-field iterations.")] = 10,
    neighbours: Annotated[int, typer.Option(help="Surfels that each surfel listens to.")] = 16,
) -> None:
    """Smooth a run's classes by a conditional random field over its surfels; a run of its own comes out."""
    from semslam.engine.surfel_crf import CrfConfig
    from semslam.runs import refine as job

    crf = CrfConfig(iterations=iterations, neighbours=neighbours)
    folder = job.refine(run, out or run.resolve().with_name(run.resolve().name + "-refined"), crf)
    metrics = folder.load_metrics()
    typer.echo(
        f"{100 * metrics['refine_changed']:.1f} % of the labels changed, {metrics['refine_filled']} surfels got one, "
        f"{metrics['refine_seconds']:.1f} s: {folder.path}"
    )
    typer.echo(f"gain or loss:  semslam evaluate {run} {folder.path}")


@app.command()
def doctor(
    sequence: Annotated[str, typer.Argument(help="Folder or list file of a recording.")],
    kind: Kind = None,
    camera: CameraFile = None,
    depth_scale: DepthScale = None,
) -> None:
    """Find wrong depth scale, intrinsics, pose convention, timestamps or label ids; exit code 1 if any."""
    from semslam.doctor.doctor import examine

    findings = examine(sequence, kind, camera=camera, depth_scale=depth_scale)
    for finding in findings:
        typer.echo(f"{finding.level}: {finding.what}; {finding.remedy}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
    if not findings:
        typer.echo("nothing wrong found")
