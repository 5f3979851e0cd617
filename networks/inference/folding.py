"""A trained network rewritten for running: the same function in fewer and faster operations.

Batch norms go into the convolutions before them, channel-wise 1x1 convolutions become products, and the 5x5 pools
are a loop of their own.
"""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Barrier

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from networks.joint.decoder import ChainedResidualPooling


def folded(network: nn.Module) -> nn.Module:
    """A copy of `network` for inference by PyTorch, in eval mode, without batch norms; it cannot be trained."""
    network = with_products(network)
    for part in list(network.modules()):
        _fold_norms_beside(part)
        for name, child in part.named_children():
            if isinstance(child, nn.Sequential):
                setattr(part, name, _without_norms(child))
            elif isinstance(child, ChainedResidualPooling):
                setattr(part, name, FastResidualPooling(child))
    return network


def with_products(network: nn.Module) -> nn.Module:
    """A copy of `network`, in eval mode, whose channel-wise 1x1 convolutions are products."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.Conv2d) and _is_scale(child):
                setattr(part, name, Scale(child))
    return network


def for_export(network: nn.Module) -> nn.Module:
    """A copy of `network`, in eval mode, for engines that compute a graph as it is written.

    Pools in two passes, and narrow 3x3 convolutions as products and sums. Channel-wise convolutions stay: ONNX Runtime
    keeps its memory layout through them.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, ChainedResidualPooling):
                setattr(part, name, TwoPassResidualPooling(child))
            elif isinstance(child, nn.Conv2d) and _is_narrow(child):
                setattr(part, name, NarrowConvolution(child))
    return network


def _without_norms(chain: nn.Sequential) -> nn.Sequential:
    """The chain with each batch norm folded into the convolution before it; the same object if there is none."""
    parts: list[nn.Module] = []
    for part in chain:
        if isinstance(part, nn.BatchNorm2d) and parts and isinstance(parts[-1], nn.Conv2d):
            parts[-1] = fuse_conv_bn_eval(parts[-1], part)
        else:
            parts.append(part)
    return nn.Sequential(*parts) if len(parts) < len(chain) else chain


def _fold_norms_beside(part: nn.Module) -> None:
    """Fold bnK into convK, as the blocks of ResNets name them."""
    children = dict(part.named_children())
    for name, norm in children.items():
        convolution = children.get(f"conv{name[2:]}")
        if name.startswith("bn") and isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            setattr(part, f"conv{name[2:]}", fuse_conv_bn_eval(convolution, norm))
            setattr(part, name, nn.Identity())


def _is_scale(convolution: nn.Conv2d) -> bool:
    one_by_one = convolution.kernel_size == (1, 1) and convolution.stride == (1, 1)
    alone = convolution.groups == convolution.in_channels == convolution.out_channels
    return one_by_one and alone and convolution.bias is None


def _is_narrow(convolution: nn.Conv2d) -> bool:
    plain = convolution.stride == convolution.dilation == (1, 1) and convolution.groups == 1
    same_size = convolution.kernel_size == (3, 3) and convolution.padding == (1, 1)
    return plain and same_size and convolution.out_channels <= 3 < convolution.in_channels


class NarrowConvolution(nn.Module):
    """A 3x3 convolution to a few channels as a 1x1 convolution to nine times as many, moved and summed.

    Engines pad outputs to 8 or 16 channels: one channel of depth at 3x3 costs them as much as eight.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs = convolution.weight.shape[:2]
        self.products = nn.Conv2d(inputs, 9 * outputs, 1, bias=False)
        self.sums = nn.Conv2d(9 * outputs, outputs, 3, padding=1, bias=convolution.bias is not None)
        with torch.no_grad():
            self.products.weight.copy_(convolution.weight.permute(0, 2, 3, 1).reshape(9 * outputs, inputs, 1, 1))
            self.sums.weight.copy_(torch.eye(9 * outputs).reshape(outputs, 9, 9 * outputs).permute(0, 2, 1)
                                   .reshape(outputs, 9 * outputs, 3, 3))  # fmt: skip
            if self.sums.bias is not None and convolution.bias is not None:
                self.sums.bias.copy_(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.sums(self.products(x))


class Scale(nn.Module):
    """A 1x1 convolution of each channel alone, as the product that it is."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach().reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class FastResidualPooling(nn.Module):
    """Chained residual pooling with the faster pool; takes over the convolutions of `chain`."""

    def __init__(self, chain: ChainedResidualPooling) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(chain.children())
        _threads()

    def forward(self, x: Tensor) -> Tensor:
        top, total = x, None
        for convolution in self.convolutions:
            pooled = max_pool_5x5(top)
            # what the pool returned is nobody else's: it may be overwritten
            top = pooled.mul_(convolution.weight) if isinstance(convolution, Scale) else convolution(pooled)
            total = x + top if total is None else total.add_(top)
        return x if total is None else total


