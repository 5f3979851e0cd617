"""`semslam attend`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import app, check_picture, file_option


@app.command()
def attend(
    image: Annotated[Path, typer.Argument(help="JPEG or PNG image.")],
    out: Annotated[Path, file_option("--out", "Picture to write (.png, .jpg, .pdf, .svg).", check_picture)],
    weights: Annotated[
        str | None, typer.Option(help="Weights of a joint or a pose network; bundled ones by default.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="class | class:NAME | depth:U,V | pose | pose:X,Y,Z (the true position).")
    ] = None,
    layers: Annotated[str, typer.Option(help="Layers of the encoder, 1 (fine) to 4 (coarse).")] = "1,2,3,4",
    classes: Annotated[
        str | None, typer.Option(help="Label set to use, if the weights know several: kitti6, for example.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Label image, for networks that read one.")] = None,
    variant: Annotated[
        str, typer.Option(help="paper | inside (a common implementation: the cube in the sum) | grad-cam (no ++)")
    ] = "paper",
) -> None:
    """Show where a network looks, by Grad-CAM++: heat maps of an image for a class, a pixel's depth or the pose."""
    from networks.inference.attention import VARIANTS, Attention
    from semslam.images import read_color
    from semslam.single_image import attend as job

    if variant not in VARIANTS:
        raise ValueError(f"--variant is {variant!r}; known are {', '.join(VARIANTS)}")
    if not all(layer.strip().isdecimal() for layer in layers.split(",")):
        raise ValueError(f"--layers is {layers!r}; expected numbers with commas, 1,4 for example")
    asked = job.parse_target(target) if target else None
    color = read_color(image, upright=True)
    network = Attention.load(weights, classes)
    named = job.read_labels(labels, network.label_set) if labels else None
    numbers = [int(layer) for layer in layers.split(",")]
    job.attend(network, color, out, asked, numbers, named, weighting=VARIANTS[variant])
    typer.echo(f"figure: {out}")
