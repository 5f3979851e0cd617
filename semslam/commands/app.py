"""The application, and what its commands share: options, settings, the progress bar, Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from semslam.files.writing import check_makeable, check_writable

WRITTEN = "semslam.written"  # among what a command's context holds: the files that its options name for writing


class _Command(TyperCommand):
    """A command that does not write a file over another one that it names."""

    def invoke(self, ctx: Any) -> Any:
        several = [values if isinstance(values, list) else [values] for values in ctx.params.values()]
        paths = [value.resolve() for values in several for value in values if isinstance(value, Path)]
        for path in ctx.meta.get(WRITTEN, []):
            if paths.count(path.resolve()) > 1:
                raise ValueError(f"{path} is named twice; give each its own file")
        return super().invoke(ctx)


class _App(typer.Typer):
    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=_Command, **options)


app = _App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _named(name: str) -> Path:
    """The path that an option names; `Path` would take an empty name, of an unset variable, for this folder."""
    if not name:
        raise typer.BadParameter("the name is empty; give a path, or . for this folder")
    return Path(name)


def made_folder(context: typer.Context, folder: Path | None) -> Path | None:
    """A folder that a command writes to: what cannot be one is told now, and what is empty in the end is removed."""
    if folder is not None:
        check_makeable(folder)
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        context.call_on_close(partial(_remove_empty, new))
    return folder


def _remove_empty(places: list[Path]) -> None:
    """Remove folders, each within the next, that a command has made and written nothing to."""
    from semslam.runs.storage.lock import unlock

    for place in places:
        unlock(place)
        try:
            place.rmdir()
        except OSError:  # it was not made, or holds something
            continue


def folder_option(help: str) -> Any:
    """The option --out for a folder to write to, see `made_folder`."""
    return typer.Option("--out", parser=_named, callback=made_folder, is_eager=True, metavar="PATH", help=help)


def file_option(flag: str, help: str, check: Callable[[Path], object] = lambda path: None) -> Any:
    """An option for a file to write: where it cannot be written, or `check` raises, that is told before any work.

    A file directly in the command's --out, which need not be there yet, can be written: --out is made before.
    """

    def writable(context: typer.Context, path: Path | None) -> Path | None:
        if path is not None:
            out = context.params.get("out")  # `folder_option` is eager: it is there whatever the order of the words
            if path.parent.is_dir() or out is None or path.parent.absolute() != out.absolute():
                check_writable(path)
            _check_not_of_a_run(path)
            context.meta.setdefault(WRITTEN, []).append(path)
            check(path)
        return path

    return typer.Option(flag, parser=_named, callback=writable, metavar="PATH", help=help)


def _check_not_of_a_run(path: Path) -> None:
    """ValueError for a file that a run is read from."""
    from semslam.runs.storage.paths import RunPaths

    for folder in path.resolve().parents[:2]:  # the second is a run's where the first is its checkpoint's
        run = RunPaths(folder)
        if run.exists and path.resolve() in [own.resolve() for own in run.read_again]:
            raise ValueError(f"{path}: is a file of the run {folder}, which is read from it; name another file")


def whole_number(text: str) -> int:
    """The number that an option for frames holds; a range of frames is told in the words that set one."""
    if re.fullmatch(r"[+-]?\d+", text := str(text).strip()):
        return int(text)
    if found := re.fullmatch(r"(\d+) ?(?:-|:|\.\.|,|to) ?(\d+)", text):
        first, last = sorted(map(int, found.groups()))
        raise typer.BadParameter(
            f"{text!r} is no whole number; frames {first} to {last} are --start {first} --frames {last - first + 1}"
        )
    raise typer.BadParameter(f"{text!r} is no whole number")


def check_picture(path: Path) -> None:
    """ValueError for a name whose suffix is no format of pictures."""
    from semslam.rendering.pictures import picture_format

    picture_format(path)


Out = Annotated[Path, folder_option("Folder to write to.")]
Json = Annotated[Path | None, file_option("--json", "Also write the figures to this file.")]

KIND = "Layout of the sequence; detected by default."
CAMERA_FILE = "camera.yaml to use instead of the recording's."
DEPTH_SCALE = "Depth units per metre."
REGISTERED = "Whether depth lies under colour's pixels."
FOV = "Horizontal field of view of an unknown camera, degrees."
POSE_RATE = "Poses per second of a pose file without times."
POSE_INDICES = "Frames of a pose file without times: START:STOP:STEP or a file."
Kind = Annotated[str | None, typer.Option("--kind", help=KIND)]
CameraFile = Annotated[Path | None, typer.Option("--camera", help=CAMERA_FILE)]
DepthScale = Annotated[float | None, typer.Option("--depth-scale", help=DEPTH_SCALE)]
Registered = Annotated[bool | None, typer.Option("--registered/--unregistered", help=REGISTERED)]
Fov = Annotated[float | None, typer.Option("--fov", help=FOV)]
PoseRate = Annotated[float | None, typer.Option("--pose-rate", help=POSE_RATE)]
PoseIndices = Annotated[str | None, typer.Option("--pose-indices", help=POSE_INDICES)]


def frames_option(flag: str, help: str) -> Any:
    """An option that chooses frames."""
    return typer.Option(flag, parser=whole_number, metavar="INTEGER", help=help)


START = "Number of the first frame, from 0; not a time."
FRAMES = "Number of frames, at most."
EVERY = "Take every n-th frame."
Start = Annotated[int, frames_option("--start", START)]
FrameCount = Annotated[int | None, frames_option("--frames", FRAMES)]
CONVENTION = (
    "How recorded poses are meant: as-recorded | inverted | opengl | qw-first | millimetres | centimetres, joined by "
    "commas. Told from the images by default."
)
Every = Annotated[int, frames_option("--every", EVERY)]
WEIGHTS = "Weights of the network; bundled ones by default."
ENGINE = "torch | torch-cuda | onnxruntime | openvino | openvino-bf16; after `calibrate` ...-int8"
Weights = Annotated[str | None, typer.Option(help=WEIGHTS)]
Engine = Annotated[str | None, typer.Option(help=ENGINE)]
SettingsFile = Annotated[Path | None, typer.Option("--config", help="YAML with any of the settings of config.yaml.")]

FLAGS: dict[str, str] = {}  # dotted names of settings -> the options that set them


def setting(name: str, flag: str, help: str) -> Any:
    """An option that sets one setting of a run. Its parameter is None where the option is not given."""
    FLAGS[name] = flag.partition("/")[0]
    return typer.Option(flag, help=help)


def frames_setting(name: str, help: str) -> Any:
    """The same for one of the options that choose frames."""
    FLAGS[name] = f"--{name}"
    return frames_option(f"--{name}", help)


def chosen_settings(context: typer.Context) -> dict[str, Any]:
    """The values of the options made by `setting` that were given, by the dotted names of the settings."""
    names = {flag: name for name, flag in FLAGS.items()}
    return {
        names[parameter.opts[0]]: context.params[parameter.name]
        for parameter in context.command.params
        if parameter.name and parameter.opts[0] in names and context.params[parameter.name] is not None
    }


def with_flags(message: str) -> str:
    """A library's message, which names settings as `slam.perception.depth`, with the options that set them instead."""
    return re.sub(r"`([\w.]+)`", lambda found: FLAGS.get(found[1], found[0]), message)


