"""The joint network: its published sizes, its names, its ImageNet start."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint.checkpoints import read_tensors
from networks.joint.cost import gmac, parameters
from networks.joint.encoders import ENCODERS, ConvNorm, MobileNetV2, freeze_norms
from networks.joint.imagenet import (
    imagenet_from_folded,
    imagenet_from_lite2,
    imagenet_from_torchvision,
    load_mobilenet,
    start_mobilenet,
)
from networks.joint.network import TASKS, JointNetwork, fit_decoder, normalised
from semslam.images import read_color


@pytest.mark.parametrize(
    ("classes", "tasks", "count", "small", "wide"),
    [(40, 2, 3_070_057, 5.940, 8.174), (6, 2, 2_991_687, 4.436, 6.106),
     (46, 2, 3_083_887, 6.206, 8.539), (40, 3, 3_077_228, 6.078, 8.364)],
)  # fmt: skip
def test_sizes_are_the_published_ones(classes: int, tasks: int, count: int, small: float, wide: float) -> None:
    network = JointNetwork(classes, TASKS[:tasks])
    assert parameters(network) == count
    assert len(network.state_dict()) == 337 + 3 * tasks  # each head adds three tensors
    assert gmac(network, 640, 480) == pytest.approx(small, abs=5e-4)
    assert gmac(network, 1200, 350) == pytest.approx(wide, abs=5e-4)


def test_names_are_those_of_the_released_checkpoints() -> None:
    shapes = {key: tuple(value.shape) for key, value in JointNetwork(40, TASKS).state_dict().items()}
    assert shapes["layer1.0.weight"] == (32, 3, 3, 3)
    assert shapes["layer2.0.output.0.0.weight"] == (32, 32, 1, 1)  # an expansion although t = 1
    assert shapes["layer5.3.output.1.0.weight"] == (384, 1, 3, 3)
    assert shapes["layer8.0.output.2.1.running_var"] == (320,)
    assert shapes["conv8.weight"] == (256, 320, 1, 1)
    assert shapes["crp4.0.1_outvar_dimred.weight"] == (256, 256, 1, 1)
    assert shapes["crp1.0.4_outvar_dimred.weight"] == (256, 1, 1, 1)
    assert shapes["conv_adapt2.weight"] == (256, 256, 1, 1)
    assert shapes["pre_normal.weight"] == (256, 1, 1, 1)
    assert shapes["segm.weight"] == (40, 256, 3, 3)
    assert shapes["depth.bias"] == (1,)
    assert not any(key in shapes for key in ("conv8.bias", "pre_segm.bias", "conv_adapt1.weight"))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (97, 131), (32, 33)])
def test_any_image_size_comes_out_at_a_quarter_rounded_up(height: int, width: int) -> None:
    network = JointNetwork(40, TASKS).to("meta").eval()
    outputs = network(torch.empty(2, 3, height, width, device="meta"))
    size = (-(-height // 4), -(-width // 4))
    assert [tuple(o.shape) for o in outputs] == [(2, channels, *size) for channels in (40, 1, 3)]


def test_random_weights_neither_vanish_nor_saturate() -> None:
    torch.manual_seed(0)
    network = JointNetwork()
    image = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        fit_decoder(network.train(), image)
        scores, depth = network(image)
    assert 0.03 < scores.std() < 3
    assert 1 < depth.mean() < 5  # metres: a room


def _reference_forward(network: JointNetwork, image: Tensor) -> list[Tensor]:
    """The network written out plainly, from its state dict."""
    w = network.state_dict()

    def conv(x: Tensor, key: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = w[f"{key}.weight"]
        return F.conv2d(x, weight, w.get(f"{key}.bias"), stride, weight.shape[-1] // 2, groups=groups)

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var, gain, shift = (
            w[f"{key}.{f}"][:, None, None] for f in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * gain + shift

    def block(x: Tensor, key: str, stride: int) -> Tensor:
        y = F.relu6(norm(conv(x, f"{key}.0.0"), f"{key}.0.1"))
        y = F.relu6(norm(conv(y, f"{key}.1.0", stride, y.shape[1]), f"{key}.1.1"))
        y = norm(conv(y, f"{key}.2.0"), f"{key}.2.1")
        return x + y if y.shape == x.shape else y

    def pools(x: Tensor, key: str, groups: int = 1) -> Tensor:
        top = x
        for stage in range(1, 5):
            top = conv(F.max_pool2d(top, 5, 1, 2), f"{key}.0.{stage}_outvar_dimred", groups=groups)
            x = x + top
        return x

    def up(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    x = F.relu6(norm(conv(image, "layer1.0", 2), "layer1.1"))
    taps = {}
    for layer, (blocks, stride) in enumerate([(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)], start=2):
        for i in range(blocks):
            x = block(x, f"layer{layer}.{i}.output", stride if i == 0 else 1)
        taps[layer] = x
    x = conv(pools(F.relu6(conv(taps[8], "conv8") + conv(taps[7], "conv7")), "crp4"), "conv_adapt4")
    x = pools(F.relu6(conv(taps[6], "conv6") + conv(taps[5], "conv5") + up(x, taps[6])), "crp3")
    x = pools(F.relu6(conv(taps[4], "conv4") + up(conv(x, "conv_adapt3"), taps[4])), "crp2")
    x = pools(F.relu6(conv(taps[3], "conv3") + up(conv(x, "conv_adapt2"), taps[3])), "crp1", 256)
    return [conv(F.relu6(conv(x, f"pre_{h}", groups=256)), h) for h in ("segm", "depth", "normal")]


def _with_norms(network: nn.Module) -> nn.Module:
    """Statistics as a trained network has them."""
    generator = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low in (
                (part.weight, 0.5),
                (part.bias, -0.3),
                (part.running_mean, -0.3),
                (part.running_var, 0.5),
            ):
                tensor.data.uniform_(low, low + 0.8, generator=generator)
    return network


def test_the_network_is_what_its_description_says() -> None:
    torch.manual_seed(2)
    network = _with_norms(JointNetwork(7, TASKS)).eval()
    image = torch.randn(1, 3, 61, 70)
    with torch.no_grad():
        for ours, plain in zip(network(image), _reference_forward(network, image), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_training_with_frozen_norms_is_the_same_function_with_the_same_gradients() -> None:
    torch.manual_seed(3)
    block = _with_norms(ConvNorm(4, 6, 3, stride=2))
    x = torch.randn(2, 4, 9, 9)

    def gradients(module: nn.Module) -> list[Tensor]:
        module.zero_grad()
        module(x).square().sum().backward()
        return [p.grad.clone() for p in module.parameters()]

    fast = gradients(freeze_norms(block.train()))
    plain = gradients(block.eval())
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_coarse_output_is_the_fine_one_before_the_finest_level_was_trained() -> None:
    """What lets a training begin at 1/8 and switch the finest level on later, without a jump."""
    torch.manual_seed(4)
    network = JointNetwork(5)
    image = torch.randn(1, 3, 64, 64)
    fit_decoder(network.eval(), image)
    seen = []
    network.conv_adapt2.register_forward_hook(lambda _, inputs, output: seen.append(output))
    network.pre_depth.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        network(image)
        network(image, stride=8)
    level, fine, _, coarse = seen
    assert torch.equal(coarse, F.relu6(level))
    torch.testing.assert_close(fine, F.relu6(F.interpolate(level, scale_factor=2, mode="bilinear")))


# ------------------------------------------------------------------------------------------- ImageNet


@pytest.fixture(scope="module")
def folded_file(shared_data: Path) -> Path:
    return shared_data / "weights" / "mobilenet_v2_imagenet_folded.npz"


@pytest.fixture(scope="module")
def imagenet(folded_file: Path) -> MobileNetV2:
    network = MobileNetV2()
    load_mobilenet(network, imagenet_from_folded(folded_file))
    return network.eval()


def _as_tensorflow(file: Path, image: np.ndarray) -> Tensor:
    """The folded classifier up to its last features, as its authors run it: own normalisation, "SAME" padding."""
    arrays = {key.split(";")[-1]: value for key, value in np.load(file).items()}

    def conv(x: Tensor, name: str, stride: int = 1, clip: bool = True) -> Tensor:
        weight, bias = (torch.from_numpy(arrays[f"{name}/{part}"]) for part in ("weight", "bias"))
        depthwise = name.endswith("depthwise")
        weight = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
        if weight.shape[-1] == 3:
            x = F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        x = F.conv2d(x, weight, bias, stride, groups=weight.shape[0] if depthwise else 1)
        return F.relu6(x) if clip else x

    x = torch.from_numpy((image.astype(np.float32) - 128) / 128).permute(2, 0, 1)[None]
    x = conv(x, "Conv", 2)
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    for number, stride in enumerate(strides):
        name = f"expanded_conv_{number}" if number else "expanded_conv"
        y = conv(x, f"{name}/expand") if number else x
        y = conv(conv(y, f"{name}/depthwise", stride), f"{name}/project", clip=False)
        x = x + y if y.shape == x.shape else y
    return x


@torch.no_grad()
def test_imagenet_features_are_the_classifiers_on_an_image_moved_by_31_pixels(
    folded_file: Path, imagenet: MobileNetV2, shared_data: Path
) -> None:
    """Both paddings are one network away from the border: 1 + 2 + 4 + 8 + 16 pixels apart."""
    import cv2

    image = cv2.imread(str(sorted((shared_data / "nyuv2" / "color").glob("*.jpg"))[0]))
    image = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (640, 640))
    theirs = _as_tensorflow(folded_file, image)
    moved = np.roll(image, (-31, -31), axis=(0, 1))
    ours = imagenet.taps(normalised(torch.from_numpy(moved)[None]))[-1]
    # ours sees at i what theirs saw at i, wherever neither border reaches (the field of view is 491 pixels)
    inner = slice(9, 12)
    torch.testing.assert_close(ours[..., inner, inner], theirs[..., inner, inner], rtol=1e-2, atol=2e-2)


@torch.no_grad()
def test_imagenet_features_stay_close_to_the_classifiers_with_our_padding(
    folded_file: Path, imagenet: MobileNetV2, shared_data: Path
) -> None:
    """At 224x224 the border reaches everywhere. Cosine of the pooled features, which the classifier reads: 0.87 on
    average over 24 images of NYUv2 (of the 1280 features behind them 0.88; the first class stays first for 62 % of the
    images and among the first five for all)."""
    import cv2

    cosines = []
    for path in sorted((shared_data / "nyuv2" / "color").glob("*.jpg"))[:6]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)[:, 80:560]
        image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
        theirs = _as_tensorflow(folded_file, image).mean((2, 3))
        ours = imagenet.taps(normalised(torch.from_numpy(image)[None]))[-1].mean((2, 3))
        cosines.append(float(F.cosine_similarity(ours, theirs)))
    assert np.mean(cosines) > 0.8


def test_imagenet_weights_in_torchvisions_names_give_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = _with_norms(MobileNetV2()).eval()
    network.layer2[0].output[0].load_state_dict(MobileNetV2().layer2[0].output[0].state_dict())
    theirs: dict[str, Tensor] = {"classifier.1.weight": torch.zeros(1000, 1280)}

    def rename(ours: str, conv: str, norm: str) -> None:
        for key, value in network.get_submodule(ours)[0].state_dict().items():
            theirs[f"{conv}.{key}"] = value
        for key, value in network.get_submodule(ours)[1].state_dict().items():
            theirs[f"{norm}.{key}"] = value

    rename("layer1", "features.0.0", "features.0.1")
    blocks = [f"layer{n}.{i}" for n, count in enumerate((1, 2, 3, 4, 3, 3, 1), start=2) for i in range(count)]
    for number, block in enumerate(blocks, start=1):
        for slot, part in enumerate((1, 2) if number == 1 else (0, 1, 2)):
            base = f"features.{number}.conv.{slot}"
            names = (base, f"features.{number}.conv.{slot + 1}") if part == 2 else (f"{base}.0", f"{base}.1")
            rename(f"{block}.output.{part}", *names)
    file = tmp_path / "mobilenet_v2.pth"
    torch.save(theirs, file)
    read = MobileNetV2()
    load_mobilenet(read, imagenet_from_torchvision(file))
    # torchvision's first block has no expansion: the identity stands in for it
    expansion = read.layer2[0].output[0].eval()
    x = torch.rand(1, 32, 5, 5) * 6
    torch.testing.assert_close(expansion(x), x, rtol=1e-4, atol=1e-4)
    ours, wanted = read.state_dict(), network.state_dict()
    for key in ours:
        if not key.startswith("layer2.0.output.0") and not key.endswith("num_batches_tracked"):
            assert torch.equal(ours[key], wanted[key]), key


def test_an_encoder_starts_from_the_one_inside_another_network(tmp_path: Path) -> None:
    """Light-Weight RefineNet's encoder by our names, alone or beside a decoder."""
    encoder = MobileNetV2()
    state = {f"module.encoder.{key}": value for key, value in encoder.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "encoder.ckpt")
    network = JointNetwork(6)
    start_mobilenet(network, tmp_path / "encoder.ckpt")
    assert torch.equal(network.layer8[0].output[2][0].weight, encoder.layer8[0].output[2][0].weight)


