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
