"""Dense semantic SLAM: RGB-D frames become a labelled 3-D map of surfels."""

import os
import sys

# OpenMP may be called from several threads at once, which readers do; Numba's first choice, TBB, is often too old and
# then warns. Numba reads the variable when it is imported.
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue")
if "numba" in sys.modules:
    sys.modules["numba"].config.THREADING_LAYER_PRIORITY = os.environ["NUMBA_THREADING_LAYER_PRIORITY"].split()
