"""Signals: what conditions tell a network, sorted by the way they enter it.

Channels are concatenated to the noisy image, vectors are embedded and added to the embedding of the
time, tokens are attended to. Images stay at their own small size with the factor that is missing to
the size of the result, so that a window of the result needs only a part of them.

Shapes: B batch, C channels, H and W pixels of the result, h and w of a conditioning image, N
tokens, D width of a token, E channels of an encoder's features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

ENLARGING_MARGIN_PX = 2  # bicubic interpolation reads two pixels to each side


@dataclass(frozen=True)
class ChannelSignal:
    """An image that is concatenated to the noisy one.

    Attributes:
        image: (B, C, h, w) in [-1, 1], at its own size.
        scale: the whole factor by which it is enlarged to the size of the result.
    """

    image: Tensor
    scale: int = 1

    def window(self, rows: slice, columns: slice) -> ChannelSignal:
        """The part under a window of the result, enlarged from no more pixels than it needs.

        Args:
            rows: of the result, in pixels.
            columns: the same along the width.
        """
        if self.scale == 1:
            return ChannelSignal(self.image[..., rows, columns])
        cuts, inner = [], []
        for span, side in zip((rows, columns), self.image.shape[-2:], strict=True):
            first = max(0, span.start // self.scale - ENLARGING_MARGIN_PX)
            last = min(side, -(-span.stop // self.scale) + ENLARGING_MARGIN_PX)
            cuts.append(slice(first, last))
            inner.append(slice(span.start - first * self.scale, span.stop - first * self.scale))
        enlarged = ChannelSignal(self.image[..., cuts[0], cuts[1]], self.scale).enlarged().image
        return ChannelSignal(enlarged[..., inner[0], inner[1]])

    def enlarged(self) -> ChannelSignal:
        """The whole image at the size of the result."""
        if self.scale == 1:
            return self
        height, width = (side * self.scale for side in self.image.shape[-2:])
        return ChannelSignal(F.interpolate(self.image, size=(height, width), mode="bicubic"))


@dataclass(frozen=True)
class TokenSignal:
    """A sequence of tokens that the network attends to.

    Attributes:
        tokens: (B, N, D).
        mask: (B, N) bool; False marks padding, which must not change anything.
    """

    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Signals:
    """What a network is told about a batch besides the noisy images and the time.

    Attributes:
        channels: images by the name of their condition, in the order in which they are
            concatenated.
        vectors: (B, …) values to embed, by name, as the condition's `VectorSlot` says.
        tokens: sequences to attend to, by name.
        features: (B, E, h, w), what the network's encoder makes of its image; None until it ran.
    """

    channels: Mapping[str, ChannelSignal] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, TokenSignal] = field(default_factory=dict)
    features: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Signals:
        """Apply a function to every tensor; the batch is the first dimension of each."""
        return self.combine(self, lambda mine, _: change(mine))

    def combine(self, other: Signals, join: Callable[[Tensor, Tensor], Tensor]) -> Signals:
        """Join each tensor with the one of the same place in signals of the same names."""
        both = self.features is not None and other.features is not None
        return Signals(
            channels={
                name: replace(mine, image=join(mine.image, other.channels[name].image))
                for name, mine in self.channels.items()
            },
            vectors={name: join(mine, other.vectors[name]) for name, mine in self.vectors.items()},
            tokens={
                name: TokenSignal(
                    join(mine.tokens, other.tokens[name].tokens),
                    join(mine.mask, other.tokens[name].mask),
                )
                for name, mine in self.tokens.items()
            },
            features=join(self.features, other.features) if both else None,  # pyright: ignore
        )

    def concatenate(self, other: Signals) -> Signals:
        """Stack two batches for one forward pass over both."""
        return self.combine(other, lambda mine, theirs: torch.cat([mine, theirs]))

    def replaced(self, mask: Tensor, other: Signals) -> Signals:
        """Take other signals for the images of a mask (B,) bool."""

        def choose(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (mine.ndim - 1)).to(mine.device), theirs, mine)

        return self.combine(other, choose)

    def merged(self, other: Signals) -> Signals:
        """The signals of both; those of `other` come last, and replace those of the same name."""
        return Signals(
            channels={**self.channels, **other.channels},
            vectors={**self.vectors, **other.vectors},
            tokens={**self.tokens, **other.tokens},
            features=self.features if other.features is None else other.features,
        )

    def only(self, name: str) -> Signals:
        """The signals of one condition."""
        return Signals(
            channels={key: each for key, each in self.channels.items() if key == name},
            vectors={key: each for key, each in self.vectors.items() if key == name},
            tokens={key: each for key, each in self.tokens.items() if key == name},
        )

    def unseen(self) -> Signals:
        """The same without what an encoder made of the images, because one of them changed."""
        return replace(self, features=None)

    def window(self, rows: slice, columns: slice) -> Signals:
        """What holds for a window of the result: images are cut and enlarged, all else stays."""
        cut = {name: each.window(rows, columns) for name, each in self.channels.items()}
        return replace(self, channels=cut)

    def enlarged(self) -> Signals:
        """The same with all images at the size of the result."""
        if all(each.scale == 1 for each in self.channels.values()):
            return self
        large = {name: each.enlarged() for name, each in self.channels.items()}
        return replace(self, channels=large)
