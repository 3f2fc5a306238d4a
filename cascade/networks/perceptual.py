"""Distances of images in the features of a frozen network, with gradients, for losses and metrics.

`efflite0` compares features of EfficientNet-Lite0, whose weights come in a package. `lpips` is that
of the package `lpips` on VGG-16 (Zhang et al. 2018, arXiv 1801.03924), whose weights must be on
this machine already: the package itself would fetch them.

Shapes: B images, C channels, H and W pixels; c channels of a feature map, h and w its size.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from cascade.arguments import shown
from cascade.errors import CascadeError, ContractError, WeightsError, nearest
from cascade.extras import install_command
from cascade.vision.efficientnet import EfficientNetTrunk, load_efficientnet

PerceptualKind = Literal["none", "efflite0", "lpips"]
Distance = Callable[[Tensor, Tensor], Tensor]  # of two batches (B, 3, H, W) in [-1, 1]: (B,)
TAP_EPS = 1e-10
COARSEST_TAP = 5  # finer groups see edges and textures, which is what a blurry image lacks
VGG_FILE = "vgg16-397923af.pth"


def tap_distance(first: Tensor, second: Tensor) -> Tensor:
    """The distance (B,) of feature maps (B, c, h, w), scaled to length 1 over the channels."""
    unit = [tap / (tap.norm(dim=1, keepdim=True) + TAP_EPS) for tap in (first, second)]
    return (unit[0] - unit[1]).square().sum(dim=1).mean(dim=(1, 2))


def check_distance(kind: Any) -> None:
    """Check the kind of a distance.

    Raises:
        ContractError: for an unknown kind; the message offers the nearest.
    """
    kinds = get_args(PerceptualKind)
    if kind not in kinds:
        raise ContractError(
            f"unknown perceptual distance {shown(kind)}: {nearest(str(kind), kinds)}"
        )


def load_distance(kind: str, device: torch.device) -> Distance | None:
    """Load a distance that a loss can use.

    Args:
        kind: `none`, `efflite0` or `lpips`.
        device: device of the network.

    Returns:
        None for `none`.

    Raises:
        ContractError: for an unknown kind.
        CascadeError: if a package or its weights are missing.
    """
    check_distance(kind)
    if kind == "none":
        return None
    network = _efflite() if kind == "efflite0" else _lpips()
    network = network.to(device).eval().requires_grad_(False)
    return lambda images, truth: network(images, truth)


class _TapDistance(nn.Module):
    """The mean over the taps of a trunk of the distance of its features."""

    def __init__(self, trunk: EfficientNetTrunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            aims = self.trunk.taps(truth)
        taps = self.trunk.taps(images)
        pairs = zip(taps, aims, strict=True)
        return torch.stack([tap_distance(a.float(), b.float()) for a, b in pairs]).mean(dim=0)


def _efflite() -> nn.Module:
    whole = load_efficientnet("lite0")
    trunk = EfficientNetTrunk(size="lite0", groups=COARSEST_TAP)
    names = trunk.state_dict().keys()
    trunk.load_state_dict({name: whole.state_dict()[name] for name in names})
    return _TapDistance(trunk)


def _lpips() -> nn.Module:
    try:
        lpips = importlib.import_module("lpips")
    except ImportError as error:
        raise CascadeError(
            f"lpips cannot be imported ({error}); install it with: {install_command('extractors')}"
        ) from error
    file = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if not file.is_file():
        raise WeightsError(
            f"LPIPS needs the weights of VGG-16 in {file}; put them there, or use another "
            "perceptual distance: efflite0 or none."
        )
    with redirect_stdout(None):  # it prints what it loads
        network = lpips.LPIPS(net="vgg")
    return _Flat(network)


class _Flat(nn.Module):
    """LPIPS as (B,)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, truth: Tensor) -> Tensor:
        return self.network(images, truth).view(-1)
