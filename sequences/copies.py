"""Copies that a file manager left among the images of a folder: `000010 (1).png`, `000010 - Copy.png`.

Taken for a frame, a copy would move all that follow in time, and away from their poses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

FEW = 0.05  # of the files; where more are named otherwise, they are frames


def without_copies(files: Mapping[str, Path]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files, by name without suffix, that are no copies of others, and notes for people of what was left out and of
    what is named unlike nearly all others."""
    forms = {name: re.sub("[0-9]+", "0", name) for name in files}
    usual = Counter(forms.values()).most_common(1)[0][0] if files else ""
    odd = [name for name, form in forms.items() if form != usual]
    if not odd or len(odd) > FEW * len(files):
        return dict(files), ()
    copied = {name: original for name in odd if (original := _original(files[name], files, odd)) is not None}
    notes = [f"{files[name]}: is a copy of {original.name}, and is left out" for name, original in copied.items()]
    notes += [
        f"{files[name]}: is named unlike the other {len(files) - len(odd)} images, and is taken for a frame: if it is "
        "none, remove it"
        for name in odd
        if name not in copied
    ]
    return {name: file for name, file in files.items() if name not in copied}, tuple(notes)


def _original(copy: Path, files: Mapping[str, Path], odd: list[str]) -> Path | None:
    """A file with the usual name and the same bytes."""
    size = copy.stat().st_size
    alike = (file for name, file in files.items() if name not in odd and file.stat().st_size == size)
    return next((file for file in alike if file.read_bytes() == copy.read_bytes()), None)
