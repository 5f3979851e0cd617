"""From a network's outputs to the images of a prediction, and how far its depth is believed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from used_networks import used_network

from networks.inference import device_postprocessing, engines, postprocessing
from networks.inference.postprocessing import depth_confidence, merging, resized, usual_focal
from networks.inference.predictor import Predictor
from networks.joint.network import JointNetwork

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def network() -> JointNetwork:
    return used_network()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """An image of a size that no stride divides."""
    rng = np.random.default_rng(0)
    return resized(rng.integers(0, 256, (14, 18, 3), dtype=np.uint8), (131, 98))


@pytest.fixture(scope="module")
def predictor(network) -> Predictor:
    return Predictor(network, engine="torch")


def test_resized_images_share_memory_with_nothing_that_is_held() -> None:
    """Memory is used again only when neither the array nor a view of it nor a tensor on it is left."""
    images = [np.full((4, 5, 3), value, np.float32) for value in range(6)]
    whole, view, tensor = (resized(image, (50, 40)) for image in images[:3])
    view, tensor = view[::2, :, 0], torch.from_numpy(tensor)
    later = [resized(image, (50, 40)) for image in images[3:]]
    assert (whole == 0).all() and (view == 1).all() and (tensor == 2).all()
    assert [image[0, 0, 0] for image in later] == [3, 4, 5]
    place = later[-1].ctypes.data
    del later
    assert resized(images[0], (50, 40)).ctypes.data == place  # the memory last used is still in the cache


def test_memory_of_large_images_is_not_kept() -> None:
    made: list[tuple[int, ...]] = []
    recycled = postprocessing.Recycled(4, 10_000, lambda shape: made.append(shape) or np.empty(shape, np.float32))
    for shape in ((50, 40), (60, 50), (10, 10), (10, 10), (60, 50)):  # 8 kB, 12 kB, 400 bytes
        recycled.taken(shape)
    assert made == [(50, 40), (60, 50), (10, 10), (60, 50)]


def test_a_wall_seen_straight_on_is_believed_and_the_border_half() -> None:
    confidence = depth_confidence(np.full((60, 80, 1), 3.0, np.float32), (80, 60))
    np.testing.assert_allclose(confidence[2:-2, 2:-2], 1)
    np.testing.assert_allclose(confidence[0], 0.5)
    np.testing.assert_allclose(confidence[:, -1], 0.5)


@pytest.mark.parametrize("degrees", [30, 60, 75])
def test_the_confidence_of_a_plane_follows_the_angle_under_which_it_is_seen(degrees) -> None:
    """At the middle of the image, where the viewing ray is the optical axis."""
    for size in ((160, 120), (80, 60)):  # whatever the resolution
        angle = (np.arange(size[0]) - size[0] / 2) / (0.81 * size[0])
        profile = 1 / np.maximum(1 - angle * np.tan(np.radians(degrees)), 0.05)
        depth = np.tile(profile.astype(np.float32), (size[1], 1))[..., None]
        confidence = depth_confidence(depth, size)[size[1] // 2, size[0] // 2]
        assert confidence == pytest.approx(1 / (1 + (np.tan(np.radians(degrees)) / 4) ** 2), rel=0.3)


@pytest.mark.parametrize("size", [(640, 480), (480, 640)])
def test_the_confidence_of_a_plane_is_the_same_in_upright_images(size) -> None:
    cells = (size[0] // 16, size[1] // 16)
    angle = (np.arange(cells[0]) - cells[0] / 2) * 16 / (0.81 * 640)
    profile = 1 / np.maximum(1 - angle * np.tan(np.radians(60)), 0.05)
    depth = np.tile(profile.astype(np.float32), (cells[1], 1))[..., None]
    confidence = depth_confidence(depth, cells, usual_focal(*size))[cells[1] // 2, cells[0] // 2]
    assert confidence == pytest.approx(1 / (1 + (np.tan(np.radians(60)) / 4) ** 2), rel=0.05)


@pytest.mark.parametrize("size", [(64, 48), (24, 20)])
def test_a_device_makes_the_images_that_the_processor_makes(size) -> None:
    rng = np.random.default_rng(0)
    scores, depth = rng.normal(size=(12, 16, 7)).astype(np.float32), rng.uniform(-4, 4, (12, 16, 1)).astype(np.float32)
    normals, merge = rng.normal(size=(12, 16, 3)).astype(np.float32), merging(np.array([0, 0, 1, 2, 2, 2, 1]))
    for name, output, others in (
        ("class_probabilities", scores, (None, 1.3)),
        ("class_probabilities", scores, (merge,)),
        ("depth", depth, ()),
        ("depth_confidence", depth, ()),
        ("normals", normals, ()),
    ):
        theirs = getattr(postprocessing, name)(output, size, *others)
        ours = getattr(device_postprocessing, name)(torch.from_numpy(output), size, *others)
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() < 2e-5, name


def test_what_a_device_leaves_there_becomes_what_the_processor_predicts(predictor, image, monkeypatch) -> None:
    theirs = predictor(image, focal=300.0)
    engine = object.__new__(engines.CudaEngine)
    on_device = [torch.from_numpy(output.copy()) for output in predictor.outputs(image)]
    monkeypatch.setattr(engine, "tensors", lambda seen: tuple(on_device), raising=False)
    monkeypatch.setattr(predictor, "_run", engine)
    ours = predictor(image, focal=300.0)
    for name in ("depth", "depth_confidence", "class_probabilities", "normals"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=2e-5)
    np.testing.assert_array_equal(predictor.class_probabilities(image), ours.class_probabilities)


def test_the_images_of_one_prediction_are_made_in_the_memory_of_the_last(predictor, image, monkeypatch) -> None:
    made: list[tuple[int, ...]] = []
    new = postprocessing.Recycled(1)._new
    monkeypatch.setattr(postprocessing._LARGE, "_new", lambda shape: made.append(shape) or new(shape))
    for _ in range(2):
        prediction = predictor(image, (61, 47))
        assert prediction.class_probabilities.shape[:2] == prediction.normals.shape[:2] == (47, 61)
        assert len(made) == 4
        del prediction


def test_a_smeared_edge_is_not_believed() -> None:
    profile = np.interp(np.arange(80), [0, 39, 42, 79], [2, 2, 3, 3])
    confidence = depth_confidence(np.tile(profile, (60, 1)).astype(np.float32)[..., None], (80, 60))
    assert (confidence[10:-10, 39:43] < 0.3).all()
    assert (confidence[10:-10, 10:37] > 0.99).all()


def test_merging_sums_and_nothing_else() -> None:
    matrix = merging(np.array([1, 0, 1]))
    np.testing.assert_array_equal(matrix, [[0, 1], [1, 0], [0, 1]])
