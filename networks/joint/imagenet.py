"""ImageNet weights for the encoders to start from, in the forms in which they are handed round."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from networks.joint.checkpoints import named_from, read_tensors
from networks.joint.encoders import LAYERS, LITE2_LAYERS, MEAN, STD, Layer, MobileNetV2
from networks.joint.resnet import ResNet
from semslam.files.reading import contents

RESNET_PREFIXES = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")


def _copy_part(
    state: dict[str, Tensor], ours: str, source: dict[str, Tensor], conv: str, norm: str, eps: float = 1e-5
) -> None:
    """Copy a convolution and its batch norm, whose epsilon is `eps` there, by the names that they have in `source`."""
    state[f"{ours}.0.weight"] = source[f"{conv}.weight"].float()
    for field in ("weight", "bias", "running_mean", "running_var"):
        state[f"{ours}.1.{field}"] = source[f"{norm}.{field}"].float()
    state[f"{ours}.1.running_var"] = state[f"{ours}.1.running_var"] + (eps - 1e-5)  # ours has 1e-5
    state[f"{ours}.1.num_batches_tracked"] = torch.tensor(0)


def _set_norm(state: dict[str, Tensor], key: str, shift: Tensor) -> None:
    """A batch norm that only adds `shift`: what folding left of it."""
    ones = torch.ones_like(shift)
    # one in place of a variance of 1 - eps would scale by 1 - 5e-6 at each of 52 layers
    state[f"{key}.weight"], state[f"{key}.bias"] = ones, shift.clone()
    state[f"{key}.running_mean"], state[f"{key}.running_var"] = torch.zeros_like(shift), ones - 1e-5
    state[f"{key}.num_batches_tracked"] = torch.tensor(0)


def _set_identity_expansion(state: dict[str, Tensor]) -> None:
    """layer2's first block expands 32 channels to 32, which ImageNet networks do not: let it pass them on.

    ReLU6 of what ReLU6 returned is the same, so the identity is exact.
    """
    state["layer2.0.output.0.0.weight"] = torch.eye(32)[:, :, None, None].clone()
    _set_norm(state, "layer2.0.output.0.1", torch.zeros(32))


def _block_prefixes(layers: Sequence[Layer] = LAYERS) -> list[str]:
    """`layerL.i.output` of the blocks, in order."""
    return [f"layer{n}.{i}.output" for n, layer in enumerate(layers, start=2) for i in range(layer.blocks)]


def _take_ours(state: dict[str, Tensor]) -> None:
    """Let a network that takes (RGB - 128) / 128 take our normalised input: rescale its first convolution.

    (255 (s y + m) - 128) / 128 of our normalised y: the slope goes into the weights, the rest into the norm's mean.
    """
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    weight = state["layer1.0.weight"]
    state["layer1.1.running_mean"] -= (weight * ((255 * mean - 128) / 128)[None, :, None, None]).sum((1, 2, 3))
    state["layer1.0.weight"] = weight * (255 * std / 128)[None, :, None, None]


def imagenet_from_folded(path: str | Path) -> dict[str, Tensor]:
    """Encoder state dict from ImageNet weights with folded norms and TensorFlow's names (an .npz file).

    Such a network takes (x - 128) / 128 of RGB in 0..255; the first convolution is rescaled to take our
    normalisation. It pads stride-2 layers at the bottom and right only, where ours pads all sides by one: away
    from the border that is the same network on an image moved by 31 pixels (1 + 2 + 4 + 8 + 16), so the weights need
    no change for it. Only at the border is there a difference, which fine-tuning absorbs.
    """
    data = io.BytesIO(contents(path))
    try:
        with np.load(data) as file:
            arrays = {name.split(";")[-1]: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}
    except Exception as error:  # whatever a damaged archive makes NumPy raise
        problem = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not an .npz file of MobileNet-v2 weights ({problem}); copy it again") from error
    state: dict[str, Tensor] = {}

    def convolution(source: str, conv: str, norm: str) -> None:
        weight, bias = arrays[f"{source}/weight"], arrays[f"{source}/bias"]
        depthwise = weight.shape[0] == 1 and source.endswith("depthwise")
        state[f"{conv}.weight"] = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
        state[f"{conv}.weight"] = state[f"{conv}.weight"].contiguous()
        _set_norm(state, norm, bias)

    try:
        convolution("Conv", "layer1.0", "layer1.1")
        for number, prefix in enumerate(_block_prefixes()):
            source = f"expanded_conv_{number}" if number else "expanded_conv"
            if number:
                convolution(f"{source}/expand", f"{prefix}.0.0", f"{prefix}.0.1")
            convolution(f"{source}/depthwise", f"{prefix}.1.0", f"{prefix}.1.1")
            convolution(f"{source}/project", f"{prefix}.2.0", f"{prefix}.2.1")
    except KeyError as error:
        raise ValueError(f"{path}: no array {error} in it; expected folded MobileNet-v2 weights") from error
    except RuntimeError as error:  # of another number of axes
        raise ValueError(f"{path}: an array has another shape than MobileNet-v2's; {error}") from error
    _set_identity_expansion(state)
    _take_ours(state)
    return state


def imagenet_from_torchvision(path: str | Path) -> dict[str, Tensor]:
    """Encoder state dict from a file of torchvision's `mobilenet_v2` state dict (width 1.0).

    Also of the encoder of Light-Weight RefineNet, whose names are ours, alone or inside another network.
    """
    source = read_tensors(path)
    own = named_from(source, "layer1.0.weight")
    if "layer1.0.weight" in own:
        return own
    source = named_from(source, "features.0.0.weight")
    state: dict[str, Tensor] = {}

    try:
        _copy_part(state, "layer1", source, "features.0.0", "features.0.1")
        for number, prefix in enumerate(_block_prefixes(), start=1):
            theirs = f"features.{number}.conv"
            parts = (1, 2) if number == 1 else (0, 1, 2)  # theirs has no expansion in the first block
            for slot, part in enumerate(parts):
                last = part == 2
                conv = f"{theirs}.{slot}" if last else f"{theirs}.{slot}.0"
                norm = f"{theirs}.{slot + 1}" if last else f"{theirs}.{slot}.1"
                _copy_part(state, f"{prefix}.{part}", source, conv, norm)
    except KeyError as error:
        raise ValueError(f"{path}: no tensor {error} in it; expected torchvision's mobilenet_v2 state dict") from error
    _set_identity_expansion(state)
    return state


def imagenet_from_lite2(path: str | Path) -> dict[str, Tensor]:
    """Encoder state dict from a file of EfficientNet-Lite2's weights (names `_conv_stem`, `_blocks.N`).

    It takes (RGB - 128) / 128, pads at the bottom and right only, as the folded MobileNet-v2 does, and its batch norms
    have an epsilon of 1e-3.
    """
    source = read_tensors(path)
    state: dict[str, Tensor] = {}

    try:
        _copy_part(state, "layer1", source, "_conv_stem", "_bn0", 1e-3)
        for number, prefix in enumerate(_block_prefixes(LITE2_LAYERS)):
            theirs = f"_blocks.{number}"
            if number:
                _copy_part(state, f"{prefix}.0", source, f"{theirs}._expand_conv", f"{theirs}._bn0", 1e-3)
            _copy_part(state, f"{prefix}.1", source, f"{theirs}._depthwise_conv", f"{theirs}._bn1", 1e-3)
            _copy_part(state, f"{prefix}.2", source, f"{theirs}._project_conv", f"{theirs}._bn2", 1e-3)
    except KeyError as error:
        raise ValueError(f"{path}: no tensor {error} in it; expected EfficientNet-Lite2's weights") from error
    _set_identity_expansion(state)
    _take_ours(state)
    return state


def load_mobilenet(network: MobileNetV2, state: dict[str, Tensor]) -> None:
    """Copy an encoder's state dict into `network`; every encoder tensor must be there and fit."""
    wanted = {key for key in network.state_dict() if key.startswith("layer")}
    if missing := sorted(wanted - state.keys()):
        raise ValueError(f"encoder weights lack {len(missing)} tensors, the first of them {missing[0]}")
    own = network.state_dict()
    for key in sorted(wanted):
        if state[key].shape != own[key].shape:
            found, expected = tuple(state[key].shape), tuple(own[key].shape)
            raise ValueError(f"encoder weights have {key} of shape {found}, expected {expected}")
    network.load_state_dict({key: state[key] for key in wanted}, strict=False)


