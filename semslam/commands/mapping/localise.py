"""`semslam localise`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semslam.commands.app import (
    CameraFile,
    DepthScale,
    Every,
    Fov,
    FrameCount,
    Json,
    Kind,
    Registered,
    Start,
    app,
    check_picture,
    file_option,
    note_unfinished,
    progress,
)

if TYPE_CHECKING:
    from semslam.runs.config import RunConfig
    from semslam.runs.finished.finished_map import FinishedMap
    from semslam.runs.finished.localise import LocalisedFrame
    from sequences import Sequence

FIGURE = "Also draw the cameras in the map (.png, .jpg, .pdf, .svg)."


@app.command()
def localise(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[list[str], typer.Argument(help="Images, folders of images, videos or recordings.")],
    out: Annotated[Path | None, file_option("--out", "File for the TUM lines; printed by default.")] = None,
    figure: Annotated[Path | None, file_option("--figure", FIGURE, check_picture)] = None,
    depth: Annotated[bool, typer.Option("--depth/--no-depth", help="Use the depth that the recording has.")] = True,
    kind: Kind = None,
    camera: CameraFile = None,
    fov: Fov = None,
    depth_scale: DepthScale = None,
    registered: Registered = None,
    start: Start = 0,
    frames: FrameCount = None,
    every: Every = 1,
    json: Json = None,
) -> None:
    """Find where images were taken in the map of a finished run; exit code 1 if none of them is found."""
    from semslam.files.writing import write_json
    from semslam.runs.config import RunConfig
    from semslam.runs.finished.finished_map import FinishedMap
    from semslam.runs.finished.localise import draw, figures, located_in_each

    note_unfinished(run)
    finished = FinishedMap(run, paged=True)
    query = RunConfig(
        kind=kind,
        camera=str(camera) if camera else None,
        fov=fov,
        depth_scale=depth_scale,
        registered=registered,
        start=start,
        frames=frames,
        every=every,
    )
    opened, found = _opened(finished, query, images)
    with progress(sum(map(len, opened)), "images") as advance:
        for frame in located_in_each(finished, opened, depth):
            found.append(frame)
            advance()
    _write_poses(found, out)
    summary = figures(found)
    _tell_guessed(opened, found)
    if json is not None:
        write_json(json, summary)
        typer.echo(f"figures: {json}", err=True)
    if figure is not None:
        draw(figure, finished, found)
        typer.echo(f"picture: {figure}", err=True)
    typer.echo(f"{summary['found']} of {summary['images']} images found in {run}", err=out is None)
    if not summary["found"]:
        raise typer.Exit(1)


def _opened(finished: FinishedMap, query: RunConfig, images: list[str]) -> tuple[list[Sequence], list[LocalisedFrame]]:
    """What can be looked for, and what became of single images, among others, that cannot be."""
    from semslam.runs.finished.localise import not_looked_for, open_query, single_images

    opened, refused = [], []
    for name in images:
        queries = single_images(replace(query, sequence=name))
        alone = len(images) == len(queries) == 1
        for single in queries:
            try:
                opened.append(open_query(finished, single))
            except ValueError as error:
                if alone or not Path(single.sequence).exists() or Path(single.sequence).is_dir():
                    raise
                refused.append(not_looked_for(single.sequence, 0.0, error))
    return opened, refused


def _tell_guessed(opened: list[Sequence], found: list[LocalisedFrame]) -> None:
    """One line about images that were found and whose camera nothing told; the last of `found` are those opened."""
    known = [sequence.camera.focal_known for sequence in opened for _ in range(len(sequence))]
    looked_for = found[len(found) - len(known) :]
    guessed = sum(f.found.T_world_camera is not None and not told for f, told in zip(looked_for, known, strict=True))
    other = sum(frame.found.focal is not None for frame in found)
    if guessed:
        typer.echo(
            f"no lens is known of {guessed} images that were found (camera.yaml, EXIF, --camera or --fov): taken for "
            "the run's"
            + (f", but for {other} that another focal length explains better, which is told with them" * bool(other)),
            err=True,
        )


def _write_poses(found: list[LocalisedFrame], out: Path | None) -> None:
    """TUM lines, into a file or onto standard output."""
    from semslam.runs.finished.localise import tum_text, write_tum_text

    if out is None:
        typer.echo(tum_text(found), nl=False)
    else:
        write_tum_text(out, found)
