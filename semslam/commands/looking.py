"""Commands to look at maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from semslam.commands.app import Out, app


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
def export(run: Annotated[Path, typer.Argument(help="Folder of a run.")], out: Out) -> None:
    """Write a run's map for other programs: PLY, PCD, OBJ, GLB, clouds and objects by class, a floor plan."""
    from semslam.run_export import export_run

    for what, path in export_run(run, out):
        typer.echo(f"{what + ':':<17}{path}")
    if not (run / "mesh.ply").is_file():
        typer.echo("no mesh: the run was made without one; `semslam reconstruct` writes it unless --no-mesh is given")
