"""One sequence of tokens for cross-attention, from the tokens of all conditions.

Shapes: B batch, N tokens of a condition, S tokens that each of them becomes, M tokens of all
conditions, D width of a token in the network.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cascade.conditioning.signals import TokenSignal
from cascade.conditioning.slots import Slots
from cascade.networks.component import Component, keeps_config


class TokenEmbedding(Component):
    """Projects the tokens of conditions to one width and joins them behind a learned null token.

    The null token is always attended to, so that an image without any tokens has something to
    attend to as well.

    Args:
        widths: width of each condition's tokens, by its name.
        dim: width D of the projected tokens.
        spread: number S of projected tokens for each token of a condition, by its name; 1 for the
            others. unCLIP makes four of an image embedding (Ramesh et al. 2022, arXiv 2204.06125).
    """

    @keeps_config
    def __init__(
        self, *, widths: Mapping[str, int], dim: int = 256, spread: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.spread = {name: (spread or {}).get(name, 1) for name in widths}
        self.null = nn.Parameter(0.5 * torch.randn(1, 1, dim))
        self.parts = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.RMSNorm(width, eps=1e-6, elementwise_affine=False),
                    nn.Linear(width, self.spread[name] * dim),
                )
                for name, width in widths.items()
            }
        )

    def forward(self, tokens: Mapping[str, TokenSignal]) -> tuple[Tensor, Tensor]:
        """Join the tokens of a batch.

        Args:
            tokens: tokens (B, N, width) and masks (B, N) by name of condition.

        Returns:
            Tokens (B, 1 + M, D), and a mask (B, 1 + M) bool that is False for padding.
        """
        own = [(self.parts[name], tokens[name], count) for name, count in self.spread.items()]
        # Padding may hold anything; zeros keep even NaN out of the products and their gradients.
        embedded = [
            part(torch.where(each.mask[..., None], each.tokens, 0).to(self.dtype))
            .unflatten(-1, (count, -1))
            .flatten(1, 2)  # (B, N S, D)
            for part, each, count in own
        ]
        masks = [each.mask.repeat_interleave(count, dim=1) for _, each, count in own]
        count = embedded[0].shape[0]
        null = self.null.to(embedded[0].dtype).expand(count, -1, -1)
        mask = torch.ones(count, 1, dtype=torch.bool, device=null.device)
        return (
            torch.cat([null, *embedded], dim=1),
            torch.cat([mask, *masks], dim=1),
        )


def token_widths(slots: Mapping[str, Slots]) -> dict[str, int]:
    """The argument `widths` of an embedding for the slots of a stage's conditions."""
    return {name: each.tokens for name, each in slots.items() if each.tokens}


def token_spread(slots: Mapping[str, Slots]) -> dict[str, int]:
    """The argument `spread` of an embedding for the slots of a stage's conditions."""
    return {name: each.spread for name, each in slots.items() if each.tokens and each.spread > 1}


def token_embedding_for(slots: Mapping[str, Slots], dim: int) -> TokenEmbedding | None:
    """Make a new embedding of width `dim`; None if no condition has tokens."""
    widths, spread = token_widths(slots), token_spread(slots)
    if not widths:
        return None
    options = {"spread": spread} if spread else {}
    return TokenEmbedding(widths=widths, dim=dim, **options)
