"""Frames that cannot be read: skipped and counted, until they are more than a run may lack."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from semslam.files.failures import is_passing_in_reading
from semslam.frame import Frame
from sequences import Sequence

logger = logging.getLogger(__name__)
REPEATED = 3  # frames skipped for one reason that are named one by one; the rest is counted


@dataclass
class Unreadable:
    """The frames of a recording that could not be read."""

    sequence: Sequence
    share: float  # of the frames that may be unreadable: the setting `max_corrupt`
    frames: list[int] = field(default_factory=list)  # their indices in the sequence
    recording: str = ""  # what a message calls it, where not by the sequence's name
    remedy: str = ""  # what a message says to do where they are too many
    _last: tuple[int, str] = (-1, "")  # the frame that was told of in full, and why it was skipped
    _repeated: int = 0  # frames skipped for this reason since

    def read(self, frame_of: Callable[[int], Frame], index: int, offered: int) -> Frame | None:
        """Frame `index` of so many, or None where it is skipped; raises as `skip`."""
        try:
            return frame_of(index)
        except (ValueError, OSError) as problem:
            self.skip(index, problem, offered)
        return None

    def skip(self, index: int, problem: Exception, offered: int) -> None:
        """Count a frame and tell why it is skipped.

        ValueError where they are more than the share of the frames offered; the problem itself where it is the
        machine's, for which no whole frame is left out.
        """
        if is_passing_in_reading(problem):
            raise problem
        self.frames.append(index)
        number = self.sequence.number_of(index)
        _, _, why = str(problem).partition(": ")  # after the file's name
        if why and why == self._last[1]:
            self._repeated += 1
            if self._repeated <= REPEATED:
                more = "; further ones are only counted" if self._repeated == REPEATED else ""
                logger.warning("frame %d is skipped for the same reason as frame %d%s", number, self._last[0], more)
        else:
            logger.warning("frame %d is skipped: %s", number, problem)
            self._last, self._repeated = (number, why), 0
        self.check(offered, f"; the last: {problem}")

    def check(self, offered: int, last: str = "") -> None:
        """ValueError where they are more than the share of the frames offered; last: what is said of the last one."""
        if len(self.frames) > self.share * offered:
            raise ValueError(
                f"{self.recording or self.sequence.name}: {len(self.frames)} of {offered} frames are unreadable, more "
                f"than the {100 * self.share:g} % allowed (the setting `max_corrupt`{self.remedy}){last}"
            )
