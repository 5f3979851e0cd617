"""A trained network rewritten for running: the same function in fewer and faster operations.

Batch norms go into the convolutions before them, channel-wise 1x1 convolutions become products, and the 5x5 pools
run over bands of rows that stay in the cache.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from networks.decoder import ChainedResidualPooling

_BAND_BYTES = 1 << 20  # of one band of rows: about the second-level cache of two cores


def folded(network: nn.Module) -> nn.Module:
    """A copy of `network` for inference, in eval mode, without batch norms; it cannot be trained."""
    network = copy.deepcopy(network).eval()
    for part in network.modules():
        _fold_norms(part)
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, ChainedResidualPooling):
                setattr(part, name, BandedResidualPooling(child))
            elif isinstance(child, nn.Conv2d) and _is_scale(child):
                setattr(part, name, Scale(child))
    return network.requires_grad_(False)


def _fold_norms(part: nn.Module) -> None:
    """Fold each batch norm among the children of `part` into its convolution.

    In a Sequential that is the one before it; elsewhere (ResNets) bnK belongs to convK.
    """
    children = dict(part.named_children())
    if isinstance(part, nn.Sequential):
        pairs = list(zip(list(children), list(children)[1:]))
    else:
        norms = [name for name in children if name.startswith("bn")]
        pairs = [(f"conv{name[2:]}", name) for name in norms if f"conv{name[2:]}" in children]
    for before, name in pairs:
        convolution, norm = children[before], children[name]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(part, before, fuse_conv_bn_eval(convolution, norm))
            setattr(part, name, nn.Identity())


def _is_scale(convolution: nn.Conv2d) -> bool:
    one_by_one = convolution.kernel_size == (1, 1) and convolution.stride == (1, 1)
    return one_by_one and convolution.groups == convolution.in_channels and convolution.weight.shape[1] == 1


class Scale(nn.Module):
    """A 1x1 convolution of each channel alone, as the product that it is."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        if convolution.bias is not None:
            raise ValueError("a channel-wise 1x1 convolution with a bias is no product")
        self.weight = nn.Parameter(convolution.weight.detach().reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class BandedResidualPooling(nn.Module):
    """Chained residual pooling with the banded pool; takes over the convolutions of `chain`."""

    def __init__(self, chain: ChainedResidualPooling) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(chain.children())
        for i, convolution in enumerate(self.convolutions):
            if isinstance(convolution, nn.Conv2d) and _is_scale(convolution):
                self.convolutions[i] = Scale(convolution)

    def forward(self, x: Tensor) -> Tensor:
        top, total = x, None
        for convolution in self.convolutions:
            pooled = max_pool_5x5(top)
            # what the pool returned is nobody else's: it may be overwritten
            top = pooled.mul_(convolution.weight) if isinstance(convolution, Scale) else convolution(pooled)
            total = x + top if total is None else total.add_(top)
        return x if total is None else total


def max_pool_5x5(x: Tensor) -> Tensor:
    """`F.max_pool2d(x, 5, stride=1, padding=2)` of (B, C, H, W), exactly; fast on a CPU in channels_last order.

    Maxima of two, then four, then five neighbours, first down, then across: six comparisons a pixel in place of 24.
    """
    if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
        return F.max_pool2d(x, 5, stride=1, padding=2)
    rows_first = x.permute(0, 2, 3, 1)
    batch, height, width, channels = rows_first.shape
    band = min(height, max(1, _BAND_BYTES // (batch * width * channels * x.element_size())))
    out = torch.empty_like(rows_first)
    # columns: maxima of five rows, between two columns of -inf on each side
    columns = x.new_full((batch, band, width + 4, channels), -torch.inf)
    two_rows, two_columns = x.new_empty((batch, band + 3, width, channels)), torch.empty_like(columns[:, :, 1:])
    for top in range(0, height, band):
        n = min(band, height - top)
        above, below = max(2 - top, 0), max(top + n + 2 - height, 0)  # rows outside the image
        source = rows_first[:, max(top - 2, 0) : top + n + 2]
        if above or below:
            source = F.pad(source, (0, 0, 0, 0, above, below), value=-torch.inf)
        pairs = torch.maximum(source[:, : n + 3], source[:, 1 : n + 4], out=two_rows[:, : n + 3])
        middle = columns[:, :n, 2:-2]
        torch.maximum(pairs[:, :n], pairs[:, 2 : n + 2], out=middle)
        torch.maximum(middle, source[:, 4 : n + 4], out=middle)
        padded = columns[:, :n]
        pairs = torch.maximum(padded[:, :, :-1], padded[:, :, 1:], out=two_columns[:, :n])
        target = out[:, top : top + n]
        torch.maximum(pairs[:, :, :width], pairs[:, :, 2 : width + 2], out=target)
        torch.maximum(target, padded[:, :, 4:], out=target)
    return out.permute(0, 3, 1, 2)
