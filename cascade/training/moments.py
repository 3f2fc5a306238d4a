"""Optimiser moments by the names of the parameters, not by their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cascade.training.sharding import cut_like


def named_moments(
    parameters: Mapping[str, nn.Parameter], optimisers: Sequence[Optimizer]
) -> dict[str, Tensor]:
    """The moments and step counters of optimisers, as `PARAMETER:MOMENT`.

    Args:
        parameters: the optimised parameters by name.
        optimisers: the optimisers; before the first step they have no moments.
    """
    names = _names(parameters)
    return {
        f"{names[id(parameter)]}:{moment}": torch.as_tensor(value)
        for optimiser in optimisers
        for parameter, moments in optimiser.state.items()
        for moment, value in moments.items()
    }


def restore_moments(
    parameters: Mapping[str, nn.Parameter],
    optimisers: Sequence[Optimizer],
    tensors: Mapping[str, Tensor],
) -> None:
    """Load moments into optimisers.

    Args:
        parameters: the optimised parameters by name.
        optimisers: the optimisers; changed in place. Parameters without moments, which got no
            gradient so far, keep none.
        tensors: what `named_moments` returned, whole.

    Raises:
        ValueError: if there are moments of an unknown parameter.
    """
    names = _names(parameters)
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition(":")
        moments.setdefault(name, {})[moment] = tensor
    for optimiser in optimisers:
        own = [p for group in optimiser.param_groups for p in group["params"]]
        state = {
            index: _cut(moments.pop(names[id(parameter)]), parameter)
            for index, parameter in enumerate(own)
            if names[id(parameter)] in moments
        }
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
    if moments:
        raise ValueError(f"moments of an unknown parameter {min(moments)}")


def _names(parameters: Mapping[str, nn.Parameter]) -> dict[int, str]:
    return {id(parameter): name for name, parameter in parameters.items()}


def _cut(moments: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """This process's part of the moments; step counters have another shape and are not cut."""
    return {
        name: cut_like(value, parameter) if value.shape == parameter.shape else value
        for name, value in moments.items()
    }
