"""Frames a second of each reader: a written recording of 640x480 colour, read ahead in order as a run reads it.

Processor time is that of all threads: on a machine that others use, too, it tells more than the rate.

python benchmarks/readers.py [--frames 60] [--only NAME]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from sequences import open_sequence
from sequences.conversion import WRITERS
from sequences.prefetch import read_ahead
from sequences.room.room import RoomSequence
from sequences.selected import selected
from sequences.sequence import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def written(folder: Path, frames: int) -> dict[str, tuple[Path, dict]]:
    """Recordings by name, with the options to open them."""
    from test_dataset_recordings import write_sens
    from test_phone_recordings import polycam_files, record3d_files, write_zip
    from written_recordings import write_video

    room = RoomSequence(frames=frames)
    recordings: dict[str, tuple[Path, dict]] = {}
    for kind, write in WRITERS.items():
        recordings[kind] = (write(room, folder / (f"{kind}.klg" if kind == "klg" else kind)), {})
    images = list(room)
    write_video(folder / "clip.mp4", images)
    recordings["video"] = (folder / "clip.mp4", {"fov": 60.0})
    write_sens(folder / "scan.sens", images)
    recordings["scannet-sens"] = (folder / "scan.sens", {})
    recordings["polycam"] = (write_zip(folder / "polycam.zip", polycam_files(images)), {})
    files = record3d_files(images)
    files["metadata"] = files["metadata"].replace(b'"dw": 32, "dh": 24', b'"dw": 213, "dh": 160')
    recordings["record3d (stored)"] = (write_zip(folder / "scan.r3d", files), {})
    try:
        from test_ros_recordings import BagWriter, write_aligned
    except BaseException:  # skipped where rosbags is not installed
        return recordings
    with BagWriter(folder / "aligned.bag", 1) as bag:
        write_aligned(bag, images)
    recordings["ros-bag"] = (folder / "aligned.bag", {})
    return recordings


def rate(sequence: Sequence) -> tuple[float, float]:
    """Frames a second and processor milliseconds a frame, the first few left out: they compile and open."""
    for frame in selected(sequence, frames=3):
        assert frame.color.any()
    began, busy = time.perf_counter(), time.process_time()
    rest = sequence.numbers(3)
    count = sum(1 for _ in read_ahead(lambda i: sequence[i], rest, sequence.ahead, sequence.decoders))
    return count / (time.perf_counter() - began), (time.process_time() - busy) / count * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--only")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, how) in written(Path(folder), options.frames).items():
            if options.only in (None, name):
                sequence = open_sequence(path, **how)
                frames, busy = rate(sequence)
                size = f"{sequence.camera.width}x{sequence.camera.height}"
                print(f"{name:20} {frames:7.1f} frames/s, {busy:5.1f} ms of processor a frame, {size}")


if __name__ == "__main__":
    main()
