"""Fixtures that more than one test file uses."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from semslam.camera import Camera
from semslam.frame import Frame, Observation
from sequences import Sequence, open_sequence
from sequences.recordings.folder import write_folder
from sequences.room import room
from sequences.room.kinect_noise import kinect_noise
from sequences.room.room import Rendering, RoomSequence, render

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: more threads only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background jobs, and nohup's, ignore these signals, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

logging.getLogger("semslam.compiled.once").setLevel(logging.ERROR)  # tests count lines, whatever is compiled before


ROOT = Path(__file__).resolve().parents[1]


def compile_tracking() -> None:
    """The loops that track and fuse a frame."""
    from semslam.runs.reconstruct import rehearse

    rehearse()


def compile_parallax() -> None:
    """Those that measure depth by parallax."""
    from semslam.depth.multiview import MultiViewDepth

    room = RoomSequence(frames=40, width=80, height=60)
    views = MultiViewDepth(room.camera, room.poses, room.color_of, None, lambda i: (room[i].color, room[i].depth))
    views(Observation.of(room[15]), None)


def pytest_sessionstart() -> None:
    """In a fresh clone, two processes begin with different loops: else they would compile the same ones at a time."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    for mine, package, compiled in (("gw0", "engine", compile_tracking), ("gw1", "depth", compile_parallax)):
        if worker == mine and not any((ROOT / "semslam" / package).glob("__pycache__/*.nbi")):
            compiled()


SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data beside the repository; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found: {SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def small_rooms_are_drawn_once() -> Iterator[None]:
    """Many tests look at the same few small rooms: a process draws a view once, and hands out copies."""

    def draw(camera: Camera, pose: bytes) -> Rendering:
        return render(camera, np.frombuffer(pose).reshape(4, 4))

    small, larger = lru_cache(maxsize=512)(draw), lru_cache(maxsize=64)(draw)  # 60 to 90 MB each

    def copied(camera: Camera, T_world_camera: np.ndarray) -> Rendering:
        if camera.width > 320:
            return render(camera, T_world_camera)
        view = (small if camera.width <= 160 else larger)(camera, T_world_camera.tobytes())
        return Rendering(*(getattr(view, field.name).copy() for field in fields(view)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "render", copied)
        yield


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Tiny images gain nothing from more threads, and lose much where other programs want the cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["exact", pytest.param("kinect", marks=pytest.mark.slow)])
def sound(request) -> tuple[Sequence, list[Frame]]:
    room = RoomSequence(frames=90, width=320, height=240, noise=kinect_noise if request.param == "kinect" else None)
    return room, list(room)


@pytest.fixture(scope="module")
def kitchen(shared_data) -> tuple[Sequence, list[Frame]]:
    recording = open_sequence(shared_data / "redkitchen")
    return recording, list(recording)


@pytest.fixture(scope="module")
def six_frames() -> RoomSequence:
    """A small room, quickly drawn."""
    return RoomSequence(frames=6, width=80, height=60)


@pytest.fixture(scope="module")
def six_in_a_folder(six_frames, tmp_path_factory) -> Path:
    return write_folder(six_frames, tmp_path_factory.mktemp("written") / "room")


@pytest.fixture
def folder(six_in_a_folder, tmp_path) -> Path:
    """A plain folder of six frames, for tests to spoil."""
    return Path(shutil.copytree(six_in_a_folder, tmp_path / "seq"))


@pytest.fixture(scope="module")
def forty_in_a_folder(tmp_path_factory) -> Path:
    """As many frames as the doctor needs to judge motion."""
    return write_folder(RoomSequence(frames=40, width=160, height=120), tmp_path_factory.mktemp("forty") / "room")


@pytest.fixture
def long_folder(forty_in_a_folder, tmp_path) -> Path:
    """A plain folder of forty frames, for tests to spoil."""
    return Path(shutil.copytree(forty_in_a_folder, tmp_path / "room"))


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """Exported networks go to a folder of the tests, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMSLAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
