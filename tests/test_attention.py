"""Grad-CAM++: the formula by hand, where the map of a class lies, and the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks.inference import attention
from networks.inference.attention import VARIANTS, Attention, encoder_layers, heat, heat_maps, stretched
from networks.joint import checkpoints
from networks.joint.network import JointNetwork
from networks.pose.networks import LabelInputNetwork, PoseNetwork
from semslam.runs.networks import predictor
from semslam.single_image.attend import Target, attend, default_target, parse_target, question


def tiny(seed: int = 0) -> tuple[Tensor, nn.Module]:
    """Features (1, 3, 3, 4) as after a ReLU, and a network of ReLUs that makes one score of them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(1, 3, 3, 4, generator=generator, dtype=torch.float64)
    features[features < 0.2] = 0
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return features, network


def by_derivatives(features: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    """Equations 19, 5 and 6 of the paper, with the derivatives of Y = exp(S) by each pixel alone, pixel by pixel."""
    A = features.clone().requires_grad_()
    Y = torch.exp(network(A)[0, 0])
    (first,) = torch.autograd.grad(Y, A, create_graph=True)
    _, channels, rows, columns = A.shape
    result = torch.zeros(rows, columns, dtype=A.dtype)
    for k in range(channels):
        worth = 0.0
        for i in range(rows):
            for j in range(columns):
                second = torch.autograd.grad(first[0, k, i, j], A, create_graph=True)[0][0, k, i, j]
                third = torch.autograd.grad(second, A, retain_graph=True)[0][0, k, i, j]
                below = 2 * second + features[0, k].sum() * third
                alpha = float((second / below).detach()) if below != 0 else 0.0
                worth += alpha * max(float(first[0, k, i, j].detach()), 0.0)
        result += worth * features[0, k]
    return result.clamp(min=0), Y.detach()


def gradient_of(network: nn.Module, features: Tensor) -> Tensor:
    A = features.clone().requires_grad_()
    return torch.autograd.grad(network(A).sum(), A)[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_map_is_that_of_the_derivatives_of_the_exponential(seed: int) -> None:
    features, network = tiny(seed)
    expected, Y = by_derivatives(features, network)
    found = heat(features, gradient_of(network, features))[0] * Y
    assert expected.max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_widespread_variant_has_the_cube_inside_its_sum() -> None:
    features, network = tiny()
    g = gradient_of(network, features)
    worth = torch.zeros(3, dtype=g.dtype)
    for k in range(3):
        inside = sum(float(features[0, k, a, b] * g[0, k, a, b] ** 3) for a in range(3) for b in range(4))
        for i in range(3):
            for j in range(4):
                alpha = g[0, k, i, j] ** 2 / (2 * g[0, k, i, j] ** 2 + inside)
                worth[k] += alpha * g[0, k, i, j].clamp(min=0)
    torch.testing.assert_close(VARIANTS["inside"](features, g)[0], worth)
    assert (VARIANTS["paper"](features, g)[0] - worth).abs().max() > 1e-3


def test_grad_cam_sums_the_gradient() -> None:
    features, network = tiny()
    g = gradient_of(network, features)
    expected = sum(float(g[0, k].sum()) * features[0, k] for k in range(3)).clamp(min=0)
    torch.testing.assert_close(heat(features, g, VARIANTS["grad-cam"])[0], expected)


def test_without_gradient_there_is_no_map_and_no_division_by_zero() -> None:
    features, _ = tiny()
    zero = torch.zeros_like(features)
    for worth in VARIANTS.values():
        assert (heat(features, zero, worth) == 0).all()
    assert (stretched(heat(features, zero)[0], (7, 9)) == np.zeros((7, 9))).all()


class Painter(nn.Module):
    """Tells two classes apart by colour: a network whose evidence lies where it should."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3, stride=2, padding=1, bias=False)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.weight[0, 0] = 1  # red
            self.layer.weight[1, 2] = 1  # blue
        self.activation = nn.ReLU()

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        features = self.activation(self.layer(image))
        return {"segmentation": features, "depth": features[:, :1] * 2 + features[:, 1:]}


def test_the_map_of_a_class_lies_where_the_class_is() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 4:20, 2:12] = 1  # red
    image[:, 2, 10:30, 18:30] = 1  # blue
    network = Painter()
    for class_id, channel in ((0, 0), (1, 2)):
        (found,) = heat_maps(
            {1: network.activation}, lambda: network.outputs(image), [attention.class_score(class_id)]
        ).values()
        heat_map = stretched(found, (32, 32))
        there = image[0, channel].numpy() > 0
        assert heat_map[there].mean() > 0.75
        assert heat_map[~there].mean() < 0.1
        assert there[np.unravel_index(heat_map.argmax(), heat_map.shape)]


def test_the_score_of_a_depth_is_that_of_its_pixel() -> None:
    depth = torch.arange(12.0).reshape(1, 1, 3, 4)
    for u in range(4):
        for v in range(3):
            score = attention.depth_score((u + 0.5) / 4, (v + 0.5) / 3)
            assert float(score({"depth": depth})) == pytest.approx(4 * v + u, abs=1e-5)


def test_the_score_of_a_pose_error_is_the_weighted_absolute_difference() -> None:
    pose = torch.tensor([[1.0, 2, 3, 0.1, 0.2, 0.3]])
    assert float(attention.pose_error([0.0, 2, 1])({"pose": pose})) == pytest.approx(1.0)
    assert float(attention.pose_error([1.0, 2, 3, 0.1, 0.2, 0.0])({"pose": pose})) == pytest.approx(0.1 * np.exp(3))
    scores = [float(score({"pose": pose})) for score in attention.pose_scores()]
    assert sorted(scores) == pytest.approx(sorted([*pose[0].tolist(), *(-pose[0]).tolist()]))


@pytest.fixture(scope="module")
def joint() -> Attention:
    torch.manual_seed(0)
    network = JointNetwork(13).eval()

    def outputs(image: np.ndarray, labels: np.ndarray | None) -> dict[str, Tensor]:
        seen = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 128 - 1
        return dict(zip(network.tasks, network(seen)))

    return Attention(network, outputs, ("segmentation", "depth"), "nyu13")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (8, 10, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def test_a_joint_network_shows_four_layers_for_a_class_and_for_a_depth(joint: Attention, image: np.ndarray) -> None:
    before = {key: value.clone() for key, value in joint.network.state_dict().items()}
    for scores in (joint.class_scores(3), joint.depth_scores(0.4, 0.5)):
        maps = joint(image, scores)
        assert list(maps) == [1, 2, 3, 4]
        for heat_map in maps.values():
            assert heat_map.shape == image.shape[:2] and heat_map.dtype == np.float32
            assert heat_map.min() == 0 and heat_map.max() == 1
        assert all((joint(image, scores)[n] == maps[n]).all() for n in maps)
    assert all((before[key] == value).all() for key, value in joint.network.state_dict().items())
    assert all(parameter.grad is None for parameter in joint.network.parameters())


@pytest.mark.parametrize("encoder", ["resnet34", "mobilenet_v2"])
def test_a_pose_network_shows_where_its_pose_comes_from(encoder: str, image: np.ndarray) -> None:
    torch.manual_seed(0)
    network = PoseNetwork(encoder, feature=16)

    def outputs(image: np.ndarray, labels: np.ndarray | None) -> dict[str, Tensor]:
        return network.outputs(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 128 - 1)

    asked = Attention(network, outputs, network.tasks)
    maps = asked(image, asked.pose_scores(), layers=(2, 4))
    assert list(maps) == [2, 4] and all(heat_map.max() == 1 for heat_map in maps.values())
    with pytest.raises(ValueError, match="no layer 5; there are 1, 2, 3, 4"):
        asked(image, asked.pose_scores(), layers=(5,))


def test_every_encoder_is_found_and_nothing_else() -> None:
    assert set(encoder_layers(LabelInputNetwork(feature=8))) == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="neither a ResNet nor a MobileNet"):
        encoder_layers(nn.Linear(2, 2))


def test_targets_are_read_and_wrong_ones_named(joint: Attention, image: np.ndarray) -> None:
    assert parse_target("class:chair") == Target("class", "chair")
    assert parse_target("depth:10,20") == Target("depth", None, (10.0, 20.0))
    assert parse_target("pose") == Target("pose") and parse_target("pose:1,2,3").numbers == (1, 2, 3)
    for wrong in ("depth", "depth:1", "depth:a,b", "pose:1,2", "colour:red", "pose:1,nan,2"):
        with pytest.raises(ValueError, match="expected class, class:NAME, depth:U,V"):
            parse_target(wrong)
    assert default_target(joint) == Target("class")
    with pytest.raises(ValueError, match="predicts segmentation and depth, not pose"):
        question(joint, Target("pose"), image)
    with pytest.raises(ValueError, match="pixel 90,3 is outside the image, which is 80x64"):
        question(joint, Target("depth", None, (90, 3)), image)
    with pytest.raises(ValueError, match="nyu13 has no class 'sky'; it has bed"):
        question(joint, Target("class", "sky"), image)


def test_the_figure_has_a_panel_for_the_image_and_for_each_layer(
    joint: Attention, image: np.ndarray, tmp_path: Path
) -> None:
    import cv2

    widths = []
    for layers in ((4,), (1, 4)):
        path = tmp_path / f"{len(layers)}.png"
        maps = attend(joint, image, path, Target("depth", None, (5, 5)), layers)
        assert list(maps) == list(layers)
        widths.append(cv2.imread(str(path)).shape[1])
    assert widths[1] > 1.3 * widths[0]
    attend(joint, image, tmp_path / "class.png", layers=(4,))
    assert (tmp_path / "class.png").stat().st_size > 10_000


def test_the_command_writes_a_figure_or_one_line_of_what_is_wrong(
    image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import sys

    import cv2

    from semslam import cli

    source, out = tmp_path / "image.png", tmp_path / "figure.png"
    cv2.imwrite(str(source), image)

    def run(*arguments: object) -> tuple[int, str]:
        before, sys.argv = sys.argv, ["semslam", "attend", str(source), "--out", str(out), *map(str, arguments)]
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err.strip()
        finally:
            sys.argv = before
        return 0, ""

    assert run("--target", "class", "--layers", "4") == (0, "") and out.is_file()
    for arguments, message in (
        (("--target", "class:sky"), "nyu40 has no class 'sky'"),
        (("--target", "pose"), "predicts segmentation and depth, not pose"),
        (("--layers", "7"), "there is no layer 7"),
        (("--layers", "all"), "expected numbers with commas"),
        (("--variant", "mine"), "known are paper, inside, grad-cam"),
        (("--weights", tmp_path / "none.safetensors"), "no such weights file"),
        (("--weights", source), "image.png"),
    ):
        code, line = run(*arguments)
        assert code == 2 and message in line and len(line.splitlines()) == 1


def test_pose_weights_are_asked_for_the_pose_and_for_the_error_of_a_position(image: np.ndarray, tmp_path: Path) -> None:
    from networks.pose.networks import open_network
    from networks.pose.predictor import save

    for name in ("multitask", "label_input"):
        torch.manual_seed(0)
        settings = {"network": name, "encoder": "resnet34", "feature": 8, "dropout": 0.0, "num_classes": 13,
                    "class_set": "nyu13", "mean": [0, 0, 0], "std": [1, 1, 2], "input_size": [48, 64]}  # fmt: skip
        save(tmp_path / "weights.safetensors", open_network(name, settings), settings)
        asked = Attention.load(tmp_path / "weights.safetensors")
        labels = np.full(image.shape[:2], 3, np.uint8) if asked.needs_labels else None
        for text in ("pose", "pose:1,2,3"):
            question_ = question(asked, parse_target(text), image, labels)
            maps = asked(image, question_.scores, (3, 4), labels)
            assert all(heat_map.shape == image.shape[:2] and np.isfinite(heat_map).all() for heat_map in maps.values())
        # metres are reduced by the statistics that the weights were saved with
        score = asked.pose_scores((0.0, 0.0, 4.0))[0]
        assert float(score({"pose": torch.zeros(1, 6)})) == pytest.approx(2 / 3)
        if name == "label_input":
            with pytest.raises(ValueError, match="--labels"):
                question(asked, Target("pose"), image)


def test_of_weights_of_two_label_sets_either_can_be_looked_into(tmp_path: Path) -> None:
    """NYU's 40 classes and KITTI's 6 behind them: `--classes` of predict, reconstruct and attend."""
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "both.safetensors", JointNetwork(46), half=False)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    both = Attention.load(tmp_path / "both.safetensors", "kitti6")
    assert both.label_set == "kitti6" and both.labels(image).max() < 6
    network = predictor("kitti6", str(tmp_path / "both.safetensors"), "torch")
    assert (network.label_set, network.num_classes) == ("kitti6", 6)
    scores = network.outputs(image)[0]
    assert np.array_equal(scores[..., 40:].argmax(-1), both.labels(image))
    assert network.class_probabilities(image).shape == (48, 64, 6)
    assert predictor("nyu13", str(tmp_path / "both.safetensors"), "torch").num_classes == 13
    with pytest.raises(ValueError, match=r"both\.safetensors: these weights tell apart nyu40 and kitti6"):
        Attention.load(tmp_path / "both.safetensors", "nyu13")
