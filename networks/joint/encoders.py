"""The MobileNet-v2 encoder of the joint network, and the ImageNet weights that it starts from.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. The names of the modules are
those of the multi-task RefineNet checkpoints, so that these load strictly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (expansion, channels, blocks, stride of the first block) of layer2 .. layer8
LAYERS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
TAP_CHANNELS = (24, 32, 64, 96, 160, 320)  # what layer3 .. layer8 return
MEAN = (0.485, 0.456, 0.406)  # of RGB / 255, over ImageNet
STD = (0.229, 0.224, 0.225)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, where `clip`, ReLU6.

    While training with the norm frozen (this module in train mode, its norm in eval mode) the norm is folded into the
    convolution's weights at each step: the same function and the same gradients, for a pass over the weights in place
    of one over the activations.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, clip: bool = True
    ) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        norm = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1)
        super().__init__(convolution, norm, *([nn.ReLU6(inplace=True)] if clip else []))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self[0], self[1]
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
        if not self.training or norm.training:
            return super().forward(x)
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        weight = conv.weight * scale[:, None, None, None]
        x = F.conv2d(x, weight, shift, conv.stride, conv.kernel_size[0] // 2, groups=conv.groups)
        return F.relu6(x, inplace=True) if len(self) == 3 else x


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1 without activation; added to the input if it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.output = nn.Sequential(
            ConvNorm(inputs, wide, 1),
            ConvNorm(wide, wide, 3, stride, groups=wide),
            ConvNorm(wide, outputs, 1, clip=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.output(x) if self.residual else self.output(x)


class MobileNetV2(nn.Module):
    """The encoder: layer1 .. layer8, 1,812,800 parameters.

    Stride-2 layers pad by one pixel on every side, as the released checkpoints were trained.
    """

    layer2: nn.Sequential  # and so on to layer8: blocks

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = ConvNorm(3, 32, 3, stride=2)
        inputs = 32
        for number, (expansion, channels, blocks, stride) in enumerate(LAYERS, start=2):
            layer = [InvertedResidual(inputs if i == 0 else channels, channels, expansion, stride if i == 0 else 1)
                     for i in range(blocks)]  # fmt: skip
            setattr(self, f"layer{number}", nn.Sequential(*layer))
            inputs = channels

    def taps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of layer3 .. layer8, at 1/4, 1/8, 1/16, 1/16, 1/32, 1/32 of a normalised image (B, 3, H, W)."""
        x = self.layer2(self.layer1(image))
        found = []
        for number in range(3, 9):
            x = getattr(self, f"layer{number}")(x)
            found.append(x)
        return tuple(found)


def freeze_norms(module: nn.Module) -> nn.Module:
    """Keep the running statistics of every batch norm: call it after `module.train()`; returns the module."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    return module


# ------------------------------------------------------------------------------------------- ImageNet weights


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


def _block_prefixes() -> list[str]:
    """`layerL.i.output` of the 17 blocks, in order."""
    return [f"layer{n}.{i}.output" for n, (_, _, blocks, _) in enumerate(LAYERS, start=2) for i in range(blocks)]


def imagenet_from_folded(path: str | Path) -> dict[str, Tensor]:
    """Encoder state dict from ImageNet weights with folded norms and TensorFlow's names (an .npz file).

    Such a network takes (x - 128) / 128 of RGB in 0..255; the first convolution is rescaled to take our
    normalisation. It pads stride-2 layers at the bottom and right only, where ours pads all sides by one: away
    from the border that is the same network on an image moved by 31 pixels (1 + 2 + 4 + 8 + 16), so the weights need
    no change for it. Only at the border is there a difference, which fine-tuning absorbs.
    """
    path = Path(path)
    try:
        with np.load(path) as file:
            arrays = {name.split(";")[-1]: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: not an .npz file of MobileNet-v2 weights ({error})") from error
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
    _set_identity_expansion(state)

    # (255 (s y + m) - 128) / 128 of our normalised y: the slope goes into the weights, the rest into the shift
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    weight = state["layer1.0.weight"]
    state["layer1.1.bias"] += (weight * ((255 * mean - 128) / 128)[None, :, None, None]).sum((1, 2, 3))
    state["layer1.0.weight"] = weight * (255 * std / 128)[None, :, None, None]
    return state


def imagenet_from_torchvision(path: str | Path) -> dict[str, Tensor]:
    """Encoder state dict from a file of torchvision's `mobilenet_v2` state dict (width 1.0)."""
    path = Path(path)
    from networks.joint.checkpoints import read_tensors

    source = read_tensors(path)
    state: dict[str, Tensor] = {}

    def copy(theirs_conv: str, theirs_norm: str, ours: str) -> None:
        state[f"{ours}.0.weight"] = source[f"{theirs_conv}.weight"].float()
        for field in ("weight", "bias", "running_mean", "running_var"):
            state[f"{ours}.1.{field}"] = source[f"{theirs_norm}.{field}"].float()
        state[f"{ours}.1.num_batches_tracked"] = torch.tensor(0)

    try:
        copy("features.0.0", "features.0.1", "layer1")
        for number, prefix in enumerate(_block_prefixes(), start=1):
            theirs = f"features.{number}.conv"
            parts = (1, 2) if number == 1 else (0, 1, 2)  # theirs has no expansion in the first block
            for slot, part in enumerate(parts):
                last = part == 2
                conv = f"{theirs}.{slot}" if last else f"{theirs}.{slot}.0"
                norm = f"{theirs}.{slot + 1}" if last else f"{theirs}.{slot}.1"
                copy(conv, norm, f"{prefix}.{part}")
    except KeyError as error:
        raise ValueError(f"{path}: no tensor {error} in it; expected torchvision's mobilenet_v2 state dict") from error
    _set_identity_expansion(state)
    return state


def load_encoder(network: MobileNetV2, state: dict[str, Tensor]) -> None:
    """Copy an encoder's state dict into `network`; every encoder tensor must be there and fit."""
    wanted = {key for key in network.state_dict() if key.startswith("layer")}
    if missing := sorted(wanted - state.keys()):
        raise ValueError(f"encoder weights lack {len(missing)} tensors, the first of them {missing[0]}")
    network.load_state_dict({key: state[key] for key in wanted}, strict=False)
