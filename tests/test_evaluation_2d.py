"""Metrics of labels, depth and normals: cases worked out by hand, and the same figures from other people's code."""

from __future__ import annotations

import numpy as np
import pytest

from semslam.metrics.depth import KITTI_GARG_CROP, NYU_CROP, DepthErrors, DepthProtocol, crop_slices
from semslam.metrics.normals import NormalErrors
from semslam.metrics.segmentation import Calibration, ConfusionMatrix, boundary_band, semanticfusion_size


@pytest.fixture(scope="module")
def label_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Three (prediction, truth) pairs of 7 classes, the last never used, with some void in the truth."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(3):
        truth = rng.integers(0, 6, (40, 50)).astype(np.uint8)
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 6, truth.shape)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.2] = 255
        pairs.append((prediction, truth))
    return pairs


@pytest.fixture(scope="module")
def depth_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    pairs = []
    for missing in (0.1, 0.7, 0.3):
        truth = rng.uniform(0.5, 12, (48, 64)).astype(np.float32)
        prediction = (truth * rng.normal(1, 0.2, truth.shape)).astype(np.float32).clip(0.2)
        truth[rng.random(truth.shape) < missing] = 0
        pairs.append((prediction, truth))
    return pairs


# ------------------------------------------------------------------------------------------------- segmentation


def test_class_accuracy_is_given_by_both_conventions() -> None:
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([[0, 1, 1, 3]]), np.array([[0, 0, 1, 255]]))
    scores = matrix.scores()
    assert scores.class_accuracy == pytest.approx((0.5 + 1) / 2)  # of the classes of the truth
    assert scores.class_accuracy_absent_as_zero == pytest.approx((0.5 + 1) / 4)  # of all classes


def test_two_classes_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 1, 1, 0]], np.uint8), np.array([[0, 1, 1, 1, 255]], np.uint8))
    scores = matrix.scores()
    assert scores.pixels == 4
    np.testing.assert_allclose(scores.iou, [1 / 2, 2 / 3, np.nan])
    np.testing.assert_allclose(scores.accuracy, [1, 2 / 3, np.nan])
    assert scores.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.miou_absent_as_one == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert scores.pixel_accuracy == pytest.approx(3 / 4)
    assert scores.class_accuracy == pytest.approx(5 / 6)


def test_a_class_predicted_but_never_true_has_an_iou_of_zero_and_no_accuracy() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8))
    scores = matrix.scores()
    np.testing.assert_allclose(scores.iou, [0.5, np.nan, 0])
    assert scores.miou == pytest.approx(0.25)
    assert scores.class_accuracy == pytest.approx(0.5)


def test_a_pixel_without_a_prediction_is_a_miss_and_nobodys_false_alarm() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([[0, 255, 1]], np.uint8), np.array([[0, 0, 1]], np.uint8))
    np.testing.assert_allclose(matrix.scores().iou, [0.5, 1])


def test_nothing_scored_is_nan_and_no_error() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert np.isnan(matrix.scores().miou) and np.isnan(matrix.scores().pixel_accuracy)


