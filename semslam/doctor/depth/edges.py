"""Depth that is not of its colour image: shifted or turned against it, or of another moment. Needs no poses.

Where depth steps, colour usually has an edge. Depth that fits another place, another side or another moment better than
its own gives itself away, as frames go by: the judgement costs a run no more than a millisecond a frame.
"""

from __future__ import annotations

import cv2
import numba as nb
import numpy as np

from semslam.compiled import SERIAL, f32
from semslam.doctor.finding import Finding
from semslam.frame import Frame, evenly_spread
from sequences import Sequence as Recording

REACH = 32  # pixels at 640 wide; shifts up to that are looked for
NOTABLE = 5  # pixels at 640 wide
CLEAR = 4.5  # standard deviations of the peak above its surroundings
FEWEST_FRAMES = 4
STRETCHES, REFERENCES, FRAMES_APART = 8, 3, 10  # of frames; colour images in each; how far depth is looked for
LIVE_FRAMES = 300  # the first ones of a camera that still records, from which the stretches are
FEWEST_EDGES = 50  # pixels
FEWEST_IMAGES = 10  # colour images that have to speak for another depth image
UNEQUIVOCAL = (3.0, 0.8)  # standard errors that another depth image fits better; share of images for which it does
SMALL_DELAY = 0.08  # seconds; what cameras that are not triggered together are apart
TURNS: dict[str, tuple[slice, slice]] = {
    "mirrored left to right": (slice(None), slice(None, None, -1)),
    "turned upside down": (slice(None, None, -1), slice(None)),
    "turned by 180 degrees": (slice(None, None, -1), slice(None, None, -1)),
}


