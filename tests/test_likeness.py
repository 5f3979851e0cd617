"""What images are like, beside those that a depth network was trained with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from semslam.runs.color_only.likeness import BRIGHTNESS, Likeness, scale_std, share_strange

f32 = np.float32


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """An image with edges and texture of all widths, through a lens."""
    rng, image = np.random.default_rng(0), np.full((240, 320), 110, f32)
    for size in (4, 8, 16, 32, 64):
        image += cv2.resize(rng.normal(0, 14, (240 // size + 1, 320 // size + 1)).astype(f32), (320, 240))
    grey = np.clip(cv2.GaussianBlur(image, (0, 0), 0.5), 0, 255).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 10, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def test_blur_makes_an_image_less_sharp_and_noise_sharper(photo):
    blurred = [Likeness.of(cv2.GaussianBlur(photo, (0, 0), std)).sharpness for std in (0.5, 1.0, 2.0)]
    sharpness = Likeness.of(photo).sharpness
    assert sharpness > blurred[0] > blurred[1] > blurred[2]
    assert Likeness.of(noisy(photo)).sharpness > sharpness


def test_sharpness_does_not_depend_on_the_light(photo):
    half = Likeness.of(np.rint(photo * 0.5).astype(np.uint8))
    assert half.sharpness == pytest.approx(Likeness.of(photo).sharpness, abs=0.1)  # rounding is noise
    assert half.brightness == pytest.approx(0.5 * Likeness.of(photo).brightness, abs=1)


def test_dark_blurred_and_drawn_images_are_strange():
    usual = Likeness(-0.65, 110.0)
    assert not usual.strange
    assert usual._replace(brightness=BRIGHTNESS - 1).strange
    assert usual._replace(sharpness=-1.5).strange and usual._replace(sharpness=0.1).strange


def test_a_scale_is_doubted_where_most_images_are_strange():
    usual, dark = Likeness(-0.65, 110.0), Likeness(-0.65, 20.0)
    assert share_strange([]) == 0 and share_strange([usual, usual, dark]) == pytest.approx(1 / 3)
    assert scale_std(0.2, 1 / 3) == 0.2 == scale_std(0.2, 0) and scale_std(0.2, share_strange([usual, dark])) > 0.3
