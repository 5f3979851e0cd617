"""The command line: the only place that prints, exits, sets up logging and shows progress, with `semslam.commands`."""

from __future__ import annotations

import logging
import os
import sys

# each adds its commands to the app; --help lists them in this order
from semslam.commands import mapping, looking, measuring, comparing, learning  # noqa: F401  # isort: skip
from semslam.commands.app import app


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


if __name__ == "__main__":
    main()
