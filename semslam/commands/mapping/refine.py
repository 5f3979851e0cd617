"""`semslam refine`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import app, busy, folder_option, note_unfinished


@app.command()
def refine(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path | None, folder_option("Folder to write to; RUN-refined by default.")] = None,
    iterations: Annotated[int, typer.Option(help="Mean-field iterations.")] = 10,
    neighbours: Annotated[int, typer.Option(help="Neighbours of each surfel.")] = 16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
) -> None:
    """Smooth the classes of a run by a conditional random field over its surfels, into a new run."""
    from semslam.engine.labels.surfel_crf import CrfConfig
    from semslam.runs import refine as job

    note_unfinished(run)
    crf = CrfConfig(iterations=iterations, neighbours=neighbours)
    with busy(f"smoothing the labels of {run}"):
        folder = job.refine(run, out or run.resolve().with_name(run.resolve().name + "-refined"), crf, overwrite)
    metrics = folder.load_metrics()
    typer.echo(
        f"{100 * metrics['refine_changed']:.1f} % of the labels changed, {metrics['refine_filled']} surfels got one, "
        f"{metrics['refine_seconds']:.1f} s: {folder.path}"
    )
    typer.echo(f"gain or loss:  {shlex.join(['semslam', 'evaluate', str(run), str(folder.path)])}")
