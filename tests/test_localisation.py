"""Cameras found in a finished map: by colour alone or with depth, told with their confidence, or told to be nowhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import refused, semslam

from semslam import poses
from semslam.camera import Camera
from semslam.frame import Observation
from semslam.images import read_color, write_png
from semslam.runs.config import RunConfig
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.finished.localise import LocalisedFrame, located, open_query, tum_text
from semslam.slam import SlamConfig
from semslam.tracking.relocalisation import places as module
from semslam.tracking.relocalisation.localisation import Localisation, Localiser, without_depth
from semslam.tracking.relocalisation.places import Places, described, matches, root_sift
from semslam.tracking.relocalisation.resection import Described, refined, solved
from semslam.trajectory import Correction
from semslam.trajectory.files import read_tum
from sequences import open_sequence

ROOM = "room:frames=36,width=320,height=240"
EVERY = 6  # frames from one that is looked for to the next
CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)


def error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Metres and degrees between two poses."""
    E = poses.inverse(a) @ b
    return float(np.linalg.norm(E[:3, 3])), float(np.degrees(poses.rotation_angle(E)))


def are_close(a: np.ndarray, b: np.ndarray, metres: float, degrees: float) -> bool:
    off = error(a, b)
    return off[0] < metres and off[1] < degrees


@pytest.fixture(scope="module")
def room():
    return open_sequence(ROOM)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Of all frames but every sixth."""
    out = tmp_path_factory.mktemp("localised") / "run"
    assert (
        semslam(
            "reconstruct", ROOM, "--hold-out", EVERY, "--labels", "none", "--no-mesh", "--memory", "2MB", "--out", out
        )
        == 0
    )
    return out


@pytest.fixture(scope="module")
def finished(run: Path) -> FinishedMap:
    return FinishedMap(run)


@pytest.mark.slow
def test_depth_in_another_unit_than_the_maps_is_told_where_colour_alone_finds_the_image(room, finished):
    frame = room[EVERY]
    for factor in (0.25, 1.5):  # in the range of depth that the map was made with
        found = finished.localiser.locate(replace(frame, depth=np.float32(factor) * frame.depth))
        assert found.T_world_camera is None
        assert f"its depth is {factor:g} times that of the map" in found.reason and "--no-depth" in found.reason
    far = np.random.default_rng(0).permutation(frame.depth.ravel()).reshape(frame.depth.shape)
    assert "times" not in finished.localiser.locate(replace(frame, depth=far)).reason  # by no one factor


def test_a_candidate_is_compared_with_the_map_by_its_own_camera(room, finished, monkeypatch):
    """A zoomed one that was tried before, and was wrong, changes nothing."""
    frame, localiser = room[EVERY], finished.localiser
    right = next(iter(localiser.places.candidates(described(frame.color, frame.camera))))
    alone = localiser.locate(frame)
    candidates = [replace(right, zoom=(1.6, 1.6)), right]
    monkeypatch.setattr(localiser.places, "candidates", lambda image: candidates)
    for again in (localiser.locate(frame), localiser.locate(without_depth(frame))):
        assert again.focal is None and are_close(again.T_world_camera, alone.T_world_camera, 0.02, 1)


def some_points(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pose T_world_camera, points (N, 3) in the world and their pixels."""
    T = poses.exp(rng.normal(size=6))
    pixels = rng.uniform((5, 5), (314, 234), (count, 2))
    z = rng.uniform(0.5, 4, count)
    seen = np.stack([(pixels[:, 0] - CAMERA.cx) / CAMERA.fx * z, (pixels[:, 1] - CAMERA.cy) / CAMERA.fy * z, z], 1)
    return T, poses.transform(T, seen), pixels


def test_a_pose_is_found_although_most_matches_are_wrong() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        T, points, pixels = some_points(rng, 60)
        wrong = rng.permutation(60)[:36]
        points[wrong] = points[rng.permutation(wrong)]
        image = Described(CAMERA, pixels.astype(np.float32), np.zeros((60, module.BYTES), np.uint8))
        found = solved(points, np.arange(60), image, np.zeros((60, 3)))
        assert found is not None
        assert are_close(T, found.T_world_camera, 1e-4, 0.01) and found.inliers >= 24


@pytest.mark.parametrize(("degrees", "found"), [(25, 1), (75, 0), (150, 0)])
def test_features_seen_from_quite_another_side_are_other_things(degrees: float, found: int) -> None:
    """As those of a mirror image are, that agree with a pose behind what they show."""
    rng = np.random.default_rng(3)
    points = rng.uniform((-1, -1, 2.5), (1, 1, 3.5), (60, 3))
    descriptors = rng.integers(0, 255, (60, module.BYTES), np.uint8)
    known = Places()
    known._append(0, np.eye(4), points.astype(np.float32), descriptors)
    about, turn = np.eye(4), poses.exp(np.array([0, 0, 0, 0, np.radians(degrees), 0]))
    about[2, 3] = 3.0  # the middle of the points, around which the camera goes
    seen = poses.transform(poses.inverse(about @ turn @ poses.inverse(about)), points)
    pixels = seen[:, :2] / seen[:, 2:] * 260 + (CAMERA.cx, CAMERA.cy)
    image = Described(CAMERA, pixels.astype(np.float32), descriptors)
    assert len(list(known.candidates(image))) == found


