"""Damage: a recording with any bytes changed, cut off or forged is read, or refused in one line; never more."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_azure_kinect import write_kinect
from test_dataset_recordings import write_sens
from test_phone_recordings import polycam_files, record3d_files, write_zip
from written_recordings import put, room_frames, write_video

from sequences import open_sequence
from sequences.conversion import write_tum_folder
from sequences.recordings.cameras.klg import write_klg
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence

MUTATIONS = 25


def bag(path: Path, ros: int, storage: str = "") -> None:
    pytest.importorskip("rosbags", reason="bags are read by rosbags, which is not installed")
    from test_ros_recordings import BagWriter, write_aligned

    with BagWriter(path, ros, storage) as writer:
        write_aligned(writer, room_frames(3))


WRITTEN: dict[str, Callable[[Path], object]] = {
    "a.sens": lambda path: write_sens(path, room_frames(3)),
    "a.klg": lambda path: write_klg(RoomSequence(frames=3, width=96, height=72), path),
    "a.mkv": lambda path: write_kinect(path, np.eye(4)),
    "a.r3d": lambda path: write_zip(path, record3d_files(room_frames(3), per_frame=True)),
    "polycam.zip": lambda path: write_zip(path, polycam_files(room_frames(3))),
    "a.mp4": lambda path: write_video(path, room_frames(3)),
    "a.bag": lambda path: bag(path, 1),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes with some changed, cut off, set to the largest number, or replaced by text."""
    changed = bytearray(data)
    kind = chance.choice(["change", "change", "change", "cut", "forge", "text", "grow"])
    if kind == "change":
        reach = min(len(data), chance.choice([64, 400, 4000, len(data)]))
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(reach)] = chance.randrange(256)
    elif kind == "cut":
        return data[: chance.randrange(len(data))]
    elif kind == "forge":
        at = chance.randrange(min(len(data) - 8, 600))
        changed[at : at + 8] = chance.choice([b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\x7f" + b"\xff" * 7])
    elif kind == "text":
        return b"not what it should be \xff\xfe\n" * 3
    else:
        changed += bytes(chance.randrange(256) for _ in range(100))
    return bytes(changed)


@pytest.mark.parametrize(("name", "storage", "seed"), [("a.bag", "", 8), ("a.mcap", "mcap", 4), ("a.mcap", "mcap", 8)])
def test_bags_whose_library_meets_what_it_does_not_expect_are_one_line(tmp_path, name, storage, seed):
    """An assertion, a number too large for a seek, a topic that claims messages and holds none."""
    written = tmp_path / name
    bag(written, 2 if storage else 1, storage)
    if written.is_dir():
        written = next(written.glob("*.mcap"))
    chance = random.Random(name + "x")
    for _ in range(seed + 1):
        data = damaged(written.read_bytes(), chance)
    put(path := tmp_path / "damaged" / f"{seed}{written.suffix}", data)
    with pytest.raises(ValueError, match=r"damaged|cut short"):
        list(open_sequence(path))


@pytest.mark.parametrize("name", list(WRITTEN))
def test_damage_is_read_around_or_told_in_one_line(tmp_path, name):
    WRITTEN[name](tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    options = {"fov": 60.0} if name.endswith("mp4") else {}
    chance = random.Random(name)
    for turn in range(MUTATIONS):
        path = tmp_path / str(turn) / name
        put(path, damaged(sound, chance))
        try:
            sequence = open_sequence(path, **options)
        except (ValueError, OSError) as problem:
            assert str(path) in str(problem) and "\n" not in str(problem)
            continue
        for index in range(min(len(sequence), 5)):
            try:
                assert sequence[index].color.shape[:2] == sequence.camera.shape
            except (ValueError, OSError) as problem:
                assert "\n" not in str(problem)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write_folder(RoomSequence(frames=3, width=64, height=48), tmp_path_factory.mktemp("plain") / "room")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("width", 64.5, "width is 64.5, expected a whole number"),
        ("height", True, "height is True, expected a whole number"),
        ("fx", True, "fx is True, expected a number"),
        ("fps", True, "fps nan must be above 0"),
        ("fps", 10**400, "must be above 0 and below"),
        ("fps", 1e300, "must be above 0 and below"),
        ("depth_scale", "a thousand", "depth_scale nan must be above 0"),
    ],
)
def test_numbers_of_a_camera_that_are_none_are_told(plain, tmp_path, key, value, said):
    folder = Path(shutil.copytree(plain, tmp_path / "room"))
    values = yaml.safe_load((folder / "camera.yaml").read_text()) | {key: value}
    (folder / "camera.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=f"camera.yaml: .*{said}"):
        open_sequence(folder)


@pytest.mark.parametrize("name", ["groundtruth.txt", "depth"])
@pytest.mark.parametrize("made", ["pipe", "link"])
def test_what_is_there_and_is_no_file_or_folder_is_not_taken_for_missing(plain, tmp_path, name, made):
    folder = Path(shutil.copytree(plain, tmp_path / "room"))
    place = folder / name
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    if made == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises((ValueError, OSError), match=f"{name}: "):
        open_sequence(folder)


def test_positions_that_are_nowhere_are_broken_numbers(plain, tmp_path):
    folder = Path(shutil.copytree(plain, tmp_path / "room"))
    (folder / "groundtruth.txt").write_text("".join(f"{i} 1e308 0 0 0 0 0 1\n" for i in range(3)))
    with pytest.raises(ValueError, match=r"1e\+308 m from the origin"):
        open_sequence(folder)


def test_text_as_windows_writes_it_is_read(plain, tmp_path):
    folder = Path(shutil.copytree(plain, tmp_path / "room"))
    for name in ("groundtruth.txt", "camera.yaml"):
        (folder / name).write_bytes((folder / name).read_text().encode("utf-16"))
    wide, usual = open_sequence(folder), open_sequence(plain)
    np.testing.assert_array_equal(wide.poses, usual.poses)
    assert wide.camera == usual.camera


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.rename(p.with_suffix(".jpg")), "depth: holds .jpg files, which are not read as depth"),
        (lambda p: p.rename(p.with_suffix(".npz")), "depth: holds .npz files"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "is a pointer of Git LFS"),
        (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "is a HEIC or AVIF image"),
    ],
)
def test_depth_of_another_kind_is_not_taken_for_none(plain, tmp_path, change, said):
    folder = Path(shutil.copytree(plain, tmp_path / "room"))
    for file in list((folder / "depth").iterdir()):
        change(file)
    with pytest.raises(ValueError, match=said):
        open_sequence(folder)[0]


