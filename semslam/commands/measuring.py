"""Commands that measure maps, trajectories and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semslam.commands.app import Engine, Weights, app, progress


@app.command()
def evaluate(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of runs; several are pooled as well.")] = None,
    truth: Annotated[
        str,
        typer.Option(help="Surface to compare with: auto | mesh | depth (noise-free) | tsdf | a mesh or cloud."),
    ] = "auto",
    map: Annotated[Path | None, typer.Option(help="Mesh or cloud of another system, instead of a run.")] = None,
    trajectory: Annotated[Path | None, typer.Option(help="Trajectory of another system, instead of a run.")] = None,
    reference: Annotated[Path | None, typer.Option(help="What --map or --trajectory is compared with.")] = None,
    sequence: Annotated[str | None, typer.Option(help="With --map: count only what its views could see.")] = None,
    with_scale: Annotated[
        bool, typer.Option("--with-scale", help="Align trajectories by Sim(3): monocular systems.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
) -> None:
    """Evaluate runs, or another system's map or trajectory, against the truth."""
    from semslam.judging import run as job
    from semslam.judging.figures import table
    from semslam.judging.plots import plot_errors, plot_trajectory
    from semslam.runs.folder import TRAJECTORY_PLOTS, RunFolder, write_json

    if map is not None and trajectory is not None:
        raise ValueError("--map and --trajectory each have a --reference of their own; judge one at a time")
    if runs and (reference is not None or sequence is not None):
        raise ValueError(
            "--reference and --sequence go with --map or --trajectory; a run's surface is named by --truth"
        )
    if not runs:
        for option, given, goes_with in (
            ("--truth", truth != "auto", "runs"),
            ("--with-scale", with_scale and map is not None, "runs and --trajectory"),
            ("--sequence", sequence is not None and trajectory is not None, "--map"),
        ):
            if given:
                raise ValueError(f"{option} is for {goes_with}; leave it out")
    if map is not None or trajectory is not None:
        if reference is None or runs:
            raise ValueError("--map and --trajectory each need --reference FILE, and no run")
        figures: dict[str, Any] = {}
        if trajectory is not None:
            figures |= job.evaluate_trajectory(trajectory, reference, with_scale).figures
        else:
            from sequences import open_sequence

            assert map is not None
            figures |= job.evaluate_map(map, reference, open_sequence(sequence) if sequence else None).figures
        typer.echo(table(figures))
    elif not runs:
        raise ValueError("name the folder of a run, or --map or --trajectory with --reference")
    else:
        evaluations = {}
        for run in runs:
            evaluations[str(run)] = evaluation = job.evaluate_run(run, truth, with_scale=with_scale)
            folder = RunFolder.open(run)
            metrics = folder.load_metrics()
            if "frames" not in metrics:
                typer.echo(f"{run}: an unfinished run; the figures are of the part that is done", err=True)
            folder.save_metrics(metrics | evaluation.figures)
            if evaluation.errors is not None:
                folder.save_errors(evaluation.errors)  # for `semslam view --color-by error`
            if evaluation.trajectory is not None and evaluation.paths is not None:
                for name, plot in zip(TRAJECTORY_PLOTS, (plot_trajectory, plot_errors), strict=True):
                    plot(run / name, *evaluation.paths, with_scale)
            typer.echo(f"{run}\n{table(evaluation.figures)}")
        figures = evaluation.figures
        if len(runs) > 1:
            figures = job.over_scenes(evaluations)
            typer.echo(f"{len(runs)} runs, means of scenes and labels pooled\n{table(figures)}")
    if json:
        write_json(json, figures)
        typer.echo(f"figures: {json}")


@app.command()
def score(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of color/, label40/, depth/ and split files, a list file of triples, or NYUv2's .mat; "
            "of pose weights, posed images."
        ),
    ],
    split: Annotated[str | None, typer.Option(help="Split of the data; by default val, for poses test.")] = None,
    weights: Weights = None,
    engine: Engine = None,
    classes: Annotated[str, typer.Option(help="Label set of the data: nyu40 | nyu13 | kitti6")] = "nyu40",
    depth_scale: Annotated[float, typer.Option(help="Units of the depth files a metre; 256 for KITTI.")] = 1000.0,
    json: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    labels: Annotated[str | None, typer.Option(help="Pose weights: folder of other label images.")] = None,
    frames: Annotated[str | None, typer.Option(help="Pose weights: FIRST:LAST of the frames to score.")] = None,
    out: Annotated[Path | None, typer.Option(help="Pose weights: folder to write pictures to.")] = None,
) -> None:
    """Score a network against ground truth and print the paper's table rows.

    Weights of a pose network are scored on posed images: a recording with poses, DeepLoc, Cambridge, a list of poses.
    """
    from networks.inference.predictor import Predictor
    from networks.joint.checkpoints import read_metadata
    from networks.training.data import Source, open_images
    from semslam.judging import network as scoring
    from semslam.runs.folder import write_json
    from sequences.images.labelled_images import NYU_CAMERA

    if weights and read_metadata(weights).get("network"):
        if engine or classes != "nyu40" or depth_scale != 1000:
            raise ValueError("--engine, --classes and --depth-scale are for joint weights; leave them out")
        figures = _score_poses(data, split, weights, labels, frames, out)
    elif labels or frames or out:
        raise ValueError("--labels, --frames and --out are for the weights of a pose network; leave them out")
    else:
        outdoors = classes == "kitti6"
        network = Predictor.load(weights, classes if outdoors else None, engine)
        images = open_images(Source(str(data), split or "val", classes=classes, depth_scale=depth_scale))
        camera = None if outdoors else NYU_CAMERA  # normals are computed with it
        with progress(len(images), "images") as advance:
            figures = scoring.score(network, images, classes, camera, report=lambda _: advance())
        typer.echo(scoring.tables(figures, Path(weights).stem if weights else "bundled"))
    if json:
        write_json(json, figures)
        typer.echo(f"figures: {json}")


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
    if not colon or not all(word == "" or word.isdigit() for word in (first, last)):
        raise ValueError(f"--frames is {frames!r}; expected FIRST:LAST, such as 140: or 0:140")
    return int(first or 0), int(last) if last else None
