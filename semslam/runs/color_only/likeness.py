"""Whether images are like those that the depth network was trained with, without which its scale is doubtful.

Blur makes a network see everything nearer, darkness with noise mostly farther; drawn images are sharper than any lens.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

LONGEST = 640  # pixels: longer side of the images that are judged
COARSE = 2.0, 4.0  # pixels: standard deviations of the blurs between which structure is not fine any more
STRONG = 95.0  # per cent of the pixels show less than what is compared
FLOOR = 0.05  # grey levels, so that an even image has a logarithm
SHARPNESS = -1.2, -0.15  # of NYUv2's training images: 4 % are less sharp, 1 % are more
BRIGHTNESS = 39.0  # mean grey level: 1 % of them are darker
MOSTLY = 0.5  # share of strange images, from which the scale is doubted
STRANGE_STD = 0.3  # of the logarithm of truth / network in a place whose images are not like those


class Likeness(NamedTuple):
    """What an image is like."""

    sharpness: float  # logarithm of how strong its finest edges are, over that of edges 4 pixels wide
    brightness: float  # mean grey level, 0..255

    @staticmethod
    def of(color: np.ndarray) -> Likeness:
        """Of an image (H, W, 3) uint8 RGB; smaller ones are looked at enlarged, as by the network."""
        grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY).astype(np.float32)
        ratio = LONGEST / max(grey.shape)
        if ratio != 1:
            how = cv2.INTER_LINEAR if ratio > 1 else cv2.INTER_AREA
            size = round(grey.shape[1] * ratio), round(grey.shape[0] * ratio)
            grey = cv2.resize(grey, size, interpolation=how).astype(np.float32)
        one, two, four = (cv2.GaussianBlur(grey, (0, 0), std) for std in (1.0, *COARSE))
        fine, coarse = (np.percentile(np.abs(a - b)[::2, ::2], STRONG) + FLOOR for a, b in ((grey, one), (two, four)))
        return Likeness(float(np.log(fine / coarse)), float(grey.mean()))

    @property
    def strange(self) -> bool:
        """Whether the network has hardly seen such an image: blurred, sharper or noisier, or darker."""
        return not SHARPNESS[0] <= self.sharpness <= SHARPNESS[1] or self.brightness < BRIGHTNESS


def share_strange(images: list[Likeness]) -> float:
    """The share 0..1 of the images that are strange; 0 of none."""
    return sum(image.strange for image in images) / max(len(images), 1)


def scale_std(std: float, strange: float) -> float:
    """The relative standard deviation of a scale that a network voted for in images of which a share of 0..1 is
    strange, if it would be `std` in images like those that it was trained with."""
    return float(np.hypot(std, STRANGE_STD)) if strange >= MOSTLY else std
