"""Frames a second of every reader: a written recording of 640x480 colour, read ahead in order as a run reads it.

Processor time is that of all threads: on a machine that others use, too, it tells more than the rate.

The recordings are written by `tests/every_recording.py`, which is found beside this folder from any working directory:
a clone of the repository is needed, and nothing else need be set.

python benchmarks/readers.py [--frames 40] [--only KIND]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from sequences import READERS, open_sequence
from sequences.prefetch import read_ahead
from sequences.sequence import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from every_recording import EVERY, Room

WARM_UP = 3  # frames that are left out: they compile and open


def rate(sequence: Sequence) -> tuple[float, float]:
    """Frames a second and processor milliseconds a frame. A recording of one image is read again and again."""
    numbers = list(range(len(sequence))) if len(sequence) > WARM_UP else [0] * 20
    for i in numbers[:WARM_UP]:
        assert sequence[i].color.any()
    began, busy = time.perf_counter(), time.process_time()
    rest = numbers[WARM_UP:]
    found = [frame for _, frame in read_ahead(lambda i: sequence[i], rest, sequence.ahead, sequence.decoders)]
    assert not [problem for problem in found if isinstance(problem, Exception)]
    return len(rest) / (time.perf_counter() - began), (time.process_time() - busy) / len(rest) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--only", choices=EVERY)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    np.seterr(all="ignore")
    assert {name.partition(",")[0] for name in EVERY} == set(READERS), "every kind is timed"
    with tempfile.TemporaryDirectory() as place:
        room = Room(options.frames, Path(place))
        for name, write in EVERY.items():
            if options.only not in (None, name):
                continue
            path, how = write(room, Path(place) / name)
            sequence = open_sequence(path, name.partition(",")[0], **how)
            frames, busy = rate(sequence)
            size = f"{sequence.camera.width}x{sequence.camera.height}"
            print(f"{name:20} {frames:7.1f} frames/s, {busy:5.1f} ms of processor a frame, {size}", flush=True)


if __name__ == "__main__":
    main()
