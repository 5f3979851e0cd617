"""The application, and what its commands share: options, the progress bar, Ctrl-C."""

from __future__ import annotations

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
Weights = Annotated[Optional[str], typer.Option(help="Weights of the network; bundled ones by default.")]  # noqa: UP045
Engine = Annotated[Optional[str], typer.Option(help="torch | onnxruntime | openvino")]  # noqa: UP045


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is remembered and asked for between two frames, so that no frame is left half fused."""
    import signal

    hit: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: hit.append(number))
    try:
        yield lambda: bool(hit)
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[[], Any]]:
    """A bar with rate and time left on a terminal, silence in a pipe."""
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", disable=None, leave=False) as bar:
        yield lambda: bar.update(1)
