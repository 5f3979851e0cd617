"""Frames a second of each reader: a written recording of 640x480 colour, read in order by one thread.

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


def rate(sequence: Sequence) -> float:
    """Frames a second, the first few left out: they compile and open."""
    for frame in selected(sequence, frames=3):
        assert frame.color.any()
    began = time.perf_counter()
    count = sum(1 for _ in selected(sequence, start=3))
    return count / (time.perf_counter() - began)


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
                print(f"{name:20} {rate(sequence):7.1f} frames/s  {sequence.camera.width}x{sequence.camera.height}")


if __name__ == "__main__":
    main()
