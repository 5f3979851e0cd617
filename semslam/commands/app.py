"""The application, and what its commands share: options, the progress bar, Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Dense semantic SLAM: RGB-D frames become a labelled 3-D map of surfels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Kind = Annotated[str | None, typer.Option("--kind", help="Layout of the sequence; found out where not given.")]
CameraFile = Annotated[Path | None, typer.Option("--camera", help="camera.yaml, in place of the recording's.")]
DepthScale = Annotated[float | None, typer.Option("--depth-scale", help="Depth units a metre.")]
Weights = Annotated[str | None, typer.Option(help="Weights of the network; bundled ones by default.")]
Engine = Annotated[str | None, typer.Option(help="torch | onnxruntime | openvino; after `calibrate` also ...-int8")]


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are remembered and asked for between two frames, so that no frame is left half fused."""
    import signal

    hit: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
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

    with tqdm(total=total, unit=f" {unit}", disable=None, leave=False) as bar:
        yield lambda: bar.update(1)
