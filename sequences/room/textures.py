"""Procedural textures of the synthetic room, drawn once with a fixed seed.

Each is a square RGB tile that repeats without a seam ("tiled", TEXEL metres per texel) or is stretched over one
face ("fitted"). Details are 1 cm and larger, so that nothing aliases at the room's viewing distances.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SIZE = 256  # texels per side of a tile
TEXEL = 0.004  # metres per texel of tiled textures: a tile covers 1.02 m


def noise(rng: np.random.Generator, cells_x: float, cells_y: float) -> np.ndarray:
    """Smooth noise (SIZE, SIZE) of mean 0 and deviation 1 that tiles; cells = how many waves per tile, each way."""
    frequency = np.fft.fftfreq(SIZE) * SIZE
    window = np.exp(-0.5 * ((frequency[None, :] / cells_x) ** 2 + (frequency[:, None] / cells_y) ** 2))
    window[0, 0] = 0
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIZE, SIZE))) * window).real
    return field / field.std()


def tinted(color: tuple[int, int, int], shade: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: a colour times 1 + shade."""
    return np.clip(np.array(color) * (1 + shade[..., None]), 0, 255).astype(np.uint8)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """u (to the right) and v (down), 0..1 over the tile, at texel centres."""
    line = (np.arange(SIZE) + 0.5) / SIZE
    return np.meshgrid(line, line)


def plaster(rng, color):
    return tinted(color, 0.02 * noise(rng, 4, 4) + 0.025 * noise(rng, 24, 24))


def wallpaper(rng, color):
    """Stripes, with a small diamond in each second one."""
    u, v = _grid()
    stripe = 0.09 * np.tanh(6 * np.sin(2 * np.pi * 4 * u))
    diamond = np.abs(((u * 4) % 1) - 0.25) * 1.4 + np.abs(((v * 4 + np.floor(u * 4) / 2) % 1) - 0.5) < 0.22
    return tinted(color, stripe - 0.16 * diamond + 0.025 * noise(rng, 20, 20))


def wood(rng, color, contrast=0.12):
    """Grain along u."""
    _, v = _grid()
    rings = np.sin(2 * np.pi * (5 * v + 0.35 * noise(rng, 1.5, 4)))
    return tinted(color, contrast * (0.5 * rings + 0.55 * noise(rng, 2.5, 40)))


def planks(rng, color):
    """Floor boards of 17 cm, each of its own tone, with dark joints."""
    u, v = _grid()
    board = np.minimum((v * 6).astype(int), 5)
    tone = rng.uniform(-0.16, 0.16, 12)[2 * board + ((u + board * 0.37) % 1 > 0.5)]
    joint = (np.abs((v * 6) % 1 - 0.5) > 0.465) | (np.abs((u + board * 0.37) % 0.5 - 0.25) > 0.244)
    return tinted(color, tone + 0.07 * noise(rng, 2.5, 40) - 0.35 * joint)


def plaid(rng, color, other):
    """Woven bands of a second colour, both ways."""
    u, v = _grid()
    bands = 0.5 * ((u * 4) % 1 < 0.35) + 0.5 * ((v * 4) % 1 < 0.35)
    cloth = np.array(color) * (1 - bands[..., None]) + np.array(other) * bands[..., None]
    return np.clip(cloth * (1 + 0.06 * noise(rng, 40, 40)[..., None]), 0, 255).astype(np.uint8)


def cloth(rng, color):
    return tinted(color, 0.07 * noise(rng, 30, 30) + 0.05 * noise(rng, 5, 5))


def folds(rng, color):
    """A hanging curtain: shaded folds along v."""
    u, _ = _grid()
    return tinted(color, 0.22 * np.sin(2 * np.pi * (7 * u + 0.08 * noise(rng, 4, 0.7))) + 0.04 * noise(rng, 40, 40))


