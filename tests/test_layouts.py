"""Other people's layouts, made from the room so that the truth is known, or read from samples of real ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from semslam.frame import Frame
from sequences import open_sequence
from sequences.conversion import WRITERS, convert
from sequences.recordings.camera_file import write_camera_file
from sequences.room.room import RoomSequence
from sequences.sequence import DerivedSequence


def as_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def depth_units(frame, scale: float) -> np.ndarray:
    return np.rint(frame.depth * scale).astype(np.uint16)


@pytest.fixture(scope="module")
def big_room() -> list:
    """Four frames of the size that the data sets' cameras have."""
    return list(RoomSequence(frames=4))


def test_tum_frames_are_pairs_with_interpolated_poses(big_room, tmp_path):
    path = tmp_path / "rgbd_dataset_freiburg3_room"
    times, depth_lag = [100.0, 100.033, 100.066, 100.1], [0.004, -0.003, 0.03, 0.001]
    for frame, t, lag in zip(big_room, times, depth_lag):
        as_png(path / "rgb" / f"{t:.6f}.png", frame.color)
        as_png(path / "depth" / f"{t + lag:.6f}.png", depth_units(frame, 5000))
    (path / "rgb.txt").write_text("# color\n" + "".join(f"{t:.6f} rgb/{t:.6f}.png\n" for t in times))
    lagged = [t + lag for t, lag in zip(times, depth_lag)]
    (path / "depth.txt").write_text("".join(f"{t:.6f} depth/{t:.6f}.png\n" for t in sorted(lagged)))
    poses = "".join(f"{100 + 0.01 * i:.4f} {0.1 * i:.3f} 0 0 0 0 0 1\n" for i in range(9))
    (path / "groundtruth.txt").write_text("# truth\n#\n#\n" + poses)
    sequence = open_sequence(path)
    assert [frame.timestamp for frame in sequence] == [100.0, 100.033, 100.1], "a pair 0.03 s apart is no pair"
    assert sequence.camera.fx == 535.4 and not sequence.has_labels
    np.testing.assert_allclose(sequence[1].T_world_camera[:3, 3], [0.33, 0, 0], atol=1e-6)
    assert sequence[2].T_world_camera is None, "after the end of the motion capture there is no pose"
    assert np.abs(sequence[0].depth - big_room[0].depth).max() < 2e-4
    assert np.array_equal(sequence[0].color, big_room[0].color)


class AlongRay(DerivedSequence):
    """A recording whose depth is the distance from the lens."""

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, depth=np.linalg.norm(frame.camera.backproject(frame.depth), axis=2).astype(np.float32))


@pytest.mark.parametrize("kind", ["eth3d", "tum", "associations", "open3d", "folder"])
def test_what_a_camera_file_says_of_depth_holds_in_every_layout(tmp_path, kind):
    room = RoomSequence(frames=3, width=96, height=72)
    path = tmp_path / "a"
    convert(AlongRay(room), path, kind if kind in WRITERS else "tum")
    if kind in ("tum", "associations"):
        (path / "calibration.txt").unlink()
    if kind == "associations":
        lines = zip((path / "rgb.txt").read_text().splitlines(), (path / "depth.txt").read_text().splitlines())
        (path / "associations.txt").write_text("\n".join(" ".join(pair) for pair in list(lines)[1:]))
        (path / "rgb.txt").unlink()
    write_camera_file(tmp_path / "camera.yaml", room.camera)
    with (tmp_path / "camera.yaml").open("a") as file:
        file.write("depth_along_ray: true\n")
    again = open_sequence(path, kind, camera=str(tmp_path / "camera.yaml"))
    for frame, recorded in zip(again, room):
        np.testing.assert_allclose(frame.depth, recorded.depth, atol=2e-3)


def test_what_a_kind_cannot_take_from_a_camera_file_is_told(tmp_path, caplog):
    convert(RoomSequence(frames=2, width=96, height=72), tmp_path / "a.klg")
    (tmp_path / "camera.yaml").write_text("depth_along_ray: true\nfps: 5\nsensor: tof\n")
    assert open_sequence(tmp_path / "a.klg").sensor == "tof"
    assert "a recording of kind klg fixes its own fps, depth_along_ray; this file's is not used" in caplog.text