def test_the_covariance_of_a_pose_is_that_of_its_errors() -> None:
    """Normalised errors of pixels with a noise of one have the mean square of six independent ones."""
    rng = np.random.default_rng(1)
    squares = []
    for _ in range(150):
        T, points, pixels = some_points(rng, 40)
        noisy = pixels + rng.normal(size=pixels.shape)
        T_camera_world, covariance, *_ = refined(poses.inverse(T), points, noisy, CAMERA)
        twist = poses.log(T_camera_world @ T)
        squares.append(twist @ np.linalg.solve(covariance, twist))
    assert 4 < np.mean(squares) < 10


def test_matches_are_mutual_and_clear() -> None:
    rng = np.random.default_rng(2)
    known = rng.uniform(0, 255, (30, module.BYTES)).astype(np.float32)
    live = known[::-1][:20] + rng.normal(size=(20, module.BYTES)).astype(np.float32)
    i, j = matches(known, live)
    assert np.array_equal(i, 29 - j) and len(j) == 20
    twice = np.concatenate([known, known])  # whatever has a double is unclear
    assert len(matches(twice, live)[0]) == 0


def test_frames_left_out_of_a_map_are_found_in_it_by_colour_alone(room, finished: FinishedMap) -> None:
    looker = finished.localiser
    for i in range(EVERY - 1, 36, 2 * EVERY):
        frame = without_depth(replace(room[i], T_world_camera=None))
        found = looker.locate(frame)
        assert found.T_world_camera is not None, found.reason
        metres, degrees = error(room[i].T_world_camera, found.T_world_camera)
        assert metres < 0.03 and degrees < 1 and found.confidence > 0.5 and found.std_m < 0.03


def test_depth_makes_a_pose_exact(room, finished: FinishedMap) -> None:
    found = finished.localiser.locate(replace(room[23], T_world_camera=None))
    assert are_close(room[23].T_world_camera, found.T_world_camera, 0.003, 0.15)


def test_what_is_not_in_the_map_is_not_found(room, finished: FinishedMap) -> None:
    rng = np.random.default_rng(0)
    frame = room[11]
    noise = rng.integers(0, 255, frame.color.shape, np.uint8)
    for color in (np.zeros_like(frame.color), noise, frame.color[::-1], 255 - frame.color):
        found = finished.localiser.locate(replace(frame, color=np.ascontiguousarray(color), depth=None))
        assert found.T_world_camera is None and found.reason


def test_an_image_that_two_places_show_is_found_where_the_map_looks_like_it(room, finished: FinishedMap) -> None:
    """The places of one half of the map are told to be elsewhere: nothing there looks like the image."""
    moved = Places()
    moved.restore(finished.places.state())
    moved.T_world_camera = [poses.exp([3.0, 0, 0, 0, 0, 0]) @ T for T in moved.T_world_camera]
    found = Localiser(finished.surfels, moved, SlamConfig().fusion, SlamConfig().tracking).locate(
        without_depth(room[11])
    )
    assert found.T_world_camera is None and "does not look like" in found.reason


def test_places_move_with_the_map_and_come_back_as_they_were(room, finished: FinishedMap) -> None:
    copy = Places()
    copy.restore(finished.places.state())
    image = described(room[23].color, room.camera)
    before = next(copy.candidates(image)).T_world_camera
    assert np.array_equal(before, next(finished.places.candidates(image)).T_world_camera)
    shift = poses.exp([0.3, -0.1, 0.2, 0.1, 0.2, -0.1])
    copy.world_moved(Correction(np.array([0]), shift[None]))
    assert are_close(next(copy.candidates(image)).T_world_camera, shift @ before, 0.01, 0.2)


def test_features_of_an_image_turned_upside_down_lie_at_the_turned_places():
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((120, 160)), (0, 0), 2)
    grey = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    upright, turned = root_sift(grey)[0], [159, 119] - root_sift(np.ascontiguousarray(grey[::-1, ::-1]))[0]
    offsets = turned[None] - upright[:, None]
    nearest = offsets[np.arange(len(upright)), np.linalg.norm(offsets, axis=2).argmin(axis=1)]
    same = np.linalg.norm(nearest, axis=1) < 1
    assert same.sum() > 50 and np.abs(np.median(nearest[same], axis=0)).max() < 0.03