def only_job(context: typer.Context, jobs: Mapping[str, tuple[str, ...]], job: str) -> None:
    """ValueError where an option was given that is of other jobs of this command, but not of this one.

    jobs: the names of the parameters that each job takes besides those that all take.
    """
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in sorted({name for names in jobs.values() for name in names} - set(jobs[job])):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            others = " and ".join(other for other, names in jobs.items() if name in names)
            raise ValueError(f"{flags[name]} is for {others}, not for {job}; leave it out")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"semslam {version('semslam')}")
        raise typer.Exit


@app.callback()
def semslam_(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show all of an error.")] = False,
) -> None:
    """Dense semantic SLAM: RGB-D frames become a labelled 3-D map of surfels."""


def _handle_on_the_usual_stack() -> None:
    """Take away the alternate stack for signals that a native library (a ray tracer, a compiler) may have set up.

    Python asks for that stack where there is one. Theirs are too small for what a processor with wide vector
    registers saves on it, so that Ctrl-C after a rendering would end the process instead of the run.
    """
    if sys.platform == "linux":

        class Stack(ctypes.Structure):  # stack_t of sigaltstack(2)
            _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

        disable = 2  # SS_DISABLE
        ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(None, disable, 0)), None)


def ending_signals() -> list[int]:
    """The signals by which a process is asked to end: SIGTERM and, as a terminal is closed, SIGHUP if nobody has set it
    to be ignored, as nohup does."""
    import signal

    asked = [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    return [number for number in dict.fromkeys(asked) if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and what `ending_signals` names are remembered and asked for between two frames, so that no frame is left
    half fused."""
    import signal

    hit: list[int] = []
    signals = (signal.SIGINT, *ending_signals())
    _handle_on_the_usual_stack()
    previous = [signal.signal(s, lambda number, _: hit.append(number)) for s in signals]
    try:
        yield lambda: bool(hit)
    finally:
        for s, handler in zip(signals, previous):
            signal.signal(s, handler)


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[[], Any]]:
    """A bar with rate and time left on a terminal, silence in a pipe."""
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", disable=None, leave=False, ncols=_columns()) as bar:
        yield lambda: bar.update(1)


def _columns() -> int | None:
    """The columns of a bar on a terminal that does not say how many it has, as those of containers; None elsewhere."""
    try:
        return None if os.get_terminal_size(sys.stderr.fileno()).columns else shutil.get_terminal_size().columns
    except (OSError, ValueError):  # no terminal, or closed
        return None


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Says on a terminal what is being done, for work whose length is not known; taken away by what is logged, and in
    the end."""
    import logging

    if not sys.stderr.isatty():
        yield
        return

    def clear(record: logging.LogRecord | None = None) -> bool:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()
        return True

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(clear)
    sys.stderr.write(f"{what} ...")
    sys.stderr.flush()
    try:
        yield
    finally:
        clear()
        for handler in handlers:
            handler.removeFilter(clear)


def note_unfinished(run: Path) -> None:
    """Say how much of a run is done that was interrupted; FileNotFoundError where there is none."""
    from semslam.runs.folder import RunFolder

    if told := RunFolder.open(run).unfinished:
        typer.echo(f"{run}: {told}", err=True)


def end_batch(failed: int, total: int) -> None:
    """Say how many of a batch's images could not be read, and exit with code 1 if there are any."""
    if failed:
        typer.echo(f"semslam: {failed} of {total} images could not be read", err=True)
        raise typer.Exit(1)
