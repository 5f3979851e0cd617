"""`semslam predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Engine, Out, Weights, app, progress


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="JPEG or PNG images.")],
    out: Out,
    weights: Weights = None,
    classes: Annotated[str, typer.Option(help="nyu13 | nyu40")] = "nyu40",
    engine: Engine = None,
) -> None:
    """Predict depth, labels (and normals) of single images."""
    from semslam.runs.networks import predictor
    from semslam.single_image.predict import predict_files

    network = predictor(classes, weights, engine)
    with progress(len(images), "images") as advance:
        for written in predict_files(images, out, network):
            for path in written:
                typer.echo(str(path))
            advance()