def test_features_that_are_still_looked_for_are_waited_for(room) -> None:
    places, frame = Places(), room[0]
    places.see(Observation.of(frame), np.eye(4))
    assert len(places) == len(places.points) == len(places.descriptors) == 1
    assert len(places.points[0]) == len(places.descriptors[0]) > 20


def test_places_are_bounded_and_still_cover_the_way(room, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST", 8)
    places, frame = Places(), room[0]
    for k in range(50):
        T = poses.exp([0.4 * k, 0, 0, 0, 0, 0])
        if places.is_new(T):
            places.see(Observation(replace(frame, index=k), frame.camera, frame.color, frame.depth), T)
    positions = np.array([T[0, 3] for T in places.T_world_camera])
    assert len(places) <= 16 and positions.min() == 0 and positions.max() > 12
    assert np.diff(positions).max() <= 4


def test_the_way_back_has_places_of_its_own(room, monkeypatch) -> None:
    """50 m straight on, turned around, and back: however few places are left, some look each way."""
    monkeypatch.setattr(module, "MOST", 20)
    places, frame = Places(), room[0]
    back = poses.exp([0, 0, 0, 0, np.pi, 0])
    way = [poses.exp([0, 0, z, 0, 0, 0]) for z in np.arange(0, 50, 0.5)]
    turn = [way[-1] @ poses.exp([0, 0, 0, 0, angle, 0]) for angle in np.linspace(0, np.pi, 10)]
    for k, T in enumerate([*way, *turn, *(T @ back for T in way[::-1])]):
        places.see(Observation(replace(frame, index=k), frame.camera, frame.color[:16, :16], frame.depth[:16, :16]), T)
    looks_ahead = np.array([T[2, 2] > 0.5 for T in places.T_world_camera])
    looks_back = np.array([T[2, 2] < -0.5 for T in places.T_world_camera])
    assert len(places) <= 40 and min(looks_ahead.sum(), looks_back.sum()) >= 4


def test_the_command_writes_lines_figures_and_a_picture(run: Path, tmp_path: Path, room) -> None:
    out, figures, picture = tmp_path / "poses.txt", tmp_path / "poses.json", tmp_path / "poses.png"
    more = ["--no-depth", "--out", out, "--json", figures, "--figure", picture]
    assert semslam("localise", run, ROOM, "--start", 5, "--every", 12, *more) == 0
    said = json.loads(figures.read_text())
    trajectory = read_tum(out)
    assert said["images"] == 3 and said["found"] >= 2 and len(trajectory.timestamps) == said["found"]
    assert are_close(trajectory.T_world_camera[0], room[5].T_world_camera, 0.03, 1.0)
    assert "confidence" in out.read_text() and read_color(picture).std() > 10


def test_an_image_without_a_camera_is_taken_to_be_of_the_runs(run: Path, tmp_path: Path, room, capsys) -> None:
    write_png(tmp_path / "one.png", room[20].color)
    assert semslam("localise", run, tmp_path / "one.png") == 0
    assert "# one.png confidence" in capsys.readouterr().out
    write_png(tmp_path / "none.png", np.zeros_like(room[0].color))
    assert semslam("localise", run, tmp_path / "none.png") == 1
    assert "# none.png not found" in capsys.readouterr().out


def test_images_given_one_by_one_are_found_as_in_a_folder_and_one_that_is_broken_stops_no_other(
    run: Path, room, tmp_path: Path, capsys, caplog
) -> None:
    for i in (0, 6, 12):
        write_png(tmp_path / f"{i}.png", room[i].color)
    (tmp_path / "broken.png").write_bytes(b"no image")
    words = [tmp_path / name for name in ("0.png", "broken.png", "6.png", "12.png")]
    assert semslam("localise", run, *words, "--out", tmp_path / "found.txt") == 0
    assert "3 of 4 images found" in capsys.readouterr().out
    found = read_tum(tmp_path / "found.txt")
    np.testing.assert_allclose(found.timestamps, np.arange(3) / 30, atol=1e-6)
    for i, T in zip((0, 6, 12), found.T_world_camera):
        assert are_close(T, room.poses[i], 0.03, 1.0)
    told = (tmp_path / "found.txt").read_text()
    assert f"broken.png not found: {tmp_path / 'broken.png'}: the file is no image or is damaged" in told
    assert "are assumed" not in caplog.text  # the camera is the run's


def test_a_name_of_any_bytes_is_printed() -> None:
    text = tum_text([LocalisedFrame("caf\udce9\n.png", 0.0, Localisation(None, reason="dark"))])
    assert text.splitlines()[1] == "# caf\\udce9 .png not found: dark" and text.encode("utf-8")


def test_images_in_a_row_that_are_not_found_share_a_line() -> None:
    reasons = ["hardly anything", "5 features agree, but", "4 features agree, but", "dark"]
    frames = [LocalisedFrame(f"{i}.png", i / 30, Localisation(None, reason=why)) for i, why in enumerate(reasons)]
    assert tum_text(frames).splitlines()[1:] == [
        "# 0.png not found: hardly anything",
        "# 1.png to 2.png (2 images) not found: some features agree, but",
        "# 3.png not found: dark",
    ]


def test_a_map_larger_than_memory_is_localised_in_as_one_that_fits(run: Path, finished: FinishedMap) -> None:
    paged = FinishedMap(run, paged=True)
    assert paged.surfels.paging is not None and finished.surfels.paging is None
    query = open_query(finished, RunConfig(sequence=ROOM, start=20, frames=1))
    in_files, in_memory = (next(located(map_, query)).found for map_ in (paged, finished))
    np.testing.assert_array_equal(in_files.T_world_camera, in_memory.T_world_camera)


def test_localising_gives_back_what_of_a_paged_map_is_not_seen_any_more(run: Path) -> None:
    finished = FinishedMap(run, paged=True)
    paging = finished.surfels.paging
    assert paging is not None
    paging.budget = 20 * paging.chunk_bytes
    query = open_query(finished, RunConfig(sequence=ROOM, every=6))
    in_memory = [np.count_nonzero(paging._in_memory) for _ in located(finished, query)]
    assert 0 < in_memory[-1] < 0.85 * np.count_nonzero(paging._seen >= 0)


def test_what_cannot_be_localised_is_one_line(run: Path, tmp_path: Path, capsys) -> None:
    assert "not a run" in refused(capsys, "localise", tmp_path, ROOM)
    assert "nothing: no such image, folder" in refused(capsys, "localise", run, tmp_path / "nothing")
    assert "0, expected 1 or more" in refused(capsys, "localise", run, ROOM, "--frames", 0)


def test_photos_of_a_folder_have_each_a_camera_of_their_own(run: Path, room, tmp_path: Path, capsys) -> None:
    """Cropped, of another aspect, stretched, turned, and one whose EXIF tells its lens; one too small is named."""
    import cv2
    from PIL import Image

    color = room[20].color
    zoomed = np.ascontiguousarray(color[30:210, 40:280])
    for name, image in {
        "0_as_it_is.png": color,
        "1_zoomed.png": zoomed,
        "2_wide.png": color[30:210],
        "3_stretched.png": cv2.resize(color, (480, 240)),
        "4_tall.png": np.rot90(color),
        "5_tiny.png": color[:10],
    }.items():
        write_png(tmp_path / name, np.ascontiguousarray(image))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = round(36 * room.camera.fx / zoomed.shape[1])
    Image.fromarray(zoomed).save(tmp_path / "6_told.jpg", exif=exif, quality=95)
    figures = tmp_path / "found.json"
    assert semslam("localise", run, tmp_path, "--json", figures) == 0
    said = capsys.readouterr()
    assert "5_tiny.png: its images are 320x10" in said.out
    assert "no lens is known of 5 images" in said.err and "for 2 that another focal length explains" in said.err
    found = {frame["name"][0]: frame for frame in json.loads(figures.read_text())["frames"]}
    focal = {name: frame["focal"] for name, frame in found.items()}
    assert focal["1"] == pytest.approx(room.camera.fx, rel=0.03)
    assert focal["3"] == pytest.approx(1.5 * room.camera.fx, rel=0.03)
    assert focal["0"] is focal["2"] is focal["4"] is focal["6"] is None
    for name in "01236":
        metres, degrees = error(room.poses[20], np.array(found[name]["T_world_camera"]))
        assert metres < 0.04 and degrees < 1, (name, metres, degrees)  # EXIF counts whole millimetres
    turned = np.array(found["4"]["T_world_camera"])
    assert np.linalg.norm(turned[:3, 3] - room.poses[20][:3, 3]) < 0.04


def test_features_on_a_wall_say_how_little_they_tell_of_an_unknown_lens() -> None:
    """Seen straight on, a wall looks alike from farther away through a longer lens."""
    rng = np.random.default_rng(5)
    wall = np.column_stack([rng.uniform(-1, 1, (60, 2)), np.full(60, 3.0)])
    pixels = CAMERA.project(wall) + rng.normal(scale=0.3, size=(60, 2))
    image = Described(CAMERA, pixels.astype(np.float32), np.zeros((60, module.BYTES), np.uint8))
    known, unknown = (
        solved(wall, np.arange(60), replace(image, camera=replace(CAMERA, focal_known=known)), np.zeros((60, 3)))
        for known in (True, False)
    )
    assert known is not None and unknown is not None
    assert np.sqrt(known.covariance[2, 2]) < 0.02 and np.sqrt(unknown.covariance[2, 2]) > 0.3
    assert unknown.focal_std > 0.1
