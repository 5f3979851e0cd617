"""Views of labelled images: what turning, cropping and recolouring leave true; batches and the weights of classes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny_trainings import batch_of

from networks.augmentation import Augmentation, Sample, augmented, random_view, recolored
from networks.training import device_views
from networks.training.data import class_weights, collated
from networks.training.order import drawn_place

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def _sample(rng: np.random.Generator, height: int = 48, width: int = 64) -> Sample:
    labels = rng.integers(0, 5, (height, width)).astype(np.uint8)
    normals = np.zeros((height, width, 3), np.float32)
    normals[:, : width // 2] = (0.6, 0.0, -0.8)
    normals[:, width // 2 :] = (-0.6, 0.0, -0.8)
    color = np.full((height, width, 3), 100, np.uint8)
    return Sample(color, labels, np.full((height // 2, width // 2), 3.0, np.float32), normals)


def test_zooming_divides_depth_and_resolution_does_not() -> None:
    sample = _sample(np.random.default_rng(0))
    for zoom, resolution in ((2.0, 1.0), (0.5, 1.0), (1.0, 0.5), (1.5, 0.5)):
        config = Augmentation((24, 32), (zoom, zoom), resolution, mirror=False)
        depth = augmented(sample, np.random.default_rng(1), config).depth
        assert np.allclose(depth[depth > 0], 3.0 / zoom)
        assert (depth > 0).any()


def test_mirroring_negates_the_normals_x_and_nothing_else() -> None:
    sample = _sample(np.random.default_rng(0))
    config = Augmentation((48, 64), (1.0, 1.0))
    views = [augmented(sample, np.random.default_rng(seed), config) for seed in range(8)]
    mirrored = [not np.array_equal(v.labels, sample.labels) for v in views]
    assert True in mirrored
    assert False in mirrored
    for view, flipped in zip(views, mirrored, strict=True):
        if flipped:
            assert np.array_equal(view.labels[:, ::-1], sample.labels)
            # a wall that faced left faces right, and lies on the other side: the picture is the same again
        assert np.allclose(view.normals, sample.normals)


def test_images_of_a_view_stay_on_each_other() -> None:
    """A square that colour, labels and depth share is in the same place in every view, whatever its scale."""
    color, labels = np.zeros((96, 128, 3), np.uint8), np.zeros((96, 128), np.uint8)
    depth = np.ones((48, 64), np.float32)
    color[40:80, 60:100], labels[40:80, 60:100], depth[20:40, 30:50] = 255, 1, 2.0
    compared = 0
    for seed in range(20):
        view = augmented(Sample(color, labels, depth), np.random.default_rng(seed), Augmentation((64, 64), (0.5, 2.0)))
        inside = view.color[..., 0] > 200
        known = view.labels != 255
        assert (inside[known] == (view.labels[known] == 1)).mean() > 0.96
        if 0.05 < inside[view.depth > 0].mean() < 0.95:  # both depths are in view
            ratio = view.depth[view.depth > 0]
            assert (inside[view.depth > 0] == (ratio > 1.5 * ratio.min())).mean() > 0.93
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_is_learned_of_a_cell_is_what_lies_at_its_centre(mirrored: bool) -> None:
    """An edge divides the cells of labels and depth, on average, where it divides the colours."""
    color, labels = np.zeros((32, 256, 3), np.uint8), np.zeros((32, 256), np.uint8)
    color[:, 118:], labels[:, 118:] = 255, 1
    depth = np.where(labels[:, ::2] == 1, np.float32(4), np.float32(1))
    apart = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        config = Augmentation((16, 128), (0.8, 1.6), mirror=mirrored)
        drawn = random_view((32, 256), np.random.default_rng(seed), config)
        view = augmented(Sample(color, labels, depth), rng, config)
        if drawn.mirror != mirrored or (view.labels == 255).any() or len(np.unique(view.labels)) < 2:
            continue
        learned = collated([device_views.part_of(0, view)], 4)
        bright = (view.color[..., 0] / 255).mean() * 128
        far = (learned["depth"][0] > 2 / drawn.zoom).float().mean().item() * 128
        apart.append(((learned["segmentation"][0] == 1).float().mean().item() * 128 - bright, far - bright))
    assert len(apart) > 80
    assert np.abs(np.mean(apart, axis=0)).max() < 0.35  # pixels; a reading at the other corner is 1 off


def test_what_lies_outside_the_image_is_unknown() -> None:
    sample = _sample(np.random.default_rng(0))
    view = augmented(sample, np.random.default_rng(0), Augmentation((96, 128), (0.8, 0.8)))
    inside = view.labels != 255
    assert np.isclose(inside.mean(), (48 * 0.8 / 96) * (64 * 0.8 / 128), rtol=0.05)
    assert (view.depth > 0).mean() <= inside.mean() * 1.06
    assert view.color.shape == (96, 128, 3)


def _one(part: device_views.Part, number: int) -> device_views.SampleTensors:
    return part.samples.each(lambda images: images[number])


@pytest.mark.parametrize("color", [0.0, 0.35])
def test_a_device_makes_the_views_that_the_processor_makes(color: float) -> None:
    """Shrunk, enlarged, padded, mirrored, with depth smaller than the image: labels, depth and normals are equal."""
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3)).astype(np.uint8), (0, 0), 2)
    labels = rng.integers(0, 40, (120, 160)).astype(np.uint8)
    depth = rng.uniform(0.5, 5, (60, 80)).astype(np.float32)
    soft = rng.integers(0, 256, (30, 40, 5)).astype(np.uint8)
    sample = Sample(smooth, labels, depth, rng.normal(size=(60, 80, 3)).astype(np.float32), soft)
    other = replace(sample, labels=None, depth=rng.uniform(0.5, 5, (120, 160)).astype(np.float32))
    kept = device_views.DeviceSamples([[sample, other], [sample]], torch.device("cpu"))
    assert [len(places) for places in kept.places] == [2, 1]
    for resolution in (0.5, 1.0):
        view = Augmentation((48, 64), (0.5, 3.0), resolution, color=color)
        samples = [(sample, other, sample)[seed % 3] for seed in range(30)]
        which = [((0, 0), (0, 1), (1, 0))[seed % 3] for seed in range(30)]
        made = kept.views(which, [np.random.default_rng(seed) for seed in range(30)], view)
        assert sorted(seed for part in made for seed in part.positions) == list(range(30))
        for seed, ours in ((seed, _one(part, i)) for part in made for i, seed in enumerate(part.positions)):
            theirs = augmented(samples[seed], np.random.default_rng(seed), view)
            for name in ("labels", "depth", "normals", "soft_labels"):
                assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)
                if getattr(theirs, name) is not None:
                    assert np.array_equal(getattr(ours, name).numpy(), getattr(theirs, name)), (seed, name)
            apart = np.abs(ours.color.numpy().astype(int) - theirs.color)
            assert apart.max() <= (3 if color else 1), seed  # grey levels: OpenCV rounds some halves up, others to even
            assert apart.mean() < (0.3 if color else 0.15), seed


def test_recolouring_by_nothing_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    assert np.array_equal(recolored(image, np.zeros(6)), image)
    assert not np.array_equal(recolored(image, np.full(6, 0.3)), image)


def test_every_image_is_drawn_once_an_epoch() -> None:
    sets = [list(range(5)), list(range(10, 13))]
    places = [[drawn_place([5, 3], p, 3) for p in range(e * 8, e * 8 + 8)] for e in range(2)]
    epochs = [[sets[which][i] for which, i in epoch] for epoch in places]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [0, 1, 2, 3, 4, 10, 11, 12]
    assert epochs[0] != epochs[1]
    order = np.random.default_rng([3, 1, 1]).permutation(8)  # so that trainings go on as they began
    assert epochs[1] == [[*sets[0], *sets[1]][i] for i in order]


def test_an_epochs_order_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million images would be shuffled again for each of them."""
    asked: list[object] = []
    generator = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: asked.append(seed) or generator(seed))
    for position in range(40):
        drawn_place([13, 7], position, seed=99)
    assert asked == [[99, 1, 0], [99, 1, 1]]


