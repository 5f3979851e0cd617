"""`semslam calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Weights, app

FEW = 10  # images; with fewer the ranges of activations are a matter of chance


@app.command()
def calibrate(
    images: Annotated[Path, typer.Argument(help="Folder of images like those that the network will see.")],
    weights: Weights = None,
    count: Annotated[int, typer.Option(help="Number of images to use, evenly spread over the folder.")] = 20,
) -> None:
    """Make the 8-bit copy of a network that --engine onnxruntime-int8 and openvino-int8 run."""
    from networks.inference.export import cache_folder
    from networks.inference.predictor import Predictor
    from semslam.single_image.predict import images_of

    chosen = images_of(images, count)
    if len(chosen) < FEW:
        typer.echo(f"{images}: {len(chosen)} images are few to calibrate with; {FEW} or more are better", err=True)
    Predictor.load(weights, engine="onnxruntime-int8", calibration=chosen)
    typer.echo(
        f"calibrated with {len(chosen)} images, kept in {cache_folder()}; --engine onnxruntime-int8 and openvino-int8 "
        f"now work with these weights on this computer"
    )
