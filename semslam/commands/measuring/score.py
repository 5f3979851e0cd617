"""`semslam score`: a joint network on labelled images, or a pose network on posed ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semslam.commands.app import Engine, Json, Weights, app, folder_option, only_job, progress

if TYPE_CHECKING:
    from networks.training.data import Source

# what the weights are of -> the parameters that go with it
JOBS = {
    "--recording": ("engine", "recording"),
    "joint weights": ("split", "engine", "classes", "depth_scale", "camera", "first_id"),
    "pose weights": ("split", "labels", "frames", "out"),
}


@app.command()
def score(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of color/, label40/, depth/ and split files, a list file of triples, or NYUv2's .mat; "
            "of pose weights, posed images."
        ),
    ] = None,
    recording: Annotated[
        list[str] | None,
        typer.Option(help="Instead of --data: recordings whose depth gives the scale to compare with."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data; by default val, for poses test.")] = None,
    weights: Weights = None,
    engine: Engine = None,
    classes: Annotated[str, typer.Option(help="Label set of the data: nyu40 | nyu13 | kitti6")] = "nyu40",
    depth_scale: Annotated[float, typer.Option(help="Units per metre of the depth images; 256 for KITTI.")] = 1000.0,
    camera: Annotated[
        Path | None, typer.Option(help="camera.yaml to use instead of the folder's; without any, NYUv2's.")
    ] = None,
    first_id: Annotated[
        int | None, typer.Option(help="Id of the first class in the label files, 0 or 1; detected by default.")
    ] = None,
    json: Json = None,
    labels: Annotated[str | None, typer.Option(help="Pose weights: folder of other label images.")] = None,
    frames: Annotated[str | None, typer.Option(help="Pose weights: FIRST:LAST of the frames to score.")] = None,
    out: Annotated[Path | None, folder_option("Pose weights: folder to write pictures to.")] = None,
) -> None:
    """Score a network against ground truth and print the paper's table rows.

    Weights of a pose network are scored on posed images: a recording with poses, DeepLoc, Cambridge, a list of poses.
    """
    from networks.pose.predictor import holds_pose_network
    from networks.training.data import Source
    from semslam.files.writing import write_json

    poses = weights is not None and holds_pose_network(weights)
    only_job(context, JOBS, "pose weights" if poses else "--recording" if recording else "joint weights")
    if (data is None) == (not recording):
        raise ValueError("name the images to score with --data, or recordings with --recording")
    if recording:
        figures = _score_recordings(recording, weights, engine)
    elif poses:
        assert weights is not None and data is not None
        figures = _score_poses(data, split, weights, labels, frames, out)
    else:
        source = Source(str(data), split or "val", classes=classes, depth_scale=depth_scale, first_id=first_id)
        figures = _score_joint(source, weights, engine, camera)
    if json:
        write_json(json, figures)
        typer.echo(f"figures: {json}")


def _score_recordings(recordings: list[str], weights: str | None, engine: str | None) -> dict[str, Any]:
    """Print for each recording how the scale of predicted depth fits its sensor's."""
    from networks.inference.predictor import Predictor
    from semslam.judging.network import score_scale
    from sequences import open_sequence

    network = Predictor.load(weights, engine=engine)
    found: dict[str, Any] = {}
    typer.echo("recording: median of sensor / predicted depth, pixels within 10 %")
    names = [Path(name).name for name in recordings]
    if len({*names}) < len(names):  # many recordings are called seq-01
        names = [f"{k}_{name}" for k, name in enumerate(names, 1)]
    for name, short in zip(recordings, names):
        scores = score_scale(network, open_sequence(name))
        found |= {f"{key}_{short}": value for key, value in scores.items()}
        typer.echo(f"{name}: {scores['depth_ratio']:.2f}, {scores['depth_within_10']:.0%} ({scores['images']} frames)")
    return found


def _score_joint(source: Source, weights: str | None, engine: str | None, camera: Path | None) -> dict[str, Any]:
    """Score joint weights and print the tables."""
    from networks.inference.predictor import Predictor
    from networks.training.data import open_images, recorded_camera
    from semslam.judging.network import score as score_network
    from semslam.judging.paper_tables import tables
    from sequences.images.labelled_images import NYU_CAMERA
    from sequences.recordings.folder import read_camera

    outdoors = source.classes == "kitti6"
    network = Predictor.load(weights, source.classes if outdoors else None, engine)
    images = open_images(source)
    known = recorded_camera(source.path) if camera is None else read_camera(camera)[0]
    if known is None and not outdoors:
        known = NYU_CAMERA
        typer.echo(f"{source.path}: no camera.yaml; its images are taken for NYUv2's (focal length {known.fx:.1f})")
    with progress(len(images), "images") as advance:
        figures = score_network(network, images, source.classes, known, report=lambda _: advance())
    data = f"{Path(source.path).resolve().name} ({source.split})"
    typer.echo(tables(figures, Path(weights).stem if weights else "bundled", data))
    return figures


def _score_poses(
    data: Path, split: str | None, weights: str, labels: str | None, frames: str | None, out: Path | None
) -> dict[str, Any]:
    """Score pose weights, print the table and, where a folder is given, draw the pictures."""
    from networks.pose.predictor import PosePredictor
    from networks.pose.samples import PoseSource, open_source
    from semslam.judging import pose_network as pose_scoring
    from semslam.judging import pose_pictures
    from semslam.labels import label_set
    from sequences.posed import split_to_score

    first, last = _span(frames)
    split = split or split_to_score(data)
    images = open_source(PoseSource(str(data), split=split, labels=labels, first=first, last=last))
    predictor = PosePredictor.load(weights)
    if predictor.needs_labels and images.labelled is not None:
        images = images.selected(images.labelled)
    with progress(len(images), "images") as advance:
        found = pose_scoring.score_poses(predictor, images, report=lambda _: advance())
    name = f"{predictor.metadata['network']}, {predictor.metadata['encoder']}"
    typer.echo(pose_scoring.table(found.figures, name, data.name))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if found.errors is not None:
            pose_pictures.pose_graph(out / "poses.png", found.predicted, found.truth, f"{name} on {data.name}")
            pose_pictures.cumulative_errors(out / "errors.png", {name: found.errors})
        if "segmentation" in predictor.network.tasks and predictor.metadata.get("class_set"):
            rows = pose_scoring.labelled_examples(predictor, images)
            pose_pictures.label_rows(out / "labels.png", rows, label_set(predictor.metadata["class_set"]))
        typer.echo(f"pictures: {out}")
    return found.figures


def _span(frames: str | None) -> tuple[int, int | None]:
    """First frame and the one after the last of FIRST:LAST, each of which may be left out."""
    first, colon, last = (frames or ":").partition(":")
    if not colon or not all(word == "" or word.isdecimal() for word in (first, last)):
        raise ValueError(f"--frames is {frames!r}; expected FIRST:LAST, such as 140: or 0:140")
    return int(first or 0), int(last) if last else None
