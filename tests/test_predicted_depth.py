"""The corrections that predicted depth gets on its way into a map: what each must do, and what none may do."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from stub_networks import KnowingNetwork

from semslam import poses
from semslam.camera import Camera
from semslam.depth.alignment import ScaleShift, at_pixels, fit_scale_shift, smooth_correction
from semslam.depth.anchors import Anchors
from semslam.depth.corrections import (
    FARTHEST,
    CorrectionsConfig,
    DepthCorrections,
    fusion_config,
    map_depths,
    without_slopes,
)
from semslam.engine.fusion import FusionConfig
from semslam.frame import Frame, Observation, View
from semslam.judging.references import scene_reference
from semslam.metrics.surface import surface_scores
from semslam.perception import PerceptionConfig
from semslam.slam import Slam, SlamConfig
from semslam.tracking.optical_flow import follow
from sequences import open_sequence

ROOM = "room:frames=45,width=160,height=120"
CAMERA = Camera(80, 60, 66.0, 66.0, 39.5, 29.5)


def spoiled(depth: np.ndarray, index: int) -> np.ndarray:
    """A network's depth: wrong in scale and shift, differently so in every frame."""
    return (depth * (1.5 + 0.15 * np.sin(1.7 * index)) + 0.2).astype(np.float32)


@pytest.fixture(scope="module")
def room():
    return open_sequence(ROOM)


@pytest.fixture(scope="module")
def frames(room):
    return list(room)


@pytest.fixture(scope="module")
def network(room):
    return KnowingNetwork(room, spoil=spoiled)


def looking(T: np.ndarray, index: int = 0, depth: float = 2.0) -> Observation:
    """A flat wall before a grey camera."""
    color = np.full((*CAMERA.shape, 3), 128, np.uint8)
    frame = Frame(index, index / 30, color, CAMERA, T_world_camera=T)
    return Observation(frame, CAMERA, color, np.full(CAMERA.shape, depth, np.float32))


def view_of(depth: np.ndarray, confidence: float = 10.0) -> View:
    v, u = np.nonzero(depth)
    points = np.zeros((len(u), 7), np.float32)
    points[:, :3] = CAMERA.backproject(depth)[v, u]
    points[:, 6] = confidence
    return View(
        CAMERA, np.eye(4), np.zeros(depth.shape, np.float32), 1, np.column_stack([u, v]).astype(np.int32), points
    )


def corrections_for(config: CorrectionsConfig, **options) -> DepthCorrections:
    return DepthCorrections(CAMERA, config, lambda o: o.frame.T_world_camera, **options)


def only(*names: str) -> CorrectionsConfig:
    return CorrectionsConfig.named(",".join(names) or "none")


# scale and shift


def test_a_known_scale_and_shift_are_recovered_through_outliers():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(1, 4, 200)
    known = 0.6 * predicted + 0.3
    known[:50] *= rng.uniform(1.5, 3, 50)
    found = fit_scale_shift(predicted, known, np.ones(200), prior_std=(3.0, 3.0))
    assert (found.scale, found.shift) == pytest.approx((0.6, 0.3), abs=0.03)


def test_without_measurements_the_prior_holds_and_a_few_wild_ones_hardly_move_it():
    prior = ScaleShift(0.8, 0.1)
    none = np.zeros(0)
    assert fit_scale_shift(none, none, none, prior) == prior
    wild = fit_scale_shift(np.array([2.0, 3.0]), np.array([2.1, 9.0]), np.full(2, 0.03), prior)
    at_two_metres = (wild(np.array([2.0])) / prior(np.array([2.0])))[0]
    assert 0.7 < at_two_metres < 1.4


def test_many_measurements_of_one_network_count_as_few():
    predicted = np.linspace(1, 4, 1000)
    prior = ScaleShift()
    few = fit_scale_shift(predicted, 1.4 * predicted, np.ones(1000), prior, independent=1e-4)
    many = fit_scale_shift(predicted, 1.4 * predicted, np.ones(1000), prior, independent=20)
    assert abs(few.scale - 1) < 0.05
    assert many.scale == pytest.approx(1.4, abs=0.02)


def test_a_smooth_correction_is_followed_near_measurements_and_ends_away_from_them():
    rng = np.random.default_rng(1)
    pixels = rng.uniform((0, 0), (40, 60), (150, 2))  # the left half only
    true = 0.1 * np.sin(pixels[:, 0] / 40 * np.pi)
    wrong = true.copy()
    wrong[:10] += 0.6
    field = smooth_correction(pixels.astype(np.float32), wrong, np.ones(150), CAMERA.shape)
    assert field.shape == CAMERA.shape
    assert np.median(np.abs(at_pixels(field, pixels.astype(np.float32)) - true)) < 0.015
    assert np.abs(field[:, 75:]).max() < 0.03
    assert not smooth_correction(np.zeros((0, 2)), np.zeros(0), np.zeros(0), CAMERA.shape).any()


