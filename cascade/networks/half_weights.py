"""Copies of networks that sample faster in bfloat16 on a CPU.

Under autocast, every call converts the weights of convolutions and linear layers anew. A copy holds
them in bfloat16 already, with the channels of convolutions last in memory, so that its results are
those of the original but for the order of sums.
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def with_half_weights(module: Module) -> Module:
    """Copy a module for sampling under autocast; the copy shares all tensors that stay in float32.

    A module that is compiled, sharded or not in float32 is returned as it is.
    """
    if not _is_plain(module):
        return module
    return _copy(module, {})


def _copy(module: Module, copies: dict[int, nn.Module]) -> Module:
    """Copy a tree of modules; a deep copy would take ten times as long."""
    if id(module) in copies:
        return cast("Module", copies[id(module)])
    other = copies[id(module)] = copy.copy(module)
    other._modules = {
        name: None if child is None else _copy(child, copies)
        for name, child in module._modules.items()
    }
    if isinstance(module, nn.Conv2d | nn.Linear):
        other._parameters = {
            name: None if each is None else _half(each) for name, each in module._parameters.items()
        }
    return cast("Module", other)


def _is_plain(module: nn.Module) -> bool:
    is_compiled = any(each._compiled_call_impl is not None for each in module.modules())
    return not is_compiled and all(
        type(each) is nn.Parameter and each.dtype == torch.float32 for each in module.parameters()
    )


def _half(parameter: nn.Parameter) -> nn.Parameter:
    layout = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
    converted = parameter.detach().to(torch.bfloat16, memory_format=layout)
    return nn.Parameter(converted, requires_grad=False)
