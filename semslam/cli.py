"""The command line: the only place that prints, exits, sets up logging and shows progress, with `semslam.commands`."""

from __future__ import annotations

import logging
import os
import sys

# each adds its command to the app; --help lists them in this order
# isort: off
from semslam.commands.mapping import reconstruct, doctor, relabel, refine, config, convert, batch  # noqa: F401
from semslam.commands.looking import view, export  # noqa: F401
from semslam.commands.measuring import evaluate, compare, score  # noqa: F401
from semslam.commands.networks import predict, attend, train, label, calibrate  # noqa: F401

# isort: on
from semslam.commands.app import app, with_flags


def main() -> None:
    """Run the command line; wrong input ends with one line and exit code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app(standalone_mode=True)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        if os.environ.get("SEMSLAM_DEBUG"):
            raise
        message = with_flags(" ".join(str(error).split())) or type(error).__name__
        sys.stderr.write(f"semslam: {message}\n")
        if type(error).__name__ == "UnknownKind":  # of sequences, which is slow to import
            from sequences.devices import table

            sys.stderr.write(table() + "\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
