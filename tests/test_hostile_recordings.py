"""Recordings of every kind with one hostile change each: every one is read, or told in one line, in bounded time."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from every_recording import EVERY, Room, Written

from sequences import open_sequence

TEXT = (".txt", ".json", ".yaml", ".csv", ".log", ".traj")
IMAGES = (".png", ".jpg", ".pgm", ".ppm")
NUMBER = re.compile(rb"-?\d+\.\d+(e-?\d+)?")
LONGEST = 10.0  # seconds of processor time for one recording of five frames
Change = Callable[[bytes], bytes]
Members = list[tuple[str, bytes | int]]  # of an archive: name and content, or how many zeros

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return Room(5, tmp_path_factory.mktemp("images"))


def some_lines(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    return lambda data: b"\n".join(change(data.rstrip(b"\n").split(b"\n"))) + b"\n"


def in_middle(data: bytes, number: bytes) -> bytes:
    found = list(NUMBER.finditer(data))
    return data if not found else data[: (m := found[len(found) // 2]).start()] + number + data[m.end() :]


def of_texts() -> Iterator[Change]:
    yield some_lines(lambda lines: lines[: len(lines) // 2] + lines[len(lines) // 2 + 1 :])
    yield some_lines(lambda lines: [*lines[: len(lines) // 2 + 1], *lines[len(lines) // 2 :]])  # one line twice
    yield some_lines(lambda lines: lines[::-1])
    for number in (b"nan", b"-inf", b"1e300", b"0", b"-1", b"abc"):
        yield lambda data, number=number: NUMBER.sub(number, data)
        yield lambda data, number=number: in_middle(data, number)
    yield lambda _: b"[" * 100_000
    yield lambda data: re.sub(rb":\s*[-\d.e]+", b": null", data)
    yield lambda data: re.sub(rb":\s*\d+", b": 1" + b"0" * 30, data)


def of_images() -> Iterator[Change]:
    for image in (np.zeros((640, 480), np.uint16), np.zeros((480, 640), np.uint8), np.zeros((480, 640, 4), np.uint8)):
        yield lambda _, image=image: cv2.imencode(".png", image)[1].tobytes()
    yield lambda _: random.Random(0).randbytes(3000)


def of_containers() -> Iterator[Change]:
    def forged(data: bytes, seed: int, reach: int, count: int) -> bytes:
        chance, changed = random.Random(seed), bytearray(data)
        for _ in range(count):
            changed[chance.randrange(min(len(data), reach))] = chance.choice((0, 127, 128, 255))
        return bytes(changed)

    for seed in range(4):
        yield lambda data, seed=seed: forged(data, seed, 400, 6)
        yield lambda data, seed=seed: forged(data, seed, len(data), 30)
    yield lambda data: data[: len(data) // 2] + bytes(65536) + data[len(data) // 2 + 65536 :]
    for share in (0.9, 0.99):
        yield lambda data, share=share: data[: int(share * len(data))]


def of_archives() -> Iterator[Change]:
    def packed(change: Callable[[Members], Members], data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in change(members):
                with archive.open(name, "w") as member:
                    for part in [content] if isinstance(content, bytes) else [bytes(1 << 20)] * (content >> 20):
                        member.write(part)
        return out.getvalue()

    changes: list[Callable[[Members], Members]] = [
        lambda members: [m for i, m in enumerate(members) if i != len(members) // 2],
        lambda members: [*members[:-1], (members[-1][0], 1 << 29)],  # a bomb
        lambda members: [("../../" + n if i % 3 == 1 else n, b) for i, (n, b) in enumerate(members)],
        lambda members: [(n, b"" if i % 4 == 0 else b) for i, (n, b) in enumerate(members)],
        lambda members: [(n, NUMBER.sub(b"NaN", b) if n.endswith(("json", "metadata")) else b) for n, b in members],
    ]
    for change in changes:
        yield lambda data, change=change: packed(change, data)


def changes_of(path: Path) -> list[Change]:
    every: list[Change] = [lambda _: b"", lambda data: data[: len(data) // 2]]
    if path.suffix in TEXT:
        return [*every, *of_texts()]
    if path.suffix in IMAGES:
        return [*every, *of_images()]
    return [*every, *of_containers(), *(of_archives() if path.suffix in (".zip", ".r3d") else ())]


def victims(folder: Path) -> list[Path]:
    """One file of each folder and suffix, from the middle."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        groups.setdefault((path.parent, path.suffix), []).append(path)
    return [paths[len(paths) // 2] for paths in groups.values()]


def read(written: Written, path: Path, kind: str) -> None:
    began = time.process_time()
    read_or_told(written, path, kind)
    assert time.process_time() - began < LONGEST


def read_or_told(written: Written, path: Path, kind: str) -> None:
    try:
        sequence = open_sequence(path, kind, **written.options)
    except (ValueError, OSError) as problem:
        assert str(problem) and "\n" not in str(problem)
        return
    assert np.isfinite(sequence.timestamps).all() and len(sequence) < 100
    assert all(T is None or np.isfinite(T).all() for T in sequence.poses or ())
    for index in range(len(sequence)):
        try:
            frame = sequence[index]
        except (ValueError, OSError) as problem:
            assert str(problem) and "\n" not in str(problem)
        else:
            assert frame.color.shape == (*sequence.camera.shape, 3)
            assert frame.depth is None or (np.isfinite(frame.depth).all() and (frame.depth >= 0).all())


@pytest.mark.parametrize("name", [name for name in EVERY if name != "room"])
def test_a_hostile_change_is_read_around_or_told_in_one_line(room, tmp_path, name):
    kind = name.partition(",")[0]
    if kind == "ros-bag":
        pytest.importorskip("rosbags", reason="bags are read by rosbags, which is not installed")
    (tmp_path / "sound").mkdir()
    written = EVERY[name](room, tmp_path / "sound" / "recording")
    inside = written.path.relative_to(tmp_path / "sound")
    read(written, written.path, kind)
    for victim in victims(tmp_path / "sound"):
        sound = victim.read_bytes()
        for change in (None, *changes_of(victim)):
            copy = tmp_path / "hostile"
            shutil.copytree(tmp_path / "sound", copy)
            path = copy / victim.relative_to(tmp_path / "sound")
            os.unlink(path)
            if change is not None:
                path.write_bytes(change(sound))
            read(written, copy / inside, kind)
            shutil.rmtree(copy)
    assert not (tmp_path.parent / "office_0001").exists()  # no name of an archive leaves its folder


def test_poses_that_are_all_broken_are_told(room, tmp_path, caplog):
    written = EVERY["stray-scanner"](room, tmp_path / "recording")
    path = written.path / "odometry.csv"
    path.write_bytes(NUMBER.sub(b"nan", path.read_bytes()))
    assert not open_sequence(written.path).has_poses
    assert "5 of 5 frames have no pose" in caplog.text
