"""Pose networks: their encoding of poses, their losses, their shapes, and what travels with their weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from variants import one_fast

from networks.joint import checkpoints
from networks.joint.network import JointNetwork
from networks.losses import UncertaintyWeights
from networks.pose.encoders import open_encoder
from networks.pose.encoding import (
    PoseStatistics,
    decoded,
    encoded,
    exp_quaternion,
    hemisphere,
    log_quaternion,
    relative_motion,
)
from networks.pose.losses import GeometricWeights, geometric_weights, pose_terms, true_motions, uncertainty_weights
from networks.pose.networks import NETWORKS, FourthChannelNetwork, PoseNetwork, open_network
from networks.pose.predictor import PosePredictor, save
from semslam import poses

SMALL = {"encoder": "mobilenet_v2", "feature": 16, "num_classes": 7}
METRES = PoseStatistics()


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = np.random.default_rng(seed).normal(size=(count, 3)) * 3
    return T


# ------------------------------------------------------------------------------------------------------- encoding


def test_log_after_exp_is_the_same_rotation_vector() -> None:
    v = torch.from_numpy(Rotation.random(200, random_state=1).as_rotvec() / 2)
    torch.testing.assert_close(log_quaternion(exp_quaternion(v)), v, atol=1e-12, rtol=0)


def test_the_logarithm_is_half_the_rotation_vector_also_for_the_smallest_turns() -> None:
    for angle in (0.0, 1e-12, 1e-8, 1e-4, 1.0, 3.0):
        rotation = Rotation.from_rotvec([0, angle, 0])
        q = torch.from_numpy(np.roll(rotation.as_quat(), 1))
        assert log_quaternion(q)[1].item() == pytest.approx(angle / 2, rel=1e-9, abs=1e-15)


def test_gradients_are_finite_where_nothing_turns() -> None:
    v = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    log_quaternion(exp_quaternion(v)).sum().backward()
    torch.testing.assert_close(v.grad, torch.ones(2, 3, dtype=torch.float64))
    pose = torch.zeros(1, 6, requires_grad=True)
    relative_motion(pose, pose.detach()).sum().backward()
    assert pose.grad is not None and torch.isfinite(pose.grad).all()


def test_both_signs_of_a_quaternion_are_one_pose_also_where_its_first_number_is_zero() -> None:
    q = torch.tensor([[0.6, 0.8, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.6, 0.0, -0.8]])
    torch.testing.assert_close(hemisphere(q), hemisphere(-q))
    assert (hemisphere(q)[:, 0] >= 0).all()
    assert torch.isfinite(log_quaternion(hemisphere(q))).all()


def test_decoding_undoes_encoding_with_the_statistics() -> None:
    T = random_poses(100)
    statistics = PoseStatistics.of(T)
    code = encoded(T, statistics)
    np.testing.assert_allclose(code[:, :3].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(code[:, :3].std(0), 1, atol=1e-12)
    np.testing.assert_allclose(decoded(code, statistics), T, atol=1e-12)


def test_an_axis_along_which_nothing_moves_keeps_its_metres() -> None:
    T = np.tile(np.eye(4), (5, 1, 1))
    T[:, 0, 3] = np.arange(5)
    assert PoseStatistics.of(T).std[1:] == (1.0, 1.0)


def test_a_motion_is_the_second_camera_in_the_frame_of_the_first() -> None:
    T = random_poses(20)
    code = torch.from_numpy(encoded(T))
    expected = encoded(poses.inverse(T[:-1]) @ T[1:])
    np.testing.assert_allclose(relative_motion(code[:-1], code[1:]).numpy(), expected, atol=1e-10)


# --------------------------------------------------------------------------------------------------------- losses


def test_absolute_and_relative_terms_are_means_computed_by_hand() -> None:
    truth = torch.zeros(1, 3, 6)
    predicted = torch.zeros(1, 3, 6)
    predicted[0, 0] = torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0, 0.9])
    predicted[0, 1] = torch.tensor([0.0, -6.0, 0.0, 0.0, 0.0, 0.0])
    terms = pose_terms(predicted, truth, METRES, "difference")
    assert terms["translation"].item() == pytest.approx((3 + 6) / 9)
    assert terms["rotation"].item() == pytest.approx(0.9 / 9)
    # differences: (-3, -6, 0) and (0, 6, 0); rotations (0, 0, -0.9) and 0
    assert terms["relative_translation"].item() == pytest.approx((3 + 6 + 6) / 6)
    assert terms["relative_rotation"].item() == pytest.approx(0.9 / 6)


def test_true_motions_do_not_see_a_change_of_the_world_and_plain_differences_do() -> None:
    T = random_poses(3, seed=5)
    moved = random_poses(1, seed=6)[0] @ T
    a, b = (torch.from_numpy(encoded(x))[None] for x in (T, moved))
    assert pose_terms(a, b, METRES, "motion")["relative_translation"].item() == pytest.approx(0, abs=1e-10)
    assert pose_terms(a, b, METRES, "motion")["relative_rotation"].item() == pytest.approx(0, abs=1e-10)
    assert pose_terms(a, b, METRES, "difference")["relative_translation"].item() > 0.1


def test_true_motions_are_metric_whatever_the_statistics() -> None:
    T, other = random_poses(3, seed=7), random_poses(3, seed=8)
    terms = []
    for statistics in (METRES, PoseStatistics((5.0, 6.0, 7.0), (0.1, 2.0, 9.0))):
        a, b = (torch.from_numpy(encoded(x, statistics))[None] for x in (T, other))
        terms.append(pose_terms(a, b, statistics, "motion")["relative_translation"].item())
    assert terms[0] == pytest.approx(terms[1])


def test_motions_are_exact_in_float32_also_far_from_the_world_s_origin() -> None:
    """RobotCar's coordinates are those of a country, where float32 has steps of half a metre."""
    T = random_poses(3, seed=11)
    T[:, :3, 3] += [5_736_292, 620_252, 110]
    statistics = PoseStatistics.of(T)
    found = true_motions(torch.from_numpy(encoded(T, statistics)[None]).float(), statistics)[0]
    np.testing.assert_allclose(found, encoded(poses.inverse(T[:-1]) @ T[1:]), atol=1e-5)


