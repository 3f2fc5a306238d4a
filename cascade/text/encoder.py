"""TextEncoder: a frozen model that turns texts into embeddings.

Shapes: N tokens of a text, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EncoderFacts:
    """What a stage's contract states about its text encoder.

    Attributes:
        name: names the encoder in recipes; see `cascade.text.encoders.find_encoder`.
        sha256: hash of the encoder's weights.
        width: width D of a token.
        pooled_width: width P of the pooled vector.
    """

    name: str
    sha256: str
    width: int
    pooled_width: int


@dataclass(frozen=True)
class EncodedText:
    """The embeddings of one text.

    Attributes:
        tokens: (N, D) float16, without padding; N is 0 for an empty text.
        pooled: (P,) float16 with a root mean square of 1; zeros for an empty text.
    """

    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class CutText:
    """A text, split where it becomes too long for an encoder.

    Attributes:
        kept: the part that fits.
        lost: the rest; empty if all of it fits.
    """

    kept: str
    lost: str


class TextEncoder(ABC):
    """A frozen model that turns texts into embeddings."""

    @property
    @abstractmethod
    def facts(self) -> EncoderFacts:
        """Its name, hash and widths."""

    @abstractmethod
    def encode(self, texts: Sequence[str], max_tokens: int) -> list[EncodedText]:
        """Encode texts.

        Args:
            texts: any number of texts; spaces at both ends do not count.
            max_tokens: largest number N of tokens of a text, with the encoder's own marks; longer
                texts are cut.
        """

    @abstractmethod
    def cut(self, text: str, max_tokens: int) -> CutText:
        """Split a text after `max_tokens` tokens, counted with the encoder's own marks."""
