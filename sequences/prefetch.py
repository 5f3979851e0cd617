"""Frames decoded ahead of their use, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

from semslam.threads import background

T = TypeVar("T")


def read_ahead(
    read: Callable[[int], T], indices: Iterable[int], ahead: int = 6, threads: int = 1
) -> Iterator[tuple[int, T | Exception]]:
    """(index, what `read` gives for it) in the order of `indices`; ValueError and OSError are given, not raised.

    At most `ahead` results wait or are being read. Closing the iterator, or an exception in the loop over it, drops
    what was not read yet. `threads`: more than one only where `read` is safe for threads, as all our readers are.
    """
    if ahead < 1 or threads < 1:
        raise ValueError(f"ahead {ahead} and threads {threads} must be at least 1")

    numbers = iter(indices)
    waiting: deque[tuple[int, Future]] = deque()
    with background("reader", threads) as pool:
        try:
            waiting.extend((i, pool.submit(attempted, read, i)) for i in islice(numbers, ahead))
            while waiting:
                index, future = waiting.popleft()
                result = future.result()
                waiting.extend((i, pool.submit(attempted, read, i)) for i in islice(numbers, 1))
                yield index, result
        finally:
            for _, future in waiting:
                future.cancel()


def attempted(read: Callable[[int], T], index: int) -> T | Exception:
    """What `read` gives for a frame, or the ValueError or OSError that it raises."""
    try:
        return read(index)
    except (ValueError, OSError) as problem:
        return problem
