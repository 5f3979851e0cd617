"""Where points of one image are in another: pyramidal Lucas and Kanade, followed forth and back."""

from __future__ import annotations

import cv2
import numpy as np

LEVELS = 3  # of the pyramid, above the image itself
SHRUNK = 4  # times smaller is the image whose local mean and contrast are computed
FAINT = 16.0  # grey levels: contrast well below it is about doubled and no more, or noise would become texture


def corners_apart(
    grey: np.ndarray, pixels: np.ndarray, count: int, quality: float, apart: int, border: int = 0
) -> np.ndarray:
    """(M, 2) float32 corners of a grey image, at most `count`, `apart` pixels from each other and from pixels (N, 2).

    quality: of a corner, as a share of the best one's. border: pixels along the edges where none is taken.
    """
    free = np.full(grey.shape, 255, np.uint8)
    for u, v in pixels.astype(int).tolist():
        cv2.circle(free, (u, v), apart, 0, -1)
    if border:
        free[:border] = free[-border:] = 0
        free[:, :border] = free[:, -border:] = 0
    corners = cv2.goodFeaturesToTrack(grey, count, quality, apart, mask=free)
    return np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)


def follow(
    before: np.ndarray,
    now: np.ndarray,
    pixels: np.ndarray,
    window: int,
    *,
    start: np.ndarray,
    back: np.ndarray | None = None,
    back_levels: int = LEVELS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow points of a grey image into another one, and from there back.

    Args:
        before, now: (H, W) uint8.
        pixels: (N, 2) float32 in `before`.
        window: side of the patches that are compared, pixels.
        start: (N, 2) float32 in `now`, where the search begins.
        back: (N, 2) float32 in `before`, where the search back begins; None = where the points were found in `now`,
            which lets fewer points pass that are not there.
        back_levels: of the pyramid on the way back.

    Returns:
        The pixels (N, 2) float32 in `now`, how far (N,) from where it came from each ended in pixels, and which (N,)
        were found both ways.
    """
    if len(pixels) == 0:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, bool)
    pixels = np.ascontiguousarray(pixels, np.float32)
    side, guessed = (window, window), cv2.OPTFLOW_USE_INITIAL_FLOW
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before, now, pixels[:, None], start.astype(np.float32)[:, None].copy(), winSize=side, maxLevel=LEVELS,
        flags=guessed,
    )  # fmt: skip
    guess = there if back is None else np.ascontiguousarray(back, np.float32)[:, None]
    ended, again, _ = cv2.calcOpticalFlowPyrLK(
        now, before, there, guess.copy(), winSize=side, maxLevel=back_levels, flags=guessed
    )
    apart = np.linalg.norm(ended.reshape(-1, 2) - pixels, axis=1)
    return there.reshape(-1, 2), apart, (found.ravel() > 0) & (again.ravel() > 0)


def evened(grey: np.ndarray, sigma: float) -> np.ndarray:
    """A grey image (H, W) uint8 with one brightness and contrast everywhere, so that changes of light are no motion.

    sigma: pixels, of the Gaussian by which the mean and the standard deviation around each pixel are weighted.
    """
    height, width = grey.shape
    small, image = (max(1, width // SHRUNK), max(1, height // SHRUNK)), grey.astype(np.float32)

    def around(values: np.ndarray) -> np.ndarray:
        mean = cv2.GaussianBlur(cv2.resize(values, small, interpolation=cv2.INTER_AREA), (0, 0), sigma / SHRUNK)
        return cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)

    image -= around(image)
    gain = 2.25 * FAINT / np.sqrt(around(image * image) + FAINT**2)
    return np.clip(128 + gain * image, 0, 255).astype(np.uint8)
