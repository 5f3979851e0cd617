"""Damaged files give a value or one line that names the file: a sample of `benchmarks/faults.py`, and its own judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def found_by(loader: str, count: int) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--only", loader, "--count", str(count), "--kills", "0"]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("loader", ["color", "depth", "labels", "trajectory"])
def test_damaged_images_and_trajectories_end_in_one_line(loader):
    found = found_by(loader, 60)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["raw", "settings", "ply", "obj", "mat", "run", "weights"])
def test_damaged_files_of_other_kinds_end_in_one_line(loader):
    found = found_by(loader, 60)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_judge_tells_clear_refusals_from_all_other_ends(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from faults import judge

    path = tmp_path / "frame.png"

    def raising(error):
        def load(_):
            raise error

        return load

    assert judge(lambda _: 1, path)[0] == "value"
    assert judge(raising(ValueError(f"{path}: cut short; copy it again")), path)[0] == "refused"
    assert judge(raising(OSError(f"{path}: no such file")), path)[0] == "refused"
    assert judge(raising(ValueError("month must be in 1..12")), path)[0] == "unclear"
    assert judge(raising(ValueError(f"{path}: first\nsecond")), path)[0] == "unclear"
    assert judge(raising(KeyError("position")), path)[0] == "exception"
    assert judge(raising(MemoryError()), path)[0] == "over 1 GB"
