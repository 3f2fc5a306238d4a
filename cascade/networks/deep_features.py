"""Deep features of a U-Net that neighbouring steps share (DeepCache, arXiv 2312.00858).

From one step to the next, the coarse levels of a U-Net change little. A step may therefore run only
the finest level, on what the coarse levels put out in an earlier step.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import copy
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn


def can_reuse(unet: UNet2DConditionModel) -> bool:
    """Whether a U-Net has levels below the finest one."""
    return len(list(unet.down_blocks)) > 1


def reusing(
    unet: UNet2DConditionModel, sample: Tensor, t: Tensor, deep: Tensor | None, **inputs: Any
) -> tuple[Tensor, Tensor]:
    """Run a U-Net in full, or only its finest level on deep features of an earlier step.

    Args:
        unet: a U-Net of several levels.
        sample: (B, C, H, W) noisy images.
        t: (B,) training timesteps.
        deep: (B, C', H, W) deep features of an earlier step; None to run in full.
        inputs: further arguments of its `forward`.

    Returns:
        The output (B, P, H, W), and the deep features that it was computed from.
    """
    downs, ups = list(unet.down_blocks), list(unet.up_blocks)
    finest = _Finest(ups[-1], deep)
    parts: dict[str, nn.Module | None] = {"up_blocks": nn.ModuleList([*ups[:-1], finest])}
    if deep is not None:
        parts = {
            "down_blocks": nn.ModuleList([downs[0], *(_Skipped(each) for each in downs[1:])]),
            "mid_block": None,
            "up_blocks": nn.ModuleList([*(_Skipped(each) for each in ups[:-1]), finest]),
        }
    other = copy.copy(unet)
    other._modules = {**unet._modules, **parts}  # the U-Net itself keeps its blocks
    output = other(sample, t, **inputs).sample
    assert finest.deep is not None
    return output, finest.deep


class _Finest(nn.Module):
    """The last block of the decoder, which takes or remembers the features from below."""

    def __init__(self, block: Any, deep: Tensor | None) -> None:
        super().__init__()
        self.block = block
        self.resnets = block.resnets
        self.has_cross_attention = getattr(block, "has_cross_attention", False)
        self.deep = deep

    def forward(self, hidden_states: Tensor, **inputs: Any) -> Tensor:
        if self.deep is None:
            self.deep = hidden_states
        return self.block(hidden_states=self.deep, **inputs)


class _Skipped(nn.Module):
    """Stands for a coarse block that does not run; the features that it returns are not used."""

    has_cross_attention = False

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.resnets = block.resnets
        self.skips = len(block.resnets) + bool(getattr(block, "downsamplers", None))
        self.is_down = hasattr(block, "downsamplers")

    def forward(self, hidden_states: Tensor, **inputs: Any) -> Any:
        if self.is_down:
            return hidden_states, (hidden_states,) * self.skips
        return hidden_states