def test_the_compiled_bend_is_the_mean_of_the_gaussian_process():
    rng = np.random.default_rng(2)
    places, values, weights = rng.uniform(0, 1, (40, 2)), rng.normal(0, 0.1, 40), rng.uniform(0.1, 1, 40)

    def covariance(a, b):
        return 0.2**2 * np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * 0.125**2))

    K, variance, robust = covariance(places, places), 0.05**2 / weights, np.ones(40)
    for _ in range(3):
        solved = np.linalg.solve(K + np.diag(variance / robust), values)
        robust = 1 / (1 + ((K @ solved - values) / np.sqrt(variance) / 2) ** 2)
    at = np.array([[0.5 - 0.5 / 80, 0.375 - 0.5 / 80]])  # the middle of the image, between its pixels
    field = smooth_correction(80 * places, values, weights, (60, 80))
    assert field[29:31, 39:41].mean() == pytest.approx((covariance(at, places) @ solved).item(), abs=2e-3)


# triangulation


def test_triangulated_depths_are_the_true_ones(frames):
    anchors = Anchors(frames[0].camera)
    errors = []
    for frame in frames[:30]:
        found = anchors(frame.color, frame.T_world_camera)
        assert frame.depth is not None
        if len(found.depths):
            there = at_pixels(frame.depth, found.pixels)
            errors.append(np.abs(found.depths / there - 1))
    assert len(np.concatenate(errors)) > 200
    assert np.median(np.concatenate(errors)) < 0.03


def test_a_camera_that_only_turns_or_stands_triangulates_nothing(frames):
    for turn in (0.0, 0.01):
        anchors = Anchors(frames[0].camera)
        for k in range(6):
            T = poses.exp(np.array([0, 0, 0, 0, turn * k, 0]))
            assert len(anchors(frames[0].color, T).depths) == 0