def test_tum_cameras_follow_the_name_and_are_undistorted(big_room, tmp_path, caplog):
    for name, focal in (("rgbd_dataset_freiburg1_desk", 517.306408), ("fr2_xyz", 520.90862), ("kinect", 525.0)):
        path = tmp_path / name
        as_png(path / "rgb" / "0.png", big_room[0].color)
        as_png(path / "depth" / "0.png", depth_units(big_room[0], 5000))
        (path / "rgb.txt").write_text("0.0 rgb/0.png\n")
        (path / "depth.txt").write_text("0.0 depth/0.png\n")
        caplog.clear()
        sequence = open_sequence(path)
        assert sequence.camera.fx == focal and sequence.camera.distortion is None and not sequence.has_poses
        assert ("ROS" in caplog.text) == (name == "kinect")
        assert np.array_equal(sequence[0].color, big_room[0].color) == (name == "kinect")


def test_tum_lists_that_never_meet_are_refused(big_room, tmp_path):
    as_png(tmp_path / "rgb" / "0.png", big_room[0].color)
    (tmp_path / "rgb.txt").write_text("0.0 rgb/0.png\n")
    (tmp_path / "depth.txt").write_text("5.0 depth/0.png\n")
    with pytest.raises(ValueError, match=r"within 0\.02 s; the clocks start at 0\.000 and 5\.000"):
        open_sequence(tmp_path)
    (tmp_path / "depth.txt").write_text("five depth/0.png\n")
    with pytest.raises(ValueError, match=r"depth\.txt:1"):
        open_sequence(tmp_path)


@pytest.fixture(scope="module")
def icl(big_room, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("icl") / "living_room_traj0_frei_png"
    for i, frame in enumerate(big_room):
        as_png(path / "rgb" / f"{i}.png", frame.color)
        as_png(path / "depth" / f"{i}.png", depth_units(frame, 5000))
    (path / "associations.txt").write_text("".join(f"{i} depth/{i}.png {i} rgb/{i}.png\n" for i in range(4)))
    return path


def test_icl_poses_are_ours_again_after_the_mirroring(big_room, icl, tmp_path):
    from scipy.spatial.transform import Rotation

    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    theirs = [mirror @ frame.T_world_camera @ mirror for frame in big_room]
    sim = Path(shutil.copytree(icl, tmp_path / "sim"))
    (sim / "livingRoom0n.gt.sim").write_text(
        "\n".join("".join(" ".join(f"{x:.9f}" for x in row) + "\n" for row in T[:3]) for T in theirs)
    )
    for i, frame in enumerate(open_sequence(sim)):
        np.testing.assert_allclose(frame.T_world_camera, big_room[i].T_world_camera, atol=1e-6)
        assert np.abs(frame.depth - big_room[i].depth).max() < 2e-4
    freiburg = Path(shutil.copytree(icl, tmp_path / "freiburg"))
    (freiburg / "livingRoom0.gt.freiburg").write_text(
        "".join(
            f"{i} " + " ".join(f"{x:.9f}" for x in (*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat())) + "\n"
            for i, T in enumerate(theirs)
            if i > 0
        )
    )
    sequence = open_sequence(freiburg)
    assert sequence[0].T_world_camera is None
    for i in (1, 2, 3):
        np.testing.assert_allclose(sequence[i].T_world_camera, big_room[i].T_world_camera, atol=1e-6)
    assert sequence.camera.fy == 480.0 and not open_sequence(icl).has_poses


def test_a_list_of_png_pairs_is_read_from_its_own_folder(big_room, tmp_path):
    lines = []
    for i, frame in enumerate(big_room):
        as_png(tmp_path / "data" / f"{i}depth.png", depth_units(frame, 1000))
        as_png(tmp_path / "data" / f"{i}rgb.png", frame.color)
        lines.append(f"{i * 33} data/{i}depth.png data/{i}rgb.png d{i}.pgm r{i}.ppm\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    sequence = open_sequence(tmp_path / "list.txt")
    assert len(sequence) == 4 and sequence.camera.fx == 528.0 and sequence[3].timestamp == pytest.approx(0.099)
    assert np.abs(sequence[1].depth - big_room[1].depth).max() < 6e-4 and not sequence.has_poses


def test_open3d_folder_has_the_poses_of_its_log(shared_data):
    sequence = open_sequence(shared_data / "samples" / "open3d")
    assert len(sequence) == 5 and sequence.camera.cx == 319.5
    first = (shared_data / "samples" / "open3d" / "trajectory.log").read_text().splitlines()[1:4]
    np.testing.assert_allclose(
        sequence[0].T_world_camera[:3], [list(map(float, row.split())) for row in first], atol=1e-4
    )
    assert 1 < np.median(sequence[0].depth) < 3


def test_open3d_intrinsics_are_read_column_by_column(big_room, tmp_path):
    for i, frame in enumerate(big_room):
        as_png(tmp_path / "image" / f"{i}.png", frame.color)
        as_png(tmp_path / "depth" / f"{i}.png", depth_units(frame, 1000))
    (tmp_path / "camera_intrinsic.json").write_text(
        '{"width": 640, "height": 480, "intrinsic_matrix": [500, 0, 0, 0, 501, 0, 320, 240, 1]}'
    )
    (tmp_path / "x.log").write_text("0 0 1\n1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n")
    sequence = open_sequence(tmp_path)
    camera = sequence.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 501, 320, 240)
    assert sequence[0].T_world_camera[:3, 3].tolist() == [2, 3, 4] and sequence[1].T_world_camera is None
    (tmp_path / "depth" / "3.png").unlink()
    sequence = open_sequence(tmp_path)
    assert len(sequence) == 3 and "1 of 4 files in image/ have no partner in depth/" in sequence.assumptions
    for file in (tmp_path / "depth").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="4 files in image/ and 0 in depth/"):
        open_sequence(tmp_path)


