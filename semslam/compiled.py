"""How the loops are compiled: `@njit(**PARALLEL)` over all threads, `@njit(**SERIAL)` on the caller's."""

from __future__ import annotations

# No fast mathematics, not even fused multiply-add: Numba optimises a function that it has just compiled once and one
# that comes from its cache twice, so where the optimiser may choose how to round, a first run makes another map than
# the second.
SERIAL = {"cache": True, "nogil": True, "error_model": "numpy"}
PARALLEL = SERIAL | {"parallel": True}
