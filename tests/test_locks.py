"""A run's folder belongs to one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from command_line import ROOM, TRUTH, refused

from semslam.runs.storage import lock


def test_a_run_belongs_to_one_process(tmp_path, capsys):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom semslam.runs.storage.lock import lock\n"
        "lock(Path(sys.argv[1]))\nprint('locked', flush=True)\ntime.sleep(60)"
    )
    out = tmp_path / "a"
    out.mkdir()
    other = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        line = refused(capsys, "reconstruct", ROOM, "--out", out, *TRUTH)
        assert f"process {other.pid} is working here" in line
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()


FORKING = """
import os, sys, time
from pathlib import Path
from semslam.runs.storage.lock import lock
lock(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    if sys.argv[2] == "child ends":
        sys.exit()  # as a worker that clears up behind itself
    print(os.getpid(), flush=True)  # which comes after everything that a fork does by itself
    time.sleep(60)
if sys.argv[2] == "child ends":
    os.waitpid(child, 0)
    print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("what", ["child ends", "child stays"])
def test_a_lock_is_the_parents_and_not_that_of_its_forked_children(tmp_path, caplog, what):
    other = subprocess.Popen([sys.executable, "-c", FORKING, str(tmp_path), what], stdout=subprocess.PIPE, text=True)
    child = 0
    try:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        with pytest.raises(ValueError, match=f"process {other.pid} is working here"):
            lock.lock(tmp_path)
        other.kill()
        other.wait()
        lock.lock(tmp_path)  # also while a child of the killed process lives
        assert f"process {other.pid} ended without finishing" in caplog.text
    finally:
        lock.unlock(tmp_path)
        other.kill()
        other.wait()
        if child and what == "child stays":
            os.kill(child, signal.SIGKILL)


def test_a_process_of_the_same_number_in_another_container_is_another_process(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom semslam.runs.storage import lock\n"
        "lock.lock(Path(sys.argv[1]))\nprint('locked', flush=True)\ntime.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        (tmp_path / ".lock").write_text(f"{os.getpid()}\n")
        with pytest.raises(ValueError, match="is working here"):
            lock.lock(tmp_path)
    finally:
        other.kill()
        other.wait()


def test_the_lock_of_a_killed_process_is_told_and_taken(tmp_path, caplog):
    (tmp_path / ".lock").write_text("123456\n")
    lock.lock(tmp_path)
    lock.lock(tmp_path)  # the same process may
    assert "process 123456 ended without finishing" in caplog.text
    lock.unlock(tmp_path)
    assert not (tmp_path / ".lock").exists()
