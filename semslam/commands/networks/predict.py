"""`semslam predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Engine, Out, Weights, app, end_batch, progress


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="JPEG or PNG images, or folders of them.")],
    out: Out,
    weights: Weights = None,
    classes: Annotated[str, typer.Option(help="nyu13 | nyu40 | those of other --weights, such as kitti6.")] = "nyu40",
    engine: Engine = None,
) -> None:
    """Predict depth, labels (and normals) of single images, turned upright; skips unreadable ones (exit code 1)."""
    from semslam.runs.networks import predictor
    from semslam.single_image.predict import image_files, predict_files

    files = image_files(images)
    network = predictor(classes, weights, engine)
    failed = 0
    with progress(len(files), "images") as advance:
        for predicted in predict_files(files, out, network):
            for path in predicted.files:
                typer.echo(str(path))
            if predicted.problem is not None:
                failed += 1
                typer.echo(f"semslam: {predicted.problem}", err=True)
            advance()
    end_batch(failed, len(files))
