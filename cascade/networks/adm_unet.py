"""The U-Net of guided diffusion (Dhariwal & Nichol 2021, arXiv 2105.05233), also called ADM.

Its weights have the names of the published checkpoints, so that these load without conversion. What
no shape of a weight shows is stated: the number of heads, and the order of queries, keys and values
among the channels of `qkv`. In the older order (`legacy`) each head has its own queries, keys and
values side by side; in the newer one (`new`) all queries come first.

Shapes: B batch, C channels, H and W pixels, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final, get_args

import torch
from torch import Tensor, nn

from cascade.networks.adm_layers import GROUPS, ADMBlock, ADMLayerMaker, AttentionOrder
from cascade.networks.component import Component, Prediction, keeps_config
from cascade.networks.timesteps import timestep_waves


@final
class ADMUNet(Component):
    """The U-Net of guided diffusion.

    Args:
        in_channels: number of channels of the noisy image and all images concatenated to it.
        out_channels: number of channels of the prediction.
        model_channels: number of sines and cosines of the time, even; the embedding is four times
            as long.
        block_out_channels: number of channels at each resolution, finest first; multiples of 32.
        layers_per_block: number of residual blocks at each resolution.
        attention: whether each resolution has self-attention, finest first.
        heads: number of heads; None if `head_channels` decides.
        head_channels: number of channels of a head; None if `heads` decides.
        attention_order: `legacy` or `new`, see above.
        scale_shift: whether the embedding scales and shifts the features after the second norm of a
            residual block; otherwise it is added before that norm.
        residual_resampling: whether residual blocks change the resolution; otherwise convolutions.
        timestep_scale: factor of the timesteps before they are embedded.

    Raises:
        ValueError: if the numbers do not fit together.
    """

    @keeps_config
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        block_out_channels: Sequence[int],
        layers_per_block: int,
        attention: Sequence[bool],
        heads: int | None = None,
        head_channels: int | None = 64,
        attention_order: AttentionOrder = "legacy",
        scale_shift: bool = True,
        residual_resampling: bool = True,
        timestep_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.timestep_scale = timestep_scale
        if attention_order not in get_args(AttentionOrder):
            raise ValueError(
                f"attention_order must be {get_args(AttentionOrder)}, got {attention_order!r}"
            )
        if (heads is None) == (head_channels is None):
            raise ValueError("give either heads or head_channels")
        widths, dim = list(block_out_channels), 4 * model_channels
        maker = ADMLayerMaker(
            dim, heads, head_channels, attention_order, scale_shift, residual_resampling
        )
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv2d(in_channels, widths[0], 3, padding=1)])]
        )
        skips, width = [widths[0]], widths[0]
        for level, out in enumerate(widths):
            for _ in range(layers_per_block):
                self.input_blocks.append(maker.layers(width, out, attention=attention[level]))
                width = out
                skips.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(nn.ModuleList([maker.resampler(width, "down")]))
                skips.append(width)
        self.middle_block = nn.ModuleList(
            [maker.block(width, width), maker.attention(width), maker.block(width, width)]
        )
        self.output_blocks = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for place in range(layers_per_block + 1):
                layers = maker.layers(width + skips.pop(), out, attention=attention[level])
                width = out
                if level and place == layers_per_block:
                    layers.append(maker.resampler(width, "up"))
                self.output_blocks.append(layers)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, out_channels, 3, padding=1)
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        encoder_hidden_states: None = None,
    ) -> Prediction:
        """Predict from noisy images.

        Args:
            sample: (B, in_channels, H, W).
            timestep: (B,) training timesteps, or one for all.
            class_labels: (B, E) condition vector, added to the embedding of the time; None without
                one.
            encoder_hidden_states: always None; it has no attention to tokens.

        Returns:
            An object whose `sample` is (B, out_channels, H, W).
        """
        waves = timestep_waves(
            timestep.expand(sample.shape[0]) * self.timestep_scale, self.config["model_channels"]
        )  # cosines first, over half of the channels
        embedding = self.time_embed(waves.to(sample.dtype))
        if class_labels is not None:
            embedding = embedding + class_labels.to(sample.dtype)
        x, skips = sample, []
        for layers in self.input_blocks:
            x = self._run(layers, x, embedding)
            skips.append(x)
        x = self._run(self.middle_block, x, embedding)
        for layers in self.output_blocks:
            x = self._run(layers, torch.cat([x, skips.pop()], dim=1), embedding)
        return Prediction(self.out(x))

    def _run(self, layers: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            takes_embedding = isinstance(layer, ADMBlock)
            x = self.run_block(layer, x, embedding) if takes_embedding else layer(x)
        return x