def test_poses_by_odometry_count_as_motions_alone() -> None:
    """MapNet++: the second tuple lies in another world, and only its motions are asked for."""
    T = random_poses(3, seed=9)
    elsewhere = random_poses(1, seed=10)[0] @ T
    predicted = torch.from_numpy(np.stack([encoded(T), encoded(T)]))
    truth = torch.from_numpy(np.stack([encoded(T), encoded(elsewhere)]))
    terms = pose_terms(predicted, truth, METRES, placed=torch.tensor([True, False]))
    assert set(terms) == {"translation", "rotation", "odometry_translation", "odometry_rotation"}
    assert all(term.item() == pytest.approx(0, abs=1e-9) for term in terms.values())
    predicted[1, 2, 0] += 1.0
    terms = pose_terms(predicted, truth, METRES, placed=torch.tensor([True, False]))
    assert terms["translation"].item() == pytest.approx(0, abs=1e-9)
    assert terms["odometry_translation"].item() > 0.1


def test_geometric_weights_are_the_formula_and_start_at_0_and_minus_3() -> None:
    weights = geometric_weights(["translation", "rotation", "odometry_rotation", "segmentation"])
    started = {name: a.item() for name, a in weights.a.items()}
    assert started == {"translation": 0.0, "rotation": -3.0, "odometry_rotation": -3.0, "segmentation": 0.0}
    loss = weights({"translation": torch.tensor(2.0), "rotation": torch.tensor(0.5)})
    assert loss.item() == pytest.approx(2.0 + (math.exp(3) * 0.5 - 3))
    weights = GeometricWeights({"translation": 0.7})
    loss = weights({"translation": torch.tensor(2.0)})
    loss.backward()
    assert weights.a["translation"].grad.item() == pytest.approx(1 - 2 * math.exp(-0.7), abs=1e-6)
    assert not [p for p in geometric_weights(["rotation"], learned=False).parameters() if p.requires_grad]


def test_uncertainty_weighs_regression_by_half_and_classification_whole() -> None:
    weights = uncertainty_weights(["translation", "segmentation"])
    assert isinstance(weights, UncertaintyWeights)
    with torch.no_grad():
        for s in weights.log_variance.values():
            s.fill_(0.4)
    loss = weights({"translation": torch.tensor(3.0), "segmentation": torch.tensor(2.0)})
    assert loss.item() == pytest.approx(math.exp(-0.4) * (3 / 2 + 2) + 2 * 0.4 / 2)


# ------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", ["pose", "segmentation", "multitask", "joint", "dual_input", "label_input",
                                  "shared_input", "fourth_channel"])  # fmt: skip
def test_every_network_tells_what_it_says_at_any_image_size(name: str) -> None:
    network = open_network(name, SMALL).eval()
    image = torch.zeros(2, 3, 65, 90)
    labels = torch.full((2, 65, 90), 255)
    with torch.no_grad():
        found = network.outputs(image, labels)
    assert tuple(found) == network.tasks
    shapes = {"pose": (2, 6), "segmentation": (2, 7, 65, 90), "depth": (2, 1, 17, 23)}
    assert {key: tuple(value.shape) for key, value in found.items()} == {key: shapes[key] for key in found}
    if network.reads_labels:
        with pytest.raises(ValueError, match="reads labels beside the image"):
            network.outputs(image)


