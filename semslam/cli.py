"""The command line: the only place that prints, exits, sets up logging and shows progress, with `semslam.commands`."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from types import FrameType

# each adds its command to the app; --help lists them in this order
# isort: off
from semslam.commands.mapping import reconstruct, localise, merge, doctor, relabel, refine, config, kinds, convert  # noqa: F401
from semslam.commands.mapping import batch  # noqa: F401
from semslam.commands.looking import view, export  # noqa: F401
from semslam.commands.measuring import evaluate, compare, score  # noqa: F401
from semslam.commands.networks import predict, attend, train, label, calibrate  # noqa: F401

# isort: on
from semslam.commands.app import app, ending_signals, with_flags
from semslam.files.failures import causes_of, is_lack_of_memory, is_passing

# exit codes; 75 is EX_TEMPFAIL of sysexits.h: another attempt may succeed; 130 is 128 + SIGINT, as shells have it
WRONG_USE, MACHINE_FAILED, INTERRUPTED = 2, 75, 130


def main() -> None:
    """Run the command line; whatever goes wrong ends with one line and an exit code. `--traceback` shows all of it.

    The exit code is MACHINE_FAILED where memory, a disk or a connection failed, and WRONG_USE for all else.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are no text
    if hasattr(signal, "SIGCHLD"):  # where a parent ignores it, our own children's exit codes would be lost to us
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in ending_signals():
        signal.signal(number, _interrupt)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    arguments = [word for word in sys.argv[1:] if word != "--traceback"]
    try:
        app(arguments, standalone_mode=True)
    except SystemExit as end:  # which typer makes of Ctrl-C without a word
        cause = getattr(end.__context__, "__cause__", None)
        if isinstance(cause, KeyboardInterrupt):
            sys.stderr.write("semslam: interrupted\n")
        raise
    except Exception as error:  # libraries raise kinds of their own for damaged input
        if len(arguments) < len(sys.argv) - 1:
            raise
        if any(isinstance(link, KeyboardInterrupt) for link in causes_of(error)):  # as it comes out of compiled code
            sys.stderr.write("semslam: interrupted\n")
            sys.exit(INTERRUPTED)
        message = with_flags(" ".join(str(error).split()))
        if isinstance(error, FileNotFoundError) and error.filename is None and not _in_a_folder():
            message = "the current folder was removed; go to another one (cd)"
        if is_lack_of_memory(error):
            message = f"too little memory, or too many processes ({message or type(error).__name__})"
        elif not isinstance(error, (ValueError, OSError, ImportError)) or not message:
            message = f"{type(error).__name__}: {message} (--traceback shows where)"
        sys.stderr.write(f"semslam: {message}\n")
        sys.exit(MACHINE_FAILED if is_passing(error) else WRONG_USE)


def _in_a_folder() -> bool:
    """Whether the folder that this process is in is there."""
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does: locks are given back, temporary files removed, and a line says what happened."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