def test_seven_scenes_opens_a_sequence_and_a_scene(shared_data):
    scene = shared_data / "samples" / "7scenes_stairs"
    one, all_of_it = open_sequence(scene / "seq-01"), open_sequence(scene)
    assert len(one) == 3 and len(all_of_it) == 6 and one.camera.fx == 525.0
    published = np.loadtxt(scene / "seq-01" / "frame-000001.pose.txt")
    np.testing.assert_allclose(one[1].T_world_camera, published, atol=1e-3)
    assert (np.diff(all_of_it.timestamps) > 0).all()
    train, test = (open_sequence(scene, split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 6 and len(train) > 0
    with pytest.raises(ValueError, match="split is 'train' or 'test'"):
        open_sequence(scene, split="val")


def test_seven_scenes_depth_is_registered_and_65535_is_none(shared_data, tmp_path):
    from sequences.recordings.seven_scenes import DEPTH_CAMERA, T_COLOR_DEPTH

    path = Path(shutil.copytree(shared_data / "samples" / "7scenes_stairs" / "seq-01", tmp_path / "seq-01"))
    path.chmod(0o755)
    (path / "frame-000000.depth.png").chmod(0o644)
    raw = cv2.imread(str(path / "frame-000000.depth.png"), cv2.IMREAD_UNCHANGED)
    raw[100:110, 200:300] = 65535
    as_png(path / "frame-000000.depth.png", raw)
    as_recorded = open_sequence(path, registered=True)[0].depth
    assert as_recorded.max() < 20
    assert np.array_equal(as_recorded == 0, (raw == 65535) | (raw == 0))
    camera, registered = open_sequence(path).camera, open_sequence(path)[0].depth
    # The obvious loop, on some pixels: each reading is at its place unless something nearer covers it.
    for v, u in np.random.default_rng(0).integers(0, (480, 640), (300, 2)):
        if as_recorded[v, u] == 0:
            continue
        z = float(as_recorded[v, u])
        point = [(u - DEPTH_CAMERA.cx) / DEPTH_CAMERA.fx * z, (v - DEPTH_CAMERA.cy) / DEPTH_CAMERA.fy * z, z, 1]
        moved = T_COLOR_DEPTH @ point
        place = camera.project(moved[:3])
        if np.abs(place - np.rint(place)).max() > 0.49:
            continue  # too near to the border between two pixels to say which
        column, row = np.rint(place).astype(int)
        if 0 <= column < 640 and 0 <= row < 480:
            assert 0 < registered[row, column] <= moved[2] + 1e-4


def test_nyu_raw_depth_lands_under_its_colour(shared_data, tmp_path):
    samples = shared_data / "samples" / "open3d" / "other_formats"
    shutil.copy(samples / "NYU_color.ppm", tmp_path / "r-1294886362.665769-3143255701.ppm")
    shutil.copy(samples / "NYU_depth.pgm", tmp_path / "d-1294886362.663555-3143255701.pgm")
    sequence = open_sequence(tmp_path)
    frame = sequence[0]
    assert frame.timestamp == pytest.approx(1294886362.665769, abs=1e-5)
    assert frame.depth_delay == pytest.approx(-0.002214, abs=1e-5)
    assert frame.camera.cx == pytest.approx(324.58245) and frame.camera.distortion is None
    assert 1 < frame.depth[frame.depth > 0].min() < 2 and 6 < frame.depth.max() < 7
    crop = np.zeros((480, 640), bool)
    crop[44:471, 40:601] = True  # the toolbox' own mask of where the projection is valid
    assert (frame.depth[crop] > 0).mean() > 0.9 > 0.15 > (frame.depth[~crop] > 0).mean()
    # A step in depth is a step in colour more often than chance has it, and most often without a shift.
    grey = cv2.GaussianBlur(cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    steep = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    far = cv2.erode((frame.depth > 0).astype(np.uint8), np.ones((5, 5)))
    edges = (cv2.morphologyEx(frame.depth, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0.3) & (far > 0)
    agreement = {shift: steep[np.roll(edges, shift, axis=1)].mean() for shift in (-24, 0, 24)}
    assert agreement[0] > 1.1 * max(agreement[-24], agreement[24])


def _as_the_toolbox_projects_depth(raw: np.ndarray) -> np.ndarray:
    """project_depth_map.m, step by step in NumPy, pixels counted as MATLAB does."""
    fx_d, fy_d, cx_d, cy_d = 582.62448167737955, 582.69103270988637, 313.04475870804731, 238.44389626620386
    k1, k2, p1, p2, k3 = -0.099897236553084481, 0.39065324602765344, 1.9290592870229277e-3, -1.9422022475975055e-3, -0.51031725053400578  # fmt: skip  # noqa: E501
    fx_rgb, fy_rgb, cx_rgb, cy_rgb = 518.85790117450188, 519.46961112127485, 325.58244941119034, 253.73616633400465

    def undistort(image: np.ndarray) -> np.ndarray:
        v, u = np.mgrid[:480, :640].astype(float)
        x, y = (u - cx_d) / fx_d, (v - cy_d) / fy_d
        r2 = x**2 + y**2
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        px = fx_d * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)) + cx_d
        py = fy_d * (y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y) + cy_d
        left, top = np.floor(px).astype(int), np.floor(py).astype(int)
        good = (left >= 0) & (left <= 638) & (top >= 0) & (top <= 478)
        left, top, a, b = left[good], top[good], (px - left)[good], (py - top)[good]
        result = np.full((480, 640), 255.0)
        upper = (1 - a) * image[top, left] + a * image[top, left + 1]
        result[good] = (1 - b) * upper + b * ((1 - a) * image[top + 1, left] + a * image[top + 1, left + 1])
        return result

    noise = undistort(255.0 * (raw == raw.max())) > 0
    disparity = undistort(raw.astype(float))
    disparity[disparity < 600] = 2047
    disparity[noise] = 2047
    z = np.clip(351.3 / (1092.5 - disparity), 0, 10)
    v, u = np.mgrid[1:481, 1:641].astype(float)
    points = np.stack([(u - cx_d) / fx_d * z, (v - cy_d) / fy_d * z, z], -1).reshape(-1, 3)
    R = -np.array([9.9997798940829263e-01, 5.0518419386157446e-03, 4.3011152014118693e-03,
                   -5.0359919480810989e-03, 9.9998051861143999e-01, -3.6879781309514218e-03,
                   -4.3196624923060242e-03, 3.6662365748484798e-03, 9.9998394948385538e-01])  # fmt: skip
    R = np.linalg.inv(R.reshape(3, 3, order="F").T)
    moved = points @ R.T + [2.5031875059141302e-2, -2.9342312935846411e-4, 6.6238747008330102e-4]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.floor(moved[:, 0] * fx_rgb / moved[:, 2] + cx_rgb + 0.5)
        y = np.floor(moved[:, 1] * fy_rgb / moved[:, 2] + cy_rgb + 0.5)
    inside = (x > 0) & (x < 640) & (y > 0) & (y < 480) & (z.ravel() > 0)
    order = np.argsort(-z.ravel()[inside], kind="stable")
    projected = np.zeros((480, 640))
    projected[y[inside][order].astype(int) - 1, x[inside][order].astype(int) - 1] = z.ravel()[inside][order]
    return projected


def test_nyu_raw_depth_is_the_toolboxs_to_a_millimetre(shared_data, tmp_path):
    from sequences.recordings.nyu_raw import read_projected_depth

    path = tmp_path / "d-1294886362.663555-3143255701.pgm"
    shutil.copy(shared_data / "samples" / "open3d" / "other_formats" / "NYU_depth.pgm", path)
    raw = np.frombuffer(path.read_bytes()[-640 * 480 * 2 :], "<u2").reshape(480, 640)
    expected, found = _as_the_toolbox_projects_depth(raw), read_projected_depth(path)
    assert ((found > 0) == (expected > 0)).mean() > 0.9999
    both = (found > 0) & (expected > 0)
    assert both.mean() > 0.5
    assert (np.abs(found - expected)[both] < 1e-3).mean() > 0.9999  # some land on the border between two pixels


def test_raw_disparities_follow_the_toolbox_formula():
    from sequences.recordings.nyu_raw import depth_of_raw

    raw = np.array([[0, 599, 600, 1000, 1080, 1092, 1093, 2047]], np.uint16)
    expected = [[0, 0, 351.3 / 492.5, 351.3 / 92.5, 10, 10, 0, 0]]
    np.testing.assert_allclose(depth_of_raw(raw), expected, rtol=1e-5)


def test_nyu_synchronisation_is_that_of_the_obvious_loop():
    from sequences.recordings.nyu_raw import synchronised

    rng = np.random.default_rng(2)
    depth_times, color_times = np.sort(rng.random(60)) * 2, np.sort(rng.random(50)) * 2
    at, expected = 0, []
    for time in depth_times:
        best = at
        for candidate in range(at, len(color_times)):
            if abs(color_times[candidate] - time) > abs(color_times[best] - time):
                break
            best = candidate
        at = best
        expected.append(at)
    chosen = synchronised(depth_times, color_times)
    assert chosen.tolist() == expected and (np.diff(chosen) >= 0).all()


def test_sun_rgbd_depth_is_rotated_back(shared_data, tmp_path):
    samples = shared_data / "samples" / "open3d" / "other_formats"
    for name, target in (("SUN_color.jpg", "image/a.jpg"), ("SUN_depth.png", "depth_bfx/a.png")):
        (tmp_path / target).parent.mkdir()
        shutil.copy(samples / name, tmp_path / target)
    (tmp_path / "intrinsics.txt").write_text("529.5 0 365 0 529.5 265 0 0 1")
    frame = open_sequence(tmp_path)[0]
    stored = cv2.imread(str(samples / "SUN_depth.png"), cv2.IMREAD_UNCHANGED)
    small = (stored > 0) & (stored % 8 == 0)
    np.testing.assert_allclose(frame.depth[small], np.minimum(stored[small] / 8000, 8), atol=1e-4)
    assert 0.5 < np.median(frame.depth) < 8 and frame.camera.fx == 529.5


def test_tum_depth_is_5000_a_metre(shared_data, tmp_path):
    samples = shared_data / "samples" / "open3d" / "other_formats"
    path = tmp_path / "freiburg3"
    path.mkdir()
    for name in ("TUM_color.png", "TUM_depth.png"):
        shutil.copy(samples / name, path / name)
    (path / "rgb.txt").write_text("1.00 TUM_color.png\n")
    (path / "depth.txt").write_text("1.01 TUM_depth.png\n")
    depth = open_sequence(path)[0].depth
    assert 0.5 < np.median(depth[depth > 0]) < 4


def test_splatting_keeps_the_nearest_of_many_as_the_obvious_loop_does():
    from sequences.recordings.registration_kernels import splat_nearest

    rng = np.random.default_rng(1)
    columns, rows = (rng.uniform(-2, 9, 400).astype(np.float32) for _ in range(2))
    z, values = (rng.uniform(1, 2, 400).astype(np.float32) for _ in range(2))
    expected = np.zeros((6, 8), np.float32)
    for i in np.argsort(-z):
        u, v = int(np.floor(columns[i] + 0.5)), int(np.floor(rows[i] + 0.5))
        if 0 <= u < 8 and 0 <= v < 6:
            expected[v, u] = values[i]
    assert np.array_equal(splat_nearest(columns, rows, z, values, 6, 8), expected)


def test_depth_registered_to_the_same_camera_is_the_same():
    from sequences.recordings.registration import registered_depth

    room = RoomSequence(frames=1, width=80, height=60)
    depth = room[0].depth
    np.testing.assert_allclose(registered_depth(depth, room.camera, room.camera, np.eye(4)), depth, rtol=1e-6)
