"""`semslam export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Out, app, note_unfinished


@app.command()
def export(run: Annotated[Path, typer.Argument(help="Folder of a run.")], out: Out) -> None:
    """Write a run's map for other programs: PLY, PCD, OBJ, GLB, trajectories, class clouds, objects, a floor plan."""
    from semslam.runs.export import export_run

    note_unfinished(run)
    written = set()
    for what, path in export_run(run, out):
        typer.echo(f"{what + ':':<17}{path}")
        written.add(what)
    if "world origin" in written:
        typer.echo("the world is far from 0: the coordinates in .pcd, .obj and .glb files are relative to this origin")
    if "mesh" not in written:
        typer.echo(
            "no mesh: the run was interrupted (--resume goes on), had --no-mesh, was merged from one without, or saw "
            "too little"
        )
