"""`semslam convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import CameraFile, DepthScale, Every, Fov, FrameCount, Kind, Start, app, progress


@app.command()
def convert(
    sequence: Annotated[str, typer.Argument(help="A recording of any kind.")],
    out: Annotated[Path, typer.Argument(help="Where to write: a folder, or NAME.klg.")],
    to: Annotated[str | None, typer.Option(help="folder | tum | open3d | klg; by default, told from OUT.")] = None,
    kind: Kind = None,
    camera: CameraFile = None,
    depth_scale: DepthScale = None,
    fov: Fov = None,
    start: Start = 0,
    frames: FrameCount = None,
    every: Every = 1,
) -> None:
    """Write a recording as a plain folder, TUM RGB-D, Open3D's folder or ElasticFusion's log."""
    from semslam.doctor.pose_convention import as_meant
    from sequences import open_sequence
    from sequences.conversion import convert as convert_sequence
    from sequences.selected import selected

    recording = open_sequence(sequence, kind, camera=camera, depth_scale=depth_scale, fov=fov)
    part = as_meant(selected(recording, start, frames, every), sequence)
    with progress(len(part), "frames") as advance:
        written, skipped = convert_sequence(part, out, to, advance)
    typer.echo(f"{written} frames written to {out}" + (f", {skipped} that cannot be read left out" if skipped else ""))
