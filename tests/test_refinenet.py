"""The single-task networks: the published sizes, the published names, and encoders that load strictly."""

from __future__ import annotations

import pytest
import torch

from networks.joint.cost import gmac, parameters
from networks.joint.imagenet import load_resnet, start_resnet
from networks.joint.network import JointNetwork
from networks.joint.refinenet import ARCHITECTURES, MobileRefineNet, ResNetRefineNet
from networks.joint.resnet import ResNet


def on_meta(build, *arguments):
    with torch.device("meta"):
        return build(*arguments)


@pytest.mark.parametrize(
    ("name", "count", "giga"),
    [
        ("refinenet-lw-50", 27_401_320, 38.3),
        ("refinenet-lw-101", 46_393_448, 61.0),
        ("refinenet-lw-152", 62_037_096, 83.8),
        ("refinenet-lw-mobilenet", 3_328_360, 10.9),
    ],
)
def test_sizes_are_the_published_ones(name: str, count: int, giga: float) -> None:
    network = on_meta(ARCHITECTURES[name], 40)
    assert parameters(network) == count
    assert gmac(network) == pytest.approx(giga, abs=0.05)


def test_multiplications_of_the_joint_network_are_the_known_ones() -> None:
    assert gmac(on_meta(JointNetwork, 40)) == pytest.approx(5.940, abs=5e-4)
    assert gmac(on_meta(JointNetwork, 40), 1200, 350) == pytest.approx(8.174, abs=5e-4)


def test_names_are_those_of_the_released_checkpoints() -> None:
    keys = set(on_meta(ResNetRefineNet, 152).state_dict())
    assert len(keys) == 958
    assert keys >= {
        "conv1.weight",
        "bn1.running_var",
        "layer3.35.bn3.bias",
        "layer2.0.downsample.1.num_batches_tracked",
        "p_ims1d2_outl1_dimred.weight",
        "adapt_stage4_b2_joint_varout_dimred.weight",
        "mflow_conv_g1_pool.0.4_outvar_dimred.weight",
        "mflow_conv_g3_b3_joint_varout_dimred.weight",
        "clf_conv.bias",
    }
    assert {"crp1.0.1_outvar_dimred.weight", "conv_adapt2.weight", "segm.bias"} <= set(
        on_meta(MobileRefineNet).state_dict()
    )


@pytest.mark.parametrize("build", [lambda: ResNetRefineNet(50, 5), lambda: MobileRefineNet(5)])
@torch.no_grad()
def test_scores_come_at_a_quarter_of_any_size(build) -> None:
    torch.manual_seed(0)
    network = build().eval()
    scores = network(torch.randn(1, 3, 65, 98))
    assert scores.shape == (1, 5, 17, 25)
    assert torch.isfinite(scores).all() and scores.std() > 0


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network, image = ResNetRefineNet(50, 3).eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(network(image), network(image))


def test_resnet_34_has_the_shape_of_torchvisions() -> None:
    encoder = on_meta(ResNet, 34)
    assert parameters(encoder) == 21_797_672 - 513_000  # torchvision's, without its classifier
    assert encoder(torch.empty(2, 3, 256, 341, device="meta")).shape == (2, 512, 8, 11)
    assert encoder.state_dict()["layer4.2.conv2.weight"].shape == (512, 512, 3, 3)


def test_an_encoder_starts_from_a_torchvision_file_without_its_classifier(tmp_path) -> None:
    torch.manual_seed(0)
    source = ResNet(34)
    state = {**source.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "resnet34.pth")
    target = ResNet(34)
    start_resnet(target, tmp_path / "resnet34.pth")
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


def test_another_depths_weights_are_refused_by_name() -> None:
    state = on_meta(ResNet, 50).state_dict()
    with pytest.raises(ValueError, match=r"weights\.pth: lacks layer3\.10"):
        load_resnet(on_meta(ResNetRefineNet, 101), state, "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: has layer1"):
        load_resnet(on_meta(ResNet, 34), state, "weights.pth")
    with pytest.raises(ValueError, match="ResNet-18"):
        ResNet(18)