def test_labels_agree_with_torchmetrics_and_scikit_learn(label_pairs) -> None:
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.functional.classification")
    metrics = pytest.importorskip("sklearn.metrics")
    matrix = ConfusionMatrix(7)
    for prediction, truth in label_pairs:
        matrix.add(prediction, truth)
    scores = matrix.scores()
    prediction = np.concatenate([p.ravel() for p, _ in label_pairs])
    truth = np.concatenate([t.ravel() for _, t in label_pairs])
    valid = truth != 255
    np.testing.assert_array_equal(
        matrix.counts[:6, :6], metrics.confusion_matrix(truth[valid], prediction[valid], labels=range(6))
    )
    np.testing.assert_allclose(scores.iou[:6], metrics.jaccard_score(truth[valid], prediction[valid], average=None))
    assert scores.pixel_accuracy == pytest.approx(metrics.accuracy_score(truth[valid], prediction[valid]))
    assert scores.class_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth[valid], prediction[valid]))
    theirs = classification.multiclass_jaccard_index(
        torch.from_numpy(prediction.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        num_classes=7,
        ignore_index=255,
        average="macro",
    )
    assert scores.miou == pytest.approx(float(theirs), abs=1e-6)


def test_one_matrix_over_the_set_is_not_the_mean_of_the_images() -> None:
    whole = ConfusionMatrix(2)
    for prediction, truth in (([[0, 0]], [[0, 0]]), ([[1, 0]], [[1, 1]])):
        whole.add(np.array(prediction, np.uint8), np.array(truth, np.uint8))
    assert whole.scores().miou == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_the_band_around_a_boundary_is_ignored() -> None:
    truth = np.zeros((9, 10), np.uint8)
    truth[:, 5:] = 1
    band = boundary_band(truth, 2)
    np.testing.assert_array_equal(band, np.broadcast_to(np.isin(np.arange(10), (3, 4, 5, 6)), truth.shape))
    moved = np.roll(truth, 2, axis=1)
    moved[:, :2] = 0
    matrix = ConfusionMatrix(2)
    matrix.add(moved, truth, ignore_band=2)
    assert matrix.scores().miou == 1 and matrix.scores().pixels == 9 * 6


def test_the_band_covers_the_border_of_void_too() -> None:
    truth = np.zeros((5, 8), np.uint8)
    truth[:, 6:] = 255
    assert boundary_band(truth, 1)[:, 5].all() and not boundary_band(truth, 1)[:, :5].any()


def test_semanticfusion_scores_at_224_by_224_by_nearest() -> None:
    labels = np.arange(480 * 640, dtype=np.int64).reshape(480, 640)
    small = semanticfusion_size(labels)
    assert small.shape == (224, 224)
    assert small[0, 0] == labels[1, 1] and small[223, 223] == labels[478, 638]
    np.testing.assert_array_equal(semanticfusion_size(labels[:224, :224]), labels[:224, :224])


def test_perfectly_calibrated_guesses_have_no_calibration_error() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 200_000)
    probabilities = np.stack([confidence, 1 - confidence], axis=-1)
    truth = (rng.random(len(confidence)) > confidence).astype(np.uint8)
    calibration = Calibration()
    calibration.add(probabilities, truth)
    assert calibration.scores().ece < 0.005
    overconfident = Calibration()
    overconfident.add(np.broadcast_to([0.9, 0.1], probabilities.shape), np.arange(len(truth)) % 2)
    assert overconfident.scores().ece == pytest.approx(0.4)
    assert overconfident.scores().negative_log_likelihood == pytest.approx(-np.log(0.9 * 0.1) / 2)


def test_calibration_error_agrees_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(30, 40, 5)) * 2
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    truth = rng.integers(0, 5, (30, 40)).astype(np.uint8)
    truth[:3] = 255
    calibration = Calibration()
    calibration.add(probabilities, truth)
    theirs = classification.multiclass_calibration_error(
        torch.from_numpy(probabilities.reshape(-1, 5)),
        torch.from_numpy(truth.ravel().astype(np.int64)),
        num_classes=5,
        n_bins=15,
        ignore_index=255,
    )
    assert calibration.scores().ece == pytest.approx(float(theirs), abs=1e-6)
    log_loss = pytest.importorskip("sklearn.metrics").log_loss(truth[3:].ravel(), probabilities[3:].reshape(-1, 5))
    assert calibration.scores().negative_log_likelihood == pytest.approx(log_loss)


# -------------------------------------------------------------------------------------------------------- depth


def test_depth_by_hand() -> None:
    errors = DepthErrors()
    errors.add(np.array([[2.0, 1.0, 5.0]]), np.array([[1.0, 1.0, 0.0]]))
    scores = errors.pooled()
    assert scores.pixels == 2 and scores.images == 1
    assert scores.rmse == pytest.approx(np.sqrt(1 / 2))
    assert scores.rmse_log == pytest.approx(np.log(2) / np.sqrt(2))
    assert scores.abs_rel == pytest.approx(0.5)
    assert scores.sqr_rel == pytest.approx(0.5)
    assert scores.log10 == pytest.approx(np.log10(2) / 2)
    assert scores.silog == pytest.approx(100 * np.log(2) / 2)
    assert (scores.delta1, scores.delta2, scores.delta3) == (0.5, 0.5, 0.5)


def test_pooling_and_the_mean_of_images_differ_as_they_should() -> None:
    errors = DepthErrors()
    errors.add(np.array([[2.0, 2.0, 2.0]]), np.array([[1.0, 1.0, 1.0]]))
    errors.add(np.array([[1.0, 1.0, 1.0]]), np.array([[1.0, 0.0, 0.0]]))
    errors.add(np.array([[1.0, 1.0, 1.0]]), np.zeros((1, 3)))
    assert errors.pooled().rmse == pytest.approx(np.sqrt(3 / 4))
    assert errors.mean_of_images().rmse == pytest.approx(0.5)
    assert errors.mean_of_images().images == 2
    assert errors.pooled().protocol != errors.mean_of_images().protocol


