"""The losses against their formulae, and the traps that others fell into."""

from __future__ import annotations

import numpy as np
import torch

from networks.losses import (
    FixedWeights,
    UncertaintyWeights,
    cross_entropy,
    inverse_huber,
    lovasz_softmax,
    negative_dot,
    soft_cross_entropy,
)


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 5, 3, 4)
    labels = torch.randint(0, 5, (2, 3, 4))
    labels[0, 0] = 255
    total, count = 0.0, 0
    for b, y, x in np.ndindex(2, 3, 4):
        if labels[b, y, x] != 255:
            total -= float(torch.log_softmax(scores[b, :, y, x], 0)[labels[b, y, x]])
            count += 1
    assert np.isclose(float(cross_entropy(scores, labels)), total / count, rtol=1e-5)


def test_soft_labels_that_are_sure_are_hard_labels() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4))
    soft = torch.nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).float()
    labels[0, 0] = 255
    soft[0, :, 0] = 0  # not taught
    torch.testing.assert_close(soft_cross_entropy(scores, soft), cross_entropy(scores, labels))
    torch.testing.assert_close(soft_cross_entropy(scores, 0.5 * soft), soft_cross_entropy(scores, soft))


def test_no_scores_cost_less_than_the_teachers_own() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(1, 5, 3, 4)
    best = soft_cross_entropy(teacher, teacher.softmax(1))
    assert all(soft_cross_entropy(teacher + torch.randn(1, 5, 3, 4), teacher.softmax(1)) > best for _ in range(20))


def test_class_weights_weigh_the_mean() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    labels[0, 0, 0] = 255
    weights = torch.tensor([0.5, 1.0, 3.0])
    wanted = torch.nn.functional.cross_entropy(scores, labels, weights, ignore_index=255)
    torch.testing.assert_close(cross_entropy(scores, labels, weights), wanted)


def test_inverse_huber_is_its_formula_over_valid_pixels() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(2, 1, (2, 4, 5)), rng.uniform(1, 5, (2, 4, 5))
    valid = rng.uniform(size=truth.shape) < 0.7
    error = np.abs(predicted - truth)[valid]
    c = 0.2 * error.max()
    wanted = np.mean([e if e <= c else (e * e + c * c) / (2 * c) for e in error])
    found = inverse_huber(torch.from_numpy(predicted), torch.from_numpy(truth), torch.from_numpy(valid))
    assert np.isclose(float(found), wanted)


def test_missing_depth_does_not_change_the_size_of_the_loss() -> None:
    """Averaged over all pixels, a half-empty depth image would count half."""
    predicted, truth = torch.full((1, 4, 4), 3.0), torch.full((1, 4, 4), 2.0)
    half = torch.zeros(1, 4, 4, dtype=torch.bool)
    half[:, :2] = True
    assert inverse_huber(predicted, truth, half) == inverse_huber(predicted, truth, torch.ones_like(half))


def test_a_negative_depth_is_pulled_up() -> None:
    """With a ReLU on the prediction a head that is negative everywhere would never learn again."""
    predicted = torch.full((1, 2, 2), -1.0, requires_grad=True)
    inverse_huber(predicted, torch.full((1, 2, 2), 2.0), torch.ones(1, 2, 2, dtype=torch.bool)).backward()
    assert (predicted.grad < 0).all()


def test_the_threshold_carries_no_gradient() -> None:
    predicted = torch.tensor([[[1.0, 10.0]]], requires_grad=True)
    inverse_huber(predicted, torch.tensor([[[1.1, 2.0]]]), torch.ones(1, 1, 2, dtype=torch.bool)).backward()
    # c = 1.6; the large error's derivative is e / c over two pixels
    assert torch.isclose(predicted.grad[0, 0, 1], torch.tensor(8 / 1.6 / 2))


def test_a_perfect_batch_and_an_empty_one_cost_nothing_and_are_finite() -> None:
    truth = torch.full((1, 3, 3), 2.0)
    everywhere = torch.ones(1, 3, 3, dtype=torch.bool)
    for valid, shift in ((everywhere, 0.0), (~everywhere, 1.0)):
        predicted = (truth + shift).requires_grad_()
        loss = inverse_huber(predicted, truth, valid)
        loss.backward()
        assert loss.item() == 0
        assert torch.isfinite(predicted.grad).all()
    scores = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = cross_entropy(scores, torch.full((1, 3, 3), 255))
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


def test_normals_cost_minus_their_cosine_whatever_the_predicted_length() -> None:
    truth = torch.nn.functional.normalize(torch.randn(2, 3, 4, 4), dim=1)
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    assert torch.isclose(negative_dot(5 * truth, truth, valid), torch.tensor(-1.0))
    assert torch.isclose(negative_dot(-0.1 * truth, truth, valid), torch.tensor(1.0))
    valid[1] = False
    mixed = torch.stack([truth[0], -truth[1]])
    assert torch.isclose(negative_dot(mixed, truth, valid), torch.tensor(-1.0))


def test_fixed_weights_sum_the_tasks_that_are_there() -> None:
    total = FixedWeights({"segmentation": 0.5, "depth": 2.0})
    assert float(total({"depth": torch.tensor(3.0)})) == 6
    assert float(total({"segmentation": torch.tensor(1.0), "depth": torch.tensor(3.0)})) == 6.5


def test_learned_weights_settle_where_each_loss_says() -> None:
    """The minimum over s of exp(-s) L + s / 2 is at s = log 2 L; of exp(-s) L / 2 + s / 2 at s = log L."""
    weights = UncertaintyWeights(("segmentation", "depth"))
    optimiser = torch.optim.Adam(weights.parameters(), lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        weights({"segmentation": torch.tensor(1.5), "depth": torch.tensor(0.3)}).backward()
        optimiser.step()
    assert np.isclose(float(weights.log_variance["segmentation"].detach()), np.log(3.0), atol=1e-2)
    assert np.isclose(float(weights.log_variance["depth"].detach()), np.log(0.3), atol=1e-2)


def test_lovasz_of_certain_predictions_is_one_minus_the_mean_iou():
    labels = torch.tensor([[[0, 0, 0, 1], [1, 1, 2, 255]]])
    predicted = torch.tensor([[[0, 0, 1, 1], [1, 0, 2, 0]]])
    scores = 60.0 * torch.nn.functional.one_hot(predicted, 4).movedim(-1, 1).float()
    # classes 0 and 1: two of four pixels that either has; class 2: one of one; class 3 never occurs; one pixel is void
    assert torch.isclose(lovasz_softmax(scores, labels), torch.tensor(1 - (0.5 + 0.5 + 1) / 3))


def test_lovasz_is_the_integral_of_the_loss_over_thresholds():
    """The Lovasz extension of a set function f at errors e is the integral of f({e >= t}) dt."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    probabilities = scores.softmax(1).detach()
    expected = 0.0
    for c in range(3):
        truth = labels == c
        errors = (truth.float() - probabilities[:, c]).abs()
        for t in (torch.arange(2000) + 0.5) / 2000:
            wrong = errors >= t
            # the prediction that errs there and nowhere else
            chosen = truth ^ wrong
            expected += (1 - (chosen & truth).sum() / (chosen | truth).sum()) / 2000 / 3
    found = lovasz_softmax(scores, labels)
    assert torch.isclose(found, torch.as_tensor(expected), atol=1e-3)
    found.backward()
    assert scores.grad is not None and scores.grad.abs().sum() > 0


def test_lovasz_of_nothing_labelled_costs_nothing():
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    lovasz_softmax(scores, torch.full((1, 2, 2), 255)).backward()
    assert scores.grad is not None and not scores.grad.any()
