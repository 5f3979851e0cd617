"""`semslam relabel`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Engine, Weights, app, folder_option, note_unfinished, progress


@app.command()
def relabel(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    weights: Weights = None,
    classes: Annotated[str, typer.Option(help="nyu13 | nyu40 | those of other --weights, such as kitti6.")] = "nyu13",
    out: Annotated[Path | None, folder_option("Folder to write to; RUN-relabelled by default.")] = None,
    engine: Engine = None,
    sequence: Annotated[str | None, typer.Option(help="Where the recording is now, if it was moved.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
) -> None:
    """Fuse another network's labels into the surfels of a run, without repeating SLAM, into a new run."""
    from semslam.runs import relabel as job

    note_unfinished(run)
    with progress(0, "frames") as advance:
        folder = job.relabel(
            run,
            out or run.resolve().with_name(run.resolve().name + "-relabelled"),
            weights=weights,
            classes=classes,
            engine=engine,
            moved_to=sequence,
            overwrite=overwrite,
            report=lambda _: advance(),
        )
    typer.echo(f"labels of {folder.load_metrics()['frames_labelled']} frames fused again: {folder.path}")
    typer.echo(f"look at it:  semslam view {shlex.quote(str(folder.path))}")
