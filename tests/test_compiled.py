"""Compiled code that was kept: what another version, or a crash, has left of it ends no run."""

from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
from numba.core.caching import IndexDataCacheFile

from semslam.compiled import Told  # whose module makes Numba's cache forgiving


class Renamed:
    """A class of arguments that the next version calls otherwise."""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexDataCacheFile:
    """A cache whose keys name a class of a module."""
    module = ModuleType("earlier_version")
    module.Renamed = Renamed
    monkeypatch.setitem(sys.modules, "earlier_version", module)
    monkeypatch.setattr(Renamed, "__module__", "earlier_version")
    cache = IndexDataCacheFile(str(tmp_path), "loop", "stamp of the sources")
    cache.save(Renamed, "compiled")
    assert cache.load(Renamed) == "compiled"
    return cache


def test_a_class_that_an_update_has_renamed_is_compiled_for_anew(kept, monkeypatch):
    key = Renamed
    monkeypatch.delattr(sys.modules["earlier_version"], "Renamed")
    assert kept.load(key) is None
    kept.save("another key", "compiled anew")
    assert kept.load("another key") == "compiled anew"


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
def test_damaged_files_are_made_anew(kept, tmp_path, pattern):
    (file,) = tmp_path.glob(pattern)
    version = pickle.dumps(kept._version, -1) if pattern == "*.nbi" else b""
    file.write_bytes(version + b"damaged")
    assert kept.load(Renamed) is None


def test_compiling_that_takes_long_is_told_once(caplog, monkeypatch):
    caplog.set_level(logging.WARNING, logger="semslam.compiled.once")
    told = Told()
    now = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    for _ in range(10):
        told.on_start(None)
        told.on_end(None)
    assert caplog.text.count("compiling what this needs for this processor") == 1 and told.seconds == 10
