"""Dense semantic SLAM: RGB-D frames become a labelled 3-D map of surfels."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

# OpenMP may be called from several threads at once, which readers do; Numba's first choice, TBB, is often too old and
# then warns. Numba reads the variable when it is imported.
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue")
# Threads that wait in a spin take the cores from the thread that decodes the next frame, from a network's engine and
# from whatever else the machine does: tracking was five times slower beside other work. OpenMP reads it when it starts.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER", "0")  # the same of OpenCV's
# NumPy's and SciPy's BLAS divides even small products among threads that wait in a spin; it reads this when imported.
# Processes that are started from here inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if "numba" in sys.modules:
    sys.modules["numba"].config.THREADING_LAYER_PRIORITY = os.environ["NUMBA_THREADING_LAYER_PRIORITY"].split()


def __getattr__(name: str) -> Any:
    """`Slam`, `open_sequence` and `__version__`, imported when they are asked for: the command line answers at once."""
    if name == "__version__":
        from importlib.metadata import version

        return version("semslam")
    places = {"Slam": "semslam.slam", "open_sequence": "sequences"}
    if name in places:
        return getattr(import_module(places[name]), name)
    raise AttributeError(f"module 'semslam' has no attribute {name!r}")