def test_depth_agrees_with_torchmetrics_and_scikit_learn(depth_pairs) -> None:
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("torchmetrics.functional.regression")
    metrics = pytest.importorskip("sklearn.metrics")
    errors = DepthErrors()
    for prediction, truth in depth_pairs:
        errors.add(prediction, truth)
    scores = errors.pooled()
    p = np.concatenate([p[t > 0] for p, t in depth_pairs]).astype(np.float64)
    g = np.concatenate([t[t > 0] for _, t in depth_pairs]).astype(np.float64)
    assert scores.rmse == pytest.approx(metrics.root_mean_squared_error(g, p))
    assert scores.rmse_log == pytest.approx(metrics.root_mean_squared_error(np.log(g), np.log(p)))
    theirs = regression.mean_absolute_percentage_error(torch.from_numpy(p), torch.from_numpy(g))
    assert scores.abs_rel == pytest.approx(float(theirs), rel=1e-6)
    d = np.log(p) - np.log(g)
    assert scores.silog == pytest.approx(100 * d.std())
    ratio = np.maximum(p / g, g / p)
    assert scores.delta2 == pytest.approx((ratio < 1.25**2).mean())


def test_silog_does_not_see_a_wrong_scale(depth_pairs) -> None:
    right, double = DepthErrors(), DepthErrors()
    for prediction, truth in depth_pairs:
        right.add(prediction, truth)
        double.add(2 * prediction, truth)
    assert double.pooled().silog == pytest.approx(right.pooled().silog)
    assert double.pooled().rmse > 2 * right.pooled().rmse


def test_a_cap_hides_far_truth_and_clips_predictions() -> None:
    errors = DepthErrors(DepthProtocol("cap 10", cap=10.0))
    errors.add(np.array([[50.0, 3.0]]), np.array([[9.0, 11.0]]))
    assert errors.pooled().pixels == 1 and errors.pooled().rmse == pytest.approx(1)


def test_negative_and_zero_predictions_do_not_break_logarithms() -> None:
    errors = DepthErrors()
    errors.add(np.array([[-1.0, 0.0]]), np.array([[1.0, 1.0]]))
    assert errors.pooled().rmse_log == pytest.approx(np.log(1000))
    assert errors.pooled().rmse == pytest.approx(np.sqrt((4 + 1) / 2))


def test_predictions_that_are_not_numbers_are_refused_only_where_they_count() -> None:
    errors = DepthErrors()
    errors.add(np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]]))
    with pytest.raises(ValueError, match="NaN"):
        errors.add(np.array([[np.nan, 1.0]]), np.array([[1.0, 1.0]]))


def test_the_eigen_crop_is_that_of_bts_and_scales_with_the_image() -> None:
    assert crop_slices(NYU_CROP, 480, 640) == (slice(45, 471), slice(41, 601))
    assert crop_slices(NYU_CROP, 240, 320) == (slice(22, 235), slice(20, 300))
    assert crop_slices(KITTI_GARG_CROP, 375, 1242) == (slice(153, 371), slice(44, 1197))


def test_only_the_crop_counts() -> None:
    truth = np.ones((480, 640), np.float32)
    prediction = np.full_like(truth, 3)
    prediction[45:471, 41:601] = 1
    errors = DepthErrors(DepthProtocol("Eigen crop", NYU_CROP))
    errors.add(prediction, truth)
    assert errors.pooled().rmse == 0 and errors.pooled().pixels == 426 * 560


def test_shapes_must_agree() -> None:
    for accumulator in (DepthErrors(), ConfusionMatrix(2), NormalErrors()):
        with pytest.raises(ValueError, match="resize"):
            accumulator.add(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8))


# ------------------------------------------------------------------------------------------------------ normals


def test_normals_by_hand() -> None:
    def turned(degrees: float) -> list[float]:
        return [np.sin(np.radians(degrees)), 0, np.cos(np.radians(degrees))]

    truth = np.array([[[0, 0, 1.0]] * 4 + [[0, 0, 0.0]]])
    prediction = np.array([[turned(10), turned(20), turned(29), turned(50), turned(90)]]) * 7  # length is no matter
    errors = NormalErrors()
    errors.add(prediction, truth)
    scores = errors.scores()
    assert scores.pixels == 4
    assert scores.mean_deg == pytest.approx((10 + 20 + 29 + 50) / 4)
    assert scores.rmse_deg == pytest.approx(np.sqrt((100 + 400 + 841 + 2500) / 4))
    assert (scores.within_11_25, scores.within_22_5, scores.within_30) == (0.25, 0.5, 0.75)


def test_the_median_angle_is_that_of_all_pixels_kept() -> None:
    rng = np.random.default_rng(4)
    truth, prediction = rng.normal(size=(2, 2, 30, 40, 3))
    errors, angles = NormalErrors(), []
    for p, t in zip(prediction, truth, strict=True):
        errors.add(p, t, valid=p[..., 0] > -1)
        cosine = (p * t).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(t, axis=-1)
        angles.append(np.degrees(np.arccos(cosine))[p[..., 0] > -1])
    assert errors.scores().median_deg == pytest.approx(np.median(np.concatenate(angles)), abs=0.1)
    assert errors.scores().mean_deg == pytest.approx(np.concatenate(angles).mean())
