"""Each pose lands on its own frame, whether the file says times, numbers or nothing; what fits nothing is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semslam.trajectory import Trajectory
from semslam.trajectory.files import read_trajectory, write_tum
from sequences.pose_pairing import FramePoses, Frames, PoseHints, on_one_clock, poses_of_frames
from sequences.room.room import RoomSequence

FRAMES = 30


def at(x: float) -> np.ndarray:
    """The pose of a camera that moves 1 m a frame along x: its position tells which frame it is of."""
    T = np.eye(4)
    T[0, 3] = x
    return T


def rows(numbers: range | list[int], columns: int = 12) -> str:
    return "".join(" ".join(f"{x:.6f}" for x in at(i).ravel()[:columns]) + "\n" for i in numbers)


def log(numbers: list[int], headings: list[str] | None = None) -> str:
    heads = headings or [f"{i} {i} {i + 1}" for i in numbers]
    return "".join(
        f"{head}\n" + "".join(" ".join(f"{x:.6f}" for x in row) + "\n" for row in at(i))
        for head, i in zip(heads, numbers)
    )


def frames(first: int = 0, rate: float = 30.0) -> Frames:
    return Frames(100 + np.arange(FRAMES) / rate, [f"{first + i:06d}.png" for i in range(FRAMES)])


def found(tmp_path: Path, text: str, name: str = "poses.txt", of: Frames | None = None, **hints) -> FramePoses:
    (tmp_path / name).write_text(text)
    path = tmp_path / name
    return poses_of_frames(read_trajectory(path), path, of or frames(), PoseHints(**hints))


def places(poses: FramePoses) -> list[float | None]:
    return [None if T is None else round(float(T[0, 3]), 4) for T in poses.T_world_camera]


@pytest.mark.parametrize("columns", [12, 16])
def test_one_line_a_frame_is_that_frames_pose(tmp_path, columns):
    poses = found(tmp_path, rows(range(FRAMES), columns))
    assert places(poses) == list(range(FRAMES)) and poses.notes == ()


def test_a_byte_order_mark_eats_no_pose(tmp_path):
    (tmp_path / "poses.txt").write_text("\ufeff" + rows(range(FRAMES)), encoding="utf-8")
    assert len(read_trajectory(tmp_path / "poses.txt")) == FRAMES
    (tmp_path / "tum.txt").write_text("\ufeff0.5 1 2 3 0 0 0 1\n0.6 1 2 3 0 0 0 1\n", encoding="utf-8")
    assert len(read_trajectory(tmp_path / "tum.txt")) == 2


def test_a_first_line_with_one_wrong_word_is_no_heading(tmp_path):
    (tmp_path / "tum.txt").write_text("0.5 1 2 x 0 0 0 1\n0.6 1 2 3 0 0 0 1\n")
    with pytest.raises(ValueError, match=r"tum\.txt:1"):
        read_trajectory(tmp_path / "tum.txt")
    (tmp_path / "tum.txt").write_text("time x y z qx qy qz qw\n0.6 1 2 3 0 0 0 1\n")
    assert len(read_trajectory(tmp_path / "tum.txt", kind="tum")) == 1


def test_a_nan_line_is_its_own_frames_and_shifts_no_other(tmp_path):
    lines = rows(range(FRAMES)).splitlines()
    lines[4] = " ".join(["nan"] * 12)
    poses = found(tmp_path, "\n".join(lines))
    assert places(poses) == [None if i == 4 else i for i in range(FRAMES)]
    assert "1 of 30 frames have no pose" in poses.notes[0]


def test_a_count_that_disagrees_is_refused_with_what_would_settle_it(tmp_path):
    with pytest.raises(ValueError, match=r"10 poses for 30 frames.*--pose-rate R.*--pose-indices"):
        found(tmp_path, rows(range(10)))


def test_a_rate_places_keyframe_poses_and_interpolates_between_them(tmp_path):
    poses = found(tmp_path, rows(range(0, FRAMES, 3)), rate=10.0)
    assert places(poses)[:28] == pytest.approx(list(range(28)), abs=1e-4)
    assert places(poses)[28:] == [None, None], "nothing is known after the last pose"
    assert any("interpolated" in note for note in poses.notes)
    assert any("2 of 30 frames have no pose: 2 before its first or after its last" in note for note in poses.notes)


@pytest.mark.parametrize("as_file", [False, True])
def test_indices_place_keyframe_poses(tmp_path, as_file):
    (tmp_path / "kept.txt").write_text("0\n10\n20\n")
    poses = found(tmp_path, rows([0, 10, 20]), indices=str(tmp_path / "kept.txt") if as_file else "::10")
    assert places(poses) == [i if i in (0, 10, 20) else None for i in range(FRAMES)]


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ({"indices": "0:2"}, "names 2 frames for 3 poses"),
        ({"indices": "nowhere.txt"}, "neither START:STOP:STEP nor a file"),
        ({"indices": "huge.txt"}, "neither START:STOP:STEP nor a file"),
        ({"indices": "::0"}, "the step is 0"),
        ({"rate": 0.0}, "expected a positive number"),
        ({"rate": 1.0, "indices": "::1"}, "give one of them"),
    ],
)
def test_hints_that_make_no_sense_are_refused(tmp_path, monkeypatch, hints, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "huge.txt").write_text("0 1 99999999999999999999\n")
    with pytest.raises(ValueError, match=message):
        found(tmp_path, rows([0, 1, 2]), **hints)


def test_the_numbers_of_a_log_are_those_of_the_images(tmp_path):
    kept = [3, 4, 10, 11, 29]
    assert places(found(tmp_path, log(kept), "a.log")) == [i if i in kept else None for i in range(FRAMES)]
    counted_from_one = found(tmp_path, log(list(range(1, 31))), "b.log", frames(first=1))
    assert places(counted_from_one) == list(range(1, 31))
    # Images named from 1 and poses numbered from 0: every pose has a frame only when frames are counted.
    assert places(found(tmp_path, log(list(range(30))), "c.log", frames(first=1))) == list(range(30))
    assert places(found(tmp_path, log([7, 3, 5]), "d.log"))[3:8] == [3, None, 5, None, 7]


def test_a_log_whose_numbers_are_all_the_same_is_one_pose_a_frame(tmp_path):
    poses = found(tmp_path, log(list(range(FRAMES)), ["0 0 0"] * FRAMES), "a.log")
    assert places(poses) == list(range(FRAMES))
    with pytest.raises(ValueError, match="10 poses for 30 frames"):
        found(tmp_path, log(list(range(10)), ["0 0 0"] * 10), "a.log")


def test_two_poses_of_one_frame_and_poses_of_no_frame_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"a\.log:\d+: a second pose of frame 4"):
        found(tmp_path, log([3, 4, 4]), "a.log")
    with pytest.raises(ValueError, match="frames 500 to 529, which fit neither the names"):
        found(tmp_path, log(list(range(500, 530))), "a.log")
    some = found(tmp_path, log([27, 28, 29, 30]), "a.log")
    assert any("1 of its 4 poses are of no frame" in note for note in some.notes)


def test_a_folder_of_poses_belongs_to_the_images_of_its_numbers(tmp_path):
    (tmp_path / "pose").mkdir()
    for i in (0, 2, 29):
        np.savetxt(tmp_path / "pose" / f"{i}.txt", at(i))
    poses = poses_of_frames(read_trajectory(tmp_path / "pose"), "pose", frames())
    assert [i for i, x in enumerate(places(poses)) if x == i] == [0, 2, 29]


@pytest.mark.parametrize("rate", [5.0, 10.0, 100.0])
def test_poses_at_any_rate_are_interpolated_to_the_frames(tmp_path, rate):
    times = 100 + np.arange(0, 1.01, 1 / rate)
    tum = "".join(f"{t:.6f} {30 * (t - 100):.6f} 0 0 0 0 0 1\n" for t in times)
    poses = found(tmp_path, tum)
    assert places(poses) == pytest.approx(list(range(FRAMES)), abs=1e-3)
    assert bool(poses.notes) == (rate < 30)


@pytest.mark.parametrize(("unit", "name"), [(1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")])
def test_times_in_a_unit_of_their_own_meet_the_frames_seconds(tmp_path, unit, name):
    tum = "".join(f"{t * unit:.6f} {30 * (t - 100):.6f} 0 0 0 0 0 1\n" for t in 100 + np.arange(FRAMES) / 30)
    poses = found(tmp_path, tum)
    assert places(poses) == pytest.approx(list(range(FRAMES)), abs=1e-3)
    assert f"its times count {name}" in poses.notes[0]


def test_a_gap_in_the_poses_is_not_bridged_and_counted(tmp_path):
    times = [t for t in 100 + np.arange(0, 1.01, 0.02) if not 100.3 < t < 100.65]
    tum = "".join(f"{t:.6f} {30 * (t - 100):.6f} 0 0 0 0 0 1\n" for t in times)
    poses = found(tmp_path, tum)
    missing = [i for i, x in enumerate(places(poses)) if x is None]
    assert missing == list(range(10, 20))
    assert "10 of 30 frames have no pose: 10 where its poses are more than 0.1 s apart" in poses.notes[-1]


def test_times_that_meet_no_frame_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"meet none of the frames' 100\.000.*--pose-indices"):
        found(tmp_path, "5 0 0 0 0 0 0 1\n5.1 1 0 0 0 0 0 1\n")


def test_frame_numbers_in_the_place_of_times_are_frame_numbers(tmp_path):
    counted = Frames(np.arange(FRAMES) / 30, [f"{i}.png" for i in range(FRAMES)])
    poses = found(tmp_path, "".join(f"{i} {i} 0 0 0 0 0 1\n" for i in range(1, FRAMES)), of=counted)
    assert places(poses) == [None, *range(1, FRAMES)]
    keyframes = "".join(f"{i} {i} 0 0 0 0 0 1\n" for i in (0, 8, 11, 29))
    for of in (counted, frames()):  # whether the images' times count from 0 or from 100 s
        poses = found(tmp_path, keyframes, "keyframes.txt", of=of)
        assert places(poses) == [i if i in (0, 8, 11, 29) else None for i in range(FRAMES)]


def test_two_trajectories_are_put_on_one_clock(tmp_path):
    T = np.stack([at(i) for i in range(10)])
    lines, timed = Trajectory(np.arange(10.0), T, "lines", 10), Trajectory(50 + np.arange(10) / 10, T)
    estimate, reference = on_one_clock(lines, timed)
    np.testing.assert_array_equal(estimate.timestamps, reference.timestamps)
    slower = Trajectory(np.arange(4.0), T[::3], "lines", 4)
    with pytest.raises(ValueError, match=r"4 poses \(one pose a line\) and a reference of 10 \(times\).*--pose-rate"):
        on_one_clock(slower, timed)
    for hints in (PoseHints(rate=10 / 3), PoseHints(indices="::3")):
        estimate, _ = on_one_clock(slower, timed, hints)
        np.testing.assert_allclose(estimate.timestamps, timed.timestamps[::3])
    _, swapped = on_one_clock(timed, slower, PoseHints(indices="::3"))
    np.testing.assert_allclose(swapped.timestamps, timed.timestamps[::3])
    assert on_one_clock(lines, lines)[0].clock == "lines"
    for option, hints in (("--pose-rate", PoseHints(rate=10)), ("--pose-indices", PoseHints(indices="::1"))):
        with pytest.raises(ValueError, match=f"both trajectories carry times, .* leave {option} out"):
            on_one_clock(timed, timed, hints)


@pytest.mark.parametrize("which", ["estimate", "reference"])
@pytest.mark.parametrize(("start", "unit"), [(0.0, 1e3), (100.0, 1e9), (1.7e9, 1e6)])
def test_two_trajectories_are_put_in_one_unit_of_time(which, start, unit, caplog):
    seconds = Trajectory(start + np.arange(30) / 30, np.array([at(i) for i in range(30)]))
    other = Trajectory(seconds.timestamps * unit, seconds.T_world_camera)
    pair = (other, seconds) if which == "estimate" else (seconds, other)
    for found in on_one_clock(*pair):
        np.testing.assert_allclose(found.timestamps, seconds.timestamps, atol=1e-6)
    assert f"the times of the {which} count" in caplog.text and caplog.text.count("count") == 1
    assert on_one_clock(seconds, seconds) == (seconds, seconds)


def test_mirrored_poses_are_refused_when_read(tmp_path):
    mirrored = at(1) @ np.diag([1.0, 1.0, -1.0, 1.0])
    (tmp_path / "poses.txt").write_text(" ".join(map(str, mirrored[:3].ravel())) + "\n")
    with pytest.raises(ValueError, match=r"poses\.txt:1: the pose is mirrored"):
        read_trajectory(tmp_path / "poses.txt")


def test_kitti_poses_are_counted_and_not_timed_by_thirty(tmp_path):
    (tmp_path / "poses.txt").write_text(rows(range(5)))
    read = read_trajectory(tmp_path / "poses.txt")
    assert read.clock == "lines" and read.timestamps.tolist() == [0, 1, 2, 3, 4] and read.lines == 5
    assert read_trajectory(tmp_path / "poses.txt", fps=10).timestamps[-1] == pytest.approx(0.4)


# What a run takes from it


def test_a_run_of_part_of_a_recording_takes_the_poses_of_that_part(tmp_path):
    from semslam.runs.poses import poses_of_file
    from sequences.selected import selected

    (tmp_path / "poses.txt").write_text(rows(range(FRAMES)))
    part = selected(RoomSequence(frames=FRAMES, width=32, height=24), start=6, every=4)
    given = poses_of_file(str(tmp_path / "poses.txt"), part)
    assert given.T_world_camera[2][0, 3] == 14
    (tmp_path / "few.txt").write_text(rows(range(0, FRAMES, 2)))
    with pytest.raises(ValueError, match="15 poses for 30 frames"):
        poses_of_file(str(tmp_path / "few.txt"), part)
    given = poses_of_file(str(tmp_path / "few.txt"), part, PoseHints(indices="::2"))
    assert given.T_world_camera[2][0, 3] == 14


def test_metrics_tell_how_many_poses_of_a_file_are_interpolated_and_how_many_frames_have_none(tmp_path):
    from semslam.runs.config import settings_of
    from semslam.runs.finished.finish import finish
    from semslam.runs.reconstruct import prepare

    room = RoomSequence(frames=30, width=64, height=48)
    slow = Trajectory(room.timestamps[3:27:3], np.array(room.poses)[3:27:3])  # 10 Hz, and begins late
    write_tum(tmp_path / "slow.txt", slow)
    settings = {"sequence": "room:frames=30,width=64,height=48", "poses": str(tmp_path / "slow.txt")}
    run = prepare(settings_of(None, settings | {"slam.perception.labels": "none"}), tmp_path / "run")
    for _ in run:
        pass
    metrics = finish(run, mesh=False)
    assert (metrics["poses_interpolated"], metrics["poses_missing"], metrics["frames_lost"]) == (14, 8, 8)
    assert len(metrics["pose_notes"]) == 2 and "14 of 30 frames are interpolated" in metrics["pose_notes"][0]
    assert metrics == run.folder.load_metrics() | {"pose_notes": metrics["pose_notes"]}
    assert metrics["poses_contradicted"] is None


def test_a_files_poses_are_read_as_the_images_tell_and_the_recordings_own_are_not(tmp_path, caplog):
    from semslam.runs.config import settings_of
    from semslam.runs.reconstruct import prepare

    room = RoomSequence(frames=30, width=160, height=120)
    write_tum(tmp_path / "inverted.txt", Trajectory(room.timestamps, np.linalg.inv(room.poses)))
    settings = {"sequence": "room:frames=30,width=160,height=120", "slam.perception.labels": "none"}
    run = prepare(settings_of(None, settings | {"poses": str(tmp_path / "inverted.txt")}), tmp_path / "run")
    assert "fit its poses only if they are world to camera" in caplog.text
    np.testing.assert_allclose(run.slam.track.T_world_camera, room.poses, atol=1e-6)
    np.testing.assert_array_equal(run.config.open_sequence().poses, room.poses)


def test_a_recordings_own_poses_and_a_files_are_helped_apart(tmp_path):
    from semslam.runs.config import RunConfig
    from sequences.recordings.folder import write_folder

    folder = write_folder(RoomSequence(frames=6, width=32, height=24), tmp_path / "room")
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("".join(f"1{line}\n" for line in lines[::2]))  # on another clock
    with pytest.raises(ValueError, match="3 pose lines, but 6 frames"):
        RunConfig(str(folder)).open_sequence()
    helped = RunConfig(str(folder), pose_indices="::2").open_sequence()
    assert [T is not None for T in helped.poses] == [True, False] * 3
    with pytest.raises(ValueError, match="3 pose lines"):
        RunConfig(str(folder), poses="other.txt", pose_indices="::2").open_sequence()


@pytest.mark.parametrize("kind", ["times", "numbers", "lines"])
def test_what_is_said_of_missing_poses_is_of_the_frames_that_are_used(tmp_path, kind):
    """A file of poses for a part of a recording raises no alarm about the rest."""
    known = range(FRAMES - 5) if kind == "lines" else range(10, 20)  # of lines most must be poses
    write_tum(tmp_path / "t.txt", Trajectory(frames().timestamps[known], np.stack([at(i) for i in known])))
    text = {
        "times": (tmp_path / "t.txt").read_text(),
        "numbers": log(list(known)),
        "lines": "".join(rows([i]) if i in known else "nan " * 11 + "nan\n" for i in range(FRAMES)),
    }[kind]
    inside = found(tmp_path, text, of=frames()._replace(taken=np.array(known[2:8])))
    assert inside.notes == () and places(inside)[known[3]] == known[3]
    across = found(tmp_path, text, of=frames()._replace(taken=np.arange(known[-1] - 3, known[-1] + 3)))
    assert len(across.notes) == 1 and "2 of 6 frames have no pose" in across.notes[0]


@pytest.mark.parametrize("hints", [{}, {"hints": PoseHints(rate=30.0)}])
def test_frames_that_were_deleted_leave_a_gap_in_the_times_and_poses_of_their_folder(tmp_path, hints):
    from sequences import open_sequence
    from sequences.conversion import convert

    room = RoomSequence(12, 32, 24)
    convert(room, tmp_path / "room", "folder")
    for number in (5, 6):
        for kind in ("color", "depth"):
            (tmp_path / "room" / kind / f"{number:06d}.png").unlink()
    sequence = open_sequence(tmp_path / "room", **hints)
    kept = [i for i in range(12) if i not in (5, 6)]
    np.testing.assert_allclose(sequence.timestamps, np.array(kept) / 30, atol=1e-6)
    for T, number in zip(sequence.poses, kept, strict=True):
        np.testing.assert_allclose(T, room.poses[number], atol=1e-6)


@pytest.mark.parametrize(
    ("kept", "counted"),
    [
        ([0, 3, 4, 9, 11, 16, 17, 23], [0, 3, 4, 9, 11, 16, 17, 23]),  # most are lost
        ([0, 10, 20, 40, 50], [0, 1, 2, 4, 5]),  # every tenth was kept; one of these is lost
        ([0, 7, 5000, 90001], [0, 1, 2, 3]),  # numbers of something else
    ],
)
def test_frames_are_counted_by_their_numbers_however_many_are_lost(tmp_path, kept, counted):
    from sequences import open_sequence
    from sequences.conversion import convert

    convert(RoomSequence(len(kept), 32, 24), tmp_path / "room", "folder")
    (tmp_path / "room" / "groundtruth.txt").unlink()
    for kind in ("color", "depth", "label40"):
        for i, number in reversed(list(enumerate(kept))):
            (tmp_path / "room" / kind / f"{i:06d}.png").rename(tmp_path / "room" / kind / f"{number:06d}.png")
    np.testing.assert_allclose(open_sequence(tmp_path / "room").timestamps, np.array(counted) / 30, atol=1e-6)


def test_a_rate_that_contradicts_the_times_of_a_folders_poses_is_refused(tmp_path):
    from sequences import open_sequence
    from sequences.conversion import convert

    room = RoomSequence(12, 32, 24)
    convert(room, tmp_path / "room", "folder")
    with pytest.raises(
        ValueError, match=r"groundtruth\.txt: its poses carry times, 30 a second; leave --pose-rate 15 out"
    ):
        open_sequence(tmp_path / "room", hints=PoseHints(rate=15.0))
    path = tmp_path / "room" / "groundtruth.txt"
    text = path.read_text()
    rounded = [f"{float(line.split()[0]):.2f} {line.split(' ', 1)[1]}" for line in text.splitlines() if line[0] != "#"]
    path.write_text("\n".join(rounded))
    assert len(open_sequence(tmp_path / "room", hints=PoseHints(rate=30.0))) == 12  # of two decimals
    path.write_text(text)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    path.write_text("".join(f"{number} {line.split(' ', 1)[1]}\n" for number, line in enumerate(lines)))
    counted = open_sequence(tmp_path / "room", hints=PoseHints(rate=15.0))  # numbers of poses are no times
    np.testing.assert_allclose(counted.poses[2], room.poses[1], atol=1e-6)
