"""JPEG files whose codes were damaged: what a decoder would draw noise from is no image."""

from __future__ import annotations

import io
from itertools import product

import cv2
import numpy as np
import pytest
from PIL import Image

from semslam.images import CorruptFrame, color_of_bytes
from semslam.images.jpeg import is_damaged, segments

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.mgrid[:150, :203]
PICTURE = (
    np.clip(
        128
        + 90 * np.sin(ROWS / 9 + np.array([0, 1, 2])[:, None, None]) * np.cos(COLUMNS / 7)
        + RNG.normal(0, 8, (3, 150, 203)),
        *(0, 255),
    )
    .transpose(1, 2, 0)
    .astype(np.uint8)
)
PROGRESSIVE, RESTARTS, SAMPLING = (
    cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL, cv2.IMWRITE_JPEG_SAMPLING_FACTOR
)  # fmt: skip
KINDS = {"sequential": (), "restarted": (RESTARTS, 3), "progressive": (PROGRESSIVE, 1)}


def jpeg(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


def hole(data: bytes, start: int, size: int) -> bytes:
    return data[:start] + bytes(size) + data[start + size :]


def noise(data: bytes, start: int, size: int) -> bytes:
    return data[:start] + np.random.default_rng(start).bytes(size) + data[start + size :]


def gone(data: bytes, start: int, size: int) -> bytes:
    return data[:start] + data[start + size :]


def cut(data: bytes, start: int, size: int) -> bytes:
    return data[:start] + b"\xff\xd9"


@pytest.mark.parametrize("damage", [hole, noise, gone, cut])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_wherever_it_lies(kind, damage):
    sound = jpeg(PICTURE, *KINDS[kind])
    color_of_bytes(sound, "a.jpg")
    for share in (0.2, 0.35, 0.5, 0.65, 0.8):
        with pytest.raises(CorruptFrame, match=r"a\.jpg: the file (is no image or is damaged|is truncated)"):
            color_of_bytes(damage(sound, int(share * len(sound)), 2048), "a.jpg")


@pytest.mark.parametrize("shape", [(1, 1), (9, 17), (150, 203), (160, 208)])
def test_no_sound_image_is_damaged(shape):
    image = cv2.resize(PICTURE, shape[::-1])
    samplings = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
                 cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)  # fmt: skip
    for progressive, restarts, sampling in product((0, 1), (0, 1, 5, 1000), samplings):
        for pixels in (image, image[:, :, 0]):
            assert not is_damaged(jpeg(pixels, PROGRESSIVE, progressive, RESTARTS, restarts, SAMPLING, sampling))
    for mode, quality, progressive in product(("RGB", "L", "CMYK"), (5, 100), (False, True)):
        file = io.BytesIO()
        Image.fromarray(image).convert(mode).save(file, "JPEG", quality=quality, progressive=progressive, optimize=True)
        assert not is_damaged(file.getvalue())


def test_an_image_is_judged_once(monkeypatch):
    sound, judged = jpeg(PICTURE, cv2.IMWRITE_JPEG_QUALITY, 83), []
    monkeypatch.setattr("semslam.images.jpeg._is_damaged", lambda data: judged.append(data) or False)
    for _ in range(3):
        color_of_bytes(sound, "a.jpg")
    assert judged == [sound]


def test_a_few_bytes_that_a_camera_adds_do_no_harm():
    sound = jpeg(PICTURE)
    assert not is_damaged(sound[:-2] + bytes(3) + sound[-2:])
    assert not is_damaged(sound + bytes(5000))
    assert not is_damaged(sound[:-2] + b"\xff\xff" + sound[-2:]), "markers may begin with more of FF"
    restarted = jpeg(PICTURE, *KINDS["restarted"])
    assert not is_damaged(restarted.replace(b"\xff\xd3", b"\xff\xff\xff\xd3"))


def without_tables(data: bytes) -> bytes:
    """A JPEG without its Huffman tables, as frames of MJPEG are."""
    for kind, start, end in reversed(list(segments(data))):
        data = data[: start - 2] + data[end:] if kind == 0xC4 else data
    return data


def test_a_jpeg_without_tables_has_the_standard_ones():
    sound = jpeg(PICTURE)
    bare = without_tables(sound)
    assert b"\xff\xc4" not in bare and np.array_equal(color_of_bytes(bare, "a.jpg"), color_of_bytes(sound, "a.jpg"))
    with pytest.raises(CorruptFrame, match=r"a\.jpg: the file is no image or is damaged"):
        color_of_bytes(hole(bare, len(bare) // 2, 2048), "a.jpg")


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("flat_share", [0.29, 1])
def test_a_sound_jpeg_with_black_bars_has_zeros_too(progressive, flat_share):
    image = np.resize(RNG.integers(0, 255, 999_983).astype(np.uint8), (1080, 1920, 3))
    image[: int(flat_share * len(image))] = 0
    data = jpeg(image, PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    assert bytes(1024) in data or not (progressive or flat_share == 1)
    assert color_of_bytes(data, "a.jpg").shape == (1080, 1920, 3)


@pytest.mark.parametrize("seed", range(3))
def test_forged_headers_end_in_an_answer(seed):
    chance = np.random.default_rng(seed)
    for kind in KINDS.values():
        sound = jpeg(PICTURE, *kind)
        for _ in range(200):
            forged = bytearray(sound)
            for place in chance.integers(2, 700, 3):
                forged[place] = chance.integers(256)
            assert is_damaged(bytes(forged)) in (True, False)
