"""`semslam view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semslam.commands.app import app, busy, check_picture, file_option, note_unfinished, progress


def _check_film(path: Path) -> None:
    from semslam.looking.film import check_film

    check_film(path)


def _check_recording(path: Path) -> None:
    from semslam.looking.rerun import check_recording

    check_recording(path)


@app.command()
def view(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    compare: Annotated[Path | None, typer.Option(help="Folder of another run, seen by the same camera.")] = None,
    png: Annotated[
        Path | None, file_option("--png", "Write a picture instead of opening a window.", check_picture)
    ] = None,
    html: Annotated[Path | None, file_option("--html", "Write a web page that shows the map, also offline.")] = None,
    video: Annotated[Path | None, file_option("--video", "Write an mp4 film.", _check_film)] = None,
    along: Annotated[
        str, typer.Option(help="With --video: orbit, around the map or to and fro | path, behind the recorded camera.")
    ] = "orbit",
    rerun: Annotated[
        Path | None,
        file_option("--rerun", "Write an .rrd file of frames, predictions, poses and map.", _check_recording),
    ] = None,
    color_by: Annotated[
        str,
        typer.Option(
            help="color | label | normal | confidence | entropy | first_seen | last_seen | error. Default: label, or "
            "color where the map has no classes.",
            show_default=False,
        ),
    ] = "",
    hide: Annotated[
        list[str] | None, typer.Option(help="Names of classes to leave out, separated by commas or each with --hide.")
    ] = None,
) -> None:
    """Look at the map of a run: in a window, or as a picture, page, film or Rerun recording."""
    from semslam.looking.viewed import legend_lines, viewed_run
    from semslam.looking.window import has_display, key_help

    viewed = viewed_run(run)
    note_unfinished(run)
    others = [viewed_run(compare)] if compare else []
    hidden = [viewed.label_set.id_of(name.strip()) for name in ",".join(hide or ()).split(",") if name.strip()]
    color_by = color_by or ("label" if viewed.has_classes else "color")
    if color_by in ("label", "entropy") and not viewed.has_classes:
        raise ValueError(
            f"{run}: its map has no classes; choose --color-by color, or fuse labels: `semslam relabel {run}`"
        )
    if color_by == "error" and viewed.errors is None:
        raise ValueError(f"{run}: was not compared with a reference; do so first: `semslam evaluate {run}`")
    if others and (html or video or rerun):
        raise ValueError("--compare goes with the window or with --png")
    viewed.colored(color_by)  # a wrong name is reported before the work
    if png:
        from semslam.looking.picture import render_png

        with busy(f"drawing {png}"):
            render_png(png, viewed, coloring=color_by, hidden=hidden, beside=others)
        typer.echo(f"picture: {png}")
    if html:
        from semslam.looking.page import write_html

        with busy(f"writing {html}"):
            write_html(html, viewed.without(hidden))
        typer.echo(f"page: {html}")
    if video:
        from semslam.looking.film import views_along, write_video

        shown = viewed.without(hidden)
        views = views_along(shown, along)
        with progress(len(views), "frames of the film") as advance:
            write_video(video, shown, views, coloring=color_by, report=advance)
        typer.echo(f"film: {video}")
    if rerun:
        from semslam.looking.rerun import write_rerun

        with busy(f"writing {rerun}"):
            write_rerun(rerun, run, viewed.without(hidden))
        typer.echo(f"recording: {rerun}   (look at it: rerun {rerun})")
    if png or html or video or rerun:
        return
    if not has_display():
        raise ValueError("no display to open a window on; write a file instead: --png, --html, --video or --rerun FILE")
    for line in [*key_help(), *legend_lines(viewed)]:
        typer.echo(line)
    from semslam.looking.side_by_side import view as open_windows

    open_windows([viewed, *others], color_by, hidden, typer.echo)
