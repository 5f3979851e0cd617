"""Commands as they are typed, and what they answer."""

from __future__ import annotations

import sys

import pytest

from semslam import cli

ROOM = "room:frames=12,width=128,height=96"
TRUTH = ["--labels", "truth"]


def semslam(*arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    before = sys.argv
    sys.argv = ["semslam", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def refused(capsys: pytest.CaptureFixture, *arguments: object, code: int = cli.WRONG_USE) -> str:
    """The one line that a refused command prints."""
    assert semslam(*arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]
