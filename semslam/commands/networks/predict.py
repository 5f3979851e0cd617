"""`semslam predict`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from semslam.camera import Camera
from semslam.commands.app import Engine, Out, Weights, app, end_batch, progress


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="JPEG or PNG images, or folders of them.")],
    out: Out,
    weights: Weights = None,
    classes: Annotated[str, typer.Option(help="nyu13 | nyu40 | those of other --weights, such as kitti6.")] = "nyu40",
    engine: Engine = None,
    fov: Annotated[
        float | None, typer.Option(help="Horizontal field of view of the images, degrees, by which depth is scaled.")
    ] = None,
) -> None:
    """Predict depth, labels (and normals) of single images, turned upright; skips unreadable ones (exit code 1)."""
    from semslam.runs.networks import predictor
    from semslam.single_image.predict import image_files, predict_files

    if fov is not None:
        Camera.of_fov(1, 1, fov)  # refuses what is none
    files = image_files(images)
    network = predictor(classes, weights, engine)
    failed, lenses = 0, Counter[str]()
    with progress(len(files), "images") as advance:
        for predicted in predict_files(files, out, network, fov):
            for path in predicted.files:
                typer.echo(str(path))
            if predicted.problem is not None:
                failed += 1
                typer.echo(f"semslam: {predicted.problem}", err=True)
            if predicted.lens is not None:
                lenses[predicted.lens] += 1
            advance()
    for lens, count in lenses.items():
        typer.echo(f"focal length of {count} image{'s' * (count > 1)}: from {lens}", err=True)
    end_batch(failed, len(files))