class DepthEdges:
    """Collects how well the edges of depth and colour fit, from a few stretches of a recording."""

    def __init__(self, recording: Recording) -> None:
        self.camera, self._recording = recording.camera, recording
        self._step = max(1, recording.camera.width // 320)
        span = 2 * FRAMES_APART + REFERENCES
        count = LIVE_FRAMES if recording.grows else len(recording)
        starts = evenly_spread(range(max(count - span, 1)), STRETCHES)
        middles = {start + FRAMES_APART + i for start in starts for i in range(REFERENCES)}
        self._references = sorted(i for i in middles if i < count)
        near = (range(i - FRAMES_APART, i + FRAMES_APART + 1) for i in self._references)
        self.needed = sorted({i for indices in near for i in indices if 0 <= i < count})
        self._needed = set(self.needed)
        self._edges: dict[int, np.ndarray] = {}  # (h, w) bool of depth, by frame, of the last few frames
        self._steep: dict[int, np.ndarray] = {}  # (h, w) float32 of colour, of frames whose later ones are to come
        self._of_moments: list[list[float]] = []  # of each reference: how well depth of other moments fits it
        self._of_turns: list[list[float]] = []  # the same for its own depth as it is, and turned
        self._of_shifts: list[np.ndarray] = []  # the same for its own depth, shifted

    def see(self, frame: Frame) -> bool:
        """Take a frame into account; frames come in order. True once what there is to see was seen."""
        index = frame.index
        if index in self._needed and frame.depth is not None:
            self._edges[index] = _depth_edges(np.ascontiguousarray(frame.depth[:: self._step, :: self._step]))
            if index in self._references:
                self._look_at(frame)
        for reference in [i for i in self._steep if i + FRAMES_APART <= index]:
            self._compare(reference)
        for old in [i for i in self._edges if i < index - 2 * FRAMES_APART]:
            del self._edges[old]
        return not self._steep and (not self._references or index >= self._references[-1])

    @property
    def told(self) -> bool:
        """Whether enough edges were seen to tell anything."""
        return len(self._of_shifts) >= FEWEST_FRAMES

    def findings(self) -> list[Finding]:
        """What is wrong; empty where too little was seen."""
        for reference in list(self._steep):  # at the end of a recording
            self._compare(reference)
        late, beside = self._late(), self._beside()
        if any(finding.level == "error" for finding in late) and not (beside and self._shift_fits_best()):
            return late
        return self._turned() or beside or late

    def _look_at(self, frame: Frame) -> None:
        steep, edges = _steepness(frame, self._step), self._edges[frame.index]
        edges = edges[: steep.shape[0], : steep.shape[1]]
        if not steep.any():  # an image of one colour
            return
        self._steep[frame.index] = steep
        if edges.sum() >= FEWEST_EDGES:
            turned = (edges, *(edges[turn] for turn in TURNS.values()))
            self._of_turns.append([float(steep[e].mean() / steep.mean()) for e in turned])
            reach = max(4, round(REACH * self.camera.width / 640 / self._step))
            self._of_shifts.append(_correlation(steep, edges.astype(np.float32), reach) / steep.mean())

    def _compare(self, reference: int) -> None:
        steep, row = self._steep.pop(reference), []
        mean = steep.mean()
        for index in range(reference - FRAMES_APART, reference + FRAMES_APART + 1):
            edges = self._edges.get(index)
            if edges is None or edges.sum() < FEWEST_EDGES:
                row.append(np.nan)
            else:
                row.append(float(steep[edges[: steep.shape[0], : steep.shape[1]]].mean() / mean))
        if np.isfinite(row[FRAMES_APART]):
            self._of_moments.append(row)

    def _late(self) -> list[Finding]:
        best = _surely_better(np.array(self._of_moments), FRAMES_APART)
        if best is None or abs(lag := best - FRAMES_APART) < 2:
            return []
        late, seconds = (
            ("later" if lag > 0 else "earlier"),
            abs(lag) * float(np.median(np.diff(self._recording.timestamps))),
        )
        moment = f"come {abs(lag)} frames ({seconds:.2f} s) {late}"
        what = f"colour images fit the depth images that {moment} better than theirs"
        change = f"take {seconds:.2f} s from" if lag > 0 else f"add {seconds:.2f} s to"
        remedy = (
            f"{change} the times of the depth images, or pair each colour image with the one {abs(lag)} frames {late}"
        )
        return [Finding("hint" if seconds <= SMALL_DELAY else "error", what, remedy)]

    def _shift_fits_best(self) -> bool:
        """Whether no other moment fits as well as a shift; a short delay and a shift look much the same."""
        shifted = float(np.max(np.mean(self._of_shifts, axis=0))) + 1  # correlations are without the mean, which is 1
        return shifted > float(_means(np.array(self._of_moments)).max())

    def _turned(self) -> list[Finding]:
        best = _surely_better(np.array(self._of_turns), 0)
        if not best or np.max(np.mean(self._of_shifts, axis=0)) > np.mean(self._of_turns, axis=0)[best] - 1:
            return []  # as it should be, or a shift fits better
        what = f"the edges of depth fit those of the colour images when it is {list(TURNS)[best - 1]}"
        return [Finding("error", what, "turn the images of one of the two cameras where the files are written")]

    def _beside(self) -> list[Finding]:
        if not self.told:
            return []
        mean = np.mean(self._of_shifts, axis=0)
        reach = len(mean) // 2
        row, column = np.unravel_index(int(np.argmax(mean)), mean.shape)
        u, v = int(column - reach) * self._step, int(row - reach) * self._step
        level = float(np.median(mean))
        spread = 1.48 * float(np.median(np.abs(mean - level))) + 1e-9
        peak, here = mean[row, column] - level, mean[reach, reach] - level
        far = np.hypot(u, v) >= max(3, NOTABLE * self.camera.width / 640)
        if not far or peak < CLEAR * spread or here > 0.7 * peak:
            return []
        what = f"the edges of depth fit those of the colour images when it is moved by about ({u}, {v}) pixels"
        remedy = (
            "register depth to colour (depth_camera and T_color_depth in camera.yaml do), or move one of the images"
        )
        return [Finding("error", what, remedy)]


def seen(recording: Recording) -> DepthEdges:
    """The edges of a recording, from the frames that tell whether its depth is of its colour."""
    edges = DepthEdges(recording)
    for index in edges.needed:
        if (frame := recording.try_read(index)) is not None:
            edges.see(frame)
    return edges


def _surely_better(rows: np.ndarray, usual: int) -> int | None:
    """The column that fits best, where most images leave no doubt that it fits better than the usual one."""
    if len(rows) < FEWEST_IMAGES:
        return None
    best = int(np.argmax(_means(rows)))
    gain = rows[:, best] - rows[:, usual]
    gain = gain[np.isfinite(gain)]
    if len(gain) < FEWEST_IMAGES or (gain > 0).mean() < UNEQUIVOCAL[1]:
        return None
    independent = max(len(gain) / REFERENCES, 1)  # images of one stretch say much the same
    return best if gain.mean() > UNEQUIVOCAL[0] * gain.std() / np.sqrt(independent) else None


def _means(rows: np.ndarray) -> np.ndarray:
    """The mean of each column without its NaN, -inf where nothing is left: a depth camera that is slower than the
    colour camera has no image at some of the moments."""
    known = np.isfinite(rows).sum(axis=0)
    return np.where(known > 0, np.nansum(rows, axis=0) / np.maximum(known, 1), -np.inf)


def _correlation(steep: np.ndarray, edges: np.ndarray, reach: int) -> np.ndarray:
    """How strong colour's edges are where depth's are, for (2 reach + 1)^2 shifts of depth."""
    spectrum = np.fft.rfft2(steep - steep.mean()) * np.conj(np.fft.rfft2(edges))
    correlation = np.roll(np.fft.irfft2(spectrum, s=steep.shape), (reach, reach), (0, 1)) / edges.sum()
    return correlation[: 2 * reach + 1, : 2 * reach + 1]


def _steepness(frame: Frame, step: int) -> np.ndarray:
    """How steep the grey levels are, at every `step`-th pixel, against their surroundings: faint edges count too."""
    height, width = frame.color.shape[0] // step, frame.color.shape[1] // step
    grey = cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    steep = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return np.minimum(steep / (cv2.blur(steep, (31, 31)) + 1), 4)


@nb.njit(**SERIAL)
def _depth_edges(depth):
    """Which pixels (H, W) lie at a step of depth, to the right or below; none at the border of the image."""
    height, width = depth.shape
    edges = np.zeros(depth.shape, np.bool_)
    for v in range(4, height - 4):
        for u in range(4, width - 4):
            here = depth[v, u]
            for other in (depth[v, u + 1], depth[v + 1, u]):
                if here > 0 and other > 0 and abs(here - other) > f32(0.08) * min(here, other):
                    edges[v, u] = True
    return edges
