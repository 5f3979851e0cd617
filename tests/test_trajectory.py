"""Trajectories and their files."""

from __future__ import annotations

import numpy as np
import pytest

from semslam import poses
from semslam.trajectory import Trajectory, associate
from semslam.trajectory.files import READERS, detect_kind, read_trajectory, write_tum


def wandering(n: int = 20, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    T, poses_so_far = poses.exp(rng.normal(size=6)), []
    for _ in range(n):
        poses_so_far.append(T)
        T = T @ poses.exp(rng.normal(scale=0.1, size=6))
    return Trajectory(1305031102.175304 + np.arange(n) / 30, np.stack(poses_so_far))


def test_a_tum_file_returns_what_was_written(tmp_path):
    trajectory = wandering()
    write_tum(tmp_path / "trajectory.txt", trajectory)
    back = read_trajectory(tmp_path / "trajectory.txt")
    np.testing.assert_allclose(back.timestamps, trajectory.timestamps, atol=5e-7)
    np.testing.assert_allclose(back.T_world_camera, trajectory.T_world_camera, atol=1e-9)
    for line in (tmp_path / "trajectory.txt").read_text().splitlines():
        assert len(line.split(" ")) == 8


@pytest.mark.parametrize(
    ("kind", "separator", "tick"), [("tum", " ", 1), ("euroc", ",", 1e9), ("elasticfusion", ",", 1e6)]
)
@pytest.mark.parametrize("missing", [[0] * 4, [np.nan] * 4])
def test_lines_without_a_pose_are_left_out_unless_most_are(tmp_path, kind, separator, tick, missing):
    path = tmp_path / "poses.txt"

    def read_with_lost(lost: set[int]) -> Trajectory:
        lines = [[i * tick, 1, 2, 3, *(missing if i in lost else [0, 0.6, 0, 0.8])] for i in range(4)]
        path.write_text("\n".join(separator.join(f"{number:g}" for number in line) for line in lines))
        return read_trajectory(path, kind)

    assert read_with_lost({1}).timestamps.tolist() == [0, 2, 3]
    with pytest.raises(ValueError, match=r"poses\.txt:2: no pose"):
        read_with_lost({1, 2, 3})


def test_every_form_of_the_same_trajectory_reads_the_same(tmp_path):
    trajectory = wandering()
    times, T = trajectory.timestamps, trajectory.T_world_camera
    from scipy.spatial.transform import Rotation

    q = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    position = trajectory.positions
    files = {name: tmp_path / f"{name}.txt" for name in READERS}
    files["kitti"].write_text("\n".join(" ".join(repr(float(x)) for x in M[:3].ravel()) for M in T))
    files["icl-sim"].write_text("\n\n".join("\n".join(" ".join(repr(float(x)) for x in r) for r in M[:3]) for M in T))
    files["open3d"].write_text(
        "\n".join(
            f"{i} {i} {i + 1}\n" + "\n".join("\t".join(repr(float(x)) for x in r) for r in M) for i, M in enumerate(T)
        )
    )
    write_tum(files["tum"], trajectory)
    write_tum(files["freiburg"], trajectory)
    rows = ["#timestamp [ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z,v_x"]
    rows += [
        ",".join([str(round(t * 1e9)), *map(str, p), str(a[3]), *map(str, a[:3]), "0.1"])
        for t, p, a in zip(times, position, q)
    ]
    files["euroc"].write_text("\n".join(rows))
    # ElasticFusion's basis: x forward, y left, z up, for the world and for the camera.
    M = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
    robot = M @ T @ np.linalg.inv(M)
    robot_q = Rotation.from_matrix(robot[:, :3, :3]).as_quat()
    files["elasticfusion"].write_text(
        "\n".join(
            ",".join([str(round(t * 1e6)), *map(str, p), *map(str, a)])
            for t, p, a in zip(times, robot[:, :3, 3], robot_q)
        )
    )
    files["pose-folder"] = tmp_path / "poses"
    files["pose-folder"].mkdir()
    for i, pose in enumerate(T):
        np.savetxt(files["pose-folder"] / f"{i}.txt", pose, fmt="%.12f")

    for kind, file in files.items():
        assert detect_kind(file) == ("tum" if kind == "freiburg" else kind)
        read = read_trajectory(file)
        np.testing.assert_allclose(read.T_world_camera, T, atol=1e-8, err_msg=kind)
        if kind in ("tum", "freiburg", "euroc", "elasticfusion"):
            np.testing.assert_allclose(read.timestamps, times, atol=1e-6, err_msg=kind)


def test_pose_folders_sort_by_number_and_leave_out_lost_frames(tmp_path):
    for i in (0, 2, 10, 11):
        np.savetxt(tmp_path / f"{i}.txt", np.full((4, 4), -np.inf) if i == 2 else poses.exp(np.full(6, 0.01 * i)))
    trajectory = read_trajectory(tmp_path, fps=1)
    assert trajectory.timestamps.tolist() == [0, 10, 11]
    np.testing.assert_allclose(trajectory.T_world_camera[1], poses.exp(np.full(6, 0.1)), atol=1e-9)


def test_real_samples_read(shared_data):
    log = read_trajectory(shared_data / "samples/open3d/trajectory.log")
    assert len(log) == 5 and all(poses.is_rigid(T, 1e-9) for T in log.T_world_camera)
    assert len(read_trajectory(shared_data / "samples/7scenes_stairs/seq-03")) == 3
    assert len(read_trajectory(shared_data / "redkitchen/groundtruth.txt")) == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 0 0 0 0 0 1\n1 0 0 0 0 0 1\n", "bad.txt:2: 7 columns"),
        ("0 0 0 0 0 0 0 1\nnan 0 nan 0 0 0 0 1\n", "bad.txt:2: NaN or inf for a time"),
        ("0 0 nan 0 0 0 0 1\n1 0 0 0 0 0 0 0\n2 0 0 0 0 0 0 1\n", "bad.txt:1: no pose"),
        ("0 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1\n", "bad.txt:2: timestamp 0 does not increase"),
        ("# head\n\n5 0 0 0 0 0 0 1\n4 0 0 0 0 0 0 1\n", "bad.txt:4: timestamp 4 does not increase"),
        ("0 0 0 0 0 0 0 0.1\n", "bad.txt:1: quaternion of length 0.1"),
        ("0 0 0 0 0 0 0 1\n1 0 zero 0 0 0 0 1\n", "bad.txt:2: '1 0 zero"),
        ("1 0 0 0 0 1 0 0 0 0 7 0\n", "bad.txt:1: not a rigid transform"),
        ("1 2 3 4 5\n", "5 numbers in the first line"),
        ("# nothing\n", "holds no poses"),
        ("0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n", "the last pose is cut short"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(ValueError) as error:
        read_trajectory(tmp_path / "bad.txt")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such trajectory"):
        read_trajectory(tmp_path / "absent.txt")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="is not a text file"):
        read_trajectory(tmp_path / "image.txt")
    with pytest.raises(ValueError, match="no pose files"):
        read_trajectory(tmp_path)
    with pytest.raises(ValueError, match=r"known are .*kitti.*tum"):
        read_trajectory(tmp_path / "image.txt", kind="tmu")


def test_a_trajectory_refuses_times_that_do_not_increase():
    with pytest.raises(ValueError, match="must increase"):
        Trajectory(np.array([0.0, 0.0]), np.tile(np.eye(4), (2, 1, 1)))
    with pytest.raises(ValueError, match="NaN"):
        Trajectory(np.array([0.0]), np.full((1, 4, 4), np.nan))


def test_pieces_end_where_frames_are_missing_and_nowhere_else():
    T = np.tile(np.eye(4), (100, 1, 1))
    T[:, 0, 3] = np.arange(100)
    kept = np.r_[0:30, 60:61, 75:100]
    for every in (1, 4):  # a recording of which every fourth frame is taken has no gaps
        frames = np.arange(100) * every
        whole = Trajectory(frames / 30, T)
        assert [len(piece) for piece in whole.pieces()] == [100]
        pieces = whole.selected(kept).pieces()
        assert [len(piece) for piece in pieces] == [30, 1, 25]
        np.testing.assert_array_equal(np.concatenate(pieces), T[kept])
    assert [len(piece) for piece in whole.selected(np.arange(0)).pieces()] == [0]


def test_interpolation_meets_the_poses_and_is_uniform_between_them():
    trajectory = wandering(5)
    t = trajectory.timestamps
    np.testing.assert_array_equal(trajectory.at(t[2]), trajectory.T_world_camera[2])
    half = trajectory.at((t[1] + t[2]) / 2)
    first = poses.inverse(trajectory.T_world_camera[1]) @ half
    second = poses.inverse(half) @ trajectory.T_world_camera[2]
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert trajectory.at(t[0] - 1e-3) is None and trajectory.at(t[-1] + 1e-3) is None
    assert trajectory.at((t[1] + t[2]) / 2, max_gap=0.01) is None


def test_association_is_mutual_nearest_within_the_limit():
    ia, ib = associate(np.array([0.0, 0.1, 0.2, 0.21]), np.array([0.02, 0.105, 0.205, 0.5]))
    assert ia.tolist() == [0, 1, 2] and ib.tolist() == [0, 1, 2]
    ia, ib = associate(np.array([0.0, 1.0]), np.array([0.03]))
    assert len(ia) == len(ib) == 0
    assert len(associate(np.zeros(0), np.array([1.0]))[0]) == 0


def test_association_agrees_with_the_obvious_loop():
    rng = np.random.default_rng(3)
    a, b = np.sort(rng.uniform(0, 3, 100)), np.sort(rng.uniform(0, 3, 80))
    expected = []
    for i, t in enumerate(a):
        j = int(np.argmin(np.abs(b - t)))
        if int(np.argmin(np.abs(a - b[j]))) == i and abs(b[j] - t) <= 0.02:
            expected.append((i, j))
    ia, ib = associate(a, b)
    assert list(zip(ia.tolist(), ib.tolist())) == expected


@pytest.mark.parametrize(
    "text",
    ["Once upon a time, there was\na house, in the woods\n", "In 2020, we went 3 km, then 4, 5, 6, 7, 8, 9\nand\n"],
)
def test_prose_is_told_as_no_trajectory_of_any_kind(tmp_path, text):
    (tmp_path / "notes.txt").write_text(text)
    with pytest.raises(ValueError, match=r"notes\.txt: '.*' is no line of a trajectory; expected 8 numbers"):
        read_trajectory(tmp_path / "notes.txt")


def test_a_heading_without_a_mark_is_no_prose(tmp_path):
    (tmp_path / "poses.csv").write_text("time,x,y,z,qx,qy,qz,qw\n1403636580838555648,0,0,0,1,0,0,0,0\n")
    assert detect_kind(tmp_path / "poses.csv") == "euroc"


def test_tum_lines_with_commas_are_not_taken_for_another_clocks(tmp_path):
    (tmp_path / "poses.txt").write_text("".join(f"{i / 30:.6f},0,0,{i},0,0,0,1\n" for i in range(3)))
    with pytest.raises(ValueError, match=r"poses\.txt.*replace the commas"):
        read_trajectory(tmp_path / "poses.txt")


def test_decimal_commas_are_named(tmp_path):
    (tmp_path / "poses.txt").write_text("0,1 1,5 0,0 0,0 0,0 0,0 0,0 1,0\n" * 3)
    with pytest.raises(ValueError, match=r"have decimal commas \(0,1\); write decimal points"):
        read_trajectory(tmp_path / "poses.txt")
