"""MATLAB's files: our bounded reader against SciPy's, and damage that ends in one line."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from sequences.images.mat5 import read_mat5
from sequences.images.nyu_mat import NyuMat


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_are_those_that_scipy_reads(tmp_path, packed):
    arrays = {
        "trainNdxs": np.array([[1], [2], [9]], np.uint16),
        "a": np.arange(12, dtype=np.float64).reshape(3, 4),
        "b": np.array([[7]], np.int32),
        "text": "left out",
    }
    savemat(tmp_path / "x.mat", arrays, do_compression=packed)
    ours, theirs = read_mat5(tmp_path / "x.mat"), loadmat(tmp_path / "x.mat")
    assert set(ours) == {"trainNdxs", "a", "b"}
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name])


def test_the_official_splits_read(shared_data):
    splits = read_mat5(shared_data / "nyuv2_meta" / "splits.mat")
    assert splits["trainNdxs"].shape == (795, 1) and splits["testNdxs"].shape == (654, 1)


@pytest.mark.parametrize("packed", [False, True])
def test_every_cut_and_every_flipped_byte_gives_an_array_or_one_line(tmp_path, packed):
    path = tmp_path / "x.mat"
    savemat(path, {"trainNdxs": np.array([[1], [2]], np.uint16)}, do_compression=packed)
    data = path.read_bytes()
    damaged = [data[:n] for n in range(0, len(data), 3)]
    damaged += [data[:i] + bytes([data[i] ^ 0xFF]) + data[i + 1 :] for i in range(124, len(data))]
    for spoilt in damaged:
        path.write_bytes(spoilt)
        try:
            read_mat5(path)
        except ValueError as problem:
            assert str(problem).startswith(str(path)) and "\n" not in str(problem)


@pytest.fixture
def official(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "nyu.mat", "w") as file:
        file["images"] = rng.integers(0, 255, (2, 3, 16, 12), np.uint8)
        file["labels"] = rng.integers(0, 894, (2, 16, 12)).astype(np.uint16)
        file["depths"] = rng.random((2, 16, 12), np.float32)
    return tmp_path / "nyu.mat"


def test_damage_to_the_official_file_is_one_line(official):
    data = official.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        spoilt = bytearray(data)
        at = int(rng.integers(0, len(data)))
        spoilt[at : at + 8] = rng.bytes(8)
        official.write_bytes(bytes(spoilt))
        try:
            NyuMat(official)[0]
        except ValueError as problem:
            assert str(problem).startswith(str(official)) and "\n" not in str(problem)


def test_arrays_of_another_kind_are_refused(official):
    with h5py.File(official, "a") as file:
        del file["depths"]
        file["depths"] = np.zeros((2, 16, 12), np.uint16)
    with pytest.raises(ValueError, match="depths are uint16, expected float32"):
        NyuMat(official)
