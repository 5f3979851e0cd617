"""The commands: the only place that prints, exits, sets up logging and shows progress."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

app = typer.Typer(
    help="Dense semantic SLAM: RGB-D frames become a labelled 3-D map of surfels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Kind = Annotated[Optional[str], typer.Option("--kind", help="Layout of the sequence; found out where not given.")]  # noqa: UP045


def main() -> None:
    """Run the command line; wrong input ends with one line and exit code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app(standalone_mode=True)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        if os.environ.get("SEMSLAM_DEBUG"):
            raise
        sys.stderr.write(f"semslam: {' '.join(str(error).split()) or type(error).__name__}\n")
        sys.exit(2)


@app.command()
def reconstruct(
    sequence: Annotated[
        str, typer.Argument(help="Folder or list file of a recording, or 'room' for the built-in one.")
    ],
    out: Out,
    kind: Kind = None,
    depth: Annotated[Optional[str], typer.Option(help="sensor (default) | predicted")] = None,  # noqa: UP045
    labels: Annotated[Optional[str], typer.Option(help="predicted (default) | truth | none")] = None,  # noqa: UP045
    poses: Annotated[
        Optional[str], typer.Option(help="dataset | tracked | refined | a file; by default dataset, if it has poses.")  # noqa: UP045
    ] = None,
    classes: Annotated[Optional[str], typer.Option(help="nyu13 (default) | nyu40")] = None,  # noqa: UP045
    label_every: Annotated[Optional[int], typer.Option(help="Frames between two labelled ones.")] = None,  # noqa: UP045
    weights: Annotated[Optional[str], typer.Option(help="Weights of the network; bundled ones by default.")] = None,  # noqa: UP045
    engine: Annotated[Optional[str], typer.Option(help="torch | onnxruntime | openvino")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="YAML with any of the settings of config.yaml.")] = None,  # noqa: UP045
    hold_out: Annotated[Optional[int], typer.Option(help="Keep every so many-th frame to judge the map by.")] = None,  # noqa: UP045
    loops: Annotated[
        Optional[bool], typer.Option("--loops/--no-loops", help="Correct tracked poses where the camera comes back.")  # noqa: UP045
    ] = None,
    max_surfels: Annotated[Optional[int], typer.Option(help="Capacity of the map.")] = None,  # noqa: UP045
    mesh: Annotated[bool, typer.Option(help="Also write a labelled triangle mesh.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
) -> None:
    """Reconstruct a sequence into a labelled surfel map."""
    from semslam import main_job as job

    run = job.prepare(
        sequence,
        out,
        config=config,
        kind=kind,
        depth=depth,
        labels=labels,
        poses=poses,
        classes=classes,
        label_every=label_every,
        weights=weights,
        engine=engine,
        hold_out=hold_out,
        loops=loops,
        max_surfels=max_surfels,
        resume=resume,
    )
    with _interruptible() as interrupted, _progress(len(run), "frames") as advance:
        for _ in run:
            advance()
            if interrupted():
                break
    if len(run):
        run.save()
        typer.echo(f"stopped with {len(run)} frames to go; `semslam reconstruct ... --resume` goes on from here: {out}")
        raise typer.Exit(130)
    metrics = job.finish(run, mesh=mesh)
    typer.echo(
        f"{metrics['frames_fused']} of {metrics['frames']} frames fused, {metrics['frames_per_second']:.1f} frames/s, "
        f"{metrics['surfels']} surfels"
    )
    for name, what in (
        ("preview", "picture"),
        ("map", "surfels"),
        ("mesh", "mesh"),
        ("trajectory", "trajectory"),
        ("metrics", "figures"),
    ):
        path = getattr(run.folder, name)
        if path.is_file():
            typer.echo(f"{what + ':':<12}{path}")
    typer.echo(f"look at it:  semslam view {out}")


@app.command()
def view(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    png: Annotated[Optional[Path], typer.Option(help="Write a picture instead of opening a window.")] = None,  # noqa: UP045
    html: Annotated[Optional[Path], typer.Option(help="Write a page that turns the map in a browser, offline.")] = None,  # noqa: UP045
    video: Annotated[Optional[Path], typer.Option(help="Write an mp4 film of an orbit around the map.")] = None,  # noqa: UP045
    color_by: Annotated[
        str, typer.Option(help="color | label | normal | confidence | entropy | first_seen | last_seen")
    ] = "label",
    hide: Annotated[str, typer.Option(help="Names of classes to leave out, with commas.")] = "",
) -> None:
    """Look at the map of a run."""
    from semslam import viewer
    from semslam.run_folder import RunFolder

    folder = RunFolder.open(run)
    cloud, label_set = folder.load_cloud()
    hidden = [label_set.id_of(name.strip()) for name in hide.split(",") if name.strip()]
    viewed = viewer.Viewed(cloud, label_set, str(run), folder.load_trajectory().T_world_camera)
    if png:
        viewer.render_png(png, viewed, coloring=color_by, hidden=hidden)
        typer.echo(f"picture: {png}")
    if html:
        from semslam.view_html import write_html

        write_html(html, viewed.without(hidden))
        typer.echo(f"page: {html}")
    if video:
        from semslam.pictures import picture_camera
        from semslam.video import orbit_poses, write_video

        shown = viewed.without(hidden)
        write_video(video, shown, orbit_poses(shown, picture_camera()), coloring=color_by)
        typer.echo(f"film: {video}")
    if png or html or video:
        return
    for line in [*viewer.key_help(), *viewer.legend_lines(viewed)]:
        typer.echo(line)
    viewer.view([viewed.without(hidden)], report=typer.echo)


@app.command()
def doctor(
    sequence: Annotated[str, typer.Argument(help="Folder or list file of a recording.")],
    kind: Kind = None,
) -> None:
    """Find wrong depth scale, intrinsics, pose convention, timestamps or label ids; exit code 1 if any."""
    from semslam.doctor import examine

    findings = examine(sequence, kind)
    for finding in findings:
        typer.echo(f"{finding.level}: {finding.what}; {finding.remedy}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
    if not findings:
        typer.echo("nothing wrong found")


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
            typer.echo(f"{run}\n{table(evaluation.figures)}")
        figures = evaluation.figures
        if len(runs) > 1:
            figures = job.over_scenes(evaluations)
            typer.echo(f"{len(runs)} runs, means of scenes and labels pooled\n{table(figures)}")
    if json:
        write_json(json, figures)
        typer.echo(f"figures: {json}")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="JPEG or PNG images.")],
    out: Out,
    weights: Annotated[Optional[str], typer.Option(help="Weights of the network; bundled ones by default.")] = None,  # noqa: UP045
    classes: Annotated[str, typer.Option(help="nyu13 | nyu40")] = "nyu40",
    engine: Annotated[Optional[str], typer.Option(help="torch | onnxruntime | openvino")] = None,  # noqa: UP045
) -> None:
    """Predict depth, labels (and normals) of single images."""
    from semslam.main_job import predictor
    from semslam.predict import predict_files

    network = predictor(classes, weights, engine)
    with _progress(len(images), "images") as advance:
        for image in images:
            for path in predict_files([image], out, network):
                typer.echo(str(path))
            advance()


