"""Commands that measure maps, trajectories and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from semslam.commands.app import Engine, Weights, app, progress


@app.command()
def evaluate(
    runs: Annotated[Optional[list[Path]], typer.Argument(help="Folders of runs; several are pooled as well.")] = None,  # noqa: UP045
    truth: Annotated[
        str,
        typer.Option(help="Surface to compare with: auto | mesh | depth (noise-free) | tsdf | a mesh or cloud."),
    ] = "auto",
    map: Annotated[Optional[Path], typer.Option(help="Mesh or cloud of another system, instead of a run.")] = None,  # noqa: UP045
    trajectory: Annotated[Optional[Path], typer.Option(help="Trajectory of another system, instead of a run.")] = None,  # noqa: UP045
    reference: Annotated[Optional[Path], typer.Option(help="What --map or --trajectory is compared with.")] = None,  # noqa: UP045
    sequence: Annotated[Optional[str], typer.Option(help="With --map: count only what its views could see.")] = None,  # noqa: UP045
    with_scale: Annotated[bool, typer.Option("--with-scale", help="With --trajectory: Sim(3) alignment.")] = False,
    json: Annotated[Optional[Path], typer.Option(help="Also write the figures here.")] = None,  # noqa: UP045
) -> None:
    """Evaluate runs, or another system's map or trajectory, against the truth."""
    from semslam import evaluate as job
    from semslam.evaluation.figures import table
    from semslam.run_folder import RunFolder, write_json

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
            evaluations[str(run)] = evaluation = job.evaluate_run(run, truth)
            folder = RunFolder.open(run)
            folder.save_metrics(folder.load_metrics() | evaluation.figures)
            if evaluation.errors is not None:
                folder.save_errors(evaluation.errors)  # for `semslam view --color-by error`
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
    data: Annotated[Path, typer.Option(help="Folder of labelled images: color/, label40/, depth/ and split files.")],
    split: Annotated[str, typer.Option(help="Name of a split file in it, without .txt.")] = "val",
    weights: Weights = None,
    engine: Engine = None,
    json: Annotated[Optional[Path], typer.Option(help="Also write the figures here.")] = None,  # noqa: UP045
) -> None:
    """Score a network against ground truth and print the paper's table rows."""
    from networks.inference import Predictor
    from semslam import scoring
    from semslam.run_folder import write_json
    from sequences.labelled_images import open_labelled_folder

    network = Predictor.load(weights, engine=engine)
    images = open_labelled_folder(data, split)
    with progress(len(images), "images") as advance:
        figures = scoring.score(network, images, report=lambda _: advance())
    typer.echo(scoring.tables(figures, Path(weights).stem if weights else "bundled"))
    if json:
        write_json(json, figures)
        typer.echo(f"figures: {json}")