class TwoPassResidualPooling(nn.Module):
    """Chained residual pooling whose 5x5 maximum is one along rows, then one along columns.

    The same numbers from 10 comparisons a pixel instead of 25. Takes over the convolutions of `chain`.
    """

    def __init__(self, chain: ChainedResidualPooling) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(chain.children())

    def forward(self, x: Tensor) -> Tensor:
        top = x
        for convolution in self.convolutions:
            along_rows = F.max_pool2d(top, (1, 5), stride=1, padding=(0, 2))
            top = convolution(F.max_pool2d(along_rows, (5, 1), stride=1, padding=(2, 0)))
            x = x + top
        return x


def max_pool_5x5(x: Tensor) -> Tensor:
    """`F.max_pool2d(x, 5, stride=1, padding=2)` of (B, C, H, W), exactly; fast on a CPU in channels_last order.

    Down first, into a row that stays in the cache, then across: 8 comparisons a pixel and one pass over the memory,
    where PyTorch makes 24 and notes where the maximum was.
    """
    if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
        return F.max_pool2d(x, 5, stride=1, padding=2)
    if x.dtype != torch.float32:  # NumPy has no bfloat16; rounding commutes with the maximum
        return max_pool_5x5(x.float()).to(x.dtype)
    image = x.permute(0, 2, 3, 1).numpy()
    out = np.empty_like(image)
    height = image.shape[1]
    # Threads of Python, not of OpenMP: these wait asleep, so that 16 pools in a row are no worse on a busy computer.
    parts = torch.get_num_threads() if image.size >= _WORTH_A_THREAD else 1
    edges = [height * i // parts for i in range(parts + 1)]
    waiting = [_threads().submit(pool_rows, image, out, top, end) for top, end in pairwise(edges[1:])]
    pool_rows(image, out, edges[0], edges[1])
    for part in waiting:
        part.result()
    return torch.from_numpy(out).permute(0, 3, 1, 2)


_WORTH_A_THREAD = 1 << 21  # numbers in an image below which one thread is faster


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that all networks share, begun by the thread that loads the first one: its priority is theirs, and a
    network may be called by a thread of low priority before it is called by one whose frame waits."""
    count = os.cpu_count() or 1
    threads, all_there = ThreadPoolExecutor(count, thread_name_prefix="pool"), Barrier(count)
    for _ in range(count):
        threads.submit(all_there.wait)
    return threads


# These two flags let LLVM use the vector maximum; they change nothing where there is no NaN.
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz"})
def pool_rows(x, out, first, last):
    """Rows first .. last - 1 of the 5x5 maximum of x (B, H, W, C) into out."""
    batch, height, width, channels = x.shape
    row = np.empty((width + 4, channels), x.dtype)  # the maximum of five rows, between two columns of -inf
    row[:2] = -np.inf
    row[width + 2 :] = -np.inf
    for n in range(batch):
        for r in range(first, last):
            # at the border a row counts twice, which changes no maximum
            a, b, c = x[n, max(r - 2, 0)], x[n, max(r - 1, 0)], x[n, r]
            d, e = x[n, min(r + 1, height - 1)], x[n, min(r + 2, height - 1)]
            for w in range(width):
                for k in range(channels):
                    row[w + 2, k] = max(max(max(a[w, k], b[w, k]), max(d[w, k], e[w, k])), c[w, k])
            for w in range(width):
                for k in range(channels):
                    pair, other = max(row[w, k], row[w + 1, k]), max(row[w + 3, k], row[w + 4, k])
                    out[n, r, w, k] = max(max(pair, other), row[w + 2, k])
