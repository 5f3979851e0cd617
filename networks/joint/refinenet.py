"""Light-Weight RefineNet for one task: the teacher that labels what nobody labelled, and the small single-task net.

Nekrasov et al., "Light-Weight RefineNet for Real-Time Semantic Segmentation", BMVC 2018. Names of parameters and
buffers are those of the released checkpoints. Unlike the joint network, upsampling aligns corners.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint.decoder import WIDTH, ChainedResidualPooling, MobileDecoder, conv1x1, upsampled
from networks.joint.resnet import ResNet


class ResNetRefineNet(ResNet):
    """Light-Weight RefineNet on ResNet-50, -101 or -152 (27,401,320, 46,393,448, 62,037,096 parameters at 40 classes).

    Dropout of one half on the two deepest features acts in training only.
    """

    def __init__(self, depth: int = 152, num_classes: int = 40) -> None:
        super().__init__(depth)
        self.num_classes = num_classes
        # stage 1 is the deepest: it works with 512 channels, the others with 256
        widths = (2 * WIDTH, WIDTH, WIDTH, WIDTH)
        for stage, (inputs, width) in enumerate(zip(reversed(self.channels), widths, strict=True), start=1):
            setattr(self, f"p_ims1d2_outl{stage}_dimred", conv1x1(inputs, width))
            if stage > 1:
                setattr(self, f"adapt_stage{stage}_b2_joint_varout_dimred", conv1x1(WIDTH, WIDTH))
            setattr(self, f"mflow_conv_g{stage}_pool", nn.Sequential(ChainedResidualPooling(width)))
            if stage < 4:
                setattr(self, f"mflow_conv_g{stage}_b3_joint_varout_dimred", conv1x1(width, WIDTH))
        self.clf_conv = nn.Conv2d(WIDTH, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (B, C, H / 4, W / 4), before soft-max, of a normalised image (B, 3, H, W)."""
        l1, l2, l3, l4 = self.taps(image)
        l3, l4 = F.dropout(l3, 0.5, self.training), F.dropout(l4, 0.5, self.training)
        x = self._part("mflow_conv_g1_pool", F.relu(self._part("p_ims1d2_outl1_dimred", l4)))
        for stage, skip in enumerate((l3, l2, l1), start=2):
            x = self._part(f"mflow_conv_g{stage - 1}_b3_joint_varout_dimred", x)
            x = upsampled(x, skip, align_corners=True)
            skip = self._part(f"p_ims1d2_outl{stage}_dimred", skip)
            skip = self._part(f"adapt_stage{stage}_b2_joint_varout_dimred", skip)
            x = self._part(f"mflow_conv_g{stage}_pool", F.relu(skip + x))
        return self.clf_conv(x)

    def _part(self, name: str, x: Tensor) -> Tensor:
        return getattr(self, name)(x)


class MobileRefineNet(MobileDecoder):
    """Light-Weight RefineNet on MobileNet-v2: one task, 3,328,360 parameters at 40 classes."""

    def __init__(self, num_classes: int = 40) -> None:
        super().__init__(grouped=False, align_corners=True)
        self.num_classes = num_classes
        self.segm = nn.Conv2d(WIDTH, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (B, C, ceil(H / 4), ceil(W / 4)), before soft-max, of a normalised image (B, 3, H, W)."""
        return self.segm(self.refined(self.taps(image)))


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {  # name -> the network for that many classes
    "refinenet-lw-50": lambda num_classes: ResNetRefineNet(50, num_classes),
    "refinenet-lw-101": lambda num_classes: ResNetRefineNet(101, num_classes),
    "refinenet-lw-152": lambda num_classes: ResNetRefineNet(152, num_classes),
    "refinenet-lw-mobilenet": MobileRefineNet,
}
