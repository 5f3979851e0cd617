"""Faults of depth images that need no poses: along the ray, beside the colour image, or of another moment than it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.frame import Frame, evenly_spread
from sequences import Sequence as Recording

FEWEST_PATCHES = 60
ALONG_RAY = 0.42  # of plane patches that are flatter as z: sound recordings have 0.67 and more, rays 0.34 at most
REACH = 32  # pixels at 640 wide; shifts up to that are looked for
NOTABLE = 5  # pixels at 640 wide
CLEAR = 4.5  # standard deviations of the peak above its surroundings
FEWEST_FRAMES = 4
STRETCHES, REFERENCES, FRAMES_APART = 6, 3, 10  # of frames; colour images in each; how far depth is looked for
FEWEST_EDGES = 50  # pixels
FEWEST_IMAGES = 10  # colour images that have to speak for a delay
UNEQUIVOCAL = (3.0, 0.8)  # standard errors that another depth image fits better; share of images for which it does
SMALL_DELAY = 0.08  # seconds; what cameras that are not triggered together are apart


def along_the_ray(frames: Sequence[Frame]) -> list[Finding]:
    """Whether depth is the distance from the camera and not z: then planes are flat only when it is read so.

    The inverse of z is linear over the pixels of a plane. Patches that are nearly flat either way are compared.
    """
    rows = [row for frame in frames if frame.depth is not None for row in _patches(frame.depth, frame.camera)]
    if not rows:
        return []
    as_z, as_ray = np.array(rows).T
    flat = np.minimum(as_z, as_ray)
    chosen = flat <= np.percentile(flat, 30)
    if chosen.sum() < FEWEST_PATCHES or float((as_z < as_ray)[chosen].mean()) > ALONG_RAY:
        return []
    what = "planes are flat only when depth is the distance along each pixel's ray, not along the optical axis"
    remedy = "write `depth_along_ray: true` into camera.yaml"
    return [Finding("error", what, remedy)]


def beside_the_colour(frames: Sequence[Frame]) -> list[Finding]:
    """Whether depth lies a constant number of pixels beside the colour image, by edges that they share."""
    camera = frames[0].camera
    step = max(1, camera.width // 320)
    reach = max(4, round(REACH * camera.width / 640 / step))
    found = [c for frame in frames if (c := _edge_correlation(frame, step, reach)) is not None]
    if len(found) < FEWEST_FRAMES:
        return []
    mean = np.mean(found, axis=0)
    row, column = np.unravel_index(int(np.argmax(mean)), mean.shape)
    u, v = int(column - reach) * step, int(row - reach) * step
    level = float(np.median(mean))
    spread = 1.48 * float(np.median(np.abs(mean - level))) + 1e-9
    peak, here = mean[row, column] - level, mean[reach, reach] - level
    if np.hypot(u, v) < max(3, NOTABLE * camera.width / 640) or peak < CLEAR * spread or here > 0.7 * peak:
        return []
    what = f"the edges of depth fit those of the colour images when it is moved by about ({u}, {v}) pixels"
    remedy = "register depth to colour (depth_camera and T_color_depth in camera.yaml do), or move one of the images"
    return [Finding("error", what, remedy)]


def delayed(recording: Recording) -> list[Finding]:
    """Whether depth images fit colour images of another moment, by the edges that they share while the camera moves."""
    step = max(1, recording.camera.width // 320)
    span = 2 * FRAMES_APART + REFERENCES
    starts = evenly_spread(range(max(len(recording) - span, 1)), STRETCHES)
    rows = [row for start in starts for row in _fits(recording, range(start, min(start + span, len(recording))), step)]
    if len(rows) < FEWEST_IMAGES:
        return []
    known = np.isfinite(rows).sum(axis=0)  # a depth camera that is slower has no image at some of the moments
    best = int(np.argmax(np.where(known > 0, np.nansum(rows, axis=0) / np.maximum(known, 1), -np.inf)))
    gain = np.array([row[best] - row[FRAMES_APART] for row in rows])
    gain = gain[np.isfinite(gain)]
    lag, interval = best - FRAMES_APART, float(np.median(np.diff(recording.timestamps)))
    independent = len(gain) / REFERENCES  # images of one stretch say much the same
    clear = gain.mean() > UNEQUIVOCAL[0] * gain.std() / np.sqrt(max(independent, 1)) if len(gain) else False
    if abs(lag) < 2 or len(gain) < FEWEST_IMAGES or not clear or (gain > 0).mean() < UNEQUIVOCAL[1]:
        return []
    late, seconds = ("later" if lag > 0 else "earlier"), abs(lag) * interval
    what = f"colour images fit the depth images that come {abs(lag)} frames ({seconds:.2f} s) {late} better than theirs"
    change = f"take {seconds:.2f} s from" if lag > 0 else f"add {seconds:.2f} s to"
    remedy = f"{change} the times of the depth images, or pair each colour image with the one {abs(lag)} frames {late}"
    return [Finding("hint" if seconds <= SMALL_DELAY else "error", what, remedy)]


def _fits(recording: Recording, indices: range, step: int) -> list[list[float]]:
    """For colour images in the middle of a stretch: how strong their edges are where those of the depth images are
    that come up to FRAMES_APART frames earlier and later, against the whole image; NaN where there are none."""
    frames = [recording.readable(index) for index in indices]
    edges = [None if f is None or f.depth is None else _depth_edges(f.depth[::step, ::step]) for f in frames]
    rows = []
    for middle in range(FRAMES_APART, min(FRAMES_APART + REFERENCES, len(frames))):
        frame = frames[middle]
        if frame is None:
            continue
        steep, row = _steepness(frame, step), []
        if not steep.any():  # an image of one colour
            continue
        for at in range(middle - FRAMES_APART, middle + FRAMES_APART + 1):
            there = edges[at] if at < len(edges) else None
            if there is None or there.sum() < FEWEST_EDGES:
                row.append(float("nan"))
            else:
                row.append(float(steep[there[: steep.shape[0], : steep.shape[1]]].mean() / steep.mean()))
        if np.isfinite(row[FRAMES_APART]):
            rows.append(row)
    return rows


def _patches(depth: np.ndarray, camera: Camera) -> list[tuple[float, float]]:
    """How far square patches of an image are from planes, relative to depth: read as z, and as the ray's length."""
    width = max(24, camera.width // 8)
    step = max(1, width // 12)
    u, v = (np.arange(camera.width) - camera.cx) / camera.fx, (np.arange(camera.height) - camera.cy) / camera.fy
    stretch = np.sqrt(1 + u[None, :] ** 2 + v[:, None] ** 2)
    found = []
    for top in range(0, camera.height - width + 1, width // 2):
        for left in range(0, camera.width - width + 1, width // 2):
            rows, columns = np.mgrid[top : top + width : step, left : left + width : step]
            z = depth[rows, columns]
            there = z > 0
            if there.mean() < 0.8:
                continue
            basis = np.column_stack([columns[there] - left, rows[there] - top, np.ones(there.sum())])
            inverse = 1 / z[there].astype(np.float64)
            both = np.column_stack([inverse, inverse * stretch[rows, columns][there]])
            rest = both - basis @ np.linalg.lstsq(basis, both, rcond=None)[0]
            found.append(tuple(np.sqrt((rest**2).mean(axis=0)) / both.mean(axis=0)))
    return found


def _edge_correlation(frame: Frame, step: int, reach: int) -> np.ndarray | None:
    """How strong colour's edges are where depth's are, for (2 reach + 1)^2 shifts of depth, `step` pixels apart."""
    if frame.depth is None:
        return None
    steep = _steepness(frame, step)
    edges = _depth_edges(frame.depth[::step, ::step][: steep.shape[0], : steep.shape[1]]).astype(np.float32)
    if edges.sum() < FEWEST_EDGES:
        return None
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


def _depth_edges(depth: np.ndarray) -> np.ndarray:
    """Which pixels (H, W) lie at a step of depth."""
    edges = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        other = np.roll(depth, -1, axis)
        both = (depth > 0) & (other > 0)
        edges |= both & (np.abs(depth - other) > 0.08 * np.minimum(depth, other))
    edges[:4] = edges[-4:] = edges[:, :4] = edges[:, -4:] = False
    return edges
