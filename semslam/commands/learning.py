"""Commands that train networks and use them on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    from semslam.runs.reconstruct import predictor
    from semslam.single_image.predict import predict_files

    network = predictor(classes, weights, engine)
    with progress(len(images), "images") as advance:
        for written in predict_files(images, out, network):
            for path in written:
                typer.echo(str(path))
            advance()


@app.command()
def attend(
    image: Annotated[Path, typer.Argument(help="JPEG or PNG image.")],
    out: Annotated[Path, typer.Option("--out", help="PNG to write.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights of a joint or a pose network; bundled ones by default.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="class | class:NAME | depth:U,V | pose | pose:X,Y,Z (the true position).")
    ] = None,
    layers: Annotated[str, typer.Option(help="Layers of the encoder, 1 (fine) to 4 (coarse).")] = "1,2,3,4",
    labels: Annotated[Path | None, typer.Option(help="Label image, for networks that read one.")] = None,
    variant: Annotated[
        str, typer.Option(help="paper | inside (a common implementation: the cube in the sum) | grad-cam (no ++)")
    ] = "paper",
) -> None:
    """Show where a network looks: Grad-CAM++ heat maps of an image, for a class, a pixel's depth or the pose."""
    from networks.inference.attention import VARIANTS, Attention
    from semslam.single_image import attend as job
    from semslam.single_image.predict import read_image

    if variant not in VARIANTS:
        raise ValueError(f"--variant is {variant!r}; known are {', '.join(VARIANTS)}")
    if not all(layer.strip().isdigit() for layer in layers.split(",")):
        raise ValueError(f"--layers is {layers!r}; expected numbers with commas, 1,4 for example")
    asked = job.parse_target(target) if target else None
    color = read_image(image)
    network = Attention.load(weights)
    named = job.read_labels(labels, network.label_set) if labels else None
    numbers = [int(layer) for layer in layers.split(",")]
    job.attend(network, color, out, asked, numbers, named, weighting=VARIANTS[variant])
    typer.echo(f"figure: {out}")


@app.command()
def calibrate(
    images: Annotated[Path, typer.Argument(help="Folder of images of the kind that the network will see.")],
    weights: Weights = None,
    count: Annotated[int, typer.Option(help="Images that are used, evenly spread over the folder.")] = 20,
) -> None:
    """Make the 8-bit copy of a network that --engine onnxruntime-int8 and openvino-int8 run."""
    from networks.inference.predictor import Predictor
    from semslam.single_image.predict import images_of

    Predictor.load(weights, engine="onnxruntime-int8", calibration=images_of(images, count))
    typer.echo("calibrated; --engine onnxruntime-int8 and openvino-int8 now work with these weights on this computer")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML of a training; see configs/.")],
) -> None:
    """Train a network; a killed training goes on where it stopped.

    A `kind: pose` in the file trains a pose network (see configs/pose_*.yaml); without it, a joint network.
    """
    from networks.training import joint as training_joint
    from networks.training import pose as training_pose
    from semslam import config as configs

    kinds: dict[str, tuple[Any, Any]] = {
        "joint": (training_joint.JointTraining, training_joint.train),
        "pose": (training_pose.PoseTraining, training_pose.train),
    }
    values = configs.read(config)
    kind = values.pop("kind", "joint") if isinstance(values, dict) else "joint"
    if kind not in kinds:
        raise ValueError(f"{config}: kind is {kind!r}; known are {', '.join(kinds)}")
    form, run = kinds[kind]
    settings = configs.from_dict(values, form, str(config))
    figures = run(settings, report=lambda row: typer.echo(" ".join(f"{key}={value:.4g}" for key, value in row.items())))
    typer.echo(" ".join(f"{key}={value:.4g}" for key, value in figures.items()))
    typer.echo(f"weights: {settings.out}/network.safetensors")


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
