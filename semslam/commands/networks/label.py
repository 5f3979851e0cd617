"""`semslam label`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Out, app, progress


@app.command()
def label(
    data: Annotated[Path, typer.Argument(help="Folder with color/ in it.")],
    out: Out,
    weights: Annotated[str, typer.Option(help="Weights of the teacher: a joint network or a Light-Weight RefineNet.")],
    split: Annotated[str | None, typer.Option(help="Name of a split file; every image by default.")] = None,
) -> None:
    """Let a teacher write hard labels for images that lack them; a killed run goes on."""
    from networks.inference.labelling import label_folder, load_teacher

    network, size = load_teacher(weights)
    with progress(0, "images") as advance:
        written = label_folder(network, data, out, names=split, input_size=size, report=lambda _: advance())
    typer.echo(f"{written} label images written to {out}")
