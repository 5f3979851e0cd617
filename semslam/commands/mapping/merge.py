"""`semslam merge`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Out, app, busy, note_unfinished


@app.command()
def merge(
    run_a: Annotated[Path, typer.Argument(help="Folder of a finished run: its world is kept.")],
    run_b: Annotated[Path, typer.Argument(help="Folder of another finished run, which shows part of the same.")],
    out: Out,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
) -> None:
    """Join the maps of two finished runs where they show the same places, into a new run."""
    from semslam.runs.finished import merge as job

    for run in (run_a, run_b):
        note_unfinished(run)
    with busy(f"joining {run_a} and {run_b}"):
        folder = job.merge(run_a, run_b, out, overwrite)
    figures = folder.load_metrics()
    typer.echo(
        f"joined at {figures['merged_views']} views: {figures['surfels']} surfels, {figures['merged_doubled']} of the "
        f"second map were in the first: {folder.path}"
    )
    typer.echo(f"look at it:  semslam view {shlex.quote(str(folder.path))}")
