"""A plain pixel transformer that predicts the image itself, after Li & He 2025 (arXiv 2511.13720).

Large patches keep the sequence short; a narrow bottleneck embeds them, adaLN carries the time and
the conditions (one shared projection, as in PixArt-alpha, arXiv 2310.00426), and a small
convolutional head joins the patches, so that their borders do not show.

Shapes: B batch, C channels, H and W pixels, N tokens, D width, E embedding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn


class PixelTransformer(ModelMixin, ConfigMixin):
    """Vision transformer on pixels, called like diffusers' `UNet2DConditionModel`.

    Args:
        in_channels: channels of the noisy image and of the images concatenated to it.
        out_channels: channels of the prediction.
        patch_size: side of a patch, in pixels; height and width must be multiples of it.
        width: channels of a token; a multiple of 64, the width of a head, unless smaller.
        depth: number of blocks.
        bottleneck: channels of the narrow layer that embeds a patch.
        head_channels: channels per pixel that the convolutional head works on.
        projection_class_embeddings_input_dim: length E of the condition vector; None without one.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        patch_size: int = 8,
        width: int = 256,
        depth: int = 9,
        bottleneck: int = 128,
        head_channels: int = 24,
        projection_class_embeddings_input_dim: int | None = 256,
    ) -> None:
        super().__init__()
        self.patch = nn.Conv2d(in_channels, bottleneck, patch_size, stride=patch_size)
        self.widen = nn.Conv2d(bottleneck, width, 1)
        self.time_embedding = TimestepEmbedding(256, width)
        self.condition_embedding = None
        if projection_class_embeddings_input_dim is not None:
            self.condition_embedding = nn.Linear(projection_class_embeddings_input_dim, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        self.norm_out = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation_out = nn.Linear(width, 2 * width)
        self.to_pixels = nn.Linear(width, head_channels * patch_size**2)
        self.head = ConvolutionalHead(in_channels, head_channels, out_channels)
        self.gradient_checkpointing = False
        for zero_at_start in (self.modulation, self.modulation_out):
            nn.init.zeros_(zero_at_start.weight)
            nn.init.zeros_(zero_at_start.bias)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: None = None,
        class_labels: Tensor | None = None,
    ) -> UNet2DConditionOutput:
        """Predict from a noisy image.

        Args:
            sample: (B, in_channels, H, W).
            timestep: (B,) training timesteps.
            encoder_hidden_states: not used by this network; must be None.
            class_labels: (B, E) condition vector.

        Returns:
            `sample`: (B, out_channels, H, W).
        """
        if encoder_hidden_states is not None:
            raise ValueError(
                "PixelTransformer has no cross-attention: encoder_hidden_states must be None."
            )
        condition = self._embed_condition(timestep, class_labels, sample.dtype)  # (B, D)
        tokens = self.widen(self.patch(sample))  # (B, D, H/p, W/p)
        rows, columns = tokens.shape[-2:]
        tokens = tokens.flatten(2).transpose(1, 2)  # (B, N, D)
        tokens = tokens + position_embedding(rows, columns, tokens.shape[-1]).to(tokens)
        modulation = self.modulation(condition)[:, None]  # (B, 1, 6 D)
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = self._gradient_checkpointing_func(block, tokens, modulation)
            else:
                tokens = block(tokens, modulation)
        shift, scale = self.modulation_out(condition)[:, None].chunk(2, dim=-1)
        pixels = self.to_pixels(self.norm_out(tokens) * (1 + scale) + shift)  # (B, N, p p C)
        pixels = pixels.transpose(1, 2).unflatten(2, (rows, columns))
        pixels = F.pixel_shuffle(pixels, self.config["patch_size"])  # (B, head_channels, H, W)
        return UNet2DConditionOutput(sample=self.head(sample, pixels))

    def _embed_condition(self, timestep: Tensor, class_labels: Tensor | None, dtype) -> Tensor:
        time = self.time_embedding(
            get_timestep_embedding(timestep, 256, flip_sin_to_cos=True).to(dtype)
        )
        if self.condition_embedding is not None and class_labels is not None:
            time = time + self.condition_embedding(class_labels.to(dtype))
        return F.silu(time)


class TransformerBlock(nn.Module):
    """Self-attention and SwiGLU, each behind an RMS norm that time and conditions modulate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(width // 64, 1)
        hidden = math.ceil(width * 8 / 3 / 32) * 32
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm_head = nn.RMSNorm(width // self.heads, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.modulation_offset = nn.Parameter(torch.zeros(6 * width))
        for residual in (self.project, self.down):
            nn.init.normal_(residual.weight, std=0.02)

    def forward(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        """Args: tokens (B, N, D), modulation (B, 1, 6 D). Returns: tokens (B, N, D)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
            modulation + self.modulation_offset.to(modulation.dtype)
        ).chunk(6, dim=-1)
        tokens = tokens + (1 + gate_a) * self._attend(self.norm(tokens) * (1 + scale_a) + shift_a)
        gate, up = self.gate_up(self.norm(tokens) * (1 + scale_m) + shift_m).chunk(2, dim=-1)
        return tokens + (1 + gate_m) * self.down(F.silu(gate) * up)

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query, key = self.norm_head(query), self.norm_head(key)  # (B, N, heads, D/heads)
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2).to(value.dtype),
            key.transpose(1, 2).to(value.dtype),
            value.transpose(1, 2),
        )
        return self.project(attended.transpose(1, 2).flatten(2))


class ConvolutionalHead(nn.Module):
    """Turns the tokens' pixels into the prediction with two 3x3 convolutions that see the input."""

    def __init__(self, in_channels: int, head_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels + head_channels, head_channels, 3, padding=1)
        self.out = nn.Conv2d(head_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, sample: Tensor, pixels: Tensor) -> Tensor:
        """Args: sample (B, in, H, W), pixels (B, head, H, W). Returns: (B, out, H, W)."""
        mixed = F.silu(self.mix(torch.cat([sample.to(pixels.dtype), pixels], dim=1)))
        return self.out(mixed + pixels)


def position_embedding(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions: (1, rows * columns, width), for any grid."""
    row = get_timestep_embedding(torch.arange(rows), width // 2, max_period=100)
    column = get_timestep_embedding(torch.arange(columns), width // 2, max_period=100)
    grid = torch.cat(
        [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)], dim=-1
    )
    return grid.reshape(1, rows * columns, width)