def load_resnet(network: ResNet, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy the encoder of a torchvision-named ResNet state dict into `network`, its classifier (`fc`) left out.

    Every tensor of the encoder must be there and fit; `source` names the file in the error.
    """
    own = {key: value for key, value in network.state_dict().items() if key.startswith(RESNET_PREFIXES)}
    given = {key: value for key, value in state.items() if key.startswith(RESNET_PREFIXES)}
    # files older than PyTorch 0.4.1 do not count batches
    missing = sorted(key for key in own.keys() - given.keys() if not key.endswith("num_batches_tracked"))
    odd = [key for key in sorted(given.keys() & own.keys()) if given[key].shape != own[key].shape]
    more = sorted(given.keys() - own.keys())
    if missing or odd or more:
        first = (
            f"lacks {missing[0]}"
            if missing
            else f"has {odd[0]} of shape {tuple(given[odd[0]].shape)}, expected {tuple(own[odd[0]].shape)}"
            if odd
            else f"has {more[0]}, which this encoder has not"
        )
        raise ValueError(f"{source}: {first}; expected a torchvision state dict of this depth of ResNet")
    with torch.no_grad():
        for key, value in given.items():
            own[key].copy_(value)


def start_mobilenet(network: MobileNetV2, path: str | Path) -> None:
    """Give `network`'s encoder the ImageNet weights of a file: a folded .npz, or a state dict.

    A state dict is torchvision's, or EfficientNet-Lite2's where the network has that encoder.
    """
    read = imagenet_from_folded if str(path).endswith(".npz") else imagenet_from_torchvision
    if network.layers == LITE2_LAYERS:
        read = imagenet_from_lite2
    load_mobilenet(network, read(path))


def start_resnet(network: ResNet, path: str | Path) -> None:
    """Give `network`'s encoder the ImageNet weights of a file of torchvision's state dict of that ResNet."""
    load_resnet(network, named_from(read_tensors(path), "layer1.0.conv1.weight"), path)
