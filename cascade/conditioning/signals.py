"""Signals: what a network receives besides noisy images and times, by the way it enters.

Channels are concatenated to the noisy image, vectors are embedded and added to the time embedding,
tokens are attended to. A conditioning image keeps its own size, together with the factor by which
it must be upscaled, so that a window of the result reads only a part of it.

Shapes: B batch, C channels, H and W pixels of the result, h and w of a conditioning image, N
tokens, D width of a token, E channels of an encoder's features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

UPSCALING_MARGIN_PX = 2  # bicubic interpolation reads two pixels to each side


@dataclass(frozen=True)
class ChannelSignal:
    """An image that is concatenated to the noisy one.

    Attributes:
        image: (B, C, h, w) in [-1, 1] plus noise, at its own size.
        scale: whole factor by which it is upscaled to the size of the result.
    """

    image: Tensor
    scale: int = 1

    def window(self, rows: slice, columns: slice) -> ChannelSignal:
        """The part under a window of the result, upscaled from no more pixels than it needs.

        Args:
            rows: rows of the window, in pixels of the result.
            columns: columns of the window, in pixels of the result.
        """
        if self.scale == 1:
            return ChannelSignal(self.image[..., rows, columns])
        cuts, inner = [], []
        for span, side in zip((rows, columns), self.image.shape[-2:], strict=True):
            first = max(0, span.start // self.scale - UPSCALING_MARGIN_PX)
            last = min(side, -(-span.stop // self.scale) + UPSCALING_MARGIN_PX)
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
        mask: (B, N) bool; False marks padding, which the network ignores.
    """

    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Signals:
    """What a network receives besides noisy images and times; all keyed by condition name.

    Attributes:
        channels: images, in the order in which they are concatenated.
        vectors: (B, …) values to embed, of the shape that the condition's `VectorSlot` states.
        tokens: sequences to attend to.
        features: (B, E, h, w) features that the network's encoder extracted from an image; None
            before it ran.
    """

    channels: Mapping[str, ChannelSignal] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, TokenSignal] = field(default_factory=dict)
    features: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Signals:
        """Apply a function to every tensor. The first dimension of each tensor is the batch."""
        return self.combine(self, lambda mine, _: change(mine))

    def combine(self, other: Signals, join: Callable[[Tensor, Tensor], Tensor]) -> Signals:
        """Join each tensor with its counterpart in signals of the same names.

        Features are left out unless both have them.
        """
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
        """Replace the signals of some images by those of `other`.

        Args:
            mask: (B,) bool, True for images whose signals are replaced.
            other: signals of the same names and shapes.
        """

        def choose(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (mine.ndim - 1)).to(mine.device), theirs, mine)

        return self.combine(other, choose)

    def merged(self, other: Signals) -> Signals:
        """The signals of both.

        Those of `other` replace signals of the same name in their place; new names come last.
        """

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

    def without_features(self) -> Signals:
        """The signals without features, for when an image has changed since their extraction."""
        return replace(self, features=None)

    def window(self, rows: slice, columns: slice) -> Signals:
        """The signals of a window of the result: images are cut and upscaled, the rest stays."""
        cut = {name: each.window(rows, columns) for name, each in self.channels.items()}
        return replace(self, channels=cut)

    def enlarged(self) -> Signals:
        """The signals with all images upscaled to the size of the result."""

        if all(each.scale == 1 for each in self.channels.values()):
            return self
        large = {name: each.enlarged() for name, each in self.channels.items()}
        return replace(self, channels=large)
