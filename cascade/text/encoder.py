"""TextEncoder: a frozen model that turns texts into embeddings.

Shapes: N tokens of a text, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class EncoderFacts:
    """What a stage's contract states about its text encoder.

    Attributes:
        name: names the encoder in recipes; see `cascade.text.encoders.find_encoder`.
        sha256: hash of the encoder's weights.
        width: width D of a token.
        pooled_width: width P of the pooled vector.
        padded: whether every text, an empty one too, is padded to the same number of tokens, which
            all count, as in DeepFloyd IF.
    """

    name: str
    sha256: str
    width: int
    pooled_width: int
    padded: bool = False


@dataclass(frozen=True)
class EncodedText:
    """The embeddings of one text.

    Attributes:
        tokens: (N, D) float16, without padding unless the encoder pads; N is 0 for an empty text.
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
        unknown: words and characters of the first part that the encoder cannot tell apart.
        scripts: the scripts that the encoder reads, such as `Latin`, if most letters of the first
            part belong to others; empty if it reads them.
    """

    kept: str
    lost: str
    unknown: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()

    @property
    def is_read(self) -> bool:
        """Whether the encoder reads the whole text."""
        return not (self.lost or self.unknown or self.scripts)


class TextEncoder(ABC):
    """A frozen model that turns texts into embeddings.

    Spaces at both ends of a text do not count.
    """

    @property
    @abstractmethod
    def facts(self) -> EncoderFacts:
        """Its name, hash and widths."""

    @property
    @abstractmethod
    def tokenizer_sha256(self) -> str:
        """Hash of the files of its tokenizer, with which kept embeddings change too."""

    @property
    @abstractmethod
    def most_tokens(self) -> int | None:
        """The largest number of tokens that it can read; None if there is no limit."""

    @property
    @abstractmethod
    def ignores_case(self) -> bool:
        """Whether it gives the same embeddings for upper and lower case."""

    @abstractmethod
    def encode(
        self, texts: Sequence[str], max_tokens: int, *, device: torch.device = CPU
    ) -> list[EncodedText]:
        """Encode texts.

        Args:
            texts: any number of texts.
            max_tokens: largest number N of tokens of a text, including the encoder's own marks;
                longer texts are cut.
            device: where to compute.

        Returns:
            The embeddings of each text, on the CPU.
        """

    @abstractmethod
    def cut(self, text: str, max_tokens: int) -> CutText:
        """Split a text after `max_tokens` tokens, including the encoder's own marks."""


def empty_text(facts: EncoderFacts) -> EncodedText:
    """The embeddings of an empty text."""
    tokens = torch.zeros(0, facts.width, dtype=torch.float16)
    return EncodedText(tokens, torch.zeros(facts.pooled_width, dtype=torch.float16))
