"""Whether label images are of their colour images: where classes meet, colour or depth has an edge.

What the boundaries of some frames' labels gain over any pixels is held against what the same labels gain mirrored,
upside down and turned by half. Measured: 0.37 to 0.43 in kitchen, living room and synthetic room, 0.29 in ten pairs of
NYUv2 that people labelled; 0.08 with labels of quite other frames.

The edges of frames before and after tell whether labels are a few frames off. Measured: no alarm in 33 parts and
variants of kitchen and living room (23 of them with a laxer rule); of labels 1 to 10 frames off five of six were told
in the living room, fewer in the kitchen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from semslam.doctor.finding import Finding
from semslam.frame import UNLABELLED, Frame, evenly_spread
from semslam.images.resizing import resized_depth, resized_ids
from sequences import Sequence as Recording

FRAMES, FEWEST = 12, 6  # with labels: that are looked at, at most and at least
WIDTH = 320  # pixels to which images are reduced
DEPTH_STEP = 1.05  # times, from one pixel to the next
LEVELS = 16  # steps of an edge's strength in a grey level, that its rank goes by
BORDER = 4  # pixels at the sides of an image, whose edges are of other kinds
FEWEST_PIXELS = 100  # of boundaries in a frame
NONE, SOUND = 0.10, 0.18  # gain over labels that are turned: of other images, and of their own
FIRST_OFFSETS = (-4, -2, 2, 4)  # frames, of OFFSETS: where none of them gains anything, no others are looked at
OFFSETS = (-8, -4, -2, -1, 1, 2, 4, 8)  # frames
SHIFTS = tuple((down, across) for down in range(-6, 7, 3) for across in range(-6, 7, 3))  # pixels of labels, tried
LATE, CERTAIN = 0.015, 4.0  # gain with another frame's edges over theirs: at least, in standard errors
TURNED_BETTER = 0.15  # gain of labels that are turned over those as they are
REMEDY = "give each frame its own labels, as its colour lies; only --labels truth uses them"
TURNS: dict[str, Any] = {"mirrored": np.s_[:, ::-1], "upside down": np.s_[::-1], "turned by half": np.s_[::-1, ::-1]}


class Gains(NamedTuple):
    """By how much edges are stronger, in ranks from 0 to 1, where classes meet: means over some frames."""

    frames: int
    own: float
    turned: dict[str, float]  # of the same labels, by a key of TURNS
    late: int = 0  # frames: by so many later ones' edges fit the labels clearly better; 0 where none do

    @property
    def told(self) -> bool:
        return self.frames >= FEWEST and bool(self.findings() or self._over_turned > SOUND)

    @property
    def _over_turned(self) -> float:
        return self.own - float(np.median(list(self.turned.values())))

    def findings(self) -> list[Finding]:
        if self.frames < FEWEST:
            return []
        name, best = max(self.turned.items(), key=lambda item: item[1])
        if best - self.own > TURNED_BETTER:
            return [Finding("error", f"the label images are {name}: so turned back they fit the colour images", REMEDY)]
        if self.late:
            count, when = abs(self.late), "later" if self.late > 0 else "earlier"
            what = f"the label images belong to colour images about {count} frame{'s' * (count > 1)} {when}"
            return [Finding("warning", what, REMEDY)]
        if self._over_turned < NONE:
            what = (
                f"the label images are not of their colour images: in {self.frames} frames classes hardly meet at edges"
            )
            return [Finding("error", what, REMEDY)]
        return []


def measured(recording: Recording) -> Gains | None:
    """The gains of a recording's labels; None where it has none."""
    if not recording.labelled_indices:
        return None
    gains: list[list[float]] = []
    shifted: list[list[float]] = []  # gains of labels as they are, but by SHIFTS elsewhere
    looked_at: dict[int, np.ndarray] = {}  # boundaries by frame
    for index in evenly_spread(recording.labelled_indices, FRAMES):
        frame = recording.try_read(index, labels=True)
        if frame is None or frame.labels is None or (boundaries := _boundaries(frame)).sum() < FEWEST_PIXELS:
            continue
        edges = _edges(frame, boundaries.shape)
        gains.append([_gain(edges, boundaries[turn]) for turn in (np.s_[:], *TURNS.values())])
        shifted.append([_gain(edges, np.roll(boundaries, shift, (0, 1))) for shift in SHIFTS])
        looked_at[index] = boundaries
    own, *turned = np.mean(gains, axis=0) if gains else np.zeros(1 + len(TURNS))
    late = _late(recording, looked_at, np.array(shifted)) if len(gains) >= FEWEST else 0
    return Gains(len(gains), float(own), dict(zip(TURNS, map(float, turned))), late)