def test_a_file_without_the_encoder_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "other.npz"
    np.savez(file, something=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz.*no array"):
        imagenet_from_folded(file)
    np.savez(file, **{"Conv/weight": np.zeros((32, 3)), "Conv/bias": np.zeros(32)})
    with pytest.raises(ValueError, match=r"other\.npz: an array has another shape"):
        imagenet_from_folded(file)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:30] + b"x" * 40 + whole[70:], b"PK nothing"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"other\.npz: not an \.npz file"):
            imagenet_from_folded(file)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth.*mobilenet_v2"):
        imagenet_from_torchvision(tmp_path / "resnet.pth")


def test_unknown_tasks_and_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="tasks"):
        JointNetwork(40, ("depth",))
    with pytest.raises(ValueError, match="num_classes"):
        JointNetwork(0)


def test_efficientnet_lite2_of_a_file_sees_a_desk(shared_data: Path) -> None:
    """Its encoder with our padding and normalisation, under the file's own classifier: ImageNet's class 526."""
    file = shared_data / "weights" / "efficientnet_lite2_imagenet_float16.safetensors"
    encoder = MobileNetV2(ENCODERS["efficientnet_lite2"]).eval()
    load_mobilenet(encoder, imagenet_from_lite2(file))
    image = read_color(shared_data / "nyuv2" / "color" / "000003.jpg")[:, 80:560]
    image = cv2.resize(image, (260, 260), interpolation=cv2.INTER_AREA)
    head = {key: value.float() for key, value in read_tensors(file).items()}
    with torch.no_grad():
        features = F.conv2d(encoder.taps(normalised(torch.from_numpy(image)[None]))[-1], head["_conv_head.weight"])
        norm = (head[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        features = F.relu6(F.batch_norm(features, *norm, eps=1e-3)).mean((2, 3))
        scores = features @ head["_fc.weight"].T + head["_fc.bias"]
    assert int(scores.argmax()) == 526
