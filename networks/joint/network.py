"""The joint network: one image in; class scores, depth and, if asked for, normals out.

Nekrasov et al., "Real-Time Joint Semantic Segmentation and Depth Estimation Using Asymmetric Annotations", ICRA 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint.decoder import WIDTH, ChannelScale, MobileDecoder
from networks.joint.encoders import LAYERS, MEAN, STD, Layer

TASKS = ("segmentation", "depth", "normals")  # in the order in which the network returns them
ZERO_AT_FIRST = ("conv3.weight", "crp1.0.1_outvar_dimred.weight")  # of the finest level
_HEADS = {"segmentation": "segm", "depth": "depth", "normals": "normal"}  # the names in the checkpoints


class JointNetwork(MobileDecoder):
    """MobileNet-v2 with a Light-Weight RefineNet decoder and a head for each task.

    Parameters: 3,070,057 with 40 classes and two tasks; 3,077,228 with normals too. Names of parameters and buffers
    are those of the authors' checkpoints (343 keys; 346 with normals).

    Args:
        num_classes: outputs of the segmentation head.
        tasks: a prefix of ("segmentation", "depth", "normals") with at least the first two.
        layers: of the encoder; a stronger one makes a teacher.
    """

    def __init__(
        self,
        num_classes: int = 40,
        tasks: Sequence[str] = ("segmentation", "depth"),
        layers: Sequence[Layer] = LAYERS,
    ) -> None:
        if tuple(tasks) not in (TASKS[:2], TASKS):
            raise ValueError(f"tasks are {tuple(tasks)}; expected {TASKS[:2]} or {TASKS}")
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; at least one class is needed")
        super().__init__(layers, grouped=True, align_corners=False)
        self.num_classes: int = num_classes
        self.tasks = tuple(tasks)
        outputs = {"segmentation": num_classes, "depth": 1, "normals": 3}
        for task in self.tasks:
            setattr(self, f"pre_{_HEADS[task]}", ChannelScale(WIDTH))
            setattr(self, _HEADS[task], nn.Conv2d(WIDTH, outputs[task], 3, padding=1))
        self.initialise()

    def forward(self, image: Tensor, stride: int = 4) -> tuple[Tensor, ...]:
        """Scores (B, C, h, w), depth (B, 1, h, w) in metres and, with three tasks, normals (B, 3, h, w).

        `image` is (B, 3, H, W) normalised RGB (see `normalised`) of any size; h = ceil(H / 4), w = ceil(W / 4).
        Scores are before soft-max; depth may come out negative (take its absolute value, as the authors do); normals
        are not yet of unit length.
        """
        return self.decoded(self.taps(image), stride)

    def decoded(self, taps: Sequence[Tensor], stride: int = 4) -> tuple[Tensor, ...]:
        """`forward`, from the encoder's features on: they may have another reader."""
        x = self.refined(taps, stride)
        return tuple(self.head(task, x) for task in self.tasks)

    def head(self, task: str, features: Tensor) -> Tensor:
        """One task's output from the decoder's last features (B, 256, h, w)."""
        name = _HEADS[task]
        return getattr(self, name)(F.relu6(getattr(self, f"pre_{name}")(features)))

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """The parameters that only this task uses."""
        name = _HEADS[task]
        return [*getattr(self, f"pre_{name}").parameters(), *getattr(self, name).parameters()]

    @torch.no_grad()
    def initialise(self) -> None:
        """Random weights under which activations keep their size from the image to the heads.

        The authors' normal(0, 0.01) makes them vanish. The residual pools start small, so that each of the four sums
        stays near its input.
        """
        for name, part in self.named_modules():
            if not isinstance(part, nn.Conv2d):
                continue
            if name.startswith("pre_"):
                part.weight.fill_(1.0)
            elif name.startswith("crp1."):
                part.weight.fill_(0.25)
            elif name.startswith("crp"):
                nn.init.normal_(part.weight, std=0.5 / WIDTH**0.5)
            else:
                fan_in = part.weight[0].numel()
                gain = 0.1 if name in _HEADS.values() else 0.8 if name.startswith("conv_adapt") else 1.4
                nn.init.normal_(part.weight, std=gain / fan_in**0.5)
            if part.bias is not None:
                part.bias.fill_(2.5 if name == "depth" else 0.0)  # metres: the middle of a room


@torch.no_grad()
def fit_decoder(network: JointNetwork, image: Tensor) -> None:
    """Scale the random convolutions that read the encoder, so that each returns values of standard deviation 1.

    An ImageNet encoder's features have deviations of 3 to 13: unscaled, most of what is summed from them lies outside
    the range of ReLU6 and learns nothing. The finest level starts at zero, so that a training may switch it on later.

    Args:
        image: some normalised images (B, 3, H, W).
    """
    for number, features in enumerate(network.taps(image), start=3):
        convolution = getattr(network, f"conv{number}")
        convolution.weight /= convolution(features).std() + 1e-6
    for name in ZERO_AT_FIRST:
        network.get_parameter(name).zero_()


def normalised(image: Tensor) -> Tensor:
    """The network's input (B, 3, H, W) of uint8 RGB images (B, H, W, 3): (RGB / 255 - mean) / std."""
    mean = torch.tensor(MEAN, device=image.device)
    std = torch.tensor(STD, device=image.device)
    # permuting last keeps the memory in channels_last order, which the convolutions prefer
    return ((image.float() / 255 - mean) / std).permute(0, 3, 1, 2)
