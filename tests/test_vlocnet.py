"""VLocNet and VLocNet++: consistency and warping by hand, shapes, feedback, and a step that learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from networks.pose.encoding import PoseStatistics, encoded, relative_motion
from networks.pose.losses import geometric_weights
from networks.pose.networks import open_network
from networks.pose.predictor import PosePredictor, save
from networks.pose.vlocnet import VLocNet, VLocNetPlusPlus, WeightedFusion, consistency, warped
from networks.training.pose import PoseLearner
from semslam import poses

SIZE = (48, 64)


def some_poses(many: int = 2, length: int = 3) -> Tensor:
    rng = np.random.default_rng(0)
    T = np.stack([poses.exp(rng.normal(0, 0.4, 6)) for _ in range(many * length)]).reshape(many, length, 4, 4)
    return torch.from_numpy(encoded(T)).float()


def batch(length: int = 3, classes: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randn(2, length, 3, *SIZE, generator=generator),
        "pose": some_poses(2, length),
        "labels": torch.randint(0, classes, (2, length, *SIZE), generator=generator),
        "any_unplaced": False,
    }


def network(name: str = "vlocnet++", encoder: str = "mobilenet_v2") -> VLocNet:
    torch.manual_seed(0)
    found = open_network(name, {"encoder": encoder, "feature": 32, "dropout": 0.0, "num_classes": 5})
    assert isinstance(found, VLocNet)
    return found.eval()


def test_consistent_poses_cost_nothing() -> None:
    pose = some_poses()
    assert consistency(pose, relative_motion(pose[:, :-1], pose[:, 1:])).abs().max() < 1e-6


def test_the_consistency_of_a_known_error_is_known() -> None:
    """Two cameras without a turn, predicted 0.3 m and 0.2 rad (about z) too far apart, in one of two tuples."""
    pose = torch.zeros(2, 2, 6)
    pose[0, 1] = torch.tensor([0.3, 0, 0, 0, 0, 0.1])
    found = consistency(pose, torch.zeros(2, 1, 6))
    torch.testing.assert_close(found, torch.tensor([0.3 / 3 / 2, 0.1 / 3 / 2]))


def test_consistency_does_not_depend_on_the_world() -> None:
    rng = np.random.default_rng(2)
    T = np.stack([poses.exp(rng.normal(0, 0.3, 6)) for _ in range(3)])
    moved = poses.exp(np.array([1.0, -2, 0.5, 0.3, 0.1, -0.4])) @ T
    a, b = (torch.from_numpy(encoded(each))[None] for each in (T, moved))
    motion = torch.zeros(1, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(consistency(a, motion), consistency(b, motion))


def test_warping_by_no_motion_is_the_identity() -> None:
    features = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(warped(features, torch.zeros(2, 6)), features, rtol=1e-4, atol=1e-5)
    depth = torch.rand(2, 6, 8) + 1
    torch.testing.assert_close(warped(features, torch.zeros(2, 6), depth), features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pixels", [-2, 1, 3])
def test_a_step_aside_shifts_features_by_focal_times_step_over_depth(pixels: int) -> None:
    features = torch.randn(1, 3, 6, 8)
    depth, focal = 2.0, 0.8
    motion = torch.zeros(1, 6)
    motion[0, 0] = pixels * depth / (focal * 8)
    found = warped(features, motion, depth, focal)
    expected = torch.zeros_like(features)
    for u in range(8):
        if 0 <= u + pixels < 8:
            expected[..., u] = features[..., u + pixels]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    down = torch.zeros(1, 6)
    down[0, 1] = motion[0, 0]  # pixels are square: the same step downwards is the same number of rows
    torch.testing.assert_close(warped(features, down, depth, focal)[..., 2, :], features[..., 2 + pixels, :]
                               if 0 <= 2 + pixels < 6 else torch.zeros(1, 3, 8), rtol=1e-4, atol=1e-4)  # fmt: skip


def test_near_things_shift_more_than_far_ones() -> None:
    features = torch.randn(1, 2, 4, 8)
    depth = torch.full((1, 4, 8), 2.0)
    depth[:, 2:] = 4.0
    motion = torch.zeros(1, 6)
    motion[0, 0] = 2 * 2.0 / (0.8 * 8)  # two columns at 2 m, one at 4 m
    found = warped(features, motion, depth, 0.8)
    torch.testing.assert_close(found[..., :2, :6], features[..., :2, 2:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[..., 2:, :7], features[..., 2:, 1:], rtol=1e-4, atol=1e-4)


def test_what_was_behind_the_camera_is_empty() -> None:
    motion = torch.zeros(1, 6)
    motion[0, 2] = -5.0  # the camera before stood 5 m ahead of the plane at 2.5 m
    assert (warped(torch.ones(1, 1, 4, 4), motion) == 0).all()


def test_fusion_weighs_channels() -> None:
    fusion = WeightedFusion(1, 1, 1)
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1))
        fusion.mix.weight.fill_(1.0)
    assert fusion(torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 1, 1)).item() == pytest.approx(4.0)


@pytest.mark.parametrize("name", ["vlocnet", "vlocnet++"])
def test_shapes_of_a_tuple_and_of_one_image(name: str) -> None:
    found = network(name).tuple_outputs(batch()["image"])
    assert found["pose"].shape == (2, 3, 6) and found["motion"].shape == (2, 2, 6)
    alone = network(name).outputs(batch()["image"][:, 0])
    assert alone["pose"].shape == (2, 6) and "motion" not in alone
    if name == "vlocnet++":
        assert found["segmentation"].shape == (2, 3, 5, *SIZE) and alone["segmentation"].shape == (2, 5, *SIZE)


def test_the_first_image_has_no_past_and_the_others_have() -> None:
    # a random MobileNet-v2 hardly tells images apart
    net, image = network(encoder="resnet34"), batch()["image"]
    with torch.no_grad():
        whole = net.tuple_outputs(image)
        torch.testing.assert_close(whole["pose"][:, 0], net.outputs(image[:, 0])["pose"], rtol=1e-4, atol=1e-4)
        assert (whole["pose"][:, 1] - net.outputs(image[:, 1])["pose"]).abs().max() > 1e-3
        other = image.clone()
        other[:, 0] = other[:, 0].flip(-1)
        assert (net.tuple_outputs(other)["pose"][:, 2] - whole["pose"][:, 2]).abs().max() > 1e-4
        other = image.clone()
        other[:, 2] = 0
        torch.testing.assert_close(net.tuple_outputs(other)["pose"][:, 1], whole["pose"][:, 1], rtol=1e-4, atol=1e-4)


def test_odometry_starts_at_rest_and_its_loss_is_in_metres() -> None:
    net = network("vlocnet")
    data = batch()
    outputs = net.tuple_outputs(data["image"])
    assert (outputs["motion"] == 0).all()
    net.set_statistics(PoseStatistics(std=(2.0, 2.0, 2.0)))
    pose = data["pose"] * torch.tensor([2.0, 2, 2, 1, 1, 1])
    motion = relative_motion(pose[:, :-1], pose[:, 1:]).abs()
    expected = motion[..., :3].mean() + np.exp(3.0) * motion[..., 3:].mean() - 3
    torch.testing.assert_close(net.extra_terms(outputs, data)["odometry"], expected)
    single = {"pose": outputs["pose"][:, :1]}
    assert net.extra_terms(single, data) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vlocnet", "vlocnet++"])
def test_one_step_of_training_lowers_the_loss(name: str) -> None:
    net, data = network(name), batch()
    terms = ["translation", "rotation", *(["segmentation"] if name == "vlocnet++" else [])]
    learner = PoseLearner(net, geometric_weights(terms), PoseStatistics(), None).eval()
    optimiser = torch.optim.SGD(learner.parameters(), lr=1e-5)
    before, logged, _ = learner(data)
    assert {"odometry", "consistency", *terms} == set(logged)
    before.backward()
    assert all(p.grad is not None for key, p in net.named_parameters() if not key.startswith("encoder"))
    optimiser.step()
    with torch.no_grad():
        after, _, _ = learner(data)
    assert float(after) < float(before.detach())


def test_weights_come_back_with_their_scale(tmp_path: Path) -> None:
    net = network("vlocnet++")
    net.set_statistics(PoseStatistics(std=(1.0, 2.0, 3.0)))
    metadata = {"network": "vlocnet++", "encoder": "mobilenet_v2", "feature": 32, "dropout": 0.0, "num_classes": 5,
                "mean": [0, 0, 0], "std": [1, 2, 3], "input_size": list(SIZE)}  # fmt: skip
    save(tmp_path / "n.safetensors", net, metadata)
    predictor = PosePredictor.load(tmp_path / "n.safetensors")
    assert isinstance(predictor.network, VLocNetPlusPlus)
    assert predictor.network.scale.tolist() == [1, 2, 3]
    prediction = predictor.predict(np.zeros((60, 80, 3), np.uint8))
    assert prediction.T_world_camera is not None and prediction.labels is not None
    assert prediction.T_world_camera.shape == (4, 4) and prediction.labels.shape == (60, 80)
