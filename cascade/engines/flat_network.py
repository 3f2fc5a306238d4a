"""A stage's network with plain tensors as inputs, which is what other engines understand.

Shapes: B batch, C channels, H and W pixels, N tokens, F label fields, E features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from cascade.conditioning.signals import ChannelSignal, Signals, TokenSignal
from cascade.conditioning.slots import Classes, Dense, Slots
from cascade.networks.backbone_network import BackboneNetwork
from cascade.networks.stage_network import StageNetwork

IMAGE, TIME, FEATURES = "x_t", "t", "features"
CHANNELS, VECTORS, TOKENS, MASK = "image", "vector", "tokens", "mask"
EXAMPLE_BATCH = 3
EXAMPLE_TOKENS = 5


def flattened(signals: Signals) -> dict[str, Tensor]:
    """All tensors of prepared signals, by names that are the same at every call."""
    tensors = {f"{CHANNELS}.{name}": each.image for name, each in signals.channels.items()}
    tensors |= {f"{VECTORS}.{name}": each for name, each in signals.vectors.items()}
    for name, each in signals.tokens.items():
        tensors |= {f"{TOKENS}.{name}": each.tokens, f"{MASK}.{name}": each.mask}
    return tensors if signals.features is None else {**tensors, FEATURES: signals.features}


def gathered(tensors: Mapping[str, Tensor]) -> Signals:
    """The signals whose tensors `flattened` returned."""
    kinds: dict[str, dict[str, Tensor]] = {CHANNELS: {}, VECTORS: {}, TOKENS: {}, MASK: {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        if kind in kinds:
            kinds[kind][name] = tensor
    masks = kinds[MASK]
    return Signals(
        channels={name: ChannelSignal(image) for name, image in kinds[CHANNELS].items()},
        vectors=kinds[VECTORS],
        tokens={name: TokenSignal(each, masks[name]) for name, each in kinds[TOKENS].items()},
        features=tensors.get(FEATURES),
    )


@final
class FlatNetwork(nn.Module):
    """A network that takes the tensors of its signals by name.

    Args:
        network: the network.
    """

    def __init__(self, network: StageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Args: as for `StageNetwork`, with flattened signals. Returns: (B, C, H, W)."""
        return self.network(x_t, t, gathered(tensors))


def example_inputs(
    network: StageNetwork, channels: int, size_px: tuple[int, int], slots: Mapping[str, Slots]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Inputs of the shapes and types that a network gets in sampling.

    Args:
        network: the network.
        channels: number of channels C of the noisy image.
        size_px: height and width of its images.
        slots: how each condition enters, by its name.

    Returns:
        Images, times and flattened signals of a batch; height and width differ.
    """
    height, width = size_px[0], size_px[1] + network.size_multiple_px
    batch = EXAMPLE_BATCH
    images = {
        f"{CHANNELS}.{name}": torch.zeros(batch, each.channels, height, width)
        for name, each in slots.items()
        if each.channels
    }
    vectors = {
        f"{VECTORS}.{name}": _example_vector(each.vector)
        for name, each in slots.items()
        if each.vector is not None
    }
    tokens: dict[str, Tensor] = {}
    for name, each in slots.items():
        if each.tokens:
            tokens[f"{TOKENS}.{name}"] = torch.zeros(batch, EXAMPLE_TOKENS, each.tokens)
            tokens[f"{MASK}.{name}"] = torch.ones(batch, EXAMPLE_TOKENS, dtype=torch.bool)
    signals = {**images, **vectors, **tokens}
    if isinstance(network, BackboneNetwork) and network.encoder is not None:
        sides = (height // network.patch_size, width // network.patch_size)
        signals[FEATURES] = torch.zeros(batch, network.encoder.config["channels"], *sides)
    times = torch.zeros(batch, dtype=torch.long)
    return torch.zeros(batch, channels, height, width), times, signals


def dynamic_shapes(tensors: Mapping[str, Tensor]) -> dict[str, dict[int, Any]]:
    """The dimensions of flattened signals that may differ between calls."""
    auto = torch.export.Dim.AUTO
    shapes: dict[str, dict[int, Any]] = {}
    for key in tensors:
        kind = key.partition(".")[0]
        if kind in (CHANNELS, FEATURES):
            shapes[key] = {0: auto, 2: auto, 3: auto}
        else:
            shapes[key] = {0: auto, 1: auto} if kind in (TOKENS, MASK) else {0: auto}
    return shapes


def _example_vector(slot: Any) -> Tensor:
    if isinstance(slot, Classes):
        return torch.zeros(EXAMPLE_BATCH, len(slot.sizes), dtype=torch.long)
    return torch.zeros(EXAMPLE_BATCH, *((slot.width,) if isinstance(slot, Dense) else ()))
