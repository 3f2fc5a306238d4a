"""Weights for conditions and a gate that only a new stage has.

What they add is zero until they are trained, so that the new stage begins with the outputs of the
trained one. The exception are new tokens for cross-attention that is trained already.

Shapes: O output channels, C input channels, K height and width of a kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.networks.backbone_network import BackboneNetwork

PARTS = "network.embedding.parts."
TOKENS = "network.tokens.parts."
# The layers between the sum of the vectors and the network, and the last of each.
PROJECTIONS = {
    "network.backbone.class_embedding.": "network.backbone.class_embedding.linear_2.",
    "network.backbone.condition_embedding.": "network.backbone.condition_embedding.",
}
LAST = "network.backbone.conv_out."
Weights = dict[str, Tensor]


def new_vectors(stage: DiffusionStage, trained: DiffusionStage) -> dict[str, Weights]:
    """The weights by which vectors enter that only the new stage has, by what they are.

    One layer at the end of each path is zero. Where the trained stage has no vectors at all, that
    is the projection of their sum, and the embeddings begin with random values.
    """
    own, source = stage.state_dict(), trained.state_dict()
    projection = {
        name: _zero_if(name.startswith(last), own[name])
        for start, last in PROJECTIONS.items()
        for name in own
        if name.startswith(start) and name not in source
    }
    names = stage.contract.slots.keys() - trained.contract.slots.keys()
    parts = {name: _part(own, f"{PARTS}{name}.", silent=not projection) for name in names}
    found = {f"vector of {name}": weights for name, weights in sorted(parts.items()) if weights}
    found |= _new_tokens(own, source, names)
    return {"projection of vectors": projection, **found} if projection else found


def _new_tokens(
    own: Mapping[str, Tensor], source: Mapping[str, Tensor], names: Collection[str]
) -> dict[str, Weights]:
    """The projections of tokens that only the new stage has, where the trained one has others.

    They begin with random values: the cross-attention behind them is trained already, and would
    not begin to read a token that is zero.
    """
    if not any(name.startswith(TOKENS) for name in source):
        return {}
    starts = {name: f"{TOKENS}{name}." for name in sorted(names)}
    parts = {
        name: {each: own[each] for each in own if each.startswith(start)}
        for name, start in starts.items()
    }
    return {f"tokens of {name}": weights for name, weights in parts.items() if weights}


def _part(own: Mapping[str, Tensor], start: str, *, silent: bool) -> Weights:
    """The embedding of one vector; its last layer, or its tables, are zero if it is silent."""
    names = [name for name in own if name.startswith(start)]
    last = [name for name in names if ".linear_1." not in name]
    return {name: _zero_if(silent and name in last, own[name]) for name in names}


def _zero_if(is_zero: bool, weights: Tensor) -> Tensor:
    return torch.zeros_like(weights) if is_zero else weights


def widened_inputs(stage: DiffusionStage, trained: DiffusionStage) -> dict[str, Tensor]:
    """The first layers (O, C, K, K) for images that only the new stage is conditioned on.

    The channels of the images that both have keep their weights, wherever they are now; those of
    new images are zero.
    """
    own, source = stage.state_dict(), trained.state_dict()
    places, before = _channels(stage), _channels(trained)
    is_known = isinstance(stage.network, BackboneNetwork)
    if not is_known or not places.keys() > before.keys():
        return {}
    return {
        name: _widened(weights, source[name], places, before, stage)
        for name, weights in own.items()
        if name in source and weights.ndim == 4 and _is_wider(weights, source[name])
    }


def new_gate(stage: DiffusionStage, trained: DiffusionStage) -> Weights:
    """The last layer, (O, C, K, K) and (O,), of a stage that is gated and whose start is not.

    Raises:
        WeightsError: if only the start is gated, or if one of both learns variances: the channels
            of a gate would pass for those of variances.
    """
    network, before = stage.network, trained.network
    if not (isinstance(network, BackboneNetwork) and isinstance(before, BackboneNetwork)):
        return {}
    if network.gated == before.gated:
        return {}
    if before.gated:
        raise WeightsError(
            "cannot start from that stage: its network is gated; use network.gated=true."
        )
    if stage.process.learned_variance != trained.process.learned_variance:
        raise WeightsError(
            "cannot start from that stage: one of the two learns variances and the other does not, "
            "and this one has a gate that the other lacks."
        )
    own, source = stage.state_dict(), trained.state_dict()
    return {
        name: torch.cat([source[name], torch.zeros_like(own[name][len(source[name]) :])])
        for name in (f"{LAST}weight", f"{LAST}bias")
        if source[name].shape[1:] == own[name].shape[1:]
    }


def _is_wider(weights: Tensor, source: Tensor) -> bool:
    same = weights.shape[0] == source.shape[0] and weights.shape[2:] == source.shape[2:]
    return same and weights.shape[1] > source.shape[1]


def _channels(stage: DiffusionStage) -> dict[str, range]:
    """The places of the noisy image, called x_t, and of conditioning images among the channels."""
    counts = {"x_t": stage.space.channels}
    counts |= {name: slot.channels for name, slot in stage.contract.slots.items() if slot.channels}
    places: dict[str, range] = {}
    first = 0
    for name, count in counts.items():
        places[name] = range(first, first + count)
        first += count
    return places


def _widened(
    weights: Tensor,
    source: Tensor,
    places: Mapping[str, range],
    before: Mapping[str, range],
    stage: DiffusionStage,
) -> Tensor:
    """One first layer; each channel of an image stands for a square of pixels in a patch."""
    network: Any = stage.network
    square = network.patch_size**2
    last, last_before = (square * max(p.stop for p in each.values()) for each in (places, before))
    wide = torch.zeros_like(weights)
    for name, old in before.items():
        new = places[name]
        wide[:, square * new.start : square * new.stop] = source[
            :, square * old.start : square * old.stop
        ]
    wide[:, last:] = source[:, last_before:]  # features of an encoder come last
    return wide
