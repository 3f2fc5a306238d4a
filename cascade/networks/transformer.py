"""A plain pixel transformer that predicts the image itself, after Li & He 2025 (arXiv 2511.13720).

Large patches keep the sequence short. A few blocks on patches of half the side come before and
after the others, as in an hourglass (Crowson et al. 2024, arXiv 2401.11605); they draw edges and
small features at little cost. adaLN carries the time and the conditions (one projection for a stack
of blocks, as in PixArt-alpha, arXiv 2310.00426), and a small convolutional head joins the patches,
so that their borders do not show.

Shapes: B batch, C channels, H and W pixels, N patches, D width, E embedding, M tokens of
conditions, T their width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascade.errors import ContractError, RecipeError
from cascade.networks.attention import HEAD_WIDTH, CrossAttention, Tokens, attention
from cascade.networks.component import Component, Prediction, keeps_config
from cascade.networks.convolutional_head import ConvolutionalHead
from cascade.networks.timesteps import TimestepEmbedding, timestep_waves


class PixelTransformer(Component):
    """An hourglass of transformer blocks on pixels, called as `UNet` is.

    Args:
        in_channels: number of channels of the noisy image and all images concatenated to it.
        out_channels: number of channels of the prediction.
        patch_size: side of a patch in pixels, even; height and width must be multiples of it.
        width: length D of a patch's token; a multiple of 64, the width of a head, or a multiple of
            4 below it.
        depth: number of blocks on patches.
        fine_width: length of the token of a fine patch, which has half the side; as `width`.
        fine_depth: number of blocks on fine patches before the others, and again after them.
        head_channels: number of channels of the convolutional head.
        head_blocks: number of its residual blocks; 0 for two convolutions only.
        projection_class_embeddings_input_dim: length E of the condition vector; None without one.
        cross_attention_dim: width T of the tokens that every second of the `depth` blocks attends
            to, the last one included; None for no cross-attention.

    Raises:
        RecipeError: if the sizes do not divide.
    """

    @keeps_config
    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        patch_size: int = 8,
        width: int = 256,
        depth: int = 8,
        fine_width: int = 128,
        fine_depth: int = 2,
        head_channels: int = 24,
        head_blocks: int = 0,
        projection_class_embeddings_input_dim: int | None = 256,
        cross_attention_dim: int | None = None,
    ) -> None:
        super().__init__()
        if patch_size % 2:
            raise RecipeError(f"patch_size must be even, got {patch_size}.")
        if cross_attention_dim is not None and not depth:
            raise RecipeError("tokens need at least one block on patches to attend to them.")
        fine_px = patch_size // 2
        self.embed = nn.Conv2d(in_channels, fine_width, fine_px, stride=fine_px)
        self.time_embedding = TimestepEmbedding(256, width)
        self.condition_embedding = None
        if projection_class_embeddings_input_dim is not None:
            self.condition_embedding = nn.Linear(projection_class_embeddings_input_dim, width)
        self.encoder = BlockStack(fine_width, fine_depth, width)
        self.merge = nn.Linear(4 * fine_width, width)
        self.blocks = BlockStack(width, depth, width, cross_attention_dim)
        self.split = ModulatedLinear(width, 4 * fine_width, width)
        self.decoder = BlockStack(fine_width, fine_depth, width)
        self.to_pixels = ModulatedLinear(fine_width, head_channels * fine_px**2, width)
        self.head = ConvolutionalHead(
            in_channels, head_channels, out_channels, blocks=head_blocks, condition_width=width
        )

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
            timestep: (B,) training timesteps.
            encoder_hidden_states: (B, M, T) tokens to attend to; None without cross-attention.
            class_labels: (B, E) condition vector.
            encoder_attention_mask: (B, M) bool, False for padding; None if there is none.

        Returns:
            An object whose `sample` is (B, out_channels, H, W).

        Raises:
            ContractError: if there are tokens and no cross-attention, or the other way round.
        """
        output, _ = self.reusing(
            sample,
            timestep,
            None,
            encoder_hidden_states=encoder_hidden_states,
            class_labels=class_labels,
            encoder_attention_mask=encoder_attention_mask,
        )
        return Prediction(sample=output)

    def reusing(
        self,
        sample: Tensor,
        timestep: Tensor,
        deep: Tensor | None,
        *,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict in full, or with the fine blocks only.

        Args:
            sample: (B, in_channels, H, W) noisy images.
            timestep: (B,) training timesteps.
            deep: (B, N, D) output of the coarse blocks at an earlier step; None to run them too.
            encoder_hidden_states: (B, M, T) tokens to attend to; None without cross-attention.
            class_labels: (B, E) condition vector.
            encoder_attention_mask: (B, M) bool, False for padding; None if there is none.

        Returns:
            The prediction (B, out_channels, H, W), and the output of the coarse blocks.

        Raises:
            ContractError: if there are tokens and no cross-attention, or the other way round.
        """
        takes_tokens = self.config["cross_attention_dim"] is not None
        if takes_tokens != (encoder_hidden_states is not None):
            raise ContractError(
                "this PixelTransformer has cross-attention and needs encoder_hidden_states."
                if takes_tokens
                else "this PixelTransformer has no cross-attention and takes no tokens."
            )
        text = None
        if encoder_hidden_states is not None:
            text = Tokens(encoder_hidden_states, encoder_attention_mask)
        condition = self._embed_condition(timestep, class_labels, sample.dtype)  # (B, D)
        embedded = self.embed(sample)
        rows, columns = embedded.shape[-2:]  # of fine patches
        fine = self._run(self.encoder, _to_tokens(embedded), rows, columns, condition)
        if deep is None:
            merged = self.merge(_to_tokens(F.pixel_unshuffle(_to_map(fine, rows, columns), 2)))
            deep = self._run(self.blocks, merged, rows // 2, columns // 2, condition, text)
        coarse = self.split(deep, condition)  # (B, N, 4 fine)
        fine = fine + _to_tokens(F.pixel_shuffle(_to_map(coarse, rows // 2, columns // 2), 2))
        fine = self._run(self.decoder, fine, rows, columns, condition)  # (B, 4 N, fine)
        pixels = _to_map(self.to_pixels(fine, condition), rows, columns)
        pixels = F.pixel_shuffle(pixels, self.config["patch_size"] // 2)
        return self.head(sample, pixels, condition), deep  # (B, C, H, W)

    def _embed_condition(
        self, timestep: Tensor, class_labels: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        waves = timestep_waves(timestep, 256, shift=1)
        condition = self.time_embedding(waves.to(dtype))
        if self.condition_embedding is not None and class_labels is not None:
            condition = condition + self.condition_embedding(class_labels.to(dtype))
        return F.silu(condition)

    def _run(
        self,
        stack: BlockStack,
        tokens: Tensor,
        rows: int,
        columns: int,
        condition: Tensor,
        text: Tokens | None = None,
    ) -> Tensor:
        tokens = tokens + position_embedding(rows, columns, tokens.shape[-1]).to(tokens)
        if stack.modulation is None:
            return tokens
        modulation = stack.modulation(condition)[:, None]  # (B, 1, 6 width)
        for block in stack.blocks:
            tokens = self.run_block(block, tokens, modulation, text)
        return tokens


class BlockStack(nn.Module):
    """Blocks of one width and the modulation that they share."""

    def __init__(
        self, width: int, depth: int, condition_width: int, tokens_width: int | None = None
    ) -> None:
        super().__init__()
        if width % min(HEAD_WIDTH, width) or width % 4:
            raise RecipeError(
                f"widths must be multiples of {HEAD_WIDTH}, or below it multiples of 4, got "
                f"{width}."
            )
        self.blocks = nn.ModuleList(
            TransformerBlock(width, tokens_width if (depth - place) % 2 else None)
            for place in range(depth)
        )
        # Without a bias, because every block has its own offset.
        self.modulation = nn.Linear(condition_width, 6 * width, bias=False) if depth else None
        for parameter in self.modulation.parameters() if self.modulation is not None else ():
            nn.init.zeros_(parameter)


class ModulatedLinear(nn.Module):
    """RMS norm, scale and shift from the condition, and a linear layer."""

    def __init__(self, width: int, out_width: int, condition_width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(condition_width, 2 * width)
        self.linear = nn.Linear(width, out_width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Args: tokens (B, N, width), condition (B, D). Returns: (B, N, out_width)."""
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        return self.linear(self.norm(tokens) * (1 + scale) + shift)


class TransformerBlock(nn.Module):
    """Self-attention and SwiGLU, each behind an RMS norm that time and conditions modulate."""

    def __init__(self, width: int, tokens_width: int | None = None) -> None:
        super().__init__()
        self.heads = max(width // HEAD_WIDTH, 1)
        hidden = math.ceil(width * 8 / 3 / 32) * 32
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.head_gain = nn.Parameter(torch.ones(width // self.heads))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.modulation_offset = nn.Parameter(torch.zeros(6 * width))
        for residual in (self.project, self.down):
            nn.init.normal_(residual.weight, std=0.02)
        self.cross = None if tokens_width is None else CrossAttention(width, tokens_width)

    def forward(self, tokens: Tensor, modulation: Tensor, text: Tokens | None = None) -> Tensor:
        """Args: tokens (B, N, D), modulation (B, 1, 6 D), text. Returns: tokens (B, N, D)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
            modulation + self.modulation_offset.to(modulation.dtype)
        ).chunk(6, dim=-1)
        tokens = tokens + (1 + gate_a) * self._attend(self.norm(tokens) * (1 + scale_a) + shift_a)
        if self.cross is not None and text is not None:
            tokens = tokens + self.cross(self.norm(tokens), text)
        gate, up = self.gate_up(self.norm(tokens) * (1 + scale_m) + shift_m).chunk(2, dim=-1)
        return tokens + (1 + gate_m) * self.down(F.silu(gate) * up)

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query, key = (
            F.rms_norm(each, each.shape[-1:], eps=1e-6) * self.head_gain.to(each.dtype)
            for each in (query, key)
        )  # (B, N, heads, D / heads)
        return self.project(attention(query, key, value))


def position_embedding(rows: int, columns: int, width: int) -> Tensor:
    """2-D sine-cosine positions of a grid of any size: (1, rows * columns, width)."""
    row = _position_waves(rows, width)
    column = _position_waves(columns, width)
    grid = torch.cat(
        [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)], dim=-1
    )
    return grid.reshape(1, rows * columns, width)


def _position_waves(count: int, width: int) -> Tensor:
    places = torch.arange(count)
    return timestep_waves(places, width // 2, cosine_first=False, shift=1, longest=100)


def _to_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2)  # (B, D, rows, columns) -> (B, N, D)


def _to_map(tokens: Tensor, rows: int, columns: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (rows, columns))  # (B, N, D) -> (B, D, ...)
