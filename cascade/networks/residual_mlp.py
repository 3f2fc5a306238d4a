"""A multilayer perceptron for vectors, with residual blocks that attend to tokens.

It takes an image of 1 px as a vector of its channels. The blocks are those of the pixel transformer
without self-attention, since there is only one token; time and conditions modulate them (adaLN).

Shapes: B batch, H and W pixels, N = H W, D width, E embedding, M tokens of conditions, T their
width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascade.errors import RecipeError
from cascade.networks.attention import HEAD_WIDTH, CrossAttention, Tokens
from cascade.networks.component import Component, Prediction, keeps_config
from cascade.networks.timesteps import TimestepEmbedding, timestep_waves

WAVES = 256  # sines and cosines of a timestep


class ResidualMlp(Component):
    """Residual blocks on one vector, called as `UNet` is.

    Args:
        in_channels: number of channels of the noisy vector and all images concatenated to it.
        out_channels: number of channels of the prediction.
        width: length D of the vector between the blocks; a multiple of 64 or less than 64.
        depth: number of blocks.
        projection_class_embeddings_input_dim: length E of the condition vector; None without one.
        cross_attention_dim: width T of the tokens that every second block attends to, the last one
            included; None for no cross-attention.

    Raises:
        RecipeError: if the width does not divide into heads.
    """

    @keeps_config
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int = 512,
        depth: int = 6,
        projection_class_embeddings_input_dim: int | None = None,
        cross_attention_dim: int | None = None,
    ) -> None:
        super().__init__()
        if width % min(HEAD_WIDTH, width):
            raise RecipeError(f"width must be a multiple of {HEAD_WIDTH}, got {width}.")
        self.embed = nn.Linear(in_channels, width)
        self.time_embedding = TimestepEmbedding(WAVES, width)
        self.condition_embedding = None
        if projection_class_embeddings_input_dim is not None:
            self.condition_embedding = nn.Linear(projection_class_embeddings_input_dim, width)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, cross_attention_dim if (depth - place) % 2 else None)
            for place in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.project = nn.Linear(width, out_channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Prediction:
        """Predict from noisy vectors.

        Args:
            sample: (B, in_channels, H, W); each pixel is a vector by itself.
            timestep: (B,) training timesteps.
            encoder_hidden_states: (B, M, T) tokens to attend to; None without cross-attention.
            class_labels: (B, E) condition vector.
            encoder_attention_mask: (B, M) bool, False for padding; None if there is none.

        Returns:
            An object whose `sample` is (B, out_channels, H, W).
        """
        text = None
        if encoder_hidden_states is not None:
            text = Tokens(encoder_hidden_states, encoder_attention_mask)
        condition = self._embed_condition(timestep, class_labels, sample.dtype)
        tokens = self.embed(sample.flatten(2).transpose(1, 2))  # (B, H W, D)
        for block in self.blocks:
            tokens = self.run_block(block, tokens, condition, text)
        vectors = self.project(self.norm(tokens)).transpose(1, 2)
        return Prediction(sample=vectors.unflatten(2, sample.shape[-2:]))

    def _embed_condition(
        self, timestep: Tensor, class_labels: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        waves = timestep_waves(timestep, WAVES, shift=1)
        condition = self.time_embedding(waves.to(dtype))
        if self.condition_embedding is not None and class_labels is not None:
            condition = condition + self.condition_embedding(class_labels.to(dtype))
        return F.silu(condition)[:, None]  # (B, 1, D)


class ResidualBlock(nn.Module):
    """Attention to tokens and SwiGLU behind RMS norms; time and conditions modulate the latter."""

    def __init__(self, width: int, tokens_width: int | None) -> None:
        super().__init__()
        hidden = math.ceil(width * 8 / 3 / 32) * 32
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.cross = None if tokens_width is None else CrossAttention(width, tokens_width)
        self.modulation = nn.Linear(width, 3 * width)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.down.weight, std=0.02)

    def forward(self, tokens: Tensor, condition: Tensor, text: Tokens | None = None) -> Tensor:
        """Args: tokens (B, N, D), condition (B, 1, D), text. Returns: tokens (B, N, D)."""
        if self.cross is not None and text is not None:
            tokens = tokens + self.cross(self.norm(tokens), text)
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        gated, up = self.gate_up(self.norm(tokens) * (1 + scale) + shift).chunk(2, dim=-1)
        return tokens + (1 + gate) * self.down(F.silu(gated) * up)
