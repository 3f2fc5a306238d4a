"""Distances between results and originals in the features of networks: PD-EffLite0 and LPIPS.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from cascade.errors import WeightsError
from cascade.evaluation.published_weights import import_package, load_state
from cascade.networks.perceptual import tap_distance
from cascade.resizing import quantise
from cascade.vision.efficientnet import EfficientNetLite, load_efficientnet

ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"

Distance = Callable[[Tensor, Tensor], Tensor]  # of results and originals (B, 3, H, W): (B,)


def distances_on(
    device: torch.device, *, lpips: bool = False, lpips_path: Path | None = None
) -> dict[str, Distance]:
    """Load the distances by name: PD-EffLite0, and LPIPS on request.

    Args:
        device: device of the networks.
        lpips: whether to measure LPIPS, with a download of AlexNet's weights.
        lpips_path: file with AlexNet's weights, to measure LPIPS without a download.

    Raises:
        CascadeError: if a package is missing.
        WeightsError: if weights cannot be loaded.
    """
    lite = load_efficientnet("lite0").to(device)
    distances = {f"PD-{lite.name}": _on(device, lambda a, b: perceptual_distance(lite, a, b))}
    if lpips or lpips_path is not None:
        learned = LearnedDistance(lpips_path)
        learned.network.to(device)
        distances["LPIPS-AlexNet"] = _on(device, learned)
    return distances


def _on(device: torch.device, distance: Distance) -> Distance:
    return lambda images, truth: distance(images.to(device), truth.to(device)).cpu()


@torch.no_grad()
def perceptual_distance(
    extractor: EfficientNetLite, images: Tensor, truth: Tensor, *, batch_size: int = 16
) -> Tensor:
    """Compute PD-EffLite: the distance of feature maps, as LPIPS but without learned weights.

    At each tap of the extractor, features are scaled to length 1 over the channels at every place.
    The squared length of their difference is averaged over places and summed over taps (Zhang et
    al. 2018, arXiv 1801.03924, eq. 1 with w = 1). Images are not resized.

    Args:
        extractor: the network.
        images: (B, 3, H, W) in [-1, 1], results.
        truth: (B, 3, H, W) in [-1, 1], their originals.
        batch_size: number of images in one forward pass.

    Returns:
        (B,), from 0 for equal images to at most 4 per tap.
    """
    parts = zip(quantise(images).split(batch_size), quantise(truth).split(batch_size), strict=True)
    return torch.cat(
        [
            torch.stack(
                [tap_distance(*taps) for taps in zip(*map(extractor.taps, pair), strict=True)]
            ).sum(dim=0)
            for pair in parts
        ]
    )


@final
class LearnedDistance:
    """LPIPS, version 0.1 on AlexNet (Zhang et al. 2018, arXiv 1801.03924).

    Args:
        weights: a copy of `alexnet-owt-7be5be79.pth`; default: a download.

    Raises:
        CascadeError: if the package lpips is not installed.
        WeightsError: if the weights cannot be loaded.
    """

    def __init__(self, weights: Path | None = None) -> None:
        module = import_package("lpips")
        state = load_state("AlexNet", ALEXNET_URL, weights, "lpips_path")
        with redirect_stdout(None):  # it prints what it loads
            self.network = module.LPIPS(net="alex", pnet_rand=True).eval().requires_grad_(False)
        try:
            for name, parameter in self.network.net.named_parameters():
                parameter.copy_(state[f"features.{name.partition('.')[2]}"])
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"{weights or ALEXNET_URL}: not the weights of AlexNet.") from error

    @torch.no_grad()
    def __call__(self, images: Tensor, truth: Tensor) -> Tensor:
        """Compute distances (B,) of images (B, 3, H, W) in [-1, 1] from their originals."""
        return self.network(quantise(images), quantise(truth)).view(-1)
