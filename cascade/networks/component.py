"""Component: a part of a network that is saved in a folder of its own, in diffusers layout.

The layout is that of diffusers' `ModelMixin` and `ConfigMixin`. diffusers itself is not imported,
because that alone takes longer than `import torch`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

Constructor = TypeVar("Constructor", bound=Callable[..., None])


@dataclass
class Prediction:
    """What the backbone of a network returns.

    Attributes:
        sample: (B, C, H, W).
    """

    sample: Tensor


class Component(nn.Module, ABC):
    """A module that can be built again from its configuration.

    Attributes:
        config: the keyword arguments of the constructor, as plain values; see `keeps_config`.
        gradient_checkpointing: whether training recomputes activations instead of keeping them.
    """

    saved_as: ClassVar[str | None] = None  # a class of diffusers that reads the same files
    fixed_options: ClassVar[Mapping[str, Any]] = {}  # options of that class with one value here
    config: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return next(each.dtype for each in self.parameters() if each.is_floating_point())

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check options that have one value here.

        Raises:
            TypeError: for an option that does not exist.
            ValueError: for one with another value.
        """
        for name, value in options.items():
            if name not in self.fixed_options:
                raise TypeError(f"unknown option {name!r}")
            if value != self.fixed_options[name]:
                expected = self.fixed_options[name]
                raise ValueError(f"{name} must be {expected!r} here, got {value!r}")

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass, which saves memory and costs time."""
        self.gradient_checkpointing = True

    def run_block(self, block: nn.Module, *inputs: Any) -> Any:
        """Call a block; with gradient checkpointing, keep only its inputs for the backward pass."""
        if not self.gradient_checkpointing or not torch.is_grad_enabled():
            return block(*inputs)
        from torch.utils.checkpoint import checkpoint

        return checkpoint(block, *inputs, use_reentrant=False)


def keeps_config(constructor: Constructor) -> Constructor:
    """Let the constructor of a component keep its keyword arguments in the attribute `config`."""
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def keeping(self: Component, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        constructor(self, *args, **kwargs)
        own = {k: v for k, v in bound.arguments.items() if k not in ("self", "others")}
        self.config = {**self.fixed_options, **own}

    return keeping  # pyright: ignore[reportReturnType]


def is_diffusers_model(module_class: type[nn.Module]) -> bool:
    """Whether a class is a model of diffusers; none is until someone imports diffusers."""
    diffusers = sys.modules.get("diffusers")
    return diffusers is not None and issubclass(module_class, diffusers.ModelMixin)