def test_resnet34_has_the_reference_s_size() -> None:
    network = PoseNetwork("resnet34")
    encoder = 21_284_672  # torchvision's resnet34 without its classifier
    assert sum(p.numel() for p in network.parameters()) == encoder + 513 * 2048 + 2 * (2049 * 3)
    outputs = open_network("multitask", {"encoder": "resnet34", "feature": 8}).eval().outputs(torch.zeros(1, 3, 33, 57))
    assert outputs["segmentation"].shape == (1, 10, 33, 57)


def test_resnet34_starts_from_a_file_of_torchvision_s_names(tmp_path: Path) -> None:
    given = open_encoder("resnet34")
    state = given.state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "resnet34.pth")
    network = open_network("dual_input", SMALL | {"encoder": "resnet34"})
    network.load_imagenet(tmp_path / "resnet34.pth")
    for encoder in (network.encoder, network.label_encoder):
        assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
    torch.save({key: value for key, value in state.items() if key != "layer3.1.conv2.weight"}, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"less\.pth: lacks layer3\.1\.conv2\.weight"):
        network.load_imagenet(tmp_path / "less.pth")


def test_dropout_is_off_in_evaluation_and_on_in_training() -> None:
    network = open_network("pose", SMALL | {"dropout": 0.5}).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        network.embedding.dropout.train()
        assert not torch.equal(network(image), network(image))


def test_a_tuple_is_its_images_one_by_one() -> None:
    network = open_network("multitask", SMALL).eval()
    image = torch.randn(2, 3, 3, 64, 64)
    with torch.no_grad():
        found = network.tuple_outputs(image)
        alone = network.outputs(image[1])
    assert found["pose"].shape == (2, 3, 6) and found["segmentation"].shape == (2, 3, 7, 64, 64)
    torch.testing.assert_close(found["pose"][1], alone["pose"], atol=1e-5, rtol=1e-4)