def rug(rng, color, other):
    """Nested frames and a chequered middle; fitted."""
    u, v = _grid()
    inset = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    frame = ((inset * 16).astype(int) % 2 == 1) & (inset < 0.22)
    middle = (inset > 0.25) & (((u * 10).astype(int) + (v * 10).astype(int)) % 2 == 0)
    mixed = np.where((frame | middle)[..., None], np.array(other), np.array(color))
    return np.clip(mixed * (1 + 0.08 * noise(rng, 50, 50)[..., None]), 0, 255).astype(np.uint8)


def cardboard(rng, color):
    """With a strip of tape; fitted."""
    u, v = _grid()
    tape = np.abs(u - 0.5) < 0.08
    print_ = (np.abs(u - 0.25) < 0.12) & (np.abs(v - 0.7) < 0.1) & ((v * 40).astype(int) % 2 == 0)
    return tinted(color, 0.25 * tape - 0.45 * print_ + 0.05 * noise(rng, 4, 30))


def spine(rng, color):
    """A book's back: bands and a label; fitted."""
    u, v = _grid()
    band = (np.abs(v - 0.12) < 0.02) | (np.abs(v - 0.88) < 0.02)
    label = (np.abs(v - 0.4) < 0.16) & (np.abs(u - 0.5) < 0.3)
    shade = 0.7 * band + 0.45 * label + 0.04 * noise(rng, 12, 12)
    return tinted(color, shade - 0.25 * (np.abs(u - 0.5) > 0.46))


def panels(rng, color):
    """A door: two sunken panels; fitted."""
    u, v = _grid()
    shade = 0.05 * noise(rng, 40, 2.5)
    for top, bottom in ((0.07, 0.46), (0.54, 0.93)):
        inset = np.minimum(np.minimum(u - 0.15, 0.85 - u), np.minimum(v - top, bottom - v))
        shade = shade - 0.25 * (np.abs(inset - 0.015) < 0.015) - 0.08 * (inset > 0.03)
    return tinted(color, shade)


def drawers(rng, color, rows=3):
    """The front of a chest: drawers with knobs; fitted."""
    u, v = _grid()
    joint = np.abs((v * rows) % 1 - 0.5) > 0.47
    knob = (np.abs(np.abs(u - 0.5) - 0.25) < 0.03) & (np.abs((v * rows) % 1 - 0.5) < 0.1)
    return tinted(color, 0.07 * noise(rng, 2.5, 30) - 0.35 * joint - 0.5 * knob)


def landscape(rng, sky, land):
    """A framed painting: sky, hills, sun; fitted."""
    u, v = _grid()
    image = np.array(sky) * (0.75 + 0.35 * v[..., None]) * np.ones(3)
    image[(u - 0.72) ** 2 + (v - 0.28) ** 2 < 0.008] = (250, 225, 120)
    for layer, tone in enumerate((0.75, 1.0, 1.25)):
        height = 0.5 + 0.12 * layer + 0.07 * np.sin(2 * np.pi * (u * (1.3 + layer) + rng.random()))
        ground = v > height
        image[ground] = (np.array(land) * tone * (1 + 0.12 * noise(rng, 16, 16)[..., None]))[ground]
    frame = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) < 0.06
    image[frame] = (96, 62, 32)
    return np.clip(image, 0, 255).astype(np.uint8)


def abstract(rng, colors):
    """A framed painting of blots; fitted."""
    u, v = _grid()
    image = np.full((SIZE, SIZE, 3), 232.0)
    for color in colors:
        image[noise(rng, 2.2, 2.2) > 0.75] = color
    image[np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) < 0.05] = (40, 40, 44)
    return image.astype(np.uint8)


def window_view(rng):
    """Sky, clouds and trees behind a cross of white bars; fitted."""
    u, v = _grid()
    cloud = np.clip(0.5 + 0.5 * noise(rng, 3, 5), 0, 1)[..., None]
    image = np.array([150, 195, 240]) * (1 - cloud) + 250 * cloud
    trees = v > 0.68 + 0.06 * noise(rng, 5, 1)
    image[trees] = (np.array([70, 118, 58]) * (1 + 0.3 * noise(rng, 20, 20)[..., None]))[trees]
    bars = (np.abs(u - 0.5) < 0.018) | (np.abs(v - 0.5) < 0.02)
    image[bars | (np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) < 0.045)] = (244, 244, 240)
    return np.clip(image, 0, 255).astype(np.uint8)


