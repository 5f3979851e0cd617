"""`semslam label`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Out, app, end_batch, progress


@app.command()
def label(
    data: Annotated[Path, typer.Argument(help="Folder with color/ in it.")],
    out: Out,
    weights: Annotated[
        list[str], typer.Option(help="Weights of the teacher: a joint network or a Light-Weight RefineNet.")
    ],
    split: Annotated[str | None, typer.Option(help="Name of a split file; every image by default.")] = None,
    classes: Annotated[str | None, typer.Option(help="Label set to use, if the teacher knows several.")] = None,
    soft: Annotated[
        bool, typer.Option("--soft", help="Write probabilities, the mean of several --weights and views, as NAME.npy.")
    ] = False,
) -> None:
    """Label images that have no labels with a teacher network; a run that was killed continues: what is there is kept.

    An image that cannot be read is reported and skipped; the exit code is then 1.
    """
    from networks.inference.labelling import check_teachers, label_folder, load_teacher, soft_label_folder

    teachers = [load_teacher(path, classes) for path in weights]
    if not soft and len(teachers) > 1:
        raise ValueError(f"{len(teachers)} teachers: only --soft labels are the mean of several")
    check_teachers(out, weights, teachers[0].label_set.name, soft)
    work = soft_label_folder(teachers, data, out, split) if soft else label_folder(teachers[0], data, out, split)
    written = failed = 0
    with progress(0, "images") as advance:
        for _, problem in work:
            if problem is None:
                written += 1
            else:
                failed += 1
                typer.echo(f"semslam: {problem}", err=True)
            advance()
    kind = "files of probabilities" if soft else "label images"
    typer.echo(f"{written} {kind} ({teachers[0].label_set.name}) written to {out}")
    end_batch(failed, written + failed)
