"""`semslam doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from semslam.commands.app import CameraFile, DepthScale, Every, Fov, FrameCount, Kind, Start, app


@app.command()
def doctor(
    sequence: Annotated[str, typer.Argument(help="Folder or list file of a recording.")],
    kind: Kind = None,
    camera: CameraFile = None,
    depth_scale: DepthScale = None,
    fov: Fov = None,
    start: Start = 0,
    frames: FrameCount = None,
    every: Every = 1,
) -> None:
    """Find wrong depth scale, intrinsics, pose convention, timestamps or label ids; exit code 1 if any."""
    from semslam.doctor.doctor import examine

    findings = examine(sequence, kind, start, frames, every, camera=camera, depth_scale=depth_scale, fov=fov)
    for finding in findings:
        typer.echo(f"{finding.level}: {finding.what}; {finding.remedy}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
    if not findings:
        typer.echo("nothing wrong found")