def screen(rng):
    """A television that is on: a news picture in a black bezel; fitted."""
    u, v = _grid()
    image = np.stack([30 + 60 * v, 60 + 50 * u, 130 - 40 * v], axis=-1)
    image[(u - 0.33) ** 2 + ((v - 0.45) * 0.7) ** 2 < 0.016] = (224, 178, 148)
    image[(np.abs(u - 0.33) < 0.16 - 0.1 * (0.85 - v)) & (v > 0.62)] = (60, 40, 52)
    image[v > 0.8] = (190, 32, 40)
    image[(v > 0.84) & (v < 0.9) & ((u * 28).astype(int) % 3 > 0)] = 235
    image[np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) < 0.04] = (18, 18, 20)
    return np.clip(image, 0, 255).astype(np.uint8)


def stripes(rng, color, other):
    _, v = _grid()
    image = np.where(((v * 8).astype(int) % 2 == 0)[..., None], np.array(color), np.array(other))
    return np.clip(image * (1 + 0.05 * noise(rng, 30, 30)[..., None]), 0, 255).astype(np.uint8)


@cache
def textures() -> dict[str, np.ndarray]:
    """Every texture of the room by name, (SIZE, SIZE, 3) uint8."""
    rng = np.random.default_rng(20260711)
    books = {"red": (150, 38, 36), "blue": (40, 70, 138), "green": (46, 104, 66), "ochre": (196, 146, 52)}
    books |= {"grey": (110, 112, 118), "cream": (206, 196, 168)}
    return {
        "plaster": plaster(rng, (206, 198, 180)),
        "wallpaper": wallpaper(rng, (178, 196, 186)),
        "ceiling": plaster(rng, (226, 225, 220)),
        "planks": planks(rng, (158, 112, 70)),
        "baseboard": wood(rng, (222, 216, 204), 0.05),
        "oak": wood(rng, (176, 128, 78)),
        "walnut": wood(rng, (112, 74, 46)),
        "pine": wood(rng, (208, 170, 116)),
        "white_wood": wood(rng, (214, 210, 202), 0.07),
        "drawers": drawers(rng, (140, 92, 54)),
        "night_drawers": drawers(rng, (196, 160, 112), rows=2),
        "sofa": plaid(rng, (150, 62, 52), (120, 42, 42)),
        "cushion": stripes(rng, (224, 198, 130), (186, 118, 60)),
        "bedcover": plaid(rng, (74, 104, 156), (182, 196, 214)),
        "sheet": cloth(rng, (226, 224, 218)),
        "pillow": stripes(rng, (232, 230, 226), (176, 190, 214)),
        "chair": cloth(rng, (56, 98, 84)),
        "curtain": folds(rng, (196, 152, 92)),
        "rug": rug(rng, (138, 48, 46), (220, 196, 150)),
        "cardboard": cardboard(rng, (186, 146, 98)),
        "gift": plaid(rng, (60, 120, 120), (220, 190, 80)),
        "door": panels(rng, (186, 146, 104)),
        "metal": plaster(rng, (92, 92, 96)),
        "shade": stripes(rng, (246, 226, 170), (238, 208, 140)),
        "ball": stripes(rng, (214, 70, 48), (240, 236, 226)),
        "vase": stripes(rng, (52, 92, 150), (216, 220, 226)),
        "leaves": cloth(rng, (62, 118, 54)),
        "picture_hills": landscape(rng, (150, 180, 214), (92, 122, 62)),
        "picture_dusk": landscape(rng, (224, 150, 110), (92, 66, 92)),
        "picture_abstract": abstract(rng, ((206, 60, 44), (40, 84, 150), (232, 186, 50), (36, 36, 40))),
        "window": window_view(rng),
        "screen": screen(rng),
        "black": plaster(rng, (34, 34, 38)),
        **{f"book_{name}": spine(rng, color) for name, color in books.items()},
    }
