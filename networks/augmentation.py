"""Random views of labelled images: scaled, cropped, mirrored, recoloured; labels, depth and normals follow.

Images stay NumPy (H, W, ...) here; a batch becomes tensors in training. Every random number comes from the generator
that is passed in, so that a sample is a function of (seed, step, position). `networks.training.device_views` makes the
same views on an accelerator.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from networks.joint.encoders import MEAN

PADDING = tuple(round(255 * m) for m in MEAN)  # the mean colour: zero after normalisation


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image before it is learned from."""

    crop: tuple[int, int] = (350, 350)  # height, width of what the network sees, pixels
    scale: tuple[float, float] = (0.5, 2.0)  # range of the zoom, log-uniform
    resolution: float = 1.0  # what the network works at: 0.5 halves the stored image before any zoom
    mirror: bool = True
    color: float = 0.0  # strength of the random brightness, contrast, saturation and channel gains; 0 = none


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image; anything but the colour may be missing, and may be stored at another resolution."""

    color: np.ndarray  # (H, W, 3) uint8 RGB
    labels: np.ndarray | None = None  # (h, w) uint8, 255 = unlabelled
    depth: np.ndarray | None = None  # (h, w) float32 metres, 0 = none
    normals: np.ndarray | None = None  # (h, w, 3) float32 unit, camera frame; zero = none
    soft_labels: np.ndarray | None = None  # (h, w, C) uint8, a teacher's probabilities times 255; all zero = none


@dataclass(frozen=True, eq=False)
class View:
    """One random view: what was drawn, which the processor and an accelerator turn into the same pixels."""

    zoom: float  # by which depth is divided
    window: tuple[float, float, float, float]  # pixels of the colour image: top, left, height, width; fills the crop
    mirror: bool  # before the window is taken: its left is then counted from the image's right side
    gains: np.ndarray  # (6,) of the colours, see `recolored`


def random_view(shape: tuple[int, int], rng: np.random.Generator, config: Augmentation) -> View:
    """A view of an image of `shape` (height, width); where its window is larger than the image the rest is padded."""
    height, width = shape
    crop_h, crop_w = config.crop
    zoom = float(np.exp(rng.uniform(*np.log(config.scale))))
    scale = zoom * config.resolution
    window_h, window_w = crop_h / scale, crop_w / scale
    top, left = rng.uniform(0, 1, 2) * (height - window_h, width - window_w)
    mirror = bool(config.mirror and rng.uniform() < 0.5)
    return View(zoom, (top, left, window_h, window_w), mirror, rng.uniform(-1, 1, 6) * config.color)


def covered(shape: tuple[int, int], config: Augmentation) -> float:
    """The share of a view at the middle zoom that an image of `shape` (height, width) fills; the rest is padded."""
    scale = config.resolution * float(np.sqrt(np.prod(config.scale)))
    return float(np.prod(np.minimum(1, np.multiply(shape, scale) / config.crop)))


def augmented(sample: Sample, rng: np.random.Generator, config: Augmentation) -> Sample:
    """A random view of `sample`, all of its images `config.crop` large.

    Zooming by s divides depth by s: seen by the same camera, a thing twice as large is at half the distance (the
    change of resolution changes the camera, and no depth). Mirroring negates the normals' x.
    """
    height, width = sample.color.shape[:2]
    drawn = random_view((height, width), rng, config)

    def view(image: np.ndarray, fill: object, smooth: bool = False) -> np.ndarray:
        window = scaled_window(drawn.window, image.shape[0] / height, image.shape[1] / width)
        turned = np.ascontiguousarray(image[:, ::-1]) if drawn.mirror else image
        return _window(turned, window, config.crop, fill, smooth)

    color = view(sample.color, PADDING, smooth=True)
    if config.color > 0:
        color = recolored(color, drawn.gains)
    labels = None if sample.labels is None else view(sample.labels, 255)
    depth = None if sample.depth is None else view(sample.depth, 0.0) / np.float32(drawn.zoom)
    normals = None if sample.normals is None else view(sample.normals, 0.0)
    if normals is not None and drawn.mirror:
        normals = normals * np.array([-1, 1, 1], np.float32)
    soft_labels = None if sample.soft_labels is None else view(sample.soft_labels, 0)
    return Sample(color, labels, depth, normals, soft_labels)


def scaled_window(
    window: tuple[float, float, float, float], ratio_y: float, ratio_x: float
) -> tuple[float, float, float, float]:
    """A window (top, left, height, width) in the pixels of an image of another size."""
    top, left, height, width = window
    return top * ratio_y, left * ratio_x, height * ratio_y, width * ratio_x


def _window(
    image: np.ndarray,
    window: tuple[float, float, float, float],
    size: tuple[int, int],
    fill: object,
    smooth: bool,
) -> np.ndarray:
    """The part (top, left, height, width) of `image`, in its pixels, resized to `size`; `fill` where there is none.

    Where `smooth`, pixels are means when the image shrinks and bilinear when it grows, else what lies at their upper
    left corners: of the pixel in the middle of a cell that is learned from (`networks.training.data.collated`), that is
    the cell's centre.
    """
    top, left, window_h, window_w = window
    (y0, y1), (v0, v1) = spans(top, window_h, image.shape[0], size[0])
    (x0, x1), (u0, u1) = spans(left, window_w, image.shape[1], size[1])
    shrinks = y1 - y0 >= v1 - v0 and x1 - x0 >= u1 - u0
    interpolation = (cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR) if smooth else cv2.INTER_NEAREST
    resized = cv2.resize(image[y0:y1, x0:x1], (u1 - u0, v1 - v0), interpolation=interpolation)
    if resized.shape[:2] == tuple(size):
        return resized
    canvas = np.empty((*size, *image.shape[2:]), image.dtype)
    canvas[...] = fill
    canvas[v0:v1, u0:u1] = resized
    return canvas


def spans(start: float, length: float, source: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Along one axis: which of the `source` pixels a window covers, and which of the `size` pixels they become."""
    first = min(max(0, round(start)), source - 1)
    last = min(source, max(first + 1, round(start + length)))
    begin = 0 if start >= 0 else round(-start / length * size)
    end = size if start + length <= source else round((source - start) / length * size)
    return (first, last), (begin, max(end, begin + 1))


def recolored(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """RGB uint8 with brightness, contrast, saturation and the three channels changed by exp(gains) (6,)."""
    matrix, pull = color_matrix(gains)
    offset = pull * (matrix @ image.reshape(-1, 3).mean(0))
    return cv2.transform(image, np.concatenate([matrix, offset[:, None]], axis=1))  # rounds and saturates


def color_matrix(gains: np.ndarray) -> tuple[np.ndarray, float]:
    """(3, 3) matrix M and factor f of a change of colours: c -> M c + f M m, where m is the image's mean colour.

    Colour -> grey + saturation (colour - grey), channel gains and contrast about the mean are all linear.
    """
    brightness, contrast, saturation, *channels = np.exp(gains)
    grey = np.array([0.299, 0.587, 0.114])
    matrix = saturation * np.eye(3) + (1 - saturation) * grey[None, :]
    matrix = np.diag(np.exp(0.3 * np.log(channels))) @ matrix
    return brightness * contrast * matrix, 1 / contrast - 1
