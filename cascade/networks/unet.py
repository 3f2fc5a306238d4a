"""A U-Net whose weights and configuration are those of diffusers' `UNet2DConditionModel`.

It has the blocks that stages use and no others, gives the same output bit for bit, and spares them
the import of diffusers, which takes longer than that of torch. diffusers loads its folder, and it
loads what diffusers saved, if every option that it lacks has diffusers' own default.

Shapes: B batch, C channels, H and W pixels, E condition vector, M tokens of conditions, T their
width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn

from cascade.networks.component import Component, Prediction, keeps_config
from cascade.networks.timesteps import TimestepEmbedding, timestep_waves
from cascade.networks.unet_blocks import BlockInputs, DownBlock, LayerMaker, MidBlock, UpBlock
from cascade.networks.unet_layers import Downsample, Upsample

ATTENTION = {"": "nothing", "Attn": "pixels", "CrossAttn": "tokens"}  # by prefix of a block's type
MASKED = -10000.0  # what diffusers adds to the scores of padding
DEFAULTS: dict[str, Any] = {  # options of diffusers that have one value here
    "act_fn": "silu",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2D",
    "norm_eps": 1e-05,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
    "upcast_attention": False,
    "use_linear_projection": False,
}


@final
class UNet(Component):
    """The U-Net of stages.

    Args:
        sample_size: side of training images in pixels, or height and width.
        in_channels: number of channels of the noisy image and all images concatenated to it.
        out_channels: number of channels of the prediction.
        down_block_types: `DownBlock2D`, `AttnDownBlock2D` or `CrossAttnDownBlock2D` for each
            resolution, finest first.
        up_block_types: the same with `Up`, coarsest first.
        block_out_channels: number of channels at each resolution, finest first.
        layers_per_block: number of residual blocks at each resolution.
        attention_head_dim: number of channels of a head; with `CrossAttn` blocks the number of
            heads at each resolution, as in diffusers.
        norm_num_groups: number of groups of the group norms.
        class_embed_type: `projection` for a condition vector; None without one.
        projection_class_embeddings_input_dim: length E of the condition vector.
        cross_attention_dim: width T of the conditions' tokens.
        only_cross_attention: whether pixels attend to tokens alone, and not to each other.
        others: further options of diffusers, with their defaults only.

    Raises:
        ValueError: for a block or an option that this U-Net does not have.
    """

    saved_as = "UNet2DConditionModel"
    fixed_options = DEFAULTS

    @keeps_config
    def __init__(
        self,
        *,
        sample_size: int | Sequence[int],
        in_channels: int,
        out_channels: int,
        down_block_types: Sequence[str],
        up_block_types: Sequence[str],
        block_out_channels: Sequence[int],
        layers_per_block: int = 2,
        attention_head_dim: int | Sequence[int] = 8,
        norm_num_groups: int = 32,
        class_embed_type: str | None = None,
        projection_class_embeddings_input_dim: int | None = None,
        cross_attention_dim: int = 1280,
        only_cross_attention: bool = False,
        **others: Any,
    ) -> None:
        super().__init__()
        self.check_options(others)
        if class_embed_type not in (None, "projection"):
            raise ValueError(f"class_embed_type must be 'projection', got {class_embed_type!r}")
        widths = list(block_out_channels)
        dim = 4 * widths[0]
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], dim)
        self.class_embedding = None
        if class_embed_type is not None:
            assert projection_class_embeddings_input_dim is not None
            self.class_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, dim)
        makers = [
            LayerMaker(
                kind=_attention_kind(name, "Down"),
                embedding_dim=dim,
                groups=norm_num_groups,
                head_size=_head_size(attention_head_dim, level),
                context_dim=cross_attention_dim,
                only_tokens=only_cross_attention,
            )
            for level, name in enumerate(down_block_types)
        ]
        kinds = [_attention_kind(name, "Up") for name in reversed(up_block_types)]
        self.down_blocks = nn.ModuleList()
        self.up_blocks = nn.ModuleList()  # entered here, so that weights have diffusers' order
        self.down_blocks.extend(_down_blocks(makers, widths, layers_per_block))
        self.mid_block = MidBlock(makers[-1], widths[-1])
        makers = [replace(maker, kind=kind) for maker, kind in zip(makers, kinds, strict=True)]
        self.up_blocks.extend(_up_blocks(makers, widths, layers_per_block + 1))
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Prediction:
        """Predict from noisy images.

        Args:
            sample: (B, in_channels, H, W).
            timestep: (B,) training timesteps, or one for all.
            encoder_hidden_states: (B, M, T) tokens to attend to; None without such blocks.
            class_labels: (B, E) condition vector; None without one.
            encoder_attention_mask: (B, M) bool, False for padding; None if there is none.

        Returns:
            An object whose `sample` is (B, out_channels, H, W).
        """
        inputs = (encoder_hidden_states, class_labels, encoder_attention_mask)
        return Prediction(self.reusing(sample, timestep, None, *inputs)[0])

    def reusing(
        self,
        sample: Tensor,
        timestep: Tensor,
        deep: Tensor | None,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run in full, or only the finest level on deep features of an earlier step.

        From one step to the next, the coarse levels change little (DeepCache, arXiv 2312.00858).

        Args:
            sample: (B, in_channels, H, W).
            timestep: (B,) training timesteps, or one for all.
            deep: (B, C, H, W) what the coarse levels gave in an earlier step; None to run in full.
            encoder_hidden_states: as for `forward`.
            class_labels: as for `forward`.
            encoder_attention_mask: as for `forward`.

        Returns:
            (B, out_channels, H, W), and the deep features that it was computed from.
        """
        waves = timestep_waves(
            timestep.expand(sample.shape[0]), self.config["block_out_channels"][0]
        )
        embedding = self.time_embedding(waves.to(sample.dtype))
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(class_labels).to(sample.dtype)
        mask = None
        if encoder_attention_mask is not None:
            mask = (1 - encoder_attention_mask.to(sample.dtype))[:, None, None] * MASKED
        inputs = BlockInputs(embedding, encoder_hidden_states, mask)
        x = self.conv_in(sample)
        skips = [x]
        x = self._run_down(self.down_blocks[0], x, skips, inputs)
        if deep is None:
            deep = self._run_coarse(x, skips, inputs)
        del skips[self.config["layers_per_block"] + 1 :]  # what the coarse levels have not taken
        x = self.up_blocks[-1](deep, skips, inputs, self.run_block)
        return self.conv_out(F.silu(self.conv_norm_out(x))), deep

    def _run_coarse(self, x: Tensor, skips: list[Tensor], inputs: BlockInputs) -> Tensor:
        """Run all levels but the finest one; takes what they add to the skips off again."""
        for block in self.down_blocks[1:]:
            x = self._run_down(block, x, skips, inputs)
        x = self.mid_block(x, inputs, self.run_block)
        for block in self.up_blocks[:-1]:
            x = block(x, skips, inputs, self.run_block)
        return x

    def _run_down(
        self, block: nn.Module, x: Tensor, skips: list[Tensor], inputs: BlockInputs
    ) -> Tensor:
        x, further = block(x, inputs, self.run_block)
        skips += further
        return x


