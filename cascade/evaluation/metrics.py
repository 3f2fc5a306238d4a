"""How near results are to the truth, how real they look as a set, and how true to their input.

Conventions, the same for every metric: RGB, all pixels (no border is cut off), results rounded to
8 bits first, levels of 255. Metrics on EfficientNet features carry its name, such as KID-EffLite0,
and are not comparable with those on other networks. Figures of sets depend on the number of
images: state it with them.

Shapes: B images, C channels, H and W pixels, h and w of a small image, N and M samples, F features.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cascade.errors import CascadeError, ContractError
from cascade.networks.efficientnet import EfficientNetLite
from cascade.resizing import ResizeKernel, quantise, resize

KID_SUBSETS = 100
KID_SUBSET_IMAGES = 100
TAP_EPS = 1e-10


class KernelDistance(NamedTuple):
    """KID, times 1000: its mean over subsets and their standard deviation."""

    mean: float
    std: float


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all three channels.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        truth: the same.

    Returns:
        (B,) in dB; infinite where they are equal.
    """
    from_truth = (_levels(images) - _levels(truth)).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(255**2 / from_truth)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity with a Gaussian window of 11 px and sigma 1.5, mean over RGB.

    Wang et al. 2004, as torchmetrics has it.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        truth: the same.

    Returns:
        (B,), 1 where they are equal.

    Raises:
        CascadeError: if torchmetrics is not installed.
    """
    similarity = _torchmetrics().functional.image.structural_similarity_index_measure
    return similarity(_levels(images), _levels(truth), data_range=255.0, reduction="none").view(-1)


@torch.no_grad()
def perceptual_distance(
    extractor: EfficientNetLite, images: Tensor, truth: Tensor, *, batch_size: int = 16
) -> Tensor:
    """PD-EffLite: the distance of feature maps, as in LPIPS but without learned weights.

    At each tap of the extractor, features are scaled to length 1 over the channels at every place;
    the squared length of their difference is averaged over places and summed over taps (Zhang et
    al. 2018, arXiv 1801.03924, eq. 1 with w = 1). Images go in as they are, without resizing.

    Args:
        extractor: EfficientNet-Lite.
        images: (B, 3, H, W) in [-1, 1].
        truth: the same.
        batch_size: images in one forward.

    Returns:
        (B,), from 0 for equal images to at most 4 per tap.
    """
    parts = zip(quantise(images).split(batch_size), quantise(truth).split(batch_size), strict=True)
    return torch.cat(
        [
            torch.stack(
                [_tap_distance(*taps) for taps in zip(*map(extractor.taps, pair), strict=True)]
            ).sum(dim=0)
            for pair in parts
        ]
    )


def _tap_distance(first: Tensor, second: Tensor) -> Tensor:
    unit = [tap / (tap.norm(dim=1, keepdim=True) + TAP_EPS) for tap in (first, second)]
    return (unit[0] - unit[1]).square().sum(dim=1).mean(dim=(1, 2))  # (B,)


def kernel_distance(
    features: Tensor,
    truth: Tensor,
    *,
    subsets: int = KID_SUBSETS,
    subset_images: int = KID_SUBSET_IMAGES,
    seed: int = 0,
) -> KernelDistance:
    """KID: the unbiased squared MMD of two feature sets with the kernel (x . y / F + 1)^3.

    Bińkowski et al. 2018, arXiv 1801.01401. Unlike the Fréchet distance it is not biased by few
    images, and can be slightly negative for equal distributions.

    Args:
        features: (N, F) of the results.
        truth: (M, F).
        subsets: how many are drawn and averaged.
        subset_images: size of each; all images where there are fewer.
        seed: of the drawing.

    Raises:
        CascadeError: if torchmetrics is not installed.
        ContractError: if a set has fewer than 2 images.
    """
    _check_two("KID", features, truth)
    size = min(subset_images, len(features), len(truth))
    with warnings.catch_warnings():  # that the features are kept, which is known here
        warnings.simplefilter("ignore")
        distance = _torchmetrics().image.kid.KernelInceptionDistance(
            feature=nn.Identity(), subsets=subsets, subset_size=size
        )
    distance.update(truth, real=True)
    distance.update(features, real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws from the global generator
        torch.manual_seed(seed)
        mean, std = distance.compute()
    return KernelDistance(1000 * float(mean), 1000 * float(std))


def frechet_distance(features: Tensor, truth: Tensor) -> float:
    """Fréchet distance of two feature sets, each taken as a Gaussian (Heusel et al. 2017).

    tr (C1 C2)^(1/2) is the sum of the singular values of A B^T where C1 = A^T A and C2 = B^T B:
    exact where the samples are fewer than the features, for which libraries take the roots of the
    eigenvalues of a singular matrix.

    Args:
        features: (N, F), N at least 2.
        truth: (M, F).

    Raises:
        ContractError: if a set has fewer than 2 images.
    """
    _check_two("the Fréchet distance", features, truth)
    roots = [_covariance_root(each) for each in (features, truth)]
    cross = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    traces = torch.stack([root.square().sum() for root in roots]).sum()
    means = (features.mean(dim=0) - truth.mean(dim=0)).square().sum()
    return float(means + traces - 2 * cross)


def _covariance_root(features: Tensor) -> Tensor:
    """A (N or F, F) with A^T A the covariance of features (N, F): never more than F rows."""
    root = (features - features.mean(dim=0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


def low_res_error(images: Tensor, low_res: Tensor, kernel: ResizeKernel = "bicubic") -> Tensor:
    """LR-consistency: how far the results, made small again, are from what they were made of.

    Rounding the result to 8 bits alone makes it about 0.01.

    Args:
        images: (B, C, H, W) in [-1, 1], results.
        low_res: (B, C, h, w) in [-1, 1], the inputs.
        kernel: of the antialiased resizing.

    Returns:
        (B,) mean squared error in squared levels of 255.
    """
    small = resize(quantise(images), (low_res.shape[-2], low_res.shape[-1]), kernel)
    return ((small - low_res) * 127.5).square().flatten(1).mean(dim=1)


def colourfulness(images: Tensor) -> Tensor:
    """How colourful images are: Hasler & Süsstrunk 2003, eq. 13 (their M3), 0 for grey.

    Args:
        images: (B, 3, H, W) in [-1, 1].

    Returns:
        (B,); about 15 is slightly and 109 extremely colourful.
    """
    red, green, blue = _levels(images).flatten(2).unbind(dim=1)  # (B, H W) each
    opponents = torch.stack([red - green, (red + green) / 2 - blue])
    spread = opponents.var(dim=2, unbiased=False).sum(dim=0).sqrt()
    return spread + 0.3 * opponents.mean(dim=2).square().sum(dim=0).sqrt()


def _check_two(what: str, features: Tensor, truth: Tensor) -> None:
    size = min(len(features), len(truth))
    if size < 2:
        raise ContractError(f"{what} needs at least 2 images in each set, got {size}; add images.")


def _levels(images: Tensor) -> Tensor:
    return (quantise(images) + 1) * 127.5


def _torchmetrics() -> Any:
    try:
        import torchmetrics
        import torchmetrics.functional.image
        import torchmetrics.image.kid
    except ImportError as error:
        raise CascadeError(
            f"torchmetrics cannot be imported ({error}); install it with: "
            'pip install "cascade-diffusion[evaluate]"'
        ) from error
    return torchmetrics
