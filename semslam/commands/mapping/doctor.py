"""`semslam doctor`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer

from semslam.commands.app import (
    CameraFile,
    DepthScale,
    Every,
    Fov,
    FrameCount,
    Kind,
    PoseIndices,
    PoseRate,
    Registered,
    Start,
    app,
    busy,
)


@app.command()
def doctor(
    sequence: Annotated[str, typer.Argument(help="Folder or list file of a recording.")],
    kind: Kind = None,
    camera: CameraFile = None,
    depth_scale: DepthScale = None,
    registered: Registered = None,
    fov: Fov = None,
    pose_rate: PoseRate = None,
    pose_indices: PoseIndices = None,
    start: Start = 0,
    frames: FrameCount = None,
    every: Every = 1,
) -> None:
    """Find what is wrong with a recording's depth, camera, poses, times or labels; exit code 1 if anything is."""
    from semslam.doctor.doctor import Diagnosis, diagnosis, unopened
    from semslam.doctor.noise import depth_noise
    from sequences import open_sequence
    from sequences.pose_pairing import PoseHints
    from sequences.selected import selected

    options: dict[str, Any] = {"camera": camera, "depth_scale": depth_scale, "registered": registered, "fov": fov}
    options["hints"] = PoseHints.given(pose_rate, pose_indices)
    with busy(f"looking at {sequence}"):
        try:
            recording = selected(open_sequence(sequence, kind, **options), start, frames, every)
        except ValueError as problem:
            found, noise = Diagnosis([unopened(problem)], None, ()), ""
        else:
            found, noise = diagnosis(recording), ""
            with suppress(ValueError):  # of frames that cannot be tracked
                noise = depth_noise(recording)
    for finding in found.findings:
        typer.echo(f"{finding.level}: {finding.what}; {finding.remedy}")
    if found.lengths:
        typer.echo(str(found.lengths))
    if noise:
        typer.echo(noise)
    for question in found.not_judged:
        typer.echo(f"not judged: {question}")
    if any(finding.level == "error" for finding in found.findings):
        raise typer.Exit(1)
    if not found.findings:
        typer.echo("nothing wrong found in what could be judged" if found.not_judged else "nothing wrong found")
