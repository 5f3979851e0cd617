"""`semslam view`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from semslam.commands.app import app, busy, check_picture, file_option, note_unfinished, progress

if TYPE_CHECKING:
    from semslam.looking.viewed import Viewed


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
    from semslam.looking.viewed import viewed_run
    from semslam.runs.folder import RunFolder

    viewed = viewed_run(run)
    if not len(viewed.cloud) and not rerun:  # which shows the frames as well
        raise ValueError(RunFolder.open(run).nothing_mapped)
    note_unfinished(run)
    others = [viewed_run(compare)] if compare else []
    hidden = [name.strip() for name in ",".join(hide or ()).split(",") if name.strip()]
    shown = Shown(viewed, others, hidden, color_by or ("label" if viewed.has_classes else "color"))
    _check(shown, run)
    if others and (html or video or rerun):
        raise ValueError("--compare goes with the window or with --png")
    if png:
        _write_picture(shown, png)
    if html:
        _write_page(shown, html)
    if video:
        _write_film(shown, video, along)
    if rerun:
        _write_recording(shown, rerun, run)
    if not (png or html or video or rerun):
        _open_window(shown)


class Shown(NamedTuple):
    """What is looked at."""

    viewed: Viewed
    beside: list[Viewed]  # other maps, seen by the same camera
    hidden: list[str]  # names of classes that are left out
    color_by: str  # what the surfels' colours mean

    @property
    def visible(self) -> Viewed:
        """The map without the hidden classes."""
        return self.viewed.without(self.hidden)


def _check(shown: Shown, run: Path) -> None:
    """ValueError, before any work, for colours that are unknown or that the map does not have, and unknown classes."""
    for name in shown.hidden:
        if not any(one.ids_of([name]) for one in (shown.viewed, *shown.beside)):
            shown.viewed.label_set.id_of(name)
    if shown.color_by in ("label", "entropy") and not shown.viewed.has_classes:
        raise ValueError(
            f"{run}: its map has no classes; choose --color-by color, or fuse labels: `semslam relabel {run}`"
        )
    if shown.color_by == "error" and shown.viewed.errors is None:
        raise ValueError(
            f"{run}: its surfels were not compared with a reference; `semslam evaluate {run}` does it where the "
            f"recording has depth and poses or a mesh; else name a reference with --truth"
        )
    shown.viewed.colored(shown.color_by)


def _write_picture(shown: Shown, file: Path) -> None:
    from semslam.looking.picture import render_png

    with busy(f"drawing {file}"):
        render_png(file, shown.viewed, coloring=shown.color_by, hidden=shown.hidden, beside=shown.beside)
    typer.echo(f"picture: {file}")


def _write_page(shown: Shown, file: Path) -> None:
    from semslam.looking.page import write_html

    with busy(f"writing {file}"):
        write_html(file, shown.visible)
    typer.echo(f"page: {file}")


def _write_film(shown: Shown, file: Path, along: str) -> None:
    from semslam.looking.film import views_along, write_video

    visible = shown.visible
    views = views_along(visible, along)
    with progress(len(views), "frames of the film") as advance:
        write_video(file, visible, views, coloring=shown.color_by, report=advance)
    typer.echo(f"film: {file}")


def _write_recording(shown: Shown, file: Path, run: Path) -> None:
    from semslam.looking.rerun import write_rerun

    with busy(f"writing {file}"):
        write_rerun(file, run, shown.visible)
    typer.echo(f"recording: {file}   (look at it: rerun {shlex.quote(str(file))})")


def _open_window(shown: Shown) -> None:
    from semslam.looking.viewed import legend_lines
    from semslam.looking.window import has_display, key_help

    if not has_display():
        raise ValueError("no display to open a window on; write a file instead: --png, --html, --video or --rerun FILE")
    for line in [*key_help(), *legend_lines(shown.viewed)]:
        typer.echo(line)
    from semslam.looking.side_by_side import view as open_windows

    open_windows([shown.viewed, *shown.beside], shown.color_by, shown.hidden, typer.echo)
