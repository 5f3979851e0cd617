"""Depth that is not of its colour image: shifted, stretched or turned against it, or of another moment. Needs no poses.

Where depth steps, colour usually has an edge. Depth that fits another place, another side or another moment better than
its own gives itself away, as frames go by: the judgement costs a run no more than a millisecond a frame.
"""

from __future__ import annotations

from itertools import product

import cv2
import numba as nb
import numpy as np

from semslam.compiled import SERIAL, f32
from semslam.doctor.depth.readings import cut_off_at
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
# How depth may lie in its colour image: (right, down) factors of pixels from the middle of the image
TURNS: dict[str, tuple[float, float]] = {
    "mirrored left to right": (-1.0, 1.0),
    "turned upside down": (1.0, -1.0),
    "turned by 180 degrees": (-1.0, -1.0),
}
BESIDE = np.arange(-16.0, 17.0, 4.0)  # pixels at 320 wide: turned depth has to fit better than it does so far beside
AS_IT_IS = len(BESIDE) ** 2 // 2  # where among the pairs of BESIDE there is no shift
STRETCHES_TRIED = np.exp(np.linspace(-0.4, 0.4, 21))  # neighbours differ by 2 % of the image's half at its border ...
STRETCHED = 0.1  # ... and as much of one has to differ; cropped depth that was made as large as colour again
FEWEST_INSIDE = 30  # edge pixels that fall into the image


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
        self._of_turns: list[np.ndarray] = []  # the same for its own depth as it is, and turned, each also moved BESIDE
        self._of_stretches: list[np.ndarray] = []  # the same for its own depth, by STRETCHES_TRIED each way
        self._of_shifts: list[np.ndarray] = []  # the same for its own depth, shifted

    def see(self, frame: Frame) -> bool:
        """Take a frame into account; frames come in order. True once what there is to see was seen."""
        index = frame.index
        if index in self._needed and frame.depth is not None:
            depth = np.ascontiguousarray(frame.depth[:: self._step, :: self._step])
            # Depth that is cut off lacks most steps, and those of what is near alone fit anywhere
            cut = self._recording.cut_off is not None or cut_off_at([depth]) is not None
            self._edges[index] = np.zeros(depth.shape, bool) if cut else _depth_edges(depth)
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
        of_moments = _means(np.array(self._of_moments))
        if any(finding.level == "error" for finding in late) and not (
            beside and self._shift_fits_better(of_moments.max())
        ):
            return late
        return self._turned() or self._stretched() or beside or late

    def _look_at(self, frame: Frame) -> None:
        steep, edges = _steepness(frame, self._step), self._edges[frame.index]
        edges = edges[: steep.shape[0], : steep.shape[1]]
        if not steep.any():  # an image of one colour
            return
        self._steep[frame.index] = steep
        if edges.sum() >= FEWEST_EDGES:
            self._of_turns.append(_fits(steep, edges, _turned(self._step * 320 / self.camera.width)))
            self._of_stretches.append(_fits(steep, edges, _stretched()))
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
        late = "later" if lag > 0 else "earlier"
        seconds = abs(lag) * float(np.median(np.diff(self._recording.timestamps)))
        moment = f"come {abs(lag)} frames ({seconds:.2f} s) {late}"
        what = f"colour images fit the depth images that {moment} better than theirs"
        change = f"take {seconds:.2f} s from" if lag > 0 else f"add {seconds:.2f} s to"
        remedy = (
            f"{change} the times of the depth images, or pair each colour image with the one {abs(lag)} frames {late}"
        )
        return [Finding("hint" if seconds <= SMALL_DELAY else "error", what, remedy)]

    def _shift_fits_better(self, fit: float) -> bool:
        """Whether depth fits better where it is moved than otherwise; a short delay and a shift look much the same."""
        best = float(np.max(np.mean(self._of_shifts, axis=0)))  # correlations are without the mean, which is 1
        return best + 1 > fit

    def _turned(self) -> list[Finding]:
        rows = np.array(self._of_turns).reshape(-1, 1 + len(TURNS), len(BESIDE) ** 2)
        best = _surely_better(rows[:, :, AS_IT_IS], 0)
        if not best or self._shift_fits_better(rows[:, best, AS_IT_IS].mean()):
            return []
        if not _is_clear(_means(rows[:, best]), AS_IT_IS):  # edges gather where colour is busy, as a screen is
            return []
        what = f"the edges of depth fit those of the colour images when it is {list(TURNS)[best - 1]}"
        return [Finding("error", what, "turn the images of one of the two cameras where the files are written")]

    def _stretched(self) -> list[Finding]:
        rows, tried = np.array(self._of_stretches), len(STRETCHES_TRIED)
        best = _surely_better(rows, tried**2 // 2)
        if best is None or not _is_clear(_means(rows), best) or self._shift_fits_better(_means(rows)[best]):
            return []
        wide, high = (float(STRETCHES_TRIED[i]) for i in divmod(best, tried))
        if max(abs(np.log(wide)), abs(np.log(high))) < STRETCHED or {best // tried, best % tried} & {0, tried - 1}:
            return []
        what = f"the edges of depth fit those of the colour images when it is {wide:.2f} times as wide"
        what += "" if abs(np.log(high)) < STRETCHED else f" and {high:.2f} times as high"
        remedy = "one of the two was cropped or resized: bring both to one view, or give the depth camera's intrinsics"
        return [Finding("error", what, f"{remedy} (depth_camera and T_color_depth in camera.yaml)")]

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


def _is_clear(means: np.ndarray, here: int) -> bool:
    """Whether one way (of K) to lay depth into its images stands out of all others."""
    level = float(np.median(means))
    return bool(means[here] - level > CLEAR * 1.48 * float(np.median(np.abs(means - level))))


def _turned(scale: float) -> np.ndarray:
    """(4 * 81, 4) ways to lay depth into an image, factors and shifts right and down: as it is and by TURNS, each with
    all pairs of BESIDE; scale: pixels a pixel of an image 320 wide."""
    return np.array(
        [
            (*turn, right / scale, down / scale)
            for turn in ((1.0, 1.0), *TURNS.values())
            for right, down in product(BESIDE, BESIDE)
        ]
    )


def _stretched() -> np.ndarray:
    """(441, 4) the same for STRETCHES_TRIED."""
    return np.array([(wide, high, 0.0, 0.0) for wide, high in product(STRETCHES_TRIED, STRETCHES_TRIED)])


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


def _fits(steep: np.ndarray, edges: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """(K,) how steep colour (H, W) is where ways (K, 4) put the edges of depth, as a factor of the whole image; NaN
    where hardly any fall into it."""
    v, u = np.nonzero(edges)
    return _mean_steepness(steep, v, u, ways) / steep.mean()


@nb.njit(**SERIAL)
def _mean_steepness(steep, v, u, ways):
    """(K,) of edges at rows v (N,) and columns u (N,)."""
    height, width = steep.shape
    middle_u, middle_v = 0.5 * (width - 1), 0.5 * (height - 1)
    found = np.full(len(ways), np.nan)
    for k in range(len(ways)):
        wide, high, right, down = ways[k]
        total, inside = 0.0, 0
        for i in range(len(u)):
            column = int(np.floor(middle_u + wide * (u[i] - middle_u) + right + 0.5))
            row = int(np.floor(middle_v + high * (v[i] - middle_v) + down + 0.5))
            if 0 <= column < width and 0 <= row < height:
                total += steep[row, column]
                inside += 1
        if inside >= FEWEST_INSIDE:
            found[k] = total / inside
    return found


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