def test_a_batch_fills_what_is_missing_and_counts_what_is_there() -> None:
    whole = _sample(np.random.default_rng(0))
    view = augmented(whole, np.random.default_rng(0), Augmentation((32, 32), (1.0, 1.0)))
    batch = batch_of([view, Sample(view.color, None, view.depth), Sample(view.color, view.labels)])
    assert batch["examples"] == {"segmentation": 2, "depth": 2, "normals": 1}
    assert batch["image"].shape == (3, 3, 32, 32)
    assert batch["segmentation"].shape == batch["depth"].shape == (3, 8, 8)
    assert (batch["segmentation"][1] == 255).all()
    assert (batch["depth"][2] == 0).all()
    assert np.array_equal(batch["segmentation"][0], view.labels[2::4, 2::4])


def test_soft_labels_stay_on_the_labels_in_every_view() -> None:
    """A teacher that is sure of the truth says the same as the labels, wherever the view shows the image."""
    labels = np.zeros((96, 128), np.uint8)
    labels[40:80, 60:100] = 1
    soft = 255 * np.eye(3, dtype=np.uint8)[labels[::2, ::2]]
    sample = Sample(np.zeros((96, 128, 3), np.uint8), labels, soft_labels=soft)
    views = [augmented(sample, np.random.default_rng(s), Augmentation((64, 64), (0.5, 2.0))) for s in range(20)]
    batch = batch_of([*views, Sample(views[0].color)])
    assert batch["examples"]["segmentation"] == 20
    taught, known = batch["soft_labels"].sum(1) > 0, batch["segmentation"] != 255
    assert (taught == known).float().mean() > 0.98
    assert not taught[20].any()
    both = taught & known
    assert (batch["soft_labels"].argmax(1) == batch["segmentation"])[both].float().mean() > 0.96


def test_rare_classes_weigh_more_and_pixels_one_on_average() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0] = 1
    labels[9] = 255
    weights = class_weights([Sample(np.zeros((10, 10, 3), np.uint8), labels)], 3, 0.5)
    assert weights[2] == 0  # never seen
    assert np.isclose(weights[1] / weights[0], np.sqrt(8))
    assert np.isclose((weights[0] * 80 + weights[1] * 10) / 90, 1)
