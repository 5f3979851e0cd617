"""Images that are recorded more than once: the same bytes, as where a recording was appended to itself."""

from __future__ import annotations

from contextlib import suppress

from semslam.doctor.finding import Finding
from sequences import Sequence
from sequences.files import digest_of_samples
from sequences.sequence import ImageSequence

LOOKED_AT = 3000  # frames, from the first on
MANY = 0.1  # of them
LATER = 3  # frames: what comes again sooner is a camera that hung, or another frame rate


def copies(sequence: Sequence) -> list[Finding]:
    """That many colour images are copies of earlier ones; nothing where a file holds many frames."""
    whole, indices = sequence.origin
    if not isinstance(whole, ImageSequence):
        return []
    first: dict[tuple[int, int], int] = {}
    again: list[tuple[int, int]] = []  # a frame, and the last one before it with the same image
    looked_at = indices[:LOOKED_AT]
    for place, index in enumerate(looked_at):
        with suppress(OSError):
            file = whole.color_paths[int(index)]
            image = file.stat().st_size, digest_of_samples(file)
            if image in first:
                again.append((place, first[image]))
            first[image] = place
    later = [(place, earlier) for place, earlier in again if place - earlier >= LATER]
    if len(again) <= MANY * len(looked_at):
        return []
    what = f"{len(again)} of {len(looked_at)} colour images are copies of earlier ones"
    if len(later) <= MANY * len(looked_at):
        return [
            Finding("hint", f"{what}, up to {LATER - 1} frames before", "they add nothing: --every leaves some out")
        ]
    place, earlier = (sequence.number_of(i) for i in later[0])
    what = f"{what}: frame {place} shows the same as frame {earlier}"
    return [Finding("warning", what, "views that are counted again make the map too sure: leave them out (--frames)")]