def test_a_note_or_a_folder_in_place_of_depth_is_no_depth(plain, tmp_path):
    folder = Path(shutil.copytree(plain, tmp_path / "room"))
    shutil.rmtree(folder / "depth")
    (folder / "depth" / "old.images").mkdir(parents=True)
    (folder / "depth" / "README.md").write_text("there was no depth camera\n")
    assert not open_sequence(folder).has_depth


def test_a_compressed_trajectory_is_not_taken_for_none(plain, tmp_path):
    folder = Path(shutil.copytree(plain, tmp_path / "room"))
    packed = gzip.compress((folder / "groundtruth.txt").read_bytes())
    (folder / "groundtruth.txt").write_bytes(packed)
    with pytest.raises(ValueError, match=r"groundtruth\.txt: is compressed \(gzip\)"):
        open_sequence(folder)
    (folder / "groundtruth.txt").rename(folder / "groundtruth.txt.gz")
    with pytest.raises(ValueError, match=r"groundtruth\.txt\.gz: is compressed; unpack it"):
        open_sequence(folder)
    tum = write_tum_folder(open_sequence(plain), tmp_path / "tum")
    (tum / "groundtruth.txt").rename(tum / "groundtruth.txt.gz")
    with pytest.raises(ValueError, match=r"groundtruth\.txt\.gz: is compressed; unpack it"):
        open_sequence(tum)
