"""A camera as a sequence that waits: it grows while it is iterated over, and is a plain folder afterwards."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from semslam import images
from semslam.frame import Frame
from sequences.live.capture import WARM_UP, Capture, Captured, Source
from sequences.recordings.camera_file import write_camera_file
from sequences.sequence import Sequence

logger = logging.getLogger(__name__)

KEPT = 8  # frames that are kept in memory, and that wait to be written, at most


class LiveSequence(Sequence):
    """What a camera records while it is asked for, each frame the newest image there is.

    Every frame is also written to a plain folder: frames that are no longer in memory are read from there, and who
    opens the folder later finds the same frames, bit by bit.
    """

    grows = True
    ahead = 1
    label_set = None
    poses = None

    def __init__(
        self,
        source: Source,
        path: Path,
        *,
        stop: Callable[[], bool] = lambda: False,
        frames: int | None = None,
        warm_up: int = WARM_UP,
    ) -> None:
        """path: the folder to write, which must not exist. stop: asked whether the recording is to end. frames: at
        most; all by default. warm_up: images at the start that are not used.

        Waits for the first image, which tells what the camera sees; the frames begin with the iteration. ValueError
        where there is something at the path, OSError where no image comes, KeyboardInterrupt where `stop` said so
        before one came.
        """
        if path.exists():
            raise ValueError(f"{path}: holds a recording; name another --out, or remove it first")
        self.path, self.name, self.sensor = path, source.name, source.sensor
        self._distorted, self.camera = source.camera, source.camera.undistorted()
        self._depth_scale = source.depth_scale
        self.has_depth = source.depth_scale is not None
        self._frames, self._stop = frames, stop
        self.seen = 0  # images that the camera gave while frames were asked for; counted at the end
        self._missed = 0  # that it gave before
        self._times: list[float] = []  # seconds from the first image on
        self._began: float | None = None
        self._kept: dict[int, Frame] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._writing: deque[Future] = deque()
        self._capture: Capture | None = Capture(source, warm_up)
        self._preview = self._next()
        if self._preview is None:
            problem = self._capture.problem or "is it plugged in, and used by no other program?"
            self.end()
            if stop():
                raise KeyboardInterrupt  # as the signal would have done that `stop` remembers
            raise OSError(f"{source.name}: the camera gives no image; {problem}")

    def __len__(self) -> int:
        """Frames so far; the preview counts until there are."""
        return max(len(self._times), 1)

    @property
    def timestamps(self) -> np.ndarray:  # type: ignore[override]
        return np.array(self._times or [0.0])

    @property
    def assumptions(self) -> tuple[str, ...]:  # type: ignore[override]
        if not self.seen:
            return ()
        return (f"{self.dropped} of {self.seen} images of the camera were dropped, not to fall behind it",)

    @property
    def dropped(self) -> int:
        """Images of the camera that became no frame: another came before they were asked for. 0 until the end."""
        return self.seen - len(self._times) if self.seen else 0

    def numbers(self, start: int = 0) -> Iterator[int]:
        index = start
        while index < len(self._times) or self._record():
            yield index
            index += 1

    def __getitem__(self, index: int) -> Frame:
        i = self._checked(index)
        if not self._times and self._preview is not None:
            return self._preview
        if (frame := self._kept.get(i)) is not None:
            return frame
        color = images.read_color(self.path / "color" / self.name_of(i))
        depth = None
        if self._depth_scale is not None:
            depth = images.read_depth(self.path / "depth" / self.name_of(i), self._depth_scale)
        return Frame(i, self._times[i], color, self.camera, depth)

    def name_of(self, index: int) -> str:
        return f"{self._times[index] if self._times else 0.0:.6f}.png"

    def size_of(self, index: int) -> int:
        paths = [self.path / folder / self.name_of(index) for folder in ("color", "depth")]
        return sum(path.stat().st_size for path in paths if path.is_file())

    @property
    def _recent(self) -> Callable[[int], Frame]:  # type: ignore[override]
        return self.__getitem__  # recent frames are in memory, and frame 0 is not yet what the preview was

    def end(self) -> None:
        """Switch the camera off and finish the folder; done by itself where the iteration ends."""
        if self._capture is not None:
            self._capture.close()
            self.seen = self._capture.seen - self._missed
            if self._capture.problem is not None:
                logger.warning("%s: the recording ends here: %s", self.name, self._capture.problem)
            self._capture = None
        self._writer.shutdown()
        while self._writing:
            self._writing.popleft().result()

    def _next(self) -> Frame | None:
        """The newest image as a frame; None at the end."""
        captured = None if self._capture is None else self._capture.newest(self._stop)
        return None if captured is None else self._frame(captured)

    def _record(self) -> bool:
        """Make the newest image the next frame; False when there is none to come."""
        if self._capture is None:
            return False
        if not self._times:
            self._begin()
        frame = None if len(self._times) == self._frames else self._next()
        if frame is None:
            self.end()
            return False
        self._times.append(frame.timestamp)
        self._kept[frame.index] = frame
        if len(self._writing) == KEPT:
            self._writing.popleft().result()
        self._kept.pop(frame.index - KEPT, None)  # it is written now
        self._writing.append(self._writer.submit(self._write, frame))
        return True

    def _begin(self) -> None:
        """Forget the preview: while everything else was made ready, the camera may have moved."""
        assert self._capture is not None
        self._preview, self._began = None, None
        self._missed = self._capture.seen
        (self.path / "color").mkdir(parents=True)
        if self._depth_scale is not None:
            (self.path / "depth").mkdir()
        write_camera_file(self.path / "camera.yaml", self.camera, self._depth_scale, sensor=self.sensor)

    def _frame(self, captured: Captured) -> Frame:
        if self._began is None:
            self._began = captured.seconds
        seconds = round(captured.seconds - self._began, 6)
        depth = None
        if captured.depth is not None and self._depth_scale is not None:
            units = self._distorted.undistort(captured.depth, nearest=True)
            depth = images.depth_of_units(units, self._depth_scale)
        color = self._distorted.undistort(captured.color)
        return Frame(len(self._times), seconds, color, self.camera, depth)

    def _write(self, frame: Frame) -> None:
        name = self.name_of(frame.index)
        images.write_png(self.path / "color" / name, frame.color)
        if frame.depth is not None and self._depth_scale is not None:
            images.write_png(self.path / "depth" / name, images.depth_units(frame.depth, self._depth_scale))
