"""`semslam calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import Weights, app


@app.command()
def calibrate(
    images: Annotated[Path, typer.Argument(help="Folder of images like those that the network will see.")],
    weights: Weights = None,
    count: Annotated[int, typer.Option(help="Number of images to use, evenly spread over the folder.")] = 20,
) -> None:
    """Make the 8-bit copy of a network that --engine onnxruntime-int8 and openvino-int8 run."""
    from networks.inference.predictor import Predictor
    from semslam.single_image.predict import images_of

    Predictor.load(weights, engine="onnxruntime-int8", calibration=images_of(images, count))
    typer.echo("calibrated; --engine onnxruntime-int8 and openvino-int8 now work with these weights on this computer")
