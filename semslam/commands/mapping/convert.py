"""`semslam convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import (
    CONVENTION,
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
    progress,
)


@app.command()
def convert(
    sequence: Annotated[str, typer.Argument(help="A recording of any kind.")],
    out: Annotated[Path, typer.Argument(help="Where to write: a folder, or NAME.klg.")],
    to: Annotated[str | None, typer.Option(help="folder | tum | open3d | klg; by default, told from OUT.")] = None,
    kind: Kind = None,
    camera: CameraFile = None,
    depth_scale: DepthScale = None,
    registered: Registered = None,
    fov: Fov = None,
    start: Start = 0,
    frames: FrameCount = None,
    every: Every = 1,
    pose_rate: PoseRate = None,
    pose_indices: PoseIndices = None,
    pose_convention: Annotated[str | None, typer.Option(help=CONVENTION)] = None,
) -> None:
    """Write a recording as a plain folder, TUM RGB-D, Open3D's folder or ElasticFusion's log."""
    from semslam.doctor.poses.convention import AS_RECORDED, in_convention, judged, tell
    from sequences import open_sequence
    from sequences.conversion import convert as convert_sequence
    from sequences.pose_pairing import PoseHints
    from sequences.selected import selected

    recording = open_sequence(
        sequence,
        kind,
        camera=camera,
        depth_scale=depth_scale,
        registered=registered,
        fov=fov,
        hints=PoseHints.given(pose_rate, pose_indices),
    )
    part = selected(recording, start, frames, every)
    convention = pose_convention or judged(part).convention
    if pose_convention is None and convention != AS_RECORDED:
        tell(sequence, convention, f"--pose-convention {AS_RECORDED}")
    part = in_convention(part, convention)
    with progress(len(part), "frames") as advance:
        written, skipped = convert_sequence(part, out, to, advance)
    typer.echo(f"{written} frames written to {out}" + (f", {skipped} that cannot be read left out" if skipped else ""))
