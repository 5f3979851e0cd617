"""How loops are compiled, and what they are given: `@njit(**PARALLEL)` over all threads, `@njit(**SERIAL)` on one.

A NamedTuple groups the arguments of a loop; Numba takes it apart when the loop is called, at no cost inside.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import event
from numba.core.caching import IndexDataCacheFile
from numba.extending import intrinsic

from semslam.camera import Camera
from semslam.files.writing import private_folder

f32 = np.float32
PATIENCE = 3.0  # seconds of compiling that pass without a word

logger = logging.getLogger(__name__)


class Told(event.Listener):
    """Says once that code is being compiled, where that takes long: a first run in a pipe would be silent for a minute.

    What comes from the cache is not compiled, and takes no time here.
    """

    seconds = began = 0.0
    said = False

    def on_start(self, _: event.Event) -> None:
        self.began = time.perf_counter()
        if self.seconds > PATIENCE and not self.said:
            self.said = True
            logger.getChild("once").warning(
                "compiling what this needs for this processor; the first time, that takes a minute or two"
            )

    def on_end(self, _: event.Event) -> None:
        self.seconds += time.perf_counter() - self.began


event.register("numba:compile", Told())


def plain(image: np.ndarray, dtype: Any = None) -> np.ndarray:
    """The image as a loop was compiled for it: a view (BGR turned to RGB) or a read-only one would compile it again."""
    return np.require(image, dtype, ("C", "W"))


def _is_cacheable() -> bool:
    """Whether Numba finds a folder for compiled code: beside the source, in the user's cache, or a temporary one."""

    def function() -> None:
        pass

    with suppress(RuntimeError):
        nb.njit(cache=True)(function)
        return True
    with suppress(RuntimeError, OSError):  # an installation that may not be written, and a user without a home
        nb.config.CACHE_DIR = str(private_folder("semslam-numba"))
        nb.njit(cache=True)(function)
        logger.warning("compiled code is kept in %s, as no usual folder for it can be written", nb.config.CACHE_DIR)
        return True
    logger.warning("code is compiled anew in every run, which takes a minute: no folder to keep it in can be written")
    return False


def _reading_what_can_be_read(read: Callable[..., Any], otherwise: Callable[[], Any]) -> Callable[..., Any]:
    """A reader of Numba's cache that finds nothing where what lies there is damaged, or of another version of semslam.

    Numba reads what it has kept before it looks whether that is of these sources: a class that an update has renamed
    or removed would end every run.
    """

    @wraps(read)
    def reading(*arguments: Any) -> Any:
        try:
            return read(*arguments)
        except Exception as error:  # what unpickling raises, a dozen kinds
            logger.debug("compiled code that was kept cannot be read and is made anew: %s", error)
            return otherwise()

    return reading


IndexDataCacheFile._load_index = _reading_what_can_be_read(IndexDataCacheFile._load_index, dict)
IndexDataCacheFile.load = _reading_what_can_be_read(IndexDataCacheFile.load, lambda: None)

# No fast mathematics, not even fused multiply-add: Numba optimises a function that it has just compiled once and one
# that comes from its cache twice, so where the optimiser may choose how to round, a first run makes another map than
# the second.
SERIAL = {"cache": _is_cacheable(), "nogil": True, "error_model": "numpy"}
PARALLEL = SERIAL | {"parallel": True}


class Pinhole(NamedTuple):
    """A camera without distortion."""

    width: int  # pixels
    height: int
    fx: np.float32  # pixels
    fy: np.float32
    cx: np.float32
    cy: np.float32

    @staticmethod
    def of(camera: Camera) -> Pinhole:
        return Pinhole(camera.width, camera.height, *map(f32, (camera.fx, camera.fy, camera.cx, camera.cy)))


class Pose(NamedTuple):
    """A rigid transform T_a_b in single precision."""

    R: np.ndarray  # (3, 3) float32
    t: np.ndarray  # (3,) float32 metres

    @staticmethod
    def of(T: np.ndarray) -> Pose:
        return Pose(np.ascontiguousarray(T[:3, :3], f32), np.ascontiguousarray(T[:3, 3], f32))


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the cache line of array[index], of a contiguous array, which is read soon."""
    signature = types.void(array, types.intp)

    def generate(context, builder, signature, arguments):
        from numba.np.arrayobj import make_array

        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        element = builder.gep(make_array(signature.args[0])(context, builder, arguments[0]).data, [arguments[1]])
        to_read, keep, data = i32(0), i32(3), i32(1)
        builder.call(
            builder.module.declare_intrinsic("llvm.prefetch", [byte], kind),
            [builder.bitcast(element, byte), to_read, keep, data],
        )
        return context.get_dummy_value()

    return signature, generate


@nb.njit(inline="always")
def project(camera, x, y, z):
    """Pixel coordinates (u, v) of a point in the camera's frame, in front of it; integers are pixels' centres."""
    inverse = f32(1) / z
    return x * inverse * camera.fx + camera.cx, y * inverse * camera.fy + camera.cy


@nb.njit(inline="always")
def transformed(T, x, y, z):
    """A point's coordinates, taken along by a pose T (4, 4)."""
    return (
        T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3],
        T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3],
        T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3],
    )


@nb.njit(inline="always")
def rotated(T, x, y, z):
    """A direction, turned by a pose T (4, 4)."""
    return (
        T[0, 0] * x + T[0, 1] * y + T[0, 2] * z,
        T[1, 0] * x + T[1, 1] * y + T[1, 2] * z,
        T[2, 0] * x + T[2, 1] * y + T[2, 2] * z,
    )


@nb.njit(inline="always")
def pixel_of(camera, x, y, z):
    """The pixel (u, v) in which a point in the camera's frame, in front of it, lies; (-1, -1) outside of the image."""
    u, v = project(camera, x, y, z)
    u += f32(0.5)
    v += f32(0.5)
    # also false for what is not a number
    if u >= f32(0) and v >= f32(0) and u < f32(camera.width) and v < f32(camera.height):
        return np.int64(u), np.int64(v)
    return np.int64(-1), np.int64(-1)
