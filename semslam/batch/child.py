"""The process of a task: `semslam` with the words that follow, which does not outlive the process that has started it.

A worker of a cluster that is killed would otherwise leave its command at work in a folder that the next attempt needs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# prctl(2): the signal comes when the thread ends that has started this process, and waits for it; it holds for the
# program that takes this one's place, too
PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended in between
            os.kill(os.getpid(), signal.SIGKILL)
    os.execv(sys.executable, [sys.executable, "-m", "semslam.cli", *sys.argv[1:]])
