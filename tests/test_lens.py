"""A lens that is not as it is said to be: found in where landmarks are seen, undone in the images."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from filmed_rooms import error
from stub_networks import BlindNetwork
from test_bundle_adjustment import disturbed, scene

from semslam.camera import Camera
from semslam.runs import recording
from semslam.runs.color_only import straightening
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.poses import VisualPoses, track_images
from semslam.runs.color_only.recalling import RecallingSequence
from semslam.runs.config import RunConfig
from semslam.tracking.visual import lens, normal_equations
from sequences import open_sequence
from sequences.recalibrated import StraightenedSequence, numbers_of, straightened, undistorted_to, with_lens
from sequences.sequence import DerivedSequence

BARREL = Camera(160, 120, 130, 130, 79.5, 59.5, distortion=(-0.25, 0.05, 0, 0))


def taken_by(numbers: np.ndarray, noise: float = 0.1):
    """A scene as a lens shows it that it does not know of."""
    exact, _ = scene(count=6, landmarks=300, noise=noise)
    held = {"prior": exact.log_depth, "prior_weight": np.full(300, 1.0), "fixed": np.arange(6) == 0}
    return exact._replace(
        pixel=shown(exact.pixel, numbers, exact.focal), seen=shown(exact.seen, numbers, exact.focal), **held
    )


def shown(pixels: np.ndarray, numbers: np.ndarray, focal: float) -> np.ndarray:
    """Where a lens with these numbers shows what one without shows at pixels (N, 2) from its principal point."""
    z, centre, (k1, k2), stretch = numbers[0], numbers[1:3], numbers[3:5], numbers[5]
    return focal * (np.exp([z, z + stretch]) * lens.distorted(pixels / focal, k1, k2)[0] + centre)


@pytest.mark.parametrize(
    "numbers", [(0, 0, 0, -0.2, 0.05, 0), (0, 0.1, -0.05, 0.1, 0, 0), (0.1, 0, 0, 0, 0, 0), (0, 0, 0, 0.1, 0, 0.25)]
)
def test_a_lens_is_found_where_landmarks_are_seen(numbers):
    wanted = np.array(numbers, float)
    found, cost = lens.fitted(taken_by(wanted), 0.1, np.ones(6, bool))
    np.testing.assert_allclose(found.lens, wanted, atol=0.03)
    assert lens.fitted(taken_by(wanted), 0.1, np.zeros(6, bool))[1] > 2 * cost


def test_a_lens_that_is_as_it_is_said_explains_nothing():
    exact = taken_by(np.zeros(6))
    costs = [lens.fitted(exact, 0.1, np.full(6, any_lens))[1] for any_lens in (False, True)]
    assert costs[0] - costs[1] < 0.02 * len(exact.landmark)


@pytest.mark.parametrize("k1, is_fitted", [(0.0, False), (-0.1, True)])
def test_a_lens_is_fitted_only_where_one_step_promises_something(k1, is_fitted, monkeypatch):
    filmed = taken_by(np.array([0, 0, 0, k1, 0, 0]), noise=0.8)
    world = SimpleNamespace(
        keyframes=range(6),
        pixel_std=0.8,
        scene=lambda free, with_focal: (filmed, np.arange(6), None, None),
        camera=BARREL.undistorted(),
        focal_known=True,
    )
    fits, fitted = [], lens.fitted
    monkeypatch.setattr(lens, "fitted", lambda *a: fits.append(a[2]) or fitted(*a))
    found = lens.lens_of(world)
    assert bool(fits) == is_fitted and (found.explained > 0.1) == is_fitted
    assert found.numbers[3] == pytest.approx(k1, abs=0.05)


@pytest.mark.parametrize("change", [0.0, 0.15])
def test_a_focal_length_that_changes_from_keyframe_to_keyframe_is_seen(change):
    z = np.linspace(0, change, 8)
    exact, _ = scene(count=8, landmarks=300, noise=0.2)
    seen, pixel = (
        pixels * np.exp(z[cameras])[:, None]
        for pixels, cameras in ((exact.seen, exact.camera), (exact.pixel, exact.host))
    )
    filmed = exact._replace(seen=seen, pixel=pixel)
    world = SimpleNamespace(
        keyframes=range(8), pixel_std=0.2, scene=lambda free, with_focal: (filmed, np.arange(8), None, None)
    )
    assert lens.focal_spread_of(world) == pytest.approx(np.std(z), abs=0.02)
    assert (lens.focal_spread_of(world) > 0.025) == (change > 0)
    flat = filmed._replace(log_depth=np.log(np.linspace(1.9, 2.1, len(filmed.host))))
    world.scene = lambda free, with_focal: (flat, np.arange(8), None, None)
    assert np.isnan(lens.focal_spread_of(world))
    world.keyframes = range(4)
    assert np.isnan(lens.focal_spread_of(world))


@pytest.mark.parametrize("stretches, is_one", [((0.2, 0.2), True), ((0.2, -0.2), False)])
def test_one_lens_is_told_by_both_halves_of_the_images(stretches, is_one):
    exact, numbers = taken_by(np.zeros(6)), np.zeros((2, 6))
    numbers[:, 5] = stretches
    of_pixel, of_seen = ((cameras >= 3)[:, None] for cameras in (exact.host, exact.camera))
    pixel, seen = (
        np.where(later, *(shown(pixels, numbers[half], exact.focal) for half in (1, 0)))
        for later, pixels in ((of_pixel, exact.pixel), (of_seen, exact.seen))
    )
    which = np.array([False, False, False, True, True, True])
    assert lens.is_of_both_halves(exact._replace(pixel=pixel, seen=seen), 0.1, which) == is_one


@pytest.mark.parametrize(
    "changed, known, believed",
    [
        ({"cx": 95}, {}, True),
        ({"cx": 110}, {}, False),
        ({"cy": 92}, {}, False),
        ({"cx": 40, "cy": 60}, {"cx": 130}, True),  # nearer to the middle than was said
        ({"fx": 160, "fy": 160}, {}, True),
        ({"fx": 180, "fy": 180}, {}, False),
        ({"fx": 173, "fy": 130}, {}, True),  # stretched to 4/3 of its width
    ],
)
def test_a_lens_far_from_the_middle_or_of_another_focal_length_is_not_believed(changed, known, believed):
    assert lens.is_believable(replace(BARREL, **changed), replace(BARREL, **known), focal_known=True) == believed


def test_where_no_focal_length_is_known_any_camera_is_believed():
    assert lens.is_believable(replace(BARREL, fx=220, fy=220), BARREL, focal_known=False)
    assert not lens.is_believable(replace(BARREL, fx=600, fy=600), BARREL, focal_known=False)


def test_a_lens_that_is_not_believed_is_not_undone_but_told():
    filmed = taken_by(np.array([0, 0.2, 0, 0, 0, 0]))
    width, height = round(filmed.focal), round(0.75 * filmed.focal)
    camera = Camera(width, height, filmed.focal, filmed.focal, (width - 1) / 2, (height - 1) / 2)
    world = SimpleNamespace(
        keyframes=range(6),
        pixel_std=0.1,
        scene=lambda free, with_focal: (filmed, np.arange(6), None, None),
        camera=camera,
        focal_known=True,
    )
    found = lens.lens_of(world)
    assert found.explained == 0 and not found.numbers.any() and found.denied > 1


def test_the_gradient_is_the_difference_quotient_of_the_cost(monkeypatch):
    monkeypatch.setattr(normal_equations, "HUBER", 1e9)
    start = disturbed(scene(count=4, landmarks=20)[0])._replace(prior_weight=np.full(20, 2.0))
    bent = np.array([0.05, 0.02, -0.03, 0.1, -0.05, 0.1])
    state = lens.LensState(start.T_camera_world, start.log_depth + 0.1, bent)
    _, equations = lens.linearised(start, state, 1.0)
    h, unknowns = 1e-6, 4 * lens.TWIST + 6
    for i in range(unknowns):
        step = h * (np.arange(unknowns) == i)
        ends = (lens.linearised(start, state.moved(way * step, np.zeros(20)), 1.0)[0] for way in (1, -1))
        assert 2 * equations.g[i] == pytest.approx(-np.diff(list(ends))[0] / (2 * h), rel=1e-4, abs=1e-1)


def test_of_many_landmarks_those_that_most_cameras_see_are_kept_with_their_observations():
    exact, _ = scene(landmarks=60)
    few = lens.most_seen(exact, 20)
    counts = np.bincount(exact.landmark, minlength=60)
    assert len(few.host) == 20 and len(few.landmark) == np.sort(counts)[-20:].sum()
    assert (np.bincount(few.landmark) == counts[np.isin(exact.pixel, few.pixel).all(axis=1)]).all()


@pytest.mark.parametrize("distortion", [(-0.25, 0.05, 0, 0), (0.2, 0, 0, 0)])
def test_straightened_images_have_no_empty_border_and_lose_little(distortion):
    bent = replace(BARREL, distortion=distortion)
    shown = undistorted_to(np.full((120, 160), 200, np.uint8), bent, straightened(bent))
    assert shown[1:-1, 1:-1].min() == 200
    assert 0.7 < straightened(bent).fx / bent.fx < 1.3


def test_a_straightened_frame_shows_what_the_straight_camera_sees():
    room = open_sequence("room:frames=2,width=160,height=120")
    bent = replace(BARREL, fx=room.camera.fx, fy=room.camera.fy)
    straight = StraightenedSequence(room, bent)
    frame = straight[0]
    np.testing.assert_array_equal(frame.color, straight.color_of(0))
    np.testing.assert_array_equal(frame.labels, straight.labels_of(0))
    np.testing.assert_array_equal(frame.depth, straight.depth_of(0))
    u, v = 30, 100
    ray = np.linalg.inv(straight.camera.K) @ [u, v, 1]
    there = cv2.projectPoints(ray[None], np.zeros(3), np.zeros(3), bent.K, np.array(bent.distortion))[0].ravel()
    column, row = there.round().astype(int)
    assert frame.depth[v, u] == room[0].depth[row, column]


def test_a_lens_is_kept_with_the_poses_and_with_the_recording(tmp_path):
    room = open_sequence("room:frames=3,width=160,height=120")
    T, kept_lens = np.stack(room.poses), numbers_of(BARREL)[None]
    found = VisualPoses(T, np.ones(3, bool), 1.0, 0.2, 2, 2.0, 1.0, 100.0, 0.0, 0.0, 0.5, lens=kept_lens)
    save_kept(tmp_path / "kept.npz", found, "settings")
    again = load_kept(tmp_path / "kept.npz", VisualPoses, 3)
    assert again.figures()["lens"] == kept_lens[0].tolist()
    straight = again.calibrated(room)
    assert straight.lens == with_lens(room.camera, kept_lens[0])
    config = RunConfig(sequence="room:frames=3,width=160,height=120")
    kept = recording.remembered(RecallingSequence(straight), config, tmp_path)
    assert kept["lens"] == kept_lens[0].tolist()
    opened = recording.found_again(config, kept, tmp_path)
    assert opened.camera == straight.camera
    np.testing.assert_array_equal(opened[0].color, straight[0].color)
    filming = recording.filming_camera(kept)
    assert filming == straight.lens != straight.camera, "other images by this camera have its lens"


def test_pixels_are_straightened_and_bent_again():
    pixels = np.stack(np.meshgrid(np.linspace(0, 159, 9), np.linspace(0, 119, 7)), axis=2).reshape(-1, 2)
    there = lens.Straightening(BARREL)
    np.testing.assert_allclose(there.recorded(there.straight(pixels)), pixels, atol=1e-6)
    by_opencv = cv2.undistortPoints(pixels[:, None], BARREL.K, np.array(BARREL.distortion), P=BARREL.K)[:, 0]
    inner = np.linalg.norm(pixels - [79.5, 59.5], axis=1) < 70  # farther out, OpenCV's five steps are too few
    np.testing.assert_allclose(there.straight(pixels)[inner], by_opencv[inner], atol=0.1)


def test_a_lens_of_another_focal_length_bends_the_same_pixels():
    longer = straightening.with_focal(BARREL, 1.3 * BARREL.fx)
    pixels = np.array([[10.0, 20], [150, 100], [80, 60]])
    there, again = lens.Straightening(BARREL).recorded(pixels), lens.Straightening(longer).recorded(pixels)
    np.testing.assert_allclose(again, there, atol=1e-9)
    assert longer.fx == pytest.approx(1.3 * BARREL.fx)


class Tracked:
    """What was tracked with a focal length, pixels; landmarks are off by as much as this says of one, or by a pixel."""

    size = np.array([160, 120])

    def __init__(self, focal: float, residuals: dict[float, float] | None = None) -> None:
        camera, self.residuals = Camera(160, 120, focal, focal, 79.5, 59.5), residuals or {}
        self.map = SimpleNamespace(camera=camera, focal_known=False, residual=self.residuals.get(round(focal), 1.0))

    def with_focal(self, focal: float) -> Tracked:
        return Tracked(focal, self.residuals)


def straight_of_unknown(
    tracker: Tracked, monkeypatch, denied: float = 0.0
) -> tuple[straightening.StraightScene, list[float]]:
    """What is made of that, and the focal lengths from which a lens was looked for: one is found from the guess.

    denied: see `FoundLens`.
    """
    looked_at: list[float] = []
    doubt, scene = lens.FoundLens(np.zeros(6), 0.0, denied), straightening.Scene(tracker, None, [])

    def straightened(best: straightening.Straight, known: Camera) -> straightening.Straight:
        return best._replace(lens=replace(known, distortion=(-0.3, 0, 0, 0)) if known == UNKNOWN else None)

    monkeypatch.setattr(straightening, "lens_of", lambda world: looked_at.append(world.camera.fx) or doubt)
    monkeypatch.setattr(straightening, "zoom_of", lambda world: None)
    monkeypatch.setattr(straightening, "straightened", straightened)
    monkeypatch.setattr(straightening, "unzoomed_scene", lambda *_: (scene, None))
    filmed = SimpleNamespace(camera=UNKNOWN)
    return straightening.straight_scene(filmed, BlindNetwork(), None, lambda: None, None), looked_at


UNKNOWN = Camera.unknown(320, 240)
GUESS = Camera.unknown(160, 120).fx


def test_a_lens_is_looked_for_from_the_guess_where_no_camera_has_the_focal_length_found(monkeypatch):
    found, looked_at = straight_of_unknown(Tracked(900.0), monkeypatch)
    assert found.lens is not None and looked_at == [900.0, pytest.approx(GUESS)]


@pytest.mark.parametrize("focal", [150.0, 300.0])
def test_a_focal_length_is_kept_with_which_landmarks_tell_of_no_lens(focal, monkeypatch):
    found, looked_at = straight_of_unknown(Tracked(focal, {round(GUESS): 0.5}), monkeypatch)
    assert found.lens is None and found.scene.tracker.map.camera.fx == focal and looked_at == [focal]


@pytest.mark.parametrize("by_guess, is_kept", [(1.0, True), (0.97, True), (0.9, False)])
@pytest.mark.parametrize("focal", [150.0, 300.0])
def test_a_lens_is_looked_for_from_the_guess_where_none_that_is_told_is_likely(focal, by_guess, is_kept, monkeypatch):
    found, looked_at = straight_of_unknown(Tracked(focal, {round(GUESS): by_guess}), monkeypatch, denied=0.5)
    assert (found.lens is None) == is_kept
    assert found.scene.tracker.map.camera.fx == pytest.approx(focal if is_kept else GUESS)
    assert looked_at == pytest.approx([focal, GUESS])


def test_a_focal_length_that_no_camera_has_is_told_where_no_lens_is_found(monkeypatch, caplog):
    tracked = straightening.Scene(Tracked(900.0), None, [])
    monkeypatch.setattr(straightening, "unzoomed_scene", lambda *_: (tracked, None))
    monkeypatch.setattr(straightening, "lens_of", lambda world: lens.FoundLens(np.zeros(6), 0.0))
    found = straightening.straight_scene(SimpleNamespace(camera=UNKNOWN), BlindNetwork(), None, lambda: None, None)
    assert found == (tracked, None, None) and "no usual camera" in caplog.text


class BentSequence(DerivedSequence):
    """The room as a wide lens would have filmed it; its camera knows no distortion."""

    def __init__(self, whole) -> None:
        super().__init__(whole)
        c = self.camera
        u, v = np.meshgrid(np.arange(c.width, dtype=np.float32), np.arange(c.height, dtype=np.float32))
        pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
        places = cv2.undistortPoints(pixels, c.K, np.array([-0.25, 0, 0, 0]), P=c.K).reshape(c.height, c.width, 2)
        self.places = np.asarray([c.cx, c.cy] + 0.8 * (places - [c.cx, c.cy]), np.float32)

    def color_of(self, index: int) -> np.ndarray:
        return cv2.remap(super().color_of(index), self.places[..., 0], self.places[..., 1], cv2.INTER_LINEAR)


@pytest.mark.slow
def test_a_wide_lens_is_undone_and_the_path_found(caplog):
    room = open_sequence("room:frames=60,width=320,height=240")
    filmed = BentSequence(room)
    filmed.camera = replace(filmed.camera, fx=room.camera.fx / 0.8, fy=room.camera.fy / 0.8)
    found = track_images(filmed, BlindNetwork())
    assert found.lens is not None and "the images fit another camera" in caplog.text
    assert found.lost == 0 and error(room, found, with_scale=True) < 0.035  # 0.048 as filmed
    assert track_images(room, BlindNetwork()).lens is None
