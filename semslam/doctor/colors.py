"""Whether colour images show something, and their channels in the right order."""

from __future__ import annotations

import numpy as np

from semslam.doctor.finding import Finding
from semslam.frame import evenly_spread
from sequences import Sequence

DARK = 12  # grey levels; a median below is an image that shows nothing
COLOURFUL, BRIGHT = 0.25, 40  # of the brightest channel that the darkest lies below it; grey levels of the brightest
FEWEST = 0.02  # of the pixels that are colourful; fewer tell nothing
WARM_SHARE = 0.3  # of colourful pixels; in 98 of 100 indoor photographs (NYUv2) more than 0.46 have red above blue
FRAMES = 5  # that are looked at for a run


def doubtful_colors(images: list[np.ndarray]) -> list[Finding]:
    """What (H, W, 3) uint8 RGB images contradict. Indoors, colourful things are mostly wood, skin and lamp light: red
    above blue."""
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.int16)
    brightest, darkest = pixels.max(axis=1), pixels.min(axis=1)
    findings = _black(brightest)
    colorful = pixels[(brightest - darkest > COLOURFUL * brightest) & (brightest > BRIGHT)]
    if len(colorful) > FEWEST * len(pixels):
        warm = float((colorful[:, 0] > colorful[:, 2]).mean())
        if warm < WARM_SHARE:
            what = f"only {warm:.0%} of the colourful pixels have more red than blue, unusual indoors: RGB may be BGR"
            remedy = "swap the first and third channel where the files are written (OpenCV writes BGR arrays)"
            findings.append(Finding("hint", what, remedy))
    return findings


def black_images(sequence: Sequence) -> list[Finding]:
    """Whether the colour of a recording shows nothing, by up to FRAMES of its frames that can be read."""
    frames = [frame for i in evenly_spread(range(len(sequence)), FRAMES) if (frame := sequence.try_read(i)) is not None]
    return _black(np.concatenate([frame.color[::4, ::4].max(axis=2).ravel() for frame in frames])) if frames else []


def _black(brightest: np.ndarray) -> list[Finding]:
    """Of the brightest channel (N,) of pixels."""
    if np.median(brightest) >= DARK:
        return []
    what = f"the images are nearly black (median {np.median(brightest):.0f} of 255)"
    return [Finding("warning", what, "look at the colour files; 16-bit images may have been cut to 8")]