@app.command()
def score(
    data: Annotated[Path, typer.Option(help="Folder of labelled images: color/, label40/, depth/ and split files.")],
    split: Annotated[str, typer.Option(help="Name of a split file in it, without .txt.")] = "val",
    weights: Annotated[Optional[str], typer.Option(help="Weights of the network; bundled ones by default.")] = None,  # noqa: UP045
    engine: Annotated[Optional[str], typer.Option(help="torch | onnxruntime | openvino")] = None,  # noqa: UP045
    json: Annotated[Optional[Path], typer.Option(help="Also write the figures here.")] = None,  # noqa: UP045
) -> None:
    """Score a network against ground truth and print the paper's table rows."""
    from networks.inference import Predictor
    from semslam import scoring
    from semslam.run_folder import write_json
    from sequences.labelled_images import open_labelled_folder

    network = Predictor.load(weights, engine=engine)
    images = open_labelled_folder(data, split)
    with _progress(len(images), "images") as advance:
        figures = scoring.score(network, images, report=lambda _: advance())
    typer.echo(scoring.tables(figures, Path(weights).stem if weights else "bundled"))
    if json:
        write_json(json, figures)
        typer.echo(f"figures: {json}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML of a training; see configs/.")],
) -> None:
    """Train a joint network; a killed training goes on where it stopped."""
    from networks.training_joint import JointTraining
    from networks.training_joint import train as run
    from semslam import config as configs

    settings = configs.load(config, JointTraining)
    figures = run(settings, report=lambda row: typer.echo(" ".join(f"{key}={value:.4g}" for key, value in row.items())))
    typer.echo(" ".join(f"{key}={value:.4g}" for key, value in figures.items()))
    typer.echo(f"weights: {settings.out}/network.safetensors")


@app.command()
def label(
    data: Annotated[Path, typer.Argument(help="Folder with color/ in it.")],
    out: Out,
    weights: Annotated[str, typer.Option(help="Weights of the teacher.")],
    split: Annotated[Optional[str], typer.Option(help="Name of a split file; every image by default.")] = None,  # noqa: UP045
) -> None:
    """Let a teacher write hard labels for images that lack them; a killed run goes on."""
    from networks import checkpoints
    from networks.labelling import label_folder

    network, _ = checkpoints.load(weights)
    with _progress(0, "images") as advance:
        written = label_folder(network, data, out, names=split, report=lambda _: advance())
    typer.echo(f"{written} label images written to {out}")


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is remembered and asked for between two frames, so that no frame is left half fused."""
    import signal

    hit: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: hit.append(number))
    try:
        yield lambda: bool(hit)
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _progress(total: int, unit: str) -> Iterator[Callable[[], Any]]:
    """A bar with rate and time left on a terminal, silence in a pipe."""
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", disable=None, leave=False) as bar:
        yield lambda: bar.update(1)


if __name__ == "__main__":
    main()
