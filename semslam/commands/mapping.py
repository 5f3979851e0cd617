"""Commands that make maps, and the doctor that looks at a recording first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from semslam.commands.app import Engine, Kind, Out, Weights, app, interruptible, progress


@app.command()
def reconstruct(
    sequence: Annotated[
        str, typer.Argument(help="Folder or list file of a recording, or 'room' for the built-in one.")
    ],
    out: Out,
    kind: Kind = None,
    depth: Annotated[Optional[str], typer.Option(help="sensor (default) | predicted")] = None,  # noqa: UP045
    labels: Annotated[Optional[str], typer.Option(help="predicted (default) | truth | none")] = None,  # noqa: UP045
    poses: Annotated[
        Optional[str], typer.Option(help="dataset | tracked | refined | a file; by default dataset, if it has poses.")  # noqa: UP045
    ] = None,
    classes: Annotated[Optional[str], typer.Option(help="nyu13 (default) | nyu40")] = None,  # noqa: UP045
    label_every: Annotated[Optional[int], typer.Option(help="Frames between two labelled ones.")] = None,  # noqa: UP045
    weights: Weights = None,
    engine: Engine = None,
    config: Annotated[Optional[Path], typer.Option(help="YAML with any of the settings of config.yaml.")] = None,  # noqa: UP045
    helps: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For predicted depth: all | none | noise,anchors,align,bend,edges,weights,gate,keyframes."),
    ] = None,
    hold_out: Annotated[Optional[int], typer.Option(help="Keep every so many-th frame to judge the map by.")] = None,  # noqa: UP045
    loops: Annotated[
        Optional[bool], typer.Option("--loops/--no-loops", help="Correct tracked poses where the camera comes back.")  # noqa: UP045
    ] = None,
    max_surfels: Annotated[Optional[int], typer.Option(help="Capacity of the map.")] = None,  # noqa: UP045
    mesh: Annotated[bool, typer.Option(help="Also write a labelled triangle mesh.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
) -> None:
    """Reconstruct a sequence into a labelled surfel map."""
    from semslam import main_job as job

    run = job.prepare(
        sequence,
        out,
        config=config,
        kind=kind,
        depth=depth,
        labels=labels,
        poses=poses,
        classes=classes,
        label_every=label_every,
        weights=weights,
        engine=engine,
        hold_out=hold_out,
        loops=loops,
        helps=helps,
        max_surfels=max_surfels,
        resume=resume,
    )
    with interruptible() as interrupted, progress(len(run), "frames") as advance:
        for _ in run:
            advance()
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
    typer.echo(f"look at it:  semslam view {out}")


@app.command()
def doctor(
    sequence: Annotated[str, typer.Argument(help="Folder or list file of a recording.")],
    kind: Kind = None,
) -> None:
    """Find wrong depth scale, intrinsics, pose convention, timestamps or label ids; exit code 1 if any."""
    from semslam.doctor import examine

    findings = examine(sequence, kind)
    for finding in findings:
        typer.echo(f"{finding.level}: {finding.what}; {finding.remedy}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
    if not findings:
        typer.echo("nothing wrong found")