def _down_blocks(
    makers: Sequence[LayerMaker], widths: Sequence[int], count: int
) -> Iterator[DownBlock]:
    """Make the way down, with `count` residual blocks at each resolution."""
    before = widths[0]
    for level, (maker, width) in enumerate(zip(makers, widths, strict=True)):
        layers = maker.layers([before] + [width] * (count - 1), width)
        yield DownBlock(layers, Downsample(width) if level < len(widths) - 1 else None)
        before = width


def _up_blocks(
    makers: Sequence[LayerMaker], widths: Sequence[int], count: int
) -> Iterator[UpBlock]:
    """Make the way up, with `count` residual blocks at each resolution."""
    before = widths[-1]
    for level in reversed(range(len(widths))):
        width, finer = widths[level], widths[max(level - 1, 0)]
        skips = [width] * (count - 1) + [finer]
        in_channels = [a + b for a, b in zip([before] + [width] * (count - 1), skips, strict=True)]
        layers = makers[level].layers(in_channels, width)
        yield UpBlock(layers, Upsample(width) if level else None)
        before = width


def _attention_kind(block_type: str, way: str) -> str:
    """What the pixels of a type of block attend to.

    Raises:
        ValueError: if there is no such block.
    """
    types = {f"{prefix}{way}Block2D": kind for prefix, kind in ATTENTION.items()}
    if block_type not in types:
        raise ValueError(f"block {block_type!r} must be one of {', '.join(types)}")
    return types[block_type]


def _head_size(attention_head_dim: int | Sequence[int], level: int) -> int:
    return attention_head_dim if isinstance(attention_head_dim, int) else attention_head_dim[level]