def test_the_fourth_channel_starts_from_the_mean_of_the_others(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenet_v2_imagenet_folded.npz"
    network = open_network("fourth_channel", SMALL)
    assert isinstance(network, FourthChannelNetwork)
    network.load_imagenet(path)
    encoder = open_encoder("mobilenet_v2")
    encoder.load_imagenet(path)
    weight = network.encoder.first.weight
    assert torch.equal(weight[:, :3], encoder.first.weight)
    assert torch.equal(weight[:, 3], encoder.first.weight.mean(1))
    # without labels, and with labels in the middle of the ids, the fourth channel is 0
    image = torch.randn(1, 3, 64, 64)
    network.eval()
    with torch.no_grad():
        nothing = network(image, torch.full((1, 64, 64), 255))
        assert torch.equal(nothing, network(image, torch.full((1, 64, 64), 3)))
        assert not torch.equal(nothing, network(image, torch.full((1, 64, 64), 6)))


def test_labels_are_seen_in_their_colours_and_their_absence_as_zero() -> None:
    network = open_network("dual_input", SMALL)
    network.colors.set_colors(torch.arange(21).reshape(7, 3) * 10)
    seen = network.colors(torch.tensor([[[0, 6, 255]]]))
    from networks.joint.network import normalised

    expected = normalised(torch.tensor([[[[0, 10, 20], [180, 190, 200]]]], dtype=torch.uint8))
    torch.testing.assert_close(seen[..., :2], expected)
    assert (seen[..., 2] == 0).all()
    with pytest.raises(ValueError, match=r"label colours are \(3, 3\), expected \(7, 3\)"):
        network.colors.set_colors(torch.zeros(3, 3))


def test_the_joint_trunk_is_the_joint_network_with_a_pose_beside() -> None:
    torch.manual_seed(0)
    joint = JointNetwork(7).eval()
    network = open_network("joint", SMALL).eval()
    network.trunk.load_state_dict(joint.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network.outputs(image)["depth"], joint(image)[1])
    with pytest.raises(ValueError, match="joint trunk's encoder is mobilenet_v2"):
        open_network("joint", {"encoder": "resnet34"})


def test_unknown_names_are_answered_by_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no pose network 'posnet'; there are pose, segmentation"):
        open_network("posnet", {})
    with pytest.raises(ValueError, match=r"no encoder 'vgg'; there are resnet34, mobilenet_v2"):
        PoseNetwork("vgg")


# --------------------------------------------------------------------------------------------------- the predictor


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("pose") / "w.safetensors"
    network = open_network("multitask", SMALL)
    metadata = {"network": "multitask", **SMALL, "mean": [10.0, 20.0, 30.0], "std": [0.5, 1.0, 2.0]}
    save(path, network, metadata | {"input_size": [48, 64], "class_set": "seven"})
    return path


def test_weights_and_statistics_travel_together(weights: Path) -> None:
    predictor = PosePredictor.load(weights)
    assert predictor.statistics == PoseStatistics((10.0, 20.0, 30.0), (0.5, 1.0, 2.0))
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    T = predictor(image)
    assert poses.is_rigid(T, 1e-9) and T.dtype == np.float64
    code = predictor.outputs(image)["pose"][0].double().numpy()
    np.testing.assert_allclose(T[:3, 3], code[:3] * [0.5, 1.0, 2.0] + [10, 20, 30])
    found = predictor.predict(image)
    assert found.labels is not None and found.labels.shape == (96, 128) and found.labels.dtype == np.uint8
    assert found.depth is None


def test_weights_that_are_no_pose_network_s_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors: no such weights file"):
        PosePredictor.load(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="not the weights of a pose network: its description lacks network"):
        PosePredictor.load(checkpoints.bundled())
    (tmp_path / "half.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole"):
        PosePredictor.load(tmp_path / "half.safetensors")


def test_a_network_that_reads_labels_asks_for_them(tmp_path: Path) -> None:
    metadata = {"network": "dual_input", **SMALL, "mean": [0.0] * 3, "std": [1.0] * 3, "input_size": [48, 64]}
    save(tmp_path / "w.safetensors", open_network("dual_input", SMALL), metadata)
    predictor = PosePredictor.load(tmp_path / "w.safetensors")
    image = np.zeros((96, 128, 3), np.uint8)
    with pytest.raises(ValueError, match="'dual_input' network reads labels beside the image"):
        predictor(image)
    assert predictor(image, np.zeros((96, 128), np.uint8)).shape == (4, 4)


def test_the_registry_makes_every_network_with_one_set_of_settings() -> None:
    for name in NETWORKS:
        assert open_network(name, SMALL).tasks


@pytest.mark.parametrize("tuples", one_fast(False, True))
def test_weights_of_geomapnets_code_load_and_see_colours_as_they_did(tmp_path: Path, tuples: bool) -> None:
    """PoseNet's and MapNet's names, NumPy numbers beside them, statistics in the two files of its data sets."""
    torch.manual_seed(0)
    network = PoseNetwork("resnet34", 16, 0.5).eval()
    network.encoder.bn1.running_mean.normal_()
    names = {"embedding.linear.": "feature_extractor.fc.", "encoder.": "feature_extractor.",
             "regressor.translation.": "fc_xyz.", "regressor.rotation.": "fc_wpqr."}  # fmt: skip
    state = {}
    for key, value in network.state_dict().items():
        ours = next(own for own in names if key.startswith(own))
        state[("mapnet." if tuples else "") + names[ours] + key[len(ours) :]] = value
    path = tmp_path / "epoch_300.pth.tar"
    torch.save({"epoch": 300, "model_state_dict": state, "loss": np.float64(0.1)}, path)
    mean, variance = np.array([0.5, 0.44, 0.45]), np.array([0.04, 0.05, 0.06])
    np.savetxt(tmp_path / "stats.txt", [mean, variance])
    np.savetxt(tmp_path / "pose_stats.txt", [[1, 2, 3], [2, 2, 2]])
    predictor = PosePredictor.load(path)
    assert predictor.statistics == PoseStatistics((1, 2, 3), (2, 2, 2))
    grey = np.full((256, 341, 3), 120, np.uint8)  # without edges: the border's padding is the one difference
    theirs = torch.from_numpy((grey / 255 - mean) / np.sqrt(variance)).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        inside = slice(100, 120)
        expected = network.encoder.bn1(network.encoder.conv1(theirs))[..., inside, inside]
        found = predictor.network.encoder.bn1(predictor.network.encoder.conv1(predictor.input(grey)))
    torch.testing.assert_close(found[..., inside, inside], expected, rtol=1e-3, atol=1e-3)
    assert predictor(grey).shape == (4, 4)
    (tmp_path / "pose_stats.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"pose_stats\.txt: expected two rows"):
        PosePredictor.load(path)
    del state["mapnet.fc_xyz.bias" if tuples else "fc_xyz.bias"]
    (tmp_path / "pose_stats.txt").unlink()
    torch.save({"model_state_dict": state}, path)
    with pytest.raises(ValueError, match=r"lacks regressor\.translation\.bias"):
        PosePredictor.load(path)
