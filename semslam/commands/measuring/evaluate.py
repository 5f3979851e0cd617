"""`semslam evaluate`: of runs, or of another system's map or trajectory."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semslam.commands.app import Json, app, busy, only_job

if TYPE_CHECKING:
    from semslam.judging.run import Evaluation
    from semslam.runs.folder import RunFolder

# what is evaluated -> the parameters that go with it
JOBS = {
    "runs": ("truth", "with_scale", "sequence"),
    "--map": ("map", "reference", "sequence"),
    "--trajectory": ("trajectory", "reference", "with_scale", "pose_rate", "pose_indices"),
}


@app.command()
def evaluate(
    context: typer.Context,
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of runs; several are also pooled.")] = None,
    truth: Annotated[
        str,
        typer.Option(help="Surface to compare with: auto | mesh | depth (noise-free) | tsdf | a mesh or cloud."),
    ] = "auto",
    map: Annotated[Path | None, typer.Option(help="Mesh or cloud of another system, instead of a run.")] = None,
    trajectory: Annotated[Path | None, typer.Option(help="Trajectory of another system, instead of a run.")] = None,
    reference: Annotated[Path | None, typer.Option(help="What --map or --trajectory is compared with.")] = None,
    sequence: Annotated[
        str | None,
        typer.Option(help="Where a run's recording is now; with --map: count what its views saw."),
    ] = None,
    with_scale: Annotated[
        bool, typer.Option("--with-scale", help="Align trajectories by Sim(3): monocular systems.")
    ] = False,
    pose_rate: Annotated[
        float | None, typer.Option(help="Poses per second of a trajectory without times, from the start of the other.")
    ] = None,
    pose_indices: Annotated[
        str | None, typer.Option(help="Frames that the poses of a trajectory without times belong to: 0:200:5.")
    ] = None,
    json: Json = None,
) -> None:
    """Evaluate runs, or another system's map or trajectory, against the truth."""
    from semslam.files.writing import write_json
    from semslam.judging import foreign
    from semslam.judging.figures import table
    from semslam.runs.folder import RunFolder

    jobs = [name for name, given in (("runs", runs), ("--map", map), ("--trajectory", trajectory)) if given]
    if len(jobs) != 1:
        raise ValueError("name the folder of a run, or one of --map and --trajectory with --reference")
    if runs and reference is not None:
        raise ValueError(
            "--reference is for --map and --trajectory: a run is compared with its own recording, and with another one "
            f"by --trajectory {RunFolder(runs[0]).trajectory} --reference {reference}"
        )
    only_job(context, JOBS, jobs[0])
    if runs:
        figures = _evaluated(runs, truth, with_scale, sequence)
    elif reference is None:
        raise ValueError(f"{jobs[0]} needs --reference FILE, what it is compared with")
    elif trajectory:
        from sequences.pose_pairing import PoseHints

        hints = PoseHints(pose_rate, pose_indices)
        figures = foreign.evaluate_trajectory(trajectory, reference, with_scale, hints).figures
    else:
        from semslam.doctor.poses.convention import as_meant
        from sequences import open_sequence

        assert map is not None
        recording = as_meant(open_sequence(sequence), sequence) if sequence else None
        figures = foreign.evaluate_map(map, reference, recording).figures
    if not runs:
        typer.echo(table(figures))
    if json:
        write_json(json, figures)
        typer.echo(f"figures: {json}")


def _evaluated(runs: list[Path], truth: str, with_scale: bool, moved_to: str | None) -> dict[str, Any]:
    """Evaluate runs, write figures and plots into their folders; the figures of the one, or of all together."""
    from semslam.judging.figures import table
    from semslam.judging.run import evaluate_run, over_scenes
    from semslam.runs.folder import RunFolder

    evaluations = {}
    for run in runs:
        folder = RunFolder.open(run)
        metrics = folder.load_metrics()  # damaged figures are told before the work
        with busy(f"judging {run}"):
            evaluations[str(run)] = evaluation = evaluate_run(run, truth, moved_to=moved_to, with_scale=with_scale)
        if told := folder.unfinished:
            typer.echo(f"{run}: {told}", err=True)
        if evaluation.surfels == 0:
            typer.echo(folder.nothing_mapped, err=True)
        judged = {name: value for name, value in metrics.items() if name.startswith("held_out_")}
        typer.echo(f"{run}\n{table(evaluation.figures | judged)}")
        try:
            _keep(folder, evaluation, with_scale)
        except OSError as error:  # somebody else's run, or an archive's
            if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
                raise
            typer.echo(f"the figures are not kept in the run: {error}", err=True)
    if len(runs) == 1:
        return evaluation.figures
    empty = [name for name, found in evaluations.items() if found.surfels == 0]
    for name in empty:
        typer.echo(f"{name}: left out of the means", err=True)
    if len(empty) == len(evaluations):
        raise ValueError("the maps of all these runs are empty")
    scenes = {name: found for name, found in evaluations.items() if name not in empty}
    poses = {found.figures["poses"] for found in scenes.values()}
    if "dataset" in poses and len(poses) > 1:
        typer.echo("the poses of some runs were given; the errors of trajectories are those of the others", err=True)
    figures = over_scenes(scenes)
    typer.echo(f"{len(scenes)} runs, means of scenes and labels pooled\n{table(figures)}")
    return figures


def _keep(folder: RunFolder, evaluation: Evaluation, with_scale: bool) -> None:
    """Write figures and plots into the folder of the run."""
    from semslam.judging.plots import plot_errors, plot_trajectory
    from semslam.judging.run import keep
    from semslam.runs.storage.paths import TRAJECTORY_PLOTS

    keep(evaluation, folder)
    if evaluation.trajectory is not None and evaluation.paths is not None:
        for name, plot in zip(TRAJECTORY_PLOTS, (plot_trajectory, plot_errors), strict=True):
            plot(folder.path / name, *evaluation.paths, with_scale)
