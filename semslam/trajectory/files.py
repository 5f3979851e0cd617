"""Files of trajectories: TUM, KITTI, EuRoC, Open3D, ScanNet and 7-Scenes, ICL-NUIM, ElasticFusion.

What is read is camera-to-world, whatever the file's basis. Files that carry no times give a trajectory whose `clock`
says so, unless `fps` is given; `sequences.pose_pairing` finds out which frames its poses belong to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.files.reading import text_of
from semslam.trajectory import NOT_RIGID, Trajectory

MISSING_POSES_ALLOWED = 0.5  # of the frames


def write_tum(path: str | Path, trajectory: Trajectory, comment: str = "") -> None:
    """Write `tum_lines` to a file, after a line with a comment (ASCII) if there is one."""
    lines = [f"# {comment}\n"] if comment else []
    Path(path).write_text("".join([*lines, *tum_lines(trajectory)]), encoding="ascii")


def tum_lines(trajectory: Trajectory) -> list[str]:
    """Lines `timestamp tx ty tz qx qy qz qw`: camera to world, seconds and metres, single spaces."""
    quaternions_xyzw = Rotation.from_matrix(trajectory.T_world_camera[:, :3, :3]).as_quat()
    rows = np.column_stack([trajectory.timestamps, trajectory.positions, quaternions_xyzw])
    return [f"{row[0]:.9f} " + " ".join(f"{number:.10f}" for number in row[1:]) + "\n" for row in rows]


def read_tum(path: str | Path, fps: float | None = None) -> Trajectory:
    """TUM lines, also ElasticFusion's and ICL-NUIM's .freiburg: seconds, position, quaternion xyzw.

    ICL-NUIM's file counts frames where the time should be; they stay as they are. `fps` is not used.
    """
    return _from_rows(Path(path), _tum_rows(Path(path)), 1.0, [4, 5, 6, 7])


def read_tum_lines(path: str | Path) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """(timestamps (N,), poses) of TUM lines; a line of NaN, or with a quaternion of zeros, is a frame without a pose.

    ValueError where most are.
    """
    path = Path(path)
    rows = _tum_rows(path)
    T = iter(_from_rows(path, rows, 1.0, [4, 5, 6, 7]).T_world_camera)
    return np.array([row[0] for _, row in rows]), [next(T) if _has_pose(row, [4, 5, 6, 7]) else None for _, row in rows]


def _tum_rows(path: Path) -> list[tuple[int, np.ndarray]]:
    return list(_numbers(path, (8,), "TUM: timestamp tx ty tz qx qy qz qw", finite=False))


def read_euroc(path: str | Path, fps: float | None = None) -> Trajectory:
    """EuRoC csv: nanoseconds, position, quaternion wxyz, further columns ignored. `fps` is not used.

    EuRoC's poses are those of the body (the IMU): multiply by T_body_camera for a camera's.
    """
    path = Path(path)
    rows = list(_numbers(path, range(8, 33), "EuRoC: nanoseconds,px,py,pz,qw,qx,qy,qz,...", ",", finite=False))
    return _from_rows(path, rows, 1e-9, [5, 6, 7, 4])


# Takes a camera's axes (x right, y down, z forward) to a robot's (x forward, y left, z up): iSAM's basis.
_T_ROBOT_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def read_elasticfusion_csv(path: str | Path, fps: float | None = None) -> Trajectory:
    """ElasticFusion's -p file: microseconds,x,y,z,qx,qy,qz,qw in iSAM's basis (x forward, z up). `fps` is not used.

    Both world and camera are expressed in that basis, so a pose T becomes M^-1 T M.
    """
    path = Path(path)
    rows = list(_numbers(path, (8,), "ElasticFusion: microseconds,x,y,z,qx,qy,qz,qw", ",", finite=False))
    robot = _from_rows(path, rows, 1e-6, [4, 5, 6, 7])
    return Trajectory(robot.timestamps, _T_ROBOT_CAMERA.T @ robot.T_world_camera @ _T_ROBOT_CAMERA)


def read_kitti(path: str | Path, fps: float | None = None) -> Trajectory:
    """One pose a line, 12 numbers (3x4 row-major) or 16 (4x4, as Replica's traj.txt), one line a frame.

    A line with NaN is a frame without a pose: it counts, so that the lines after it stay those of their frames.
    """
    path = Path(path)
    rows = list(_numbers(path, (12, 16), "KITTI: 12 numbers (3x4 camera to world), or 16 (4x4)", finite=False))
    finite = [bool(np.all(np.isfinite(numbers))) for _, numbers in rows]
    _check_gaps(path, rows, finite)
    matrices = [(line, i, _matrix(path, line, numbers)) for i, (line, numbers) in enumerate(rows) if finite[i]]
    return _from_matrices(path, matrices, fps, len(rows))


def read_icl_sim(path: str | Path, fps: float | None = None) -> Trajectory:
    """ICL-NUIM's .gt.sim: three lines of four numbers a pose, in ICL's own basis (y up: left-handed)."""
    path = Path(path)
    lines = list(_numbers(path, (4,), "3 lines of 4 numbers a pose"))
    matrices = [
        (block[0][0], number, _matrix(path, block[0][0], np.concatenate([row for _, row in block])))
        for number, block in enumerate(_blocks(path, lines, 3))
    ]
    return _from_matrices(path, matrices, fps, len(matrices))


def read_open3d_log(path: str | Path, fps: float | None = None) -> Trajectory:
    """Open3D's and Redwood's .log: a line of three integers, then the 4x4 camera-to-world matrix.

    The first integer is the frame's number; where all are the same, the file carries none and its poses are counted.
    """
    path = Path(path)
    lines = list(_numbers(path, (3, 4), "a line of 3 integers, then 4 lines of 4 numbers a pose"))
    matrices: list[tuple[int, int, np.ndarray]] = []
    for block in _blocks(path, lines, 5):
        (line, heading), rows = block[0], block[1:]
        for (at, numbers), expected in zip(block, (3, 4, 4, 4, 4)):
            if len(numbers) != expected:
                raise ValueError(f"{path}:{at}: {len(numbers)} numbers, expected {expected}")
        if heading[0] != int(heading[0]):
            raise ValueError(f"{path}:{line}: frame number {heading[0]}, expected an integer")
        matrices.append((line, int(heading[0]), _matrix(path, line, np.concatenate([row for _, row in rows]))))
    numbers_of = [number for _, number, _ in matrices]
    if len(matrices) > 1 and len(set(numbers_of)) == 1:
        return _from_matrices(path, [(line, i, T) for i, (line, _, T) in enumerate(matrices)], fps, len(matrices))
    matrices.sort(key=lambda entry: entry[1])
    for (_, one, _), (line, other, _) in pairwise(matrices):
        if one == other:
            raise ValueError(f"{path}:{line}: a second pose of frame {other}; remove one of the two")
    return _from_matrices(path, matrices, fps)


def read_pose_folder(path: str | Path, fps: float | None = None) -> Trajectory:
    """A folder of 4x4 text files, one a frame: ScanNet's pose/12.txt, 7-Scenes' frame-000012.pose.txt.

    The frame number comes from the name. A matrix with -inf or NaN (ScanNet's mark of a lost frame) is left out.
    """
    path = Path(path)
    numbered = sorted((int(match[1]), file) for file in path.glob("*.txt") if (match := _POSE_FILE.match(file.name)))
    if not numbered:
        raise ValueError(f"{path}: no pose files; expected 12.txt (ScanNet) or frame-000012.pose.txt (7-Scenes)")
    matrices = []
    for number, file in numbered:
        rows = [numbers for _, numbers in _numbers(file, (4,), "a 4x4 matrix", finite=False)]
        if len(rows) != 4:
            raise ValueError(f"{file}: {len(rows)} lines of numbers, expected a 4x4 matrix")
        if np.all(np.isfinite(rows)):
            matrices.append((1, number, _matrix(file, 1, np.concatenate(rows))))
    if not matrices:
        raise ValueError(f"{path}: none of its {len(numbered)} poses is valid (all -inf or NaN)")
    return _from_matrices(path, matrices, fps)


_POSE_FILE = re.compile(r"^(?:frame-)?(\d+)(?:\.pose)?\.txt$")

READERS: dict[str, Callable[[str | Path, float | None], Trajectory]] = {
    "tum": read_tum,
    "freiburg": read_tum,
    "kitti": read_kitti,
    "icl-sim": read_icl_sim,
    "euroc": read_euroc,
    "elasticfusion": read_elasticfusion_csv,
    "open3d": read_open3d_log,
    "pose-folder": read_pose_folder,
}


_KNOWN_LINES = (
    "8 numbers a line (TUM), 12 or 16 (KITTI), a .csv (EuRoC, ElasticFusion), Open3D's .log or a folder of 4x4 matrices"
)


def is_pose_folder(path: str | Path) -> bool:
    """Whether a folder holds a file a pose, as `read_pose_folder` reads them."""
    return any(_POSE_FILE.match(file.name) for file in Path(path).iterdir())


def read_trajectory(path: str | Path, kind: str | None = None, fps: float | None = None) -> Trajectory:
    """Read a trajectory file or folder of poses; its kind, a key of READERS, is told from it where not given.

    fps: frames per second, to turn the frame numbers of a file without times into seconds; 1 leaves them as they are.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such trajectory file or folder")
    kind = detect_kind(path) if kind is None else kind
    if kind not in READERS:
        raise ValueError(f"unknown trajectory kind '{kind}'; known are {', '.join(sorted(READERS))}")
    return READERS[kind](path, fps)


def detect_kind(path: str | Path) -> str:
    """The key of READERS that fits a file or folder, from its name and its first lines."""
    path = Path(path)
    if path.is_dir():
        return "pose-folder"
    lines = list(islice((line for _, line in _lines(path)), 3))
    if not lines:
        raise ValueError(f"{path}: holds no poses")
    _check_points(path, lines)
    of_numbers = [all(map(is_number, line.replace(",", " ").split())) for line in lines]
    if not any(of_numbers[:2]):  # the first may be a heading without '#'
        raise ValueError(f"{path}: '{lines[0][:60]}' is no line of a trajectory; expected {_KNOWN_LINES}")
    lines = lines[of_numbers.index(True) :][:2]
    columns = [len(line.replace(",", " ").split()) for line in lines]
    if "," in lines[0]:
        # With eight columns both csv forms look alike, but nanoseconds since 1970 have 19 digits, microseconds 16.
        times = [line.split(",")[0].strip() for line in lines]
        nanoseconds = columns[0] > 8 or len(times[0].split(".")[0]) > 17
        if not nanoseconds and any(float(time) % 1 for time in times):
            raise ValueError(
                f"{path}: its lines begin with seconds and are separated by commas, which no known trajectory is; if "
                f"they are TUM's (timestamp tx ty tz qx qy qz qw), replace the commas by spaces"
            )
        return "euroc" if nanoseconds else "elasticfusion"
    if columns[0] == 8:
        return "tum"
    if columns[0] in (12, 16):
        return "kitti"
    if columns[0] == 3 and columns[1:] == [4]:
        return "open3d"
    if columns[0] == 4:
        return "icl-sim"
    raise ValueError(f"{path}: {columns[0]} numbers in the first line fit no known trajectory; expected {_KNOWN_LINES}")


def _check_points(path: Path, lines: Sequence[str]) -> None:
    """ValueError where the first line of numbers has decimal commas; files of columns with commas have no blanks."""
    words = next((line.split() for line in lines if len(line.split()) > 2), [])
    found = [word for word in words if re.fullmatch(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?", word)]
    if len(found) > len(words) / 2:
        raise ValueError(f"{path}: its numbers have decimal commas ({found[0]}); write decimal points")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold something, with their numbers counted from 1; comments start with #."""
    for i, line in enumerate(text_of(path, "a trajectory").splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield i, line.strip()


def _numbers(
    path: Path, columns: range | tuple[int, ...], form: str, separator: str | None = None, finite: bool = True
) -> Iterator[tuple[int, np.ndarray]]:
    """(line number, numbers) of each line that holds something; raises where a line does not fit the form."""
    for i, line in _lines(path):
        words = line.split(separator)
        try:
            numbers = np.array([float(word) for word in words])
        except ValueError:
            if i == 1 and not any(map(is_number, words)):  # a heading without '#', as spreadsheets write it
                continue
            raise ValueError(f"{path}:{i}: '{line[:60]}' holds something that is no number; expected {form}") from None
        if len(numbers) not in columns:
            raise ValueError(f"{path}:{i}: {len(numbers)} columns, expected {form}")
        if finite and not np.all(np.isfinite(numbers)):
            raise ValueError(f"{path}:{i}: holds NaN or an infinite number; remove the line of a frame without a pose")
        yield i, numbers


def _matrix(path: Path, line: int, numbers: np.ndarray) -> np.ndarray:
    """The rigid (4, 4) transform of 12 or 16 numbers, its rounded rotation made a true one."""
    T = np.eye(4)
    T[: len(numbers) // 4] = numbers.reshape(-1, 4)
    if poses.is_rigid(T @ np.diag([1.0, -1.0, 1.0, 1.0]), NOT_RIGID):
        raise ValueError(
            f"{path}:{line}: the pose is mirrored (its rotation has determinant -1); export right-handed axes, for "
            f"example with the y axis of the camera negated where the file is written"
        )
    if not poses.is_rigid(T, NOT_RIGID):
        raise ValueError(
            f"{path}:{line}: not a rigid transform (rotation not orthonormal within 0.01, or last row not 0 0 0 1)"
        )
    return poses.orthonormalized(T)


def is_number(word: str) -> bool:
    """Whether a word of a text file reads as a number, nan and inf included."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_gaps(path: Path, rows: list[tuple[int, np.ndarray]], finite: list[bool]) -> None:
    """ValueError for a file of little but lines without a pose: a failed export, not a few lost frames."""
    missing = finite.count(False)
    if missing > MISSING_POSES_ALLOWED * len(rows):
        raise ValueError(
            f"{path}:{rows[finite.index(False)][0]}: no pose (NaN, inf or a quaternion of zeros) in this and "
            f"{missing - 1} more of {len(rows)} lines; export the poses again, or track the camera instead "
            f"(--poses tracked)"
        )


def _blocks(path: Path, lines: list[tuple[int, np.ndarray]], size: int) -> Iterator[list[tuple[int, np.ndarray]]]:
    """The lines of a pose each, `size` of them."""
    if len(lines) % size:
        raise ValueError(f"{path}: {len(lines)} lines of numbers, not a multiple of {size}: the last pose is cut short")
    return (lines[i : i + size] for i in range(0, len(lines), size))


def _from_matrices(
    path: Path, matrices: list[tuple[int, int, np.ndarray]], fps: float | None, lines: int | None = None
) -> Trajectory:
    """A trajectory of (line, frame number, matrix); `lines`: how many there are, if the numbers merely count them."""
    if not matrices:
        raise ValueError(f"{path}: holds no poses")
    numbers, T = np.array([number for _, number, _ in matrices], np.float64), np.stack([T for _, _, T in matrices])
    if fps is not None:
        return Trajectory(numbers / fps, T)
    return Trajectory(numbers, T, "numbers" if lines is None else "lines", lines)


def _has_pose(row: np.ndarray, quaternion: list[int]) -> bool:
    """Whether a row (time, position, quaternion, ...) tells a pose, and not that the camera was lost."""
    return bool(np.all(np.isfinite(row[:8])) and np.any(row[quaternion]))


def _from_rows(path: Path, rows: list[tuple[int, np.ndarray]], seconds: float, quaternion: list[int]) -> Trajectory:
    """A trajectory of rows (time, position, quaternion); `quaternion` names the columns of x, y, z and w.

    Trackers write NaN, or a quaternion of zeros, for a frame that they lost: such rows are left out; ValueError where
    most are so.
    """
    if not rows:
        raise ValueError(f"{path}: holds no poses")
    for line, row in rows:
        if not np.isfinite(row[0]):
            raise ValueError(f"{path}:{line}: NaN or inf for a time; a frame without a pose still has one")
    there = [_has_pose(row, quaternion) for _, row in rows]
    _check_gaps(path, rows, there)
    rows = [row for row, posed in zip(rows, there) if posed]
    previous = -np.inf
    for line, row in rows:
        norm = float(np.linalg.norm(row[quaternion]))
        if abs(norm - 1) > 1e-2:
            raise ValueError(f"{path}:{line}: quaternion of length {norm:.4f}, expected 1; are the columns in order?")
        if row[0] <= previous:
            raise ValueError(
                f"{path}:{line}: timestamp {row[0]:.10g} does not increase (before it {previous:.10g}); "
                f"sort the lines and drop duplicates"
            )
        previous = row[0]
    table = np.stack([row[:8] for _, row in rows])
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    T[:, :3, :3] = Rotation.from_quat(table[:, quaternion]).as_matrix()
    T[:, :3, 3] = table[:, 1:4]
    return Trajectory(table[:, 0] * seconds, T)
