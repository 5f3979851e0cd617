"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is, or seems, wrong."""

    level: Literal["error", "warning", "hint"]  # results will be wrong; look at it; may well be as it should
    what: str
    remedy: str


def counted(number: int, what: str) -> str:
    """So many of something, in words."""
    return f"{number} {what}{'s' if number != 1 else ''}"
