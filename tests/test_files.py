"""Files are written whole or not at all, and only regular files are read; whose fault an error is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from semslam.files.failures import is_passing
from semslam.files.reading import contents, names_of
from semslam.files.writing import remove_leftovers, replacing


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "map.npz"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_regular_file_is_read_whole_also_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    assert contents(tmp_path / "b") == b"content"


def test_pipes_devices_folders_and_huge_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "huge", "/dev/zero"):
        with pytest.raises(ValueError, match=f"{path}: (is a|has).*expected"):
            contents(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        contents(tmp_path / "missing")


def test_a_name_with_a_null_byte_is_one_line_that_shows_it(tmp_path):
    with pytest.raises(ValueError, match=r"a\\x00b.*cannot be a file's name"):
        contents(f"{tmp_path}/a\0b")


def test_a_list_in_utf_16_is_read_and_one_that_is_cut_is_named(tmp_path):
    (tmp_path / "list.txt").write_bytes("a.png\n".encode("utf-16"))
    assert names_of(tmp_path / "list.txt") == "a.png\n"
    (tmp_path / "list.txt").write_bytes("a.png\n".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"list\.txt: is not a text file"):
        names_of(tmp_path / "list.txt")


def test_what_a_machine_lacks_may_pass_and_what_is_wrong_does_not():
    wrong = (
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "denied"),
        ValueError("disk"),
    )
    passing = (
        MemoryError(),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EIO, "broken"),
        TimeoutError(errno.ETIMEDOUT, ""),
    )
    assert not any(map(is_passing, wrong)) and all(map(is_passing, passing))
    assert is_passing(RuntimeError("can't start new thread"))
    assert is_passing(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB"))
    caused = OSError("cannot write the run here")
    caused.__cause__ = passing[1]
    assert is_passing(caused)
    caused.__cause__ = caused
    assert not is_passing(caused)


def test_a_file_larger_than_allowed_is_named_and_may_pass(tmp_path):
    with (
        pytest.raises(OSError, match=r"map.npz: is larger than a file may be here") as told,
        replacing(tmp_path / "map.npz"),
    ):
        raise OSError(errno.EFBIG, "File too large")
    assert is_passing(told.value)


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours = f".figures.{os.getpid()}.part.json"
    for name in (
        f".map.{ended.pid}.part.npz",
        f".metrics.{ended.pid}.part.json",
        ours,
        ".lock",
        "map.npz",
        ".notes.part",
    ):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ours, ".lock", ".notes.part", "map.npz"])
