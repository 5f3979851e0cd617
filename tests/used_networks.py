"""Networks with random weights and batch norms as training leaves them."""

from __future__ import annotations

import torch

from networks.joint.network import JointNetwork


def with_used_norms(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The network with batch norms as training leaves them: not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.7, 1.3, generator=generator)
            part.weight.data.uniform_(0.8, 1.2, generator=generator)
            part.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()


def used_network() -> JointNetwork:
    """A joint network of three tasks, the same every time."""
    torch.manual_seed(0)
    return with_used_norms(JointNetwork(40, ("segmentation", "depth", "normals")))
