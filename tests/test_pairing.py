"""Files of one frame find each other by name, number or time and never by place; every reader honours what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_recordings import as_associations, as_png, as_tum

from semslam import images
from sequences import open_sequence
from sequences.conversion import write_tum_folder
from sequences.pairing import in_order, paired, times_of_names
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence


@pytest.fixture(scope="module")
def room(six_frames) -> RoomSequence:
    return six_frames


def rename(folder: Path, sub: str, name) -> None:
    for i, path in enumerate(sorted((folder / sub).iterdir())):
        path.rename(folder / sub / f"new-{i}{path.suffix}")
    for i in range(6):
        (folder / sub / f"new-{i}.png").rename(folder / sub / name(i))


def same_frames(room: RoomSequence, folder: Path) -> None:
    """Depth and labels are those of the colour image, told from their content."""
    sequence = open_sequence(folder)
    assert len(sequence) == len(room)
    for ours, theirs in zip(room, sequence):
        assert np.array_equal(ours.color, theirs.color)
        assert np.abs(ours.depth - theirs.depth).max() < 6e-4
        assert np.array_equal(ours.labels, theirs.labels)


# Names and order


def test_names_that_are_times_are_in_the_order_of_time():
    names = ["10.25", "9.5", "9.125", "100.0"]
    assert in_order(names) == ["9.125", "9.5", "10.25", "100.0"]
    stamps = [f"{1305031102 + i / 4}" for i in range(8)]
    assert in_order(stamps[::-1]) == stamps
    assert in_order(["frame10", "frame9", "frame2"]) == ["frame2", "frame9", "frame10"]
    assert in_order(["part1.10", "part1.9"]) == ["part1.9", "part1.10"], "parts are counted"


def test_odd_digits_are_letters():
    assert in_order(["²b", "10", "²a", "9", "٣"])[:2] == ["9", "10"]


@pytest.mark.parametrize(
    ("color", "depth"),
    [
        (lambda i: f"rgb_{i}.png", lambda i: f"depth_{i}.png"),
        (lambda i: f"{i}.png", lambda i: f"{i:05d}.png"),
        (lambda i: f"frame-{i:06d}.color.png", lambda i: f"frame-{i:06d}.depth.png"),
        (lambda i: f"{i:07d}-{33369 * i:012d}.png", lambda i: f"{i:07d}-{33369 * i + 14680:012d}.png"),
        (lambda i: f"{100 + i / 30:.6f}.png", lambda i: f"{100 + i / 30 + 0.008:.6f}.png"),
        (lambda i: f"{99.5 + i / 4}.png", lambda i: f"{99.5 + i / 4}.png"),
        (
            lambda i: f"{1305031102175304000 + 33_333_333 * i}.png",
            lambda i: f"{1305031102175304000 + 33_333_333 * i + 9_000_000}.png",
        ),
    ],
)
def test_images_of_a_frame_find_each_other(room, folder, color, depth):
    rename(folder, "color", color)
    rename(folder, "label40", color)
    rename(folder, "depth", depth)
    (folder / "groundtruth.txt").unlink()
    same_frames(room, folder)


def test_a_missing_depth_image_moves_no_other(room, folder, caplog):
    rename(folder, "color", lambda i: f"rgb_{i}.png")
    rename(folder, "depth", lambda i: f"depth_{i}.png")
    rename(folder, "label40", lambda i: f"rgb_{i}.png")
    (folder / "depth" / "depth_2.png").unlink()
    sequence = open_sequence(folder)
    assert sequence.try_read(2) is None
    for i in (1, 3, 5):
        assert np.abs(room[i].depth - sequence[i].depth).max() < 6e-4
    assert "1 of 6 files in color/ have no partner in depth/" in caplog.text


def test_depth_at_half_the_rate_of_colour_is_paired_and_told(room, folder, caplog):
    for i in (1, 3, 5):
        (folder / "depth" / f"{i:06d}.png").unlink()
    sequence = open_sequence(folder)
    assert len(sequence) == 3 and sequence.missing_files() == []
    assert "3 of 6 frames lack colour or depth and are left out" in caplog.text
    for i, number in enumerate((0, 2, 4)):
        assert np.abs(room[number].depth - sequence[i].depth).max() < 6e-4
        np.testing.assert_allclose(sequence.poses[i], room.poses[number], atol=1e-6)
    assert sequence.origin[1].tolist() == [0, 2, 4]  # of which a pose file may have one line each


def test_poses_of_another_rate_are_paired_by_time_where_they_last_as_long(folder):
    times = np.linspace(0, 5 / 30, 26)
    rows = [f"{1305 + t:.6f} {30 * t:.6f} 0 0 0 0 0 1\n" for t in times]
    (folder / "groundtruth.txt").write_text("".join(rows))
    sequence = open_sequence(folder)
    np.testing.assert_allclose([T[0, 3] for T in sequence.poses], range(6), atol=1e-4)
    assert any("26 pose lines for 6 frames, and both last 0.2 s" in note for note in sequence.assumptions)
    (folder / "groundtruth.txt").write_text("".join(rows[:12]))
    with pytest.raises(ValueError, match="12 pose lines, but 6 frames"):
        open_sequence(folder)
    # one more than frames: a frame is missing somewhere, and which one no time tells
    (folder / "groundtruth.txt").write_text("".join(f"{1305 + t:.6f} 0 0 0 0 0 0 1\n" for t in np.arange(7) / 36))
    with pytest.raises(ValueError, match="7 pose lines, but 6 frames"):
        open_sequence(folder)


def test_a_list_written_on_windows_names_the_same_files(room, tmp_path):
    folder = write_tum_folder(room, tmp_path / "tum")
    for name in ("rgb.txt", "depth.txt"):
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"/", b"\\").replace(b"\n", b"\r\n"))
    sequence = open_sequence(folder)
    assert len(sequence) == len(room) and sequence.missing_files() == []


def test_label_images_that_match_no_frame_are_refused(folder):
    rename(folder, "label40", lambda i: f"{i + 500:06d}.png")
    with pytest.raises(ValueError, match="6 of 6 files in label40/ match no file in color/"):
        open_sequence(folder)


def test_depth_of_another_recording_is_refused(folder):
    rename(folder, "depth", lambda i: f"{5000 + i}.png")
    with pytest.raises(ValueError, match="6 of 6 files in depth/ match no file in color/"):
        open_sequence(folder)


def test_every_label_of_a_few_labelled_frames_finds_its_frame(folder):
    for i in (1, 2, 4, 5):
        (folder / "label40" / f"{i:06d}.png").unlink()
    sequence = open_sequence(folder)
    assert sequence.labelled_indices == [0, 3] and sequence.assumptions == ()


def test_partners_are_told_by_the_rule_that_finds_most(tmp_path):
    a = {f"rgb_{i}": tmp_path / "a" / f"rgb_{i}.png" for i in range(4)}
    b = {f"depth_{i}": tmp_path / "b" / f"depth_{i}.png" for i in (0, 1, 3, 9)}
    found, notes = paired(tmp_path, a, b)
    assert {k: v.stem for k, v in found.items() if k in a} == {
        "rgb_0": "depth_0",
        "rgb_1": "depth_1",
        "rgb_3": "depth_3",
    }
    assert "1 of 4 files in b/ have no partner in a/" in notes[0] and len(notes) == 2
    assert times_of_names(["1305031102175", "1305031102208"]).tolist() == [1305031102.175, 1305031102.208]
    assert times_of_names(["1.5", "2.25"]).tolist() == [1.5, 2.25] and times_of_names(["1.5", "x"]) is None


# Poses of the plain folder


def test_poses_of_timed_images_are_interpolated_when_they_are_rarer(room, folder, caplog):
    for sub in ("color", "depth", "label40"):
        rename(folder, sub, lambda i: f"{100 + i / 30:.6f}.png")
    rows = np.loadtxt(folder / "groundtruth.txt")
    rows[:, 0] += 100
    np.savetxt(folder / "groundtruth.txt", rows[[0, 2, 5]], fmt="%.9f")
    sequence = open_sequence(folder)
    for i, T in enumerate(sequence.poses):
        np.testing.assert_allclose(T, room.poses[i], atol=2e-3)
    assert "poses of 3 of 6 frames are interpolated" in caplog.text


def test_a_plain_folder_takes_matrices_and_logs_as_well(room, folder):
    (folder / "groundtruth.txt").unlink()
    (folder / "trajectory.log").write_text(
        "".join(f"{i} {i} {i + 1}\n" + "\n".join(" ".join(map(str, r)) for r in room.poses[i]) + "\n" for i in (1, 4))
    )
    poses = open_sequence(folder).poses
    assert [i for i, T in enumerate(poses) if T is not None] == [1, 4]
    np.testing.assert_allclose(poses[4], room.poses[4], atol=1e-6)
    (folder / "groundtruth.txt").write_text("\n".join(" ".join(map(str, T[:3].ravel())) for T in room.poses))
    np.testing.assert_allclose(open_sequence(folder).poses[2], room.poses[2], atol=1e-6)


def test_raw_images_are_in_the_order_of_time_and_far_ones_are_no_pair(tmp_path, caplog):
    def raw(depth_times, color_times) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for t in depth_times:
            as_png(folder / f"d-{t}-7.pgm", np.full((480, 640), 700, np.uint16))
        for t in color_times:
            as_png(folder / f"r-{t}-7.ppm", np.zeros((480, 640, 3), np.uint8))
        return folder

    times = [f"{9.8 + i / 10:.1f}" for i in range(6)]
    sequence = open_sequence(raw(times, times))
    assert sequence.timestamps.tolist() == pytest.approx([float(t) for t in times])
    assert [f.stem[2:-2] for f in sequence.color_paths] == times
    some = open_sequence(raw(times, times[:4]))
    assert any("1 of 6 depth images have no colour image within 0.1 s" in line for line in some.assumptions)
    with pytest.raises(ValueError, match=r"6 of 6 depth images have no colour image"):
        open_sequence(raw(times, ["300.1", "300.2"]))


def _with_times(path, change):
    """Lists of images with other times."""
    for name in ("rgb.txt", "depth.txt"):
        lines = [line.split() for line in (path / name).read_text().splitlines() if not line.startswith("#")]
        times = change(np.array([float(words[0]) for words in lines]))
        (path / name).write_text("".join(f"{time:.4f} {words[1]}\n" for time, words in zip(times, lines)))


def test_images_of_a_clock_that_stands_still_are_left_out_and_told(tmp_path):
    small = RoomSequence(frames=24, width=80, height=60)
    path = as_tum(small, tmp_path / "still", 5000.0)
    _with_times(path, lambda times: np.where(np.arange(24) == 8, times[7], times))
    sequence = open_sequence(path, camera=small.camera)
    assert [file.stem for file in sequence.color_paths] == [str(i) for i in range(24) if i != 8]
    for name in ("rgb.txt", "depth.txt"):
        assert any(f"1 of 24 images of {name} have the time of another" in note for note in sequence.assumptions)
    _with_times(path, np.floor)
    with pytest.raises(ValueError, match=r"rgb\.txt: 23 of 24 images have the time of another, .*1\.png at 0; write"):
        open_sequence(path)


def test_a_line_that_is_written_twice_is_one_and_a_clock_that_goes_back_is_told(tmp_path):
    small = RoomSequence(frames=24, width=80, height=60)
    path = as_tum(small, tmp_path / "twice", 5000.0)
    with (path / "rgb.txt").open("a") as file:
        file.write((path / "rgb.txt").read_text().splitlines()[-1] + "\n")
    sequence = open_sequence(path, camera=small.camera)
    assert len(sequence) == 24 and not any("rgb.txt" in note for note in sequence.assumptions)
    path = as_tum(small, tmp_path / "back", 5000.0)
    _with_times(path, lambda times: np.where(np.arange(24) >= 12, times - 0.205, times))
    (note,) = (n for n in open_sequence(path, camera=small.camera).assumptions if "times of rgb.txt go back" in n)
    assert "once, first at 12.png" in note


def test_two_pairs_at_one_time_are_told(room, tmp_path):
    path = as_associations(room, tmp_path / "again", 5000.0)
    pairs = (path / "associations.txt").read_text()
    one, two = (f"{time} rgb/5.png {time} depth/5.png\n" for time in ("0.0333", "0.0667"))
    (path / "associations.txt").write_text(pairs + one)
    sequence = open_sequence(path, camera=room.camera)
    assert len(sequence) == 6 and any("1 of 7 images of" in line for line in sequence.assumptions)
    (path / "associations.txt").write_text(pairs + one + two)
    with pytest.raises(ValueError, match=r"associations\.txt: 2 of 8 images have the time of another, .*5\.png"):
        open_sequence(path, camera=room.camera)


def test_images_of_a_list_without_a_partner_are_counted(room, tmp_path):
    path = as_tum(room, tmp_path / "late", 5000.0)
    lines = (path / "depth.txt").read_text().splitlines()
    (path / "depth.txt").write_text("\n".join([*lines[:4], "0.9000 depth/4.png", "0.9333 depth/5.png"]) + "\n")
    sequence = open_sequence(path, camera=room.camera, depth_scale=5000.0)
    assert len(sequence) == 4 and sum("2 of 6 images of" in line for line in sequence.assumptions) == 2
    (path / "depth.txt").write_text("\n".join([lines[0], *(f"{i}.5 depth/{i}.png" for i in range(1, 6))]) + "\n")
    with pytest.raises(ValueError, match=r"only 1 of 6 images of rgb\.txt have a depth image"):
        open_sequence(path, camera=room.camera)


@pytest.mark.parametrize("unit", [1e3, 1e6, 1e9])
def test_lists_and_poses_in_other_units_than_seconds_are_in_seconds(tmp_path, unit):
    """The room as a folder of TUM's layout whose clock counts ms, us or ns since 1970, as loggers of robots write."""
    room = RoomSequence(frames=4, width=64, height=48)
    start = 1_600_000_000
    ticks = [round((start + i / 30) * unit) for i in range(4)]
    for kind in ("rgb", "depth"):
        (tmp_path / kind).mkdir()
        lines = "".join(f"{tick} {kind}/{tick}.png\n" for tick in ticks)
        (tmp_path / f"{kind}.txt").write_text(lines)
    for tick, frame in zip(ticks, room):
        images.write_png(tmp_path / "rgb" / f"{tick}.png", frame.color)
        images.write_png(tmp_path / "depth" / f"{tick}.png", np.rint(frame.depth * 5000).astype(np.uint16))
    poses = "".join(f"{tick} {0.1 * i} 0 0 0 0 0 1\n" for i, tick in enumerate(ticks))
    (tmp_path / "groundtruth.txt").write_text(poses)
    sequence = open_sequence(tmp_path, camera=room.camera)
    np.testing.assert_allclose(sequence.timestamps, start + np.arange(4) / 30, atol=1e-3)
    assert sequence[3].T_world_camera[0, 3] == pytest.approx(0.3)


