"""Reading ahead: the order stays, memory is bounded, a reader that fails or is no longer wanted holds nothing up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from semslam.threads import NICENESS, background
from sequences.prefetch import read_ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_whatever_takes_longest(threads):
    def read(index: int) -> int:
        time.sleep(0.002 * (index % 3))
        return index * index

    assert list(read_ahead(read, range(20), threads=threads)) == [(i, i * i) for i in range(20)]


def test_no_more_than_asked_for_is_read_ahead():
    started = []
    reading = read_ahead(lambda i: started.append(i), range(100), ahead=4)
    for index, _ in reading:
        time.sleep(0.005)
        assert max(started) <= index + 4
        if index == 20:
            break
    reading.close()
    after = len(started)
    time.sleep(0.02)
    assert len(started) == after <= 25, "what is no longer wanted is not read"


def test_a_frame_that_cannot_be_read_is_given_and_the_others_follow():
    def read(index: int) -> int:
        if index == 2:
            raise ValueError("damaged")
        return index

    results = list(read_ahead(read, range(4)))
    assert [r for _, r in results if not isinstance(r, Exception)] == [0, 1, 3] and str(results[2][1]) == "damaged"


def test_a_programming_error_is_raised_and_ends_the_threads():
    def read(index: int) -> int:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        list(read_ahead(read, range(4)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_any_numbers_in_any_order():
    assert [i for i, _ in read_ahead(lambda i: i, [5, 3, 9])] == [5, 3, 9]
    assert list(read_ahead(lambda i: i, [])) == []
    with pytest.raises(ValueError, match="ahead 0"):
        list(read_ahead(lambda i: i, [1], ahead=0))


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")


@LINUX
def test_threads_in_the_background_are_of_low_priority_and_the_others_are_not():
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = priority()
    assert background("test").submit(priority).result() == min(before + NICENESS, 19)
    assert priority() == before


@LINUX
def test_threads_that_opencv_shares_keep_their_priority_when_the_background_calls_it_first():
    """In a process of its own: OpenCV begins its threads once."""
    code = """
import os
import cv2, numpy as np
from semslam.threads import background
cv2.setNumThreads(4)
mine, image = os.getpriority(os.PRIO_PROCESS, 0), np.zeros((2000, 2000, 3), np.uint8)
pool = background("test")
pool.submit(cv2.cvtColor, image, cv2.COLOR_RGB2GRAY).result()
low = [task for task in map(int, os.listdir("/proc/self/task")) if os.getpriority(os.PRIO_PROCESS, task) > mine]
print(len(low), len(os.listdir("/proc/self/task")))
"""
    command = [sys.executable, "-c", code]
    low, threads = map(int, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert low <= 1 and threads >= 2 + 3


def test_threads_that_read_at_once_find_out_the_unit_once(tmp_path, caplog):
    from sequences.files import Folder

    class SlowFolder(Folder):
        def _alike(self, kind):
            time.sleep(0.05)
            return super()._alike(kind)

        def read(self, name):
            time.sleep(0.05)
            return super().read(name)

    for i in range(2):
        np.save(tmp_path / f"{i}.npy", np.full((4, 4), 1500, np.float32))
    files = SlowFolder(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        np.testing.assert_allclose(list(threads.map(files.depth, files.names)), 1.5, rtol=1e-6)
    assert caplog.text.count("read as 1000 units per metre") == 1
