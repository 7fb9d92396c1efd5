"""The small four-stage convolutional net behind ``convnet:WIDTH``."""

import itertools
from collections import OrderedDict

from torch import Tensor, nn

STAGES = (1, 2, 4, 4)
"""Widths of the stages in units of W."""

SMALL_IMAGE = 64
"""Up to this side in pixels a stem must not shrink the image: there is nothing to spare."""


class ConvNet(nn.Module):
    """Four stages of 3x3 convolution, batch norm and ReLU: W, 2W, 4W and 4W wide.

    The image is halved between stages, rounding up, so that any side works: 8 -> 4 -> 2 -> 1.
    One convolution per stage keeps it cheap enough for a CPU. Above 64 pixels the first one
    is 7x7 with stride 4. Features are the mean over the last stage's positions.
    """

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        widths = [3, *(width * factor for factor in STAGES)]
        self.stages = nn.Sequential()
        for stage, (channels, wider) in enumerate(itertools.pairwise(widths)):
            stride = 4 if stage == 0 and image_size > SMALL_IMAGE else 1
            self.stages.append(_stage(channels, wider, stride, halve=stage > 0))

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 4W) of float images (B, 3, s, s)."""
        features: Tensor = self.stages(images).mean((2, 3))
        return features


def _stage(channels: int, width: int, stride: int, *, halve: bool) -> nn.Sequential:
    kernel = 3 if stride == 1 else 7
    conv = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if halve:
        layers["pool"] = nn.MaxPool2d(2, ceil_mode=True)
    layers |= {"conv": conv, "norm": nn.BatchNorm2d(width), "relu": nn.ReLU(inplace=True)}
    return nn.Sequential(layers)