def _late(recording: Recording, looked_at: dict[int, np.ndarray], shifted: np.ndarray) -> int:
    """The offset whose frames' edges gain most over the labels' own; 0 where none clearly does, or where one shift of
    all labels would do the same.

    looked_at: boundaries by frame. shifted: (len(looked_at), len(SHIFTS)) gains with their own edges.
    """
    own = shifted[:, np.argmax(shifted.mean(axis=0))]
    if not any(len(over) and over.mean() > 0 for over in (_over(recording, looked_at, own, k) for k in FIRST_OFFSETS)):
        return 0  # nearly always, and at half the cost
    best, most = 0, LATE
    for offset in OFFSETS:
        over = _over(recording, looked_at, own, offset)
        if len(over) >= FEWEST and over.mean() > max(most, CERTAIN * over.std(ddof=1) / np.sqrt(len(over))):
            best, most = offset, float(over.mean())
    return best


def _over(recording: Recording, looked_at: dict[int, np.ndarray], own: np.ndarray, offset: int) -> np.ndarray:
    """What boundaries gain, over their own, with the edges of the frames so much later; of those that there are."""
    over = []
    for (index, boundaries), gain in zip(looked_at.items(), own):
        other = recording.try_read(index + offset) if 0 <= index + offset < len(recording) else None
        if other is not None:
            over.append(_gain(_edges(other, boundaries.shape), boundaries) - gain)
    return np.array(over)


def _gain(edges: np.ndarray, boundaries: np.ndarray) -> float:
    """By how much edges (H, W) are stronger at boundaries (H, W) than at any pixel."""
    return float(edges[boundaries].mean() - edges.mean())


def _edges(frame: Frame, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) rank of the strongest edge of colour a pixel or two from each pixel, 0 to 1; 1 beside a step of depth."""
    size = shape[1], shape[0]
    color = cv2.resize(frame.color, size, interpolation=cv2.INTER_AREA)
    depth = None if frame.depth is None else resized_depth(frame.depth, size)
    smooth = cv2.GaussianBlur(color, (0, 0), 1.0).astype(np.float32)
    gradients = [cv2.Sobel(smooth, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))]
    strength = cv2.dilate(np.sqrt(sum(np.einsum("ijk,ijk->ij", g, g) for g in gradients)), np.ones((5, 5)))
    levels = np.minimum(strength * LEVELS, 65535).astype(np.uint16)
    counts = np.bincount(levels.ravel(), minlength=65536)
    ranks = ((counts.cumsum() - counts / 2) / levels.size)[levels]  # in a fifth of the time that sorting takes
    if depth is None or not depth.any():
        return ranks
    around = np.ones((3, 3))
    farthest = cv2.dilate(depth, around)
    nearest = cv2.erode(np.where(depth > 0, depth, np.float32(np.inf)), around)
    return np.maximum(ranks, cv2.dilate((farthest / DEPTH_STEP > nearest).astype(np.uint8), around))


def _boundaries(frame: Frame) -> np.ndarray:
    """(H, W) bool, WIDTH wide: pixels whose class is another one than that of the pixel to their left or above."""
    assert frame.labels is not None
    size = (WIDTH, round(frame.camera.height * WIDTH / frame.camera.width))
    labels = resized_ids(frame.labels, size)
    there, found = labels != UNLABELLED, np.zeros(labels.shape, bool)
    found[:, 1:] |= (labels[:, 1:] != labels[:, :-1]) & there[:, 1:] & there[:, :-1]
    found[1:] |= (labels[1:] != labels[:-1]) & there[1:] & there[:-1]
    inside = np.zeros(labels.shape, bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    return found & inside
