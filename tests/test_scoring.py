"""Scoring a network: a perfect one gets the perfect figures, and every figure has a name that lasts."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from networks.inference.predictor import Predictor
from networks.joint.network import JointNetwork
from semslam.camera import Camera
from semslam.judging.network import score, score_scale
from semslam.judging.paper_tables import tables
from semslam.labels import remap_labels
from sequences import open_sequence
from sequences.images.labelled_images import LabelledImage

pytestmark = pytest.mark.usefixtures("one_torch_thread")
STABLE_NAMES = ["images", "miou_40", "miou_13", "pixel_accuracy_40", "pixel_accuracy_13", "class_accuracy_13"]
STABLE_NAMES += ["rmse", "rmse_log", "abs_rel", "sqr_rel", "delta1", "delta2", "delta3"]
STABLE_NAMES += ["parameters", "gmac", "latency_ms", "engine"]


@pytest.fixture(scope="module")
def images() -> list[LabelledImage]:
    rng = np.random.default_rng(0)
    found = []
    for name in ("a", "b"):
        labels = np.repeat(np.repeat(rng.integers(0, 40, (6, 8)), 8, 0), 8, 1).astype(np.uint8)
        labels[:8] = 255
        depth = np.repeat(np.repeat(rng.uniform(1, 9, (6, 8)), 4, 0), 4, 1).astype(np.float32)
        depth[0] = 0
        found.append(LabelledImage(name, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), labels, depth))
    return found


class Oracle(Predictor):
    """Predicts what it was told: scores of the true labels and the true depth, at the truth's own size."""

    def __init__(self, images: list[LabelledImage], depth_factor: float = 1.0) -> None:
        super().__init__(JointNetwork(40, ("segmentation", "depth", "normals")).eval(), engine="torch")
        self.truth = {image.color.tobytes(): image for image in images}
        self.depth_factor = depth_factor

    def outputs(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        truth = self.truth[image.tobytes()]
        assert truth.labels is not None and truth.depth is not None
        scores = 50 * np.eye(40, dtype=np.float32)[np.where(truth.labels == 255, 0, truth.labels)]
        normals = np.broadcast_to(np.array([0, 0, -1], np.float32), (*truth.depth.shape, 3))
        return scores, self.depth_factor * truth.depth[..., None], np.ascontiguousarray(normals)


@pytest.fixture(scope="module")
def perfect(images) -> dict:
    return score(Oracle(images), images, passes=1)


def test_a_perfect_network_scores_perfectly(perfect) -> None:
    for name in ("miou_40", "miou_13", "pixel_accuracy_40", "class_accuracy_13", "delta1", "miou_13_arg_max",
                 "pixel_accuracy_13_semanticfusion", "miou_40_absent_as_one"):  # fmt: skip
        assert perfect[name] == pytest.approx(1), name
    for name in ("rmse", "abs_rel", "silog", "rmse_eigen_crop_cap10_mean_of_images", "ece_40"):
        assert perfect[name] == pytest.approx(0, abs=1e-3), name


def test_the_stable_names_are_there_and_everything_is_json(perfect) -> None:
    assert set(STABLE_NAMES) <= set(perfect)
    assert perfect["images"] == 2 and perfect["engine"] == "torch" and perfect["parameters"] == 3_077_228
    assert all(value is None or isinstance(value, int | float | str) for value in perfect.values())
    json.dumps(perfect, allow_nan=False)
    assert perfect["iou_40_refridgerator"] in (None, 1.0) and "iou_40_floor_mat" in perfect and "iou_13_tv" in perfect


def test_depth_that_is_a_tenth_too_far_is_a_tenth_off(images) -> None:
    figures = score(Oracle(images, 1.1), images, passes=1)
    assert figures["abs_rel"] == pytest.approx(0.1, abs=1e-5)
    assert figures["rmse_log"] == pytest.approx(np.log(1.1), abs=1e-5)
    assert figures["delta1"] == 1 and figures["silog"] == pytest.approx(0, abs=1e-3)


def test_normals_are_scored_against_those_of_the_depth_when_the_camera_is_known(images, caplog) -> None:
    flat = [LabelledImage(i.name, i.color, i.labels, np.full((24, 32), 2.0, np.float32)) for i in images]
    figures = score(Oracle(flat), flat, camera=Camera(64, 48, 60.0, 60.0, 31.5, 23.5), passes=1)
    assert figures["normal_mean_deg"] == pytest.approx(0, abs=0.2)
    assert figures["normal_11_25"] == 1
    assert not caplog.messages
    assert "normal_mean_deg" not in score(Oracle(flat), flat, passes=1)
    assert "normals of 2 of 2 images are not scored: no camera is known" in caplog.text
    other = Camera(48, 64, 60.0, 60.0, 23.5, 31.5)  # of upright images: its rays are not these images'
    assert "normal_mean_deg" not in score(Oracle(flat), flat, camera=other, passes=1)
    assert "of another aspect than the camera (48x64)" in caplog.text


def test_labels_of_13_classes_score_13_classes_and_other_sets_are_refused(images, perfect) -> None:
    merged = [LabelledImage(i.name, i.color, remap_labels(i.labels, "nyu40", "nyu13"), None) for i in images]
    figures = score(Oracle(images), merged, classes="nyu13", passes=1)
    assert figures["miou_13"] == pytest.approx(1)
    assert "miou_40" not in figures and "rmse" not in figures
    with pytest.raises(ValueError, match=r"deeploc10.*nyu40"):
        score(Oracle(images), images, classes="deeploc10")
    with pytest.raises(ValueError, match="no images"):
        score(Oracle(images), [])


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_that_count_from_another_number_are_refused_and_not_scored(images, shift) -> None:
    """Ids 0..39 read as 1..40 make every class the one before it, and the first void."""
    moved = {
        i.name: np.where(i.labels == 255, 255, np.clip(i.labels.astype(int) + shift, 0, 39)).astype(np.uint8)
        for i in images
    }
    oracle = Oracle(images)
    wrong = [replace(image, labels=moved[image.name]) for image in images]
    with pytest.raises(ValueError, match=r"the network agrees with \d+% of the labels as they are read and with \d+%"):
        score(oracle, wrong, passes=1)


@pytest.mark.parametrize("unit", [1000 / 5000, 1000 / 256, 10.0, 0.001, 1000.0])
def test_depth_in_another_unit_is_refused_and_not_scored(images, unit) -> None:
    wrong = [replace(image, depth=np.float32(unit) * image.depth) for image in images]
    with pytest.raises(ValueError, match=r"the true depth is .* times what the network sees"):
        score(Oracle(images), wrong, passes=1)


def test_the_scale_of_predicted_depth_is_a_figure(images, perfect) -> None:
    assert perfect["depth_ratio"] == pytest.approx(1) and perfect["depth_within_10"] == 1
    figures = score(Oracle(images, 1.25), images, passes=1)
    assert figures["depth_ratio"] == pytest.approx(0.8, abs=1e-5) and figures["depth_within_10"] == 0


def test_the_scale_is_compared_with_a_recordings_sensor() -> None:
    sequence = open_sequence("room:frames=5,width=64,height=48")
    frames = {frame.color.tobytes(): frame for frame in sequence}

    class Nearsighted:
        def __call__(self, image: np.ndarray, size: tuple[int, int], focal: float) -> SimpleNamespace:
            assert focal == sequence.camera.fx
            return SimpleNamespace(depth=0.8 * frames[image.tobytes()].depth)

    figures = score_scale(Nearsighted(), sequence)
    assert figures == {"images": 5, "depth_ratio": pytest.approx(1.25, abs=1e-4), "depth_within_10": 0}


def test_a_real_network_is_scored_and_shown_beside_the_paper(images) -> None:
    torch.manual_seed(0)
    figures = score(Predictor(JointNetwork(40).eval(), engine="torch"), images, passes=1)
    assert 0 <= figures["miou_40"] < 0.3 and figures["rmse"] > 0 and figures["latency_ms"] > 0
    text = tables(figures, "mine", "our kitchen")
    assert "Table I." in text and "Table II." in text and "Table VI." not in text
    assert "42.02" in text and "0.565" in text and "mine (2 images, torch)" in text
    assert "the paper on all 654 test images of NYUv2, mine on our kitchen" in text.splitlines()[0]
    assert f"{100 * figures['miou_40']:.2f}" in text


def test_tables_of_kitti_and_of_three_tasks_appear_when_they_were_scored() -> None:
    figures = {"images": 3, "engine": "torch", "miou_6": 0.8, "rmse": 4.0, "rmse_log": None}
    text = tables(figures, "ours", "streets")
    assert "87.02" in text and "Table I." not in text and "the paper on KITTI's test images, ours on streets" in text
    figures = {"images": 3, "engine": "torch", "miou_40": 0.3, "normal_mean_deg": 25.0, "normal_median_deg": 18.0}
    text = tables(figures, "ours", "rooms")
    assert "Table VI." in text and "23.95" in text