def test_a_plain_folder_named_by_nanoseconds_is_in_seconds(tmp_path):
    room = RoomSequence(frames=3, width=64, height=48)
    write_folder(room, tmp_path / "a")
    for sub in ("color", "depth", "label40"):
        for i in range(3):
            tick = 1_403_636_579_763_555_584 + i * 50_000_000
            (tmp_path / "a" / sub / f"{i:06d}.png").rename(tmp_path / "a" / sub / f"{tick}.png")
    (tmp_path / "a" / "groundtruth.txt").unlink()
    np.testing.assert_allclose(np.diff(open_sequence(tmp_path / "a").timestamps), 0.05, atol=1e-6)


def test_a_copy_among_numbered_images_is_left_out_and_moves_no_frame(tmp_path, caplog):
    room = RoomSequence(frames=24, width=64, height=48)
    folder = write_folder(room, tmp_path / "room")
    (folder / "groundtruth.txt").unlink()
    times = open_sequence(folder).timestamps
    for kind in ("color", "depth"):
        (copied,) = (folder / kind).glob("*000010.*")
        (folder / kind / f"{copied.stem} (1){copied.suffix}").write_bytes(copied.read_bytes())
    sequence = open_sequence(folder)
    np.testing.assert_array_equal(sequence.timestamps, times)
    assert caplog.text.count("is a copy of") == 2
    other = (folder / "color" / "000011.png").read_bytes() + b"0"
    (folder / "color" / "last.png").write_bytes(other)
    open_sequence(folder)
    assert "last.png: is named unlike the other 24 images" in caplog.text


def test_poses_of_other_programs_and_photographs_of_other_formats_are_told(tmp_path, caplog):
    folder = write_folder(RoomSequence(frames=3, width=64, height=48), tmp_path / "room")
    (folder / "groundtruth.txt").unlink()
    (folder / "transforms.json").write_text("{}")
    assert not open_sequence(folder).has_poses
    assert "transforms.json: its poses, if it has any, are not read" in caplog.text
    for path in (folder / "color").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(ValueError, match=r"holds \.heic files, which are not read as colour"):
        open_sequence(folder)
