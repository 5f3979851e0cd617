"""Which parameters of a test are run every time."""

from __future__ import annotations

from typing import Any

import pytest


def one_fast(first: Any, *others: Any) -> list[Any]:
    """Parameters of a test that takes seconds: the first shows the law, the others are run with the slow tests."""
    return [first, *(pytest.param(*(o if isinstance(o, tuple) else (o,)), marks=pytest.mark.slow) for o in others)]