def test_features_whose_surroundings_are_gone_are_hardly_ever_found_both_ways():
    """In images of other textures. Of a way back that begins where the feature was, more than twice as many return."""
    returned = []
    for seed in range(0, 12, 2):
        fields = [np.random.default_rng(seed + k).uniform(0, 255, (240, 320)) for k in (0, 1)]
        before, now = (
            cv2.normalize(cv2.GaussianBlur(f, (0, 0), 8), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
            for f in fields
        )
        pixels = cv2.goodFeaturesToTrack(before, 400, 0.003, 10).reshape(-1, 2)
        _, apart, found = follow(before, before, pixels, 9, start=pixels)
        assert (found & (apart < 0.35)).mean() > 0.9
        _, apart, found = follow(before, now, pixels, 9, start=pixels)
        returned.append((found & (apart < 0.35)).mean())
    assert np.mean(returned) < 0.025


# edges, gates, keyframes


def test_slopes_between_surfaces_go_and_surfaces_stay():
    depth = np.full(CAMERA.shape, 1.5, np.float32)
    depth[:, 44:] = 3.0
    depth[:, 40:44] = np.linspace(1.5, 3, 6)[1:-1]  # as a network smears an edge
    kept = without_slopes(depth, CAMERA) > 0
    assert not kept[:, 40:44].any()
    assert kept[:, :38].all() and kept[:, 47:].all()
    v = np.arange(60)[:, None] - CAMERA.cy
    floor = np.broadcast_to(1.4 * CAMERA.fy / np.maximum(v, 1), CAMERA.shape)  # 1.4 m below the camera
    seen = (floor < 4) & (np.arange(60)[:, None] < 58)
    assert (without_slopes(np.minimum(floor, 20).astype(np.float32), CAMERA) > 0)[seen].mean() > 0.95


def test_helps_change_what_nobody_chose():
    assert fusion_config(only()) == FusionConfig()
    gated = fusion_config(only("gate"), FusionConfig(far=4.0, patience=12))
    assert gated.far == 4.0 and gated.patience == 12 and gated.clean_every == 1 and gated.stable == 3.0
    config = SlamConfig(PerceptionConfig(depth="predicted", labels="none"), fusion=FusionConfig(far=4.0))
    slam = Slam(CAMERA, config, network=object())
    assert slam.fusion.config.far == 4.0 and slam.fusion.config.noise > FusionConfig().noise


def test_frames_that_hardly_moved_are_not_fused_but_labelled_ones_are():
    corrections = corrections_for(only("keyframes"))
    fused = []
    for k in range(20):
        T = poses.exp(np.array([0.01 * k, 0, 0, 0, 0, 0]))
        out = corrections(looking(T, k), lambda _: None)
        fused.append(bool(out.depth.any()))
    assert fused[0] and sum(fused) == 4  # every 5 cm and a bit
    labelled = replace(looking(T), class_probabilities=np.ones((*CAMERA.shape, 13), np.float32))
    assert corrections(labelled, lambda _: None).depth.any()


def test_without_corrections_depth_goes_in_as_it_comes():
    observation = looking(np.eye(4))
    out = corrections_for(only())(
        replace(observation, confidence=np.full(CAMERA.shape, 0.5, np.float32)), lambda _: None
    )
    np.testing.assert_array_equal(out.depth, observation.depth)
    assert out.confidence is None


def test_uncertainty_weighs_pixels_against_each_other_not_frames():
    confidence = np.full(CAMERA.shape, 0.1, np.float32)
    confidence[:, :20] = 0.05
    observation = replace(looking(np.eye(4)), confidence=confidence)
    weighed = corrections_for(only("weights"))(observation, lambda _: None).confidence
    assert weighed is not None
    assert weighed.mean() == pytest.approx(1, rel=1e-5)
    assert weighed[0, 0] == pytest.approx(0.5 * weighed[0, 50])


def test_corrections_are_named_and_unknown_ones_refused():
    for names in ("all", "none", "anchors,gate"):
        assert CorrectionsConfig.named(names).names == names
    with pytest.raises(ValueError, match="no 'magic'; there are all, none, noise, anchors"):
        CorrectionsConfig.named("anchors,magic")


# no drift


def test_a_map_that_misleads_itself_a_little_in_every_frame_does_not_run_away():
    corrections = corrections_for(only("align", "bend"))
    shown, means = np.full(CAMERA.shape, 2.0, np.float32), []
    for k in range(200):
        view = view_of(shown * np.float32(1.02))  # the map shows 2 % more than was fused
        shown = corrections(looking(np.eye(4), k), lambda _, view=view: view).depth
        means.append(float(shown.mean()))
    assert max(means) < 2.0 * FARTHEST  # 1.02^200 is 52
    assert means[-1] == pytest.approx(means[-50], rel=0.01)
    assert shown.max() <= 2.0 * FARTHEST * (1 + 1e-6)


def test_frames_of_wavering_scale_are_brought_to_what_the_map_says():
    rng = np.random.default_rng(0)
    corrections, aligned, raw = corrections_for(only("align")), [], []
    for k in range(30):
        depth = 2.0 * float(np.exp(rng.normal(0, 0.1)))
        raw.append(depth)
        out = corrections(looking(np.eye(4), k, depth), lambda _: view_of(np.full(CAMERA.shape, 2.0, np.float32)))
        aligned.append(float(out.depth.mean()))
    assert np.std(np.log(aligned)) < 0.35 * np.std(np.log(raw))


def test_the_map_is_asked_where_it_is_sure_only():
    predicted = np.full(CAMERA.shape, 2.0, np.float32)
    truth = np.full(CAMERA.shape, 1.5, np.float32)
    assert len(map_depths(view_of(truth, confidence=1.0), predicted)) == 0
    known = map_depths(view_of(truth), predicted)
    assert len(known) > 100
    assert known.depths == pytest.approx(1.5)


# the whole


def mapped(room, frames, network, names: str):
    corrections = CorrectionsConfig.named(names)
    config = SlamConfig(PerceptionConfig(depth="predicted", labels="none"), corrections=corrections)
    slam = Slam(room.camera, config, network=network)
    helper = DepthCorrections(room.camera, corrections, lambda o: o.frame.T_world_camera, patience=20)
    slam.correct, slam.perceive = helper, slam.perceive.sparing(helper.is_keyframe)
    for frame in frames:
        slam.step(frame)
    return slam, helper


@pytest.fixture(scope="module")
def errors(room, frames, network):
    reference = scene_reference(room)
    return {
        names: surface_scores(mapped(room, frames, network, names)[0].cloud().positions, reference)
        for names in ("none", "all")
    }


def test_all_helps_at_least_halve_the_error_of_depth_that_is_wrong_in_scale_and_shift(errors):
    assert errors["all"].accuracy_m < 0.5 * errors["none"].accuracy_m
    assert errors["all"].completeness_m < errors["none"].completeness_m


def test_an_interrupted_correction_goes_on_as_if_there_had_been_no_break(room, frames, network):
    _, helper = mapped(room, frames[:32], network, "all")
    other = DepthCorrections(room.camera, CorrectionsConfig(), lambda o: o.frame.T_world_camera, patience=20)
    other.restore({name: np.array(value) for name, value in helper.state().items()})
    empty = view_of(np.zeros(CAMERA.shape, np.float32))
    for frame in frames[32:36]:
        prediction = network(frame.color, (160, 120), room.camera.fx)
        observation = Observation(frame, room.camera, frame.color, prediction.depth)
        first, second = (h(observation, lambda _: empty) for h in (helper, other))
        np.testing.assert_array_equal(first.depth, second.depth)


def test_frames_between_keyframes_do_not_ask_the_network(room, frames, network):
    before = network.asked
    mapped(room, frames, network, "all")
    assert network.asked - before < 30 < len(frames)  # all of them until the scale is known
